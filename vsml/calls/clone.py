"""How well a clone does back-propagation on fresh random numbers: what `call: clone` ends with."""

import json
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from vsml.config.schema import Config
from vsml.introspection.trajectories import follow_all
from vsml.learners import Vsml
from vsml.meta.cloning import QUANTITIES, Comparison, compare, explained
from vsml.reporting import plots
from vsml.runs import checkpoint
from vsml.runs.directory import RunDirectory
from vsml.runs.wandb import start_tracking
from vsml.setup import clone_draws, clone_groups
from vsml.system.files import atomic_write, jsonable
from vsml.types import Params

SAMPLES = 20_000
"""Synapses that a clone is judged by."""

_SHOWN = 3_000  # points of a panel
_JUDGED = 2**31 - 1  # what the key is folded with: no meta step has this number


def judge(comparison: Comparison) -> list[dict[str, Any]]:
    """Return for each quantity how far the synapse is from back-propagation.

    Returns:
        `explained`: share of the mean square of what is wanted that is got right; `rms` and `most`: root of
        the mean square, and largest, of what is missed; `size`: that root of what is wanted.
    """
    missed = np.asarray(comparison.got - comparison.wanted)
    wanted = np.asarray(comparison.wanted)
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


def comparison_of(config: Config, params: Params) -> Comparison:
    """Compare synapses with back-propagation on fresh random numbers of the configured kind."""
    (group,) = clone_groups(config)
    assert isinstance(group.learner, Vsml)
    draws = replace(clone_draws(config), samples=SAMPLES)
    key = jax.random.fold_in(jax.random.key(config.seed), _JUDGED)
    return jax.device_get(jax.jit(compare, static_argnums=(0, 2))(group.learner, params, draws, key))


def write_proof(config: Config, run: RunDirectory) -> list[dict[str, Any]]:
    """Judge what a complete run found, and follow networks of it if so configured.

    Writes clone.json, clone.png, and what `vsml.introspection.trajectories.follow_all` does; returns the
    numbers of the first.
    """
    params, _ = checkpoint.load_params(run.path / checkpoint.EXPORT_NAME)
    comparison = comparison_of(config, params)
    rows = judge(comparison)
    atomic_write(run.path / "clone.json", json.dumps(jsonable(rows), indent=2) + "\n")
    draw(run, comparison, rows)
    figures, followed = ["clone"], []
    if config.clone.follow:
        followed = follow_all(config, run, params)
        figures += [f"followed_{each.dataset}" for each in followed]
    tracker = start_tracking(config, run)
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
    for axes, got, wanted, row in zip(axes_of, comparison.got, comparison.wanted, rows, strict=True):
        plots.against(axes, wanted.ravel()[:_SHOWN], got.ravel()[:_SHOWN])
        plots.label(axes, f"{row['quantity']}: {row['explained']:.2%}", "back-propagation", "")
    axes_of[0].set_ylabel("synapse", fontsize=9)
    plots.save(figure, run.path / "clone.png")
