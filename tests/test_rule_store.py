"""The database of rules on SQLite, the spool, and the command line `vsml rules db`."""

import json
import os
import random
import re
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")

from vsml.launching.rules import main
from vsml.rules import known_names, known_rule, read_rule, rule_hash
from vsml.search.settings import Start
from vsml.search.sources import texts_of
from vsml.search.store import (
    AwayError,
    CellRow,
    DamagedError,
    Database,
    EvaluationRow,
    EventRow,
    IslandRow,
    MissingError,
    ParentRow,
    Query,
    RuleRow,
    RunRow,
    SchemaVersionError,
    Spool,
    StoreError,
    WorkerRow,
    Writer,
    ancestors,
    claim,
    descendants,
    evaluations_of,
    find_rules,
    known_hashes,
    known_rules,
    merge,
    release,
    rule_row,
    sizes,
)
from vsml.search.store.exchange import Exchange
from vsml.system import extras
from vsml.system.extras import MissingExtraError, needed_for
from vsml.system.locks import HeldError

ROOT = Path(__file__).parents[1]
KNOWN = {name: rule_row(known_rule(name).rule, f"known: {name}") for name in ("delta", "hebb", "oja")}
DELTA, HEBB, OJA = KNOWN.values()


@pytest.fixture
def database(tmp_path):
    with Database(tmp_path / "rules.db", create=True) as database:
        yield database


@pytest.fixture
def writer(database, tmp_path):
    with Writer(database, tmp_path / "spool") as writer:
        yield writer


def columns_of(database, statement):
    """What a statement finds, by the standard library."""
    with sqlite3.connect(database.file) as connection:
        return connection.execute(statement).fetchall()


# Rules as rows.


@pytest.mark.parametrize("name", known_names())
def test_a_row_has_the_rule_again(name):
    rule = known_rule(name).rule
    row = rule_row(rule, "known")
    assert row.hash == rule_hash(rule) == rule_hash(row.rule)
    assert row.size == len(json.loads(row.program)["tick"])
    assert len(row.kinds.split("; ")) == len(json.loads(row.program)["slots"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EvaluationRow("0" * 63, "xor"), r"evaluation\.rule: got '0+', expected the 64 hex digits"),
        (lambda: EvaluationRow("G" * 64, "xor"), r"evaluation\.rule: got 'G+'"),
        (lambda: EvaluationRow(DELTA.hash, "xor", score=float("nan")), r"evaluation\.score: got nan"),
        (lambda: EvaluationRow(DELTA.hash, "xor", status="passed"), r"got 'passed', expected one of waiting"),
        (lambda: EventRow("pa\0use"), r"event\.kind: got a text with the character NUL"),
        (lambda: Query(hash="xyz"), "hash: got 'xyz'"),
        (lambda: Query(least=0.5), "least: got 0.5 without a test"),
        (lambda: Query(passed=True), "passed: expected a test"),
        (lambda: Query(limit=0), "limit: got 0"),
    ],
)
def test_what_cannot_be_kept_or_meant_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_rule_whose_text_was_changed_is_told(database, writer):
    writer.write(DELTA)
    writer.flush()
    with sqlite3.connect(database.file) as connection:
        connection.execute("UPDATE rule SET text = replace(text, '0.1', '0.2')")
    with pytest.raises(DamagedError, match=f"{DELTA.hash}: its text is damaged: it has the hash"):
        known_rules(database, Query())


# Writing.


def test_all_kinds_of_rows_are_there_as_they_were_written(database, writer):
    rows = [
        DELTA,
        ParentRow(DELTA.hash, HEBB.hash, "insert"),
        RunRow("run", parent_run="before", step=7, config="{}", git="abc", host="h", started_s=1.5),
        EvaluationRow(DELTA.hash, "xor", "S4", "0-7", "1", "pass", 0.25, 0.125, 2**40, 0.5, "run", "w", 3.0),
        WorkerRow("w", "run", "h", {"S1": {"deaf": 3}}, started_s=1.0, heartbeat_s=2.0),
        IslandRow("run", 0, "w", 5, {"plateau": 3}, updated_s=4.0),
        CellRow("run", 0, "size 1-9", DELTA.hash, 0.5, None, updated_s=4.0),
        EventRow("pause", "run", None, {"by": "me"}, 9.0, "id"),
    ]
    writer.write(*rows)
    assert not any(sizes(database).values())
    found = writer.flush()
    assert found.new_rules == {DELTA.hash} and found.waiting == 0
    for row in rows:
        (got,) = columns_of(database, f"SELECT * FROM {row.table}")
        assert set(got) == set(row.values().values()), row.table


