"""Learning tests, one ability a file. A new one is a file here and a line below."""

from vsml.battery.abilities import gates, parity
from vsml.battery.learning_test import LearningTest

ABILITIES: tuple[LearningTest, ...] = (
    # basic
    gates.AND,
    gates.OR,
    gates.XOR,
    gates.ALL_GATES,
    parity.PARITY,
)
"""All tests of this library, tag by tag."""
