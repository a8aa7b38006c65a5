"""A rule that is gone through tick by tick, forth and back, on a stream of examples."""

from collections.abc import Sequence

import numpy as np

from vsml.graphs.graph import Graph
from vsml.rules.rule import Rule
from vsml.rules.settings import Settings
from vsml.rules.watching import Example, Tick, Watched, Watcher
from vsml.types import Array

_STRIDE = 64
"""Examples that are skipped by one call."""


class Stepper:
    """Goes through a stream tick by tick; what it shows is what `Harness` and the rule do.

        stepper = Stepper(rule, graph, settings, x, targets, key)
        stepper.go(1)
        print(stepper.tick.after)

    Args:
        rule: the rule.
        graph: the graph.
        settings: timing and teaching; `loss` is `regression`.
        x: numbers of the inputs [T, I].
        targets: numbers that are right [T, O].
        key: of what is drawn.

    Attributes:
        done: ticks that were gone through, from 0 to `length`.
    """

    def __init__(
        self,
        rule: Rule,
        graph: Graph,
        settings: Settings,
        x: Array,
        targets: Array,
        key: Array,
    ) -> None:
        self._watcher = Watcher(rule, graph, settings, key)
        self._x, self._targets = x, targets
        self._restart()

    @property
    def length(self) -> int:
        """Ticks of the whole stream."""
        return len(self._x) * self.ticks

    @property
    def ticks(self) -> int:
        """Ticks of an example."""
        return self._watcher.settings.ticks

    @property
    def watched(self) -> Watched:
        """The present example, with all its ticks; before the first tick it is the first one."""
        self._reach(max(self.done - 1, 0) // self.ticks)
        watcher = self._watcher
        return Watched(watcher.rule, watcher.graph, watcher.settings, (self._example,), tuple(self._ticks))

    @property
    def number(self) -> int:
        """Place of the last tick in its example."""
        return max(self.done - 1, 0) % self.ticks

    @property
    def tick(self) -> Tick | None:
        """The last tick; None before the first one."""
        return self.watched.ticks[self.number] if self.done else None

    def go(self, ticks: int) -> None:
        """Go on by some ticks, or back where they are below 0; the ends of the stream are not passed."""
        self.go_to(self.done + ticks)

    def go_examples(self, examples: int) -> None:
        """Go on to the end of the present example, or of the one that is so many further on."""
        present = max(self.done - 1, 0) // self.ticks
        is_at_end = self.done > 0 and self.number == self.ticks - 1
        self.go_to((present + examples + is_at_end) * self.ticks)

    def go_to(self, done: int) -> None:
        """Go to where so many ticks were gone through."""
        self.done = min(max(done, 0), self.length)
        self._reach(max(self.done - 1, 0) // self.ticks)

    @property
    def errors(self) -> Sequence[float]:
        """Mean squared error of each example so far, the present one from the tick of its answer on."""
        settings = self._watcher.settings
        is_answered = self.done > 0 and self.number >= settings.read_tick
        return self._errors if is_answered else self._errors[:-1]

    def _restart(self) -> None:
        self._watcher.restart()
        self._errors: list[float] = []
        self.done = 0
        self._run_example()

    def _reach(self, place: int) -> None:
        """Have the example of some place watched."""
        if place == self._watcher.place - 1:
            return
        if place < self._watcher.place:
            done = self.done
            self._restart()
            self.done = done
            if place == 0:
                return
        while place - self._watcher.place >= _STRIDE:
            self._skip(_STRIDE)
        while self._watcher.place < place:
            self._skip(1)
        self._run_example()

    def _skip(self, count: int) -> None:
        first = self._watcher.place
        x, targets = self._x[first : first + count], self._targets[first : first + count]
        answers = self._watcher.skip(x, targets)
        self._errors += np.square(answers - np.asarray(targets)).mean(1).tolist()

    def _run_example(self) -> None:
        place = self._watcher.place
        self._example: Example
        self._example, self._ticks = self._watcher.example(self._x[place], self._targets[place])
        error = np.square(self._example.answer - self._example.target).mean()
        self._errors.append(float(error))
