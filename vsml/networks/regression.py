"""Ridge regression beside a network: on random features, over all examples so far, in constant memory.

An input is centred and scaled to length 1, u = (x - mean x) / |x - mean x|, and is seen through F features

    phi(x) = [cos(B^T u), sin(B^T u)] / sqrt(F / 2),    B normal with variance `width`,

whose products are in expectation the kernel exp(-width (1 - cos(x, x'))) (Rahimi & Recht, 2007). With a
hidden layer, tanh(A^T x + b) takes the place of x. With a linear part, sqrt(linear / d) (x, 1) of all d
inputs is put beside, so that linear x.x' / d is added to the kernel. What is answered is W^T phi(x), W being
the ridge regression of all targets so far on their features. It is kept up to date by recursive least
squares: with P = S S^T the inverse of sum phi phi^T + ridge I, the forgetting factor l and the target t,

    f = S^T phi,   a = l + f^T f,   k = S f / a
    W <- W + k (t - W^T phi)^T
    S <- (S - k f^T / (1 + sqrt(l / a))) / sqrt(l).

As P is kept as a root, rounding cannot make it indefinite (Potter's update; Bierman, Factorization Methods
for Discrete Sequential Estimation, 1977).

Of several ridges each has its S and W, and the answer is their mean, weighed by how probable they make the
targets so far (Bayesian model averaging; MacKay, Bayesian Interpolation, 1992). For N targets of V numbers
with Gaussian noise of an unknown variance, each answered before it was learned, the evidence of a ridge is

    log p = - (N V + c) / 2 log(c + sum |t - W^T phi|^2 / a) - V / 2 sum log a,

where c = 0.1 stands for what is known of the variance before, a tenth of a target at variance 1.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx, struct

from vsml.networks.episodic import key_of
from vsml.types import Array

_KNOWN_BEFORE = 0.1
"""c, of the evidence."""

_GAIN_SCALE = 5.0
"""log(1 + examples) is divided by it, so that gain and growth are learned at like rates."""


@struct.dataclass
class RegressionState:
    """What is known of the examples so far.

    Attributes:
        root: S of each ridge [R, F, F], F being all features, those of the linear part last.
        weights: W of each ridge [R, F, V].
        evidence: sums of |t - W^T phi|^2 / a and of log a for each ridge, [R, 2]; None where there is one.
        examples: how many have been learned, float32 [].
        hidden: A above b [d + 1, H], which never changes; None without a hidden layer.
        directions: B [d or H, features / 2], which never changes.
    """

    root: Array
    weights: Array
    evidence: Array | None
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
        features: random ones, an even number.
        hidden: tanh features H that take the place of inputs; None: inputs are taken as they are.
        width: how fast the kernel falls with the distance 1 - cos(x, x').
        ridges: penalties of squared weights, R of them.
        linear: weight of the linear part; None: there is none.
    """

    features: int
    hidden: int | None
    width: float
    ridges: tuple[float, ...]
    linear: float | None = None

    def total(self, size: int) -> int:
        """Return F, the number of all features of inputs of a size."""
        return self.features if self.linear is None else self.features + size + 1

    def init_state(
        self,
        key: Array,
        size: int,
        outputs: int,
    ) -> RegressionState:
        """Return what is known of nothing, for inputs of a size, with fresh random features."""
        hidden_key, key = jax.random.split(key)
        total = self.total(size)
        hidden = None
        if self.hidden is not None:
            scale = jnp.full((size + 1, 1), size**-0.5).at[-1].set(1.0)
            hidden = scale * jax.random.normal(hidden_key, (size + 1, self.hidden))
            size = self.hidden
        return RegressionState(
            root=self._first_root(total),
            weights=jnp.zeros((len(self.ridges), total, outputs)),
            evidence=jnp.zeros((len(self.ridges), 2)) if len(self.ridges) > 1 else None,
            examples=jnp.zeros(()),
            hidden=hidden,
            directions=math.sqrt(self.width) * jax.random.normal(key, (size, self.features // 2)),
        )

    def restarted(self, state: RegressionState) -> RegressionState:
        """Return what is known of nothing, with the same random features."""
        return dataclasses.replace(
            state,
            root=self._first_root(state.root.shape[-1]),
            weights=jnp.zeros_like(state.weights),
            evidence=jax.tree.map(jnp.zeros_like, state.evidence),
            examples=jnp.zeros_like(state.examples),
        )

    def see(
        self,
        state: RegressionState,
        x: Array,
    ) -> Array:
        """Return the features [K, F] of inputs [K, d]."""
        seen = x if state.hidden is None else jnp.tanh(x @ state.hidden[:-1] + state.hidden[-1:])
        angles = jax.vmap(key_of)(seen) @ state.directions
        random = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1) / math.sqrt(self.features // 2)
        if self.linear is None:
            return random
        with_one = jnp.pad(x, ((0, 0), (0, 1)), constant_values=1.0)
        return jnp.concatenate([random, math.sqrt(self.linear / x.shape[1]) * with_one], axis=-1)

    def answer(
        self,
        state: RegressionState,
        features: Array,
    ) -> Array:
        """Return the answers [K, V] to features [K, F]."""
        return features @ jnp.tensordot(self.shares(state), state.weights, 1)

    def shares(self, state: RegressionState) -> Array:
        """Return how probable each ridge is by the targets so far, [R]."""
        if state.evidence is None:
            return jnp.ones(1)
        outputs = state.weights.shape[-1]
        misfit, volume = state.evidence.T
        numbers = state.examples * outputs + _KNOWN_BEFORE
        return jax.nn.softmax(-(numbers * jnp.log(_KNOWN_BEFORE + misfit) + outputs * volume) / 2)

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
        counts = jnp.ones(len(features)) if taught is None else taught
        for b in range(len(features)):
            # An example that counts n times is n examples: its square enters n times.
            scale = jnp.sqrt(counts[b])
            feature, target = scale * features[b], scale * targets[b]
            observed = _observe_all(state.root, state.weights, feature, target)
            evidence = state.evidence
            if evidence is not None:
                evidence = evidence + jnp.stack([observed.misfit, jnp.log(observed.spread)], axis=1)
            state = dataclasses.replace(
                state,
                root=observed.root,
                weights=observed.weights,
                evidence=evidence,
                examples=state.examples + counts[b],
            )
        return state

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
        known = jnp.where(kept, state.weights, 0.0)
        weights = jnp.pad(known, ((0, 0), (0, 0), (0, outputs - known.shape[-1])))
        return dataclasses.replace(state, weights=weights)

    def _first_root(self, total: int) -> Array:
        scales = 1 / jnp.sqrt(jnp.array(self.ridges))
        return scales[:, None, None] * jnp.eye(total)


class Observation(NamedTuple):
    """What is known after an observation, and what it says of how well it was expected.

    Attributes:
        root: S [F, F].
        weights: W [F, V].
        misfit: |t - W^T phi|^2 / a, with W from before, [].
        spread: a, [].
    """

    root: Array
    weights: Array
    misfit: Array
    spread: Array


def _observe_all(
    roots: Array,
    weights: Array,
    feature: Array,
    target: Array,
) -> Observation:
    """Return what is known after an observation for each ridge, leading axis R."""
    if len(roots) == 1:
        # Its S stays where it is.
        return jax.vmap(observe, (0, 0, None, None))(roots, weights, feature, target)
    # One after the other: products of a batch take three times as long for an odd F.
    each = [observe(root, own, feature, target) for root, own in zip(roots, weights, strict=True)]
    return jax.tree.map(lambda *parts: jnp.stack(parts), *each)


def observe(
    root: Array,
    weights: Array,
    feature: Array,
    target: Array,
    forgetting: float = 1.0,
) -> Observation:
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
    error = target - feature @ weights
    weights = weights + jnp.outer(gain, error)
    shrink = 1 + jnp.sqrt(forgetting / a)
    root = (root - jnp.outer(gain / shrink, f)) / math.sqrt(forgetting)
    return Observation(root, weights, error @ error / a, a)
