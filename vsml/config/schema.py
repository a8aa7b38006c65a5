"""The schema of the configuration: every setting with its type, range, default, meaning and unit.

Frozen pydantic models, one per section; the settings of a learning algorithm are declared in its own file.
`vsml.config.files` reads them from YAML and the command line, and checks all before any device is touched.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, Tag, ValidationError, create_model, model_validator

from vsml.config.preprocess import Pad, Preprocess, PreprocessMixture
from vsml.learners import LEARNERS, config_type
from vsml.meta.objectives import EpisodeConfig, EpisodeShape, build_objective, objective_problems
from vsml.meta.objectives.clone import Draws
from vsml.meta.objectives.episode import LossType
from vsml.meta.optimizers import OptimizerConfig, optimizer_problems
from vsml.meta.schedules import Schedule
from vsml.options import member_problems, read_options
from vsml.settings import (
    Bool,
    Choice,
    Classes,
    Float,
    Int,
    Name,
    Options,
    Overrides,
    Plugin,
    Positive,
    Problem,
    Section,
    Split,
    Splittable,
    Text,
    deep_merge,
    refuse,
)
from vsml.tasks.preprocess import conflicts, name_parts, turned_on

RESERVED_NAMES = (
    "meta-trained",
    "restored",
    "start: gradient descent",
    "start: random",
    "gradient descent",
    "random",
)
"""What evaluations call the learners of the run itself."""


def _plain(mixture: type[Section], name: str) -> Any:
    """Return the default and description that a splittable field declares, for its plain twin."""
    field = mixture.model_fields[name]
    return Field(default=field.default, description=field.description)


class FewShot(Section):
    """Episodes that draw some classes out of many: N ways, K shots of each, then queries."""

    ways: Annotated[Int, Field(ge=2)] = Field(
        default=5, description="classes of an episode, drawn and labelled anew for each"
    )
    shots: Positive = Field(
        default=1,
        description="labelled examples of each that come first, without weight; all later steps are queries",
    )
    rotations: Bool = Field(
        default=False,
        description="draw classes out of four times as many: their images turned by 0, 90, 180, 270 degrees",
    )
    teach_queries: Bool = Field(
        default=True,
        description="whether a learner is told the labels of queries, too, after it has answered",
    )

    @property
    def support(self) -> int:
        """How many examples an episode begins with before its queries."""
        return self.ways * self.shots


class TrainingConfig(Section):
    """Meta-training: how many meta steps, of how many episodes, of what."""

    iterations: Annotated[Int, Field(ge=0)] = Field(default=10_001, description="meta steps")
    dataset: Splittable[Text] = Field(
        default="mnist", description="data set by name, or the path of an .npz file"
    )
    batch_size: Positive = Field(default=1, description="inner batch: examples per step of an episode")
    episode_length: Splittable[Positive] = Field(default=500, description="steps per episode")
    population_size: Positive = Field(
        default=1024,
        description="trials of a meta step: antithetic pairs for es, episodes for gradient",
    )
    chunk_size: Positive | None = Field(
        default=None,
        description="trials (pairs or episodes) evaluated in one call, best a power of two: then results do "
        "not depend on it; null chooses one",
    )
    objective: Text = Field(
        default="episode",
        description="what is minimised. episode: the loss of learners over episodes; clone: the distance of "
        "synapses from back-propagation (settings in `clone`); the name of an objective of an installed "
        "package, or package.module:Name of one",
    )
    objective_options: Options = Field(
        default=(), description="settings of an objective that is neither episode nor clone"
    )
    loss_type: LossType = _plain(EpisodeConfig, "loss_type")
    time_limit_s: Annotated[Float, Field(gt=0)] | None = Field(
        default=None,
        description="stop in good order after this time (seconds), to be resumed; null never stops",
    )
    callbacks: tuple[Plugin, ...] = Field(
        default=(),
        description="what is called with meta steps and evaluations, each a name (snapshots) or the "
        "mapping below",
    )


class EvaluationTask(Overrides):
    """One data set to evaluate on; what is not given is as in `data`, a split by its first option."""

    dataset: Text = Field(description="data set by name, or the path of an .npz file")
    name: Name | None = Field(
        default=None,
        description="name in metrics, tables and figures; null makes one from what is given here",
    )
    optional: Bool = Field(
        default=False,
        description="leave it out, with a notice, where its files are missing; never download them",
    )
    filter_classes: Classes | None = Field(
        default=None, description="classes to keep (null: all); where absent, as in data.filter_classes"
    )
    preprocess: Preprocess = Field(
        default=Preprocess(), description="keys of data.preprocess that differ here, without splits"
    )
    few_shot: FewShot | None = Field(
        default=None,
        description="as data.few_shot, all of it (null: ordinary episodes); where absent, as there",
    )
    episode_length: Positive | None = Field(
        default=None, description="steps per episode; null: evaluation.episode_length"
    )


class ComparedLearner(Section):
    """A learner to evaluate beside the others, on the same episodes."""

    name: Annotated[str, Field(pattern=r"^[^|\n]+$")] = Field(description="name in tables and figures")
    restore: Text | None = Field(
        default=None,
        description="meta-parameters, as in checkpoint.restore, whose model settings are taken too; "
        "null: freshly drawn ones, which a learner that has none does not need",
    )
    model: Mapping[str, Any] = Field(
        default={},
        description="settings that differ from those of the file, for which only random_features, views and "
        "how synapses are computed may, or from `model` without a file",
    )
    tune: Mapping[Text, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(
        default={},
        description="settings below `model` by dotted path, each with values to try; of all combinations the "
        "one with the highest accuracy on other episodes is taken, for each data set its own",
    )
    pad: Pad = Field(default=Pad(), description="keys of data.preprocess.pad that differ for this learner")
    datasets: Annotated[tuple[Text, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="names of those of evaluation.datasets that it is evaluated on, such as those that its "
        "meta-parameters fit; null: all",
    )


class EvaluationConfig(Section):
    """Meta-testing: on what, how often, how many episodes."""

    datasets: tuple[
        Annotated[
            Annotated[Text, Tag("<value>")] | Annotated[EvaluationTask, Tag("<mapping>")],
            Choice,
        ],
        ...,
    ] = Field(default=("mnist", "fashion_mnist"), description="data sets, each a name or the mapping below")
    episode_length: Positive = Field(default=2000, description="steps per episode")
    count: Positive = Field(default=32, description="episodes per data set")
    batch_size: Positive = Field(default=1, description="inner batch: examples per step of an episode")
    frequency: Annotated[Int, Field(ge=0)] = Field(
        default=100, description="meta steps between evaluations; 0 evaluates at the end only"
    )
    seed: Annotated[Int, Field(ge=0, lt=2**32)] = Field(
        default=0, description="seed of the evaluation episodes, the same at every evaluation"
    )
    subset: Literal["train", "test"] = Field(default="test", description="examples to draw from")
    start: Bool = Field(
        default=True, description="at the end evaluate the meta-parameters of the start too, to compare with"
    )
    metrics: tuple[Plugin, ...] = Field(
        default=(),
        description="what answers are measured by beside loss and accuracy, each a name (brier, confidence) "
        "or the mapping below",
    )
    learners: tuple[ComparedLearner, ...] = Field(
        default=(), description="at the end evaluate these too, to compare with"
    )
    tune_count: Positive = Field(
        default=8, description="episodes that each combination of a learner's `tune` is tried on"
    )
    tune_by: Literal["accuracy", "accuracy_last"] = Field(
        default="accuracy",
        description="the accuracy that decides between them: over the whole episode, or at its end",
    )
    recent_share: Annotated[Float, Field(ge=0, le=1)] = Field(
        default=0.2,
        description="the accuracy after n examples is that on this share of them, the latest; 0: on example "
        "n alone",
    )


class DataConfig(Section):
    """Where the data are and how they become tasks."""

    root: Text | None = Field(
        default=None, description="folder of the data sets; null: VSML_DATA_DIR, else the user's cache"
    )
    verify: Bool = Field(default=True, description="refuse files whose checksum is not the published one")
    filter_classes: Splittable[Classes | None] = Field(
        default=None, description="classes to keep; null keeps all"
    )
    num_tasks: Positive | None = Field(
        default=None,
        description="different draws of projections and permutations in meta-training, not of the classes "
        "of few-shot episodes; null: no limit",
    )
    few_shot: FewShot | None = Field(
        default=None,
        description="few-shot episodes, by the settings below; null: episodes of all classes throughout",
    )
    preprocess: PreprocessMixture = Field(
        default=PreprocessMixture(), description="how examples become inputs"
    )


class CheckpointConfig(Section):
    """What is kept of a run."""

    frequency: Positive = Field(default=100, description="meta steps between checkpoints")
    keep: Positive = Field(default=3, description="newest checkpoints that stay")
    restore: Text | None = Field(
        default=None,
        description="meta-parameters to start from or to evaluate: a file, a run's folder, or a run or an "
        "artifact of wandb (entity/project/name); null starts afresh",
    )
    other_network: Bool = Field(
        default=False,
        description="model may differ from restore's in the network around synapses: random_features, views, "
        "layers, init_weights, error_scale",
    )


class SummaryConfig(Section):
    """What is written while training."""

    frequency: Positive = Field(default=10, description="meta steps between lines of metrics")


class WandbConfig(Section):
    """Weights & Biases, which no run needs."""

    mode: Literal["online", "offline", "disabled"] | None = Field(
        default=None, description="null: online if an API key is there, else offline"
    )
    project: Text = Field(default="vsml", description="project to log to")
    entity: Text | None = Field(default=None, description="user or team; null: the account's default")
    group: Text | None = Field(
        default=None, description="group of the run; null: WANDB_RUN_GROUP, or its sweep"
    )
    job_type: Text | None = Field(
        default=None, description="kind of run within its group; null: what `call` is"
    )
    tags: tuple[Text, ...] = Field(default=(), description="tags of the run; --tags adds to them")


class TrackingConfig(Section):
    """Where metrics go besides the run directory."""

    wandb: WandbConfig = Field(default=WandbConfig(), description="Weights & Biases")


class ModelSettings(Section):
    """The learning algorithm: its type, and a section of settings for each type."""

    type: Text = Field(
        default="vsml",
        description="kind of learning algorithm: one that has a section here, that of an installed package "
        "by its name, or package.module:Name",
    )
    options: Options = Field(
        default=(), description="settings of a kind that has no section here, from outside of the library"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse(_model_problems(self))
        return self

    @property
    def settings(self) -> Section:
        """Return the section of the chosen type."""
        if self.type in LEARNERS:
            return getattr(self, self.type)
        return read_options(LEARNERS.resolve(self.type), dict(self.options), "model.options")


def _model_problems(model: ModelSettings) -> Iterator[Problem]:
    if model.type not in LEARNERS:
        yield from member_problems(LEARNERS, model.type, dict(model.options), "type", "options")
    elif model.options:
        expected = f"none with type {model.type}, whose settings are in the section {model.type}"
        yield Problem("options", dict(model.options), expected, ("type",))


if TYPE_CHECKING:
    ModelConfig = ModelSettings
else:
    ModelConfig = create_model(
        "ModelConfig",
        __base__=ModelSettings,
        __doc__=ModelSettings.__doc__,
        **{
            name: (kind, Field(default=kind(), description=f"settings of {name}"))
            for name, kind in ((name, config_type(name)) for name in LEARNERS)
        },
    )


POINTS = 60
"""How many times, evenly over its stream, a network of clones is compared with back-propagation."""


class CloneConfig(Draws):
    """What synapses are shown to become back-propagation, with `call: clone`: normal random numbers."""

    follow: Annotated[Int, Field(ge=0)] = Field(
        default=0,
        description="examples of each of evaluation.datasets that a network of clones learns in the end, "
        "beside the same network under back-propagation; both are then tested on other examples",
    )


class Config(Section):
    """A whole run."""

    seed: Annotated[Int, Field(ge=0, lt=2**32)] = Field(
        default=0, description="seed of all that is random in training"
    )
    name: Name | None = Field(default=None, description="name of the run, for its directory; null: none")
    call: Text = Field(
        default="train",
        description="what to do: train, evaluate, clone, introspect, the call of an installed package by its "
        "name, or package.module:Name",
    )
    call_options: Options = Field(
        default=(), description="settings of a call that has no section here, from outside of the library"
    )
    training: TrainingConfig = Field(default=TrainingConfig(), description="meta-training")
    evaluation: EvaluationConfig = Field(default=EvaluationConfig(), description="meta-testing")
    clone: CloneConfig = Field(default=CloneConfig(), description="cloning back-propagation")
    data: DataConfig = Field(default=DataConfig(), description="data sets and tasks")
    optimizer: OptimizerConfig = Field(default=OptimizerConfig(), description="the outer loop")
    checkpoint: CheckpointConfig = Field(default=CheckpointConfig(), description="what is kept")
    summary: SummaryConfig = Field(default=SummaryConfig(), description="what is written")
    tracking: TrackingConfig = Field(default=TrackingConfig(), description="trackers")
    model: ModelConfig = Field(default=ModelConfig(), description="the learning algorithm")

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse(_config_problems(self))
        return self

    @property
    def training_specs(self) -> "tuple[TaskSpec, ...]":
        """The training mixture; see `training_specs`."""
        return training_specs(self.training, self.data)

    @property
    def evaluation_specs(self) -> "tuple[EvaluationSpec, ...]":
        """What `evaluation.datasets` says, with names and inherited settings filled in."""
        return evaluation_specs(self.evaluation, self.data)

    @property
    def objective_settings(self) -> tuple[str, Mapping[str, Any]]:
        """The name of the objective, and its settings from wherever they stand."""
        training = self.training
        name = "clone" if self.call == "clone" else training.objective
        if name == "episode":
            return name, {
                "loss_type": training.loss_type,
                "truncation_length": self.optimizer.truncation_length,
            }
        if name == "clone":
            return name, self.clone.model_dump(exclude={"follow"})
        return name, dict(training.objective_options)

    @property
    def examples_per_step(self) -> int:
        """How many examples one member of each trial sees in a meta step."""
        training = self.training
        trials = training.population_size
        objective = build_objective(*self.objective_settings)
        if objective.learner_shape is not None:
            return trials * objective.examples(None)
        specs = self.training_specs
        examples = 0
        for trial in range(trials):
            length = specs[trial % len(specs)].episode_length
            examples += objective.examples(EpisodeShape(length, training.batch_size))
        return examples


def _config_problems(config: Config) -> Iterator[Problem]:
    if config.checkpoint.other_network and config.checkpoint.restore is None:
        path = "checkpoint.other_network"
        yield Problem(path, True, "false without checkpoint.restore", ("checkpoint.restore",))
    for key in ("learning_rate", "noise_std"):
        schedule = getattr(config.optimizer, key)
        if isinstance(schedule, Schedule) and schedule.steps is None:
            path, limit = f"optimizer.{key}.warmup_steps", config.training.iterations
            if schedule.warmup_steps > limit:
                involved = ("training.iterations",)
                yield Problem(path, schedule.warmup_steps, f"at most training.iterations, {limit}", involved)
    mixed = ("training.dataset", "training.population_size", "data.filter_classes", "data.preprocess")
    in_training: dict[str, str] = {}
    for spec in config.training_specs:
        in_training |= dict(conflicts(turned_on(spec.preprocess.model_dump())))
    for one, other in in_training.items():
        got = getattr(config.data.preprocess, one)
        yield Problem(f"data.preprocess.{one}", got, _either(other), mixed)
    first_with: dict[str, int] = {}
    for index, evaluation in enumerate(config.evaluation_specs):
        path = f"evaluation.datasets.{index}"
        preprocess = evaluation.task.preprocess.model_dump()
        for one, other in conflicts(turned_on(preprocess)):
            where = f"{path}.preprocess.{one}"
            yield Problem(where, preprocess[one], _either(other), ("evaluation.datasets", *mixed))
        first = first_with.setdefault(evaluation.name, index)
        if first != index:
            expected = f"a `name` of its own, as evaluation.datasets.{first} has this one"
            yield Problem(path, evaluation.name, expected, ("evaluation.datasets",))
    yield from _few_shot_problems(config.training, config.training_specs, config.data.few_shot)
    yield from _few_shot_evaluation_problems(config.evaluation, config.evaluation_specs)
    yield from _compared_problems(config.model, config.evaluation, config.evaluation_specs)
    yield from optimizer_problems(config.optimizer)
    if config.call in ("train", "clone"):
        yield from _objective_problems(config)


_OWN_PLACES = {
    "episode": "training.loss_type and optimizer.truncation_length",
    "clone": "the section `clone`",
}
"""Where the settings of objectives stand that have none in training.objective_options."""


def _objective_problems(config: Config) -> Iterator[Problem]:
    training = config.training
    name, options = config.objective_settings
    path = "training.objective"
    if config.call == "clone" and training.objective not in ("episode", "clone"):
        yield Problem(path, training.objective, "clone with call: clone", ("call",))
    if name in _OWN_PLACES and training.objective_options:
        expected = f"nothing, as the settings of {name} are {_OWN_PLACES[name]}"
        given = dict(training.objective_options)
        yield Problem("training.objective_options", given, expected, (path,))
    if name != "episode":
        for other, default in (("optimizer.truncation_length", None), ("training.loss_type", "mean")):
            section, _, key = other.partition(".")
            value = getattr(getattr(config, section), key)
            if value != default:
                yield Problem(
                    other, value, f"{default or 'null'}, as it is about training.objective: episode"
                )
    problems = list(objective_problems(name, options))
    yield from problems
    if problems:
        return
    reason, involved = f"{path}: {name}", (path,)
    if config.call == "clone":
        reason, involved = "call: clone", ("call",)
    model = config.model
    for problem in build_objective(name, options).model_problems(model.type, model.settings, reason):
        involves = tuple(f"model.{other}" for other in problem.involves)
        yield Problem(f"model.{problem.path}", problem.got, problem.expected, (*involved, *involves))
    if name == "clone" and config.call != "clone" and config.clone.follow:
        yield Problem("clone.follow", config.clone.follow, "0 without call: clone", ("call",))


def _either(other: str) -> str:
    """Return what is expected of a transform that excludes another."""
    return f"not true together with {other}: a task has one or the other"


def _compared_problems(
    base: ModelSettings, evaluation: EvaluationConfig, specs: "Sequence[EvaluationSpec]"
) -> Iterator[Problem]:
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
            expected = f"names of evaluation.datasets: {', '.join(datasets)}"
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


def _few_shot_problems(
    training: TrainingConfig, specs: "Sequence[TaskSpec]", few_shot: FewShot | None
) -> Iterator[Problem]:
    """Yield what is wrong with few-shot episodes in meta-training."""
    if few_shot is None:
        return
    for length in sorted({spec.episode_length for spec in specs}):
        yield from _support_problems("training", length, few_shot, "data.few_shot")
    if training.batch_size > 1:
        yield Problem("training.batch_size", training.batch_size, _ALONE, ("data.few_shot",))


def _few_shot_evaluation_problems(
    evaluation: EvaluationConfig, specs: "Sequence[EvaluationSpec]"
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


def model_choices(
    base: ModelSettings, learner: ComparedLearner
) -> tuple[tuple[dict[str, Any], ModelSettings], ...]:
    """Return the model settings that a compared learner is to be chosen from.

    Args:
        base: what its own settings are laid upon.
        learner: with settings, and values to try.

    Returns:
        For each combination what of `tune` it takes, by dotted path, and all of its settings.

    Raises:
        ValidationError: a setting does not exist, or has no such value.
    """
    axes = ([(path, value) for value in values] for path, values in learner.tune.items())
    choices = []
    for combination in itertools.product(*axes):
        changes = [
            functools.reduce(lambda inner, key: {key: inner}, reversed(path.split(".")), value)
            for path, value in combination
        ]
        asked = deep_merge(learner.model, *changes)
        below = base.model_dump()
        if asked.get("type", base.type) != base.type:
            # Options are those of one type. Of another one they are no settings.
            below["options"] = {}
        settings = deep_merge(below, asked)
        choices.append((dict(combination), ModelConfig.model_validate(settings)))
    return tuple(choices)


# From the configuration to the tasks.


@dataclass(frozen=True)
class TaskSpec:
    """One kind of task, without splits; equal specs are the same kind of task.

    Attributes:
        dataset: name, or path of an .npz file.
        filter_classes: classes to keep; None keeps all.
        preprocess: every value set.
        few_shot: which few-shot episodes; None: ordinary ones.
        episode_length: steps per episode.
    """

    dataset: str
    filter_classes: tuple[int, ...] | None
    preprocess: Preprocess
    few_shot: FewShot | None
    episode_length: int

    def padded(self, pad: Pad) -> Self:
        """Return the same kind of task with the given keys of its padding."""
        changes = deep_merge(self.preprocess.model_dump(), {"pad": pad.model_dump()})
        return dataclasses.replace(self, preprocess=Preprocess.model_validate(changes))


@dataclass(frozen=True)
class EvaluationSpec:
    """One data set to evaluate on.

    Attributes:
        name: unique in a configuration.
        optional: leave it out where its files are missing.
        task: the kind of task.
    """

    name: str
    optional: bool
    task: TaskSpec


def training_specs(training: TrainingConfig, data: DataConfig) -> tuple[TaskSpec, ...]:
    """Return the training mixture, of which trial i (pair or episode) takes `specs[i % len(specs)]`.

    Its length is the least common period of all splits, cut to `training.population_size`.
    """
    parts = (training.dataset, data.filter_classes, data.preprocess, data.few_shot, training.episode_length)
    period = math.lcm(*_periods(parts))
    count = min(period, training.population_size)
    return tuple(_resolved_spec(*parts, trial=number) for number in range(count))


def evaluation_specs(evaluation: EvaluationConfig, data: DataConfig) -> tuple[EvaluationSpec, ...]:
    """Return what `evaluation.datasets` says, with names and inherited settings filled in."""
    length = evaluation.episode_length
    inherited = _resolved_spec("", data.filter_classes, data.preprocess, data.few_shot, length, trial=0)
    specs = []
    for entry in evaluation.datasets:
        task = EvaluationTask(dataset=entry) if isinstance(entry, str) else entry
        specs.append(_evaluation_spec(task, inherited))
    return tuple(specs)


def _evaluation_spec(entry: EvaluationTask, inherited: TaskSpec) -> EvaluationSpec:
    own_classes = "filter_classes" in entry.model_fields_set
    own_few_shot = "few_shot" in entry.model_fields_set
    values = inherited.preprocess.model_dump()
    changes = entry.preprocess.model_dump()  # only the keys that were given
    task = TaskSpec(
        entry.dataset,
        entry.filter_classes if own_classes else inherited.filter_classes,
        Preprocess.model_validate(deep_merge(values, changes)),
        entry.few_shot if own_few_shot else inherited.few_shot,
        entry.episode_length or inherited.episode_length,
    )
    name = entry.name or _automatic_name(entry, changes)
    return EvaluationSpec(name, entry.optional, task)


def _automatic_name(entry: EvaluationTask, changes: Mapping[str, Any]) -> str:
    """Name the data set and what was changed for it: digits+rand_proj, mnist@14x14, omniglot+5way1shot."""
    name = PurePath(entry.dataset).stem if entry.dataset.endswith(".npz") else entry.dataset
    name = name.rpartition(":")[2]  # package.module:Name
    front, end = name_parts(changes)
    name += front
    if "filter_classes" in entry.model_fields_set:
        name += "+classes_" + ("_".join(map(str, entry.filter_classes)) if entry.filter_classes else "all")
    name += end
    if "few_shot" in entry.model_fields_set:
        few_shot = entry.few_shot
        name += f"+{few_shot.ways}way{few_shot.shots}shot" if few_shot else "-few_shot"
        name += "+rotations" if few_shot and few_shot.rotations else ""
        name += "-teach_queries" if few_shot and not few_shot.teach_queries else ""
    return name + (f"+{entry.episode_length}steps" if entry.episode_length else "")


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, Split):
        return value.split
    if isinstance(value, Section):
        return (getattr(value, key) for key in type(value).model_fields)
    return value if isinstance(value, tuple) else ()


def _periods(value: Any) -> Iterator[int]:
    if isinstance(value, Split):
        yield value.repeat * len(value.split)
    for child in _children(value):
        yield from _periods(child)


def _resolve(value: Any, trial: int) -> Any:
    """Return `value` as plain mappings, tuples and scalars, with the options that `trial` takes."""
    if isinstance(value, Split):
        return _resolve(value.split[trial // value.repeat % len(value.split)], trial)
    if isinstance(value, Section):
        return {key: _resolve(getattr(value, key), trial) for key in type(value).model_fields}
    if isinstance(value, tuple):
        return tuple(_resolve(each, trial) for each in value)
    return value


def _resolved_spec(
    dataset: Any,
    filter_classes: Any,
    preprocess: PreprocessMixture,
    few_shot: FewShot | None,
    episode_length: Any,
    trial: int,
) -> TaskSpec:
    return TaskSpec(
        _resolve(dataset, trial),
        _resolve(filter_classes, trial),
        Preprocess.model_validate(_resolve(preprocess, trial)),
        few_shot,
        _resolve(episode_length, trial),
    )
