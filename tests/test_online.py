"""Online estimators: missing values, weights, classes that come later, and older files."""

import functools
import pickle
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn.datasets import make_blobs

from vsml.learners.growing import FixedOutputsError
from vsml.online.estimator import _has_nan
from vsml.online.first import MARKS
from vsml.online.relevance import relevance_of
from vsml.online.standardise import RunningStatistics
from vsml.online.steps import start_again
from vsml.sklearn import VSMLClassifier, VSMLRegressor

pytestmark = pytest.mark.usefixtures("hasty")

BEFORE = Path(__file__).parent / "golden" / "estimators"
SMALL = {"units": 8, "model": {"vsml": {"random_features": {"count": 8}}}}


def blobs(n=40, features=4, classes=3):
    return make_blobs(n, features, centers=classes, random_state=0)


def small():
    return VSMLClassifier(**SMALL)


def equal(left, right):
    """Return whether all bits are the same; early examples have NaN where a value was missing."""
    same = functools.partial(np.array_equal, equal_nan=True)
    return jax.tree.all(jax.tree.map(same, left.learned_, right.learned_))


# Missing values.


def holed(n=40):
    """Return examples of which the first 10 are whole."""
    X, y = blobs(n)
    missing = np.random.default_rng(0).random(X.shape) < 0.2
    missing[:10] = False
    return np.where(missing, np.nan, X), y


def test_before_the_first_missing_value_nothing_is_different():
    X, y = holed()
    assert "missing" not in small().fit(X[:10], y[:10]).learned_
    with_later = small().partial_fit_predict(X, y, classes=[0, 1, 2])
    alone = small().partial_fit_predict(X[:10], y[:10], classes=[0, 1, 2])
    assert with_later[:10].tolist() == alone.tolist()


def test_with_missing_values_the_cut_changes_no_bit_and_answers_are_those_of_predict():
    X, y = holed()
    whole, single = small(), small()
    answers = whole.partial_fit_predict(X, y, classes=[0, 1, 2])
    single.partial_fit(X[:1], y[:1], classes=[0, 1, 2])
    asked = []
    for t in range(1, len(X)):
        asked.append(single.predict(X[t : t + 1])[0])
        single.partial_fit(X[t : t + 1], y[t : t + 1])
    assert equal(whole, single)
    assert answers[1:].tolist() == asked


def test_the_indicator_is_whether_it_is_missing_minus_how_often_so_far():
    X, y = holed()
    classifier = small().fit(X, y)
    first = int(np.isnan(X).any(1).argmax())
    known = classifier.learned_["missing"]
    assert known["examples"] == len(X) - first
    assert known["absent"].tolist() == np.isnan(X).sum(0).tolist()
    x = X[first : first + 1]
    classifier.partial_fit(x, y[first : first + 1])
    share = (known["absent"] + np.isnan(x)[0]) / (known["examples"] + 1)
    entering = small().fit(X, y)._take_in(x, None)
    np.testing.assert_allclose(entering[0, 256:260], np.isnan(x)[0] - share, rtol=1e-6)
    assert not entering[0, 260:].any()


@pytest.mark.parametrize("scale", ["feature", "all", "none"])
def test_what_is_missing_tells_the_class(scale):
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 200)
    X = random.normal(size=(200, 3))
    X[y == 1, 1] = np.nan
    classifier = VSMLClassifier(scale=scale).fit(X[:140], y[:140])
    assert classifier.score(X[140:], y[140:]) > 0.9


def test_a_regressor_takes_missing_values_and_is_saved_with_them(tmp_path):
    X, _ = holed()
    target = np.nan_to_num(X) @ [1.0, 2.0, 0.0, -1.0]
    regressor = VSMLRegressor(units=8).fit(X, target)
    regressor.save(tmp_path / "it.safetensors")
    loaded = VSMLRegressor.load(tmp_path / "it.safetensors")
    assert np.array_equal(loaded.predict(X), regressor.predict(X))
    assert np.isfinite(regressor.predict(X)).all()
    assert equal(loaded.partial_fit(X, target), regressor.partial_fit(X, target))


