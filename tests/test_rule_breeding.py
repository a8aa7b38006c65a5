"""Breeding of rules: populations, elites, damage, constants; resumed, and dealt to ranks."""

import json
import math
import re
import sqlite3
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from comparing import Ranks
from small_search import BREEDING, DELTA, JUDGING, ROOM

from vsml.launching.run import main
from vsml.rules import parse, read_rule, rule_hash
from vsml.rules.known import rule_text
from vsml.rules.settings import Teaching
from vsml.runs.metrics import read_metrics
from vsml.search.breeding import Breeder
from vsml.search.constants import tuned
from vsml.search.damage import damaged
from vsml.search.drawing import draw_genomes
from vsml.search.elites import FIRST_SPREAD, Archive, Elite, Scores, cell_of
from vsml.search.genome import NUMBERS, genome_of, rule_of, stack_genomes, unstack_genomes
from vsml.search.judge import Judge
from vsml.search.judging import Judging, LastGraph
from vsml.search.population import Population, joined, taken, tournaments
from vsml.search.settings import Breeding, Damage, Drawing, Mutations, Room, Start
from vsml.search.sources import texts_of
from vsml.search.stages import KNOWN

pytestmark = pytest.mark.usefixtures("hasty")


def breeder(comm=None, **changes):
    judge = Judge(JUDGING, Teaching(), ROOM, 3, **({} if comm is None else {"comm": comm}))
    breeding = BREEDING.model_copy(update=changes)
    return Breeder(breeding, Drawing(), Mutations(), judge, [[], [DELTA]], jax.random.key(3))


def state_of(found):
    """Return all that a breeder goes on from, as text that can be compared."""
    arrays = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(found.tree())]
    return arrays, json.dumps(found.metadata())


# Populations.


def numbered(numbers):
    """Return genomes that differ in a constant."""
    constants = [np.array(DELTA.constants) for _ in numbers]
    for constant, number in zip(constants, numbers, strict=True):
        constant[2] = number
    return jax.device_get(stack_genomes([replace(DELTA, constants=each) for each in constants]))


def test_the_oldest_die():
    population = Population(numbered([0, 1, 2, 3]), np.arange(4.0, dtype=np.float32))
    later = population.entered_by(numbered([10, 11]), np.array([7, 8], np.float32))
    assert later.genomes.constants[:, 2].tolist() == [2, 3, 10, 11]
    assert later.fitness.tolist() == [2, 3, 7, 8]
    assert later.best(2).tolist() == [3, 2]
    assert population.size == 4 and population.fitness.tolist() == [0, 1, 2, 3], "it was changed"


def test_more_children_than_places_leave_the_last_ones():
    population = Population(numbered([0, 1]), np.zeros(2, np.float32))
    later = population.entered_by(numbered([5, 6, 7]), np.array([1, 2, 3], np.float32))
    assert later.genomes.constants[:, 2].tolist() == [6, 7]


def test_tournaments_are_won_as_often_as_their_size_says():
    # The fittest of n wins one of size k with probability 1 - (1 - 1/n)^k.
    fitness = np.arange(10, dtype=np.float32)
    winners = np.asarray(tournaments(jax.random.key(0), 20_000, 3, fitness))
    share = (winners == 9).mean()
    assert share == pytest.approx(1 - 0.9**3, abs=0.01)
    assert (np.asarray(tournaments(jax.random.key(0), 50, 1, fitness)) < 9).any()


# Elites.


def test_scores_are_the_mean_and_its_standard_error():
    values = [1.0, 2.0, 4.0, 3.5]
    scores = Scores()
    for value in values:
        scores = scores.plus(value, value > 1.5)
    assert scores.mean == pytest.approx(np.mean(values))
    assert scores.squares == pytest.approx(np.var(values) * 4)
    assert scores.standard_error == pytest.approx(math.sqrt((np.var(values) + FIRST_SPREAD**2 / 4) / 4))
    assert scores.bound < scores.mean
    assert scores.passes == 3 and scores.plus(0, False).passes == 0
    assert Scores().bound == -math.inf


