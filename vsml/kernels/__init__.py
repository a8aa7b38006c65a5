"""How the synapses of a layer are made to tick: one formulation a file."""

import functools
import warnings
from typing import Literal

import jax

from vsml.kernels import native

Kernel = Literal["auto", "tiled", "native", "reference"]
"""What makes synapses tick; all compute the same but for rounding.

auto: the fastest that can be used: native on a CPU, else tiled.
tiled: XLA, in tiles that stay in a core's cache.
native: compiled for the processor; dense layers on a CPU.
reference: one synapse under nested vmap, to compare with.
"""


@functools.cache
def chosen(kernel: Kernel, state_size: int, normed_channels: int = 0) -> Kernel:
    """Return the kernel of dense layers that a choice stands for on this machine.

    Args:
        kernel: the choice.
        state_size: N.
        normed_channels: M where messages are normalised, else 0.

    Raises:
        ValueError: the kernel cannot be used here; says why.

    Warns:
        RuntimeWarning: "auto" has to do with a slower one.
    """
    if kernel in ("tiled", "reference"):
        return kernel
    backend = jax.default_backend()
    if backend == "cpu":
        reason = native.missing(state_size, normed_channels)
    else:
        reason = f"it is for CPUs, and this is a {backend}"
    if reason is None:
        return "native"
    if kernel == "native":
        raise ValueError(f"model.vsml.kernel: got {kernel!r}, which cannot be used here: {reason}")
    if backend == "cpu":
        warnings.warn(
            f"synapses tick by XLA, which is two to four times slower than the native kernel: {reason}",
            RuntimeWarning,
            stacklevel=2,
        )
    return "tiled"
