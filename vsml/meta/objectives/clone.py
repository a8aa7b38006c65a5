"""Cloning back-propagation into a synapse by examples: an objective on random numbers alone.

Kirsch & Schmidhuber (2021), section 4: a synapse that holds a weight w and a bias b is shown an input x and
an error e, and is to answer `y = act(x) w + b`, move to `w - rate e act(x)` and `b - rate bias_rate e`, and
send `e w act'(x)` back. No data set is met. What a state holds is read by `vsml.networks.written.decode`.
"""

import dataclasses
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from flax import struct
from pydantic import Field

from vsml.learners import Learner, Vsml
from vsml.learners.vsml import VsmlConfig, written_problems
from vsml.meta.objectives.base import EpisodeShape, MemberResult
from vsml.meta.objectives.episode import WORKING_COPIES
from vsml.meta.trials import state_bytes
from vsml.networks.written import cells_of, decode, encode
from vsml.settings import (
    Float,
    Positive,
    Problem,
    Section,
)
from vsml.tasks import TaskDistribution
from vsml.types import Array, Params

QUANTITIES = ("output", "new weight", "new bias", "error sent back")

_IDLE_STD = 0.1
"""Deviation of the random cells that are no part of it, as fresh synapses of a hundred inputs have them."""


_Deviation = Annotated[Float, Field(gt=0)]


class Draws(Section):
    """What random numbers synapses are shown, all normal."""

    samples: Positive = Field(default=256, description="synapses of a trial (training.population_size)")
    steps: Positive = Field(default=4, description="examples that each learns in a row")
    x_std: _Deviation = Field(default=1.0, description="deviation of inputs")
    w_std: _Deviation = Field(default=3.0, description="deviation of first weights")
    b_std: _Deviation = Field(default=1.0, description="deviation of first biases")
    e_std: _Deviation = Field(default=0.3, description="deviation of errors")


@struct.dataclass
class Examples:
    """Synapses, and what they are shown one after the other.

    Attributes:
        cells: states c that hold their first weights and biases, [samples, N].
        inputs, errors: x and e, [steps, samples].
    """

    cells: Array
    inputs: Array
    errors: Array


@struct.dataclass
class Comparison:
    """The four `QUANTITIES`, as a synapse has them and as back-propagation does, [4, samples, steps].

    Attributes:
        prediction: by the synapse; weights and biases as what they are moved by.
        target: by back-propagation from what the synapse held before the step.
    """

    prediction: Array
    target: Array

    @property
    def got(self) -> Array:
        """The old name of `prediction`."""
        return self._old("got", "prediction")

    @property
    def wanted(self) -> Array:
        """The old name of `target`."""
        return self._old("wanted", "target")

    def _old(self, old: str, new: str) -> Array:
        message = f"Comparison.{old} is Comparison.{new} now; the old name goes with version 0.3"
        warnings.warn(message, DeprecationWarning, stacklevel=3)
        return getattr(self, new)


def activation(learner: Vsml, x: Array) -> Array:
    """Return act(x): tanh or relu themselves, whatever sum of sigmoids stands for them."""
    if learner.config.synapse.init_activation == "tanh":
        return jnp.tanh(x)
    return jax.nn.relu(x)


def draw_examples(learner: Vsml, draws: Draws, key: Array) -> Examples:
    """Draw synapses with random weights and biases, and the examples that they are shown."""
    w_key, b_key, idle_key, x_key, e_key = jax.random.split(key, 5)
    samples = draws.samples
    w = draws.w_std * jax.random.normal(w_key, (samples,))
    b = draws.b_std * jax.random.normal(b_key, (samples,))
    held = encode(
        w,
        b,
        learner.config.synapse.init_activation,
        learner.config.synapse.init_max_weight,
    )
    # Some of the cells that hold neither are random, as in a fresh synapse; the rest is 0.
    idle = learner.config.synapse.state_size - cells_of(learner.config.synapse.init_activation)
    random = int(learner.config.synapse.state_size * learner.config.synapse.random_fraction)
    noise = _IDLE_STD * jax.random.normal(idle_key, (samples, random))
    zeros = (0, idle - random)
    rest = jnp.pad(noise, ((0, 0), zeros))
    shape = (draws.steps, samples)
    return Examples(
        cells=jnp.concatenate([rest, held], axis=-1),
        inputs=draws.x_std * jax.random.normal(x_key, shape),
        errors=draws.e_std * jax.random.normal(e_key, shape),
    )


def compare(
    learner: Vsml,
    params: Params,
    draws: Draws,
    key: Array,
) -> Comparison:
    """Let synapses learn random examples, and compare each step with back-propagation."""
    examples = draw_examples(learner, draws, key)
    return compare_on(learner, params, examples)


