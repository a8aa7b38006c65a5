"""The call `introspect`: experiments on learning algorithms, their numbers and figures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from vsml.calls.plan import evaluation_plan
from vsml.calls.sources import tell_sources
from vsml.config.files import ConfigError
from vsml.config.sections import EvaluationConfig
from vsml.evaluation.candidates import Candidate, compared_candidates
from vsml.introspection import plots
from vsml.introspection.experiments import (
    ERRORS,
    INPUTS,
    Probe,
    SynapseReport,
    check_inspectable,
    inspect_synapses,
    label_swap,
    mean,
    nth_exposure,
    repetition,
    wrong_label,
)
from vsml.introspection.plots import Answers
from vsml.learners import make_learner
from vsml.meta.trials import sample_trial
from vsml.reporting.plots import drawn
from vsml.runs.directory import RunDirectory
from vsml.runs.record import write_or_rescue
from vsml.runs.wandb import start_tracking
from vsml.settings import Int, Positive, Problem, Section
from vsml.setup import EvaluationTask, Setup
from vsml.system.comm import Communicator
from vsml.system.files import atomic_write, jsonable, write_arrays, write_json
from vsml.system.terminal import say
from vsml.tasks import TaskDistribution
from vsml.types import Array, Episode


class IntrospectConfig(Section):
    """What `call: introspect` looks at, in the learners of `evaluation.learners`."""

    before: Positive = Field(default=100, description="examples that come before an experiment")
    repeats: Annotated[Int, Field(ge=2)] = Field(
        default=10, description="times that one example is repeated, and sights of a class that are followed"
    )
    synapses: Positive = Field(default=200, description="synapses that are followed, drawn at random")


@dataclass(frozen=True)
class Introspect:
    """`call: introspect`: experiments on learning algorithms, and what their synapses hold and do.

    Attributes:
        config: its settings.
    """

    config: IntrospectConfig

    def problems(self, setup: Setup) -> Iterator[Problem]:
        """Yield what the experiments cannot be made with."""
        evaluation = setup.config.evaluation
        involved = ("call", "introspect")
        if not evaluation.learners:
            yield Problem(
                "evaluation.learners", (), "one or more to look at, with call: introspect", involved
            )
        if evaluation.batch_size > 1:
            expected = "1 with call: introspect"
            yield Problem("evaluation.batch_size", evaluation.batch_size, expected, involved)
        needed = self.config.before + self.config.repeats
        for index, spec in enumerate(setup.config.evaluation_specs):
            if spec.task.few_shot is not None:
                path = f"evaluation.datasets.{index}.few_shot"
                yield Problem(path, spec.name, "null with call: introspect", involved)
            if spec.task.episode_length < needed:
                expected = f"introspect.before + repeats, {needed}, or more"
                yield Problem("evaluation.episode_length", spec.task.episode_length, expected, involved)
        for index, learner in enumerate(evaluation.learners):
            if learner.tune:
                expected = "nothing, with call: introspect: name the settings in `model`"
                yield Problem(f"evaluation.learners.{index}.tune", dict(learner.tune), expected, involved)

    def plan(self, setup: Setup, ranks: int) -> list[str]:
        """Return the plan of the evaluations, whose episodes and learners are looked at."""
        del ranks
        return evaluation_plan(setup, periodic=False)

    def run(self, setup: Setup, run: RunDirectory | None, comm: Communicator, resume: bool) -> int:
        """Make the experiments, anew where they were not complete."""
        del resume
        run_introspection(setup, self.config, run, comm)
        return 0


@dataclass(frozen=True, eq=False)
class Introspection:
    """What was seen of one learner on one data set.

    Attributes:
        dataset: its name.
        answers: what the learner, by its name, answered in the experiments.
        report: what its synapses hold and do, of VSML that can be inspected.
    """

    dataset: str
    answers: Answers
    report: SynapseReport | None = None

    @property
    def learner(self) -> str:
        """Name of the learner."""
        return self.answers.name

    def summary(self) -> dict[str, Any]:
        """Return what it comes to, in numbers."""
        seen = self.answers
        half = len(seen.swapped) // 2
        tenth = max(1, len(seen.swapped) // 10)
        before = slice(half - tenth, half)
        just_after = slice(half, half + tenth)
        found: dict[str, Any] = {
            "learner": seen.name,
            "dataset": self.dataset,
            "right_at_first_exposure": seen.exposures[0],
            "right_at_second_exposure": seen.exposures[1],
            "right_at_last_exposure": seen.exposures[-1],
            "right_when_first_repeated": seen.repetition[1],
            "right_when_last_repeated": seen.repetition[-1],
            "swapped_before": mean(seen.swapped[before]),
            "swapped_just_after": mean(seen.swapped[just_after]),
            "swapped_at_end": mean(seen.swapped[-tenth:]),
            "others_before": mean(seen.others[before]),
            "others_just_after": mean(seen.others[just_after]),
            **seen.wrong_label,
        }
        if self.report is not None:
            found |= {
                "update_rate": self.report.update.rate,
                "update_explained": self.report.update.explained,
                "components": self.report.shares,
                "accuracy": self.report.accuracy,
                "ablation": self.report.ablation,
            }
        return jsonable(found)


def introspect(name: str, task: EvaluationTask, probe: Probe, settings: IntrospectConfig) -> Introspection:
    """Do all experiments with one learner."""
    right, of_two = label_swap(probe)
    answers = Answers(
        name=name,
        exposures=nth_exposure(probe, settings.repeats),
        repetition=repetition(probe, settings.before, settings.repeats),
        swapped=_share(right, of_two),
        others=_share(right, ~of_two),
        wrong_label=wrong_label(probe, settings.before),
    )
    try:
        check_inspectable(probe.learner)
    except ValueError:  # one that has no synapses to look at
        return Introspection(task.name, answers)
    report = inspect_synapses(probe, settings.before, settings.synapses)
    return Introspection(task.name, answers, report)


def _share(right: np.ndarray, counted: np.ndarray, window: int = 10) -> np.ndarray:
    """Return the share of right answers among those counted, at each step over the last `window`, [T]."""
    kernel = np.ones(window)
    length = right.shape[1]
    total = np.convolve(counted.sum(0), kernel)[:length]
    hits = np.convolve((right & counted).sum(0), kernel)[:length]
    return hits / np.where(total > 0, total, np.nan)


@jax.jit
def _sample(task: TaskDistribution, numbers: Array, key: Array) -> tuple[Episode, Array]:
    return jax.vmap(lambda number: sample_trial((task,), 0, key, number))(numbers)


def probes(
    evaluation: EvaluationConfig, candidates: Sequence[Candidate]
) -> Iterator[tuple[str, EvaluationTask, Probe]]:
    """Yield the name, the task and the probe of each learner; all learners meet the same episodes."""
    key = jax.random.key(evaluation.seed)
    numbers = jnp.arange(evaluation.count)
    for candidate in candidates:
        _, model = candidate.choices[0]
        for each in candidate.tasks:
            task = each.task
            learner = make_learner(model.type, model.settings, task.input_shape, task.num_classes)
            episodes, keys = _sample(task, numbers, key)
            yield candidate.name, each, Probe(learner, candidate.params_for(learner), episodes, keys)


def introspect_all(
    evaluation: EvaluationConfig, candidates: Sequence[Candidate], settings: IntrospectConfig
) -> list[Introspection]:
    """Do all experiments with each learner on each of its data sets."""
    asked = probes(evaluation, candidates)
    return [introspect(name, task, probe, settings) for name, task, probe in asked]


def run_introspection(
    setup: Setup, settings: IntrospectConfig, run: RunDirectory | None, comm: Communicator
) -> None:
    """Experiment on what `evaluation.learners` names, on rank 0, and write numbers and figures.

    Args:
        setup: of a run with `call: introspect`.
        settings: its section.
        run: where to write, on rank 0; None on the other ranks.
        comm: the ranks, which all wait for the first.
    """
    sources, missing = setup.load_evaluation_data(comm)
    candidates = compared_candidates(setup, sources, comm)
    if not any(candidate.tasks for candidate in candidates):
        raise ConfigError(["evaluation: nothing to look at", *missing])
    if run is not None:
        tell_sources(run, sources.values())
        for reason in missing:
            say(f"left out: {reason}")
        say("compiling ...")
        found = introspect_all(setup.config.evaluation, candidates, settings)
        figures: list[str] = []
        write_or_rescue(run, lambda place: figures.extend(write_introspections(place, found)))
        tracker = start_tracking(setup.config, run)
        tracker.log_table("introspection", [each.summary() for each in found])
        for figure in figures:
            tracker.log_image(figure, run.path / f"{figure}.png")
        tracker.finish()
        atomic_write(run.complete, "")
    comm.barrier()


def write_introspections(run: RunDirectory, found: Sequence[Introspection]) -> list[str]:
    """Write introspection.npz, introspection.json and figures, and return the names of the figures."""
    arrays: dict[str, Any] = {"inputs": INPUTS, "errors": ERRORS}
    for each in found:
        for name, values in _arrays_of(each).items():
            arrays[f"{each.learner}/{each.dataset}/{name}"] = values
    write_arrays(run.path / "introspection.npz", arrays)
    write_json(run.path / "introspection.json", [each.summary() for each in found])
    figures = []
    for dataset in dict.fromkeys(each.dataset for each in found):
        shown = [each for each in found if each.dataset == dataset]
        name = f"answers_{dataset}"
        answers = [each.answers for each in shown]
        if drawn(name, partial(plots.answers, run.path / f"{name}.png", answers)):
            figures.append(name)
        for each in shown:
            if each.report is not None:
                name = f"synapses_{dataset}_{each.learner}".replace(" ", "_").replace("/", "_")
                path = run.path / f"{name}.png"
                if drawn(name, partial(plots.synapses, path, each.learner, each.report)):
                    figures.append(name)
    return figures


def _arrays_of(found: Introspection) -> dict[str, np.ndarray]:
    """Return the arrays of one learner on one data set, by name."""
    names = ("exposures", "repetition", "swapped", "others")
    arrays = {name: getattr(found.answers, name) for name in names}
    if found.report is not None:
        arrays |= vars(found.report.recording)
        arrays["places"] = found.report.places
        arrays["ablation"] = found.report.ablation
        arrays["update"] = found.report.update.change
        arrays["update_inputs"] = found.report.update.inputs
    return arrays
