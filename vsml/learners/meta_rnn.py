"""Meta RNN: an LSTM that is told its last error and label, and whose state is all that it learns in."""

import functools
from dataclasses import dataclass, field

import jax.numpy as jnp
from flax import nnx, struct
from pydantic import Field

from vsml.learners.base import Feedback, LearnerBase, batch_elements
from vsml.losses import bound_logits
from vsml.networks.modules import CONV_ACTIVATIONS, Features, Functional, Lstm, linear
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

    def __init__(self, config: MetaRnnConfig, input_shape: tuple[int, ...], num_classes: int, rngs: nnx.Rngs):
        self.conv = Features(input_shape, CONV_CHANNELS, CONV_ACTIVATIONS if config.conv else (), rngs)
        self.lstm = Lstm(self.conv.size + 2 * num_classes, config.hidden_size, rngs)
        self.output = linear(config.hidden_size, num_classes, rngs)


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
class MetaRnn(LearnerBase):
    """Learn in the state of an LSTM (Hochreiter et al., 2001, "Learning to Learn Using Gradient Descent").

    A step feeds (x, the last error, the last label) to the LSTM for `micro_ticks` ticks and reads the logits
    off its hidden state. Meta-parameters depend on input_shape and outputs.

    Attributes:
        input_shape: shape of one input; (H, W, Ch) with `conv`.
        outputs: what it answers with; an int is a number of classes.
        config: settings.
    """

    config: MetaRnnConfig = field(default_factory=MetaRnnConfig)

    @functools.cached_property
    def _module(self) -> Functional[MetaRnnModule]:
        return Functional(lambda rngs: MetaRnnModule(self.config, self.input_shape, self.num_classes, rngs))

    def init_params(self, key: Array) -> Params:
        """Draw fresh meta-parameters: truncated-normal kernels with variance 1 / fan-in, biases 0."""
        return self._module.init(key)

    def init_state(self, params: Params, key: Array, batch_size: int = 1) -> MetaRnnState:
        """Return the state that knows nothing; no draw is made."""
        zeros = jnp.zeros((batch_size, self.config.hidden_size))
        return MetaRnnState(h=zeros, c=zeros, feedback=Feedback.nothing(batch_size, self.num_classes))

    def step(self, params: Params, state: MetaRnnState, x: Array, y: Array) -> tuple[MetaRnnState, Array]:
        """Answer the inputs x [B, *input_shape], then learn from their labels y [B]; see `Learner.step`."""
        h, c, logits = self._answer(params, state, x)
        return MetaRnnState(h=h, c=c, feedback=Feedback.of(logits, y)), logits

    def predict(self, params: Params, state: MetaRnnState, x: Array) -> Array:
        """Return what `step` would answer to x [K, *input_shape]: logits [K, C]; see `Learner.predict`."""
        return self._answer(params, batch_elements(state, len(x)), x)[2]

    def _answer(self, params: Params, state: MetaRnnState, x: Array) -> tuple[Array, Array, Array]:
        module = self._module.with_params(params)
        inputs = jnp.concatenate([module.conv(x), state.feedback.error, state.feedback.label], axis=-1)
        h, c = state.h, state.c
        for _ in range(self.config.micro_ticks):
            h, c = module.lstm(inputs, h, c)
        return h, c, bound_logits(module.output(h), self.config.logit_bound)
