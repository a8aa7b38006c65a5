"""Modules that learners are made of: linear maps, an LSTM, convolutions before them; modules as functions."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from vsml.types import Array, Params

M = TypeVar("M", bound=nnx.Module)

LSTM_FORGET_OFFSET = 1.0
"""Added to the forget gate, so that a fresh LSTM keeps most of its state."""


@dataclass(frozen=True)
class Functional(Generic[M]):
    """A flax module whose parameters are kept outside of it, as a nested dict of arrays.

    Attributes:
        make: makes the module, with fresh parameters.
    """

    make: Callable[[nnx.Rngs], M]

    @functools.cached_property
    def _graphdef(self) -> nnx.GraphDef[M]:
        module = nnx.eval_shape(lambda: self.make(nnx.Rngs(0)))
        graphdef, _ = nnx.split(module)
        return graphdef

    def init(self, key: Array) -> Params:
        """Draw fresh parameters."""
        module = self.make(nnx.Rngs(key))
        _, parameters = nnx.split(module)
        return nnx.to_pure_dict(parameters)

    def with_params(self, params: Params) -> M:
        """Return the module with the given parameters."""
        return nnx.merge(self._graphdef, params)


def kernel_init(
    fan_in: int,
    scale: float = 1.0,
) -> nnx.initializers.Initializer:
    """Standard normal cut at +-2, times `scale / sqrt(fan_in)`; the variance is not corrected for the cut."""
    return jax.nn.initializers.truncated_normal(scale * fan_in**-0.5)


def linear(
    fan_in: int,
    fan_out: int,
    rngs: nnx.Rngs,
    scale: float = 1.0,
    bias: bool = True,
) -> nnx.Linear:
    """Make a linear map with a kernel from `kernel_init`, and a bias of 0 or none."""
    init = kernel_init(fan_in, scale)
    return nnx.Linear(fan_in, fan_out, kernel_init=init, use_bias=bias, rngs=rngs)


class Lstm(nnx.Module):
    """An LSTM cell: `c' = sigmoid(f + 1) c + sigmoid(i) tanh(g)`, `h' = sigmoid(o) tanh(c')`.

    Attributes:
        kernel: [inputs + hidden, 4 hidden], columns (i, g, f, o).
        bias: [4 hidden].
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        rngs: nnx.Rngs,
    ):
        fan_in = input_size + hidden_size
        init = kernel_init(fan_in)
        self.kernel = nnx.Param(init(rngs.params(), (fan_in, 4 * hidden_size)))
        self.bias = nnx.Param(jnp.zeros(4 * hidden_size))

    def __call__(
        self,
        x: Array,
        h: Array,
        c: Array,
    ) -> tuple[Array, Array]:
        """Tick once: from inputs x [..., inputs] and the state h, c [..., hidden] to the new h, c."""
        inputs = jnp.concatenate([x, h], axis=-1)
        products = inputs @ self.kernel[...]
        gates = products + jnp.broadcast_to(self.bias[...], products.shape)
        i, g, f, o = jnp.split(gates, 4, axis=-1)
        keep = jax.nn.sigmoid(f + LSTM_FORGET_OFFSET)
        c = keep * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c


class ConvEncoder(nnx.Module):
    """Inputs as vectors: flattened, or through a stack of convolutions first.

    The stack is 3x3 convolutions with stride 2 and XLA's SAME padding, one for each activation; its output
    is flattened height-width-channel.

    Args:
        input_shape: shape of one input; (H, W, Ch) if there are convolutions.
        channels: of each convolution.
        activations: after each; none for no convolutions.
        rngs: what the kernels are drawn from.

    Raises:
        ValueError: convolutions and another input_shape.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        channels: int,
        activations: tuple[Callable[[Array], Array], ...],
        rngs: nnx.Rngs,
    ):
        if activations and len(input_shape) != 3:
            raise ValueError(f"conv: got inputs of shape {input_shape}, expected (height, width, channels)")
        shape = input_shape
        layers = []
        for _ in activations:
            height, width, depth = shape
            # An output is a sum over nine pixels.
            init = kernel_init(9 * depth)
            layer = nnx.Conv(
                depth,
                channels,
                (3, 3),
                strides=2,
                kernel_init=init,
                rngs=rngs,
            )
            layers.append(layer)
            shape = (math.ceil(height / 2), math.ceil(width / 2), channels)
        self.layers = nnx.List(layers)
        self.activations = activations
        self.size = math.prod(shape)

    def __call__(self, x: Array) -> Array:
        """Return the features [B, size] of inputs x [B, *input_shape]."""
        for layer, activation in zip(self.layers, self.activations, strict=True):
            x = activation(layer(x))
        return x.reshape(len(x), -1)


CONV_ACTIVATIONS = (jax.nn.relu, jax.nn.relu, jnp.tanh)
"""Of the stack of convolutions that the paper's baselines have as an option."""
