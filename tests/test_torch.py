"""The PyTorch twin: it answers as the JAX learner does, from the same file and the same state."""

import dataclasses
import subprocess
import sys
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pages import code_after, read_page

import vsml
from vsml.learners import entering as original
from vsml.learners.vsml import VsmlConfig
from vsml.networks.cells import lstm
from vsml.networks.kernels import reference
from vsml.networks.wirings.base import from_tiles
from vsml.system.tensors import CheckpointError

try:
    import torch

    from vsml.torch import TwinState, load_twin, twin
    from vsml.torch import synapse as twin_synapse
except ImportError:
    torch = None

needs_torch = pytest.mark.skipif(
    torch is None, reason="PyTorch is not installed: pip install 'vsml[torch]', or a CPU wheel of torch"
)

pytestmark = pytest.mark.usefixtures("hasty")

EXAMPLES = 30
VIEWS = [{"count": 64, "activation": "relu", "keep_input": True}, {}]


@cache
def stream(shape, examples=EXAMPLES):
    """Return inputs [T, *shape] and labels [T] of noise about one centre for each of ten classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, examples)
    centres = rng.normal(size=(10, *shape))
    inputs = centres[labels] + rng.normal(size=(examples, *shape))
    return (inputs / 2**0.5).astype(np.float32), labels


def as_twin(state):
    """Return a state of the JAX learner as one of the twin."""
    networks = state if isinstance(state, tuple) else (state,)

    def tensor(array):
        return torch.from_numpy(np.array(array))

    states = []
    for network in networks:
        (layer,) = network.network.layers
        twin_state = TwinState(
            h=tensor(from_tiles(layer.h[0])),
            c=tensor(from_tiles(layer.c[0])),
            feedback=tensor(network.feedback[0]),
            features=None if network.features is None else tensor(network.features),
        )
        states.append(twin_state)
    return tuple(states)


def relative_error(got, expected):
    """Return the largest difference, as a share of the largest number that is expected."""
    return np.abs(np.asarray(got) - np.asarray(expected)).max() / np.abs(np.asarray(expected)).max()


@needs_torch
@pytest.mark.parametrize(
    ("name", "shape", "model", "limit"),
    [
        ("mnist14", (14, 14), {}, 1e-6),
        ("general", (13,), {}, 1e-6),  # reads through random features
        ("evolved", (8, 8), {}, 1e-6),  # is fed with the next input
        ("mnist14", (14, 14), {"views": VIEWS}, 1e-6),
        # It sweeps backward with other meta-parameters. Its cells have room for weights up to 1,600, so that
        # float32 leaves fewer digits: the twin itself differs by 2e-6 in float64.
        ("clone", (8, 8), {}, 1e-5),
    ],
    ids=["one layer", "random features", "one sweep", "views", "separate backward"],
)
def test_the_twin_answers_as_the_jax_learner_to_a_millionth(name, shape, model, limit):
    x, y = stream(shape)
    plain = {"vsml": {"kernel": "reference", **model}}
    algorithm = vsml.load_learner(name, input_shape=shape, num_classes=10, model=plain)
    fresh = algorithm.start(3)
    learned, expected = algorithm.run(fresh, x[:, None], y[:, None])

    same = load_twin(name, input_shape=shape, num_classes=10, model={"vsml": model})
    with torch.no_grad():
        states, got = same.run(as_twin(fresh), x, y)
        predicted = same.predict(states, x[:5])

    assert relative_error(got, expected[:, 0]) < limit
    assert relative_error(predicted, algorithm.predict(learned, x[:5])) < 2 * limit
    for ours, theirs in zip(states, as_twin(learned), strict=True):
        assert relative_error(ours.c, theirs.c) < 2 * limit


@needs_torch
def test_a_visit_in_float64_is_that_of_the_cell_to_rounding():
    path = Path(vsml.__file__).parent / "algorithms" / "mnist14.safetensors"
    tensors, _ = twin.decode(path.read_bytes(), str(path))
    ours = twin._synapse(tensors, 0, "mnist14").double()
    rng = np.random.default_rng(1)
    h, c = rng.normal(size=(2, 3, 4, 16))
    forward, backward = rng.normal(size=(3, 8)), rng.normal(size=(4, 8))
    arguments = [torch.from_numpy(array) for array in (h, c, forward, backward)]
    with torch.no_grad():
        got = ours.visit(*arguments, micro_ticks=2)

    algorithm = vsml.load_learner("mnist14", input_shape=(3,), num_classes=4)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), algorithm.params)
        cell = algorithm.learner.synapses.with_params(params)[0]
        exact = (jnp.asarray(array) for array in (h, c))
        sent = (jnp.asarray(array)[None] for array in (forward, backward))
        new_h, new_c, message, _ = reference.visit(cell, cell.messages, *exact, *sent, 2)
    for ours, theirs in zip(got, (new_h, new_c, message[0]), strict=True):
        assert relative_error(ours, theirs) < 1e-12


@needs_torch
def test_a_fresh_twin_learns():
    x, y = stream((14, 14), 100)
    same = load_twin("mnist14", input_shape=(14, 14), num_classes=10)
    with torch.no_grad():
        _, logits = same.run(same.start(seed=1), x, y)
    right = (logits.argmax(-1).numpy() == y)[50:]
    assert right.mean() > 0.8  # guessing: 0.1


@needs_torch
def test_a_fresh_state_is_distributed_as_that_of_the_jax_learner():
    model = {"vsml": {"random_features": {"count": 64, "activation": "tanh"}}}
    settings = {"input_shape": (50,), "num_classes": 10, "model": model}
    (expected,) = as_twin(vsml.load_learner("mnist14", **settings).start())
    (drawn,) = load_twin("mnist14", **settings).start()
    for name in ("h", "c", "feedback", "features"):
        one, other = getattr(drawn, name), getattr(expected, name)
        assert one.shape == other.shape
        # The same entries are 0 in both.
        assert torch.equal(one == 0, other == 0), name
        assert torch.allclose(one.std(), other.std(), rtol=0.1), name
    assert torch.allclose(drawn.features[-1].std(), expected.features[-1].std(), rtol=0.4)  # the bias


@needs_torch
def test_meta_parameters_are_parameters_of_the_module():
    same = load_twin("mnist14", input_shape=(14, 14), num_classes=10)
    assert sum(parameter.numel() for parameter in same.parameters()) == 2384
    x, y = stream((14, 14), 3)
    _, logits = same.run(same.start(), x, y)
    torch.nn.functional.cross_entropy(logits, torch.as_tensor(y)).backward()
    assert same.synapses[0].hidden_rows.grad.abs().max() > 0


@needs_torch
def test_settings_and_constants_are_those_of_the_jax_learner():
    defaults = VsmlConfig()
    for field in dataclasses.fields(twin.TwinConfig):
        section = defaults.synapse if field.name == "random_fraction" else defaults
        assert field.default == getattr(section, field.name), field.name
    for field in dataclasses.fields(twin.Features):
        assert field.default == getattr(defaults.random_features, field.name), field.name
    for path, value in twin.ONLY_ONE.items():
        section, _, name = path.rpartition(".")
        assert getattr(defaults.synapse if section else defaults, name) == value, path
    assert twin_synapse.GATE_OFFSET == lstm.GATE_OFFSET
    assert (twin.BIAS_STD, twin.TANH_STD) == (original.BIAS_STD, original.TANH_STD)
    assert (twin.RELU_MEAN, twin.RELU_STD) == (original.RELU_MEAN, original.RELU_STD)


@needs_torch
@pytest.mark.parametrize(
    ("name", "model", "message"),
    [
        ("meta_rnn14", {}, "got a learner of type meta_rnn, expected vsml"),
        ("mnist14", {"vsml": {"layerwise": True}}, "got layerwise True, expected False"),
        ("mnist14", {"vsml": {"layers": [{"out_size": 4}, {}]}}, "got layers .*, expected one dense layer"),
        ("mnist14", {"vsml": {"views": [{"size": 4}]}}, r"got settings \['size'\], expected some of"),
        ("mnist14", {"vsml": {"mirco_ticks": 2}}, r"got settings \['mirco_ticks'\], expected some of"),
    ],
)
def test_what_the_twin_cannot_compute_is_refused(name, model, message):
    with pytest.raises(ValueError, match=message):
        load_twin(name, input_shape=(14, 14), num_classes=10, model=model)


@needs_torch
def test_files_and_examples_of_another_form_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="mnist15: no such file, expected one, or one of clone"):
        load_twin("mnist15", input_shape=(3,), num_classes=2)
    shipped = Path(vsml.__file__).parent / "algorithms" / "mnist14.safetensors"
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(shipped.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="does not match its checksum"):
        load_twin(str(broken), input_shape=(3,), num_classes=2)

    same = load_twin(str(shipped), input_shape=(3,), num_classes=2)
    with pytest.raises(ValueError, match=r"x: got shape \(4,\), expected \(3\)"):
        same.step(same.start(), np.zeros(4), 1)
    with pytest.raises(ValueError, match=r"x: got shape \(3,\), expected \(any, 3\)"):
        same.predict(same.start(), np.zeros(3))
    with pytest.raises(ValueError, match="y: got labels 2 to 2, expected 0 to 1"):
        same.step(same.start(), np.zeros(3), 2)
    with pytest.raises(ValueError, match=r"y: got torch\.float64"):
        same.run(same.start(), np.zeros((1, 3)), np.zeros(1))
    with pytest.raises(ValueError, match=r"load_twin: got input_shape \(3,\) and num_classes 0"):
        load_twin(str(shipped), input_shape=(3,), num_classes=0)


@needs_torch
def test_the_code_of_the_page_about_it_runs(capsys):
    exec(code_after(read_page("using.md"), "## In PyTorch"), {})
    predicted = [int(label) for label in capsys.readouterr().out.strip("tensor([])\n").split(",")]
    assert len(predicted) == 5 and set(predicted) <= set(range(10))


def test_without_pytorch_one_is_told_how_to_install_it():
    code = "import sys; sys.modules['torch'] = None; import vsml.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "vsml.torch: PyTorch is not installed; install it with: pip install 'vsml[torch]'" in done.stderr
