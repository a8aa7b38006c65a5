"""The copy of a run in wandb, which no run needs, and what was left there by others."""

import os
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import numpy as np

from vsml.config.schema import Config
from vsml.config.sections import WandbConfig
from vsml.runs.directory import RunDirectory
from vsml.runs.progress import say
from vsml.system.extras import needed_for
from vsml.system.files import atomic_write
from vsml.system.guards import prove
from vsml.types import Params

WandbMode = Literal["online", "offline", "disabled"]

_OLD_MODES = {"dryrun": "offline", "run": "online"}
"""What wandb called modes once, and still understands."""

_PROJECT = "vsml"
"""The project where nobody has named another."""

_WANDB_START_TIMEOUT_S = 30.0
_WANDB_FINISH_TIMEOUT_S = 60.0
_API_TIMEOUT_S = 30
_FILE_PAUSE_S = 600.0

ARTIFACTS = ("best", "checkpoint", "learner")
"""Files of a run that wandb keeps, as artifacts `<kind>-<run id>`; the first that is there is restored."""

_WANDB_PATH = re.compile(r"([\w.-]+)/([\w.-]+)/([\w.-]+)(:[\w.-]+)?")


@dataclass(frozen=True)
class _Choice:
    """A value that wandb gets, and who has chosen it."""

    value: Any
    source: str

    def __str__(self) -> str:
        shown = self.value if isinstance(self.value, str) else ", ".join(self.value)
        return f"{shown} ({self.source})"


def _choose(configured: Any, variables: Sequence[str], default: Any = None) -> _Choice:
    """Choose a value: the configuration goes before the environment, and that before the default.

    Args:
        configured: in the configuration; None or nothing there leaves the choice to the others.
        variables: of the environment, the first that is set and not empty counts.
        default: what is taken where nobody has chosen.
    """
    if configured:
        return _Choice(configured, "configuration")
    for name in variables:
        if os.environ.get(name):
            return _Choice(os.environ[name], name)
    return _Choice(default, "default")


def _choices(wandb: WandbConfig, name: str | None, call: str, folder: Path) -> dict[str, _Choice]:
    """Return what wandb gets of a run, by the names that wandb.init has for it."""
    tags = _choose(wandb.tags, ["WANDB_TAGS"], ())
    if isinstance(tags.value, str):
        named = [tag.strip() for tag in tags.value.split(",")]
        tags = _Choice(tuple(tag for tag in named if tag), tags.source)
    return {
        "mode": _choose(wandb.mode, ["WANDB_MODE"]),
        "project": _choose(wandb.project, ["WANDB_PROJECT"], _PROJECT),
        "entity": _choose(wandb.entity, ["WANDB_ENTITY"]),
        "name": _choose(name, ["WANDB_NAME"]),
        "group": _choose(wandb.group, ["WANDB_RUN_GROUP", "WANDB_SWEEP_ID"]),
        "job_type": _choose(wandb.job_type, ["WANDB_JOB_TYPE"], call),
        "tags": tags,
        "dir": _choose(None, ["WANDB_DIR"], str(folder)),
    }


def start_tracking(config: Config, run: RunDirectory | None) -> "WandbTracker":
    """Return the tracker of a run; it goes on with the wandb run that the run's folder names.

    What the configuration leaves open is taken from wandb's own variables (WANDB_PROJECT and the like), and
    a line says who has chosen what.

    Args:
        config: the run.
        run: its folder on rank 0, which gets the file wandb_id; None on the other ranks, which track nothing.
    """
    if run is None:
        return WandbTracker("", "disabled")
    choices = _choices(config.tracking.wandb, config.name, config.call, run.path)
    options = {name: choice.value for name, choice in choices.items()}
    del options["mode"]  # the tracker looks at the environment, too
    tracker = WandbTracker(
        options.pop("dir"),
        config.tracking.wandb.mode,
        config=config.model_dump(mode="json"),
        run_id=run.wandb_id.read_text().strip() if run.wandb_id.exists() else None,
        **options,
    )
    if tracker.run_id is not None:
        atomic_write(run.wandb_id, tracker.run_id)
        told = [f"{name} {choice}" for name, choice in choices.items() if choice.value]
        say(f"wandb: {', '.join(told)}")
    return tracker


