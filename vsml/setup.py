"""From a configuration to its parts: data, tasks, learners, meta optimizer, and how the work is cut."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

import jax
import numpy as np
import optax
import psutil

from vsml.config.files import ConfigError
from vsml.config.schema import (
    Config,
    EvaluationSpec,
    ModelSettings,
    Pad,
    Schedule,
    TaskSpec,
    evaluation_specs,
    training_specs,
)
from vsml.learners import Learner, make_learner
from vsml.learners.vsml import VsmlConfig
from vsml.meta.antithetic import ANTITHETIC, AntitheticEvolution
from vsml.meta.cloning import Cloning, Draws
from vsml.meta.evolution import Evolution
from vsml.meta.gradient import BackPropagation
from vsml.meta.objective import (
    Group,
    MetaOptimizer,
    group_units,
    kept_states,
    meta_adam,
    params_shapes,
    power_of_two,
    replicate,
    segments_of,
    state_bytes,
)
from vsml.networks.kernels import Kernel, chosen
from vsml.system.comm import Communicator
from vsml.system.devices import local_rank
from vsml.tasks import Dataset, Generator, MissingDataError, TaskDistribution, build_task, load
from vsml.types import Array, Params

Source = Dataset | Generator

NO_PAD = Pad()

MEMORY_SHARE = 0.5
"""Share of an accelerator's memory that the units of a chunk may fill, by estimate."""

CPU_CHUNK_SIZE = 1024
"""Most units of a chunk on a CPU, where memory is no bound: a second Ctrl-C is heard between chunks only."""

TOLERATED_FILL = 0.125
"""Share of the time that fewer, larger chunks on a CPU may cost by fillers and imbalance."""

WORKING_COPIES = 8
"""Estimated memory of one tick, in states: the four gates, the new state and the messages."""

