"""What a configuration is going to do and cost, told without loading data or training."""

import math

import jax

from vsml.config.schema import (
    Config,
    TaskSpec,
    evaluation_specs,
    examples_per_step,
    model_choices,
    training_specs,
)
from vsml.cost import roofline
from vsml.cost.counts import Cost, What, cost_of, counted_cost
from vsml.learners import Learner
from vsml.meta.objective import kept_states, params_shapes, segments_of, state_bytes
from vsml.setup import check_evaluation, clone_groups, learner_maker, meta_optimizer
from vsml.tasks import specs

GRADIENT_COST = 4
"""Back-propagation in forward passes: forward, again per tile, and twice for the derivatives."""


def describe(config: Config, ranks: int) -> str:
    """Return the plan of a run as text: tasks, groups, members per rank, bytes of state, FLOPs.

    Args:
        config: the run.
        ranks: number of MPI ranks.
    """
    return "\n".join([*_training_plan(config, ranks), *_evaluation_plan(config)])


def _training_plan(config: Config, ranks: int) -> list[str]:
    training = config.training
    if config.call == "clone":
        clone, (group,) = config.clone, clone_groups(config)
        meta_optimizer(config, group.learner.init_params(jax.random.key(0)))  # refuses what the run would
        return [
            f"clone: {training.iterations} meta steps of {training.population_size} x {clone.samples} "
            f"synapses, {clone.steps} examples each, on {ranks} rank(s): "
            f"{examples_per_step(config) * training.iterations:,} random examples"
        ]
    if config.call != "train":
        return []
    evolves = config.optimizer.type == "es"
    mixture = training_specs(config)
    groups: dict[tuple[tuple[int, ...], int, int], list[TaskSpec]] = {}
    for unit in range(training.population_size):
        spec = mixture[unit % len(mixture)]
        groups.setdefault((*task_shapes(spec, "train"), spec.episode_length), []).append(spec)
    lines = [
        f"train: {training.iterations} meta steps of {training.population_size} "
        + ("antithetic pairs" if evolves else "episodes")
        + f" with {training.batch_size} example(s) a step, on {ranks} rank(s)"
    ]
    total, resident = Cost(), 0
    examples = examples_per_step(config) * (1 + evolves)
    for number, ((input_shape, num_classes, length), units) in enumerate(groups.items()):
        learner = learner_maker(config.model)(input_shape, num_classes)
        judged = min(length, config.optimizer.truncation_length or length)
        segments = segments_of(learner, judged, training.batch_size)
        what: What = "forward" if evolves else "gradient"
        cost = cost_of(learner, training.batch_size, what, segments)
        episode_cost = cost.times(judged)
        if judged < length:
            episode_cost += cost_of(learner, training.batch_size).times(length - judged)
        total += episode_cost.times(training.batch_size * (1 + evolves) * len(units))
        kept = 2 if evolves else kept_states(judged, segments)
        state = state_bytes(learner, training.batch_size)
        units_of_rank = math.ceil(len(units) / ranks)
        resident = max(resident, roofline.resident_bytes(state, units_of_rank, kept))
        size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params_shapes(learner)))
        lines.append(
            f"group {number + 1}: inputs {_by(input_shape)}, {num_classes} classes, {length} steps"
            + (f" of which the last {judged} are judged, " if judged < length else ", ")
            + f"{len(units)} units, "
            f"about {units_of_rank * (1 + evolves)} members a rank, {size} meta-parameters, "
            f"state {state:,} bytes a member"
        )
        lines.append(f"  an example{'' if evolves else ' and its gradient'}: {_cost_told(cost)}")
        lines += [
            f"  task: {specs.describe(spec)} ({units.count(spec)} units)" for spec in dict.fromkeys(units)
        ]
    # These refuse what the run would refuse.
    meta_optimizer(config, learner.init_params(jax.random.key(0)))
    evaluated = [
        (spec.name, *task_shapes(spec.task, config.evaluation.subset)) for spec in evaluation_specs(config)
    ]
    check_evaluation(config, learner, evaluated)
    lines.append(
        f"a meta step: {examples:,} examples, {total.flops:.3g} FLOP and {total.transcendentals:.3g} tanh; "
        f"the run: {examples * training.iterations:,} examples, {total.flops * training.iterations:.3g} FLOP"
    )
    lines.append(_least_time(total, resident, ranks))
    return lines


def _cost_told(cost: Cost) -> str:
    synapses = f"{cost.synapses:,} synapses, " if cost.synapses else ""
    return (
        f"{synapses}{cost.flops / 1e6:.3g} MFLOP ({cost.matrix_flops / 1e6:.3g} in matrix products), "
        f"{cost.transcendentals / 1e6:.3g} M tanh, {cost.moved_bytes / 1e6:.3g} MB moved "
        f"({cost.unfused_bytes / 1e6:.3g} with gates in memory)"
    )


def _least_time(total: Cost, resident_bytes: int, ranks: int) -> str:
    """Return the bound that the machine sets to a meta step, as text."""
    try:
        measured = roofline.load()
    except (ValueError, OSError) as error:
        return f"the least time of a meta step is unknown: {error}"
    if measured is None:
        return (
            "the least time of a meta step is unknown: the rates of this machine "
            f"({roofline.machine_name()}) have not been measured; {roofline.COMMAND} does"
        )
    least = roofline.bound(total, measured, resident_bytes)
    where = f"with {measured.machine}" if ranks == 1 else f"on {ranks} ranks with {measured.machine} each"
    return (
        f"a meta step takes no less than {least.total_s / ranks:.3g} s {where}, mostly for "
        f"{least.bottleneck}: a bound, not an estimate, from the best rates measured here"
    )


def _evaluation_plan(config: Config) -> list[str]:
    settings = config.evaluation
    when = f"every {settings.frequency} meta steps and " if settings.frequency else ""
    when = f"{when}at the end" if config.call in ("train", "clone") else "once"
    lines = [f"evaluate: {settings.count} episodes of {settings.episode_length} steps, {when}"]
    for spec in evaluation_specs(config):
        optional = ", if it is there" if spec.optional else ""
        length = spec.task.episode_length
        steps = f", {length} steps" if length != settings.episode_length else ""
        lines.append(f"  {spec.name}: {specs.describe(spec.task)}, subset {settings.subset}{steps}{optional}")
    for learner in settings.learners:
        choices = len(model_choices(config.model, learner))
        tried = f", the best of {choices} settings on {settings.tune_count} episodes" if choices > 1 else ""
        origin = f" from {learner.restore}" if learner.restore else ""
        lines.append(f"  learner {learner.name}{origin}{tried}")
    return lines


def step_flops(learner: Learner, batch_size: int) -> float:
    """Return about how many floating-point operations one step of a learner takes, counted in its program.

    Matrix products count two per multiply-add, all other arithmetic one per element, transcendental or not.
    """
    counted = counted_cost(learner, batch_size)
    return batch_size * (counted.flops + counted.transcendentals)


def task_shapes(spec: TaskSpec, subset: str) -> tuple[tuple[int, ...], int]:
    """Return the input shape and the number of classes that a task's learner is built for.

    Args:
        spec: the kind of task; of data sets only a user's npz is read.
        subset: "train" or "test", whose examples are drawn.

    Raises:
        ValueError: the data set is unknown, or inputs are larger than what they are to be padded to.
    """
    shape, outputs = specs.task_shapes(spec, subset)
    return shape, outputs.size


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
