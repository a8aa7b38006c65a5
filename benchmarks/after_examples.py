"""Unseen images answered after some examples, by many learners on the same streams.

    python -m benchmarks.after_examples --contestant "memory=FILE" "kernel ridge=kernel_ridge" --out RESULT

A stream is --shown examples and --asked other images of a data set, none of which comes twice. A learner
takes a step with each of the former, and then answers the latter by `predict`. All contestants meet the same
streams. Accuracy in percent, with 95 % intervals over streams, and the difference to --against, stream by
stream.

A contestant is NAME=SOURCE. SOURCE is what `vsml.load_learner` takes (a name, the path of a file or of a
run's folder), a configuration (.yaml: where its meta-training starts), or a reference: kernel_ridge,
neighbours, svc, logistic_regression, random_forest. With SOURCE@WHERE a reference sees the image features of
WHERE, a learner or a configuration. Its buffer holds what is shown.

--sets tables are the test halves that results are of. --sets validation are sets that no table uses, to
choose by: the training half of Fashion-MNIST, USPS, scikit-learn's digits, and Omniglot's background
characters (10 classes, 10 examples of each are shown, 10 images asked). Answers are kept in RESULT, a JSON
file, as they are made; a second call goes on from there.
"""

import argparse
import functools
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsml.system.devices import prepare

prepare()  # before JAX is imported

import jax
import jax.numpy as jnp
import numpy as np

from vsml.launching.command_line import parse, read_config
from vsml.learners import Vsml, config_type, continue_episode, make_learner
from vsml.learners.kernel_ridge import KernelRidge
from vsml.learners.neighbours import Neighbours
from vsml.learners.refitted import ESTIMATORS, Refit, refitted_answers
from vsml.pretrained import load_learner
from vsml.reporting.intervals import half_width
from vsml.reporting.tables import Table, markdown
from vsml.runs.progress import say
from vsml.system.files import write_json
from vsml.tasks import TaskDistribution, build_task, load
from vsml.types import Array, Episode

CLASSES = 10
SHOTS = 10
"""Examples of each of Omniglot's classes. It has 10 others: so many are asked, as all may be of one class."""

SETS = {
    "tables": (("mnist", "test"), ("fashion_mnist", "test"), ("kmnist", "test"), ("cifar10", "test")),
    "validation": (("fashion_mnist", "train"), ("usps", "test"), ("digits", "test"), ("omniglot", "train")),
}
REFERENCES = ("kernel_ridge", "neighbours")
"""Learners of the library that keep what is shown in a buffer."""

TOGETHER = 20
"""Streams of one compiled call, after which answers are kept."""

MEASURES = ("accuracy", "nll", "confidence")
"""Of a stream: share of right answers, mean negative log-likelihood in nats, mean largest probability."""

Answers = Callable[[Episode], np.ndarray]
"""From streams, leaves [S, T, 1, ...], to logits of the images that are asked [S, A, C]."""


@dataclass(frozen=True)
class Contestant:
    """What answers.

    Attributes:
        name: in tables.
        source: as on the command line.
    """

    name: str
    source: str

    @classmethod
    def read(cls, text: str) -> "Contestant":
        """Read NAME=SOURCE."""
        name, found, source = text.partition("=")
        if not (name and found and source):
            raise SystemExit(f"error: --contestant: got {text!r}, expected NAME=SOURCE")
        return cls(name, source)

    def answers(
        self,
        shape: tuple[int, ...],
        shown: int,
    ) -> Answers:
        """Return what answers images of a shape after so many examples."""
        kind, _, where = self.source.partition("@")
        described = features_of(where, shape) if where else None
        if kind in ESTIMATORS:
            return functools.partial(refitted, Refit(estimator=kind, every=shown), described, shown)
        if kind in REFERENCES:
            settings = config_type(kind)(buffer=shown)
            seen = shape if described is None else described(jnp.zeros((1, *shape))).shape[1:]
            learner = make_learner(kind, settings, seen, CLASSES)
            return functools.partial(learned, learner, {}, described, shown)
        learner, params = learner_of(kind, shape)
        return functools.partial(learned, learner, params, None, shown)


