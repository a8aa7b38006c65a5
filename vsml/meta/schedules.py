"""Schedules: values that change over meta steps."""

from collections.abc import Callable, Iterator
from typing import (
    Annotated,
    Any,
    Literal,
    Self,
)

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
    if value.warmup_steps == 0:
        return main
    rise = optax.linear_schedule(0.0, value.init, value.warmup_steps)
    return optax.join_schedules([rise, main], [value.warmup_steps])


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
