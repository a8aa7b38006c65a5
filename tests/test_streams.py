"""Long streams: what tasks have in common and what not, lives that go on exactly, and the call."""

import itertools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_files import write_data_root

from vsml import learners
from vsml.config.files import ConfigError
from vsml.evaluation.stream_scores import StreamScore, scores_table
from vsml.evaluation.streaming import Lives, seed_keys
from vsml.launching import run as launch
from vsml.learners.memory import StateFloats
from vsml.learners.sgd import SgdConfig
from vsml.tasks import Dataset, build_task
from vsml.tasks.streams import STREAMS, EpisodeStream, Gaussians, SlowBits
from vsml.tasks.streams.gaussians import GaussiansConfig
from vsml.tasks.streams.slow_bits import SlowBitsConfig
from vsml.types import Classes

pytestmark = pytest.mark.usefixtures("hasty")

KEY = jax.random.key(3)


def task_of(stream, number, key=KEY):
    return jax.jit(lambda stream, key, number: stream.task(key, number))(stream, key, jnp.int32(number))


def drawings(n=40):
    """Make a data set whose image i has i in its upper left corner, else random bytes."""
    images = np.random.default_rng(0).integers(0, 256, (n, 3, 3, 1), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(n)
    labels = jnp.arange(n, dtype=jnp.int32) % 4
    return Dataset(jnp.asarray(images), labels, "drawings", 4)


# What streams show.


def test_each_task_of_permuted_images_has_one_order_of_its_own_and_new_examples():
    task = build_task(drawings(), 20, normalize=False, shuffle=True, replacement=False)
    stream = EpisodeStream(distribution=task, name="drawings")
    plain = EpisodeStream(
        distribution=build_task(drawings(), 20, normalize=False, replacement=False), name="drawings"
    )
    orders = []
    for number in (0, 1):
        shown = np.asarray(task_of(stream, number).x).reshape(20, 9)
        original = np.asarray(task_of(plain, number).x).reshape(20, 9)
        assert not np.array_equal(shown, original)
        (order,) = np.nonzero((shown[:, None, :] == original[:, :, None]).all(0).any(1))
        assert len(order) == 9, "some pixel is not where one order has it"
        orders.append([np.flatnonzero((shown == original[:, [pixel]]).all(0))[0] for pixel in range(9)])
    assert orders[0] != orders[1]
    assert not np.array_equal(task_of(plain, 0).x, task_of(plain, 1).x)


def slow_bits(**settings):
    return SlowBits(config=SlowBitsConfig(task_length=50, **settings))


@pytest.mark.parametrize("change", ["redraw", "flip"])
def test_slow_bits_stay_within_a_task_and_change_between_tasks(change):
    stream = slow_bits(change=change)
    slow = []
    for number in range(4):
        x = np.asarray(task_of(stream, number).x).reshape(50, 20)
        assert set(np.unique(x)) == {0, 1}
        assert (x[:, :15] == x[0, :15]).all() and not (x[:, 15:] == x[0, 15:]).all()
        slow.append(x[0, :15])
    flips = [int((a != b).sum()) for a, b in itertools.pairwise(slow)]
    assert flips == [1, 1, 1] if change == "flip" else min(flips) > 1


def test_the_target_is_a_network_of_threshold_units_that_stays():
    """Weights are recovered from nothing but the definition: the same numbers give the same targets."""
    stream = slow_bits()
    keys = jax.random.split(jax.random.fold_in(KEY, 0), 4)
    w = np.asarray(jax.random.rademacher(keys[0], (20, 100)), int)
    b = np.asarray(jax.random.rademacher(keys[1], (100,)), int)
    v = np.asarray(jax.random.rademacher(keys[2], (100,)), int)
    c = int(jax.random.rademacher(keys[3], ()))
    for number in (0, 3):
        episode = task_of(stream, number)
        x = np.asarray(episode.x).reshape(50, 20)
        expected = []
        for example in x:
            total = c
            for unit in range(100):
                negative = (20 - w[:, unit].sum() + b[unit]) / 2
                is_on = example @ w[:, unit] + b[unit] > 0.7 * 21 - negative
                total += v[unit] * is_on
            expected.append(total)
        assert np.array_equal(np.asarray(episode.y)[:, 0, 0], expected)


def gaussians(**settings):
    return Gaussians(config=GaussiansConfig(task_length=4000, inputs=6, classes=4, spread=1.0, **settings))


def test_the_bayes_accuracy_is_what_the_best_answers_reach():
    """The Bayes answer by its definition: the class with the largest density, component by component."""
    stream = gaussians()
    episode = task_of(stream, 2)
    x, y = np.asarray(episode.x).reshape(4000, 6), np.asarray(episode.y)[:, 0]
    centres = np.asarray(jax.random.normal(jax.random.fold_in(KEY, 0), (4, 2, 6)))
    distances = np.square(x[:, None, None, :] - centres).sum(-1)
    density = np.exp(-distances / 2).sum(-1)
    reached = (density.argmax(1) == y).mean()
    assert 0.5 < reached < 0.99
    assert float(stream.best_score(KEY, jnp.int32(2))) == pytest.approx(reached, abs=0.02)


def test_tasks_that_recur_have_the_same_order_and_others_do_not():
    stream = gaussians(permute_inputs=True, recur=2)
    means = [np.asarray(task_of(stream, number).x).reshape(4000, 6).mean(0) for number in range(3)]
    assert np.allclose(means[0], means[2], atol=0.15) and not np.allclose(means[0], means[1], atol=0.15)


def test_permuted_labels_and_scales_differ_from_task_to_task_alone():
    plain, changed = gaussians(), gaussians(permute_labels=True, scale=10.0)
    for number in range(2):
        before, after = task_of(plain, number), task_of(changed, number)
        ratio = np.asarray(after.x) / np.asarray(before.x)
        assert np.allclose(ratio, ratio.ravel()[0], rtol=1e-4) and 0.1 <= ratio.ravel()[0] <= 10
        pairs = set(
            zip(np.asarray(before.y).ravel().tolist(), np.asarray(after.y).ravel().tolist(), strict=True)
        )
        assert len(pairs) == 4, "not one number for each class"


def test_every_kind_of_stream_is_named_once_and_says_whether_it_needs_data():
    assert list(STREAMS) == ["episodes", "slow_bits", "gaussians"]
    assert [STREAMS[name]().needs_data for name in STREAMS] == [True, False, False]


# Lives.


def a_life(length=60, **identity):
    stream = Gaussians(config=GaussiansConfig(task_length=length, inputs=4, classes=3, permute_inputs=True))
    learner = learners.Sgd(stream.input_shape, stream.outputs, SgdConfig(learning_rate=0.1))
    return Lives(learner, stream, seed_keys(3, 2), {}, {"learner": "sgd", **identity})


def test_a_life_that_was_interrupted_is_the_same_to_the_bit(tmp_path):
    whole = a_life()
    whole.go_on(4)
    first = a_life()
    first.go_on(2)
    first.save(tmp_path / "life")
    second = a_life()
    assert second.restore(tmp_path / "life") and second.done == 2
    second.go_on(4)
    assert jax.tree.all(jax.tree.map(np.array_equal, second.states, whole.states))
    assert all(np.array_equal(second.sums[name], whole.sums[name]) for name in whole.sums)


def test_the_first_of_two_lives_is_as_it_is_alone():
    both = a_life()
    alone = Lives(both.learner, both.stream, both.keys[:1], {}, {})
    for lives in (both, alone):
        lives.go_on(2)
    assert np.allclose(both.sums["loss"][:, :1], alone.sums["loss"], rtol=1e-4)
    assert not np.allclose(both.sums["loss"][:, 0], both.sums["loss"][:, 1], rtol=1e-2)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path):
    life = a_life()
    for tasks in (1, 2):
        life.go_on(tasks)
        life.save(tmp_path / "life")
    (tmp_path / "life" / "step_00000002.safetensors").write_bytes(b"cut short")
    again = a_life()
    with pytest.warns(UserWarning, match="damaged"):
        assert again.restore(tmp_path / "life")
    assert again.done == 1