def test_what_is_there_stays_and_is_not_new(database, writer):
    evaluation = EvaluationRow(DELTA.hash, "xor", status="pass", score=0.5)
    writer.write(DELTA, evaluation)
    writer.flush()
    writer.write(rule_row(known_rule("delta").rule, "mutation"), HEBB)
    writer.write(EvaluationRow(DELTA.hash, "xor", status="fail", score=0.25))
    found = writer.flush()
    assert found.new_rules == {HEBB.hash} and not found.new["evaluation"]
    assert known_hashes(database, [DELTA.hash, OJA.hash]) == {DELTA.hash}
    assert evaluations_of(database, DELTA.hash) == [evaluation]
    (delta,) = find_rules(database, Query(hash=DELTA.hash))
    assert delta.row == DELTA


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("order", [1, -1])
def test_of_what_says_how_things_are_now_the_newest_stays(database, writer, together, order):
    workers = [WorkerRow("w", None, "h", {"S1": {"deaf": at}}, 0.0, heartbeat_s=at) for at in (1, 2, 3)]
    cells = [CellRow("r", 0, "c", DELTA.hash, 1 / at, updated_s=at) for at in (1, 2, 3)]
    writer.write(DELTA)
    for worker, cell in list(zip(workers, cells, strict=True))[::order]:
        writer.write(worker, cell)
        if not together:
            writer.flush()
    writer.flush()
    assert columns_of(database, "SELECT counters FROM worker") == [('{"S1": {"deaf": 3}}',)]
    assert columns_of(database, "SELECT score FROM cell") == [(1 / 3,)]


def test_rows_that_the_database_refuses_stay_in_the_spool_and_none_of_their_flush_is_there(
    database, tmp_path
):
    writer = Writer(database, tmp_path / "other")
    writer.write(DELTA)
    writer.write(EvaluationRow(HEBB.hash, "xor"))  # a rule that nobody has sent
    with pytest.raises(StoreError, match="refuses a row: FOREIGN KEY"):
        writer.flush()
    assert sizes(database)["rule"] == 0
    writer.write(HEBB)
    assert writer.close().new_rules == {DELTA.hash, HEBB.hash}


