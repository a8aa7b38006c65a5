"""Ticks of all synapses of a dense layer on a CPU, by a kernel that is compiled on the machine it runs on.

XLA leaves a factor of two to what arithmetic allows (docs/results/speed.md). `native.cpp` beside this file
has the derivation. It is compiled at its first use by the C++ compiler that is there, for this very processor
and size N of a state, kept in the user's cache, and called through `jax.ffi`. Where it cannot be compiled,
`tiled` computes the same. `native_positions` is compiled in the same way, for convolutions.
"""

import functools
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

from vsml.networks.kernels import activations, libraries
from vsml.networks.kernels.products import ProductType
from vsml.networks.kernels.tiled import NORM_EPSILON, CellWeights, Ticked
from vsml.types import Array

Layers = Literal["dense", "positions"]
"""Of which layers a kernel is: dense ones, or those whose synapses are used at many positions."""

DENSE_SOURCE = Path(__file__).with_name("native.cpp")

SOURCES: dict[Layers, Path] = {
    "dense": DENSE_SOURCE,
    "positions": Path(__file__).with_name("native_positions.cpp"),
}

_FUNCTIONS: dict[Layers, tuple[str, ...]] = {
    "dense": ("forward", "remember", "backward"),
    "positions": ("forward", "backward"),
}
"""What is compiled: `remember` is `forward` that returns the states before the visit, too."""

_SENDERS_PLACE: dict[Layers, int] = {"dense": 5, "positions": 8}
"""How many operands come before the senders."""

HEADER = Path(__file__).with_name("native.h")
"""What both sources include."""

MAX_STATE = 128
"""Largest N: the blocks of larger states would neither fit into a cache nor on the stack of a thread."""


@functools.cache
def missing(
    state_size: int,
    normed_channels: int = 0,
    layers: Layers = "dense",
    product_dtype: ProductType = "float32",
) -> str | None:
    """Compile a kernel, and return why it cannot be used; None if it can.

    Args:
        state_size: N.
        normed_channels: M where messages are normalised, else 0.
        layers: of which kind it is.
        product_dtype: type of the operands of products.
    """
    if os.name != "posix":
        return f"it is for POSIX systems, and this one is {os.name}"
    if max(state_size, normed_channels) > MAX_STATE:
        return f"states and normalised messages have at most {MAX_STATE} numbers in it"
    try:
        library = _build(state_size, normed_channels, layers, product_dtype)
        libraries.register(library, "cpu", _FUNCTIONS[layers])
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None


@functools.cache
def _build(
    state_size: int,
    normed_channels: int,
    layers: Layers = "dense",
    product_dtype: ProductType = "float32",
) -> Path:
    """Return the compiled library; raises what `libraries.build` does."""
    definitions = _definitions(state_size, normed_channels, product_dtype)
    return libraries.build(SOURCES[layers], [HEADER], definitions)


def _definitions(
    state_size: int,
    normed_channels: int,
    product_dtype: ProductType = "float32",
) -> list[str]:
    def floats(numbers: tuple[float, ...]) -> str:
        return ",".join(f"{number}f" for number in numbers)

    rounded = product_dtype == "bfloat16"
    tanh = activations.COARSE if rounded else activations.FINE
    return [
        f"-DSTATE_SIZE={state_size}",
        f"-DMESSAGE_SIZE={normed_channels}",
        f"-DNORM_EPSILON={NORM_EPSILON}f",
        f"-DROUNDED_PRODUCTS={int(rounded)}",
        f"-DTANH_BOUND={tanh.bound}f",
        f"-DTANH_P={floats(tanh.above)}",
        f"-DTANH_Q={floats(tanh.below)}",
    ]


def tick(
    weights: CellWeights,
    h_GNRI: Array,
    c_GNRI: Array,
    forward_IxM: Array,
    backward_OxM: Array,
    micro_ticks: int,
    senders: Array | None = None,
) -> Ticked:
    """Let all synapses of a dense layer tick; see `tiled.tick`.

    Under differentiation the state before the visit is kept, and the visit is recomputed.

    Args:
        weights: the shared LSTM.
        h_GNRI: hidden states, as in `tiled.tick`.
        c_GNRI: cell states, likewise.
        forward_IxM: message of each input unit.
        backward_OxM: message of each output unit.
        micro_ticks: how many ticks.
        senders: [2, N + 1, M], the kernel and (last row) the bias of forward and of backward messages. With
            them the means returned are not of h [N] but of the layer-normalised messages [M].

    Raises:
        ValueError: shapes that do not fit together, which compiled code would not notice.
    """
    G, N, R, fan_in = h_GNRI.shape
    M = forward_IxM.shape[-1]
    check_shapes(
        {
            "c_GNRI": (c_GNRI, (G, N, R, fan_in)),
            "forward_IxM": (forward_IxM, (fan_in, M)),
            "backward_OxM": (backward_OxM, (G * R, M)),
            **shapes_of_weights(weights, senders, N, M),
        }
    )
    return _tick(micro_ticks, weights, h_GNRI, c_GNRI, forward_IxM, backward_OxM, senders)


Expected = Mapping[str, tuple[Array | None, tuple[int, ...]]]
"""Arrays by name, and the shapes that they should have."""


def shapes_of_weights(weights: CellWeights, senders: Array | None, N: int, M: int) -> Expected:
    """Return weights and senders with the shapes that they should have, for states N and messages M."""
    return {
        "weights.forward": (weights.forward, (4 * N, M)),
        "weights.backward": (weights.backward, (4 * N, M)),
        "weights.hidden": (weights.hidden, (4 * N, N)),
        "weights.bias": (weights.bias, (4 * N,)),
        "senders": (senders, (2, N + 1, M)),
    }


