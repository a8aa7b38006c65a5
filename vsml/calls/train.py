"""Meta-training: the loop of meta steps, with its checkpoints and evaluations."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import optax

from vsml.calls.plan import evaluation_plan, training_plan
from vsml.config.files import dump
from vsml.evaluation.candidates import (
    TRAINED,
    Candidate,
    compared_candidates,
    own_candidate,
    restored_params,
    start_candidate,
)
from vsml.evaluation.comparison import Comparison
from vsml.evaluation.episodes import PendingEvaluation
from vsml.evaluation.results import evaluation_metrics, mean_quality, track_results, write_results
from vsml.evaluation.scores import Evaluation
from vsml.meta.step import PendingStep, as_numbers, collect_step, dispatch_step
from vsml.runs import checkpoint
from vsml.runs.callbacks import Evaluated, Event, Finished, StepTaken
from vsml.runs.checkpoint import CheckpointStore
from vsml.runs.commands import resume_command
from vsml.runs.directory import RunDirectory
from vsml.runs.progress import Progress, say
from vsml.runs.record import CHECKPOINT, RunRecord
from vsml.runs.wandb import start_tracking
from vsml.settings import NoSettings, Problem
from vsml.setup import Setup
from vsml.system.comm import Communicator
from vsml.system.devices import launcher_size
from vsml.system.files import atomic_write
from vsml.system.signals import Stopped, StopSignals
from vsml.types import Params


@dataclass
class _Progressed:
    """How far a run is; kept in its checkpoints beside the state of the outer loop."""

    step: int = 0
    wall_s: float = 0.0
    best_accuracy: float | None = None


_norm = jax.jit(optax.tree.norm)


def run_training(setup: Setup, run: RunDirectory | None, comm: Communicator, resume: bool = False) -> bool:
    """Meta-train as configured, from the start or from the latest checkpoint, and evaluate at the end.

    Args:
        setup: of a run with `call: train` or `call: clone`.
        run: where to write, on rank 0; None on the other ranks.
        comm: the ranks.
        resume: go on with the run in `run`.

    Returns:
        Whether the run is complete; False if a signal or the time limit ended it, to be resumed.

    Raises:
        FloatingPointError: the meta-parameters are not finite; the checkpoints before stay.
        ValueError: data, settings or the number of ranks do not fit.
    """
    with StopSignals() as stop:
        return _Run(setup, run, comm, resume).train(stop)


class _Run:
    """A training run: its parts, how far it is, and its record."""

    def __init__(self, setup: Setup, run: RunDirectory | None, comm: Communicator, resume: bool) -> None:
        started = time.monotonic()
        self.comm, self.run = comm, run
        setup.check_same_kernel(comm)
        groups = setup.load_groups(comm)
        self.sources, self.left_out = setup.load_evaluation_data(comm)
        self.tasks = setup.evaluation_tasks(self.sources)
        setup.check_evaluation([(each.name, each.task) for each in self.tasks])
        self.chunks = setup.chunks(groups, comm)
        # From here on the configuration says how trials were cut, so that a resumed run cuts them alike.
        self.setup = setup = setup.with_chunk_size(len(self.chunks[0].trials))
        self.config = setup.config
        if not resume:
            compared_candidates(setup, self.sources, comm)  # now, not after hours: are their files there?
        fresh = setup.fresh_params(setup.learner)
        self.optimizer = setup.optimizer(fresh)
        self.state = self.optimizer.init(jax.random.fold_in(setup.key, 1), fresh)
        self.episode_key = jax.random.fold_in(setup.key, 2)
        self.done = _Progressed()
        self.last_evaluations: list[Evaluation] | None = None
        self.resumed = resume and self._load()
        if not self.resumed and setup.restores:
            start = restored_params(setup, comm).fit(setup.learner)
            self.state = self.optimizer.init(jax.random.fold_in(setup.key, 1), start)
        self.started = started - self.done.wall_s
        self.session_started = started
        text = dump(self.config)
        if run is not None:
            run.complete.unlink(missing_ok=True)
            atomic_write(run.config, text)
        tracker = start_tracking(self.config, run)
        self.record = RunRecord(run, text, self.config.checkpoint.keep, tracker, note=say)
        self.callbacks = [] if run is None else setup.callbacks(run)

    def train(self, stop: StopSignals) -> bool:
        """Run the meta steps that are left; return whether the run is complete."""
        try:
            return self._train(stop)
        except BaseException:  # whatever ends the run: wandb shall not show it as a success
            if self.comm.size == 1:  # else nothing may come before the other ranks are ended
                self.record.tracker.finish(exit_code=1)
            raise

    def _train(self, stop: StopSignals) -> bool:
        iterations = self.config.training.iterations
        with Progress(
            iterations,
            start=self.done.step,
            rank=self.comm.rank,
            terminal=False if launcher_size() is not None else None,
        ) as progress:
            self.progress = progress
            self.record.note = progress.note
            for reason in self.left_out:
                progress.note(f"left out: {reason}")
            if self.resumed:
                progress.note(f"goes on from step {self.done.step}")
            try:
                if self.done.step < iterations:
                    self._check(stop)
                    progress.note("compiling ...")
                    self._take_steps(iterations, stop)
                if self.done.step % self.config.checkpoint.frequency or self.record.failing:
                    self._save_or_rescue()
                self._finish(lambda: self._check(stop))
            except Stopped as why:
                if self.done.step < iterations:
                    self._save_or_rescue()
                progress.note(f"stopped after step {self.done.step} ({why})")
                self.record.tracker.finish()
                return False
        return True

    def _take_steps(self, iterations: int, stop: StopSignals) -> None:
        """Take the meta steps that are left, each on the devices while the host is busy with the one before.

        Whether to stop is asked between two of them, so that none is begun in vain. What the host needs of
        a step is dispatched before the next step, which a device would else do first.
        """
        pending: PendingStep | None = self._dispatch()
        while pending is not None:
            self.state, metrics = collect_step(self.optimizer, pending, self.comm)
            self.done.step += 1
            params = self.optimizer.params(self.state)
            metrics["param_norm"] = _norm(params)
            evaluations = self._dispatch_evaluations(params)
            why = self._agreed_to_stop(stop) if self.done.step < iterations else None
            pending = self._dispatch() if self.done.step < iterations and why is None else None
            self._write_step(params, metrics, evaluations)
            if why is not None:
                raise Stopped(why)

    def _dispatch(self) -> PendingStep:
        key = jax.random.fold_in(self.episode_key, self.done.step)
        return dispatch_step(self.optimizer, self.state, self.chunks, key, self.comm)

    def _check(self, stop: StopSignals) -> None:
        """Raise Stopped on all ranks if one of them has a reason to."""
        why = self._agreed_to_stop(stop)
        if why is not None:
            raise Stopped(why)

    def _agreed_to_stop(self, stop: StopSignals) -> str | None:
        """Return why to stop if a rank has a reason to: on all ranks, or on none."""
        why = self._reason_to_stop(stop)
        return (why or "as another rank did") if self.comm.any(why is not None) else None

    def _reason_to_stop(self, stop: StopSignals) -> str | None:
        limit = self.config.training.time_limit_s
        if stop:
            return stop.received
        if limit is not None and time.monotonic() - self.session_started > limit:
            return f"training.time_limit_s of {limit:g} s"
        return None

    def _comparison(self, check: Callable[[], None] = lambda: None) -> Comparison:
        return Comparison(self.config.evaluation, self.comm, check)

    def _dispatch_evaluations(self, params: Params) -> list[PendingEvaluation] | None:
        """Start the evaluation that is due after this step; return None if none is."""
        frequency = self.config.evaluation.frequency
        if not (frequency and self.done.step % frequency == 0 and self.tasks):
            return None
        return self._comparison().dispatch(self._own(params))

    def _write_step(
        self, params: Params, measured: dict[str, Any], evaluations: list[PendingEvaluation] | None
    ) -> None:
        """Write what is due after a meta step."""
        step, config = self.done.step, self.config
        metrics = as_numbers(measured)
        if not math.isfinite(metrics["param_norm"]):
            raise FloatingPointError(
                f"the meta-parameters are not finite after meta step {step}; the checkpoints before it stay. "
                "A smaller optimizer.learning_rate or optimizer.clip_gradnorm may help"
            )
        score_name = self.setup.objective.score_name(self.setup.learner)
        self.progress.update(step, loss=metrics["meta_loss"], **{score_name: metrics[score_name]})
        in_summary = step % config.summary.frequency == 0 or step == config.training.iterations
        due = dict(metrics) if in_summary else {}
        self.last_evaluations = None
        if evaluations is not None:
            self.last_evaluations = [pending.collect(self.comm) for pending in evaluations]
            due |= self._take_notice(params, self.last_evaluations)
        if due:
            self._log(due)
        if step % config.checkpoint.frequency == 0 or CHECKPOINT in self.record.failing:
            self.record.save(step, self._tree(), self._metadata())
        self._call_back(StepTaken(step, params, metrics))
        if self.last_evaluations is not None:
            summaries = [each.summary() for each in self.last_evaluations]
            self._call_back(Evaluated(step, params, summaries))

    def _take_notice(self, params: Params, evaluations: Sequence[Evaluation]) -> dict[str, float]:
        """Tell of evaluations, keep the best meta-parameters, and return metrics."""
        summaries = [each.summary() for each in evaluations]
        shown = ", ".join(f"{each['dataset']} {each[each['metric'] + '_last']:.3f}" for each in summaries)
        what = " and ".join(sorted({each.metric.replace("_", " ") for each in evaluations}))
        self.progress.note(f"step {self.done.step}: {what} on the last examples: {shown}")
        quality = mean_quality(evaluations)
        if self.done.best_accuracy is None or quality > self.done.best_accuracy:
            before, self.done.best_accuracy = self.done.best_accuracy, quality
            if not self.record.save_best(self.done.step, params, self._metadata()):
                self.done.best_accuracy = before
        self.record.tracker.log_params(params, self.done.step)
        return evaluation_metrics(summaries)

    def _own(self, params: Params) -> Candidate:
        return own_candidate(self.setup, TRAINED, lambda learner: params, self.tasks)

    def _finish(self, check: Callable[[], None]) -> None:
        """Evaluate what was found beside what it started from, and export it."""
        params = self.optimizer.params(self.state)
        self.record.export(self.done.step, params, self._metadata())
        comparison = self._comparison(check)
        evaluations = self.last_evaluations
        if evaluations is None:
            evaluations, _ = comparison.evaluate([self._own(params)])
        if self.config.evaluation.start and self.tasks:
            of_start, _ = comparison.evaluate([start_candidate(self.setup, self.tasks)])
            evaluations = evaluations + of_start
        self._write(evaluations)  # before others are looked at, whose files may be gone by now
        if self.config.evaluation.learners and self.tasks:
            candidates = compared_candidates(self.setup, self.sources, self.comm)
            compared, trials = comparison.evaluate(candidates)
            evaluations = evaluations + compared
            self._write(evaluations, trials)
        self._call_back(Finished(self.done.step, params))
        if self.run is not None:
            track_results(self.run, self.record.tracker, evaluations)
            self.run.complete.touch()
        self.record.tracker.finish()

    def _write(self, evaluations: Sequence[Evaluation], trials: Sequence[Evaluation] = ()) -> None:
        if self.run is not None and evaluations:
            write_results(self.run, evaluations, trials, self.config.name)

    def _call_back(self, event: Event) -> None:
        """Tell the callbacks of an event; what the disk refuses one of them ends nothing."""
        for callback in self.callbacks:
            name = f"what {type(callback).__name__} keeps"
            self.record.attempt(event.step, name, partial(callback, event))

    def _log(self, metrics: dict[str, float]) -> None:
        per_step = self.optimizer.trial_members * self.config.examples_per_step
        line = {
            "wall_s": round(time.monotonic() - self.started, 3),
            "examples": self.done.step * per_step,
            **metrics,
        }
        self.record.log(self.done.step, line)

    def _metadata(self) -> dict[str, Any]:
        self.done.wall_s = time.monotonic() - self.started
        return {"config": self.config.model_dump(mode="json"), **dataclasses.asdict(self.done)}

    def _tree(self) -> dict[str, Any]:
        return {"params": self.optimizer.params(self.state), "optimizer": self.state}

    def _save_or_rescue(self) -> None:
        self.record.save_or_rescue(self.done.step, self._tree(), self._metadata())

    def _load(self) -> bool:
        """Go on from the newest undamaged checkpoint; return False, to start afresh, where there is none."""
        path = CheckpointStore(self.run.checkpoints).newest() if self.run is not None else None
        data = self.comm.bcast(path.read_bytes() if path is not None else b"")
        if data:
            tree, metadata = checkpoint.from_bytes(data, str(path), self._tree())
            self.state = tree["optimizer"]
            fields = {field.name for field in dataclasses.fields(_Progressed)}
            self.done = _Progressed(**{name: metadata[name] for name in fields})
        if self.run is not None:
            self.run.truncate_metrics(self.done.step)
        return bool(data)


@dataclass(frozen=True)
class Train:
    """`call: train`: meta-train a learning algorithm, and evaluate it.

    Attributes:
        config: its settings; there are none beside the sections that all calls have.
    """

    config: NoSettings = NoSettings()

    def problems(self, setup: Setup) -> Iterator[Problem]:
        """Yield nothing: what can be trained is checked by the sections themselves."""
        yield from ()

    def plan(self, setup: Setup, ranks: int) -> list[str]:
        """Return the plan of meta-training, then that of the evaluations."""
        return [*training_plan(setup, ranks), *evaluation_plan(setup, periodic=True)]

    def run(self, setup: Setup, run: RunDirectory | None, comm: Communicator, resume: bool) -> int:
        """Train; return the exit code 0: a run that was stopped can be resumed."""
        complete = run_training(setup, run, comm, resume)
        if run is not None and not complete:
            say(f"to go on: {resume_command(run.path)}")
        return 0
