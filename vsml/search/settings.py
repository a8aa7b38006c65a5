"""Settings of the search: how rules are drawn and changed."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vsml.rules.program import Capacity
from vsml.rules.rule import KINDS, MAX_CONSTANTS, MAX_INITIAL_OPERATORS, MAX_OPERATORS, MAX_SLOTS
from vsml.settings import Bool, Float, Int, Positive, Problem, Section, Text, refuse

Share = Annotated[Float, Field(ge=0, le=1)]
Weight = Annotated[Float, Field(ge=0)]
Range = tuple[Positive, Positive]


class Room(Section):
    """How large rules may become; rules of one room share compiled functions."""

    slots: Annotated[Int, Field(ge=2, le=MAX_SLOTS)] = Field(default=8, description="most slots")
    constants: Annotated[Int, Field(ge=3, le=MAX_CONSTANTS)] = Field(
        default=8, description="most constants, the numbers 0 and 1 included"
    )
    initial: Annotated[Int, Field(ge=1, le=MAX_INITIAL_OPERATORS)] = Field(
        default=16, description="most operators in initialisations"
    )
    operators: Annotated[Int, Field(ge=2, le=MAX_OPERATORS)] = Field(
        default=32, description="most operators in a tick"
    )

    @property
    def capacity(self) -> Capacity:
        """The room of arrays."""
        return Capacity(self.slots, self.constants, self.initial, self.operators)


class Leaves(Section):
    """Weights of what an expression may end in. Node values and edge values are drawn apart."""

    x: Weight = Field(default=5.0, description="the input")
    x_on: Weight = Field(default=1.0, description="whether an input is given")
    t: Weight = Field(default=5.0, description="the teaching")
    t_on: Weight = Field(default=1.0, description="whether teaching is given")
    node_noise: Weight = Field(default=0.1, description="a fresh draw for every node and tick")
    degree: Weight = Field(default=0.3, description="edges of the node")
    node_slot: Weight = Field(default=8.0, description="one of the node slots")
    edge_noise: Weight = Field(default=0.1, description="a fresh draw for every half-edge and tick")
    parity: Weight = Field(default=0.5, description="1 or -1, by which end has the higher number")
    incoming: Weight = Field(default=1.0, description="whether the other end has the lower number")
    outgoing: Weight = Field(default=1.0, description="whether the other end has the higher number")
    edge_slot: Weight = Field(default=6.0, description="one of the edge slots, at the own end")


class Base(Section):
    """A range of the probability that an expression is no operator; each rule draws its own."""

    least: Share = Field(description="the least probability")
    most: Share = Field(description="the largest")
    weight: Weight = Field(description="of the range")


class Initial(Section):
    """An initialisation that slots may have."""

    expression: Text | None = Field(description="of 0, 1, the graph and draws; null is a slot without one")
    weight: Weight = Field(description="of the initialisation")


class Drawing(Section):
    """How rules are drawn. Shares are probabilities; weights count beside the others of their group."""

    slots: Range = Field(default=(3, 7), description="least and most slots")
    operators: Range = Field(
        default=(8, 24), description="least and most operators, before those without effect are removed"
    )
    constants: Positive = Field(default=3, description="constants that may be tuned, for a rule to use")
    kinds: tuple[Weight, Weight, Weight, Weight, Weight] = Field(
        default=(3.0, 2.0, 3.0, 0.5, 0.5), description=f"weights of {', '.join(KINDS)}"
    )
    initials: tuple[Initial, ...] = Field(
        default=(
            Initial(expression=None, weight=5),
            Initial(expression="0", weight=2),
            Initial(expression="normal() / sqrt(degree)", weight=2),
            Initial(expression="normal() / sqrt(count(incoming))", weight=2),
            Initial(expression="normal()", weight=1),
            Initial(expression="uniform()", weight=0.5),
        ),
        description="what slots begin with",
    )
    base: tuple[Base, ...] = Field(
        default=(Base(least=0.25, most=0.5, weight=10), Base(least=0.0, most=0.25, weight=1)),
        description="ranges of the probability that an expression is no operator",
    )
    arithmetic: Weight = Field(default=5.0, description="weight of + - * / and -a")
    comparison: Weight = Field(default=1.5, description="weight of > >= minimum maximum sel")
    function: Weight = Field(default=1.5, description="weight of functions such as tanh")
    reducer: Weight = Field(default=4.0, description="weight of sum, mean, max, min, std; sum is half of it")
    count: Weight = Field(default=0.3, description="weight of count")
    rev: Share = Field(default=0.5, description="share of edge values that are what the other end shows")
    floats: Share = Field(default=1 / 3, description="share of constants among the operands of an operator")
    nodes: Share = Field(default=0.3, description="share of node values among operands of edge operators")
    reuse: Share = Field(default=0.15, description="share of operands that another place uses, too")
    filters: Share = Field(default=0.6, description="share of reducers with a filter")
    guards: Share = Field(default=0.5, description="share of slots with a guard")
    plain_truth: Share = Field(
        default=0.7, description="share of filters and guards that are x_on, t_on, incoming or outgoing"
    )
    leaves: Leaves = Field(default=Leaves(), description="weights of what an expression may end in")

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse(self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        for name in ("slots", "operators"):
            least, most = getattr(self, name)
            if least > most:
                yield Problem(name, (least, most), "the least number first")
        if self.slots[0] < 2:
            yield Problem("slots", self.slots, "at least 2: one that is read and one that crosses edges")
        for number, base in enumerate(self.base):
            if base.least > base.most:
                yield Problem(f"base.{number}", (base.least, base.most), "the least probability first")
        groups = {
            "kinds": self.kinds,
            "initials": [each.weight for each in self.initials],
            "base": [each.weight for each in self.base],
            "arithmetic": [self.arithmetic, self.comparison, self.function, self.reducer, self.count],
        }
        for name, weights in groups.items():
            if not sum(weights) > 0:
                yield Problem(name, tuple(weights), "a weight above 0 in its group")


class Mutations(Section):
    """Weights of the changes that make a child of a rule."""

    insert: Weight = Field(default=1.0, description="an operator around a value")
    delete: Weight = Field(default=2.0, description="an operator is replaced by one of its operands")
    argument: Weight = Field(default=2.0, description="an operand is another value")
    operator: Weight = Field(default=1.0, description="another operator of the same form")
    constant: Weight = Field(
        default=1.0, description="a constant times a number from 0.5 to 2, one in ten with the other sign"
    )
    slot: Weight = Field(default=0.5, description="another expression and guard for a slot")
    knock_out: Weight = Field(default=0.5, description="an operator becomes 0 or 1")
    accumulate: Weight = Field(default=0.5, description="a slot builds on what it holds")
    guard: Weight = Field(default=0.5, description="a guard is added or removed")
    kind: Weight = Field(default=0.25, description="another kind of slot")
    initial: Weight = Field(default=0.25, description="another initialisation")
    grow: Weight = Field(default=1.0, description="a leaf becomes an expression")
    shrink: Weight = Field(default=1.0, description="an operator becomes a leaf")
    new_slot: Weight = Field(default=0.5, description="a slot more, which something reads")
    redefine: Weight = Field(
        default=1.0, description="another definition of a value wherever a tick reads it"
    )
    crossover: Weight = Field(default=0.0, description="a slot of another rule, with all it needs")

    @model_validator(mode="after")
    def _check(self) -> Self:
        weights = tuple(self.model_dump().values())
        if not sum(weights) > 0:
            refuse([Problem("insert", weights, "a weight above 0 among the mutations")])
        return self


Method = Literal["evolution", "random", "best_of", "constants"]


class Damage(Section):
    """Lines of the starting rules that are broken, to see them repaired."""

    lines: Annotated[Int, Field(ge=0)] = Field(default=0, description="lines that are removed or changed")
    seed: Annotated[Int, Field(ge=0)] = Field(default=0, description="of the choice of lines")


class Chosen(Section):
    """Which rules of a database a search starts from, as `vsml rules db query` has them."""

    test: Text | None = Field(
        default="S3", description="a test that they passed, the best first; null: any rule, the oldest first"
    )
    least: Float | None = Field(
        default=None, description="mean score less one standard error in that test, at least"
    )
    max_size: Positive | None = Field(default=None, description="live operators, at most")
    kind: Text | None = Field(default=None, description="a kind of slot that they have")
    origin: Text | None = Field(default=None, description="how their origin begins, such as known")
    run: Text | None = Field(default=None, description="the run that found them")
    limit: Positive = Field(default=1000, description="most of them")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.test is None and self.least is not None:
            refuse([Problem("least", self.least, "null without a test", ("test",))])
        return self


class Start(Section):
    """What a population begins with; several sources share it evenly."""

    drawn: Bool = Field(default=True, description="rules drawn at random")
    rules: tuple[Text, ...] = Field(default=(), description="names of known rules, or files")
    database: Text | None = Field(default=None, description="a database of rules, by URL or file")
    chosen: Chosen = Field(default=Chosen(), description="which of its rules")
    damage: Damage = Field(default=Damage(), description="lines of `rules` that are broken")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.drawn and not self.rules and self.database is None:
            refuse([Problem("drawn", False, "true, or rules, or a database", ("rules", "database"))])
        if self.damage.lines and not self.rules:
            refuse([Problem("damage.lines", self.damage.lines, "0 without rules", ("rules",))])
        return self


class Breeding(Section):
    """Regularised evolution on islands, and the controls that it has to beat at the same budget."""

    method: Method = Field(
        default="evolution",
        description="evolution; or a control: random (rules drawn), best_of (mutations of the start), "
        "constants (evolution of constants alone)",
    )
    islands: Positive = Field(default=1, description="populations that breed by themselves")
    population: Positive = Field(default=1000, description="rules of an island; the oldest dies")
    tournament: Positive = Field(default=10, description="rules among which the fittest is a parent")
    children: Positive = Field(default=256, description="children of an island in a generation")
    changes: Positive = Field(default=2, description="most mutations of a child; each number is as likely")
    elites: Share = Field(default=0.25, description="share of parents that are elites, each cell as likely")
    starts: Share = Field(
        default=0.0, description="share of parents that are rules that the search began with, each as likely"
    )
    rescored: Positive = Field(
        default=32, description="scores on fresh seeds after which an elite gets no more"
    )
    migration: Positive = Field(default=20, description="generations between migrations to the next island")
    migrants: Positive = Field(default=5, description="rules that migrate, the fittest")
    exchange: Positive | None = Field(
        default=None,
        description="generations between visits to the database, for as many elites of other runs that judge "
        "alike; null: none",
    )
    patience: Positive = Field(
        default=200, description="generations without a better elite after which an island begins anew"
    )
    tune: Positive | None = Field(
        default=10, description="generations between tunings of an elite's constants; null: none"
    )
    tune_rounds: Positive = Field(default=4, description="rounds of a tuning, of 16 rules each")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.migrants > self.population:
            problem = Problem("migrants", self.migrants, f"at most {self.population}", ("population",))
            refuse([problem])
        return self
