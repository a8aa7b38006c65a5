"""The database of rules on a real PostgreSQL: clients, crashes of the server and of writers."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("psycopg")

import postgres_server

from vsml.search.store import (
    AwayError,
    Database,
    EvaluationRow,
    ParentRow,
    Query,
    RuleRow,
    WorkerRow,
    Writer,
    claim,
    find_rules,
    merge,
    sizes,
)
from vsml.search.store.tables import EVALUATION

pytestmark = pytest.mark.postgres

ROOT = Path(__file__).parents[1]
NUMBERS = itertools.count()

# A searcher: it writes rules that "passed", says so once each is written, and what was new after each flush.
# Nobody looks at the texts. Hashes are those of a small range, so that searchers meet rules of others, and
# their own after a kill.
SEARCHER = """
import hashlib, random, sys
from vsml.search.store import Database, EvaluationRow, RuleRow, Writer

url, spool, told, seed = sys.argv[1:]
draws = random.Random(int(seed))
told = open(told, "a", buffering=1)
with Writer(Database(url), spool, retry_s=0.1) as writer:
    told.write("begun\\n")
    while True:
        for _ in range(draws.randint(1, 5)):
            name = hashlib.sha256(b"%d" % draws.randrange(20_000)).hexdigest()
            rule = RuleRow(name, "{}", "out = a", 1, "node", "drawn")
            writer.write(rule, EvaluationRow(name, "and", "S3", status="pass", score=0.5))
            told.write(f"passed {name}\\n")
        found = writer.flush()
        for rule in sorted(found.new_rules):
            told.write(f"new {rule}\\n")
        for key in sorted(found.new.get("evaluation", ())):
            told.write(f"scored {key[0]}\\n")