def learner_of(
    source: str,
    shape: tuple[int, ...],
) -> tuple[Any, Any]:
    """Return a learner for images of a shape with its meta-parameters; of a configuration its start."""
    if not source.endswith((".yaml", ".yml")):
        loaded = load_learner(source, input_shape=shape, num_classes=CLASSES)
        return loaded.learner, loaded.params
    model = read_config(parse(["--config_files", source])).model
    learner = make_learner(model.type, model.settings, shape, CLASSES)
    return learner, learner.init_params(jax.random.key(0))


def features_of(
    source: str,
    shape: tuple[int, ...],
) -> Callable[[Array], Array]:
    """Return the image features of a learner, from images [K, *shape] to [K, F]."""
    learner, params = learner_of(source, shape)
    if not isinstance(learner, Vsml) or learner.config.image_features.kind == "none":
        raise SystemExit(
            f"error: --contestant: got {source!r} for features, expected VSML with image features"
        )
    state = learner.init_state(params, jax.random.key(0))
    return jax.jit(functools.partial(learner.features, state))


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def learned(
    learner: Any,
    params: Any,
    described: Callable[[Array], Array] | None,
    shown: int,
    streams: Episode,
) -> Array:
    """Return the logits of a learner for what is asked after what is shown."""

    def answer(number_and_stream: tuple[Array, Episode]) -> Array:
        number, stream = number_and_stream
        x = stream.x[:, 0]
        if described is not None:
            x = described(x)
        state = learner.init_state(params, jax.random.fold_in(jax.random.key(1), number))
        if isinstance(learner, KernelRidge | Neighbours):
            # They keep what they are told, in one step as in many, and a step of kernel ridge is dear.
            state, _ = learner.step(params, state, x[:shown], stream.y[:shown, 0])
        else:
            known = Episode(x=x[:shown, None], y=stream.y[:shown], weight=stream.weight[:shown])
            state, _ = continue_episode(learner, params, state, known)
        return learner.predict(params, state, x[shown:])

    return jax.lax.map(answer, (jnp.arange(len(streams.y)), streams))


def refitted(
    refit: Refit,
    described: Callable[[Array], Array] | None,
    shown: int,
    streams: Episode,
) -> np.ndarray:
    """Return logits of a classifier of scikit-learn, which is fitted to what is shown."""
    found = []
    for number in range(len(streams.y)):
        x, y = np.asarray(streams.x[number]), np.asarray(streams.y[number])
        if described is not None:
            x = np.asarray(described(x[:, 0]))[:, None]
        is_told = (np.arange(len(y)) < shown)[:, None]
        found.append(refitted_answers(refit, x, y, is_told, CLASSES)[shown:, 0])
    return np.stack(found)


def task_of(
    name: str,
    subset: str,
    size: int,
    shown: int,
    asked: int,
) -> tuple[TaskDistribution, int]:
    """Return what draws streams of a data set, and how many examples it shows."""
    data = load(name, subset)
    if name == "omniglot":
        shown = CLASSES * SHOTS
        asked = min(asked, SHOTS)
        return build_task(data, shown + asked, ways=CLASSES, shots=SHOTS, resize=(size, size)), shown
    return build_task(data, shown + asked, resize=(size, size), replacement=False), shown


@jax.jit
def draw(
    task: TaskDistribution,
    key: Array,
    numbers: Array,
) -> Episode:
    """Return streams by their numbers, each with a key of its own."""
    return jax.vmap(lambda number: task.sample(jax.random.fold_in(key, number)))(numbers)


def measures(
    logits: np.ndarray,
    labels: np.ndarray,
) -> dict[str, list[float]]:
    """Return what `MEASURES` says for each stream of logits [S, A, C] and labels [S, A]."""
    logits = logits.astype(np.float64)
    logs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    right_log = np.take_along_axis(logs, labels[..., None], -1)[..., 0]
    found = {
        "accuracy": (logits.argmax(-1) == labels).mean(-1),
        "nll": -right_log.mean(-1),
        "confidence": np.exp(logs.max(-1)).mean(-1),
    }
    return {name: values.round(6).tolist() for name, values in found.items()}


