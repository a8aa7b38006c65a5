"""How long a meta step takes on a number of ranks: a model of it, to plan runs with.

A meta step (`vsml.meta.step.meta_step`) asks, evaluates this rank's chunks, exchanges the results, tells:

    t(ranks) = evaluation + calls + replicated + exchange
    evaluation = sum over the rounds of max(steps * step_s, FLOPs of the chunk / FLOP rate)
    calls      = rounds * call_s                         rounds = ceil(chunks / ranks)
    replicated = replicated_s + numbers * number_s       ask, add up, tell: the same on every rank
    exchange   = ceil(log2 ranks) * latency_s + bytes received / bytes_per_s

of the rank that has most to do. Steps of an episode come one after the other: `step_s` is what one takes
however few members there are, which on an accelerator is what ends the scaling.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vsml.cost.steps import parameter_count, trial_costs
from vsml.meta.optimizers.antithetic import ANTITHETIC
from vsml.meta.trials import chunks_of
from vsml.setup import Setup

FLOAT_BYTES = 4

GRADIENT_PASSES = 4
"""Steps of an episode in a row for its gradient: forward, again per segment, and twice that back."""


@dataclass(frozen=True)
class Machine:
    """What a rank computes on, and what connects the ranks.

    Attributes:
        flops_per_s: floating-point operations a second of a device, as `vsml.cost.steps` counts them.
        step_s: least time of one step of an episode, in seconds, however small the chunk.
        call_s: time of one call for a chunk beside its evaluation.
        replicated_s: time of ask and tell however small the population.
        number_s: time that ask and tell take for each number of `Work.replicated_numbers`.
        latency_s: time of an empty message between two ranks.
        bytes_per_s: what a rank receives a second.
        devices: how many devices there are; None means one for each rank. Ranks that share one divide its
            FLOP rate, while the least times of their steps pass side by side.
    """

    flops_per_s: float
    step_s: float = 0.0
    call_s: float = 0.0
    replicated_s: float = 0.0
    number_s: float = 0.0
    latency_s: float = 0.0
    bytes_per_s: float = math.inf
    devices: int | None = None


@dataclass(frozen=True)
class Work:
    """One meta step.

    Attributes:
        chunk_flops: floating-point operations of each chunk, in the order in which they are dealt.
        steps: of the longest episode, one after the other; those of its derivatives too.
        replicated_numbers: numbers that every rank adds up, those of all chunks' gradients; with an algorithm
            of evosax those that it draws, of all members.
        row_bytes: result of a chunk.
    """

    chunk_flops: tuple[float, ...]
    steps: int
    replicated_numbers: int
    row_bytes: int


@dataclass(frozen=True)
class MetaStepTime:
    """Parts of a meta step in seconds; see the top of this file."""

    evaluation_s: float
    calls_s: float
    replicated_s: float
    exchange_s: float

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.evaluation_s + self.calls_s + self.replicated_s + self.exchange_s


def meta_step_time(machine: Machine, work: Work, ranks: int) -> MetaStepTime:
    """Predict the time of a meta step.

    Args:
        machine: what it runs on.
        work: what there is to do.
        ranks: among how many ranks its chunks are dealt.

    Raises:
        ValueError: there are more ranks than chunks.
    """
    chunks = len(work.chunk_flops)
    if not 1 <= ranks <= chunks:
        raise ValueError(f"ranks: got {ranks}, expected 1 to {chunks}, the number of chunks")
    sharing = 1.0 if machine.devices is None else max(1.0, ranks / machine.devices)
    floor = work.steps * machine.step_s
    rate = machine.flops_per_s / sharing
    dealt = (work.chunk_flops[rank::ranks] for rank in range(ranks))
    rounds = math.ceil(chunks / ranks)
    return MetaStepTime(
        evaluation_s=max(sum(max(floor, flops / rate) for flops in mine) for mine in dealt),
        calls_s=rounds * machine.call_s * sharing,
        replicated_s=(machine.replicated_s + work.replicated_numbers * machine.number_s) * sharing,
        exchange_s=exchange_time(machine, rounds * work.row_bytes, ranks),
    )


def exchange_time(machine: Machine, sent_bytes: int, ranks: int) -> float:
    """Predict the time in which every rank gets what each of the others sends.

    Args:
        machine: what connects them.
        sent_bytes: by each rank.
        ranks: how many there are.
    """
    received = sent_bytes * (ranks - 1)
    return math.ceil(math.log2(ranks)) * machine.latency_s + received / machine.bytes_per_s


def efficiency(machine: Machine, work: Callable[[int], Work], ranks: int) -> float:
    """Return the speed-up over one rank, by the number of ranks: 1 is perfect.

    Args:
        machine: what it runs on; only with a device for each rank does this say what devices are worth.
        work: gives the work as it is cut for a number of ranks.
        ranks: how many.
    """
    alone = meta_step_time(machine, work(1), 1).total_s
    return alone / (ranks * meta_step_time(machine, work(ranks), ranks).total_s)


def efficient_ranks(
    machine: Machine, work: Callable[[int], Work], candidates: Iterable[int], least: float = 0.5
) -> int:
    """Return the largest of some numbers of ranks whose efficiency is not below `least`; 1 if none.

    Args:
        machine: what it runs on.
        work: gives the work as it is cut for a number of ranks.
        candidates: numbers of ranks to choose from.
        least: the efficiency asked for.
    """
    return max((ranks for ranks in candidates if efficiency(machine, work, ranks) >= least), default=1)


def work_of(setup: Setup, ranks: int) -> Work:
    """Return the meta step of a run, cut as the run itself would cut it.

    Memory does not bound the chunks on a CPU, so planning for an accelerator there, give
    `training.chunk_size` where its memory is too small for what one rank has to do.

    Args:
        setup: of a run with `call: train`; no data are loaded.
        ranks: number of MPI ranks.

    Raises:
        ConfigError: there would be more ranks than chunks.
    """
    size = setup.chunk_size(ranks)
    chunks = chunks_of(setup.groups, size)
    costs = trial_costs(setup)
    # Tanh and the like count as one operation each.
    trial_flops = {id(each.group): each.total.flops + each.total.transcendentals for each in costs}
    passes = GRADIENT_PASSES if setup.differentiates else 1
    parameters = parameter_count(setup)
    trials = setup.config.training.population_size
    optimizer = setup.config.optimizer
    # Algorithms of evosax draw all members on every rank, and exchange losses alone.
    if optimizer.type == "es" and optimizer.algorithm != ANTITHETIC:
        replicated = parameters * setup.members * trials
        gradient = 0
    else:
        replicated = parameters * len(chunks)
        gradient = parameters
    return Work(
        chunk_flops=tuple(size * trial_flops[id(chunk.group)] for chunk in chunks),
        steps=passes * max(each.steps for each in costs),
        replicated_numbers=replicated,
        # Loss and accuracy of each member, and the sum of the gradients.
        row_bytes=FLOAT_BYTES * (2 * setup.members * size + gradient),
    )
