"""Every file in configs/: its heading, that it loads and builds, and that it runs on small data.

The heading of a file has the commands to use it with; these commands are what is tested.
"""

import contextlib
import functools
import io
import itertools
import json
import math
import re
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import requests
from data_files import noise, write, write_data_root, write_mnist
from flat_vsml import flat_vsml
from safetensors.numpy import load_file
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args, load_sweep_config

from vsml.config.array import load_array
from vsml.config.checks import RESERVED_NAMES
from vsml.config.files import dump
from vsml.config.model import model_choices
from vsml.launching import run as launch
from vsml.launching.command_line import parse, read_config
from vsml.launching.schema import WholeConfig, call_of, load_array_configs, load_config
from vsml.learners import make_learner
from vsml.meta.optimizers.evosax import Evolution
from vsml.meta.trials import params_shapes
from vsml.runs.checkpoint import PRETRAINED_PREFIX, export_params, pretrained_names
from vsml.runs.metrics import read_metrics
from vsml.setup import Setup, TaskShape

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(
    path
    for folder in (".", "algorithms", "figures", "rules", "benchmarks", "search")
    for path in (ROOT / "configs" / folder).glob("*.yaml")
)
CONFIGS.append(ROOT / "configs" / "laws" / "base.yaml")
ARRAYS = sorted(
    path
    for folder in ("array", "laws")
    for path in (ROOT / "configs" / folder).glob("*.yaml")
    if path.stem != "base"
)
SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))


