"""VSMLClassifier and VSMLRegressor among scikit-learn's tools, what they keep, and learning online."""

import json
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.datasets import load_wine, make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from vsml.launching.schema import load_config
from vsml.learners import make_learner
from vsml.online import steps
from vsml.runs.checkpoint import CheckpointError, export_params
from vsml.sklearn import MIN_UNITS, OnlineResult, VSMLClassifier, VSMLRegressor, learn_online

pytestmark = pytest.mark.usefixtures("hasty")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Write an untrained learning algorithm with small states: it answers at random, but at once."""
    config = load_config(
        overrides=[
            "model.vsml.synapse.state_size=4",
            "model.vsml.synapse.message_size=2",
            "model.vsml.synapse.init_scale=4",
        ]
    )
    params = make_learner("vsml", config.model.vsml, (3,), 2).init_params(jax.random.key(0))
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    export_params(path, params, {"config": config.model_dump(mode="json")})
    return path


def blobs(n=40, features=5, classes=3):
    return make_blobs(n, features, centers=classes, random_state=0)


def equal(left, right):
    return jax.tree.all(jax.tree.map(np.array_equal, left.learned_, right.learned_))


def not_expected(estimator):
    """Return the checks that do not apply, and why."""
    order = "it compares examples in two orders, and order matters"
    return {"check_sample_weight_equivalence_on_dense_data": order}


@parametrize_with_checks([VSMLClassifier(), VSMLRegressor()], expected_failed_checks=not_expected)
def test_scikit_learn_accepts_it(estimator, check):
    check(estimator)


def test_three_lines_learn_wine():
    result = learn_online(VSMLClassifier(), *load_wine(return_X_y=True), shuffle_seed=0)
    assert result.accuracy_last > 0.8
    assert result.accuracy[-1] > 0.7


def test_prediction_never_learns(tiny):
    X, y = blobs()
    classifier = VSMLClassifier(tiny).fit(X[:20], y[:20])
    undisturbed = VSMLClassifier(tiny).fit(X[:20], y[:20])
    before = jax.tree.map(np.copy, classifier.learned_)
    for ask in (classifier.predict, classifier.predict_proba, classifier.decision_function):
        ask(X * 100)
    classifier.score(X, y)
    assert jax.tree.all(jax.tree.map(np.array_equal, before, classifier.learned_))
    for part in (slice(20, 25), slice(25, 40)):
        classifier.partial_fit(X[part], y[part])
        classifier.predict(X * -7)
    undisturbed.partial_fit(X[20:], y[20:])
    assert equal(classifier, undisturbed)


@pytest.mark.parametrize("scale", ["feature", "all", "none"])
def test_the_cut_of_a_stream_changes_no_bit_and_answers_are_those_of_predict(tiny, scale):
    X, y = blobs(n=25)
    whole, single = VSMLClassifier(tiny, scale=scale), VSMLClassifier(tiny, scale=scale)
    answers = whole.partial_fit_predict(X, y, classes=[0, 1, 2])
    single.partial_fit(X[:1], y[:1], classes=[0, 1, 2])
    asked = []
    for t in range(1, len(X)):
        asked.append(single.predict(X[t : t + 1])[0])
        single.partial_fit(X[t : t + 1], y[t : t + 1])
    assert equal(whole, single)
    assert answers[1:].tolist() == asked


def test_learning_in_chunks_is_learning_at_once(tiny, monkeypatch):
    X, y = blobs(n=23)
    whole = VSMLClassifier(tiny).fit(X, y)
    monkeypatch.setattr(steps, "ROWS", (4,))
    chunks = VSMLClassifier(tiny).fit(X, y)
    assert equal(whole, chunks)
    assert len(chunks.predict(X)) == 23


def test_other_numbers_of_examples_and_features_compile_nothing(tiny):
    def use(n, features):
        X, y = blobs(n=n, features=features)
        VSMLClassifier(tiny).partial_fit(X, y, classes=[0, 1, 2]).predict(X)

    compiled = (steps.draw, steps.learn_rows, steps.answer_rows)
    use(3, 5), use(80, 5)
    before = [function.__wrapped__._cache_size() for function in compiled]
    for n, features in [(1, 1), (2, 5), (15, 2), (16, MIN_UNITS), (17, 7), (1000, 1)]:
        use(n, features)
    assert [function.__wrapped__._cache_size() for function in compiled] == before
    use(3, MIN_UNITS + 1)  # beyond the bucket, the counters are seen to count
    assert [function.__wrapped__._cache_size() for function in compiled] == [number + 1 for number in before]


def test_labels_of_any_kind_name_the_classes(tiny):
    X, y = blobs(n=20)
    numbers = VSMLClassifier(tiny).fit(X, y)
    words = VSMLClassifier(tiny).fit(X, np.array(["ash", "beech", "cedar"], dtype=object)[y])
    assert words.classes_.tolist() == ["ash", "beech", "cedar"]
    assert words.predict(X).tolist() == [["ash", "beech", "cedar"][k] for k in numbers.predict(X)]


def test_units_and_offsets_of_features_do_not_matter(tiny):
    X, y = blobs(n=30)
    plain = VSMLClassifier(tiny).fit(X, y).decision_function(X)
    factors, offsets = 10.0 ** np.arange(-6, 4, 2), np.array([1e6, -3, 0, 1e3, 1e5])
    other = VSMLClassifier(tiny).fit(X * factors + offsets * factors, y)
    np.testing.assert_allclose(
        other.decision_function(X * factors + offsets * factors), plain, rtol=1e-2, atol=1e-4
    )


def test_standard_inputs_are_taken_as_they_are(tiny):
    X, y = blobs(n=30)
    doubled = [
        VSMLClassifier(tiny, scale=scale).fit(2 * X, y).predict_proba(2 * X) for scale in ("none", "all")
    ]
    once = [VSMLClassifier(tiny, scale=scale).fit(X, y).predict_proba(X) for scale in ("none", "all")]
    assert not np.allclose(doubled[0], once[0])
    np.testing.assert_allclose(doubled[1], once[1], atol=1e-5)


def test_epochs_are_passes_in_the_same_order(tiny):
    X, y = blobs(n=10)
    assert equal(VSMLClassifier(tiny, epochs=2).fit(X, y), VSMLClassifier(tiny).fit(X, y).partial_fit(X, y))


def test_the_seed_decides_the_projection_and_the_first_state(tiny):
    X, y = blobs(n=10)
    first, same, other = (VSMLClassifier(tiny, random_state=seed).fit(X, y) for seed in (1, 1, 2))
    assert equal(first, same)
    assert not np.array_equal(first.learned_["projection"], other.learned_["projection"])


@pytest.mark.parametrize("features", [2, 100])
def test_standard_inputs_arrive_with_variance_1_at_the_units(tiny, features):
    learned = VSMLClassifier(tiny).fit(*blobs(n=10, features=features)).learned_
    assert np.square(learned["projection"][:features]).sum(0).mean() == pytest.approx(1, rel=0.3)


def test_it_works_in_a_pipeline_and_in_a_grid_search(tiny):
    X, y = blobs(n=30)
    pipeline = make_pipeline(FunctionTransformer(np.square), VSMLClassifier(tiny))
    grid = {"vsmlclassifier__scale": ["feature", "all"]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
    assert len(search.predict(X)) == 30
    assert clone(pipeline)[-1].get_params() == VSMLClassifier(tiny).get_params()


def test_a_saved_classifier_goes_on_in_another_process_bit_for_bit(tiny, tmp_path):
    X, y = blobs(n=40)
    names = np.array(["ash", "beech", "cedar"])[y]
    classifier = VSMLClassifier(tiny, scale="all", units=17).fit(X[:20], names[:20])
    classifier.save(tmp_path / "half.safetensors")
    np.savez(tmp_path / "rest.npz", X=X[20:], y=names[20:])
    code = (
        "import numpy as np; from vsml.sklearn import VSMLClassifier;"
        "half = VSMLClassifier.load('half.safetensors'); rest = np.load('rest.npz');"
        "half.partial_fit(rest['X'], rest['y']).save('whole.safetensors')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    whole = VSMLClassifier.load(tmp_path / "whole.safetensors")
    assert equal(whole, classifier.partial_fit(X[20:], names[20:]))
    assert whole.get_params() == classifier.get_params() | {"learner": str(tiny)}
    assert whole.predict(X).tolist() == classifier.predict(X).tolist()


def test_a_classifier_with_other_features_is_saved_and_goes_on(tiny, tmp_path):
    x, y = blobs()
    model = {"vsml": {"random_features": {"count": 6}, "views": [{"count": 4}]}}
    one = VSMLClassifier(tiny, model=model).fit(x, y)
    assert [state.features.shape[-1] for state in one.learned_["state"]] == [6, 4]
    one.save(tmp_path / "one.safetensors")
    other = VSMLClassifier.load(tmp_path / "one.safetensors")
    assert equal(one.partial_fit(x, y), other.partial_fit(x, y))


def test_a_saved_classifier_needs_no_file_of_its_learning_algorithm(tiny, tmp_path):
    X, y = blobs(n=10)
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(tiny.read_bytes())
    classifier = VSMLClassifier(copy).fit(X, y)
    classifier.save(tmp_path / "saved.safetensors")
    copy.unlink()
    assert equal(
        VSMLClassifier.load(tmp_path / "saved.safetensors").partial_fit(X, y), classifier.partial_fit(X, y)
    )


def test_a_pickled_classifier_goes_on_bit_for_bit(tiny):
    X, y = blobs(n=20)
    classifier = VSMLClassifier(tiny).fit(X, y)
    copy = pickle.loads(pickle.dumps(classifier))  # as joblib and grid searches do; of its own bytes alone
    assert equal(copy.partial_fit(X, y), classifier.partial_fit(X, y))


def test_what_is_no_saved_classifier_is_named(tiny, tmp_path):
    with pytest.raises(CheckpointError, match=r"tiny.safetensors: got another kind of checkpoint"):
        VSMLClassifier.load(tiny)
    (tmp_path / "cut.safetensors").write_bytes(tiny.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"cut.safetensors: damaged"):
        VSMLClassifier.load(tmp_path / "cut.safetensors")


def test_what_json_cannot_hold_is_not_saved(tiny, tmp_path):
    X, y = blobs(n=10)
    classifier = VSMLClassifier(tiny, random_state=np.random.RandomState(0)).fit(X, y)
    with pytest.raises(
        ValueError, match=r"RandomState.*expected labels of text or numbers and random_state an"
    ):
        classifier.save(tmp_path / "saved.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": "log"}, "scale: got 'log', expected one of feature, all, none"),
        ({"units": 0}, "units: got 0, expected None or an integer of at least 1"),
        ({"epochs": 0}, "epochs: got 0, expected an integer of at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(tiny, settings, message):
    with pytest.raises(ValueError, match=message):
        VSMLClassifier(tiny, **settings).fit(*blobs(n=10))


def test_labels_and_classes_have_to_fit(tiny):
    X, y = blobs(n=10)
    with pytest.raises(ValueError, match=r"got labels \[2\], expected some of classes, \[0, 1\]"):
        VSMLClassifier(tiny).partial_fit(X, y, classes=[0, 1])
    classifier = VSMLClassifier(tiny).fit(X, y)
    with pytest.raises(ValueError, match=r"classes: got \[0, 1\], expected \[0, 1, 2\], which are known"):
        classifier.partial_fit(X[y < 2], y[y < 2], classes=[0, 1])
    with pytest.raises(ValueError, match=r"got labels \[7\]"):
        classifier.partial_fit(X[:1], [7], classes=[0, 1, 2])
    with pytest.raises(ValueError, match="labels of mixed kinds, number and str"):
        classifier.partial_fit(X[:1], ["7"])


def test_any_classifier_is_asked_before_it_is_told():
    X, y = blobs(n=60)
    classifier = SGDClassifier(random_state=0)
    result = learn_online(classifier, X, y)
    twin, expected = SGDClassifier(random_state=0), [False]
    for t in range(len(X)):
        if t:
            expected.append(twin.predict(X[t : t + 1])[0] == y[t])
        twin.partial_fit(X[t : t + 1], y[t : t + 1], classes=[0, 1, 2])
    assert result.correct.tolist() == expected
    assert np.array_equal(classifier.coef_, twin.coef_)


def test_the_slow_way_gives_the_answers_of_the_fast_one(tiny):
    class Plain:  # without partial_fit_predict
        def __init__(self):
            self.inner = VSMLClassifier(tiny)
            self.predict, self.partial_fit = self.inner.predict, self.inner.partial_fit

    X, y = blobs(n=30)
    slow, fast = (learn_online(each, X, y, shuffle_seed=3) for each in (Plain(), VSMLClassifier(tiny)))
    assert slow.predictions[1:].tolist() == fast.predictions[1:].tolist()
    assert slow.correct[1:].tolist() == fast.correct[1:].tolist()


def test_results_are_printed_at_round_numbers_and_at_the_end():
    correct = np.arange(130) >= 65
    result = OnlineResult(predictions=correct, correct=correct)
    assert result.accuracy_last == 1.0
    assert result.accuracy[99] == 0.35
    assert str(result).splitlines()[1:] == [
        "      10            0.000                      0.000",
        "      20            0.000                      0.000",
        "      50            0.000                      0.000",
        "     100            0.350                      1.000",
        "     130            0.500                      1.000",
    ]


def test_streams_of_different_length_are_refused(tiny):
    with pytest.raises(ValueError, match="got 10 inputs and 9 labels, expected as many"):
        learn_online(VSMLClassifier(tiny), np.zeros((10, 2)), np.zeros(9))


# Regression.


def plane(n=60, outputs=1, seed=0):
    """Return a linear function of five inputs, in units of its own."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, 5))
    y = X @ np.random.default_rng(99).normal(size=(5, outputs)) * 40 + 300
    return X, y[:, 0] if outputs == 1 else y


