"""The examples, run as a user would but at tiny sizes, and the notebook's cells without Jupyter."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vsml

EXAMPLES = Path(__file__).parents[1] / "examples"

pytestmark = pytest.mark.slow


def run(script, *arguments, folder, code=None, **variables):
    """Run an example in a process of its own, where there are only built-in data; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", script, *arguments],
        cwd=folder,
        env=os.environ | {"VSML_DATA_DIR": str(folder), "PYTHONIOENCODING": "utf-8", **variables},
        input=code,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_algorithm_that_was_meta_trained_and_saved_is_loaded_again(tmp_path):
    file = tmp_path / "new" / "mine.safetensors"
    printed = run(EXAMPLES / "meta_train.py", "--steps=3", "--examples=8", f"--file={file}", folder=tmp_path)
    losses = re.search(r"loss in nats: (\S+) at first, (\S+) over", printed)
    assert all(2.0 < float(loss) < 2.6 for loss in losses.groups())  # untrained: chance is 2.303
    assert 0 <= float(re.search(r"accuracy on digits 398 to 497: (\S+);", printed)[1]) < 0.4
    assert vsml.load_learner(str(file), input_shape=(3,), num_classes=2).learner.config.feed_label


def interrupted(script, *arguments, folder, after):
    """Run an example, and press Ctrl-C once it has printed a text; return all that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-u", script, *arguments],
        cwd=folder,
        env=os.environ | {"VSML_DATA_DIR": str(folder), "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # In a shell's background it is ignored, here and in what is started from here.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    printed = []
    for line in process.stdout:
        printed.append(line)
        if after in line:
            process.send_signal(signal.SIGINT)
            after = "nothing more"
    assert process.wait(60) == 0, "".join(printed)
    return "".join(printed)


def test_an_example_that_is_interrupted_goes_on_with_what_it_has(tmp_path):
    file = tmp_path / "mine.safetensors"
    sizes = ["--steps=100000", "--examples=4", f"--file={file}"]
    printed = interrupted(EXAMPLES / "meta_train.py", *sizes, folder=tmp_path, after="step 1/")
    assert "two minutes" in printed and re.search(r"stopped after meta step \d+ of 100000", printed)
    assert file.exists() and re.search(r"^\d+ seconds$", printed, re.MULTILINE)


def test_learners_that_are_done_are_shown_when_an_example_is_interrupted(tmp_path):
    table = EXAMPLES / "your_own_table.py"
    printed = interrupted(table, "--held_out=2", folder=tmp_path, after="half a minute")
    assert "stopped after VSML 'general'" in printed and "SGD" not in printed
    assert "2 rows that were held out" in printed and "Traceback" not in printed


def test_who_descends_forgets_the_old_labels_and_learns_the_new(tmp_path):
    sizes = ["--streams=2", "--half=150"]
    printed = run(EXAMPLES / "relabelled_stream.py", *sizes, folder=tmp_path)
    rows = re.findall(r"^(VSML|Adam|SGD) .*?(\d+)% +(\d+)% +(\d+)%", printed, re.MULTILINE)
    before, after, end = ({name: int(row[i]) for name, *row in rows} for i in range(3))
    assert set(before) == {"VSML", "Adam", "SGD"} and min(before.values()) > 40
    assert max(after.values()) < 35 and min(end["Adam"], end["SGD"]) > 40
    assert (tmp_path / "runs" / "relabelled_stream.png").exists()


def test_a_table_of_a_user_is_learned_and_rows_held_out_are_predicted(tmp_path):
    labels = np.random.default_rng(0).choice(["no", "yes"], 60)
    rows = [f"{label},{2.0 if label == 'yes' else -1.0},{number % 3}" for number, label in enumerate(labels)]
    (tmp_path / "mine.csv").write_text("\n".join(["answer,size,other", *rows]))
    table = ["--csv=mine.csv", "--label=answer", "--held_out=5"]
    printed = run(EXAMPLES / "your_own_table.py", *table, folder=tmp_path)
    shares = re.findall(r"^(VSML 'general'|SGD): (\S+) of 55 answers right", printed, re.MULTILINE)
    assert len(shares) == 2 and min(float(share) for _, share in shares) > 0.7
    held_out = re.findall(r"^(no|yes) +(no|yes) +(no|yes)$", printed, re.MULTILINE)
    assert len(held_out) == 5 and all(row[0] == row[2] for row in held_out)


def test_the_cells_of_the_notebook_run_and_draw_its_figure(tmp_path):
    cells = json.loads((EXAMPLES / "learning_curves.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    figure = tmp_path / "curves.png"
    small = {"EPISODES": "2", "EXAMPLES": "60", "RATES": "[0.01]", "LAYERS": "[1]", "FIGURE": str(figure)}
    variables = {f"VSML_NOTEBOOK_{name}": value for name, value in small.items()}
    printed = run("-", folder=tmp_path, code="\n\n".join(code), **variables)
    for dataset in ("digits", r"digits\+rand_proj"):
        assert re.search(rf"\| {dataset} \| VSML \(general\) \| 0\.\d", printed)
        assert re.search(rf"\| {dataset} \| Adam \(tuned\) \| 0\.\d", printed)
    assert printed.count("left out") == 2
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_the_notebook_as_it_is_kept_was_executed_in_order():
    path = EXAMPLES / "learning_curves.ipynb"
    cells = [
        cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"
    ]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
    assert "image/png" in cells[-1]["outputs"][-1]["data"] and path.stat().st_size < 250_000
