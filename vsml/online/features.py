"""Features by their names, which come and go: they become the input units of a network of fixed size."""

import math
import warnings
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import Any

import jax
import numpy as np

from vsml.online import steps
from vsml.online.missing import Indicators
from vsml.online.relevance import relevance_of
from vsml.online.standardise import RunningStatistics

_BLOCK = 16
"""Rows of the projection that are drawn at once, and features that there is room for at first."""

_PLAIN = frozenset([float, int, bool])
"""Usual types of numbers."""

_INDICATORS = 1 << 20
"""What numbers of blocks of rows for indicators start at."""


class FeatureTable:
    """All features that have been seen, each with a slot that it keeps, and what is known of it.

    A feature that is not in an example, or is None or NaN there, is missing: 0 once standardised, with an
    indicator (`Indicators`). One that is new takes the next slot. There is room for 16 at first, which
    doubles when it is full, up to `max_features`; those that come then are ignored, with one warning.

    Standardised values z and indicators m enter by `((w z) R + m Q) / sqrt(d)`, with R and Q standard normal,
    w the weights of features (`vsml.online.relevance`), 1 until they are weighed, and d the mean number of
    features that an example has had so far. The network's size stays as it is.

    Attributes:
        units: input units of the network.
        max_features: features that are kept at most.
        seed: of the random rows.
        slots: the slot of each feature, by its name.
    """

    _relevance: np.ndarray | None = None
    """Weights of the first features, float32; later ones weigh 1. None, as in older pickles: all do."""

    def __init__(
        self,
        units: int,
        max_features: int,
        seed: int,
    ) -> None:
        self.units = units
        self.max_features = max_features
        self.seed = seed
        self.slots: dict[Hashable, int] = {}
        self._statistics = RunningStatistics.nothing(_BLOCK)
        self._indicators = Indicators.nothing(_BLOCK)
        self._present = 0.0
        self._rows = np.zeros((2, 0, units), np.float32)
        self._has_warned = False

    def learn(self, x: Mapping[Hashable, Any]) -> np.ndarray:
        """Take in an example; return what enters the network, float32 [units].

        Raises:
            ValueError: a value is no number, or is infinite or too large. Nothing has changed then.
        """
        given = _numbers(x)
        slots, room = self._with_slots(given)
        statistics, indicators = self._statistics, self._indicators
        if room > len(indicators.absent):
            statistics = statistics.widened(room)
            indicators = self._widened(indicators, room)
        row = self._row(given, slots, room)
        statistics, standard = statistics.learn(row)
        indicators, missing = indicators.learn(row)
        self.slots = slots
        self._statistics = statistics
        self._indicators = indicators
        self._present += sum(name in slots for name in given)
        self._draw_rows(room)
        return self._projected(standard[0], missing[0], self._present / float(indicators.examples))

    def apply(self, x: Mapping[Hashable, Any]) -> np.ndarray:
        """Return what `learn` would if the example came next, without features that are new to it."""
        given = _numbers(x)
        row = self._row(given, self.slots, len(self._indicators.absent))
        standard = self._statistics.apply(row)
        missing = self._indicators.apply(row)
        known = sum(name in self.slots for name in given)
        examples = float(self._indicators.examples)
        return self._projected(standard[0], missing[0], (self._present + known) / (examples + 1))

    def known(self, x: Mapping[Hashable, Any]) -> np.ndarray:
        """Return what enters the network for an example that was taken in, by all so far, float32 [units]."""
        row = self._row(_numbers(x), self.slots, len(self._indicators.absent))
        standard = self._statistics.known(row)
        missing = self._indicators.known(row)
        return self._projected(standard[0], missing[0], self._present / float(self._indicators.examples))

    @contextmanager
    def weighed(
        self,
        examples: Sequence[Mapping[Hashable, Any]],
        targets: np.ndarray,
        counts: np.ndarray,
    ) -> Iterator[None]:
        """Weigh features anew, by what they tell of the targets of examples that were taken in.

        Where what follows in the context fails, they weigh what they did before.

        Args:
            examples: n of them.
            targets: numbers of their classes, int [n], or their values, float [n, D].
            counts: how much each example counts, above 0, [n].
        """
        room = len(self._indicators.absent)
        rows = np.concatenate([self._row(_numbers(x), self.slots, room) for x in examples])
        before = self._relevance
        self._relevance = relevance_of(self._statistics.known(rows), targets, counts, np.isnan(rows))
        try:
            yield
        except BaseException:
            self._relevance = before
            raise

    def _with_slots(self, names: Iterable[Hashable]) -> tuple[dict[Hashable, int], int]:
        """Return slots with those of new features, and the room that they need."""
        new = [name for name in names if name not in self.slots]
        room = len(self._indicators.absent)
        if not new:
            return self.slots, room
        slots = dict(self.slots)
        # The order of a dictionary is not to matter.
        for name in sorted(new, key=lambda name: (str(name), type(name).__name__)):
            if len(slots) < self.max_features:
                slots[name] = len(slots)
            else:
                self._warn(name)
        while room < len(slots):
            room = 2 * room
        return slots, room

    def _warn(self, name: Hashable) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        warnings.warn(
            f"max_features: got the feature {name!r} beside {self.max_features} others; it is ignored, and "
            "so are all others that come",
            UserWarning,
            stacklevel=5,
        )

    def _widened(
        self,
        indicators: Indicators,
        room: int,
    ) -> Indicators:
        """Return indicators with more slots, whose features have been missing so far."""
        more = room - len(indicators.absent)
        absent = np.pad(indicators.absent, (0, more), constant_values=float(indicators.examples))
        return Indicators(indicators.examples, absent)

    def _row(
        self,
        given: Mapping[Hashable, float],
        slots: Mapping[Hashable, int],
        room: int,
    ) -> np.ndarray:
        """Return the values of an example by their slots, NaN where there is none, [1, room]."""
        row = np.full((1, room), np.nan)
        for name, value in given.items():
            slot = slots.get(name)
            if slot is not None:
                row[0, slot] = value
        return row

    def _draw_rows(self, room: int) -> None:
        """Draw the rows of new slots, of values and of indicators, [2, room, units]."""
        drawn = [self._rows]
        for block in range(self._rows.shape[1] // _BLOCK, room // _BLOCK):
            rows = []
            for start in (0, _INDICATORS):
                key = jax.random.fold_in(jax.random.key(self.seed), start + block)
                rows.append(np.asarray(steps.draw_rows(self.units, _BLOCK, 1, key)))
            drawn.append(np.stack(rows))
        if len(drawn) > 1:
            self._rows = np.concatenate(drawn, axis=1)

    def _projected(
        self,
        standard: np.ndarray,
        missing: np.ndarray,
        present: float,
    ) -> np.ndarray:
        """Return what enters the network, float32 [units]."""
        known = len(self.slots)
        of_values, of_indicators = self._rows
        values = standard[:known].copy()
        if self._relevance is not None:
            values[: len(self._relevance)] *= self._relevance[:known]
        entering: np.ndarray = values @ of_values[:known]
        if missing[:known].any():
            entering = entering + missing[:known] @ of_indicators[:known]
        return entering / np.float32(math.sqrt(max(present, 1.0)))


def _numbers(x: Mapping[Hashable, Any]) -> dict[Hashable, float]:
    """Return the values of an example that are there, by name.

    Raises:
        ValueError: one is no number, or is infinite.
    """
    numbers = {}
    for name, value in x.items():
        if value is None:
            continue
        # Asking for the type first is quick, and these are nearly all.
        if type(value) not in _PLAIN and not isinstance(value, Real | np.bool_):
            raise ValueError(
                f"x: got {value!r} as feature {name!r}, expected a number, or None or NaN where it is "
                "missing; river.preprocessing.OneHotEncoder makes numbers of text"
            )
        number = float(value)
        if math.isinf(number):
            raise ValueError(f"x: got {number} as feature {name!r}, expected a finite number")
        if not math.isnan(number):
            numbers[name] = number
    return numbers
