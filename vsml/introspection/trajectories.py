"""Trajectories of a network of clones and of the same network under back-propagation.

Both start from the same weights and learn the same stream.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from vsml.config.sections import POINTS
from vsml.learners import Vsml, VsmlState
from vsml.losses import bound_logits, cross_entropy
from vsml.meta.objectives.clone import activation
from vsml.meta.trials import sample_trial
from vsml.reporting import plots
from vsml.runs.directory import RunDirectory
from vsml.setup import Setup
from vsml.system.comm import SerialCommunicator
from vsml.system.files import write_arrays, write_json
from vsml.system.terminal import say
from vsml.tasks import TaskDistribution
from vsml.types import Array, Episode, Params

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Weights = list[tuple[Array, Array]]
"""Of each layer the weights w and biases b, [I, O]: a unit sends the mean of `act(x) w + b`."""

_ASKED = 16  # examples for which the update from the same weights is compared
_TRACED = 1000  # weights of the first layer that are recorded at each point
_TESTED = 10_000  # test images, at most
_AT_ONCE = 100  # test images that are answered at once
_TINY = 1e-30  # keeps quotients finite where nothing has moved


@dataclass(frozen=True)
class Descent:
    """Back-propagation by `jax.grad` in the network that the synapses of a learner stand for.

    Messages are means. So a rate of the synapses is one of `rate fan_in` for the gradient in the last
    layer's weights, and each layer before it has `fan_in / fan_out` times that of the one behind it, with
    the fan-in of its own and the fan-out of the other.

    Attributes:
        learner: the network of synapses, all of whose layers are dense.
    """

    learner: Vsml

    def answer(self, weights: Weights, x: Array) -> Array:
        """Return the logits [C] of one input [I]."""
        for w, b in weights:
            act = activation(self.learner, x)
            x = (act[:, None] * w + b).mean(0)
        return bound_logits(x, self.learner.config.logit_bound)

    def step(
        self,
        weights: Weights,
        x: Array,
        y: Array,
    ) -> tuple[Weights, Array]:
        """Answer one input [I], then learn from its label: the new weights, and the logits."""
        learner = self.learner

        def loss(weights: Weights) -> tuple[Array, Array]:
            logits = self.answer(weights, x)
            return cross_entropy(logits, y), logits

        gradient, logits = jax.grad(loss, has_aux=True)(weights)
        scale = learner.config.error_scale * learner.config.synapse.init_rate
        layers = list(
            zip(
                learner.network.layers,
                weights,
                gradient,
                strict=True,
            )
        )
        moved = []
        # From the last layer to the first, as the scale of each comes from those behind it.
        for layer, (w, b), (dw, db) in reversed(layers):
            scale *= layer.fan_in
            new_w = w - scale * dw
            new_b = b - scale * learner.config.synapse.init_bias_rate * db
            moved.append((new_w, new_b))
            scale /= layer.fan_out
        return moved[::-1], logits


@dataclass(frozen=True, eq=False)
class Trajectories:
    """What became of a network of clones and of the same network under back-propagation, at P points.

    Attributes:
        dataset: its name.
        examples: seen before each point, [P].
        loss, accuracy: of clone and back-propagation, mean since the point before, [2, P].
        update_cosine: between what both add to the weights and biases of a layer for one example, from the
            clone's weights, mean over some that it never learns from, [P, L].
        update_ratio: the clone's length of it, in those of back-propagation, [P, L].
        cosine: between what both have added since the start, [P, L].
        drift: distance of their weights, in what back-propagation has added since the start, [P, L].
        trace: some weights of the first layer, of both, [P, 2, W].
        test_accuracy: of both at the end, [2].
    """

    dataset: str
    examples: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray
    update_cosine: np.ndarray
    update_ratio: np.ndarray
    cosine: np.ndarray
    drift: np.ndarray
    trace: np.ndarray
    test_accuracy: np.ndarray

    def summary(self) -> dict[str, Any]:
        """Return what it comes to, in numbers; what has layers as a list, the first layer first."""
        clone_accuracy, other_accuracy = self.test_accuracy
        clone_loss, other_loss = self.loss
        third_quarter = slice(POINTS // 2, POINTS - POINTS // 4)
        last_quarter = slice(POINTS - POINTS // 4, None)
        rise = clone_loss[last_quarter].mean() - clone_loss[third_quarter].mean()
        return {
            "dataset": self.dataset,
            "examples": int(self.examples[-1]),
            "test_accuracy": clone_accuracy,
            "test_accuracy_of_back_propagation": other_accuracy,
            "last_loss": clone_loss[-1],
            "last_loss_of_back_propagation": other_loss[-1],
            "late_rise_of_loss": rise,
            "update_cosine": self.update_cosine.mean(0),
            "update_ratio_first": self.update_ratio[0],
            "update_ratio_last": self.update_ratio[-1],
            "cosine_last": self.cosine[-1],
            "drift_last": self.drift[-1],
        }


@partial(jax.jit, static_argnames=("learner",))
def _learn(
    learner: Vsml,
    params: Params,
    state: VsmlState,
    weights: Weights,
    episode: Episode,
) -> tuple[VsmlState, Weights, Array, Array]:
    """Let both learn a part of the stream; return also loss and right answers, means over it, [2]."""
    descent = Descent(learner)

    def step(
        both: tuple[VsmlState, Weights],
        example: tuple[Array, Array],
    ) -> tuple[Any, Array]:
        state, weights = both
        x, y = example
        features = learner.features(state, x)[0]
        moved, target = descent.step(weights, features, y[0])
        state, prediction = learner.step(params, state, x, y)
        logits = jnp.stack([prediction[0], target])
        losses = jax.vmap(cross_entropy, (0, None))(logits, y[0])
        right = logits.argmax(-1) == y
        return (state, moved), jnp.stack([losses, right])

    (state, weights), seen = jax.lax.scan(
        step,
        (state, weights),
        (episode.x, episode.y),
    )
    loss, right = seen.mean(0)
    return state, weights, loss, right


def _flat(weights: Weights) -> list[Array]:
    """Return the weights and biases of each layer in one vector."""
    vectors = []
    for w, b in weights:
        both = [w.ravel(), b.ravel()]
        vectors.append(jnp.concatenate(both))
    return vectors


def _held(learner: Vsml, state: VsmlState) -> Weights:
    """Return the weights that the synapses hold for the one member of a batch."""
    return [(w[0], b[0]) for w, b in learner.weights(state)]


def _cosine(one: Array, other: Array) -> Array:
    lengths = jnp.linalg.norm(one) * jnp.linalg.norm(other)
    return jnp.vdot(one, other) / (lengths + _TINY)


def _relative_length(vector: Array, unit: Array) -> Array:
    """Return the length of a vector in lengths of another."""
    return jnp.linalg.norm(vector) / (jnp.linalg.norm(unit) + _TINY)


@partial(jax.jit, static_argnames=("learner",))
def _compare(
    learner: Vsml,
    params: Params,
    state: VsmlState,
    weights: Weights,
    first: Weights,
    episode: Episode,
) -> dict[str, Array]:
    """Compare updates for examples that neither learns from, and what both have learned so far."""
    held = _held(learner, state)
    descent = Descent(learner)

    def ask(example: tuple[Array, Array]) -> tuple[Array, Array]:
        x, y = example
        after, _ = learner.step(params, state, x, y)
        features = learner.features(state, x)[0]
        moved, _ = descent.step(held, features, y[0])
        layers = zip(
            _flat(held),
            _flat(_held(learner, after)),
            _flat(moved),
            strict=True,
        )
        cosines, ratios = [], []
        for old, by_clone, by_descent in layers:
            prediction = by_clone - old
            target = by_descent - old
            cosines.append(_cosine(prediction, target))
            ratios.append(_relative_length(prediction, target))
        return jnp.stack(cosines), jnp.stack(ratios)

    examples = (episode.x, episode.y)
    update_cosine, update_ratio = jax.lax.map(ask, examples)
    layers = zip(
        _flat(held),
        _flat(weights),
        _flat(first),
        strict=True,
    )
    cosines, drifts = [], []
    for by_clone, by_descent, start in layers:
        prediction = by_clone - start
        target = by_descent - start
        residual = prediction - target
        cosines.append(_cosine(prediction, target))
        drifts.append(_relative_length(residual, target))
    return {
        "update_cosine": update_cosine.mean(0),
        "update_ratio": update_ratio.mean(0),
        "cosine": jnp.stack(cosines),
        "drift": jnp.stack(drifts),
        "trace": jnp.stack([_traced(held), _traced(weights)]),
    }


def _traced(weights: Weights) -> Array:
    """Return some weights of the first layer, the same ones each time."""
    first_w = weights[0][0]
    order = jax.random.permutation(jax.random.key(0), first_w.size)
    return first_w.ravel()[order[:_TRACED]]


@partial(jax.jit, static_argnames=("learner",))
def _count_right(
    learner: Vsml,
    params: Params,
    state: VsmlState,
    weights: Weights,
    x: Array,
    y: Array,
) -> Array:
    """Return how many test images clone and back-propagation answer rightly, [2]."""
    features = learner.features(state, x)
    answer = partial(Descent(learner).answer, weights)
    target = jax.vmap(answer)(features)
    prediction = learner.predict(params, state, x)
    logits = jnp.stack([prediction, target])
    right = logits.argmax(-1) == y
    return right.sum(-1)


def compare_trajectories(
    learner: Vsml,
    params: Params,
    dataset: str,
    stream: Episode,
    tested: Episode,
    key: Array,
) -> Trajectories:
    """Let a network of clones and back-propagation learn the same stream, and compare them.

    Args:
        learner: a network of dense layers.
        params: its meta-parameters.
        dataset: what the stream is called.
        stream: an episode with an inner batch of one; what does not fill `POINTS` parts is left out.
        tested: what both are tested on at the end, likewise.
        key: of the first state.
    """
    state = learner.init_state(params, key)
    first = weights = _held(learner, state)
    length = len(stream.y) // POINTS
    asked = _part(tested, 0, _ASKED)
    seen: list[dict[str, Array]] = []
    for point in range(POINTS):
        part = _part(stream, point * length, length)
        state, weights, loss, right = _learn(
            learner,
            params,
            state,
            weights,
            part,
        )
        found = _compare(
            learner,
            params,
            state,
            weights,
            first,
            asked,
        )
        found |= {"loss": loss, "accuracy": right}
        seen.append(jax.device_get(found))
    over_points = {}
    for name in seen[0]:
        values = np.stack([each[name] for each in seen])
        is_of_both = name in ("loss", "accuracy")
        over_points[name] = values.T if is_of_both else values
    hits = sum(
        _count_right(
            learner,
            params,
            state,
            weights,
            x,
            y,
        )
        for x, y in _batches(tested)
    )
    return Trajectories(
        dataset=dataset,
        examples=length * np.arange(1, POINTS + 1),
        test_accuracy=np.asarray(hits) / len(tested.y),
        **over_points,
    )


def _part(episode: Episode, start: int, length: int) -> Episode:
    """Return some examples of an episode."""
    return jax.tree.map(
        lambda leaf: leaf[start : start + length],
        episode,
    )


def _batches(episode: Episode) -> Iterator[tuple[Array, Array]]:
    """Yield inputs and labels that are answered at once."""
    for start in range(0, len(episode.y), _AT_ONCE):
        part = _part(episode, start, _AT_ONCE)
        yield part.x[:, 0], part.y[:, 0]


@jax.jit
def _sample(
    task: TaskDistribution,
    key: Array,
) -> tuple[Episode, Array]:
    return sample_trial((task,), 0, key, jnp.int32(0))


def _one_pass(
    task: TaskDistribution,
    longest: int,
) -> TaskDistribution:
    """Return the task with episodes of so many examples, or of fewer, in which no image comes twice."""
    there = task.repeats_after or longest
    return replace(task, episode_length=min(longest, there))


def write_trajectories(
    setup: Setup,
    run: RunDirectory,
    params: Params,
) -> list[Trajectories]:
    """Compare the configured network on each of `evaluation.datasets`; write numbers, arrays and figures.

    The stream is one pass over the training half, or a part of it; the test is on the other half. Writes
    trajectories.json, trajectories.npz, and trajectories_DATASET.png for each.
    """
    halves = []
    for subset in ("train", "test"):
        sources, missing = setup.load_evaluation_data(SerialCommunicator(), subset)
        halves.append(setup.evaluation_tasks(sources))
    for reason in missing:
        say(f"left out: {reason}")
    key = jax.random.key(setup.config.evaluation.seed)
    found = []
    for stream, tested in zip(*halves, strict=True):
        task = _one_pass(stream.task, setup.config.clone.follow)
        test = _one_pass(tested.task, _TESTED)
        learner = setup.learner_for(task)
        assert isinstance(learner, Vsml)  # as the configuration was checked
        learned, start = _sample(task, key)
        asked, _ = _sample(test, key)
        trajectories = compare_trajectories(
            learner,
            params,
            stream.name,
            learned,
            asked,
            start,
        )
        found.append(trajectories)
        row = trajectories.summary()
        clone = row["test_accuracy"]
        other = row["test_accuracy_of_back_propagation"]
        say(
            f"{stream.name} after {row['examples']}: {clone:.2%} of test images, back-propagation {other:.2%}"
        )
    rows = [each.summary() for each in found]
    write_json(run.path / "trajectories.json", rows)
    arrays = {}
    for each in found:
        for name, values in vars(each).items():
            if name != "dataset":
                arrays[f"{each.dataset}/{name}"] = values
    write_arrays(run.path / "trajectories.npz", arrays)
    for each in found:
        name = f"trajectories_{each.dataset}"
        plots.drawn(name, partial(draw, run.path / f"{name}.png", each))
    return found


def draw(
    path: Path,
    trajectories: Trajectories,
    shown: int = 10,
) -> None:
    """Draw loss curves, weights over time, how far updates and weights agree, and weights at the end."""
    figure, (losses, weights, agreement, last) = plots.panels(2, 2)
    seen = trajectories.examples
    clone_loss, other_loss = trajectories.loss
    for name, loss, colour in (
        ("clone", clone_loss, plots.COLOURS[0]),
        ("back-propagation", other_loss, plots.COLOURS[1]),
    ):
        losses.plot(seen, loss, color=colour, label=name)
    losses.legend(frameon=False, fontsize=8)
    plots.label(
        losses,
        f"loss on {trajectories.dataset} while learning",
        "examples",
        "nats",
    )
    _draw_weights(weights, trajectories, shown)
    _draw_agreement(agreement, trajectories)
    clone, other = trajectories.trace[-1]
    plots.against(last, other, clone)
    plots.label(
        last,
        "weights at the end",
        "back-propagation",
        "clone",
    )
    plots.save(figure, path)


def _draw_weights(
    axes: "Axes",
    trajectories: Trajectories,
    shown: int,
) -> None:
    """Draw the weights that back-propagation moves most, of both over time."""
    by_clone = trajectories.trace[:, 0]
    by_descent = trajectories.trace[:, 1]
    moved = np.abs(by_descent[-1] - by_descent[0])
    strongest = np.argsort(-moved)[:shown]
    for number, weight in enumerate(strongest):
        colour = plots.COLOURS[number % len(plots.COLOURS)]
        axes.plot(
            trajectories.examples,
            by_clone[:, weight],
            color=colour,
        )
        axes.plot(
            trajectories.examples,
            by_descent[:, weight],
            color=colour,
            linestyle="dotted",
        )
    plots.label(
        axes,
        "weights (dotted: under back-propagation)",
        "examples",
        "weight",
    )


def _draw_agreement(
    axes: "Axes",
    trajectories: Trajectories,
) -> None:
    """Draw the cosines of each layer over time."""
    layers = trajectories.cosine.shape[1]
    for layer in range(layers):
        colour = plots.COLOURS[layer % len(plots.COLOURS)]
        which = f" of layer {layer + 1}" if layers > 1 else ""
        axes.plot(
            trajectories.examples,
            trajectories.update_cosine[:, layer],
            color=colour,
            label=f"updates{which}",
        )
        axes.plot(
            trajectories.examples,
            trajectories.cosine[:, layer],
            color=colour,
            linestyle="dotted",
            label=f"all that was learned{which}",
        )
    lowest = min(
        0.5,
        trajectories.cosine.min(),
        trajectories.update_cosine.min(),
    )
    axes.legend(frameon=False, fontsize=8)
    axes.set_ylim(lowest, 1.01)
    plots.label(
        axes,
        "cosine between both",
        "examples",
        "cosine",
    )
