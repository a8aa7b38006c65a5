"""Meta-testing: what a learning algorithm learns on data sets that it may never have seen."""

import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from vsml import checkpoint, plots
from vsml.build import EvaluationTask, evaluation_tasks, learner_maker, load_evaluation_data
from vsml.comm import Communicator
from vsml.config import Config
from vsml.config_files import ConfigError
from vsml.console import print_results
from vsml.files import atomic_write
from vsml.learners import Learner, run_episode
from vsml.losses import cross_entropy
from vsml.meta.objective import map_units, sample_unit
from vsml.tasks import TaskDistribution
from vsml.tracking import RunDirectory, jsonable
from vsml.types import Array, Params

MILESTONES = (10, 100, 1000)
"""After how many examples the accuracy is reported, besides at the end."""

RECENT_SHARE = 0.2
"""The accuracy after n examples is that on the last fifth of them."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How a learner did on a data set.

    Attributes:
        learner: its name.
        dataset: name of the evaluation task.
        chance: accuracy of guessing.
        correct: share of right answers, float32 [episodes, examples]; the examples of an inner batch all have
            the mean over it.
        loss: mean cross-entropy in nats, likewise.
    """

    learner: str
    dataset: str
    chance: float
    correct: np.ndarray
    loss: np.ndarray

    def summary(self) -> dict[str, Any]:
        """Return loss, accuracy over the whole episode, and `accuracy_at_10` ... `accuracy_last`.

        The accuracy after n examples is the mean over the last fifth of them and over episodes; `interval_95`
        has the half widths of 95 % intervals over episodes (normal approximation; None for one episode).
        """
        episodes, length = self.correct.shape
        ends = {f"accuracy_at_{n}": n for n in MILESTONES if n <= length} | {"accuracy_last": length}
        recent = {
            name: self.correct[:, end - math.ceil(RECENT_SHARE * end) : end].mean(1)
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
            "chance": self.chance,
            "loss": float(self.loss.mean()),
            **{name: float(values.mean()) for name, values in recent.items()},
            "interval_95": widths,
        }


