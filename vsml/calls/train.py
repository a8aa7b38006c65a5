"""Meta-training: the loop that asks, deals chunks to ranks, evaluates, exchanges results and tells."""

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from vsml import setup as build
from vsml.calls.evaluate import (
    Evaluation,
    PendingEvaluation,
    dispatch_evaluations,
    evaluate_all,
    track_results,
    write_results,
)
from vsml.config.files import dump
from vsml.config.schema import Config, examples_per_step
from vsml.evaluation.candidates import (
    Contender,
    compared_contenders,
    initial_key,
    own_contender,
    restored_params,
    untrained_contender,
)
from vsml.meta.objective import Chunk, Group, MetaOptimizer, Results, chunks_of, tree_sum
from vsml.runs import checkpoint
from vsml.runs.checkpoint import CheckpointStore
from vsml.runs.directory import RunDirectory
from vsml.runs.metrics import MetricsLog
from vsml.runs.progress import Progress
from vsml.runs.wandb import start_tracking
from vsml.system.comm import Communicator, SerialCommunicator
from vsml.system.devices import launcher_size
from vsml.system.files import atomic_write
from vsml.system.signals import Stopped, StopSignals
from vsml.types import Array, Params


def meta_train(
    optimizer: MetaOptimizer,
    params: Params,
    groups: Sequence[Group],
    iterations: int,
    key: Array,
    chunk_size: int | None = None,
    comm: Communicator | None = None,
) -> Iterator[tuple[int, Params, dict[str, float]]]:
    """Improve meta-parameters, one meta step at a time, without files.

    Args:
        optimizer: the outer loop.
        params: meta-parameters to start from.
        groups: the units of a meta step, from `group_units`.
        iterations: meta steps.
        key: what all randomness comes from.
        chunk_size: units evaluated in one call; by default all of a group.
        comm: the ranks among which chunks are dealt; by default this process alone.

    Yields:
        Meta steps done, the meta-parameters and metrics (meta_loss in nats, accuracy, ...).
    """
    comm = comm or SerialCommunicator()
    chunks = chunks_of(groups, chunk_size or max(len(group.units) for group in groups))
    if len(chunks) < comm.size:
        raise ValueError(
            f"chunk_size: got {chunk_size}, that is {len(chunks)} chunk(s), expected one for each of the "
            f"{comm.size} ranks or more"
        )
    noise_key, episode_key = jax.random.split(key)
    state = optimizer.init(noise_key, params)
    for step in range(iterations):
        state, metrics = meta_step(optimizer, state, chunks, jax.random.fold_in(episode_key, step), comm)
        yield step + 1, optimizer.params(state), _numbers(metrics)


@dataclass(frozen=True, eq=False)
class PendingStep:
    """A meta step that a device may still be at.

    Attributes:
        state: of the outer loop, to tell the results to.
        members: what is evaluated.
        chunks: all of them.
        results: of this rank's chunks, not waited for.
    """

    state: Any
    members: Any
    chunks: Sequence[Chunk]
    results: list[tuple[Array, Array, Array]]


def dispatch_step(
    optimizer: MetaOptimizer, state: Any, chunks: Sequence[Chunk], key: Array, comm: Communicator
) -> PendingStep:
    """Ask, and start to evaluate this rank's chunks, which are dealt in turn; wait for nothing.

    Args:
        optimizer: the outer loop.
        state: its state, the same on every rank.
        chunks: all chunks, of one size.
        key: of this meta step.
        comm: the ranks.
    """
    state, members = optimizer.ask(state)
    results = [optimizer.evaluate(members, chunk, key) for chunk in chunks[comm.rank :: comm.size]]
    return PendingStep(state, members, chunks, results)


def collect_step(
    optimizer: MetaOptimizer, pending: PendingStep, comm: Communicator
) -> tuple[Any, dict[str, Any]]:
    """Wait for this rank's results, exchange them, tell.

    They are put together in chunk order on every rank, so the outcome does not depend on the number of ranks.

    Args:
        optimizer: the outer loop.
        pending: from `dispatch_step`.
        comm: the ranks.

    Returns:
        The new state and metrics, some of which a device may still be at.
    """
    chunks = pending.chunks
    rows = [np.concatenate([np.ravel(part) for part in parts]) for parts in jax.device_get(pending.results)]
    rounds = math.ceil(len(chunks) / comm.size)
    rows += [np.zeros_like(rows[0])] * (rounds - len(rows))
    gathered = comm.allgather(np.stack(rows).astype(np.float32))  # [ranks, rounds, row]
    in_chunk_order = gathered.swapaxes(0, 1).reshape(rounds * comm.size, -1)[: len(chunks)]
    results = _results(in_chunk_order, chunks, optimizer.unit_members)
    return optimizer.tell(pending.state, pending.members, results)


