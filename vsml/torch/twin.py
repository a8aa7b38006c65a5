"""A learning algorithm of one dense layer in PyTorch: read from a file, and run over examples and labels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from vsml.settings import deep_merge
from vsml.system.tensors import CheckpointError, decode
from vsml.torch.synapse import Synapse

ALGORITHMS = Path(__file__).parents[1] / "algorithms"
"""Where the learning algorithms that come with the library are."""

BIAS_STD = 0.5
"""Deviation of the bias of random features."""

TANH_STD = 0.659
"""Deviation of tanh(z + b), for standard normal z, and b as drawn."""

RELU_MEAN, RELU_STD = 0.446, 0.653
"""Mean and deviation of relu(z + b), likewise."""

ONLY_ONE = {
    "layerwise": False,
    "state_dtype": "float32",
    "product_dtype": "float32",
    "synapse.layer_norm": False,
    "synapse.init_weights": 0.0,
    "image_features.kind": "none",
    "graph": None,
    "memory": None,
    "regression": None,
    "restart": None,
}
"""Settings that the twin knows one value of."""


_ELSEWHERE = frozenset(
    [*ONLY_ONE, "layers", "random_features", "views", "synapse", "image_features", "kernel"]
)
"""Settings of VSML that are looked at in another place, or that change no number."""

Section = TypeVar("Section")


@dataclass(frozen=True)
class Features:
    """A fixed random layer before the synapses, as `random_features` of a configuration.

    Attributes:
        count: F; None: inputs enter as they are.
        activation: "linear", "tanh" or "relu".
        keep_input: the input enters beside its features.
    """

    count: int | None = None
    activation: str = "linear"
    keep_input: bool = False


@dataclass(frozen=True)
class TwinConfig:
    """Settings of one dense layer; names, meanings and defaults are those of `VsmlConfig`."""

    micro_ticks: int = 2
    logit_bound: float = 100.0
    output_channel: int = 1
    backward_pass: bool = False
    separate_backward: bool = False
    feed_label: bool = False
    error_scale: float = 1.0
    random_fraction: float = 0.5


@dataclass(frozen=True)
class TwinState:
    """What one network has learned.

    Attributes:
        h: hidden states of the synapses [I, O, N].
        c: cell states [I, O, N].
        feedback: error and label that enter behind the layer at the next sweep, [O, 2]; 0: none is pending.
        features: weights and, last, bias of the random features, [inputs + 1, F]; None without.
    """

    h: torch.Tensor
    c: torch.Tensor
    feedback: torch.Tensor
    features: torch.Tensor | None = None


States = tuple[TwinState, ...]
"""The state of each network: one, and one more for each view."""


class Twin(torch.nn.Module):
    """A network of LSTM synapses that learns by running forward; see `vsml.learners.Vsml`.

    It is the case of one dense layer, classes, and one example a step. With views, several networks answer
    together. Meta-parameters are parameters of the module, so that `.to(...)` moves them, and `.double()`
    computes in float64. States are values: keep one to return to it.

    Args:
        synapses: the meta-parameters: of forward sweeps and, with `separate_backward`, of backward sweeps.
        config: settings.
        views: random features of each network, at least one.
        input_shape: shape of one input.
        num_classes: C.
    """

    def __init__(
        self,
        synapses: Sequence[Synapse],
        config: TwinConfig,
        views: Sequence[Features],
        input_shape: tuple[int, ...],
        num_classes: int,
    ) -> None:
        super().__init__()
        self.synapses = torch.nn.ModuleList(synapses)
        self.config = config
        self.views = tuple(views)
        self.input_shape = tuple(input_shape)
        self.num_classes = num_classes

    def start(self, seed: int = 0) -> States:
        """Draw the states of networks that have not seen anything.

        They are distributed as those of JAX, and are not the same numbers.
        """
        generator = torch.Generator().manual_seed(seed)
        return tuple(self._start(features, generator) for features in self.views)

    def step(
        self,
        states: States,
        x: Any,
        y: Any,
    ) -> tuple[States, torch.Tensor]:
        """Answer an input x [*input_shape], then learn its label y, a whole number.

        Returns:
            The new states and the logits [C], given before y was seen.
        """
        x = self._inputs(x, self.input_shape)
        label = self._labels(y, ())
        learned, answers = [], []
        for features, state in zip(self.views, states, strict=True):
            state, logits = self._step(features, state, x, label)
            learned.append(state)
            answers.append(logits)
        return tuple(learned), _together(answers)

    def run(
        self,
        states: States,
        x: Any,
        y: Any,
    ) -> tuple[States, torch.Tensor]:
        """Take a step for each of x [T, *input_shape] and y [T].

        Returns:
            The states after the last, and the logits [T, C], each given before its label was seen.
        """
        x = self._inputs(x, (None, *self.input_shape))
        labels = self._labels(y, (len(x),))
        answers = []
        for example, label in zip(x, labels, strict=True):
            states, logits = self.step(states, example, label)
            answers.append(logits)
        return states, torch.stack(answers) if answers else x.new_zeros((0, self.num_classes))

    def predict(
        self,
        states: States,
        x: Any,
    ) -> torch.Tensor:
        """Return the logits [K, C] of inputs x [K, *input_shape]; nothing is learned."""
        x = self._inputs(x, (None, *self.input_shape))
        if not len(x):
            return x.new_zeros((0, self.num_classes))
        answers = [
            torch.stack([self._answer(features, state, one)[2] for one in x])
            for features, state in zip(self.views, states, strict=True)
        ]
        return _together(answers)

    def _start(
        self,
        features: Features,
        generator: torch.Generator,
    ) -> TwinState:
        """Draw a fresh state of one network."""
        synapse = self.synapses[0]
        like = synapse.bias
        inputs = math.prod(self.input_shape)
        units = inputs
        drawn = None
        if features.count is not None:
            units = features.count + inputs * features.keep_input
            drawn = torch.randn(inputs + 1, features.count, generator=generator)
            drawn[:-1] *= inputs**-0.5
            drawn[-1] *= BIAS_STD
            drawn = drawn.to(like)
        shape = (units, self.num_classes, synapse.state_size)
        c = torch.zeros(shape)
        # Only noise in some of the cells tells one synapse from another.
        noisy = int(synapse.state_size * self.config.random_fraction)
        noise = torch.nn.init.trunc_normal_(c[..., :noisy], a=-2.0, b=2.0, generator=generator)
        c[..., :noisy] = noise / units**0.5
        return TwinState(
            h=like.new_zeros(shape),
            c=c.to(like),
            feedback=like.new_zeros(self.num_classes, 2),
            features=drawn,
        )

    def _step(
        self,
        features: Features,
        state: TwinState,
        x: torch.Tensor,
        label: torch.Tensor,
    ) -> tuple[TwinState, torch.Tensor]:
        """Let one network answer x [*input_shape], then learn its label []."""
        config = self.config
        state, inputs, logits = self._answer(features, state, x)
        one_hot = torch.nn.functional.one_hot(label, self.num_classes).to(logits)
        error = torch.softmax(logits, dim=-1) - one_hot
        feedback = torch.stack([config.error_scale * error, config.feed_label * one_hot], dim=-1)
        if not config.backward_pass:
            return replace(state, feedback=feedback), logits
        synapse = self.synapses[-1]
        h, c, _ = synapse.visit(state.h, state.c, inputs, self._message(feedback), config.micro_ticks)
        return replace(state, h=h, c=c, feedback=torch.zeros_like(feedback)), logits

    def _answer(
        self,
        features: Features,
        state: TwinState,
        x: torch.Tensor,
    ) -> tuple[TwinState, torch.Tensor, torch.Tensor]:
        """Sweep forward: the new state, the message that entered, and the logits [C] of x [*input_shape]."""
        config = self.config
        entered = self._message(_features(features, state, x.reshape(-1))[:, None])
        h, c, sent = self.synapses[0].visit(
            state.h,
            state.c,
            entered,
            self._message(state.feedback),
            config.micro_ticks,
        )
        logits = sent[:, config.output_channel]
        if config.logit_bound > 0:
            logits = config.logit_bound * torch.tanh(logits / config.logit_bound)
        return replace(state, h=h, c=c), entered, logits

    def _message(self, channels: torch.Tensor) -> torch.Tensor:
        """Make channels [..., k] a message [..., M]: filled up with zeros, or cut."""
        size = self.synapses[0].message_size
        missing = size - channels.shape[-1]
        return torch.nn.functional.pad(channels, (0, missing))

    def _inputs(
        self,
        x: Any,
        expected: tuple[int | None, ...],
    ) -> torch.Tensor:
        """Return inputs as a tensor like the meta-parameters; None in a shape stands for any length."""
        like = self.synapses[0].bias
        tensor = torch.as_tensor(x).to(like)
        fits = tensor.ndim == len(expected) and all(
            size in (None, got) for size, got in zip(expected, tensor.shape, strict=True)
        )
        if not fits:
            shape = ", ".join("any" if size is None else str(size) for size in expected)
            raise ValueError(f"x: got shape {tuple(tensor.shape)}, expected ({shape})")
        return tensor

    def _labels(
        self,
        y: Any,
        shape: tuple[int, ...],
    ) -> torch.Tensor:
        """Return labels as a tensor of whole numbers."""
        labels = torch.as_tensor(y)
        if labels.is_floating_point() or labels.shape != shape:
            raise ValueError(f"y: got {labels.dtype} {tuple(labels.shape)}, expected whole numbers {shape}")
        if labels.numel() and not 0 <= labels.min() <= labels.max() < self.num_classes:
            got = f"{labels.min()} to {labels.max()}"
            raise ValueError(f"y: got labels {got}, expected 0 to {self.num_classes - 1}")
        return labels.to(self.synapses[0].bias.device, torch.int64)


def load_twin(
    name: str,
    *,
    input_shape: tuple[int, ...],
    num_classes: int,
    model: Mapping[str, Any] | None = None,
) -> Twin:
    """Load a learning algorithm for inputs of a shape and a number of classes.

    Args:
        name: one that comes with the library, such as "mnist14", or the path of a file such as
            learner.safetensors.
        input_shape: shape of one input, such as (14, 14).
        num_classes: C, at least 1.
        model: settings that differ from the file's, as for `vsml.load_learner`: for instance {"vsml":
            {"views": [{}, {}]}} or {"vsml": {"random_features": {"count": 512}}}.

    Raises:
        FileNotFoundError: there is none of that name.
        CheckpointError: the file is damaged.
        ValueError: it is not one dense layer of VSML, or a setting is one that the twin does not know.
    """
    if num_classes < 1 or not all(size > 0 for size in input_shape):
        got = f"input_shape {tuple(input_shape)} and num_classes {num_classes}"
        raise ValueError(f"load_twin: got {got}, expected positive numbers")
    path = _path(name)
    tensors, metadata = decode(path.read_bytes(), str(path))
    settings = deep_merge(_settings(metadata, name), (model or {}).get("vsml", {}))
    config = _config(settings, name)
    synapses = [_synapse(tensors, number, name) for number in range(1 + config.separate_backward)]
    described = [settings.get("random_features", {}), *settings.get("views", ())]
    views = [_known(Features, features, f"{name}: random features") for features in described]
    return Twin(synapses, config, views, input_shape, num_classes)


def _path(name: str) -> Path:
    """Return the file of a learning algorithm.

    Raises:
        FileNotFoundError: there is none.
    """
    shipped = ALGORITHMS / f"{name}.safetensors"
    path = shipped if shipped.is_file() else Path(name)
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in ALGORITHMS.glob("*.safetensors")))
        raise FileNotFoundError(f"{name}: no such file, expected one, or one of {names}")
    return path


def _settings(metadata: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the settings of VSML that a file has.

    Raises:
        ValueError: it is of another learner, or does not say of which.
    """
    model = metadata.get("config", {}).get("model", {})
    if model.get("type") != "vsml":
        raise ValueError(f"{name}: got a learner of type {model.get('type')}, expected vsml")
    return model["vsml"]


