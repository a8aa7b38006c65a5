"""The call `clone`: back-propagation cloned into a synapse, and how near the clone comes to it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from vsml.calls.plan import evaluation_plan, summary
from vsml.calls.train import run_training
from vsml.config.sections import POINTS, CloneConfig
from vsml.introspection.trajectories import write_trajectories
from vsml.learners import Vsml
from vsml.learners.vsml import VsmlConfig
from vsml.meta.objectives.clone import (
    QUANTITIES,
    CloneLoss,
    Comparison,
    compare,
    explained,
)
from vsml.networks.wirings import own_settings
from vsml.reporting import plots
from vsml.runs import checkpoint
from vsml.runs.commands import resume_command
from vsml.runs.directory import RunDirectory
from vsml.runs.wandb import start_tracking
from vsml.settings import Problem
from vsml.setup import Setup
from vsml.system.comm import Communicator
from vsml.system.files import atomic_write, jsonable, write_json
from vsml.system.terminal import say
from vsml.tasks.preprocess import drawn_anew, turned_on
from vsml.types import Params

SAMPLES = 20_000
"""Synapses that a clone is evaluated by."""

_SHOWN = 3_000  # points of a panel
_FRESH = 2**31 - 1  # what the key is folded with: no meta step has this number

Row = dict[str, Any]


@dataclass(frozen=True)
class Clone:
    """`call: clone`: clone back-propagation into a synapse, and show how well it does it.

    Attributes:
        config: its settings.
    """

    config: CloneConfig

    def problems(self, setup: Setup) -> Iterator[Problem]:
        """Yield what no clone can be made with, or followed with."""
        vsml = setup.model.settings
        if not isinstance(vsml, VsmlConfig):  # which the objective refuses
            return
        follow = self.config.follow
        if 0 < follow < POINTS:
            yield Problem("clone.follow", follow, f"0, or {POINTS} and more", ("call",))
        if follow:
            yield from _follow_problems(setup, vsml, ("call", "clone.follow"))

    def plan(self, setup: Setup, ranks: int) -> list[str]:
        """Return what is trained on, then the plan of the evaluations."""
        setup.check_optimizer()
        training = setup.config.training
        examples = setup.config.examples_per_step * training.iterations
        line = (
            f"clone: {training.iterations} meta steps of {training.population_size} x {self.config.samples} "
            f"synapses, {self.config.steps} examples each, on {ranks} rank(s): {examples:,} random examples"
        )
        return [*summary(setup, ranks), line, *evaluation_plan(setup, periodic=True)]

    def run(self, setup: Setup, run: RunDirectory | None, comm: Communicator, resume: bool) -> int:
        """Train, and judge what was found once training is complete."""
        complete = run_training(setup, run, comm, resume, is_all=False)
        if run is not None and not complete:
            say(f"to go on: {resume_command(run.path)}")
        elif run is not None:
            for row in report_clone(setup, run):
                say(f"{row['quantity']}: {row['explained']:.2%} of back-propagation's")
            atomic_write(run.complete, "")
        return 0


def _follow_problems(setup: Setup, vsml: VsmlConfig, involved: tuple[str, ...]) -> Iterator[Problem]:
    """Yield what networks of clones cannot be followed with."""
    model = ("model.vsml", *involved)
    config = setup.config
    follow = config.clone.follow
    if vsml.views or not all(own_settings(layer).holds_weights for layer in vsml.layers):
        yield Problem("clone.follow", follow, "0 with views or convolutions", model)
    if len(vsml.layers) > 1 and not vsml.synapse.init_weights:
        expected = "above 0 with clone.follow and hidden layers, whose units would stay alike"
        yield Problem("model.vsml.synapse.init_weights", 0.0, expected, model)
    if config.evaluation.batch_size > 1:
        yield Problem("evaluation.batch_size", config.evaluation.batch_size, "1 with clone.follow", involved)
    for index, spec in enumerate(config.evaluation_specs):
        path = f"evaluation.datasets.{index}"
        if spec.task.few_shot is not None:
            yield Problem(f"{path}.few_shot", spec.name, "null with clone.follow", involved)
        for what in drawn_anew(turned_on(spec.task.preprocess.model_dump())):
            expected = f"without {what}, with clone.follow: the test shall have the same"
            yield Problem(path, spec.name, expected, involved)


def _both(comparison: Comparison) -> tuple[np.ndarray, np.ndarray]:
    """Return the quantities as the synapse has them and as back-propagation does."""
    return np.asarray(comparison.prediction), np.asarray(comparison.target)


def evaluate_clone(comparison: Comparison) -> list[Row]:
    """Return for each quantity how far the synapse is from back-propagation.

    Returns:
        `explained`: share of the mean square of the target that is predicted; `rms` and `max`: root of
        the mean square, and largest, of the residual; `size`: that root of the target.
    """
    predictions, targets = _both(comparison)
    shares = np.asarray(explained(comparison))
    rows = []
    for name, prediction, target, share in zip(
        QUANTITIES,
        predictions,
        targets,
        shares,
        strict=True,
    ):
        residual = prediction - target
        row = {
            "quantity": name,
            "explained": float(share),
            "rms": _root_mean_square(residual),
            "max": float(np.abs(residual).max()),
            "size": _root_mean_square(target),
        }
        rows.append(row)
    return rows


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))


def comparison_of(setup: Setup, params: Params) -> Comparison:
    """Compare synapses with back-propagation on fresh random numbers of the configured kind."""
    assert isinstance(setup.learner, Vsml)
    assert isinstance(setup.objective, CloneLoss)
    draws = setup.objective.config.model_copy(update={"samples": SAMPLES})
    fresh = jax.random.fold_in(setup.key, _FRESH)
    compiled = jax.jit(compare, static_argnums=(0, 2))
    return jax.device_get(compiled(setup.learner, params, draws, fresh))


def report_clone(setup: Setup, run: RunDirectory) -> list[Row]:
    """Evaluate what a complete run found, and compare networks of it over time if so configured.

    Writes clone.json, clone.png, and what `vsml.introspection.trajectories.write_trajectories` does; returns
    the numbers of the first.
    """
    params, _ = checkpoint.load_params(run.path / checkpoint.EXPORT_NAME)
    comparison = comparison_of(setup, params)
    rows = evaluate_clone(comparison)
    write_json(run.path / "clone.json", rows)
    figures = []
    if plots.drawn("clone", lambda: draw(run, comparison, rows)):
        figures.append("clone")
    trajectories = []
    if setup.config.clone.follow:
        trajectories = write_trajectories(setup, run, params)
    for each in trajectories:
        figure = f"trajectories_{each.dataset}"
        if (run.path / f"{figure}.png").exists():
            figures.append(figure)
    tracker = start_tracking(setup.config, run)
    tracker.log_table("clone", rows)
    if trajectories:
        summaries = [jsonable(each.summary()) for each in trajectories]
        tracker.log_table("trajectories", summaries)
    for figure in figures:
        tracker.log_image(figure, run.path / f"{figure}.png")
    tracker.finish()
    return rows


def draw(
    run: RunDirectory,
    comparison: Comparison,
    rows: list[Row],
) -> None:
    """Draw predictions against targets, a panel for each quantity."""
    figure, panels = plots.panels(
        1,
        len(rows),
        width=3.3,
        height=3.0,
    )
    predictions, targets = _both(comparison)
    for axes, prediction, target, row in zip(
        panels,
        predictions,
        targets,
        rows,
        strict=True,
    ):
        plots.against(
            axes,
            target.ravel()[:_SHOWN],
            prediction.ravel()[:_SHOWN],
        )
        title = f"{row['quantity']}: {row['explained']:.2%}"
        plots.label(axes, title, "back-propagation", "")
    panels[0].set_ylabel("synapse", fontsize=9)
    plots.save(figure, run.path / "clone.png")
