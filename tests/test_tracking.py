"""wandb never stops a run, and never asks a question."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from vsml.launching.schema import load_config
from vsml.runs import wandb as tracking
from vsml.runs.directory import RunDirectory
from vsml.runs.wandb import WandbTracker, fetch_from_wandb, is_wandb_path, start_tracking

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def without_wandb_account(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


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


def use_all(tracker, folder):
    tracker.log({"loss": 1.0}, step=1)
    tracker.log_params({"kernel": np.zeros(3)}, step=1)
    tracker.log_curves("curves", "examples", [{"examples": 1, "digits": 0.5}])
    tracker.log_table("evaluation", [{"dataset": "digits"}])
    tracker.log_image("figure", folder / "none.png")
    tracker.log_file(folder / "none.safetensors", "best", step=1)
    tracker.finish()


def test_disabled_wandb_is_not_imported(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    tracker = WandbTracker(tmp_path, "disabled")
    use_all(tracker, tmp_path)
    assert tracker.run_id is None
    assert list(tmp_path.iterdir()) == []


def test_ranks_other_than_0_track_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    tracker = start_tracking(load_config(overrides=["tracking.wandb.mode=offline"]), None)
    use_all(tracker, Path())


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
        def __getattr__(self, name):
            raise ConnectionError("gone")

    def broken():
        tracker = WandbTracker(tmp_path, "disabled")
        tracker._run = Broken()
        return tracker

    for action in (
        lambda tracker: tracker.log({"loss": 1.0}, step=1),
        lambda tracker: tracker.log_params({"kernel": np.zeros(3)}, step=1),
        lambda tracker: tracker.log_curves("curves", "examples", [{"examples": 1}]),
        lambda tracker: tracker.log_table("evaluation", [{"dataset": "digits"}]),
        lambda tracker: tracker.finish(),
    ):
        tracker = broken()
        with pytest.warns(UserWarning, match="gone.*wandb sync"):
            action(tracker)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            use_all(tracker, tmp_path)


def test_a_file_that_wandb_does_not_take_costs_that_file_alone(tmp_path, monkeypatch):
    (tmp_path / "best").write_bytes(b"1")

    class WithoutNetwork:
        id, offline = "a", False
        logged, tried = (), 0

        def log(self, values):
            self.logged = (*self.logged, values["loss"])

        def define_metric(self, *arguments, **options):
            pass

        def log_artifact(self, artifact):
            self.tried += 1
            raise ConnectionError("no network")

    tracker = WandbTracker(tmp_path, "disabled")
    run = tracker._run = WithoutNetwork()
    with pytest.warns(UserWarning, match=r"does not take files now, .*no network"):
        tracker.log_file(tmp_path / "best", "best", step=1)
    tracker.log_file(tmp_path / "best", "best", step=2)
    tracker.log({"loss": 1.0}, step=3)
    assert run.tried == 1 and run.logged == (1.0,)
    monkeypatch.setattr("time.monotonic", lambda: 1e12)
    with pytest.warns(UserWarning, match="no network"):
        tracker.log_file(tmp_path / "best", "best", step=4)


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_its_wandb_run(tmp_path):
    run = RunDirectory(tmp_path)
    config = load_config(overrides=["tracking.wandb.mode=offline"])
    ids = []
    for step in (1, 2):
        tracker = start_tracking(config, run)
        tracker.log({"loss": 1.0}, step)
        ids.append(tracker.run_id)
        tracker.finish()
    assert ids[0] == ids[1] == run.wandb_id.read_text()
    files = list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert {file.stem for file in files} == {f"run-{ids[0]}"}


@pytest.mark.parametrize(
    ("given", "variables", "expected"),
    [
        (None, {}, None),
        (None, {"WANDB_SWEEP_ID": "s"}, "s"),
        (None, {"WANDB_SWEEP_ID": "s", "WANDB_RUN_GROUP": "g"}, "g"),
        ("mine", {"WANDB_RUN_GROUP": "g"}, "mine"),
    ],
)
def test_the_runs_of_a_sweep_are_one_group(monkeypatch, tmp_path, given, variables, expected):
    seen = {}

    class Run:
        id = "a"

    def init(**options):
        seen.update(options)
        return Run()

    monkeypatch.setattr("wandb.init", init)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = ["tracking.wandb.mode=offline", f"tracking.wandb.group={given or 'null'}"]
    start_tracking(load_config(overrides=settings), RunDirectory(tmp_path))
    assert (seen["group"], seen["job_type"]) == (expected, "train")


@pytest.fixture
def started(monkeypatch):
    """What wandb.init was asked for, last."""
    seen = {}

    class Run:
        id = "a"

    def init(**options):
        seen.update(options)
        return Run()

    monkeypatch.setattr("wandb.init", init)
    return seen


VARIABLES = {
    "WANDB_PROJECT": "theirs",
    "WANDB_ENTITY": "team",
    "WANDB_NAME": "named",
    "WANDB_JOB_TYPE": "probe",
    "WANDB_TAGS": "one, two",
    "WANDB_RUN_GROUP": "group",
}


@pytest.mark.parametrize(
    ("configured", "variables", "expected"),
    [
        ([], {}, ("vsml", None, None, "train", (), None)),
        ([], VARIABLES, ("theirs", "team", "named", "probe", ("one", "two"), "group")),
        (
            ["name=mine", "tracking.wandb={project: p, entity: e, job_type: j, tags: [t], group: g}"],
            VARIABLES,
            ("p", "e", "mine", "j", ("t",), "g"),
        ),
        ([], dict.fromkeys(VARIABLES, ""), ("vsml", None, None, "train", (), None)),
    ],
)
def test_the_environment_goes_over_the_default_and_the_configuration_over_both(
    monkeypatch, tmp_path, started, configured, variables, expected
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config = load_config(overrides=["tracking.wandb.mode=offline", *configured])
    start_tracking(config, RunDirectory(tmp_path))
    keys = ("project", "entity", "name", "job_type", "tags", "group")
    assert tuple(started[key] for key in keys) == expected


def test_the_log_says_who_has_chosen_what(monkeypatch, tmp_path, started, capsys):
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_TAGS", "one,two")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    settings = ["name=mine", "tracking.wandb.mode=offline"]
    start_tracking(load_config(overrides=settings), RunDirectory(tmp_path))
    (line,) = capsys.readouterr().out.splitlines()
    assert "project theirs (WANDB_PROJECT), name mine (configuration), job_type train (default)" in line
    assert "tags one, two (WANDB_TAGS)" in line and "elsewhere (WANDB_DIR)" in line
    assert started["dir"] == str(tmp_path / "elsewhere") and Path(started["dir"]).is_dir()


def test_settings_of_wandb_in_the_environment_go_over_those_of_a_run(monkeypatch, tmp_path, started):
    monkeypatch.setenv("WANDB_CONSOLE", "wrap")
    start_tracking(load_config(overrides=["tracking.wandb.mode=offline"]), RunDirectory(tmp_path))
    assert "console" not in tracking._settings("offline") and started["settings"].silent
    assert tracking._settings("offline")["finish_timeout"] == 60.0


@pytest.mark.parametrize(("asked", "mode"), [("dryrun", "offline"), ("run", "online"), ("", None)])
def test_old_names_of_modes_are_understood(monkeypatch, asked, mode):
    monkeypatch.setenv("WANDB_MODE", asked)
    assert tracking._mode_of_environment() == mode


def test_an_unknown_mode_is_offline_with_a_warning(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "onlin")
    with pytest.warns(UserWarning, match="got 'onlin', expected one of online, offline, disabled"):
        assert tracking._mode_of_environment() == "offline"


@pytest.mark.slow
def test_a_run_below_another_that_tracks_writes_into_its_own_folder(tmp_path, monkeypatch):
    outer = WandbTracker(tmp_path / "outer", "offline")  # its service is that of processes below it
    code = "from vsml.runs.wandb import WandbTracker; t = WandbTracker('inner', 'offline'); "
    code += "t.log({'loss': 1.0}, 1); t.finish()"
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True
    )
    outer.finish()
    assert list(tmp_path.glob("inner/wandb/offline-run-*/*.wandb"))


def test_without_a_connection_at_its_start_a_run_is_offline(tmp_path, monkeypatch):
    started = []

    class Run:
        id = "a"

    def init(mode, **options):
        started.append(mode)
        if mode == "online":
            raise TimeoutError("no answer")
        return Run()

    monkeypatch.setattr("wandb.login", lambda **options: True)
    monkeypatch.setattr("wandb.init", init)
    with pytest.warns(UserWarning, match=r"offline, as its server does not answer.*wandb sync"):
        tracker = WandbTracker(tmp_path, "online")
    assert started == ["online", "offline"] and tracker.run_id == "a"


class Api:
    """The part of wandb.Api that is used, with the artifacts of one project."""

    def __init__(self, **kept):
        self.kept = kept

    def __call__(self, timeout):
        return self

    def artifact_exists(self, name):
        return name in self.names()

    def artifact(self, name):
        assert self.artifact_exists(name)
        self.chosen = name
        return self

    def names(self):
        return [f"us/vsml/{kind}-abc:{version}" for kind in self.kept for version in ("latest", "v0")]

    def download(self, root):
        kind = self.chosen.removeprefix("us/vsml/").partition("-")[0]
        (Path(root) / f"{kind}.safetensors").write_bytes(self.kept[kind])
        return root


@pytest.mark.parametrize(
    ("path", "kept", "expected"),
    [
        ("us/vsml/abc", {"best": b"1", "checkpoint": b"2", "learner": b"3"}, b"1"),
        ("us/vsml/abc", {"checkpoint": b"2", "learner": b"3"}, b"2"),
        ("us/vsml/abc", {"learner": b"3"}, b"3"),
        ("us/vsml/learner-abc:v0", {"best": b"1", "learner": b"3"}, b"3"),
    ],
)
def test_a_run_of_wandb_stands_for_its_best_checkpoint_and_an_artifact_for_itself(
    monkeypatch, path, kept, expected
):
    monkeypatch.setattr("wandb.Api", Api(**kept))
    assert is_wandb_path(path)
    assert fetch_from_wandb(path) == expected


def test_what_wandb_does_not_have_is_an_error_that_says_what_was_looked_for(monkeypatch):
    monkeypatch.setattr("wandb.Api", Api(other=b""))
    with pytest.raises(FileNotFoundError, match="best-abc:latest or checkpoint-abc:latest or learner-abc"):
        fetch_from_wandb("us/vsml/abc")


def test_without_an_account_the_error_says_what_is_missing():
    with pytest.raises(OSError, match=r"no such file here.*wandb login"):
        fetch_from_wandb("us/vsml/abc")


def test_files_go_before_wandb(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for path in ("runs/one/two", "a/b/c.safetensors", "a/b", "/a/b/c", "a/b/c/d"):
        assert not is_wandb_path(path)
    assert is_wandb_path("a/b/c") and is_wandb_path("a/b/best-c:v12")
