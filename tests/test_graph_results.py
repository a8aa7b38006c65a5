"""The algorithm for graphs of docs/results/graphs.md: it learns on kinds of graphs that it never met."""

from pathlib import Path

import jax
import numpy as np
import pytest

from vsml.launching.schema import load_config
from vsml.learners import Learner, make_learner, run_episode
from vsml.pretrained import load_learner
from vsml.tasks import build_task, load
from vsml.types import Classes, Params

ROOT = Path(__file__).parents[1]
FOUND = ROOT / "docs" / "results" / "graphs.safetensors"
EPISODES = 16


def graphs_of(config: str) -> dict:
    """Return the settings of graphs of a configuration."""
    graph = load_config([ROOT / "configs" / config]).model.vsml.graph
    assert graph is not None
    return graph.model_dump(mode="json")


def accuracy(learner: Learner, params: Params) -> tuple[float, float]:
    """Return the accuracy on examples 81 to 100, and on the last fifth of the held-out digits."""
    task = build_task(load("digits", "test"), episode_length=497, replacement=False)

    @jax.jit
    def right(params, task, keys):
        def of_episode(key):
            episode_key, state_key = jax.random.split(key)
            episode = task.sample(episode_key)
            answers = run_episode(learner, params, state_key, episode)
            return answers.argmax(-1) == episode.y

        return jax.lax.map(of_episode, keys)

    hits = np.asarray(right(params, task, jax.random.split(jax.random.key(0), EPISODES)))
    return hits[:, 80:100].mean(), hits[:, -100:].mean()


@pytest.mark.slow
def test_it_learns_on_kinds_of_graphs_that_it_never_met_as_well_as_on_those_it_met():
    unmet = graphs_of("other_graphs.yaml")
    met = unmet | {"kinds": graphs_of("graphs.yaml")["kinds"]}
    assert {kind["type"] for kind in met["kinds"]}.isdisjoint(kind["type"] for kind in unmet["kinds"])
    at_100 = {}
    last = {}
    for name, graph in (("met", met), ("unmet", unmet)):
        found = load_learner(str(FOUND), input_shape=(8, 8), num_classes=10, model={"vsml": {"graph": graph}})
        at_100[name], last[name] = accuracy(found.learner, found.params)
        # What meta-training started from, on the same episodes and graphs.
        start = make_learner("vsml", found.model.settings, (8, 8), Classes(10))
        before, end = accuracy(start, start.init_params(jax.random.key(0)))
        assert at_100[name] > before + 0.03
        assert last[name] > end - 0.02
    assert last["met"] >= 0.7
    assert last["unmet"] >= 0.9 * last["met"]
    assert at_100["unmet"] >= 0.9 * at_100["met"]