"""


def hash_of(number: int) -> str:
    return f"{number:064x}"


def plain_row(number: int) -> RuleRow:
    """A row as the search writes them, with a text that nobody parses."""
    return RuleRow(hash_of(number), "{}", "a : node\nout = a", 1, "node", "drawn")


@pytest.fixture(scope="module")
def server():
    with postgres_server.server() as running:
        yield running


@pytest.fixture
def url(server):
    """A database of its own for each test."""
    import psycopg

    name = f"test_{next(NUMBERS)}"
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.url(name)


def test_clients_that_begin_at_once_make_the_tables_once(url):
    faults = []

    def begin():
        try:
            with Database(url, create=True) as database:
                sizes(database)
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    with Database(url) as database:
        assert sizes(database)["rule"] == 0


def test_queries_and_merges_say_the_same_as_those_of_sqlite(url, tmp_path):
    here, there = Database(tmp_path / "rules.db", create=True), Database(url, create=True)
    with Writer(here, tmp_path / "spool") as writer:
        for number in range(20):
            writer.write(
                plain_row(number),
                EvaluationRow(hash_of(number), "xor", seeds="0-7", status="pass", score=number / 7 % 1),
                EvaluationRow(hash_of(number), "xor", seeds="8-15", status="nan"),
            )
        writer.write(EvaluationRow(hash_of(3), "and"), ParentRow(hash_of(3), hash_of(4), "insert"))
        writer.write(WorkerRow("w", None, "host", {"S1": {"deaf": 3}}, started_s=1.0))
    copied = merge(here, there)
    assert copied == sizes(here) == sizes(there)
    assert not any(merge(here, there).values())
    for query in (Query(test="xor", least=0.4), Query(kind="node", max_size=3), Query(test="xor", limit=3)):
        assert find_rules(here, query) == find_rules(there, query)
    there.close()


def test_two_workers_never_get_the_same_work(url, tmp_path):
    database = Database(url, create=True)
    count = 60
    with Writer(database, tmp_path / "spool") as writer:
        for number in range(count):
            writer.write(plain_row(number), EvaluationRow(hash_of(number), "and"))
    got: list[str] = []

    def work(name):
        with Database(url) as own:
            while claims := claim(own, name, 3):
                got.extend(each.evaluation.rule for each in claims)

    threads = [threading.Thread(target=work, args=[f"worker {number}"]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [hash_of(number) for number in range(count)]
    database.close()


def test_rows_that_another_transaction_holds_are_passed_by_and_not_waited_for(url, tmp_path):
    with Database(url, create=True) as database, Writer(database, tmp_path / "spool") as writer:
        writer.write(plain_row(1), plain_row(2))
        writer.write(
            EvaluationRow(hash_of(1), "and", time_s=1.0), EvaluationRow(hash_of(2), "and", time_s=2.0)
        )
        writer.flush()
        with database.writing() as connection:
            first = connection.execute(
                EVALUATION.select().order_by("time_s").limit(1).with_for_update()
            ).one()
            (claimed,) = claim(database, "other", 5)
        assert (first.rule, claimed.evaluation.rule) == (hash_of(1), hash_of(2))


def test_a_server_that_is_away_gets_everything_when_it_is_back(server, url, tmp_path):
    with Database(url, create=True) as database, Writer(database, tmp_path / "spool", retry_s=0) as writer:
        writer.write(plain_row(1))
        assert writer.flush().new_rules == {hash_of(1)}
        server.stop()
        try:
            writer.write(plain_row(1), plain_row(2))
            found = writer.flush()
            assert found.waiting == 1 and "cannot serve now" in found.reason
            with pytest.raises(AwayError, match="cannot serve now"):
                sizes(database)
        finally:
            server.start()
        writer.write(plain_row(3))
        assert writer.flush().new_rules == {hash_of(2), hash_of(3)}
        assert sizes(database)["rule"] == 3


def lines_of(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    # A killed searcher may have left half a line, in front of what the next one says first.
    lines = [line.replace("begun", " begun").split() for line in path.read_text().split("\n")[:-1]]
    return [line[-1:] if line[-1:] == ["begun"] else line for line in lines if line]


def attack(server, url: str, folder: Path, seconds: float, searchers: int, seed: int) -> tuple[int, int]:
    """Kill searchers and stop the server at random for a time; return how often each happened.

    Afterwards each rule that passed is in the database, and none was new twice.
    """
    draws = random.Random(seed)
    Database(url, create=True).close()
    running: dict[int, subprocess.Popen] = {}
    starts = [0] * searchers
    kills = stops = 0

    def start(number: int) -> None:
        starts[number] += 1
        files = [str(folder / f"{number}.spool"), str(folder / f"{number}.told")]
        command = [sys.executable, "-c", SEARCHER, url, *files, str(1000 * number + starts[number])]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        running[number] = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)

    with Database(url, create=True) as database:
        sizes(database)
    for number in range(searchers):
        start(number)
    end = time.monotonic() + seconds
    while time.monotonic() < end or kills < 3 or stops < 3:
        time.sleep(draws.uniform(0.2, 1.5))
        if draws.random() < 0.4:
            server.stop()
            time.sleep(draws.uniform(0, 1))
            server.start()
            stops += 1
        number = draws.randrange(searchers)
        lines = lines_of(folder / f"{number}.told")
        # Not before it is at work: most of its time would go into imports.
        is_at_work = lines.count(["begun"]) == starts[number] and lines[-1] != ["begun"]
        if is_at_work:
            assert running[number].poll() is None, running[number].stderr.read().decode()
            running[number].kill()
            running[number].wait()
            kills += 1
            start(number)
    for process in running.values():
        process.kill()
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors.decode()
    told = [line for number in range(searchers) for line in lines_of(folder / f"{number}.told")]
    with Database(url) as database:
        for number in range(searchers):
            with Writer(database, folder / f"{number}.spool") as writer:
                last = writer.flush(now=True)
                told += [["new", rule] for rule in last.new_rules]
                told += [["scored", key[0]] for key in last.new.get("evaluation", ())]
        there = [each.row.hash for each in find_rules(database, Query(test="and"))]
        count = sizes(database)
    passed = {rule for word, *rule in told if word == "passed" for rule in rule}
    assert passed and passed <= set(there)
    assert count["rule"] == count["evaluation"] == len(there) == len(set(there))
    for what in ("new", "scored"):
        said = [line[1] for line in told if line[0] == what]
        assert said and len(said) == len(set(said)), f"{what} twice"
    print(f"{kills} kills, {stops} stops of the server, {len(passed)} rules, {len(told)} lines")
    return kills, stops


@pytest.mark.slow
def test_no_rule_is_lost_when_the_writer_is_killed_and_the_server_stops(server, url, tmp_path):
    kills, stops = attack(server, url, tmp_path, seconds=10, searchers=1, seed=0)
    assert kills >= 3 and stops >= 3


@pytest.mark.robust
def test_no_rule_is_lost_when_writers_are_killed_and_the_server_stops_again_and_again(server, url, tmp_path):
    kills, stops = attack(server, url, tmp_path, seconds=120, searchers=3, seed=1)
    assert kills >= 10 and stops >= 10


def load(server, url: str, folder: Path, clients: int, seconds: int, flushes: int = 1) -> dict[str, float]:
    """Let clients write 5 rows a second each, and flush some times a second; return what was measured.

    Clients are threads of this process, each with a connection and a spool of its own.
    """
    period_s = 1 / 5
    with Database(url, create=True) as database:
        sizes(database)
    delays: list[float] = []
    unsent: list[int] = []
    faults: list[BaseException] = []
    barrier = threading.Barrier(clients)

    def client(number: int) -> None:
        try:
            with Database(url) as database, Writer(database, folder / f"{number}.spool") as writer:
                sizes(database)
                barrier.wait()
                begin = time.monotonic() + period_s * number / clients
                for place in range(5 * seconds):
                    time.sleep(max(0.0, begin + place * period_s - time.monotonic()))
                    writer.write(plain_row(number * 100_000 + place))
                    if (place + 1) % (5 // flushes) == 0:
                        at = time.monotonic()
                        unsent.append(writer.flush().waiting)
                        delays.append(time.monotonic() - at)
        except BaseException as error:
            faults.append(error)
            barrier.abort()

    threads = [threading.Thread(target=client, args=[number]) for number in range(clients)]
    cpu_before, server_before = time.process_time(), server.cpu_s()
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall_s = time.monotonic() - begin
    cpu_s = time.process_time() - cpu_before
    assert not faults, faults[0]
    with Database(url) as database:
        count = sizes(database)["rule"]
    delays.sort()
    return {
        "clients": clients,
        "rows": count,
        "rows_unsent": sum(unsent),
        "wall_s": wall_s,
        "clients_cpu_s": cpu_s,
        "server_cpu_s": server.cpu_s() - server_before,
        "rows_per_s": count / wall_s,
        "delay_median_s": delays[len(delays) // 2],
        "delay_99_s": delays[len(delays) * 99 // 100],
        "delay_max_s": delays[-1],
    }


def test_clients_write_at_once(server, url, tmp_path):
    measured = load(server, url, tmp_path, clients=8, seconds=1)
    assert measured["rows"] == 8 * 5
    assert measured["rows_unsent"] == 0


@pytest.mark.slow
def test_200_clients_write_5_rows_a_second_each(server, url, tmp_path):
    measured = load(server, url, tmp_path, clients=200, seconds=10)
    print(json.dumps(measured))
    assert measured["rows"] == 200 * 5 * 10
    assert measured["rows_unsent"] == 0
