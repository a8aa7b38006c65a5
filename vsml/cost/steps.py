"""The cost of a meta step: what its trials take, in examples, arithmetic and memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax

from vsml.cost.counts import Cost, What, cost_of
from vsml.meta.objectives.episode import kept_states, segments_of
from vsml.meta.trials import Group, params_shapes, state_bytes
from vsml.setup import Setup


@dataclass(frozen=True, eq=False)
class TrialCost:
    """What a trial of a group takes.

    Attributes:
        group: of the trial.
        members: members of a trial, which all see the same episode.
        steps: steps of the episode.
        judged: of these the last ones, which are judged; the others are run forward only.
        example: cost of a judged step of one member for each example of the inner batch.
        total: cost of the whole trial.
        state_bytes: state of one member.
        kept_states: states of the trial that are kept at a time.
    """

    group: Group
    members: int
    steps: int
    judged: int
    example: Cost
    total: Cost
    state_bytes: int
    kept_states: int


def trial_costs(setup: Setup) -> list[TrialCost]:
    """Return the cost of a trial of each group of a run that meets tasks."""
    return [_trial_cost(setup, group) for group in setup.groups]


def _trial_cost(setup: Setup, group: Group) -> TrialCost:
    batch_size = setup.config.training.batch_size
    steps = group.tasks[0].episode_length
    judged = min(steps, setup.config.optimizer.truncation_length or steps)
    segments = segments_of(group.learner, judged, batch_size)
    what: What = "gradient" if setup.differentiates else "forward"
    example = cost_of(group.learner, batch_size, what, segments)
    episode = example.times(judged)
    if judged < steps:
        episode += cost_of(group.learner, batch_size).times(steps - judged)
    members = setup.members
    return TrialCost(
        group=group,
        members=members,
        steps=steps,
        judged=judged,
        example=example,
        total=episode.times(batch_size * members),
        state_bytes=state_bytes(group.learner, batch_size),
        kept_states=kept_states(judged, segments) if setup.differentiates else members,
    )


def meta_step_cost(costs: Sequence[TrialCost]) -> Cost:
    """Return the cost of all trials of a meta step."""
    total = Cost()
    for each in costs:
        total += each.total.times(len(each.group.trials))
    return total


def parameter_count(setup: Setup) -> int:
    """Return how many numbers the meta-parameters are."""
    leaves = jax.tree.leaves(params_shapes(setup.learner))
    return sum(math.prod(leaf.shape) for leaf in leaves)
