"""Who is compared in an evaluation: what a run found, what it started from, baselines, files of others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from pydantic import ValidationError

from vsml.config.files import ConfigError
from vsml.config.schema import ComparedLearner, Config, ModelConfig, ModelSettings, model_choices
from vsml.learners import Learner, make_learner
from vsml.runs import checkpoint
from vsml.runs.wandb import fetch_from_wandb, is_wandb_path
from vsml.settings import differences
from vsml.setup import EvaluationTask, Source, evaluation_tasks
from vsml.system.comm import Communicator
from vsml.types import Array, Params

_FREE = ("init_scale", "init", "init_rate", "init_bias_rate", "state_dtype", "kernel")
"""Model settings that do not make another learning algorithm."""

NETWORK = ("random_features", "views", "layers", "init_weights", "error_scale")
"""What of the network around the synapses may differ from their file, where it is asked for."""


@dataclass(frozen=True, eq=False)
class Contender:
    """A learner with its meta-parameters, or several to choose from.

    Attributes:
        name: in tables and figures.
        tasks: what it is evaluated on.
        choices: model settings, each with what was tried in them by dotted path; of several, evaluation takes
            the best for each task.
        params_for: returns the meta-parameters for a learner that was built for a task.
    """

    name: str
    tasks: Sequence[EvaluationTask]
    choices: Sequence[tuple[dict[str, Any], ModelSettings]]
    params_for: Callable[[Learner], Params]


def own_contender(
    config: Config, name: str, params_for: Callable[[Learner], Params], tasks: Sequence[EvaluationTask]
) -> Contender:
    """Return the learner that `model` configures, with the given meta-parameters."""
    return Contender(name, tasks, [({}, config.model)], params_for)


def untrained_contender(config: Config, tasks: Sequence[EvaluationTask]) -> Contender:
    """Return the configured learner with the meta-parameters that training starts from.

    One that has no meta-parameters goes by the name of its type, as there is nothing to train.
    """
    task = tasks[0].task
    learner = make_learner(config.model.type, config.model.settings, task.input_shape, task.num_classes)
    fresh = jax.eval_shape(learner.init_params, jax.random.key(0))
    name = "untrained" if jax.tree.leaves(fresh) else config.model.type
    return own_contender(config, name, lambda learner: learner.init_params(initial_key(config)), tasks)


def compared_contenders(config: Config, sources: dict[str, Source], comm: Communicator) -> list[Contender]:
    """Return the learners that `evaluation.learners` lists.

    Args:
        config: the run.
        sources: data sets by name, as far as they are there.
        comm: the ranks, of which only rank 0 has to see files of meta-parameters.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is damaged.
        ConfigError: its model settings and those of the list do not fit together.
    """

    def contender(entry: ComparedLearner) -> Contender:
        tasks = [
            task
            for task in evaluation_tasks(config, sources, entry.pad)
            if entry.datasets is None or task.name in entry.datasets
        ]
        if entry.restore is None:
            choices = model_choices(config.model, entry)
            return Contender(
                entry.name, tasks, choices, lambda learner: learner.init_params(initial_key(config))
            )
        stored = StoredParams.read(entry.restore, comm)
        choices = model_choices(stored.model or config.model, entry)
        for _, model in choices:
            stored.check(model, NETWORK)
        return Contender(entry.name, tasks, choices, stored.fit)

    return [contender(entry) for entry in config.evaluation.learners]


@dataclass(frozen=True)
class StoredParams:
    """Meta-parameters from a file.

    Attributes:
        path: where they are from.
        data: content of the file.
        model: settings of the learner that they were found for, if the file says so.
    """

    path: str
    data: bytes
    model: ModelSettings | None

    @classmethod
    def read(cls, path: str, comm: Communicator) -> "StoredParams":
        """Read a file, or what a run's folder or wandb has to offer, which only rank 0 has to see.

        Raises:
            FileNotFoundError: there is none.
            OSError: wandb cannot be asked.
            CheckpointError: it is damaged.
            ConfigError: its model settings are none that exist here.
        """
        data = comm.bcast(_read(path) if comm.rank == 0 else b"")
        saved = checkpoint.params_from_bytes(data, path)[1].get("config", {}).get("model")
        try:
            model = None if saved is None else ModelConfig.model_validate(saved)
        except ValidationError as error:
            raise ConfigError([f"{path}: its model settings are unknown here: {error}"]) from error
        return cls(path, data, model)

    def fit(self, learner: Learner) -> Params:
        """Return the meta-parameters for a learner.

        Raises:
            CheckpointError: it has others.
        """
        template = jax.eval_shape(learner.init_params, jax.random.key(0))
        return checkpoint.params_from_bytes(self.data, self.path, template)[0]

    def check(self, model: ModelSettings, free: Sequence[str] = ()) -> None:
        """Compare model settings with those that the meta-parameters were found for.

        How they are initialised, and how synapses are computed, is free.

        Args:
            model: the settings.
            free: names of more settings, or of groups of them, that may differ.

        Raises:
            ConfigError: they would be another learning algorithm.
        """
        if self.model is None:
            return
        saved, configured = (
            {"type": each.type, each.type: each.settings.model_dump(mode="json")}
            for each in (self.model, model)
        )
        mistakes = [
            f"model.{key}: got {now!r}, expected {then!r} as in {self.path}"
            + " (or checkpoint.other_network: true)" * bool({*NETWORK}.intersection(key.split(".")))
            for key, then, now in differences(saved, configured)
            if not {*_FREE, *free}.intersection(key.split("."))
        ]
        if mistakes:
            raise ConfigError(mistakes)


def _read(path: str) -> bytes:
    return fetch_from_wandb(path) if is_wandb_path(path) else checkpoint.find_params(path).read_bytes()


def restored_params(config: Config, comm: Communicator) -> StoredParams:
    """Return the meta-parameters that `checkpoint.restore` names, which must fit `model`; errors as above."""
    stored = StoredParams.read(str(config.checkpoint.restore), comm)
    stored.check(config.model, NETWORK if config.checkpoint.other_network else ())
    return stored


def initial_key(config: Config) -> Array:
    """Return the key that a run's untrained meta-parameters are drawn from."""
    return jax.random.fold_in(jax.random.key(config.seed), 0)
