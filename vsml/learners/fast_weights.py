"""Fast weight programmer: a slow network that writes the weights of a fast one by the delta rule."""

import dataclasses
import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from flax import nnx, struct
from pydantic import Field

from vsml.learners.base import Feedback, ModuleLearner, batch_elements
from vsml.learners.memory import Change
from vsml.losses import bound_answers
from vsml.networks.modules import linear
from vsml.settings import Bool, LogitBound, Positive, Section
from vsml.types import Array, Params

NORM_EPSILON = 1e-6


class FastWeightsConfig(Section):
    """A fast weight programmer with the delta rule."""

    fast_size: Positive = Field(default=64, description="size of keys and queries")
    normalize: Bool = Field(
        default=False,
        description="divide keys and queries by their norm, without which the delta rule diverges on images",
    )
    logit_bound: LogitBound = 100.0


class FastWeightsModule(nnx.Module):
    """The meta-parameters of a fast weight programmer: the slow network."""

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        rngs: nnx.Rngs,
    ):
        self.slow = linear(fan_in, fan_out, rngs)


@struct.dataclass
class FastWeightsState:
    """Inner state of a fast weight programmer.

    Attributes:
        fast: weights of the fast network [fast_size, C], shared by the inner batch.
        output: the last answers, bounded [B, C]; 0 before the first.
        feedback: on them.
    """

    fast: Array
    output: Array
    feedback: Feedback


@dataclass(frozen=True)
class FastWeights(ModuleLearner):
    """Learn in fast weights (Schmidhuber, 1992; with the delta rule, Schlag et al., 2021).

    A step computes (k, v, q, beta) as a linear map of (x, the last answer, its error, its label), writes, all
    elements of the inner batch from the same F,

        F <- F + sum over the batch of k^T sigmoid(beta) (v - k F),

    and answers q F with the new F. F starts truncated-normal with variance 1 / fast_size. Meta-parameters
    depend on input_shape and outputs.

    As in 2021 k and q are linear: where the squared norm of k is above 2 / sigmoid(beta), a write overshoots
    more than it corrects, and F grows without bound. With `normalize` both are divided by their Euclidean
    norm, and no write overshoots (Schlag et al. divide by the sum of the entries instead).

    Attributes:
        input_shape: shape of one input.
        outputs: what it answers with; an int is a number of classes.
        config: settings.
    """

    config: FastWeightsConfig = field(default_factory=FastWeightsConfig)

    def make_module(self, rngs: nnx.Rngs) -> FastWeightsModule:
        """Make the meta-parameters."""
        # The input; the last answers, their errors and labels. Key, value, query and beta.
        fan_in = math.prod(self.input_shape) + 3 * self.outputs.size
        fan_out = 2 * self.config.fast_size + self.outputs.size + 1
        return FastWeightsModule(fan_in, fan_out, rngs)

    def init_state(
        self,
        params: Params,
        key: Array,
        batch_size: int = 1,
    ) -> FastWeightsState:
        """Draw fast weights; nothing else is known."""
        # Its variance is corrected for the cut.
        init = jax.nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        fast = init(key, (self.config.fast_size, self.outputs.size))
        return self.with_fast(fast, batch_size)

    def with_fast(
        self,
        fast: Array,
        batch_size: int = 1,
    ) -> FastWeightsState:
        """Return the state of an episode that starts with the given fast weights [fast_size, C]."""
        nothing = Feedback.nothing(batch_size, self.outputs.size)
        return FastWeightsState(fast=fast, output=jnp.zeros_like(nothing.error), feedback=nothing)

    def step(
        self,
        params: Params,
        state: FastWeightsState,
        x: Array,
        y: Array,
        taught: Array | None = None,
    ) -> tuple[FastWeightsState, Array]:
        """Answer the inputs x [B, *input_shape], then learn from their targets y; see `Learner.step`."""
        key, query, write = self._program(params, state, x)
        fast = state.fast + key.T @ write
        answers = bound_answers(self.outputs, query @ fast, self.config.logit_bound)
        feedback = Feedback.of(self.outputs, answers, y, taught)
        return FastWeightsState(fast=fast, output=answers, feedback=feedback), answers

    def predict(
        self,
        params: Params,
        state: FastWeightsState,
        x: Array,
    ) -> Array:
        """Return the answers to x [K, *input_shape]; see `Learner.predict`.

        Each input is answered as in an inner batch of one: after its own write alone.
        """
        output, feedback = batch_elements((state.output, state.feedback), len(x))
        each = FastWeightsState(fast=state.fast, output=output, feedback=feedback)
        key, query, write = self._program(params, each, x)
        overlap_Kx1 = (query * key).sum(-1, keepdims=True)
        answers = query @ state.fast + overlap_Kx1 * write
        return bound_answers(self.outputs, answers, self.config.logit_bound)

    def map_memory(
        self,
        state: FastWeightsState,
        change: Change,
    ) -> FastWeightsState:
        """Return the state with other fast weights; their units are the entries of keys."""
        return dataclasses.replace(state, fast=change(state.fast, 0))

    def _program(
        self,
        params: Params,
        state: FastWeightsState,
        x: Array,
    ) -> tuple[Array, Array, Array]:
        """Return keys and queries [B, fast_size], and what is written at the keys [B, C]."""
        inputs = state.feedback.beside(x.reshape(len(x), -1), state.output)
        size = self.config.fast_size
        ends = (size, size + self.outputs.size, 2 * size + self.outputs.size)
        program = self.module.with_params(params).slow(inputs)
        key, value, query, beta = jnp.split(program, ends, axis=-1)
        if self.config.normalize:
            key, query = _of_length_one(key), _of_length_one(query)
        return key, query, jax.nn.sigmoid(beta) * (value - key @ state.fast)


def _of_length_one(vectors: Array) -> Array:
    """Divide vectors [B, n] by their Euclidean norms."""
    return vectors * jax.lax.rsqrt(jnp.square(vectors).sum(-1, keepdims=True) + NORM_EPSILON)