def measure(
    options: argparse.Namespace,
    contestants: Sequence[Contestant],
    results: dict[str, Any],
) -> None:
    """Let all contestants answer all streams that `results` has no answers to, and keep them there."""
    key = jax.random.key(options.seed)
    for name, subset in options.sets:
        task, shown = task_of(name, subset, options.size, options.shown, options.asked)
        by_contestant = results["data_sets"].setdefault(f"{name}, {subset}", {})
        own_key = jax.random.fold_in(key, zlib.crc32(name.encode()))
        for contestant in contestants:
            found = by_contestant.setdefault(contestant.name, {each: [] for each in MEASURES})
            answers = contestant.answers(task.input_shape, shown)
            while (first := len(found["accuracy"])) < options.streams:
                numbers = jnp.arange(first, min(first + TOGETHER, options.streams))
                streams = draw(task, own_key, numbers)
                logits = np.asarray(answers(streams))
                for measured, values in measures(logits, np.asarray(streams.y)[:, shown:, 0]).items():
                    found[measured] += values
                write_json(options.out, results)


def table(
    results: Mapping[str, Any],
    against: str | None,
) -> Table:
    """Return accuracies and, of all but one, the differences to that one on the same streams."""
    cells: dict[str, dict[str, str]] = {}
    for data_set, by_contestant in results["data_sets"].items():
        for name, found in by_contestant.items():
            right = 100 * np.array(found["accuracy"])
            cell = f"{right.mean():.1f} ± {half_width(right):.1f}"
            reference = by_contestant.get(against or "")
            if reference is not None and name != against:
                count = min(len(right), len(reference["accuracy"]))
                difference = right[:count] - 100 * np.array(reference["accuracy"][:count])
                cell += f" ({difference.mean():+.2f} ± {half_width(difference):.2f})"
            cells.setdefault(name, {})[data_set] = cell
    return _by_contestant(cells, results)


def calibration(results: Mapping[str, Any]) -> Table:
    """Return the loss in nats and the confidence less the accuracy, in points."""
    cells: dict[str, dict[str, str]] = {}
    for data_set, by_contestant in results["data_sets"].items():
        for name, found in by_contestant.items():
            gap = 100 * (np.mean(found["confidence"]) - np.mean(found["accuracy"]))
            cells.setdefault(name, {})[data_set] = f"{np.mean(found['nll']):.3f}, {gap:+.1f}"
    return _by_contestant(cells, results)


def _by_contestant(
    cells: Mapping[str, Mapping[str, str]],
    results: Mapping[str, Any],
) -> Table:
    """Return a table of cells by contestant and data set; empty where a contestant has not met one."""
    data_sets = list(results["data_sets"])
    rows = [[name, *(own.get(data_set, "") for data_set in data_sets)] for name, own in cells.items()]
    return Table(["contestant", *data_sets], rows)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--contestant", nargs="+", required=True, help="NAME=SOURCE, see above")
    parser.add_argument("--sets", choices=SETS, default="tables", help="data sets; default: tables")
    parser.add_argument("--size", type=int, default=14, help="height and width of images; default: 14")
    parser.add_argument("--shown", type=int, default=99, help="examples; default: 99")
    parser.add_argument("--asked", type=int, default=200, help="images that are asked; default: 200")
    parser.add_argument("--streams", type=int, default=1000, help="of each data set; default: 1000")
    parser.add_argument("--seed", type=int, default=0, help="of the streams; default: 0")
    parser.add_argument("--against", help="the contestant that others are compared with")
    parser.add_argument("--out", type=Path, required=True, help="JSON file, made or gone on with")
    options = parser.parse_args()
    options.sets, protocol = (
        SETS[options.sets],
        {name: getattr(options, name) for name in ("size", "shown", "asked", "seed")},
    )
    contestants = [Contestant.read(text) for text in options.contestant]
    names = [each.name for each in contestants]
    if options.against is not None and options.against not in names:
        raise SystemExit(f"error: --against: got {options.against!r}, expected one of {', '.join(names)}")
    sources = {each.name: each.source for each in contestants}
    results = {"protocol": protocol, "sources": sources, "data_sets": {}}
    if options.out.exists():
        results = json.loads(options.out.read_text())
        if results["protocol"] != protocol:
            got = f"{options.out} has {results['protocol']}"
            raise SystemExit(f"error: --out: {got}, expected {protocol}; take another file")
        for name, source in sources.items():
            if results["sources"].setdefault(name, source) != source:
                known = results["sources"][name]
                raise SystemExit(
                    f"error: --contestant: got {name}={source}, expected {known} as in {options.out}"
                )
    measure(options, contestants, results)
    say(markdown(table(results, options.against)))
    say(markdown(calibration(results)))


if __name__ == "__main__":
    main()
