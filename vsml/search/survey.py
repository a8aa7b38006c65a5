"""A survey of rules that are drawn at random: how many pass each stage, and which."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import jax

from vsml.search.drawing import draw_genomes
from vsml.search.judging import Judge, Survivor
from vsml.search.settings import Drawing
from vsml.types import Array


@dataclass(frozen=True)
class Surveyed:
    """What a batch of a survey has brought.

    Attributes:
        survivors: rules of this batch that passed S1.
        drawn: rules so far.
        probed: rules so far that came to S1.
        passed: rules so far that passed S1.
        wall_s: seconds since the beginning.
    """

    survivors: list[Survivor]
    drawn: int
    probed: int
    passed: int
    wall_s: float


def survey(
    judge: Judge,
    drawing: Drawing,
    key: Array,
    batches: int,
    batch_size: int,
) -> Iterator[Surveyed]:
    """Draw rules and judge them, batch after batch.

    Args:
        judge: how they are judged; its counters go on.
        drawing: how they are drawn.
        key: of all that is drawn.
        batches: how many.
        batch_size: rules of one.

    Yields:
        What each batch has brought.
    """
    start = time.monotonic()
    for number in range(batches):
        genomes = draw_genomes(drawing, judge.room, jax.random.fold_in(key, number), batch_size)
        survivors = judge.judge(genomes)
        yield Surveyed(
            survivors=survivors,
            drawn=judge.funnel.proposed,
            probed=judge.funnel.entered("S1"),
            passed=judge.funnel.passed.get("S1", 0),
            wall_s=time.monotonic() - start,
        )
