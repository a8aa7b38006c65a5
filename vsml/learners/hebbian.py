"""Hebbian plasticity: a linear layer whose weights have a part that changes with inputs and answers."""

import functools
from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from pydantic import Field

from vsml.learners.base import Feedback, LearnerBase
from vsml.losses import bound_logits
from vsml.networks.modules import CONV_ACTIVATIONS, Features, Functional, kernel_init
from vsml.settings import Bool, LogitBound, Section
from vsml.types import Array, Params

CONV_CHANNELS = 8
INITIAL_COEFFICIENT = 0.01
INITIAL_RATE_LOGIT = -4.5  # a learning rate of sigmoid(-4.5) = 0.011


class HebbianConfig(Section):
    """A layer with Hebbian fast weights."""

    rule: Literal["hebb", "oja"] = Field(default="hebb", description="how fast weights change")
    logit_bound: LogitBound = 100.0
    conv: Bool = Field(default=False, description="three convolutions of 8 channels before the layer")


class PlasticLayer(nnx.Module):
    """A linear map with the weights `slow + coefficient * fast`.

    Attributes:
        slow, coefficient: [I, O].
        bias: [O].
        rate_logit: the learning rate of the fast weights is its sigmoid [].
    """

    def __init__(self, fan_in: int, fan_out: int, rngs: nnx.Rngs):
        self.slow = nnx.Param(kernel_init(fan_in)(rngs.params(), (fan_in, fan_out)))
        self.coefficient = nnx.Param(jnp.full((fan_in, fan_out), INITIAL_COEFFICIENT))
        self.bias = nnx.Param(jnp.zeros(fan_out))
        self.rate_logit = nnx.Param(jnp.asarray(INITIAL_RATE_LOGIT))

    def __call__(self, x: Array, fast: Array) -> Array:
        """Map x [B, I] with fast weights [I, O] to [B, O]."""
        return x @ (self.slow[...] + self.coefficient[...] * fast) + self.bias[...]


class HebbianModule(nnx.Module):
    """The meta-parameters of a Hebbian learner."""

    def __init__(self, config: HebbianConfig, input_shape: tuple[int, ...], num_classes: int, rngs: nnx.Rngs):
        self.conv = Features(input_shape, CONV_CHANNELS, CONV_ACTIVATIONS if config.conv else (), rngs)
        self.layer = PlasticLayer(self.conv.size + 2 * num_classes, num_classes, rngs)


@dataclass(frozen=True)
class Hebbian(LearnerBase):
    """Learn by differentiable plasticity (Miconi et al., 2018), by Hebb's or by Oja's rule.

    The input of the layer is z = (x, error, label). A step evaluates it twice: z = (x, 0, 0) gives the
    logits; then z with the error and the label gives y, the softmax of the unbounded output, and with the
    learning rate r, averaged over the inner batch,

        hebb:  F_ij <- (1 - r) F_ij + r z_i y_j
        oja:   F_ij <- F_ij + r y_j (z_i - y_j F_ij).

    The state is F [I, C], which starts at 0 and is shared by the inner batch. Meta-parameters depend on
    input_shape and num_classes.

    Attributes:
        input_shape: shape of one input; (H, W, Ch) with `conv`.
        outputs: what it answers with; an int is a number of classes.
        config: settings.
    """

    config: HebbianConfig = field(default_factory=HebbianConfig)

    @functools.cached_property
    def _module(self) -> Functional[HebbianModule]:
        return Functional(lambda rngs: HebbianModule(self.config, self.input_shape, self.num_classes, rngs))

    def init_params(self, key: Array) -> Params:
        """Draw fresh meta-parameters: truncated-normal kernels with variance 1 / fan-in, biases 0."""
        return self._module.init(key)

    def init_state(self, params: Params, key: Array, batch_size: int = 1) -> Array:
        """Return fast weights of 0 [I, C]; no draw is made."""
        return jnp.zeros_like(params["layer"]["slow"])

    def step(self, params: Params, state: Array, x: Array, y: Array) -> tuple[Array, Array]:
        """Answer the inputs x [B, *input_shape], then learn from their labels y [B]; see `Learner.step`."""
        module = self._module.with_params(params)
        features = module.conv(x)
        logits = self._logits(module, features, state)
        feedback = Feedback.of(logits, y)
        z_BxI = jnp.concatenate([features, feedback.error, feedback.label], axis=-1)
        y_BxC = jax.nn.softmax(module.layer(z_BxI, state))
        rate = jax.nn.sigmoid(module.layer.rate_logit[...])
        correlation_IxC = z_BxI.T @ y_BxC / len(x)
        decay = 1.0 if self.config.rule == "hebb" else jnp.square(y_BxC).mean(0)
        return state + rate * (correlation_IxC - decay * state), logits

    def predict(self, params: Params, state: Array, x: Array) -> Array:
        """Return what `step` would answer to x [K, *input_shape]: logits [K, C]; see `Learner.predict`."""
        module = self._module.with_params(params)
        return self._logits(module, module.conv(x), state)

    def _logits(self, module: HebbianModule, features: Array, fast: Array) -> Array:
        silence = jnp.zeros((len(features), 2 * self.num_classes))
        answers = module.layer(jnp.concatenate([features, silence], axis=-1), fast)
        return bound_logits(answers, self.config.logit_bound)