def test_a_linear_map_is_learned_in_its_own_units():
    X, y = plane(400)
    regressor = VSMLRegressor()
    answers = regressor.partial_fit_predict(X, y)
    late = slice(300, 400)
    assert np.square(answers[late] - y[late]).mean() < 0.1 * y.var()
    assert regressor.score(*plane(100, seed=1)) > 0.9


def test_several_targets_are_learned_side_by_side_as_each_alone():
    X, y = plane(40, outputs=2)
    # What a feature tells of either output decides how much it counts, but not with one scale for all.
    both = VSMLRegressor(None, scale="all").fit(X, y)
    assert (both.n_outputs_, both.predict(X).shape) == (2, (40, 2))
    # A synapse learns from its own output's error only, where nothing but gradient descent is in it.
    alone = np.stack([VSMLRegressor(None, scale="all").fit(X, y[:, k]).predict(X) for k in range(2)], axis=1)
    np.testing.assert_allclose(both.predict(X), alone, rtol=1e-3)


def test_values_learns_what_gradient_descent_learns_slowly():
    X, y = plane(60)
    X_new, y_new = plane(100, seed=1)
    scores = [VSMLRegressor(learner).fit(X, y).score(X_new, y_new) for learner in ("values", None)]
    assert scores[0] > 0.95 and scores[0] > scores[1] + 0.03