class WandbTracker:
    """A copy of a run in wandb. It never prompts, and never stops a run.

    The first failure of wandb becomes a warning, and everything after it does nothing. Files go to
    `directory/wandb`. With mode "disabled" wandb is not even imported.

    Args:
        directory: folder of the run.
        mode: None means what the variable WANDB_MODE says, else "online" if there is an API key
            (WANDB_API_KEY or a login in the netrc file), else "offline". "online" without a key warns and is
            offline.
        config: the resolved config.
        run_id: id of the wandb run to go on with, as `run_id` of the former tracker; None starts a new one.
        options: `project`, `entity`, `group`, `job_type`, `name` and `tags`, as wandb.init takes them.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        mode: WandbMode | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        **options: str | Sequence[str] | None,
    ) -> None:
        self._run: Any = None
        self._defined: set[str] = set()
        self._files_from = 0.0  # when a file may be tried again
        wanted = _mode_of_environment() if mode is None else mode
        if wanted != "disabled":
            self._guarded(lambda: self._start(directory, wanted, config, run_id, options), started=False)

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
        self._guarded(lambda: self._log({**values, "step": step}, "step"))

    def log_params(self, params: Params, step: int) -> None:
        """Log a histogram of each array of the meta-parameters, as "params/<name>"."""

        def log() -> None:
            import wandb

            leaves = jax.tree_util.tree_leaves_with_path(params)
            histograms = {
                f"params/{jax.tree_util.keystr(path, simple=True, separator='/')}": wandb.Histogram(
                    np.asarray(leaf).ravel().tolist()
                )
                for path, leaf in leaves
            }
            self._log({**histograms, "step": step}, "step")

        self._guarded(log)

    def log_curves(self, name: str, axis: str, points: Sequence[Mapping[str, float]]) -> None:
        """Log curves over an axis of their own, as charts "<name>/<curve>".

        Args:
            name: what the charts have in common.
            axis: key of each point that is its place on the axis.
            points: values by curve, in the order of the axis.
        """

        def log() -> None:
            for point in points:
                self._log({f"{name}/{key}": value for key, value in point.items()}, f"{name}/{axis}")

        self._guarded(log)

    def log_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log rows as a table with the columns of the first; what is no number becomes text.

        Args:
            name: what it is called in wandb.
            rows: values by column.
        """

        def log() -> None:
            import wandb

            columns: list[str | int] = list(rows[0])
            cells = [[_cell(row.get(str(column))) for column in columns] for row in rows]
            self._run.log({name: wandb.Table(columns=columns, data=cells)})

        if rows:
            self._guarded(log)

    def log_image(self, name: str, path: str | os.PathLike[str]) -> None:
        """Log an image file under a name."""

        def log() -> None:
            import wandb

            self._run.log({name: wandb.Image(str(path))})

        self._guarded(log)

    def log_file(self, path: str | os.PathLike[str], kind: str, step: int) -> None:
        """Keep a version of a file as the artifact "<kind>-<run id>" of type "learning-algorithm".

        Checkpoints are kept online only: offline they would fill the disk with copies of what is there. When
        it fails, as without a network, only files are left out, and for some minutes, as each try may take
        half a minute.

        Args:
            path: the file.
            kind: one of ARTIFACTS.
            step: meta step.
        """

        def log() -> None:
            import wandb

            if kind == "checkpoint" and self._run.offline:
                return
            artifact = wandb.Artifact(
                f"{kind}-{self._run.id}", type="learning-algorithm", metadata={"step": step}
            )
            artifact.add_file(str(path), name=f"{kind}.safetensors")
            self._run.log_artifact(artifact)

        if self._run is None or time.monotonic() < self._files_from:
            return
        try:
            log()
        except Exception as error:  # wandb raises of all kinds
            self._files_from = time.monotonic() + _FILE_PAUSE_S
            warnings.warn(f"wandb does not take files now, {path} is left out: {error!r}", stacklevel=2)

    def finish(self, exit_code: int = 0) -> None:
        """Write out what is pending and end the wandb run.

        Args:
            exit_code: anything but 0 marks the run as failed.
        """
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
        prove(Path(directory) / "wandb" / "run")  # wandb would follow a link out of the run's folder
        with needed_for("copies of runs in wandb"):
            import wandb  # takes a second, and not every run needs it

        os.makedirs(directory, exist_ok=True)  # WANDB_DIR need not be there: wandb would go elsewhere

        def start(mode: WandbMode) -> Any:
            return wandb.init(
                dir=os.path.abspath(directory),  # wandb's service may be another's, in another folder
                mode=mode,
                config=dict(config or {}),
                id=run_id,
                resume="allow" if run_id else None,
                allow_val_change=True,  # a resumed run may have other settings, such as more meta steps
                settings=wandb.Settings(**_settings(mode)),
                **options,
            )

        mode = _choose_wandb_mode(wanted)
        try:
            self._run = start(mode)
        except Exception as error:  # wandb raises of all kinds
            if mode == "offline":
                raise
            warnings.warn(
                f"wandb is offline, as its server does not answer ({error!r}); send the run later with "
                "`wandb sync`",
                stacklevel=5,
            )
            self._run = start("offline")

    def _log(self, values: Mapping[str, Any], axis: str) -> None:
        """Log values on an axis of ours, as wandb's own step may not go back, which it does in a resumed run.

        Each name is defined by itself: which of two patterns that match would win is not documented.
        """
        for name in values.keys() - self._defined:
            self._run.define_metric(name, **({"hidden": True} if name == axis else {"step_metric": axis}))
        self._defined |= values.keys()
        self._run.log(dict(values))

    def _guarded(self, action: Callable[[], None], started: bool = True) -> None:
        if started and self._run is None:
            return
        try:
            action()
        except Exception as error:  # wandb raises of all kinds, and metrics.jsonl is the truth anyway
            self._run = None
            warnings.warn(
                f"wandb failed, going on without it ({error!r}); the run's folder has everything, and what "
                "wandb got so far can be sent with `wandb sync`",
                stacklevel=3,
            )


