"""Running statistics: exact, and of the same bits however the stream is cut."""

import numpy as np
import pytest

from vsml.online.standardise import CLIP, EARLY, RunningStatistics

pytestmark = pytest.mark.usefixtures("explicit_ranks")


def stream(seed=0, n=50, d=3):
    return np.random.default_rng(seed).normal(size=(n, d)) * [1e-3, 1.0, 1e4] + [1e3, -5.0, 1e6]


def same(left, right):
    return all(np.array_equal(vars(left)[name], vars(right)[name]) for name in vars(left))


def test_each_example_is_standardised_by_all_up_to_itself_where_none_is_far_off():
    x = np.random.default_rng(0).uniform(-1, 1, (50, 3)) * [1e-3, 1.0, 1e4] + [1e3, -5.0, 1e6]
    _, standard = RunningStatistics.nothing(3).learn(x)
    for t in range(8, len(x)):
        seen = x[: t + 1]
        expected = (x[t] - seen.mean(0)) / seen.std(0)
        np.testing.assert_allclose(standard[t], np.clip(expected, -CLIP, CLIP), rtol=1e-5)
    assert (standard[0] == 0).all()


@pytest.mark.parametrize("places", [[0], [1], [2, 9], [40, 41], range(0, 1000, 50)])
def test_outliers_do_not_take_mean_and_deviation_over(places):
    clean = np.random.default_rng(1).normal(3, 2, (1000, 1))
    spoiled = clean.copy()
    spoiled[list(places)] *= 1e4
    statistics, standard = RunningStatistics.nothing(1).learn(spoiled)
    mean, deviation = statistics.moments()
    assert abs(mean[0] - 3) < 2 / 2
    assert 2 / 1.5 < deviation[0] < 2 * 1.5
    # From early on the others are told apart nearly as without outliers.
    others = np.delete(np.arange(20, 1000), [place - 20 for place in places if place >= 20])
    _, expected = RunningStatistics.nothing(1).learn(clean)
    difference = np.abs(standard[others] - expected[others])
    assert difference.mean() < 0.3


def test_a_stream_whose_unit_changes_is_followed():
    x = np.random.default_rng(1).normal(3, 2, (2000, 1))
    x[100:] *= 100
    statistics, _ = RunningStatistics.nothing(1).learn(x)
    _, deviation = statistics.moments()
    assert 0.5 < deviation[0] / x[100:].std() < 1.5


@pytest.mark.parametrize("groups", [1, 3])
def test_early_and_late_examples_have_the_same_bits_applied_or_learned(groups):
    x = stream(n=EARLY + 5)
    for seen in (0, 1, 5, EARLY - 1, EARLY, EARLY + 1):
        before, _ = RunningStatistics.nothing(groups, 3).learn(x[:seen])
        applied = before.apply(x)
        for row, got in zip(x, applied, strict=True):
            _, expected = before.learn(row[None])
            assert np.array_equal(expected[0], got)


def test_one_group_shares_a_mean_and_a_variance():
    x = stream() / 1e3
    _, standard = RunningStatistics.nothing(1, 3).learn(x)
    seen = x[:7]
    np.testing.assert_allclose(standard[6], (x[6] - seen.mean()) / seen.std(), rtol=1e-5)


@pytest.mark.parametrize("groups", [1, 3])
def test_the_cut_of_a_stream_changes_no_bit(groups):
    x = stream()
    whole, expected = RunningStatistics.nothing(groups, 3).learn(x)
    parts, got = RunningStatistics.nothing(groups, 3), []
    for part in np.split(x, [1, 2, 10, 11]):
        parts, standard = parts.learn(part)
        got.append(standard)
    assert same(whole, parts)
    assert np.array_equal(expected, np.concatenate(got))


@pytest.mark.parametrize("groups", [1, 3])
def test_applying_tells_what_learning_would_say_and_takes_nothing_in(groups):
    x = stream()
    before, _ = RunningStatistics.nothing(groups, 3).learn(x[:20])
    kept = {name: array.copy() for name, array in vars(before).items()}
    applied = before.apply(x[20:])
    assert all(np.array_equal(vars(before)[name], array) for name, array in kept.items())
    for t, each in enumerate(applied):
        assert np.array_equal(before.learn(x[20 + t : 21 + t])[1][0], each)


def test_a_constant_feature_is_zero():
    standard = RunningStatistics.nothing(2).learn(np.array([[0.1, 1.0], [0.1, 2.0], [0.1, 4.0]]))[1]
    assert (standard[:, 0] == 0).all()
    assert (standard[1:, 1] != 0).all()


