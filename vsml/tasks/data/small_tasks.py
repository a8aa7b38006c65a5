"""Small tasks on which a person can follow a rule: two numbers in, and a number out."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vsml.types import Array

NUM_INPUTS = 3
"""a, b, and 1, which stands for a bias."""

FALSE, TRUE = 0.0, 0.8
"""Targets of logic; a node that answers with tanh can reach both."""

LARGEST = 0.5
"""Numbers that are added lie between 0 and this: a node that answers with a rectifier reaches their sum."""


@dataclass(frozen=True)
class SmallTask:
    """A task of two numbers.

    Attributes:
        does: in words.
        combine: what is to be found out, of a and b.
        is_logic: whether a and b are -1 for false and 1 for true, each as likely; else they are uniform.
    """

    does: str
    combine: Callable[[Any, Any], Any]
    is_logic: bool = True

    def draw(
        self,
        count: int,
        key: "Array",
    ) -> "tuple[Array, Array]":
        """Return inputs [count, 3] and targets [count, 1]; the first ones are the same for every count."""
        import jax
        import jax.numpy as jnp

        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))
        pairs = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys)
        if self.is_logic:
            bits = pairs > 0.5
            pairs = jnp.where(bits, 1.0, -1.0)
            is_true = self.combine(bits[:, 0], bits[:, 1])
            targets = jnp.where(is_true, TRUE, FALSE)
        else:
            pairs = LARGEST * pairs
            targets = self.combine(pairs[:, 0], pairs[:, 1])
        ones = jnp.ones((count, 1))
        return jnp.concatenate([pairs, ones], 1), targets[:, None]


TASKS = {
    "and": SmallTask("a AND b", operator.and_),
    "or": SmallTask("a OR b", operator.or_),
    "xor": SmallTask("a XOR b", operator.xor),
    "sum": SmallTask("a + b", operator.add, is_logic=False),
}
"""Tasks by name."""
