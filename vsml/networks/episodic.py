"""An episodic memory in front of a network: its slots are the input units.

K slots hold one example each, as a key: the input, centred and normalised. With d_s = 1 - cos(x, key_s) and
d the mean of d_s over the slots that are filled, the message that arrives at the unit of slot s has in

    channel 0    exp(-a d_s / d)                          smooth: a kernel of the similarity
    channel 1    exp(-b d_s / d) / sum over slots         nearest: a softmax over the slots
    channel 2    exp(-w d_s / d)                          narrow: another kernel
    channel 3    log(1 + slots that are filled) / 5
    channel 4    1 while the example is written into the slot, else 0
    channel 5    with a ridge: ((K + r I)^-1 k(x))_s, the weight of slot s in kernel ridge regression

and 0 in all of them where the slot is empty. K and k(x) are exp(-v d / m) among the slots, and between them
and x; m is the mean of d over pairs of slots. While an example is written channel 5 is what it was at the
answer, and 0 at its own slot. The sharpnesses a, b, w and v and the ridge r are numbers of the learning
algorithm, found with the rest of it. After its answer an example takes a slot, whose synapses start afresh,
and the backward sweep follows with the similarities to what the memory holds now.

A memory of examples whose answers are weighted by similarity is that of matching networks (Vinyals et al.,
2016, equation 1); that what is stored and how it is read is left to synapses is our own.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx, struct

from vsml.types import Array

SMOOTH, NEAREST, NARROW, FILLED, NEW, RIDGE = range(6)
"""What the channels of a message from the memory hold."""

USEFULNESS = 1
"""Channel of the backward message in which synapses say how useful the example in their slot is."""

Replacement = Literal["oldest", "balanced", "least_useful"]

_EMPTY = -1
_FEW = 3  # slots that have to be filled for a mean of distances
_MEAN_BEFORE = 0.5  # stands for the mean distance until then
_SMALLEST_MEAN = 0.05
_SMALLEST_RIDGE = 1e-3  # a float32 system of a thousand examples is solved well with it
_FILLED_SCALE = 5.0
_TINY = 1e-6


@struct.dataclass
class MemoryState:
    """What a memory holds.

    Attributes:
        keys: float32 [K, d], of length 1, or 0 where the slot is empty.
        written: the number of the step that wrote each slot, int32 [K]; -1 if it is empty.
        labels: classes of the examples, int32 [K], where the replacement needs them.
        steps: examples written so far, int32 [].
        seed: what the cells of fresh synapses are drawn from, uint32 [2].
    """

    keys: Array
    written: Array
    labels: Array | None
    steps: Array
    seed: Array

    @property
    def filled(self) -> Array:
        """1 where a slot holds an example, 0 elsewhere, float32 [K]."""
        return (self.written != _EMPTY).astype(jnp.float32)


class Sharpnesses(nnx.Module):
    """How fast kernels of similarity fall: numbers of the learning algorithm.

    Attributes:
        log_sharpness: their logarithms [3], in the order of channels.
        log_ridge: logarithms of the sharpness of the kernel of ridge regression, and of the ridge [2]; None
            without.
    """

    def __init__(
        self,
        smooth: float,
        nearest: float,
        narrow: float,
        ridge: tuple[float, float] | None = None,
    ):
        self.log_sharpness = nnx.Param(jnp.log(jnp.array([smooth, nearest, narrow])))
        self.log_ridge = None if ridge is None else nnx.Param(jnp.log(jnp.array(ridge)))


@dataclass(frozen=True)
class EpisodicMemory:
    """A memory of examples. Everything here is for one example; batch with `jax.vmap`.

    Attributes:
        slots: K.
        replacement: which slot an example takes when none is empty. oldest: that of the oldest example.
            balanced: that of the oldest of the class with the most examples. least_useful: the one whose
            synapses send the least in channel `USEFULNESS` of their backward message.
        has_ridge: whether there is a channel with the weights of kernel ridge regression.
    """

    slots: int
    replacement: Replacement = "oldest"
    has_ridge: bool = False

    @property
    def channels(self) -> int:
        """Channels of a message from the memory."""
        return RIDGE + 1 if self.has_ridge else RIDGE

    def init_state(
        self,
        key: Array,
        size: int,
    ) -> MemoryState:
        """Return an empty memory for inputs of a size."""
        labelled = self.replacement == "balanced"
        return MemoryState(
            keys=jnp.zeros((self.slots, size)),
            written=jnp.full(self.slots, _EMPTY, jnp.int32),
            labels=jnp.zeros(self.slots, jnp.int32) if labelled else None,
            steps=jnp.zeros((), jnp.int32),
            seed=jax.random.key_data(key),
        )

    def messages(
        self,
        sharpnesses: Sharpnesses,
        state: MemoryState,
        x: Array,
        new: Array | None = None,
        before: Array | None = None,
    ) -> Array:
        """Return what arrives at the units of the slots.

        Args:
            sharpnesses: of the kernels.
            state: of the memory.
            x: an input [d].
            new: the slot that is being written, int []; None for an answer.
            before: weights of ridge regression at the answer [K], where a slot is written.

        Returns:
            Channels [K, channels]; see the top of this file.
        """
        smooth, nearest, narrow = jnp.exp(sharpnesses.log_sharpness[...])
        filled = state.filled
        count = filled.sum()
        cosine = state.keys @ key_of(x)
        distance = 1 - cosine
        mean = jnp.maximum((distance * filled).sum() / jnp.maximum(count, 1), _SMALLEST_MEAN)
        mean = jnp.where(count < _FEW, _MEAN_BEFORE, mean)
        # Relative to the nearest one: no sum is 0 or infinite.
        nearest_distance = jnp.where(filled > 0, distance, jnp.inf).min()
        nearest_distance = jnp.where(count > 0, nearest_distance, 0.0)
        weights = jnp.exp(-nearest * (distance - nearest_distance) / mean * filled) * filled
        channels = [
            jnp.exp(-smooth * distance / mean) * filled,
            weights / jnp.maximum(weights.sum(), _TINY),
            jnp.exp(-narrow * distance / mean) * filled,
            jnp.log1p(count) / _FILLED_SCALE * filled,
            jnp.zeros(self.slots) if new is None else jax.nn.one_hot(new, self.slots),
        ]
        if self.has_ridge:
            weights = self._ridge_weights(sharpnesses, state, distance) if before is None else before
            channels.append(weights if new is None else weights.at[new].set(0.0))
        return jnp.stack(channels, axis=-1)

    def _ridge_weights(
        self,
        sharpnesses: Sharpnesses,
        state: MemoryState,
        distance: Array,
    ) -> Array:
        """Return the weight of each slot in kernel ridge regression [K].

        Where many inputs meet one memory the system is factorised once, as `jax.vmap` sees that it is shared.
        """
        assert sharpnesses.log_ridge is not None  # they were made for a memory with a ridge
        sharpness, ridge = jnp.exp(sharpnesses.log_ridge[...])
        filled = state.filled
        count = filled.sum()
        pairs = filled[:, None] * filled[None, :]
        distance_KxK = (1 - state.keys @ state.keys.T) * pairs
        # The diagonal is 0.
        mean = distance_KxK.sum() / jnp.maximum(count * (count - 1), 1)
        mean = jnp.where(count < _FEW, _MEAN_BEFORE, jnp.maximum(mean, _SMALLEST_MEAN))
        kernel_KxK = jnp.exp(-sharpness * distance_KxK / mean) * pairs
        # Empty slots are coupled to nothing.
        system_KxK = kernel_KxK + (ridge + _SMALLEST_RIDGE) * jnp.eye(self.slots)
        to_x = jnp.exp(-sharpness * distance / mean) * filled
        return jax.scipy.linalg.solve(system_KxK, to_x, assume_a="pos")

    def write(
        self,
        state: MemoryState,
        x: Array,
        y: Array,
        usefulness: Array,
    ) -> tuple[MemoryState, Array, Array]:
        """Write an example.

        Args:
            state: of the memory.
            x: its input [d].
            y: its target; of a memory with balanced replacement the number of its class, int [].
            usefulness: how useful synapses say that each slot is [K].

        Returns:
            The new state, the slot, int [], and a key for the cells of its fresh synapses.
        """
        slot = self._slot(state, usefulness)
        key = jax.random.fold_in(jax.random.wrap_key_data(state.seed), state.steps)
        new = dataclasses.replace(
            state,
            keys=state.keys.at[slot].set(key_of(x)),
            written=state.written.at[slot].set(state.steps),
            labels=None if state.labels is None else state.labels.at[slot].set(y),
            steps=state.steps + 1,
        )
        return new, slot, key

    def _slot(
        self,
        state: MemoryState,
        usefulness: Array,
    ) -> Array:
        """Return the first empty slot, or the one that is given up."""
        empty = state.written == _EMPTY
        age = state.written
        if self.replacement == "balanced":
            assert state.labels is not None  # see `init_state`
            same_class = state.labels[:, None] == state.labels[None, :]
            size_of_class = same_class.sum(1)
            largest = size_of_class == size_of_class.max()
            kept = jnp.where(largest, age, jnp.iinfo(jnp.int32).max)
            candidate = kept.argmin()
        elif self.replacement == "least_useful":
            candidate = usefulness.argmin()
        else:
            candidate = age.argmin()
        return jnp.where(empty.any(), empty.argmax(), candidate)


def key_of(x: Array) -> Array:
    """Return an input [d] centred, and of length 1; one without any contrast becomes 0."""
    centred = x - x.mean()
    length = jnp.sqrt(jnp.square(centred).sum() + _TINY**2)
    return centred / (length + _TINY)
