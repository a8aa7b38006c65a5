"""The price of a result: meta-training time and examples until an accuracy after a few examples is reached.

    python -m benchmarks.price configs/algorithms/memory14.yaml --seeds 0 1 2 --out DIR

For each seed a configuration is meta-trained as `launch.py` does it, with a checkpoint every --every meta
steps, in DIR/seed-S. Each checkpoint, and the start, is then asked 200 unseen MNIST test images after 99
examples, in --streams streams of a seed that no table uses. Minutes are those of meta-training alone, on the
machine as it is: take a quiet one. DIR/price.json has all of it. A second call goes on where one was stopped.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.after_examples import draw, learned, learner_of, measures, task_of
from vsml.launching.command_line import parse, read_config
from vsml.reporting.intervals import half_width
from vsml.reporting.tables import Table, markdown
from vsml.runs.directory import RunDirectory
from vsml.runs.metrics import read_metrics
from vsml.runs.progress import say
from vsml.system.files import write_json

LEVELS = (0.75, 0.78, 0.80)
"""Accuracies to reach."""

SHOWN, ASKED = 99, 200
STREAM_SEED = 77
"""Of the streams that checkpoints are asked in."""

LAUNCH = Path(__file__).parents[1] / "launch.py"
KEEP_ALL = 1_000_000


def train(
    config: str,
    seed: int,
    run: RunDirectory,
    every: int,
    iterations: int | None,
) -> None:
    """Meta-train, or go on where it was stopped; nothing is evaluated by the run itself."""
    if run.complete.exists():
        return
    settings = [
        f"seed={seed}",
        f"checkpoint.frequency={every}",
        f"checkpoint.keep={KEEP_ALL}",
        "evaluation.count=2",
        "evaluation.datasets=[mnist]",
        f"summary.frequency={every}",
    ]
    if iterations is not None:
        settings.append(f"training.iterations={iterations}")
    command = [sys.executable, str(LAUNCH), "--config_files", config, "--config", *settings]
    subprocess.run([*command, "--run_dir", str(run.path), "--continue"], check=True)


def accuracy(
    source: str,
    size: int,
    streams: int,
) -> tuple[float, float]:
    """Return the accuracy of a learning algorithm and the half width of its 95 % interval."""
    task, shown = task_of("mnist", "test", size, SHOWN, ASKED)
    learner, params = learner_of(source, task.input_shape)
    drawn = draw(task, jax.random.key(STREAM_SEED), jnp.arange(streams))
    logits = np.asarray(learned(learner, params, None, shown, drawn))
    right = np.array(measures(logits, np.asarray(drawn.y)[:, shown:, 0])["accuracy"])
    return float(right.mean()), float(half_width(right))


def spent(run: RunDirectory) -> dict[int, tuple[float, int]]:
    """Return minutes and examples by the meta step, of a run; the start alone where nothing has run."""
    found = {0: (0.0, 0)}
    if not run.metrics.exists():
        return found
    for line in read_metrics(run.metrics):
        if "meta_loss" in line:
            found[line["step"]] = (line["wall_s"] / 60, line["examples"])
    return found


def price(
    options: argparse.Namespace,
    seed: int,
    results: dict[str, Any],
) -> None:
    """Meta-train with a seed and measure all checkpoints that `results` does not have yet."""
    run = RunDirectory(options.out / f"seed-{seed}")
    if options.iterations != 0:
        train(options.config, seed, run, options.every, options.iterations)
    by_step = results["seeds"].setdefault(str(seed), {})
    for step, (minutes, examples) in sorted(spent(run).items()):
        saved = run.checkpoints / f"step_{step:08d}.safetensors"
        if str(step) in by_step or not (step == 0 or saved.exists()):
            continue
        reached, half = accuracy(options.config if step == 0 else str(saved), options.size, options.streams)
        by_step[str(step)] = {
            "minutes": round(minutes, 3),
            "examples": examples,
            "accuracy": round(reached, 5),
            "half_width": round(half, 5),
        }
        write_json(options.out / "price.json", results)


def first_at(
    by_step: dict[str, dict[str, float]],
    level: float,
) -> str:
    """Return the meta step, minutes and examples at which a level was first reached."""
    for step, found in sorted(by_step.items(), key=lambda item: int(item[0])):
        if found["accuracy"] >= level:
            return f"{found['minutes']:.1f} min, {found['examples']:,} (step {step})"
    return "never"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("config", metavar="FILE", help="a configuration that meta-trains")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--every", type=int, default=25, help="meta steps between checkpoints; default: 25")
    parser.add_argument("--iterations", type=int, help="0: the start alone; default: as configured")
    parser.add_argument("--streams", type=int, default=100, help="default: 100")
    parser.add_argument("--out", type=Path, required=True, help="folder, made or gone on with")
    options = parser.parse_args()
    resize = read_config(parse(["--config_files", options.config])).data.preprocess.resize
    options.size = 28 if resize is None else resize[0]
    protocol = {"config": options.config, "every": options.every, "iterations": options.iterations}
    protocol |= {"streams": options.streams, "size": options.size}
    results: dict[str, Any] = {"protocol": protocol, "seeds": {}}
    kept = options.out / "price.json"
    if kept.exists():
        results = json.loads(kept.read_text())
        if results["protocol"] != protocol:
            got = f"{kept} has {results['protocol']}"
            raise SystemExit(f"error: --out: {got}, expected {protocol}; take another folder")
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in options.seeds:
        price(options, seed, results)
        by_step = results["seeds"][str(seed)]
        last = by_step[max(by_step, key=int)]["accuracy"]
        reached = [first_at(by_step, level) for level in LEVELS]
        rows.append([str(seed), *reached, f"{100 * last:.1f}"])
    say(markdown(Table(["seed", *(f"{level:.2f}" for level in LEVELS), "at the end"], rows)))


if __name__ == "__main__":
    main()