def test_values_whose_squares_overflow_are_refused():
    with pytest.raises(ValueError, match=r"got values up to 1e\+200, expected ones whose squares are finite"):
        RunningStatistics.nothing(1).learn(np.array([[0.0], [1e200]]))


def test_moments_before_an_example_are_those_of_all_that_came_before_it():
    x = np.random.default_rng(0).normal(5, 3, (7, 2))
    seen, _ = RunningStatistics.nothing(2).learn(x[:3])
    for statistics, before in ((RunningStatistics.nothing(2), x[:0]), (seen, x[:3])):
        means, deviations = statistics.moments_before(x[3:])
        for t in range(4):
            past = np.concatenate([before, x[3 : 3 + t]])
            expected = (past.mean(0), past.std(0)) if len(past) else (np.zeros(2), np.zeros(2))
            np.testing.assert_allclose((means[t], deviations[t]), expected, rtol=1e-12)
    np.testing.assert_allclose(seen.moments(), (x[:3].mean(0), x[:3].std(0)), rtol=1e-12)


def holes(seed=0, n=60, d=3):
    """Return a stream, and the same with values missing from all columns but the last."""
    x = stream(seed, n, d)
    missing = np.random.default_rng(seed + 1).random((n, d)) < 0.3
    missing[:, -1] = False
    return x, np.where(missing, np.nan, x)


def test_missing_values_are_at_the_mean_and_leave_other_columns_and_their_own_others_as_they_are():
    whole, holed = holes()
    statistics, standard = RunningStatistics.nothing(3).learn(holed)
    missing = np.isnan(holed)
    assert (standard[missing] == 0).all() and np.isfinite(standard).all()
    _, expected = RunningStatistics.nothing(3).learn(whole)
    assert np.array_equal(standard[:, 2], expected[:, 2])
    assert statistics.count.tolist() == (~missing).sum(0).tolist()
    for column in range(2):
        present = holed[~missing[:, column], column]
        # Nothing is bounded here but what is 4 deviations off: nearly plain moments of what is there.
        mean, deviation = (moment[column] for moment in statistics.moments())
        assert abs(mean - present.mean()) < 0.1 * present.std()
        assert 0.9 < deviation / present.std() < 1.1


@pytest.mark.parametrize("groups", [1, 3])
def test_with_missing_values_too_bits_do_not_depend_on_the_cut_and_applied_is_learned(groups):
    _, x = holes()
    x[:2] = np.nan
    whole, standard = RunningStatistics.nothing(groups, 3).learn(x)
    parts = RunningStatistics.nothing(groups, 3)
    for t in range(len(x)):
        assert np.array_equal(parts.apply(x[t:])[0], standard[t])
        parts, _ = parts.learn(x[t : t + 1])
    assert same(whole, parts)


def test_an_early_outlier_beside_missing_values_does_not_take_the_deviation_over():
    _, x = holes()
    clean, _ = RunningStatistics.nothing(3).learn(x)
    spoiled = x.copy()
    spoiled[7, 2] *= 1e4
    spoiled[np.flatnonzero(~np.isnan(x[:, 0]))[3], 0] *= 1e4
    statistics, _ = RunningStatistics.nothing(3).learn(spoiled)
    ratio = statistics.moments()[1] / clean.moments()[1]
    assert (ratio < 2).all()


def test_a_feature_that_comes_late_gets_statistics_of_its_own():
    x = np.random.default_rng(0).normal([5, -1000], [1, 20], (200, 2))
    narrow, _ = RunningStatistics.nothing(1).learn(x[:50, :1])
    wide, standard = narrow.widened(2).learn(x[50:])
    assert standard[0, 1] == 0
    mean, deviation = wide.moments()
    np.testing.assert_allclose(mean, [x[:, 0].mean(), x[50:, 1].mean()], rtol=0.02)
    np.testing.assert_allclose(deviation, [x[:, 0].std(), x[50:, 1].std()], rtol=0.1)
    early, _ = RunningStatistics.nothing(1).learn(x[:5, :1])
    assert np.isfinite(early.widened(2).learn(x[5:])[1]).all()


def test_examples_that_do_not_count_are_standardised_and_forgotten():
    x = stream()
    counted = np.arange(len(x)) % 3 > 0
    kept, standard = RunningStatistics.nothing(3).learn(x, counted=counted)
    expected, of_counted = RunningStatistics.nothing(3).learn(x[counted])
    assert same(kept, expected)
    assert np.array_equal(standard[counted], of_counted)
    assert np.array_equal(standard[3], RunningStatistics.nothing(3).learn(x[[1, 2]])[0].apply(x[3:4])[0])
