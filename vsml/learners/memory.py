"""The memory of a learner: how many numbers it keeps between steps, and perturbations of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from vsml.learners.base import Learner
from vsml.types import Array, State

Kind = Literal["zero", "noise", "drop_units"]

Change = Callable[[State, int], State]
"""From arrays of which an axis numbers the same units, and that axis, to other arrays of the same shapes."""


class NoMemoryError(ValueError):
    """A learner does not mark what of its state is its memory, so that nothing of it can be perturbed."""


@runtime_checkable
class Remembers(Protocol):
    """A learner that marks its memory."""

    def map_memory(
        self,
        state: State,
        change: Change,
    ) -> State:
        """Return the state with its memory changed, and nothing else.

        Args:
            state: of an episode.
            change: to call on each part of the memory, a pytree of arrays, with the axis that numbers units.
        """


@runtime_checkable
class HasFixed(Protocol):
    """A learner with parts of its state that no step changes."""

    def fixed(self, state: State) -> dict[str, State]:
        """Return these parts by name."""


@dataclass(frozen=True)
class StateFloats:
    """Numbers in the state of a learner.

    Attributes:
        kept: what it keeps between steps, pending feedback included.
        fixed: what was drawn with the state and never changes, such as random features, by name.
    """

    kept: int
    fixed: tuple[tuple[str, int], ...] = ()

    def __int__(self) -> int:
        return self.kept

    def __str__(self) -> str:
        beside = "".join(f", and {count:,} fixed ({name})" for name, count in self.fixed)
        return f"{self.kept:,}{beside}"


def state_floats(
    learner: Learner,
    batch_size: int = 1,
) -> StateFloats:
    """Count the numbers that a learner keeps between steps.

    Args:
        learner: any.
        batch_size: B, elements of its inner batch.
    """

    def start() -> State:
        params = learner.init_params(jax.random.key(0))
        return learner.init_state(params, jax.random.key(0), batch_size)

    state = jax.eval_shape(start)
    fixed: tuple[tuple[str, int], ...] = ()
    if isinstance(learner, HasFixed):
        parts = learner.fixed(state)
        fixed = tuple((name, _count(part)) for name, part in parts.items())
    never_changed = sum(count for _, count in fixed)
    return StateFloats(_count(state) - never_changed, fixed)


def _count(tree: State) -> int:
    """Return how many numbers there are in a pytree of arrays."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def perturb(
    learner: Learner,
    state: State,
    key: Array,
    kind: Kind,
    fraction: float,
) -> State:
    """Disturb what a learner marks as its memory.

    Args:
        learner: one that has `map_memory`.
        state: of an episode.
        key: for what is drawn.
        kind: "zero": each number is set to 0 with probability `fraction`. "noise": normal noise is added
            whose deviation is `fraction` times the root mean square of the array. "drop_units": of each
            layer's units `fraction`, rounded, are removed: all that the memory holds of them is set to 0.
        fraction: 0 to 1 (for noise, any number of at least 0).

    Raises:
        NoMemoryError: the learner does not mark its memory.
        ValueError: there is no such kind, or the fraction is out of range.
    """
    if not isinstance(learner, Remembers):
        raise NoMemoryError(f"{type(learner).__name__}: got no map_memory, which says what its memory is")
    if kind not in _KINDS:
        raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(_KINDS)}")
    if fraction < 0 or (fraction > 1 and kind != "noise"):
        raise ValueError(f"fraction: got {fraction}, expected 0 to 1")
    parts = 0

    def change(
        part: State,
        unit_axis: int,
    ) -> State:
        nonlocal parts
        parts += 1
        return _KINDS[kind](part, unit_axis, jax.random.fold_in(key, parts), fraction)

    return learner.map_memory(state, change)


def _zero(
    part: State,
    unit_axis: int,
    key: Array,
    fraction: float,
) -> State:
    """Set each number to 0 with a probability."""

    def each(
        array: Array,
        key: Array,
    ) -> Array:
        lost = jax.random.bernoulli(key, fraction, array.shape)
        return jnp.where(lost, jnp.zeros_like(array), array)

    return _each_leaf(each, part, key)


def _noise(
    part: State,
    unit_axis: int,
    key: Array,
    fraction: float,
) -> State:
    """Add normal noise."""

    def each(
        array: Array,
        key: Array,
    ) -> Array:
        size = jnp.sqrt(jnp.square(array.astype(jnp.float32)).mean())
        noise = fraction * size * jax.random.normal(key, array.shape)
        return (array + noise).astype(array.dtype)

    return _each_leaf(each, part, key)


def _drop_units(
    part: State,
    unit_axis: int,
    key: Array,
    fraction: float,
) -> State:
    """Set to 0 what arrays hold of some units, the same ones in all of them."""
    first, *_ = jax.tree.leaves(part)
    units = first.shape[unit_axis]
    order = jax.random.permutation(key, units)
    keeps = jnp.ones(units, bool).at[order[: round(fraction * units)]].set(False)

    def each(array: Array) -> Array:
        shape = [1] * array.ndim
        shape[unit_axis] = units
        kept = keeps.reshape(shape)
        return jnp.where(kept, array, jnp.zeros_like(array))

    return jax.tree.map(each, part)


def _each_leaf(
    change: Callable[[Array, Array], Array],
    part: State,
    key: Array,
) -> State:
    """Change each array with a key of its own."""
    leaves, structure = jax.tree.flatten(part)
    keys = jax.random.split(key, len(leaves))
    changed = [change(leaf, own) for leaf, own in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, changed)


_KINDS: dict[str, Callable[[State, int, Array, float], State]] = {
    "zero": _zero,
    "noise": _noise,
    "drop_units": _drop_units,
}