def compare_on(learner: Vsml, params: Params, examples: Examples) -> Comparison:
    """Let synapses learn the given examples, and compare each step with back-propagation."""
    synapses = learner.synapses.with_params(params)
    forward = learner.network.synapse_of(synapses, 0, False)
    backward = learner.network.synapse_of(synapses, 0, True)
    cells = cells_of(learner.config.synapse.init_activation)

    def held(c: Array) -> tuple[Array, Array]:
        """Return the weight and the bias in a state."""
        return decode(
            c[-cells:],
            learner.config.synapse.init_activation,
            learner.config.synapse.init_max_weight,
        )

    def visit(synapse: Any, state: Any, x: Array, feedback: Array) -> Any:
        """Let a synapse tick as a layer does; feedback is an error and a label."""
        h, c = state
        empty = jnp.zeros(learner.config.synapse.message_size)
        message_forward = empty.at[0].set(x)
        message_backward = empty.at[:2].set(feedback)
        for _ in range(learner.config.micro_ticks):
            h, c = synapse(h, c, message_forward, message_backward)
        return h, c

    def learn(state: Any, example: Any) -> tuple[Any, Array]:
        x, e, label = example
        w, b = held(state[1])
        # What the synapse does: it answers, is told the error, and sends one back.
        state = visit(forward, state, x, jnp.zeros(2))
        message, _ = forward.messages(state[0])
        answer = message[learner.config.output_channel]
        feedback = jnp.stack([e, label])
        state = visit(backward, state, x, feedback)
        _, message = backward.messages(state[0])
        sent = message[0]
        moved_w, moved_b = held(state[1])
        prediction = [
            answer,
            moved_w - w,
            moved_b - b,
            sent,
        ]
        # What back-propagation does with the same weight, bias and example.
        act, slope = jax.value_and_grad(partial(activation, learner))(x)
        rate = learner.config.synapse.init_rate
        target = [
            act * w + b,
            -rate * e * act,
            -rate * learner.config.synapse.init_bias_rate * e,
            e * w * slope,
        ]
        both = [jnp.stack(prediction), jnp.stack(target)]
        return state, jnp.stack(both)

    def stream(c: Array, examples: Any) -> Array:
        start = jnp.zeros_like(c), c
        _, steps = jax.lax.scan(learn, start, examples)
        return steps

    # An error below 0 is that of the true class, whose label is 1.
    labels = jnp.zeros_like(examples.errors)
    if learner.config.feed_label:
        labels = jnp.where(examples.errors < 0, 1.0, 0.0)
    shown = examples.inputs, examples.errors, labels
    stream_all = jax.vmap(stream, (0, 1))
    both = stream_all(examples.cells, shown)  # [samples, steps, 2, 4]
    prediction, target = both.transpose(2, 3, 0, 1)
    # What the synapse holds is a part of the target; it is not to move towards its prediction.
    return Comparison(prediction, jax.lax.stop_gradient(target))


def explained(comparison: Comparison) -> Array:
    """Return for each quantity the share of its mean square that is predicted, at most 1, [4]."""
    residual = comparison.prediction - comparison.target
    missed = jnp.square(residual).mean((1, 2))
    size = jnp.square(comparison.target).mean((1, 2))
    return 1 - missed / size


def clone_loss(comparison: Comparison) -> Array:
    """Return the mean smooth L1 distance of the four quantities, each in units of its own size."""
    residual = comparison.prediction - comparison.target
    square = jnp.square(comparison.target)
    square = square.mean((1, 2), keepdims=True)
    distance = jnp.abs(residual) / jnp.sqrt(square)
    smooth = jnp.where(distance < 1, distance**2 / 2, distance - 0.5)
    return smooth.mean()


@dataclass(frozen=True)
class CloneLoss:
    """Judge synapses by their distance from back-propagation; those of a trial learn in a row.

    Attributes:
        config: what synapses are shown.
    """

    config: Draws = field(default_factory=Draws)

    @property
    def learner_shape(self) -> tuple[tuple[int, ...], int]:
        """One input and two classes: only the synapse of the network is used."""
        return (1,), 2

    def score_name(self, learner: Learner) -> str:
        """Return "accuracy": the share of back-propagation that is explained."""
        return "accuracy"

    def draw(
        self,
        learner: Learner,
        tasks: tuple[TaskDistribution, ...],
        option: Array,
        key: Array,
        trial: Array,
    ) -> Examples:
        """Draw synapses and examples; see `Objective.draw`."""
        assert isinstance(learner, Vsml)  # model_problems refuses others
        trial_key = jax.random.fold_in(key, trial)
        return draw_examples(learner, self.config, trial_key)

    def judge(
        self,
        learner: Learner,
        params: Params,
        drawn: Examples,
        differentiated: bool = False,
    ) -> MemberResult:
        """Return `clone_loss`, and the mean of `explained`; see `Objective.judge`."""
        assert isinstance(learner, Vsml)  # model_problems refuses others
        comparison = compare_on(learner, params, drawn)
        return MemberResult(
            loss=clone_loss(comparison),
            score=explained(comparison).mean(),
        )

    def examples(self, shape: EpisodeShape | None) -> int:
        """Return the examples of all synapses of a trial."""
        return self.config.samples * self.config.steps

    def trial_bytes(
        self,
        learner: Learner,
        shape: EpisodeShape | None,
        members: int,
        differentiated: bool,
    ) -> int:
        """Count a network of one synapse and its mirror image for each sample, and for each step kept."""
        steps = self.config.steps if differentiated else 1
        synapses = members * self.config.samples * steps
        return synapses * WORKING_COPIES * state_bytes(learner, 1)

    def model_problems(
        self,
        model_type: str,
        settings: Section,
        reason: str,
    ) -> Iterator[Problem]:
        """Yield why synapses of this model can hold no weights and biases."""
        if not isinstance(settings, VsmlConfig):
            yield Problem("type", model_type, f"vsml with {reason}")
            return
        for problem in written_problems(settings, reason):
            involved = tuple(f"vsml.{path}" for path in problem.involves)
            yield Problem(f"vsml.{problem.path}", problem.got, problem.expected, involved)
        if settings.layerwise:
            yield Problem("vsml.layerwise", True, f"false with {reason}")


def cloning(descent: Any, draws: Draws) -> Any:
    """Return a meta-optimizer with this objective: what the old class `Cloning` was."""
    return dataclasses.replace(descent, objective=CloneLoss(draws))
