"""Looking inside of learning algorithms, as `call: introspect` does: experiments, numbers and figures."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vsml.config.files import ConfigError
from vsml.config.schema import Config
from vsml.evaluation.candidates import Contender, compared_contenders
from vsml.introspection import plots as introspection_plots
from vsml.introspection.experiments import (
    ERRORS,
    INPUTS,
    Opened,
    Probe,
    check_opened,
    first_sights,
    mean,
    open_synapses,
    repetition,
    swap,
    wrong_label,
)
from vsml.learners import make_learner
from vsml.meta.objective import sample_unit
from vsml.runs.directory import RunDirectory
from vsml.runs.progress import say
from vsml.runs.wandb import start_tracking
from vsml.setup import EvaluationTask, load_evaluation_data
from vsml.system.comm import Communicator
from vsml.system.files import atomic_write, jsonable, write_arrays
from vsml.tasks import TaskDistribution
from vsml.types import Array, Episode


@dataclass(frozen=True, eq=False)
class Look:
    """What was seen of one learner on one data set.

    Attributes:
        learner, dataset: their names.
        sights: from `first_sights`.
        repetition: from `repetition`.
        swapped, others: accuracy over time on the two classes whose labels are exchanged half way, and on the
            rest, [T].
        wrong_label: from `wrong_label`.
        opened: what its synapses hold and do, of VSML that can be opened.
    """

    learner: str
    dataset: str
    sights: np.ndarray
    repetition: np.ndarray
    swapped: np.ndarray
    others: np.ndarray
    wrong_label: dict[str, float]
    opened: Opened | None = None

    def summary(self) -> dict[str, Any]:
        """Return what it comes to, in numbers."""
        half = len(self.swapped) // 2
        tenth = max(1, len(self.swapped) // 10)
        found: dict[str, Any] = {
            "learner": self.learner,
            "dataset": self.dataset,
            "right_at_first_sight": self.sights[0],
            "right_at_second_sight": self.sights[1],
            "right_at_last_sight": self.sights[-1],
            "right_when_first_repeated": self.repetition[1],
            "right_when_last_repeated": self.repetition[-1],
            "swapped_before": mean(self.swapped[half - tenth : half]),
            "swapped_just_after": mean(self.swapped[half : half + tenth]),
            "swapped_at_end": mean(self.swapped[-tenth:]),
            "others_before": mean(self.others[half - tenth : half]),
            "others_just_after": mean(self.others[half : half + tenth]),
            **self.wrong_label,
        }
        if self.opened is not None:
            found |= {
                "update_rate": self.opened.update.rate,
                "update_explained": self.opened.update.explained,
                "components": self.opened.shares,
                "accuracy": self.opened.accuracy,
                "switched_off": self.opened.switched_off,
            }
        return jsonable(found)


def look(name: str, task: EvaluationTask, probe: Probe, config: Config) -> Look:
    """Do all experiments with one learner."""
    settings = config.introspect
    right, of_two = swap(probe)
    seen = Look(
        learner=name,
        dataset=task.name,
        sights=first_sights(probe, settings.repeats),
        repetition=repetition(probe, settings.before, settings.repeats),
        swapped=_share(right, of_two),
        others=_share(right, ~of_two),
        wrong_label=wrong_label(probe, settings.before),
    )
    try:
        check_opened(probe.learner)
    except ValueError:
        return seen
    return replace(seen, opened=open_synapses(probe, settings.before, settings.synapses))


def _share(right: np.ndarray, counted: np.ndarray, window: int = 10) -> np.ndarray:
    """Return the share of right answers among those counted, at each step over the last `window`, [T]."""
    kernel = np.ones(window)
    total = np.convolve(counted.sum(0), kernel)[: right.shape[1]]
    hits = np.convolve((right & counted).sum(0), kernel)[: right.shape[1]]
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


def looks(config: Config, contenders: Sequence[Contender]) -> list[Look]:
    """Look at each learner on each of its data sets."""
    return [look(name, task, probe, config) for name, task, probe in probes(config, contenders)]


def run_introspection(config: Config, run: RunDirectory | None, comm: Communicator) -> None:
    """Look into what `evaluation.learners` names, on rank 0, and write numbers and figures.

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
        found = looks(config, contenders)
        figures = write_looks(run, found)
        tracker = start_tracking(config, run)
        tracker.log_table("introspection", [each.summary() for each in found])
        for figure in figures:
            tracker.log_image(figure, run.path / f"{figure}.png")
        tracker.finish()
        run.complete.touch()
    comm.barrier()


def write_looks(run: RunDirectory, found: Sequence[Look]) -> list[str]:
    """Write introspection.npz, introspection.json and figures, and return the names of the figures."""
    arrays: dict[str, Any] = {"inputs": INPUTS, "errors": ERRORS}
    for each in found:
        prefix = f"{each.learner}/{each.dataset}"
        names = ("sights", "repetition", "swapped", "others")
        arrays |= {f"{prefix}/{name}": getattr(each, name) for name in names}
        if (opened := each.opened) is not None:
            arrays |= {f"{prefix}/{name}": values for name, values in vars(opened.recording).items()}
            arrays |= {f"{prefix}/{name}": getattr(opened, name) for name in ("places", "switched_off")}
            arrays[f"{prefix}/update"] = opened.update.change
    write_arrays(run.path / "introspection.npz", arrays)
    summaries = [each.summary() for each in found]
    atomic_write(run.path / "introspection.json", json.dumps(summaries, indent=2) + "\n")
    figures = []
    for dataset in dict.fromkeys(each.dataset for each in found):
        shown = [each for each in found if each.dataset == dataset]
        figures.append(f"answers_{dataset}")
        introspection_plots.answers(
            run.path / f"{figures[-1]}.png",
            [each.learner for each in shown],
            [each.sights for each in shown],
            [each.repetition for each in shown],
            [(each.swapped, each.others) for each in shown],
            [each.wrong_label for each in shown],
        )
        for each in shown:
            if each.opened is not None:
                figures.append(f"synapses_{dataset}_{each.learner}".replace(" ", "_"))
                introspection_plots.synapses(run.path / f"{figures[-1]}.png", each.learner, each.opened)
    return figures