def heading(path):
    """Return the lines of the comment that a file begins with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]


def commands(path):
    """Return the arguments of launch.py in the commands of a heading.

    Commands are indented by three spaces, and what follows one after three more is said of it. An indented
    line without launch.py has further settings for the command before it.
    """
    found = []
    for line in heading(path):
        if indented := re.match(r"#   (\S.*?)(   |$)", line):
            start, launched, arguments = indented[1].partition("python launch.py")
            words = shlex.split(arguments if launched else start)
            found.append(words if launched else found[-1] + words)
    return found


def name(path):
    return path.relative_to(ROOT / "configs").with_suffix("").as_posix()


COMMANDS = [
    pytest.param(words, id=f"{name(path)}-{number}")
    for path in CONFIGS + ARRAYS
    for number, words in enumerate(commands(path))
]


def configs_of(words):
    """Return the configurations of a command: of an array, those of all entries."""
    options = launch.parse(words)
    if not options.array:
        return (launch.read_config(options),)
    if options.array_index is not None:
        launch.read_config(options)  # refuses an index that the array does not have
    entries = load_array(options.array, options.subset)
    return load_array_configs(entries, options.config_files, options.config, tags=options.tags)


@pytest.fixture(autouse=True)
def beside_launch(monkeypatch):
    """Work where the commands are meant to be typed."""
    monkeypatch.chdir(ROOT)


# Headings.


@pytest.mark.parametrize("path", CONFIGS + ARRAYS, ids=name)
def test_every_file_says_command_hardware_and_result(path):
    text = "\n".join(heading(path))
    for words in ("python launch.py", "# Time and hardware: ", "# Result: "):
        assert words in text, words
    assert any(str(path.relative_to(ROOT)) in words for words in commands(path)) or path.stem == "default"


def test_the_named_configs_exist():
    names = {path.stem for path in CONFIGS}
    assert names >= {"default", "quickstart", "test", "rand_proj", "backprop", "deep", "backward_pass", "pad"}
    assert names >= {"metarnn", "hebbian", "fwmemory", "fwp", "sgd", "sgd_omniglot", "omniglot", "conv"}
    assert names >= {"cifar10", "invariances", "no_fashion_mnist", "pretrained", "evaluation", "compare"}
    assert names >= {"few_examples", "long_curves", "baselines14", "mnist14", "general"}
    assert {path.stem for path in ARRAYS} >= {"datasets", "sgd", "conv", "eval_invariances"}


def test_default_yaml_repeats_the_schema_and_adds_nothing():
    assert load_config() == WholeConfig()


def test_overlays_combine_and_the_last_one_wins():
    files = [f"configs/{name}.yaml" for name in ("rand_proj", "backprop", "deep", "backward_pass")]
    config = load_config(files, ["training.population_size=64"])
    assert config.optimizer.type == "gradient"
    assert config.optimizer.learning_rate == 1e-3
    assert config.training.population_size == 64
    assert config.model.vsml.synapse.layer_norm and config.model.vsml.backward_pass
    assert [layer.out_size for layer in config.model.vsml.layers] == [32, None]
    assert len(config.training_specs) == 2


# Loading and building.


@functools.cache
def build(model, shapes):
    """Build a learner, and return the shapes of its meta-parameters."""
    learner = make_learner(model.type, model.settings, shapes.input_shape, shapes.outputs.size)
    settings = json.dumps(without_rates(model.settings.model_dump(mode="json")))
    kind = model.type, settings, shapes.input_shape, shapes.outputs
    if kind not in TRACED:
        TRACED[kind] = trace(learner)
    return TRACED[kind]


TRACED = {}  # shapes of meta-parameters of each kind of learner: tuned ones differ in a rate only


def without_rates(settings):
    """Return settings without the values of real numbers, which decide no shape: whether they are 0."""
    if isinstance(settings, dict):
        return {key: without_rates(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [without_rates(value) for value in settings]
    return settings != 0 if isinstance(settings, float) else settings


def trace(learner):
    """Trace a learner through its first step, and return the shapes of its meta-parameters."""
    params = params_shapes(learner)
    state = jax.eval_shape(lambda params: learner.init_state(params, jax.random.key(0), 1), params)
    x = jax.ShapeDtypeStruct((1, *learner.input_shape), jnp.float32)
    _, logits = jax.eval_shape(learner.step, params, state, x, jax.ShapeDtypeStruct((1,), jnp.int32))
    assert logits.shape == (1, learner.num_classes)
    return params


def check(config, tmp_path):
    """Check that a configuration survives being written, and that all learners that it needs can be built."""
    text = dump(config)
    write(tmp_path / "config.yaml", text.encode())
    assert load_config([tmp_path / "config.yaml"], default=None) == config
    assert WholeConfig.model_validate(config.model_dump(mode="json")) == config, "other ranks get another one"
    evaluated = [spec.task for spec in config.evaluation_specs]
    own = [build(config.model, TaskShape.of(task, config.evaluation.subset)) for task in evaluated]
    if config.call == "train":
        own += [build(config.model, TaskShape.of(task, "train")) for task in config.training_specs]
        assert jax.tree.leaves(own[0]), "nothing to find"
    assert all(each == own[0] for each in own), "the learner cannot be taken from one task to another"
    for entry in config.evaluation.learners:
        if entry.restore is None:
            for _, model in model_choices(config.model, entry):
                for task in evaluated:
                    build(model, TaskShape.of(task.padded(entry.pad), config.evaluation.subset))
    assert dump(config) == text


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_every_config_loads_and_builds_over_the_default(path, tmp_path):
    check(load_config([path]), tmp_path)


@pytest.mark.parametrize("path", ARRAYS, ids=name)
def test_every_entry_of_every_array_loads_and_builds_over_the_default(path, tmp_path):
    for config in load_array_configs(load_array(path)):
        check(config, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS)
def test_the_commands_of_every_heading_load_build_and_have_a_plan(words, tmp_path, monkeypatch):
    monkeypatch.setattr(Evolution, "_check_memory", lambda *args: None)  # it compiles
    configs = configs_of(words)
    for config in configs:
        check(config, tmp_path)
    plan = "\n".join(call_of(configs[-1]).plan(Setup(configs[-1]), ranks=1))
    assert ("a meta step: " in plan) == (configs[-1].call == "train")


@pytest.mark.parametrize("learner", ["metarnn", "hebbian", "fwmemory", "fwp"])
def test_the_heading_of_a_padded_baseline_has_the_matrix_of_data_sets(learner):
    words = f"--config_files configs/{learner}.yaml configs/pad.yaml --tags {learner}".split()
    assert ["--array", "configs/array/datasets.yaml", *words] in commands(ROOT / f"configs/{learner}.yaml")


# Running, on a few small images.


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with data sets of a few images (`root`) and what a run leaves to start from (`run`)."""
    folder = tmp_path_factory.mktemp("configs")
    write_data_root(folder / "root")
    (folder / "run" / "checkpoints").mkdir(parents=True)
    params = flat_vsml((2, 2, 1), 2).init_params(jax.random.key(0))
    for name in ("learner.safetensors", "checkpoints/best.safetensors"):
        export_params(folder / "run" / name, params, {"config": WholeConfig().model_dump(mode="json")})
    return folder