def test_units_of_targets_do_not_matter():
    X, y = plane(40)
    plain = VSMLRegressor().fit(X, y).predict(X)
    np.testing.assert_allclose(VSMLRegressor().fit(X, 1e-3 * y - 7).predict(X), 1e-3 * plain - 7, rtol=1e-4)


@pytest.mark.parametrize("outputs", [1, 2])
def test_regression_streams_may_be_cut_anywhere_and_saved(outputs, tmp_path):
    X, y = plane(25, outputs)
    whole, single = VSMLRegressor(), VSMLRegressor()
    answers = whole.partial_fit_predict(X, y)
    assert not answers[0].any()
    single.partial_fit(X[:1], y[:1])
    asked = []
    for t in range(1, 25):
        asked.append(single.predict(X[t : t + 1])[0])
        single.partial_fit(X[t : t + 1], y[t : t + 1])
        if t == 12:
            single.save(tmp_path / "half.safetensors")
            single = VSMLRegressor.load(tmp_path / "half.safetensors")
    assert equal(whole, single)
    np.testing.assert_allclose(answers[1:], asked, rtol=1e-6)


def test_a_regressor_learns_by_any_algorithm_and_its_rate_may_be_changed(tiny):
    X, y = plane(20)
    assert np.isfinite(VSMLRegressor(tiny).fit(X, y).predict(X)).all()
    slower = VSMLRegressor(None, model={"vsml": {"error_scale": 0.1}}).fit(X, y)
    assert slower.model_["vsml"]["error_scale"] == 0.1
    assert (
        np.abs(slower.predict(X) - y.mean()).mean()
        < np.abs(VSMLRegressor(None).fit(X, y).predict(X) - y.mean()).mean()
    )


