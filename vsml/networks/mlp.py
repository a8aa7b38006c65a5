"""Linear layers with an activation between them: the network of learners that train one."""

import itertools
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from vsml.networks.modules import ConvEncoder, linear
from vsml.types import Array

CONV_CHANNELS = 8
CONV_ACTIVATIONS = (jnp.tanh, jnp.tanh, jnp.tanh)

LEAK = 0.1
"""Slope of `leaky_relu` below 0, as of the rule `backprop` (vsml/rules/known/backprop.rule)."""

Activation = Literal["tanh", "relu", "leaky_relu"]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "leaky_relu": lambda x: jnp.maximum(x, LEAK * x),
}
"""What `Activation` may name."""

Init = Literal["normal", "uniform", "kaiming"]
"""How linear layers are drawn; see `bounds`."""


def bounds(
    init: str,
    fan_in: int,
    is_last: bool,
) -> tuple[float, float]:
    """Return b of the uniform distribution on (-b, b) that kernels and biases are drawn from.

    Args:
        init: "uniform": 1 / sqrt(fan-in) for both, the default of PyTorch. "kaiming": kernels with variance
            2 / fan-in before an activation and 1 / fan-in in the last layer, biases 0.
        fan_in: inputs of the layer.
        is_last: whether it answers.
    """
    if init == "uniform":
        return fan_in**-0.5, fan_in**-0.5
    variance = (1 if is_last else 2) / fan_in
    return math.sqrt(3 * variance), 0.0


def _layer(
    fan_in: int,
    fan_out: int,
    init: str,
    is_last: bool,
    bias: bool,
    rngs: nnx.Rngs,
) -> nnx.Linear:
    """Make a linear map; "normal" is a truncated normal with variance 1 / fan-in, and biases of 0."""
    if init == "normal":
        return linear(fan_in, fan_out, rngs, bias=bias)
    kernel_bound, bias_bound = bounds(init, fan_in, is_last)
    return nnx.Linear(
        fan_in,
        fan_out,
        kernel_init=_uniform(kernel_bound),
        bias_init=_uniform(bias_bound),
        use_bias=bias,
        rngs=rngs,
    )


def _uniform(bound: float) -> nnx.initializers.Initializer:
    """Return an initializer that draws from (-bound, bound)."""

    def draw(key: Array, shape: tuple[int, ...], dtype: object = jnp.float32) -> Array:
        return bound * jax.random.uniform(key, shape, jnp.float32, -1, 1)

    return draw


class Mlp(nnx.Module):
    """Linear layers with an activation between them, after convolutions if there are any.

    Args:
        input_shape: shape of one input; (H, W, Ch) with convolutions.
        hidden: units of each layer but the last.
        size: of the answers, C.
        rngs: what weights are drawn from.
        activation: between the layers.
        init: how layers are drawn.
        conv: three convolutions of 8 channels first.
        bias: whether linear layers have biases.
        activate_last: whether the activation follows the last layer, too.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        hidden: tuple[int, ...],
        size: int,
        rngs: nnx.Rngs,
        activation: Activation = "tanh",
        init: Init = "normal",
        conv: bool = False,
        bias: bool = True,
        activate_last: bool = False,
    ):
        self.activation = activation
        self.activate_last = activate_last
        self.conv = ConvEncoder(input_shape, CONV_CHANNELS, CONV_ACTIVATIONS if conv else (), rngs)
        sizes = (self.conv.size, *hidden, size)
        last = len(hidden)
        self.dense = nnx.List(
            [
                _layer(fan_in, fan_out, init, number == last, bias, rngs)
                for number, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes))
            ]
        )

    def __call__(self, x: Array) -> Array:
        """Return the unbounded answers [B, C] of inputs x [B, *input_shape]."""
        return self.trace(x)[1]

    def trace(self, x: Array) -> tuple[list[Array], Array]:
        """Return the activations of each hidden layer, [B, units], and the unbounded answers [B, C]."""
        *hidden, last = self.dense
        x = self.conv(x)
        activations = []
        for layer in hidden:
            x = ACTIVATIONS[self.activation](layer(x))
            activations.append(x)
        answers = last(x)
        return activations, ACTIVATIONS[self.activation](answers) if self.activate_last else answers
