"""What a run leaves behind: its directory with config, environment and metrics."""

import contextlib
import datetime
import json
import math
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vsml.system import locks
from vsml.system.files import atomic_write, library_versions

_GIT_TIMEOUT_S = 10.0

GIT_STATE_NAME = "git_state.json"
"""In a copy of the code, which has no history: what `git_state` said of the original."""


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
        atomic_write(self.environment, json.dumps(jsonable(environment), indent=2) + "\n")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out of the run; the lock goes with the process, however that ends.

        The folder is made if need be. Where the file system knows no locks, there is a warning and no lock.

        Raises:
            RunLockedError: another process has the run.
            OSError: the folder cannot be made or written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(locks.hold(self.path / ".lock", _this_process()))
            except locks.HeldError as error:
                raise RunLockedError(
                    f"run_dir: {self.path} is in use by {error.holder or 'another process'}; "
                    "stop that, wait for its end, or name another folder"
                ) from error
            except locks.NoLocksError as error:
                warnings.warn(f"{self.path} is not locked against a second run: {error}", stacklevel=3)
            yield

    def truncate_metrics(self, step: int) -> None:
        """Cut metrics.jsonl back to the lines up to and including a meta step, as a resumed run needs it.

        The lines that stay keep their bytes; a half-written last line goes.

        Args:
            step: the step of the checkpoint that the run goes on from.
        """
        if self.metrics.exists():
            kept = [line for line, values in _complete_lines(self.metrics) if values["step"] <= step]
            atomic_write(self.metrics, "".join(kept))


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


class MetricsLog:
    """metrics.jsonl of a run; lines wait here while the disk is full or the folder away.

    Args:
        path: the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._waiting: list[str] = []

    def append(self, step: int, values: Mapping[str, Any]) -> None:
        """Add one line, which waits for `flush`.

        Args:
            step: meta step, never lower than that of the line before.
            values: numbers, 0-d arrays, texts or nestings of them; NaN and infinities are written as null.
        """
        self._waiting.append(json.dumps({"step": step, **jsonable(values)}, allow_nan=False) + "\n")

    def flush(self) -> None:
        """Write what waits; it is in the file when this returns.

        Raises:
            OSError: it cannot be written; the file is as it was, and the lines wait on.
        """
        if not self._waiting:
            return
        with open(self._path, "ab", buffering=0) as file:
            before = file.tell()
            try:
                data = "".join(self._waiting).encode()
                while data:
                    data = data[file.write(data) or 0 :]
            except OSError:
                file.truncate(before)  # no half line for the next one to be glued to
                raise
        self._waiting.clear()

    def copy_to(self, path: str | os.PathLike[str]) -> None:
        """Write another file with the lines of this one, as far as it can be read, and those that wait."""
        written = b""
        with contextlib.suppress(OSError):
            written = self._path.read_bytes()
        atomic_write(path, written + "".join(self._waiting).encode())


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the objects of a metrics.jsonl in order; a half-written last line is left out.

    Args:
        path: the file.

    Raises:
        ValueError: another line is not a JSON object.
    """
    return [values for _, values in _complete_lines(Path(path))]


def describe_environment(world_size: int = 1) -> dict[str, Any]:
    """Return what a run's numbers may depend on, ready for environment.json.

    Args:
        world_size: number of ranks.

    Returns:
        versions, python, platform, git {commit, dirty} of this library (None outside a git checkout), device
        {platform, kind, count} of this rank, world_size, command_line.
    """
    devices = jax.local_devices()
    return {
        "versions": library_versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": git_state(Path(__file__).parents[2]),
        "device": {
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "count": len(devices),
        },
        "world_size": world_size,
        "command_line": [sys.executable, *sys.argv],
    }


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


def _complete_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return lines with their line ends, and the objects in them."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    complete = []
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line.endswith("\n"):
            break
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: expected a JSON object, got {line[:80]!r}") from error
        complete.append((line, values))
    return complete


def jsonable(value: Any) -> Any:
    """Return the value as JSON has it: arrays as numbers or lists, NaN and infinities as None."""
    if isinstance(value, Mapping):
        return {str(name): jsonable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return jsonable(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return commit and dirtiness of the checkout that this is, or was copied from; None where there is none.

    Args:
        folder: the one that has launch.py and vsml/.
    """
    copied = folder / GIT_STATE_NAME
    if copied.exists():
        return json.loads(copied.read_text())

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_GIT_TIMEOUT_S
        ).stdout.strip()

    try:
        # A library installed into a virtual environment inside some other checkout is not part of that one.
        if not git("ls-files", "vsml/__init__.py"):
            return None
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
