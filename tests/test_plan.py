"""The plan of a run, told before anything is loaded."""

from vsml.config_files import load_config
from vsml.plan import describe

FEW_SHOT = [
    "data.few_shot={ways: 4, shots: 2, rotations: true}",
    "training={dataset: digits, episode_length: 9}",
    "evaluation={episode_length: 12, datasets: [digits, {dataset: digits, few_shot: {ways: 7},"
    " episode_length: 8}, {dataset: mnist, few_shot: null}]}",
]


def test_few_shot_episodes_are_told_with_their_classes_and_steps():
    told = describe(load_config(overrides=FEW_SHOT), ranks=1).splitlines()
    assert any(line.startswith("group 1: inputs 8x8x1, 4 classes") for line in told)
    assert "  task: digits, 4-way 2-shot episodes of rotated classes (1024 units)" in told
    assert told[-3:] == [
        "  digits: digits, 4-way 2-shot episodes of rotated classes, subset test",
        "  digits+7way1shot+8steps: digits, 7-way 1-shot episodes, subset test, 8 steps",
        "  mnist-few_shot: mnist, subset test",
    ]


def test_learners_to_compare_are_told_with_how_many_settings_are_tried():
    tuned = "{name: SGD, model: {type: sgd}, tune: {sgd.num_layers: [1, 2], sgd.learning_rate: [0.1, 1]}}"
    learners = f"evaluation.learners=[{{name: VSML, restore: some/run}}, {tuned}]"
    told = describe(load_config(overrides=["call=evaluate", learners]), ranks=1).splitlines()
    assert told[-2:] == [
        "  learner VSML from some/run",
        "  learner SGD, the best of 4 settings on 8 episodes",
    ]
