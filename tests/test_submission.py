"""What is submitted is checked as a whole before it goes, and arrives as it is."""

import datetime
import shutil
import subprocess

import pytest

from vsml.config.files import ConfigError
from vsml.launching.bundle import bundle, look_up, needed
from vsml.launching.schema import load_config
from vsml.launching.submission import (
    ROOT,
    Checked,
    Remote,
    Site,
    SubmissionError,
    check_program,
    load_site,
    look_up_files,
    parse_indices,
    passed_environment,
    run_environment,
    snapshot,
    split_program,
    submission_name,
    with_run_dir,
)
from vsml.runs.environment import GIT_STATE_NAME, git_state

LAUNCH = ["python", "launch.py"]


def test_the_program_is_what_follows_the_first_dashes():
    assert split_program(["--a", "1", "--", "p", "--", "q"]) == (["--a", "1"], ["p", "--", "q"])
    for arguments in ([], ["--a"], ["--a", "--"]):
        with pytest.raises(SubmissionError, match="the program after --"):
            split_program(arguments)


def test_a_program_is_named_by_its_configuration():
    assert check_program([*LAUNCH, "--config_files", "configs/quickstart.yaml"]).name == "quickstart"
    assert check_program([*LAUNCH, "--config_files", "configs/rand_proj.yaml"]).name == "rand_proj"
    assert check_program([*LAUNCH, "--config", "seed=1"]).name == "run"
    other = check_program(["/usr/bin/wandb", "agent", "us/vsml/abc"])
    assert (other.name, other.is_launch, other.entries) == ("wandb", False, None)


def test_every_entry_of_an_array_is_checked():
    checked = check_program(["mpirun", "-n", "2", *LAUNCH, "--array", "configs/array/conv.yaml"])
    assert (checked.name, checked.is_launch, checked.entries) == ("conv", True, 5)
    settings = ["--config", "training.iteration=1"]
    with pytest.raises(ConfigError, match=r"did you mean"):
        check_program([*LAUNCH, "--array", "configs/array/conv.yaml", *settings])


@pytest.mark.parametrize(
    "given",
    [
        ["--run_dir", "x"],
        ["--array", "configs/array/conv.yaml", "--array_index", "1"],
        ["--array", "configs/array/conv.yaml", "--all"],
        ["--dry_run"],
    ],
)
def test_what_the_launcher_sets_is_refused(given):
    option = [word for word in given if word.startswith("--")][-1]
    with pytest.raises(SubmissionError, match=f"{option}: got it after --"):
        check_program([*LAUNCH, *given])


def test_a_program_that_would_only_print_its_help_is_refused():
    with pytest.raises(SubmissionError, match="prints its help"):
        check_program(LAUNCH)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1-3", (1, 2, 3)), ("2", (2,)), ("1,4-5", (1, 4, 5)), ("1-7:3", (1, 4, 7)), ("3-4%1", (3, 4))],
)
def test_indices_are_read_as_sbatch_writes_them(text, expected):
    assert parse_indices(text, 7) == parse_indices(text) == expected


@pytest.mark.parametrize("text", ["", "0", "0-2", "3-1", "1,1", "1-2,2", "8", "1-8", "a", "1-", "1-5:0"])
def test_indices_that_are_not_there_are_refused_with_what_is(text):
    with pytest.raises(SubmissionError, match="from 1 to 7"):
        parse_indices(text, 7)


def test_the_folder_and_the_index_are_put_at_the_end():
    assert with_run_dir([*LAUNCH, "--config", "a=1"], "r") == [
        *LAUNCH,
        "--config",
        "a=1",
        "--run_dir",
        "r",
        "--continue",
    ]
    assert with_run_dir(LAUNCH, "r", 3)[2:4] == ["--array_index", "3"]
    for program in (["wandb", "agent", "x"], [*LAUNCH, "--resume", "runs/x"]):
        assert with_run_dir(program, "r") == program


