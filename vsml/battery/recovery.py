"""Recovery: how soon a skill is regained after something has changed."""

import numpy as np

from vsml.battery.learning_test import Outcome
from vsml.battery.measures import right

REGAINED = 0.9
"""Share of the skill before that counts as regained."""

WINDOW = 25
"""Answers over which a skill is measured."""


def recovery(outcome: Outcome, change: int) -> np.ndarray:
    """Return the skill before a change, times the share of the later examples that were not needed, [S].

    The skill is the accuracy above chance, by what is left above it. It is regained with the first `WINDOW`
    answers after the change of which it is `REGAINED` of what it was in the `2 WINDOW` answers before. 1:
    perfect before, and nothing was lost; 0: no skill, or never regained.

    Args:
        outcome: of classes.
        change: the step from which on something is different.
    """
    chance = 1 / outcome.outputs.size
    skill = (right(outcome) - chance) / (1 - chance)
    before = np.maximum(skill[:, change - 2 * WINDOW : change].mean(1), 0)
    sums = np.cumsum(np.pad(skill[:, change:], ((0, 0), (1, 0))), axis=1)
    later = (sums[:, WINDOW:] - sums[:, :-WINDOW]) / WINDOW
    places = later.shape[1]
    good = later >= REGAINED * before[:, None] - 1e-9
    needed = np.where(good.any(1), good.argmax(1), places)
    return before * (1 - needed / places)
