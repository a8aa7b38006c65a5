"""The plan of a run: what it is going to do and cost, without loading data or training."""

import math
from collections.abc import Sequence

from vsml.config.model import model_choices
from vsml.cost import roofline
from vsml.cost.counts import Cost
from vsml.cost.steps import TrialCost, meta_step_cost, parameter_count, trial_costs
from vsml.laws.prediction import predicted_lines
from vsml.runs.pace import measured_pace
from vsml.runs.progress import format_duration
from vsml.setup import Setup
from vsml.tasks import specs


def training_plan(setup: Setup, ranks: int) -> list[str]:
    """Return the plan of meta-training as lines: tasks, groups, members per rank, bytes of state, FLOPs.

    Args:
        setup: of the run.
        ranks: number of MPI ranks.

    Raises:
        ConfigError: the run would be refused.
    """
    config = setup.config
    training = config.training
    setup.check_optimizer()
    setup.check_evaluation(setup.evaluation_shapes())
    what = "antithetic pairs" if setup.members == 2 else "episodes"
    lines = [
        f"train: {training.iterations} meta steps of {training.population_size} {what}"
        f" with {training.batch_size} example(s) a step, on {ranks} rank(s)"
    ]
    costs = trial_costs(setup)
    total = meta_step_cost(costs)
    resident = _resident_bytes(costs, ranks)
    lines[:0] = summary(setup, ranks, total, resident)
    for number, cost in enumerate(costs):
        trials_of_rank = math.ceil(len(cost.group.trials) / ranks)
        lines += _group_lines(setup, number, cost, trials_of_rank)
    examples = config.examples_per_step * setup.members
    lines.append(
        f"a meta step: {examples:,} examples, {total.flops:.3g} FLOP and {total.transcendentals:.3g} tanh; "
        f"the run: {examples * training.iterations:,} examples, {total.flops * training.iterations:.3g} FLOP"
    )
    lines.append(_least_time(total, resident, ranks))
    lines += predicted_lines(setup)
    return lines


def _resident_bytes(costs: Sequence[TrialCost], ranks: int) -> int:
    """Return how large the states are that a device has under way at the same time, at most."""
    sizes = []
    for cost in costs:
        trials_of_rank = math.ceil(len(cost.group.trials) / ranks)
        sizes.append(roofline.resident_bytes(cost.state_bytes, trials_of_rank, cost.kept_states))
    return max(sizes)


def summary(setup: Setup, ranks: int, cost: Cost | None = None, resident_bytes: int = 0) -> list[str]:
    """Return the first lines of a plan: how long meta-training takes, and how much memory.

    Args:
        setup: of the run.
        ranks: number of MPI ranks.
        cost: of a meta step; None where it is not known.
        resident_bytes: of the states that a device has under way at the same time.
    """
    steps = setup.config.training.iterations
    memory = setup.working_bytes(ranks) / 1e9
    return [
        f"duration: {_duration(setup, ranks, steps, cost, resident_bytes)}",
        f"memory: about {memory:.3g} GB for the trials of a process, beside programs and data",
    ]


def _duration(setup: Setup, ranks: int, steps: int, cost: Cost | None, resident_bytes: int) -> str:
    """Say how long meta-training takes: as measured in a run like it, else by the roofline."""
    pace = measured_pace(setup.config.model_dump(mode="json"), ranks)
    if pace is not None:
        each = f"{pace.step_s:.3g} s a meta step as measured in {pace.where}"
        return f"about {format_duration(pace.step_s * steps)}, with {each}"
    try:
        measured = roofline.load()
    except (ValueError, OSError):
        measured = None
    if measured is None or cost is None:
        return (
            f"unknown for {steps:,} meta steps: there is no run like it in runs/ to go by, and no measured "
            f"rates of this machine; {roofline.COMMAND} measures them"
        )
    least_s = roofline.bound(cost, measured, resident_bytes).total_s / ranks * steps
    return f"at least {format_duration(least_s)} for {steps:,} meta steps, by the roofline of this machine"


def _group_lines(setup: Setup, number: int, cost: TrialCost, trials_of_rank: int) -> list[str]:
    """Return the lines of a group of trials: its shapes, the cost of an example, its tasks."""
    group = cost.group
    judged = f" of which the last {cost.judged} are judged" if cost.judged < cost.steps else ""
    with_gradient = " and its gradient" if setup.differentiates else ""
    lines = [
        f"group {number + 1}: inputs {_by(group.learner.input_shape)}, {group.learner.num_classes} classes, "
        f"{cost.steps} steps{judged}, {len(group.trials)} trials, "
        f"about {trials_of_rank * cost.members} members a rank, {parameter_count(setup)} meta-parameters, "
        f"state {cost.state_bytes:,} bytes a member",
        f"  an example{with_gradient}: {_describe_cost(cost.example)}",
    ]
    options = group.options.tolist()
    for option, shape in enumerate(group.tasks):
        lines.append(f"  task: {specs.describe(shape.spec)} ({options.count(option)} trials)")
    return lines


def _describe_cost(cost: Cost) -> str:
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


def evaluation_plan(setup: Setup, periodic: bool) -> list[str]:
    """Return the plan of the evaluations as lines.

    Args:
        setup: of the run.
        periodic: whether they are made while training, and at its end; else once.
    """
    settings = setup.config.evaluation
    when = "once"
    if periodic:
        every = f"every {settings.frequency} meta steps and " if settings.frequency else ""
        when = f"{every}at the end"
    lines = [f"evaluate: {settings.count} episodes of {settings.episode_length} steps, {when}"]
    for spec in setup.config.evaluation_specs:
        optional = ", if it is there" if spec.optional else ""
        length = spec.task.episode_length
        steps = f", {length} steps" if length != settings.episode_length else ""
        task = specs.describe(spec.task)
        lines.append(f"  {spec.name}: {task}, subset {settings.subset}{steps}{optional}")
    for learner in settings.learners:
        choices = len(model_choices(setup.model, learner))
        tried = f", the best of {choices} settings on {settings.tune_count} episodes" if choices > 1 else ""
        origin = f" from {learner.restore}" if learner.restore else ""
        lines.append(f"  learner {learner.name}{origin}{tried}")
    return lines


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