def test_a_submission_is_named_by_time_and_name():
    when = datetime.datetime(2026, 1, 31, 12, 0, 5)
    assert submission_name("my run/1", when) == "2026-01-31_12-00-05-my-run-1"


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_the_copy_has_uncommitted_changes_and_nothing_that_git_ignores(tmp_path):
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / ".gitignore").write_text("runs/\n")
    for name in ("kept.py", "gone.py", "sub/with space.py"):
        (root / name).write_text("old")
    git(root, "init")
    git(root, "add", ".")
    git(root, "commit", "-m", "first")
    (root / "kept.py").write_text("changed")
    (root / "gone.py").unlink()
    (root / "new.py").write_text("new")
    (root / "runs").mkdir()
    (root / "runs" / "big").write_text("")
    code = tmp_path / "runs" / "one" / "code"
    snapshot(code, root=root)
    copied = {str(path.relative_to(code)) for path in code.rglob("*.*")}
    assert copied == {".gitignore", "kept.py", "new.py", "sub/with space.py", GIT_STATE_NAME}
    assert (code / "kept.py").read_text() == "changed"
    (tmp_path / "runs" / "two").mkdir()
    assert (code / "runs" / "two").is_dir(), "runs/... means something else in the copy"


def test_the_copy_knows_the_commit_that_it_is_of(tmp_path):
    snapshot(tmp_path / "code")
    assert git_state(tmp_path / "code") == git_state(ROOT)


def test_files_that_the_copy_lacks_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("")
    snapshot(tmp_path / "1", ["python", "launch.py", "--config_files", str(tmp_path / "mine.yaml")])
    for number, word in enumerate(["mine.yaml", "--file=mine.yaml"]):
        with pytest.raises(SubmissionError, match=r"mine\.yaml is here, but not in the copy"):
            snapshot(tmp_path / f"refused{number}", ["python", "launch.py", word])
    (tmp_path / "runs" / "there").mkdir(parents=True)
    restore = "checkpoint.restore=runs/{}"
    snapshot(tmp_path / "2", [restore.format("there")], runs=tmp_path / "runs")
    with pytest.raises(SubmissionError, match="runs/nowhere: expected a file or folder in"):
        snapshot(tmp_path / "3", [restore.format("nowhere")], runs=tmp_path / "runs")
    with pytest.raises(SubmissionError, match=r"expected launch\.py, which is the copy"):
        snapshot(tmp_path / "refused", ["python", str(ROOT / "launch.py")])


