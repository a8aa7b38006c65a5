"""The section `model`: the type of the learning algorithm, and the settings of each type."""

import functools
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, create_model, model_validator

from vsml.config.sections import ComparedLearner
from vsml.learners import LEARNERS, config_type
from vsml.options import member_problems, read_options
from vsml.settings import Options, Problem, Section, Text, deep_merge, refuse


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
