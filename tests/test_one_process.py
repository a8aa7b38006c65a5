"""Several devices in one process: a run gives the same learning algorithm on any number of them.

Devices are simulated: XLA makes several of a CPU, and trials are spread over them as over GPUs.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[1]

RUN = [
    "training={dataset: digits, iterations: 2, population_size: 6, episode_length: 4}",
    "data.preprocess.resize=[4, 4]",
    "evaluation={datasets: [digits], frequency: 0, episode_length: 4, count: 3, start: false}",
    "model.vsml.kernel=tiled",
    "tracking.wandb.mode=disabled",
]
# How meta-training is done, and on how many devices; neither number divides the 6 pairs or episodes.
KINDS = {"evolution": ([], 5), "back-propagation": (["optimizer.type=gradient"], 4)}


def trained(folder, devices, settings):
    """Meta-train in a process of its own that has so many devices; return the learning algorithm."""
    count = f"--xla_force_host_platform_device_count={devices}"
    environment = os.environ | {
        "XLA_FLAGS": f"{count} --xla_cpu_multi_thread_eigen=false",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
    }
    path = folder / str(devices)
    words = ["--run_dir", str(path), "--config", *RUN, *settings]
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), *words], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f'"count": {devices}' in (path / "environment.json").read_text()
    return load_file(path / "learner.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_devices_of_one_process_finds_the_same(kind, tmp_path):
    settings, devices = KINDS[kind]
    alone, several = trained(tmp_path, 1, settings), trained(tmp_path, devices, settings)
    assert several.keys() == alone.keys()
    for name, values in alone.items():
        np.testing.assert_array_equal(several[name], values)
