"""From a configuration to its parts: data, tasks, learners, meta optimizer, and how the work is cut."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

import jax
import numpy as np

from vsml.config.files import ConfigError
from vsml.config.schema import (
    Config,
    EvaluationSpec,
    ModelSettings,
    Pad,
    TaskSpec,
    evaluation_specs,
    objective_settings,
    training_specs,
)
from vsml.learners import Learner, make_learner
from vsml.learners.vsml import VsmlConfig
from vsml.meta.chunk_size import choose_chunk_size, memory_of_trial
from vsml.meta.mapping import replicate
from vsml.meta.objectives import EpisodeShape, Objective, build_objective
from vsml.meta.objectives.clone import Draws
from vsml.meta.optimizers import OPTIMIZERS, MetaOptimizer, build_optimizer
from vsml.meta.options import SettingsError
from vsml.meta.trials import Group, group_trials, group_without_tasks, params_shapes
from vsml.networks.kernels import Kernel, chosen
from vsml.system.comm import Communicator
from vsml.system.devices import local_rank
from vsml.tasks import Dataset, Generator, MissingDataError, TaskDistribution, build_task, load
from vsml.types import Params

Source = Dataset | Generator

NO_PAD = Pad()


@dataclass(frozen=True, eq=False)
class EvaluationTask:
    """What a learner is evaluated on.

    Attributes:
        name: unique.
        task: draws its episodes.
    """

    name: str
    task: TaskDistribution


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Report as a mistake of the configuration what a part that is built from it refuses."""
    try:
        yield
    except ConfigError:
        raise
    except SettingsError as error:
        raise ConfigError(error.mistakes) from error
    except ValueError as error:
        raise ConfigError([str(error)]) from error


def _load_locally_first(load_all: Callable[[], Any], comm: Communicator) -> Any:
    """Let one rank of each machine load, and perhaps download, before the others do."""
    first = local_rank() == 0
    loaded = load_all() if first else None
    comm.barrier()
    return loaded if first else load_all()


def check_same_kernel(config: Config, comm: Communicator) -> None:
    """Check that synapses tick by the same kernel on all ranks, as results differ by its rounding.

    Raises:
        ConfigError: they would not; on all ranks.
    """
    vsml = config.model.settings
    if comm.size == 1 or not isinstance(vsml, VsmlConfig):
        return
    synapse = vsml.synapse
    kernel = chosen(vsml.kernel, synapse.state_size, synapse.message_size if synapse.layer_norm else 0)
    names = get_args(Kernel)
    used = comm.allgather(np.array(names.index(kernel))).tolist()
    if len(set(used)) > 1:
        told = "; ".join(f"{names[each]} on {used.count(each)} of the ranks" for each in sorted(set(used)))
        mistake = (
            f"model.vsml.kernel: got {vsml.kernel!r}, which is {told} (a warning there says why); expected "
            "the same on all: mend it there, or set model.vsml.kernel=tiled"
        )
        raise ConfigError([mistake])


def load_training_data(config: Config, comm: Communicator) -> dict[str, Source]:
    """Load the data sets that meta-training draws from, by name; each is loaded once."""
    names = {spec.dataset for spec in training_specs(config)} if needs_tasks(config) else set()
    data = config.data

    def load_all() -> dict[str, Source]:
        return {name: replicate(load(name, "train", data.root, data.verify)) for name in sorted(names)}

    return _load_locally_first(load_all, comm)


def load_evaluation_data(config: Config, comm: Communicator) -> tuple[dict[str, Source], list[str]]:
    """Load the data sets to evaluate on.

    Returns:
        The data sets by name, and why optional ones are left out.
    """
    data, subset = config.data, config.evaluation.subset
    needed: dict[str, bool] = {}
    for spec in evaluation_specs(config):
        needed[spec.task.dataset] = needed.get(spec.task.dataset, False) or not spec.optional

    def load_all() -> tuple[dict[str, Source], list[str]]:
        sources, missing = {}, []
        for name, required in needed.items():
            try:
                sources[name] = replicate(load(name, subset, data.root, data.verify, download=required))
            except MissingDataError as error:
                if required:
                    raise
                missing.append(str(error))
        return sources, missing

    sources, missing = _load_locally_first(load_all, comm)
    for name in needed:  # what one machine lacks, no rank evaluates on: else they would wait for each other
        if comm.any(name not in sources) and sources.pop(name, None) is not None:
            missing.append(f"{name}: its files are missing on another machine")
    return sources, missing


def _task(spec: TaskSpec, source: Source, **settings: Any) -> TaskDistribution:
    preprocess = spec.preprocess
    few_shot = {} if spec.few_shot is None else spec.few_shot.model_dump()
    with _settings():
        return build_task(
            source,
            spec.episode_length,
            filter_classes=spec.filter_classes,
            normalize=preprocess.normalize,
            resize=preprocess.resize,
            rand_proj=preprocess.rand_proj,
            shuffle=preprocess.shuffle,
            permute_labels=preprocess.permute_labels,
            relabel=preprocess.relabel,
            pad_input=preprocess.pad.input,
            pad_output=preprocess.pad.output,
            **few_shot,
            **settings,
        )


