"""Runs as points of laws: read as they are, put together, kept on file, planned with."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from vsml.config.files import dump
from vsml.launching.laws import main
from vsml.launching.schema import call_of, load_config
from vsml.laws.bootstrap import measure_law
from vsml.laws.files import SHIPPED, law_files, read_law, write_law
from vsml.laws.forms import POWER
from vsml.laws.plan import configuration, contradictions, flops_per_s, options, sizes_of
from vsml.laws.prediction import predicted_lines
from vsml.laws.runs import META_TRAINING, differing, families, read_points, what_matters
from vsml.laws.summary import lines, summarise
from vsml.laws.variables import variables_of
from vsml.setup import Setup

BASE = "configs/laws/base.yaml"
STEPS = (8, 16, 32, 64, 128, 256)
STEP_S = 0.25


def read_setup(path):
    return Setup(load_config([path], default=None))


def planted(steps, state):
    return 0.5 + 3 * steps**-0.5 + 0.02 * 12 / state


def make_run(folder, steps, seed, state=12, loss=None, evaluations=(), more=()):
    """Write what a run leaves behind, with the loss of a planted law."""
    overrides = [f"training.iterations={steps}", f"seed={seed}", f"model.vsml.synapse.state_size={state}"]
    overrides += more
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(load_config([BASE], overrides)))
    rows = []
    for step in (max(1, steps // 2), steps):
        # What comes before the first line is compiling, which no law is about.
        wall_s = 40 + STEP_S * step
        row = {
            "step": step,
            "wall_s": wall_s,
            "examples": 400 * step,
            "meta_loss": 2.0 if step < steps else 1.5,
        }
        if step in evaluations:
            row["eval/digits/loss"] = planted(step, state)
        rows.append(json.dumps(row))
    (folder / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    luck = np.exp(0.004 * np.random.default_rng([steps, seed, state]).normal())
    value = float(planted(steps, state) * luck) if loss is None else loss
    own = {"learner": "meta-trained", "dataset": "digits", "loss": value}
    start = {"learner": "start: gradient descent", "dataset": "digits", "loss": 9.0}
    (folder / "evaluation.json").write_text(json.dumps([own, start]))
    (folder / "complete").touch()
    return folder


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    runs = []
    for state in (12, 24):
        for steps in STEPS:
            runs += [make_run(folder / f"{state}-{steps}-{seed}", steps, seed, state) for seed in range(3)]
    return runs


@pytest.fixture(scope="module")
def points(grid):
    return read_points(grid, read_setup)


def test_a_run_says_its_sizes_its_losses_and_what_it_cost(points):
    first, last = points[0], points[-1]
    assert first.sizes["meta_steps"] == 8 and first.sizes["state_size"] == 12
    assert first.sizes["examples"] == 3200 and first.sizes["population"] == 4
    assert "tasks" not in first.sizes, "there is no limit to tasks here"
    assert first.losses[META_TRAINING] == 1.5
    assert first.losses["digits"] == pytest.approx(planted(8, 12), rel=0.02), "not that of its start"
    assert first.step_s == pytest.approx(STEP_S), "without compiling"
    assert first.sizes["seconds"] == pytest.approx(8 * STEP_S)
    assert first.sizes["flops"] == 8 * first.step_flops
    # Matrix products of states grow with their square.
    assert 3 < last.step_flops / first.step_flops < 4


def test_runs_that_differ_in_more_make_laws_of_their_own(points):
    found = families(points, variables_of(["meta_steps"]))
    assert [len(family.points) for family in found] == [18, 18]
    assert differing(found) == ["model.vsml.synapse.state_size=12", "model.vsml.synapse.state_size=24"]
    (together,) = families(points, variables_of(["state_size", "meta_steps"]))
    assert len(together.points) == 36 and together.loss == "digits"


@pytest.mark.slow
def test_a_planted_law_is_found_in_runs(points):
    family = families(points, variables_of(["meta_steps"]))[0]
    summary = summarise(family, "power", resamples=200)
    (exponent,) = summary.law.exponents()
    assert 0.5 in exponent.interval and not exponent.refusal
    assert summary.extrapolation.factor == 8 and np.abs(summary.extrapolation.errors).mean() < 0.1
    text = "\n".join(lines(summary))
    assert "18 points of 18 runs: meta-steps 8 to 256; loss: digits" in text
    assert "held out at 8 times what was fitted" in text and "a (meta_steps) = 0.5" in text


def test_evaluations_on_the_way_are_points_of_the_same_run(tmp_path):
    folder = make_run(tmp_path / "run", 64, 0, evaluations=(32,))
    (point,) = read_points([folder], read_setup)
    middle, end = read_points([folder], read_setup, on_the_way=True)
    assert (middle.sizes["meta_steps"], end.sizes["meta_steps"]) == (32, 64)
    assert middle.run == end.run == point.run and middle.losses["digits"] == planted(32, 12)
    (family,) = families([middle, end], variables_of(["meta_steps"]))
    assert len(family.points.run_names) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: (run / "complete").unlink(), "expected a run that is complete"),
        (lambda run: (run / "metrics.jsonl").write_text(""), "got no line"),
        (lambda run: (run / "metrics.jsonl").write_text("{}\n"), "line 1"),
        (lambda run: (run / "evaluation.json").write_text("[1]"), "evaluation.json, row 1"),
        (lambda run: (run / "config.yaml").unlink(), "without config.yaml"),
    ],
)
def test_runs_that_say_nothing_are_refused_with_their_place(tmp_path, change, message):
    run = make_run(tmp_path / "run", 16, 0)
    change(run)
    with pytest.raises(ValueError, match=message):
        read_points([run], read_setup)


def test_sizes_and_losses_that_are_not_there_are_refused(points):
    with pytest.raises(ValueError, match="got width, expected some of meta_steps"):
        variables_of(["width"])
    with pytest.raises(ValueError, match="sizes that have settings of their own"):
        variables_of(["meta_steps", "flops"])
    with pytest.raises(ValueError, match="got none that has tasks"):
        families(points, variables_of(["tasks"]))
    with pytest.raises(ValueError, match="expected one of mnist"):
        families(points, variables_of(["meta_steps"]), "mnist")
    with pytest.raises(ValueError, match="form: got line"):
        summarise(families(points, variables_of(["meta_steps"]))[0], "line")


def test_a_file_keeps_the_points_and_no_path_of_this_machine(points, tmp_path):
    family = families(points, variables_of(["meta_steps"]))[0]
    path = tmp_path / "law.json"
    write_law(path, family)
    again = read_law(path)
    assert str(tmp_path.parent) not in path.read_text()
    assert (again.points.x == family.points.x).all() and (again.points.loss == family.points.loss).all()
    assert len(again.points.run_names) == 18 and again.training == family.training
    ours, theirs = (measure_law(POWER, each.points, 50) for each in (family, again))
    assert theirs.law.shape == pytest.approx(ours.law.shape)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected a file that `vsml laws fit` has written"),
        ('{"version": 7}', "got version 7, expected 1"),
        ('{"version": 1, "variables": ["meta_steps"]}', "got something without"),
        ("{", "expected a file"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, text, message):
    path = tmp_path / "law.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_law(path)


def test_a_plan_spends_the_time_and_runs(points, tmp_path):
    (family,) = families(points, variables_of(["state_size", "meta_steps"]))
    summary = summarise(family, resamples=100)
    assert flops_per_s(family) == pytest.approx(np.median(family.step_flops) / STEP_S, rel=1)
    small, large = options(summary, seconds=600.0)
    assert small.prediction.law.value <= large.prediction.law.value
    for option in (small, large):
        assert 0.9 * 600 < option.seconds <= 600
    steps = {option.settings["model.vsml.synapse.state_size"]: option.steps for option in (small, large)}
    assert 3 < steps[12] / steps[24] < 4, "a larger state leaves fewer meta-steps"
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(configuration(small)))
    config = load_config([path])
    assert config.training.iterations == small.steps
    asked = load_config([BASE], [f"{key}={value}" for key, value in small.settings.items()])
    assert what_matters(Setup(config)) == what_matters(Setup(asked))


def test_a_plan_says_where_another_law_contradicts_it(points):
    (family,) = families(points, variables_of(["state_size", "meta_steps"]))
    of_steps = families(points, variables_of(["meta_steps"]))
    summaries = {Path("both.json"): summarise(family, resamples=50)}
    for number, each in enumerate(of_steps):
        summaries[Path(f"steps-{number}.json")] = summarise(each, "power", resamples=50)
    best = options(summaries[Path("both.json")], seconds=600.0)[0]
    assert contradictions(best, summaries) == [], "all are of the same planted law"
    # A law of the same settings, by which losses are twice as high.
    higher = replace(of_steps[0], points=replace(of_steps[0].points, loss=2 * of_steps[0].points.loss))
    summaries[Path("other.json")] = summarise(higher, "power", resamples=50)
    (told,) = contradictions(best, summaries)
    assert "another law says otherwise" in told and "other.json" in told


@pytest.mark.slow
def test_a_plan_that_cannot_be_made_says_why(points):
    family = families(points, variables_of(["meta_steps"]))[0]
    summary = summarise(family, "power", resamples=50)
    with pytest.raises(ValueError, match="at least one meta-step"):
        options(summary, 1e-6)
    of_states = families(points, variables_of(["state_size"]))
    assert len(of_states) == len(STEPS), "two sizes are no law"


def test_a_law_applies_to_runs_that_differ_in_its_sizes_alone(points):
    family = families(points, variables_of(["meta_steps"]))[0]

    def asked(*overrides):
        training, _ = what_matters(Setup(load_config([BASE], list(overrides))))
        return sizes_of(training, family)

    assert asked("training.iterations=999") == np.array([999])
    assert asked("seed=7", "checkpoint.frequency=3", "evaluation.count=1") is not None
    assert asked("optimizer.clip_gradnorm=2") is None
    assert asked("model.vsml.synapse.state_size=24") is None
    assert asked("training.dataset=mnist") is None


def test_the_dry_run_prints_the_prediction_of_a_law_that_ships():
    shipped = [path for path in law_files([SHIPPED]) if "meta_steps" in path.name]
    assert shipped, "laws that were measured here come with the library"
    setup = Setup(load_config([BASE], ["training.iterations=512"]))
    (line,) = predicted_lines(setup, shipped)
    assert line.startswith("predicted: loss on digits 0.8") and "2 times beyond what was measured" in line
    assert line in call_of(setup.config).plan(setup, 1)
    assert not predicted_lines(Setup(load_config()), shipped)


def test_a_damaged_law_ends_no_dry_run(tmp_path):
    path = tmp_path / "law.json"
    path.write_text("{")
    (line,) = predicted_lines(Setup(load_config([BASE])), [path])
    assert line.startswith("no prediction: ")


@pytest.mark.slow
def test_the_command_goes_from_runs_to_a_configuration_that_runs(grid, tmp_path, capsys, monkeypatch):
    runs = [str(run) for run in grid[:18]]
    out = tmp_path / "laws"
    assert main(["fit", *runs, "--x", "meta_steps", "--out", str(out)]) == 0
    assert (out / "meta_steps.png").stat().st_size > 5000
    plan = tmp_path / "plan.yaml"
    words = ["plan", str(out / "meta_steps.json"), "--core_hours", "2", "--write", str(plan)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "AICc" in printed and "a guess: 112 times as many meta-steps" in printed
    config = load_config([plan])
    assert config.training.iterations == pytest.approx(2 * 3600 / STEP_S, rel=0.01)
    assert main(["report", *runs, "--out", str(tmp_path / "page")]) == 0
    page = (tmp_path / "page" / "laws.md").read_text()
    for size in ("meta_steps", "examples", "flops", "seconds"):
        assert f"## {size}" in page and (tmp_path / "page" / f"{size}.png").exists()


def of_tasks(folder, count):
    """Write two runs of the same length with so many tasks."""
    made = []
    for seed in range(2):
        more = [f"data.num_tasks={count}"]
        run = make_run(folder / f"{count}-{seed}", 8, seed, loss=2 - count / 100, evaluations=(4,), more=more)
        made.append(run)
    return [str(run) for run in made]


@pytest.mark.slow
def test_a_page_tells_seconds_only_where_runs_differ_in_cost_and_tasks_beside_meta_training(tmp_path):
    runs = [run for count in (1, 4, 16) for run in of_tasks(tmp_path / "runs", count)]
    assert main(["report", *runs, "--out", str(tmp_path / "page")]) == 0
    page = (tmp_path / "page" / "laws.md").read_text()
    assert "## tasks" in page and "distinct tasks 1 to 16;" in page
    assert "## seconds" not in page and "## flops" not in page
    drawn = []
    for words in ([], ["--beside", "meta-training"]):
        out = tmp_path / f"fit {len(words)}"
        assert main(["fit", *runs, "--x", "tasks", "--out", str(out), *words]) == 0
        drawn.append((out / "tasks.png").read_bytes())
    plain, beside = drawn
    assert plain != beside, "no ring was drawn"
    # Evaluations in the course of runs have no loss of meta-training.
    words = ["report", *runs, "--on_the_way", "--out", str(tmp_path / "more")]
    assert main(words) == 0 and (tmp_path / "more" / "tasks.png").exists()


def test_rings_need_a_loss_that_is_there_and_one_size(grid, tmp_path, capsys):
    words = ["fit", *map(str, grid[:18]), "--out", str(tmp_path), "--x", "meta_steps"]
    assert main([*words, "--beside", "nothing"]) == 2
    assert "beside: got nothing, expected one of digits, meta-training" in capsys.readouterr().err
    assert main([*words, "state_size", "--beside", "meta-training"]) == 2
    assert "beside: got 2 sizes, expected one" in capsys.readouterr().err


def test_a_page_needs_no_measured_seconds(tmp_path):
    runs = []
    for steps in (8, 32, 128):
        runs.append(str(make_run(tmp_path / f"{steps}", steps, 0)))
        (line, *_) = (tmp_path / f"{steps}" / "metrics.jsonl").read_text().splitlines()[-1:]
        (tmp_path / f"{steps}" / "metrics.jsonl").write_text(line + "\n")
    assert main(["report", *runs, "--out", str(tmp_path / "page")]) == 0
    page = (tmp_path / "page" / "laws.md").read_text()
    assert "## flops" in page and "## seconds" not in page


def test_mistakes_of_the_command_are_told_on_a_line(tmp_path, capsys):
    assert main(["fit", str(tmp_path), "--x", "meta_steps"]) == 2
    assert "expected the directory of a run" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["plan", "--core_hours", "0"])