def test_infinite_inputs_are_refused_still():
    X, y = blobs()
    X[3, 1] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        small().fit(X, y)


# Weights.


def test_integer_weights_are_repeats():
    X, y = blobs(20)
    weights = np.arange(20) % 3
    weighted = small().partial_fit(X, y, classes=[0, 1, 2], sample_weight=weights)
    repeated = small().partial_fit(X.repeat(weights, 0), y.repeat(weights), classes=[0, 1, 2])
    ask = X + 0.1
    np.testing.assert_allclose(weighted.predict_proba(ask), repeated.predict_proba(ask), rtol=1e-5)
    assert np.array_equal(weighted.learned_["statistics"]["total"], repeated.learned_["statistics"]["total"])
    target = X.sum(1)
    one = VSMLRegressor(units=8).fit(X, target, sample_weight=weights)
    other = VSMLRegressor(units=8).fit(X.repeat(weights, 0), target.repeat(weights))
    np.testing.assert_allclose(one.predict(ask), other.predict(ask), rtol=1e-4, atol=1e-4)


def test_an_example_of_weight_0_is_answered_and_leaves_no_trace():
    X, y = holed()
    weights = np.ones(len(X))
    weights[::4] = 0
    weighted, rest = small(), small()
    answers = weighted.partial_fit_predict(X, y, [0, 1, 2], weights)
    taught = rest.partial_fit_predict(X[weights > 0], y[weights > 0], [0, 1, 2], weights[weights > 0])
    assert answers[weights > 0].tolist() == taught.tolist()
    assert equal(weighted, rest)
    before = {name: np.copy(value) for name, value in weighted.learned_["statistics"].items()}
    weighted.partial_fit(X[:1] * 100, y[:1], sample_weight=[0.0])
    assert all(
        np.array_equal(before[name], weighted.learned_["statistics"][name], equal_nan=True) for name in before
    )


def test_a_fraction_teaches_between_nothing_and_once():
    X, y = blobs(30)
    classifier = VSMLClassifier().fit(X, y)
    example, label = np.array([[0.0, 0, 0, 0]]), [2]

    def after(weight):
        copied = pickle.loads(pickle.dumps(classifier))
        for _ in range(3):
            copied.partial_fit(example, label, sample_weight=weight)
        return copied.decision_function(example)[0]

    logits = [after(weight) for weight in (0.0, 0.5, 1.0)]
    gains = [each[2] - each[:2].max() for each in logits]
    assert gains[0] < gains[1] < gains[2]


def test_weights_out_of_range_are_refused():
    X, y = blobs(10)
    for weights, message in [
        (-np.ones(10), "got -1.0 at example 0"),
        (np.full(10, np.nan), "got nan at example 0"),
        (np.full(10, 1e6), "expected 0 to 1000, .* divide weights by their mean"),
        (np.ones(9), r"got shape \(9,\), expected \(10,\)"),
        (np.zeros(10), "got 0 for all examples"),
    ]:
        with pytest.raises(ValueError, match=message):
            small().fit(X, y, sample_weight=weights)


# Classes.


@pytest.mark.slow
def test_classes_come_later_and_get_outputs_by_doubling():
    X, y = blobs(60, classes=5)
    classifier = small()
    classifier.partial_fit(X[y == 3][:1], [3])
    assert classifier.predict(X).tolist() == [3] * 60
    rooms = []
    for label in (1, 4, 0, 2):
        classifier.partial_fit(X[y == label], y[y == label])
        rooms.append(classifier._room)
        assert classifier.predict_proba(X).shape == (60, len(classifier.classes_))
    assert rooms == [2, 4, 4, 8]
    assert classifier.classes_.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(classifier.predict_proba(X).sum(1), 1, rtol=1e-5)


