"""One synapse: the LSTM cell that stands in place of one weight, and the messages it sends.

Kirsch & Schmidhuber (2021), section 3: all synapses of a network share these meta-parameters; each has
its own state. For one synapse between unit a (input side) and unit b (output side)

    (i, g, f, o) = W [m_fwd[a]; m_bwd[b]; h] + bias
    c' = sigmoid(f + 5) c + sigmoid(i - 5) tanh(g);    h' = sigmoid(o) tanh(c')

and it contributes `Norm(W_f h' + b_f)` to the message that b sends on and `Norm(W_b h' + b_b)` to the
message that a sends back. How many synapses are run at once is the business of `vsml.networks.kernels`.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from vsml.networks.kernels.products import ProductType, product
from vsml.networks.kernels.tiled import NORM_EPSILON, CellWeights
from vsml.networks.modules import linear
from vsml.types import Array

GATE_OFFSET = 5.0
"""Added to the forget gate and taken from the input gate, so that a fresh synapse keeps its state."""


class Synapse(nnx.Module):
    """The meta-parameters of one synapse.

    Attributes:
        lstm: kernel [2M + N, 4N], rows (forward message, backward message, h), columns
            (i, g, f, o).
        forward_message, backward_message: kernels [N, M].
        forward_norm, backward_norm: layer norm over the M channels of one message, or None.
        product_dtype: type that h and its part of the kernel are rounded to where they are multiplied.
    """

    def __init__(
        self,
        state_size: int,
        message_size: int,
        layer_norm: bool,
        init_scale: float,
        rngs: nnx.Rngs,
        product_dtype: ProductType = "float32",
    ):
        self.product_dtype: ProductType = product_dtype

        def norm() -> nnx.LayerNorm | None:
            if not layer_norm:
                return None
            return nnx.LayerNorm(
                message_size,
                epsilon=NORM_EPSILON,
                use_fast_variance=False,
                rngs=rngs,
            )

        # Reads both messages and h; feeds the four gates.
        received = 2 * message_size + state_size
        self.lstm = linear(received, 4 * state_size, rngs, init_scale)
        self.forward_message = linear(state_size, message_size, rngs, init_scale)
        self.backward_message = linear(state_size, message_size, rngs, init_scale)
        self.forward_norm = norm()
        self.backward_norm = norm()

    def __call__(
        self,
        h: Array,
        c: Array,
        forward: Array,
        backward: Array,
    ) -> tuple[Array, Array]:
        """Tick once: from the state h, c [N] and the messages [M] it receives to its new h, c [N]."""
        i, g, f, o = jnp.split(self._gates(h, forward, backward), 4)
        keep = jax.nn.sigmoid(f + GATE_OFFSET)
        write = jax.nn.sigmoid(i - GATE_OFFSET)
        c = keep * c + write * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    def _gates(self, h: Array, forward: Array, backward: Array) -> Array:
        """Return what enters the four gates [4N]."""
        received = jnp.concatenate([forward, backward, h])
        if self.product_dtype == "float32":
            return self.lstm(received)
        kernel, bias = weights_of(self.lstm)
        sizes = len(received) - len(h)
        from_messages = received[:sizes] @ kernel[:sizes] + bias
        return from_messages + product(self.product_dtype, kernel[sizes:].T, h)

    def messages(self, h: Array) -> tuple[Array, Array]:
        """Return the forward and the backward message [M] that a synapse in the hidden state h [N] sends."""
        forward = self.forward_message(h)
        backward = self.backward_message(h)
        if self.forward_norm is not None and self.backward_norm is not None:
            forward = self.forward_norm(forward)
            backward = self.backward_norm(backward)
        return forward, backward

    def cell_weights(self) -> CellWeights:
        """Return the LSTM as `vsml.networks.kernels.tiled` takes it: split, halved, its offsets folded in.

        Since `sigmoid(x) = (1 + tanh(x / 2)) / 2`, the columns of i, f and o are halved.
        """
        kernel, bias = weights_of(self.lstm)
        N, M = self.forward_message.kernel.shape
        ones = jnp.ones(N, kernel.dtype)
        zeros = 0 * ones
        half = ones / 2
        # Columns are those of i, g, f and o.
        offset = jnp.concatenate([-GATE_OFFSET * ones, zeros, GATE_OFFSET * ones, zeros])
        scale = jnp.concatenate([half, ones, half, half])
        kernel_4NxK = (kernel * scale[None]).T
        return CellWeights(
            forward=kernel_4NxK[:, :M],
            backward=kernel_4NxK[:, M : 2 * M],
            hidden=kernel_4NxK[:, 2 * M :],
            bias=(bias + offset) * scale,
            product_dtype=self.product_dtype,
        )

    def senders(self) -> Array:
        """Return the maps from h to the messages as [2, N + 1, M]: forward and backward, the bias last."""
        maps = []
        for sender in (self.forward_message, self.backward_message):
            kernel, bias = weights_of(sender)
            maps.append(jnp.concatenate([kernel, bias[None]]))
        return jnp.stack(maps)


def weights_of(linear: nnx.Linear) -> tuple[Array, Array]:
    """Return the kernel and the bias of a linear map."""
    assert linear.bias is not None  # none here is made without
    return linear.kernel[...], linear.bias[...]
