"""Checks between settings: each yields what was got, what is expected, and which other settings matter."""

from collections.abc import Iterator, Sequence

from pydantic import ValidationError

from vsml.config.model import ModelSettings, model_choices
from vsml.config.sections import DataConfig, EvaluationConfig, FewShot, TrainingConfig
from vsml.config.specs import EvaluationSpec, TaskSpec
from vsml.meta.optimizers import OptimizerConfig
from vsml.meta.schedules import Schedule
from vsml.registry import suggestion
from vsml.settings import Problem
from vsml.tasks.preprocess import conflicts, turned_on

RESERVED_NAMES = (
    "meta-trained",
    "restored",
    "start: gradient descent",
    "start: an episodic memory",
    "start: random",
    "start: as written",
    "gradient descent",
    "an episodic memory",
    "random",
    "as written",
)
"""What evaluations call the learners of the run itself."""


def schedule_problems(optimizer: OptimizerConfig, training: TrainingConfig) -> Iterator[Problem]:
    """Yield schedules that would still warm up at the last meta step."""
    limit = training.iterations
    for key in ("learning_rate", "noise_std"):
        schedule = getattr(optimizer, key)
        if not isinstance(schedule, Schedule) or schedule.steps is not None:
            continue
        if schedule.warmup_steps > limit:
            path = f"optimizer.{key}.warmup_steps"
            expected = f"at most training.iterations, {limit}"
            yield Problem(path, schedule.warmup_steps, expected, ("training.iterations",))


def transform_problems(
    data: DataConfig, training: Sequence[TaskSpec], evaluation: Sequence[EvaluationSpec]
) -> Iterator[Problem]:
    """Yield transforms that one task cannot have together."""
    mixed = ("training.dataset", "training.population_size", "data.filter_classes", "data.preprocess")
    in_training: dict[str, str] = {}
    for spec in training:
        in_training |= dict(conflicts(turned_on(spec.preprocess.model_dump())))
    for one, other in in_training.items():
        got = getattr(data.preprocess, one)
        yield Problem(f"data.preprocess.{one}", got, _either(other), mixed)
    for index, each in enumerate(evaluation):
        preprocess = each.task.preprocess.model_dump()
        for one, other in conflicts(turned_on(preprocess)):
            path = f"evaluation.datasets.{index}.preprocess.{one}"
            yield Problem(path, preprocess[one], _either(other), ("evaluation.datasets", *mixed))


def name_problems(evaluation: Sequence[EvaluationSpec]) -> Iterator[Problem]:
    """Yield data sets to evaluate on that are called as an earlier one."""
    first_with: dict[str, int] = {}
    for index, each in enumerate(evaluation):
        first = first_with.setdefault(each.name, index)
        if first != index:
            expected = f"a `name` of its own, as evaluation.datasets.{first} has this one"
            path = f"evaluation.datasets.{index}"
            yield Problem(path, each.name, expected, ("evaluation.datasets",))


def _either(other: str) -> str:
    """Return what is expected of a transform that excludes another."""
    return f"not true together with {other}: a task has one or the other"


def compared_problems(
    base: ModelSettings, evaluation: EvaluationConfig, specs: Sequence[EvaluationSpec]
) -> Iterator[Problem]:
    """Yield what is wrong with the learners that a run is compared with."""
    learners = evaluation.learners
    reserved = (*RESERVED_NAMES, base.type)
    datasets = [spec.name for spec in specs]
    involved = ("evaluation.learners", "model")
    for index, learner in enumerate(learners):
        path = f"evaluation.learners.{index}"
        if learner.name in reserved or learner.name in [other.name for other in learners[:index]]:
            expected = f"a name of its own, and none of {', '.join(reserved)}"
            yield Problem(f"{path}.name", learner.name, expected, involved)
        if unknown := [name for name in learner.datasets or () if name not in datasets]:
            close = suggestion(unknown[0], datasets)
            expected = f"names of evaluation.datasets: {', '.join(datasets)}{close}"
            yield Problem(f"{path}.datasets", unknown[0], expected, (*involved, "evaluation.datasets"))
        for key, values in learner.tune.items():
            if len({repr(value) for value in values}) < len(values):
                yield Problem(f"{path}.tune", values, f"distinct values of {key}", involved)
        try:
            choices = model_choices(base, learner)
        except ValidationError as error:
            for each in error.errors():
                where = ".".join(map(str, each["loc"]))
                expected = f"settings of a model, but {where}: {each['msg']}"
                tuned = any(where == key or where.startswith(f"{key}.") for key in learner.tune)
                key = "tune" if tuned else "model"
                yield Problem(f"{path}.{key}", dict(getattr(learner, key)), expected, involved)
            continue
        types = {model.type for _, model in choices}
        if learner.restore is None and (
            idle := [key for key in learner.tune if key.partition(".")[0] not in {"type", *types}]
        ):
            expected = f"settings of the model's type, {' or '.join(sorted(types))}"
            yield Problem(f"{path}.tune", idle[0], expected, involved)


_ALONE = "1 with few_shot: several images at once would be answered before any of them is learned from"


def few_shot_problems(
    training: TrainingConfig, specs: Sequence[TaskSpec], few_shot: FewShot | None
) -> Iterator[Problem]:
    """Yield what is wrong with few-shot episodes in meta-training."""
    if few_shot is None:
        return
    for length in sorted({spec.episode_length for spec in specs}):
        yield from _support_problems("training", length, few_shot, "data.few_shot")
    if training.batch_size > 1:
        yield Problem("training.batch_size", training.batch_size, _ALONE, ("data.few_shot",))


def few_shot_evaluation_problems(
    evaluation: EvaluationConfig, specs: Sequence[EvaluationSpec]
) -> Iterator[Problem]:
    """Yield what is wrong with few-shot episodes in evaluations."""
    involved = ("data.few_shot", "evaluation.datasets")
    has_few_shot = False
    for index, spec in enumerate(specs):
        few_shot = spec.task.few_shot
        if few_shot is None:
            continue
        has_few_shot = True
        own = getattr(evaluation.datasets[index], "episode_length", None)
        section = f"evaluation.datasets.{index}" if own else "evaluation"
        yield from _support_problems(section, spec.task.episode_length, few_shot, *involved)
    if has_few_shot and evaluation.batch_size > 1:
        yield Problem("evaluation.batch_size", evaluation.batch_size, _ALONE, involved)


def _support_problems(section: str, length: int, few_shot: FewShot, *involved: str) -> Iterator[Problem]:
    if length <= few_shot.support:
        expected = f"more than few_shot.ways * shots, {few_shot.support}, so that queries follow the support"
        yield Problem(f"{section}.episode_length", length, expected, involved)
