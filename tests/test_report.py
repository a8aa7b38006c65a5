"""The page about runs: what it says, what it refuses, and how a browser shows it."""

import base64
import json
import os
import re
import shutil
import time
import zipfile

import numpy as np
import pytest
from browsers import open_browser

from vsml.calls.evaluate import Evaluation, write_results
from vsml.config.files import dump
from vsml.evaluation.scores import Measured
from vsml.launching.schema import load_config
from vsml.report import main, read_runs, report
from vsml.reporting.intervals import half_width
from vsml.runs.directory import RunDirectory


def make_run(path, seed=0, steps=4, evaluated=True, name="<b>run"):
    """Write the folder of a run as training and evaluation do."""
    config = load_config(overrides=[f"seed={seed}", "model.vsml.feed_label=" + str(seed > 0).lower()])
    run = RunDirectory(path)
    device = {"count": 2, "kind": "cpu"}
    run.start(dump(config), {"git": {"commit": "0123456789abcdef", "dirty": seed > 0}, "device": device})
    lines = [
        {"step": s, "wall_s": 30.0 * s, "examples": 100 * s, "meta_loss": 2.3 / s, "accuracy": s / 10}
        for s in range(1, steps + 1)
    ]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if evaluated:
        correct = np.random.default_rng(seed).random((3, 40)).round().astype(np.float32)
        rows = [
            Evaluation(learner, dataset, 0.1, correct, 1 - correct)
            for dataset in ("digits", "mnist")
            for learner in (name, "SGD")
        ]
        write_results(run, rows)
        run.complete.touch()
    return path


def cells(page, heading):
    """Return the rows of the table under a heading, as texts."""
    table = re.search(rf"<h2>{heading}</h2>\n<table>(.*?)</table>", page, re.DOTALL)
    rows = re.findall(r"<tr>(.*?)</tr>", table[1], re.DOTALL)
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows]


def test_the_page_has_what_was_run_and_what_came_of_it(tmp_path):
    paths = [make_run(tmp_path / "one"), make_run(tmp_path / "two", seed=1, evaluated=False)]
    page = re.sub(r"<script[^>]*>.*?</script>", "", report(read_runs(paths)), flags=re.DOTALL)
    head, one, two = cells(page, "Runs")
    overview = dict(zip(head, one, strict=True))
    assert overview["run"] == "one" and overview["state"] == "complete" and overview["minutes"] == "2"
    assert (overview["examples"], overview["loss"], overview["commit"]) == ("400", "0.575", "0123456789")
    assert dict(zip(head, two, strict=True))["commit"] == "0123456789 with changes"
    accuracies = [dict(zip(cells(page, "Accuracy")[0], row, strict=True)) for row in cells(page, "Accuracy")]
    expected = json.loads((tmp_path / "one" / "evaluation.json").read_text())
    assert [row["data set"] for row in accuracies[1:]] == [row["dataset"] for row in expected]
    assert accuracies[1]["last"].startswith(f"{expected[0]['accuracy_last']:.3f} ± ")
    assert ["model.vsml.feed_label", "false", "true"] in cells(page, "What differs")
    assert ["seed", "0", "1"] in cells(page, "What differs")
    assert page.count("data:image/png;base64,") == 1
    assert "<b>run" not in page and "&lt;b&gt;run" in page
    assert not re.search(r"(src|href)\s*=\s*.?(http|//)", page)


@pytest.mark.parametrize(("name", "key"), [("trajectories", "max"), ("followed", "most")])
def test_the_page_has_what_clones_and_learners_looked_into_came_to(tmp_path, name, key):
    """Also of runs of version 0.1, with their names of files and keys."""
    path = make_run(tmp_path / "one", evaluated=False)
    row = {"quantity": "output", "explained": 0.98765, key: 0.25}
    (path / "clone.json").write_text(json.dumps([row]))
    (path / f"{name}.json").write_text('[{"dataset": "mnist", "update_cosine": [0.91234, 1.0]}]')
    page = report(read_runs([path]))
    assert cells(page, "Clones") == [
        ["number", "one: output"],
        ["explained", "0.9877"],
        ["max", "0.25"],
    ]
    assert cells(page, "Networks of clones")[1] == ["update cosine", "0.912, 1"]
    assert "<h2>Inside</h2>" not in page


