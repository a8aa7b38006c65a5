"""Figures of introspection: what learners answer in experiments, and what the synapses of one hold."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from vsml.introspection.experiments import ERRORS, INPUTS, Opened
from vsml.reporting.plots import COLOURS, label, panels, save

_SHOWN = 12
"""Synapses whose cells are drawn over time."""


def answers(
    path: str | os.PathLike[str],
    names: Sequence[str],
    sights: Sequence[np.ndarray],
    repetitions: Sequence[np.ndarray],
    swaps: Sequence[tuple[np.ndarray, np.ndarray]],
    wrong_labels: Sequence[Mapping[str, float]],
) -> None:
    """Draw what learners answer: four panels, a colour for each learner.

    Args:
        path: the file, whose suffix is the format.
        names: of the learners; all else is one for each.
        sights: probability of the right label at the n-th sight of a class.
        repetitions: the same while one example is repeated.
        swaps: accuracy over time on two classes whose labels are exchanged half way, and on the others.
        wrong_labels: from `vsml.introspection.experiments.wrong_label`.
    """
    figure, (sight, again, swap, lie) = panels(2, 2)
    for number, name in enumerate(names):
        colour = COLOURS[number % len(COLOURS)]
        sight.plot(1 + np.arange(len(sights[number])), sights[number], "o-", color=colour, label=name)
        again.plot(1 + np.arange(len(repetitions[number])), repetitions[number], "o-", color=colour)
        swapped, others = swaps[number]
        swap.plot(swapped, color=colour)
        swap.plot(others, color=colour, linestyle="dotted")
        bars = list(wrong_labels[number].values())
        width = 0.8 / len(names)
        lie.bar(np.arange(len(bars)) + (number - (len(names) - 1) / 2) * width, bars, width, color=colour)
    label(sight, "after the first sight of a class", "sight of the class", "probability of the right label")
    label(again, "one example again and again", "time it is shown", "probability of the right label")
    label(swap, "two labels change places half way (dotted: the others)", "examples", "accuracy")
    label(lie, "one example with a wrong label", "", "probability")
    swap.axvline(len(swaps[0][0]) / 2, color="#767676", linewidth=0.8)
    ticks = [key.replace("_", " ").replace("after truth", "after\nits true label") for key in wrong_labels[0]]
    lie.set_xticks(np.arange(len(ticks)), ticks, fontsize=8)
    for axes in (sight, again, swap, lie):
        axes.set_ylim(0, 1)
    figure.legend(loc="outside upper center", ncols=min(len(names), 4), frameon=False)
    save(figure, path)


def synapses(path: str | os.PathLike[str], name: str, opened: Opened) -> None:
    """Draw what the synapses of a learner hold and do; the suffix of the path is the format."""
    recording, update, places, shares = opened.recording, opened.update, opened.places, opened.shares
    figure, (mean, descent, cells, by_class, by_input, channels) = panels(2, 3)
    reference = -2 * update.rate * INPUTS[:, None] * ERRORS
    most = max(np.abs(update.change).max(), np.abs(reference).max())
    for axes, change, title in (
        (mean, update.change, f"update by {name}"),
        (
            descent,
            reference,
            f"nearest gradient descent: rate {update.rate:.3g}, {update.explained:.0%} explained",
        ),
    ):
        image = axes.pcolormesh(ERRORS, INPUTS, change, cmap="RdBu", vmin=-most, vmax=most, shading="gouraud")
        label(axes, title, "error", "input")
    figure.colorbar(image, ax=descent)
    strongest = np.argsort(-np.ptp(recording.c, axis=0).max(-1))[:_SHOWN]
    for synapse in strongest:
        channel = np.ptp(recording.c[:, synapse], axis=0).argmax()
        cells.plot(recording.c[:, synapse, channel], linewidth=1)
    label(cells, "cells that change most", "examples", "c")
    activity = np.abs(recording.inputs).mean(0)
    for axes, colour, meaning, map_name in (
        (by_class, recording.output_units, "class", "tab10"),
        (by_input, activity, "mean |input|", "viridis"),
    ):
        shown = axes.scatter(places[:, 0], places[:, 1], c=colour, s=8, cmap=map_name)
        figure.colorbar(shown, ax=axes, label=meaning)
        label(axes, "states of synapses", f"component 1 ({shares[0]:.0%})", f"component 2 ({shares[1]:.0%})")
    channels.bar(np.arange(len(opened.switched_off)), opened.switched_off, color=COLOURS[0])
    channels.axhline(opened.accuracy, color="#444444", linestyle="--", linewidth=1.3)
    label(channels, "accuracy with a channel switched off (dashed: none)", "channel", "accuracy")
    save(figure, path)
