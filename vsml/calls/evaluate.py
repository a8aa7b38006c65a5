"""Meta-testing: what a learning algorithm learns on data sets that it may never have seen."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from vsml.config.files import ConfigError
from vsml.config.schema import Config, EvaluationConfig, evaluation_specs
from vsml.evaluation.candidates import (
    Contender,
    compared_contenders,
    own_contender,
    restored_params,
    untrained_contender,
)
from vsml.learners import Learner, make_learner, run_episode
from vsml.losses import cross_entropy, right_answers
from vsml.meta.objective import map_units, sample_unit
from vsml.reporting import plots
from vsml.reporting.tables import markdown_table, print_results
from vsml.runs.directory import RunDirectory
from vsml.runs.progress import say
from vsml.runs.wandb import WandbTracker, start_tracking
from vsml.setup import EvaluationTask, evaluation_tasks, load_evaluation_data
from vsml.system.comm import Communicator
from vsml.system.files import atomic_write, jsonable, write_arrays
from vsml.system.signals import Stopped, StopSignals
from vsml.tasks import TaskDistribution
from vsml.types import Array, Params

_TRIALS = 1
"""What the key of the evaluation episodes is folded with for those that settings are tried on."""

MILESTONES = (10, 100, 1000, 10_000)
"""After how many examples the accuracy is reported, besides at the end."""

FIGURE = "learning_curves.png"

_POINTS_IN_WANDB = 30


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How a learner did on a data set.

    Attributes:
        learner: its name.
        dataset: name of the evaluation task.
        chance: accuracy of guessing.
        correct: share of right answers, float32 [episodes, examples], of the answers that count (all, or
            those to the queries of few-shot episodes); the examples of an inner batch all have the mean over
            it.
        loss: mean cross-entropy in nats, likewise.
        support: examples that came before the first that counts.
        repeats_after: examples of an episode, `support` included, after which images come again, if they do.
        recent_share: the accuracy after n examples is that on this share of them, the latest.
        tried: settings of the learner that were chosen or are to be chosen from, by dotted path.
    """

    learner: str
    dataset: str
    chance: float
    correct: np.ndarray
    loss: np.ndarray
    support: int = 0
    repeats_after: int | None = None
    recent_share: float = EvaluationConfig().recent_share
    tried: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Return loss, accuracy over the whole episode, and `accuracy_at_10` ... `accuracy_last`.

        The accuracy after n examples is the mean over episodes and the latest `recent_share` of the examples,
        at least one; `interval_95` has the half widths of 95 % intervals over episodes (normal approximation;
        None for one episode).
        """
        episodes, length = self.correct.shape
        ends = {f"accuracy_at_{n}": n for n in MILESTONES if n <= length} | {"accuracy_last": length}
        recent = {
            name: self.correct[:, end - max(1, math.ceil(self.recent_share * end)) : end].mean(1)
            for name, end in ends.items()
        } | {"accuracy": self.correct.mean(1)}
        widths = {
            name: plots.NORMAL_95 * float(values.std(ddof=1)) / math.sqrt(episodes) if episodes > 1 else None
            for name, values in recent.items()
        }
        return {
            "learner": self.learner,
            "dataset": self.dataset,
            "episodes": episodes,
            "examples": length,
            "repeats_after": self.repeats_after,
            "recent_share": self.recent_share,
            "chance": self.chance,
            "tried": self.tried,
            "loss": float(self.loss.mean()),
            "nonfinite": int((~np.isfinite(self.loss)).sum()),
            **{name: float(values.mean()) for name, values in recent.items()},
            "interval_95": widths,
        }


@dataclass(frozen=True, eq=False)
class PendingEvaluation:
    """An evaluation that a device may still be at.

    Attributes:
        learner: its name.
        evaluation_task: what it is evaluated on.
        count: how many episodes.
        answers: to this rank's share of them, not waited for.
        recent_share, tried: as in `Evaluation`.
    """

    learner: str
    evaluation_task: EvaluationTask
    count: int
    answers: tuple[Array, Array, Array]
    recent_share: float = EvaluationConfig().recent_share
    tried: dict[str, Any] = field(default_factory=dict)

    def collect(self, comm: Communicator) -> Evaluation:
        """Wait for the answers and exchange them; all ranks get the result."""
        gathered = comm.allgather(np.stack(jax.device_get(self.answers)))  # [ranks, 3, share, T]
        ranks, _, share, _ = gathered.shape
        per_step = gathered.transpose(1, 2, 0, 3).reshape(3, share * ranks, -1)[:, : self.count]
        task = self.evaluation_task.task
        correct, loss, weight = np.repeat(per_step, task.batch_size, axis=-1)
        counts = weight[0] > 0  # of all episodes of a task the same answers count
        return Evaluation(
            learner=self.learner,
            dataset=self.evaluation_task.name,
            chance=1 / task.real_classes,
            correct=correct[:, counts],
            loss=loss[:, counts],
            support=int(counts.argmax()),
            repeats_after=task.repeats_after,
            recent_share=self.recent_share,
            tried=self.tried,
        )


def dispatch(
    name: str,
    learner: Learner,
    params: Params,
    evaluation_task: EvaluationTask,
    count: int,
    key: Array,
    comm: Communicator,
) -> PendingEvaluation:
    """Start to run a learner over `count` episodes of a task, each rank its share; wait for nothing.

    Args:
        name: of the learner.
        learner: built for the shapes of the task.
        params: its meta-parameters.
        evaluation_task: the task.
        count: how many episodes.
        key: of the episodes and the initial states; learners that get the same key meet the same episodes.
        comm: the ranks.
    """
    share = math.ceil(count / comm.size)
    numbers = np.arange(share, dtype=np.int32) * comm.size + comm.rank
    answers = _answers(learner, params, evaluation_task.task, numbers, key)
    return PendingEvaluation(name, evaluation_task, count, answers)


def evaluate(
    name: str,
    learner: Learner,
    params: Params,
    evaluation_task: EvaluationTask,
    count: int,
    key: Array,
    comm: Communicator,
) -> Evaluation:
    """Run a learner over episodes of a task; arguments as of `dispatch`, all ranks get the result."""
    return dispatch(name, learner, params, evaluation_task, count, key, comm).collect(comm)


@partial(jax.jit, static_argnames=("learner",))
def _answers(
    learner: Learner, params: Params, task: TaskDistribution, numbers: Array, key: Array
) -> tuple[Array, Array, Array]:
    def answer(number: Array, shared: Any) -> tuple[Array, Array, Array]:
        params, task, key = shared
        episode, state_key = sample_unit((task,), 0, key, number)
        logits = run_episode(learner, params, state_key, episode)
        correct = right_answers(logits, episode.y).mean(-1)
        return correct, cross_entropy(logits, episode.y).mean(-1), episode.weight.mean(-1)

    return map_units(answer, numbers, (params, task, key))


def evaluate_all(
    config: Config,
    contenders: Sequence[Contender],
    comm: Communicator,
    check: Callable[[], None] = lambda: None,
) -> tuple[list[Evaluation], list[Evaluation]]:
    """Evaluate contenders on their tasks, all on the same episodes.

    One with several settings to choose from is first tried with each on `evaluation.tune_count` other
    episodes of the task; the settings with the highest accuracy, as `evaluation.tune_by` has it, are taken.

    Args:
        config: the run.
        contenders: who is evaluated, each on its own tasks.
        comm: the ranks.
        check: called before each evaluation; may raise on all ranks to end it.

    Returns:
        The evaluations, task by task, and the trials.
    """
    key = jax.random.key(config.evaluation.seed)
    evaluations, trials = [], []
    pairs = [
        (task, contender)
        for spec in evaluation_specs(config)
        for contender in contenders
        for task in contender.tasks
        if task.name == spec.name
    ]
    for task, contender in pairs:
        tried = list(_trials(config, contender, task, comm, check))
        accuracies = [trial.summary()[config.evaluation.tune_by] for trial in tried]
        best = accuracies.index(max(accuracies)) if tried else 0
        check()
        pending = _dispatch_choice(config, contender, task, best, config.evaluation.count, key, comm)
        evaluations.append(pending.collect(comm))
        trials += tried
    return evaluations, trials


def _trials(
    config: Config,
    contender: Contender,
    task: EvaluationTask,
    comm: Communicator,
    check: Callable[[], None],
) -> Iterator[Evaluation]:
    """Try each of several settings of a contender on a task."""
    settings = config.evaluation
    key = jax.random.fold_in(jax.random.key(settings.seed), _TRIALS)
    if len(contender.choices) > 1:
        for choice in range(len(contender.choices)):
            check()
            yield _dispatch_choice(config, contender, task, choice, settings.tune_count, key, comm).collect(
                comm
            )


def dispatch_evaluations(config: Config, contender: Contender, comm: Communicator) -> list[PendingEvaluation]:
    """Start what `evaluate_all` does for one contender with nothing to choose; wait for nothing."""
    key, count = jax.random.key(config.evaluation.seed), config.evaluation.count
    return [_dispatch_choice(config, contender, task, 0, count, key, comm) for task in contender.tasks]


def _dispatch_choice(
    config: Config,
    contender: Contender,
    task: EvaluationTask,
    choice: int,
    count: int,
    key: Array,
    comm: Communicator,
) -> PendingEvaluation:
    tried, model = contender.choices[choice]
    learner = make_learner(model.type, model.settings, task.task.input_shape, task.task.num_classes)
    params = contender.params_for(learner)
    pending = dispatch(contender.name, learner, params, task, count, key, comm)
    return replace(pending, tried=tried, recent_share=config.evaluation.recent_share)


def write_results(
    run: RunDirectory,
    evaluations: Sequence[Evaluation],
    trials: Sequence[Evaluation] = (),
    title: str | None = None,
) -> None:
    """Write evaluation.json, .md, .npz, learning_curves.png and, of trials, tuning.json; print the table."""
    rows = [evaluation.summary() for evaluation in evaluations]
    arrays: dict[str, Any] = {}
    for each in evaluations:
        arrays[f"{each.learner}/{each.dataset}/correct"] = each.correct
        arrays[f"{each.learner}/{each.dataset}/loss"] = each.loss
    write_arrays(run.path / "evaluation.npz", arrays)
    atomic_write(run.path / "evaluation.json", _as_json(rows))
    atomic_write(run.path / "evaluation.md", markdown_table(rows))
    if trials:
        atomic_write(run.path / "tuning.json", _as_json([trial.summary() for trial in trials]))
    curves = [
        plots.Curve(each.learner, each.dataset, each.correct, each.chance, each.support, each.repeats_after)
        for each in evaluations
    ]
    plots.learning_curves(run.path / FIGURE, curves, title=title)
    print_results(rows)


def track_results(run: RunDirectory, tracker: WandbTracker, evaluations: Sequence[Evaluation]) -> None:
    """Copy what `write_results` wrote into wandb: table, figure, and curves over examples seen.

    A point of a curve is the mean over episodes of `plots.trailing_accuracy`, at up to 30 places that are
    evenly spaced on a logarithmic axis.
    """
    if not evaluations:
        return
    rows = [each.summary() for each in evaluations]
    tracker.log_table("evaluation", [{k: v for k, v in row.items() if k != "interval_95"} for row in rows])
    tracker.log_image("learning_curves", run.path / FIGURE)
    points: dict[int, dict[str, float]] = {}
    for each in evaluations:
        accuracy = plots.trailing_accuracy(each.correct).mean(0)
        for place in np.unique(np.geomspace(1, len(accuracy), _POINTS_IN_WANDB).round().astype(int)):
            seen = int(each.support + place)
            points.setdefault(seen, {"examples": seen})[f"{each.dataset}/{each.learner}"] = float(
                accuracy[place - 1]
            )
    tracker.log_curves("curves", "examples", [points[seen] for seen in sorted(points)])


def _as_json(rows: Sequence[dict[str, Any]]) -> str:
    return json.dumps(jsonable(rows), indent=2, allow_nan=False) + "\n"


def run_evaluation(config: Config, run: RunDirectory | None, comm: Communicator) -> list[Evaluation] | None:
    """Evaluate what `checkpoint.restore` and `evaluation.learners` name, beside untrained meta-parameters.

    Args:
        config: with `call: evaluate`.
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
            return _run_evaluation(config, run, comm, check)
        except Stopped as why:
            if run is not None:
                say(f"stopped before the evaluation was complete ({why}); nothing of it is kept")
            return None


def _run_evaluation(
    config: Config, run: RunDirectory | None, comm: Communicator, check: Callable[[], None]
) -> list[Evaluation]:
    sources, missing = load_evaluation_data(config, comm)
    tasks = evaluation_tasks(config, sources)
    if not tasks:
        raise ConfigError(["evaluation.datasets: nothing to evaluate on", *missing])
    contenders: list[Contender] = []
    if config.checkpoint.restore is not None:
        contenders.append(own_contender(config, "restored", restored_params(config, comm).fit, tasks))
    contenders += compared_contenders(config, sources, comm)
    if config.evaluation.untrained or not contenders:
        contenders.append(untrained_contender(config, tasks))
    evaluations, trials = evaluate_all(config, contenders, comm, check)
    if run is not None:
        for reason in missing:
            say(f"left out: {reason}")
        write_results(run, evaluations, trials, config.name)
        tracker = start_tracking(config, run)
        track_results(run, tracker, evaluations)
        tracker.finish()
        run.complete.touch()
    return evaluations
