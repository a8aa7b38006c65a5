"""What a run needs that is outside of its configuration: looked at before it begins, and by the dry run."""

from collections.abc import Iterator

from vsml.config.files import ConfigError
from vsml.config.specs import EvaluationSpec
from vsml.evaluation.candidates import compared_candidates, restored_params
from vsml.evaluation.stored import StoredParams
from vsml.learners import make_learner
from vsml.runs.wandb import is_wandb_path
from vsml.setup import Setup, TaskShape
from vsml.system.comm import SerialCommunicator
from vsml.tasks import MissingDataError
from vsml.tasks.data.inventory import Half, look

_TRAINS = ("train", "clone")
_EVALUATES = ("train", "clone", "evaluate")
_RESTORES = (*_EVALUATES, "stream")
_WITHOUT_DATA = ("search",)
_COMPARES = (*_EVALUATES, "introspect", "stream")
"""Calls by what they do with a configuration; those from outside of the library are not known."""


def look_ahead(setup: Setup, ranks: int) -> list[str]:
    """Refuse what the run would refuse for its files, and say which data are there.

    Nothing is downloaded, and wandb is not asked for what it keeps. Calls from outside of the library are
    asked for nothing.

    Args:
        setup: of the run.
        ranks: number of MPI ranks.

    Returns:
        Lines about data sets and files of meta-parameters.

    Raises:
        ConfigError, DataError, CheckpointError, OSError: as the run would.
    """
    call = setup.config.call
    if call in _TRAINS:
        setup.chunk_size(ranks)
    lines = _look_at_data(setup)
    if call in _RESTORES and setup.restores:
        lines += _look_at_restored(setup)
    if call in _COMPARES:
        lines += _look_at_compared(setup)
    return lines


# Data.


def _look_at_data(setup: Setup) -> list[str]:
    """Say which data are there; refuse where the run could not have them."""
    call = setup.config.call
    if call in _WITHOUT_DATA:
        return []
    lines = []
    for name, subset in _training_data(setup):
        half = look(name, subset, setup.config.data.root)
        _refuse_missing(half)
        lines.append(_told(half, is_optional=False))
    left_out: list[str] = []
    evaluated = _evaluation_data(setup)
    for (name, subset), is_optional in evaluated.items():
        half = look(name, subset, setup.config.data.root)
        if call in _COMPARES and not is_optional:
            _refuse_missing(half)
        if half.missing and is_optional:
            left_out.append(f"{name}: {half.describe()}")
        lines.append(_told(half, is_optional))
    is_nothing_left = evaluated and len(left_out) == len(evaluated)
    if call in ("evaluate", "introspect", "stream") and is_nothing_left:
        raise ConfigError(["evaluation.datasets: nothing to evaluate on", *left_out])
    return list(dict.fromkeys(lines))


def _training_data(setup: Setup) -> list[tuple[str, str]]:
    """Return the names and halves of the data sets that meta-training draws from."""
    if setup.config.call not in _TRAINS or setup.objective.learner_shape is not None:
        return []
    return list(dict.fromkeys((spec.dataset, "train") for spec in setup.config.training_specs))


def _evaluation_data(setup: Setup) -> dict[tuple[str, str], bool]:
    """Return whether each data set to evaluate on is optional, by its name and half."""
    config = setup.config
    halves = [config.evaluation.subset]
    if config.call == "clone" and config.clone.follow:
        halves = ["train", "test"]
    found: dict[tuple[str, str], bool] = {}
    for spec in config.evaluation_specs:
        for half in halves:
            key = (spec.task.dataset, half)
            found[key] = found.get(key, True) and spec.optional
    return found


def _refuse_missing(half: Half) -> None:
    """Raise MissingDataError where files are missing that no address is known of."""
    if half.missing and not half.can_be_downloaded:
        raise MissingDataError(f"{half.name} {half.subset}: {half.describe()}")


def _told(half: Half, is_optional: bool) -> str:
    """Return the line about one half of a data set."""
    line = f"data: {half.name} {half.subset}: {half.describe()}"
    if not half.missing:
        return line
    if is_optional:
        return f"{line}; it is optional, and left out"
    return f"{line}; the run downloads it (or: python -m vsml.tasks get {half.name})"


# Meta-parameters.


def _look_at_restored(setup: Setup) -> list[str]:
    """Read what `checkpoint.restore` names, and check that it fits."""
    path = str(setup.config.checkpoint.restore)
    if is_wandb_path(path):
        return [_asked_later(path)]
    stored = restored_params(setup, SerialCommunicator())
    if setup.config.call in _TRAINS:
        stored.fit(setup.learner)
    else:
        for spec in _specs_there(setup):
            shape = TaskShape.of(spec.task, setup.config.evaluation.subset)
            stored.fit(setup.learner_for(shape))
    return [f"meta-parameters: {path}: there, and they fit"]


def _look_at_compared(setup: Setup) -> list[str]:
    """Read what `evaluation.learners` names, and check that it fits."""
    evaluation = setup.config.evaluation
    lines = []
    local = []
    for entry in evaluation.learners:
        if entry.restore is not None and is_wandb_path(entry.restore):
            lines.append(_asked_later(entry.restore))
        else:
            local.append(entry)
    of_local = evaluation.model_copy(update={"learners": tuple(local)})
    without_others = Setup(setup.config.model_copy(update={"evaluation": of_local}))
    candidates = compared_candidates(without_others, {}, SerialCommunicator())
    for entry, candidate in zip(local, candidates, strict=True):
        if entry.restore is None:
            continue
        stored = StoredParams.read(entry.restore, SerialCommunicator())
        for spec in _specs_there(setup):
            if entry.datasets is not None and spec.name not in entry.datasets:
                continue
            shape = TaskShape.of(spec.task.padded(entry.pad), evaluation.subset)
            for _, model in candidate.choices:
                learner = make_learner(model.type, model.settings, shape.input_shape, shape.outputs)
                stored.fit(learner)
        lines.append(f"meta-parameters: {entry.restore}: there, and they fit")
    return list(dict.fromkeys(lines))


def _specs_there(setup: Setup) -> Iterator[EvaluationSpec]:
    """Yield what is evaluated on, less what is optional and not there."""
    config = setup.config
    for spec in config.evaluation_specs:
        half = look(spec.task.dataset, config.evaluation.subset, config.data.root)
        if not (spec.optional and half.missing):
            yield spec


def _asked_later(path: str) -> str:
    return f"meta-parameters: {path}: no file here; wandb is asked for it when the run begins"
