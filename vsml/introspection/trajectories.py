"""A network of clones beside the same network under back-propagation: same first weights, same stream."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vsml.config.schema import POINTS, Config
from vsml.learners import Vsml, VsmlState, make_learner
from vsml.losses import bound_logits, cross_entropy
from vsml.meta.cloning import activation
from vsml.meta.objective import sample_unit
from vsml.reporting import plots
from vsml.runs.directory import RunDirectory
from vsml.runs.progress import say
from vsml.setup import evaluation_tasks, load_evaluation_data
from vsml.system.comm import SerialCommunicator
from vsml.system.files import atomic_write, jsonable, write_arrays
from vsml.tasks import TaskDistribution
from vsml.types import Array, Episode, Params

Weights = list[tuple[Array, Array]]
"""Of each layer the weights w and biases b, [I, O]: a unit sends the mean of `act(x) w + b`."""

_ASKED = 16  # examples for which the update from the same weights is compared
_TRACED = 1000  # weights of the first layer that are recorded at each point
_TESTED = 10_000  # test images, at most
_AT_ONCE = 100  # test images that are answered at once


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
            x = (activation(self.learner, x)[:, None] * w + b).mean(0)
        return bound_logits(x, self.learner.logit_bound)

    def step(self, weights: Weights, x: Array, y: Array) -> tuple[Weights, Array]:
        """Answer one input [I], then learn from its label: the new weights, and the logits."""

        def loss(weights: Weights) -> tuple[Array, Array]:
            logits = self.answer(weights, x)
            return cross_entropy(logits, y), logits

        gradient, logits = jax.grad(loss, has_aux=True)(weights)
        scale = self.learner.error_scale * self.learner.init_rate
        moved = []
        for layer, (w, b), (dw, db) in reversed(
            list(zip(self.learner.network.layers, weights, gradient, strict=True))
        ):
            scale *= layer.fan_in
            moved.append((w - scale * dw, b - scale * self.learner.init_bias_rate * db))
            scale /= layer.fan_out
        return moved[::-1], logits


@dataclass(frozen=True, eq=False)
class Followed:
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
        third, last = np.split(self.loss, [POINTS // 2, POINTS - POINTS // 4], axis=1)[1:]
        return {
            "dataset": self.dataset,
            "examples": int(self.examples[-1]),
            "test_accuracy": self.test_accuracy[0],
            "test_accuracy_of_back_propagation": self.test_accuracy[1],
            "last_loss": self.loss[0, -1],
            "last_loss_of_back_propagation": self.loss[1, -1],
            "late_rise_of_loss": last[0].mean() - third[0].mean(),
            "update_cosine": self.update_cosine.mean(0),
            "update_ratio_first": self.update_ratio[0],
            "update_ratio_last": self.update_ratio[-1],
            "cosine_last": self.cosine[-1],
            "drift_last": self.drift[-1],
        }


@partial(jax.jit, static_argnames=("learner",))
def _learn(
    learner: Vsml, params: Params, state: VsmlState, weights: Weights, episode: Episode
) -> tuple[VsmlState, Weights, Array, Array]:
    """Let both learn a part of the stream; return also loss and right answers, means over it, [2]."""

    def step(both: tuple[VsmlState, Weights], example: tuple[Array, Array]) -> tuple[Any, Array]:
        (state, weights), (x, y) = both, example
        moved, wanted = Descent(learner).step(weights, learner.features(state, x)[0], y[0])
        state, got = learner.step(params, state, x, y)
        logits = jnp.stack([got[0], wanted])
        losses = jax.vmap(cross_entropy, (0, None))(logits, y[0])
        return (state, moved), jnp.stack([losses, logits.argmax(-1) == y])

    (state, weights), seen = jax.lax.scan(step, (state, weights), (episode.x, episode.y))
    loss, right = seen.mean(0)
    return state, weights, loss, right


def _flat(weights: Weights) -> list[Array]:
    return [jnp.concatenate([w.ravel(), b.ravel()]) for w, b in weights]


def _held(learner: Vsml, state: VsmlState) -> Weights:
    return [(w[0], b[0]) for w, b in learner.weights(state)]


def _cosine(a: Array, b: Array) -> Array:
    return jnp.vdot(a, b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b) + 1e-30)


@partial(jax.jit, static_argnames=("learner",))
def _compare(
    learner: Vsml, params: Params, state: VsmlState, weights: Weights, first: Weights, episode: Episode
) -> dict[str, Array]:
    held = _held(learner, state)

    def ask(example: tuple[Array, Array]) -> tuple[Array, Array]:
        x, y = example
        after = _held(learner, learner.step(params, state, x, y)[0])
        wanted, _ = Descent(learner).step(held, learner.features(state, x)[0], y[0])
        pairs = [
            (new - old, moved - old)
            for old, new, moved in zip(_flat(held), _flat(after), _flat(wanted), strict=True)
        ]
        ratios = [jnp.linalg.norm(got) / (jnp.linalg.norm(want) + 1e-30) for got, want in pairs]
        return jnp.stack([_cosine(*pair) for pair in pairs]), jnp.stack(ratios)

    update_cosine, update_ratio = jax.lax.map(ask, (episode.x, episode.y))
    added = [
        (mine - start, other - start)
        for mine, other, start in zip(_flat(held), _flat(weights), _flat(first), strict=True)
    ]
    return {
        "update_cosine": update_cosine.mean(0),
        "update_ratio": update_ratio.mean(0),
        "cosine": jnp.stack([_cosine(*pair) for pair in added]),
        "drift": jnp.stack(
            [jnp.linalg.norm(mine - other) / (jnp.linalg.norm(other) + 1e-30) for mine, other in added]
        ),
        "trace": jnp.stack([each[0][0].ravel()[_traced(each)] for each in (held, weights)]),
    }


def _traced(weights: Weights) -> Array:
    return jax.random.permutation(jax.random.key(0), weights[0][0].size)[:_TRACED]


@partial(jax.jit, static_argnames=("learner",))
def _right(learner: Vsml, params: Params, state: VsmlState, weights: Weights, x: Array, y: Array) -> Array:
    features = learner.features(state, x)
    wanted = jax.vmap(partial(Descent(learner).answer, weights))(features)
    got = learner.predict(params, state, x)
    return (jnp.stack([got, wanted]).argmax(-1) == y).sum(-1)


def follow(
    learner: Vsml, params: Params, dataset: str, stream: Episode, tested: Episode, key: Array
) -> Followed:
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
    seen: list[dict[str, Array]] = []
    asked = jax.tree.map(lambda leaf: leaf[:_ASKED], tested)
    for point in range(POINTS):
        part = jax.tree.map(lambda leaf, at=point * length: leaf[at : at + length], stream)
        state, weights, loss, right = _learn(learner, params, state, weights, part)
        found = _compare(learner, params, state, weights, first, asked)
        seen.append(jax.device_get({"loss": loss, "accuracy": right, **found}))
    over = {name: np.stack([each[name] for each in seen]) for name in seen[0]}
    over |= {name: over[name].T for name in ("loss", "accuracy")}
    hits = sum(_right(learner, params, state, weights, x, y) for x, y in _batches(tested))
    return Followed(
        dataset=dataset,
        examples=length * np.arange(1, POINTS + 1),
        test_accuracy=np.asarray(hits) / len(tested.y),
        **over,
    )


def _batches(episode: Episode) -> Iterator[tuple[Array, Array]]:
    """Yield inputs and labels that are answered at once."""
    for at in range(0, len(episode.y), _AT_ONCE):
        yield episode.x[at : at + _AT_ONCE, 0], episode.y[at : at + _AT_ONCE, 0]


@jax.jit
def _sample(task: TaskDistribution, key: Array) -> tuple[Episode, Array]:
    return sample_unit((task,), 0, key, jnp.int32(0))


def _one_pass(task: TaskDistribution, most: int) -> TaskDistribution:
    """Return the task with episodes of so many examples, or of fewer, in which no image comes twice."""
    return replace(task, episode_length=min(most, task.repeats_after or most))


def follow_all(config: Config, run: RunDirectory, params: Params) -> list[Followed]:
    """Follow the configured network on each of `evaluation.datasets`; write numbers, arrays and figures.

    The stream is one pass over the training half, or a part of it; the test is on the other half. Writes
    followed.json, followed.npz, and followed_DATASET.png for each.
    """
    halves = []
    for subset in ("train", "test"):
        evaluation = config.evaluation.model_copy(update={"subset": subset})
        half = config.model_copy(update={"evaluation": evaluation})
        sources, missing = load_evaluation_data(half, SerialCommunicator())
        halves.append(evaluation_tasks(half, sources))
    for reason in missing:
        say(f"left out: {reason}")
    key = jax.random.key(config.evaluation.seed)
    found = []
    for stream, tested in zip(*halves, strict=True):
        task = _one_pass(stream.task, config.clone.follow)
        learner = make_learner(config.model.type, config.model.settings, task.input_shape, task.num_classes)
        assert isinstance(learner, Vsml)  # as the configuration was checked
        learned, start = _sample(task, key)
        asked, _ = _sample(_one_pass(tested.task, _TESTED), key)
        found.append(follow(learner, params, stream.name, learned, asked, start))
        row = found[-1].summary()
        say(
            f"{stream.name} after {row['examples']}: {row['test_accuracy']:.2%} of test images, "
            f"back-propagation {row['test_accuracy_of_back_propagation']:.2%}"
        )
    rows = [each.summary() for each in found]
    atomic_write(run.path / "followed.json", json.dumps(jsonable(rows), indent=2) + "\n")
    arrays = {
        f"{each.dataset}/{field.name}": getattr(each, field.name)
        for each in found
        for field in fields(each)
        if field.name != "dataset"
    }
    write_arrays(run.path / "followed.npz", arrays)
    for each in found:
        draw(run.path / f"followed_{each.dataset}.png", each)
    return found


def draw(path: Path, followed: Followed, shown: int = 10) -> None:
    """Draw loss curves, weights over time, how far updates and weights agree, and weights at the end."""
    figure, (losses, weights, agreement, last) = plots.panels(2, 2)
    seen = followed.examples
    for name, loss, colour in zip(("clone", "back-propagation"), followed.loss, plots.COLOURS, strict=False):
        losses.plot(seen, loss, color=colour, label=name)
    losses.legend(frameon=False, fontsize=8)
    plots.label(losses, f"loss on {followed.dataset} while learning", "examples", "nats")
    strongest = np.argsort(-np.abs(followed.trace[-1, 1] - followed.trace[0, 1]))[:shown]
    for number, weight in enumerate(strongest):
        colour = plots.COLOURS[number % len(plots.COLOURS)]
        weights.plot(seen, followed.trace[:, 0, weight], color=colour)
        weights.plot(seen, followed.trace[:, 1, weight], color=colour, linestyle="dotted")
    plots.label(weights, "weights (dotted: under back-propagation)", "examples", "weight")
    for layer in range(followed.cosine.shape[1]):
        colour = plots.COLOURS[layer % len(plots.COLOURS)]
        which = f" of layer {layer + 1}" if followed.cosine.shape[1] > 1 else ""
        agreement.plot(seen, followed.update_cosine[:, layer], color=colour, label=f"updates{which}")
        cosine = followed.cosine[:, layer]
        agreement.plot(seen, cosine, color=colour, linestyle="dotted", label=f"all that was learned{which}")
    agreement.legend(frameon=False, fontsize=8)
    agreement.set_ylim(min(0.5, followed.cosine.min(), followed.update_cosine.min()), 1.01)
    plots.label(agreement, "cosine between both", "examples", "cosine")
    clone, other = followed.trace[-1]
    plots.against(last, other, clone)
    plots.label(last, "weights at the end", "back-propagation", "clone")
    plots.save(figure, path)
