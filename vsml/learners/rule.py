"""A local rule on a graph, as a learner: an example lasts some ticks, and a tick knows of neighbours only."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import jax
import jax.numpy as jnp
from flax import struct
from pydantic import Field, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo

from vsml.graphs.arrays import Bucket, GraphArrays, stack
from vsml.graphs.distribution import GraphPool
from vsml.graphs.graph import Graph
from vsml.graphs.growing import Grown, grow
from vsml.graphs.settings import GraphsConfig, HiddenNodes
from vsml.learners.base import LearnerBase, batch_elements
from vsml.learners.memory import Change
from vsml.rules.compiled import CompiledRule, compile_rule
from vsml.rules.harness import Harness, StreamState
from vsml.rules.known import HELD, ONE_LAYER, TEACHING, read_rule
from vsml.rules.rule import Rule, with_constants
from vsml.rules.settings import Settings, Teaching
from vsml.settings import Int, Options, Plugin, Positive, Problem, Section, Text, refuse
from vsml.types import Array, Params, Values

_GRAPH = 21
"""What the key of a fresh state is folded with for the graph that it is on."""


class RuleGraphsConfig(GraphsConfig):
    """Graphs that a rule runs on, drawn once; every fresh state is on one of them."""

    kinds: Annotated[tuple[Plugin, ...], Field(min_length=1)] = Field(
        default=(Plugin(type="layered"),),
        description="kinds of graphs, each as likely, each a name or the mapping below",
    )
    hidden: HiddenNodes | None = Field(  # type: ignore[assignment]  # null is none of the number's values
        default=None,
        description="nodes that are neither inputs nor outputs: a number, or the least and the largest one; "
        "null: 32, and 0 for delta, distilled, hebb and oja, which teach outputs alone",
    )


def _optional(field: FieldInfo) -> tuple[Any, Any]:
    """Return a field of `Teaching` whose default, null, stands for what the rule itself says."""
    annotated: Any = Annotated  # a type that is put together while the module is imported
    kind: Any = annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    about, _, default = (field.description or "").partition("; null is ")
    default = default or str(field.default).lower()
    return kind | None, Field(default=None, description=f"{about}; null: as the rule says, else {default}")


if TYPE_CHECKING:
    _OptionalTeaching = Teaching
else:
    # Nothing but null can say that a setting was not given: files of runs repeat all settings.
    _OptionalTeaching = create_model(
        "_OptionalTeaching",
        __base__=Section,
        **{name: _optional(field) for name, field in Teaching.model_fields.items()},
    )


class RuleConfig(_OptionalTeaching):
    """A local rule on a graph. Settings that are null are those of the rule, if it is a known one."""

    rule: Text = Field(
        default="backprop", description="a rule that comes with the library, or the path of a .rule file"
    )
    graph: RuleGraphsConfig = Field(
        default=RuleGraphsConfig(),
        description="graphs that it runs on",
    )
    constants: Options = Field(
        default=(), description="other values for the rule's constants, such as {lr: 0.01}"
    )
    ticks: Positive | None = Field(
        default=None,
        description="ticks that an example lasts, K; null: 2 (L + 1), with L edges on the longest way up",
    )
    read_tick: Annotated[Int, Field(ge=0)] | None = Field(
        default=None, description="the answer is read after this tick, R, from 0 to K - 1; null: L"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse(self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        """Yield a rule that cannot be read, and constants that it has not."""
        try:
            rule = read_rule(self.rule)
        except (ValueError, OSError) as error:  # RuleError among them, whose lines name the places
            yield Problem("rule", self.rule, f"a rule that can be read, but {error}")
            return
        try:
            with_constants(rule, dict(self.constants))
        except ValueError as error:
            yield Problem("constants", dict(self.constants), f"constants of {self.rule}, but {error}")

    @property
    def graphs(self) -> GraphsConfig:
        """The graphs that the rule runs on, with their numbers of hidden nodes."""
        given = self.graph.model_dump(exclude={"hidden"})
        if self.graph.hidden is not None:
            return GraphsConfig(**given, hidden=self.graph.hidden)
        if self.rule in ONE_LAYER:
            return GraphsConfig(**given, hidden=(0,))
        return GraphsConfig(**given)

    def settings(self, depth: int, loss: str) -> Settings:
        """Return the settings of the harness.

        Args:
            depth: L, edges on the longest ascending path of the graphs.
            loss: "classes" or "regression".

        Raises:
            ValueError: settings contradict each other.
        """
        given = {name: getattr(self, name) for name in Teaching.model_fields}
        own = {name: value for name, value in given.items() if value is not None}
        merged: dict[str, Any] = {**TEACHING.get(self.rule, {}), **own, "loss": loss}
        merged["ticks"] = 2 * (depth + 1) if self.ticks is None else self.ticks
        merged["read_tick"] = min(depth, merged["ticks"] - 1) if self.read_tick is None else self.read_tick
        if merged.get("teach_hold") == HELD:
            first = merged.get("teach_tick") or merged["read_tick"] + 1
            merged["teach_hold"] = max(1, merged["ticks"] - first)
        try:
            return Settings.model_validate(merged)
        except ValidationError as error:
            messages = "; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())
            raise ValueError(f"model.rule: {messages}") from error


@struct.dataclass
class RuleState:
    """A rule within an episode.

    Attributes:
        stream: of each element of the inner batch, with a leading axis B; its key as uint32 numbers.
        number: which of the graphs the episode is on, int32.
    """

    stream: StreamState
    number: Array


@dataclass(frozen=True)
class RuleLearner(LearnerBase):
    """Run a rule (`vsml.rules`) on every node and edge of a graph; see docs/rules.md.

    The numbers of an input, in C order, go to the input nodes, and the answers are read at the output nodes:
    logits, not bounded any further, or values. The rule's constants that may be tuned are the
    meta-parameters. They can be tuned by evolution, and by back-propagation as far as the rule is
    differentiable: comparisons, guards and filters have derivative 0.

    Elements of an inner batch are independent copies, on one graph, with draws of their own.

    Attributes:
        input_shape: shape of one input.
        outputs: what it answers with; an int is a number of classes.
        config: settings.
        grown_by: nodes that have been added to each of its graphs, one growth after the other.
    """

    config: RuleConfig = field(default_factory=RuleConfig)
    grown_by: tuple[int, ...] = ()
    fresh: ClassVar[str] = "as written"

    def check(self) -> None:
        """Refuse settings that contradict each other on these graphs, now and not in the middle of a run."""
        assert self.harness.settings.ticks > 0

    @functools.cached_property
    def rule(self) -> Rule:
        """The rule."""
        return with_constants(read_rule(self.config.rule), dict(self.config.constants))

    @functools.cached_property
    def graphs(self) -> tuple[Graph, ...]:
        """The graphs, one of which is drawn with every fresh state."""
        ready = 1 if self.config.read == "ready" else 0
        graphs = self.config.graphs.draw(math.prod(self.input_shape), self.outputs.size + ready)
        for nodes in self.grown_by:
            graphs = tuple(grow(graph, nodes).graph for graph in graphs)
        return graphs

    @functools.cached_property
    def harness(self) -> Harness:
        """What shows examples to the rule."""
        depth = max(graph.longest_path for graph in self.graphs)
        loss = "regression" if isinstance(self.outputs, Values) else "classes"
        return Harness(self.config.settings(depth, loss))

    def init_params(self, key: Array) -> Params:
        """Return the constants as text and settings say, by name, float32 []; nothing is drawn."""
        del key
        return {name: jnp.float32(value) for name, value in self.rule.tuned.items()}

    def init_state(
        self,
        params: Params,
        key: Array,
        batch_size: int = 1,
    ) -> RuleState:
        """Draw a graph, and the memory of each element of the inner batch."""
        number = jax.random.randint(jax.random.fold_in(key, _GRAPH), (), 0, len(self.graphs))
        graph = self._graph(number)
        machine = self._machine(params)

        def begin(key: Array) -> StreamState:
            return _packed(self.harness.begin(machine, graph, key))

        streams = jax.vmap(begin)(jax.random.split(key, batch_size))
        return RuleState(stream=streams, number=number)

    def step(
        self,
        params: Params,
        state: RuleState,
        x: Array,
        y: Array,
        taught: Array | None = None,
    ) -> tuple[RuleState, Array]:
        """Run the ticks of one example: inputs x [B, *input_shape], targets y; see `Learner.step`."""
        graph = self._graph(state.number)
        machine = self._machine(params)
        is_taught = jnp.ones(len(x)) if taught is None else taught

        def example(stream: StreamState, x: Array, y: Array, taught: Array) -> tuple[StreamState, Array]:
            after, answer = self.harness.example(machine, graph, _unpacked(stream), x.ravel(), y, taught)
            return _packed(after), answer

        streams, answers = jax.vmap(example)(state.stream, x, y, is_taught)
        return dataclasses.replace(state, stream=streams), answers

    def predict(
        self,
        params: Params,
        state: RuleState,
        x: Array,
    ) -> Array:
        """Return what `step` would answer to x [K, *input_shape]; see `Learner.predict`."""
        graph = self._graph(state.number)
        machine = self._machine(params)

        def answer(stream: StreamState, x: Array) -> Array:
            return self.harness.answer(machine, graph, _unpacked(stream), x.ravel())

        streams = batch_elements(state.stream, len(x))
        return jax.vmap(answer)(streams, x)

    def map_memory(
        self,
        state: RuleState,
        change: Change,
    ) -> RuleState:
        """Return the state with another memory [B, S, H], whose units are half-edges."""
        memory = change(state.stream.memory, -1)
        return dataclasses.replace(state, stream=dataclasses.replace(state.stream, memory=memory))

    def fixed(self, state: RuleState) -> dict[str, Any]:
        """Return what no step changes: how errors reach nodes, and the memory for `reset: all`."""
        parts = {"feedback": state.stream.feedback, "first memory": state.stream.start}
        return {name: part for name, part in parts.items() if part is not None}

    def growth_refusal(self) -> str | None:
        """Return why it cannot grow: on several graphs old edges have several new places."""
        if len(self.graphs) == 1:
            return None
        return f"RuleLearner on {len(self.graphs)} graphs cannot grow; model.rule.graph.count: 1 can"

    def grown(self, nodes: int) -> "RuleLearner":
        """Return the rule on the graph with more nodes; see `vsml.graphs.growing`."""
        return dataclasses.replace(self, grown_by=(*self.grown_by, nodes))

    def grown_state(
        self,
        params: Params,
        state: RuleState,
        nodes: int,
        key: Array,
    ) -> RuleState:
        """Return the state of the grown rule: old half-edges keep their memory, new ones begin afresh."""
        after = self.grown(nodes)
        where = grow(self.graphs[0], nodes)
        batch_size = len(state.stream.tick)
        fresh = after.init_state(params, key, batch_size)
        streams = jax.vmap(lambda old, new: _moved(old, new, where))(state.stream, fresh.stream)
        return RuleState(stream=streams, number=state.number)

    @functools.cached_property
    def _pool(self) -> GraphPool:
        """All graphs, padded to one bucket; one graph alone is not padded."""
        sizes = {(graph.num_nodes, graph.num_edges) for graph in self.graphs}
        bucket = Bucket(*sizes.pop()) if len(sizes) == 1 else None
        with jax.ensure_compile_time_eval():
            return GraphPool(stack(self.graphs, bucket))

    def _graph(self, number: Array) -> GraphArrays:
        """Return one of the graphs."""
        # A graph that is the only one is known when a function is compiled.
        return self._pool.get(0 if len(self.graphs) == 1 else number)

    def _machine(self, params: Mapping[str, Array]) -> CompiledRule:
        """Return the rule with the constants that are given."""
        machine = compile_rule(self.rule)
        tuned = [params[name] for name in self.rule.tuned]
        if not tuned:
            return machine
        # Those that may be tuned come first.
        fixed = jnp.asarray(machine.constants, jnp.float32)[len(tuned) :]
        constants = jnp.concatenate([jnp.stack(tuned), fixed])
        return dataclasses.replace(machine, constants=constants)


def _moved(
    old: StreamState,
    new: StreamState,
    where: Grown,
) -> StreamState:
    """Return a new state that knows what an old one, of the graph before it grew, did."""

    def of_half_edges(old: Array | None, new: Array | None) -> Array | None:
        if old is None or new is None:
            return new
        return new.at[:, where.half_edges].set(old[:, : len(where.half_edges)])

    def of_nodes(old: Array, new: Array) -> Array:
        return new.at[where.nodes].set(old[: len(where.nodes)])

    feedback = new.feedback
    if old.feedback is not None and feedback is not None:
        feedback = of_nodes(old.feedback, feedback)
    return StreamState(
        memory=new.memory.at[:, where.half_edges].set(old.memory[:, : len(where.half_edges)]),
        pending=jax.tree.map(of_nodes, old.pending, new.pending),
        tick=old.tick,
        key=old.key,
        start=of_half_edges(old.start, new.start),
        feedback=feedback,
    )


def _packed(stream: StreamState) -> StreamState:
    """Return a state whose key is an ordinary array, as files and reports have it."""
    return dataclasses.replace(stream, key=jax.random.key_data(stream.key))


def _unpacked(stream: StreamState) -> StreamState:
    """Return a state with its key."""
    return dataclasses.replace(stream, key=jax.random.wrap_key_data(stream.key))