def _config(settings: Mapping[str, Any], name: str) -> TwinConfig:
    """Return the settings that the twin computes by.

    Raises:
        ValueError: there are others that it does not know.
    """
    layers = settings.get("layers", ({},))
    kinds = [layer.get("type", "dense") for layer in layers]
    if kinds != ["dense"]:
        raise ValueError(f"{name}: got layers {kinds}, expected one dense layer; use vsml.load_learner")
    synapse = settings.get("synapse", {})
    flat = dict(settings)
    for section in ("synapse", "image_features"):
        flat |= {f"{section}.{key}": value for key, value in settings.get(section, {}).items()}
    for path, expected in ONLY_ONE.items():
        if (got := flat.get(path, expected)) != expected:
            raise ValueError(f"{name}: got {path} {got}, expected {expected}; use vsml.load_learner")
    own = {key: value for key, value in settings.items() if key not in _ELSEWHERE}
    own["random_fraction"] = synapse.get("random_fraction", TwinConfig.random_fraction)
    return _known(TwinConfig, own, name)


def _known(kind: type[Section], settings: Mapping[str, Any], where: str) -> Section:
    """Return a section of settings that a file and a call give.

    Raises:
        ValueError: it has others.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(f"{where}: got settings {unknown}, expected some of {known}")
    return kind(**settings)


def _synapse(tensors: Mapping[str, Any], number: int, name: str) -> Synapse:
    """Return one set of meta-parameters of a file."""
    prefix = f"params/{number}/"
    own = {
        key.removeprefix(prefix): torch.from_numpy(tensor)
        for key, tensor in tensors.items()
        if key.startswith(prefix)
    }
    try:
        return Synapse(own)
    except ValueError as error:
        raise CheckpointError(f"{name}: {error}") from error


def _features(
    features: Features,
    state: TwinState,
    x: torch.Tensor,
) -> torch.Tensor:
    """Return what enters the network for an input x [inputs]: [inputs], [F] or [inputs + F]."""
    if state.features is None:
        return x
    z = x @ state.features[:-1]
    shift = state.features[-1]
    if features.activation == "tanh":
        z = torch.tanh(z + shift) / TANH_STD
    elif features.activation == "relu":
        z = (torch.relu(z + shift) - RELU_MEAN) / RELU_STD
    return torch.cat([x, z]) if features.keep_input else z


def _together(answers: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the logits [..., C] of one network, or the logarithms of the mean probabilities of several."""
    if len(answers) == 1:
        return answers[0]
    likelihoods = torch.log_softmax(torch.stack(list(answers)), dim=-1)
    return torch.logsumexp(likelihoods, dim=0) - math.log(len(answers))
