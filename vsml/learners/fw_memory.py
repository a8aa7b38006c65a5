"""Fast weight memory: an LSTM with an associative memory of pairs of keys."""

import dataclasses
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from flax import nnx, struct
from pydantic import Field

from vsml.learners.base import Feedback, ModuleLearner, batch_elements
from vsml.learners.memory import Change
from vsml.losses import bound_answers
from vsml.networks.modules import CONV_ACTIVATIONS, ConvEncoder, Lstm, linear
from vsml.settings import Bool, LogitBound, Positive, Section
from vsml.types import Array, Params

CONV_CHANNELS = 8
NORM_EPSILON = 1e-5


class FwMemoryConfig(Section):
    """An LSTM with a fast weight memory."""

    hidden_size: Positive = Field(default=32, description="size of the LSTM's hidden and of its cell state")
    memory_size: Positive = Field(
        default=16, description="size m of a key and of a value; the memory is m x m^2"
    )
    logit_bound: LogitBound = 100.0
    conv: Bool = Field(default=False, description="three convolutions of 8 channels before the LSTM")


class FwMemoryModule(nnx.Module):
    """The meta-parameters of a fast weight memory."""

    def __init__(
        self,
        config: FwMemoryConfig,
        input_shape: tuple[int, ...],
        size: int,
        rngs: nnx.Rngs,
    ):
        hidden = config.hidden_size
        m = config.memory_size
        activations = CONV_ACTIVATIONS if config.conv else ()
        self.conv = ConvEncoder(input_shape, CONV_CHANNELS, activations, rngs)
        # The input, and the error and the label of the last answers.
        self.lstm = Lstm(self.conv.size + 2 * size, hidden, rngs)
        self.write_head = linear(hidden, 3 * m + 1, rngs)
        self.read_head = linear(hidden, 2 * m, rngs)
        self.read_projection = linear(m, hidden, rngs)
        self.output = linear(hidden, size, rngs)


@struct.dataclass
class FwMemoryState:
    """Inner state of a fast weight memory.

    Attributes:
        h: hidden states [B, hidden].
        c: cell states [B, hidden].
        memory: [m, m^2], shared by the inner batch.
        feedback: on the last answers.
    """

    h: Array
    c: Array
    memory: Array
    feedback: Feedback


