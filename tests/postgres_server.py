"""A private PostgreSQL for the tests: own port on the loopback address, everything in one folder."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import debian
import pytest

_USER = "postgres"
"""Who runs the server where the tests are root's, whom PostgreSQL refuses."""

_TIMEOUT_S = 120


class Server:
    """A server that can be stopped, as by a crash, and started again.

    Args:
        folder: of its own, which the user of the server may enter and write.
        programs: folder of initdb and pg_ctl.
        clients: most connections.
    """

    def __init__(self, folder: Path, programs: Path, clients: int) -> None:
        self.folder = folder
        self._programs = programs
        self._clients = clients
        with socket.socket() as any_port:
            any_port.bind(("127.0.0.1", 0))
            self.port = any_port.getsockname()[1]
        self._run("initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "vsml", "-E", "UTF8", "--locale=C")

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database."""
        return f"postgresql://vsml@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and return when it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        options += f" -c max_connections={self._clients}"
        self._run(
            "pg_ctl", "-D", f"{self.folder}/data", "-w", "-o", options, "-l", f"{self.folder}/log", "start"
        )

    def stop(self, mode: str = "immediate") -> None:
        """Stop it; `immediate` is as a crash."""
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-m", mode, "-w", "stop")

    def cpu_s(self) -> float:
        """Return the seconds that its processes have computed; those of clients count when they are gone."""
        postmaster = (self.folder / "data" / "postmaster.pid").read_text().split()[0]
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        of_itself_and_the_gone = _times(postmaster)
        of_those_there = [sum(_times(child)[:2]) for child in children]
        return (sum(of_itself_and_the_gone) + sum(of_those_there)) / os.sysconf("SC_CLK_TCK")

    def _run(self, program: str, *arguments: str) -> None:
        as_user = ["runuser", "-u", _USER, "--"] if os.geteuid() == 0 else []
        done = subprocess.run(
            [*as_user, str(self._programs / program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # which the server keeps open
            stderr=(self.folder / "errors").open("ab"),
            timeout=_TIMEOUT_S,
            cwd="/",
            check=False,
        )
        if done.returncode:
            told = [
                path.read_text()[-1000:]
                for path in (self.folder / "errors", self.folder / "log")
                if path.exists()
            ]
            raise RuntimeError(f"{program} failed: {' '.join(told)}")


@contextlib.contextmanager
def server(clients: int = 250) -> Iterator[Server]:
    """Run a server; the test is skipped, with the reason, where there can be none."""
    # In no folder of pytest's, which only the user of the tests may enter.
    folder = Path(tempfile.mkdtemp(prefix="vsml-postgres-"))
    try:
        running = _made(folder, clients)
        running.start()
        try:
            yield running
        finally:
            with contextlib.suppress(RuntimeError):  # a test has stopped it
                running.stop()
    finally:
        shutil.rmtree(folder)


def _made(folder: Path, clients: int) -> Server:
    programs = _programs()
    if programs is None:
        debian.need({"initdb": "postgresql"})
        programs = _programs()
    if programs is None:
        pytest.skip("needs initdb and pg_ctl of PostgreSQL")
    if os.geteuid() == 0:
        if not shutil.which("runuser"):
            pytest.skip("needs runuser: PostgreSQL does not run as root")
        try:
            user = pwd.getpwnam(_USER)
        except KeyError:
            pytest.skip(f"needs a user {_USER}: PostgreSQL does not run as root")
        os.chown(folder, user.pw_uid, user.pw_gid)
    return Server(folder, programs, clients)


def _times(process: str) -> list[int]:
    """Return user and system time of a process, and of its children that have ended, in ticks."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return [0, 0, 0, 0]
    return list(map(int, fields[11:15]))


def _programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, of Debian's newest version or on the PATH."""
    of_debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = [*reversed(of_debian), *map(Path, filter(None, [shutil.which("initdb")]))]
    return found[0].parent if found else None