@pytest.fixture
def small(data, monkeypatch):
    monkeypatch.setenv("VSML_CACHE_DIR", str(data / "cache"))
    return [f"data.root={data / 'root'}", "data.verify=false", "tracking.wandb.mode=disabled"]


def with_settings(words, settings):
    """Put settings into a command, before its own: of two --config only the last would count."""
    place = words.index("--config") + 1 if "--config" in words else len(words)
    return [*words[:place], *(["--config"] if place == len(words) else []), *settings, *words[place:]]


def shrunk(config):
    """Return settings that make a run as short as it can be with every task of its mixture in it."""
    few_shot = config.data.few_shot
    length = 3 if few_shot is None else few_shot.support + 1
    learners = [
        entry.model_dump(mode="json")
        | {"tune": {path: values[:1] for path, values in entry.tune.items()}}
        | {"datasets": None}
        | (  # the list is put into every entry of an array
            {} if entry.restore or entry.refit else {"model": {"type": config.model.type, **entry.model}}
        )
        for entry in config.evaluation.learners
    ]
    return [
        "training.iterations=1",
        f"training.population_size={len(config.training_specs)}",
        f"training.episode_length={length}",
        f"evaluation.episode_length={length}",
        "evaluation.count=1",
        "evaluation.tune_count=1",
        f"evaluation.learners={json.dumps(learners)}",
    ]


# Of arrays which entries are run; all of a paper's matrix differ in nothing but names of data sets.
# array/sgd is as sgd, and array/plateau as quickstart and algorithms/general.
ENTRIES = {
    "array/conv": (1, 5),
    "array/datasets": (6,),
    "array/eval_invariances": (2,),
    "array/sgd": (),
    "array/plateau": (),
    "array/islands": (),  # tests/test_slurm.py has one with a server
    # laws/base itself is run.
    "laws/meta_steps": (),
    "laws/prediction": (),
    "laws/state_size": (),
    "laws/tasks": (),
    "laws/tasks_by_heart": (),
    "laws/episode_length": (),
    "laws/evolution": (),
}

# What is run at the sizes that it says. All other images become 8x8, unless their task says another size.
OWN_SIZES = ("pad", "omniglot", "sgd_omniglot", "invariances", "few_examples", "long_curves")

# What is made smaller besides.
SMALLER = {
    # Each set of classes, each size, projections on and off, in 4 of their 24 combinations.
    "invariances": [
        "data.preprocess.resize={split: [[14, 14], [28, 28], [32, 32]]}",
        "data.preprocess.rand_proj={split: [false, true]}",
        "training.population_size=4",
    ],
    "algorithms/general": ["data.filter_classes=null", "evaluation.datasets=[digits]"],  # one shape
    "algorithms/omniglot28": [
        "data.few_shot={ways: 5, shots: 1, teach_queries: false}",
        "training.episode_length=6",
        "evaluation.episode_length=6",
        "evaluation.datasets=[omniglot]",
    ],
    "graphs": ["optimizer.learning_rate.warmup_steps=0"],
    "rules/small_tasks": ["evaluation.datasets=[a_plus_b]"],  # gates may be constant in so few examples
    "compare": ["evaluation.datasets=[mnist, {dataset: kmnist, optional: true}]"],
    "sgd": ["evaluation.datasets=[mnist]"],
    "few_examples": ["evaluation.datasets=[mnist]"],
    "long_curves": ["evaluation.datasets=[fashion_mnist]"],
    "figures/fig7": ["evaluation.datasets=[{dataset: mnist, preprocess: {shuffle: true}}]"],
    "clone": ["clone.follow=0", "evaluation.datasets=[mnist]"],
    "clone_deep": ["clone.follow=0", "evaluation.datasets=[mnist]"],
    "clone_learned": ["clone.follow=0", "evaluation.datasets=[mnist]"],
}