def evaluate(
    name: str,
    learner: Learner,
    params: Params,
    evaluation_task: EvaluationTask,
    count: int,
    key: Array,
    comm: Communicator,
) -> Evaluation:
    """Run a learner over `count` episodes of a task, each rank its share; all ranks get the result.

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
    correct, loss = _answers(learner, params, evaluation_task.task, numbers, key)
    both = comm.allgather(np.stack([np.asarray(correct), np.asarray(loss)]))  # [ranks, 2, share, T]
    per_step = both.transpose(1, 2, 0, 3).reshape(2, share * comm.size, -1)[:, :count]
    correct, loss = np.repeat(per_step, evaluation_task.task.batch_size, axis=-1)
    chance = 1 / evaluation_task.task.real_classes
    return Evaluation(name, evaluation_task.name, chance, correct, loss)


@partial(jax.jit, static_argnames=("learner",))
def _answers(
    learner: Learner, params: Params, task: TaskDistribution, numbers: Array, key: Array
) -> tuple[Array, Array]:
    def answer(number: Array, shared: Any) -> tuple[Array, Array]:
        params, task, key = shared
        episode, state_key = sample_unit((task,), 0, key, number)
        logits = run_episode(learner, params, state_key, episode)
        correct = (logits.argmax(-1) == episode.labels).mean(-1)
        return correct, cross_entropy(logits, episode.labels).mean(-1)

    return map_units(answer, numbers, (params, task, key))


def evaluate_all(
    config: Config, learners: dict[str, Params], tasks: Sequence[EvaluationTask], comm: Communicator
) -> list[Evaluation]:
    """Evaluate each of the named meta-parameters on each task, on the same episodes."""
    make_learner, settings = learner_maker(config), config.evaluation
    key = jax.random.key(settings.seed)
    return [
        evaluate(
            name,
            make_learner(each.task.input_shape, each.task.num_classes),
            params,
            each,
            settings.count,
            key,
            comm,
        )
        for each in tasks
        for name, params in learners.items()
    ]


def write_results(run: RunDirectory, evaluations: Sequence[Evaluation], title: str | None = None) -> None:
    """Write evaluation.json, evaluation.npz and learning_curves.png, and print the table."""
    rows = [evaluation.summary() for evaluation in evaluations]
    arrays: dict[str, Any] = {}
    for each in evaluations:
        arrays[f"{each.learner}/{each.dataset}/correct"] = each.correct
        arrays[f"{each.learner}/{each.dataset}/loss"] = each.loss
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    atomic_write(run.path / "evaluation.npz", buffer.getvalue())
    atomic_write(run.path / "evaluation.json", json.dumps(jsonable(rows), indent=2, allow_nan=False) + "\n")
    curves = [plots.Curve(each.learner, each.dataset, each.correct, each.chance) for each in evaluations]
    plots.learning_curves(run.path / "learning_curves.png", curves, title=title)
    print_results(rows)


def restore_params(config: Config, template: Params, comm: Communicator) -> Params:
    """Return the meta-parameters that `checkpoint.restore` names, which only rank 0 has to see.

    Raises:
        FileNotFoundError: there are none.
        CheckpointError: they are damaged or do not fit the configured learner.
        ConfigError: they were found for other model settings, so they would be another algorithm.
    """
    path = str(config.checkpoint.restore)
    data = b""
    if comm.rank == 0:
        params, metadata = checkpoint.load_params(path, template)
        _check_model(path, metadata.get("config", {}).get("model"), config.model.model_dump(mode="json"))
        data = checkpoint.to_bytes({"params": params}, {})
    return checkpoint.from_bytes(comm.bcast(data), path, {"params": template})[0]["params"]


def _check_model(path: str, saved: dict[str, Any] | None, configured: dict[str, Any]) -> None:
    """Compare model settings; those of initialisation no longer matter, and a file may have none."""
    if saved is None:
        return
    differences = [
        f"model.{key}: got {now!r}, expected {then!r} as in {path} (checkpoint.restore)"
        for key, then, now in _differences(saved, configured)
        if not key.endswith("init_scale")
    ]
    if differences:
        raise ConfigError(differences)


def _differences(saved: Any, configured: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(saved, dict) and isinstance(configured, dict):
        for key in saved.keys() | configured.keys():
            below = f"{path}.{key}" if path else key
            yield from _differences(saved.get(key), configured.get(key), below)
    elif saved != configured:
        yield path, saved, configured


def run_evaluation(config: Config, run: RunDirectory | None, comm: Communicator) -> list[Evaluation]:
    """Evaluate the meta-parameters that `checkpoint.restore` names, beside untrained ones.

    Args:
        config: with `call: evaluate`.
        run: where to write, on rank 0; None on the other ranks.
        comm: the ranks.
    """
    sources, missing = load_evaluation_data(config, comm)
    tasks = evaluation_tasks(config, sources)
    if not tasks:
        raise ConfigError(["evaluation.datasets: nothing to evaluate on", *missing])
    first = tasks[0].task
    learner = learner_maker(config)(first.input_shape, first.num_classes)
    untrained = learner.init_params(initial_key(config))
    learners: dict[str, Params] = {}
    if config.checkpoint.restore is not None:
        learners["restored"] = restore_params(config, untrained, comm)
    if config.evaluation.untrained or not learners:
        learners["untrained"] = untrained
    evaluations = evaluate_all(config, learners, tasks, comm)
    if run is not None:
        for reason in missing:
            print(f"left out: {reason}")
        write_results(run, evaluations)
    return evaluations


def initial_key(config: Config) -> Array:
    """Return the key that a run's untrained meta-parameters are drawn from."""
    return jax.random.fold_in(jax.random.key(config.seed), 0)
