"""Steering: commands to a search that runs are done once, in their order, and the same after a resumption."""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import postgres_server
import pytest
from comparing import Ranks
from small_search import BREEDING, DELTA, JUDGING, ROOM
from test_launch import LAUNCH, environment, mpirun

from vsml.calls.asking import ask, config_of, parsed_value, why_it_waits
from vsml.calls.search_config import SearchConfig
from vsml.launching.rules import main as rules_main
from vsml.launching.run import main
from vsml.rules import parse, read_rule, rule_hash, show
from vsml.rules.known import rule_text
from vsml.rules.settings import Teaching
from vsml.runs.checkpoint import CheckpointStore, load
from vsml.runs.metrics import read_metrics
from vsml.search.breeding import PINNED, Breeder
from vsml.search.changing import SETTINGS, RefusedError, changed
from vsml.search.genome import genome_of, rule_of
from vsml.search.judge import Judge
from vsml.search.settings import Drawing, Mutations
from vsml.search.steering import Steering
from vsml.search.store import Database, RunRow, Writer, find_rules, insert_all, rule_row
from vsml.search.store.commands import Command, Desk, Outcome, commands_of, send
from vsml.search.store.lives import COMPLETE, RESUMED, life_of, run_named
from vsml.search.store.overview import overview
from vsml.search.store.queries import Query
from vsml.search.store.rows import EventRow, WorkerRow

pytestmark = pytest.mark.usefixtures("hasty")

CONFIG = SearchConfig(breeding=BREEDING, judging=JUDGING, room=ROOM)
OUTSIDE = show(rule_of(genome_of(read_rule("hebb"), ROOM.capacity)))


def breeder(comm=None):
    judge = Judge(JUDGING, Teaching(), ROOM, 3, **({} if comm is None else {"comm": comm}))
    return Breeder(BREEDING, Drawing(), Mutations(), judge, [[], [DELTA]], jax.random.key(3))


def steered(comm=None):
    return Steering(breeder(comm), CONFIG)


def do(steering, what, **arguments):
    """Do a command, and return its outcome."""
    number = f"{what} {len(steering.answers)}"
    steering.apply([{"id": number, "do": what, "arguments": arguments}])
    return steering.answers[number]


def about(genome):
    """Return the arguments that name a rule."""
    rule = rule_of(genome)
    return {"hash": rule_hash(rule), "text": show(rule)}


def state_of(steering):
    """Return all that a search goes on from, as what can be compared."""
    found = steering.breeder
    arrays = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(found.tree())]
    return arrays, json.dumps(found.metadata()), json.dumps(steering.metadata())


def hashes_of(population):
    return [
        rule_hash(rule_of(jax.tree.map(lambda array, place=place: array[place], population.genomes)))
        for place in range(population.size)
    ]


@pytest.fixture(scope="module")
def bred():
    """Return what a breeder goes on from after two generations."""
    whole = breeder()
    whole.step()
    whole.step()
    return whole.tree(), whole.metadata()


@pytest.fixture
def steering(bred):
    found = steered()
    found.breeder.restore(*bred)
    return found


@pytest.mark.parametrize(
    ("what", "arguments"),
    [
        ("set", {"name": 5, "value": 1}),
        ("unpin", {"hash": 5, "text": "out = a"}),
        ("ban", {"hash": ["a"], "text": "out = a"}),
        ("paste", {"text": None}),
    ],
)
def test_arguments_that_are_no_text_are_refused(what, arguments):
    told = do(steered(), what, **arguments)
    assert not told["done"] and "expected text" in told["said"]


@pytest.mark.slow
def test_what_was_banned_once_is_started_from_no_more_after_a_resumption_either(steering):
    sources = [[], [DELTA, genome_of(parse(OUTSIDE), ROOM.capacity)]]
    steering.breeder.sources = sources
    assert do(steering, "ban", **about(DELTA))["done"] and do(steering, "unban", **about(DELTA))["done"]
    again = steered()
    again.breeder.sources = sources
    again.restore(json.loads(json.dumps(steering.metadata())), {"search": {}}, {"search": {}})
    for found in (steering, again):
        assert [about(genome) for genome in found.breeder.sources[1]] == [about(sources[1][1])]


# Settings.


