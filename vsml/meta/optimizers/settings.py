"""The section of the configuration about the outer loop."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from vsml.meta.objectives.episode import EpisodeConfig
from vsml.meta.schedules import Schedule, ScheduledPositive
from vsml.settings import (
    Float,
    Options,
    Positive,
    Problem,
    Section,
    Text,
    refuse,
)


class OptimizerConfig(Section):
    """The outer loop: how meta-parameters are improved."""

    type: Text = Field(
        default="es",
        description="es: evolution strategies; gradient: back-propagation through what is judged; the name "
        "of a meta-optimizer of an installed package, or package.module:Name of one",
    )
    options: Options = Field(
        default=(), description="settings of a meta-optimizer that is neither es nor gradient"
    )
    learning_rate: ScheduledPositive = Field(
        default=0.025, description="step size of Adam; a number or a schedule"
    )
    noise_std: ScheduledPositive = Field(
        default=0.05,
        description="es: deviation of the perturbations; a number or a schedule without warm-up and cooldown",
    )
    clip_gradnorm: Annotated[Float, Field(gt=0)] | None = Field(
        default=None, description="largest global norm of the gradient; null does not clip"
    )
    max_slope: Annotated[Float, Field(gt=0)] | None = Field(
        default=None,
        description="largest root mean square of a meta-parameter's gradient (nats a unit) up to which its "
        "steps are Adam's; steeper ones take steps shorter by the square of the ratio. For starts that are "
        "written down, such as init: backprop with hidden units; null: all alike",
    )
    truncation_length: Positive | None = Field(
        default=None, description=EpisodeConfig.model_fields["truncation_length"].description
    )
    algorithm: Text = Field(
        default="antithetic",
        description="es: antithetic (pairs, no fitness shaping, no population in memory), or a "
        "distribution-based algorithm of evosax by name, such as Open_ES",
    )
    algorithm_options: Mapping[str, Any] = Field(
        default={}, description="es: options of an algorithm of evosax by their names there"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse(_noise_problems(self.noise_std))
        return self


def _noise_problems(noise_std: float | Schedule) -> Iterator[Problem]:
    if not isinstance(noise_std, Schedule):
        return
    # The gradient estimate divides by it.
    if noise_std.warmup_steps > 0:
        yield Problem("noise_std.warmup_steps", noise_std.warmup_steps, "0, as noise cannot start at 0")
    if noise_std.cooldown_share > 0:
        yield Problem("noise_std.cooldown_share", noise_std.cooldown_share, "0, as noise cannot end at 0")
    if noise_std.end == 0:
        yield Problem("noise_std.end", 0, "greater than 0, as noise cannot end at 0")
