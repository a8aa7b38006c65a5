"""Whether two runs are the same but for times."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from vsml.runs import read_metrics


def untimed(run: Path) -> list[dict]:
    """Return the metrics of a run without times."""
    return [
        {key: value for key, value in line.items() if key != "wall_s"}
        for line in read_metrics(run / "metrics.jsonl")
    ]


def assert_same_learner(one: Path, other: Path) -> None:
    """Compare what two runs found, bit for bit."""
    first, second = (load_file(run / "learner.safetensors") for run in (one, other))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def assert_same_run(one: Path, other: Path) -> None:
    """Compare metrics and what was found, bit for bit."""
    assert untimed(one) == untimed(other)
    assert_same_learner(one, other)
