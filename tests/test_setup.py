import jax
import numpy as np
import pytest

from vsml.calls.train import Train
from vsml.config.files import ConfigError
from vsml.launching.schema import load_config
from vsml.meta import chunk_size
from vsml.meta.optimizers.antithetic import AntitheticEvolution
from vsml.meta.optimizers.evosax import Evolution
from vsml.meta.optimizers.gradient import BackPropagation
from vsml.meta.trials import Group
from vsml.setup import Setup
from vsml.system.comm import SerialCommunicator

DIGITS = ["training.dataset=digits", "training.population_size=6", "training.episode_length=3"]
DIGITS += ["evaluation.datasets=[digits]", "evaluation.episode_length=4", "evaluation.count=2"]


def config_of(*overrides):
    return load_config(overrides=[*DIGITS, *overrides])


def setup_of(*overrides):
    return Setup(config_of(*overrides))


def groups_of(setup):
    return setup.load_groups(SerialCommunicator())


def test_trials_of_a_mixture_are_grouped_by_shape_and_take_their_option():
    setup = setup_of(
        "data.preprocess.resize={split: [null, [4, 4]]}",
        "data.preprocess.rand_proj={split: [false, true], repeat: 2}",
    )
    large, small = groups_of(setup)
    assert large.learner.input_shape == (8, 8, 1) and small.learner.input_shape == (4, 4, 1)
    assert large.trials.tolist() == [0, 2, 4] and small.trials.tolist() == [1, 3, 5]
    assert [large.tasks[option].is_on("rand_proj") for option in large.options] == [False, True, False]
    assert [small.tasks[option].is_on("rand_proj") for option in small.options] == [False, True, False]


def test_trials_with_episodes_of_other_lengths_are_in_other_groups():
    short, long = groups_of(setup_of("training.episode_length={split: [3, 5], repeat: 2}"))
    assert short.trials.tolist() == [0, 1, 4, 5] and long.trials.tolist() == [2, 3]
    assert [group.tasks[0].episode_length for group in (short, long)] == [3, 5]


def test_few_shot_episodes_are_built_for_training_and_evaluation_each_as_configured():
    setup = setup_of(
        "data.few_shot={ways: 4, rotations: true}",
        "training.episode_length=5",
        "evaluation={episode_length: 6, datasets: [digits, {dataset: digits, few_shot: {ways: 3, shots: 2},"
        " episode_length: 9, preprocess: {pad: {output: 10}}}]}",
    )
    (group,) = groups_of(setup)
    (task,) = group.tasks
    assert (task.few_shot.ways, task.few_shot.shots, task.few_shot.rotations) == (4, 1, True)
    assert (task.episode_length, group.learner.num_classes) == (5, 4)
    sources, _ = setup.load_evaluation_data(SerialCommunicator())
    inherited, own = (each.task for each in setup.evaluation_tasks(sources))
    assert (inherited.few_shot.ways, inherited.few_shot.rotations, inherited.episode_length) == (4, True, 6)
    assert (own.few_shot.shots, own.few_shot.rotations, own.episode_length) == (2, False, 9)
    assert (own.real_classes, own.num_classes) == (3, 10)
    with pytest.raises(ConfigError, match=r"few_shot\.ways: got 11, expected 2 to 10, the classes of digits"):
        groups_of(
            setup_of("data.few_shot={ways: 11}", "training.episode_length=12", "evaluation.datasets=[]")
        )


def test_one_data_set_in_several_tasks_is_one_array():
    setup = setup_of("data.preprocess.rand_proj={split: [false, true]}")
    (group,) = groups_of(setup)
    plain, projected = group.tasks
    assert plain.source.images is projected.source.images


def test_the_optimizer_is_the_configured_one():
    params = {"w": np.zeros(3, np.float32)}
    assert isinstance(setup_of().optimizer(params), AntitheticEvolution)
    assert isinstance(setup_of("optimizer.algorithm=Open_ES").optimizer(params), Evolution)
    assert isinstance(setup_of("optimizer.type=gradient").optimizer(params), BackPropagation)


def test_the_plain_algorithm_refuses_options_and_names_the_one_that_has_them():
    setup = setup_of("optimizer.algorithm_options={fitness_shaping_fn: centered_rank}")
    with pytest.raises(ConfigError, match=r"algorithm_options: antithetic has none, .*; Open_ES is the same"):
        setup.optimizer({"w": np.zeros(3, np.float32)})


