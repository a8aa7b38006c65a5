"""Candidates of a comparison: what a run found, its start, baselines, and learning algorithms of others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from vsml.config.model import ModelSettings, model_choices
from vsml.config.sections import ComparedLearner
from vsml.evaluation.stored import NETWORK, StoredParams
from vsml.learners import Learner
from vsml.learners.refitted import Refit
from vsml.setup import EvaluationTask, Setup, Source
from vsml.system.comm import Communicator
from vsml.types import Params

TRAINED = "meta-trained"
"""What tables call the learner that a run has found."""

RESTORED = "restored"
"""What tables call the learner that `checkpoint.restore` names."""

_WRITTEN = {"backprop": "gradient descent", "memory": "an episodic memory"}
"""What is written into synapses that are not drawn, by `synapse.init`."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A learner with its meta-parameters, or several to choose from, or a classifier of scikit-learn.

    Attributes:
        name: in tables and figures.
        tasks: what it is evaluated on.
        choices: model settings, each with what was tried in them by dotted path; of several, evaluation takes
            the best for each task.
        params_for: returns the meta-parameters for a learner that was built for a task.
        refit: a classifier that is fitted anew again and again, in place of a learner; it has one choice.
        count: on how many episodes it is evaluated, at most; None: all.
    """

    name: str
    tasks: Sequence[EvaluationTask]
    choices: Sequence[tuple[dict[str, Any], ModelSettings]]
    params_for: Callable[[Learner], Params]
    refit: Refit | None = None
    count: int | None = None


def own_candidate(
    setup: Setup, name: str, params_for: Callable[[Learner], Params], tasks: Sequence[EvaluationTask]
) -> Candidate:
    """Return the learner that `model` configures, with the given meta-parameters."""
    return Candidate(name, tasks, [({}, setup.model)], params_for)


def start_candidate(setup: Setup, tasks: Sequence[EvaluationTask]) -> Candidate:
    """Return the configured learner with fresh meta-parameters, those that training starts from.

    Its name says what they are. One that has no meta-parameters goes by the name of its type, as there is
    nothing to train.
    """
    return own_candidate(setup, start_name(setup, tasks[0]), setup.fresh_params, tasks)


def start_name(setup: Setup, task: EvaluationTask) -> str:
    """Return what tables call fresh meta-parameters: by what they are, not by what was done to them."""
    learner = setup.learner_for(task.task)
    fresh = jax.eval_shape(learner.init_params, jax.random.key(0))
    if not jax.tree.leaves(fresh):
        return setup.model.type
    synapse = getattr(setup.model.settings, "synapse", None)
    drawn = "random" if synapse is None else _WRITTEN.get(synapse.init, "random")
    what = getattr(learner, "fresh", None) or drawn
    # A run that goes on from a file does not start from what is fresh.
    return what if setup.restores else f"start: {what}"


def restored_params(setup: Setup, comm: Communicator) -> StoredParams:
    """Return the meta-parameters that `checkpoint.restore` names, which must fit `model`.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is damaged.
        ConfigError: it is of another learning algorithm.
    """
    checkpoint = setup.config.checkpoint
    stored = StoredParams.read(str(checkpoint.restore), comm)
    stored.check(setup.model, NETWORK if checkpoint.other_network else ())
    return stored


def compared_candidates(setup: Setup, sources: dict[str, Source], comm: Communicator) -> list[Candidate]:
    """Return the learners that `evaluation.learners` lists.

    Args:
        setup: of the run.
        sources: data sets by name, as far as they are there.
        comm: the ranks, of which only rank 0 has to see files of meta-parameters.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is damaged.
        ConfigError: its model settings and those of the list do not fit together.
    """
    entries = setup.config.evaluation.learners
    return [_compared_candidate(setup, entry, sources, comm) for entry in entries]


def _compared_candidate(
    setup: Setup, entry: ComparedLearner, sources: dict[str, Source], comm: Communicator
) -> Candidate:
    """Return the learner of one entry of the list."""
    tasks = setup.evaluation_tasks(sources, entry.pad)
    if entry.datasets is not None:
        tasks = [task for task in tasks if task.name in entry.datasets]
    if entry.restore is None:
        choices = model_choices(setup.model, entry)
        return Candidate(entry.name, tasks, choices, setup.fresh_params, entry.refit, entry.count)
    stored = StoredParams.read(entry.restore, comm)
    choices = model_choices(stored.model or setup.model, entry)
    for _, model in choices:
        stored.check(model, NETWORK)
    return Candidate(entry.name, tasks, choices, stored.fit, count=entry.count)
