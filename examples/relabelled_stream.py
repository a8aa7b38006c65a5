"""Watch a learning algorithm when, half way through a stream of digits, all labels change their meaning.

    python examples/relabelled_stream.py      half a minute on 2 cores

What was a 0 is called 1 from there on, and so forth. Whoever has learned the old names is wrong after the
switch, and has to learn again in the middle of the stream; nobody is told. A learning algorithm of VSML,
whose meta-parameters never change, meets the same streams as online gradient descent by Adam and by SGD. The
curves, and a line of numbers for each, show who recovers, how fast and how far. Gradient descent forgets by
descending; a learning algorithm which only met streams without a switch need not be able to.
"""

import argparse
import dataclasses
import time
from functools import partial
from pathlib import Path

from vsml.system.devices import prepare

prepare()  # before JAX is imported: all CPU cores work

import jax
import jax.numpy as jnp
import numpy as np

import vsml
from vsml.learners import Learner, Sgd, run_episode
from vsml.learners.sgd import SgdConfig
from vsml.losses import right_answers
from vsml.meta.mapping import map_trials
from vsml.reporting import plots, tables, text_plots
from vsml.system.signals import StopSignals
from vsml.tasks import build_task, load
from vsml.types import Array, Classes, Episode, Params

SHAPE, CLASSES = (8, 8, 1), 10
WINDOW = 50  # examples that an accuracy is the mean over
RECOVERED = 0.9  # share of the accuracy before the switch

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--algorithm", default="general", help="name or file, as for vsml.load_learner")
parser.add_argument("--streams", type=int, default=16, help="streams, each from a fresh state")
parser.add_argument("--half", type=int, default=497, help="digits before and after the switch, at most 497")
parser.add_argument("--picture", type=Path, default=Path("runs", "relabelled_stream.png"))
options = parser.parse_args()
started = time.monotonic()

digits = build_task(load("digits", "test"), options.half, replacement=False)
algorithm = vsml.load_learner(options.algorithm, input_shape=SHAPE, num_classes=CLASSES)
adam = SgdConfig(optimizer="adam", learning_rate=0.01)
sgd = SgdConfig(optimizer="sgd", learning_rate=0.1)
learners: dict[str, tuple[Learner, Params]] = {
    f"VSML '{options.algorithm}'": (algorithm.learner, algorithm.params),
    "Adam (1 layer, rate 0.01)": (
        Sgd(SHAPE, Classes(CLASSES), adam),
        {},
    ),
    "SGD (1 layer, rate 0.1)": (
        Sgd(SHAPE, Classes(CLASSES), sgd),
        {},
    ),
}


def relabelled(key: Array) -> Episode:
    """Draw all digits twice, in two orders, the second time with every label moved on by one."""
    before, after = (digits.sample(jax.random.fold_in(key, half)) for half in range(2))
    after = dataclasses.replace(after, y=(after.y + 1) % CLASSES)
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), before, after)


@partial(jax.jit, static_argnames="learner")
def answers(learner: Learner, params: Params, keys: Array) -> Array:
    """Return which answers are right, [streams, examples]; who gets the same keys gets the same streams."""

    def answer(key: Array, params: Params) -> Array:
        episode = relabelled(key)
        return right_answers(run_episode(learner, params, key, episode), episode.y).mean(-1)

    return map_trials(answer, keys, params)


def recovery(accuracy: np.ndarray) -> str:
    """Say how long the accuracy in windows after the switch is below what it was before, in examples."""
    reached = accuracy[options.half + WINDOW - 1 :] >= RECOVERED * accuracy[options.half - 1]
    return f"after {reached.argmax() + WINDOW:,}" if reached.any() else "not in this stream"


keys = jax.random.split(jax.random.key(0), options.streams)
curves = []
with StopSignals() as stop:
    print("This takes half a minute on 2 cores. Ctrl-C shows the learners that are done by then.", flush=True)
    for name, (learner, params) in learners.items():
        correct = np.asarray(answers(learner, params, keys))
        curves.append(plots.Curve(name, "digits, relabelled half way", correct, 1 / CLASSES))
        if stop:
            print(f"stopped after {name}")
            break
print(text_plots.learning_curves(curves, log_x=False, window=WINDOW), end="\n\n")
title = f"accuracy over {WINDOW} digits"
rows = []
for curve in curves:
    accuracy = np.convolve(curve.correct.mean(0), np.full(WINDOW, 1 / WINDOW), "full")[
        : curve.correct.shape[1]
    ]
    shown = (accuracy[place - 1] for place in (options.half, options.half + WINDOW, len(accuracy)))
    rows.append([curve.name, *[f"{value:.0%}" for value in shown], recovery(accuracy)])
headings = ["learner", "before", "after", "at end", f"{RECOVERED:.0%} of before again"]
print(tables.plain(tables.Table(headings, rows, title, left=frozenset(["learner"]))))
options.picture.parent.mkdir(parents=True, exist_ok=True)
plots.learning_curves(options.picture, curves, log_x=False, window=WINDOW)
print(f"\npicture: {options.picture}")
print(f"{time.monotonic() - started:.0f} seconds")
