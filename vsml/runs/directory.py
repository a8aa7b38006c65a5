"""The directory of a run: which files it has, who works in it, and how it is made and found."""

import contextlib
import datetime
import os
import platform
import secrets
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsml.runs.metrics import complete_lines
from vsml.system import locks
from vsml.system.files import atomic_write, check_own, read_regular, write_json
from vsml.system.guards import ForeignFolderError, guarded, is_guarded


class RunLockedError(ValueError):
    """Another process works in the directory of a run; the message says which."""


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run, written by rank 0. Made by `new_run` or `open_run`.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """What the run ran on."""
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def complete(self) -> Path:
        """An empty file that says that the run has done all that it was to do."""
        return self.path / "complete"

    @property
    def wandb_id(self) -> Path:
        """The id of the wandb run that goes with this one."""
        return self.path / "wandb_id"

    @property
    def exists(self) -> bool:
        """Whether a run has been started here."""
        return self.config.exists() or self.metrics.exists() or self.checkpoints.exists()

    def start(self, config: str, environment: Mapping[str, Any]) -> None:
        """Write the files that a run begins with, config.yaml first.

        Args:
            config: text of config.yaml.
            environment: usually what `describe_environment` returns.

        Raises:
            ValueError: the folder holds a run already.
            OSError: it cannot be written.
        """
        if self.exists:
            raise ValueError(f"run_dir: {self.path} holds a run already; resume it, or name another folder")
        self.path.mkdir(parents=True, exist_ok=True)
        atomic_write(self.config, config)
        self.write_environment(environment)

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Write environment.json, usually what `describe_environment` returns."""
        write_json(self.environment, environment)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out of the run, and this one out of a folder that is no longer the run's.

        The lock goes with the process, however that ends. As long as it is held, each write below the folder
        (`vsml.system.files`) first proves that the folder is the one that was locked; else it raises
        `ForeignFolderError`. The folder is made if need be. Where the file system knows no locks, there is a
        warning: a second process gets in then, and the first one is told so at its next write.

        Raises:
            RunLockedError: another process has the run.
            OSError: the folder cannot be made or written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        # No other process, and no other session of this one, writes the same into its lock.
        note = f"{_this_process()}id {secrets.token_hex(16)}\n"
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(locks.hold(self._lock, note))
            except locks.HeldError as error:
                who = error.holder.partition("\n")[0] or "another process"
                raise RunLockedError(
                    f"run_dir: {self.path} is in use by {who}; "
                    "stop that, wait for its end, or name another folder"
                ) from error
            except locks.NoLocksError as error:
                warnings.warn(f"{self.path} is not locked against a second run: {error}", stacklevel=3)
                atomic_write(self._lock, note)
            folder = held.enter_context(_opened(self.path))
            held.enter_context(guarded(self.path, lambda: self._check_own(note, folder)))
            yield

    @property
    def is_locked_here(self) -> bool:
        """Whether this process has locked the run."""
        return is_guarded(self.path)

    @property
    def _lock(self) -> Path:
        """Names the process that works in the folder."""
        return self.path / ".lock"

    def _check_own(self, note: str, folder: int | None) -> None:
        """Raise ForeignFolderError unless the folder at the path is the one that this process has locked.

        Its lock says so, which goes with a folder that is moved away and back. Where somebody has removed the
        lock alone, the folder itself does.

        Args:
            note: what this process wrote into the lock.
            folder: descriptor of the folder that it has locked; None where folders cannot be opened.
        """
        try:
            check_own(self._lock)
            found = read_regular(self._lock).decode(errors="replace")
        except FileNotFoundError:
            there = os.stat(self.path)  # raises where there is no folder at all
            if folder is not None and os.path.samestat(there, os.fstat(folder)):
                return
            found = ""
        if found != note:
            now = f"in use by {found.partition(chr(10))[0]}" if found else "another folder of that name"
            raise ForeignFolderError(f"{self.path} is no longer the folder of this run: it is {now}")

    def truncate_metrics(self, step: int) -> None:
        """Cut metrics.jsonl back to the lines up to and including a meta step, as a resumed run needs it.

        The lines that stay keep their bytes; a half-written last line goes.

        Args:
            step: the step of the checkpoint that the run goes on from.
        """
        check_own(self.metrics)
        if self.metrics.exists():
            kept = [line for line, values in complete_lines(self.metrics) if values["step"] <= step]
            atomic_write(self.metrics, "".join(kept))


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int | None]:
    """Keep a folder open, so that no other gets its number; None where folders cannot be opened."""
    if os.name != "posix":
        yield None
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def rescue_run(run: RunDirectory) -> RunDirectory:
    """Make a folder among the temporary files (TMPDIR) for what the folder of a run does not take."""
    return RunDirectory(Path(tempfile.mkdtemp(prefix=f"{run.path.name}-")))


def new_run(
    directory: str | os.PathLike[str] | None = None,
    *,
    name: str = "run",
    root: str | os.PathLike[str] = "runs",
) -> RunDirectory:
    """Return the directory of a run to be.

    Args:
        directory: the folder to use, made when it is locked; None makes `root/<date_time>-<name>/`.
        name: last part of the folder's name.
        root: where the folder is made.

    Raises:
        OSError: it cannot be made.
    """
    if directory is not None:
        return RunDirectory(Path(directory))
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return RunDirectory(_make_unused(Path(root) / f"{stamp}-{name}"))


def open_run(directory: str | os.PathLike[str]) -> RunDirectory:
    """Return the directory of an existing run, to resume or to read.

    Raises:
        ValueError: there is no config.yaml in it.
    """
    run = RunDirectory(Path(directory))
    if not run.config.exists():
        raise ValueError(f"{directory}: expected the directory of a run, got one without config.yaml")
    return run


def _this_process() -> str:
    """Return what a user needs to find this process: its number, machine and job."""
    job = os.environ.get("SLURM_JOB_ID")
    since = datetime.datetime.now().isoformat(sep=" ", timespec="seconds")
    return f"process {os.getpid()} on {platform.node()}{f', Slurm job {job},' if job else ''} since {since}\n"


def _make_unused(path: Path) -> Path:
    """Make the folder; where another run of the same second has it, one with a number added."""
    path.parent.mkdir(parents=True, exist_ok=True)
    candidate, number = path, 1
    while True:
        try:
            candidate.mkdir()
            return candidate
        except FileExistsError:
            number += 1
            candidate = path.with_name(f"{path.name}-{number}")