def test_a_commit_that_was_not_heard_of_is_sent_again_and_there_once(database, tmp_path, monkeypatch):
    evaluation = EvaluationRow(DELTA.hash, "xor", status="pass", score=0.5)
    writer = Writer(database, tmp_path / "other")
    writer.write(DELTA, evaluation, EventRow("found"))
    with monkeypatch.context() as killed:
        killed.setattr(Spool, "drop", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            writer.flush()
    before = sizes(database)
    assert before["rule"] == before["evaluation"] == before["event"] == 1
    found = writer.close()
    assert not any(found.new.values()) and sizes(database) == before


def test_a_busy_database_is_asked_again_later(tmp_path, monkeypatch):
    monkeypatch.setattr("vsml.search.store.database._BUSY_S", 0.05)
    database = Database(tmp_path / "rules.db", create=True)
    sizes(database)
    with Writer(database, tmp_path / "spool", retry_s=60) as writer:
        writer.write(DELTA)
        holder = sqlite3.connect(database.file, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        found = writer.flush()
        assert found.waiting == 1 and "database is locked" in found.reason
        holder.execute("ROLLBACK")
        assert writer.flush().waiting == 1  # not asked again so soon
        assert writer.flush(now=True).new_rules == {DELTA.hash}
        holder.close()


def test_threads_and_their_writers_share_a_file(database, tmp_path):
    sizes(database)

    def work(number):
        with Database(database.file) as own, Writer(own, tmp_path / f"{number}.spool") as writer:
            for place in range(20):
                row = RuleRow(f"{20 * number + place:064x}", "{}", "text", 1, "node", "drawn")
                writer.write(row)
                writer.flush()

    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes(database)["rule"] == 80


# The spool.


def test_a_spool_is_there_again_and_cut_where_its_writer_was_killed(tmp_path):
    path = tmp_path / "spool"
    spool = Spool(path)
    empty = path.stat().st_size
    entries = [{"rule": [number, "ä\n\u2028"]} for number in range(3)]
    for entry in entries:
        spool.append(entry)
    spool.close()
    whole = path.read_bytes()
    starts = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        again = Spool(path)
        kept = [entry for entry, end in zip(entries, starts[1:], strict=True) if end <= size]
        assert again.read(10)[0] == kept and len(again) == len(kept)
        again.append("next")
        assert again.read(10)[0] == [*kept, "next"]
        again.drop(again.read(10)[1])
        assert len(again) == 0 and path.stat().st_size == empty
        again.close()


def test_entries_are_dropped_from_the_oldest_on(tmp_path):
    spool = Spool(tmp_path / "spool")
    for number in range(5):
        spool.append(number)
    entries, place = spool.read(2)
    spool.drop(place)
    assert entries == [0, 1] and len(spool) == 3
    spool.append(5)
    entries, place = spool.read(10)
    assert entries == [2, 3, 4, 5]
    spool.close()
    # What was dropped before the file was empty comes again: the database takes it once.
    assert len(Spool(tmp_path / "spool")) == 6


@pytest.mark.parametrize("line", [1, 2, 3])
def test_a_damaged_line_is_told_unless_it_is_the_last(tmp_path, line):
    path = tmp_path / "spool"
    spool = Spool(path)
    for number in range(3):
        spool.append({"number": number})
    spool.close()
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b"number", b"numbes")
    path.write_bytes(b"".join(lines))
    if line == 3:
        assert len(Spool(path)) == 2
    else:
        with pytest.raises(DamagedError, match=f"spool: line {line + 1} is damaged, and lines follow it"):
            Spool(path)


def test_a_spool_has_one_owner_and_other_files_are_no_spools(tmp_path):
    spool = Spool(tmp_path / "spool")
    with pytest.raises(HeldError, match=f"held by process {os.getpid()}"):
        Spool(tmp_path / "spool")
    spool.close()
    Spool(tmp_path / "spool").close()
    (tmp_path / "text").write_text("something else\n")
    with pytest.raises(StoreError, match="text: got a file that is no spool"):
        Spool(tmp_path / "text")
    assert (tmp_path / "text").read_text() == "something else\n"
    (tmp_path / "half").write_text("something")
    with pytest.raises(StoreError, match="half: got a file that is no spool"):
        Spool(tmp_path / "half")
    monkey = (tmp_path / "spool").read_text().partition(" ")[2].replace("1", "2").rstrip()
    import zlib

    (tmp_path / "later").write_text(f"{zlib.crc32(monkey.encode()):08x} {monkey}\n")
    with pytest.raises(StoreError, match="later: got a spool of version 2, expected version 1"):
        Spool(tmp_path / "later")


def test_a_full_disk_leaves_the_spool_as_it_was(tmp_path, monkeypatch):
    spool = Spool(tmp_path / "spool")
    spool.append("one")
    before = (tmp_path / "spool").read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match=r"No space left .*spool"):
            spool.append("two")
    assert (tmp_path / "spool").read_bytes() == before
    spool.append("three")
    assert spool.read(9)[0] == ["one", "three"]


# Kills.

SEARCHER = """
import hashlib, sys
from vsml.search.store import Database, RuleRow, Writer

url, spool, told = sys.argv[1:]
told = open(told, "a", buffering=1)
number = 0
with Writer(Database(url, create=True), spool) as writer:
    while True:
        for _ in range(3):
            number += 1
            name = hashlib.sha256(b"%d" % number).hexdigest()
            writer.write(RuleRow(name, "{}", "text", 1, "node", "drawn"))
            told.write(f"passed {name}\\n")
        for rule in writer.flush().new_rules:
            told.write(f"new {rule}\\n")
"""


