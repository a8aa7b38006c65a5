"""Meta RNN: an LSTM that is told its last error and label, and whose state is all that it learns in."""

import dataclasses
from dataclasses import dataclass, field

import jax.numpy as jnp
from flax import nnx, struct
from pydantic import Field

from vsml.learners.base import Feedback, ModuleLearner, batch_elements
from vsml.learners.memory import Change
from vsml.losses import bound_answers
from vsml.networks.modules import CONV_ACTIVATIONS, ConvEncoder, Lstm, linear
from vsml.settings import Bool, LogitBound, Positive, Section
from vsml.types import Array, Params

CONV_CHANNELS = 64


class MetaRnnConfig(Section):
    """An LSTM over inputs and feedback."""

    hidden_size: Positive = Field(default=128, description="size of the LSTM's hidden and of its cell state")
    micro_ticks: Positive = Field(default=2, description="ticks of the LSTM per input")
    logit_bound: LogitBound = 100.0
    conv: Bool = Field(default=False, description="three convolutions of 64 channels before the LSTM")


class MetaRnnModule(nnx.Module):
    """The meta-parameters of a Meta RNN."""

    def __init__(
        self,
        config: MetaRnnConfig,
        input_shape: tuple[int, ...],
        size: int,
        rngs: nnx.Rngs,
    ):
        activations = CONV_ACTIVATIONS if config.conv else ()
        self.conv = ConvEncoder(input_shape, CONV_CHANNELS, activations, rngs)
        # The input, and the error and the label of the last answers.
        self.lstm = Lstm(self.conv.size + 2 * size, config.hidden_size, rngs)
        self.output = linear(config.hidden_size, size, rngs)


@struct.dataclass
class MetaRnnState:
    """Inner state of a Meta RNN, one for each element of the inner batch.

    Attributes:
        h: hidden states [B, hidden].
        c: cell states [B, hidden].
        feedback: on the last answers.
    """

    h: Array
    c: Array
    feedback: Feedback


@dataclass(frozen=True)
class MetaRnn(ModuleLearner):
    """Learn in the state of an LSTM (Hochreiter et al., 2001, "Learning to Learn Using Gradient Descent").

    A step feeds (x, the last error, the last label) to the LSTM for `micro_ticks` ticks and reads the logits
    off its hidden state. Meta-parameters depend on input_shape and outputs.

    Attributes:
        input_shape: shape of one input; (H, W, Ch) with `conv`.
        outputs: what it answers with; an int is a number of classes.
        config: settings.
    """

    config: MetaRnnConfig = field(default_factory=MetaRnnConfig)

    def make_module(self, rngs: nnx.Rngs) -> MetaRnnModule:
        """Make the meta-parameters."""
        return MetaRnnModule(self.config, self.input_shape, self.outputs.size, rngs)

    def init_state(
        self,
        params: Params,
        key: Array,
        batch_size: int = 1,
    ) -> MetaRnnState:
        """Return the state that knows nothing; no draw is made."""
        zeros = jnp.zeros((batch_size, self.config.hidden_size))
        nothing = Feedback.nothing(batch_size, self.outputs.size)
        return MetaRnnState(h=zeros, c=zeros, feedback=nothing)

    def step(
        self,
        params: Params,
        state: MetaRnnState,
        x: Array,
        y: Array,
        taught: Array | None = None,
    ) -> tuple[MetaRnnState, Array]:
        """Answer the inputs x [B, *input_shape], then learn from their targets y; see `Learner.step`."""
        h, c, answers = self._answer(params, state, x)
        feedback = Feedback.of(self.outputs, answers, y, taught)
        return MetaRnnState(h=h, c=c, feedback=feedback), answers

    def predict(
        self,
        params: Params,
        state: MetaRnnState,
        x: Array,
    ) -> Array:
        """Return what `step` would answer to x [K, *input_shape]; see `Learner.predict`."""
        each = batch_elements(state, len(x))
        _, _, answers = self._answer(params, each, x)
        return answers

    def map_memory(
        self,
        state: MetaRnnState,
        change: Change,
    ) -> MetaRnnState:
        """Return the state with another h and c of the LSTM."""
        h, c = change((state.h, state.c), 1)
        return dataclasses.replace(state, h=h, c=c)

    def _answer(
        self,
        params: Params,
        state: MetaRnnState,
        x: Array,
    ) -> tuple[Array, Array, Array]:
        """Return the new h and c, and the answers."""
        module = self.module.with_params(params)
        inputs = state.feedback.beside(module.conv(x))
        h, c = state.h, state.c
        # The input stays the same from tick to tick.
        for _ in range(self.config.micro_ticks):
            h, c = module.lstm(inputs, h, c)
        answers = bound_answers(self.outputs, module.output(h), self.config.logit_bound)
        return h, c, answers