@pytest.mark.parametrize(
    ("trials", "ranks", "expected"),
    [
        ([1], 1, 1),
        ([64], 1, 64),
        ([6], 1, 2),  # three turns of both cores; 8, or 4 + 4, would be four
        ([6], 4, 1),
        ([3, 3], 2, 4),
        ([1000], 1, 1024),  # 24 fillers are worth it
        ([1024], 1, 1024),
        ([4096], 1, 1024),  # no larger than the bound
        ([1024], 128, 8),
        ([50_000], 1, 1024),
        ([50_000], 128, 32),
    ],
)
def test_a_chunk_is_a_power_of_two_that_gives_each_rank_its_share_of_the_work(trials, ranks, expected):
    assert jax.local_device_count() == 2
    groups = [Group(None, (), np.arange(n, dtype=np.int32), np.zeros(n, np.int32)) for n in trials]
    assert chunk_size.choose_chunk_size(groups, ranks, lambda group: 1) == expected


def test_an_accelerator_takes_the_fewest_calls_that_its_memory_allows(monkeypatch):
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    monkeypatch.setattr(chunk_size, "trials_in_memory", lambda _: 300)
    groups = [Group(None, (), np.arange(1000, dtype=np.int32), np.zeros(1000, np.int32))]
    assert [
        chunk_size.choose_chunk_size(groups, ranks, lambda group: 1) for ranks in (1, 4, 8, 16, 1000)
    ] == [
        256,
        256,
        128,
        64,
        1,
    ]


def test_more_ranks_than_chunks_are_refused():
    setup = setup_of("training.chunk_size=4")
    with pytest.raises(ConfigError, match=r"training.chunk_size: got 4.* 2 chunks, fewer than the 3 ranks"):
        setup.chunk_size(3)


def test_a_setting_that_does_not_fit_the_data_is_a_mistake_of_the_configuration():
    with pytest.raises(ConfigError, match="filter_classes"):
        groups_of(setup_of("data.filter_classes=[3, 12]"))
    with pytest.raises(ConfigError, match=r"pad"):
        groups_of(setup_of("data.preprocess.pad.input=[6, 8, 1]"))


def test_an_optional_data_set_that_is_missing_is_left_out(tmp_path):
    setup = setup_of(
        f"data.root={tmp_path}", "evaluation.datasets=[digits, {dataset: mnist, optional: true}]"
    )
    sources, missing = setup.load_evaluation_data(SerialCommunicator())
    assert list(sources) == ["digits"]
    assert len(missing) == 1 and "t10k-images" in missing[0]
    assert [each.name for each in setup.evaluation_tasks(sources)] == ["digits"]


def test_what_has_no_meta_parameters_cannot_be_trained():
    setup = Setup(load_config(overrides=["model.type=sgd"]))
    with pytest.raises(ConfigError, match=r"model\.type: got sgd, .* expected call: evaluate"):
        setup.optimizer({})


def test_evaluation_on_shapes_that_ask_for_other_meta_parameters_is_refused_before_training():
    small = "evaluation.datasets=[digits, {dataset: digits, name: small, preprocess: {resize: [6, 6]}}]"
    vsml, rnn = setup_of(small), setup_of(small, "model.type=meta_rnn")
    vsml.check_evaluation(vsml.evaluation_shapes())
    with pytest.raises(ConfigError, match=r"1 mistake.*\n.* small: meta_rnn has other meta-parameters"):
        rnn.check_evaluation(rnn.evaluation_shapes())
    with pytest.raises(ConfigError, match="pad both to one shape"):
        Train().plan(rnn, ranks=1)


class OtherRanks(SerialCommunicator):
    """Stand for ranks that send what they are told to, beside what this one sends."""

    def __init__(self, *others):
        self.others, self.size = others, 1 + len(others)

    def allgather(self, array):
        return np.stack([array, *map(np.array, self.others)])


def test_all_ranks_have_to_tick_by_the_same_kernel():
    tiled = setup_of("model.vsml.kernel=tiled")
    tiled.check_same_kernel(OtherRanks(1, 1))
    with pytest.raises(
        ConfigError, match=r"'tiled', which is tiled on 2 of the ranks; native on 1 of the ranks"
    ):
        tiled.check_same_kernel(OtherRanks(1, 2))
    setup_of("model.type=meta_rnn").check_same_kernel(OtherRanks(1, 2))
