"""Rules on the command line: shown, checked, run on small tasks, and stepped through tick by tick."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from browsers import open_browser

from vsml.graphs import generate, to_arrays
from vsml.launching.rules import main
from vsml.reporting.rule_page import page_data, rule_page
from vsml.reporting.rule_text import store_lines, watched_text
from vsml.rules import (
    Harness,
    Settings,
    known_names,
    known_rule,
    pack,
    parse,
    read_rule,
    rule_hash,
    show,
    slots_of,
)
from vsml.rules.rule import PORTS
from vsml.rules.settings import Teaching
from vsml.rules.stepping import Stepper
from vsml.rules.watching import learn, watch
from vsml.search.stages import timing_of
from vsml.tasks.data.small_tasks import FALSE, TASKS, TRUE

pytestmark = pytest.mark.usefixtures("hasty")

DELTA = """# The delta rule
# of one layer
@lr = 0.1
w : edge shared(owner) = 0
s : edge
a : node
s <- x if x_on
a <- sum(w * rev(s), incoming)
w <- w - lr * t * rev(s) if t_on
out = a
"""

SETTINGS = Settings(ticks=3, read_tick=1, loss="regression")


@pytest.fixture
def delta(tmp_path):
    path = tmp_path / "mine.rule"
    path.write_text(DELTA)
    return str(path)


def watched_delta(examples=2, skip=0):
    graph = generate("layered", 3, 0, 1, 0)
    x, targets = TASKS["sum"].draw(examples + skip, jax.random.key(3))
    return watch(parse(DELTA), graph, SETTINGS, x, targets, jax.random.key(1), skip)


@pytest.fixture(scope="module")
def watched():
    return watched_delta()


# Small tasks.


@pytest.mark.parametrize(
    ("name", "true_pairs"),
    [
        ("and", {(1, 1)}),
        ("or", {(1, 1), (1, -1), (-1, 1)}),
        ("xor", {(1, -1), (-1, 1)}),
    ],
)
def test_tasks_of_logic_have_the_truth_table(name, true_pairs):
    x, targets = TASKS[name].draw(64, jax.random.key(0))
    pairs = {(int(a), int(b)) for a, b, _ in x}
    assert len(pairs) == 4
    for (a, b, bias), (target,) in zip(np.asarray(x), np.asarray(targets), strict=True):
        assert bias == 1
        assert target == np.float32(TRUE if (int(a), int(b)) in true_pairs else FALSE)


def test_the_task_of_sums_adds():
    x, targets = TASKS["sum"].draw(64, jax.random.key(0))
    np.testing.assert_allclose(x[:, 0] + x[:, 1], targets[:, 0], rtol=1e-6)
    assert targets.std() > 0.1


def test_more_examples_begin_with_the_same_ones():
    few, _ = TASKS["sum"].draw(3, jax.random.key(0))
    many, _ = TASKS["sum"].draw(50, jax.random.key(0))
    np.testing.assert_array_equal(few, many[:3])


@pytest.mark.slow
def test_step_watches_what_the_first_start_of_run_does(delta, capsys):
    """One example is shown, and its error is that which `run` tells."""
    words = [delta, "--task", "sum", "--hidden", "0", "--seed", "5", "--examples", "1"]
    assert main(["run", *words, "--starts", "1"]) == 0
    (error,) = re.findall(r"^examples 1 to 1 +([\d.]+)", capsys.readouterr().out, re.MULTILINE)
    assert main(["step", *words, "--ticks", "1"]) == 0
    target, answer = re.findall(r"target ([\d.]+), answer ([\d.]+)", capsys.readouterr().out)[0]
    assert float(error) == pytest.approx(abs(float(target) - float(answer)), abs=1e-4)
    assert float(error) > 0


# What happened.


def test_what_is_watched_is_the_delta_rule(watched):
    """The weights after each example are those of the equation, computed here."""
    weights = np.zeros(3)
    for number, example in enumerate(watched.examples):
        answer = weights @ example.x
        np.testing.assert_allclose(example.answer, [answer], atol=1e-6)
        weights = weights - 0.1 * (answer - example.target[0]) * example.x
        last = watched.ticks[3 * number + 2]
        np.testing.assert_allclose(last.after["w"][::2], weights, atol=1e-6)
        np.testing.assert_allclose(last.before["w"], watched.ticks[3 * number].before["w"], atol=1e-6)
    assert np.abs(weights).max() > 0.01


def test_guards_fire_where_their_ports_are_on(watched):
    for tick in watched.ticks:
        at_inputs = np.flatnonzero(tick.fires["s"])
        assert at_inputs.tolist() == [0, 2, 4], "the half-edges of the inputs, whose input stands"
        is_taught = tick.number == 2
        assert np.flatnonzero(tick.fires["w"]).tolist() == ([1, 3, 5] if is_taught else [])
        assert tick.fires["a"].all(), "without a guard it is stored everywhere"


def test_a_store_without_its_guard_changes_nothing(watched):
    for tick in watched.ticks:
        # A shared slot is stored by its owner, the odd half-edge, for both ends.
        by_owner = np.repeat(tick.fires["w"][1::2], 2)
        assert not (tick.changed("w") & ~by_owner).any()
        assert not (tick.changed("s") & ~tick.fires["s"]).any()


def test_skipped_examples_have_been_learned_from():
    whole = watched_delta(examples=4)
    end = watched_delta(examples=1, skip=3)
    assert end.examples[0].place == 3
    for name, values in whole.ticks[-1].after.items():
        np.testing.assert_allclose(end.ticks[-1].after[name], values, atol=1e-6)


def test_without_signals_the_first_tick_begins_with_none():
    graph = generate("layered", 3, 0, 1, 0)
    x, targets = TASKS["sum"].draw(2, jax.random.key(3))
    settings = SETTINGS.model_copy(update={"reset": "signals"})
    ticks = watch(parse(DELTA), graph, settings, x, targets, jax.random.key(1)).ticks
    assert ticks[2].after["s"].any()
    assert not ticks[3].before["s"].any()
    np.testing.assert_array_equal(ticks[3].before["w"], ticks[2].after["w"])


@pytest.mark.slow
def test_backprop_learns_xor_from_every_start():
    keys = jax.random.split(jax.random.key(0), 3)
    graph = generate("layered", 3, 8, 1, 0)
    x, targets = jax.vmap(lambda key: TASKS["xor"].draw(1500, key))(keys)
    settings = Settings(ticks=6, read_tick=2, x_hold=1, loss="regression")
    answers = learn(read_rule("backprop"), graph, settings, x, targets, keys)
    errors = np.abs(answers - np.asarray(targets))
    assert answers.shape == (3, 1500, 1)
    assert errors[:, :100].mean() > 0.25
    assert errors[:, -100:].mean() < 0.05


# As text.


@pytest.mark.parametrize("name", known_names())
def test_the_lines_of_stores_are_those_of_the_text(name):
    rule = known_rule(name).rule
    lines = show(rule).splitlines()
    places = store_lines(rule)
    assert len(places) == sum("<-" in line for line in lines)
    for slot, place in places.items():
        assert lines[place].startswith(f"{slot} <- ")


def test_show_says_what_is_in_a_rule(delta, capsys):
    assert main(["show", delta]) == 0
    told = capsys.readouterr().out
    assert told.startswith("The delta rule of one layer\n")
    for part in (
        rule_hash(parse(DELTA)),
        "w <- w - lr * t * rev(s) if t_on",
        "v0 = rev(s)",
        "7 operators a tick",
    ):
        assert part in told
    assert re.search(r"lr +0\.1\n", told)
    assert re.search(r"a +node +signal, read as the answer\n", told)
    assert re.search(r"w +edge shared\(owner\) +kept\n", told)


def test_show_says_how_a_known_rule_is_taught(capsys):
    assert main(["show", "hebb"]) == 0
    assert "teach=target_as_input" in capsys.readouterr().out


def test_check_tells_all_mistakes_a_line_each(tmp_path, delta, capsys):
    bad = tmp_path / "bad.rule"
    bad.write_text("a : node\na <- tahn(x)\na : node\nout = b\n")
    assert main(["check", delta, str(bad)]) == 2
    told = capsys.readouterr()
    assert told.out.startswith(f"{delta}: no mistakes; 3 slots, 7 operators a tick, hash ")
    lines = told.err.splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{bad}:2", f"{bad}:3", f"{bad}:4"]
    assert "did you mean tanh?" in lines[0]


def test_check_passes_all_rules_that_ship(capsys):
    assert main(["check", *known_names()]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(known_names())


def test_run_prints_how_the_error_falls(delta, capsys):
    words = ["--task", "sum", "--hidden", "0", "--examples", "400", "--starts", "2", "--constants", "lr=0.5"]
    assert main(["run", delta, *words]) == 0
    told = capsys.readouterr().out
    assert "learns a + b on a layered graph of 4 nodes and 3 edges" in told
    errors = [float(error) for error in re.findall(r"^examples +\d+ to +\d+ +([\d.]+)", told, re.MULTILINE)]
    assert len(errors) == 10
    assert errors[-1] < 0.03 < 0.1 < errors[0]


def test_run_takes_settings_constants_and_other_graphs(capsys):
    words = ["--graph", "waxman", "--hidden", "3", "--graph_options", "beta=0.5", "--graph_seed", "2"]
    words += ["--settings", "ticks=9", "read_tick=4", "--constants", "lr=0.01", "--examples", "3"]
    assert main(["run", "delta", *words]) == 0
    told = capsys.readouterr().out
    assert "on a waxman graph of 7 nodes" in told
    assert "9 ticks an example, the answer after tick 4" in told
    assert len(re.findall(r"^examples", told, re.MULTILINE)) == 3


def test_step_tells_guards_ports_and_memory(watched):
    first_example, first, _, third, *_ = watched_text(watched)
    assert first_example.startswith("example 1: x ")
    assert first.startswith("tick 0: the input stands\n")
    assert re.search(r"s <- x if x_on +half-edges 0>3 1>3 2>3\n", first)
    assert re.search(r"w <- .* if t_on +-\n", first)
    assert third.startswith("tick 2: the input stands, teaching stands\n")
    assert re.search(r"w <- .* if t_on +half-edges 3>0 3>1 3>2\n", third)
    change = 0.1 * watched.examples[0].target[0] * watched.examples[0].x[0]
    row = next(line.split() for line in third.splitlines() if line.split()[:1] == ["0-3"])
    assert row[1] == f"{change:.4g}*"


def test_step_prints_as_many_ticks_as_it_is_asked_for(delta, capsys):
    assert main(["step", delta, "--hidden", "0", "--ticks", "2", "--examples", "2"]) == 0
    assert re.findall(r"^tick \d", capsys.readouterr().out, re.MULTILINE) == ["tick 0", "tick 1"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["show", "bakprop"], "did you mean backprop?"),
        (["show", "none.rule"], "none.rule"),
        (["run", "delta", "--settings", "tiks=3"], "--settings: got 'tiks', expected one of"),
        (["run", "delta", "--settings", "ticks=3", "read_tick=5"], "read_tick: got 5, expected 0 to 2"),
        (["run", "delta", "--settings", "ticks=a"], "ticks: got 'a'"),
        (["run", "delta", "--constants", "rl=1"], "--constants: got 'rl', expected one of lr"),
        (["run", "delta", "--constants", "lr=.nan"], "lr: got nan, expected a finite number"),
        (["run", "delta", "--constants", "lr=yes"], "lr: got True, expected a finite number"),
        (["run", "delta", "--graph", "star"], "--graph: kind: got 'star', expected one of"),
        (["run", "delta", "--graph_options", "q=1"], "expected parameters among"),
        (["run", "delta", "--graph_options", "seed=1"], "--graph_options: got ['seed']"),
        (["step", "delta", "--examples", "100000"], "--examples: got 400000 ticks"),
        (["step", "delta", "--html", "a.html", "--layout", "cube"], "layout: got 'cube', expected one of"),
        (["step", "delta", "--html", "no_such_folder/page.html"], "no_such_folder/page.html"),
    ],
)
def test_bad_input_is_refused_with_a_line(words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    hidden = [] if words[0] == "show" else ["--hidden", "0"]
    assert main([*words, *hidden]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.startswith("error: ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "delta", "--task", "nand"], "invalid choice: 'nand'"),
        (["run", "delta", "--constants", "lr"], "got 'lr', expected KEY=VALUE"),
        (["run", "delta", "--examples", "0"], "expected a whole number from 1 on"),
        (["step", "delta", "--skip", "-1"], "--skip"),
        (["step", "delta", "--tick", "1"], "did you mean '--ticks'?"),
        (["watch", "delta"], "invalid choice: 'watch'"),
    ],
)
def test_options_that_cannot_be_are_refused(words, told, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_rule_with_mistakes_is_neither_shown_nor_run(tmp_path, capsys):
    bad = tmp_path / "bad.rule"
    bad.write_text("a : node\na <- b\nout = a\n")
    for command in ("show", "run", "step"):
        assert main([command, str(bad)]) == 2
        assert capsys.readouterr().err.startswith(f"{bad}:2: ")


def test_it_is_started_as_a_module(tmp_path):
    words = [sys.executable, "-m", "vsml.rules", "check", "delta"]
    done = subprocess.run(words, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("delta: no mistakes")


# As a page.


def test_the_page_has_every_tick_and_needs_no_network(watched):
    page = rule_page(watched, "<b>mine")
    assert "<b>mine" not in page and "&lt;b&gt;mine" in page
    assert not re.search(r"(src|href)\s*=|@import|url\(", page)
    (text,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    data = json.loads(text)
    assert data == page_data(watched)
    assert len(data["ticks"]) == 6
    assert [line["text"] for line in data["lines"]] == show(watched.rule).splitlines()
    for shown, tick in zip(data["ticks"], watched.ticks, strict=True):
        np.testing.assert_allclose(shown["slots"]["w"], tick.after["w"], rtol=1e-5)
        assert shown["fires"]["w"] == np.flatnonzero(tick.fires["w"]).tolist()


@pytest.mark.browser
def test_a_browser_steps_through_the_ticks(tmp_path, delta, capsys):
    page = tmp_path / "page.html"
    words = ["--hidden", "0", "--skip", "20", "--examples", "2", "--settings", "ticks=3", "--html", str(page)]
    assert main(["step", delta, *words]) == 0
    assert capsys.readouterr().out == f"page: {page}\n"
    (text,) = re.findall(r'application/json">(.*?)</script>', page.read_text(), re.DOTALL)
    ticks = json.loads(text)["ticks"]
    with open_browser(tmp_path) as browser:
        from selenium.webdriver.common.by import By
        from selenium.webdriver.common.keys import Keys
        from selenium.webdriver.support.select import Select
        from selenium.webdriver.support.wait import WebDriverWait

        browser.get(page.as_uri())

        def find(selector):
            return browser.find_elements(By.CSS_SELECTOR, selector)

        def said(selector):
            return [element.get_attribute("textContent") for element in find(selector)]

        def number(value):
            return float(f"{value:.3g}")

        assert len(find("#graph .node")) == 4
        assert len(find("#graph .edge")) == 3
        assert find("h1")[0].text == "mine learns a AND b"
        slider = find("#slider")[0]
        for place, tick in enumerate(ticks):
            assert said("#tick")[0].startswith(f"tick {tick['number']} of example {tick['example'] + 1}")
            assert said("#example")[0].startswith(f"example {tick['example'] + 1}: x ")
            shown = [float(value) for value in said("#graph .value")]
            assert shown == [number(value) for value in tick["slots"]["a"]]
            weights = [float(value) for value in said("#graph .edge-text[data-half]")]
            assert weights == [number(value) for value in tick["slots"]["w"][::2]]
            fired = {int(dot.get_attribute("data-half")) for dot in find("#graph .end")}
            assert fired == {*tick["fires"]["s"], *tick["fires"]["w"]}
            counts = [int(count) for count in re.findall(r"fires at (\d+)", " ".join(said("#rule .count")))]
            assert counts == [len(tick["fires"][name]) for name in ("s", "w") if tick["fires"][name]]
            if place < len(ticks) - 1:
                slider.send_keys(Keys.ARROW_RIGHT)
        # An edge slot with a number for each end shows both.
        Select(find("#of-edges")[0]).select_by_visible_text("s")
        assert len(find("#graph .edge-text[data-half]")) == 6
        # A line that is picked is the only one whose guard is marked.
        find("#rule .store[data-slot=s]")[0].click()
        fired = {int(dot.get_attribute("data-half")) for dot in find("#graph .end")}
        assert fired == set(ticks[-1]["fires"]["s"])
        find("#graph .node[data-node='1'] .disc")[0].click()
        assert said("#held-title") == ["Node 1, input"]
        find("#numbers")[0].click()
        assert not find("#graph .value")
        find("#play")[0].click()
        WebDriverWait(browser, 30).until(lambda _: said("#tick")[0].startswith("tick 1 of example 21"))
        find("#play")[0].click()
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.browser
def test_the_page_fits_on_a_phone(tmp_path, watched):
    (tmp_path / "page.html").write_text(rule_page(watched, "mine"), encoding="utf-8")
    with open_browser(tmp_path, width=390, dark=True) as browser:
        browser.get((tmp_path / "page.html").as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390


# Going through a stream tick by tick.


def stepper_of(rule, graph, settings, examples=70):
    x, targets = TASKS["xor"].draw(examples, jax.random.key(5))
    return Stepper(rule, graph, settings, x, targets, jax.random.key(2)), x, targets


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "hidden"), [("layered", 3), ("small_world", 6), ("waxman", 4)])
def test_what_is_stepped_through_is_what_the_program_does(kind, hidden):
    """The program of the search, run by the harness, is the other implementation."""
    rule, graph = read_rule("backprop"), generate(kind, 3, hidden, 1, 0)
    settings = timing_of([graph], Teaching())
    stepper, x, targets = stepper_of(rule, graph, settings, examples=3)
    program, arrays, harness = pack(rule), to_arrays(graph), Harness(settings)
    state = harness.begin(program, arrays, jax.random.key(2))
    assert stepper.tick is None and stepper.length == 3 * settings.ticks
    for place in range(3):
        state, answer, record = harness.recorded(program, arrays, state, x[place], targets[place])
        for number in range(settings.ticks):
            stepper.go(1)
            tick = stepper.tick
            assert (tick.example, tick.number) == (place, number)
            held = slots_of(rule, arrays, record.memory[number][: len(rule.slots)])
            for name, values in held.items():
                np.testing.assert_allclose(tick.after[name], values, rtol=2e-5, atol=1e-6, err_msg=name)
            for port in PORTS:
                expected = getattr(record.ports, port)[number]
                np.testing.assert_allclose(tick.ports[port], expected, rtol=2e-5, atol=1e-6, err_msg=port)
        (example,) = stepper.watched.examples
        np.testing.assert_allclose(example.answer, answer, rtol=2e-5, atol=1e-6)
    assert stepper.done == stepper.length


def test_a_stepper_goes_to_any_tick_and_back_with_the_same_numbers():
    rule, graph = parse(DELTA), generate("layered", 3, 0, 1, 0)
    stepper, x, targets = stepper_of(rule, graph, SETTINGS)
    whole = watch(rule, graph, SETTINGS, x, targets, jax.random.key(2))
    key = jax.random.key(2)
    answers = learn(rule, graph, SETTINGS, x[None], targets[None], key[None])[0]

    def check():
        tick, expected = stepper.tick, whole.ticks[stepper.done - 1]
        assert (tick.example, tick.number) == (expected.example, expected.number)
        for name in ("a", "w", "s"):
            np.testing.assert_allclose(tick.after[name], expected.after[name], rtol=1e-5, atol=1e-7)
            assert (tick.fires[name] == expected.fires[name]).all()

    for done in (1, 2, 4, 5, 205, 210, 7, 6, 3, 200):
        stepper.go_to(done)
        assert stepper.done == done
        check()
    stepper.go(-1)
    check()
    stepper.go_to(-5)
    assert stepper.done == 0 and stepper.tick is None and not stepper.errors
    stepper.go_examples(1)
    assert stepper.done == 3 and len(stepper.errors) == 1
    stepper.go_examples(1)
    assert stepper.done == 6
    stepper.go(1)
    assert len(stepper.errors) == 2, "the answer of the third example is not read yet"
    stepper.go_examples(1)
    assert stepper.done == 9
    stepper.go(10**6)
    assert stepper.done == 210
    check()
    np.testing.assert_allclose(stepper.errors, np.square(answers - np.asarray(targets)).mean(1), rtol=1e-4)
