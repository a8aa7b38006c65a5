"""The end of the call `clone`: how near a clone comes to back-propagation on fresh random numbers."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from vsml.config.schema import Config
from vsml.introspection.trajectories import write_trajectories
from vsml.learners import Vsml
from vsml.meta.cloning import (
    QUANTITIES,
    Comparison,
    compare,
    explained,
)
from vsml.reporting import plots
from vsml.runs import checkpoint
from vsml.runs.directory import RunDirectory
from vsml.runs.wandb import start_tracking
from vsml.setup import clone_draws, clone_groups
from vsml.system.files import jsonable, write_json
from vsml.types import Params

SAMPLES = 20_000
"""Synapses that a clone is evaluated by."""

_SHOWN = 3_000  # points of a panel
_FRESH = 2**31 - 1  # what the key is folded with: no meta step has this number

Row = dict[str, Any]


def _both(comparison: Comparison) -> tuple[np.ndarray, np.ndarray]:
    """Return the quantities as the synapse has them and as back-propagation does."""
    return np.asarray(comparison.got), np.asarray(comparison.wanted)


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


def comparison_of(config: Config, params: Params) -> Comparison:
    """Compare synapses with back-propagation on fresh random numbers of the configured kind."""
    (group,) = clone_groups(config)
    assert isinstance(group.learner, Vsml)
    draws = replace(clone_draws(config), samples=SAMPLES)
    key = jax.random.key(config.seed)
    fresh = jax.random.fold_in(key, _FRESH)
    compiled = jax.jit(compare, static_argnums=(0, 2))
    return jax.device_get(compiled(group.learner, params, draws, fresh))


def report_clone(config: Config, run: RunDirectory) -> list[Row]:
    """Evaluate what a complete run found, and compare networks of it over time if so configured.

    Writes clone.json, clone.png, and what `vsml.introspection.trajectories.write_trajectories` does; returns
    the numbers of the first.
    """
    params, _ = checkpoint.load_params(run.path / checkpoint.EXPORT_NAME)
    comparison = comparison_of(config, params)
    rows = evaluate_clone(comparison)
    write_json(run.path / "clone.json", rows)
    draw(run, comparison, rows)
    figures = ["clone"]
    trajectories = []
    if config.clone.follow:
        trajectories = write_trajectories(config, run, params)
    for each in trajectories:
        figures.append(f"trajectories_{each.dataset}")
    tracker = start_tracking(config, run)
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
