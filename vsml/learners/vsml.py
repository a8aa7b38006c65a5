"""VSML: a network whose weights are LSTM synapses, which learns by running forward."""

import dataclasses
import functools
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx, struct

from vsml.learners import flat
from vsml.learners.base import LearnerBase, batch_elements, only_if
from vsml.learners.ensemble import Ensemble
from vsml.learners.entering import Entering
from vsml.learners.growing import FixedOutputsError
from vsml.learners.held_weights import held_weights, with_random_weights
from vsml.learners.memory import Change
from vsml.learners.surprise import Surprise, SurpriseState
from vsml.learners.vsml_config import LAYER_TYPES as LAYER_TYPES  # settings are imported from here
from vsml.learners.vsml_config import Activation as Activation
from vsml.learners.vsml_config import GraphNetworkConfig as GraphNetworkConfig
from vsml.learners.vsml_config import ImageFeaturesConfig as ImageFeaturesConfig
from vsml.learners.vsml_config import MemoryConfig as MemoryConfig
from vsml.learners.vsml_config import RandomFeaturesConfig as RandomFeaturesConfig
from vsml.learners.vsml_config import RegressionConfig as RegressionConfig
from vsml.learners.vsml_config import StateType as StateType
from vsml.learners.vsml_config import SynapseConfig as SynapseConfig
from vsml.learners.vsml_config import VsmlConfig as VsmlConfig
from vsml.learners.vsml_config import written_problems as written_problems
from vsml.losses import bound_answers, error_signal, known_targets, label_signal
from vsml.networks.edges import Edges
from vsml.networks.episodic import RIDGE, USEFULNESS, EpisodicMemory, MemoryState, Sharpnesses
from vsml.networks.graph import GraphNetwork
from vsml.networks.kernels import chosen
from vsml.networks.layered import Network, NetworkState
from vsml.networks.modules import Functional
from vsml.networks.regression import Gain, Regression, RegressionState
from vsml.networks.wirings import ConvConfig as ConvConfig  # they are imported from here
from vsml.networks.wirings import DenseConfig as DenseConfig
from vsml.networks.wirings import LayerConfig as LayerConfig
from vsml.networks.wirings import build_layer
from vsml.networks.wirings.base import Layer, from_tiles, mean_message, to_tiles
from vsml.networks.wirings.dense import DenseLayer
from vsml.networks.wirings.reading import ReadingLayer
from vsml.networks.written import back_propagating
from vsml.networks.written_memory import remembering
from vsml.settings import deep_merge
from vsml.types import Array, Classes, Outputs, Params, State

_FEATURES = 1
"""What the key of a fresh state is folded with for its random features."""

_WEIGHTS = 2
"""What it is folded with for the weights that a fresh state holds."""

_MEMORY = 3
"""What it is folded with for the memory."""

_REGRESSION = 4
"""What it is folded with for the random features of regression."""

_RESTART = 5
"""What it is folded with for what is drawn at a fresh start in the middle of an episode."""

_ROOM = 0.25
"""Share of the largest weight that can be held up to which fresh weights may deviate: nearly linear."""


def _reading(
    layer: Layer,
    memory: MemoryConfig,
) -> ReadingLayer:
    """Return a first layer whose input units are slots of a memory."""
    if not isinstance(layer, DenseLayer):
        raise ValueError(
            f"layers.0: got a {type(layer).__name__}, expected a dense layer, as its input units are slots "
            "of a memory"
        )
    ridge_gain = None if memory.ridge is None else memory.ridge.gain
    return ReadingLayer(layer, memory.smooth_gain, memory.nearest_gain, ridge_gain)


@struct.dataclass
class VsmlState:
    """Inner state of VSML within an episode.

    Attributes:
        network: state of the network, one for each element of the inner batch (leading axis B).
        feedback: what enters channels 0 and 1 behind the last layer at the next forward sweep: the error
            and the label of the step before, float32 [B, C, 2]; 0 if there is none pending.
        features: weights and bias of the random features, float32 [inputs + 1, F]; None without.
        memory: of the episodic memory, one for each element of the inner batch; None without.
        regression: of the ridge regression beside the network; None without.
        surprise: how often it has erred, where it may start afresh; None where it never does.
    """

    network: NetworkState
    feedback: Array
    features: Array | None = None
    memory: MemoryState | None = None
    regression: RegressionState | None = None
    surprise: SurpriseState | None = None