def _mode_of_environment() -> str | None:
    """Return the mode that WANDB_MODE asks for; None where it does not."""
    asked = os.environ.get("WANDB_MODE") or None
    mode = _OLD_MODES.get(asked, asked) if asked else None
    if mode not in (None, *get_args(WandbMode)):
        expected = ", ".join(get_args(WandbMode))
        warnings.warn(f"WANDB_MODE: got {asked!r}, expected one of {expected}; offline now", stacklevel=4)
        return "offline"
    return mode


def _settings(mode: WandbMode) -> dict[str, Any]:
    """Return settings of wandb that suit a run, less those that its variables in the environment set."""
    ours = {
        "console": "off",  # leaves stdout to the progress display
        "silent": mode == "offline",
        "init_timeout": _WANDB_START_TIMEOUT_S,
        "finish_timeout": _WANDB_FINISH_TIMEOUT_S,
    }
    return {name: value for name, value in ours.items() if f"WANDB_{name.upper()}" not in os.environ}


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def is_wandb_path(path: str) -> bool:
    """Whether a path that is no file here may be one of wandb: entity/project/run, or an artifact's."""
    local = Path(path)
    here = local.exists() or local.suffix == ".safetensors" or Path(local.parts[0]).exists()
    return not here and _WANDB_PATH.fullmatch(path) is not None


def fetch_from_wandb(path: str) -> bytes:
    """Return a checkpoint that wandb keeps.

    Args:
        path: `entity/project/run`, which stands for the run's best checkpoint, the newest where there is no
            best one, else what it found; or an artifact, `entity/project/name:version`.

    Raises:
        OSError: wandb has none, or cannot be asked; the message says why.
    """
    with needed_for("files that wandb keeps"):
        import wandb

    entity, project, name, version = _WANDB_PATH.fullmatch(path).groups()  # type: ignore[union-attr]
    names = [f"{name}{version}"] if version else [f"{kind}-{name}:latest" for kind in ARTIFACTS]
    try:
        api = wandb.Api(timeout=_API_TIMEOUT_S)
        found = next((each for each in names if api.artifact_exists(f"{entity}/{project}/{each}")), None)
        if found is not None:
            with tempfile.TemporaryDirectory() as folder:
                artifact = api.artifact(f"{entity}/{project}/{found}")
                files = sorted(Path(artifact.download(root=folder)).glob("*.safetensors"))
                if len(files) == 1:
                    return files[0].read_bytes()
    except Exception as error:  # wandb raises of all kinds
        raise OSError(
            f"{path}: there is no such file here, and wandb cannot be asked for it: {error}. It needs a "
            "network and an API key (`wandb login`)"
        ) from error
    raise FileNotFoundError(
        f"{path}: there is no such file here, and wandb has no artifact {' or '.join(names)} with one "
        f".safetensors file in {entity}/{project}"
    )


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
