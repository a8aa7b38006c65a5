"""Types and promotion: JAX's own defaults for what this library computes, whatever the user has set."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def standard_numerics() -> Iterator[None]:
    """Compute in 32 bits, by JAX's default rules of promotion.

    A user's JAX_ENABLE_X64=1 and strict rules (JAX_NUMPY_DTYPE_PROMOTION=strict,
    JAX_NUMPY_RANK_PROMOTION=raise) are for the user's own code: they hold before and after. Meta-parameters
    are of 32 bits, kernels are compiled for them, and Flax, for one, does not follow strict rules.

        @standard_numerics()
        def step(...): ...
    """
    with (
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield
