"""Contestants of the battery: learners by a word, built anew for the shapes of each task."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import yaml
from pydantic import ValidationError

from vsml.battery.learning_test import NotApplicableError, Task
from vsml.config.model import ModelConfig
from vsml.evaluation.stored import StoredParams
from vsml.learners import LEARNERS, Learner, make_learner
from vsml.registry import suggestion
from vsml.runs.checkpoint import PRETRAINED_PREFIX, pretrained_names
from vsml.system.comm import SerialCommunicator
from vsml.types import Params

RULE_PREFIX = "rule:"
"""Before the name or the file of a local rule."""

Settings = Mapping[str, Any]
"""Settings of a model that differ from a contestant's own, as in a configuration."""


@dataclass(frozen=True, eq=False)
class Contestant:
    """A learner that takes tests.

    Attributes:
        name: what it was asked for by.
        build: from a task and settings to the learner and its meta-parameters.
        choices: settings to choose from for each test, on episodes that do not count; none: its own.
    """

    name: str
    build: Callable[[Task, Settings], tuple[Learner, Params]]
    choices: tuple[Settings, ...] = ()

    def built(self, task: Task, settings: Settings) -> tuple[Learner, Params]:
        """Return the learner for a task, and its meta-parameters.

        Raises:
            NotApplicableError: it refuses the shapes, or the outputs.
        """
        try:
            return self.build(task, settings)
        except ValueError as error:
            raise NotApplicableError(str(error)) from error


@dataclass(frozen=True)
class Tuned:
    """A baseline whose settings are chosen for each test.

    Attributes:
        type: of its model.
        model: settings that stay.
        grid: values to try, by the name of the setting.
    """

    type: str
    model: Settings
    grid: Mapping[str, tuple[Any, ...]]

    def choices(self) -> tuple[Settings, ...]:
        """Return all combinations of what is tried."""
        combinations = itertools.product(*self.grid.values())
        return tuple(dict(zip(self.grid, values, strict=True)) for values in combinations)


_MLP = {"num_layers": 2, "hidden_size": 64}
_SGD_RATES = (0.01, 0.03, 0.1, 0.3)
_ADAM_RATES = (0.001, 0.003, 0.01, 0.03)

BASELINES: dict[str, Tuned] = {
    "sgd": Tuned("sgd", _MLP, {"learning_rate": _SGD_RATES}),
    "adam": Tuned("sgd", {**_MLP, "optimizer": "adam"}, {"learning_rate": _ADAM_RATES}),
    "linear_sgd": Tuned("sgd", {"num_layers": 1}, {"learning_rate": _SGD_RATES}),
    "upgd": Tuned("upgd", {"widths": [64]}, {"learning_rate": _SGD_RATES}),
    "continual_backprop": Tuned("continual_backprop", {"widths": [64]}, {"learning_rate": _SGD_RATES}),
}
"""Baselines that are tuned, by name: networks with one hidden layer of 64 units, and one with none."""


def contestant(word: str) -> Contestant:
    """Return the contestant that a word stands for.

    Args:
        word: a baseline that is tuned (`BASELINES`); a learning algorithm that comes with the library;
            `rule:` and a local rule; a type of `LEARNERS`, of an installed package or
            `package.module:Name`, with settings behind it or without any, as in
            `sgd:learning_rate=0.1,num_layers=2`; or the path of a file or a run's folder.

    Raises:
        ValueError: it stands for nothing, or settings are none of the type.
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged.
    """
    if word in BASELINES:
        tuned = BASELINES[word]
        return Contestant(word, _of_model(word, tuned.type, tuned.model), tuned.choices())
    if word.startswith(RULE_PREFIX):
        return Contestant(word, _of_model(word, "rule", {"rule": word.removeprefix(RULE_PREFIX)}))
    if word in pretrained_names():
        return Contestant(word, _of_file(f"{PRETRAINED_PREFIX}{word}"))
    kind, settings = _type_and_settings(word)
    if kind in LEARNERS.names() or _is_path_of_module(kind):
        return Contestant(word, _of_model(word, kind, settings))
    try:
        return Contestant(word, _of_file(word))
    except FileNotFoundError as error:
        known = (*BASELINES, *pretrained_names(), *LEARNERS.names())
        expected = f"one of {', '.join(known)}, rule:NAME, package.module:Name, or a file"
        raise ValueError(f"got {word!r}, expected {expected}{suggestion(word, known)}") from error


def _type_and_settings(word: str) -> tuple[str, Settings]:
    """Split `TYPE:key=value,key=value`, whose values are YAML."""
    kind, _, rest = word.rpartition(":")
    if "=" not in rest:
        return word, {}
    settings = {}
    for pair in rest.split(","):
        key, _, value = pair.partition("=")
        settings[key] = yaml.safe_load(value)
    return kind, settings


def _is_path_of_module(word: str) -> bool:
    """Return whether a word is `package.module:Name`."""
    module, _, name = word.partition(":")
    return name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def _of_model(
    word: str,
    kind: str,
    model: Settings,
) -> Callable[[Task, Settings], tuple[Learner, Params]]:
    """Return what builds a learner with fresh meta-parameters.

    Raises:
        ValueError: settings are none of the type.
    """
    section = kind if kind in LEARNERS else "options"

    def configured(settings: Settings) -> Any:
        asked = {"type": kind, section: {**model, **settings}}
        try:
            return ModelConfig.model_validate(asked)
        except ValidationError as error:
            messages = "; ".join(each["msg"] for each in error.errors(include_url=False))
            raise ValueError(
                f"{word}: got {asked[section]}, expected settings of {kind}: {messages}"
            ) from error

    configured({})  # mistakes are told before the first test

    def build(task: Task, settings: Settings) -> tuple[Learner, Params]:
        chosen = configured(settings)
        learner = make_learner(chosen.type, chosen.settings, task.input_shape, task.outputs)
        return learner, learner.init_params(jax.random.key(0))

    return build


def _of_file(path: str) -> Callable[[Task, Settings], tuple[Learner, Params]]:
    """Return what builds the learner of a file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it does not say what model it is of.
    """
    stored = StoredParams.read(path, SerialCommunicator())
    model = stored.model
    if model is None:
        raise ValueError(f"{path}: does not say what model it is of; expected a file with its config")

    def build(task: Task, settings: Settings) -> tuple[Learner, Params]:
        del settings  # a file has its own
        learner = make_learner(model.type, model.settings, task.input_shape, task.outputs)
        return learner, stored.fit(learner)

    return build
