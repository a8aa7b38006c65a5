"""Learning tests, one ability a file. A new one is a file here and a line below."""

from vsml.battery.abilities import (
    calibration,
    constant_label,
    copied_bit,
    garbage,
    gates,
    input_scale,
    irrelevant_inputs,
    lesion,
    linear_map,
    one_input,
    pairs,
    parity,
    rare_class,
    second_sight,
    sequences,
    sums,
    tanh_network,
    vision,
    wrong_labels,
)
from vsml.battery.learning_test import LearningTest

ABILITIES: tuple[LearningTest, ...] = (
    # basic
    one_input.ONE_INPUT,
    constant_label.CONSTANT_LABEL,
    copied_bit.COPIED_BIT,
    gates.AND,
    gates.OR,
    gates.XOR,
    gates.ALL_GATES,
    parity.PARITY,
    # arithmetic
    sums.SUMS,
    linear_map.LINEAR_MAP,
    tanh_network.TANH_NETWORK,
    # memory
    pairs.PAIRS,
    sequences.SEQUENCES,
    second_sight.SECOND_SIGHT,
    # noise
    wrong_labels.WRONG_LABELS,
    irrelevant_inputs.IRRELEVANT_INPUTS,
    garbage.GARBAGE_TEST,
    input_scale.INPUT_SCALE,
    rare_class.RARE_CLASS,
    # lesion
    lesion.LEFT,
    lesion.REGAINED,
    # calibration
    calibration.LIKELIHOOD,
    calibration.CALIBRATION,
    # vision
    vision.DIGITS,
    vision.MNIST,
    vision.FASHION_MNIST,
    vision.KMNIST,
)
"""All tests of this library, tag by tag."""