def meta_step(
    optimizer: MetaOptimizer, state: Any, chunks: Sequence[Chunk], key: Array, comm: Communicator
) -> tuple[Any, dict[str, Any]]:
    """Take a whole meta step: `dispatch_step`, then `collect_step`."""
    return collect_step(optimizer, dispatch_step(optimizer, state, chunks, key, comm), comm)


def _results(rows: np.ndarray, chunks: Sequence[Chunk], unit_members: int) -> Results:
    units = sum(chunk.count for chunk in chunks)
    loss, accuracy = np.empty((2, units, unit_members), np.float32)
    by_group: dict[int, list[np.ndarray]] = {}
    for row, chunk in zip(rows, chunks, strict=True):
        size = len(chunk.units) * unit_members
        real = chunk.units[: chunk.count]
        loss[real] = row[:size].reshape(-1, unit_members)[: chunk.count]
        accuracy[real] = row[size : 2 * size].reshape(-1, unit_members)[: chunk.count]
        by_group.setdefault(id(chunk.group), []).append(row[2 * size :])
    gradient = np.zeros(rows.shape[1] - 2 * len(chunks[0].units) * unit_members, np.float32)
    for of_group in by_group.values():
        gradient += tree_sum(np.stack(of_group))
    return Results(loss=loss, accuracy=accuracy, gradient=gradient)


def _numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """Wait for metrics that a device is still at."""
    return {name: value.item() if isinstance(value, jax.Array) else value for name, value in metrics.items()}


_CHECKPOINT = "the checkpoint"


@dataclass
class _Progressed:
    """How far a run is; kept in its checkpoints beside the state of the outer loop."""

    step: int = 0
    wall_s: float = 0.0
    best_accuracy: float | None = None


_norm = jax.jit(optax.tree.norm)


