"""Hebbian plasticity: a linear layer whose weights have a part that changes with inputs and answers."""

from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from pydantic import Field

from vsml.learners.base import Feedback, ModuleLearner
from vsml.learners.memory import Change
from vsml.losses import bound_logits
from vsml.networks.modules import CONV_ACTIVATIONS, ConvEncoder, kernel_init
from vsml.settings import Bool, LogitBound, Section
from vsml.types import Array, Classes, Params

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

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        rngs: nnx.Rngs,
    ):
        self.slow = nnx.Param(kernel_init(fan_in)(rngs.params(), (fan_in, fan_out)))
        self.coefficient = nnx.Param(jnp.full((fan_in, fan_out), INITIAL_COEFFICIENT))
        self.bias = nnx.Param(jnp.zeros(fan_out))
        self.rate_logit = nnx.Param(jnp.asarray(INITIAL_RATE_LOGIT))

    def __call__(
        self,
        x: Array,
        fast: Array,
    ) -> Array:
        """Map x [B, I] with fast weights [I, O] to [B, O]."""
        weights = self.slow[...] + self.coefficient[...] * fast
        return x @ weights + self.bias[...][None]


class HebbianModule(nnx.Module):
    """The meta-parameters of a Hebbian learner."""

    def __init__(
        self,
        config: HebbianConfig,
        input_shape: tuple[int, ...],
        size: int,
        rngs: nnx.Rngs,
    ):
        activations = CONV_ACTIVATIONS if config.conv else ()
        self.conv = ConvEncoder(input_shape, CONV_CHANNELS, activations, rngs)
        # The input, and the error and the label of its answer.
        self.layer = PlasticLayer(self.conv.size + 2 * size, size, rngs)


@dataclass(frozen=True)
class Hebbian(ModuleLearner):
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

    def check(self) -> None:
        """Refuse values: the rule strengthens what the softmax of the answers makes likely."""
        if not isinstance(self.outputs, Classes):
            raise ValueError(
                f"outputs: got {self.outputs}, expected Classes, whose softmax the rule is about"
            )

    def make_module(self, rngs: nnx.Rngs) -> HebbianModule:
        """Make the meta-parameters."""
        return HebbianModule(self.config, self.input_shape, self.outputs.size, rngs)

    def init_state(
        self,
        params: Params,
        key: Array,
        batch_size: int = 1,
    ) -> Array:
        """Return fast weights of 0 [I, C]; no draw is made."""
        return jnp.zeros_like(params["layer"]["slow"])

    def step(
        self,
        params: Params,
        state: Array,
        x: Array,
        y: Array,
        taught: Array | None = None,
    ) -> tuple[Array, Array]:
        """Answer the inputs x [B, *input_shape], then learn from their labels y [B]; see `Learner.step`."""
        module = self.module.with_params(params)
        features = module.conv(x)
        logits = self._logits(module, features, state)
        feedback = Feedback.of(self.outputs, logits, y, taught)
        z_BxI = feedback.beside(features)
        y_BxC = jax.nn.softmax(module.layer(z_BxI, state))
        rate = jax.nn.sigmoid(module.layer.rate_logit[...])
        # Elements that are not taught neither strengthen F nor let it decay.
        told_BxI = z_BxI if taught is None else taught[:, None] * z_BxI
        correlation_IxC = told_BxI.T @ y_BxC / len(x)
        decay = self._decay(y_BxC, taught)
        return state + rate * (correlation_IxC - decay * state), logits

    def _decay(
        self,
        y_BxC: Array,
        taught: Array | None,
    ) -> Array | float:
        """Return what share of F decays, in units of the rate: [] for Hebb's rule, [1, C] for Oja's."""
        if self.config.rule == "hebb":
            return 1.0 if taught is None else taught.mean()
        squares_BxC = jnp.square(y_BxC)
        if taught is not None:
            squares_BxC = taught[:, None] * squares_BxC
        return squares_BxC.mean(0, keepdims=True)

    def predict(
        self,
        params: Params,
        state: Array,
        x: Array,
    ) -> Array:
        """Return what `step` would answer to x [K, *input_shape]: logits [K, C]; see `Learner.predict`."""
        module = self.module.with_params(params)
        return self._logits(module, module.conv(x), state)

    def map_memory(
        self,
        state: Array,
        change: Change,
    ) -> Array:
        """Return other fast weights; their units are the inputs of the layer."""
        return change(state, 0)

    def _logits(
        self,
        module: HebbianModule,
        features: Array,
        fast: Array,
    ) -> Array:
        """Return the bounded logits [B, C], without error and label."""
        zeros = jnp.zeros((len(features), 2 * self.outputs.size))
        inputs = jnp.concatenate([features, zeros], axis=-1)
        return bound_logits(module.layer(inputs, fast), self.config.logit_bound)
