"""The dashboard: what it shows is what is in the database, and its buttons send commands."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from browsers import open_browser
from test_rule_steering import RUN

pytest.importorskip("nicegui")

from vsml.calls.search_config import SearchConfig
from vsml.dashboard.live import Speed, states_of
from vsml.dashboard.look import linked
from vsml.dashboard.server import is_local, serve
from vsml.dashboard.stepper_view import Experiment, stepper_for, tick_tables, told_state
from vsml.launching.rules import main
from vsml.launching.run import main as launch
from vsml.rules import known_rule, rule_hash
from vsml.runs.metrics import read_metrics
from vsml.search.store import CellRow, Database, EvaluationRow, RunRow, WorkerRow, insert_all, rule_row
from vsml.search.store.commands import Command, Outcome, commands_of, send
from vsml.search.store.overview import overview, runs_of

pytestmark = pytest.mark.usefixtures("hasty")

ROOT = Path(__file__).parents[1]
BEGAN_S = 1_800_000_000.0
DELTA = rule_hash(known_rule("delta").rule)
HOSTILE = "<img src=x onerror=alert(1)>"


def rows(proposed=1000, time_s=BEGAN_S):
    config = json.dumps({"search": SearchConfig().model_dump(mode="json")})
    found = [
        rule_row(known_rule("delta").rule, HOSTILE, "first"),
        RunRow("first", config=config, started_s=BEGAN_S),
        RunRow("second", "first", 20, config, started_s=BEGAN_S + 1),
        EvaluationRow(DELTA, "S3", "progress", "0", status="pass", score=0.5, run="first", time_s=BEGAN_S),
        CellRow("first", 0, "size 0-9, error, layered, S3", DELTA, 0.5, 0.1),
        WorkerRow(
            "w", "first", "here", {"proposed": {"all": proposed}, "S0": {"passed": 7}}, BEGAN_S, time_s
        ),
    ]
    by_table = {}
    for row in found:
        by_table.setdefault(row.table, []).append(row.values())
    return by_table


def write(path, by_table):
    with Database(path, create=True) as database, database.writing() as connection:
        insert_all(connection, by_table)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    found = tmp_path_factory.mktemp("dashboard") / "rules.db"
    write(found, rows())
    return found


# What pages say.


def test_the_speed_now_is_between_two_looks(tmp_path):
    path = tmp_path / "rules.db"
    write(path, rows())
    speed = Speed()
    with Database(path) as database:
        assert speed.between(overview(database)) is None
        assert speed.between(overview(database)) is None, "nobody went on"
        write(path, rows(1500, BEGAN_S + 10))
        assert speed.between(overview(database)) == 50


def test_paused_runs_and_waiting_commands_are_told(tmp_path):
    path = tmp_path / "rules.db"
    write(path, rows())
    with Database(path) as database:
        assert states_of(database) == []
        command = Command("first", "pause")
        send(database, command)
        assert states_of(database) == ["1 command(s) wait"]
        with database.writing() as connection:
            outcome = Outcome(True, 3, "paused").row(command.id, "first")
            insert_all(connection, {"event": [outcome.values()]})
        assert states_of(database) == ["first is paused"]


def test_hashes_lead_to_rules_and_nothing_else_does():
    page = f"<code>{DELTA[:12]}</code> <code>a &lt;- b</code>"
    link = f'<a href="/rule/{DELTA[:12]}"><code>{DELTA[:12]}</code></a>'
    assert linked(page) == f"{link} <code>a &lt;- b</code>"


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("example.org", False)],
)
def test_addresses_that_others_reach_are_told_apart(host, local):
    assert is_local(host) is local


def test_a_stepper_is_of_a_rule_that_ships_or_is_in_the_database(path):
    with Database(path) as database:
        named = stepper_for(database, Experiment(rule="delta", task="and", hidden=0, examples=5))
        stored = stepper_for(database, Experiment(rule=DELTA[:9], task="and", kind="ring", examples=5))
        with pytest.raises(ValueError, match="0123"):
            stepper_for(database, Experiment(rule="0123"))
        with pytest.raises(ValueError, match="kind: got 'cube'"):
            stepper_for(database, Experiment(kind="cube"))
    assert "before the first tick" in told_state(named)
    assert "memory holds at the beginning" in tick_tables(named)
    named.go_examples(2)
    assert told_state(named).startswith(f"example 2, tick {named.ticks - 1} of {named.ticks}")
    tables = tick_tables(named)
    for node, value in enumerate(named.tick.after["a"].tolist()):
        assert f"{value:.4g}" in tables, node
    stored.go(1)
    assert stored.watched.graph.kind == "ring" and "Edges after the tick" in tick_tables(stored)


def test_a_price_below_zero_and_a_missing_database_are_refused(path, tmp_path, capsys):
    with Database(path) as database, pytest.raises(ValueError, match="price_per_hour: got -1"):
        serve(database, "127.0.0.1", 1, -1)
    assert main(["dashboard", str(tmp_path / "none.db")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_without_its_extra_the_command_says_what_to_install(path):
    code = (
        "import sys, importlib.util as util; found = util.find_spec;"
        "util.find_spec = lambda name, *rest: None if name == 'nicegui' else found(name, *rest);"
        "from vsml.launching.rules import main; sys.exit(main(['dashboard', 'rules.db']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "dashboards need nicegui, not installed here" in done.stderr
    assert 'python -m pip install "vsml[dashboard]"' in done.stderr


# In a browser.


@pytest.fixture(scope="module")
def served(path):
    """Give the address of a dashboard in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["-m", "vsml.rules", "dashboard", str(path), "--port", str(port), "--price_per_hour", "2"]
    # NiceGUI serves nothing where it believes that it is tested itself.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment |= {"PYTHONPATH": os.pathsep.join(paths), "WANDB_MODE": "disabled"}
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=path.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    address = f"http://127.0.0.1:{port}"
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(address):
            break
        time.sleep(0.2)
    yield address
    process.terminate()
    output = process.communicate(timeout=30)[0]
    assert f"dashboard: {address}" in output and "Traceback" not in output, output


