"""Distilling: what was planted in weights is found again, and the rule that is written computes it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vsml
from vsml.introspection.distilled import rule_text
from vsml.introspection.distilling import BIAS_TERMS, WEIGHT_TERMS, Fit, distil, fading, fewest, values_of
from vsml.introspection.effective import Effective, effective_weights
from vsml.introspection.experiments import Probe
from vsml.introspection.living import Lesson, lived, tuned
from vsml.launching.rules import main
from vsml.losses import cross_entropy
from vsml.rules import parse
from vsml.types import Episode

pytestmark = pytest.mark.usefixtures("hasty")

CLASSES = 3


def equation(terms, coefficients):
    return Fit(tuple(terms), tuple(coefficients), share=1.0, spread=0.0, quarters=())


def episodes(count=4, length=20, inputs=6, seed=0):
    """Return x [E, T, I] and labels [E, T]: classes around means of their own."""
    random = np.random.default_rng(seed)
    means = random.normal(size=(count, CLASSES, inputs))
    y = random.integers(CLASSES, size=(count, length))
    x = np.take_along_axis(means, y[..., None], axis=1) + 0.7 * random.normal(size=(count, length, inputs))
    return x.astype(np.float32), y.astype(np.int32)


def probe_of(name, model):
    x, y = episodes()
    loaded = vsml.load_learner(name, input_shape=x.shape[2:], num_classes=CLASSES, model=model)
    keys = jax.random.split(jax.random.key(0), len(x))
    batches = Episode(jnp.asarray(x)[:, :, None], jnp.asarray(y)[:, :, None], jnp.ones((*y.shape, 1)))
    return Probe(loaded.learner, loaded.params, batches, keys)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_gradient_descent_in_synapses_is_found_with_its_rates(scale):
    probe = probe_of("clone", {"vsml": {"error_scale": scale}})
    effective = effective_weights(probe)
    found = distil(effective, most_terms=2, rows=500)
    weights, biases = fewest(found.weights), fewest(found.biases)
    assert (weights.terms, biases.terms) == ((("s", "e"),), (("e",),))
    # Rates as docs/model_cards.md has them: 1 for weights, a fiftieth for biases.
    assert weights.coefficients == pytest.approx((-scale,), rel=1e-3)
    assert biases.coefficients == pytest.approx((-scale / 50,), rel=1e-3)
    assert min(weights.share, biases.share, found.share) > 0.999
    lesson = Lesson.of(effective)
    np.testing.assert_array_equal(lesson.y, probe.labels)
    np.testing.assert_allclose(lived(weights, biases, lesson), effective.logits, atol=0.01)


def planted(noise):
    """Return effective weights that follow an equation, with noise that stands for all else."""
    random = np.random.default_rng(1)
    x, y = episodes(count=8, length=40)
    labels = np.eye(CLASSES)[y]
    errors = random.dirichlet(np.ones(CLASSES), size=y.shape) - labels
    sent = np.tanh(x)
    n = labels.cumsum(1) - labels
    told = {"s": sent[..., None], "e": errors[:, :, None], "y": labels[:, :, None]}
    told |= {name: values[:, :, None] for name, values in fading(n, n, n).items()}
    terms = (("s", "e", "/ sqrt(1 + n)"), ("s", "y"))
    change = sum(c * values_of(term, told) for c, term in zip((-3.0, 0.5), terms, strict=True))
    change = change + noise * change.std() * random.normal(size=change.shape)
    weights = np.concatenate([np.zeros_like(change[:, :1]), change.cumsum(1)], axis=1)
    shift = 0.2 * values_of(("y", "/ (1 + n)"), told) + 0 * change
    biases = np.concatenate([np.zeros_like(shift[:, :1]), shift.cumsum(1)], axis=1)
    return Effective(x, errors, labels, errors, weights, biases), terms


def test_a_planted_equation_is_found_under_noise():
    effective, terms = planted(noise=0.5)
    found = distil(effective, most_terms=3, rows=4000)
    assert set(found.weights[1].terms) == set(terms)
    by_term = dict(zip(found.weights[1].terms, found.weights[1].coefficients, strict=True))
    assert by_term[terms[0]] == pytest.approx(-3, rel=0.1)
    assert by_term[terms[1]] == pytest.approx(0.5, abs=0.15)
    # Noise has a quarter of the variance of changes; less its mean over three outputs, two thirds of that.
    assert found.weights[1].share == pytest.approx(1 / (1 + 0.25 * 2 / 3), abs=0.03)
    assert found.biases[0].terms == (("y", "/ (1 + n)"),)
    assert found.biases[0].coefficients == pytest.approx((0.2,))


def test_what_outputs_have_in_common_does_not_count():
    effective, _ = planted(noise=0)
    common = np.cumsum(np.ones_like(effective.weights), axis=1) ** 2
    found = distil(effective, most_terms=1, rows=500).weights[0]
    shifted = distil(replace(effective, weights=effective.weights + common), most_terms=1, rows=500).weights[
        0
    ]
    assert shifted.terms == found.terms
    assert shifted.coefficients == pytest.approx(found.coefficients, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(5))
def test_the_rule_that_is_written_computes_the_equation_for_every_term(part, tmp_path):
    weight_terms, bias_terms = WEIGHT_TERMS[part::5], BIAS_TERMS[part::5]
    random = np.random.default_rng(part)
    weights = equation(weight_terms, 0.2 * random.normal(size=len(weight_terms)))
    biases = equation(bias_terms, 0.2 * random.normal(size=len(bias_terms)))
    x, y = episodes(count=1, length=12)
    path = tmp_path / "found.rule"
    path.write_text(rule_text(weights, biases, "From a test."), encoding="utf-8")
    model = {"rule": {"graph": {"hidden": [0]}}}
    loaded = vsml.load_learner(f"rule:{path}", input_shape=x.shape[2:], num_classes=CLASSES, model=model)
    _, answers = loaded.run(loaded.start(), x[0][:, None], y[0][:, None])
    # Coefficients have four digits in the text.
    expected = lived(weights, biases, Lesson(x, y, CLASSES))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(answers[:, 0], expected[0], atol=2e-3)


def test_a_rule_has_the_memory_that_its_terms_need_and_no_other():
    delta = rule_text(equation([("s", "e")], [-8.0]), None, "Nothing but errors.")
    assert {slot.name for slot in parse(delta).slots} == {"w", "s", "a"}
    counting = rule_text(equation([("s", "e", "/ sqrt(1 + n)")], [-8.0]), None, "With a count.")
    assert {slot.name for slot in parse(counting).slots} == {"w", "s", "a", "n"}
    assert counting.startswith("# With a count. Teach mode: error.\n@c1 = -8\n")


def test_tuning_lowers_the_loss_and_leaves_the_terms():
    x, y = episodes(count=8)
    lesson = Lesson(x, y, CLASSES)
    weights, biases = equation([("s", "e")], [-0.5]), equation([("e",)], [-0.1])

    def loss(weights, biases):
        return float(cross_entropy(jnp.asarray(lived(weights, biases, lesson)), jnp.asarray(y)).mean())

    better, other = tuned(weights, biases, lesson)
    assert loss(better, other) < loss(weights, biases) - 0.1
    assert (better.terms, other.terms) == (weights.terms, biases.terms)
    # Nothing near is better.
    for factor in (0.9, 1.1):
        near = replace(better, coefficients=(factor * better.coefficients[0],))
        assert loss(near, other) >= loss(better, other) - 1e-5


def test_what_cannot_be_distilled_is_refused():
    effective, _ = planted(noise=0)
    few = Effective(**{name: values[:3] for name, values in vars(effective).items()})
    with pytest.raises(ValueError, match="got 3 episodes, expected 4 or more"):
        distil(few)
    still = replace(effective, weights=np.zeros_like(effective.weights))
    with pytest.raises(ValueError, match="got no change in any episode"):
        distil(still, rows=100)
    loaded = vsml.load_learner("memory14_ridge", input_shape=(6,), num_classes=CLASSES)
    other = replace(probe_of("clone", {}), learner=loaded.learner, params=loaded.params)
    with pytest.raises(ValueError, match="got VSML with a ReadingLayer, expected a dense layer of inputs"):
        effective_weights(other)


@pytest.mark.slow
def test_the_command_writes_a_rule_that_can_be_run(tmp_path, capsys):
    out = tmp_path / "found.rule"
    words = ["distil", "clone", "--episodes", "4", "--length", "12", "--most_terms", "2", "--out", str(out)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "1 terms: 1.000 ± 0.000" in printed and "teacher" in printed and "dw = -1 s e" in printed
    rule = parse(out.read_text(encoding="utf-8"))
    assert set(rule.tuned) == {"c1", "d1"}
    assert main(words) == 2
    assert "is there already; --force writes over it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--episodes", "5"], "--episodes: got 5, expected an even number"),
        (["--out", "found.txt"], "--out: got found.txt, expected a name that ends in .rule"),
        (["--force"], "--force: expected --out as well"),
        (["--weights", "7"], "--weights: got 7, expected at most --most_terms, 6"),
    ],
)
def test_the_command_refuses_what_cannot_be_meant(words, message, capsys):
    assert main(["distil", "clone", *words]) == 2
    assert message in capsys.readouterr().err


def test_where_nothing_is_explained_that_is_said():
    with pytest.raises(ValueError, match=r"shares of at most -0\.200, expected one above 0"):
        fewest([replace(equation([], []), share=share) for share in (-0.2, -0.5)])
