"""Evaluation: what learning algorithms learn on data sets that they may never have seen."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vsml.calls.plan import evaluation_plan
from vsml.config.files import ConfigError
from vsml.evaluation.candidates import (
    RESTORED,
    Candidate,
    compared_candidates,
    own_candidate,
    restored_params,
    start_candidate,
)
from vsml.evaluation.comparison import Comparison
from vsml.evaluation.results import track_results, write_results
from vsml.evaluation.scores import Evaluation
from vsml.runs.directory import RunDirectory
from vsml.runs.progress import say
from vsml.runs.wandb import start_tracking
from vsml.settings import NoSettings, Problem
from vsml.setup import Setup
from vsml.system.comm import Communicator
from vsml.system.signals import Stopped, StopSignals


@dataclass(frozen=True)
class Evaluate:
    """`call: evaluate`: compare learning algorithms on the same episodes.

    Attributes:
        config: its settings; there are none beside the sections that all calls have.
    """

    config: NoSettings = NoSettings()

    def problems(self, setup: Setup) -> Iterator[Problem]:
        """Yield nothing: what is evaluated is checked by the sections themselves."""
        yield from ()

    def plan(self, setup: Setup, ranks: int) -> list[str]:
        """Return the plan of the evaluations."""
        del ranks
        return evaluation_plan(setup, periodic=False)

    def run(self, setup: Setup, run: RunDirectory | None, comm: Communicator, resume: bool) -> int:
        """Evaluate; return 1 where a signal ended it, of which nothing is kept."""
        del resume  # an evaluation begins anew
        return int(run_evaluation(setup, run, comm) is None)


def run_evaluation(setup: Setup, run: RunDirectory | None, comm: Communicator) -> list[Evaluation] | None:
    """Evaluate what `checkpoint.restore` and `evaluation.learners` name, beside fresh meta-parameters.

    Args:
        setup: of a run with `call: evaluate`.
        run: where to write, on rank 0; None on the other ranks.
        comm: the ranks.

    Returns:
        The evaluations; None if a signal ended it, of which nothing is kept.
    """
    with StopSignals() as stop:

        def check() -> None:
            if comm.any(bool(stop)):
                raise Stopped(stop.received or "as another rank did")

        try:
            return _run_evaluation(setup, run, comm, check)
        except Stopped as why:
            if run is not None:
                say(f"stopped before the evaluation was complete ({why}); nothing of it is kept")
            return None


def _run_evaluation(
    setup: Setup, run: RunDirectory | None, comm: Communicator, check: Callable[[], None]
) -> list[Evaluation]:
    settings = setup.config.evaluation
    sources, missing = setup.load_evaluation_data(comm)
    tasks = setup.evaluation_tasks(sources)
    if not tasks:
        raise ConfigError(["evaluation.datasets: nothing to evaluate on", *missing])
    candidates: list[Candidate] = []
    if setup.restores:
        stored = restored_params(setup, comm)
        candidates.append(own_candidate(setup, RESTORED, stored.fit, tasks))
    candidates += compared_candidates(setup, sources, comm)
    if settings.start or not candidates:
        candidates.append(start_candidate(setup, tasks))
    if run is not None:
        say("compiling ...")
    evaluations, trials = Comparison(settings, comm, check).evaluate(candidates)
    if run is not None:
        for reason in missing:
            say(f"left out: {reason}")
        write_results(run, evaluations, trials, setup.config.name)
        tracker = start_tracking(setup.config, run)
        track_results(run, tracker, evaluations)
        tracker.finish()
        run.complete.touch()
    return evaluations
