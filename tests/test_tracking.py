"""Run directories refuse to mix runs, metrics stay valid JSON, and wandb never stops a run."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from vsml import tracking
from vsml.tracking import WandbTracker, create_run, describe_environment, open_run, read_metrics


@pytest.fixture(autouse=True)
def without_wandb_account(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_a_run_gets_a_directory_of_its_own_with_its_config(tmp_path):
    runs = [create_run("seed: 1\n", name="digits", root=tmp_path / "runs") for _ in range(3)]
    assert len({run.path for run in runs}) == 3
    for run in runs:
        assert run.path.name[10:].endswith(("-digits", "-digits-2", "-digits-3"))
        assert run.config.read_text() == "seed: 1\n"
        assert os.listdir(run.path) == ["config.yaml"]


def test_a_directory_that_holds_a_run_is_refused_and_left_alone(tmp_path):
    run = create_run("seed: 1\n", directory=tmp_path / "run")
    with pytest.raises(ValueError, match="holds a run already"):
        create_run("seed: 2\n", directory=tmp_path / "run")
    assert run.config.read_text() == "seed: 1\n"
    assert open_run(tmp_path / "run") == run


def test_a_directory_with_other_files_is_used(tmp_path):
    (tmp_path / "job.log").write_text("")
    assert create_run("", directory=tmp_path).config.exists()


def test_a_directory_without_a_run_cannot_be_opened(tmp_path):
    with pytest.raises(ValueError, match=r"without config\.yaml"):
        open_run(tmp_path)


def test_metrics_are_valid_json_with_null_for_what_is_not_finite(tmp_path):
    run = create_run("", directory=tmp_path)
    run.append_metrics(1, {"loss": jnp.float32(0.5), "bad": float("nan"), "worse": np.float32(-np.inf)})
    run.append_metrics(2, {"list": np.array([1.0, np.inf]), "count": np.int64(3), "text": "a\nb", "no": None})
    lines = run.metrics.read_text().splitlines()

    def refuse(constant):
        raise AssertionError(constant)

    first, second = (json.loads(line, parse_constant=refuse) for line in lines)
    assert first == {"step": 1, "loss": 0.5, "bad": None, "worse": None}
    assert second == {"step": 2, "list": [1.0, None], "count": 3, "text": "a\nb", "no": None}
    assert read_metrics(run.metrics) == [first, second]


def test_metrics_are_cut_back_to_a_step_and_lose_a_half_written_line(tmp_path):
    run = create_run("", directory=tmp_path)
    for step in (0, 10, 20, 20, 30):
        run.append_metrics(step, {"loss": 0.1 * step})
    before = run.metrics.read_bytes().splitlines(keepends=True)
    with open(run.metrics, "a") as file:
        file.write('{"step": 3')
    assert [line["step"] for line in read_metrics(run.metrics)] == [0, 10, 20, 20, 30]
    run.truncate_metrics(20)
    assert run.metrics.read_bytes() == b"".join(before[:4])
    run.append_metrics(30, {})
    assert read_metrics(run.metrics)[-1] == {"step": 30}


def test_a_complete_object_without_its_line_end_counts_as_half_written(tmp_path):
    run = create_run("", directory=tmp_path)
    run.metrics.write_text('{"step": 1}\n{"step": 2}')
    run.truncate_metrics(5)
    assert run.metrics.read_text() == '{"step": 1}\n'


def test_cutting_metrics_that_do_not_exist_does_nothing(tmp_path):
    run = create_run("", directory=tmp_path)
    run.truncate_metrics(5)
    assert not run.metrics.exists()


def test_a_damaged_line_in_the_middle_is_an_error_with_its_number(tmp_path):
    (tmp_path / "m").write_text('{"step": 1}\nxx\n{"step": 2}\n')
    with pytest.raises(ValueError, match="line 2: expected a JSON object, got 'xx"):
        read_metrics(tmp_path / "m")


def test_the_environment_is_described(tmp_path):
    run = create_run("", directory=tmp_path)
    run.write_environment(describe_environment(world_size=4))
    environment = json.loads(run.environment.read_text())
    assert environment["world_size"] == 4
    assert environment["python"].startswith("3.")
    assert environment["device"]["count"] >= 1
    assert environment["versions"]["jax"]
    assert environment["command_line"]


def test_the_git_state_is_that_of_the_library_and_no_other_checkout(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert tracking._git_state(package) is None
    git("init")
    git("commit", "--allow-empty", "-m", "before the package")
    assert tracking._git_state(package) is None
    git("add", ".")
    git("commit", "-m", "first")
    state = tracking._git_state(package)
    assert len(state["commit"]) == 40 and state["dirty"] is False
    (package / "__init__.py").write_text("x = 1\n")
    assert tracking._git_state(package)["dirty"] is True


@pytest.mark.parametrize(
    ("wanted", "key", "expected"),
    [
        (None, False, "offline"),
        (None, True, "online"),
        ("offline", True, "offline"),
        ("online", True, "online"),
    ],
)
def test_wandb_is_online_only_with_a_key_and_a_wish(monkeypatch, wanted, key, expected):
    def login(*, prompt, verify):
        assert not prompt and not verify
        return key

    monkeypatch.setattr("wandb.login", login)
    assert tracking._choose_wandb_mode(wanted) == expected


def test_online_without_a_key_warns_and_is_offline():
    with pytest.warns(UserWarning, match="wandb login"):
        assert tracking._choose_wandb_mode("online") == "offline"


def test_the_variable_of_wandb_decides_where_the_config_does_not(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    WandbTracker(tmp_path)
    with pytest.warns(UserWarning, match="wandb failed"):
        WandbTracker(tmp_path, "offline")


@pytest.mark.parametrize("options", [{"mode": "disabled"}, {"mode": "offline", "rank": 1}])
def test_disabled_and_on_other_ranks_wandb_is_not_imported(monkeypatch, tmp_path, options):
    monkeypatch.setitem(sys.modules, "wandb", None)
    tracker = WandbTracker(tmp_path, **options)
    tracker.log({"loss": 1.0}, step=1)
    tracker.log_image("curves", tmp_path / "none.png", step=1)
    tracker.finish()
    assert tracker.run_id is None
    assert list(tmp_path.iterdir()) == []


def test_a_failure_of_wandb_is_one_warning(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.warns(UserWarning, match="wandb failed, going on without it"):
        tracker = WandbTracker(tmp_path, "offline")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tracker.log({"loss": 1.0}, step=1)
        tracker.finish()


def test_a_failure_in_mid_run_is_one_warning(tmp_path):
    class Broken:
        id = "a"

        def log(self, values):
            raise ConnectionError("gone")

    tracker = WandbTracker(tmp_path, "disabled")
    tracker._run = Broken()
    with pytest.warns(UserWarning, match="gone"):
        tracker.log({"loss": 1.0}, step=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tracker.log({"loss": 1.0}, step=2)
        tracker.finish()


@pytest.mark.slow
def test_without_an_account_a_run_is_offline_and_can_be_read_back(tmp_path):
    tracker = WandbTracker(
        tmp_path, config={"seed": 3}, project="probe", name="first", group="pair", tags=["quick"]
    )
    assert tracker.run_id
    tracker.log({"loss": 2.25}, step=1)
    tracker.log({"loss": 1.25}, step=11)
    tracker.finish()
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    inspected = subprocess.run(
        [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", file],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    for text in ("2.25", "1.25", "probe", "first", "pair", "quick", "seed"):
        assert text in inspected
