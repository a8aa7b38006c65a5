"""Simplification and ablation: what is left out computes nothing, or costs nothing."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vsml.graphs import generate
from vsml.launching.rules import main
from vsml.rules import canonical, known_names, known_rule, parse, read_rule, rule_hash, show
from vsml.rules.mistakes import RuleError
from vsml.rules.rule import OWNER, PORTS
from vsml.rules.settings import Teaching
from vsml.search.ablation import ablate
from vsml.search.drawing import draw_genomes
from vsml.search.edits import GUARD, START, STORE, Edit, edited, edits_of, tidied
from vsml.search.exercises import Exercise
from vsml.search.folding import folded
from vsml.search.genome import genome_of, rule_of, unstack_genomes
from vsml.search.lesson import answers
from vsml.search.scoring import Scoring, capacity_of, difference, exercises_of
from vsml.search.settings import Drawing, Initial, Room
from vsml.search.simplifying import cost, one_at_a_place, simplify, smaller_rules
from vsml.search.stages import probe_lesson

pytestmark = pytest.mark.usefixtures("hasty")

HEAD = "a : node\nb : node\ns : edge\np : edge = 2\n"

DELTA = known_rule("delta").rule

IDENTITIES = [
    ("a + 0", "a"),
    ("0 + a", "a"),
    ("a - 0", "a"),
    ("0 - a", "-a"),
    ("a - a", "0"),
    ("a - -x", "a + x"),
    ("-x + a", "a - x"),
    ("a * 1", "a"),
    ("a * 0", "0"),
    ("a * -1", "-a"),
    ("-a * -x", "a * x"),
    ("a / 1", "a"),
    ("0 / a", "0"),
    ("-(a - x)", "x - a"),
    ("- -a", "a"),
    ("a > a", "0"),
    ("a >= a", "1"),
    ("x_on > 0", "x_on"),
    ("(a > x) > 0", "a > x"),
    ("maximum(a, a)", "a"),
    ("minimum(a, a)", "a"),
    ("maximum(a, 0)", "relu(a)"),
    ("maximum(x_on, 0)", "x_on"),
    ("sel(a, x, x)", "x"),
    ("sel(1, a, x)", "a"),
    ("sel(-1, a, x)", "x"),
    ("sel(t_on, 1, 0)", "t_on"),
    ("sel(a > 0, x, t)", "sel(a, x, t)"),
    ("abs(square(a))", "square(a)"),
    ("relu(abs(a))", "abs(a)"),
    ("square(-a)", "square(a)"),
    ("square(abs(a))", "square(a)"),
    ("square(t_on)", "t_on"),
    ("x_on * x_on", "x_on"),
    ("sign(sign(a))", "sign(a)"),
    ("tanh(0)", "0"),
    ("2 * 3", "6"),
    ("1 / 4 + a", "0.25 + a"),
    ("1 / 0", "0"),
    ("sum(s, 1)", "sum(s)"),
    ("sum(s, incoming > 0)", "sum(s, incoming)"),
    ("max(s, 0)", "0"),
    ("mean(0 * s)", "0"),
    ("count(incoming > 0)", "count(incoming)"),
    # A slot that is never stored to is a number; so is what the other end shows of it.
    ("sum(p * s)", "sum(2 * s)"),
    ("sum(rev(p))", "sum(2)"),
    ("b + a", "a"),
    # What is computed twice is computed once.
    ("(a + x) * (x + a)", "(a + x) * (a + x)"),
]


def with_value(text):
    return parse(f"{HEAD}r : node\nr <- {text}\na <- a + sum(rev(s)) + r\ns <- x\nout = a\n")


@pytest.mark.parametrize(("text", "expected"), IDENTITIES)
def test_what_has_no_effect_is_left_out(text, expected):
    assert rule_hash(folded(with_value(text))) == rule_hash(folded(with_value(expected)))
    assert folded(with_value(text)).size <= canonical(with_value(expected)).size


@pytest.mark.parametrize("text", ["a / a", "a * 2", "x / t", "(a > 0.5) > 0.5", "max(s) + 1", "sel(a, 1, 0)"])
def test_what_has_an_effect_stays(text):
    assert folded(with_value(text)).size == canonical(with_value(text)).size


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ("s <- x if 1\n", "s <- x\n"),
        ("s <- x if x_on > 0\n", "s <- x if x_on\n"),
        ("s <- x\nb <- t if 0 > 1\n", "s <- x\n"),
        ("s <- x\nb <- b\n", "s <- x\n"),
    ],
)
def test_conditions_that_always_or_never_hold_are_left_out(statements, expected):
    read = "a <- a + sum(rev(s)) + b\nout = a\n"
    assert rule_hash(folded(parse(HEAD + statements + read))) == rule_hash(
        folded(parse(HEAD + expected + read))
    )


def test_names_and_the_order_of_lines_stay():
    rule = known_rule("backprop").rule
    less = show(folded(rule)).splitlines()
    assert [line for line in show(rule).splitlines() if line in less] == less


@pytest.mark.parametrize("name", known_names())
def test_rules_that_ship_have_nothing_to_leave_out(name):
    rule = known_rule(name).rule
    assert rule_hash(tidied(rule)) == rule_hash(rule)
    assert canonical(folded(rule)).size == canonical(rule).size


def test_constants_that_may_be_tuned_are_not_folded():
    text = "@rate = 0\na : node\ns : edge\ns <- x * rate\na <- sum(rev(s))\nout = a\n"
    assert folded(parse(text)).tuned == {"rate": 0.0}


def test_a_constant_that_nothing_reads_any_more_goes():
    text = "@rate = 3\na : node\ns : edge\ns <- x + 0 * rate\na <- sum(rev(s))\nout = a\n"
    assert folded(parse(text)).tuned == {}


# Drawn without draws of their own: those depend on the order of slots.
STEADY = Drawing(initials=(Initial(expression=None, weight=3), Initial(expression="1", weight=1)))
ROOM = Room(slots=8, constants=12, initial=16, operators=32)


@jax.jit
def answers_of(genome, lesson):
    found, _ = answers(genome, lesson)
    return found


@pytest.mark.slow
def test_drawn_rules_answer_the_same_after_exact_simplification():
    genomes = unstack_genomes(jax.device_get(draw_genomes(STEADY, ROOM, jax.random.key(3), 60)))
    lesson = probe_lesson(Teaching(), ROOM.slots)
    fewer = 0
    for genome in genomes:
        rule = rule_of(genome)
        less = folded(rule)
        fewer += less.size < canonical(rule).size
        before, after = (answers_of(genome_of(each, ROOM.capacity), lesson) for each in (rule, less))
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5, err_msg=show(rule))
    assert fewer >= 10


def test_every_edit_of_every_known_rule_is_smaller_or_refused():
    for name in ("delta", "hebb", "equilibrium"):
        rule = folded(known_rule(name).rule)
        found = smaller_rules(rule)
        assert len({rule_hash(each) for _, each in found}) == len(found) > 10
        assert all(cost(each) < cost(rule) for _, each in found)


def test_edits_remove_stores_guards_and_starts():
    rule = DELTA
    w = rule.slot_number("w")
    assert rule.slots[w].kind == OWNER
    assert "w <-" not in show(edited(rule, [Edit(STORE, w)]))
    assert "if t_on" not in show(edited(rule, [Edit(GUARD, w)]))
    assert "w : edge shared(owner)\n" in show(edited(rule, [Edit(START, w)]))


def test_an_edit_that_the_language_does_not_allow_is_refused():
    # A node slot cannot hold what each edge has.
    number = next(place for place, entry in enumerate(DELTA.tick) if entry.name == "sum")
    product = DELTA.tick[number].operands[0]
    with pytest.raises(RuleError, match="edge value for the node slot a"):
        edited(DELTA, [Edit("operator", number, product)])


def test_each_place_of_edits_is_there_once():
    edits = list(edits_of(DELTA))
    assert len(edits) == len(set(edits))
    firsts = one_at_a_place(edits)
    assert len(firsts) == len({(edit.about, edit.number) for edit in edits})


# A task that one linear node can learn: small, and quickly run.
SCORING = Scoring((Exercise("and", generate("layered", 3, 0, 1, seed=0)),), examples=60, seeds=4)

REDUNDANT = """@lr = 0.1
w : edge shared(owner) = 0
s : edge
a : node
idle : node
idle <- idle + t * 0.001
s <- x + 0.000001 * idle
a <- sum(w * rev(s), incoming) + tanh(0.000001 * x)
w <- w - lr * t * rev(s) if t_on
out = a
"""


@pytest.fixture(scope="module")
def simplified():
    return simplify(parse(REDUNDANT), SCORING)


@pytest.mark.slow
def test_what_a_rule_does_not_need_is_knocked_out(simplified):
    assert canonical(simplified.rule).size <= canonical(DELTA).size
    assert "idle" not in show(simplified.rule) and "tanh" not in show(simplified.rule)


@pytest.mark.slow
def test_simplification_costs_nothing_and_ends_at_a_fixed_point(simplified):
    assert simplified.difference.mean > -0.1
    assert simplified.before[0] > 0.2
    assert [done.kept > 0 for done in simplified.rounds] == [True] * (len(simplified.rounds) - 1) + [False]
    assert cost(simplified.rule) < cost(simplified.original)


def test_each_line_of_the_delta_rule_is_worth_something():
    found = ablate(DELTA, SCORING)
    by_change = {(worth.text.split()[0], worth.change): worth.difference for worth in found.lines}
    needed = [("@lr", "lr is 0"), ("s", "no store"), ("a", "no store"), ("w", "no store")]
    for part in needed:
        assert by_change[part].mean < -0.2, part
    # The weights start as 0 anyway.
    assert by_change["w", "it starts as 0"].mean == 0
    assert found.scores[0] > 0.2


def test_scores_of_a_rule_do_not_depend_on_the_others():
    other = parse(REDUNDANT)
    capacity = capacity_of(other)
    alone = SCORING.scores([DELTA], capacity, 1)
    beside = SCORING.scores([other, DELTA], capacity, 1)
    np.testing.assert_array_equal(alone[0], beside[1])
    assert not np.array_equal(alone, SCORING.scores([DELTA], capacity, 2))


def test_a_difference_is_that_of_pairs():
    before = np.array([[0.0, 1.0, 2.0], [1.0, 1.0, 1.0]])
    after = before + np.array([[0.1, 0.1, 0.1], [-1.0, 0.0, 1.0]])
    found = difference(after, before)
    assert found.by_exercise == pytest.approx((0.1, 0.0))
    assert found.errors == pytest.approx((0.0, 1 / np.sqrt(3)), abs=1e-12)
    assert found.mean == pytest.approx(0.05)
    assert found.error == pytest.approx(1 / np.sqrt(3) / 2)
    assert found.is_no_fall
    assert not difference(before, after).is_no_fall


@pytest.mark.slow
def test_noise_stands_on_its_ports_where_a_rule_reads_it():
    quiet = parse("a : node\ns : edge\ns <- x\na <- 0.1 * sum(rev(s))\nout = a\n")
    loud = parse("a : node\ns : edge\ns <- x\na <- 0.1 * sum(rev(s)) + 0.1 * node_noise\nout = a\n")
    scores = SCORING.scores([quiet, loud], capacity_of(loud), 1)
    assert not np.array_equal(scores[0], scores[1])
    assert "node_noise" in PORTS


@pytest.mark.slow
def test_many_starts_on_nodes_of_many_edges_are_one_kernel():
    # XLA refuses a sum over an axis of large arrays in one kernel.
    graph = generate("layered", 3, 8, 1, seed=0)
    scoring = Scoring(exercises_of(["xor"], graph), examples=4, seeds=8)
    assert np.isfinite(scoring.scores([DELTA], capacity_of(DELTA), 0)).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"exercises": ()}, "exercises: got none"),
        ({"exercises": exercises_of(["and"]), "seeds": 1}, "seeds: got 1, expected at least 2"),
    ],
)
def test_scoring_that_cannot_be_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Scoring(**given)


# The commands.

WORDS = ["--tasks", "and", "--examples", "60", "--seeds", "4"]


def test_the_command_writes_a_rule_and_no_file_is_written_over(tmp_path, capsys):
    out = tmp_path / "less.rule"
    (tmp_path / "mine.rule").write_text(REDUNDANT)
    words = ["simplify", str(tmp_path / "mine.rule"), "--exact", "--out", str(out)]
    assert main(words) == 0
    assert read_rule(out) == folded(parse(REDUNDANT))
    assert out.read_text().startswith("# Simplified from mine: ")
    capsys.readouterr()
    assert main(words) == 2
    assert capsys.readouterr().err == f"error: --out: {out} is there already; --force writes over it\n"
    assert main([*words, "--force"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "less.txt"], "--out: got less.txt, expected a name that ends in .rule"),
        (["--out", "nowhere/less.rule"], "--out: got nowhere/less.rule, whose folder is missing"),
        (["--force"], "--force: expected --out as well"),
        (["--seeds", "1"], "--seeds: got 1, expected at least 2: a standard error needs them"),
        (["--graph", "nonesuch"], "--graph: "),
        (["--tasks", "and", "and"], "--tasks: got and and, expected each task once"),
        (["--settings", "nonesuch=1"], "--settings: got 'nonesuch'"),
    ],
)
def test_options_that_cannot_be_meant_are_told(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["simplify", "delta", *words]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_ablation_is_printed_as_a_table_and_as_json(capsys):
    assert main(["ablate", "delta", *WORDS]) == 0
    table = capsys.readouterr().out
    assert "w <- w - lr * t * rev(s) if t_on" in table and "no guard" in table
    assert main(["ablate", "delta", "--json", *WORDS]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["hash"] == rule_hash(DELTA)
    assert [line["change"] for line in told["lines"]] == [
        "lr is 0",
        "it starts as 0",
        "no store",
        "no guard",
        "no store",
        "no store",
        "no guard",
    ]
    assert told["lines"][0]["difference"]["by_task"]["and"]["mean"] < 0


def test_simplification_is_told_as_json(capsys):
    assert main(["simplify", "delta", "--json", *WORDS]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["simplified"]["size"] <= told["original"]["size"]
    assert parse(told["simplified"]["rule"])
    assert told["rounds"][-1]["kept"] == 0
    assert jnp.isfinite(told["difference"]["mean"])