def test_no_rule_is_lost_and_none_is_new_twice_when_the_writer_is_killed(tmp_path):
    draws = random.Random(0)
    told = tmp_path / "told"
    command = [sys.executable, "-c", SEARCHER, tmp_path / "rules.db", tmp_path / "spool", told]
    for _ in range(3):
        before = told.stat().st_size if told.exists() else 0
        process = subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE
        )
        while process.poll() is None and not (told.exists() and told.stat().st_size > before):
            time.sleep(0.01)
        time.sleep(draws.uniform(0, 0.5))
        process.kill()
        _, errors = process.communicate()
        assert process.returncode == -9, errors.decode()
    lines = [line.split() for line in told.read_text().splitlines()]
    with Database(tmp_path / "rules.db") as database:
        with Writer(database, tmp_path / "spool") as writer:
            lines += [["new", rule] for rule in writer.flush().new_rules]
        there = {found.row.hash for found in find_rules(database, Query())}
    passed = {line[1] for line in lines if line[0] == "passed"}
    new = [line[1] for line in lines if line[0] == "new"]
    assert passed and passed <= there
    assert new and len(new) == len(set(new))


# Work.


def test_work_is_claimed_once_finished_once_and_taken_from_the_silent(database, writer):
    now = time.time()
    for number, row in enumerate(KNOWN.values()):
        writer.write(row, EvaluationRow(row.hash, "and", time_s=number))
    writer.write(WorkerRow("alive", None, "h", {}, now), WorkerRow("dead", None, "h", {}, now, now - 700))
    writer.flush()
    (first,) = claim(database, "alive", 1)
    assert first.evaluation.rule == DELTA.hash and first.text == DELTA.text
    assert [each.evaluation.rule for each in claim(database, "dead", 1, tests=["and"])] == [HEBB.hash]
    assert claim(database, "alive", 5, tests=["xor"]) == []
    # Its result stays, and it is no work any more.
    writer.write(EvaluationRow(DELTA.hash, "and", status="pass", score=0.5))
    assert writer.flush().new["evaluation"] == {(DELTA.hash, "and", "", "", "")}
    with sqlite3.connect(database.file) as connection:
        connection.execute("UPDATE evaluation SET time_s = time_s - 700 WHERE worker = 'dead'")
    assert [each.evaluation.rule for each in claim(database, "other", 5)] == [OJA.hash, HEBB.hash]
    assert claim(database, "other", 5) == []
    assert release(database, "other") == 2 and release(database, "other") == 0
    assert len(claim(database, "alive", 5)) == 2


# Queries.


def test_rules_are_found_by_what_they_are_and_by_what_they_reached(database, writer):
    writer.write(*KNOWN.values())
    # Of delta two evaluations: mean 0.5 and error sqrt(0.3 ** 2 + 0.4 ** 2) / 2 = 0.25.
    for seeds, score, error in (("0", 0.25, 0.3), ("1", 0.75, 0.4)):
        writer.write(EvaluationRow(DELTA.hash, "xor", "S4", seeds, "1", "pass", score, error))
    writer.write(EvaluationRow(HEBB.hash, "xor", "S4", "0", "1", "fail", 0.5, None))
    writer.write(
        EvaluationRow(OJA.hash, "xor", "S4", "0", "2", "nan"), EvaluationRow(OJA.hash, "xor", "S4", "1")
    )
    writer.flush()
    found = find_rules(database, Query(test="xor"))
    assert [each.row.hash for each in found] == [HEBB.hash, DELTA.hash, OJA.hash]
    assert [(each.score, each.standard_error, each.evaluations) for each in found] == [
        (0.5, 0.0, 1),
        (0.5, pytest.approx(0.25), 2),
        (None, None, 1),
    ]

    def hashes(**wanted):
        return {each.row.hash for each in find_rules(database, Query(**wanted))}

    assert hashes(test="xor", least=0.3) == {HEBB.hash}
    assert hashes(test="xor", least=0.2) == {HEBB.hash, DELTA.hash}
    assert hashes(test="xor", passed=True) == {DELTA.hash}
    assert hashes(test="xor", harness="2") == {OJA.hash}
    assert hashes(test="xor", level="S3") == hashes(test="and") == hashes(run="x") == set()
    assert hashes(origin="known: h") == {HEBB.hash}
    assert hashes(hash=OJA.hash[:9]) == {OJA.hash}
    smallest = min(row.size for row in KNOWN.values())
    assert hashes(max_size=smallest) == {row.hash for row in KNOWN.values() if row.size == smallest}
    assert hashes(min_size=smallest + 1) == {row.hash for row in KNOWN.values() if row.size > smallest}
    with_kind = {row.hash for row in KNOWN.values() if "edge shared(owner)" in row.kinds.split("; ")}
    assert hashes(kind="edge shared(owner)") == with_kind
    assert hashes(kind="edge shared") == set()
    assert hashes(origin="%") == set()
    (rule,) = known_rules(database, Query(test="xor", passed=True))
    assert rule_hash(rule) == DELTA.hash


