"""The settings of VSML, and what they cannot be together."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from vsml.graphs.settings import GraphsConfig
from vsml.learners.surprise import SurpriseConfig
from vsml.networks.episodic import EpisodicMemory, Replacement
from vsml.networks.graph import Schedule
from vsml.networks.image_features import Kind as ImageFeaturesKind
from vsml.networks.image_features import Window
from vsml.networks.kernels import Kernel, ProductType
from vsml.networks.regression import Regression
from vsml.networks.wirings import (
    WIRINGS,
    DenseConfig,
    LayerConfig,
    LayerSection,
    layer_problems,
    own_settings,
    type_problems,
)
from vsml.networks.written import MAX_WEIGHT, cells_of
from vsml.networks.written import Activation as BackpropActivation
from vsml.settings import Bool, Float, Int, LogitBound, Positive, Problem, Section, refuse

StateType = Literal["float32", "bfloat16", "float16"]

LAYER_TYPES = tuple(WIRINGS)
"""Kinds of layers of this library."""


class SynapseConfig(Section):
    """The LSTM cell in place of a weight."""

    state_size: Positive = Field(default=16, description="size N of its hidden and of its cell state")
    message_size: Positive = Field(default=8, description="channels M of each message")
    random_fraction: Annotated[Float, Field(ge=0, le=1)] = Field(
        default=0.5,
        description="share of the cell state that starts random, to break symmetry; the rest starts 0",
    )
    layer_norm: Bool = Field(default=False, description="normalise each synapse's outgoing message")
    init_scale: Annotated[Float, Field(gt=0)] = Field(
        default=1.0,
        description="factor on the initial kernels; above 1 the early plateau of meta-training is shorter",
    )
    init: Literal["random", "backprop", "memory"] = Field(
        default="random",
        description="what meta-training starts from. backprop: gradient descent, written into some of the "
        "cells; needs backward_pass, and separate_backward if there are hidden layers. memory: a soft "
        "nearest-neighbour classifier beside it; needs memory, feed_label and a single layer",
    )
    init_rate: Annotated[Float, Field(gt=0)] = Field(
        default=2.0,
        description="rate of learning that init: backprop starts with; as messages are means, about the "
        "fan-in times as large as that of a usual network",
    )
    init_bias_rate: Annotated[Float, Field(ge=0)] = Field(
        default=0.02, description="rate of biases, of which a unit has one for each input, as a share of it"
    )
    init_activation: BackpropActivation = Field(
        default="tanh",
        description="what inputs of a synapse go through; takes 9 cells, relu3 (a better fit) 19, relu4 33",
    )
    init_max_weight: Annotated[Float, Field(gt=0)] = Field(
        default=MAX_WEIGHT,
        description="largest weight that the cells of init: backprop can hold, about the fan-in times one of "
        "a usual network; beyond a quarter of it weights move more slowly",
    )
    init_weights: Annotated[Float, Field(ge=0)] = Field(
        default=0.0,
        description="deviation of the weights that the cells of init: backprop, or of a clone of it, hold in "
        "a fresh state, as a share of sqrt(fan-in): 1 is as usual networks start, if init_max_weight has "
        "room for it. Hidden layers need it",
    )


Activation = Literal["linear", "relu", "tanh"]


class RandomFeaturesConfig(Section):
    """A fixed random layer before the synapses, drawn with every fresh state."""

    count: Positive | None = Field(
        default=None, description="features that inputs of any size become; null: inputs enter as they are"
    )
    activation: Activation = Field(
        default="linear", description="what they are: a random projection, or one with bias and nonlinearity"
    )
    keep_input: Bool = Field(
        default=False, description="the input itself enters beside its features, instead of being replaced"
    )


class RidgeConfig(Section):
    """A reading of an episodic memory by kernel ridge regression."""

    gain: Annotated[Float, Field(ge=0)] = Field(
        default=8.0, description="factor on the sum over slots weighted as in kernel ridge regression"
    )
    width: Annotated[Float, Field(gt=0)] = Field(
        default=2.0,
        description="how fast its kernel falls with the distance, relative to the mean over pairs of slots; "
        "this and the next are where meta-training starts from",
    )
    ridge: Annotated[Float, Field(gt=0)] = Field(default=0.1, description="added to the kernel's diagonal")


class MemoryConfig(Section):
    """An episodic memory whose slots are the input units of the first layer."""

    slots: Positive = Field(default=128, description="examples that it holds, K")
    replacement: Replacement = Field(
        default="oldest",
        description="what gives way when all slots are taken. oldest: the oldest example; balanced: the "
        "oldest of the class with the most of them; least_useful: the one that synapses say the least of, "
        "which evolution can find and a gradient cannot",
    )
    smooth: Annotated[Float, Field(gt=0)] = Field(
        default=3.0,
        description="how fast the smooth kernel falls with the distance, relative to the mean distance; this "
        "and the two below are where meta-training starts from",
    )
    nearest: Annotated[Float, Field(gt=0)] = Field(
        default=10.0, description="likewise of the softmax over slots"
    )
    narrow: Annotated[Float, Field(gt=0)] = Field(
        default=8.0, description="likewise of the second kernel, which is not read by"
    )
    smooth_gain: Annotated[Float, Field(ge=0)] = Field(
        default=1.0, description="factor on the sum over slots weighted by the smooth kernel"
    )
    nearest_gain: Annotated[Float, Field(ge=0)] = Field(
        default=6.0, description="factor on the sum over slots weighted by the softmax"
    )
    ridge: RidgeConfig | None = Field(
        default=None,
        description="one more channel and reading, by kernel ridge regression on what slots hold; null: none",
    )

    @property
    def channels(self) -> int:
        """Channels of a message from the memory."""
        return self.build().channels

    def build(self) -> EpisodicMemory:
        """Return the memory that is described."""
        return EpisodicMemory(self.slots, self.replacement, self.ridge is not None)


Ridge = Annotated[Float, Field(gt=0)]


class RegressionConfig(Section):
    """Ridge regression beside the network, on random features, over all examples so far."""

    features: Annotated[Positive, Field(multiple_of=2)] = Field(
        default=512, description="random features F, an even number; the state has F^2 numbers"
    )
    hidden: Positive | None = Field(
        default=None,
        description="so many random tanh features take the place of the input, which suits tables; null: the "
        "input as it is, which suits images",
    )
    width: Annotated[Float, Field(gt=0)] = Field(
        default=1.0, description="how fast its kernel exp(-width (1 - cosine)) falls with the distance"
    )
    ridge: Ridge | Annotated[tuple[Ridge, ...], Field(min_length=1)] = Field(
        default=0.1,
        description="penalty of squared weights; of several, each is kept, and the answer is their mean, "
        "weighed by how probable they make the targets so far",
    )
    linear: Annotated[Float, Field(gt=0)] | None = Field(
        default=None,
        description="weight of the product of inputs in its kernel, for what is nearly linear; null: none",
    )
    gain: Annotated[Float, Field(gt=0)] = Field(
        default=7.0,
        description="factor that makes its answers logits, where meta-training starts from; values have none",
    )

    def build(self) -> Regression:
        """Return the regression that is described."""
        ridges = self.ridge if isinstance(self.ridge, tuple) else (self.ridge,)
        return Regression(self.features, self.hidden, self.width, ridges, self.linear)


class ImageFeaturesConfig(Section):
    """Fixed features of images, before all else; other inputs go without."""

    kind: Literal["none", ImageFeaturesKind] = Field(
        default="none",
        description="orientations: of gradients, pooled; filters: random ones, rectified and pooled",
    )
    cell: Positive = Field(default=7, description="height and width of what is pooled, in pixels")
    count: Positive = Field(default=8, description="directions of gradients, or filters")
    stride: Positive | None = Field(
        default=None, description="pixels from a cell to the next, which overlap if it is smaller; null: cell"
    )
    window: Window = Field(
        default="box", description="how pixels of a cell count. tent: the more the nearer to its middle"
    )
    root: Bool = Field(
        default=False, description="square roots of means, so that strong edges do not drown others"
    )


class GraphNetworkConfig(GraphsConfig):
    """A graph in place of layers, with a synapse on each edge."""

    schedule: Schedule = Field(
        default="sweep",
        description="when synapses tick. sweep: group after group, lower nodes first; sync: all at once, so "
        "many times a pass; async: as sync, each with a probability. Several graphs need sync or async",
    )
    ticks: Positive | None = Field(
        default=None,
        description="visits of all synapses in a forward pass, with sync and async; null: edges on the way "
        "from inputs to outputs",
    )
    backward_ticks: Positive | None = Field(
        default=None, description="likewise in a backward pass; null: as in a forward pass"
    )
    rate: Annotated[Float, Field(gt=0, le=1)] = Field(
        default=0.5, description="probability that a synapse is visited at a tick, with async"
    )


class VsmlConfig(Section):
    """Variable Shared Meta Learning: a network of LSTM synapses."""

    layers: tuple[LayerConfig, ...] = Field(
        default=(DenseConfig(),), min_length=1, description="layers, input side first"
    )
    graph: GraphNetworkConfig | None = Field(
        default=None, description="a graph in place of layers, which synapses are the edges of; null: layers"
    )
    image_features: ImageFeaturesConfig = Field(
        default=ImageFeaturesConfig(), description="fixed features of images, before all else"
    )
    random_features: RandomFeaturesConfig = Field(
        default=RandomFeaturesConfig(), description="a fixed random layer before the synapses"
    )
    memory: MemoryConfig | None = Field(
        default=None,
        description="an episodic memory whose slots are the input units of the first layer; null: inputs are",
    )
    regression: RegressionConfig | None = Field(
        default=None,
        description="ridge regression beside the network, whose answers are added to its own; null: none",
    )
    restart: SurpriseConfig | None = Field(
        default=None,
        description="start afresh where errors have become far more frequent, as a stream has changed; for "
        "classes; null: never",
    )
    views: tuple[RandomFeaturesConfig, ...] = Field(
        default=(),
        description="one more network for each, with a state of its own, seeing inputs through these random "
        "features; probabilities are averaged",
    )
    micro_ticks: Positive = Field(default=2, description="ticks of a layer per visit")
    logit_bound: LogitBound = 100.0
    output_channel: Annotated[Int, Field(ge=0)] = Field(
        default=1,
        description="channel of the last forward message that is the logit, from 0; below message_size",
    )
    backward_pass: Bool = Field(
        default=False,
        description="second sweep, last layer to first, right after each answer, with the feedback",
    )
    separate_backward: Bool = Field(
        default=False, description="another synapse for the backward sweep; needs backward_pass"
    )
    feed_label: Bool = Field(
        default=False, description="feed the label besides the error; needs message_size >= 2"
    )
    error_scale: Annotated[Float, Field(gt=0)] = Field(
        default=1.0,
        description="factor on the error that is fed; where synapses do back-propagation, on its rate",
    )
    layerwise: Bool = Field(default=False, description="meta-parameters of its own for every layer")
    synapse: SynapseConfig = Field(default=SynapseConfig(), description="the cell that all synapses share")
    state_dtype: StateType = Field(
        default="float32",
        description="type that states are kept as between visits; shorter ones save memory and, on a GPU, "
        "time. All arithmetic is in float32",
    )
    product_dtype: ProductType = Field(
        default="float32",
        description="type that hidden states and the weights of the cell are rounded to where they are "
        "multiplied; sums are in float32. bfloat16: faster where the processor has such products, and less "
        "exact; not for graphs",
    )
    kernel: Kernel = Field(
        default="auto",
        description="what makes synapses tick; all compute the same but for rounding. auto: the fastest that "
        "can be used; tiled: XLA; native: compiled for the CPU; fused: one kernel a visit, on a GPU; "
        "reference: nested vmap, slow",
    )

    @model_validator(mode="before")
    @classmethod
    def _check_types(cls, values: Any) -> Any:
        refuse(type_problems(values.get("layers") if isinstance(values, Mapping) else None))
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse(_vsml_problems(self))
        return self


def _vsml_problems(vsml: VsmlConfig) -> Iterator[Problem]:
    size = vsml.synapse.message_size
    yield from layer_problems(vsml.layers)
    if vsml.graph is not None:
        yield from _graph_problems(vsml, vsml.graph)
    yield from _features_problems("random_features", vsml.random_features, vsml.layers)
    for index, view in enumerate(vsml.views):
        yield from _features_problems(f"views.{index}", view, vsml.layers)
    if vsml.synapse.init != "random":
        yield from written_problems(vsml, f"synapse.init: {vsml.synapse.init}")
    yield from _memory_problems(vsml)
    yield from _image_features_problems(vsml)
    if weights := vsml.synapse.init_weights:
        if not all(own_settings(layer).holds_weights for layer in vsml.layers):
            yield Problem(
                "synapse.init_weights",
                weights,
                "0 unless all layers are dense",
                ("layers",),
            )
        if vsml.synapse.state_size < (cells := cells_of(vsml.synapse.init_activation)):
            expected = f"0 unless synapse.state_size is {cells} or more, as weights are held in so many cells"
            yield Problem("synapse.init_weights", weights, expected, ("synapse",))
    if vsml.output_channel >= size:
        expected = f"less than synapse.message_size, {size}"
        yield Problem("output_channel", vsml.output_channel, expected, ("synapse.message_size",))
    if vsml.separate_backward and not vsml.backward_pass:
        yield Problem("separate_backward", True, "false unless backward_pass is true", ("backward_pass",))
    if vsml.feed_label and size < 2:
        expected = f"false, as the label needs synapse.message_size of 2 or more and it is {size}"
        yield Problem("feed_label", True, expected, ("synapse.message_size",))


def _memory_problems(vsml: VsmlConfig) -> Iterator[Problem]:
    """Yield settings that a memory needs, or that need a memory."""
    synapse = vsml.synapse
    if vsml.memory is None:
        if synapse.init == "memory":
            yield Problem("synapse.init", "memory", "random or backprop without a memory", ("memory",))
        return
    if not vsml.backward_pass:
        expected = "true with a memory, whose slots are taught by the backward sweep"
        yield Problem("backward_pass", False, expected, ("memory",))
    if synapse.layer_norm:
        expected = "false with a memory, whose readings are of messages as they are"
        yield Problem("synapse.layer_norm", True, expected, ("memory",))
    if synapse.message_size < (channels := vsml.memory.channels):
        expected = f"at least {channels} with this memory, which has so many channels"
        yield Problem("synapse.message_size", synapse.message_size, expected, ("memory",))
    if vsml.output_channel > 1:
        yield Problem("output_channel", vsml.output_channel, "0 or 1 with a memory", ("memory",))
    if not own_settings(vsml.layers[0]).holds_weights:
        yield Problem("layers.0.type", getattr(vsml.layers[0], "type", None), "dense", ("memory",))
    if vsml.graph is not None:
        yield Problem("memory", "one", "null with a graph, which has no first layer", ("graph",))
    if synapse.init_weights and len(vsml.layers) == 1:
        expected = "0 with a memory and no hidden layer, as a slot starts without weights"
        yield Problem("synapse.init_weights", synapse.init_weights, expected, ("memory",))
    if synapse.init == "memory":
        yield from _written_memory_problems(vsml)


def _written_memory_problems(vsml: VsmlConfig) -> Iterator[Problem]:
    """Yield what the start that keeps labels cannot be written for."""
    synapse = vsml.synapse
    if not vsml.feed_label:
        expected = "true with synapse.init: memory, which keeps the label"
        yield Problem("feed_label", False, expected, ("synapse.init",))
    if len(vsml.layers) > 1:
        expected = "a single layer with synapse.init: memory, as labels arrive at the last one alone"
        yield Problem("layers", f"{len(vsml.layers)} layers", expected, ("synapse.init",))
    if vsml.separate_backward:
        expected = "false with synapse.init: memory"
        yield Problem("separate_backward", True, expected, ("synapse.init",))
    if synapse.init_activation != "tanh":
        expected = "tanh with synapse.init: memory"
        yield Problem("synapse.init_activation", synapse.init_activation, expected, ("synapse.init",))
    random = int(synapse.state_size * synapse.random_fraction)
    if synapse.state_size - random <= cells_of("tanh"):
        expected = f"a state_size and a random_fraction that leave {cells_of('tanh') + 1} cells at 0"
        yield Problem("synapse.random_fraction", synapse.random_fraction, expected, ("synapse.init",))


def _image_features_problems(vsml: VsmlConfig) -> Iterator[Problem]:
    """Yield what does not go together with features of images."""
    if vsml.image_features.kind == "none":
        plain = ImageFeaturesConfig()
        for name in ("cell", "count", "stride", "window", "root"):
            got = getattr(vsml.image_features, name)
            if got != getattr(plain, name):
                expected = "its default without image_features.kind"
                yield Problem(f"image_features.{name}", got, expected, ("image_features.kind",))
    elif vsml.memory is None and own_settings(vsml.layers[0]).needs_image:
        expected = "none, as features are no image, which the first layer needs"
        yield Problem("image_features.kind", vsml.image_features.kind, expected, ("layers",))


def _graph_problems(
    vsml: VsmlConfig,
    graph: GraphNetworkConfig,
) -> Iterator[Problem]:
    """Yield settings that are about layers, or of the schedule, and mean nothing on this graph."""
    plain = VsmlConfig.model_fields
    for name in ("layers", "layerwise", "kernel"):
        got = getattr(vsml, name)
        default = plain[name].default
        if got != default:
            yield Problem(name, got, "its default with a graph, which has no layers", ("graph",))
    if vsml.product_dtype != "float32":
        yield Problem("product_dtype", vsml.product_dtype, "float32 with a graph", ("graph",))
    if graph.schedule != "sweep":
        return
    for name in ("ticks", "backward_ticks"):
        got = getattr(graph, name)
        if got is not None:
            yield Problem(f"graph.{name}", got, "null with schedule: sweep", ("graph.schedule",))
    if graph.count > 1:
        expected = f"sync or async with {graph.count} graphs"
        yield Problem("graph.schedule", "sweep", expected, ("graph.count",))


def written_problems(
    vsml: VsmlConfig,
    why: str,
) -> Iterator[Problem]:
    """Yield the settings that back-propagation cannot be written for, nor be cloned with."""
    synapse = vsml.synapse
    needed = {"backward_pass": True, "synapse.layer_norm": False, "output_channel": 1, "micro_ticks": 1}
    if len(vsml.layers) > 1:
        needed["separate_backward"] = True
    for path, value in needed.items():
        if (got := functools.reduce(getattr, path.split("."), vsml)) != value:
            yield Problem(path, got, f"{str(value).lower()} with {why}", ("synapse.init",))
    fixed = synapse.state_size - int(synapse.state_size * synapse.random_fraction)
    if fixed < (cells := cells_of(synapse.init_activation)):
        expected = f"a state_size and a random_fraction that leave {cells} cells which start at 0"
        yield Problem("synapse.random_fraction", synapse.random_fraction, expected, ("synapse.init",))


def _features_problems(
    path: str,
    features: RandomFeaturesConfig,
    layers: Sequence[LayerSection],
) -> Iterator[Problem]:
    if features.count is not None and own_settings(layers[0]).needs_image:
        expected = "null, as random features are no image, which the first layer needs"
        yield Problem(f"{path}.count", features.count, expected, ("layers",))
    if features.count is None:
        for name, without in (("activation", "linear"), ("keep_input", False)):
            if (got := getattr(features, name)) != without:
                expected = f"{str(without).lower()} without {path}.count"
                yield Problem(f"{path}.{name}", got, expected, (f"{path}.count",))