def run_training(config: Config, run: RunDirectory | None, comm: Communicator, resume: bool = False) -> bool:
    """Meta-train as configured, from the start or from the latest checkpoint, and evaluate at the end.

    Args:
        config: with `call: train` or `call: clone`.
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
        return _Run(config, run, comm, resume).train(stop)


class _Run:
    """A training run: the parts that the configuration describes, and what is written where."""

    def __init__(self, config: Config, run: RunDirectory | None, comm: Communicator, resume: bool):
        started = time.monotonic()
        self.comm, self.run = comm, run
        build.check_same_kernel(config, comm)
        if config.call == "clone":
            groups = build.clone_groups(config)
        else:
            groups = build.training_groups(config, build.load_training_data(config, comm))
        self.sources, self.left_out = build.load_evaluation_data(config, comm)
        self.tasks = build.evaluation_tasks(config, self.sources)
        shapes = [(each.name, each.task.input_shape, each.task.num_classes) for each in self.tasks]
        build.check_evaluation(config, groups[0].learner, shapes)
        size = int(comm.allgather(np.array(build.chunk_size(config, groups, comm.size))).min())
        self.config = config.model_copy(
            update={"training": config.training.model_copy(update={"chunk_size": size})}
        )
        self.chunks = chunks_of(groups, size)
        self.untrained = groups[0].learner.init_params(initial_key(config))
        if not resume:
            compared_contenders(config, self.sources, comm)  # now, not after hours: are their files there?
        self.optimizer = build.meta_optimizer(config, self.untrained)
        key = jax.random.key(config.seed)
        self.state = self.optimizer.init(jax.random.fold_in(key, 1), self.untrained)
        self.episode_key = jax.random.fold_in(key, 2)
        self.done = _Progressed()
        self.store = CheckpointStore(run.checkpoints, config.checkpoint.keep) if run else None
        self.last_evaluations: list[Evaluation] | None = None
        if not (resume and self._load()) and config.checkpoint.restore is not None:
            start = restored_params(config, comm).fit(groups[0].learner)
            self.state = self.optimizer.init(jax.random.fold_in(key, 1), start)
        self.started = started - self.done.wall_s
        self.session_started = started
        if run is not None:
            run.complete.unlink(missing_ok=True)
            atomic_write(run.config, dump(self.config))
        self.metrics = MetricsLog(run.metrics) if run else None
        self.failing: set[str] = set()
        self.tracker = start_tracking(self.config, run)

    def train(self, stop: StopSignals) -> bool:
        """Run the meta steps that are left; return whether the run is complete."""
        try:
            return self._train(stop)
        except BaseException:  # whatever ends the run: wandb shall not show it as a success
            if self.comm.size == 1:  # else nothing may come before the other ranks are ended
                self.tracker.finish(exit_code=1)
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
            for reason in self.left_out:
                progress.note(f"left out: {reason}")
            try:
                if self.done.step < iterations:
                    self._check(stop)
                    self._take_steps(iterations, stop)
                if self.done.step % self.config.checkpoint.frequency or self.failing:
                    self._save_or_rescue()
                self._finish(lambda: self._check(stop))
            except Stopped as why:
                if self.done.step < iterations:
                    self._save_or_rescue()
                progress.note(f"stopped after step {self.done.step} ({why})")
                self.tracker.finish()
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

    def _dispatch_evaluations(self, params: Params) -> list[PendingEvaluation] | None:
        """Start the evaluation that is due after this step; return None if none is."""
        frequency = self.config.evaluation.frequency
        if not (frequency and self.done.step % frequency == 0 and self.tasks):
            return None
        return dispatch_evaluations(self.config, self._own(params), self.comm)

    def _write_step(
        self, params: Params, measured: dict[str, Any], evaluations: list[PendingEvaluation] | None
    ) -> None:
        """Write what is due after a meta step."""
        step, settings, metrics = self.done.step, self.config, _numbers(measured)
        if not math.isfinite(metrics["param_norm"]):
            raise FloatingPointError(
                f"the meta-parameters are not finite after meta step {step}; the checkpoints before it stay. "
                "A smaller optimizer.learning_rate or optimizer.clip_gradnorm may help"
            )
        self.progress.update(step, loss=metrics["meta_loss"], accuracy=metrics["accuracy"])
        due = (
            metrics if step % settings.summary.frequency == 0 or step == settings.training.iterations else {}
        )
        self.last_evaluations = None
        if evaluations is not None:
            self.last_evaluations = [pending.collect(self.comm) for pending in evaluations]
            due = due | self._judge(params, self.last_evaluations)
        if due:
            self._log(due)
        if step % settings.checkpoint.frequency == 0 or _CHECKPOINT in self.failing:
            self._attempt(_CHECKPOINT, self._save)

    def _judge(self, params: Params, evaluations: Sequence[Evaluation]) -> dict[str, float]:
        """Tell of evaluations, keep the best meta-parameters, and return metrics."""
        accuracy = float(np.mean([each.correct.mean() for each in evaluations]))
        summaries = [each.summary() for each in evaluations]
        shown = ", ".join(f"{each['dataset']} {each['accuracy_last']:.3f}" for each in summaries)
        self.progress.note(f"step {self.done.step}: accuracy on the last examples: {shown}")
        if self.done.best_accuracy is None or accuracy > self.done.best_accuracy:
            before, self.done.best_accuracy = self.done.best_accuracy, accuracy
            if not self._attempt("best.safetensors", lambda: self._save_best(params)):
                self.done.best_accuracy = before
        self.tracker.log_params(params, self.done.step)
        return {
            f"eval/{each['dataset']}/{name}": value
            for each in summaries
            for name, value in each.items()
            if name == "loss" or name.startswith("accuracy")
        }

    def _own(self, params: Params) -> Contender:
        return own_contender(self.config, "evolved", lambda learner: params, self.tasks)

    def _evaluate_own(self, params: Params, check: Callable[[], None]) -> list[Evaluation]:
        return evaluate_all(self.config, [self._own(params)], self.comm, check)[0]

    def _finish(self, check: Callable[[], None]) -> None:
        """Evaluate what was found beside what it started from, and export it."""
        params = self.optimizer.params(self.state)
        if self.run is not None:
            exported = self.run.path / checkpoint.EXPORT_NAME
            checkpoint.export_params(exported, params, self._metadata())
            self.tracker.log_file(exported, "learner", self.done.step)
        evaluations = self.last_evaluations
        if evaluations is None:
            evaluations = self._evaluate_own(params, check)
        if self.config.evaluation.untrained and self.tasks:
            untrained = untrained_contender(self.config, self.tasks)
            evaluations = evaluations + evaluate_all(self.config, [untrained], self.comm, check)[0]
        self._write(evaluations)  # before others are looked at, whose files may be gone by now
        if self.config.evaluation.learners and self.tasks:
            contenders = compared_contenders(self.config, self.sources, self.comm)
            compared, trials = evaluate_all(self.config, contenders, self.comm, check)
            self._write(evaluations + compared, trials)
            evaluations = evaluations + compared
        if self.run is not None:
            track_results(self.run, self.tracker, evaluations)
            self.run.complete.touch()
        self.tracker.finish()

    def _write(self, evaluations: Sequence[Evaluation], trials: Sequence[Evaluation] = ()) -> None:
        if self.run is not None and evaluations:
            write_results(self.run, evaluations, trials, self.config.name)

    def _log(self, metrics: dict[str, float]) -> None:
        per_step = self.optimizer.unit_members * examples_per_step(self.config)
        line = {
            "wall_s": round(time.monotonic() - self.started, 3),
            "examples": self.done.step * per_step,
            **metrics,
        }
        if self.metrics is not None:
            self.metrics.append(self.done.step, line)
            self._attempt("metrics.jsonl", self.metrics.flush)
        self.tracker.log(line, self.done.step)

    def _metadata(self) -> dict[str, Any]:
        self.done.wall_s = time.monotonic() - self.started
        return {"config": self.config.model_dump(mode="json"), **dataclasses.asdict(self.done)}

    def _tree(self) -> dict[str, Any]:
        return {"params": self.optimizer.params(self.state), "optimizer": self.state}

    def _save(self) -> None:
        if self.store is not None and self.run is not None:
            if not self.run.config.exists():  # the folder has been away, and another one is in its place
                atomic_write(self.run.config, dump(self.config))
            path = self.store.save(self.done.step, self._tree(), self._metadata())
            self.tracker.log_file(path, "checkpoint", self.done.step)

    def _save_best(self, params: Params) -> None:
        if self.store is not None:
            path = self.store.save_best(self.done.step, {"params": params}, self._metadata())
            self.tracker.log_file(path, "best", self.done.step)

    def _attempt(self, what: str, write: Callable[[], None]) -> bool:
        """Write what the disk may refuse, say so once, and let training go on; return whether it worked."""
        try:
            write()
        except OSError as error:
            if what not in self.failing:
                self.failing.add(what)
                self.progress.note(
                    f"cannot write {what}: {error}. Training goes on, and it will be tried again: make room, "
                    "or bring the folder back. What was saved before is untouched"
                )
            return False
        if what in self.failing:
            self.failing.remove(what)
            self.progress.note(f"step {self.done.step}: {what} is written again")
        return True

    def _save_or_rescue(self) -> None:
        """Save before the end; where the run's folder refuses, into a new one among the temporary files.

        Raises:
            OSError: the run's folder refused; the message names the new one, which can be resumed.
        """
        if self.run is None or self.store is None:
            return
        try:
            self._save()
            if self.metrics is not None:
                self.metrics.flush()
        except OSError as error:
            rescue = RunDirectory(Path(tempfile.mkdtemp(prefix=f"{self.run.path.name}-")))
            atomic_write(rescue.config, dump(self.config))
            CheckpointStore(rescue.checkpoints).save(self.done.step, self._tree(), self._metadata())
            if self.metrics is not None:
                self.metrics.copy_to(rescue.metrics)
            if self.tracker.run_id is not None:
                atomic_write(rescue.wandb_id, self.tracker.run_id)
            raise OSError(
                f"cannot write to {self.run.path}: {error}\nThe state after meta step {self.done.step} is in "
                f"{rescue.path}; to go on: python launch.py --resume {rescue.path}"
            ) from error

    def _load(self) -> bool:
        """Go on from the newest undamaged checkpoint; return False, to start afresh, where there is none."""
        path = self.store.newest() if self.store is not None else None
        data = self.comm.bcast(path.read_bytes() if path is not None else b"")
        if data:
            tree, metadata = checkpoint.from_bytes(data, str(path), self._tree())
            self.state = tree["optimizer"]
            fields = {field.name for field in dataclasses.fields(_Progressed)}
            self.done = _Progressed(**{name: metadata[name] for name in fields})
        if self.run is not None:
            self.run.truncate_metrics(self.done.step)
        return bool(data)
