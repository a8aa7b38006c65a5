"""A comparison: candidates on the same episodes, each with the best of its settings."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import jax

from vsml.config.sections import EvaluationConfig
from vsml.evaluation.candidates import Candidate
from vsml.evaluation.episodes import Metrics, PendingEvaluation, dispatch, dispatch_refitted
from vsml.evaluation.metrics import METRICS, main_metric
from vsml.evaluation.scores import Evaluation
from vsml.learners import make_learner
from vsml.options import build_plugin
from vsml.setup import EvaluationTask
from vsml.system.comm import Communicator
from vsml.types import Array

_TRIALS = 1
"""What the key of the evaluation episodes is folded with for those that settings are tried on."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """How candidates are compared.

    Attributes:
        settings: section `evaluation` of the configuration.
        comm: the ranks.
        check: called before each evaluation; may raise on all ranks to end it.
    """

    settings: EvaluationConfig
    comm: Communicator
    check: Callable[[], None] = lambda: None

    def evaluate(self, candidates: Sequence[Candidate]) -> tuple[list[Evaluation], list[Evaluation]]:
        """Evaluate candidates on their tasks, all on the same episodes.

        One with several settings to choose from is first tried with each on `evaluation.tune_count` other
        episodes of the task; the settings that are best, as `evaluation.tune_by` has it, are taken.

        Returns:
            The evaluations, task by task, and the trials.
        """
        evaluations, trials = [], []
        for task, candidate in _task_by_task(candidates):
            tried = list(self._trials(candidate, task))
            best = self._best(tried, task) if tried else 0
            self.check()
            pending = self._dispatch(candidate, task, best, self.settings.count, self._key)
            evaluations.append(pending.collect(self.comm))
            trials += tried
        return evaluations, trials

    def dispatch(self, candidate: Candidate) -> list[PendingEvaluation]:
        """Start what `evaluate` does for one candidate with nothing to choose; wait for nothing."""
        count = self.settings.count
        return [self._dispatch(candidate, task, 0, count, self._key) for task in candidate.tasks]

    @functools.cached_property
    def metrics(self) -> Metrics:
        """Metrics that are measured beside the loss and the main one."""
        return tuple((plugin.name, build_plugin(METRICS, plugin)) for plugin in self.settings.metrics)

    @property
    def _key(self) -> Array:
        return jax.random.key(self.settings.seed)

    def _trials(self, candidate: Candidate, task: EvaluationTask) -> Iterator[Evaluation]:
        """Try each of several settings of a candidate on a task."""
        if len(candidate.choices) == 1:
            return
        key = jax.random.fold_in(self._key, _TRIALS)
        for choice in range(len(candidate.choices)):
            self.check()
            pending = self._dispatch(candidate, task, choice, self.settings.tune_count, key)
            yield pending.collect(self.comm)

    def _best(self, tried: Sequence[Evaluation], task: EvaluationTask) -> int:
        """Return which of the trials is best; of equal ones the first."""
        name, metric = main_metric(task.task.outputs)
        column = self.settings.tune_by.replace("accuracy", name)
        scores = [trial.summary()[column] for trial in tried]
        best = max(scores) if metric.better == "higher" else min(scores)
        return scores.index(best)

    def _dispatch(
        self, candidate: Candidate, task: EvaluationTask, choice: int, count: int, key: Array
    ) -> PendingEvaluation:
        count = min(count, candidate.count or count)
        if candidate.refit is not None:
            pending = dispatch_refitted(
                candidate.name, candidate.refit, task, count, key, self.comm, self.metrics
            )
            return replace(pending, recent_share=self.settings.recent_share)
        tried, model = candidate.choices[choice]
        learner = make_learner(model.type, model.settings, task.task.input_shape, task.task.outputs)
        params = candidate.params_for(learner)
        pending = dispatch(candidate.name, learner, params, task, count, key, self.comm, self.metrics)
        return replace(pending, tried=tried, recent_share=self.settings.recent_share)


def _task_by_task(candidates: Sequence[Candidate]) -> list[tuple[EvaluationTask, Candidate]]:
    """Return all pairs of a task and a candidate, in the order of tasks, then of candidates."""
    pairs = [(task, candidate) for candidate in candidates for task in candidate.tasks]
    return sorted(pairs, key=lambda pair: pair[0].number)  # stable: candidates keep their order
