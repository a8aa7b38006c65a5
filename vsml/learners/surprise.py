"""Surprise: a learner that errs far more often than it did has met something new, and starts afresh."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import struct
from pydantic import Field

from vsml.settings import Float, Int, Section
from vsml.types import Array

KNOWN = 5
"""Examples of a class from which on an answer to it that is wrong is a surprise."""


class SurpriseConfig(Section):
    """When a learner gives up what it has learned in an episode."""

    gap: Annotated[Float, Field(gt=0, lt=1)] = Field(
        default=0.35, description="it starts afresh where it has erred more often by so much than before"
    )
    quick: Annotated[Float, Field(gt=0, le=1)] = Field(
        default=0.05, description="weight of the last answer in the share of errors of now"
    )
    slow: Annotated[Float, Field(gt=0, le=1)] = Field(
        default=0.005, description="likewise in that of before, once so many answers have been given"
    )
    least: Annotated[Int, Field(ge=1)] = Field(
        default=60, description="answers after a start before which it does not start afresh again"
    )


@struct.dataclass
class SurpriseState:
    """How often a learner has erred.

    Attributes:
        quick: share of errors of now, float32 [].
        slow: share of errors of before, float32 [].
        answers: how many were told to be right or wrong since the last start, float32 [].
        classes: examples of each class since then, float32 [C].
        starts: how often it has started afresh, int32 [].
        seed: what fresh states are drawn from, uint32 [2].
    """

    quick: Array
    slow: Array
    answers: Array
    classes: Array
    starts: Array
    seed: Array


@dataclass(frozen=True)
class Surprise:
    """Tells when errors have become far more frequent.

    Two running means of the errors are compared, one of which is quicker than the other:

        quick <- quick + q (error - quick),   slow <- slow + max(s, 1 / answers) (error - slow)

    It is a surprise if quick > slow + gap. Answers to classes of which hardly an example has been met do not
    count: that a class is new is no reason to forget others. That a rise of errors means a change is how
    drift is detected in streams (Gama et al., Learning with Drift Detection, 2004).

    Attributes:
        config: settings.
    """

    config: SurpriseConfig

    def init_state(
        self,
        key: Array,
        classes: int,
    ) -> SurpriseState:
        """Return the state of a learner that has not answered."""
        return SurpriseState(
            quick=jnp.zeros(()),
            slow=jnp.zeros(()),
            answers=jnp.zeros(()),
            classes=jnp.zeros(classes),
            starts=jnp.zeros((), jnp.int32),
            seed=jax.random.key_data(key),
        )

    def after(
        self,
        state: SurpriseState,
        answers: Array,
        y: Array,
        taught: Array | None = None,
    ) -> tuple[SurpriseState, Array]:
        """Take in answers, one after the other.

        Args:
            state: before.
            answers: logits [B, C].
            y: labels [B].
            taught: 0 where a label is not told [B]; None: all are.

        Returns:
            The new state, and whether it was a surprise, bool [].
        """
        config = self.config
        told = jnp.ones(len(y), bool) if taught is None else taught > 0
        surprised = jnp.zeros((), bool)
        for b in range(len(y)):
            counts = told[b] & (state.classes[y[b]] >= KNOWN)
            error = (answers[b].argmax() != y[b]).astype(jnp.float32)
            seen = state.answers + counts
            rate = jnp.maximum(config.slow, 1 / jnp.maximum(seen, 1))
            state = dataclasses.replace(
                state,
                quick=state.quick + jnp.where(counts, config.quick * (error - state.quick), 0.0),
                slow=state.slow + jnp.where(counts, rate * (error - state.slow), 0.0),
                answers=seen,
                classes=state.classes.at[y[b]].add(told[b].astype(jnp.float32)),
            )
            surprised |= (state.quick > state.slow + config.gap) & (seen >= config.least)
        return state, surprised

    def restarted(self, state: SurpriseState) -> tuple[SurpriseState, Array]:
        """Return the state after a fresh start, and a key to draw the rest from."""
        starts = state.starts + 1
        key = jax.random.fold_in(jax.random.wrap_key_data(state.seed), starts)
        nothing = jax.tree.map(jnp.zeros_like, state)
        return dataclasses.replace(nothing, starts=starts, seed=state.seed), key

    def with_new_outputs(
        self,
        state: SurpriseState,
        kept: Array,
        outputs: int,
    ) -> SurpriseState:
        """Return the state with so many outputs, of which the new ones have not been met."""
        known = jnp.where(kept, state.classes, 0.0)
        return dataclasses.replace(state, classes=jnp.zeros(outputs).at[: len(known)].set(known))
