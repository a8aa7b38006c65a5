"""One pass over training images, one after the other, and then the accuracy on all test images.

    python benchmarks/one_pass.py configs/rules/published.yaml --learner NAME --examples 60000

This is how papers report an accuracy: `call: evaluate` scores answers while a learner learns instead. Data,
their order and the learner are those of the configuration: `evaluation.datasets` (the first one),
`evaluation.seed`, `evaluation.learners`. What was learned is saved every --save examples in --run_dir, and a
second call goes on from there. With --test every so many examples test images are answered in between.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vsml.system.devices import prepare

prepare()  # before JAX is imported

import jax
import jax.numpy as jnp
import numpy as np

from vsml.config.model import model_choices
from vsml.launching.command_line import parse, read_config
from vsml.learners import Learner, continue_episode, make_learner
from vsml.meta.trials import sample_trial
from vsml.runs import checkpoint
from vsml.setup import Setup
from vsml.system.comm import SerialCommunicator
from vsml.types import Array, Episode, Params, State

CLASSES = 10

STRETCH = 500
"""Examples of one compiled call."""

TOGETHER = 20
"""Test images that are answered at once: each has a copy of the memory."""


def read(file: str, changes: Sequence[str]) -> Any:
    """Return the configuration of a file, with settings `KEY=VALUE` that differ."""
    words = ["--config_files", file]
    if changes:
        words += ["--config", *changes]
    return read_config(parse(words))


def stream(file: str, changes: Sequence[str], subset: str, length: int) -> Episode:
    """Return examples of a half of the first data set, each once before any comes again."""
    config = read(file, [*changes, f"evaluation.subset={subset}", f"evaluation.episode_length={length}"])
    setup = Setup(config)
    sources, _ = setup.load_evaluation_data(SerialCommunicator())
    task = setup.evaluation_tasks(sources)[0].task
    key = jax.random.key(config.evaluation.seed)
    return jax.jit(lambda: sample_trial((task,), 0, key, jnp.int32(0))[0])()


def share_right(learner: Learner, params: Params, state: State, test: Episode) -> np.ndarray:
    """Return whether each test image is answered rightly, bool [n]; nothing is learned."""

    @jax.jit
    def answer(state: State, x: Array) -> Array:
        return jax.lax.map(lambda few: learner.predict(params, state, few), x)

    count = len(test.y) // TOGETHER * TOGETHER
    x = test.x[:count, 0].reshape(-1, TOGETHER, *test.x.shape[2:])
    answers = np.asarray(answer(state, x)).reshape(count, -1)
    return answers.argmax(-1) == np.asarray(test.y[:count, 0])


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("config", metavar="FILE", help="a configuration")
    parser.add_argument("--learner", required=True, help="the name of one of its learners")
    parser.add_argument("--examples", type=int, default=60000, help="training images")
    parser.add_argument("--test", type=int, default=10000, help="test images")
    parser.add_argument("--save", type=int, default=2000, help="examples between saves")
    parser.add_argument("--seed", type=int, default=0, help="of the initial memory")
    parser.add_argument("--run_dir", type=Path, required=True, help="what is saved, and result.json")
    parser.add_argument("--config", dest="changes", nargs="*", default=[], help="settings KEY=VALUE")
    options = parser.parse_args()
    config = read(options.config, options.changes)
    (compared,) = [each for each in config.evaluation.learners if each.name == options.learner]
    (_, model), *_ = model_choices(config.model, compared)
    train = stream(options.config, options.changes, "train", options.examples)
    learner = make_learner(model.type, model.settings, train.x.shape[2:], CLASSES)
    params = learner.init_params(jax.random.key(0))
    state = jax.jit(learner.init_state)(params, jax.random.key(options.seed))

    saved = options.run_dir / "state.safetensors"
    options.run_dir.mkdir(parents=True, exist_ok=True)
    template = {
        "state": state,
        "seen": jnp.int32(0),
        "right": jnp.zeros(options.examples),
        "seconds": jnp.float32(0),
    }
    if saved.exists():
        template, _ = checkpoint.load(saved, template)
    state, right = template["state"], np.array(template["right"])
    seen, seconds = int(template["seen"]), float(template["seconds"])
    go_on = jax.jit(lambda state, part: continue_episode(learner, params, state, part))
    while seen < options.examples:
        start = time.process_time()
        part = jax.tree.map(lambda leaf, seen=seen: leaf[seen : seen + STRETCH], train)
        state, answers = go_on(state, part)
        end = seen + len(part.y)
        right[seen:end] = np.asarray(answers[:, 0].argmax(-1) == part.y[:, 0])
        seconds += time.process_time() - start
        seen = end
        if seen % options.save == 0 or seen == options.examples:
            recent = right[max(0, seen - options.save) : seen].mean()
            print(
                f"{seen} examples: {recent:.4f} of the last {options.save} right, {seconds:.0f} s", flush=True
            )
            tree = {
                "state": state,
                "seen": jnp.int32(seen),
                "right": jnp.asarray(right),
                "seconds": jnp.float32(seconds),
            }
            checkpoint.save(saved, tree, {})
    test = stream(options.config, options.changes, "test", options.test)
    answered = share_right(learner, params, state, test)
    result = {
        "learner": options.learner,
        "examples": options.examples,
        "seed": options.seed,
        "test_images": len(answered),
        "test_accuracy": float(answered.mean()),
        "online_accuracy": float(right.mean()),
        "cpu_seconds": round(seconds),
    }
    (options.run_dir / "result.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