def check_shapes(expected: Expected) -> None:
    """Check arrays, by name, that are there, against the shapes they should have.

    Raises:
        ValueError: one has another.
    """
    for name, (array, shape) in expected.items():
        if array is not None and array.shape != shape:
            raise ValueError(f"{name}: got shape {array.shape}, expected {shape}")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tick(micro_ticks: int, *operands: Any) -> Ticked:
    return _call("forward", micro_ticks, *operands)[0]


def _call(
    name: Literal["forward", "remember"],
    micro_ticks: int,
    weights: CellWeights,
    h_GNRI: Array,
    c_GNRI: Array,
    forward_IxM: Array,
    backward_OxM: Array,
    senders: Array | None,
) -> tuple[Ticked, Sequence[Array]]:
    """Return what a visit leaves and, of "remember", h and c before it as one array."""
    G, N, R, fan_in = h_GNRI.shape
    added = _added(G, weights, forward_IxM, backward_OxM)
    sent = N if senders is None else senders.shape[-1]
    results = [h_GNRI.shape, h_GNRI.shape, (G * R, sent), (sent, fan_in)]
    if name == "remember":
        results.append((2, *h_GNRI.shape))
    call = function("dense", name, senders, results, N, {3: 0, 4: 1}, weights.product_dtype)
    h, c, forward_OxS, backward_SxI, *before = call(micro_ticks, weights.hidden, *added, h_GNRI, c_GNRI)
    h, c = h.astype(h_GNRI.dtype), c.astype(c_GNRI.dtype)
    return Ticked(h=h, c=c, forward=forward_OxS, backward=backward_SxI.T), before


def _added(tiles: int, weights: CellWeights, forward_IxM: Array, backward_OxM: Array) -> tuple[Array, Array]:
    """Return what the messages add to the gates: [4N, I] with the bias, and [G, 4N, R]."""
    from_input_4NxI = weights.forward @ forward_IxM.T + weights.bias[:, None]
    backward_GxRxM = backward_OxM.reshape(tiles, -1, backward_OxM.shape[-1])
    return from_input_4NxI, jnp.einsum("km,grm->gkr", weights.backward, backward_GxRxM)


def _remember(micro_ticks: int, *operands: Any) -> tuple[Ticked, tuple[Any, ...]]:
    weights, h_GNRI, c_GNRI, *others = operands
    if h_GNRI.dtype != jnp.float32 or c_GNRI.dtype != jnp.float32:
        return _call("forward", micro_ticks, *operands)[0], (weights, (h_GNRI, c_GNRI), *others)
    # New states take the place of old ones. Where old ones were kept, XLA would copy them twice in each step;
    # as two arrays, it would also copy all the memory that it keeps them in, once an episode.
    ticked, (before,) = _call("remember", micro_ticks, *operands)
    return ticked, (weights, before, *others)


def _differentiate(micro_ticks: int, operands: tuple[Any, ...], cotangent: Ticked) -> tuple[Any, ...]:
    weights, (h_GNRI, c_GNRI), *messages, senders = operands
    added, add_back = jax.vjp(functools.partial(_added, len(h_GNRI)), weights, *messages)
    inputs = (weights.hidden, *added, h_GNRI, c_GNRI)
    results = [each.shape for each in inputs]
    N, products = h_GNRI.shape[1], weights.product_dtype
    call = function("dense", "backward", senders, results, N, {6: 3, 7: 4}, products)
    d_means = (cotangent.forward, cotangent.backward.T)
    d_hidden, *d_added, d_h, d_c, d_senders = call(micro_ticks, *inputs, cotangent.h, cotangent.c, *d_means)
    # The kernel computes in float32, whatever the messages are of.
    d_added = [d_sum.astype(each.dtype) for d_sum, each in zip(d_added, added, strict=True)]
    d_weights, *d_messages = add_back(tuple(d_added))
    d_weights = d_weights.replace(hidden=d_weights.hidden + d_hidden)
    d_states = (d_h.astype(h_GNRI.dtype), d_c.astype(c_GNRI.dtype))
    return d_weights, *d_states, *d_messages, None if senders is None else d_senders


_tick.defvjp(_remember, _differentiate)


def function(
    layers: Layers,
    name: str,
    senders: Array | None,
    results: Sequence[tuple[int, ...]],
    state_size: int,
    in_place: dict[int, int],
    product_dtype: ProductType = "float32",
) -> Callable[..., Sequence[Array]]:
    """Return a compiled function, of the micro ticks and its operands but for the senders.

    Args:
        layers: of which kernel.
        name: see `_FUNCTIONS`.
        senders: see `tick`.
        results: shapes, but for that of the derivative of the senders.
        state_size: N.
        in_place: operands, counted with the senders, that results take the place of.
        product_dtype: type of the operands of products.

    Raises:
        RuntimeError: it cannot be compiled.
    """
    channels = 0 if senders is None else senders.shape[-1]
    if reason := missing(state_size, channels, layers, product_dtype):
        raise RuntimeError(f"the native kernel cannot be used: {reason}")
    sending = jnp.zeros((2, state_size + 1, 1)) if senders is None else senders
    shapes = [*results, sending.shape] if name == "backward" else results
    call = jax.ffi.ffi_call(
        libraries.target(name, _build(state_size, channels, layers, product_dtype)),
        [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes],
        vmap_method="broadcast_all",
        input_output_aliases=in_place,
    )
    place = _SENDERS_PLACE[layers]

    def run(micro_ticks: int, *operands: Array) -> Sequence[Array]:
        every = (*operands[:place], sending, *operands[place:])
        return call(*(operand.astype(jnp.float32) for operand in every), micro_ticks=micro_ticks)

    return run