def test_what_a_regressor_cannot_learn_is_said(tiny, tmp_path):
    X, y = plane(10, outputs=2)
    regressor = VSMLRegressor().fit(X, y)
    with pytest.raises(ValueError, match="y: got 1 outputs, expected 2 as at the first call"):
        regressor.partial_fit(X, y[:, 0])
    with pytest.raises(ValueError, match="epochs: got 0"):
        VSMLRegressor(epochs=0).fit(X, y)
    with pytest.raises(ValueError, match="y: got values up to"):
        VSMLRegressor().fit(X, y * 1e200)
    VSMLClassifier(tiny).fit(X, [0, 1] * 5).save(tmp_path / "classifier.safetensors")
    with pytest.raises(CheckpointError, match=r"expected one of VSMLRegressor\.save"):
        VSMLRegressor.load(tmp_path / "classifier.safetensors")


class Table:
    """A table with named columns, which an array would lose."""

    def __init__(self, values, names):
        self.values, self.columns = np.asarray(values), list(names)
        self.shape = self.values.shape

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype=dtype)

    def __getitem__(self, rows):
        return Table(self.values[rows], self.columns)


class Recorder:
    """Keeps what it is given, and answers right."""

    def partial_fit_predict(self, X, y, classes):
        self.given = X
        return y


