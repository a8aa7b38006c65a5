"""Settings of the harness: how long an example lasts, when it is answered and how it is taught."""

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, model_validator

from vsml.settings import Bool, Int, Positive, Problem, Section, refuse


class Teaching(Section):
    """How a rule is shown examples and taught, whatever an example's length. Ticks are counted from 0."""

    x_hold: Positive | None = Field(
        default=None, description="ticks that an input stands, from 1 to K; null is K"
    )
    read: Literal["tick", "mean", "ready"] = Field(
        default="tick",
        description="what the answer is: the output after the read tick, its mean over the last ticks up to "
        "it, or its value when the last output node, which is no answer then, first rises above 0.5",
    )
    read_mean: Positive = Field(default=1, description="ticks of that mean, from 1 to R + 1")
    teach: Literal["error", "target", "target_as_input", "broadcast_error", "reward", "none"] = Field(
        default="error", description="what is told of the answer"
    )
    teach_tick: Positive | None = Field(
        default=None, description="first tick of teaching, D, from R + 1 to K; null is R + 1"
    )
    teach_hold: Positive = Field(
        default=1, description="ticks that teaching stands, from 1 to K; from tick K on beside the next input"
    )
    announce: Bool = Field(default=False, description="every node is told that there is teaching")
    reward: Literal["loss", "correct"] = Field(
        default="loss", description="the reward is minus the loss, or 1 for the right class and else 0"
    )
    reset: Literal["never", "signals", "all"] = Field(
        default="never",
        description="what is forgotten before each example: nothing, slots without an initialisation, or all",
    )


class Settings(Teaching):
    """Timing and teaching of a rule."""

    ticks: Positive = Field(description="ticks that an example lasts, K")
    read_tick: Int = Field(description="the answer is read after this tick, R, from 0 to K - 1")
    loss: Literal["classes", "regression"] = Field(
        default="classes", description="cross-entropy of a label, or half the squared error of values"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse(_problems(self))
        return self

    @property
    def x_ticks(self) -> int:
        """Ticks that an input stands."""
        return self.ticks if self.x_hold is None else self.x_hold

    @property
    def first_teach_tick(self) -> int:
        """The first tick of teaching, D."""
        return self.read_tick + 1 if self.teach_tick is None else self.teach_tick

    @property
    def end_of_teaching(self) -> int:
        """The first tick after teaching, D + m; above K it is in the next example."""
        return self.first_teach_tick + self.teach_hold


def _problems(settings: Settings) -> Iterator[Problem]:
    ticks = settings.ticks
    read = settings.read_tick
    if not 0 <= read < ticks:
        yield Problem("read_tick", read, f"0 to {ticks - 1}, being less than ticks", ("ticks",))
    if settings.x_ticks > ticks:
        yield Problem("x_hold", settings.x_hold, f"1 to {ticks}, being at most ticks", ("ticks",))
    if settings.read_mean > read + 1:
        yield Problem("read_mean", settings.read_mean, f"1 to {read + 1}", ("read_tick",))
    if not read < settings.first_teach_tick <= ticks:
        expected = f"{read + 1} to {ticks}, after read_tick"
        yield Problem("teach_tick", settings.teach_tick, expected, ("read_tick", "ticks"))
    if settings.teach_hold > ticks:
        yield Problem("teach_hold", settings.teach_hold, f"1 to {ticks}, being at most ticks", ("ticks",))
    if settings.reward == "correct" and settings.loss != "classes":
        yield Problem("reward", "correct", "loss, because regression has no right answers", ("loss",))
