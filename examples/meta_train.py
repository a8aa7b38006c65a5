"""Meta-train a learning algorithm by back-propagation, save it, load it, and watch it learn.

    python examples/meta_train.py             about two minutes on 2 cores

Each meta step runs 16 episodes of 100 digits with labels that are permuted anew (and, in half of them, pixels
that are randomly projected), so that nothing but learning from the labels helps. The loss stays at log 10 =
2.30 nats, where every class is as likely, for some tens of meta steps, and then falls. Last, the algorithm
learns digits that were held out, from nothing, and its learning curve is drawn.
"""

import argparse
import time
from pathlib import Path

from vsml.system.devices import prepare

prepare()  # before JAX is imported: all CPU cores work

import jax
import numpy as np
import optax

import vsml
from vsml.learners import make_learner
from vsml.learners.vsml import SynapseConfig, VsmlConfig
from vsml.losses import right_answers
from vsml.meta import BackPropagation, group_trials, meta_adam, meta_train
from vsml.reporting.plots import Curve
from vsml.reporting.text_plots import learning_curves
from vsml.runs.checkpoint import export_params
from vsml.runs.progress import Progress
from vsml.system.signals import StopSignals
from vsml.tasks import build_task, load

SETTINGS = VsmlConfig(feed_label=True, synapse=SynapseConfig(init_scale=4.0))
FRESH_STARTS = 8

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--steps", type=int, default=400, help="meta steps")
parser.add_argument("--examples", type=int, default=100, help="digits in an episode of meta-training")
parser.add_argument("--file", type=Path, default=Path("runs", "mine.safetensors"), help="where to save")
options = parser.parse_args()
started = time.monotonic()

# The tasks, and one learner for their shape; from Python as from a configuration file.
train = load("digits", "train")
tasks = [
    build_task(train, options.examples, permute_labels=True, rand_proj=projected)
    for projected in (False, True)
]
groups = group_trials(tasks, 16, lambda shape, classes: make_learner("vsml", SETTINGS, shape, classes))
initial = groups[0].learner.init_params(jax.random.key(0))

# The outer loop.
rate = optax.cosine_decay_schedule(0.01, options.steps, alpha=0.1)
optimizer = BackPropagation(meta_adam(rate, clip_gradnorm=1.0))
losses = []
params = initial
with StopSignals() as stop, Progress(options.steps) as progress:
    progress.note(
        "This takes about two minutes on 2 cores. Ctrl-C goes on with what has been learned by then."
    )
    for step, params, metrics in meta_train(optimizer, initial, groups, options.steps, jax.random.key(1)):  # noqa: B007
        losses.append(metrics["meta_loss"])
        progress.update(step, loss=float(np.mean(losses[-10:])), accuracy=metrics["accuracy"])
        if stop:
            progress.note(f"stopped after meta step {step} of {options.steps}")
            break
print(f"loss in nats: {losses[0]:.3f} at first, {np.mean(losses[-10:]):.3f} over the last ten meta steps")

# A learning algorithm is a small file: the meta-parameters, and the settings of the learner they are for.
options.file.parent.mkdir(parents=True, exist_ok=True)
model = {"type": "vsml", "vsml": SETTINGS.model_dump(mode="json")}
export_params(options.file, params, {"config": {"model": model}})
print(f"saved: {options.file}, {options.file.stat().st_size:,} bytes")

# Load it as one that comes with the library, and let it learn held-out digits.
algorithm = vsml.load_learner(str(options.file), input_shape=(8, 8, 1), num_classes=10)
held_out = build_task(load("digits", "test"), 497, replacement=False)
answers = []
for seed in range(FRESH_STARTS):
    digits = held_out.sample(jax.random.key(seed))
    state, logits = algorithm.run(algorithm.start(seed), digits.x, digits.y)
    answers.append(np.asarray(right_answers(logits, digits.y).mean(-1)))
correct = np.stack(answers)
print(learning_curves([Curve(options.file.stem, "digits, held out", correct, chance=0.1)]))
print(f"{time.monotonic() - started:.0f} seconds")
print(f"accuracy on digits 398 to 497: {correct[:, -100:].mean():.3f}; guessing: 0.1")
