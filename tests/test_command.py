"""The command vsml: its words, configurations by name, what messages tell to type, and completion."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vsml.config.array import load_array
from vsml.config.files import ConfigError
from vsml.config.folder import FOLDER, config_names, find_config
from vsml.launching import console
from vsml.launching.command_line import parse
from vsml.launching.console import COMMANDS, Command, imported, main, with_config_files
from vsml.launching.schema import load_config
from vsml.runs.commands import resume_command
from vsml.system.program import as_typed, run_program

ROOT = Path(__file__).parents[1]


# Words.


@pytest.mark.parametrize("name", COMMANDS)
def test_every_word_leads_to_a_program_and_a_parser(name):
    command = COMMANDS[name]
    assert callable(imported(command.main))
    if command.parser and not command.parser.startswith("vsml.launching.completion"):
        assert imported(command.parser)().format_help()


def test_without_a_word_it_says_what_there_is(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in COMMANDS)


def test_an_unknown_word_is_a_mistake_that_names_the_others(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["rnu"])
    assert ended.value.code == 2
    assert "'rnu'" in capsys.readouterr().err


def test_a_word_gets_its_arguments_and_gives_its_exit_status(monkeypatch):
    got = []
    monkeypatch.setattr(console, "imported", lambda path: lambda words: got.append((path, words)) or 3)
    monkeypatch.setitem(COMMANDS, "new", Command("something new", "a.b:c"))
    assert main(["new", "x", "--y"]) == 3
    assert got == [("a.b:c", ["x", "--y"])]


def test_what_is_missing_ends_with_a_message_instead_of_a_traceback(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "plotly", None)
    # Also what other tests have imported, else it would be found there.
    for name in list(sys.modules):
        if name in ("vsml.report", "vsml.reporting.page") or name.startswith("plotly."):
            monkeypatch.delitem(sys.modules, name)
    assert main(["report", "."]) == 2
    assert 'plotly, not installed here; to install what is missing: python -m pip install "vsml[report]"' in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        (["a", "b", "--config", "seed=1"], ["--config_files", "a", "b", "--config", "seed=1"]),
        (["--resume", "runs/x"], ["--resume", "runs/x"]),
        ([], []),
    ],
)
def test_what_stands_before_the_options_are_configurations(typed, given):
    assert with_config_files(typed) == given
    assert parse(given)


# Configurations by name.


def test_configurations_are_found_by_name_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_path = load_config([ROOT / "configs" / "rand_proj.yaml", ROOT / "configs" / "backprop.yaml"])
    for names in (["rand_proj", "backprop"], ["configs/rand_proj.yaml", "backprop.yaml"]):
        assert load_config(names) == by_path
    assert len(load_array("array/datasets")) == len(load_array(FOLDER / "array" / "datasets.yaml"))


def test_every_configuration_has_a_name():
    assert {find_config(name) for name in config_names()} == set(FOLDER.rglob("*.yaml"))


def test_a_file_of_the_user_goes_before_a_configuration_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("rand_proj.yaml").write_text("seed: 77")
    assert load_config(["rand_proj.yaml"]).seed == 77
    assert load_config(["rand_proj"]).seed != 77


def test_a_configuration_that_is_not_there_is_named_with_one_that_is_like_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"rand_prjo: cannot be read.*did you mean rand_proj\?"):
        load_config(["rand_prjo"])


def test_an_array_of_the_user_names_configurations_of_the_library(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("array: [{config_files: [rand_proj.yaml]}]")
    (entry,) = load_array("mine.yaml")
    assert entry.config_files == (FOLDER / "rand_proj.yaml",)


# What messages tell to type.


@pytest.mark.parametrize("started", ["/usr/bin/vsml", "C:/Scripts/vsml.exe", "/lib/vsml/__main__.py"])
def test_messages_say_the_command_where_that_was_typed(started, monkeypatch):
    monkeypatch.setattr(sys, "argv", [started])
    assert as_typed("launch.py") == "vsml run"
    assert as_typed("python -m vsml.tasks") == "vsml data"
    assert as_typed("python -m vsml.demo") == "vsml demo"
    assert resume_command("runs/a b") == "vsml run --resume 'runs/a b'"
    assert as_typed("slurm/schedule.py") == "slurm/schedule.py"


@pytest.mark.parametrize("started", ["launch.py", "/lib/pytest/__main__.py"])
def test_messages_say_launch_py_in_a_checkout(started, monkeypatch):
    monkeypatch.setattr(sys, "argv", [started])
    assert as_typed("launch.py") == "launch.py"
    assert resume_command("runs/x") == "python launch.py --resume runs/x"


def test_runs_are_started_from_any_folder(tmp_path):
    words = [*run_program(), "--config_files", "test", "--dry_run"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "FLOP" in done.stdout


# Completion.


def completed(line, folder):
    """Return what a shell is told that may follow a line."""
    pytest.importorskip("argcomplete")
    told = folder / "told"
    environment = os.environ | {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(told),
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
        "JAX_PLATFORMS": "none such",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-m", "vsml.launching.console"], cwd=folder, env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return {word.strip() for word in told.read_text().split("\n")}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vsml ", {"run", "demo", "report"}),
        ("vsml run ", {"rand_proj", "figures/fig6"}),
        ("vsml run rand_proj --dry", {"--dry_run"}),
        ("vsml run --config_files quick", {"quickstart"}),
        ("vsml figures --li", {"--list"}),
        ("vsml data ", {"list", "get"}),
        ("vsml rules ", {"show", "check", "run", "step"}),
    ],
)
def test_a_shell_completes_words_configurations_and_options(line, expected, tmp_path):
    assert expected <= completed(line, tmp_path)