def test_families_with_circles_are_walked_once(database, writer):
    links = [(DELTA, HEBB, "insert"), (HEBB, DELTA, "delete"), (DELTA, OJA, "crossover")]
    writer.write(*KNOWN.values(), *[ParentRow(child.hash, parent.hash, how) for child, parent, how in links])
    writer.flush()
    walked = list(ancestors(database, DELTA.hash, 9).walk())
    assert walked[0] == (0, DELTA.hash, "", False)
    assert sorted(walked[1:]) == sorted(
        [(1, HEBB.hash, "insert", False), (2, DELTA.hash, "delete", True), (1, OJA.hash, "crossover", False)]
    )
    assert list(descendants(database, OJA.hash, 1).walk()) == [
        (0, OJA.hash, "", False),
        (1, DELTA.hash, "crossover", False),
    ]


# Databases that cannot be used.


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "url: got ''"),
        ("oracle://me:secret@host/x", r"url: got 'oracle://me:\*\*\*@host/x', expected a file such as"),
        ("postgresql://me:secret@host", r"'postgresql://me:\*\*\*@host' without the name of a database"),
        ("postgresql://me:secret@host:port/x", "got one that cannot be read"),
        ("sqlite://", "without a file"),
        ("sqlite:///:memory:", "without a file"),
    ],
)
def test_urls_of_other_kinds_are_refused_without_showing_passwords(url, message):
    with pytest.raises(StoreError, match=message) as caught:
        Database(url)
    assert "secret" not in str(caught.value)


def test_a_server_that_is_not_there_is_named(tmp_path):
    pytest.importorskip("psycopg")
    database = Database("postgresql://me:secret@127.0.0.1:1/rules")
    message = r"postgresql://me:\*\*\*@127.0.0.1:1/rules: cannot serve now: .*refused"
    with pytest.raises(AwayError, match=message):
        sizes(database)
    with Writer(database, tmp_path / "spool") as writer:
        writer.write(DELTA)
        assert re.match(message, writer.flush().reason)


def test_files_that_are_no_database_of_rules_are_told(tmp_path):
    with pytest.raises(MissingError, match=r"none\.db: got no such file; `vsml rules db init`"):
        sizes(Database(tmp_path / "none.db"))
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(StoreError, match="got a folder, expected a file"):
        sizes(Database(tmp_path, create=True))
    with pytest.raises(StoreError, match="its folder is missing"):
        sizes(Database(tmp_path / "no" / "rules.db", create=True))
    sqlite3.connect(tmp_path / "empty.db").close()
    with pytest.raises(MissingError, match="got a database without rules"):
        sizes(Database(tmp_path / "empty.db"))
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE event (id)")
    with pytest.raises(StoreError, match="got tables event of another program"):
        sizes(Database(tmp_path / "other.db", create=True))
    (tmp_path / "text.db").write_text("no database\n" * 1000)
    with pytest.raises(DamagedError, match=r"text\.db: damaged, or no database"):
        sizes(Database(tmp_path / "text.db", create=True))


def test_a_damaged_file_is_told(database, writer):
    for number in range(500):
        writer.write(RuleRow(f"{number:064x}", "{}", "text" * 100, 1, "node", "drawn"))
    writer.flush()
    database.close()
    content = bytearray(database.file.read_bytes())
    content[20_000:] = bytes(len(content) - 20_000)
    database.file.write_bytes(content)
    with pytest.raises(DamagedError, match="damaged, or no database"):
        find_rules(Database(database.file), Query())


def test_tables_of_another_version_are_told(database):
    sizes(database)
    with sqlite3.connect(database.file) as connection:
        connection.execute("UPDATE schema_version SET version = 2")
    for create in (True, False):
        with pytest.raises(SchemaVersionError, match="got tables of version 2, expected version 1"):
            sizes(Database(database.file, create=create))