def test_every_setting_that_may_change_is_one_of_the_search():
    for name in SETTINGS:
        place = CONFIG
        for part in name.split(".")[1:]:
            place = getattr(place, part)
    assert len(set(SETTINGS)) == len(SETTINGS) > 40


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("search.breeding.population", 5, "cannot change while a search runs; expected one of search.breed"),
        ("search.room.slots", 5, "cannot change while a search runs; expected a setting of search, "),
        ("seed", 5, "cannot change while a search runs"),
        ("search.breeding.elites", 2, "less than or equal to 1"),
        ("search.breeding.elites", "much", "valid number"),
        ("search.breeding.migrants", 99, "at most 16"),
        ("search.judging.percentile", -1, "greater than or equal to 0"),
    ],
)
def test_a_setting_that_cannot_change_is_refused_by_name(name, value, message):
    with pytest.raises(RefusedError, match=message):
        changed(CONFIG, name, value)


@pytest.mark.slow
def test_what_is_set_is_what_breeds_on(steering):
    hurdle = steering.breeder.judge.hurdles["S3", 12]
    remembered = list(hurdle.scores)
    assert do(steering, "set", name="search.breeding.elites", value=0.75)["done"]
    assert do(steering, "set", name="search.mutations.crossover", value=2)["done"]
    assert do(steering, "set", name="search.judging.gates_hurdle", value=0.25)["done"]
    assert do(steering, "set", name="search.judging.percentile", value=0)["done"]
    told = do(steering, "set", name="search.drawing.leaves.x", value=9.0)
    assert told == {"done": True, "generation": 2, "said": "search.drawing.leaves.x: 5.0 -> 9.0"}
    found = steering.breeder
    assert found.breeding.elites == 0.75 and found.mutations.crossover == 2.0
    assert found.drawing.leaves.x == 9.0
    assert (hurdle.fixed, hurdle.height, hurdle.percentile) == (0.25, 0.25, 0)
    assert found.judge.hurdles["S3", 4].fixed == JUDGING.early_hurdle
    assert list(hurdle.scores) == remembered
    assert found.judge.stages[0].hurdle == 0.25
    found.step()


@pytest.mark.slow
def test_a_command_is_done_once_and_in_order(steering):
    orders = [
        {"id": "a", "do": "set", "arguments": {"name": "search.breeding.elites", "value": 0.5}},
        {"id": "b", "do": "set", "arguments": {"name": "search.breeding.elites", "value": 0.1}},
        {"id": "c", "do": "pause", "arguments": {}},
    ]
    steering.apply(orders)
    assert steering.config.breeding.elites == 0.1 and steering.paused
    steering.apply([orders[0], {"id": "d", "do": "resume", "arguments": {}}, orders[2]])
    assert steering.config.breeding.elites == 0.1 and not steering.paused


@pytest.mark.slow
def test_what_cannot_be_done_is_refused_and_changes_nothing(steering):
    before = state_of(steering)[:2]
    delta = about(DELTA)
    refused = [
        ("jump", {}, "command: got 'jump', expected one of pause, resume"),
        ("resume", {}, "not paused"),
        ("set", {"name": "search.solved"}, "set: got no value, expected name and value"),
        ("pin", {"hash": delta["hash"], "text": OUTSIDE}, "and the text of"),
        ("unpin", delta, "is not pinned"),
        ("unban", delta, "is not banned"),
        ("ban", delta, "is all that the search starts from"),
        ("paste", {"text": "a : node\nout = b\n"}, "paste: line 2"),
        ("paste", {"text": rule_text("backprop")}, "paste: capacity: got a rule of"),
        ("paste", {"text": 3}, "paste: text: got 3, expected text"),
    ]
    for what, arguments, message in refused:
        told = do(steering, what, **arguments)
        assert not told["done"] and message in told["said"], told
    assert state_of(steering)[:2] == before


# Rules.


@pytest.mark.slow
def test_a_pinned_elite_stays_whatever_comes(steering):
    found = steering.breeder
    number, elite = next(
        (number, elite)
        for number, island in enumerate(found.islands)
        for elite in island.archive.elites.values()
    )
    told = do(steering, "pin", **about(elite.genome))
    assert told["done"] and f"island {number}" in told["said"]
    name = f"{PINNED} {about(elite.genome)['hash'][:12]}: {elite.cell}"
    assert elite.cell not in found.islands[number].archive.elites
    assert found.islands[number].archive.elites[name].scores == elite.scores
    assert "pinned already" in do(steering, "pin", **about(elite.genome))["said"]
    assert "unpin it first" in do(steering, "ban", **about(elite.genome))["said"]
    # Patience is 3 generations, so islands begin anew soon.
    for _ in range(20):
        found.step()
        if any(island.restarts for island in found.islands):
            break
    assert sum(island.restarts for island in found.islands) > 0
    assert rule_hash(rule_of(found.islands[number].archive.elites[name].genome)) == told_hash(elite)
    assert do(steering, "unpin", **about(elite.genome))["done"]
    assert not any(name.startswith(PINNED) for name in found.islands[number].archive.elites)