def test_learning_online_hands_on_inputs_with_the_names_of_their_columns():
    X, y = blobs(features=3)
    recorder = Recorder()
    learn_online(recorder, Table(X, "abc"), y)
    assert recorder.given.columns == ["a", "b", "c"]


def test_learning_online_takes_a_data_frame(tiny):
    pandas = pytest.importorskip("pandas")
    X, y = blobs(features=3)
    classifier = VSMLClassifier(tiny)
    frame = pandas.DataFrame(X, columns=list("abc"))
    learn_online(classifier, frame, pandas.Series(y), shuffle_seed=0)
    with pytest.raises(ValueError, match="feature names should match"):
        learn_online(classifier, frame[["c", "b", "a"]], y)
    learn_online(SGDClassifier(random_state=0), frame, y)
    nullable = pandas.Series(y).astype("Float64")
    nullable[7] = pandas.NA
    for labels in (nullable, nullable.to_numpy(object)):
        with pytest.raises(ValueError, match=r"missing label .* at example 7"):
            learn_online(classifier, frame, labels)
    frame["a"] = nullable
    learn_online(classifier, frame, y)
    assert classifier.learned_["missing"]["absent"].tolist() == [1, 0, 0]


def test_sparse_inputs_are_learned_online_by_those_who_take_them_and_else_refused_in_words(tiny):
    X, y = blobs()
    sparse = csr_matrix(X)
    dense = learn_online(SGDClassifier(random_state=0), X, y)
    assert np.array_equal(
        learn_online(SGDClassifier(random_state=0), sparse, y).predictions, dense.predictions
    )
    for learn in (VSMLClassifier(tiny).fit, VSMLClassifier(tiny).partial_fit, VSMLRegressor().fit):
        with pytest.raises(ValueError, match=r"got a sparse matrix of shape \(40, 5\), expected a dense"):
            learn(sparse, y)
    with pytest.raises(ValueError, match="got a sparse matrix"):
        learn_online(VSMLClassifier(tiny), sparse, y)
    with pytest.raises(ValueError, match="got a sparse matrix"):
        VSMLClassifier(tiny).fit(X, y).predict(sparse)


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_missing_labels_are_refused_with_their_place(tiny, missing):
    X, _ = blobs(n=4)
    labels = np.array(["a", "b", "a", missing], object)
    for learn in (VSMLClassifier(tiny).fit, lambda X, y: learn_online(VSMLClassifier(tiny), X, y)):
        with pytest.raises(ValueError, match=r"got the missing label (None|nan) at example 3"):
            learn(X, labels)
    with pytest.raises(ValueError, match="labels of mixed kinds, number and str"):
        learn_online(VSMLClassifier(tiny), X, np.array([1, "b", 1, "b"], object))