@dataclass(frozen=True, init=False)
class Vsml(LearnerBase):
    """Variable Shared Meta Learning (Kirsch & Schmidhuber, 2021), as a learner.

    A step answers x by a forward sweep over the layers: x enters channel 0 of the forward message to the
    first layer, and the logit of class b is channel `output_channel` of the message that output b sends,
    bounded smoothly. The error `e = d loss / d logits` (channel 0) and, with `feed_label`, the label as
    one-hot (channel 1) enter behind the last layer: together with the input of the next step or, with
    `backward_pass`, at once, by a second sweep from the last layer to the first. All the rest, among it what
    the error means, is left to the meta-parameters. They do not depend on input_shape or outputs. Values are
    answered unbounded, and their label is the target.

    With `synapse.init: backprop`, fresh meta-parameters have gradient descent written into them
    (`vsml.networks.written`). With `random_features` (Rahimi & Recht, 2007), features drawn with every fresh
    state and never changed enter the network: `z = x R`, R normal with variance 1 / inputs; or relu or tanh
    of z + b, b normal with variance 1/4, scaled to mean 0 and variance 1 for standard normal z. With
    `image_features`, images are described by fixed features first (`vsml.networks.image_features`).

    With `memory`, what arrives at the first layer is not the input but its similarity to the examples that an
    episodic memory holds (`vsml.networks.episodic`), and answers are read by similarity
    (`vsml.networks.wirings.reading`). Each element of the inner batch has a memory of its own, and the
    synapses at its slots are not averaged over the batch. What is answered without being taught is not
    remembered.

    With `regression`, a ridge regression on random features learns beside the network
    (`vsml.networks.regression`). Its answers, times a gain that is meta-learned, are added to those of the
    network, and the error that synapses are told is that of the sum: they learn what regression leaves.

    With `restart`, all of the state but fixed features starts afresh when errors have become far more
    frequent (`vsml.learners.surprise`): what a stream was about before it changed stands in the way.

    Attributes:
        input_shape: shape of one input. To a convolution (H, W) is an image of one channel, and what has any
            other number of axes than 2 or 3 is a row of units.
        outputs: what it answers with; an int is a number of classes.
        config: settings, without `views`: `Vsml.from_config` makes an `Ensemble` of these.
    """

    config: VsmlConfig

    def __init__(
        self,
        input_shape: tuple[int, ...],
        outputs: Outputs | int | None = None,
        config: VsmlConfig | None = None,
        **old: Any,
    ) -> None:
        if isinstance(config, tuple):  # `hidden` came third in version 0.1
            config, old = None, {"hidden": config, **old}
        outputs = old.pop("num_classes", outputs)
        if outputs is None:
            raise TypeError("Vsml: got no outputs, expected Classes(C), Values(D) or a number of classes")
        config = VsmlConfig() if config is None else config
        if old:
            nested = flat.nested(old)
            flat.warn(f"Vsml(..., {', '.join(old)})", nested)
            config = VsmlConfig.model_validate(deep_merge(config.model_dump(), nested))
        object.__setattr__(self, "input_shape", input_shape)
        object.__setattr__(self, "outputs", outputs)
        object.__setattr__(self, "config", config)
        self.__post_init__()

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        """Hash the settings once: every call of a compiled function asks for it."""
        return hash((self.input_shape, self.outputs, self.config))

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return a setting by its name of version 0.1."""
            if name not in flat.PATHS:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            path = flat.PATHS[name]
            warnings.warn(
                f"Vsml.{name} is Vsml.config.{'.'.join(path)} now; the old name goes with version 0.3",
                DeprecationWarning,
                stacklevel=2,
            )
            return functools.reduce(getattr, path, self.config)

    def check(self) -> None:
        """Refuse settings that do not go with the shapes, or that this machine cannot compute."""
        config, synapse = self.config, self.config.synapse
        if config.views:
            raise ValueError(
                f"views: got {len(config.views)} of them, expected none; Vsml.from_config makes an ensemble"
            )
        if config.kernel != "auto":
            normed_channels = synapse.message_size if synapse.layer_norm else 0
            # Now, not in the middle of a run.
            chosen(config.kernel, synapse.state_size, normed_channels, config.product_dtype)
        if config.memory is not None:
            self._check_memory(config.memory)
        if config.restart is not None and not isinstance(self.outputs, Classes):
            raise ValueError(
                f"restart: got one for {self.outputs}, expected null, as answers that are values are neither "
                "right nor wrong"
            )
        if not synapse.init_weights:
            return
        # The layer with the largest fan-in needs the largest weights, as messages are means.
        if isinstance(self.network, GraphNetwork):
            fan_in = self.network.largest_fan_in
        else:
            fan_in = max(layer.fan_in for layer in self._weighted_layers())
        limit = _ROOM * synapse.init_max_weight / fan_in**0.5
        if synapse.init_weights > limit:
            raise ValueError(
                f"init_weights: got {synapse.init_weights}, expected at most {limit:.3g} with a fan-in of "
                f"{fan_in}, for which init_max_weight, {synapse.init_max_weight}, has room"
            )

    def _check_memory(self, memory: MemoryConfig) -> None:
        """Refuse what a memory cannot do with these outputs and this first layer."""
        if memory.replacement == "balanced" and not isinstance(self.outputs, Classes):
            raise ValueError(
                f"memory.replacement: got balanced for {self.outputs}, expected oldest or least_useful, as "
                "values have no classes"
            )
        self._layers()

    def _weighted_layers(self) -> tuple[Layer, ...]:
        """Return the layers whose fresh synapses may hold weights: all but slots of a memory."""
        first = 0 if self.config.memory is None else 1
        return self.network.layers[first:]

    @classmethod
    def from_config(
        cls,
        input_shape: tuple[int, ...],
        outputs: Outputs,
        config: VsmlConfig,
    ) -> "Vsml | Ensemble":
        """Build the learner that a configuration describes; with `views`, an ensemble of such learners."""
        members = []
        for features in (config.random_features, *config.views):
            own = config.model_copy(update={"random_features": features, "views": ()})
            members.append(cls(input_shape, outputs, own))
        return Ensemble(tuple(members)) if config.views else members[0]

    @functools.cached_property
    def network(self) -> Network | GraphNetwork:
        """The network that the synapses form."""
        config, synapse = self.config, self.config.synapse
        sizes: dict[str, Any] = {
            "state_size": synapse.state_size,
            "message_size": synapse.message_size,
            "random_fraction": synapse.random_fraction,
            "micro_ticks": config.micro_ticks,
            "separate_backward": config.separate_backward,
            "layer_norm": synapse.layer_norm,
            "init_scale": synapse.init_scale,
            "state_dtype": config.state_dtype,
            "product_dtype": config.product_dtype,
        }
        if config.graph is not None:
            return self._graph_network(config.graph, sizes)
        return Network(layers=self._layers(), layerwise=config.layerwise, **sizes)

    def _graph_network(
        self,
        config: GraphNetworkConfig,
        sizes: dict[str, Any],
    ) -> GraphNetwork:
        """Return the network on the graphs that are configured."""
        inputs = math.prod(self.entering.shape)
        graphs = []
        for graph in config.draw(inputs, self.outputs.size):
            graphs.append(Edges.of(graph.num_nodes, graph.edges, graph.inputs, graph.outputs))
        ticks = config.ticks or max(graph.depth for graph in graphs)
        return GraphNetwork(
            graphs=tuple(graphs),
            schedule=config.schedule,
            ticks=ticks,
            backward_ticks=config.backward_ticks or ticks,
            rate=config.rate,
            **sizes,
        )

    @functools.cached_property
    def entering(self) -> Entering:
        """From inputs to what enters the network, or to the keys of its memory."""
        return Entering(self.input_shape, self.config.image_features, self.config.random_features)

    @functools.cached_property
    def memory(self) -> EpisodicMemory | None:
        """The episodic memory, if there is one."""
        config = self.config.memory
        return None if config is None else config.build()

    @functools.cached_property
    def regression(self) -> Regression | None:
        """The ridge regression beside the network, if there is one."""
        config = self.config.regression
        return None if config is None else config.build()

    @functools.cached_property
    def surprise(self) -> Surprise | None:
        """What tells when to start afresh, if anything does."""
        config = self.config.restart
        return None if config is None else Surprise(config)

    def _layers(self) -> tuple[Layer, ...]:
        """Return the layers, each of which reads what the one before feeds."""
        kernel = self.config.kernel
        memory = self.config.memory
        shape = self.entering.shape if memory is None else (1, memory.slots, 1)
        layers: list[Layer] = []
        for config in self.config.layers:
            layer = build_layer(config, shape, self.outputs.size, kernel)
            if memory is not None and not layers:
                layer = _reading(layer, memory)
            layers.append(layer)
            shape = layer.output_shape
        return tuple(layers)

    @functools.cached_property
    def synapses(self) -> Functional[nnx.List]:
        """Its meta-parameters as modules; see `Network.init_synapses`."""
        return Functional(self._make_modules)

    def _make_modules(self, rngs: nnx.Rngs) -> nnx.List:
        """Make the synapses, then the gain of regression and, last, the sharpnesses of a memory."""
        modules = self.network.init_synapses(rngs)
        memory, regression = self.config.memory, self.config.regression
        if regression is not None:
            modules.append(Gain(regression.gain))
        if memory is not None:
            ridge = None if memory.ridge is None else (memory.ridge.width, memory.ridge.ridge)
            modules.append(Sharpnesses(memory.smooth, memory.nearest, memory.narrow, ridge))
        return modules

    def init_params(self, key: Array) -> Params:
        """Draw fresh meta-parameters: kernels normal, cut, with variance 1 / fan-in, biases 0; see `init`."""
        params = self.synapses.init(key)
        if self.config.synapse.init == "random":
            return params
        return self._with_backprop(params)

    def _with_backprop(self, params: Params) -> Params:
        """Return fresh meta-parameters with back-propagation in each synapse."""
        settings = self.config.synapse
        count = self._gain_at(len(params))
        # Those of forward sweeps come first; where backward sweeps have others, they only answer.
        answering = count // 2 if self.config.separate_backward else 0
        written = dict(params)
        for number in range(count):
            synapse = params[number]
            written[number] = back_propagating(
                synapse,
                settings.init_rate,
                settings.init_bias_rate,
                settings.init_activation,
                learns=number >= answering,
                max_weight=settings.init_max_weight,
            )
            if settings.init == "memory":
                has_ridge = self.memory is not None and self.memory.has_ridge
                written[number] = remembering(written[number], has_ridge)
        return written

    def _gain_at(self, parts: int) -> int:
        """Return the number of the part of the meta-parameters behind the synapses, of so many parts."""
        return parts - (self.memory is not None) - (self.regression is not None)

    def init_state(
        self,
        params: Params,
        key: Array,
        batch_size: int = 1,
    ) -> VsmlState:
        """Draw a fresh state, the same for each element of the inner batch."""
        state = self._fresh_synapses(key, batch_size)
        features = self.entering.draw(jax.random.fold_in(key, _FEATURES))
        state = dataclasses.replace(state, features=features)
        if self.regression is not None:
            regression_key = jax.random.fold_in(key, _REGRESSION)
            regression = self.regression.init_state(regression_key, self.entering.size, self.outputs.size)
            state = dataclasses.replace(state, regression=regression)
        if self.surprise is not None:
            surprise = self.surprise.init_state(jax.random.fold_in(key, _RESTART), self.outputs.size)
            state = dataclasses.replace(state, surprise=surprise)
        return state

    def _fresh_synapses(
        self,
        key: Array,
        batch_size: int,
    ) -> VsmlState:
        """Draw a fresh network and an empty memory, without what stands beside them and random features."""
        network = self.network.init_state(key)
        if self.config.synapse.init_weights:
            weights_key = jax.random.fold_in(key, _WEIGHTS)
            network = with_random_weights(self.network, network, self.config.synapse, weights_key)
        state = self.with_network(network, batch_size)
        if self.memory is None:
            return state
        return dataclasses.replace(state, memory=self._fresh_memory(self.memory, key, batch_size))

    def _fresh_memory(
        self,
        memory: EpisodicMemory,
        key: Array,
        batch_size: int,
    ) -> MemoryState:
        """Return an empty memory for each element of the inner batch."""
        fresh = memory.init_state(jax.random.fold_in(key, _MEMORY), math.prod(self.entering.shape))
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (batch_size, *a.shape)), fresh)

    def weights(self, state: VsmlState) -> list[tuple[Array, Array]]:
        """Return what the cells of back-propagation hold: weights and biases [B, I, O] of each layer."""
        return held_weights(state.network, self.config.synapse)

    def with_network(
        self,
        network: NetworkState,
        batch_size: int = 1,
    ) -> VsmlState:
        """Return the state of an episode that starts with the given network state, nothing pending."""
        batched = jax.tree.map(lambda a: jnp.broadcast_to(a, (batch_size, *a.shape)), network)
        return VsmlState(network=batched, feedback=jnp.zeros((batch_size, self.num_classes, 2)))

    def features(
        self,
        state: VsmlState,
        x: Array,
    ) -> Array:
        """Return what enters the network for x [K, *input_shape], or the keys of its memory.

        Returns:
            Inputs, described by image features if there are any, random features of them, or both:
            [K, inputs], [K, F] or [K, inputs + F].
        """
        return self.entering.through(state.features, self.entering.described(x))

    def step(
        self,
        params: Params,
        state: VsmlState,
        x: Array,
        y: Array,
        taught: Array | None = None,
    ) -> tuple[VsmlState, Array]:
        """Answer the inputs x [B, *input_shape], then learn from their targets y; see `Learner.step`."""
        synapses = self.synapses.with_params(params)
        described = self.entering.described(x)
        seen = self.entering.through(state.features, described)
        inputs = self._arriving(synapses, state.memory, seen)
        network, forward, answers = self._answer(
            synapses, self._merge_batch(state.network), state.feedback, inputs
        )
        regression = state.regression
        if self.regression is not None and regression is not None:
            regressed = self.regression.see(regression, described)
            answers = answers + self._regressed(synapses, regression, regressed)
            regression = self.regression.learn(regression, regressed, self._targets(y, taught), taught)
        memory = state.memory
        error = error_signal(self.outputs, answers, y, taught)
        label = label_signal(self.outputs, y, taught)
        channels = [self.config.error_scale * error[..., None], label[..., None] * self.config.feed_label]
        feedback = jnp.concatenate(channels, axis=-1)
        if self.config.backward_pass:
            before = (network, memory)
            if memory is not None:
                write = functools.partial(self._remember, synapses)
                network, memory, message = jax.vmap(write)(network, memory, seen, y, inputs)
                forward = (message, *forward[1:])
            sweep = functools.partial(self.network.backward_sweep, synapses)
            network = jax.vmap(sweep)(network, forward, self._message(feedback))
            if taught is not None:
                # A sweep with feedback 0 would not leave the state as it is.
                network, memory = only_if(taught > 0, (network, memory), before)
            feedback = jnp.zeros_like(feedback)
        new = dataclasses.replace(
            state, network=network, feedback=feedback, memory=memory, regression=regression
        )
        return self._restarted_if_surprised(new, answers, y, taught), answers

    def _targets(
        self,
        y: Array,
        taught: Array | None,
    ) -> Array:
        """Return the targets y as regression takes them, [B, C or D]."""
        known = known_targets(y, taught)
        return jax.nn.one_hot(known, self.outputs.size) if isinstance(self.outputs, Classes) else known

    def _regressed(
        self,
        synapses: nnx.List,
        regression: RegressionState,
        features: Array,
    ) -> Array:
        """Return what regression adds to the answers, of its features [K, F]: [K, C or D]."""
        assert self.regression is not None  # it has a state
        answers = self.regression.answer(regression, features)
        if not isinstance(self.outputs, Classes):
            return answers
        return synapses[self._gain_at(len(synapses))].after(regression.examples) * answers

    def _restarted_if_surprised(
        self,
        state: VsmlState,
        answers: Array,
        y: Array,
        taught: Array | None,
    ) -> VsmlState:
        """Return the state, or a fresh one if the answers have become worse than they were."""
        if self.surprise is None or state.surprise is None:
            return state
        watched, surprised = self.surprise.after(state.surprise, answers, y, taught)
        state = dataclasses.replace(state, surprise=watched)
        return jax.lax.cond(surprised, self._restarted, lambda state: state, state)

    def _restarted(self, state: VsmlState) -> VsmlState:
        """Return a fresh state with the random features of one that has been used.

        These are not drawn anew: where lives run side by side, a fresh state is drawn at each step.
        """
        assert self.surprise is not None and state.surprise is not None  # they ask for it
        surprise, key = self.surprise.restarted(state.surprise)
        fresh = self._fresh_synapses(key, len(state.feedback))
        regression = state.regression
        if self.regression is not None and regression is not None:
            regression = self.regression.restarted(regression)
        return dataclasses.replace(fresh, features=state.features, regression=regression, surprise=surprise)

    def predict(
        self,
        params: Params,
        state: VsmlState,
        x: Array,
    ) -> Array:
        """Return what `step` would answer to x [K, *input_shape]; see `Learner.predict`."""
        synapses = self.synapses.with_params(params)
        network = self._merge_batch(state.network)
        network, feedback = batch_elements((network, state.feedback), len(x))
        described = self.entering.described(x)
        seen = self.entering.through(state.features, described)
        inputs = self._arriving(synapses, state.memory, seen)
        answers = self._answer(synapses, network, feedback, inputs)[2]
        if self.regression is None or state.regression is None:
            return answers
        regressed = self.regression.see(state.regression, described)
        return answers + self._regressed(synapses, state.regression, regressed)

    def arriving(
        self,
        params: Params,
        state: VsmlState,
        x: Array,
    ) -> Array:
        """Return the messages that arrive at the first layer for x [K, *input_shape], [K, I, M]."""
        synapses = self.synapses.with_params(params)
        return self._arriving(synapses, state.memory, self.features(state, x))

    def with_new_outputs(
        self,
        state: VsmlState,
        fresh: VsmlState,
        kept: Array,
    ) -> VsmlState:
        """Return a state with more outputs, whose synapses at the end are fresh; see `GrowsOutputs`."""
        if isinstance(self.network, GraphNetwork) or not isinstance(
            self.network.layers[-1], DenseLayer | ReadingLayer
        ):
            raise FixedOutputsError(
                "vsml: got a class that is new, expected those known from the start, as outputs are added to "
                "a dense last layer only; name all classes at the first call, some of them as a reserve"
            )

        def merge(
            old: Array,
            new: Array,
        ) -> Array:
            old_BxIxOxN = jax.vmap(from_tiles)(old)
            new_BxIxOxN = jax.vmap(from_tiles)(new)
            known = old_BxIxOxN.shape[2]
            chosen_outputs = jnp.where(kept[None, None, :, None], old_BxIxOxN, new_BxIxOxN[:, :, :known])
            return jax.vmap(to_tiles)(new_BxIxOxN.at[:, :, :known].set(chosen_outputs))

        *before, last = state.network.layers
        merged = jax.tree.map(merge, last, fresh.network.layers[-1])
        network = dataclasses.replace(state.network, layers=(*before, merged))
        pending = jnp.where(kept[None, :, None], state.feedback, 0.0)
        feedback = fresh.feedback.at[:, : pending.shape[1]].set(pending)
        new = dataclasses.replace(state, network=network, feedback=feedback)
        if self.regression is not None and state.regression is not None:
            regression = self.regression.with_new_outputs(state.regression, kept, self.outputs.size)
            new = dataclasses.replace(new, regression=regression)
        if self.surprise is not None and state.surprise is not None:
            surprise = self.surprise.with_new_outputs(state.surprise, kept, self.outputs.size)
            new = dataclasses.replace(new, surprise=surprise)
        return new

    def map_memory(
        self,
        state: VsmlState,
        change: Change,
    ) -> VsmlState:
        """Return the state with other states of synapses; units are those on the input side of each
        layer, or on a graph its synapses. What slots of a memory hold goes with their synapses. Of regression
        units are random features; how sure their weights are stays.
        """
        axis = self.network.unit_axis
        first, *others = state.network.layers
        memory = state.memory
        if memory is None:
            first = change(first, axis)
        else:
            keys_BxdK = memory.keys.swapaxes(-1, -2)
            first, keys_BxdK = change((first, keys_BxdK), axis)
            memory = dataclasses.replace(memory, keys=keys_BxdK.swapaxes(-1, -2))
        layers = (first, *(change(layer, axis) for layer in others))
        network = dataclasses.replace(state.network, layers=layers)
        regression = state.regression
        if regression is not None:
            regression = dataclasses.replace(regression, weights=change(regression.weights, 1))
        return dataclasses.replace(state, network=network, memory=memory, regression=regression)

    def fixed(self, state: VsmlState) -> dict[str, State]:
        """Return the random features, which are drawn with the state and never change."""
        fixed: dict[str, State] = {}
        if state.features is not None:
            fixed["random features"] = state.features
        if state.regression is not None:
            fixed["random features of regression"] = (state.regression.hidden, state.regression.directions)
        return fixed

    def _answer(
        self,
        synapses: nnx.List,
        network: NetworkState,
        feedback: Array,
        inputs: Array,
    ) -> tuple[NetworkState, tuple[Array, ...], Array]:
        """Sweep forward: the new network state, the forward messages and the answers."""
        sweep = functools.partial(self.network.forward_sweep, synapses)
        network, forward = jax.vmap(sweep)(network, inputs, self._message(feedback))
        answers = forward[-1][..., self.config.output_channel]
        return network, forward, bound_answers(self.outputs, answers, self.config.logit_bound)

    def _arriving(
        self,
        synapses: nnx.List,
        memory: MemoryState | None,
        x: Array,
    ) -> Array:
        """Return the message that arrives at the first layer for what is seen x [B, d], [B, I, M].

        Input k meets the memory of element `k % B` of the inner batch.
        """
        if memory is None or self.memory is None:
            return self._message(x[..., None])
        similarities = functools.partial(self.memory.messages, synapses[-1])
        if len(memory.steps) == 1:
            # All meet the same memory, of which nothing is computed twice.
            shared = jax.tree.map(lambda a: a[0], memory)
            return self._message(jax.vmap(functools.partial(similarities, shared))(x))
        each = batch_elements(memory, len(x))
        return self._message(jax.vmap(similarities)(each, x))

    def _remember(
        self,
        synapses: nnx.List,
        network: NetworkState,
        memory: MemoryState,
        x: Array,
        y: Array,
        arrived: Array,
    ) -> tuple[NetworkState, MemoryState, Array]:
        """Write an example into a slot, whose synapses start afresh; of one element of the batch.

        Args:
            synapses: the meta-parameters.
            network: state of the network.
            memory: what it remembers.
            x: what is seen of the example [d].
            y: its target.
            arrived: the message that it was answered from [K, M].

        Returns:
            The new states, and the message that arrives now, [K, M].
        """
        assert self.memory is not None  # else there is nothing to write into
        first, *others = network.layers
        layer = self.network.layers[0]
        assert isinstance(layer, ReadingLayer)
        usefulness = jnp.zeros(self.memory.slots)
        if self.memory.replacement == "least_useful":
            sender = self.network.synapse_of(synapses, 0, backward_sweep=True).backward_message
            usefulness = mean_message(sender, None, first.h, axes=(0, 2))[:, USEFULNESS]
        memory, slot, key = self.memory.write(memory, x, y, usefulness)
        first = layer.renewed(first, slot, key, self.config.synapse.random_fraction)
        network = dataclasses.replace(network, layers=(first, *others))
        before = arrived[:, RIDGE] if self.memory.has_ridge else None
        message = self.memory.messages(synapses[-1], memory, x, slot, before)
        return network, memory, self._message(message)

    def _message(self, channels: Array) -> Array:
        """Make channels [..., k] a message [..., M]: filled up with zeros, or cut."""
        message_size = self.config.synapse.message_size
        missing = message_size - channels.shape[-1]
        if missing < 0:
            return channels[..., :message_size]
        return jnp.pad(channels, [(0, 0)] * (channels.ndim - 1) + [(0, missing)])

    def _merge_batch(self, network: NetworkState) -> NetworkState:
        """Replace the first half of the N channels of h and c by its mean over the inner batch."""
        half = self.config.synapse.state_size // 2

        def merge(state_BxGNRI: Array) -> Array:
            if len(state_BxGNRI) == 1:
                return state_BxGNRI
            mean = state_BxGNRI[:, :, :half].mean(0, keepdims=True)
            return state_BxGNRI.at[:, :, :half].set(mean)

        if self.memory is not None:
            # A slot holds another example in each element.
            first, *others = network.layers
            return dataclasses.replace(network, layers=(first, *jax.tree.map(merge, others)))
        return dataclasses.replace(network, layers=jax.tree.map(merge, network.layers))
