"""Learning tests, one ability a file. A new one is a file here and a line below."""

from vsml.battery.abilities import (
    bits_back,
    calibration,
    circuit_states,
    class_by_class,
    class_count,
    composition,
    constant_label,
    copied_bit,
    drift,
    endurance,
    forgetting,
    garbage,
    gates,
    growth,
    input_count,
    input_scale,
    irrelevant_inputs,
    key_value,
    language,
    late_labels,
    lesion,
    linear_map,
    new_class,
    one_input,
    pairs,
    parity,
    rare_class,
    same_everywhere,
    second_sight,
    sequences,
    sums,
    swaps,
    tanh_network,
    transfer,
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
    # credit in time
    bits_back.BITS_BACK,
    circuit_states.CIRCUIT_STATES,
    key_value.KEY_VALUE,
    # scale
    input_count.INPUT_COUNT,
    class_count.CLASS_COUNT,
    # forgetting
    forgetting.FORGETTING,
    class_by_class.CLASS_BY_CLASS,
    # shift
    swaps.LABELS_SWAPPED,
    swaps.INPUTS_PERMUTED,
    late_labels.LATE_LABELS,
    drift.DRIFT,
    # transfer
    transfer.TRANSFER,
    composition.COMPOSITION,
    new_class.NEW_CLASS,
    # redundancy
    same_everywhere.SAME_EVERYWHERE,
    # language
    language.LANGUAGE,
    # growth
    growth.GROWTH,
    # endurance
    endurance.ENDURANCE,
)
"""All tests of this library, tag by tag."""