PERTURBED_COPIES = 4
"""Copies of the meta-parameters that go with a unit: two members, their noise and their gradient."""


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
    names = {spec.dataset for spec in training_specs(config)} if config.call != "clone" else set()
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
    few_shot = {} if spec.few_shot is None else spec.few_shot.model_dump()
    with _settings():
        return build_task(
            source,
            spec.episode_length,
            filter_classes=spec.filter_classes,
            **spec.preprocess.model_dump(),
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
        return group_units(mixture, training.population_size, learner_maker(config.model))


def clone_groups(config: Config) -> list[Group]:
    """Return the units of a meta step with `call: clone`: synapses of one kind, which meet no task."""
    learner = make_learner(config.model.type, config.model.settings, (1,), 2)
    units = np.arange(config.training.population_size, dtype=np.int32)
    return [Group(learner, (), units, np.zeros_like(units))]


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


def schedule(value: float | Schedule, iterations: int) -> Callable[[Any], Array] | float:
    """Return a number as it is, and a configured schedule as an optax schedule over meta steps."""
    if not isinstance(value, Schedule):
        return value
    steps = value.steps if value.steps is not None else iterations
    rest = max(1, steps - value.warmup_steps)
    if value.end is None:
        main = optax.constant_schedule(value.init)
    elif value.type == "linear":
        main = optax.linear_schedule(value.init, value.end, rest)
    elif value.type == "cosine":
        main = optax.cosine_decay_schedule(value.init, rest, alpha=value.end / value.init)
    else:
        rate = value.end / value.init
        main = optax.exponential_decay(value.init, rest, rate, end_value=value.end)
    if value.warmup_steps == 0:
        return main
    rise = optax.linear_schedule(0.0, value.init, value.warmup_steps)
    return optax.join_schedules([rise, main], [value.warmup_steps])


def meta_optimizer(config: Config, params: Params) -> MetaOptimizer:
    """Build the configured meta optimizer for meta-parameters like the given ones.

    Raises:
        ConfigError: there are none, or the optimizer refuses its settings.
    """
    if not jax.tree.leaves(params):
        got = f"model.type: got {config.model.type}, which has no meta-parameters, with call: train"
        raise ConfigError([f"{got}; expected call: evaluate"])
    optimizer, training = config.optimizer, config.training
    adam = meta_adam(schedule(optimizer.learning_rate, training.iterations), optimizer.clip_gradnorm)
    if optimizer.type == "gradient":
        descent = BackPropagation(adam, training.loss_type, optimizer.truncation_length)
        return Cloning(descent, clone_draws(config)) if config.call == "clone" else descent
    noise_std = schedule(optimizer.noise_std, training.iterations)
    if optimizer.algorithm == ANTITHETIC:
        if optimizer.algorithm_options:
            mistake = (
                f"optimizer.algorithm_options: {ANTITHETIC} has none, got "
                f"{', '.join(map(str, optimizer.algorithm_options))}; Open_ES is the same algorithm with "
                "evosax's options, fitness_shaping_fn among them"
            )
            raise ConfigError([mistake])
        return AntitheticEvolution(adam, noise_std, training.loss_type)
    with _settings():
        return Evolution(
            training.population_size,
            params,
            adam,
            noise_std,
            optimizer.algorithm,
            optimizer.algorithm_options,
            training.loss_type,
        )


def clone_draws(config: Config) -> Draws:
    """Return what random numbers `clone` configures."""
    return Draws(**config.clone.model_dump(exclude={"follow"}))


def chunk_size(config: Config, groups: Iterable[Group], ranks: int) -> int:
    """Return the units of a chunk: as configured, else a power of two, so that results do not depend on it.

    Of those that give each rank a chunk and keep within the bound, an accelerator takes the one with the
    fewest calls, since it runs a chunk's units side by side. Its bound is its memory. A CPU takes the largest
    that lets no rank take more than an eighth longer than with the best, whose cores take the units of a
    chunk, fillers included, in turn; its bound is `CPU_CHUNK_SIZE`.

    Raises:
        ConfigError: there would be more ranks than chunks.
    """
    groups = list(groups)
    training = config.training
    sizes = [len(group.units) for group in groups]

    def chunks(size: int) -> int:
        return sum(math.ceil(units / size) for units in sizes)

    size = training.chunk_size
    if size is None:
        on_cpu = jax.default_backend() == "cpu"
        bound = CPU_CHUNK_SIZE if on_cpu else min(_units_in_memory(config, group) for group in groups)
        possible = [2**k for k in range(power_of_two(max(sizes)).bit_length()) if k == 0 or 2**k <= bound]
        possible = [size for size in possible if chunks(size) >= ranks] or [1]
        rounds = {size: math.ceil(chunks(size) / ranks) for size in possible}
        if on_cpu:
            cores = jax.local_device_count()
            turns = {size: rounds[size] * math.ceil(size / cores) for size in possible}
            size = max(size for size in possible if turns[size] <= (1 + TOLERATED_FILL) * min(turns.values()))
        else:
            size = min(possible, key=lambda size: (rounds[size], size))
    if chunks(size) < ranks:
        mistake = (
            f"training.chunk_size: got {size}, which cuts {training.population_size} units in "
            f"{len(groups)} group(s) into {chunks(size)} chunks, fewer than the {ranks} ranks; expected a "
            "smaller chunk_size (null chooses it), a larger training.population_size or fewer ranks"
        )
        raise ConfigError([mistake])
    return size


def _units_in_memory(config: Config, group: Group) -> int:
    training = config.training
    state = state_bytes(group.learner, training.batch_size)
    if config.call == "clone":  # a network of one synapse and its mirror image, each sample and step kept
        return _fitting(state * WORKING_COPIES * config.clone.samples * config.clone.steps)
    inputs = math.prod(group.learner.input_shape)
    length = max(spec.episode_length for spec in training_specs(config))
    episode = 4 * length * training.batch_size * inputs
    projection = 4 * max(task.working_numbers for task in group.tasks)
    if config.optimizer.type == "gradient":
        judged = min(length, config.optimizer.truncation_length or length)
        segments = segments_of(group.learner, judged, training.batch_size)
        kept = kept_states(judged, segments)
        unit = state * (WORKING_COPIES + kept) + 2 * episode + projection
    else:
        unit = 2 * state * WORKING_COPIES + 2 * episode + projection
    leaves = jax.tree.leaves(params_shapes(group.learner))
    unit += PERTURBED_COPIES * sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
    return _fitting(unit)


def _fitting(unit: int) -> int:
    """Return how many units of so many bytes may fill the memory there is."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    memory = statistics.get("bytes_limit", psutil.virtual_memory().available)
    return max(1, int(MEMORY_SHARE * memory * jax.local_device_count() // unit))
