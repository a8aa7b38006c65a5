"""Continual back-propagation: hidden units of little use are drawn anew (Dohare et al., Nature 2024)."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

import jax
import jax.numpy as jnp
from flax import struct
from pydantic import Field, model_validator

from vsml.learners.base import only_if
from vsml.learners.trained import INIT_WORDS, ReluMlpConfig, TrainedMlp
from vsml.networks.mlp import Init, bounds
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

    utility: Literal["contribution", "adaptable"] = Field(
        default="contribution",
        description="of a unit. contribution: of Algorithm 1; adaptable: of the experiments behind the paper",
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
        means: of the activations of each hidden layer, likewise; none for `utility: contribution`.
        ages: steps since each unit was drawn, int32, likewise.
        due: units of each hidden layer that are to be replaced, float32 [layers], below 1.
        key: of the next draws, uint32 [2].
    """

    weights: Params
    utilities: list[Array]
    means: list[Array]
    ages: list[Array]
    due: Array
    key: Array


@dataclass(frozen=True)
class ContinualBackprop(TrainedMlp):
    """Descend the gradient, then replace hidden units by generate-and-test (Algorithm 1 of the paper).

    Of each hidden layer with activations h and outgoing weights w, after each step of gradient descent,

        u_i <- eta u_i + (1 - eta) |h_i| sum_k |w_ik|        (contribution utility)
        due <- due + replacement_rate * units older than the maturity.

    When one is due, the mature unit of least utility gets new incoming weights and a bias of 0, outgoing
    weights of 0, utility 0 and age 0. So it changes no answer until it has learned.

    The configurations of the experiments that the authors publish (`lop/permuted_mnist/cfg/cbp.json` of
    shibhansh/loss-of-plasticity) have another utility, `adaptable`. With v the incoming weights and m the
    running mean of h with the same decay, divided by 1 - eta^age as u is before units are compared,

        u_i <- eta u_i + (1 - eta) |h_i - m_i| sum_k |w_ik| / sum_j |v_ji|,

    and what a replaced unit gave on average, m_i w_ik, goes to the biases of the next layer.
    The inner batch shares the network, and activations are averaged over it.

    Attributes:
        input_shape: shape of one input.
        outputs: what it answers with; an int is a number of classes.
        config: settings.
    """

    config: ContinualBackpropConfig = field(default_factory=ContinualBackpropConfig)

    @property
    def mlp_settings(self) -> ContinualBackpropConfig:
        """Its settings."""
        return self.config

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
            means=[jnp.zeros(units) for units in widths] if self._is_adaptable else [],
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

    @property
    def _is_adaptable(self) -> bool:
        """Whether units are judged as in the experiments behind the paper."""
        return self.config.utility == "adaptable"

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
        utilities, means, ages, due = [], [], [], []
        for number, h in enumerate(activations):
            age = state.ages[number] + 1
            told = 1 - config.utility_decay**age  # of a running mean: the share that is not its start at 0
            current, outgoing = state.weights["dense"][number], state.weights["dense"][number + 1]
            if self._is_adaptable:
                mean = self._running(state.means[number], _mean_over(h, taught))
                usual = mean / told
                worth = _mean_over(jnp.abs(h - usual[None]), taught) / jnp.abs(current["kernel"]).sum(0)
            else:
                usual, worth = None, _mean_over(jnp.abs(h), taught)
            utility = self._running(state.utilities[number], worth * jnp.abs(outgoing["kernel"]).sum(-1))
            compared = utility / told if self._is_adaptable else utility

            is_mature = age > config.maturity
            waiting = state.due[number] + config.replacement_rate * is_mature.sum()
            is_due = (waiting >= 1) & is_mature.any()
            unit = jnp.where(is_mature, compared, jnp.inf).argmin()
            replaced = is_due & (jnp.arange(len(age)) == unit)

            fresh = self._fresh(dense[number]["kernel"].shape[0], jax.random.fold_in(draw_key, number))
            dense[number], dense[number + 1] = _with_fresh_units(
                dense[number], dense[number + 1], replaced, fresh, usual
            )
            utilities.append(jnp.where(replaced, 0.0, utility))
            if self._is_adaptable:
                means.append(jnp.where(replaced, 0.0, mean))
            ages.append(jnp.where(replaced, 0, age))
            due.append(waiting - is_due)
        return ContinualBackpropState(
            weights={**state.weights, "dense": dense},
            utilities=utilities,
            means=means,
            ages=ages,
            due=jnp.stack(due),
            key=jax.random.key_data(key),
        )

    def _running(self, mean: Array, new: Array) -> Array:
        """Return a running mean with one value more."""
        eta = self.config.utility_decay
        return eta * mean + (1 - eta) * new

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


def _with_fresh_units(
    incoming: Params,
    outgoing: Params,
    replaced: Array,
    fresh: Array,
    usual: Array | None,
) -> tuple[Params, Params]:
    """Return a layer and the next one after units of the first were replaced.

    Args:
        incoming: kernel [fan-in, units] and bias [units].
        outgoing: kernel [units, fan-out] and bias [fan-out].
        replaced: which units, bool [units].
        fresh: new incoming weights of each, [fan-in].
        usual: mean activations [units], whose share of the next sums the biases take over; None: none.
    """
    kernel = outgoing["kernel"]
    gone = jnp.where(replaced[:, None], kernel, 0.0)
    bias = outgoing["bias"] if usual is None else outgoing["bias"] + usual @ gone
    changed = {
        "kernel": jnp.where(replaced[None], fresh[:, None], incoming["kernel"]),
        "bias": jnp.where(replaced, 0.0, incoming["bias"]),
    }
    return changed, {**outgoing, "kernel": kernel - gone, "bias": bias}


def _mean_over(
    values_BxH: Array,
    taught: Array | None,
) -> Array:
    """Return the mean [units] over the elements of the inner batch that are taught."""
    if taught is None:
        return values_BxH.mean(0)
    told_B = (taught > 0).astype(values_BxH.dtype)
    return told_B @ values_BxH / jnp.maximum(told_B.sum(), 1)
