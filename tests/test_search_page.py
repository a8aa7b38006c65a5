"""The page about a search: what is in the database is on it, and what is not is said to be missing."""

import json
import re

import postgres_server
import pytest
from browsers import open_browser

from vsml.launching.rules import main
from vsml.reporting.charts import Series, step_chart
from vsml.reporting.search_page import search_page
from vsml.reporting.search_parts import method_of
from vsml.reporting.search_runs import fork_tree
from vsml.rules import known_rule, parse, rule_hash
from vsml.search.store import (
    CellRow,
    Database,
    EvaluationRow,
    EventRow,
    IslandRow,
    ParentRow,
    RunRow,
    WorkerRow,
    insert_all,
    rule_row,
)
from vsml.search.store.commands import Command, Outcome, send
from vsml.search.store.overview import ABLATION, overview, proposals

pytestmark = pytest.mark.usefixtures("hasty")

BEGAN_S = 1_800_000_000.0

COUNTERS = {
    "proposed": {"all": 1_000_000},
    "S0": {
        "passed": 280_000,
        "the answer does not depend on the input": 420_000,
        "known: <met> before": 300_000,
    },
    "S1": {
        "passed": 2_000,
        "twin: another rule answers the same": 100_000,
        "deaf: no answer changes": 178_000,
    },
    "S2": {"passed": 40, "below the hurdle": 1_960},
}

HOSTILE = "<script>alert(1)</script>"


def config_of(method):
    return json.dumps({"search": {"breeding": {"method": method}}})


def rows():
    """Return rows of a small search: the best rule was made from delta through another one."""
    delta = known_rule("delta").rule
    middle = parse(
        "@c0 = 0.2\na : node\ns : edge\nb : node\ns <- x\nb <- b + c0 * t\na <- b + sum(rev(s))\nout = a\n"
    )
    best = known_rule("backprop").rule
    rules = [
        rule_row(delta, "known: delta"),
        rule_row(middle, "mutation", "evolved"),
        rule_row(best, HOSTILE, "evolved"),
    ]
    hashes = [row.hash for row in rules]
    runs = [
        RunRow(
            "evolved", config=config_of("evolution"), git="0123456789abcdef", host="here", started_s=BEGAN_S
        ),
        RunRow("chance", config=config_of("random"), host="there", started_s=BEGAN_S),
    ]
    evaluations = []
    for number, score in enumerate([0.1, 0.05, 0.3, 0.2]):
        for run, less in (("evolved", 0.0), ("chance", 0.1)):
            evaluations.append(
                EvaluationRow(
                    hashes[number % 3],
                    "S4",
                    "progress",
                    seeds=f"{run} {number}",
                    status="pass" if score > 0.15 else "fail",
                    score=score - less,
                    standard_error=0.02,
                    run=run,
                    time_s=BEGAN_S + 600 * number,
                )
            )
    ablation = {
        "hash": hashes[2],
        "scores": {"and": 0.5},
        "lines": [
            {
                "line": 1,
                "text": "@lr = 0.05",
                "change": "lr is 0",
                "difference": {"mean": -0.4, "standard_error": 0.1},
            },
            {"line": 2, "text": "w : edge", "change": "no store", "difference": None},
        ],
    }
    found = [
        *rules,
        *runs,
        ParentRow(hashes[2], hashes[1], "insert"),
        ParentRow(hashes[1], hashes[0], "argument"),
        *evaluations,
        WorkerRow("w1", "evolved", "here", COUNTERS, BEGAN_S, BEGAN_S + 3600),
        WorkerRow("w2", "chance", "there", {"proposed": {"all": 500_000}}, BEGAN_S, BEGAN_S + 1800),
        IslandRow("evolved", 0, "w1", 40),
        CellRow("evolved", 0, "size 20-39, error, layered, S4", hashes[2], 0.6, 0.05),
        CellRow("evolved", 1, "size 20-39, error, layered, S4", hashes[1], 0.62, 0.3),
        CellRow("evolved", 0, "size 0-9, error, layered, S3", hashes[0], 0.2),
        EventRow("restart", "evolved", detail={"island": 0}, time_s=BEGAN_S),
        EventRow(ABLATION, detail=ablation, time_s=BEGAN_S + 1),
    ]
    by_table = {}
    for row in found:
        by_table.setdefault(row.table, []).append(row.values())
    return by_table


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    path = tmp_path_factory.mktemp("search") / "rules.db"
    with Database(path, create=True) as database, database.writing() as connection:
        insert_all(connection, rows())
    return path