def training_groups(config: Config, sources: dict[str, Source]) -> list[Group]:
    """Build the mixture of training tasks, grouped by shape."""
    training = config.training
    specs = training_specs(config)
    built = {
        spec: _task(
            spec,
            sources[spec.dataset],
            batch_size=training.batch_size,
            num_tasks=config.data.num_tasks,
            task_seed=config.seed,
        )
        for spec in dict.fromkeys(specs)
    }
    mixture = [built[spec] for spec in specs]
    with _settings():
        return group_trials(mixture, training.population_size, learner_maker(config.model))


def objective_of(config: Config) -> Objective:
    """Build the configured objective."""
    with _settings():
        return build_objective(*objective_settings(config))


def needs_tasks(config: Config) -> bool:
    """Return whether meta-training meets tasks, and not only what its objective draws."""
    return objective_of(config).learner_shape is None


def clone_groups(config: Config) -> list[Group]:
    """Return the trials of a meta step whose objective needs no tasks: of one learner, of its shape."""
    shape = objective_of(config).learner_shape
    assert shape is not None
    input_shape, outputs = shape
    size = outputs if isinstance(outputs, int) else outputs.size
    learner = learner_maker(config.model)(input_shape, size)
    return [group_without_tasks(learner, config.training.population_size)]


def evaluation_tasks(config: Config, sources: dict[str, Source], pad: Pad = NO_PAD) -> list[EvaluationTask]:
    """Build the tasks to evaluate on, as far as their data are there.

    Args:
        config: the run.
        sources: data sets by name.
        pad: what of their padding differs.
    """

    def build(spec: EvaluationSpec) -> EvaluationTask:
        task = _task(
            spec.task.padded(pad),
            sources[spec.task.dataset],
            batch_size=config.evaluation.batch_size,
            replacement=False,
        )
        return EvaluationTask(spec.name, task)

    return [build(spec) for spec in evaluation_specs(config) if spec.task.dataset in sources]


def learner_maker(model: ModelSettings) -> Callable[[tuple[int, ...], int], Learner]:
    """Return what makes the configured learner for an input shape and a number of classes."""
    return lambda shape, num_classes: make_learner(model.type, model.settings, shape, num_classes)


def check_evaluation(
    config: Config, learner: Learner, shapes: Iterable[tuple[str, tuple[int, ...], int]]
) -> None:
    """Check that what is meta-trained can be evaluated.

    Args:
        config: the run.
        learner: as it is meta-trained.
        shapes: of what it is evaluated on: name, input_shape and number of classes.

    Raises:
        ConfigError: its meta-parameters depend on the shapes, and these differ; or it fits one of them not
            at all.
    """
    make, trained = learner_maker(config.model), params_shapes(learner)
    with _settings():
        mistakes = [
            f"evaluation.datasets: {name}: {config.model.type} has other meta-parameters for inputs {shape} "
            f"with {classes} classes than for {learner.input_shape} with {learner.num_classes}, as in "
            "meta-training; pad both to one shape (data.preprocess.pad, configs/pad.yaml)"
            for name, shape, classes in shapes
            if params_shapes(make(shape, classes)) != trained
        ]
    if mistakes:
        raise ConfigError(mistakes)


def meta_optimizer(config: Config, params: Params) -> MetaOptimizer:
    """Build the configured meta optimizer for meta-parameters like the given ones.

    Raises:
        ConfigError: there are none, or the optimizer refuses its settings.
    """
    if not jax.tree.leaves(params):
        got = f"model.type: got {config.model.type}, which has no meta-parameters, with call: train"
        raise ConfigError([f"{got}; expected call: evaluate"])
    training = config.training
    with _settings():
        return build_optimizer(
            config.optimizer,
            objective_of(config),
            params,
            training.population_size,
            training.iterations,
        )


def clone_draws(config: Config) -> Draws:
    """Return what random numbers `clone` configures."""
    return Draws(**config.clone.model_dump(exclude={"follow"}))


def chunk_size(config: Config, groups: Iterable[Group], ranks: int) -> int:
    """Return the trials of a chunk; see `vsml.meta.chunk_size`.

    Raises:
        ConfigError: there would be more ranks than chunks.
    """
    kind = OPTIMIZERS.resolve(config.optimizer.type)
    objective = objective_of(config)

    def trial_bytes(group: Group) -> int:
        shape = _longest_episode(config, group) if needs_tasks(config) else None
        return memory_of_trial(objective, group.learner, shape, kind.trial_members, kind.differentiates)

    with _settings():
        return choose_chunk_size(list(groups), ranks, trial_bytes, config.training.chunk_size)


def _longest_episode(config: Config, group: Group) -> EpisodeShape:
    return EpisodeShape(
        steps=max(spec.episode_length for spec in training_specs(config)),
        batch_size=config.training.batch_size,
        projected=any(task.rand_proj for task in group.tasks),
    )
