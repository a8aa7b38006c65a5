"""The sections of the configuration: every setting with its type, range, default, meaning and unit.

The settings of a learner, of an objective and of a meta-optimizer are declared in its own file.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, Tag, model_validator

from vsml.config.preprocess import Pad, Preprocess, PreprocessMixture
from vsml.learners.refitted import Refit
from vsml.meta.objectives import EpisodeConfig
from vsml.meta.objectives.clone import Draws
from vsml.meta.objectives.episode import LossType
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
    Splittable,
    Text,
    refuse,
)

MAX_TRIALS = 2**20
"""Trials of a meta step, at most: each is listed, with what it draws from, before anything is computed."""


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
    classes_at_once: Positive | None = Field(
        default=None,
        description="classes of the support that come together before the next so many do, as in "
        "class-incremental streams; null: all of them",
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
    population_size: Annotated[Int, Field(ge=1, le=MAX_TRIALS)] = Field(
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
        "synapses from back-propagation (settings in `clone`); battery: the loss over learning tests "
        "(options tests, tags, levels); the name of an objective of an installed package, or "
        "package.module:Name",
    )
    objective_options: Options = Field(
        default=(), description="settings of an objective other than episode and clone"
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
    refit: Refit | None = Field(
        default=None,
        description="a classifier of scikit-learn that is fitted anew every n steps, in place of a learner; "
        "without restore, model and tune",
    )
    count: Positive | None = Field(
        default=None,
        description="how many episodes, the first of all, such as for one that takes long; null: "
        "evaluation.count",
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

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse(self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        """Yield what a classifier of scikit-learn has no use for."""
        given = {"restore": self.restore, "model": dict(self.model), "tune": dict(self.tune)}
        for name, value in given.items():
            if self.refit is not None and value:
                yield Problem(name, value, "nothing beside refit", ("refit",))


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
        default=None, description="null: WANDB_MODE, else online if an API key is there, else offline"
    )
    project: Text | None = Field(
        default=None, description="project to log to; null: WANDB_PROJECT, else vsml"
    )
    entity: Text | None = Field(
        default=None, description="user or team; null: WANDB_ENTITY, else the account's default"
    )
    group: Text | None = Field(
        default=None, description="group of the run; null: WANDB_RUN_GROUP, or its sweep"
    )
    job_type: Text | None = Field(
        default=None, description="kind of run within its group; null: WANDB_JOB_TYPE, else what `call` is"
    )
    tags: tuple[Text, ...] = Field(
        default=(),
        description="tags of the run; --tags adds to them. Where there are none: WANDB_TAGS, with commas",
    )


class TrackingConfig(Section):
    """Where metrics go besides the run directory."""

    wandb: WandbConfig = Field(default=WandbConfig(), description="Weights & Biases")


POINTS = 60
"""How many times, evenly over its stream, a network of clones is compared with back-propagation."""


class CloneConfig(Draws):
    """What synapses are shown to become back-propagation, with `call: clone`: normal random numbers."""

    follow: Annotated[Int, Field(ge=0)] = Field(
        default=0,
        description="examples of each of evaluation.datasets that a network of clones learns in the end, "
        "beside the same network under back-propagation; both are then tested on other examples",
    )
