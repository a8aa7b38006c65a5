"""Learning algorithms that come with the library, and files of others: ready to learn in one call.

    algorithm = vsml.load_learner("general", input_shape=(13,), num_classes=3)
    state = algorithm.start()
    state, logits = algorithm.step(state, x, y)  # answers x [1, 13], then learns from its label y [1]

A run becomes one of those that come with the library by

    python -m vsml.pretrained RUN_DIR NAME
"""

import datetime
import json
import math
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import ValidationError

from vsml.config.files import ConfigError
from vsml.config.model import ModelConfig, ModelSettings, model_choices
from vsml.config.sections import ComparedLearner
from vsml.evaluation.stored import NETWORK, StoredParams
from vsml.learners import Learner, continue_episode, make_learner
from vsml.moved import old_names
from vsml.runs import checkpoint
from vsml.runs.directory import RunDirectory, open_run
from vsml.runs.metrics import read_metrics
from vsml.settings import deep_merge
from vsml.system.arguments import ArgumentParser
from vsml.system.comm import SerialCommunicator
from vsml.system.files import atomic_write
from vsml.system.numerics import standard_numerics
from vsml.tasks.data.licences import licences_of
from vsml.types import Array, Episode, Outputs, Params, State, Values, as_outputs, target_shape

__getattr__ = old_names(__name__)

MAX_BYTES = 100_000
"""Size of a file that comes with the library, at most."""

MAX_SIZE = 2**24
"""Numbers of an input, or outputs, at most: far more than any learner has memory for."""
LICENCE = "MIT"
"""Of the learning algorithms that come with the library: its own. The data that they met have others."""

