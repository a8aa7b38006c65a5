"""UPGD-W: utility-based perturbed gradient descent (Elsayed and Mahmood, ICLR 2024)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from flax import struct
from pydantic import Field

from vsml.learners.base import only_if
from vsml.learners.trained import ReluMlpConfig, TrainedMlp
from vsml.networks.noise import binomial_noise
from vsml.settings import Float
from vsml.types import Array, Params

_DRAWS: dict[str, Callable[[Array, tuple[int, ...]], Array]] = {
    "normal": jax.random.normal,
    "binomial": binomial_noise,
}


class UpgdConfig(ReluMlpConfig):
    """An MLP that is trained by utility-based perturbed gradient descent."""

    utility_decay: Annotated[Float, Field(ge=0, lt=1)] = Field(
        default=0.9999, description="of the running mean of utilities, beta"
    )
    noise: Annotated[Float, Field(ge=0)] = Field(
        default=0.1, description="standard deviation of the perturbation of gradients, sigma"
    )
    draws: Literal["normal", "binomial"] = Field(
        default="normal",
        description="of the perturbation. binomial: nearly normal, of 33 values, many times as fast on a CPU",
    )
    weight_decay: Annotated[Float, Field(ge=0)] = Field(
        default=0.01, description="share of a weight, times the learning rate, that each step takes away"
    )


@struct.dataclass
class UpgdState:
    """The network that is being trained.

    Attributes:
        weights: a nested dict of arrays.
        utilities: running means, likewise.
        steps: how many there were, int32 [].
        key: of the next perturbations, uint32 [2].
    """

    weights: Params
    utilities: Params
    steps: Array
    key: Array


@dataclass(frozen=True)
class Upgd(TrainedMlp):
    """Move and perturb weights the less, the more they were of use: UPGD-W, first order, global scaling.

    With the gradient g of the loss, of all weights and biases w, and standard normal draws times sigma, xi
    (Algorithm 1 of the paper; the bias of the running mean is corrected in the numerator only, as there),

        u <- beta u - (1 - beta) g w,   eta = max over all u
        w <- (1 - rate decay) w - rate (g + xi) (1 - sigmoid(u / (1 - beta^t) / eta)).

    What the authors publish for use elsewhere has 2 rate in the second term: that is a rate twice as high,
    with half the weight decay. The inner batch shares the network, and its mean loss is descended.

    Attributes:
        input_shape: shape of one input.
        outputs: what it answers with; an int is a number of classes.
        config: settings; the defaults are the paper's for input-permuted MNIST, where units
            784-300-150-10 have 282,160 weights.
    """

    config: UpgdConfig = field(default_factory=UpgdConfig)

    @property
    def mlp_settings(self) -> UpgdConfig:
        """Its settings."""
        return self.config

    def init_state(
        self,
        params: Params,
        key: Array,
        batch_size: int = 1,
    ) -> UpgdState:
        """Draw a network; utilities are 0."""
        weights_key, noise_key = jax.random.split(key)
        weights = self.module.init(weights_key)
        return UpgdState(
            weights=weights,
            utilities=jax.tree.map(jnp.zeros_like, weights),
            steps=jnp.zeros((), jnp.int32),
            key=jax.random.key_data(noise_key),
        )

    def step(
        self,
        params: Params,
        state: UpgdState,
        x: Array,
        y: Array,
        taught: Array | None = None,
    ) -> tuple[UpgdState, Array]:
        """Answer the inputs x [B, *input_shape], then learn from their targets y; see `Learner.step`.

        Where nobody is taught nothing changes.
        """
        gradient, answers = self.gradient(state.weights, x, y, taught)
        new = self._descend(state, gradient)
        if taught is not None:
            new = only_if((taught > 0).any(), new, state)
        return new, answers

    def _descend(
        self,
        state: UpgdState,
        gradient: Params,
    ) -> UpgdState:
        """Return the state after a step along a gradient."""
        config = self.config
        beta, steps = config.utility_decay, state.steps + 1

        def utility(u: Array, g: Array, w: Array) -> Array:
            return beta * u - (1 - beta) * g * w

        utilities = jax.tree.map(utility, state.utilities, gradient, state.weights)
        largest = jnp.stack([u.max() for u in jax.tree.leaves(utilities)]).max()
        # 1 - beta^t, without the rounding that a beta near 1 would bring.
        unbiased = -jnp.expm1(steps * math.log(beta)) if beta > 0 else 1.0
        # Where no weight is of any use, such as without gradients, all of them are as much use as each other.
        scale = jnp.where(largest == 0, 0.0, 1 / (unbiased * jnp.where(largest == 0, 1.0, largest)))

        key, draw_key = jax.random.split(jax.random.wrap_key_data(state.key))
        leaves, structure = jax.tree.flatten(state.weights)
        keys = jax.tree.unflatten(structure, list(jax.random.split(draw_key, len(leaves))))

        def move(w: Array, g: Array, u: Array, key: Array) -> Array:
            noise = config.noise * _DRAWS[config.draws](key, w.shape)
            free = 1 - jax.nn.sigmoid(scale * u)
            return (1 - config.learning_rate * config.weight_decay) * w - config.learning_rate * (
                g + noise
            ) * free

        weights = jax.tree.map(move, state.weights, gradient, utilities, keys)
        return UpgdState(weights=weights, utilities=utilities, steps=steps, key=jax.random.key_data(key))
