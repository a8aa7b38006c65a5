"""The configuration as a whole: its sections, checked together.

Frozen pydantic models. `vsml.config.files` reads them from YAML and the command line, and checks all before
any device is touched.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from vsml.config.checks import (
    compared_problems,
    few_shot_evaluation_problems,
    few_shot_problems,
    name_problems,
    schedule_problems,
    transform_problems,
)
from vsml.config.model import ModelConfig
from vsml.config.sections import (
    CheckpointConfig,
    CloneConfig,
    DataConfig,
    EvaluationConfig,
    SummaryConfig,
    TrackingConfig,
    TrainingConfig,
)
from vsml.config.specs import EvaluationSpec, TaskSpec, evaluation_specs, training_specs
from vsml.meta.objectives import EpisodeShape, build_objective, objective_problems
from vsml.meta.optimizers import OptimizerConfig, optimizer_problems
from vsml.settings import Int, Name, Options, Problem, Section, Text, refuse


class Config(Section):
    """A whole run."""

    seed: Annotated[Int, Field(ge=0, lt=2**32)] = Field(
        default=0, description="seed of all that is random in training"
    )
    name: Name | None = Field(default=None, description="name of the run, for its directory; null: none")
    call: Text = Field(
        default="train",
        description="what to do: train, evaluate, clone, introspect, battery, search, the call of an "
        "installed package by its name, or package.module:Name",
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
    def training_specs(self) -> tuple[TaskSpec, ...]:
        """The training mixture; see `training_specs`."""
        return training_specs(self.training, self.data)

    @property
    def evaluation_specs(self) -> tuple[EvaluationSpec, ...]:
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
    """Yield what is wrong between settings, each of which is right for itself."""
    if config.checkpoint.other_network and config.checkpoint.restore is None:
        path = "checkpoint.other_network"
        yield Problem(path, True, "false without checkpoint.restore", ("checkpoint.restore",))
    yield from schedule_problems(config.optimizer, config.training)
    yield from transform_problems(config.data, config.training_specs, config.evaluation_specs)
    yield from name_problems(config.evaluation_specs)
    yield from few_shot_problems(config.training, config.training_specs, config.data.few_shot)
    yield from few_shot_evaluation_problems(config.evaluation, config.evaluation_specs)
    yield from compared_problems(config.model, config.evaluation, config.evaluation_specs)
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
