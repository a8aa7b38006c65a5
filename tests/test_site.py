"""The documentation site: it builds strictly, its search answers, and no module is left out."""

import importlib.util
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# tools/ is no package, as it is no part of the library.
_spec = importlib.util.spec_from_file_location("site_pages", ROOT / "tools" / "site_pages.py")
site_pages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(site_pages)

QUESTIONS = {
    "Where is a Slurm requeue decided?": "slurm/job.sh",
    "What does wandb get?": "vsml/runs/wandb.py",
    "Where is an accuracy column made?": "accuracy_columns",
    "Where would a new kind of edge go?": "vsml/networks/wirings/",
}
"""Questions of a newcomer, each with what the answer names."""


@cache
def site_python():
    """Return the Python that has the tools of the site; None where there is none."""
    needed = "import lunr, material, mkdocs, mkdocstrings, nbconvert"
    for python in (sys.executable, ROOT / ".venv-site" / "bin" / "python"):
        if Path(python).exists():
            tried = subprocess.run([python, "-c", needed], capture_output=True, check=False)
            if tried.returncode == 0:
                return str(python)
    return None


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built strictly: a broken link, or a page that is in no menu, ends it."""
    python = site_python()
    if python is None:
        pytest.skip("mkdocs is not installed: `make site` brings it into .venv-site")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [python, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_search_answers_the_questions_of_a_newcomer(site):
    searched = subprocess.run(
        [site_python(), ROOT / "tests" / "site_search.py", site, *QUESTIONS],
        capture_output=True,
        text=True,
        check=True,
    )
    for (question, answer), found in zip(QUESTIONS.items(), json.loads(searched.stdout), strict=True):
        first = found[:2]
        assert any(answer in text for _, _, text in first), (question, [place for place, *_ in found])


@pytest.mark.slow
def test_every_page_is_built_and_every_public_module_is_in_the_reference(site):
    for page in (ROOT / "docs").rglob("*.md"):
        path = page.relative_to(ROOT / "docs").with_suffix("")
        folder = path.parent if path.name == "README" else path
        assert (site / folder / "index.html").exists(), path
    for name, modules in site_pages.api_pages().items():
        html = (site / "api" / name / "index.html").read_text(encoding="utf-8")
        for module in modules:
            assert f'id="{module}"' in html, module
    reference = (site / "api" / "vsml.sklearn" / "index.html").read_text(encoding="utf-8")
    assert "VSMLClassifier.partial_fit" in reference and "Learn the examples X [n, d]" in reference


@pytest.mark.slow
def test_scripts_and_notebooks_that_pages_link_to_are_on_the_site(site):
    index = (site / "index.html").read_text(encoding="utf-8")
    names = ["your_own_table", "meta_train", "relabelled_stream", "learning_curves"]
    names += ["own_table_in_five_minutes", "meta_train_and_look_inside", "a_learner_of_your_own"]
    for name in names:
        assert f'href="examples/{name}/"' in index, name
    assert "Meta-train a learning algorithm" in (site / "examples" / "meta_train" / "index.html").read_text()
    notebook = (site / "examples" / "meta_train_and_look_inside" / "index.html").read_text(encoding="utf-8")
    assert "<table>" in notebook and "<img" in notebook
    pictures = (site / "examples").glob("meta_train_and_look_inside_*.png")
    shown = [picture.read_bytes()[:4] for picture in pictures if picture.name in notebook]
    assert len(shown) == 4 and set(shown) == {b"\x89PNG"}


def test_a_table_of_questions_becomes_sections():
    page = "# A\n\n| question | answer |\n|---|---|\n| What? | `a` does; b |\n| Who? | c |\n\n## B\n"
    expected = "# A\n\n### What?\n\n`a` does; b\n\n### Who?\n\nc\n\n## B\n"
    assert site_pages.questions_as_sections(page) == expected
    with pytest.raises(ValueError, match=r"architecture\.md: got no table"):
        site_pages.questions_as_sections("# A\n")


def test_the_questions_are_in_the_table_of_the_page():
    page = site_pages.questions_as_sections((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert all(f"### {question}\n" in page for question in QUESTIONS)


def test_a_script_becomes_a_page_whose_comments_are_prose():
    docstring = '"""Do it.\n\nSlowly.\n"""\n\nimport os\n\n'
    source = docstring + "# First this,\n# and then\na = 1  # one\n\n# That.\nb = 2\n"
    page = site_pages.tutorial(source, "do_it", "Do it")
    parts = [
        "# Do it",
        "Do it.\n\nSlowly.",
        "```python\nimport os\n```",
        "First this, and then",
        "```python\na = 1  # one\n```",
        "That.",
        "```python\nb = 2\n```",
    ]
    places = [page.index(part) for part in parts]
    assert places == sorted(places)


def test_the_reference_leaves_out_what_serves_old_names_alone():
    modules = [module for page in site_pages.api_pages().values() for module in page]
    assert "vsml.learners.vsml" in modules and "vsml.torch.twin" in modules
    assert not site_pages.NOT_PUBLIC & set(modules)
    assert all(importlib.util.find_spec(module.partition(".")[0]) for module in site_pages.NOT_PUBLIC)
    for module in site_pages.NOT_PUBLIC:
        assert (ROOT / Path(*module.split("."))).with_suffix(".py").exists(), module
