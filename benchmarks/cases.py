"""What is to be measured: cases, one axis varied at a time from a base point, and how large they are."""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from vsml.cost.counts import What
from vsml.learners.vsml import ConvConfig, DenseConfig, VsmlConfig
from vsml.networks.kernels import Kernel

NUM_CLASSES = 10

CONV = ConvConfig(type="conv", out_channels=8, kernel_size=3, stride=2)

HIDDEN_UNITS = 32
"""Of each hidden layer of a deep network."""

LONG_EPISODE = 500
"""Steps of the paper's episodes; at this length gradients are compiled, for their memory, and not run."""

Axis = Literal["base", "inputs", "depth", "convolution", "population", "episode", "memory"]

INPUTS = (64, 196, 784, 3072)
LAYERS = (1, 2, 4)
MEMBERS = (1, 4, 16, 64, 256, 1024, 4096)
EPISODES = (10, 100, 500, 2000)
CONV_INPUTS = 196


@dataclass(frozen=True)
class Case:
    """One point.

    Attributes:
        axis: what it varies.
        what: "forward" or "gradient".
        inputs: units I of the first layer.
        hidden: layers before the last: dense ones as their numbers of units, and convolutions.
        members: how many are run at once, over all devices.
        episode_length: T.
        segmented: long episodes are cut into segments for their gradient, as the outer loop does.
        timed: it is run; else compiled only.
    """

    axis: Axis
    what: What
    inputs: int = 784
    hidden: tuple[int | ConvConfig, ...] = ()
    members: int = 4
    episode_length: int = 100
    segmented: bool = True
    timed: bool = True

    @property
    def convolutions(self) -> bool:
        """Whether a layer is one."""
        return any(isinstance(layer, ConvConfig) for layer in self.hidden)

    @property
    def hidden_units(self) -> tuple[int, ...]:
        """The hidden layers where all are dense."""
        return tuple(layer for layer in self.hidden if isinstance(layer, int))

    def config(self, kernel: Kernel = "auto") -> VsmlConfig:
        """Return the settings of VSML."""
        hidden = [DenseConfig(out_size=each) if isinstance(each, int) else each for each in self.hidden]
        return VsmlConfig(layers=(*hidden, DenseConfig()), kernel=kernel)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input: a square image for a convolution."""
        side = math.isqrt(self.inputs)
        return (side, side, 1) if self.convolutions else (self.inputs,)

    @property
    def members_of_unit(self) -> int:
        """Members that share an episode: two forward, where that comes out even."""
        return 2 if self.what == "forward" and self.members % 2 == 0 else 1

    @property
    def examples(self) -> int:
        """Examples in a run."""
        return self.members * self.episode_length

    @property
    def layers(self) -> str:
        """The network in words."""
        names = ["conv" if isinstance(layer, ConvConfig) else str(layer) for layer in self.hidden]
        return "-".join([str(self.inputs), *names, str(NUM_CLASSES)])


def cases(base: Case, axes: Iterable[Axis], whats: Iterable[What] = ("forward", "gradient")) -> list[Case]:
    """Return what to measure: the base point first, then the points of each axis that differ from it.

    Args:
        base: what they start from; its `axis` and `what` do not matter.
        axes: the axes to vary.
        whats: of each.
    """
    axes = list(axes)
    found = []
    for what in whats:
        start = dataclasses.replace(base, axis="base", what=what)
        points: list[Case] = [start]
        if "inputs" in axes:
            points += [dataclasses.replace(start, axis="inputs", inputs=inputs) for inputs in INPUTS]
        if "depth" in axes:
            hidden = [(HIDDEN_UNITS,) * (layers - 1) for layers in LAYERS]
            points += [dataclasses.replace(start, axis="depth", hidden=layers) for layers in hidden]
        if "convolution" in axes:
            changes = {"inputs": CONV_INPUTS, "hidden": (CONV,)}
            points.append(dataclasses.replace(start, axis="convolution", **changes))
        if "population" in axes:
            points += [dataclasses.replace(start, axis="population", members=members) for members in MEMBERS]
        if "episode" in axes:
            points += [dataclasses.replace(start, axis="episode", episode_length=T) for T in EPISODES]
        if "memory" in axes and what == "gradient":
            changes = {"axis": "memory", "episode_length": LONG_EPISODE, "timed": False}
            points += [dataclasses.replace(start, segmented=cut, **changes) for cut in (True, False)]
        seen: dict[Case, Case] = {}
        for case in points:
            seen.setdefault(dataclasses.replace(case, axis="base"), case)
        found += list(seen.values())
    return found