def test_growing_leaves_what_other_classes_have_learned():
    X, y = blobs(60)
    X_more, y_more = blobs(60, classes=4)
    for known in ([0, 1, 2], None):  # all outputs taken, and one spare
        classifier = small().partial_fit(X, y, classes=known)
        before = classifier.decision_function(X)
        classifier.partial_fit(X_more[y_more == 3][:1], [3], sample_weight=[0.0])
        assert classifier.classes_.tolist() == [0, 1, 2, 3]
        np.testing.assert_allclose(classifier.decision_function(X)[:, :3], before, rtol=1e-5, atol=1e-6)


def test_a_class_that_comes_late_is_learned_nearly_as_one_that_was_announced():
    X, y = make_blobs(300, 4, centers=4, cluster_std=2.0, random_state=1)
    order = np.argsort(y == 3, kind="stable")  # class 3 comes last
    X, y = X[order], y[order]
    late = VSMLClassifier().partial_fit(X[y < 3], y[y < 3])
    announced = VSMLClassifier().partial_fit(X[y < 3], y[y < 3], classes=[0, 1, 2, 3])
    draw = np.random.default_rng(0)
    mixed = draw.permutation(np.concatenate([np.flatnonzero(y == 3)[:30], draw.choice(225, 30)]))
    rest = np.flatnonzero(y == 3)[30:]
    for each in (late, announced):
        each.partial_fit(X[mixed], y[mixed])
    assert late.score(X[rest], y[rest]) > 0.9
    assert late.score(X, y) > announced.score(X, y) - 0.05


def test_labels_that_are_words_grow_longer():
    X, y = blobs(20)
    words = np.array(["ash", "elm", "horse chestnut"])[y]
    classifier = small().partial_fit(X[y < 2], words[y < 2])
    classifier.partial_fit(X, words)
    assert set(classifier.predict(X).tolist()) <= {"ash", "elm", "horse chestnut"}
    assert classifier.classes_.tolist() == ["ash", "elm", "horse chestnut"]


def test_a_classifier_with_classes_that_came_later_is_saved_and_pickled(tmp_path):
    X, y = blobs(40, classes=5)
    classifier = small()
    for label in (4, 2, 0, 1):
        classifier.partial_fit(X[y == label], y[y == label])
    classifier.save(tmp_path / "it.safetensors")
    for copied in (
        VSMLClassifier.load(tmp_path / "it.safetensors"),
        pickle.loads(pickle.dumps(classifier)),
    ):
        assert copied.predict_proba(X).tolist() == classifier.predict_proba(X).tolist()
        again = pickle.loads(pickle.dumps(classifier)).partial_fit(X, y)
        assert equal(copied.partial_fit(X, y), again)


@pytest.mark.slow
def test_learners_with_fixed_outputs_refuse_new_classes_in_words():
    X, y = blobs(20)
    fixed = VSMLClassifier("rule:backprop", units=4)
    fixed.partial_fit(X[y < 2], y[y < 2])
    before = fixed.predict_proba(X)
    with pytest.raises(FixedOutputsError, match="name all classes at the first call"):
        fixed.partial_fit(X, y)
    assert np.array_equal(fixed.predict_proba(X), before)


# Older files, from before there were missing values, weights and new classes.


