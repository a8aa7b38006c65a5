"""The notebooks that people begin with: they run anywhere, and what is kept of them is small and complete."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NAMES = ["own_table_in_five_minutes", "meta_train_and_look_inside", "a_learner_of_your_own"]
MOST_BYTES = 200_000

# tools/ is no package, as it is no part of the library.
_spec = importlib.util.spec_from_file_location("notebooks", ROOT / "tools" / "notebooks.py")
notebooks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(notebooks)


def kept(name):
    """Return a notebook as it is in the repository, and its text."""
    text = (EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8")
    return json.loads(text), text


def source(cell):
    return "".join(cell["source"])


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_was_executed_in_order_and_is_small(name):
    notebook, text = kept(name)
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [
        output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"
    ]
    assert [output for output in outputs if "image/png" in output.get("data", {})]
    assert [output for output in outputs if "text/markdown" in output.get("data", {})]
    assert len(text.encode()) < MOST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_says_nothing_of_the_machine_that_it_ran_on(name):
    notebook, text = kept(name)
    assert notebook["metadata"]["language_info"] == {"name": "python"}
    assert "iopub" not in text
    printed = json.dumps([cell["outputs"] for cell in code_cells(notebook)])
    without_pictures = re.sub(r'"image/png": "[^"]*"', "", printed)
    assert not re.search(r"/(home|root|tmp|usr|work|Users)/|\d seconds", without_pictures)


@pytest.mark.parametrize("name", NAMES)
def test_it_begins_with_a_title_the_time_it_takes_and_what_installs_the_library_where_it_is_missing(name):
    notebook, _ = kept(name)
    first = source(notebook["cells"][0])
    assert re.match(r"# \w", first) and re.search(r"minutes on 2 cores", first)
    install = source(code_cells(notebook)[0])
    assert install.index('if importlib.util.find_spec("vsml") is None:') < install.index("    %pip install")


@pytest.mark.parametrize("name", NAMES)
def test_its_links_lead_to_files(name):
    notebook, _ = kept(name)
    prose = "\n".join(source(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)#]+)", prose)
    assert links and all((EXAMPLES / link).is_file() for link in links)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_from_an_empty_folder_without_a_folder_of_data(name, tmp_path, monkeypatch):
    monkeypatch.delenv("VSML_DATA_DIR", raising=False)
    monkeypatch.setenv("VSML_NOTEBOOK_QUICK", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
    notebook = notebooks.nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    committed = [len(cell["outputs"]) > 0 for cell in code_cells(notebook)]
    for cell in code_cells(notebook):
        cell["outputs"] = []
    notebooks.execute(notebook, tmp_path)  # raises where a cell does
    outputs = [output for cell in code_cells(notebook) for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    shown = [len(cell["outputs"]) > 0 for cell in code_cells(notebook)]
    assert shown == committed
    assert list(tmp_path.glob("*.png"))


@pytest.mark.slow
def test_a_cell_that_raises_is_an_error(tmp_path):
    notebook = notebooks.nbformat.v4.new_notebook(cells=[notebooks.nbformat.v4.new_code_cell("1 / 0")])
    with pytest.raises(notebooks.CellExecutionError, match="ZeroDivisionError"):
        notebooks.execute(notebook, tmp_path)


def test_pictures_become_small_and_times_and_versions_go():
    picture = notebooks.Image.effect_noise((1600, 400), 50)
    written = notebooks.BytesIO()
    picture.save(written, "PNG")
    encoded = notebooks.base64.b64encode(written.getvalue()).decode("ascii")
    output = notebooks.nbformat.v4.new_output("display_data", {"image/png": encoded})
    cell = notebooks.nbformat.v4.new_code_cell("draw()", outputs=[output])
    notebook = notebooks.nbformat.v4.new_notebook(cells=[cell])
    notebook.metadata["language_info"] = {"name": "python", "version": "3.11.7"}
    notebooks.tidy(notebook)
    small = notebooks.base64.b64decode(notebook.cells[0].outputs[0].data["image/png"])
    assert notebooks.Image.open(notebooks.BytesIO(small)).size == (800, 200)
    assert len(small) < len(written.getvalue()) / 4
    assert notebook.metadata.language_info == {"name": "python"}