def test_a_life_of_other_settings_is_refused(tmp_path):
    life = a_life()
    life.go_on(1)
    life.save(tmp_path / "life")
    with pytest.raises(ConfigError, match=r"evaluation.seed: got 5, expected None as in .*life"):
        a_life(**{"evaluation.seed": 5}).restore(tmp_path / "life")


def test_a_learner_lives_on_from_task_to_task():
    """Tasks that are all alike are learned further; a learner that began anew would not get better."""
    stream = Gaussians(config=GaussiansConfig(task_length=30, inputs=8, classes=3, spread=1.0))
    learner = learners.Sgd(stream.input_shape, stream.outputs, SgdConfig(learning_rate=0.01))
    life = Lives(learner, stream, seed_keys(3, 2), {}, {})
    life.go_on(30)
    by_task = life.sums["score"].sum((1, 2)) / life.sums["weight"].sum((1, 2))
    assert by_task[-10:].mean() > by_task[:3].mean() + 0.1
    assert by_task[-10:].mean() <= life.sums["best"][-10:].mean() + 0.05


# Scores.


def test_scores_are_weighted_means_and_published_numbers_stand_beside_them():
    sums = {
        "score": np.array([[[1.0, 2.0]], [[3.0, 4.0]]], np.float32),
        "weight": np.full((2, 1, 2), 4, np.float32),
        "loss": np.zeros((2, 1, 2), np.float32),
        "nonfinite": np.zeros((2, 1), np.int32),
        "best": np.full((2, 1), 0.9, np.float32),
    }
    score = StreamScore("one", "a", Classes(2), 8, StateFloats(7), sums, 2.0)
    row = score.summary()
    assert row["score"] == pytest.approx(10 / 16) and row["examples"] == 16 and row["state"] == 7
    assert row["first_tasks"] == pytest.approx(3 / 8) and row["last_tasks"] == pytest.approx(7 / 8)
    assert row["end_of_task"] == pytest.approx(6 / 8)
    published = [{"name": "theirs", "value": 0.5, "mark": "R", "note": None, "stream": None}]
    texts = [" ".join(row) for row in scores_table([row], published).texts()]
    assert "0.625" in texts[0] and "here, 2 tasks, 1 seed" in texts[0]
    assert "Bayes" in texts[1] and "0.900" in texts[1]
    assert "theirs 0.500" in texts[2] and "R: read in the source" in texts[2]


