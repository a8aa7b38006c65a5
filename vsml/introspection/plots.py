"""Figures of introspection: answers in experiments, and the content of a learner's synapses."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vsml.introspection.experiments import (
    ERRORS,
    SynapseReport,
)
from vsml.reporting.plots import (
    COLOURS,
    in_legend,
    label,
    panels,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = 12
"""Synapses whose cells are drawn over time."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What one learner answered in the experiments.

    Attributes:
        name: of the learner.
        exposures: from `vsml.introspection.experiments.nth_exposure`.
        repetition: from `repetition`.
        swapped, others: accuracy over time on two classes whose labels are exchanged half way, and on the
            others, [T].
        wrong_label: from `wrong_label`.
    """

    name: str
    exposures: np.ndarray
    repetition: np.ndarray
    swapped: np.ndarray
    others: np.ndarray
    wrong_label: Mapping[str, float]


def answers(
    path: str | os.PathLike[str],
    learners: Sequence[Answers],
) -> None:
    """Draw what learners answer: four panels, a colour for each learner.

    Args:
        path: the file, whose suffix is the format.
        learners: at least one.
    """
    figure, drawn = panels(2, 2)
    exposure, repeated, swap, corrupted = drawn
    for number, learner in enumerate(learners):
        colour = COLOURS[number % len(COLOURS)]
        _draw_counted(exposure, learner.exposures, colour, learner.name)
        _draw_counted(repeated, learner.repetition, colour)
        swap.plot(learner.swapped, color=colour)
        swap.plot(learner.others, color=colour, linestyle="dotted")
        _draw_bars(corrupted, learner, number, len(learners))
    probability = "probability of the right label"
    label(
        exposure,
        "after the first sight of a class",
        "sight of the class",
        probability,
    )
    label(
        repeated,
        "one example again and again",
        "time it is shown",
        probability,
    )
    label(
        swap,
        "two labels change places half way (dotted: the others)",
        "examples",
        "accuracy",
    )
    label(
        corrupted,
        "one example with a wrong label",
        "",
        "probability",
    )
    half = len(learners[0].swapped) / 2
    swap.axvline(half, color="#767676", linewidth=0.8)
    ticks = []
    for key in learners[0].wrong_label:
        words = key.replace("_", " ")
        ticks.append(words.replace("after clean", "after\nits true label"))
    corrupted.set_xticks(np.arange(len(ticks)), ticks, fontsize=8)
    for axes in drawn:
        axes.set_ylim(0, 1)
    figure.legend(
        loc="outside upper center",
        ncols=min(len(learners), 4),
        frameon=False,
    )
    save(figure, path)


def _draw_counted(
    axes: "Axes",
    values: np.ndarray,
    colour: str,
    name: str | None = None,
) -> None:
    """Draw values at 1, 2, ..."""
    numbers = 1 + np.arange(len(values))
    axes.plot(
        numbers,
        values,
        "o-",
        color=colour,
        label=name and in_legend(name),
    )


def _draw_bars(
    axes: "Axes",
    learner: Answers,
    number: int,
    learners: int,
) -> None:
    """Draw probabilities as bars; those of all learners stand side by side."""
    heights = list(learner.wrong_label.values())
    width = 0.8 / learners
    shift = number - (learners - 1) / 2
    axes.bar(
        np.arange(len(heights)) + shift * width,
        heights,
        width,
        color=COLOURS[number % len(COLOURS)],
    )


def synapses(
    path: str | os.PathLike[str],
    name: str,
    report: SynapseReport,
) -> None:
    """Draw what the synapses of a learner hold and do; the suffix of the path is the format."""
    figure, drawn = panels(2, 3)
    measured, descent, cells, by_class, by_input, channels = drawn
    update = report.update
    reach = 1 if update.inputs.min() >= 0 else 2  # of slots of a memory; see `Update`
    nearest = -reach * update.rate * update.inputs[:, None] * ERRORS
    # Both panels share one scale of colours.
    largest = max(
        np.abs(update.change).max(),
        np.abs(nearest).max(),
    )
    explained = f"{update.explained:.0%} explained"
    both = (
        (measured, update.change, f"update by {name}"),
        (
            descent,
            nearest,
            f"nearest gradient descent: rate {update.rate:.3g}, {explained}",
        ),
    )
    for axes, change, title in both:
        image = axes.pcolormesh(
            ERRORS,
            update.inputs,
            change,
            cmap="RdBu",
            vmin=-largest,
            vmax=largest,
            shading="gouraud",
        )
        label(axes, title, "error", "input")
    figure.colorbar(image, ax=descent)
    _draw_cells(cells, report.recording.c)
    activity = np.abs(report.recording.inputs).mean(0)
    coloured = (
        (by_class, report.recording.output_units, "class", "tab10"),
        (by_input, activity, "mean |input|", "viridis"),
    )
    first, second = report.shares[:2]
    for axes, colour, meaning, colours in coloured:
        points = axes.scatter(
            report.places[:, 0],
            report.places[:, 1],
            c=colour,
            s=8,
            cmap=colours,
        )
        figure.colorbar(points, ax=axes, label=meaning)
        label(
            axes,
            "states of synapses",
            f"component 1 ({first:.0%})",
            f"component 2 ({second:.0%})",
        )
    numbers = np.arange(len(report.ablation))
    channels.bar(numbers, report.ablation, color=COLOURS[0])
    channels.axhline(
        report.accuracy,
        color="#444444",
        linestyle="--",
        linewidth=1.3,
    )
    label(
        channels,
        "accuracy without a channel (dashed: with all)",
        "channel",
        "accuracy",
    )
    save(figure, path)


def _draw_cells(axes: "Axes", c: np.ndarray) -> None:
    """Draw over time the cell that changes most, of the synapses [T + 1, S, N] with the largest changes."""
    ranges = np.ptp(c, axis=0)
    strongest = np.argsort(-ranges.max(-1))
    for synapse in strongest[:_SHOWN]:
        channel = ranges[synapse].argmax()
        axes.plot(c[:, synapse, channel], linewidth=1)
    label(axes, "cells that change most", "examples", "c")