def test_a_lucky_score_does_not_displace_a_rule_that_is_good_again_and_again():
    steady = Scores()
    for _ in range(20):
        steady = steady.plus(3.0, True)
    archive = Archive()
    assert archive.take(Elite(DELTA, steady, "cell", 1))
    lucky = Scores().plus(3.1, False)
    assert archive.wants("cell", 3.1), "it is worth a second look"
    assert not archive.take(Elite(DELTA, lucky, "cell", 2))
    better = lucky
    for _ in range(20):
        better = better.plus(3.1, True)
    assert archive.take(Elite(DELTA, better, "cell", 2))
    assert archive.best.scores is better


def test_cells_are_told_by_size_and_stage():
    small = cell_of(DELTA, "S2", "error, layered")
    large = cell_of(
        genome_of(read_rule("backprop"), Room(slots=12, operators=56).capacity), "S2", "error, layered"
    )
    assert small == "size 0-9, error, layered, S2" and large.startswith("size 30-39")
    assert cell_of(DELTA, "S3", "error, layered") != small


# Damage.


@pytest.mark.parametrize("lines", [1, 2, 3, 5])
def test_so_many_lines_are_broken(lines):
    text = rule_text("backprop")
    for seed in range(5):
        broken = damaged(text, lines, seed)
        rows = zip(text.splitlines(), broken.splitlines(), strict=True)
        assert sum(before != after for before, after in rows) == lines
        assert rule_hash(parse(broken)) != rule_hash(parse(text))
        assert damaged(text, lines, seed) == broken
    assert damaged(text, 0, 0) == text


def test_a_rule_cannot_lose_more_lines_than_it_has():
    with pytest.raises(ValueError, match="lines: got 99, expected 0 to 3"):
        damaged(rule_text("delta"), 99, 0)


def test_sources_are_what_a_start_names(tmp_path):
    start = Start(drawn=True, rules=("delta", "hebb"), damage=Damage(lines=1))
    drawn, rules = texts_of(start)
    assert drawn == [] and len(rules) == 2 and rules[0] != rule_text("delta")
    with pytest.raises(ValueError, match="true, or rules, or a database"):
        Start(drawn=False)
    with pytest.raises(ValueError, match="rule: got 'nothing'"):
        texts_of(Start(rules=("nothing",)))


# Constants.


def test_constants_are_tuned_to_the_best_of_what_was_tried():
    place = len(NUMBERS)
    target = 0.37

    def fitness(genomes, key):
        return [-abs(float(genome.constants[place]) - target) for genome in genomes]

    found = tuned(DELTA, fitness, 30, jax.random.key(0))
    assert abs(found.constants[place] - target) < 0.02 < abs(DELTA.constants[place] - target)
    assert found.constants[:place].tolist() == list(NUMBERS), "0 and 1 are no constants to tune"
    assert rule_of(found).tick == rule_of(DELTA).tick


# Judging.


def test_the_best_starts_count():
    stage = Judging(seeds=4, best_starts=0.5).stages()[0]
    assert stage.of_best_starts(np.array([[0.0, 1.0, -1.0, 0.5]])).tolist() == [0.75]


def test_a_start_counts_by_the_worst_task_on_its_graph():
    graphs = (LastGraph(kind="layered", hidden=4), LastGraph(kind="layered", hidden=2))
    tasks = {"last_tasks": ("and", "or"), "last_graphs": graphs}
    (stage,) = Judging(learning=("S4",), seeds=2, best_starts=0.5, **tasks).stages()
    assert [exercise.name for exercise in stage.exercises] == ["and", "and", "or", "or"]
    # By exercise, then by start: on the first graph no start is good at both tasks.
    lucky = np.array([[1, 0], [0.5, 0.75], [0, 1], [0.25, 0.75]], float).reshape(1, -1)
    assert stage.score(lucky).tolist() == [0.0]
    able = np.array([[1, 0], [0.5, 0.75], [0.5, 1], [0.25, 0.75]], float).reshape(1, -1)
    assert stage.score(able).tolist() == [0.5]
    # Sums have starts of their own: no function that is drawn by luck is one.
    tasks = {"last_tasks": ("sum", "xor", "or"), "last_graphs": graphs[:1]}
    (stage,) = Judging(learning=("S4",), seeds=2, best_starts=0.5, **tasks).stages()
    assert stage.groups == [0, 1, 1]
    assert stage.score(np.array([1, 0, 0, 1, 1, 1], float)) == 1
    assert stage.score(np.array([1, 0, 1, 0, 0, 1], float)) == 0


