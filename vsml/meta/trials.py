"""Trials of a meta step: grouped by the shapes of their episodes, cut into chunks, and what they come to.

A trial is what shares one draw of the objective: in evolution an antithetic pair of members that meet the
same episode from the same initial state, in back-propagation one episode. All that is random in a trial
follows from a key and the trial's number, so it does not matter who evaluates it.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from vsml.learners import Learner
from vsml.tasks import TaskDistribution
from vsml.types import Array, Episode, State, Values


@dataclass(frozen=True, eq=False)
class Group:
    """Trials whose episodes have the same shapes, so that one compiled function serves them.

    Attributes:
        learner: built for these shapes.
        tasks: the task distributions that occur, or what stands for them before their data are loaded; none
            if the objective needs none.
        trials: numbers of the trials, int32 [n].
        options: which of `tasks` each trial takes, int32 [n].
    """

    learner: Learner
    tasks: tuple[Any, ...]
    trials: np.ndarray
    options: np.ndarray

    @property
    def units(self) -> np.ndarray:
        """The old name of `trials`."""
        _warn_of("Group.units", "Group.trials")
        return self.trials


def group_trials(
    tasks: Sequence[Any],
    trials: int,
    make_learner: Callable[[tuple[int, ...], Any], Learner],
) -> list[Group]:
    """Group the trials of a meta step by the shapes of their episodes.

    Args:
        tasks: the mixture: trial i takes `tasks[i % len(tasks)]`. Of each the input shape, the outputs
            (or the number of classes) and the length of its episodes are looked at.
        trials: how many trials there are.
        make_learner: from input shape and outputs (of classes: their number) to a learner.

    Raises:
        ValueError: the learners of two shapes do not share meta-parameters.
    """
    places_by_shape: dict[tuple, list[int]] = {}
    for place, task in enumerate(tasks[:trials]):
        shape = (task.input_shape, _outputs_of(task), task.episode_length)
        places_by_shape.setdefault(shape, []).append(place)
    groups = []
    for (input_shape, outputs, _), places in places_by_shape.items():
        learner = make_learner(input_shape, outputs)
        groups.append(_group_of(learner, tasks, places, trials))
    _check_shared_params(groups)
    return groups


def _outputs_of(task: Any) -> Any:
    """Return what a learner of the task answers with; of classes only how many there are."""
    outputs = getattr(task, "outputs", None)
    return outputs if isinstance(outputs, Values) else task.num_classes


def _group_of(
    learner: Learner,
    tasks: Sequence[Any],
    places: Sequence[int],
    trials: int,
) -> Group:
    """Return the group of the trials that take a task at one of some places of the mixture."""
    # The same task may stand at several places of the mixture: it is one option.
    distinct: dict[int, Any] = {}
    for place in places:
        distinct.setdefault(id(tasks[place]), tasks[place])
    option_of_task = {task: option for option, task in enumerate(distinct)}
    numbers = []
    options = []
    for trial in range(trials):
        place = trial % len(tasks)
        if place in places:
            numbers.append(trial)
            options.append(option_of_task[id(tasks[place])])
    return Group(
        learner=learner,
        tasks=tuple(distinct.values()),
        trials=np.array(numbers, np.int32),
        options=np.array(options, np.int32),
    )


def group_each(
    tasks: Sequence[Any],
    trials: int,
    make_learner: Callable[[tuple[int, ...], Any], Learner],
) -> list[Group]:
    """Return a group for each task of an objective that has tasks of its own; trials take them in turn.

    Args:
        tasks: each with an input shape and outputs.
        trials: how many trials there are.
        make_learner: from input shape and outputs to a learner.

    Raises:
        ValueError: there are fewer trials than tasks, or learners do not share meta-parameters.
    """
    if trials < len(tasks):
        raise ValueError(
            f"training.population_size: got {trials} trials, expected {len(tasks)} or more, as many as the "
            "objective has tasks"
        )
    groups = []
    for place, task in enumerate(tasks):
        learner = make_learner(task.input_shape, task.outputs)
        groups.append(_group_of(learner, tasks, [place], trials))
    _check_shared_params(groups)
    return groups


def group_without_tasks(learner: Learner, trials: int) -> Group:
    """Return the one group of an objective that needs no tasks."""
    numbers = np.arange(trials, dtype=np.int32)
    return Group(learner, (), numbers, np.zeros_like(numbers))


def _check_shared_params(groups: Sequence[Group]) -> None:
    """Raise ValueError where the learners of two groups do not share meta-parameters."""
    one = groups[0].learner
    shapes = params_shapes(one)
    for group in groups[1:]:
        other = group.learner
        if params_shapes(other) != shapes:
            raise ValueError(
                "the meta-parameters of this learner depend on the task: inputs "
                f"{one.input_shape} with {one.num_classes} classes need others than inputs "
                f"{other.input_shape} with {other.num_classes}; pad both to one shape "
                "(data.preprocess.pad, configs/pad.yaml)"
            )


def params_shapes(learner: Learner) -> Any:
    """Return the meta-parameters' tree with shapes and dtypes in place of arrays."""
    return jax.eval_shape(learner.init_params, jax.random.key(0))


