"""docs/layers.md, followed to the letter in a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_learner_page import code_after

pytestmark = pytest.mark.usefixtures("hasty")

ROOT = Path(__file__).parents[1]

BESIDE_A_DENSE_LAYER = """
import jax
import numpy as np
from flax import nnx
from vsml.networks.cells.lstm import Synapse
from vsml.networks.wirings import build_layer
from vsml.networks.wirings.dense import DenseLayer
from vsml.networks.wirings.grouped import GroupedConfig

synapse = Synapse(4, 3, False, 1.0, nnx.Rngs(0))
draw = np.random.default_rng(0).normal
grouped = build_layer(GroupedConfig(type="grouped", groups=2, group_size=2), (1, 6, 1), 5, "reference")
cells, forward, backward = draw(size=(2, 3, 2, 4)), draw(size=(6, 3)), draw(size=(4, 3))
state, out, back = grouped.visit(synapse, grouped.with_cells(cells), forward, backward, 2)
for k in range(2):
    one = DenseLayer(3, 2, "reference")
    ins, outs = slice(3 * k, 3 * k + 3), slice(2 * k, 2 * k + 2)
    _, want_out, want_back = one.visit(synapse, one.with_cells(cells[k]), forward[ins], backward[outs], 2)
    np.testing.assert_allclose(out[outs], want_out, atol=1e-6)
    np.testing.assert_allclose(back[ins], want_back, atol=1e-6)
assert state.c.size == 4 * grouped.extent.synapses == 4 * 12
"""


@pytest.mark.slow
def test_a_layer_is_added_as_the_page_says(tmp_path):
    page = (ROOT / "docs" / "layers.md").read_text()
    for folder in ("vsml", "configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "launch.py", tmp_path)

    file = re.search(r"^`(vsml/networks/wirings/\w+\.py)`:$", page, re.MULTILINE)[1]
    (tmp_path / file).write_text(code_after(page, f"`{file}`:"))
    registry = tmp_path / "vsml" / "networks" / "wirings" / "__init__.py"
    shown = code_after(page, "`vsml/networks/wirings/__init__.py`").strip().splitlines()
    added_import, head, line = shown[0], "\n".join(shown[-6:-3]), shown[-3]
    code = registry.read_text()
    assert code.count(head) == 1
    code = code.replace(head, f"{head}\n{line}").replace(
        "from vsml.registry", f"{added_import}\nfrom vsml.registry"
    )
    registry.write_text(code)

    environment = os.environ | {"PYTHONPATH": str(tmp_path)}

    def run(*arguments):
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    command = re.search(r"^    python (launch\.py .*grouped.*)$", page, re.MULTILINE)[1]
    layers = re.search(r"'(model\.vsml\.layers=.*)'", command)[1]
    assert command.endswith(f"'{layers}' training.iterations=30")
    files = command.split(" --config ")[0].split()
    done = run(*files, "--config", layers, "training.iterations=3", "--run_dir", "run")
    assert done.returncode == 0, done.stderr
    assert "group_size: 8" in (tmp_path / "run" / "config.yaml").read_text()
    told = run("launch.py", "--config", layers.replace("groups", "group"))
    assert "did you mean model.vsml.layers.0.groups" in told.stderr
    told = run("launch.py", "--config", "model.vsml.layers=[{type: grouped, group_size: 8}]")
    assert "expected dense, as an output depends on all inputs" in told.stderr
    beside = run("-c", BESIDE_A_DENSE_LAYER)
    assert beside.returncode == 0, beside.stderr