@pytest.fixture(scope="module")
def seen(url):
    with Database(url) as database:
        return overview(database)


@pytest.fixture(scope="module")
def page(url):
    with Database(url) as database:
        return search_page(database, price_per_hour=0.5)


@pytest.fixture(scope="module")
def empty_page(tmp_path_factory):
    path = tmp_path_factory.mktemp("empty") / "rules.db"
    with Database(path, create=True) as database:
        return search_page(database)


def numbers_on(page):
    return {name: value for value, name in re.findall(r"<b>([^<]*)</b><span>([^<]*)</span>", page)}


def test_counters_of_workers_add_up(seen):
    assert proposals(seen.counters) == 1_500_000
    assert seen.counters["S1"]["passed"] == 2_000
    assert seen.worker_s == 5400


def test_a_cell_shows_the_rule_that_is_best_for_sure(seen):
    # 0.62 +- 0.3 is no better than 0.6 +- 0.05.
    assert [(cell.island, cell.score) for cell in seen.cells] == [(0, 0.6), (0, 0.2)]


def test_progress_keeps_what_was_better_than_all_before(seen):
    found = {progress.run: progress for progress in seen.progress}
    assert found["evolved"].scores == (0.1, 0.3)
    assert found["evolved"].times_s == (BEGAN_S, BEGAN_S + 1200)
    assert found["chance"].scores == pytest.approx((0.0, 0.2))


def test_the_numbers_are_those_of_the_database(page):
    numbers = numbers_on(page)
    assert numbers["rules kept"] == "3"
    assert numbers["rules proposed"] == "1,500,000"
    assert numbers["proposed a second and worker"] == "278"
    assert numbers["known already"] == "26.7%"
    assert numbers["hours of workers"] == "1.50"
    assert numbers["cost so far"] == "0.75"
    assert numbers["cost of a million proposals"] == "0.5"


def test_the_funnel_tells_stages_and_reasons(page):
    assert "1,000,000 came, 28.00% passed" in page
    assert "known: &lt;met&gt; before" in page
    assert page.index("<b>S0</b>") < page.index("<b>S1</b>") < page.index("<b>S2</b>")


def test_missing_controls_are_named(page):
    assert "Controls that are not in this database: best_of (mutations of the start), constants" in page
    assert "evolved: evolution" in page and "chance: random" in page


def test_the_best_rule_has_its_family_and_what_its_lines_are_worth(page):
    assert "by insert (mutation)" in page and "by argument (known: delta)" in page
    assert "-0.400 ± 0.100" in page and "no rule without it" in page


def test_lists_of_the_family_tree_are_closed(page):
    assert page.count("<ul") == page.count("</ul>")
    assert page.count("<li") == page.count("</li>")
    assert page.count("<details") == page.count("</details>") > 0


def test_nothing_from_the_database_is_taken_for_a_page(page):
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_page_asks_for_nothing_outside(page):
    assert not re.findall(r"(?:src|href)=|url\(|https?://", page)


def test_what_is_not_there_is_said_to_be_missing(empty_page):
    for told in (
        "No worker has counted proposals here",
        "Costs need the price of an hour",
        "No worker has counted where rules end.",
        "No evaluation with a score belongs to a run",
        "No cell of an archive",
        "No test was taken.",
        "No rule of this database has a score.",
        "No worker has said that it works.",
        "No run is in this database.",
        "Nothing that happened was written down.",
    ):
        assert told in empty_page


def test_without_cells_the_best_rules_are_those_of_the_last_test(url, tmp_path):
    path = tmp_path / "copy.db"
    with Database(path, create=True) as database:
        with database.writing() as connection:
            insert_all(connection, {name: found for name, found in rows().items() if name != "cell"})
        assert "S4 progress: score" in search_page(database)


@pytest.mark.parametrize(("config", "method"), [("", None), ("[1]", None), (config_of("x"), "x")])
def test_the_method_of_a_run_is_read_from_its_settings(config, method):
    assert method_of(RunRow("r", config=config)) == method


def test_a_price_below_zero_is_refused(url):
    with Database(url) as database, pytest.raises(ValueError, match="price_per_hour: got -1"):
        search_page(database, -1)


