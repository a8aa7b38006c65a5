"""The database of rules: nothing that was added is lost or counted twice, whoever is killed."""

import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason='needs the extra search: python -m pip install "vsml[search]"')

from postgres import Server

from vsml.launching.rules import main
from vsml.rules import known_names, parse, read_rule, rule_hash
from vsml.search.store import Batch, Evaluation, Store, StoredRule, StoreError, stored_rule

WRITER = """
import sys
from pathlib import Path
from vsml.search.store import Batch, Evaluation, Store, StoredRule
url, spool, first = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
store = Store.open(url, spool)
for number in range(first, first + 100_000):
    name = f"{number:064x}"
    rule = StoredRule(name, "text", 1, 1, "node", "drawn")
    score = Evaluation(name, "S3", "1", "0", number / 1000, "pass")
    store.add(Batch([rule], [score]))
    print(number, flush=True)
"""


def rule_number(number, **changes):
    return replace(StoredRule(f"{number:064x}", "text", number, 2, "node | edge", "drawn"), **changes)


def score_of(rule, score, test="S3", **changes):
    return replace(Evaluation(rule.hash, test, "200", "0-3", score, "pass"), **changes)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'rules.db'}"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("postgres") / "server")
    server.start()
    yield server
    server.kill()


def counts(store):
    return {name: sum(map(len, store.all_rows(name))) for name in ("rule", "evaluation", "parent")}


def check_a_store(url, folder):
    """Check what holds of every kind of database."""
    store = Store.open(url)
    rules = [StoredRule.of(read_rule(name), "known") for name in known_names()]
    scores = [score_of(rule, place / 100) for place, rule in enumerate(rules)]
    batch = Batch(rules, scores, [(rules[1].hash, rules[0].hash, "insert")])
    assert store.add(batch)
    before = counts(store)
    assert before == {"rule": len(rules), "evaluation": len(rules), "parent": 1}
    assert store.add(batch), "the same again"
    assert counts(store) == before
    # The first score of a test stands; another harness has one of its own.
    store.add(Batch(evaluations=[score_of(rules[0], 99.0), score_of(rules[0], 0.5, harness=2)]))
    assert counts(store)["evaluation"] == len(rules) + 1
    assert max(row["score"] for row in store.rows()) == 0.5
    assert store.known([rules[0].hash, "f" * 64]) == {rules[0].hash}
    best = store.rows(test="S3", limit=2)
    assert [row["hash"] for row in best] == [rules[0].hash, rules[-1].hash]
    assert {row["size"] for row in store.rows(most_size=8)} <= set(range(9))
    assert all(row["score"] >= 0.05 for row in store.rows(least_score=0.05))
    assert rule_hash(stored_rule(best[0])) == rules[0].hash
    store.beat("w1", "run", {"S0": 3})
    store.beat("w1", "run", {"S0": 5})
    [[worker]] = list(store.all_rows("worker"))
    assert worker["counters"] == '{"S0": 5}' and abs(worker["heartbeat"] - time.time()) < 60
    store.close()


def test_sqlite_keeps_rules_once(url, tmp_path):
    check_a_store(url, tmp_path)


def test_postgresql_keeps_rules_once(server, tmp_path):
    pytest.importorskip("psycopg")
    check_a_store(server.url, tmp_path)


def test_a_rule_without_a_score_is_found_last(url):
    store = Store.open(url)
    store.add(Batch([rule_number(1), rule_number(2)], [score_of(rule_number(2), -3.0)]))
    assert [(row["size"], row["score"]) for row in store.rows()] == [(2, -3.0), (1, None)]


def test_a_stored_rule_says_what_it_is_made_of():
    found = StoredRule.of(read_rule("delta"), "known", "r1")
    assert (found.slots, found.kinds, found.origin, found.run) == (
        3,
        "node | edge | edge shared(owner)",
        "known",
        "r1",
    )
    assert found.hash == rule_hash(parse(found.text)) == rule_hash(read_rule("delta"))


def test_a_changed_text_is_noticed():
    row = {"hash": rule_hash(read_rule("delta")), "text": StoredRule.of(read_rule("hebb"), "known").text}
    with pytest.raises(StoreError, match="its text has another hash"):
        stored_rule(row)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("rules.db", "expected sqlite:///FILE or postgresql://"),
        ("mysql://host/rules", "got mysql, expected sqlite or postgresql"),
        ("sqlite:////nowhere/at/all.db", "unable to open database file"),
    ],
)
def test_what_is_no_database_is_refused(url, message):
    with pytest.raises(StoreError, match=message):
        Store.open(url)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "text.db"
    path.write_text("this is no database, but a text that is long enough to be looked at" * 20)
    with pytest.raises(StoreError, match="file is not a database"):
        Store.open(f"sqlite:///{path}")


def test_a_damaged_file_in_the_spool_is_told(url, tmp_path):
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "1.json").write_text('{"rules": [{')
    with pytest.raises(StoreError, match=r"1.json: .*expected a batch"):
        Store.open(url, spool)