def needs_of(*settings):
    return needed([load_config(overrides=["evaluation.datasets=[digits]", *settings])])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["training.dataset={split: [digits, a.npz]}"],
            "training.dataset: got a.npz, which is not in the copy",
        ),
        (
            ["evaluation.datasets=[digits, /gone/a.npz]"],
            "datasets.1: got /gone/a.npz, expected a file or folder",
        ),
        (
            ["evaluation.datasets=[{dataset: here.npz}]"],
            "datasets.0: got here.npz, which is here, but not in",
        ),
        (["checkpoint.restore=runs/gone"], "checkpoint.restore: got runs/gone, expected a file or folder in"),
        (["checkpoint.restore=~/gone"], "checkpoint.restore: got ~/gone, expected"),
        (
            ["evaluation.learners=[{name: a, restore: a.safetensors}]"],
            "learners.0.restore: got a.safetensors",
        ),
        (["data.root=data"], "data.root: got data, which is not in the copy"),
    ],
)
def test_data_and_meta_parameters_that_will_not_be_there_are_refused(
    tmp_path, monkeypatch, settings, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.npz").write_text("")
    with pytest.raises(SubmissionError, match=message):
        look_up(needs_of(*settings), ROOT, tmp_path / "runs")


def test_data_and_meta_parameters_that_will_be_there_are_fine(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "a.npz").write_text("")
    shipped = "vsml/algorithms/general.safetensors"
    learners = f"[{{name: a, restore: {shipped}}}, {{name: b, restore: us/vsml/abc}}]"
    settings = [
        f"training.dataset={tmp_path}/a.npz",
        "evaluation.datasets=[~/a.npz, {dataset: gone.npz, optional: true}]",
        "checkpoint.restore=runs/one",
        f"evaluation.learners={learners}",
        "data.root=/made/by/downloads",
    ]
    assert look_up(needs_of(*settings), ROOT, tmp_path / "runs") == []
    needs = needs_of(*settings[:3])
    assert look_up(needs, ROOT, None) == [f"{tmp_path}/a.npz", "~/a.npz", "runs/one"]


def test_another_machine_is_asked_for_what_only_it_can_have(tmp_path):
    class Here:
        """A machine that is this one, with another home."""

        host = "far"

        def run(self, command):
            return subprocess.run(
                command, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True
            )

    (tmp_path / "vsml" / "runs" / "one").mkdir(parents=True)
    (tmp_path / "a b.npz").write_text("")
    there = needs_of("evaluation.datasets=['~/a b.npz']", "checkpoint.restore=runs/one")
    look_up_files(Checked("x", needs=tuple(there)), None, Here(), f"{tmp_path}/vsml")
    gone = needs_of("evaluation.datasets=['~/c.npz']", "checkpoint.restore=runs/two")
    with pytest.raises(SubmissionError, match=r"far: expected files .*: ~/c\.npz, runs/two"):
        look_up_files(Checked("x", needs=tuple(gone)), None, Here(), f"{tmp_path}/vsml")


def test_a_sweep_of_the_checkout_may_not_name_what_the_copy_lacks(tmp_path, monkeypatch):
    root = tmp_path / "root"
    root.mkdir()
    git(root, "init")
    (root / "sweep.yaml").write_text(f"array: [{{config_files: [{tmp_path}/part.yaml]}}]")
    (tmp_path / "part.yaml").write_text("seed: 1")
    words = [*LAUNCH, "--array", str(root / "sweep.yaml")]
    with pytest.raises(SubmissionError, match=r"part\.yaml is not in the copy"):
        bundle(words, 1, [], words[-1], root)


def test_without_a_checkout_there_is_nothing_to_copy(tmp_path):
    with pytest.raises(SubmissionError, match="expected a git checkout"):
        snapshot(tmp_path / "code", root=tmp_path)


def test_variables_of_the_run_are_passed_on():
    here = {"VSML_X": "1", "WANDB_API_KEY": "k", "VSML_DATA_DIR": "/d", "HOME": "h", "OTHER": "o"}
    expected = {"VSML_X": "1", "WANDB_API_KEY": "k", "VSML_DATA_DIR": "/d", "OTHER": "o"}
    assert passed_environment(here, ["OTHER"]) == expected
    assert passed_environment(here, elsewhere=True) == {"VSML_X": "1", "WANDB_API_KEY": "k"}
    assert "VSML_DATA_DIR" in passed_environment(here, ["VSML_DATA_DIR"], elsewhere=True)
    with pytest.raises(SubmissionError, match="--env: MISSING"):
        passed_environment(here, ["MISSING"])


def test_what_is_set_here_goes_before_the_site_and_secrets_are_kept_apart():
    site = Site(environment={"VSML_X": "site", "VSML_Y": "site", "my_password": "p"})
    public, secret = run_environment(site, {"VSML_X": "here", "WANDB_API_KEY": "k"})
    assert public == {"VSML_X": "here", "VSML_Y": "site"}
    assert secret == {"my_password": "p", "WANDB_API_KEY": "k"}


def test_settings_of_the_site_come_from_one_checked_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_site(environ={}) == Site()
    file = tmp_path / ".config" / "vsml" / "site.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("host: cluster\nsbatch: {partition: gpu, exclusive: true}\n")
    assert load_site(environ={}).host == "cluster"
    other = tmp_path / "other.yaml"
    other.write_text("setpu: [module load cuda]\n")
    with pytest.raises(ConfigError, match=r"setpu.*did you mean setup"):
        load_site(environ={"VSML_SITE": str(other)})
    other.write_text("sbatch: {time: 12:00:00}\n")
    with pytest.raises(ConfigError, match=r"sbatch\.time: got 43200, expected it in quotes"):
        load_site(environ={"VSML_SITE": str(other)})
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        load_site(tmp_path / "missing.yaml", environ={})


def test_a_machine_that_cannot_be_reached_is_an_error_that_names_it():
    message = r"no-such-host\.invalid: cannot be reached" if shutil.which("ssh") else "ssh is not installed"
    with pytest.raises(SubmissionError, match=message):
        Remote("no-such-host.invalid").run(["true"])
