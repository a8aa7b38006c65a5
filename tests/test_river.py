"""RiverClassifier and RiverRegressor: river's own checks, and what comes, goes and is missing in a stream."""

import copy
import importlib
import math
import pickle
import random
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

pytest.importorskip("river")

from river import datasets
from river.checks import yield_checks

from vsml.launching.schema import load_config
from vsml.learners import make_learner
from vsml.learners.growing import FixedOutputsError
from vsml.online import steps
from vsml.online.first import MARKS
from vsml.online.network import OnlineNetwork
from vsml.river import RiverClassifier, RiverRegressor
from vsml.runs.checkpoint import export_params
from vsml.sklearn import VSMLClassifier
from vsml.system.extras import MissingExtraError
from vsml.types import Classes

pytestmark = pytest.mark.usefixtures("hasty")

SMALL = {"units": 8}


def checks():
    """Yield each check of river with a small model; those on long streams are slow."""
    for model in (RiverClassifier(**SMALL), RiverRegressor(**SMALL)):
        for number, check in enumerate(yield_checks(model)):
            marks = [pytest.mark.slow] if check.__name__ == "check_bounded_memory_growth" else []
            name = f"{type(model).__name__}-{check.__name__}-{number}"
            yield pytest.param(model, check, marks=marks, id=name)


@pytest.mark.parametrize(("model", "check"), list(checks()))
def test_river_accepts_it(model, check):
    random.seed(0)
    check(model.clone())


@pytest.fixture(scope="module")
def segments():
    return list(datasets.ImageSegments().take(400))


def accuracy(model, stream):
    """Return the share of right answers, each given before its label was learned."""
    right = []
    for x, y in stream:
        right.append(model.predict_one(x) == y)
        model.learn_one(x, y)
    return np.mean(right)


@pytest.mark.slow
def test_a_stream_of_seven_classes_is_learned_as_they_come(segments):
    model = RiverClassifier()
    assert model.predict_one(segments[0][0]) is None
    assert accuracy(model, segments) > 0.65
    assert len(model.predict_proba_one(segments[0][0])) == 7


def test_a_regressor_is_better_than_the_mean():
    model, total, errors, of_mean = RiverRegressor(), 0.0, [], []
    for t, (x, y) in enumerate(datasets.TrumpApproval().take(400)):
        errors.append(abs(model.predict_one(x) - y))
        of_mean.append(abs(total / max(t, 1) - y))
        model.learn_one(x, y)
        total += y
    assert np.mean(errors[50:]) < 0.7 * np.mean(of_mean[50:])


def test_new_classes_and_features_compile_where_room_doubles_and_else_never():
    def stream(model, classes, features):
        for t in range(classes):
            x = {f"f{k}": math.sin(t + k) for k in range(features)}
            model.predict_one(x)
            model.learn_one(x, t)

    compiled = [function.__wrapped__ for function in (steps.learn_one, steps.answer_one, steps.draw_rows)]
    stream(RiverClassifier(**SMALL), 6, 3)
    before = [function._cache_size() for function in compiled]
    stream(RiverClassifier(**SMALL), 8, 70)
    assert [function._cache_size() for function in compiled] == before
    stream(RiverClassifier(**SMALL), 10, 3)  # beyond 8 outputs the counters are seen to count
    assert [function._cache_size() for function in compiled[:2]] == [count + 1 for count in before[:2]]


def test_what_other_classes_have_learned_stays_when_one_comes(segments):
    model = RiverClassifier()
    known = [(x, y) for x, y in segments if y in ("grass", "path", "sky", "cement")][:120]
    for x, y in known:
        model.learn_one(x, y)
    network = model._network
    before = network.answer(model._features.apply(known[0][0]))
    network.renew(4)  # 4 outputs become 8
    after = network.answer(model._features.apply(known[0][0]))
    assert (len(before), len(after)) == (4, 8)
    np.testing.assert_allclose(after[:4], before, rtol=1e-5, atol=1e-6)