def told_hash(elite):
    return about(elite.genome)["hash"]


@pytest.mark.slow
def test_a_rule_that_is_no_elite_is_scored_and_pinned(steering):
    genome = genome_of(parse(OUTSIDE), ROOM.capacity)
    told = do(steering, "pin", **about(genome))
    assert told["done"] and "island 0" in told["said"]
    (name,) = [name for name in steering.breeder.islands[0].archive.elites if name.startswith(PINNED)]
    scores = steering.breeder.islands[0].archive.elites[name].scores
    assert scores.count == 1 and 2 <= scores.mean <= steering.breeder.judge.passing + 0.5


@pytest.mark.slow
def test_a_banned_rule_is_nowhere_and_does_not_come_back(steering):
    found = steering.breeder
    population = found.islands[0].population
    victim = jax.tree.map(lambda array: array[int(population.best(1)[0])], population.genomes)
    rule = about(victim)["hash"]
    if rule == about(DELTA)["hash"]:
        found.sources = [[], [DELTA, genome_of(parse(OUTSIDE), ROOM.capacity)]]
    count = sum(hashes_of(island.population).count(rule) for island in found.islands)
    sizes = [island.population.size for island in found.islands]
    told = do(steering, "ban", **about(victim))
    assert told["done"] and f"and {count} places" in told["said"], told

    def is_there():
        archives = [*(island.archive for island in found.islands), found.hall]
        elites = [about(elite.genome)["hash"] for archive in archives for elite in archive.elites.values()]
        return rule in elites or any(rule in hashes_of(island.population) for island in found.islands)

    assert not is_there() and sizes == [island.population.size for island in found.islands]
    assert "is banned" in do(steering, "paste", text=about(victim)["text"])["said"]
    assert "is banned" in do(steering, "pin", **about(victim))["said"]
    # From elsewhere, as a mutation might find it again.
    found.proposals.append(genome_of(parse(about(victim)["text"]), ROOM.capacity))
    for _ in range(4):
        found.step()
        assert not is_there()
    assert do(steering, "unban", **about(victim))["done"]
    assert do(steering, "paste", text=about(victim)["text"])["done"]
    assert [event.detail["rule"] for event in found.step().events if event.kind == "proposal"] == [rule]


@pytest.mark.slow
def test_a_pasted_rule_is_judged_among_the_children(steering):
    found = steering.breeder
    before = found.judge.funnel.proposed
    told = do(steering, "paste", text=f"# by hand\n{OUTSIDE}")
    assert told["done"] and "is judged in generation 3" in told["said"]
    plain = steered()
    plain.breeder.restore(found.tree(), found.metadata())
    generation, other = found.step(), plain.breeder.step()
    (event,) = [event for event in generation.events if event.kind == "proposal"]
    assert event.detail["rule"] == rule_hash(parse(OUTSIDE)) and event.island == 0
    assert event.detail["said"] and event.detail["fitness"] >= 0
    assert found.judge.funnel.proposed - before == plain.breeder.judge.funnel.proposed - before
    assert not found.proposals and not [each for each in other.events if each.kind == "proposal"]


@pytest.mark.slow
def test_a_pasted_rule_that_learns_enters_as_proposed(steering):
    found = steering.breeder
    constants = np.array(DELTA.constants)
    constants[2] = 0.0317
    new = replace(DELTA, constants=constants)
    assert do(steering, "paste", text=about(new)["text"])["done"]
    generation = found.step()
    (bred,) = [each for each in generation.bred if each.change == "proposed"]
    assert about(bred.survivor.genome)["hash"] == about(new)["hash"]
    assert bred.parent is None and bred.island == 0
    assert about(new)["hash"] in hashes_of(found.islands[0].population)
    (event,) = [event for event in generation.events if event.kind == "proposal"]
    assert event.detail["said"] == f"passed {bred.survivor.stage}"


def test_before_the_first_generation_rules_can_be_pasted_alone():
    steering = steered()
    assert "no rules yet" in do(steering, "pin", **about(DELTA))["said"]
    assert do(steering, "paste", text=OUTSIDE)["done"]
    again = steered()
    again.breeder.restore(steering.breeder.tree(), steering.breeder.metadata())
    again.restore(steering.metadata(), {}, {})
    assert [about(genome)["hash"] for genome in again.breeder.proposals] == [rule_hash(parse(OUTSIDE))]


