"""What a run leaves behind: its directory with config, environment and metrics, and its copy in wandb."""

import datetime
import json
import math
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from vsml.files import atomic_write, library_versions

WandbMode = Literal["online", "offline", "disabled"]

_WANDB_START_TIMEOUT_S = 30.0
_WANDB_FINISH_TIMEOUT_S = 120.0
_GIT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run, written by rank 0. Made by `create_run` or `open_run`.

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

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Write environment.json, usually what `describe_environment` returns."""
        atomic_write(self.environment, json.dumps(jsonable(environment), indent=2) + "\n")

    def append_metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl; it is in the file when this returns.

        Args:
            step: meta step, never lower than that of the line before.
            values: numbers, 0-d arrays, texts or nestings of them; NaN and infinities are written as null.
        """
        line = json.dumps({"step": step, **jsonable(values)}, allow_nan=False)
        with open(self.metrics, "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def truncate_metrics(self, step: int) -> None:
        """Cut metrics.jsonl back to the lines up to and including a meta step, as a resumed run needs it.

        The lines that stay keep their bytes; a half-written last line goes.

        Args:
            step: the step of the checkpoint that the run goes on from.
        """
        if self.metrics.exists():
            kept = [line for line, values in _complete_lines(self.metrics) if values["step"] <= step]
            atomic_write(self.metrics, "".join(kept))


def create_run(
    config: str,
    *,
    directory: str | os.PathLike[str] | None = None,
    name: str = "run",
    root: str | os.PathLike[str] = "runs",
) -> RunDirectory:
    """Make the directory of a new run and write its config.yaml, before anything else.

    Args:
        config: text of config.yaml.
        directory: the folder to use; None means `root/<date_time>-<name>/`.
        name: last part of the folder's name.
        root: where the folder is made.

    Raises:
        ValueError: the directory holds a run already.
        OSError: it cannot be made or written.
    """
    if directory is None:
        stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        run = RunDirectory(_make_unused(Path(root) / f"{stamp}-{name}"))
    else:
        run = RunDirectory(Path(directory))
        if run.config.exists() or run.metrics.exists() or run.checkpoints.exists():
            raise ValueError(f"run_dir: {directory} holds a run already; resume it, or name another folder")
        run.path.mkdir(parents=True, exist_ok=True)
    atomic_write(run.config, config)
    return run


def open_run(directory: str | os.PathLike[str]) -> RunDirectory:
    """Return the directory of an existing run, to resume or to read.

    Raises:
        ValueError: there is no config.yaml in it.
    """
    run = RunDirectory(Path(directory))
    if not run.config.exists():
        raise ValueError(f"{directory}: expected the directory of a run, got one without config.yaml")
    return run


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
        "git": _git_state(Path(__file__).parent),
        "device": {
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "count": len(devices),
        },
        "world_size": world_size,
        "command_line": [sys.executable, *sys.argv],
    }


class WandbTracker:
    """A copy of the metrics in wandb. It never prompts, and never stops a run.

    The first failure of wandb becomes a warning, and everything after it does nothing. Files go to
    `directory/wandb`. On ranks other than 0, and with mode "disabled", wandb is not even imported.

    Args:
        directory: folder of the run.
        mode: None means what the variable WANDB_MODE says, else "online" if there is an API key
            (WANDB_API_KEY or a login in the netrc file), else "offline". "online" without a key warns and is
            offline.
        rank: number of this process.
        config: the resolved config.
        run_id: id of the wandb run to go on with, as `run_id` of the former tracker; None starts a new one.
        options: `project`, `entity`, `group`, `job_type`, `name` and `tags`, as wandb.init takes them.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        mode: WandbMode | None = None,
        *,
        rank: int = 0,
        config: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        **options: str | Sequence[str] | None,
    ) -> None:
        self._run: Any = None
        wanted = os.environ.get("WANDB_MODE") if mode is None else mode
        if rank == 0 and wanted != "disabled":
            self._guarded(lambda: self._start(directory, wanted, config, run_id, options))

    @property
    def run_id(self) -> str | None:
        """Id to resume the wandb run by; None when nothing is tracked."""
        return None if self._run is None else self._run.id

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Log numbers on the axis "step".

        Args:
            values: by name.
            step: meta step.
        """
        if self._run is not None:
            self._guarded(lambda: self._run.log({**values, "step": step}))

    def log_image(self, name: str, path: str | os.PathLike[str], step: int) -> None:
        """Log an image file.

        Args:
            name: what it is called in wandb.
            path: the file.
            step: meta step.
        """
        if self._run is not None:
            self._guarded(lambda: self._log_image(name, path, step))

    def finish(self, exit_code: int = 0) -> None:
        """Write out what is pending and end the wandb run.

        Args:
            exit_code: anything but 0 marks the run as failed.
        """
        if self._run is not None:
            self._guarded(lambda: self._run.finish(exit_code=exit_code))
            self._run = None

    def _start(
        self,
        directory: str | os.PathLike[str],
        wanted: str | None,
        config: Mapping[str, Any] | None,
        run_id: str | None,
        options: Mapping[str, Any],
    ) -> None:
        import wandb  # takes a second, and not every run needs it

        mode = _choose_wandb_mode(wanted)
        self._run = wandb.init(
            dir=str(directory),
            mode=mode,
            config=dict(config or {}),
            id=run_id,
            resume="allow" if run_id else None,
            settings=wandb.Settings(
                console="off",  # leaves stdout to the progress display
                silent=mode == "offline",
                init_timeout=_WANDB_START_TIMEOUT_S,
                finish_timeout=_WANDB_FINISH_TIMEOUT_S,
            ),
            **options,
        )
        # An axis of our own: wandb's built-in step must not go back, which it does when a run is resumed.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def _log_image(self, name: str, path: str | os.PathLike[str], step: int) -> None:
        import wandb

        self._run.log({name: wandb.Image(str(path)), "step": step})

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # wandb raises of all kinds, and metrics.jsonl is the truth anyway
            self._run = None
            warnings.warn(f"wandb failed, going on without it: {error!r}", stacklevel=3)


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


def _git_state(folder: Path) -> dict[str, Any] | None:
    """Return commit and dirtiness of the checkout that the folder belongs to, None where there is none."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_GIT_TIMEOUT_S
        ).stdout.strip()

    try:
        # A library installed into a virtual environment inside some other checkout is not part of that one.
        if not git("ls-files", "__init__.py"):
            return None
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _choose_wandb_mode(wanted: str | None) -> WandbMode:
    """Return "online" only where that needs no question."""
    import wandb

    if wanted == "offline":
        return "offline"
    if wandb.login(prompt=False, verify=False):  # looks for a key, asks neither the user nor the server
        return "online"
    if wanted == "online":
        warnings.warn(
            "wandb: online was asked for, but there is no API key; offline instead. "
            "Run `wandb login` or set WANDB_API_KEY",
            stacklevel=5,
        )
    return "offline"