_ROOT = Path(__file__).parents[1]
_LOG_LINES = 200
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/~-])~?/[^\s,:\[\]{}'\"]+")


RULE_PREFIX = "rule:"
"""Before the name or the file of a local rule."""


@dataclass(frozen=True, eq=False)
class LoadedLearner:
    """A learning algorithm: a learner for one input shape and its outputs, with its meta-parameters.

    Inputs are expected as in meta-training: of mean 0 and variance 1, over all inputs or each.

    Attributes:
        name: what it was loaded by.
        learner: the learner.
        params: its meta-parameters.
        model: settings of the learner.
        metadata: what its file says about it: config, command, commit, results, ...
    """

    name: str
    learner: Learner
    params: Params
    model: ModelSettings
    metadata: Mapping[str, Any]

    def start(self, seed: int = 0, batch_size: int = 1) -> State:
        """Draw the state of a learner that has not seen anything, for `batch_size` examples a step."""
        return _start(self.learner, self.params, jax.random.key(seed), batch_size)

    def step(self, state: State, x: Any, y: Any, taught: Any = None) -> tuple[State, Array]:
        """Answer the inputs x [B, *input_shape], then learn from their targets y.

        Args:
            state: what was learned so far.
            x: inputs.
            y: labels [B], or values [B, D].
            taught: 1 where the target is told, 0 where it is not, [B]; None: always.

        Returns:
            The new state and the logits [B, C] or values [B, D], given before y was seen.

        Raises:
            ValueError: shapes do not fit, a label is none of 0..C-1, or a number is not finite in float32.
                Inside of functions that JAX traces, values cannot be looked at.
        """
        return _step(self.learner, self.params, state, *self._example(x, y, taught, leading=1))

    def run(self, state: State, x: Any, y: Any, taught: Any = None) -> tuple[State, Array]:
        """Take a step for each of x [T, B, *input_shape] and y [T, B] or [T, B, D] in one compiled call.

        Returns:
            The state after the last, and the logits [T, B, C] or values [T, B, D], each given before its
            target was seen.

        Raises:
            ValueError: as of `step`.
        """
        return _run(self.learner, self.params, state, *self._example(x, y, taught, leading=2))

    def predict(self, state: State, x: Any) -> Array:
        """Return the logits [K, C] or values [K, D] of inputs x [K, *input_shape]; nothing is learned.

        Raises:
            ValueError: as of `step`.
        """
        return _predict(self.learner, self.params, state, self._inputs(x, leading=1))

    def _example(self, x: Any, y: Any, taught: Any, leading: int) -> tuple[Array, Array, Array | None]:
        """Return what is learned from as arrays of the types that the learner takes, checked."""
        inputs = self._inputs(x, leading)
        told = None
        if taught is not None:
            told = jnp.asarray(taught, jnp.float32)
            _check_shape("taught", told, inputs.shape[:leading])
        targets = _targets(y, self.learner.outputs, inputs.shape[:leading], told)
        return inputs, targets, told

    def _inputs(self, x: Any, leading: int) -> Array:
        """Return inputs float32 [..., *input_shape] with so many leading axes, checked."""
        inputs = jnp.asarray(x, jnp.float32)
        expected = (*inputs.shape[:leading], *self.learner.input_shape)
        _check_shape("x", inputs, expected)
        if inputs.ndim < leading:
            raise ValueError(f"x: got shape {inputs.shape}, expected {leading} leading axes")
        _check_finite("x", inputs)
        return inputs


def _targets(
    y: Any,
    outputs: Outputs,
    batch: tuple[int, ...],
    told: Array | None,
) -> Array:
    """Return targets for a batch: labels int32 [*batch] in 0..C-1, or values float32 [*batch, D].

    Those that are not told may be anything. No learner looks at them.
    """
    expected = target_shape(outputs, *batch)
    if isinstance(outputs, Values):
        values = jnp.asarray(y, expected.dtype)
        _check_shape("y", values, expected.shape)
        _check_finite("y", values if told is None else jnp.where(told[..., None] > 0, values, 0))
        return values
    if isinstance(y, jax.core.Tracer):
        # What is traced has no values to look at.
        return jnp.asarray(y, expected.dtype)
    labels = np.asarray(y)
    _check_shape("y", labels, expected.shape)
    if told is not None and not isinstance(told, jax.core.Tracer):
        labels = np.where(np.asarray(told) > 0, labels, 0)
    _check_labels(labels, outputs.size)
    return jnp.asarray(labels, expected.dtype)


def _check_labels(labels: np.ndarray, classes: int) -> None:
    """Raise a ValueError for labels that are no numbers of classes."""
    if labels.dtype.kind not in "biuf":
        raise ValueError(f"y: got labels of type {labels.dtype}, expected whole numbers 0..{classes - 1}")
    is_class = (labels >= 0) & (labels < classes) & (labels == np.floor(labels))
    if not is_class.all():
        wrong = np.unique(labels[~is_class])
        shown = ", ".join(map(str, wrong[:5].tolist()))
        raise ValueError(
            f"y: got the label(s) {shown}, expected whole numbers 0..{classes - 1} for {classes} classes; "
            "numpy.unique(y, return_inverse=True) numbers other labels"
        )


def _check_shape(name: str, array: Any, expected: tuple[int, ...]) -> None:
    """Raise a ValueError for an array of another shape."""
    if array.shape != expected:
        raise ValueError(f"{name}: got shape {array.shape}, expected {expected}")


def _check_finite(name: str, array: Array) -> None:
    """Raise a ValueError for numbers that would spoil a state for good."""
    if isinstance(array, jax.core.Tracer):
        return
    if not bool(jnp.isfinite(array).all()):
        raise ValueError(f"{name}: got numbers that are not finite in float32, expected finite ones")


def load_learner(
    name: str,
    *,
    input_shape: tuple[int, ...],
    num_classes: int | None = None,
    outputs: Outputs | None = None,
    model: Mapping[str, Any] | None = None,
) -> LoadedLearner:
    """Load a learning algorithm for inputs of a shape, and a number of classes or of values.

    Args:
        name: one that comes with the library (`available()`), or the path of a file such as
            learner.safetensors, or of a run's folder; or `rule:` and a local rule, a known one or the path of
            a .rule file (docs/rules.md).
        input_shape: shape of one input, such as (28, 28) or (13,).
        num_classes: C, at least 1; or
        outputs: what it answers with, such as `vsml.types.Values(2)`. Those that come with the library were
            meta-trained on classes.
        model: settings that differ from the file's, as in a run's configuration: of the network around the
            synapses (`vsml.evaluation.candidates.NETWORK`), and of how they are computed. More features cost
            more time and are often worth it: {"vsml": {"random_features": {"count": 512}}}.

    Raises:
        FileNotFoundError: there is none of that name.
        CheckpointError: the file is damaged, or its meta-parameters do not fit the shapes.
        ConfigError: its model settings are none that exist here, or `model` makes it another algorithm.
        ValueError: a shape or number is out of range, or the file does not say what model it is of.
    """
    if (num_classes is None) == (outputs is None):
        got = f"num_classes {num_classes} and outputs {outputs}"
        raise ValueError(f"load_learner: got {got}, expected one of them")
    asked = as_outputs(num_classes if outputs is None else outputs)  # type: ignore[arg-type]
    if not all(size > 0 for size in input_shape):
        raise ValueError(f"load_learner: got input_shape {input_shape}, expected positive numbers")
    if max(math.prod(input_shape), asked.size) > MAX_SIZE:
        got = f"input_shape {input_shape} and {asked.size} outputs"
        raise ValueError(f"load_learner: got {got}, expected at most {MAX_SIZE} numbers each")
    if name.startswith(RULE_PREFIX):
        return _load_rule(name, tuple(input_shape), asked, model or {})
    path = f"{checkpoint.PRETRAINED_PREFIX}{name}" if name in available() else name
    stored = StoredParams.read(path, SerialCommunicator())
    if stored.model is None:
        raise ValueError(f"{name}: does not say what model it is of; expected a file with its config")
    settings = _changed(stored, stored.model, model or {})
    learner = make_learner(settings.type, settings.settings, tuple(input_shape), asked)
    metadata = checkpoint.params_from_bytes(stored.data, name)[1]
    return LoadedLearner(name, learner, stored.fit(learner), settings, metadata)


def _load_rule(
    name: str,
    input_shape: tuple[int, ...],
    outputs: Outputs,
    model: Mapping[str, Any],
) -> LoadedLearner:
    """Return a local rule as a learner, with the constants of its text."""
    asked = {"type": "rule", "rule": {"rule": name.removeprefix(RULE_PREFIX)}}
    try:
        settings = ModelConfig.model_validate(deep_merge(asked, model))
    except ValidationError as error:
        raise ConfigError([f"{name}: got {dict(model)}, expected settings of a model: {error}"]) from error
    learner = make_learner(settings.type, settings.settings, input_shape, outputs)
    params = learner.init_params(jax.random.key(0))
    return LoadedLearner(name, learner, params, settings, {})


def _changed(stored: StoredParams, model: ModelSettings, changes: Mapping[str, Any]) -> ModelSettings:
    """Return the settings of a file with the changes that are allowed."""
    try:
        ((_, changed),) = model_choices(model, ComparedLearner(name="loaded", model=changes))
    except ValidationError as error:
        raise ConfigError([f"model: got {dict(changes)}, expected settings of a model: {error}"]) from error
    stored.check(changed, NETWORK)
    return changed


def available() -> tuple[str, ...]:
    """Return the names of the learning algorithms that come with the library."""
    return checkpoint.pretrained_names()


@standard_numerics()
@partial(jax.jit, static_argnames=("learner", "batch_size"))
def _start(learner: Learner, params: Params, key: Array, batch_size: int) -> State:
    return learner.init_state(params, key, batch_size)


@standard_numerics()
@partial(jax.jit, static_argnames=("learner",))
def _step(
    learner: Learner, params: Params, state: State, x: Array, y: Array, taught: Array | None
) -> tuple[State, Array]:
    return learner.step(params, state, x, y) if taught is None else learner.step(params, state, x, y, taught)


@standard_numerics()
@partial(jax.jit, static_argnames=("learner",))
def _run(
    learner: Learner, params: Params, state: State, x: Array, y: Array, taught: Array | None
) -> tuple[State, Array]:
    weight = jnp.ones(y.shape[:2])
    return continue_episode(learner, params, state, Episode(x, y, weight, taught))


@standard_numerics()
@partial(jax.jit, static_argnames=("learner",))
def _predict(learner: Learner, params: Params, state: State, x: Array) -> Array:
    return learner.predict(params, state, x)


def export(run_dir: str | Path, name: str, root: str | Path = _ROOT) -> tuple[Path, ...]:
    """Make what a complete run found one of the learning algorithms that come with the library.

    Of absolute paths in its config and its command the last two parts stay; data.root goes.

    Args:
        run_dir: folder of the run, whose learner.safetensors is taken.
        name: what it will be loaded by: a-z, digits and _.
        root: folder that has vsml/ and docs/.

    Returns:
        The files written: vsml/algorithms/NAME.safetensors, whose metadata says all that there is to know,
        and docs/results/training/NAME.jsonl, at most 200 lines of the run's metrics, if it took any meta
        step.

    Raises:
        ValueError: it is no run, one that is not complete or whose commit is unknown, the name is of another
            form, or the file would be larger than MAX_BYTES.
        CheckpointError: learner.safetensors is damaged.
    """
    if not _NAME.fullmatch(name):
        expected = "a-z, digits and _, a letter first"
        raise ValueError(f"NAME: got {name!r}, expected {expected}")
    run = open_run(run_dir)
    learner = run.path / checkpoint.EXPORT_NAME
    _check_there(
        run,
        run.complete,
        learner,
        run.environment,
        run.path / "evaluation.json",
    )
    params, metadata = checkpoint.load_params(learner)
    # What is written into synapses by hand has met no meta step, and so has no metrics.
    is_trained = metadata.get("step", 0) > 0
    if is_trained:
        _check_there(run, run.metrics)
    description = _describe(run, metadata, is_trained)
    data = checkpoint.to_bytes({"params": params}, description)
    if len(data) > MAX_BYTES:
        expected = f"expected at most {MAX_BYTES}"
        raise ValueError(f"{run.path}: got {len(data)} bytes, {expected}")
    root = Path(root)
    exported = root / "vsml" / "algorithms" / f"{name}.safetensors"
    files: dict[Path, str | bytes] = {exported: data}
    if is_trained:
        log = root / "docs" / "results" / "training" / f"{name}.jsonl"
        files[log] = _thinned(read_metrics(run.metrics))
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content)
    return tuple(files)


