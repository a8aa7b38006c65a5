"""The benchmark of the synapses: what it measures and says; never how fast anything is."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from rates import RATES

from benchmarks import after_examples, figure, graphs, on_gpu, plain, price, synapses
from benchmarks.cases import CONV, Case, cases
from benchmarks.contestants import FLAX, ORACLE, ROUNDING, build, contestants, make_learner
from benchmarks.report import Result, rows_of
from vsml.cost import roofline
from vsml.learners import config_type, run_episode
from vsml.learners import make_learner as make_any_learner
from vsml.runs.directory import RunDirectory
from vsml.types import Episode

pytestmark = pytest.mark.usefixtures("hasty")

TINY = Case("base", "forward", inputs=4, members=2, episode_length=3)
AXES = ("inputs", "depth", "convolution", "population", "episode", "memory")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VSML_CACHE_DIR", str(tmp_path / "cache"))


def store_rates():
    roofline.save(dataclasses.replace(RATES, machine=roofline.machine_name(), tanh_per_s=1e12))


def test_one_axis_is_varied_at_a_time_and_no_point_twice():
    base = Case("base", "forward")
    found = cases(base, AXES)
    assert [case.what for case in found if case.axis == "base"] == ["forward", "gradient"]
    points = [dataclasses.replace(case, axis="base") for case in found]
    assert len(set(points)) == len(points)
    varied = {
        "inputs": {"inputs"},
        "depth": {"hidden"},
        "convolution": {"inputs", "hidden"},
        "population": {"members"},
        "episode": {"episode_length"},
        "memory": {"episode_length", "segmented", "timed"},
    }
    for case in found:
        changed = {
            field.name
            for field in dataclasses.fields(Case)
            if getattr(case, field.name) != getattr(base, field.name) and field.name not in ("axis", "what")
        }
        assert changed <= varied.get(case.axis, set()), case


def test_the_points_asked_for_are_there():
    found = cases(Case("base", "forward"), AXES)
    assert {case.inputs for case in found if case.axis in ("base", "inputs")} == {64, 196, 784, 3072}
    assert {case.members for case in found} >= {1, 4096}
    assert {case.episode_length for case in found} >= {10, 2000}
    memory = [case for case in found if case.axis == "memory"]
    assert [(case.what, case.segmented) for case in memory] == [("gradient", True), ("gradient", False)]


def test_members_come_in_pairs_forward_and_alone_for_a_gradient():
    assert [Case("base", "forward", members=members).members_of_unit for members in (1, 2, 4)] == [1, 2, 2]
    assert Case("base", "gradient", members=4).members_of_unit == 1


def test_the_oracle_and_flax_are_contestants_everywhere():
    assert contestants()[-2:] == (ORACLE, FLAX)
    assert "tiled" in contestants() and "auto" not in contestants()


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [(), (5,)])
def test_flax_cells_are_wired_as_the_network_of_this_library(hidden):
    """What an answer depends on is the same, and so is what there is to do."""
    case = Case("base", "forward", inputs=4, hidden=hidden)
    key = jax.random.key(0)
    labels = np.zeros((4, 1), np.int32)

    def reach(name):
        learner = make_learner(case, name)
        params = learner.init_params(key)

        def logits(x):
            return run_episode(learner, params, key, Episode(x=x, y=labels, weight=np.ones((4, 1))))

        x = jax.random.normal(key, (4, 1, 4))
        slopes = jax.jit(jax.jacobian(logits))(x)
        assert np.isfinite(slopes).all()
        return np.abs(slopes).sum((1, 2, 4)) > 0  # [T of the answer, T of the input, I]

    np.testing.assert_array_equal(reach(FLAX), reach("tiled"))
    sizes = [
        sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(make_learner(case, name).init_params, key)))
        for name in (FLAX, "tiled")
    ]
    assert sizes == [2384, 2384]


def test_flax_cells_form_no_convolutions():
    assert make_learner(dataclasses.replace(TINY, hidden=(CONV,)), FLAX) is None


@pytest.mark.slow
def test_contestants_of_this_library_do_the_same():
    case = dataclasses.replace(TINY, what="gradient")
    first, *others = (name for name in contestants() if name not in (FLAX, ROUNDING))

    def outcome(name):
        program = build(case, make_learner(case, name))
        assert program.memory_bytes > 0
        return jax.tree.leaves(program.compiled(*program.draw()))

    expected = outcome(first)
    for other in others:
        for one, two in zip(expected, outcome(other), strict=True):
            np.testing.assert_allclose(one, two, atol=1e-4)


@pytest.mark.slow
def test_a_result_is_written_with_all_that_can_be_said(tmp_path, capsys):
    store_rates()
    path = tmp_path / "result.json"
    arguments = ["--axes", "base", "--inputs", "4", "--episode_length", "3", "--members", "2"]
    names = ["tiled", ORACLE, FLAX]
    arguments += ["--contestants", *names, "--repetitions", "1", "--json", str(path)]
    synapses.main(arguments)
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)
    record = json.loads(path.read_text())
    assert {"date", "machine", "versions", "git", "roofline", "settings", "results"} <= set(record)
    assert len(record["results"]) == 2 * len(names)
    for row in record["results"]:
        assert row["examples_per_s"] > 0 and row["memory_bytes"] > 0
        assert row["of_roofline"] == pytest.approx(row["examples_per_s"] * row["least_s_of_example"])
        assert row["bottleneck"]
        if row["contestant"] == ORACLE:
            assert row["of_oracle"] == row["memory_saving"] == 1
    assert str(tmp_path.home()) not in path.read_text()


@pytest.mark.slow
def test_plain_code_is_timed_beside_the_reference_and_computes_the_same(tmp_path, capsys):
    path = tmp_path / "plain.json"
    sizes = ["--inputs", "4", "--members", "1", "--episode_length", "3", "--repetitions", "1"]
    plain.main([*sizes, "--json", str(path)])
    rows = json.loads(path.read_text())["results"]
    assert [(row["what"], row["way"]) for row in rows] == [
        (what, way) for what in ("forward", "gradient") for way in ("reference", "arrays", "split")
    ]
    assert all(row["examples_s"] > 0 for row in rows)
    assert str(path) in capsys.readouterr().out.replace("\n", "")


@pytest.mark.slow
def test_without_rates_it_says_how_to_measure_them(tmp_path, capsys):
    arguments = ["--axes", "base", "--inputs", "2", "--episode_length", "2", "--members", "1"]
    only = ["--contestants", "tiled", "--repetitions", "1"]
    synapses.main([*arguments, *only, "--json", str(tmp_path / "result.json")])
    assert "make roofline measures them" in capsys.readouterr().out
    (row, _) = json.loads((tmp_path / "result.json").read_text())["results"]
    assert row["of_roofline"] is None and row["of_oracle"] is None


def test_what_would_take_too_long_is_left_out():
    (result,) = synapses.measure(TINY, ["tiled"], 1, most_s=1.0, pace={("forward", "tiled"): 1.0})
    assert result.examples_per_s is None and result.memory_bytes is None
    assert re.fullmatch(r"left out: a run would take about \d+ s", result.note)


def test_what_does_not_fit_is_not_run(monkeypatch):
    monkeypatch.setattr(synapses, "free_bytes", lambda: 1.0)
    (result,) = synapses.measure(TINY, ["tiled"], 1, most_s=1.0, pace={})
    assert result.examples_per_s is None and result.memory_bytes > 0
    assert result.note.startswith("not run: it needs ")


def test_what_is_only_compiled_is_not_run():
    compiled = dataclasses.replace(TINY, what="gradient", axis="memory", timed=False)
    (result,) = synapses.measure(compiled, ["tiled"], 1, most_s=1.0, pace={})
    assert result.examples_per_s is None and result.memory_bytes > 0 and not result.note


@pytest.mark.parametrize("name", ["inputs", "members", "episode_length", "repetitions", "most_s"])
def test_numbers_have_to_be_positive(name, capsys):
    with pytest.raises(SystemExit):
        synapses.main([f"--{name}", "0"])
    assert f"--{name}: got 0" in capsys.readouterr().err


@pytest.mark.slow
def test_a_figure_has_a_column_for_each_axis_that_varies(tmp_path):
    results = []
    for case in cases(Case("base", "forward"), ("inputs", "population", "memory")):
        speed = 1e3 if case.timed else None
        results += [Result(case, name, speed, 2**20) for name in ("tiled", ORACLE)]
    record = {
        "machine": {"name": "A Processor x 2"},
        "date": "2020-01-01",
        "results": rows_of(results, RATES),
    }
    drawn = figure.draw(record)
    labels = [panel.get_xlabel() for panel in drawn.axes]
    assert labels == ["", "", "inputs of one layer", "members at once"]
    upper = drawn.axes[0]
    assert sorted(upper.lines[0].get_xdata()) == [64, 196, 784, 3072]
    assert set(upper.lines[0].get_ydata()) == {1e3}  # microseconds
    path = tmp_path / "result.json"
    path.write_text(json.dumps(record))
    figure.main([str(path), "--output", str(tmp_path / "figure.png")])
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_a_figure_of_nothing_is_refused(tmp_path, capsys):
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"results": []}))
    with pytest.raises(SystemExit):
        figure.main([str(path)])
    assert (
        "expected a result in which one of inputs, depth, population, episode varies"
        in capsys.readouterr().err
    )


def test_graphs_that_are_measured_have_as_many_edges_as_they_say():
    for edges in (100, 1000, 10000):
        assert graphs.graph_of(edges).num_edges == edges


def test_the_cost_of_an_edge_stands_beside_that_on_the_smallest_graph():
    found = [
        graphs.Measured(edges, name, speed)
        for edges, name, speed in ((100, "a", 1e4), (100, "b", 1e5), (1000, "a", 2e3), (1000, "b", 5e3))
    ]
    rows = graphs.rows_of(found)
    assert [row["edge_ns"] for row in rows] == pytest.approx([1000, 100, 500, 200])
    assert [row["of_smallest"] for row in rows] == pytest.approx([1, 1, 0.5, 2])


@pytest.mark.slow
def test_ticks_of_rules_and_synapses_are_measured_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(graphs, "SIZES", {6: (1, 2, 2)})
    monkeypatch.setattr(graphs, "MIN_TICKS", 2)
    path = tmp_path / "result.json"
    graphs.main(["--rule", "delta", "--updates", "6", "--repetitions", "1", "--json", str(path)])
    record = json.loads(path.read_text())
    rows = record["results"]
    assert {row["contestant"] for row in rows} == {graphs.INTERPRETER, graphs.COMPILED, graphs.SYNAPSES}
    assert all(row["ticks_per_s"] > 0 and row["edges"] == 6 for row in rows)
    assert record["settings"]["rule"] == "delta" and "compiled rule" in capsys.readouterr().out


@pytest.mark.slow
def test_an_accelerator_is_measured_in_one_call_and_each_part_says_what_came_of_it(tmp_path, capsys):
    store_rates()
    path = tmp_path / "result.json"
    parts = ["kernel", "parity", "roofline", "speed", "populations"]
    on_gpu.main(["--small", "--parts", *parts, "--json", str(path)])
    record = json.loads(path.read_text())
    rows = {part: [row for row in record["results"] if row["part"] == part] for part in record["parts"]}
    (visit,) = rows["kernel"]
    assert visit["error"] < 1e-5
    for row in rows["parity"]:
        # Products of bfloat16 have 8 bits.
        most = 1e-2 if row["kernel"] == "native_bfloat16" else 1e-4
        assert row["answers"] < most and row["gradient"] < most, row
    assert {row["what"] for row in rows["speed"]} == {"forward", "gradient"}
    assert [row["members"] for row in rows["populations"]] == list(on_gpu.SMALL.populations)
    assert all(row["examples_per_s"] > 0 for part in ("speed", "populations") for row in rows[part])
    assert all(entry["note"] == "" for entry in record["parts"].values())


def test_a_part_that_fails_or_comes_too_late_leaves_the_others(tmp_path, monkeypatch):
    def broken(sizes):
        yield {"before": 1}
        raise ValueError("no such kernel\nand more")

    monkeypatch.setitem(on_gpu.PARTS, "parity", broken)
    monkeypatch.setitem(on_gpu.PARTS, "speed", lambda sizes: iter([{"speed": 2}]))
    path = tmp_path / "result.json"
    found = on_gpu.run(["parity", "speed"], on_gpu.SMALL, 60.0, path)
    assert found["parity"]["note"] == "failed: ValueError: no such kernel"
    rows = json.loads(path.read_text())["results"]
    assert rows == [{"part": "parity", "before": 1}, {"part": "speed", "speed": 2}]
    late = on_gpu.run(["speed", "parity"], on_gpu.SMALL, 1e-9, path)
    assert "were over" in late["speed"]["note"] and late["parity"]["note"].startswith("not begun")


# Unseen images after some examples, and the price of a result.


def test_streams_are_measured_by_right_answers_loss_and_confidence():
    logits = np.log([[[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]]])
    found = after_examples.measures(logits, np.array([[0, 2]]))
    assert found["accuracy"] == [0.5]
    assert found["nll"] == [pytest.approx(-np.log([0.5, 0.1]).mean(), abs=1e-5)]
    assert found["confidence"] == [pytest.approx(0.65, abs=1e-5)]


def test_contestants_are_compared_stream_by_stream():
    met = {
        "one": {"accuracy": [0.5, 0.7, 0.6], "nll": [1.0] * 3, "confidence": [0.9] * 3},
        "other": {"accuracy": [0.6, 0.8, 0.7], "nll": [1.0] * 3, "confidence": [0.9] * 3},
    }
    results = {"data_sets": {"first": met, "second": {"one": met["one"]}}}
    one, other = after_examples.table(results, "one").rows
    assert one[0] == "one" and one[1] == one[2] and "(" not in one[1]
    assert other[1].startswith("70.0") and other[1].endswith("(+10.00 ± 0.00)") and other[2] == ""


def test_a_contestant_is_a_name_and_a_source():
    assert after_examples.Contestant.read("a b=kernel_ridge@x.yaml").source == "kernel_ridge@x.yaml"
    with pytest.raises(SystemExit, match="got 'kernel_ridge', expected NAME=SOURCE"):
        after_examples.Contestant.read("kernel_ridge")


@pytest.mark.slow
def test_references_answer_what_a_learner_of_the_library_does():
    shape, shown = (4,), 12
    random = np.random.default_rng(0)
    streams = Episode(
        x=random.normal(size=(1, 15, 1, *shape)).astype(np.float32),
        y=random.integers(0, 10, (1, 15, 1)).astype(np.int32),
        weight=np.ones((1, 15, 1), np.float32),
    )
    got = after_examples.Contestant("", "kernel_ridge").answers(shape, shown)(streams)
    learner = make_any_learner("kernel_ridge", config_type("kernel_ridge")(buffer=shown), shape, 10)
    state = learner.init_state({}, jax.random.key(0))
    for x, y in zip(streams.x[0, :shown], streams.y[0, :shown], strict=True):
        state, _ = learner.step({}, state, x, y)
    np.testing.assert_allclose(got[0], learner.predict({}, state, streams.x[0, shown:, 0]), atol=1e-4)


def test_a_run_that_has_not_begun_has_cost_nothing(tmp_path):
    assert price.spent(RunDirectory(tmp_path)) == {0: (0.0, 0)}


def test_the_price_is_that_of_the_first_checkpoint_that_reaches_a_level():
    by_step = {
        "25": {"minutes": 1.5, "examples": 40_000, "accuracy": 0.79},
        "0": {"minutes": 0.0, "examples": 0, "accuracy": 0.7},
        "100": {"minutes": 6.0, "examples": 160_000, "accuracy": 0.81},
    }
    assert price.first_at(by_step, 0.75) == "1.5 min, 40,000 (step 25)"
    assert price.first_at(by_step, 0.8) == "6.0 min, 160,000 (step 100)"
    assert price.first_at(by_step, 0.9) == "never"
