"""Whether two runs are the same but for times, and two results but for rounding."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file

from vsml.runs.metrics import read_metrics


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


class Ranks:
    """Ranks of one process that do the same, each in a thread of its own; a `Communicator` is one of them."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, sent: list):
        self.rank, self.size, self._barrier, self._sent = rank, size, barrier, sent

    @classmethod
    def run(cls, size: int, function: Callable[["Ranks"], Any]) -> list:
        """Return what the function returns on each rank."""
        barrier, sent = threading.Barrier(size, timeout=300), [None] * size
        with ThreadPoolExecutor(size) as pool:
            return list(pool.map(lambda rank: function(cls(rank, size, barrier, sent)), range(size)))

    def allgather(self, array: np.ndarray) -> np.ndarray:
        self._sent[self.rank] = array
        self._barrier.wait()
        gathered = np.stack(self._sent)
        self._barrier.wait()
        return gathered


def assert_same_numbers(got: Any, want: Any, atol: float) -> None:
    """Compare trees of arrays of the same types; `atol` is of the largest number, 1 at least."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=atol * max(1, abs(b).max()))
