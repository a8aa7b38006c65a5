"""What a configuration is going to do and cost, told without loading data or training."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params

from vsml.build import check_evaluation, learner_maker, meta_optimizer
from vsml.config import Config, TaskSpec, evaluation_specs, model_choices, training_specs
from vsml.learners import Learner
from vsml.meta.objective import params_shapes, state_bytes
from vsml.tasks import transforms
from vsml.tasks.sources import shapes_of

GRADIENT_COST = 4
"""Back-propagation in forward passes: forward, again per tile, and twice for the derivatives."""


_ARITHMETIC = frozenset(
    [
        "add",
        "sub",
        "mul",
        "div",
        "max",
        "min",
        "neg",
        "tanh",
        "exp",
        "log",
        "logistic",
        "sqrt",
        "rsqrt",
        "square",
        "integer_pow",
        "clamp",
        "pow",
        "abs",
        "erf_inv",
    ]
)


def describe(config: Config, ranks: int) -> str:
    """Return the plan of a run as text: tasks, groups, members per rank, bytes of state, FLOPs.

    Args:
        config: the run.
        ranks: number of MPI ranks.
    """
    return "\n".join([*_training_plan(config, ranks), *_evaluation_plan(config)])


def _training_plan(config: Config, ranks: int) -> list[str]:
    training = config.training
    if config.call != "train":
        return []
    evolves = config.optimizer.type == "es"
    specs = training_specs(config)
    groups: dict[tuple[tuple[int, ...], int], list[TaskSpec]] = {}
    for unit in range(training.population_size):
        spec = specs[unit % len(specs)]
        groups.setdefault(task_shapes(spec, "train"), []).append(spec)
    lines = [
        f"train: {training.iterations} meta steps of {training.population_size} "
        + ("antithetic pairs" if evolves else "episodes")
        + f", {training.episode_length} steps of {training.batch_size} example(s) each, on {ranks} rank(s)"
    ]
    flops = 0.0
    examples = training.population_size * training.episode_length * training.batch_size * (1 + evolves)
    for number, ((input_shape, num_classes), units) in enumerate(groups.items()):
        learner = learner_maker(config.model)(input_shape, num_classes)
        per_step = step_flops(learner, training.batch_size) * (1 if evolves else GRADIENT_COST)
        flops += per_step * training.episode_length * len(units) * (1 + evolves)
        size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params_shapes(learner)))
        lines.append(
            f"group {number + 1}: inputs {_by(input_shape)}, {num_classes} classes, {len(units)} units, "
            f"about {math.ceil(len(units) / ranks) * (1 + evolves)} members a rank, {size} meta-parameters, "
            f"state {state_bytes(learner, training.batch_size):,} bytes a member"
        )
        lines += [f"  task: {_told(spec)} ({units.count(spec)} units)" for spec in dict.fromkeys(units)]
    # These refuse what the run would refuse.
    meta_optimizer(config, learner.init_params(jax.random.key(0)))
    evaluated = [
        (spec.name, *task_shapes(spec.task, config.evaluation.subset)) for spec in evaluation_specs(config)
    ]
    check_evaluation(config, learner, evaluated)
    lines.append(
        f"a meta step: {examples:,} examples, {flops:.3g} FLOP; "
        f"the run: {examples * training.iterations:,} examples, {flops * training.iterations:.3g} FLOP"
    )
    return lines


def _evaluation_plan(config: Config) -> list[str]:
    settings = config.evaluation
    when = f"every {settings.frequency} meta steps and " if settings.frequency else ""
    when = f"{when}at the end" if config.call == "train" else "once"
    lines = [f"evaluate: {settings.count} episodes of {settings.episode_length} steps, {when}"]
    for spec in evaluation_specs(config):
        optional = ", if it is there" if spec.optional else ""
        steps = f", {spec.episode_length} steps" if spec.episode_length != settings.episode_length else ""
        lines.append(f"  {spec.name}: {_told(spec.task)}, subset {settings.subset}{steps}{optional}")
    for learner in settings.learners:
        choices = len(model_choices(config.model, learner))
        tried = f", the best of {choices} settings on {settings.tune_count} episodes" if choices > 1 else ""
        origin = f" from {learner.restore}" if learner.restore else ""
        lines.append(f"  learner {learner.name}{origin}{tried}")
    return lines


def step_flops(learner: Learner, batch_size: int) -> float:
    """Return about how many floating-point operations one step of a learner takes.

    Matrix products count two per multiply-add, all other arithmetic one per element, transcendental or not.
    """
    params = params_shapes(learner)
    state = jax.eval_shape(lambda params: learner.init_state(params, jax.random.key(0), batch_size), params)
    x = jax.ShapeDtypeStruct((batch_size, *learner.input_shape), jnp.float32)
    y = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    return _flops(jax.make_jaxpr(learner.step)(params, state, x, y).jaxpr)


def _flops(jaxpr: Any) -> float:
    """Count the operations of a jaxpr, a loop's as often as it turns (XLA's analysis counts them once)."""
    total = 0.0
    for equation in jaxpr.eqns:
        inner = sum(_flops(body) for body in jaxprs_in_params(equation.params))
        outputs = sum(math.prod(out.aval.shape) for out in equation.outvars)
        if inner:
            total += inner * equation.params.get("length", 1)
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += 2 * outputs * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        elif equation.primitive.name in _ARITHMETIC:
            total += outputs
    return total


def task_shapes(spec: TaskSpec, subset: str) -> tuple[tuple[int, ...], int]:
    """Return the input shape and the number of classes that a task's learner is built for.

    Args:
        spec: the kind of task; of data sets only a user's npz is read.
        subset: "train" or "test", whose examples are drawn.

    Raises:
        ValueError: the data set is unknown, or inputs are larger than what they are to be padded to.
    """
    image_shape, num_classes = shapes_of(spec.dataset, subset)
    shape = transforms.output_shape(image_shape, spec.preprocess.resize, spec.preprocess.pad.input)
    classes = num_classes if spec.filter_classes is None else len(spec.filter_classes)
    if spec.few_shot is not None:
        classes = spec.few_shot.ways
    return shape, spec.preprocess.pad.output or classes


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _told(spec: TaskSpec) -> str:
    preprocess = spec.preprocess
    parts = [spec.dataset]
    if spec.filter_classes is not None:
        parts.append(f"classes {list(spec.filter_classes)}")
    if spec.few_shot is not None:
        rotated = " of rotated classes" if spec.few_shot.rotations else ""
        parts.append(f"{spec.few_shot.ways}-way {spec.few_shot.shots}-shot episodes{rotated}")
    if preprocess.resize:
        parts.append(f"resized to {_by(preprocess.resize)}")
    parts += [
        words
        for on, words in (
            (preprocess.rand_proj, "randomly projected"),
            (preprocess.shuffle, "shuffled"),
            (preprocess.permute_labels, "labels permuted"),
            (preprocess.pad.input is not None or preprocess.pad.output is not None, "padded"),
        )
        if on
    ]
    return ", ".join(parts)