def test_older_pickles_and_files_go_on():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, where its own version differs
        held = pickle.loads((BEFORE / "estimators.pickle").read_bytes())
    X, expected = held["X"], held["expected"]
    classifier = VSMLClassifier.load(BEFORE / "classifier.safetensors")
    regressor = VSMLRegressor.load(BEFORE / "regressor.safetensors")
    for each in (held["c"], classifier):
        np.testing.assert_allclose(each.predict_proba(X), expected["c"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(held["e"].predict_proba(X), expected["e"], rtol=1e-4, atol=1e-6)
    for each in (held["r"], regressor):
        np.testing.assert_allclose(each.predict(X), expected["r"], rtol=1e-4)
        each.partial_fit(X, X[:, 0])
    assert equal(held["r"], regressor)
    X_holed = X.copy()
    X_holed[::3, 1] = np.nan
    for each in (held["c"], classifier):
        each.partial_fit(X_holed, ["d"] * len(X))  # a new class, and missing values
    assert classifier.classes_.tolist() == ["a", "b", "c", "d"]


# One row at a time, which is checked quickly.


@pytest.mark.parametrize(
    "form",
    [list, np.float32, np.asfortranarray, lambda rows: rows[:, ::-1][:, ::-1]],
    ids=["lists", "float32", "by columns", "a view"],
)
def test_inputs_of_any_form_are_answered_alike(form):
    X, y = blobs()
    # Numbers that float32 holds, too.
    X = np.round(X * 8) / 8
    classifier = small().fit(X, y)
    given = form(X) if form is list else np.asarray(form(X))
    assert np.array_equal(classifier.predict_proba(given), classifier.predict_proba(X))


@pytest.mark.parametrize("labels", [list, lambda y: np.array(y, np.int8), lambda y: np.array(y, float)])
def test_labels_of_any_form_are_learned_alike(labels):
    X, y = blobs()
    plain, other = small().fit(X, y), small().fit(X, y)
    plain.partial_fit(X[:1], y[:1])
    other.partial_fit(X[:1], labels(y[:1]))
    assert equal(plain, other)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda row: row[:, :3], "expecting 4 features"),
        (lambda row: row[0], "Expected 2D array"),
        (lambda row: row[:0], "0 sample"),
        (lambda row: row * np.inf, "infinity"),
    ],
    ids=["features", "axes", "none", "infinite"],
)
def test_a_row_of_another_form_is_refused_in_words(spoil, message):
    X, y = blobs()
    classifier = small().fit(X, y)
    with pytest.raises(ValueError, match=message):
        classifier.predict(spoil(X[:1]))
    with pytest.raises(ValueError, match=message):
        classifier.partial_fit(spoil(X[:1]), y[:1])