SCRIPT = {
    1: [("set", {"name": "search.breeding.elites", "value": 0.5}), ("paste", {"text": OUTSIDE})],
    2: [
        ("pin", about(genome_of(parse(OUTSIDE), ROOM.capacity))),
        ("set", {"name": "search.judging.percentile", "value": 0.5}),
        ("pause", {}),
        ("resume", {}),
    ],
}


def lived(steering, generations, last=4):
    """Breed with the commands of the script."""
    for generation in range(generations, last):
        orders = [
            {"id": f"{generation} {place}", "do": what, "arguments": arguments}
            for place, (what, arguments) in enumerate(SCRIPT.get(generation, []))
        ]
        steering.apply(orders)
        steering.breeder.step()
    return steering


@pytest.mark.slow
def test_a_steered_search_goes_on_as_it_would_have_and_is_the_same_on_ranks():
    whole = lived(steered(), 0)
    assert all(told["done"] for told in whole.answers.values()) and len(whole.answers) == 6
    part = steered()
    lived(part, 0, 2)
    # The commands of generation 2 are done, and then the process is killed.
    part.apply(
        [
            {"id": f"2 {place}", "do": what, "arguments": arguments}
            for place, (what, arguments) in enumerate(SCRIPT[2])
        ]
    )
    tree, metadata = part.breeder.tree(), json.loads(json.dumps(part.breeder.metadata()))
    again = steered()
    again.breeder.restore(tree, metadata)
    again.restore(json.loads(json.dumps(part.metadata())), {"search": {}}, {"search": {}})
    assert state_of(lived(again, 2)) == state_of(whole)
    assert state_of(lived(steered(), 0)) != state_of(steered())

    for state in Ranks.run(2, lambda rank: state_of(lived(steered(rank), 0))):
        assert state == state_of(whole)


def test_what_was_set_is_checked_together_at_a_resumption():
    """One after the other, in the order of the names, all weights would be 0 in between."""
    live = steered()
    do(live, "set", name="search.mutations.constant", value=2)
    for name in Mutations.model_fields:
        if name != "constant":
            do(live, "set", name=f"search.mutations.{name}", value=0)
    do(live, "set", name="search.mutations.crossover", value=1)
    assert do(live, "set", name="search.mutations.constant", value=0)["done"]
    again = steered()
    again.restore(json.loads(json.dumps(live.metadata())), {"search": {}}, {"search": {}})
    assert again.breeder.mutations == live.breeder.mutations and again.breeder.mutations.crossover == 1


@pytest.mark.slow
def test_what_a_person_changes_at_a_resumption_wins_over_what_was_set(steering):
    do(steering, "set", name="search.breeding.elites", value=0.5)
    do(steering, "set", name="search.breeding.tournament", value=3)
    saved = {"search": CONFIG.model_dump(mode="json")}
    given = SearchConfig(**{**saved["search"], "breeding": BREEDING.model_copy(update={"elites": 0.9})})
    again = Steering(steering.breeder, given)
    again.restore(steering.metadata(), saved, {"search": given.model_dump(mode="json")})
    assert again.breeder.breeding.elites == 0.9 and again.breeder.breeding.tournament == 3
    assert set(again.settings) == {"search.breeding.tournament"}


# Commands in a database.


@pytest.fixture
def database(tmp_path):
    config = json.dumps({"search": CONFIG.model_dump(mode="json")})
    rules = [rule_row(read_rule(name), "start").values() for name in ("delta", "backprop")]
    runs = [
        RunRow("first", config=config, started_s=1.0).values(),
        RunRow("second", config=config, started_s=2.0).values(),
    ]
    with Database(tmp_path / "rules.db", create=True) as found:
        with found.writing() as connection:
            insert_all(connection, {"rule": rules, "run": runs})
        yield found


def test_commands_wait_are_due_and_have_one_outcome(database, tmp_path):
    late = Command("second", "resume", at=5)
    first = Command("second", "pause", time_s=late.time_s - 1)
    for command in (late, first, Command("first", "pause")):
        send(database, command)
    with Writer(database, tmp_path / "spool") as writer:
        desk = Desk(writer, "second", "worker")
        assert [command.id for command in desk.due(0)] == [first.id]
        assert [command.id for command in desk.due(5)] == [first.id, late.id]
        desk.answer({first.id: {"done": True, "generation": 3, "said": "paused"}})
        desk.answer({first.id: {"done": False, "generation": 9, "said": "twice"}})
        assert [command.id for command in desk.due(2)] == [], "a run that goes back does it where it was done"
        assert [command.id for command in desk.due(3)] == [first.id]
        desk.close(8)
        assert [command.id for command in desk.due(9)] == [first.id], "what was refused stays refused"
    told = commands_of(database, "second")
    assert told == [(first, Outcome(True, 3, "paused")), (late, Outcome(False, 8, "the run is complete"))]
    assert len(commands_of(database)) == 3