# The small folder has two images of a class, and all queries may be of one class.
TWO_WAYS = "{dataset: mnist, episode_length: 3, few_shot: {ways: 2, shots: 1, teach_queries: false}}"
for _name in ("benchmarks/k_shot", "benchmarks/split_mnist"):
    SMALLER[_name] = [f"evaluation.datasets=[{TWO_WAYS}]"]

AS_OTHERS = (
    "algorithms/mnist14",  # as baselines14, with the learner of general
    "algorithms/memory14",  # as memory14_ridge, with one reading less
    "improve_clone",  # as algorithms/general, with the synapse of clone
    "figures/fig6",  # as few_examples
    "figures/fig8",
    "introspect",  # test_introspection.py runs parts of it at full size
    "battery",  # as test_battery.py does, with one test
)

STREAMS = [path for path in CONFIGS if "\ncall: stream\n" in path.read_text(encoding="utf-8")]
SEARCHES = [path for path in CONFIGS if "\ncall: search\n" in path.read_text(encoding="utf-8")]

RUNS = [
    pytest.param(path, entry, id=name(path) + (f"-{entry}" if entry else ""))
    for path in CONFIGS + ARRAYS
    if name(path) not in AS_OTHERS and path not in STREAMS + SEARCHES
    for entry in (ENTRIES.get(name(path), (1,)) if path in ARRAYS else (None,))
]


def on_small_data(path, entry, data, small):
    """Return the first command of a heading, made small, with files where it says FILE and RUN."""
    places = {"FILE": data / "run" / "learner.safetensors", "RUN": data / "run"}
    words = [
        re.sub(r"\b(FILE|RUN)\b", lambda found: str(places[found[0]]), word)
        for word in commands(path)[0]
        if word != "--dry_run"
    ]
    if entry is not None:
        words += ["--array_index", str(entry)]
    settings = [*small, *shrunk(launch.read_config(launch.parse(words)))]
    if name(path) not in OWN_SIZES:
        settings.append("data.preprocess.resize=[8, 8]")
    if "datasets:" not in path.read_text(encoding="utf-8"):  # those of a file that is run itself
        settings.append("evaluation.datasets=[mnist]")
    return with_settings(words, [*settings, *SMALLER.get(name(path), ())])


@pytest.mark.slow
@pytest.mark.parametrize(("path", "entry"), RUNS)
def test_every_file_does_a_meta_step_and_an_evaluation(path, entry, data, small, hasty, tmp_path):
    words = on_small_data(path, entry, data, small)
    restored = [str(each.restore) for each in read_config(parse(words)).evaluation.learners]
    for name in restored:
        if (
            name.startswith(PRETRAINED_PREFIX)
            and name.removeprefix(PRETRAINED_PREFIX) not in pretrained_names()
        ):
            pytest.skip(f"{name} does not come with the library yet")
    run = tmp_path / "run"
    assert launch.main([*words, "--run_dir", str(run)]) == 0

    config = launch.read_config(launch.parse(words))
    learners = {compared.name for compared in config.evaluation.learners}
    if config.call in ("train", "clone"):
        learners.add("meta-trained")
        params = load_file(run / "learner.safetensors")
        assert params and all(np.isfinite(array).all() for array in params.values())
        (line,) = read_metrics(run / "metrics.jsonl")
        assert math.isfinite(line["meta_loss"]) and line["nonfinite"] == 0
    elif config.checkpoint.restore:
        learners.add("restored")
    if config.evaluation.start:
        learners.add("start")
    rows = json.loads((run / "evaluation.json").read_text())
    datasets = [spec.name for spec in config.evaluation_specs]
    starts = set(RESERVED_NAMES) - {"meta-trained", "restored"} | {config.model.type}
    seen = {("start" if row["learner"] in starts else row["learner"], row["dataset"]) for row in rows}
    assert seen == set(itertools.product(learners, datasets))
    assert all(math.isfinite(row["loss"]) and row[row["metric"]] >= 0 for row in rows)
    assert all(row["accuracy"] <= 1 for row in rows if row["metric"] == "accuracy")