@pytest.mark.parametrize("values", [[0.0], [0.5, 0.5], [-0.3, 0.1, 0.7], [1e-7, 2e-7]])
def test_a_chart_has_its_lines_inside(values):
    chart = step_chart([Series("a", list(range(len(values))), values)], "minutes", "score")
    (line,) = re.findall(r'class="line series-0" d="([^"]*)"', chart)
    heights = [float(number) for number in re.findall(r"(?:V|M[\d.]+ )([\d.]+)", line)]
    assert all(10 <= height <= 194 for height in heights)
    assert "nan" not in chart


def test_the_command_writes_the_page(url, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert main(["page", str(url), "--out", str(out), "--price_per_hour", "0.5"]) == 0
    assert capsys.readouterr().out == f"page: {out}\n"
    assert "cost of a million proposals" in out.read_text()
    assert main(["page", str(tmp_path / "none.db"), "--out", str(out)]) == 2
    assert main(["page", str(url), "--out", str(tmp_path / "none" / "page.html")]) == 2
    assert "whose folder is missing" in capsys.readouterr().err


def test_an_ablation_is_kept_in_the_database(tmp_path, capsys):
    own = tmp_path / "rules.db"
    assert main(["db", "init", str(own)]) == 0
    words = ["ablate", "delta", "--tasks", "and", "--examples", "60", "--seeds", "4", "--database", str(own)]
    assert main(words) == 2
    assert "has no rule of the hash" in capsys.readouterr().err
    assert main(["db", "init", str(own), "--known"]) == 0
    assert main(words) == 0
    with Database(own) as database:
        found = overview(database).ablations[rule_hash(known_rule("delta").rule)]
    assert [line["change"] for line in found.detail["lines"]][:2] == ["lr is 0", "it starts as 0"]


def test_forks_stand_below_the_run_that_they_are_from():
    runs = [
        RunRow("a", started_s=1.0),
        RunRow("b", "gone", started_s=2.0),
        RunRow("c", "a", started_s=3.0),
        RunRow("d", "c", started_s=4.0),
        RunRow("e", "a", started_s=5.0),
        RunRow("x", "y", started_s=6.0),
        RunRow("y", "x", started_s=7.0),
    ]
    found = [(depth, run.id) for depth, run in fork_tree(runs)]
    assert found == [(0, "a"), (1, "c"), (2, "d"), (1, "e"), (0, "b"), (0, "x"), (1, "y")]


def test_commands_are_told_with_what_became_of_them(tmp_path):
    path = tmp_path / "rules.db"
    paste = Command("first", "paste", {"text": f"# {HOSTILE}\nout = a"}, time_s=BEGAN_S)
    setting = {"name": "search.solved", "value": 3}
    with Database(path, create=True) as database:
        send(database, paste)
        send(database, Command("first", "set", setting, at=70, time_s=BEGAN_S + 1))
        outcome = Outcome(False, 12, "paste: no room").row(paste.id, "first")
        with database.writing() as connection:
            insert_all(connection, {"event": [outcome.values()]})
        page = search_page(database)
    assert HOSTILE not in page and "&lt;script&gt;" in page
    (section,) = re.findall(r"<h2>Commands</h2>(.*?)</section>", page, re.DOTALL)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in section.split("<tr>")[2:]]
    assert cells[0][1:5] == ["set", "search.solved=3", "70", "waits"]
    assert cells[1][1] == "paste" and cells[1][4:7] == ["refused", "12", "paste: no room"]


@pytest.mark.postgres
def test_a_server_is_read_as_a_file_is(seen):
    with postgres_server.server() as server, Database(server.url(), create=True) as database:
        with database.writing() as connection:
            insert_all(connection, rows())
        found = overview(database)
        assert search_page(database, price_per_hour=0.5)
    for name in ("sizes", "tests", "progress", "event_counts"):
        assert getattr(found, name) == getattr(seen, name), name
    assert [cell.name for cell in found.cells] == [cell.name for cell in seen.cells]
    assert found.counters == seen.counters


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
def test_a_browser_shows_the_page_without_faults(page, tmp_path, width, dark):
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    with open_browser(tmp_path, width=width, dark=dark) as browser:
        browser.get((tmp_path / "page.html").as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (colour == "rgb(21, 24, 28)") == dark
        widths = browser.execute_script(
            "const bars = [...document.querySelectorAll('.fill')];"
            "return bars.map(bar => bar.offsetWidth / bar.parentNode.offsetWidth)"
        )
        # Of 1,500,000 proposals 1,000,000 came to S0.
        assert widths[0] == pytest.approx(2 / 3, abs=0.02)
        lines = browser.execute_script("return document.querySelectorAll('.chart .line').length")
        assert lines == 2
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
