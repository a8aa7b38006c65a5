"""The inner law: what learners take from examples, beside references that were fitted to the same ones."""

import json
import math

import jax
import numpy as np
import pytest

from vsml.laws.inner import draw_episodes, efficiency, learn
from vsml.laws.inner_report import measure_and_write, task_of
from vsml.laws.references import REFERENCES, best_reference
from vsml.learners import continue_episode, make_learner
from vsml.learners.nearest_mean import NearestMeanConfig
from vsml.losses import loss
from vsml.types import Classes, Episode

QUERIES = 40


@pytest.fixture(scope="module")
def task():
    return task_of("digits", 30 + QUERIES)


@pytest.fixture(scope="module")
def episodes(task):
    return draw_episodes(task, jax.random.key(0), 3)


def nearest_mean(task):
    return make_learner("nearest_mean", NearestMeanConfig(), task.input_shape, task.outputs)


def test_tuning_episodes_are_others_and_no_example_comes_twice(task, episodes):
    tuning = draw_episodes(task, jax.random.key(0), 3, tuning=True)
    assert not np.array_equal(episodes.x, tuning.x)
    for episode in np.asarray(episodes.x):
        assert len(np.unique(episode.reshape(len(episode), -1), axis=0)) == len(episode)


@pytest.mark.slow
def test_a_learner_is_asked_after_n_examples_and_after_each_sight(task, episodes):
    learner, params = nearest_mean(task), {}
    counts, key = [7, 30], jax.random.key(1)
    learned = learn(learner, params, episodes, counts, 2, QUERIES, key)
    keys = jax.random.split(key, 3)
    for number in range(3):
        x, y = episodes.x[number], episodes.y[number]
        for place, count in enumerate(counts):
            state = learner.init_state(params, keys[number], 1)
            part = Episode(x=x[:count], y=y[:count], weight=np.ones((count, 1), np.float32))
            for sight in range(2):
                state, _ = continue_episode(learner, params, state, part)
                logits = learner.predict(params, state, x[-QUERIES:, 0])
                expected = loss(learner.outputs, logits, y[-QUERIES:, 0]).mean()
                assert learned.loss[place, sight, number] == pytest.approx(float(expected), rel=1e-4)


def test_efficiency_is_1_of_the_best_0_of_nothing_and_in_between_in_between():
    best = np.array([0.5, 0.7, 0.6])
    nothing = math.log(10)
    assert efficiency(best, best, 10).value == pytest.approx(1)
    assert efficiency(np.full(3, nothing), best, 10).value == pytest.approx(0)
    half = (best + nothing) / 2
    assert efficiency(half, best, 10).value == pytest.approx(0.5)
    assert efficiency(half, best, 10).half_width == pytest.approx(0, abs=1e-12), "each episode says the same"
    assert efficiency(np.array([0.5]), np.array([0.5]), 10).half_width is None
    with pytest.raises(ValueError, match="nothing to extract"):
        efficiency(best, np.full(3, 3.0), 10)


def clusters(seed, episodes=4, length=60, width=8, distance=6.0):
    """Return episodes of three classes that are far from each other."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, size=(episodes, length, 1))
    centres = distance * rng.normal(size=(episodes, 3, width))
    x = np.take_along_axis(centres, y, axis=1)[:, :, None] + rng.normal(size=(episodes, length, 1, width))
    return Episode(x=x.astype(np.float32), y=y, weight=np.ones(y.shape, np.float32))


@pytest.mark.parametrize("name", REFERENCES)
def test_every_reference_takes_nearly_all_of_classes_that_are_far_apart(name):
    best = best_reference(clusters(0), clusters(1), 20, 30, 3, [name])
    assert best.name == name
    assert best.loss.shape == (4,) and best.loss.mean() < 0.2 and best.accuracy.mean() > 0.95


@pytest.mark.slow
def test_references_know_nothing_of_noise_and_say_so():
    best = best_reference(clusters(0, distance=0.0), clusters(1, distance=0.0), 20, 30, 3)
    assert best.loss.mean() == pytest.approx(math.log(3), abs=0.1)


def test_one_class_alone_is_the_answer():
    episodes = clusters(0)
    only = episodes.replace(y=np.zeros_like(episodes.y))
    assert best_reference(only, only, 5, 30, 3, ["SVC"]).accuracy.mean() == 1


@pytest.mark.slow
def test_results_are_written_row_by_row_and_not_measured_again(tmp_path, capsys):
    settings = {"counts": [5, 30], "sights": 2, "episodes": 2, "queries": 40, "seed": 0}
    measure_and_write(tmp_path, ["nearest_mean"], ["digits"], **settings)
    stored = json.loads((tmp_path / "inner_law.json").read_text())
    best, row = stored["rows"]
    assert best["learner"] == "best" and len(best["references"]) == 2
    assert np.shape(row["efficiency"]) == (2, 2) and 0.2 < row["efficiency"][1][0] < 1.1
    assert row["accuracy"][1][0] > row["accuracy"][0][0] > 0.1
    assert (tmp_path / "inner_law.png").stat().st_size > 5000
    assert "references after" in capsys.readouterr().out
    rows = measure_and_write(tmp_path, ["nearest_mean", "naive_bayes"], ["digits"], **settings)
    assert rows[:2] == [best, row] and rows[2]["learner"] == "naive_bayes"
    assert "references after" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="name another --out"):
        measure_and_write(tmp_path, ["nearest_mean"], ["digits"], **{**settings, "seed": 1})


def test_what_cannot_be_measured_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got 497 held-out examples, expected 500"):
        task_of("digits", 500)
    with pytest.raises(ValueError, match="queries: got 0"):
        measure_and_write(tmp_path, ["sgd"], ["digits"], [5], 1, 1, 0, 0)
    assert isinstance(task_of("digits@4x4", 50).outputs, Classes)
    assert task_of("digits@4x4", 50).input_shape == (4, 4, 1)