# The call.


@pytest.fixture
def words(tmp_path, monkeypatch):
    write_data_root(tmp_path / "root")
    monkeypatch.setenv("VSML_CACHE_DIR", str(tmp_path / "cache"))
    entries = [{"name": "sgd", "model": {"type": "sgd"}}, {"name": "floor", "model": {"type": "floor"}}]
    settings = [
        "call=stream",
        f"data.root={tmp_path / 'root'}",
        "data.verify=false",
        "data.preprocess={normalize: false, range: [-1, 1], shuffle: true}",
        "evaluation.datasets=[mnist]",
        "evaluation.subset=train",
        "evaluation.episode_length=10",
        f"evaluation.learners={json.dumps(entries)}",
        "stream.tasks=2",
        "stream.seeds=2",
        "stream.published=[{name: theirs, value: 0.5, mark: P}]",
        "tracking.wandb.mode=disabled",
    ]
    return ["--run_dir", str(tmp_path / "run"), "--config", *settings]


def test_a_run_writes_table_figure_and_numbers_and_can_be_made_longer(words, tmp_path, capsys):
    run = tmp_path / "run"
    assert launch.main(words) == 0
    found = json.loads((run / "stream.json").read_text())
    assert [row["learner"] for row in found["measured"]] == ["sgd", "floor"]
    assert all(row["tasks"] == 2 and row["seeds"] == 2 and row["examples"] == 20 for row in found["measured"])
    assert (run / "streams.png").exists() and "| theirs |" in (run / "stream.md").read_text()
    before = np.load(run / "stream.npz")["sgd/mnist/by_task"]
    assert launch.main(["--resume", str(run), "--config", "stream.tasks=3"]) == 0
    assert "goes on from task 2" in capsys.readouterr().out
    after = np.load(run / "stream.npz")["sgd/mnist/by_task"]
    assert after.shape == (2, 3) and np.array_equal(after[:, :2], before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["stream.kind=slow_bits"], r"evaluation.datasets: got \['mnist'\], expected \[\], as slow_bits are"),
        (["evaluation.datasets=[]"], r"evaluation.datasets: got .*, expected one or more, of which episodes"),
        (["stream.only=[adam]"], "stream.only: got 'adam', expected one of sgd, floor"),
        (
            ["stream.kind=slow"],
            "stream.kind.type: got 'slow', expected one of episodes, slow_bits, gaussians",
        ),
        (["evaluation.batch_size=2"], "evaluation.batch_size: got 2, expected 1 with call: stream"),
    ],
)
def test_what_cannot_be_is_refused_with_its_setting(words, settings, message, capsys):
    assert launch.main([*words, *settings]) == 2
    assert re.search(message, capsys.readouterr().err)