def test_as_many_labels_as_rows_are_asked_for():
    X, y = blobs()
    classifier = small().fit(X, y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        classifier.partial_fit(X[:1], y[:2])


@pytest.mark.parametrize("values", [list, lambda y: y[:, None], lambda y: y.astype(np.float32)])
def test_values_of_any_form_are_learned_alike(values):
    X, y = blobs()
    plain, other = VSMLRegressor(units=8).fit(X, y), VSMLRegressor(units=8).fit(X, y)
    plain.partial_fit(X[:1], y[:1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, of a column
        other.partial_fit(X[:1], values(y[:1]))
    assert equal(plain, other)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_refused(value):
    X, y = blobs()
    regressor = VSMLRegressor(units=8).fit(X, y)
    with pytest.raises(ValueError, match="y contains"):
        regressor.partial_fit(X[:1], [value])


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([1.0, 2.0], False),
        ([1.0, np.nan], True),
        ([np.inf, -np.inf], False),
        ([3e38, 3e38], False),
        ([3e38, 3e38, np.nan], True),
    ],
)
def test_numbers_that_are_no_numbers_are_found_whatever_their_sum(numbers, expected):
    assert _has_nan(np.array(numbers, np.float32)) is expected


# The first examples, which are learned anew.


@pytest.mark.parametrize("count", MARKS)
def test_at_marks_all_is_as_if_means_and_deviations_had_been_known(count):
    X, y = blobs(MARKS[-1])
    classifier = small().partial_fit(X[:count], y[:count], classes=[0, 1, 2])
    statistics = RunningStatistics(**classifier.learned_["statistics"])
    standard = statistics.known(X[:count])
    weights = relevance_of(standard, y[:count], np.ones(count))
    known = VSMLClassifier(**SMALL, scale="none")
    known.partial_fit(standard * weights, y[:count], classes=[0, 1, 2])
    assert jax.tree.all(jax.tree.map(np.array_equal, classifier.learned_["state"], known.learned_["state"]))
    assert "first" not in known.learned_
    assert ("first" in classifier.learned_) == (count < MARKS[-1])
    if count > 4:  # of 4 rows one may be put at the bound, which moves the mean
        np.testing.assert_allclose(standard.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(standard.std(0), 1, atol=0.15)  # those far out are at the bound


# Relevance.


def test_features_that_tell_classes_apart_count_more():
    random = np.random.default_rng(0)
    y = np.arange(200) % 2
    x = random.normal(size=(200, 12))
    x[:, 0] += 2 * y
    x[:, 1] = 0.0
    weights = relevance_of(x, y, np.ones(200))
    varies = np.arange(12) != 1
    assert weights[1] == 1
    assert np.square(weights[varies]).mean() == pytest.approx(1, rel=1e-5)
    assert weights[0] > 2.5 * weights[2:].max()
    # No feature is left out: none weighs less than a share of the largest one.
    assert weights.min() > 0.29 * weights[0]
    twice = relevance_of(np.concatenate([x, x[:50]]), np.concatenate([y, y[:50]]), np.ones(250))
    counted = relevance_of(x, y, np.where(np.arange(200) < 50, 2.0, 1.0))
    np.testing.assert_allclose(counted, twice, rtol=1e-6)


def test_where_nothing_is_known_all_features_weigh_the_same():
    random = np.random.default_rng(0)
    x = random.normal(size=(6, 3))
    np.testing.assert_allclose(relevance_of(x, np.zeros(6, int), np.ones(6)), 1, rtol=1e-5)
    np.testing.assert_allclose(relevance_of(x[:2], np.array([0, 1]), np.ones(2)), 1, rtol=1e-5)
    np.testing.assert_allclose(relevance_of(np.zeros((4, 3)), np.arange(4) % 2, np.ones(4)), 1)


def test_columns_of_noise_cost_less_than_without_weights(monkeypatch):
    random = np.random.default_rng(1)
    y = np.arange(260) % 2
    X = random.normal(size=(260, 42))
    X[:, :2] += 2.0 * y[:, None]
    settings = {"learner": "general", "random_state": 0}
    weighed = VSMLClassifier(**settings).partial_fit(X[:130], y[:130]).score(X[130:], y[130:])
    with monkeypatch.context() as patched:
        patched.setattr("vsml.online.estimator.relevance_of", lambda x, *_: np.ones(x.shape[1], np.float32))
        plain = VSMLClassifier(**settings).partial_fit(X[:130], y[:130]).score(X[130:], y[130:])
    assert weighed > plain + 0.03


def test_features_that_go_with_values_count_more():
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 12))
    y = np.stack([x[:, 0] + random.normal(size=200), -x[:, 2] + random.normal(size=200)], axis=1)
    weights = relevance_of(x, y, np.ones(200))
    others = np.delete(np.arange(12), [0, 2])
    assert weights[[0, 2]].min() > 2 * weights[others].max()
    assert weights.min() > 0.29 * weights.max()
    # It is the squared correlation, less what chance makes of it.
    squared = np.array([[np.corrcoef(x[:, j], y[:, k])[0, 1] ** 2 for k in range(2)] for j in range(12)])
    excess = np.maximum((squared.mean(1) - 1 / 199) / (1 - 1 / 199), 0)
    expected = np.sqrt(excess + (0.1 + 1 / 200) * excess.max())
    np.testing.assert_allclose(weights, expected / np.sqrt(np.square(expected).mean()), rtol=1e-5)
    # Neither units nor signs of values matter, and missing ones count for nothing.
    np.testing.assert_allclose(relevance_of(x, [3, -7] * y + 5, np.ones(200)), weights, rtol=1e-5)
    absent = np.zeros(x.shape, bool)
    absent[:, 0] = random.random(200) < 0.5
    told = relevance_of(np.where(absent, 0.0, x), y, np.ones(200), absent)
    known = relevance_of(x[~absent[:, 0]], y[~absent[:, 0]], np.ones((~absent[:, 0]).sum()))
    assert told[0] > 2 * told[others].max() and told[0] == pytest.approx(known[0], rel=0.15)


