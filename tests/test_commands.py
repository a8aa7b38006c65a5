"""The commands that a user is told to type are in order."""

import os
import re
import shlex
from pathlib import Path

import pytest

import slurm.schedule
import ssh.schedule
import vsml.figures
import vsml.tasks.__main__
from vsml.config.files import ConfigError
from vsml.evaluation.stored import StoredParams
from vsml.launching import run as launch
from vsml.launching.command_line import folder_name, parse, read_all_configs, read_config
from vsml.launching.ending import ended
from vsml.launching.schema import load_config
from vsml.system.comm import SerialCommunicator
from vsml.system.extras import MissingExtraError

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


def test_without_any_option_launch_prints_its_help(capsys):
    assert launch.main([]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("usage: launch.py") and "--config_files configs/quickstart.yaml" in printed


@pytest.mark.parametrize(
    ("main", "given", "meant"),
    [
        (launch.main, "--config-files", "--config_files"),
        (launch.main, "--config_file", "--config_files"),
        (launch.main, "--dry-run", "--dry_run"),
        (ssh.schedule.parse_launch, "--over_subscribe", "--oversubscribe"),
        (slurm.schedule.parse, "--dry-run", "--dry_run"),
        (slurm.schedule.parse, "--signal-ahead=60", "--signal_ahead"),
        (vsml.tasks.__main__.main, "list --rot", "--root"),
        (vsml.figures.main, "--lists", "--list"),
    ],
)
def test_a_misspelt_option_is_told_what_could_have_been_meant(main, given, meant, capsys):
    with pytest.raises(SystemExit) as ended:
        main(given.split())
    assert ended.value.code == 2
    assert f"did you mean '{meant}'?" in capsys.readouterr().err


def test_an_unknown_option_is_told_which_there_are(capsys):
    with pytest.raises(SystemExit):
        launch.main(["--config-files", "a.yaml"])
    assert "--array_index" in capsys.readouterr().err.partition("options: ")[2]


def test_a_value_without_its_option_is_named(capsys):
    with pytest.raises(SystemExit):
        launch.main(["configs/quickstart.yaml"])
    assert "got 'configs/quickstart.yaml', expected an option before it" in capsys.readouterr().err


def test_misspelt_names_are_told_together_and_before_a_folder_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    datasets = "evaluation.datasets=[{dataset: kmnits}, digits]"
    wrong = ["training.dataset=mnsit", datasets, "model.type=vsmll", "seed=x"]
    assert launch.main(["--config", *wrong]) == 2
    told = capsys.readouterr().err
    assert told.startswith("4 mistakes")
    assert "training.dataset: got 'mnsit'" in told and "did you mean 'mnist'?" in told
    assert "evaluation.datasets.0.dataset: got 'kmnits'" in told and "did you mean 'kmnist'?" in told
    assert "did you mean 'vsml'?" in told and "omniglot" in told
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_data_set_of_a_compared_learner_is_told_what_was_meant():
    learner = "{name: Adam, model: {type: sgd}, datasets: [digist]}"
    with pytest.raises(ConfigError, match=r"got 'digist', expected names of .*did you mean 'digits'"):
        load_config(overrides=["evaluation.datasets=[digits]", f"evaluation.learners=[{learner}]"])


@pytest.mark.parametrize("name", ["genral", "pretrained:genral"])
def test_a_misspelt_algorithm_is_told_what_could_have_been_meant(name):
    with pytest.raises(FileNotFoundError, match=r"one of .*mnist14.*did you mean 'general'\?"):
        StoredParams.read(name, SerialCommunicator())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["call=my_package.my_module:Count"], "Count"),
        (["call=train"], "train"),
        (["name=a:b"], "a-b"),
        (["name='ü=1'"], "ü=1"),
    ],
)
def test_the_folder_of_a_run_has_no_colon_in_its_name(settings, expected):
    plain = load_config(overrides=[each for each in settings if not each.startswith("call")])
    call = dict(each.split("=", 1) for each in settings).get("call", "train")
    assert folder_name(plain.name, call) == expected


def test_all_entries_need_an_array_and_no_index(capsys):
    for words in (["--all"], ["--all", "--array", "x.yaml", "--array_index", "1"]):
        with pytest.raises(SystemExit):
            parse(words)
        assert "--all" in capsys.readouterr().err


def test_copies_without_mpi_are_told_of_mpirun(monkeypatch, capsys):
    for name in [name for name in os.environ if name.startswith(("OMPI_", "PMI_", "PMIX_", "WANDB_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert launch.main(["--config", "training.dataset=digits"]) == 1
    told = capsys.readouterr().err
    assert "srun has started 2 copies" in told and "mpirun -n 2 python launch.py" in told


@pytest.mark.parametrize("content", ["", "\n  \n"])
def test_the_configuration_of_a_run_that_is_empty_is_refused(content, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(content)
    assert launch.main(["--resume", str(run)]) == 2
    assert f"{run / 'config.yaml'}: is empty, expected the configuration" in capsys.readouterr().err


def raising(error):
    def do():
        raise error

    return do


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ValueError("seed: got -1, expected 0"), 2, "error: seed: got -1, expected 0\n"),
        (MissingExtraError("figures need matplotlib"), 2, "error: figures need matplotlib\n"),
        (OSError("no space left"), 2, "error: no space left\n"),
        (KeyboardInterrupt(), 130, "\nstopped\n"),
    ],
)
def test_a_command_ends_with_a_message_and_its_status(error, status, told, capsys):
    assert ended(raising(error)) == status
    assert capsys.readouterr().err == told


def test_a_command_whose_fault_is_the_librarys_shows_where_it_is():
    with pytest.raises(RuntimeError, match="a fault"):
        ended(raising(RuntimeError("a fault")))


def test_nobody_need_read_to_the_end(monkeypatch, capsys):
    # The pipe is closed before anything is written to it.
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        assert ended(lambda: print("a rule") or 0) == 0
    assert capsys.readouterr().err == ""
