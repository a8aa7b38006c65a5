"""Ridge regression beside a network: on random features, over all examples so far, in constant memory.

An input is centred and scaled to length 1, u = (x - mean x) / |x - mean x|, and is seen through F features

    phi(x) = [cos(B^T u), sin(B^T u)] / sqrt(F / 2),    B normal with variance `width`,

whose products are in expectation the kernel exp(-width (1 - cos(x, x'))) (Rahimi & Recht, 2007). With a
hidden layer, tanh(A^T x + b) takes the place of x. What is answered is W^T phi(x), W being the ridge
regression of all targets so far on their features. It is kept up to date by recursive least squares: with
P = S S^T the inverse of sum phi phi^T + ridge I, the forgetting factor l and the target t,

    f = S^T phi,   a = l + f^T f,   k = S f / a
    W <- W + k (t - W^T phi)^T
    S <- (S - k f^T / (1 + sqrt(l / a))) / sqrt(l).

As P is kept as a root, rounding cannot make it indefinite (Potter's update; Bierman, Factorization Methods
for Discrete Sequential Estimation, 1977).
"""

import dataclasses
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx, struct

from vsml.networks.episodic import key_of
from vsml.types import Array

_GAIN_SCALE = 5.0
"""log(1 + examples) is divided by it, so that gain and growth are learned at like rates."""


@struct.dataclass
class RegressionState:
    """What is known of the examples so far.

    Attributes:
        root: S [F, F].
        weights: W [F, V].
        examples: how many have been learned, float32 [].
        hidden: A above b [d + 1, H], which never changes; None without a hidden layer.
        directions: B [d or H, F / 2], which never changes.
    """

    root: Array
    weights: Array
    examples: Array
    hidden: Array | None
    directions: Array


class Gain(nnx.Module):
    """How much what regression answers counts as a logit: numbers of the learning algorithm.

    Attributes:
        log_gain: the logarithm of the gain, and how fast it grows: the gain after n examples is
            exp(log_gain[0] + log_gain[1] log(1 + n) / 5), [2].
    """

    def __init__(self, gain: float):
        self.log_gain = nnx.Param(jnp.array([math.log(gain), 0.0], jnp.float32))

    def after(self, examples: Array) -> Array:
        """Return the gain after so many examples, []."""
        start, growth = self.log_gain[...]
        return jnp.exp(start + growth * jnp.log1p(examples) / _GAIN_SCALE)


@dataclass(frozen=True)
class Regression:
    """Ridge regression on random features. The elements of an inner batch share it.

    Attributes:
        features: F, an even number.
        hidden: tanh features H that take the place of inputs; None: inputs are taken as they are.
        width: how fast the kernel falls with the distance 1 - cos(x, x').
        ridge: penalty of squared weights.
    """

    features: int
    hidden: int | None
    width: float
    ridge: float

    def init_state(
        self,
        key: Array,
        size: int,
        outputs: int,
    ) -> RegressionState:
        """Return what is known of nothing, for inputs of a size, with fresh random features."""
        hidden_key, key = jax.random.split(key)
        hidden = None
        if self.hidden is not None:
            scale = jnp.full((size + 1, 1), size**-0.5).at[-1].set(1.0)
            hidden = scale * jax.random.normal(hidden_key, (size + 1, self.hidden))
            size = self.hidden
        return RegressionState(
            root=self._first_root(),
            weights=jnp.zeros((self.features, outputs)),
            examples=jnp.zeros(()),
            hidden=hidden,
            directions=math.sqrt(self.width) * jax.random.normal(key, (size, self.features // 2)),
        )

    def restarted(self, state: RegressionState) -> RegressionState:
        """Return what is known of nothing, with the same random features."""
        return dataclasses.replace(
            state,
            root=self._first_root(),
            weights=jnp.zeros_like(state.weights),
            examples=jnp.zeros_like(state.examples),
        )

    def see(
        self,
        state: RegressionState,
        x: Array,
    ) -> Array:
        """Return the features [K, F] of inputs [K, d]."""
        if state.hidden is not None:
            x = jnp.tanh(x @ state.hidden[:-1] + state.hidden[-1:])
        angles = jax.vmap(key_of)(x) @ state.directions
        return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1) / math.sqrt(self.features // 2)

    def answer(
        self,
        state: RegressionState,
        features: Array,
    ) -> Array:
        """Return the answers [K, V] to features [K, F]."""
        return features @ state.weights

    def learn(
        self,
        state: RegressionState,
        features: Array,
        targets: Array,
        taught: Array | None = None,
    ) -> RegressionState:
        """Learn examples, one after the other.

        Args:
            state: so far.
            features: of the inputs [B, F].
            targets: [B, V].
            taught: how much each counts [B]; one with 0 leaves no trace. None: 1.
        """
        root, weights = state.root, state.weights
        counts = jnp.ones(len(features)) if taught is None else taught
        for b in range(len(features)):
            # An example that counts n times is n examples: its square enters n times.
            scale = jnp.sqrt(counts[b])
            root, weights = observe(root, weights, scale * features[b], scale * targets[b])
        examples = state.examples + counts.sum()
        return dataclasses.replace(state, root=root, weights=weights, examples=examples)

    def with_new_outputs(
        self,
        state: RegressionState,
        kept: Array,
        outputs: int,
    ) -> RegressionState:
        """Return the state with so many outputs, as if the new ones' targets had been 0 so far.

        Args:
            state: with K outputs.
            kept: which of them keep what they have learned, bool [K].
            outputs: K or more.
        """
        known = jnp.where(kept[None, :], state.weights, 0.0)
        weights = jnp.zeros((self.features, outputs)).at[:, : known.shape[1]].set(known)
        return dataclasses.replace(state, weights=weights)

    def _first_root(self) -> Array:
        return jnp.eye(self.features) / math.sqrt(self.ridge)


def observe(
    root: Array,
    weights: Array,
    feature: Array,
    target: Array,
    forgetting: float = 1.0,
) -> tuple[Array, Array]:
    """Return S [F, F] and W [F, V] after an observation; see the top of this file.

    Args:
        root: S.
        weights: W.
        feature: phi [F].
        target: t [V].
        forgetting: l.
    """
    f = feature @ root
    a = forgetting + f @ f
    gain = root @ f / a
    weights = weights + jnp.outer(gain, target - feature @ weights)
    shrink = 1 + jnp.sqrt(forgetting / a)
    root = (root - jnp.outer(gain / shrink, f)) / math.sqrt(forgetting)
    return root, weights