@pytest.mark.parametrize("count", [4, 32, MARKS[-1]])
def test_at_marks_values_too_are_as_if_their_mean_had_been_known(count):
    X, _ = blobs(MARKS[-1])
    y = 100 + 7 * X[:, :2] @ np.array([[1.0, 0.5], [-1.0, 2.0]])
    regressor = VSMLRegressor(units=8).partial_fit(X[:count], y[:count])
    statistics, targets = (
        RunningStatistics(**regressor.learned_[name]) for name in ("statistics", "targets")
    )
    standard = targets.known(y[:count])
    weights = relevance_of(statistics.known(X[:count]), standard, np.ones(count))
    known = VSMLRegressor(units=8, scale="none")
    known.partial_fit(statistics.known(X[:count]) * weights, y[:count])
    # The plain one was told values by what was known of them then, so it is stepped through again.
    learner = known._own_learner()
    key = jax.random.key(known._seed)
    known.learned_["state"] = jax.tree.map(np.asarray, start_again(learner, known.learned_["params"], key))
    known._step_through(
        known.learned_["state"], known._entering(statistics.known(X[:count]) * weights, None), standard, None
    )
    assert jax.tree.all(jax.tree.map(np.array_equal, regressor.learned_["state"], known.learned_["state"]))
    assert ("first" in regressor.learned_) == (count < MARKS[-1])


def test_values_that_are_missing_do_not_count_against_a_feature():
    random = np.random.default_rng(0)
    y = np.arange(240) % 2
    x = random.normal(size=(240, 6))
    x[:, 0] += 2 * y
    absent = np.zeros(x.shape, bool)
    absent[:, 0] = random.random(240) < 0.7
    told = relevance_of(np.where(absent, 0.0, x), y, np.ones(240), absent)
    there = ~absent[:, 0]
    known = relevance_of(x[there], y[there], np.ones(there.sum()))
    assert told[0] > 2.5 * told[1:].max()
    assert told[0] == pytest.approx(known[0], rel=0.1)
    never = np.zeros(x.shape, bool)
    never[:, 5] = True
    assert relevance_of(np.where(never, 0.0, x), y, np.ones(240), never)[5] == 1


def test_estimators_from_before_relevance_go_on(tmp_path):
    X, y = blobs(150)
    classifier = small().partial_fit(X[:20], y[:20], classes=[0, 1, 2])
    classifier.learned_ = {name: part for name, part in classifier.learned_.items() if name != "relevance"}
    classifier.save(tmp_path / "old.safetensors")
    for old in (VSMLClassifier.load(tmp_path / "old.safetensors"), pickle.loads(pickle.dumps(classifier))):
        assert "relevance" not in old.learned_
        old.partial_fit(X[20:], y[20:])
        assert "relevance" in old.learned_
        assert old.score(X, y) > 0.9


@pytest.mark.parametrize("scale", ["all", "none"])
def test_inputs_of_one_kind_are_not_weighed(scale):
    X, y = blobs()
    classifier = VSMLClassifier(**SMALL, scale=scale).partial_fit(X, y)
    assert "relevance" not in classifier.learned_


@pytest.mark.parametrize("count", [1, 3, 20, 100])
def test_first_examples_are_saved_and_pickled(count, tmp_path):
    X, y = holed(140)
    classifier = small().partial_fit(X[:count], y[:count], classes=[0, 1, 2])
    classifier.save(tmp_path / "early.safetensors")
    again = [VSMLClassifier.load(tmp_path / "early.safetensors"), pickle.loads(pickle.dumps(classifier))]
    for other in again:
        assert equal(classifier, other)
    classifier.partial_fit(X[count:], y[count:])
    for other in again:
        assert equal(classifier, other.partial_fit(X[count:], y[count:]))


def test_classes_that_come_later_are_among_the_first_examples():
    X, y = blobs()
    classifier = small().partial_fit(X[:5], np.minimum(y[:5], 1))
    classifier.partial_fit(X[5:16], y[5:16])
    known = small().partial_fit(X[:16], np.r_[np.minimum(y[:5], 1), y[5:16]], classes=[0, 1, 2, 3])
    # Both have four outputs, and both have learned anew all sixteen.
    left, right = (each.learned_["state"] for each in (classifier, known))
    assert jax.tree.all(jax.tree.map(np.array_equal, left, right))