def test_a_new_class_is_learned_late(segments):
    model = RiverClassifier()
    first = [(x, y) for x, y in segments if y != "sky"]
    for x, y in first[:200]:
        model.learn_one(x, y)
    sky = [(x, y) for x, y in segments if y == "sky"]
    for (x, y), other in zip(sky[:20], first[200:220], strict=True):
        model.learn_one(x, y)
        model.learn_one(*other)
    assert np.mean([model.predict_one(x) == y for x, y in sky[20:]]) > 0.8


def test_a_feature_that_is_absent_none_or_nan_is_missing():
    def taught(*absent):
        model = RiverClassifier(**SMALL)
        for t in range(40):
            x = {"a": math.sin(t), "b": math.cos(3 * t), "c": float(t % 5)}
            if t % 3 == 0:
                x = {name: value for name, value in x.items() if name != "b"} | dict(absent)
            model.learn_one(x, t % 2)
        return model.predict_proba_one({"a": 0.3, "c": 1.0} | dict(absent))

    expected = taught()
    assert taught(("b", None)) == expected
    assert taught(("b", float("nan"))) == expected


def test_presence_alone_tells_the_class():
    def example(label):
        x = {"always": random.gauss(0, 1)}
        return (x | {"sometimes": random.gauss(0, 1)} if label else x), label

    random.seed(0)
    stream = [example(random.random() < 0.5) for _ in range(300)]
    model = RiverClassifier()
    accuracy(model, stream[:150])
    assert accuracy(model, stream[150:]) > 0.9


def test_missing_values_of_a_table_tell_the_class():
    draw = np.random.default_rng(0)
    y = draw.integers(0, 2, 200)
    X = draw.normal(size=(200, 3))
    X[y == 1, 1] = np.nan
    classifier = VSMLClassifier().fit(X[:120], y[:120])
    assert classifier.score(X[120:], y[120:]) > 0.9


@pytest.mark.parametrize("kind", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_go_on_alike_and_leave_the_original_alone(kind, segments):
    model = RiverClassifier(**SMALL)
    for x, y in segments[:30]:
        model.learn_one(x, y)
    copied = kind(model)
    before = model.predict_proba_one(segments[40][0])
    for x, y in segments[30:60]:
        copied.learn_one(x, y)
    assert model.predict_proba_one(segments[40][0]) == before
    for x, y in segments[30:60]:
        model.learn_one(x, y)
    assert model.predict_proba_one(segments[70][0]) == copied.predict_proba_one(segments[70][0])


def test_weights_are_repeats_and_0_is_nothing():
    def taught(weights):
        model = RiverClassifier(**SMALL)
        for t, weight in enumerate(weights):
            x = {"a": math.sin(t), "b": math.cos(3 * t)}
            if weight == "twice":
                model.learn_one(x, t % 2)
                model.learn_one(x, t % 2)
            else:
                model.learn_one(x, t % 2, w=weight)
        return model

    ask = {"a": 0.5, "b": 0.1}
    once = taught([1.0] * 12)
    assert taught([1.0] * 12 + [0.0] * 3).predict_proba_one(ask) == once.predict_proba_one(ask)
    half = taught([1.0] * 11 + [0.5]).predict_proba_one(ask)
    assert half != once.predict_proba_one(ask)
    twice = taught([1.0] * 11 + ["twice"])
    weighted = taught([1.0] * 11 + [2])
    assert weighted.predict_proba_one(ask) == twice.predict_proba_one(ask)
    with pytest.raises(ValueError, match="sample_weight: got -1"):
        once.learn_one(ask, 0, w=-1)


def test_memory_is_bounded_by_features_and_classes():
    model = RiverClassifier(**SMALL, max_features=20, max_classes=3)
    with pytest.warns(UserWarning, match=r"max_features: got the feature 'f20' beside 20 others"):
        model.learn_one({f"f{k:02}": float(k) for k in range(25)}, "a")
    for label in "bc":
        model.learn_one({"f00": 1.0, "other": 2.0}, label)
    assert len(model._features.slots) == 20
    before = model.predict_proba_one({"f00": 1.0})
    with pytest.raises(
        ValueError, match=r"y: got the new label 'd' beside 3 others, expected at most max_cl"
    ):
        model.learn_one({"f00": 1.0}, "d")
    assert model.predict_proba_one({"f00": 1.0}) == before


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({"a": "red"}, "got 'red' as feature 'a', expected a number.*OneHotEncoder"),
        ({"a": math.inf}, "got inf as feature 'a', expected a finite number"),
    ],
)
def test_what_is_no_number_is_refused_and_changes_nothing(x, message):
    model = RiverClassifier(**SMALL)
    for t in range(5):
        model.learn_one({"a": float(t)}, t % 2)
    before = pickle.dumps(model)
    for use in (model.predict_one, lambda x: model.learn_one(x, 1)):
        with pytest.raises(ValueError, match=message):
            use(x)
    assert pickle.dumps(model) == before


