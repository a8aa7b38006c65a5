"""How long runs stayed on the first plateau of meta-training: in meta steps, examples and minutes.

    python benchmarks/plateau.py RUN [RUN ...]

RUN is the folder of a run that wrote metrics at every meta step, as those of configs/array/plateau.yaml. The
plateau is left when the mean loss over 20 meta steps is first 0.05 nats below that of guessing among ten
classes; the table says too when it first was half and a whole nat below, and where it ended. Runs of one
name, but for the number at its end, are put together: least, most and median.
"""

import argparse
import math
import re
from pathlib import Path

import numpy as np
import yaml

from vsml.reporting.tables import Table, markdown
from vsml.runs.directory import open_run
from vsml.runs.metrics import read_metrics
from vsml.runs.progress import say

WINDOW = 20
GUESSING = math.log(10)
MARGINS = (0.05, 0.5, 1.0)  # nats below guessing


def crossings(run_dir):
    """Return where each margin was first passed (meta step, examples, minutes; or None) and the last loss."""
    lines = [line for line in read_metrics(open_run(run_dir).metrics) if "meta_loss" in line]
    if [line["step"] for line in lines] != list(range(1, len(lines) + 1)) or len(lines) < WINDOW:
        raise ValueError(
            f"{run_dir}: expected metrics of every meta step (summary.frequency=1), {WINDOW} or more"
        )
    losses = np.array([line["meta_loss"] for line in lines])
    recent = np.convolve(losses, np.full(WINDOW, 1 / WINDOW), "valid")
    found = []
    for margin in MARGINS:
        passed = np.flatnonzero(recent < GUESSING - margin)
        at = lines[passed[0] + WINDOW - 1] if len(passed) else None
        found.append(at and (at["step"], at["examples"], at["wall_s"] / 60))
    return found, recent[-1]


def told(values):
    """Return the median, and the least and the most, where None is never."""
    known = [math.inf if value is None else value for value in values]
    low, middle, high = np.sort(known)[[0, len(known) // 2, -1]]
    return " to ".join("never" if math.isinf(value) else f"{value:,.3g}" for value in (low, high)) + (
        f" (median {'never' if math.isinf(middle) else f'{middle:,.3g}'})"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    by_name = {}
    for path in parser.parse_args().runs:
        name = yaml.safe_load(open_run(path).config.read_text())["name"]
        name = re.sub(r"-\d+$", "", name)  # the number in the array, which tells seeds apart
        by_name.setdefault(name, []).append(crossings(path))
    heads = [
        f"{what}, {margin:g} nats" for margin in MARGINS for what in ("meta steps", "examples", "minutes")
    ]
    rows = []
    for name, runs in by_name.items():
        cells = [
            told([found[number] and found[number][unit] for found, _ in runs])
            for number in range(len(MARGINS))
            for unit in range(3)
        ]
        losses = ", ".join(f"{loss:.2f}" for _, loss in runs)
        rows.append([f"{name} ({len(runs)})", *cells, losses])
    say(markdown(Table(["runs", *heads, "loss at the end"], rows)))


if __name__ == "__main__":
    main()
