"""How the synapses of a layer are made to tick: one formulation a file."""

import functools
import warnings
from collections.abc import Callable
from typing import Literal

import jax

from vsml.networks.kernels import fused, native, tiled
from vsml.networks.kernels.products import ProductType as ProductType

Kernel = Literal["auto", "tiled", "native", "fused", "reference"]
"""What makes synapses tick; all compute the same but for rounding.

auto: the fastest that can be used: native on a CPU, fused on a GPU, else tiled.
tiled: XLA, in tiles that stay in a core's cache.
native: compiled for the processor; on a CPU.
fused: one kernel a visit; dense layers on a GPU.
reference: one synapse under nested vmap, to compare with.
"""


@functools.cache
def chosen(
    kernel: Kernel,
    state_size: int,
    normed_channels: int = 0,
    product_dtype: ProductType = "float32",
) -> Kernel:
    """Return the kernel of dense layers that a choice stands for on this machine.

    Args:
        kernel: the choice.
        state_size: N.
        normed_channels: M where messages are normalised, else 0.
        product_dtype: type of the operands of the cell's products.

    Raises:
        ValueError: the kernel cannot be used here; says why.

    Warns:
        RuntimeWarning: "auto" has to do with a slower one.
    """
    if kernel in ("tiled", "reference"):
        return kernel
    backend = jax.default_backend()
    best: Kernel = {"cpu": "native", "gpu": "fused"}.get(backend, "tiled") if kernel == "auto" else kernel  # type: ignore[assignment]
    reason = missing(best, state_size, normed_channels, product_dtype)
    if reason is None:
        return best
    if kernel != "auto":
        raise ValueError(f"model.vsml.kernel: got {kernel!r}, which cannot be used here: {reason}")
    warnings.warn(
        f"synapses tick by XLA, which is slower than the {best} kernel: {reason}",
        RuntimeWarning,
        stacklevel=2,
    )
    return "tiled"


@functools.cache
def native_at_positions(
    kernel: Kernel,
    state_size: int,
    normed_channels: int = 0,
    product_dtype: ProductType = "float32",
) -> bool:
    """Return whether convolutions tick by the native kernel; by XLA (`positions`) otherwise.

    Args:
        kernel: the choice.
        state_size: N.
        normed_channels: M where messages are normalised, else 0.
        product_dtype: type of the operands of the cell's products.

    Raises:
        ValueError: the kernel cannot be used here; says why.

    Warns:
        RuntimeWarning: the native kernel of dense layers can be used, and that of convolutions cannot.
    """
    if chosen(kernel, state_size, normed_channels, product_dtype) != "native":
        return False
    reason = native.missing(state_size, normed_channels, "positions", product_dtype)
    if reason is not None:
        warnings.warn(
            f"convolutions tick by XLA, which is slower than the native kernel: {reason}",
            RuntimeWarning,
            stacklevel=2,
        )
    return reason is None


def missing(
    kernel: Kernel,
    state_size: int,
    normed_channels: int = 0,
    product_dtype: ProductType = "float32",
) -> str | None:
    """Return why a kernel cannot be used on this machine; None if it can. See `chosen`."""
    if kernel == "fused":
        if product_dtype != "float32":
            return f"its products take float32, not {product_dtype}"
        return fused.missing(state_size)
    if kernel == "native":
        if jax.default_backend() != "cpu":
            return f"it is for CPUs, and this is a {jax.default_backend()}"
        return native.missing(state_size, normed_channels, product_dtype=product_dtype)
    return None


def tick_of(kernel: Kernel) -> Callable[..., tiled.Ticked]:
    """Return the function that lets a dense layer tick; see `tiled.tick`."""
    return {"tiled": tiled.tick, "native": native.tick, "fused": fused.tick}[kernel]