def test_what_somebody_wrote_by_hand_is_no_reason_to_stop(database, tmp_path):
    row = Command("second", "pause").row.values()
    with database.writing() as connection:
        insert_all(connection, {"event": [row | {"id": "a", "detail": "no JSON"}, row | {"detail": "[]"}]})
    with Writer(database, tmp_path / "spool") as writer:
        orders = Desk(writer, "second").orders(0)
    assert [order["do"] for order in orders] == ["", ""]


def test_commands_are_checked_before_they_are_sent(database):
    delta = rule_hash(read_rule("delta"))
    command = ask(database, "pin", given={"hash": delta[:8]})
    assert command.run == "second" and command.arguments["hash"] == delta
    assert parse(command.arguments["text"]) is not None
    assert ask(database, "set", "fir", {"name": "search.solved", "value": None}, at=3).run == "first"
    pasted = ask(database, "paste", given={"text": OUTSIDE})
    (found,) = find_rules(database, Query(origin="proposed"))
    assert found.row.hash == rule_hash(parse(pasted.arguments["text"]))
    count = len(commands_of(database))
    for what, run, given, message in [
        ("jump", None, {}, "command: got 'jump'"),
        ("ban", None, {}, "ban: got no hash, expected hash"),
        ("pause", "third", {}, "run: got 'third', expected one of second, first"),
        ("pin", None, {"hash": "0123456789"}, "0123456789"),
        ("set", None, {"name": "search.solved", "value": "x"}, "search.solved: got 'x'"),
        ("paste", None, {"text": "out = 1"}, "paste: line 1"),
        ("pin", None, {"hash": rule_hash(read_rule("backprop"))[:9]}, "capacity"),
    ]:
        with pytest.raises(ValueError, match=message):
            ask(database, what, run, given)
    assert len(commands_of(database)) == count
    with pytest.raises(RefusedError, match="cannot be read"):
        parsed_value("{")


@pytest.mark.postgres
def test_commands_go_through_a_server_as_through_a_file(tmp_path):
    with postgres_server.server() as server, Database(server.url(), create=True) as database:
        config = json.dumps({"search": CONFIG.model_dump(mode="json")})
        with database.writing() as connection:
            insert_all(connection, {"run": [RunRow("first", config=config).values()]})
        command = ask(database, "set", given={"name": "search.breeding.elites", "value": 0.5})
        with Writer(database, tmp_path / "spool") as writer:
            desk = Desk(writer, "first")
            (order,) = desk.orders(0)
            assert order == {"id": command.id, "do": "set", "arguments": dict(command.arguments)}
            server.stop()
            assert desk.orders(1) == [], "no command comes while the server is away"
            desk.answer({command.id: {"done": True, "generation": 0, "said": "done"}})
            server.start()
            writer.flush(now=True)
            desk.answer({command.id: {"done": False, "generation": 1, "said": "twice"}})
        assert commands_of(database) == [(command, Outcome(True, 0, "done"))]


def test_a_run_is_found_by_the_beginning_of_its_name(database):
    assert run_named(database).id == "second" and run_named(database, "f").id == "first"
    with database.writing() as connection:
        insert_all(connection, {"run": [RunRow("first of all", started_s=0.5).values()]})
    assert run_named(database, "first").id == "first"
    with pytest.raises(ValueError, match="with which several begin"):
        run_named(database, "fir")


def working(run, heard_s=None):
    return WorkerRow(run, run, "here", {}, 0.0, time.time() if heard_s is None else heard_s).values()


def test_without_a_name_it_is_the_run_that_works(database):
    with database.writing() as connection:
        insert_all(connection, {"worker": [working("first"), working("second", heard_s=1.0)]})
    assert run_named(database).id == "first"
    with database.writing() as connection:
        insert_all(connection, {"worker": [working("second")]})
    with pytest.raises(ValueError, match="several work here, expected one of second, first"):
        run_named(database)
    assert run_named(database, "second").id == "second"
    with database.writing() as connection:
        insert_all(connection, {"event": [EventRow(COMPLETE, "first").values()]})
    assert run_named(database).id == "second", "what is complete does not work, however short ago it did"