def test_a_run_that_has_just_begun_is_no_error(tmp_path):
    path = make_run(tmp_path / "begun", steps=0, evaluated=False)
    page = report(read_runs([path]))
    assert "not complete" in page and "<h2>Meta-training</h2>" not in page and "<h2>Accuracy</h2>" not in page


def test_no_picture_from_outside_of_the_folder_is_embedded(tmp_path):
    folder = make_run(tmp_path / "run")
    secret = tmp_path / "secret"
    secret.write_text("of the reader")
    (folder / "x.png").symlink_to(secret)
    (folder / "missing.png").symlink_to(tmp_path / "not there")
    os.mkfifo(folder / "y.png")
    (folder / "again.png").symlink_to("learning_curves.png")
    page = re.sub(r"<script[^>]*>.*?</script>", "", report(read_runs([folder])), flags=re.DOTALL)
    assert base64.b64encode(b"of the reader").decode() not in page
    assert page.count("data:image/png;base64,") == 2
    for name, kind in (("x", "a link that leads out"), ("missing", "a link that"), ("y", "a pipe")):
        assert f"{folder / name}.png: got {kind}" in page


@pytest.mark.parametrize("name", ["config.yaml", "environment.json", "metrics.jsonl", "evaluation.npz"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_no_file_from_outside_of_the_folder_is_read(tmp_path, capsys, name, kind):
    folder = make_run(tmp_path / "run")
    file = folder / name
    file.rename(tmp_path / name)
    os.mkfifo(file) if kind == "pipe" else file.symlink_to(tmp_path / name)
    assert main([str(folder)]) == 1
    assert f"damaged, left out: {file}: got a {kind}" in capsys.readouterr().err


def test_a_link_in_the_place_of_the_page_or_of_its_temporary_file_is_not_followed(tmp_path):
    folder = make_run(tmp_path / "run", evaluated=False)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("report.html", ".report.html.tmp"):
        (folder / name).symlink_to(victim)
    assert main([str(folder)]) == 0
    assert victim.read_text() == "precious" and not (folder / "report.html").is_symlink()


def test_the_command_writes_the_page_into_the_folder_of_the_run(tmp_path, capsys, monkeypatch):
    path = make_run(tmp_path / "one")
    assert main([str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(path / "report.html")
    monkeypatch.chdir(tmp_path)
    assert main([str(path), str(make_run(tmp_path / "two"))]) == 0
    assert (tmp_path / "report.html").stat().st_size > 1e6  # what draws is in it


def test_what_is_no_run_is_named_and_nothing_is_written(tmp_path, capsys):
    run = make_run(tmp_path / "one")
    for wrong, message in (
        ([tmp_path / "none"], "none: expected the directory of a run"),
        ([run, run], "one twice, expected different folders"),
    ):
        assert main([*map(str, wrong), "--output", str(tmp_path / "page.html")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists() and not (run / "report.html").exists()


def replace_line(path, number, text):
    lines = path.read_text().splitlines()
    lines[number - 1] = text
    path.write_text("".join(line + "\n" for line in lines))


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def spoil_array(path):
    """Change a byte in the middle of the first array: its checksum is wrong then, and that of no other."""
    with zipfile.ZipFile(path) as archive:
        first = archive.infolist()[0]
        middle = first.header_offset + first.compress_size // 2 + 60
    content = bytearray(path.read_bytes())
    content[middle] ^= 0xFF
    path.write_bytes(content)


def change_row(path, **values):
    rows = json.loads(path.read_text())
    rows[1] |= values
    path.write_text(json.dumps(rows))


DAMAGE = {
    "a cut evaluation.npz": ("evaluation.npz", cut, ": got a damaged file, expected arrays of numpy"),
    "a spoilt array": ("evaluation.npz", spoil_array, ", &lt;b&gt;run/digits: "),
    "an empty evaluation.npz": ("evaluation.npz", lambda path: path.write_bytes(b""), ": got a damaged file"),
    "a cut config.yaml": ("config.yaml", lambda path: path.write_text("a: [1,"), ": got a damaged file"),
    "an empty config.yaml": (
        "config.yaml",
        lambda path: path.write_text(""),
        ": got nothing, expected a map",
    ),
    "a list of settings": (
        "config.yaml",
        lambda path: path.write_text("- a"),
        ": got a list, expected a map",
    ),
    "brackets": ("config.yaml", lambda path: path.write_text(f"a: {'[' * 1000}"), ": got a damaged file"),
    "settings in a ring": ("config.yaml", lambda path: path.write_text("a: &a [*a]"), ": got more than"),
    "a number without end": ("config.yaml", lambda path: path.write_text("a: 0x" + 5000 * "f"), ": got more"),
    "null for an object": (
        "environment.json",
        lambda path: path.write_text("null"),
        ": got null, expected an",
    ),
    "a list for an object": (
        "environment.json",
        lambda path: path.write_text("[]"),
        ": got a list, expected",
    ),
    "a list in an object": ("environment.json", lambda path: path.write_text('{"git": []}'), ", git: got []"),
    "deep JSON": ("environment.json", lambda path: path.write_text("[" * 100_000), ": got a damaged file"),
    "cut rows": ("evaluation.json", cut, ": got a damaged file, expected JSON"),
    "null for rows": ("evaluation.json", lambda path: path.write_text("null"), ": got null, expected a list"),
    "text for a number": (
        "evaluation.json",
        lambda path: change_row(path, accuracy_last="x"),
        ", row 2, accuracy_last: got &#x27;x&#x27;, expected a valid number",
    ),
    "no intervals": (
        "evaluation.json",
        lambda path: change_row(path, interval_95=None),
        ", row 2, interval_95: got None, expected a valid dictionary",
    ),
    "one learner twice": (
        "evaluation.json",
        lambda path: change_row(path, learner="<b>run"),
        ": got two rows of &lt;b&gt;run on digits, expected one",
    ),
    "a row that is none": ("clone.json", lambda path: path.write_text("[1]"), ", row 1, got 1, expected"),
    "a broken line": (
        "metrics.jsonl",
        lambda path: replace_line(path, 2, '{"step": 2, "me'),
        ", line 2: expected a JSON object, got",
    ),
    "NUL bytes": (
        "metrics.jsonl",
        lambda path: replace_line(path, 3, 9 * "\0"),
        ", line 3: expected a JSON object, got",
    ),
    "null as a line": (
        "metrics.jsonl",
        lambda path: replace_line(path, 4, "null"),
        ", line 4: expected a JSON",
    ),
    "no step": (
        "metrics.jsonl",
        lambda path: replace_line(path, 2, "{}"),
        ", line 2: expected a whole number",
    ),
    "a figure that is none": (
        "a.png",
        lambda path: path.write_text("x"),
        ": got a damaged file, expected a PNG",
    ),
    "a folder as a figure": ("a.png", lambda path: path.mkdir(), ": got a folder"),
    "a pipe": ("a.png", os.mkfifo, ": got a pipe"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_damaged_is_told_with_file_and_place_and_the_rest_is_on_the_page(
    damageable, tmp_path, capsys, kind
):
    name, damage, message = DAMAGE[kind]
    run = tmp_path / "one"
    shutil.copytree(damageable, run)
    damage(run / name)
    assert main([str(run)]) == 1
    (told,) = capsys.readouterr().err.splitlines()
    page = (run / "report.html").read_text()
    expected = f"{run / name}{message}"
    assert expected in page and told.startswith(f"damaged, left out: {run / name}")
    for heading, file in (
        ("Accuracy", "evaluation.json"),
        ("Learning curves", "evaluation."),
        ("Meta-training", ""),
        ("Runs", ""),
        ("Figures", ""),
        ("Configurations", ""),
    ):
        is_there = f"<h2>{heading}</h2>" in page
        assert is_there or (file and name.startswith(file)), heading


@pytest.fixture(scope="module")
def damageable(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "one")


def test_of_two_broken_lines_one_is_shown_and_both_are_counted(tmp_path):
    path = make_run(tmp_path / "one", evaluated=False)
    for number in (2, 3):
        replace_line(path / "metrics.jsonl", number, "x")
    (run,) = read_runs([path])
    (text,) = run.damage
    assert "line 2: expected a JSON object, got 'x" in text and text.endswith("(and 1 more broken lines)")
    assert [line["step"] for line in run.metrics] == [1, 4]


def test_names_with_a_slash_have_curves_of_their_own_or_none(tmp_path):
    run = RunDirectory(tmp_path / "one")
    run.start(dump(load_config()), {})
    names = [("a", "data/x.npz"), ("a/data", "x.npz"), ("a", "b/c.npz")]
    rows = [Evaluation(*name, 0.1, np.ones((2, 9)), np.ones((2, 9))) for name in names]
    write_results(run, rows)
    (read,) = read_runs([run.path])
    assert set(read.curves) == {"a/b/c.npz"}
    assert len(read.damage) == 2 and all("a/data/x.npz: is of several rows" in text for text in read.damage)
    assert cells(report([read]), "Accuracy")[1][:2] == ["data/x.npz", "a"]


def curves_on(page, name):
    """Return the data of a section of curves."""
    (text,) = re.findall(rf'<script type="application/json" id="{name}-data">(.*?)</script>', page)
    return json.loads(text)


def write_long_metrics(path, lines):
    with open(path, "w") as file:
        for step in range(1, lines + 1):
            line = {
                "step": step,
                "wall_s": 1.5 * step,
                "examples": 64 * step,
                "meta_loss": 1 / step,
                "a": 0.1,
            }
            if step % (lines // 20) == 0:
                line["eval/mnist/loss"] = float(step)
            file.write(json.dumps(line) + "\n")


def test_metrics_of_a_long_run_are_thinned_and_the_page_says_so(tmp_path):
    path = make_run(tmp_path / "one", evaluated=False)
    write_long_metrics(path / "metrics.jsonl", 40_000)
    (run,) = read_runs([path])
    assert (run.metrics_total, run.metrics_every) == (40_000, 16)
    assert 2000 < len(run.metrics) < 4100
    page = report([run])
    assert "Thinned: metrics.jsonl of one has 40,000 lines, of which one in 16 is drawn" in page
    panels = {panel["title"]: panel["lines"][0] for panel in curves_on(page, "meta-training")["panels"]}
    assert list(panels) == ["meta_loss", "a", "eval/mnist/loss"]
    loss = panels["meta_loss"]
    assert len(loss["y"]) == 1000 and (loss["x"]["step"][0], loss["x"]["step"][-1]) == (1, 40_000)
    assert all(y == pytest.approx(1 / x, rel=1e-5) for x, y in zip(loss["x"]["step"], loss["y"], strict=True))
    # Rare numbers are not lost between the many lines of others.
    assert panels["eval/mnist/loss"]["y"] == [2000 * place for place in range(1, 21)]


def test_a_short_run_is_not_thinned(tmp_path):
    path = make_run(tmp_path / "one", steps=500, evaluated=False)
    page = report(read_runs([path]))
    assert "Thinned" not in page
    assert len(curves_on(page, "meta-training")["panels"][0]["lines"][0]["y"]) == 500


@pytest.mark.slow
def test_a_million_lines_take_ten_seconds_and_twenty_megabytes_at_most(tmp_path):
    path = make_run(tmp_path / "one")
    write_long_metrics(path / "metrics.jsonl", 1_000_000)
    before = time.process_time()
    assert main([str(path)]) == 0
    assert time.process_time() - before < 10
    assert (path / "report.html").stat().st_size < 20e6


def test_two_thousand_metrics_stay_below_twenty_megabytes(tmp_path):
    path = make_run(tmp_path / "one", evaluated=False)
    values = {f"layer_{number}/norm": number + 0.123456789 for number in range(2000)}
    with open(path / "metrics.jsonl", "w") as file:
        for step in range(1, 151):
            file.write(json.dumps({"step": step, "wall_s": step, "examples": step} | values) + "\n")
    before = time.process_time()
    page = report(read_runs([path]))
    assert time.process_time() - before < 10
    assert len(page) < 20e6 and "Thinned: at most 75 evenly spaced points" in page
    assert len(curves_on(page, "meta-training")["panels"]) == 2000


def test_what_was_reached_comes_first_and_meta_training_is_folded(tmp_path):
    page = report(read_runs([make_run(tmp_path / "one")]))
    assert re.findall(r"<h2>(.*?)</h2>", page) == [
        "Accuracy",
        "Learning curves",
        "Runs",
        "Meta-training",
        "Figures",
        "Configurations",
    ]
    assert '<details class="section"><summary><h2>Meta-training</h2>' in page
    unfolded = report(read_runs([make_run(tmp_path / "two", evaluated=False)]))
    assert '<details class="section" open><summary><h2>Meta-training</h2>' in unfolded


def test_learning_curves_have_their_bands_and_chance(tmp_path):
    (run,) = read_runs([make_run(tmp_path / "one")])
    data = curves_on(report([run]), "learning-curves")
    assert [entry["name"] for entry in data["legend"]] == ["<b>run", "SGD"]
    for panel in data["panels"]:
        assert panel["level"] == 0.1 and panel["range"] == [0, 1] and len(panel["lines"]) == 2
    line = data["panels"][0]["lines"][0]
    # One example: the window is it alone.
    first = run.curves["<b>run/digits"][:, 0]
    assert line["y"][0] == pytest.approx(first.mean(), rel=1e-5)
    assert line["half"][0] == pytest.approx(half_width(first), rel=1e-5)


def make_meta_trained(path, seed, accuracy):
    """Write the folder of a run whose own learner reached some accuracy; that of SGD is better."""
    make_run(path, seed, name="meta-trained")
    rows = json.loads((path / "evaluation.json").read_text())
    for row in rows:
        row["accuracy_last"] = 0.99 if row["learner"] == "SGD" else accuracy
    (path / "evaluation.json").write_text(json.dumps(rows))
    return path


def test_runs_are_ranked_by_what_was_meta_trained_with_a_small_figure_each(tmp_path):
    paths = [make_meta_trained(tmp_path / f"run-{seed}", seed, 0.2 * seed) for seed in (1, 3, 2)]
    paths.append(make_run(tmp_path / "begun", 4, evaluated=False))
    page = report(read_runs(paths))
    assert page.index("<h2>Ranking</h2>") < page.index("<h2>Accuracy</h2>")
    (table,) = re.findall(r"<h2>Ranking</h2>.*?<table>(.*?)</table>", page, re.DOTALL)
    head, *rows = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in table.split("</tr>")[:-1]]
    assert head == ["", "run", "figure", "accuracy, last", "loss", "seed"]
    assert [row[1] for row in rows] == ["run-3", "run-2", "run-1", "begun"]
    assert [row[3] for row in rows] == ["0.600", "0.400", "0.200", ""]
    assert [row[5] for row in rows] == ["3", "2", "1", "4"]
    assert "mean over the data sets that all have: digits, mnist" in page


def test_small_figures_are_learning_curves_or_losses(tmp_path):
    begun = [make_run(tmp_path / f"begun-{number}", number, evaluated=False) for number in range(3)]
    page = report(read_runs(begun))
    assert "Ranked by the last loss of meta-training" in page
    assert page.count('<svg class="spark"') == 3
    evaluated = [make_meta_trained(tmp_path / f"run-{seed}", seed, 0.5) for seed in range(2)]
    # A curve for each data set, and chance.
    sparks = re.findall(r'<svg class="spark".*?</svg>', report(read_runs(evaluated)))
    assert [spark.count('<path class="chance"') for spark in sparks] == [1, 1]
    assert [spark.count("<path d=") for spark in sparks] == [2, 2]


def test_of_many_runs_the_best_are_drawn_and_the_page_says_so(tmp_path):
    paths = [make_run(tmp_path / f"run-{number}", number, evaluated=False) for number in range(12)]
    page = report(read_runs(paths))
    assert "The curves are those of the best 10 of 12 runs." in page
    assert len(curves_on(page, "meta-training")["legend"]) == 10


def test_metrics_that_were_asked_for_are_on_the_page(tmp_path):
    run = RunDirectory(tmp_path / "one")
    run.start(dump(load_config()), {})
    score = np.ones((2, 10))
    write_results(run, [Evaluation("a", "b", 0.1, score, score, others={"brier": Measured(0.25 * score)})])
    head, row = cells(report(read_runs([run.path])), "Accuracy")
    assert dict(zip(head, row, strict=True))["brier, last"] == "0.250 ± 0.000"


def boxes(browser, selector):
    """Return left, top, right and bottom of all elements."""
    code = """return [...document.querySelectorAll(arguments[0])].map(each => {
        const box = each.getBoundingClientRect(); return [box.left, box.top, box.right, box.bottom]; })"""
    return browser.execute_script(code, selector)


@pytest.mark.browser
def test_a_browser_shows_every_curve_and_says_what_is_under_the_pointer(tmp_path):
    runs = [make_run(tmp_path / "one"), make_run(tmp_path / "two", seed=1)]
    main([*map(str, runs), "--output", str(tmp_path / "page.html")])
    with open_browser(tmp_path) as browser:
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.by import By
        from selenium.webdriver.support.select import Select
        from selenium.webdriver.support.wait import WebDriverWait

        browser.get((tmp_path / "page.html").as_uri())
        wait = WebDriverWait(browser, 30)

        def find(selector):
            return browser.find_elements(By.CSS_SELECTOR, selector)

        assert not find("#meta-training .scatterlayer"), "folded, and drawn when it is opened"
        find("details.section summary")[0].click()
        # Two panels each; learning curves are a line and two edges of a band for each of four.
        for name, count in (("learning-curves", 2 * 4 * 3), ("meta-training", 2 * 2)):
            wait.until(lambda _, n=name, c=count: len(find(f"#{n} .scatterlayer .trace")) == c)
        assert all(path.get_attribute("d") for path in find("#meta-training .scatterlayer .js-line"))
        assert len(find("#learning-curves .scatterlayer .js-fill")) == 8
        assert len(find("#learning-curves .shapelayer path")) == 2, "chance, in each panel"
        ActionChains(browser).move_to_element(find("#meta-training .nsewdrag")[0]).perform()
        wait.until(
            lambda _: (
                "one"
                in "".join(e.get_attribute("textContent") for e in find("#meta-training .hoverlayer text"))
            )
        )
        # The toolbar is shown now, and lies over no legend.
        ((left, top, right, bottom), *_) = boxes(browser, "#meta-training .modebar")
        for other_left, other_top, other_right, other_bottom in boxes(browser, ".legend button, h3"):
            apart = right <= other_left or other_right <= left or bottom <= other_top or other_bottom <= top
            assert apart
        positions = "return document.querySelector('#meta-training .plot').data[0].x"
        assert browser.execute_script(positions) == [1, 2, 3, 4]
        Select(find("#meta-training select")[0]).select_by_visible_text("minutes")
        wait.until(lambda _: browser.execute_script(positions) == [0.5, 1, 1.5, 2])
        find("#meta-training .legend button")[0].click()
        wait.until(lambda _: len(find("#meta-training .scatterlayer .trace")) == 2)
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.browser
def test_on_a_phone_there_is_one_column_and_in_the_dark_the_page_is_dark(tmp_path):
    path = make_run(tmp_path / "one")
    main([str(path)])
    for width, dark, columns in ((390, True, 1), (1200, False, 2)):
        with open_browser(tmp_path, width=width, dark=dark) as browser:
            from selenium.webdriver.support.wait import WebDriverWait

            browser.get((path / "report.html").as_uri())
            WebDriverWait(browser, 30).until(lambda _, b=browser: len(boxes(b, ".main-svg")) >= 2)
            assert len({left for left, *_ in boxes(browser, "#learning-curves .panel")}) == columns
            assert all(right <= width for _, _, right, _ in boxes(browser, "#learning-curves .main-svg"))
            scrolled = "return document.documentElement.scrollWidth"
            assert browser.execute_script(scrolled) <= width
            colours = """const style = getComputedStyle(document.body);
                const text = document.querySelector("#learning-curves .xtick text");
                return [style.backgroundColor, style.color, getComputedStyle(text).fill]"""
            light = [
                sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in browser.execute_script(colours)
            ]
            assert [value < 300 for value in light] == ([True, False, False] if dark else [False, True, True])
