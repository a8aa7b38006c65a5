"""The interface of callbacks: what is told of the events of a training run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vsml.types import Params


@dataclass(frozen=True, eq=False)
class StepTaken:
    """A meta step has been taken.

    Attributes:
        step: meta steps so far.
        params: the meta-parameters after it.
        metrics: of the step, numbers by name: meta_loss (nats), accuracy, grad_norm, ...
    """

    step: int
    params: Params
    metrics: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A periodic evaluation has been made.

    Attributes:
        step: meta steps so far.
        params: the meta-parameters that were evaluated.
        summaries: one for each task, as in evaluation.json.
    """

    step: int
    params: Params
    summaries: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Finished:
    """All meta steps have been taken, and everything has been written.

    Attributes:
        step: meta steps so far.
        params: the meta-parameters found.
    """

    step: int
    params: Params


Event = StepTaken | Evaluated | Finished


class Callback(Protocol):
    """Called on rank 0 with each event of a run, in order, after the run itself has dealt with it.

    It is built with the directory of the run (`vsml.runs.directory.RunDirectory`) and with `config`, a
    section of settings. An OSError that it raises is told, and training goes on; any other error ends the
    run.
    """

    def __call__(self, event: Event) -> None:
        """Take notice of an event; must not change what it is given."""
