"""The commands that a user is told to type are in order."""

import re
import shlex
from pathlib import Path

import pytest

import launch
import slurm.schedule
import ssh.schedule
from vsml.launching.command_line import parse, read_all_configs, read_config

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", DOCS / "running.md", DOCS / "cluster.md", DOCS / "experiments.md"]

# The paper's experiments, on every kind of machine.
PAPER = """
python launch.py --config_files configs/rand_proj.yaml
python launch.py --config_files configs/rand_proj.yaml configs/backprop.yaml \
    --config training.population_size=128
GPU_COUNT=4 mpirun -n 4 python assign_gpu.py python launch.py --config_files configs/rand_proj.yaml
CUDA_VISIBLE_DEVICES=0,2,3 mpirun -n 3 python assign_gpu.py \
    python launch.py --config_files configs/rand_proj.yaml
python slurm/schedule.py --array=1-11 --nodes=128 --time 04:00:00 -- \
    python launch.py --array configs/array/datasets.yaml
python ssh/schedule.py --host HOST --nodes=7 --ntasks-per-node=12 -- \
    python launch.py --config_files configs/rand_proj.yaml
""".strip().splitlines()


def commands_of(page):
    """Return the commands in lines and tables of a page, less those that name files of a user."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [
        re.split(r"   +#", line.strip())[0] for line in text.splitlines() if re.match(r"    \S|[a-z]", line)
    ]
    lines += [f"python launch.py {cell}" for cell in re.findall(r"^\|.*\| `(--[^`]*)`", text, re.MULTILINE)]
    users = re.compile(r"\.\.\.|runs/|mine\.npz|sweep\.yaml|RUN\b|^sbatch|^`|, ")
    return [
        line
        for line in lines
        if re.match(r"(\w+=\S+ )*(python|mpirun) .*(launch|schedule)\.py", line) and not users.search(line)
    ]


DOCUMENTED = list(dict.fromkeys(command for page in PAGES for command in commands_of(page)))


def split(command):
    """Return which script of this project a command runs, and its arguments."""
    words = shlex.split(command)
    script = next(word for word in words if word.endswith(("schedule.py", "launch.py")))
    return script, words[words.index(script) + 1 :]


@pytest.mark.parametrize("command", PAPER)
def test_the_commands_of_the_paper_pass_a_dry_run(command, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    script, arguments = split(command)
    main = {
        "launch.py": launch.main,
        "slurm/schedule.py": slurm.schedule.main,
        "ssh/schedule.py": ssh.schedule.main,
    }[script]
    assert main(["--dry_run", *arguments]) == 0
    printed = capsys.readouterr().out
    assert ("FLOP" if script == "launch.py" else "launch.py") in printed


@pytest.mark.parametrize("command", DOCUMENTED)
def test_documented_commands_are_in_order(command, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    script, arguments = split(command)
    if script == "launch.py":
        assert read_all_configs(parse(arguments))
    elif arguments[0] not in ssh.schedule.COMMANDS:
        main = slurm.schedule.main if script == "slurm/schedule.py" else ssh.schedule.main
        assert main(["--dry_run", *arguments]) == 0


def test_every_page_has_commands():
    assert all(commands_of(page) for page in PAGES)


def test_options_of_several_values_add_up_when_they_are_repeated():
    options = parse(["--config", "seed=1", "name=a", "--config", "name=b", "--tags", "x", "--tags", "y"])
    assert options.config == ["seed=1", "name=a", "name=b"]
    assert options.tags == ["x", "y"]


def test_an_entry_of_an_array_has_a_name_and_a_group_of_its_own(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("WANDB_RUN_GROUP", raising=False)
    options = parse(["--array", "configs/array/conv.yaml", "--array_index", "2"])
    config = read_config(options)
    assert config.name.endswith("-2") and config.tracking.wandb.group == "conv"
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    assert read_config(options).tracking.wandb.group == "mine"
