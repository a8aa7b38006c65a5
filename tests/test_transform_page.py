"""docs/transforms.md, followed to the letter in a copy of the package."""

import re

import pytest
import yaml
from pages import code_after, copy_package, insert_before, read_page, run

from vsml.tasks.transforms import TRANSFORMS

pytestmark = pytest.mark.usefixtures("hasty")

REGISTRY = "vsml/tasks/transforms/__init__.py"
SMALL = [
    "training.iterations=2",
    "training.population_size=2",
    "training.episode_length=5",
    "evaluation.count=2",
    "evaluation.episode_length=5",
    "tracking.wandb.mode=disabled",
]
PAGE = read_page("transforms.md")


def command_with(words):
    """Return the settings of the one command of the page that has these words."""
    line = re.search(rf"^    python launch\.py (.*{words}.*)$", PAGE, re.MULTILINE)[1]
    command = line.replace("'", "").split(" --config ")
    settings = command[1].replace(" 'data", " data")
    first, _, rest = settings.partition(" ")
    assert first == "training.iterations=30"
    return [*command[0].split(), "--config", *SMALL, rest]


def test_the_page_lists_all_transforms_in_the_order_in_which_they_act():
    rows = re.findall(r"^\| `(\w+)[:`].* \| `(\w+)\.py` \|", PAGE, re.MULTILINE)
    assert [name for name, _ in rows] == list(TRANSFORMS)
    for name, file in rows:
        module = TRANSFORMS[name].act.__module__
        assert module == f"vsml.tasks.transforms.{file}"


@pytest.mark.slow
def test_a_transform_is_added_as_the_page_says(tmp_path):
    copy_package(tmp_path)
    file = "vsml/tasks/transforms/noise.py"
    (tmp_path / file).write_text(code_after(PAGE, f"`{file}`:"))
    added_import, _, head, before, line, _ = code_after(PAGE, f"In `{REGISTRY}`").strip().splitlines()
    insert_before(tmp_path / REGISTRY, "from vsml.tasks.transforms.padding", added_import)
    insert_before(tmp_path / REGISTRY, "    SHUFFLE,", line)
    assert f"{before}\n{line}" in (tmp_path / REGISTRY).read_text() and head in PAGE

    done = run(tmp_path, "launch.py", *command_with("preprocess.noise"), "--run_dir", "run")
    assert done.returncode == 0, done.stderr
    assert "noise: 0.1" in (tmp_path / "run" / "config.yaml").read_text()
    told = run(
        tmp_path,
        *("launch.py", "--dry_run", "--config", "data.preprocess.noise=0.25", "training.dataset=digits"),
        "evaluation.datasets=[{dataset: digits, preprocess: {noise: 0.5}}]",
    )
    assert "task: digits, with noise of deviation 0.25" in told.stdout, told.stderr
    assert "digits+noise0.5: digits, with noise of deviation 0.5" in told.stdout
    wrong = run(tmp_path, "launch.py", "--config", "data.preprocess.noise=-1", "data.preprocess.nois=1")
    assert "data.preprocess.noise: got -1, expected greater than 0" in wrong.stderr
    assert "did you mean data.preprocess.noise?" in wrong.stderr


@pytest.mark.slow
def test_a_transform_of_another_package_is_named_as_the_page_says(tmp_path):
    copy_package(tmp_path)
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "noise.py").write_text(code_after(PAGE, "transforms/noise.py`:"))
    done = run(tmp_path, "launch.py", *command_with("preprocess.extra"), "--run_dir", "run")
    assert done.returncode == 0, done.stderr
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert written["data"]["preprocess"]["extra"] == {"my_package.noise:NOISE": 0.1}
    again = run(tmp_path, "launch.py", "--dry_run", "--config_files", "run/config.yaml", "--config", "seed=1")
    assert "with noise of deviation 0.1" in again.stdout, again.stderr
