"""A survey: how many rules pass each stage, of those drawn at random or of those near a known rule."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from vsml.search.drawing import draw_genomes
from vsml.search.genome import Genome, stack_genomes
from vsml.search.judge import PROBE, Judge, Survivor
from vsml.search.offspring import offspring
from vsml.search.settings import Drawing, Mutations, Room
from vsml.types import Array

Source = Callable[[Array, int], Genome]
"""Rules of a survey: some number of them, with a leading axis, by a key."""


def drawn(drawing: Drawing, room: Room) -> Source:
    """Return rules that are drawn at random."""
    return lambda key, count: draw_genomes(drawing, room, key, count)


def near(drawing: Drawing, start: Genome, changes: int) -> Source:
    """Return children of a rule.

    Args:
        drawing: how new expressions are drawn.
        start: the rule, as large as the room of the judge.
        changes: mutations of each child, one after the other. They may undo each other.
    """

    def children(key: Array, count: int) -> Genome:
        parents = stack_genomes([start] * count)
        counts = np.full(count, changes)
        return offspring(drawing, Mutations(), parents, parents, counts, key)[0]

    return children


@dataclass(frozen=True)
class Surveyed:
    """What a survey has brought so far.

    Attributes:
        survivors: rules of the last batch that passed S1 and are new.
        drawn: rules so far.
        probed: rules so far that came to S1.
        passed: rules so far that passed S1, each program and each pattern of answers once.
        wall_s: seconds since the beginning.
        reached: how many of all that were drawn passed each stage. Here a rule that was met before, or that
            answers as another one does, counts as that one.
    """

    survivors: list[Survivor]
    drawn: int
    probed: int
    passed: int
    wall_s: float
    reached: dict[str, int] = field(default_factory=dict)


def survey(
    judge: Judge,
    source: Source,
    key: Array,
    batches: int,
    batch_size: int,
) -> Iterator[Surveyed]:
    """Judge rules, batch after batch.

    Args:
        judge: how they are judged; its counters go on. Where its hurdles rise with the scores that were met
            (`Judging.percentile`), shares depend on the order of the rules.
        source: where they are from.
        key: of all that is drawn.
        batches: how many.
        batch_size: rules of one.

    Yields:
        What there is after each batch.
    """
    start = time.monotonic()
    names = [PROBE, *(stage.name for stage in judge.stages)]
    reached = Counter(dict.fromkeys(names, 0))
    for number in range(batches):
        genomes = jax.tree.map(jnp.asarray, source(jax.random.fold_in(key, number), batch_size))
        rated = judge.rate(genomes)
        for level, name in enumerate(names, 2):
            reached[name] += int((rated.fitness >= level).sum())
        yield Surveyed(
            survivors=list(rated.found.values()),
            drawn=judge.funnel.proposed,
            probed=judge.funnel.entered("S1"),
            passed=judge.funnel.passed.get("S1", 0),
            wall_s=time.monotonic() - start,
            reached=dict(reached),
        )