@dataclass(frozen=True)
class FwMemory(ModuleLearner):
    """Learn in an LSTM and a tensor product memory beside it (Schlag et al., 2021, "Fast Weight Memory").

    A step ticks the LSTM once on (x, the last error, the last label). From its hidden state h come a write,
    (k1, k2, v) = tanh(..), beta = sigmoid(..) and the key k = k1 (x) k2,

        F <- F + beta (v - F k) k^T,  then  F <- F / max(1, ||F||),

    the change averaged over the inner batch, and a read, (n, e) = tanh(..): the layer norm (without
    parameters) of F (n (x) e), projected and added to h, is what the logits are read from. Meta-parameters
    depend on input_shape and outputs.

    Attributes:
        input_shape: shape of one input; (H, W, Ch) with `conv`.
        outputs: what it answers with; an int is a number of classes.
        config: settings.
    """

    config: FwMemoryConfig = field(default_factory=FwMemoryConfig)

    def make_module(self, rngs: nnx.Rngs) -> FwMemoryModule:
        """Make the meta-parameters."""
        return FwMemoryModule(self.config, self.input_shape, self.outputs.size, rngs)

    def init_state(
        self,
        params: Params,
        key: Array,
        batch_size: int = 1,
    ) -> FwMemoryState:
        """Return the state that knows nothing; no draw is made."""
        zeros = jnp.zeros((batch_size, self.config.hidden_size))
        m = self.config.memory_size
        return FwMemoryState(
            h=zeros,
            c=zeros,
            memory=jnp.zeros((m, m * m)),
            feedback=Feedback.nothing(batch_size, self.outputs.size),
        )

    def step(
        self,
        params: Params,
        state: FwMemoryState,
        x: Array,
        y: Array,
        taught: Array | None = None,
    ) -> tuple[FwMemoryState, Array]:
        """Answer the inputs x [B, *input_shape], then learn from their targets y; see `Learner.step`."""
        module = self.module.with_params(params)
        h, c = self._tick(module, state, x)
        # All elements write to the memory as it was, and read from it as it is then.
        of_each = (None, 0, None)
        writes = jax.vmap(_write, of_each)(module, h, state.memory)
        memory = _normalised(state.memory + writes.mean(0))
        read = jax.vmap(_read, of_each)(module, h, memory)
        answers = self._answers(module, h, read)
        feedback = Feedback.of(self.outputs, answers, y, taught)
        return FwMemoryState(h=h, c=c, memory=memory, feedback=feedback), answers

    def predict(
        self,
        params: Params,
        state: FwMemoryState,
        x: Array,
    ) -> Array:
        """Return the answers to x [K, *input_shape]; see `Learner.predict`.

        Each input is answered as in an inner batch of one: after its own write alone.
        """
        module = self.module.with_params(params)
        h, c, feedback = batch_elements((state.h, state.c, state.feedback), len(x))
        each = FwMemoryState(h=h, c=c, memory=state.memory, feedback=feedback)
        h, _ = self._tick(module, each, x)

        def read_after_write(h: Array) -> Array:
            written = state.memory + _write(module, h, state.memory)
            return _read(module, h, _normalised(written))

        read = jax.vmap(read_after_write)(h)
        return self._answers(module, h, read)

    def map_memory(
        self,
        state: FwMemoryState,
        change: Change,
    ) -> FwMemoryState:
        """Return the state with other h, c and memory, of which a unit is a pair of keys."""
        h, c = change((state.h, state.c), 1)
        return dataclasses.replace(state, h=h, c=c, memory=change(state.memory, 1))

    def _tick(
        self,
        module: FwMemoryModule,
        state: FwMemoryState,
        x: Array,
    ) -> tuple[Array, Array]:
        """Return the new h and c of the LSTM."""
        inputs = state.feedback.beside(module.conv(x))
        return module.lstm(inputs, state.h, state.c)

    def _answers(
        self,
        module: FwMemoryModule,
        h: Array,
        read: Array,
    ) -> Array:
        """Return the answers to inputs with hidden states h, for which `read` was read."""
        answers = module.output(h + module.read_projection(read))
        return bound_answers(self.outputs, answers, self.config.logit_bound)


def _write(
    module: FwMemoryModule,
    h: Array,
    memory: Array,
) -> Array:
    """Return the change [m, m^2] that one element with the hidden state h makes to the memory."""
    m = len(memory)
    *parts, beta = jnp.split(module.write_head(h), (m, 2 * m, 3 * m))
    key1, key2, value = map(jnp.tanh, parts)
    key = jnp.outer(key1, key2).ravel()
    missing = value - memory @ key
    openness_1 = jax.nn.sigmoid(beta)
    return openness_1[:, None] * jnp.outer(missing, key)


def _read(
    module: FwMemoryModule,
    h: Array,
    memory: Array,
) -> Array:
    """Return what one element with the hidden state h reads from the memory, normalised [m]."""
    key1, key2 = jnp.split(jnp.tanh(module.read_head(h)), 2)
    key = jnp.outer(key1, key2).ravel()
    return jax.nn.standardize(memory @ key, epsilon=NORM_EPSILON)


def _normalised(memory: Array) -> Array:
    """Scale the memory down to a Frobenius norm of 1 where it has more."""
    # Not sqrt(sum): its gradient at the memory of 0 that an episode starts from is not finite.
    square = jnp.square(memory).sum()
    return memory * jax.lax.rsqrt(jnp.maximum(1.0, square))