def test_databases_are_merged_without_doubles(url, tmp_path):
    one, other = Store.open(url), Store.open(f"sqlite:///{tmp_path / 'other.db'}")
    shared = rule_number(1)
    one.add(Batch([shared, rule_number(2)], [score_of(shared, 0.1)]))
    other.add(Batch([shared, rule_number(3)], [score_of(shared, 0.9), score_of(rule_number(3), 0.3)]))
    assert one.merge(other) == {"rule": 1, "evaluation": 1}
    assert counts(one) == {"rule": 3, "evaluation": 2, "parent": 0}
    assert {row["score"] for row in one.rows()} == {0.1, 0.3, None}


def test_tables_are_written_as_parquet(url, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    store = Store.open(url)
    store.add(Batch([rule_number(1), rule_number(2)], [score_of(rule_number(2), 0.25)]))
    files = store.export(tmp_path / "out")
    assert {path.name for path in files} == {f"{name}.parquet" for name in store.metadata.tables}
    assert parquet.read_table(tmp_path / "out" / "rule.parquet").column("size").to_pylist() == [1, 2]
    assert parquet.read_table(tmp_path / "out" / "evaluation.parquet").column("score").to_pylist() == [0.25]


def killed_writer(url, spool, first, seconds):
    """Run a writer for some time, kill it, and return the numbers of the rules that it had added."""
    command = [sys.executable, "-c", WRITER, url, str(spool), str(first)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    assert writer.stdout is not None
    lines = [writer.stdout.readline()]
    timer = threading.Timer(seconds, lambda: writer.send_signal(signal.SIGKILL))
    timer.start()
    lines += list(writer.stdout)
    writer.wait()
    # A line that was cut off was not told.
    return [int(line) for line in lines if line.endswith("\n")]


def check_kills(url, spool, kills):
    chance = random.Random(0)
    told = []
    for turn in range(kills):
        told += killed_writer(url, spool, 100_000 * turn, chance.uniform(0.05, 0.5))
    store = Store.open(url, spool)
    assert not list(spool.glob("*.json"))
    names = {row["hash"] for part in store.all_rows("rule") for row in part}
    assert len(told) > kills and {f"{number:064x}" for number in told} <= names
    found = counts(store)
    assert found["rule"] == found["evaluation"] == len(names)
    store.close()


def test_a_killed_writer_loses_no_rule(url, tmp_path):
    check_kills(url, tmp_path / "spool", 2)


@pytest.mark.robust
def test_many_killed_writers_lose_no_rule(url, tmp_path):
    check_kills(url, tmp_path / "spool", 20)


def test_rules_wait_on_disk_while_the_server_is_away(server, tmp_path):
    pytest.importorskip("psycopg")
    spool = tmp_path / "spool"
    store = Store.open(server.url, spool)
    assert store.add(Batch([rule_number(10**9)]))
    server.kill()
    try:
        assert not store.add(Batch([rule_number(10**9 + 1)]))
        again = Store.open(server.url, spool)
        assert not again.add(Batch([rule_number(10**9 + 2)])), "a new process while the server is away"
        assert len(list(spool.glob("*.json"))) == 2
        without = pytest.raises(StoreError, match="database: postgresql")
        with without:
            Store.open(server.url)
    finally:
        server.start()
    assert store.flush() == 0
    wanted = [f"{10**9 + number:064x}" for number in range(3)]
    assert store.known(wanted) == set(wanted)
    store.close()


def test_many_clients_write_the_same_rules_at_once(server, tmp_path):
    pytest.importorskip("psycopg")
    rules = [rule_number(2 * 10**9 + number) for number in range(50)]
    scores = [score_of(rule, 0.5) for rule in rules]
    failures = []

    def client(seed):
        chance = random.Random(seed)
        try:
            store = Store.open(server.url)
            for _ in range(5):
                places = chance.sample(range(len(rules)), 10)
                chosen = [rules[place] for place in places]
                store.add(Batch(chosen, [scores[place] for place in places]))
            store.close()
        except Exception as error:
            failures.append(error)

    clients = [threading.Thread(target=client, args=(seed,)) for seed in range(20)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    assert not failures
    store = Store.open(server.url)
    stored = store.known([rule.hash for rule in rules])
    kept = [row for row in store.rows() if row["hash"] in stored]
    assert len(kept) == len(stored) > 40, "each rule has one score"
    store.close()


def test_the_command_line_queries_exports_and_merges(url, tmp_path, capsys):
    other_url = f"sqlite:///{tmp_path / 'other.db'}"
    delta = StoredRule.of(read_rule("delta"), "known")
    Store.open(url).add(Batch([delta], [score_of(delta, 0.25)]))
    Store.open(other_url).add(Batch([rule_number(7)], [score_of(rule_number(7), 0.75)]))
    assert main(["db", url, "merge", other_url]) == 0
    assert "new: 1 of rule, 1 of evaluation" in capsys.readouterr().out
    assert main(["db", url, "query", "--test", "S3", "--size", "20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [rule_number(7).hash[:12], delta.hash[:12]]
    assert main(["db", url, "query", "--least", "0.2", "--text"]) == 0
    assert delta.text.splitlines()[0] in capsys.readouterr().out
    pytest.importorskip("pyarrow")
    assert main(["db", url, "export", str(tmp_path / "out")]) == 0
    assert str(tmp_path / "out" / "rule.parquet") in capsys.readouterr().out


def test_the_command_line_refuses_what_is_no_database(capsys):
    assert main(["db", "rules.db", "query"]) == 2
    assert "expected sqlite:///FILE" in capsys.readouterr().err