def test_to_learn_some_tasks_of_a_partial_stage_is_better_than_to_learn_none():
    (stage,) = Judging(learning=("S2",), seeds=4).stages()
    (whole,) = Judging(learning=("S3",), seeds=4).stages()
    # Progress in 0, 1, a, not a at each of four starts, of which the best counts.
    nothing = np.zeros((4, 4))
    two_of_four = np.array([[0.8] * 4, [0.8] * 4, [0.0] * 4, [0.0] * 4])
    lucky = np.array([[-1, 1, -1, -1], [1, -1, -1, -1], [-1, -1, 1, -1], [-1, -1, -1, 1]], float)
    learns = np.full((4, 4), 0.5)
    shares = [float(stage.share(each.reshape(-1))) for each in (lucky, nothing, two_of_four, learns)]
    assert shares == sorted(shares) and shares[1:] == [0.5, 0.6, 0.75]
    assert stage.score(two_of_four.reshape(-1)) == 0
    assert float(whole.share(two_of_four[1:3].reshape(-1))) == 0.5, "the worst gate alone counts"


def test_exercises_on_one_graph_begin_alike_and_have_tasks_of_their_own():
    (stage,) = Judging(learning=("S3",), seeds=3).stages()
    ((places, lesson),) = stage.lessons(Teaching(), ROOM.slots, jax.random.key(0))
    assert places.tolist() == list(range(6))
    draws = np.asarray(lesson.union.draws).reshape(*lesson.union.draws.shape[:-1], 2, 3, -1)
    of_and, of_or = np.moveaxis(draws, -3, 0)
    np.testing.assert_array_equal(of_and, of_or)
    assert not np.array_equal(of_and[..., 0, :], of_and[..., 1, :]), "other starts are others"
    x = np.asarray(lesson.x).reshape(len(lesson.x), 2, 3, -1)
    assert not np.array_equal(x[:, 0], x[:, 1])


LUCKY = """m0 : node = normal() / sqrt(count(incoming))
m1 : edge = normal() / sqrt(degree)
m2 : node = normal() / sqrt(degree)
v0 = rev(m1)
m0 <- 0.5 + (sel(t, x, t) + (0.52 - (max(v0) - minimum(sum(m2, v0) - tanh(m2 + m0), 0.52))))
m1 <- x
m2 <- x * (m0 * m2) if sum(m1, x_on)
out = m0
"""
"""A rule that a search once found. In the best quarter of the starts of each gate by itself it has 0.45."""


