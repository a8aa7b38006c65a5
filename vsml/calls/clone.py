"""How well a clone does back-propagation on fresh random numbers: what `call: clone` ends with."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from vsml.calls.plan import evaluation_plan
from vsml.calls.train import run_training
from vsml.config.schema import POINTS, CloneConfig, Config
from vsml.introspection.trajectories import follow_all
from vsml.learners import Vsml
from vsml.learners.vsml import VsmlConfig
from vsml.meta.objectives.clone import QUANTITIES, CloneLoss, Comparison, compare, explained
from vsml.networks.wirings import own_settings
from vsml.reporting import plots
from vsml.runs import checkpoint
from vsml.runs.directory import RunDirectory, jsonable
from vsml.runs.progress import say
from vsml.runs.wandb import start_tracking
from vsml.settings import Problem
from vsml.setup import Setup
from vsml.system.comm import Communicator
from vsml.system.files import atomic_write
from vsml.types import Params

SAMPLES = 20_000
"""Synapses that a clone is judged by."""

_SHOWN = 3_000  # points of a panel
_JUDGED = 2**31 - 1  # what the key is folded with: no meta step has this number


@dataclass(frozen=True)
class Clone:
    """`call: clone`: clone back-propagation into a synapse, and show how well it does it.

    Attributes:
        config: its settings.
    """

    config: CloneConfig

    def problems(self, config: Config) -> Iterator[Problem]:
        """Yield what no clone can be made with, or followed with."""
        vsml = config.model.settings
        if not isinstance(vsml, VsmlConfig):  # which the objective refuses
            return
        follow = self.config.follow
        if 0 < follow < POINTS:
            yield Problem("clone.follow", follow, f"0, or {POINTS} and more", ("call",))
        if follow:
            yield from _follow_problems(config, vsml, ("call", "clone.follow"))

    def plan(self, setup: Setup, ranks: int) -> list[str]:
        """Return what is trained on, then the plan of the evaluations."""
        setup.optimizer(setup.fresh_params(setup.learner))
        training = setup.config.training
        examples = setup.config.examples_per_step * training.iterations
        line = (
            f"clone: {training.iterations} meta steps of {training.population_size} x {self.config.samples} "
            f"synapses, {self.config.steps} examples each, on {ranks} rank(s): {examples:,} random examples"
        )
        return [line, *evaluation_plan(setup, periodic=True)]

    def run(self, setup: Setup, run: RunDirectory | None, comm: Communicator, resume: bool) -> int:
        """Train, and judge what was found once training is complete."""
        complete = run_training(setup, run, comm, resume)
        if run is not None and not complete:
            say(f"to go on: python launch.py --resume {run.path}")
        elif run is not None:
            for row in write_proof(setup, run):
                say(f"{row['quantity']}: {row['explained']:.2%} of back-propagation's")
        return 0


def _follow_problems(config: Config, vsml: VsmlConfig, involved: tuple[str, ...]) -> Iterator[Problem]:
    """Yield what networks of clones cannot be followed with."""
    model = ("model.vsml", *involved)
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
        preprocess = spec.task.preprocess
        if spec.task.few_shot is not None:
            yield Problem(f"{path}.few_shot", spec.name, "null with clone.follow", involved)
        if preprocess.relabel or preprocess.permute_labels:
            expected = "without permuted labels, with clone.follow: the test shall have the same"
            yield Problem(path, spec.name, expected, involved)
        if preprocess.rand_proj or preprocess.shuffle:
            expected = "without rand_proj and shuffle, with clone.follow: the test shall have the same"
            yield Problem(path, spec.name, expected, involved)


def judge(comparison: Comparison) -> list[dict[str, Any]]:
    """Return for each quantity how far the synapse is from back-propagation.

    Returns:
        `explained`: share of the mean square of what is wanted that is got right; `rms` and `most`: root of
        the mean square, and largest, of what is missed; `size`: that root of what is wanted.
    """
    missed = np.asarray(comparison.prediction - comparison.target)
    wanted = np.asarray(comparison.target)
    return [
        {
            "quantity": name,
            "explained": float(share),
            "rms": float(np.sqrt(np.square(missed[number]).mean())),
            "most": float(np.abs(missed[number]).max()),
            "size": float(np.sqrt(np.square(wanted[number]).mean())),
        }
        for number, (name, share) in enumerate(
            zip(QUANTITIES, np.asarray(explained(comparison)), strict=True)
        )
    ]


def comparison_of(setup: Setup, params: Params) -> Comparison:
    """Compare synapses with back-propagation on fresh random numbers of the configured kind."""
    assert isinstance(setup.learner, Vsml)
    assert isinstance(setup.objective, CloneLoss)
    draws = setup.objective.config.model_copy(update={"samples": SAMPLES})
    key = jax.random.fold_in(setup.key, _JUDGED)
    return jax.device_get(jax.jit(compare, static_argnums=(0, 2))(setup.learner, params, draws, key))


def write_proof(setup: Setup, run: RunDirectory) -> list[dict[str, Any]]:
    """Judge what a complete run found, and follow networks of it if so configured.

    Writes clone.json, clone.png, and what `vsml.introspection.trajectories.follow_all` does; returns the
    numbers of the first.
    """
    params, _ = checkpoint.load_params(run.path / checkpoint.EXPORT_NAME)
    comparison = comparison_of(setup, params)
    rows = judge(comparison)
    atomic_write(run.path / "clone.json", json.dumps(jsonable(rows), indent=2) + "\n")
    draw(run, comparison, rows)
    figures, followed = ["clone"], []
    if setup.config.clone.follow:
        followed = follow_all(setup, run, params)
        figures += [f"followed_{each.dataset}" for each in followed]
    tracker = start_tracking(setup.config, run)
    tracker.log_table("clone", rows)
    if followed:
        tracker.log_table("followed", [jsonable(each.summary()) for each in followed])
    for figure in figures:
        tracker.log_image(figure, run.path / f"{figure}.png")
    tracker.finish()
    return rows


def draw(run: RunDirectory, comparison: Comparison, rows: list[dict[str, Any]]) -> None:
    """Draw what is got against what is wanted, a panel for each quantity."""
    figure, axes_of = plots.panels(1, len(rows), width=3.3, height=3.0)
    for axes, got, wanted, row in zip(axes_of, comparison.prediction, comparison.target, rows, strict=True):
        plots.against(axes, wanted.ravel()[:_SHOWN], got.ravel()[:_SHOWN])
        plots.label(axes, f"{row['quantity']}: {row['explained']:.2%}", "back-propagation", "")
    axes_of[0].set_ylabel("synapse", fontsize=9)
    plots.save(figure, run.path / "clone.png")
