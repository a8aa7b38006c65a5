"""Loops that XLA compiles into one kernel on a CPU."""

from collections.abc import Callable
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata

_ONE_KERNEL = {"xla_cpu_small_call": "true", "inlineable": "false"}
"""Attributes of a call that XLA's CPU compiler emits as one function, loops and branches included."""


def one_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is jit-ed into one kernel where the backend is a CPU, else as usual.

    XLA's CPU runtime starts every small operation of a loop by itself, which takes about half a microsecond.
    A loop over rules has hundreds of them a rule, on arrays of a few dozen numbers. As one kernel, it takes
    a tenth of that. The same operations are done in the same order.

    Args:
        function: of arrays. It must not scatter, sort or call a library: the compiler refuses such parts.

    Returns:
        A function that the caller may call inside of jit-ed code, too.
    """

    def without_attributes(*arguments: Any) -> Any:
        # The attributes are for the call alone: parts that carried them would be calls of their own.
        with set_xla_metadata(**dict.fromkeys(_ONE_KERNEL)):
            return function(*arguments)

    inner = jax.jit(without_attributes)

    def call(*arguments: Any) -> Any:
        if jax.default_backend() != "cpu":
            return inner(*arguments)
        with set_xla_metadata(**_ONE_KERNEL):
            return inner(*arguments)

    return jax.jit(call)
