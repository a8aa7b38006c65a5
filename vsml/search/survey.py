"""A survey of rules that are drawn at random: how many pass each stage, and which."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import jax

from vsml.search.drawing import draw_genomes
from vsml.search.genome import rule_of
from vsml.search.judging import Judge, Survivor
from vsml.search.settings import Drawing
from vsml.search.store import Batch, Evaluation, Store, StoredRule
from vsml.types import Array


@dataclass(frozen=True)
class Progress:
    """How far a survey is.

    Attributes:
        drawn: rules so far.
        probed: rules that came to S1.
        found: rules that passed S1.
        wall_s: seconds since the beginning.
    """

    drawn: int
    probed: int
    found: int
    wall_s: float


def survey(
    judge: Judge,
    drawing: Drawing,
    key: Array,
    batches: int,
    batch_size: int,
    store: Store | None = None,
    run: str = "",
) -> Iterator[Progress]:
    """Draw rules and judge them, batch after batch; what passes S1 is stored before the next one.

    Args:
        judge: how they are judged; its counters go on.
        drawing: how they are drawn.
        key: of all that is drawn.
        batches: how many.
        batch_size: rules of one.
        store: where survivors go; None: nowhere.
        run: a name for it, which stored rules carry.
    """
    start = time.monotonic()
    found = 0
    for number in range(batches):
        genomes = draw_genomes(drawing, judge.room, jax.random.fold_in(key, number), batch_size)
        survivors = judge.judge(genomes)
        found += len(survivors)
        if store is not None and survivors:
            store.add(batch_of(survivors, judge, "drawn", run))
        if store is not None:
            counters = {f"{stage}: {why}": count for stage, why, count in judge.funnel.rows()}
            store.beat(run or "survey", run, counters)
        yield Progress(
            drawn=judge.funnel.proposed,
            probed=judge.funnel.entered("S1"),
            found=found,
            wall_s=time.monotonic() - start,
        )


def batch_of(survivors: list[Survivor], judge: Judge, origin: str, run: str) -> Batch:
    """Return survivors of S1 and their scores ready to be stored.

    Args:
        survivors: from `Judge.judge`.
        judge: who judged them.
        origin: where they came from.
        run: a name of the run.
    """
    rules, evaluations = [], []
    seeds = f"{judge.seed} x {judge.judging.seeds}"
    for survivor in survivors:
        rule = StoredRule.of(rule_of(survivor.genome), origin, run)
        rules.append(rule)
        level = judge.teaching.teach
        evaluations.append(Evaluation(rule.hash, "S1", level, seeds, 1.0, "pass"))
        for stage, score in survivor.scores.items():
            status = "pass" if stage <= survivor.stage else "fail"
            evaluations.append(Evaluation(rule.hash, stage, level, seeds, score, status))
    return Batch(rules, evaluations)