def state_bytes(learner: Learner, batch_size: int) -> int:
    """Return the size of a learner's inner state, in bytes."""
    key = jax.random.key(0)

    def start() -> State:
        params = learner.init_params(key)
        return learner.init_state(params, key, batch_size)

    return tree_bytes(jax.eval_shape(start))


def tree_bytes(tree: Any) -> int:
    """Return the size of all arrays of a tree, or of what stands in for them, in bytes."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        total += math.prod(leaf.shape) * leaf.dtype.itemsize
    return total


@dataclass(frozen=True, eq=False)
class Chunk:
    """Trials that are evaluated in one call: a part of a group, filled up to a fixed size.

    Attributes:
        group: where the trials are from.
        trials: their numbers, int32 [chunk_size]; the last may be fillers, which are ignored.
        options: which of the group's tasks each takes, int32 [chunk_size].
        count: how many are real.
    """

    group: Group
    trials: np.ndarray
    options: np.ndarray
    count: int

    @property
    def units(self) -> np.ndarray:
        """The old name of `trials`."""
        _warn_of("Chunk.units", "Chunk.trials")
        return self.trials


def chunks_of(groups: Sequence[Group], chunk_size: int) -> list[Chunk]:
    """Cut each group into chunks of `chunk_size` trials, the last of a group filled with ignored ones."""
    chunks = []
    for group in groups:
        for start in range(0, len(group.trials), chunk_size):
            end = start + chunk_size
            trials = group.trials[start:end]
            options = group.options[start:end]
            fill = (0, chunk_size - len(trials))
            chunk = Chunk(
                group=group,
                trials=np.pad(trials, fill, mode="edge"),
                options=np.pad(options, fill, mode="edge"),
                count=len(trials),
            )
            chunks.append(chunk)
    return chunks


@dataclass(frozen=True, eq=False)
class Results:
    """What the trials of one meta step came to, in the order of their numbers, the same on every rank.

    Attributes:
        loss: lower is better, float32 [trials, members of a trial].
        score: likewise, higher is better; only reported.
        gradient: sum of the trials' gradients, flat [D], added up as `tree_sum` does, group by group; empty
            where the optimizer needs none.
        score_name: what the score is, as metrics name it.
    """

    loss: np.ndarray
    score: np.ndarray
    gradient: np.ndarray
    score_name: str = "accuracy"

    @property
    def accuracy(self) -> np.ndarray:
        """The old name of `score`."""
        _warn_of("Results.accuracy", "Results.score")
        return self.score


def sample_trial(
    tasks: tuple[TaskDistribution, ...],
    option: Array | int,
    key: Array,
    trial: Array,
) -> tuple[Episode, Array]:
    """Return the episode of a trial and the key of its initial state.

    Args:
        tasks: task distributions with the same shapes.
        option: which of them, int [].
        key: of the meta step.
        trial: number of the trial, int [].
    """
    trial_key = jax.random.fold_in(key, trial)
    episode_key, state_key = jax.random.split(trial_key)
    if len(tasks) == 1:
        return tasks[0].sample(episode_key), state_key
    samplers = [task.sample for task in tasks]
    return jax.lax.switch(option, samplers, episode_key), state_key


def _warn_of(old: str, new: str) -> None:
    message = f"{old} is {new} now; the old name goes with version 0.3"
    warnings.warn(message, DeprecationWarning, stacklevel=3)
