"""Nearest neighbours among the latest examples: the simplest learner that keeps what it saw."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from pydantic import Field

from vsml.learners.buffer import Buffer
from vsml.learners.buffered import BufferedLearner
from vsml.learners.distances import Metric, distances
from vsml.learners.shares import Doubt, share_logits
from vsml.settings import Float, Positive, Section
from vsml.types import Array, Classes


class NeighboursConfig(Section):
    """The nearest neighbours among the latest examples."""

    buffer: Positive = Field(default=1000, description="examples that are kept, the latest")
    neighbours: Positive = Field(default=1, description="how many of them answer, the nearest")
    scale: Float = Field(
        default=20.0, ge=0, description="a neighbour at distance d has the weight exp(-scale d), normalised"
    )
    metric: Metric = "cosine"
    doubt: Doubt = 0.1


@dataclass(frozen=True)
class Neighbours(BufferedLearner):
    """Answer with the targets of the k nearest of the last K examples, weighted by `softmax(-scale d)`.

    Of examples at the same distance the newest is the nearest. The buffer is shared by the inner batch.
    Before the first example all classes are as likely, and values are 0. There are no meta-parameters.

    Attributes:
        input_shape: shape of one input.
        outputs: what it answers with; an int is a number of classes.
        config: settings.
    """

    config: NeighboursConfig = field(default_factory=NeighboursConfig)

    section = "neighbours"

    @property
    def buffer_settings(self) -> NeighboursConfig:
        """Its settings."""
        return self.config

    def answer(
        self,
        buffer: Buffer,
        inputs: Array,
    ) -> Array:
        """Return the answers to prepared inputs [K, D]."""
        # top_k takes the first of equal ones, which is to be the newest.
        order = buffer.newest_first
        distance_KxN = distances(inputs, buffer.inputs[order], self.config.metric)
        closeness_KxN = jnp.where(buffer.filled[order], -distance_KxN, -jnp.inf)
        count = min(self.config.neighbours, buffer.size)
        closeness_Kxk, found_Kxk = jax.lax.top_k(closeness_KxN, count)
        exists_Kxk = jnp.isfinite(closeness_Kxk)
        difference_Kxk = jnp.where(exists_Kxk, closeness_Kxk - closeness_Kxk[:, :1], 0.0)
        weight_Kxk = jnp.where(exists_Kxk, jnp.exp(self.config.scale * difference_Kxk), 0.0)
        total_Kx1 = weight_Kxk.sum(-1, keepdims=True)
        weight_Kxk = weight_Kxk / jnp.where(total_Kx1 > 0, total_Kx1, 1.0)
        targets = buffer.targets[order][found_Kxk]
        if isinstance(self.outputs, Classes):
            one_hot_KxkxC = jax.nn.one_hot(targets, self.outputs.size)
            shares_KxC = jnp.einsum("kn,knc->kc", weight_Kxk, one_hot_KxkxC)
            return share_logits(shares_KxC, self.config.doubt)
        return jnp.einsum("kn,knv->kv", weight_Kxk, targets)