def test_what_is_complete_is_told_by_names_of_events_and_no_clock(database):
    done = EventRow(COMPLETE, "first", time_s=100.0)
    late = EventRow(RESUMED, "first", detail={"settings": {"a": 1}, "after": [done.id]}, time_s=50.0)
    again = EventRow(
        RESUMED, "first", detail={"settings": {"a": 2}, "after": [done.id, late.id]}, time_s=40.0
    )
    seen = []
    for event in (done, late, again):
        with database.writing() as connection:
            insert_all(connection, {"event": [event.values()]})
        life = life_of(database, "first")
        seen.append((life.complete, life.settings))
    assert seen == [(True, None), (False, {"a": 1}), (False, {"a": 2})]
    # A run that went on while the database was away did not see what was there before.
    away = EventRow(RESUMED, "second", detail={"settings": {"a": 3}, "after": None}, time_s=60.0)
    with database.writing() as connection:
        rows = [EventRow(COMPLETE, "second", time_s=30.0).values(), away.values()]
        insert_all(connection, {"event": rows})
    assert not life_of(database, "second").complete


def test_a_run_that_nobody_hears_or_that_is_complete_says_so(database, tmp_path, capsys):
    command = ask(database, "pause", "first")
    assert "has never been heard" in why_it_waits(database, command)
    with database.writing() as connection:
        insert_all(connection, {"worker": [working("first", heard_s=time.time() - 7200)]})
    assert "was last heard 2 hours ago" in why_it_waits(database, command)
    assert rules_main(["steer", database.name, "--run", "first", "pause"]) == 0
    assert "note: this run was last heard 2 hours ago" in capsys.readouterr().out
    with database.writing() as connection:
        insert_all(connection, {"worker": [working("first")]})
    assert why_it_waits(database, command) is None, "it works"
    with Writer(database, tmp_path / "spool") as writer:
        Desk(writer, "first").close(3)
        with pytest.raises(RefusedError, match="which is complete; resume it for more generations first"):
            ask(database, "resume", "first")
        # It was complete just before the command was written.
        assert "this run is complete" in why_it_waits(database, command)
        after = list(life_of(database, "first").events)
        writer.write(EventRow(RESUMED, "first", detail={"settings": {}, "commands": [], "after": after}))
        writer.flush()
    assert ask(database, "resume", "first").run == "first"


def test_settings_are_those_with_which_a_run_last_went_on(database, tmp_path):
    name = "search.breeding.elites"
    before, after = (ask(database, "set", "first", {"name": name, "value": value}) for value in (0.5, 0.75))
    row = run_named(database, "first")
    with Writer(database, tmp_path / "spool") as writer:
        desk = Desk(writer, "first")
        desk.answer({before.id: {"done": True, "generation": 0, "said": "set"}})
        assert config_of(database, row).breeding.elites == 0.5
        # Somebody has changed it by hand at a resumption, which wins over what was set before.
        by_hand = changed(CONFIG, name, 0.125).model_dump(mode="json")
        writer.write(EventRow(RESUMED, "first", detail={"settings": by_hand, "commands": [before.id]}))
        writer.flush()
        assert config_of(database, row).breeding.elites == 0.125
        desk.answer({after.id: {"done": True, "generation": 0, "said": "set"}})
        assert config_of(database, row).breeding.elites == 0.75
        # What contradicts the settings of now is left out, as the run leaves it out, and blocks no command.
        none = dict.fromkeys(CONFIG.mutations.model_dump(), 0.0) | {"insert": 1.0}
        lone = by_hand | {"mutations": none}
        more = list(life_of(database, "first").events)
        again = ask(database, "set", "first", {"name": "search.mutations.insert", "value": 0})
        desk.answer({again.id: {"done": True, "generation": 0, "said": "set"}})
        detail = {"settings": lone, "commands": [before.id], "after": more}
        writer.write(EventRow(RESUMED, "first", detail=detail))
        writer.flush()
        assert config_of(database, row).mutations.insert == 1
        assert ask(database, "pause", "first").do == "pause"


def test_the_command_line_sends_and_lists(database, capsys):
    name = database.name
    assert rules_main(["steer", name, "list"]) == 0
    assert "no command was sent" in capsys.readouterr().out
    assert rules_main(["steer", name, "--at", "4", "set", "search.breeding.elites", "0.5"]) == 0
    assert rules_main(["steer", name, "--run", "first", "ban", rule_hash(read_rule("delta"))[:9]]) == 0
    assert rules_main(["steer", name, "paste", "hebb"]) == 0
    assert rules_main(["steer", name, "--wait", "0.3", "pause"]) == 1
    assert "still waits" in capsys.readouterr().out
    assert rules_main(["steer", name, "set", "seed", "3"]) == 2
    assert "cannot change while a search runs" in capsys.readouterr().err
    assert rules_main(["steer", name, "list"]) == 0
    listed = capsys.readouterr().out
    assert "search.breeding.elites=0.5" in listed and listed.count("waits") == 4