def test_what_is_missing_is_said_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(MissingExtraError, match=r"sqlalchemy, .*vsml\[search\]"), needed_for("databases"):
        import sqlalchemy  # noqa: F401
    assert "search" in extras.EXTRAS


# Merging, and the command line.


def test_two_databases_are_merged_without_duplicates(database, writer, tmp_path):
    writer.write(DELTA, HEBB, EvaluationRow(DELTA.hash, "xor"), EvaluationRow(HEBB.hash, "xor", score=1.0))
    writer.flush()
    with Database(tmp_path / "other.db", create=True) as other:
        with Writer(other, tmp_path / "others") as own:
            own.write(HEBB, OJA, EvaluationRow(HEBB.hash, "xor", status="fail", score=0.0))
            own.write(DELTA, EvaluationRow(DELTA.hash, "xor", status="pass", score=0.5))
        changed = merge(other, database)
        assert changed["rule"] == 1 and changed["evaluation"] == 2
        assert sizes(database)["rule"] == 3 and sizes(database)["evaluation"] == 2
        # What was waiting there is made.
        assert [each.score for each in evaluations_of(database, DELTA.hash)] == [0.5]
        assert not any(merge(other, database).values())
        os.symlink(database.file, tmp_path / "link.db")
        with pytest.raises(StoreError, match="got the same database twice"):
            merge(database, Database(tmp_path / "link.db"))


def db(capsys, *arguments, code=0):
    assert main(["db", *map(str, arguments)]) == code
    return "".join(capsys.readouterr())


