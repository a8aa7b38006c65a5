"""The configuration room: schema, splits, files, overrides, arrays, errors and the reference page."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from vsml.config.array import array_index, load_array
from vsml.config.files import ConfigError, dump
from vsml.config.preprocess import Preprocess
from vsml.config.schema import Config
from vsml.config.sections import EvaluationConfig, EvaluationTask, FewShot, TrainingConfig
from vsml.launching.reference import reference
from vsml.launching.schema import WholeConfig, load_array_configs, load_config
from vsml.learners.vsml import VsmlConfig
from vsml.meta.optimizers import OptimizerConfig
from vsml.meta.schedules import Schedule
from vsml.settings import Split, deep_merge

REPOSITORY = Path(__file__).parents[1]


def load(*overrides, files=(), **options):
    return load_config(files, overrides, default=None, **options)


def mistakes(*overrides, files=()):
    with pytest.raises(ConfigError) as caught:
        load(*overrides, files=files)
    return caught.value.mistakes


@pytest.fixture
def write(tmp_path):
    def write_file(text, name="run.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


# The reference page.


def test_the_reference_page_is_up_to_date_and_has_every_setting():
    page = (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == reference(), "run `make docs`"

    def leaves(values):
        for key, value in values.items():
            yield from leaves(value) if isinstance(value, dict) and value else [key]

    missing = [key for key in leaves(Config().model_dump()) if f"| `{key}` |" not in page]
    assert not missing


# Merging, files, overrides.


def test_mappings_merge_and_all_else_replaces_and_nothing_is_mutated():
    below = {"a": {"b": 1, "c": [1, 2]}, "d": {"split": [1, 2], "repeat": 3}}
    above = {"a": {"c": [3]}, "d": {"split": [4]}}
    copies = yaml.safe_load(yaml.safe_dump([below, above]))
    assert deep_merge(below, above) == {"a": {"b": 1, "c": [3]}, "d": {"split": [4]}}
    assert [below, above] == copies
    assert deep_merge(below, {"a": None})["a"] is None


def test_files_win_in_order_and_overrides_win_over_files(write):
    first = write("seed: 1\nname: first\ntraining: {iterations: 5}", "a.yaml")
    second = write("seed: 2\ntraining: {batch_size: 3}", "b.yaml")
    config = load("name=last", "name=really_last", files=[first, second])
    assert (config.seed, config.name) == (2, "really_last")
    assert (config.training.iterations, config.training.batch_size) == (5, 3)


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-3", "+1e-3", "0.001", ".1e-2"])
def test_exponents_are_numbers_in_files_overrides_and_python(text, write):
    assert load(f"optimizer.learning_rate={text}").optimizer.learning_rate == 1e-3
    path = write(f"optimizer: {{learning_rate: {text}, algorithm_options: {{beta: {text}}}}}")
    config = load(files=[path])
    assert config.optimizer.learning_rate == 1e-3
    assert config.optimizer.algorithm_options == {"beta": 1e-3}
    assert OptimizerConfig.model_validate({"learning_rate": text}).learning_rate == 1e-3


def test_whole_numbers_may_be_written_with_an_exponent():
    config = load("training.iterations=1e4")
    assert config.training.iterations == 10_000
    assert isinstance(config.training.iterations, int)


def test_overrides_go_into_lists_of_defaults_and_append_after_the_last():
    config = load("model.vsml.layers.0.out_size=32", "model.vsml.layers.1={type: dense}")
    assert [layer.out_size for layer in config.model.vsml.layers] == [32, None]
    config = load("evaluation.datasets.2={dataset: digits, preprocess: {rand_proj: true}}")
    assert [spec.name for spec in config.evaluation_specs] == ["mnist", "fashion_mnist", "digits+rand_proj"]
    assert load("data.filter_classes.0=7").data.filter_classes == (7,)


def test_an_override_value_may_hold_an_equals_sign_and_colons():
    assert load("data.root=/a=b:c").data.root == "/a=b:c"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.iterations",
            "got 'training.iterations', expected path=value",
        ),
        ("=3", "expected path=value"),
        ("training..iterations=3", "expected path=value"),
        (
            "model.vsml.layers.2.out_size=3",
            "expected a number from 0 to 1 (from --config",
        ),
        ("model.vsml.layers.x=3", "'x' is no place in a list; expected a number from 0 to 1"),
        ("training.0=3", "0 is no key of a mapping; expected one of iterations, dataset"),
        ("training.iterations=[", "not valid YAML"),
    ],
)
def test_a_bad_override_says_what_is_wrong(override, message):
    (mistake,) = mistakes(override)
    assert message in mistake


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [\n", "line 2 column 1: not valid YAML"),
        ("- 1\n", "got [1] at the top, expected a mapping"),
        ("seed: 1\nname: a\nseed: 2\n", "line 3: seed is given twice, first in line 1"),
        (
            "training:\n  iterations: 1\n  iterations: 1\n",
            "line 3: training.iterations is given twice",
        ),
        ("name: 2021-13-01\n", "not valid YAML: month must be in 1..12"),
        ("name: &a [*a]\n", "an alias that contains itself"),
        ("name: !!python/name:os.system ''\n", "could not determine a constructor"),
        ("name: \0\n", "not valid YAML"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_place(text, message, write):
    path = write(text)
    (mistake,) = mistakes(files=[path])
    assert mistake.startswith(str(path)) and message in mistake


def test_missing_files_are_all_named_and_empty_ones_change_nothing(write, tmp_path):
    found = mistakes(files=[tmp_path / "a.yaml", tmp_path / "b.yaml", tmp_path])
    assert len(found) == 3
    assert f"{tmp_path / 'a.yaml'}: cannot be read: No such file" in found[0]
    assert load(files=[write("# nothing\n")]) == WholeConfig()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(default=tmp_path / "default.yaml")


# Errors.


def test_all_mistakes_come_in_one_error_with_path_source_and_suggestion(write):
    path = write(
        "seed: -1\n"
        "training:\n"
        "  iteratons: 5\n"
        "  batch_size: many\n"
        "population_size: 4\n"
        "data:\n"
        "  preprocess:\n"
        "    resize: {split: [null, [14, a]]}\n"
        "    pad: {split: [{}, {outptu: 3}]}\n"
        "evaluation: {datasets: [digits, {name: x}]}\n"
        "model: {vsml: {separate_backward: true}}\n"
    )
    found = mistakes("model.vsml.output_channel=8", "training.episode_length", files=[path])
    assert sorted(found) == sorted(
        [
            "--config training.episode_length: got 'training.episode_length', expected path=value, such as "
            "training.iterations=5",
            f"seed: got -1, expected greater than or equal to 0 (from {path} line 1)",
            f"training.iteratons: unknown key; did you mean training.iterations? (from {path} line 3)",
            f"training.batch_size: got 'many', expected a whole number (from {path} line 4)",
            f"population_size: unknown key; did you mean training.population_size? (from {path} line 5)",
            f"data.preprocess.resize.split.1.1: got 'a', expected a whole number (from {path} line 8)",
            "data.preprocess.pad.split.1.outptu: unknown key; "
            f"did you mean data.preprocess.pad.split.1.output? (from {path} line 9)",
            f"evaluation.datasets.1.dataset: missing, and it has no default (from {path} line 10)",
            "model.vsml.separate_backward: got True, expected false unless backward_pass is true "
            f"(from {path} line 11)",
            "model.vsml.output_channel: got 8, expected less than synapse.message_size, 8 "
            "(from --config model.vsml.output_channel=8)",
        ]
    )


def test_what_rests_on_a_wrong_value_is_not_judged():
    found = mistakes("model.vsml.output_channel=9", "model.vsml.synapse.message_size=ten")
    assert [mistake.split(":")[0] for mistake in found] == ["model.vsml.synapse.message_size"]


def test_problems_between_sections_are_listed_beside_wrong_values():
    found = mistakes("data.preprocess.rand_proj=true", "data.preprocess.shuffle=true", "seed=x")
    assert {mistake.split(":")[0] for mistake in found} >= {"seed", "data.preprocess.shuffle"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.batch_size=true", "got True, expected a whole number"),
        ("training.batch_size='4'", "got '4', expected a whole number"),
        ("training.batch_size=1.5", "got 1.5, expected a whole number"),
        ("training.population_size=0", "expected greater than or equal to 1"),
        ("training.loss_type=first", "got 'first', expected 'mean' or 'last'"),
        ("training=5", "training: got 5, expected a mapping"),
        (
            "training.batch_size={split: [1, 2]}",
            "only training.dataset, training.episode_length, data.filter",
        ),
        ("data.preprocess={split: [{}]}", "only training.dataset, training.episode_length, data.filter"),
        ("data.verify=1", "got 1, expected true or false"),
        ("data.filter_classes=[1, 1]", "expected distinct classes"),
        ("data.filter_classes=[]", "expected at least 1 in the list"),
        ("data.preprocess.resize=14", "got 14, expected a list"),
        (
            "data.preprocess.rand_proj={split: []}",
            "data.preprocess.rand_proj.split: got [], expected at least 1",
        ),
        ("data.preprocess.rand_proj={split: [true], repeat: 0}", "rand_proj.repeat: got 0, expected greater"),
        ("optimizer.learning_rate=.nan", "expected a finite number"),
        ("optimizer.learning_rate=0", "expected greater than 0"),
        ("optimizer.learning_rate={type: linear, init: 1}", "learning_rate.end: got None, expected a number"),
        (
            "optimizer.learning_rate={type: constant, init: 1, end: 1}",
            "expected no end, as the type is constant",
        ),
        (
            "optimizer.learning_rate={type: exponential, init: 1, end: 0}",
            "expected greater than 0, as the type",
        ),
        (
            "optimizer.learning_rate={type: constant, init: 1, warmup_steps: 10002}",
            "at most training.iterations",
        ),
        ("optimizer.noise_std={type: constant, init: 1, warmup_steps: 1}", "noise cannot start at 0"),
        ("optimizer.noise_std={type: constant, init: 1, cooldown_share: 0.1}", "noise cannot end at 0"),
        ("optimizer.truncation_length=100", "expected null, as es does not back-propagate"),
        ("optimizer.noise_std={type: cosine, init: 1, end: 0}", "noise cannot end at 0"),
        (
            "model.vsml.random_features.keep_input=true",
            "got True, expected false without random_features.count",
        ),
        ("model.vsml.random_features.activation=relu", "got 'relu', expected linear without random_features"),
        (
            "model.vsml={random_features: {count: 4}, layers: [{type: conv, out_channels: 2}, {}]}",
            "expected null, as random features are no image",
        ),
        ("evaluation.datasets=[digits, digits]", "got 'digits', expected a `name` of its own"),
        (
            "evaluation.datasets.0={dataset: a, preprocess: {shuffle: true, rand_proj: true}}",
            "one or the other",
        ),
        (
            "evaluation.datasets.0={dataset: mnist, preprocess: {resize: {split: [null]}}}",
            "expected a list; only",
        ),
        (
            "data.few_shot={ways: 100, shots: 5}",
            "training.episode_length: got 500, expected more than few_shot.ways * shots, 500",
        ),
        ("data.few_shot={ways: 1}", "data.few_shot.ways: got 1, expected greater than or equal to 2"),
        ("data.few_shot={way: 5}", "unknown key; did you mean data.few_shot.ways?"),
        ("data.few_shot.ways={split: [5, 20]}", "expected a whole number; only training.dataset"),
        (
            "evaluation={datasets: [{dataset: a, few_shot: {}}], episode_length: 5}",
            "evaluation.episode_length: got 5, expected more than few_shot.ways * shots, 5",
        ),
        (
            "evaluation.datasets=[{dataset: a, few_shot: {ways: 3}, episode_length: 2}]",
            "evaluation.datasets.0.episode_length: got 2, expected more than few_shot.ways * shots, 3",
        ),
        (
            "evaluation={batch_size: 2, datasets: [{dataset: a, few_shot: {}}, {dataset: b, few_shot: {}}]}",
            "evaluation.batch_size: got 2, expected 1 with few_shot: several images at once",
        ),
        ("name=a/b", "expected text without spaces and slashes"),
        ("model.vsml.layers=[]", "expected at least 1 in the list"),
        (
            "model.vsml.layers=[{type: dense}, {type: dense}]",
            "layers.0.out_size: got None, expected a number",
        ),
        ("model.vsml.layers.0.out_size=3", "expected null, as the last layer feeds the classes"),
        (
            "model.vsml.layers=[{type: conv, out_channels: 2}]",
            "layers.0.type: got 'conv', expected dense, as the last layer feeds the classes",
        ),
        (
            "model.vsml.layers=[{type: cone, out_channels: 2}, {}]",
            "layers.0.type: got 'cone', expected one of dense, conv, conv1d, or package.module:Name",
        ),
        (
            "model.vsml.layers=[{out_channels: 2, stride: 2}, {}]",
            "layers.0.type: got None, expected 'conv' or 'conv1d' for a layer with out_channels, stride",
        ),
        (
            "model.vsml.layers=[{type: conv1d, out_channels: 2, kernel_size: 4}, {}]",
            "layers.0.kernel_size: got 4, expected an odd number",
        ),
        ("model.vsml.layers=[{type: conv}, {}]", "layers.0.out_channels: missing"),
        (
            "model.vsml.layers=[{type: conv, out_channels: 2, out_size: 2}, {}]",
            "layers.0.out_size: unknown key; known here: kernel_size, options, out_channels, stride, type",
        ),
        (
            "model.vsml.layers=[{type: conv, out_channels: 2, strides: 2}, {}]",
            "layers.0.strides: unknown key; did you mean model.vsml.layers.0.stride?",
        ),
        ("model.vsml.synapse={message_size: 1}", "expected less than synapse.message_size, 1"),
        (
            "model.vsml={feed_label: true, output_channel: 0, synapse: {message_size: 1}}",
            "message_size of 2 or more",
        ),
        ("model.vsml.synapse.random_fraction=1.1", "expected less than or equal to 1"),
        ("model.type=vsmll", "got 'vsmll', expected one of vsml, "),
    ],
)
def test_each_mistake_has_one_clear_message(override, message):
    (mistake,) = mistakes(override)
    assert message in mistake
    assert f"(from --config {override})" in mistake


def test_sections_check_themselves_in_python_too():
    with pytest.raises(ValidationError, match="separate_backward: got True, expected false unless"):
        VsmlConfig(separate_backward=True)
    with pytest.raises(ValidationError, match="end: got None"):
        Schedule(type="linear", init=1.0)


def test_configurations_are_frozen_and_defaults_are_not_shared():
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        config.model.vsml.synapse.state_size = 1
    with pytest.raises(AttributeError):
        Split((1, 2)).repeat = 2
    assert config.optimizer.algorithm_options is not Config().optimizer.algorithm_options


# Splits and tasks.


def test_unit_i_takes_option_i_over_repeat_modulo_their_number():
    config = load(
        "training.dataset={split: [digits, mnist]}",
        "data.preprocess.rand_proj={split: [false, true], repeat: 2}",
        "data.preprocess.pad={split: [{}, {}, {output: {split: [20, 30], repeat: 6}}]}",
    )
    specs = config.training_specs
    assert len(specs) == 12
    for unit, spec in enumerate(specs):
        assert spec.dataset == ["digits", "mnist"][unit % 2]
        assert spec.preprocess.rand_proj is [False, True][unit // 2 % 2]
        assert spec.preprocess.pad.output == ([20, 30][unit // 6] if unit % 3 == 2 else None)


def test_the_mixture_is_cut_to_the_population():
    config = load(
        "data.preprocess.shuffle={split: [false, true], repeat: 1000000007}", "training.population_size=4"
    )
    assert len(config.training_specs) == 4


def test_specs_of_equal_tasks_are_equal_and_hash_alike():
    plain, same, other = load("data.preprocess.resize={split: [[8, 8], [8, 8], null]}").training_specs
    assert plain == same and hash(plain) == hash(same) and plain != other


def test_a_split_in_python_equals_the_one_in_yaml():
    training = TrainingConfig(dataset=Split(("digits", "mnist"), repeat=3))
    assert training == load("training.dataset={split: [digits, mnist], repeat: 3}").training
    with pytest.raises(ValidationError, match="dataset"):
        TrainingConfig(dataset=Split((1, 2)))


def test_shuffle_and_projection_may_take_turns():
    config = load(
        "data.preprocess.rand_proj={split: [false, true]}", "data.preprocess.shuffle={split: [true, false]}"
    )
    assert [spec.preprocess.shuffle for spec in config.training_specs] == [True, False]


def test_evaluation_inherits_the_first_option_and_overrides_only_what_it_names():
    config = load(
        "data.preprocess={resize: {split: [[14, 14], [28, 28]]}, pad: {output: 20}}",
        "data.filter_classes={split: [[0, 1], [2, 3]]}",
        "evaluation.datasets=[digits, {dataset: mnist, optional: true, filter_classes: null,"
        " preprocess: {resize: null, pad: {input: [32, 32, 1]}}}]",
    )
    first, second = config.evaluation_specs
    assert (first.name, first.optional, first.task.filter_classes) == ("digits", False, (0, 1))
    assert first.task.preprocess == Preprocess.model_validate({"resize": [14, 14], "pad": {"output": 20}})
    assert (second.optional, second.task.filter_classes) == (True, None)
    assert second.task.preprocess.resize is None
    assert (second.task.preprocess.pad.input, second.task.preprocess.pad.output) == ((32, 32, 1), 20)


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("digits", "digits"),
        ("folder/mine.npz", "mine"),
        ("{dataset: digits, preprocess: {rand_proj: true}}", "digits+rand_proj"),
        ("{dataset: mnist, preprocess: {resize: [14, 14]}}", "mnist@14x14"),
        (
            "{dataset: mnist, preprocess: {resize: null, shuffle: true, permute_labels: false}}",
            "mnist@unresized-permute_labels+shuffle",
        ),
        (
            "{dataset: mnist, filter_classes: [1, 5], preprocess: {pad: {output: 62}}}",
            "mnist+classes_1_5+pad",
        ),
        ("{dataset: mnist, name: mine, preprocess: {shuffle: true}}", "mine"),
        ("{dataset: omniglot, few_shot: {}}", "omniglot+5way1shot"),
        ("{dataset: omniglot, few_shot: {ways: 20, rotations: true}}", "omniglot+20way1shot+rotations"),
        ("{dataset: omniglot, few_shot: null, episode_length: 9}", "omniglot-few_shot+9steps"),
    ],
)
def test_evaluation_names_say_what_differs(entry, name):
    (spec,) = load(f"evaluation.datasets=[{entry}]").evaluation_specs
    assert spec.name == name


def test_few_shot_and_the_length_of_episodes_are_inherited_or_given_whole():
    config = load(
        "data.few_shot={shots: 2, rotations: true}",
        "training={episode_length: 11, dataset: {split: [digits, omniglot]}}",
        "evaluation.episode_length=12",
        "evaluation.datasets=[mnist, {dataset: kmnist, few_shot: {ways: 20}, episode_length: 21},"
        " {dataset: digits, few_shot: null, episode_length: null}]",
    )
    trained = FewShot(ways=5, shots=2, rotations=True)
    assert [spec.few_shot for spec in config.training_specs] == [trained, trained]
    assert [(spec.task.few_shot, spec.task.episode_length) for spec in config.evaluation_specs] == [
        (trained, 12),
        (FewShot(ways=20, shots=1, rotations=False), 21),
        (None, 12),
    ]
    assert load("data.few_shot.ways=3").data.few_shot == FewShot(ways=3)
    assert load().evaluation_specs[0].task.episode_length == 2000
    assert load().training_specs[0].few_shot is None


def test_the_length_of_episodes_may_be_split_and_examples_are_counted_by_unit():
    config = load(
        "training={episode_length: {split: [10, 30], repeat: 2}, population_size: 5, batch_size: 3}"
    )
    assert [spec.episode_length for spec in config.training_specs] == [10, 10, 30, 30]
    assert config.examples_per_step == 3 * (10 + 10 + 30 + 30 + 10)


def test_few_shot_has_no_inner_batch():
    (mistake,) = mistakes("training.batch_size=2", "data.few_shot={ways: 3}")
    assert mistake.startswith("training.batch_size: got 2, expected 1 with few_shot: several images at once")


# Writing.


def test_a_rich_configuration_survives_a_round_trip_through_yaml(write):
    config = load(
        "training.dataset={split: [digits, mnist], repeat: 2}",
        "data.preprocess={resize: {split: [null, [14, 14]]}, pad: {split: [{}, {output: 62}]}}",
        "optimizer.learning_rate={type: cosine, init: 1e-5, end: 0, warmup_steps: 3}",
        "optimizer.algorithm_options={beta: 1e-7, flag: true}",
        "evaluation.datasets.1={dataset: mnist, filter_classes: null, preprocess: {pad: {output: 3}}}",
        "data.filter_classes=[0, 1]",
        "data.few_shot={ways: 3}",
        "evaluation.datasets.2={dataset: digits, few_shot: {rotations: true}, episode_length: 30}",
        "evaluation.datasets.3={dataset: digits, few_shot: null}",
        "name='2021'",
        "data.root='größe: 1e-3'",
        tags=["a"],
    )
    text = dump(config)
    again = load(files=[write(text)])
    assert again == config and dump(again) == text
    assert again.evaluation_specs == config.evaluation_specs
    assert yaml.safe_load(text)["evaluation"]["datasets"][1]["preprocess"] == {"pad": {"output": 3}}


def test_tags_are_added_to_those_of_the_files(write):
    path = write("tracking: {wandb: {tags: [a]}}")
    assert load(files=[path], tags=["b", "c"]).tracking.wandb.tags == ("a", "b", "c")


# Arrays.


def test_array_entries_lie_between_files_and_overrides(write):
    overlay = write("training: {iterations: 7, batch_size: 7, episode_length: 7}", "configs/overlay.yaml")
    array = write(
        "array:\n"
        "  - {config_files: [overlay.yaml], config: [training.batch_size=8], tags: [first]}\n"
        "  - {config: {training: {batch_size: 9}, data.root: x}}\n"
        "  - config: [training.batch_size=5, {seed: 4}]\n",
        "configs/array/sweep.yaml",
    )
    below = write("training: {iterations: 6}", "below.yaml")
    entries = load_array(array)
    configs = load_array_configs(entries, [below], ["training.episode_length=9"], tags=["all"], default=None)
    assert entries[0].config_files == (overlay,)
    training = [config.training for config in configs]
    assert [(t.iterations, t.batch_size, t.episode_length) for t in training] == [
        (7, 8, 9),
        (6, 9, 9),
        (6, 5, 9),
    ]
    assert configs[0].tracking.wandb.tags == ("first", "all")
    assert (configs[1].data.root, configs[2].seed) == ("x", 4)


def test_a_grid_is_a_product_with_the_first_axis_slowest(write):
    grid = write(
        "grid:\n"
        "  - [{config: [seed=0], tags: [a]}, {config: [seed=1]}]\n"
        "  - [{config: [name=x]}, {config: [name=y], tags: [b]}, {config: [name=z]}]\n"
    )
    configs = load_array_configs(load_array(grid), default=None)
    pairs = [(config.seed, config.name) for config in configs]
    assert pairs == [(0, "x"), (0, "y"), (0, "z"), (1, "x"), (1, "y"), (1, "z")]
    assert configs[1].tracking.wandb.tags == ("a", "b")


def test_a_subset_keeps_entries_in_the_order_given(write):
    array = write("array: [{tags: [a]}, {tags: [b]}, {tags: [c]}, {tags: [d]}, {tags: [e]}]")
    assert [entry.tags[0] for entry in load_array(array, "5,1-3")] == ["e", "a", "b", "c"]
    for subset in ("0", "6", "2-1", "x", "", "1,", "-2"):
        with pytest.raises(ConfigError, match="expected numbers or ranges from 1 to 5"):
            load_array(array, subset)
    with pytest.raises(ConfigError, match="named twice"):
        load_array(array, "1-3,2")


def test_the_index_counts_from_one_and_the_option_goes_before_slurm():
    assert array_index(2, 3, {"SLURM_ARRAY_TASK_ID": "3"}) == 2
    assert array_index(None, 3, {"SLURM_ARRAY_TASK_ID": "3"}) == 3
    with pytest.raises(ConfigError, match="3 entries and none was chosen: expected --array_index"):
        array_index(None, 3, {})
    for index in (0, 4, -1):
        with pytest.raises(ConfigError, match=f"--array_index: got {index}, expected a number from 1 to 3"):
            array_index(index, 3, {})
    with pytest.raises(ConfigError, match="SLURM_ARRAY_TASK_ID: got 4, expected a number from 1 to 3"):
        array_index(None, 3, {"SLURM_ARRAY_TASK_ID": "4"})


def test_mistakes_of_all_entries_come_in_one_error(write):
    array = write("array: [{config: [seed=x]}, {}, {config: [nme=a]}, {config: [seed]}]")
    with pytest.raises(ConfigError) as caught:
        load_array_configs(load_array(array), overrides=["training.batch_size=0"], default=None)
    found = caught.value.mistakes
    assert len(found) == 4, "what is wrong in every entry is said once"
    assert f"seed: got 'x', expected a whole number (from {array} entry 1)" in found
    assert f"nme: unknown key; did you mean name? (from {array} entry 3)" in found
    assert any("expected path=value" in mistake and "entry 4" in mistake for mistake in found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "expected entries in one of `array` and `grid`"),
        ("array: [{}]\ngrid: [[{}]]", "expected entries in one of `array` and `grid`"),
        ("array: [{confg: [seed=1]}]", "array.0.confg: unknown key; did you mean array.0.config?"),
        ("grid: [[{}], []]", "grid.1: got \\[\\], expected at least 1 in the list"),
        ("array: [{config_files: [none.yaml]}]", "entry 1: config file none.yaml is not in"),
        ("array: [{config: [3]}]", "entry 1: config: got 3, expected path=value or a mapping"),
        ("array: [", "not valid YAML"),
    ],
)
def test_a_bad_array_file_says_what_is_wrong(text, message, write):
    with pytest.raises(ConfigError, match=message):
        load_array(write(text))


def test_evaluation_entries_in_python_are_those_in_yaml():
    task = EvaluationTask(dataset="digits", preprocess=Preprocess(rand_proj=True))
    config = Config(evaluation=EvaluationConfig(datasets=("mnist", task)))
    text = "evaluation.datasets=[mnist, {dataset: digits, preprocess: {rand_proj: true}}]"
    assert config.evaluation_specs == load(text).evaluation_specs


@pytest.mark.parametrize("override", ["evaluation.untrained=false", "evaluation={untrained: false}"])
def test_an_old_key_works_with_a_warning_that_names_the_present_one(override, write):
    with pytest.warns(DeprecationWarning, match=r"evaluation\.untrained is evaluation\.start now"):
        config = load(override)
    assert config.evaluation.start is False
    with pytest.warns(DeprecationWarning, match=r"evaluation\.start now; .* \(from .*\.yaml\)"):
        config = load(files=[write("evaluation: {untrained: false}\n")])
    assert config.evaluation.start is False