@pytest.mark.slow
@pytest.mark.parametrize("path", STREAMS, ids=name)
def test_every_stream_is_lived_through_by_all_that_its_file_names(path, small, hasty, tmp_path):
    config = load_config([path])
    kind = config.stream.kind
    settings = [*small, "stream.tasks=2", "stream.seeds=1", "evaluation.episode_length=6"]
    if config.evaluation.datasets:
        settings.append("evaluation.datasets=[mnist]")  # of EMNIST the small folder has another split
    else:
        options = {**dict(kind.options), "task_length": 6}
        settings.append(f"stream.kind={json.dumps({'type': kind.type, 'options': options})}")
    run = tmp_path / "run"
    assert launch.main(["--config_files", str(path), "--run_dir", str(run), "--config", *settings]) == 0
    rows = json.loads((run / "stream.json").read_text())["measured"]
    assert [row["learner"] for row in rows] == [entry.name for entry in config.evaluation.learners]
    assert all(row["tasks"] == 2 and row["nonfinite"] == 0 and row["state"] > 0 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("path", SEARCHES, ids=name)
def test_every_search_breeds_two_generations(path, hasty, tmp_path, monkeypatch):
    monkeypatch.setenv("VSML_CACHE_DIR", str(tmp_path / "cache"))
    few = {"population": 12, "children": 8, "tournament": 2}
    settings = ["tracking.wandb.mode=disabled", "search.generations=2", "search.judging.seeds=4"]
    settings += [f"search.breeding.{key}={value}" for key, value in few.items()]
    settings += ["search.judging.gates=[4]", "search.judging.sums=[4]", "search.judging.functions=4"]
    run = tmp_path / "run"
    assert launch.main(["--config_files", str(path), "--run_dir", str(run), "--config", *settings]) == 0
    (line,) = [each for each in read_metrics(run / "metrics.jsonl") if each["step"] == 2]
    assert line["proposed"] >= 2 * few["children"]
    counted = json.loads((run / "funnel.json").read_text())
    assert any(stage == "S0" and count for stage, _, count in counted)
    assert (run / "rules.db").stat().st_size > 0 and (run / "complete").exists()


# What a user is told of data that cannot be used.


def refusal(folder, dataset, verify=False):
    """Return what launch.py says as it ends: with exit code 1, or 2 where it has made no folder yet."""
    words = ["--config_files", "configs/test.yaml", "--run_dir", str(folder / "run"), "--config"]
    settings = [f"training.dataset={dataset}", f"data.root={folder}", f"data.verify={json.dumps(verify)}"]
    told = io.StringIO()
    with contextlib.redirect_stderr(told), pytest.raises(SystemExit) as ended:
        launch.main([*words, *settings])
    if ended.value.code == 2:
        assert not (folder / "run").exists()
        return told.getvalue()
    assert str(ended.value).startswith("error: "), "a text goes to stderr, and the exit code is 1"
    return str(ended.value)


def test_kmnist_without_train_images_is_told_with_file_address_and_folder(tmp_path, monkeypatch):
    def unreachable(*args, **options):
        raise requests.ConnectionError("the network is unreachable")

    monkeypatch.setattr(requests, "get", unreachable)
    write_mnist(tmp_path, "KMNIST", "train", noise(4, 28, 28), np.arange(4))
    path = tmp_path / "KMNIST" / "raw" / "train-images-idx3-ubyte.gz"
    path.unlink()
    address = f"http://codh.rois.ac.jp/kmnist/dataset/kmnist/{path.name}"
    said = refusal(tmp_path, "kmnist", verify=True)
    assert f"{path} is missing and the download failed. Get {path.name} from {address} into the" in said
    assert f"folder {path.parent}, or set data.root or VSML_DATA_DIR" in said
    assert f"{address}: the network is unreachable" in said
    assert not list(path.parent.glob("*.part"))


def truncated(folder):
    write_mnist(folder, "MNIST", "train", noise(4, 28, 28), np.arange(4))
    path = folder / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    write(path, path.read_bytes()[:-9])
    return "mnist"


def with_an_eleventh_class(folder):
    write_mnist(folder, "MNIST", "train", noise(4, 28, 28), np.array([0, 1, 9, 10]))
    return "mnist"


def text_named_npz(folder):
    write(folder / "own.npz", b"x_train,y_train\n")
    return folder / "own.npz"


def images_of_two_sizes(folder):
    x = np.array([noise(4, 4), noise(3, 4)], dtype=object)
    np.savez(folder / "own.npz", x_train=x, y_train=np.arange(2))
    return folder / "own.npz"


def halves_of_two_sizes(folder):
    y = np.arange(2)
    np.savez(folder / "own.npz", x_train=noise(2, 4, 4), y_train=y, x_test=noise(2, 3, 4), y_test=y)
    return folder / "own.npz"


@pytest.mark.parametrize(
    ("broken", "verify", "message"),
    [
        (truncated, False, r"train-images-idx3-ubyte\.gz: truncated or not a \.gz file"),
        (truncated, True, r"train-images-idx3-ubyte\.gz: wrong checksum, got md5 .* set data\.verify: false"),
        (with_an_eleventh_class, False, r"train-labels-idx1-ubyte\.gz.*got labels 0\.\.10, expected 0\.\.9"),
        (text_named_npz, True, r"own\.npz: not an npz file \(a zip archive of arrays"),
        (images_of_two_sizes, True, r"own\.npz: an array could not be read .* images of different sizes"),
        (
            halves_of_two_sizes,
            True,
            r"own\.npz: got train and test images of uint8 \(4, 4, 1\) and uint8 \(3, 4, 1\)",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else getattr(value, "__name__", None),
)
def test_broken_data_end_with_one_message(broken, verify, message, tmp_path):
    assert re.search(message, refusal(tmp_path, broken(tmp_path), verify))


@pytest.mark.parametrize("path", SWEEPS, ids=name)
def test_a_sweep_starts_runs_that_log_what_it_optimises(path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    sweep = load_sweep_config(str(path))
    ends = {
        key: each["values"] if "values" in each else [each["min"], each["max"]]
        for key, each in sweep["parameters"].items()
    }
    for first_or_last in (0, -1):
        chosen = {key: {"value": values[first_or_last]} for key, values in ends.items()}
        parts = create_sweep_command_args({"args": chosen}) | {
            "env": ["/usr/bin/env"],
            "interpreter": ["python"],
            "program": [sweep["program"]],
        }
        command = [
            word
            for part in sweep["command"]
            for word in (parts[part[2:-1]] if part.startswith("${") else [part])
        ]
        assert command[:3] == ["/usr/bin/env", "python", "launch.py"]
        config = read_config(parse(command[3:]))
        settings = config.model_dump()
        for key, value in chosen.items():
            assert functools.reduce(lambda tree, part: tree[part], key.split("."), settings) == value["value"]
        assert launch.main([*command[3:], "--dry_run"]) == 0
        dataset = re.fullmatch(r"eval/(.*)/accuracy_last", sweep["metric"]["name"])[1]
        assert dataset in [spec.name for spec in config.evaluation_specs]
        assert config.evaluation.frequency <= config.training.iterations