def test_what_answers_by_luck_passes_no_gates():
    """A function that is drawn at the start is AND in some starts and OR in others, and never both."""
    rule = genome_of(parse(LUCKY), Room().capacity)
    judge = Judge(Judging(learning=("S3",), percentile=0), Teaching(), Room())
    (stage,) = judge.stages
    lucky, learns = judge.scores(stage, 800, [rule, genome_of(read_rule("delta"), Room().capacity)])
    assert lucky < 0.1 < learns


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning": ("S3", "S2")}, "each stage once, in their order"),
        ({"last_tasks": ("nand",)}, "one of and, or, xor"),
        ({"last_graphs": ({"kind": "cube"},)}, "one of "),
        ({"best_starts": 0}, "greater than 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Judging(**settings)


@pytest.mark.slow
def test_a_search_goes_on_as_it_would_have_and_is_the_same_on_ranks():
    whole = breeder()
    states = []
    for _ in range(4):
        whole.step()
        states.append((whole.tree(), whole.metadata()))
    again = breeder()
    again.restore(*states[1])
    for _ in range(2):
        again.step()
    assert state_of(again) == state_of(whole)
    assert whole.judge.funnel.proposed == whole.judge.funnel.entered("S0") > 4 * 32
    assert whole.best.scores.count >= 2 and whole.best.scores.mean > 2

    def on_rank(rank):
        dealt = breeder(rank)
        for _ in range(4):
            dealt.step()
        return state_of(dealt)

    for state in Ranks.run(2, on_rank):
        assert state == state_of(whole)


def test_rules_that_a_search_began_with_may_be_parents_for_ever():
    """A population drifts away from its start; what a change of the start does is still tried."""
    found = breeder(starts=0.4, elites=0.0, islands=1, children=512, patience=1000)
    for _ in range(2):
        found.step()
    parents, _ = found._parents(jax.random.key(1))
    hashes = [rule_hash(rule_of(parent)) for parent in unstack_genomes(jax.device_get(parents))]
    share = hashes.count(rule_hash(rule_of(DELTA))) / len(hashes)
    without = breeder(elites=0.0, islands=1, children=512, patience=1000)
    without.restore(found.tree(), found.metadata())
    others, _ = without._parents(jax.random.key(1))
    hashes = [rule_hash(rule_of(parent)) for parent in unstack_genomes(jax.device_get(others))]
    assert hashes.count(rule_hash(rule_of(DELTA))) / len(hashes) < 0.2 < 0.33 < share < 0.6


def test_a_program_that_was_met_before_enters_where_it_is_no_member():
    """With the fitness that it had then, and once; else ways that were gone before would be closed."""
    found = breeder()
    found.step()
    island = found.islands[0]
    (delta,) = island.population.best(1)
    member = taken(island.population.genomes, np.array([delta]))
    others = draw_genomes(Drawing(), ROOM, jax.random.key(5), 64)
    levels = found.judge.rate(others)
    new = np.flatnonzero((levels.fitness > 0) & (levels.reasons != KNOWN))[:2]
    two = taken(jax.device_get(others), new)
    children = joined(joined(member, two), two)
    rated = found.judge.rate(children)
    assert (rated.reasons == KNOWN).all() and rated.fitness[1:3].tolist() == levels.fitness[new].tolist()
    before = island.population
    found._enter(island, np.arange(5), children, rated)
    after = island.population
    assert after.fitness.tolist() == [*before.fitness[2:].tolist(), *levels.fitness[new].tolist()]
    found._enter(island, np.arange(5), children, rated)
    assert island.population.fitness.tolist() == after.fitness.tolist()


@pytest.mark.parametrize("method", ["random", "best_of", "constants"])
def test_controls_have_the_same_budget(method):
    judge = Judge(JUDGING, Teaching(), ROOM, 3)
    sources = [[]] if method == "random" else [[DELTA]]
    control = Breeder(
        BREEDING.model_copy(update={"method": method, "tune": None}),
        Drawing(),
        Mutations(),
        judge,
        sources,
        jax.random.key(3),
    )
    control.begin()
    before = judge.funnel.proposed
    for _ in range(3):
        bred = control.step().bred
        for each in bred:
            if method == "constants":
                assert set(each.change.split(" + ")) == {"constant"}
                assert rule_of(each.survivor.genome).size == rule_of(DELTA).size
            if method == "random":
                assert each.parent is None and each.change == "drawn"
            if method == "best_of":
                assert rule_hash(rule_of(each.parent)) == rule_hash(rule_of(DELTA))
    assert judge.funnel.proposed - before == 3 * 32


def test_starts_are_no_parents_where_there_are_none():
    judge = Judge(JUDGING, Teaching(), ROOM, 3)
    with pytest.raises(ValueError, match=r"starts: got 0.1 without rules to start from"):
        Breeder(
            BREEDING.model_copy(update={"starts": 0.1}),
            Drawing(),
            Mutations(),
            judge,
            [[]],
            jax.random.key(3),
        )


def test_a_control_needs_a_start():
    judge = Judge(JUDGING, Teaching(), ROOM, 3)
    with pytest.raises(ValueError, match="method: got best_of without rules"):
        Breeder(Breeding(method="best_of"), Drawing(), Mutations(), judge, [[]], jax.random.key(0))


def test_graphs_of_the_last_stage_are_those_that_were_named():
    judging = Judging(last_tasks=("and", "xor"), last_graphs=(LastGraph(kind="layered", hidden=5),))
    stage = judging.stages()[-1]
    assert [(each.name, each.graph.num_nodes) for each in stage.exercises] == [("and", 9), ("xor", 9)]


# The call.

SETTINGS = {
    "call": "search",
    "seed": 3,
    "search": {
        "generations": 4,
        "start": {"rules": ["delta"]},
        "room": ROOM.model_dump(mode="json"),
        "breeding": BREEDING.model_dump(mode="json"),
        "judging": {"learning": ["S3"], "seeds": 2, "gates": [4, 12], "gates_hurdle": -0.9},
    },
    "summary": {"frequency": 1},
    "checkpoint": {"frequency": 2},
}


@pytest.mark.slow
def test_a_run_that_was_stopped_is_the_run_that_was_not(tmp_path, monkeypatch):
    sqlalchemy = pytest.importorskip("sqlalchemy")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    file = tmp_path / "search.yaml"
    file.write_text(json.dumps(SETTINGS))
    words = ["--config_files", str(file), "--run_dir"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([*words, str(whole)]) == 0
    assert main([*words, str(parts), "--config", "search.generations=2"]) == 0
    assert main(["--resume", str(parts), "--config", "search.generations=4"]) == 0
    kept = [
        [
            {name: value for name, value in line.items() if name != "wall_s"}
            for line in read_metrics(run / "metrics.jsonl")
        ]
        for run in (whole, parts)
    ]
    assert kept[0] == kept[1] and len(kept[0]) == 4
    assert (whole / "best.rule").read_text() == (parts / "best.rule").read_text()
    tables = []
    for run in (whole, parts):
        with sqlalchemy.create_engine(f"sqlite:///{run / 'rules.db'}").connect() as connection:
            text = sqlalchemy.text
            rules = connection.execute(text("select hash from rule order by hash")).all()
            parents = connection.execute(text("select child, parent from parent order by 1, 2")).all()
            scores = connection.execute(text("select rule, test, score from evaluation order by 1, 2")).all()
            tables.append((rules, parents, scores))
            (counters,) = connection.execute(text("select counters from worker")).one()
            assert json.loads(counters)["proposed"]["all"] == kept[0][-1]["proposed"]
    assert tables[0] == tables[1] and all(tables[0])


@pytest.mark.slow
def test_runs_that_share_a_database_take_over_each_others_elites(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    search = SETTINGS["search"] | {"database": str(tmp_path / "shared.db")}
    search["breeding"] = BREEDING.model_copy(update={"exchange": 2}).model_dump(mode="json")
    file = tmp_path / "search.yaml"
    file.write_text(json.dumps(SETTINGS | {"search": search}))
    assert main(["--config_files", str(file), "--run_dir", str(tmp_path / "first")]) == 0
    assert "of other runs" not in capsys.readouterr().out
    words = ["--config_files", str(file), "--run_dir", str(tmp_path / "second"), "--config", "seed=4"]
    assert main(words) == 0
    told = re.findall(r"generation (\d+): (\d+) elite\(s\) of other runs", capsys.readouterr().out)
    assert told and told[0][0] == "2" and int(told[0][1]) > 0
    with sqlite3.connect(tmp_path / "shared.db") as connection:
        workers = connection.execute("select id, run from worker").fetchall()
        assert len(workers) == 2 and all(worker == run for worker, run in workers)
        query = "select count(*) from event where kind = 'proposal'"
        assert connection.execute(query).fetchone()[0] == sum(int(count) for _, count in told)


def test_an_exchange_needs_a_database_that_runs_share(tmp_path, capsys):
    file = tmp_path / "search.yaml"
    file.write_text(json.dumps({"call": "search", "search": {"breeding": {"exchange": 5}}}))
    assert main(["--config_files", str(file), "--dry_run"]) == 2
    assert "search.breeding.exchange: got 5, expected null" in capsys.readouterr().err


def test_a_control_without_a_start_is_refused(tmp_path, capsys):
    file = tmp_path / "search.yaml"
    file.write_text(json.dumps({"call": "search", "search": {"breeding": {"method": "best_of"}}}))
    assert main(["--config_files", str(file), "--dry_run"]) == 2
    assert "search.start.drawn: got True" in capsys.readouterr().err


def test_a_graph_that_a_kind_does_not_take_is_refused_before_the_run(tmp_path, capsys):
    file = tmp_path / "search.yaml"
    ring = {"kind": "ring", "hidden": 1}
    file.write_text(json.dumps({"call": "search", "search": {"judging": {"last_graphs": [ring]}}}))
    assert main(["--config_files", str(file), "--run_dir", str(tmp_path / "run")]) == 2
    assert not (tmp_path / "run").exists()
    assert "search.judging.last_graphs.0.hidden: got 1, expected as many as" in capsys.readouterr().err


def test_settings_of_the_search_are_read_without_what_makes_graphs():
    """Other calls read them, too, in environments without the extra `rules`."""
    code = "import sys; sys.modules['networkx'] = None; import vsml.launching.schema"
    subprocess.run([sys.executable, "-c", code], check=True)
