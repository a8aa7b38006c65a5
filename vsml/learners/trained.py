"""A network that is trained within an episode: what learners by gradient descent have in common."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import jax
from flax import nnx
from pydantic import Field

from vsml.learners.base import ModuleLearner
from vsml.learners.memory import Change
from vsml.losses import bound_answers, known_targets, loss
from vsml.networks.mlp import Activation, Init, Mlp
from vsml.settings import Float, LogitBound, Positive, Section
from vsml.types import Array, Params

INIT_WORDS = (
    "how weights are drawn. normal: truncated, variance 1 / fan-in; uniform: below 1 / sqrt(fan-in), biases "
    "too, as in PyTorch; kaiming: uniform, variance 2 / fan-in, in the last layer 1 / fan-in"
)
"""What the setting `init` means."""

Rate = Annotated[Float, Field(gt=0)]


class ReluMlpConfig(Section):
    """An MLP that is trained example by example, as in papers on continual learning."""

    widths: tuple[Positive, ...] = Field(default=(300, 150), description="units of each hidden layer")
    activation: Activation = Field(default="relu", description="between layers")
    init: Init = Field(default="uniform", description=INIT_WORDS)
    learning_rate: Rate = Field(default=0.01, description="step size")
    logit_bound: LogitBound = 100.0


@dataclass(frozen=True)
class TrainedNetwork(ModuleLearner):
    """A learner whose inner state has a network's weights; nothing is meta-learned."""

    @property
    def logit_bound(self) -> float:
        """Bound of its logits."""
        raise NotImplementedError

    def make_module(self, rngs: nnx.Rngs) -> Mlp:
        """Make the network that an episode trains."""
        raise NotImplementedError

    def init_params(self, key: Array) -> Params:
        """Return no meta-parameters."""
        return {}

    def answer(
        self,
        weights: Params,
        x: Array,
    ) -> Array:
        """Return the bounded answers of the network to inputs [B, *input_shape]."""
        answers = self.module.with_params(weights)(x)
        return bound_answers(self.outputs, answers, self.logit_bound)

    def gradient(
        self,
        weights: Params,
        x: Array,
        y: Array,
        taught: Array | None,
    ) -> tuple[Params, Array]:
        """Return the gradient of the loss and the answers; what is not taught has the loss 0.

        The loss is the cross-entropy of the bounded logits, or half the squared error of values, averaged
        over the inner batch.
        """
        y = known_targets(y, taught)

        def mean_loss(weights: Params) -> tuple[Array, Array]:
            answers = self.answer(weights, x)
            losses = loss(self.outputs, answers, y)
            losses = losses if taught is None else taught * losses
            return losses.mean(), answers

        return jax.grad(mean_loss, has_aux=True)(weights)


class HasWeights(Protocol):
    """An inner state with the weights of a network, and more."""

    weights: Params


@dataclass(frozen=True)
class TrainedMlp(TrainedNetwork):
    """A trained network that is an MLP, as in papers on continual learning; settings are `ReluMlpConfig`."""

    @property
    def mlp_settings(self) -> ReluMlpConfig:
        """Its settings."""
        raise NotImplementedError

    def make_module(self, rngs: nnx.Rngs) -> Mlp:
        """Make the network that an episode trains."""
        config = self.mlp_settings
        return Mlp(self.input_shape, config.widths, self.outputs.size, rngs, config.activation, config.init)

    @property
    def logit_bound(self) -> float:
        """Bound of its logits."""
        return self.mlp_settings.logit_bound

    def predict(
        self,
        params: Params,
        state: HasWeights,
        x: Array,
    ) -> Array:
        """Return what `step` would answer to x [K, *input_shape]; see `Learner.predict`."""
        return self.answer(state.weights, x)

    def map_memory(
        self,
        state: Any,
        change: Change,
    ) -> Any:
        """Return the state with other weights; the rest stays. Units are the inputs of each layer."""
        return dataclasses.replace(state, weights=change_kernels(state.weights, change))


def change_kernels(
    weights: Params,
    change: Change,
) -> Params:
    """Return weights with other kernels, of which units are the inputs of each layer; biases stay."""

    def changed(weights: Array) -> Array:
        # A kernel is [..., inputs, outputs]. Biases are no unit's own.
        return change(weights, -2) if weights.ndim > 1 else weights

    return jax.tree.map(changed, weights)
