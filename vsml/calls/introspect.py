"""The call `introspect`: experiments on learning algorithms, their numbers and figures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vsml.config.files import ConfigError
from vsml.config.schema import Config
from vsml.evaluation.candidates import Contender, compared_contenders
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
from vsml.meta.objective import sample_unit
from vsml.runs.directory import RunDirectory
from vsml.runs.progress import say
from vsml.runs.wandb import start_tracking
from vsml.setup import EvaluationTask, load_evaluation_data
from vsml.system.comm import Communicator
from vsml.system.files import jsonable, write_arrays, write_json
from vsml.tasks import TaskDistribution
from vsml.types import Array, Episode


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


def introspect(name: str, task: EvaluationTask, probe: Probe, config: Config) -> Introspection:
    """Do all experiments with one learner."""
    settings = config.introspect
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
    return jax.vmap(lambda number: sample_unit((task,), 0, key, number))(numbers)


def probes(config: Config, contenders: Sequence[Contender]) -> Iterator[tuple[str, EvaluationTask, Probe]]:
    """Yield the name, the task and the probe of each learner; all learners meet the same episodes."""
    key = jax.random.key(config.evaluation.seed)
    numbers = jnp.arange(config.evaluation.count)
    for contender in contenders:
        _, model = contender.choices[0]
        for each in contender.tasks:
            task = each.task
            learner = make_learner(model.type, model.settings, task.input_shape, task.num_classes)
            episodes, keys = _sample(task, numbers, key)
            yield contender.name, each, Probe(learner, contender.params_for(learner), episodes, keys)


def introspect_all(config: Config, contenders: Sequence[Contender]) -> list[Introspection]:
    """Do all experiments with each learner on each of its data sets."""
    return [introspect(name, task, probe, config) for name, task, probe in probes(config, contenders)]


def run_introspection(config: Config, run: RunDirectory | None, comm: Communicator) -> None:
    """Experiment on what `evaluation.learners` names, on rank 0, and write numbers and figures.

    Args:
        config: with `call: introspect`.
        run: where to write, on rank 0; None on the other ranks.
        comm: the ranks, which all wait for the first.
    """
    sources, missing = load_evaluation_data(config, comm)
    contenders = compared_contenders(config, sources, comm)
    if not any(contender.tasks for contender in contenders):
        raise ConfigError(["evaluation: nothing to look at", *missing])
    if run is not None:
        for reason in missing:
            say(f"left out: {reason}")
        found = introspect_all(config, contenders)
        figures = write_introspections(run, found)
        tracker = start_tracking(config, run)
        tracker.log_table("introspection", [each.summary() for each in found])
        for figure in figures:
            tracker.log_image(figure, run.path / f"{figure}.png")
        tracker.finish()
        run.complete.touch()
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
        plots.answers(run.path / f"{name}.png", [each.answers for each in shown])
        figures.append(name)
        for each in shown:
            if each.report is not None:
                name = f"synapses_{dataset}_{each.learner}".replace(" ", "_")
                plots.synapses(run.path / f"{name}.png", each.learner, each.report)
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
    return arrays