def _check_there(run: RunDirectory, *paths: Path) -> None:
    expected = "expected a run that is complete and evaluated"
    for path in paths:
        if not path.exists():
            raise ValueError(f"{run.path}: has no {path.name}; {expected}")


def _describe(
    run: RunDirectory,
    metadata: Mapping[str, Any],
    is_trained: bool,
) -> dict[str, Any]:
    """Return all that there is to know about what a run found, ready for the metadata of a file."""
    environment = json.loads(run.environment.read_text())
    git = environment["git"]
    if git is None:
        expected = "expected a run of a checkout"
        raise ValueError(f"{run.environment}: knows no git commit; {expected}")
    arguments = environment.pop("command_line")[1:]
    command = shlex.join(["python", *arguments])
    config = dict(metadata["config"])
    config["data"] = {**config["data"], "root": None}
    written_s = (run.path / checkpoint.EXPORT_NAME).stat().st_mtime
    written = datetime.datetime.fromtimestamp(written_s, datetime.UTC)
    results = (run.path / "evaluation.json").read_text()
    description = {
        "config": _portable(config),
        "command": _portable(command),
        "datasets": _portable(config["training"]["dataset"]),
        "seed": config["seed"],
        "commit": git["commit"],
        "results": json.loads(results),
        "date": written.date().isoformat(),
        "environment": environment,
        "license": LICENCE,
        # What is written by hand has met no data.
        "training_data": licences_of(_portable(config["training"]["dataset"])) if is_trained else {},
    }
    for key in ("step", "wall_s"):
        if key in metadata:
            description[key] = metadata[key]
    return description