def test_settings_out_of_range_are_refused():
    for settings in ({"units": 0}, {"max_features": 0}, {"max_classes": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(settings))}: got 0, expected at least 1"):
            RiverClassifier(**settings)
    with pytest.raises(ValueError, match="y: got nan, expected a finite number"):
        RiverRegressor().learn_one({"a": 1.0}, math.nan)


def test_a_learner_with_fixed_outputs_knows_two_classes_and_says_so_at_a_third(tmp_path):
    config = load_config(overrides=["model.type=meta_rnn", "model.meta_rnn.hidden_size=4"])
    params = make_learner("meta_rnn", config.model.meta_rnn, (8,), 2).init_params(jax.random.key(0))
    export_params(tmp_path / "rnn.safetensors", params, {"config": config.model_dump(mode="json")})
    model = RiverClassifier(str(tmp_path / "rnn.safetensors"), units=8)
    for label in ("a", "b", "a"):
        model.learn_one({"x": 1.0}, label)
    with pytest.raises(FixedOutputsError, match="MetaRnn: got a class that is new"):
        model.learn_one({"x": 1.0}, "c")
    assert set(model.predict_proba_one({"x": 1.0})) == {"a", "b"}


def test_without_river_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "river", None)
    monkeypatch.delitem(sys.modules, "vsml.river")
    with pytest.raises(MissingExtraError, match=r'river, not installed here; .* "vsml\[river\]"'):
        importlib.import_module("vsml.river")


def test_the_page_on_streams_does_what_it_says(capsys):
    page = (Path(__file__).parents[1] / "docs" / "streaming.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(block, {})
    score, answer, value = capsys.readouterr().out.splitlines()
    assert float(re.fullmatch(r"Accuracy: ([\d.]+)%", score)[1]) > 60
    assert answer.startswith(("cat {", "mouse {"))
    assert float(value)


def test_first_examples_are_learned_anew_by_what_is_known_of_features():
    rows = [{"a": float(t % 5), "b": 3.0 * t, "c": float(t % 3) if t > 4 else None} for t in range(MARKS[-1])]
    model = RiverClassifier(units=16)
    for t, row in enumerate(rows[:16]):
        model.learn_one(row, t % 2)
    known = OnlineNetwork("combined", None, 16, Classes(2), 0)
    assert model._features._relevance is not None
    for t, row in enumerate(rows[:16]):
        known.learn(model._features.known(row), np.int32(t % 2))
    asked = model._features.apply(rows[20])
    np.testing.assert_array_equal(model._network.answer(asked), known.answer(asked))
    model.learn_one(rows[16], 0)
    again = pickle.loads(pickle.dumps(model))
    for t, row in enumerate(rows[17:], start=17):
        model.learn_one(row, t % 2)
        again.learn_one(row, t % 2)
    assert model.predict_proba_one(rows[3]) == again.predict_proba_one(rows[3])
    assert model._first is None and len(rows) == 256


def test_a_label_whose_example_was_refused_is_no_class(monkeypatch):
    model = RiverClassifier(units=16)
    model.learn_one({"a": 1.0}, "p")

    def refuse(self, examples):
        raise ValueError("not finite")

    with monkeypatch.context() as patched:
        patched.setattr(OnlineNetwork, "learn_anew", refuse)
        with pytest.raises(ValueError, match="not finite"):
            model.learn_one({"a": 2.0}, "q")
    assert model._features._relevance is None  # weights that nothing was learned by are not kept
    model.learn_one({"a": 3.0}, "z")
    assert list(model.predict_proba_one({"a": 1.0})) == ["p", "z"]
    assert [int(output) for _, output, _ in model._first] == [0, 1]
