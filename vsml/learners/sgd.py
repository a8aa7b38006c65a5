"""Gradient descent: an ordinary network trained online within the episode, as a learner to compare with."""

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Self

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct
from pydantic import Field, model_validator

from vsml.learners.base import only_if
from vsml.learners.memory import Change
from vsml.learners.trained import INIT_WORDS, TrainedNetwork, change_kernels
from vsml.moved import old_names
from vsml.networks.mlp import Activation, Init, Mlp
from vsml.settings import Bool, Float, LogitBound, Options, Positive, Problem, Section, Text, refuse
from vsml.types import Array, Params

__getattr__ = old_names(__name__)


class SgdConfig(Section):
    """An MLP that is trained by gradient descent, example by example."""

    num_layers: Positive = Field(default=1, description="linear layers, the activation between them")
    hidden_size: Positive = Field(default=160, description="units of each layer but the last")
    widths: tuple[Positive, ...] | None = Field(
        default=None, description="units of each layer but the last, in place of the two above; null: by them"
    )
    activation: Activation = Field(
        default="tanh", description="between the layers; leaky_relu has slope 0.1 below 0"
    )
    activate_last: Bool = Field(default=False, description="the activation follows the last layer, too")
    bias: Bool = Field(default=True, description="linear layers have biases")
    init: Init = Field(default="normal", description=INIT_WORDS)
    optimizer: Text = Field(default="sgd", description="optimizer of optax by name, such as sgd or adam")
    learning_rate: Annotated[Float, Field(gt=0)] = Field(default=0.01, description="its learning rate")
    optimizer_options: Options = Field(
        default=(), description="its other options by their optax names, such as {momentum: 0.9}"
    )
    logit_bound: LogitBound = 100.0
    conv: Bool = Field(default=False, description="three convolutions of 8 channels first, trained too")

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse(_sgd_problems(self))
        return self

    @property
    def hidden(self) -> tuple[int, ...]:
        """Return the units of each layer but the last."""
        return (self.hidden_size,) * (self.num_layers - 1) if self.widths is None else self.widths

    def make_optimizer(self) -> optax.GradientTransformationExtraArgs:
        """Return the optax optimizer."""
        optimizer = OPTIMIZERS[self.optimizer](self.learning_rate, **dict(self.optimizer_options))
        return optax.with_extra_args_support(optimizer)


def _sgd_problems(sgd: SgdConfig) -> Iterator[Problem]:
    options = dict(sgd.optimizer_options)
    if sgd.optimizer not in OPTIMIZERS:
        yield Problem("optimizer", sgd.optimizer, f"one of {', '.join(OPTIMIZERS)}")
        return
    if others := {k: v for k, v in options.items() if not isinstance(v, bool | int | float | None)}:
        yield Problem("optimizer_options", others, "numbers, true, false or null")
        return
    weights = jax.ShapeDtypeStruct((2, 2), jnp.float32)
    try:  # the options are optax's, so is the judgement
        optimizer = sgd.make_optimizer()
        state = jax.eval_shape(optimizer.init, weights)
        jax.eval_shape(optimizer.update, weights, state, weights)
    except (TypeError, ValueError) as error:
        yield Problem("optimizer_options", options, f"what optax takes: {error}", ("optimizer",))


def _optimizers() -> dict[str, Callable[..., optax.GradientTransformation]]:
    """Return the optimizers of optax by name: what takes a learning rate first and needs gradients alone."""
    return {
        name: function
        for name, function in inspect.getmembers(optax, inspect.isfunction)
        if next(iter(inspect.signature(function).parameters), "") == "learning_rate"
        and not name.startswith(("_", "scale_by_"))
        and name != "lbfgs"  # it needs the loss as a function too, to search along a line
    }


OPTIMIZERS = _optimizers()
"""What `optimizer` may name."""


@struct.dataclass
class SgdState:
    """The network that is being trained.

    Attributes:
        weights: of the network, a nested dict of arrays.
        optimizer: state of the optimizer.
    """

    weights: Params
    optimizer: optax.OptState


@dataclass(frozen=True)
class Sgd(TrainedNetwork):
    """Train a network within the episode: one step of an optax optimizer for each (batch of) examples.

    The loss is the cross-entropy of the bounded logits, or half the squared error of values, averaged over
    the inner batch. Nothing is
    meta-learned: there are no meta-parameters, and the weights are drawn anew for each episode.

    Attributes:
        input_shape: shape of one input; (H, W, Ch) with `conv`.
        outputs: what it answers with; an int is a number of classes.
        config: settings.
    """

    config: SgdConfig = field(default_factory=SgdConfig)

    def make_module(self, rngs: nnx.Rngs) -> Mlp:
        """Make the network that an episode trains."""
        config = self.config
        return Mlp(
            self.input_shape,
            config.hidden,
            self.outputs.size,
            rngs,
            config.activation,
            config.init,
            config.conv,
            config.bias,
            config.activate_last,
        )

    @property
    def logit_bound(self) -> float:
        """Bound of its logits."""
        return self.config.logit_bound

    def init_state(
        self,
        params: Params,
        key: Array,
        batch_size: int = 1,
    ) -> SgdState:
        """Draw a network: truncated-normal kernels with variance 1 / fan-in, biases 0."""
        return self.with_weights(self.module.init(key))

    def with_weights(self, weights: Params) -> SgdState:
        """Return the state of an episode that starts with the given network."""
        return SgdState(weights=weights, optimizer=self.config.make_optimizer().init(weights))

    def step(
        self,
        params: Params,
        state: SgdState,
        x: Array,
        y: Array,
        taught: Array | None = None,
    ) -> tuple[SgdState, Array]:
        """Answer the inputs x [B, *input_shape], then descend the loss on y; see `Learner.step`.

        Where nobody is taught there is no step, and moments stay as they are, too.
        """
        gradient, answers = self.gradient(state.weights, x, y, taught)
        updates, optimizer = self.config.make_optimizer().update(gradient, state.optimizer, state.weights)
        weights = optax.apply_updates(state.weights, updates)
        new = SgdState(weights=weights, optimizer=optimizer)
        if taught is not None:
            new = only_if((taught > 0).any(), new, state)
        return new, answers

    def predict(
        self,
        params: Params,
        state: SgdState,
        x: Array,
    ) -> Array:
        """Return what `step` would answer to x [K, *input_shape]; see `Learner.predict`."""
        return self.answer(state.weights, x)

    def map_memory(
        self,
        state: SgdState,
        change: Change,
    ) -> SgdState:
        """Return the state with other weights; moments stay. Units are the inputs of each layer."""
        return dataclasses.replace(state, weights=change_kernels(state.weights, change))