def until(browser, found, timeout_s=40):
    """Return what a function returns as soon as it is true."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.1)
    raise AssertionError(browser.find_element("tag name", "body").text)


def text_of(browser):
    return browser.find_element("tag name", "body").text


def button(browser, name):
    found = [each for each in browser.find_elements("tag name", "button") if each.text.lower() == name]
    return found[0]


def fill(browser, label, text):
    from selenium.webdriver.common.keys import Keys

    field = browser.find_element("css selector", f'[aria-label="{label}"]')
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(text, Keys.TAB)


def faults(browser):
    return [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def fits(browser):
    page = "document.documentElement"
    width, room = browser.execute_script(f"return [{page}.scrollWidth, {page}.clientWidth]")
    return width <= room


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
def test_the_page_is_live(served, path, tmp_path, width, dark):
    with open_browser(tmp_path, width=width, dark=dark, offline=False) as browser:
        browser.get(served)
        until(browser, lambda: "Events" in text_of(browser))
        told = text_of(browser)
        for said in ("Where rules end", "Best rule of each cell", "cost so far", "Workers", "Commands"):
            assert said in told
        assert "└ second" in told, "a fork is below its parent"
        new = f"Not here yet {width}"
        assert HOSTILE in told and new not in told
        back = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (back == "rgb(255, 255, 255)") is not dark, back
        browser.execute_script("window.stays = 'the same page'")
        write(path, {"run": [RunRow(new, started_s=BEGAN_S - 1).values()]})
        until(browser, lambda: new in text_of(browser))
        assert browser.execute_script("return window.stays") == "the same page"
        assert fits(browser) and not faults(browser)
        browser.find_element("css selector", f'a[href="/rule/{DELTA[:12]}"]').click()
        until(browser, lambda: "Evaluations" in text_of(browser))
        assert "out = " in text_of(browser)
        assert fits(browser) and not faults(browser)


@pytest.mark.browser
def test_buttons_send_commands_and_show_why_not(served, path, tmp_path):
    with open_browser(tmp_path, offline=False) as browser, Database(path) as database:
        browser.get(f"{served}/steer?rule={DELTA[:12]}")
        until(browser, lambda: "search.generations is 1000" in text_of(browser))

        def sent(press, do, run="second"):
            before = len(commands_of(database))
            button(browser, press).click()
            until(browser, lambda: len(commands_of(database)) > before)
            command, outcome = commands_of(database)[-1]
            assert (command.do, command.run, outcome) == (do, run, None)
            until(browser, lambda: f"sent to {run}: {do}" in text_of(browser))
            return command

        def refused(press, why):
            before = len(commands_of(database))
            button(browser, press).click()
            until(browser, lambda: why in text_of(browser))
            time.sleep(1.5)
            assert why in text_of(browser), "what was wrong was wiped away"
            assert len(commands_of(database)) == before

        for do in ("pause", "resume"):
            sent(do, do)
        for do in ("pin", "unpin", "ban", "unban"):
            assert sent(do, do).arguments["hash"] == DELTA
        fill(browser, "value, in YAML", "x")
        refused("set", "search.generations: got 'x'")
        fill(browser, "value, in YAML", "77")
        assert sent("set", "set").arguments == {"name": "search.generations", "value": 77}
        fill(browser, "first digits of a hash", "0123456789")
        refused("ban", "0123456789")
        fill(browser, "text of a rule (docs/rules.md)", "a : node\nout = b")
        refused("paste", "paste: line 2")
        fill(browser, "text of a rule (docs/rules.md)", known_rule("hebb").text)
        assert sent("paste", "paste").arguments["text"].strip() == known_rule("hebb").text.strip()
        fill(browser, "folder of the run, on this machine", str(tmp_path))
        button(browser, "fork").click()
        until(browser, lambda: "got one without config.yaml" in text_of(browser))
        command = commands_of(database)[0][0]
        outcome = Outcome(False, 3, "is told why").row(command.id, command.run)
        write(path, {"event": [outcome.values()]})
        until(browser, lambda: "is told why" in text_of(browser))
        assert not faults(browser)


@pytest.mark.browser
def test_a_fork_is_made_and_started(served, path, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    file, run = tmp_path / "search.yaml", tmp_path / "run"
    file.write_text(json.dumps(RUN | {"search": RUN["search"] | {"generations": 2}}))
    assert launch(["--config_files", str(file), "--run_dir", str(run)]) == 0
    with open_browser(tmp_path, offline=False) as browser:
        browser.get(f"{served}/steer")
        until(browser, lambda: "search.generations is" in text_of(browser))
        fill(browser, "folder of the run, on this machine", str(run))
        fill(browser, "generation (default: the newest)", "7")
        button(browser, "fork").click()
        until(browser, lambda: "generation: got 7, expected one of 1, 2" in text_of(browser))
        fill(browser, "generation (default: the newest)", "1")
        fill(browser, "settings: key=value ...", "search.breeding.elites=0.9 search.generations=3")
        browser.find_element("css selector", ".q-checkbox").click()
        button(browser, "fork").click()
        until(browser, lambda: "and started it as process" in text_of(browser))
        (new,) = (path.parent / "runs").iterdir()
        until(browser, (new / "complete").exists, timeout_s=120)
        assert not faults(browser)
    assert [line["step"] for line in read_metrics(new / "metrics.jsonl")] == [1, 2, 3]
    with Database(run / "rules.db") as database:
        first, fork = runs_of(database)
        assert (fork.parent_run, fork.step) == (first.id, 1)


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1200, True), (390, False)])
def test_a_rule_is_stepped_through(served, path, tmp_path, width, dark):
    with Database(path) as database:
        expected = stepper_for(database, Experiment(rule="delta", hidden=4))
    with open_browser(tmp_path, width=width, dark=dark, offline=False) as browser:
        browser.get(f"{served}/step?rule=delta")
        until(browser, lambda: told_state(expected) in text_of(browser))

        def check():
            until(browser, lambda: told_state(expected) in text_of(browser))
            script = (
                "return [...document.querySelectorAll('.report td')].map((cell) => cell.textContent.trim())"
            )
            cells = browser.execute_script(script)
            for name in ("a", "w"):
                for value in expected.tick.after[name].tolist():
                    assert {f"{value:.4g}", f"{value:.4g}*"} & set(cells), (name, value)
            browser.switch_to.frame(browser.find_element("css selector", "iframe.ticks"))
            place = f"tick {expected.number} of example {expected.watched.examples[0].place + 1}"
            until(browser, lambda: place in browser.find_element("id", "tick").text)
            browser.switch_to.default_content()

        moves = {
            "one tick": lambda: expected.go(1),
            "one example": lambda: expected.go_examples(1),
            "go on by": lambda: expected.go(100),
            "tick back": lambda: expected.go(-1),
            "to the end": lambda: expected.go_to(expected.length),
        }
        for name in (
            "one tick",
            "one tick",
            "one example",
            "one tick",
            "tick back",
            "go on by",
            "to the end",
        ):
            button(browser, name).click()
            moves[name]()
            check()
        button(browser, "back to start").click()
        until(browser, lambda: "before the first tick" in text_of(browser))
        fill(browser, "rule: a name, or digits of a hash", "nothing")
        button(browser, "load").click()
        until(browser, lambda: "got 'nothing'" in text_of(browser))
        assert fits(browser) and not faults(browser)


@pytest.mark.browser
def test_a_page_from_elsewhere_is_not_let_in(served):
    request = urllib.request.Request(served, headers={"Host": "elsewhere.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)
