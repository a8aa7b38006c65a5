"""A private PostgreSQL on the loopback address, of Debian's package where there is one."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

STARTS_S = 60.0


def programs():
    """Return the folder of PostgreSQL's programs, or None."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb")
    if found:
        folders.append(Path(found).parent)
    for folder in folders:
        if all((folder / name).exists() for name in ("initdb", "postgres")):
            return folder
    return None


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A server with a database in a folder; it can be killed and started again."""

    def __init__(self, folder):
        self.programs = programs()
        if self.programs is None:
            pytest.skip("needs a PostgreSQL server: apt-get install postgresql")
        self.user = None
        if os.geteuid() == 0:
            # The server refuses to run as root.
            try:
                self.user = pwd.getpwnam("postgres").pw_name
            except KeyError:
                pytest.skip("root needs the user postgres to start a PostgreSQL server")
        self.folder = folder
        self.port = free_port()
        self.process = None
        name = self.user or pwd.getpwuid(os.geteuid()).pw_name
        self.url = f"postgresql://{name}@127.0.0.1:{self.port}/postgres"
        folder.mkdir()
        if self.user:
            shutil.chown(folder, self.user)
            for parent in folder.parents:
                if parent.stat().st_uid == os.geteuid() and parent.is_relative_to("/tmp"):
                    parent.chmod(parent.stat().st_mode | 0o111)
        self.run("initdb", "--auth=trust", "--no-sync", "-D", str(folder / "data"))

    def command(self, name, *arguments):
        return [str(self.programs / name), *arguments]

    def run(self, name, *arguments):
        subprocess.run(self.command(name, *arguments), check=True, capture_output=True, user=self.user)

    def start(self):
        arguments = ["-D", str(self.folder / "data"), "-p", str(self.port), "-h", "127.0.0.1"]
        arguments += ["-k", str(self.folder), "-c", "max_connections=300"]
        log = (self.folder.parent / "postgres.log").open("ab")
        self.process = subprocess.Popen(
            self.command("postgres", *arguments), stdout=log, stderr=log, user=self.user
        )
        deadline = time.monotonic() + STARTS_S
        while time.monotonic() < deadline:
            try:
                self.run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port))
                return
            except subprocess.CalledProcessError:
                time.sleep(0.1)
        raise TimeoutError(f"PostgreSQL did not start within {STARTS_S:.0f} s; see {log.name}")

    def kill(self):
        """End the server as a crash of the machine would: it recovers at the next start."""
        if self.process is None:
            return
        self.process.send_signal(3)  # SIGQUIT: at once, without a clean end
        self.process.wait()
        self.process = None