def _portable(value: Any) -> Any:
    """Return settings in which absolute paths are cut to their last two parts."""
    if isinstance(value, Mapping):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_portable(item) for item in value]
    if isinstance(value, str):
        return _ABSOLUTE_PATH.sub(_last_parts, value)
    return value


def _last_parts(found: re.Match[str]) -> str:
    """Return the last two parts of the path that was found."""
    parts = found[0].rstrip("/").split("/")
    return "/".join(parts[-2:]).lstrip("/~")


def _thinned(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return lines of JSON, evenly chosen, the first and the last among them."""
    if not lines:
        return ""
    last = len(lines) - 1
    gaps = max(min(len(lines), _LOG_LINES) - 1, 1)
    kept = {round(k * last / gaps) for k in range(gaps + 1)}
    chosen = [json.dumps(lines[index]) for index in sorted(kept)]
    return "\n".join(chosen) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Export the run that the command line names."""
    parser = ArgumentParser(
        prog="python -m vsml.pretrained",
        description="Let the learning algorithm of a run come with the library.",
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="folder of a complete run")
    parser.add_argument("name", metavar="NAME", help="what it will be loaded by")
    chosen = parser.parse_args(arguments)
    try:
        written = export(chosen.run_dir, chosen.name)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(*(f"{path} ({path.stat().st_size:,} bytes)" for path in written), sep="\n")


if __name__ == "__main__":
    main()