# Whole runs.

RUN = {
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
    "checkpoint": {"frequency": 1, "keep": 10},
}


def started(tmp_path, name, send, **changes):
    """Do a run that is sent commands by a thread, and return its folder."""
    settings = json.loads(json.dumps(RUN))
    settings["search"] |= {"database": str(tmp_path / f"{name}.db"), **changes}
    file = tmp_path / f"{name}.yaml"
    file.write_text(json.dumps(settings))
    sending = threading.Thread(target=send, args=(tmp_path / f"{name}.db",))
    sending.start()
    assert main(["--config_files", str(file), "--run_dir", str(tmp_path / name)]) == 0
    sending.join()
    return tmp_path / name


def nothing(path):
    del path


def until(found, timeout_s=300.0):
    """Return what a function returns as soon as it is something, and the database is there."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        with contextlib.suppress(ValueError):  # the run has not begun
            if (value := found()) is not None:
                return value
        time.sleep(0.05)
    raise TimeoutError


def paused(path, at):
    """Let a run pause, and return after which generation it did."""

    def sent():
        with Database(path) as database:
            return ask(database, "pause", at=at)

    def answered():
        with Database(path) as database:
            outcomes = [outcome for each, outcome in commands_of(database) if each.id == command.id]
            return outcomes[0].generation if outcomes[0] is not None else None

    command = until(sent)
    return until(answered)


def lines_of(run):
    lines = read_metrics(run / "metrics.jsonl")
    return [{name: value for name, value in line.items() if name != "wall_s"} for line in lines]


@pytest.mark.slow
def test_a_run_is_steered_killed_resumed_and_forked(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")

    def send(path):
        generation = paused(path, at=2)
        with Database(path) as database:
            ask(database, "set", given={"name": "search.breeding.elites", "value": 0.9})
            ask(database, "paste", given={"text": OUTSIDE})
            ask(database, "set", given={"name": "search.generations", "value": generation + 3})
            ask(database, "pause", at=9999)
            ask(database, "resume")

    whole = started(tmp_path, "whole", send, generations=5000)
    with Database(tmp_path / "whole.db") as database:
        told = commands_of(database)
        assert [outcome.done for _, outcome in told] == [True, True, True, True, False, True]
        (begin,) = {outcome.generation for _, outcome in told if outcome.done}
        assert told[4][1] == Outcome(False, begin + 3, "the run is complete")
        (proposed,) = find_rules(database, Query(origin="proposed"))
        assert proposed.row.hash == rule_hash(parse(OUTSIDE))
    expected = lines_of(whole)
    assert [line["step"] for line in expected] == list(range(1, begin + 4))

    # From a checkpoint before the commands, what is marked as done is done again where it was done.
    store = CheckpointStore(whole / "checkpoints")
    for step in range(begin, begin + 4):
        store.path(step).unlink()
    (whole / "complete").unlink()
    with Database(tmp_path / "whole.db") as database:
        run = run_named(database, "whole").id
        life = life_of(database, run)
        assert life.complete and life.settings is None and len(life.events) == 1
        with pytest.raises(RefusedError, match="which is complete"):
            ask(database, "pause", "whole")
    assert main(["--resume", str(whole)]) == 0
    assert lines_of(whole) == expected
    with Database(tmp_path / "whole.db") as database:
        assert commands_of(database) == told
        life = life_of(database, run)
        assert life.complete and len(life.events) == 3, "completed, resumed, completed"
        assert life.settings["breeding"]["elites"] == BREEDING.elites, "those before what is done again"
        assert life.commands == frozenset()

    forked = tmp_path / "forked"
    words = ["fork", str(whole), "--run_dir", str(forked), "--generation", str(begin + 1)]
    assert rules_main([*words, "--config", f"search.generations={begin + 2}"]) == 0
    _, metadata = load(CheckpointStore(forked / "checkpoints").path(begin + 1))
    assert metadata["config"]["search"]["breeding"]["elites"] == 0.9
    assert main(["--resume", str(forked)]) == 0
    assert lines_of(forked) == expected[: begin + 2]
    with Database(tmp_path / "whole.db") as database:
        run = run_named(database, "forked")
        assert run.step == begin + 1 and run.parent_run == run_named(database, "whole").id
        # Each run counts what it has done itself.
        proposed = {worker.run: worker.counters["proposed"]["all"] for worker in overview(database).workers}
        (line,) = [line for line in expected if line["step"] == begin + 1]
        assert proposed[run.id] == expected[begin + 1]["proposed"] - line["proposed"] > 0
        assert proposed[run.parent_run] == expected[-1]["proposed"]


@pytest.mark.slow
def test_a_paused_run_ends_by_a_signal_and_is_still_paused_when_it_is_resumed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "disabled")

    def send(path):
        paused(path, at=None)
        os.kill(os.getpid(), signal.SIGTERM)

    run = started(tmp_path, "run", send, generations=5000)
    assert not (run / "complete").exists()
    _, metadata = load(CheckpointStore(run / "checkpoints").newest())
    generation = metadata["step"]
    assert metadata["steering"]["paused"] and generation < 5000
    with Database(tmp_path / "run.db") as database:
        ask(database, "set", given={"name": "search.generations", "value": generation + 1})
        ask(database, "resume")
    capsys.readouterr()
    assert main(["--resume", str(run)]) == 0
    assert "is paused; to breed on" in capsys.readouterr().out
    assert (run / "complete").exists()
    assert lines_of(run)[-1]["step"] == generation + 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "search.database=/nowhere/rules.db"], "/nowhere/rules.db: its folder is missing"),
        (["--generation", "7"], "generation: got 7, expected one of 1"),
        (["--config", "search.room.slots=3"], "search.room.slots: got 3, which a fork cannot change"),
        (["--config", "search.breeding.elites=3"], "search.breeding.elites"),
    ],
)
@pytest.mark.slow
def test_a_fork_that_cannot_be_is_refused(words, message, tmp_path_factory, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    folder = tmp_path_factory.getbasetemp() / "to fork"
    if not folder.exists():
        folder.mkdir()
        started(folder, "run", nothing, generations=1)
    target = folder / "target"
    assert rules_main(["fork", str(folder / "run"), "--run_dir", str(target), *words]) == 2
    assert message in capsys.readouterr().err
    assert not target.exists()


def steer_to_the_end(path):
    """Pause a run after two generations, do something of everything, and let it breed four more."""
    generation = paused(path, at=2)
    with Database(path) as database:
        ask(database, "set", given={"name": "search.breeding.elites", "value": 0.9})
        ask(database, "set", given={"name": "search.judging.percentile", "value": 0.25})
        pasted = ask(database, "paste", given={"text": OUTSIDE})
        ask(database, "pin", given={"hash": rule_hash(parse(OUTSIDE))})
        ask(database, "ban", given={"hash": rule_hash(parse(OUTSIDE))})
        ask(database, "set", given={"name": "search.generations", "value": generation + 4})
        ask(database, "resume")
        return generation, pasted.run


@pytest.mark.mpi
def test_a_steered_run_is_the_same_on_ranks(tmp_path):
    file = tmp_path / "search.yaml"
    found = []
    for ranks in (1, 2):
        run = tmp_path / f"on {ranks}"
        path = tmp_path / f"{ranks}.db"
        settings = json.loads(json.dumps(RUN))
        settings["search"] |= {"database": str(path), "generations": 5000}
        file.write_text(json.dumps(settings))
        process = subprocess.Popen(
            [*mpirun(ranks), *LAUNCH, "--config_files", str(file), "--run_dir", str(run)],
            env=environment(tmp_path) | {"WANDB_MODE": "disabled"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        generation, _ = steer_to_the_end(path)
        output = process.communicate(timeout=300)[0]
        assert process.returncode == 0, output
        with Database(path) as database:
            said = [(command.do, outcome.said) for command, outcome in commands_of(database)]
        tree, _ = load(CheckpointStore(run / "checkpoints").newest())
        arrays = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]
        found.append((generation, said, lines_of(run), arrays))
    assert found[0] == found[1]
    assert found[0][0] == 2 and found[0][2][-1]["step"] == 6
    assert [do for do, said in found[0][1] if "unpin it first" in said] == ["ban"]


@pytest.mark.mpi
@pytest.mark.parametrize("to", ["mpirun", "a rank"])
def test_ranks_that_are_paused_end_by_a_signal(to, tmp_path):
    file, path, run = tmp_path / "search.yaml", tmp_path / "rules.db", tmp_path / "run"
    settings = json.loads(json.dumps(RUN))
    settings["search"] |= {"database": str(path), "generations": 5000}
    file.write_text(json.dumps(settings))
    process = subprocess.Popen(
        [*mpirun(2), *LAUNCH, "--config_files", str(file), "--run_dir", str(run)],
        env=environment(tmp_path) | {"WANDB_MODE": "disabled"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    generation = paused(path, at=None)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(process.pid if to == "mpirun" else int(children[1]), signal.SIGUSR1)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert f"stopped after generation {generation}" in output and "--resume" in output
    assert load(CheckpointStore(run / "checkpoints").newest())[1]["steering"]["paused"]