def test_the_command_line_makes_asks_shows_and_merges(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert f"rules.db: rule {len(known_names())}" in db(capsys, "init", "rules.db", "--known")
    assert f"rule {len(known_names())}" in db(capsys, "init", "rules.db", "--known")  # nothing twice
    with Writer(Database("rules.db"), "spool") as writer:
        writer.write(ParentRow(HEBB.hash, DELTA.hash, "insert"), ParentRow(DELTA.hash, "f" * 64, "delete"))
        writer.write(EvaluationRow(HEBB.hash, "xor", "S4", status="pass", score=0.875, standard_error=0.5))
    listed = db(capsys, "query", "rules.db", "--test", "xor", "--least", 0.3, "--write", "found")
    assert HEBB.hash[:12] in listed and "0.875" in listed and DELTA.hash[:12] not in listed
    (file,) = Path("found").iterdir()
    assert rule_hash(read_rule(file)) == HEBB.hash
    assert "no such rule" in db(capsys, "query", "rules.db", "--origin", "mutation")
    assert "the first 2; --limit shows more" in db(capsys, "query", "rules.db", "--limit", 2)
    shown = db(capsys, "show", "rules.db", HEBB.hash[:10])
    assert HEBB.text in shown and "pass" in shown
    assert f"  {DELTA.hash[:12]} by insert (known: delta)\n    ffffffffffff by delete (not in this" in shown
    shown = db(capsys, "show", "rules.db", DELTA.hash, "--generations", 1)
    assert f"became:\n{DELTA.hash[:12]} (known: delta)\n  {HEBB.hash[:12]} by insert" in shown
    db(capsys, "init", "other.db")
    assert f"new in other.db: rule {len(known_names())}, parent 2" in db(
        capsys, "merge", "rules.db", "other.db"
    )
    assert "new in other.db: nothing" in db(capsys, "merge", "rules.db", "other.db")


def test_tables_are_exported_to_parquet(tmp_path, monkeypatch, capsys):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.chdir(tmp_path)
    with Writer(Database("rules.db", create=True), "spool") as writer:
        writer.write(DELTA, HEBB, EvaluationRow(HEBB.hash, "xor", status="nan", ticks=2**40))
    assert "tables: rule 2, evaluation 1" in db(capsys, "export", "rules.db", "tables")
    rules = parquet.read_table("tables/rule.parquet").to_pylist()
    assert sorted(rules, key=lambda row: row["hash"]) == sorted(
        [DELTA.values(), HEBB.values()], key=lambda row: row["hash"]
    )
    (evaluation,) = parquet.read_table("tables/evaluation.parquet").to_pylist()
    assert evaluation["ticks"] == 2**40 and evaluation["score"] is None
    assert parquet.read_table("tables/cell.parquet").num_rows == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["query", "none.db"], "error: none.db: got no such file"),
        (["query", "rules.db", "--least", "0.5"], "error: least: got 0.5 without a test"),
        (["show", "rules.db", "fffff"], "got 'fffff', which no rule's hash begins with"),
        (["show", "rules.db", "zz"], "hash: got 'zz', expected the first hex digits"),
        (["merge", "rules.db", "rules.db"], "got the same database twice"),
        (["merge", "rules.db", "none.db"], "none.db: got no such file"),
        (["init", "mysql://me@host/x"], "url: got 'mysql://me@host/x', expected a file"),
    ],
)
def test_mistakes_on_the_command_line_are_told(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    db(capsys, "init", "rules.db")
    assert message in db(capsys, *arguments, code=2)


def test_digits_that_two_rules_begin_with_are_told(database, writer, capsys):
    writer.write(RuleRow("a" * 64, "{}", "", 1, "", ""), RuleRow("a" * 63 + "b", "{}", "", 1, "", ""))
    writer.flush()
    assert "got 'aaa', expected more digits: aaaaaaaaaaa, " in db(
        capsys, "show", database.file, "aaa", code=2
    )


# What a search starts from.


def test_a_search_starts_from_rules_that_are_asked_for(database, tmp_path):
    with Writer(database, tmp_path / "spool") as writer:
        writer.write(DELTA, EvaluationRow(DELTA.hash, "S3", status="pass", score=0.3))
        writer.write(HEBB, EvaluationRow(HEBB.hash, "S3", status="pass", score=0.6))
        writer.write(OJA, EvaluationRow(OJA.hash, "S3", status="fail", score=0.0))
        writer.flush()

    def texts(**chosen):
        return texts_of(Start(drawn=False, database=str(database.file), chosen=chosen))

    assert texts() == [[HEBB.text, DELTA.text]], "those that passed, the best first"
    assert texts(least=0.5) == [[HEBB.text]]
    assert len(texts(test=None)[0]) == 3 and len(texts(test=None, limit=2)[0]) == 2
    assert texts(max_size=DELTA.size, origin="known: delta") == [[DELTA.text]]
    with pytest.raises(ValueError, match=r"without such rules, expected some with test S4, limit 1000"):
        texts(test="S4")
    with pytest.raises(ValueError, match="expected null without a test"):
        texts(test=None, least=0.5)


# Exchange.


def settings_of(seed, percentile=0.75):
    """Settings of a run, as its row has them."""
    search = {"judging": {"percentile": percentile}, "teaching": {"teach": "error"}}
    return json.dumps({"seed": seed, "search": search})


def test_elites_of_runs_that_judge_alike_are_taken_over_once(database, tmp_path):
    with Writer(database, tmp_path / "spool") as writer:
        for run, config in (
            ("own", settings_of(0)),
            ("alike", settings_of(1)),
            ("other", settings_of(2, percentile=0.5)),
            ("unreadable", "no settings"),
        ):
            writer.write(RunRow(run, config=config))
        writer.write(DELTA, HEBB, OJA)
        writer.write(CellRow("own", 0, "size 0-9", OJA.hash, 9.0, 0.0))
        # The delta rule has the higher mean, Hebb's the higher bound.
        writer.write(CellRow("alike", 0, "size 0-9", DELTA.hash, 4.0, 1.5))
        writer.write(CellRow("alike", 1, "size 0-9", HEBB.hash, 3.0, 0.1))
        for run in ("other", "unreadable"):
            writer.write(CellRow(run, 0, "size 0-9", OJA.hash, 8.0, 0.0))
        writer.flush()
    exchange = Exchange(database, "own", settings_of(0))
    assert [(each.hash, each.run) for each in exchange.immigrants(1)] == [(HEBB.hash, "alike")]
    assert [each.text for each in exchange.immigrants(5)] == [DELTA.text]
    assert exchange.immigrants(5) == []
    resumed = Exchange(database, "own", settings_of(0), met={HEBB.hash})
    assert [each.hash for each in resumed.immigrants(5)] == [DELTA.hash]
    with Writer(database, tmp_path / "spool") as writer:
        writer.write(RunRow("later", config=settings_of(3)), CellRow("later", 0, "cell", OJA.hash, 2.0, 0.1))
        writer.flush()
    assert [each.run for each in exchange.immigrants(5)] == ["later"]
