"""The page about runs: what it says, what it refuses, and how a browser shows it."""

import base64
import json
import os
import re
import shutil

import numpy as np
import pytest
from debian import need

from vsml.calls.evaluate import Evaluation, write_results
from vsml.config.files import dump
from vsml.launching.schema import load_config
from vsml.report import main, read_runs, report
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
        assert re.search(rf"run: {name}\.png: left out: [^<]*got {kind}", page)


@pytest.mark.parametrize("name", ["config.yaml", "environment.json", "metrics.jsonl", "evaluation.npz"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_no_file_from_outside_of_the_folder_is_read(tmp_path, capsys, name, kind):
    folder = make_run(tmp_path / "run")
    file = folder / name
    file.rename(tmp_path / name)
    os.mkfifo(file) if kind == "pipe" else file.symlink_to(tmp_path / name)
    assert main([str(folder)]) == 2
    assert f"{file}: got a {kind}" in capsys.readouterr().err


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
    (run / "evaluation.json").write_text("{")
    assert main([str(run)]) == 2
    assert "evaluation.json: got a damaged file" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists() and not (run / "report.html").exists()


@pytest.mark.browser
def test_a_browser_shows_every_curve_and_says_what_is_under_the_pointer(tmp_path):
    need({"chromium": "chromium", "chromedriver": "chromium-driver"})
    from selenium import webdriver
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    runs = [make_run(tmp_path / "one"), make_run(tmp_path / "two", seed=1)]
    main([*map(str, runs), "--output", str(tmp_path / "page.html")])
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,1600"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"), env=os.environ | {"HOME": str(tmp_path)})
    with webdriver.Chrome(options, service) as browser:
        browser.set_network_conditions(offline=True, latency=0, throughput=0)
        browser.get((tmp_path / "page.html").as_uri())
        wait = WebDriverWait(browser, 30)

        def find(selector):
            return browser.find_elements(By.CSS_SELECTOR, selector)

        for name, count in (("meta-training", 2 * 2), ("learning-curves", 2 * 2 * 2)):
            wait.until(lambda _, n=name, c=count: len(find(f"#{n} .scatterlayer .trace")) == c)
            assert all(path.get_attribute("d") for path in find(f"#{name} .scatterlayer .js-line"))
        ActionChains(browser).move_to_element(find("#meta-training .nsewdrag")[0]).perform()
        wait.until(
            lambda _: (
                "one"
                in "".join(e.get_attribute("textContent") for e in find("#meta-training .hoverlayer text"))
            )
        )
        positions = "return document.getElementById('meta-training').data[0].x"
        assert browser.execute_script(positions) == [1, 2, 3, 4]
        find("#meta-training .updatemenu-header")[0].click()
        wait.until(lambda _: len(find("#meta-training .updatemenu-dropdown-button")) == 3)
        find("#meta-training .updatemenu-dropdown-button")[2].click()
        wait.until(lambda _: browser.execute_script(positions) == [0.5, 1, 1.5, 2])
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
