"""Continual back-propagation: hidden units of little use are drawn anew (Dohare et al., Nature 2024)."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Self

import jax
import jax.numpy as jnp
from flax import nnx, struct
from pydantic import Field, model_validator

from vsml.learners.base import only_if
from vsml.learners.memory import Change
from vsml.learners.trained import INIT_WORDS, ReluMlpConfig, TrainedNetwork, change_kernels
from vsml.networks.mlp import Init, Mlp, bounds
from vsml.networks.modules import kernel_init
from vsml.settings import Float, Int, Problem, refuse
from vsml.types import Array, Params


class ContinualBackpropConfig(ReluMlpConfig):
    """An MLP that is trained by gradient descent, and whose least useful units are drawn anew."""

    init: Init = Field(default="kaiming", description=INIT_WORDS)
    replacement_rate: Annotated[Float, Field(ge=0)] = Field(
        default=1e-5, description="share of the mature units of each layer that is replaced per step"
    )
    maturity: Annotated[Int, Field(ge=0)] = Field(
        default=100, description="steps in which a new unit is not replaced"
    )
    utility_decay: Annotated[Float, Field(ge=0, lt=1)] = Field(
        default=0.99, description="of the running mean of utilities, eta"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse(self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        """Yield a rate of more than one unit per layer and step, and a network without hidden units."""
        if not self.widths:
            yield Problem("widths", self.widths, "one hidden layer or more, whose units may be replaced")
        elif self.replacement_rate * max(self.widths) > 1:
            expected = "at most 1 / the largest of widths: one unit of each layer per step"
            yield Problem("replacement_rate", self.replacement_rate, expected, ("widths",))


@struct.dataclass
class ContinualBackpropState:
    """The network that is being trained.

    Attributes:
        weights: a nested dict of arrays.
        utilities: running means for each hidden layer, [units] each.
        ages: steps since each unit was drawn, int32, likewise.
        due: units of each hidden layer that are to be replaced, float32 [layers], below 1.
        key: of the next draws, uint32 [2].
    """

    weights: Params
    utilities: list[Array]
    ages: list[Array]
    due: Array
    key: Array


@dataclass(frozen=True)
class ContinualBackprop(TrainedNetwork):
    """Descend the gradient, then replace hidden units by generate-and-test (Algorithm 1 of the paper).

    Of each hidden layer with activations h and outgoing weights w, after each step of gradient descent,

        u_i <- eta u_i + (1 - eta) |h_i| sum_k |w_ik|        (contribution utility)
        due <- due + replacement_rate * units older than the maturity.

    When one is due, the mature unit of least utility gets new incoming weights and a bias of 0, outgoing
    weights of 0, utility 0 and age 0. So it changes no answer until it has learned.
    The inner batch shares the network, and |h| is averaged over it.

    Attributes:
        input_shape: shape of one input.
        outputs: what it answers with; an int is a number of classes.
        config: settings.
    """

    config: ContinualBackpropConfig = field(default_factory=ContinualBackpropConfig)

    def make_module(self, rngs: nnx.Rngs) -> Mlp:
        """Make the network that an episode trains."""
        config = self.config
        return Mlp(self.input_shape, config.widths, self.outputs.size, rngs, config.activation, config.init)

    @property
    def logit_bound(self) -> float:
        """Bound of its logits."""
        return self.config.logit_bound

    def init_state(
        self,
        params: Params,
        key: Array,
        batch_size: int = 1,
    ) -> ContinualBackpropState:
        """Draw a network; utilities and ages are 0."""
        weights_key, draw_key = jax.random.split(key)
        widths = self.config.widths
        return ContinualBackpropState(
            weights=self.module.init(weights_key),
            utilities=[jnp.zeros(units) for units in widths],
            ages=[jnp.zeros(units, jnp.int32) for units in widths],
            due=jnp.zeros(len(widths)),
            key=jax.random.key_data(draw_key),
        )

    def step(
        self,
        params: Params,
        state: ContinualBackpropState,
        x: Array,
        y: Array,
        taught: Array | None = None,
    ) -> tuple[ContinualBackpropState, Array]:
        """Answer the inputs x [B, *input_shape], then learn from their targets y; see `Learner.step`.

        Where nobody is taught nothing changes.
        """
        gradient, answers = self.gradient(state.weights, x, y, taught)
        # XLA computes the activations once: here and within the gradient they are the same expression.
        activations, _ = self.module.with_params(state.weights).trace(x)
        rate = self.config.learning_rate
        weights = jax.tree.map(lambda w, g: w - rate * g, state.weights, gradient)
        new = self._replace_units(dataclasses.replace(state, weights=weights), activations, taught)
        if taught is not None:
            new = only_if((taught > 0).any(), new, state)
        return new, answers

    def predict(
        self,
        params: Params,
        state: ContinualBackpropState,
        x: Array,
    ) -> Array:
        """Return what `step` would answer to x [K, *input_shape]; see `Learner.predict`."""
        return self.answer(state.weights, x)

    def map_memory(
        self,
        state: ContinualBackpropState,
        change: Change,
    ) -> ContinualBackpropState:
        """Return the state with other weights; the rest stays. Units are the inputs of each layer."""
        return dataclasses.replace(state, weights=change_kernels(state.weights, change))

    def _replace_units(
        self,
        state: ContinualBackpropState,
        activations: list[Array],
        taught: Array | None,
    ) -> ContinualBackpropState:
        """Return the state after generate-and-test, given the activations of hidden layers [B, units]."""
        config = self.config
        dense = dict(state.weights["dense"])
        key, draw_key = jax.random.split(jax.random.wrap_key_data(state.key))
        utilities, ages, due = [], [], []
        for number, h in enumerate(activations):
            size = _mean_size(h, taught)
            contribution = size * jnp.abs(state.weights["dense"][number + 1]["kernel"]).sum(-1)
            eta = config.utility_decay
            utility = eta * state.utilities[number] + (1 - eta) * contribution
            age = state.ages[number] + 1

            is_mature = age > config.maturity
            waiting = state.due[number] + config.replacement_rate * is_mature.sum()
            is_due = (waiting >= 1) & is_mature.any()
            unit = jnp.where(is_mature, utility, jnp.inf).argmin()
            replaced = is_due & (jnp.arange(len(age)) == unit)

            fresh = self._fresh(dense[number]["kernel"].shape[0], jax.random.fold_in(draw_key, number))
            incoming, outgoing = dense[number], dense[number + 1]
            dense[number] = {
                "kernel": jnp.where(replaced[None], fresh[:, None], incoming["kernel"]),
                "bias": jnp.where(replaced, 0.0, incoming["bias"]),
            }
            kernel = jnp.where(replaced[:, None], 0.0, outgoing["kernel"])
            dense[number + 1] = {**outgoing, "kernel": kernel}
            utilities.append(jnp.where(replaced, 0.0, utility))
            ages.append(jnp.where(replaced, 0, age))
            due.append(waiting - is_due)
        return ContinualBackpropState(
            weights={**state.weights, "dense": dense},
            utilities=utilities,
            ages=ages,
            due=jnp.stack(due),
            key=jax.random.key_data(key),
        )

    def _fresh(
        self,
        fan_in: int,
        key: Array,
    ) -> Array:
        """Draw incoming weights [fan-in] of a new unit, as at the start."""
        if self.config.init == "normal":
            return kernel_init(fan_in)(key, (fan_in,))
        bound, _ = bounds(self.config.init, fan_in, is_last=False)
        return jax.random.uniform(key, (fan_in,), minval=-bound, maxval=bound)


def _mean_size(
    activations: Array,
    taught: Array | None,
) -> Array:
    """Return the mean of |h| [units] over the elements of the inner batch that are taught."""
    size_BxH = jnp.abs(activations)
    if taught is None:
        return size_BxH.mean(0)
    told_B = (taught > 0).astype(size_BxH.dtype)
    return told_B @ size_BxH / jnp.maximum(told_B.sum(), 1)