def test_failing_calls_change_nothing(tiny):
    X, y = blobs()
    fresh = VSMLClassifier(tiny)
    for fail in (
        lambda: fresh.fit(X[:, :3], np.zeros(40)),
        lambda: fresh.partial_fit(X[:, :3], y, classes=[0, 1]),
        lambda: VSMLClassifier.fit(fresh.set_params(epochs=0), X[:, :3], y),
    ):
        with pytest.raises(ValueError):
            fail()
        with pytest.raises(NotFittedError):
            fresh.predict(X)
    fresh.set_params(epochs=1)
    classifier = VSMLClassifier(tiny).fit(X, y)
    expected = classifier.predict_proba(X)
    regressor = VSMLRegressor().fit(X, y)
    predicted = regressor.predict(X)
    for fail in (
        lambda: classifier.fit(X[:, :3], np.zeros(40)),
        lambda: classifier.fit(X[:, :3], y[:7]),
        lambda: classifier.partial_fit(X, y + 1, classes=[0, 1, 2]),
        lambda: classifier.partial_fit(X, y + 1, sample_weight=-y),
        lambda: classifier.partial_fit(X * np.inf, y),
        lambda: regressor.fit(X[:, :3], y * 1e200),
        lambda: regressor.partial_fit(X, np.column_stack([y, y])),
    ):
        with pytest.raises(ValueError):
            fail()
        assert np.array_equal(classifier.predict_proba(X), expected)
        assert np.array_equal(regressor.predict(X), predicted)
    classifier.partial_fit(X, y)


def test_parameters_that_are_set_count_from_the_next_fit_on(tiny, tmp_path):
    X, y = blobs()
    classifier = VSMLClassifier(tiny).fit(X, y)
    expected = classifier.predict_proba(X)
    same = VSMLClassifier(tiny).fit(X, y).partial_fit(X, y).predict_proba(X)
    classifier.set_params(scale="none")
    assert np.array_equal(classifier.predict_proba(X), expected)
    classifier.save(tmp_path / "set.safetensors")
    for each in (classifier, VSMLClassifier.load(tmp_path / "set.safetensors")):
        assert each.scale == "none"
        assert np.array_equal(each.predict_proba(X), expected)
        assert np.array_equal(each.partial_fit(X, y).predict_proba(X), same)
    assert np.array_equal(
        classifier.fit(X, y).predict_proba(X), VSMLClassifier(tiny, scale="none").fit(X, y).predict_proba(X)
    )


@pytest.mark.parametrize("scale", ["feature", "none"])
def test_no_single_example_spoils_a_classifier(tiny, scale):
    X, y = blobs()
    classifier = VSMLClassifier(tiny, scale=scale).fit(X, y)
    huge = np.full((1, 5), 1e39)
    classifier.partial_fit(huge, y[:1])
    assert np.isfinite(classifier.predict_proba(X)).all()
    assert np.isfinite(classifier.predict_proba(huge)).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(classifier.learned_["state"]))


@pytest.mark.slow
def test_a_memory_meets_classes_late_and_is_pickled(tmp_path):
    settings = {
        "backward_pass": True,
        "feed_label": True,
        "micro_ticks": 1,
        "memory": {"slots": 40, "ridge": {}},
    }
    settings["synapse"] = {"init": "memory", "random_fraction": 0.25}
    config = load_config(overrides=[f"model.vsml={json.dumps(settings)}"])
    params = make_learner("vsml", config.model.vsml, (3,), 2).init_params(jax.random.key(0))
    export_params(tmp_path / "memory.safetensors", params, {"config": config.model_dump(mode="json")})
    X, y = blobs(40, classes=4)
    late = y >= 2
    order = np.concatenate([np.flatnonzero(~late), np.flatnonzero(late)])
    X, y = X[order], y[order]
    classifier = VSMLClassifier(tmp_path / "memory.safetensors")
    classifier.partial_fit(X[:20], y[:20])
    assert set(classifier.predict(X[:20])) <= {0, 1}
    later = pickle.loads(pickle.dumps(classifier))
    for each in (classifier, later):
        each.partial_fit(X[20:], y[20:])
    np.testing.assert_array_equal(classifier.predict_proba(X), later.predict_proba(X))
    assert classifier.score(X, y) > 0.9
