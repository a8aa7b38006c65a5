"""Schedules: values that change over meta steps."""

from collections.abc import Callable, Iterator
from typing import (
    Annotated,
    Any,
    Literal,
    Self,
)

import jax.numpy as jnp
import optax
from pydantic import Field, Tag, model_validator

from vsml.settings import (
    Choice,
    Float,
    Int,
    Positive,
    Problem,
    Section,
    refuse,
)
from vsml.types import Array

_Positive = Annotated[Float, Field(gt=0)]


class Schedule(Section):
    """A value that changes over meta steps."""

    type: Literal["constant", "linear", "cosine", "exponential"] = Field(description="shape of the schedule")
    init: _Positive = Field(description="value at the start (after the warm-up)")
    end: Annotated[Float, Field(ge=0)] | None = Field(
        default=None, description="value at the end; needed unless constant"
    )
    steps: Positive | None = Field(
        default=None, description="meta steps from init to end, warm-up included; null: training.iterations"
    )
    warmup_steps: Annotated[Int, Field(ge=0)] = Field(
        default=0, description="meta steps of linear rise from 0 to init"
    )
    cooldown_share: Annotated[Float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="share of the meta steps, the last ones, over which the value falls to 0 in a line",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse(_schedule_problems(self))
        return self


def _schedule_problems(schedule: Schedule) -> Iterator[Problem]:
    kind, end = schedule.type, schedule.end
    involved = ("type",)
    if kind == "constant" and end is not None:
        yield Problem("end", end, "no end, as the type is constant", involved)
    if kind != "constant" and end is None:
        yield Problem("end", None, f"a number, as the type is {kind}", involved)
    if kind == "exponential" and end == 0:
        yield Problem("end", 0, "greater than 0, as the type is exponential", involved)
    warmup, steps = schedule.warmup_steps, schedule.steps
    if steps is not None and warmup > steps:
        yield Problem("warmup_steps", warmup, f"at most steps, {steps}", ("steps",))


ScheduledPositive = Annotated[
    Annotated[_Positive, Tag("<value>")] | Annotated[Schedule, Tag("<mapping>")],
    Choice,
]
"""A positive number, or a schedule."""


def schedule(value: float | Schedule, iterations: int) -> Callable[[Any], Array] | float:
    """Return a number as it is, and a configured schedule as an optax schedule over meta steps.

    Args:
        value: a number or a schedule.
        iterations: meta steps that it takes where it does not say.
    """
    if not isinstance(value, Schedule):
        return value
    steps = value.steps if value.steps is not None else iterations
    rest = max(1, steps - value.warmup_steps)
    main = _after_warmup(value, rest)
    if value.warmup_steps > 0:
        rise = optax.linear_schedule(0.0, value.init, value.warmup_steps)
        main = optax.join_schedules([rise, main], [value.warmup_steps])
    if value.cooldown_share == 0:
        return main
    return _with_cooldown(main, iterations, value.cooldown_share)


def _with_cooldown(
    before: Callable[[Any], Array],
    iterations: int,
    share: float,
) -> Callable[[Any], Array]:
    """Return a schedule whose last meta steps are those of `before` times what falls from 1 to 0.

    A run at a constant rate that ends so is as good as one of that length with a schedule of its own, so runs
    of many lengths are points of one curve (Haegele et al., 2024, arXiv 2405.18392).

    Args:
        before: value at each meta step.
        iterations: meta steps of the run, after the last of which the factor would be 0.
        share: of them.
    """
    length = share * iterations

    def after(step: Any) -> Array:
        factor = jnp.clip((iterations - step) / length, 0.0, 1.0)
        return before(step) * factor

    return after


def _after_warmup(value: Schedule, steps: int) -> Callable[[Any], Array]:
    """Return the part of a schedule that goes from init to end."""
    if value.end is None:
        return optax.constant_schedule(value.init)
    if value.type == "linear":
        return optax.linear_schedule(value.init, value.end, steps)
    rate = value.end / value.init
    if value.type == "cosine":
        return optax.cosine_decay_schedule(value.init, steps, alpha=rate)
    return optax.exponential_decay(value.init, steps, rate, end_value=value.end)
