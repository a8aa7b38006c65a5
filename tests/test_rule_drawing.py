"""Rules drawn and changed at random: always of the language, live and within limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError
from random_rules import random_rule

from vsml.rules import Capacity, canonical, known_names, parse, read_rule, rule_hash, show
from vsml.rules.known import rule_text
from vsml.rules.operators import OPCODE, OPERATORS
from vsml.rules.rule import FIRST_CONSTANT, FIRST_INSTRUCTION, MAX_CONSTANTS
from vsml.search.analysis import is_valid, live_of, port_bit, pruned, structural_key, types_of
from vsml.search.choices import Chances, cumulative, seeds_of
from vsml.search.drawing import draw_genomes
from vsml.search.genome import (
    Genome,
    empty_genome,
    genome_of,
    rule_of,
    stack_genomes,
    unstack_genomes,
)
from vsml.search.mutation import MUTATIONS, mutate_genomes
from vsml.search.one_kernel import one_kernel
from vsml.search.redefinition import opened, read_in_ticks
from vsml.search.settings import Drawing, Initial, Mutations, Room
from vsml.search.splicing import replaced
from vsml.search.tables import tables_of

pytestmark = pytest.mark.usefixtures("hasty")

FULL = Capacity()
ROOM = Room(slots=16, constants=12, initial=16, operators=64)
DRAWING = Drawing()
FEW, MANY = 100, 20_000


@one_kernel
def looked_at(genomes):
    """Return for each genome what is left of it, its key, and whether it is valid."""
    return jax.lax.map(lambda each: (pruned(each), structural_key(each), is_valid(each)), genomes)


def on_device(genome):
    return jax.tree.map(jnp.asarray, genome)


def keys_of(genomes):
    return [tuple(key) for key in np.asarray(looked_at(genomes)[1])]


def differences(one, other):
    names = Genome.__dataclass_fields__
    return [name for name in names if not np.array_equal(getattr(one, name), getattr(other, name))]


def check_all(genomes, room):
    """Check that genomes are rules of the language, live and within limits; return the rules."""
    left, _, valid = looked_at(genomes)
    assert np.asarray(valid).all()
    rules = []
    for genome, alone in zip(unstack_genomes(genomes), unstack_genomes(left), strict=True):
        assert not differences(genome, alone), "something in it is not live"
        rule = rule_of(genome)
        # The parser refuses what is not of the language, or beyond its limits.
        assert parse(show(rule)) == rule
        assert len(rule.slots) == genome.sizes[0] <= room.slots
        assert len(rule.tick) <= genome.sizes[3] <= room.operators
        assert rule.slots[rule.out].value >= 0, "the slot that is read is never stored to"
        rules.append(rule)
    return rules


@pytest.mark.parametrize("name", known_names())
def test_a_known_rule_and_its_genome_have_one_hash(name):
    rule = read_rule(name)
    assert rule_hash(rule_of(genome_of(rule, ROOM.capacity))) == rule_hash(rule)


def test_random_rules_and_their_genomes_have_one_hash():
    rules = [parse(random_rule(seed)) for seed in range(FEW)]
    for rule in rules:
        again = rule_of(genome_of(rule, FULL))
        assert rule_hash(again) == rule_hash(rule)
        assert again.size == canonical(rule).size


def test_a_genome_has_no_room_for_a_larger_rule():
    with pytest.raises(ValueError, match="capacity: got a rule of"):
        genome_of(read_rule("backprop"), Room(operators=8).capacity)
    many = "\n".join(f"@k{number} = {number}.5" for number in range(23))
    total = " + ".join(f"k{number}" for number in range(23))
    rule = parse(f"{many}\na : node\na <- x + {total}\nout = a\n")
    with pytest.raises(ValueError, match="expected at most 22 besides 0 and 1"):
        genome_of(rule, FULL)
    with pytest.raises(ValueError, match=f"got 2 constants, expected 3 to {MAX_CONSTANTS}"):
        empty_genome(Capacity(4, 2, 4, 4))


def test_keys_are_equal_where_hashes_are():
    rules = [canonical(parse(random_rule(seed))) for seed in range(2 * FEW)]
    keys = keys_of(stack_genomes([genome_of(rule, FULL) for rule in rules]))
    hashes = [rule_hash(rule) for rule in rules]
    assert len(set(hashes)) < len(hashes), "some of these are the same rule"
    pairs = set(zip(keys, hashes, strict=True))
    assert len(pairs) == len(set(keys)) == len(set(hashes))


DELTA = rule_text("delta")


@pytest.mark.parametrize(
    ("old", "new", "is_same"),
    [
        ("w * rev(s), incoming", "rev(s) * w, incoming", True),
        ("lr * t * rev(s)", "t * lr * rev(s)", True),
        ("w - lr", "w + lr", False),
        ("0.1", "0.2", False),
        ("= 0\ns", "\ns", False),
        ("= 0\ns", "= normal()\ns", False),
        ("shared(owner)", "shared(sum)", False),
        ("if x_on", "", False),
        ("incoming)", "outgoing)", False),
        ("lr * t * rev(s)", "lr * t_on * rev(s)", False),
    ],
)
def test_a_key_is_of_what_is_computed(old, new, is_same):
    assert old in DELTA
    texts = (DELTA, DELTA.replace(old, new))
    first, second = keys_of(stack_genomes([genome_of(parse(text), ROOM.capacity) for text in texts]))
    assert (first == second) == is_same


def test_two_slots_with_draws_of_their_own_are_not_one():
    one = "a : node\nw : edge = normal()\na <- sum(w * w)\nout = a\n"
    two = "a : node\nw : edge = normal()\nv : edge = normal()\na <- sum(w * v)\nout = a\n"
    first, second = keys_of(stack_genomes([genome_of(parse(text), ROOM.capacity) for text in (one, two)]))
    assert first != second


def test_what_is_read_and_what_remembers_is_known():
    live = live_of(on_device(genome_of(parse(DELTA), ROOM.capacity)))
    reads = int(live.reads)
    assert all(reads & port_bit(name) for name in ("x", "x_on", "t", "t_on"))
    assert not reads & (port_bit("node_noise") | port_bit("edge_noise"))
    rule = rule_of(genome_of(parse(DELTA), ROOM.capacity))
    remembers = {rule.slots[number].kind for number in np.flatnonzero(live.remembers)}
    # s has a guard and w depends on itself; a is computed anew in every tick.
    assert remembers == {1, 2}
    assert not live.remembers[0]


def test_dead_code_is_no_part_of_a_genome_that_is_pruned():
    text = DELTA.replace("out =", "dead : node\nuseless = t * 2\ndead <- useless + x\nout =")
    # genome_of takes the canonical form; the dead code is put back by hand.
    alive = genome_of(parse(DELTA), ROOM.capacity)
    size = int(alive.sizes[3])
    tick = np.array(alive.tick)
    tick[size] = (OPCODE["add"], 0, 1, -1)
    kind, value = np.array(alive.kind), np.array(alive.value)
    kind[3], value[3] = 0, FIRST_CONSTANT
    longer = alive.replace(tick=tick, kind=kind, value=value, sizes=alive.sizes + np.array([1, 0, 0, 1]))
    left = looked_at(stack_genomes([longer]))[0]
    assert not differences(unstack_genomes(left)[0], alive)
    assert rule_hash(parse(text)) == rule_hash(parse(DELTA))


@pytest.mark.parametrize(
    "text",
    [
        "a : node\ns : edge\na <- sum(s)\ns <- x\nout = a\n",
        "a : node\ns : edge\na <- sum(rev(s))\ns <- x\nout = a\n",
    ],
)
def test_what_the_language_refuses_is_not_valid(text):
    genome = on_device(genome_of(parse(text), ROOM.capacity))
    assert is_valid(genome)
    to_edge = genome.replace(value=jnp.where(jnp.arange(16) == 0, 1, genome.value))
    assert not is_valid(to_edge), "an edge value for a node slot"
    if "rev" in text:
        kind = jnp.where(jnp.arange(16) == 1, 2, genome.kind)
        assert not is_valid(genome.replace(kind=kind)), "rev of a shared slot"


def test_types_are_those_of_the_parser():
    rule = parse("a : node\ns : edge\nv = x + 1\nw = s * v\na <- sum(w) + degree\ns <- v\nout = a\n")
    genome = on_device(genome_of(rule, ROOM.capacity))
    types = np.asarray(types_of(genome))
    names = [OPERATORS[operator].name for operator in genome.tick[: int(genome.sizes[3]), 0]]
    of_name = dict(zip(names, types[50 : 50 + len(names)].tolist(), strict=True))
    assert of_name["mul"] == 2 and of_name["sum"] == 1
    assert types[FIRST_CONSTANT] == 0


def check_drawn(count):
    rules = check_all(draw_genomes(DRAWING, Room(), jax.random.key(0), count), Room())
    kinds = {slot.kind for rule in rules for slot in rule.slots}
    names = {entry.name for rule in rules for entry in rule.tick}
    assert kinds == set(range(5))
    assert len({rule_hash(rule) for rule in rules}) > 0.5 * count
    return names


@pytest.mark.slow
def test_drawn_rules_are_valid_live_and_within_limits():
    names = check_drawn(4 * FEW)
    assert {"add", "mul", "sum", "rev", "tanh", "sel", "gt"} <= names


@pytest.mark.slow
def test_many_drawn_rules_are_valid_live_and_within_limits():
    in_ticks = {operator.name for operator in OPERATORS if operator.family != "draw"}
    assert check_drawn(MANY) == in_ticks


@pytest.mark.slow
def test_a_drawn_rule_depends_on_the_key_and_its_place_alone():
    few = draw_genomes(DRAWING, Room(), jax.random.key(3), 5)
    more = draw_genomes(DRAWING, Room(), jax.random.key(3), 9)
    for one, other in zip(unstack_genomes(few), unstack_genomes(more), strict=False):
        assert not differences(one, other)
    others = draw_genomes(DRAWING, Room(), jax.random.key(4), 5)
    assert keys_of(few) != keys_of(others)


def test_what_has_no_weight_is_not_drawn():
    drawing = Drawing(
        reducer=0,
        count=0,
        rev=0,
        kinds=(1, 0, 0, 0, 0),
        initials=(Initial(expression=None, weight=1),),
        guards=0,
        slots=(2, 2),
    )
    for genome in unstack_genomes(draw_genomes(drawing, Room(), jax.random.key(0), FEW)):
        rule = rule_of(genome)
        families = {OPERATORS[entry.operator].family for entry in rule.tick}
        assert families <= {"elementwise"}
        assert all(slot.is_signal and slot.guard < 0 for slot in rule.slots)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"slots": (5, 3)}, "the least number first"),
        ({"slots": (1, 3)}, "at least 2"),
        ({"kinds": (0, 0, 0, 0, 0)}, "a weight above 0"),
        ({"guards": 1.5}, "less than or equal to 1"),
        ({"base": ({"least": 0.5, "most": 0.1, "weight": 1},)}, "the least probability first"),
        ({"node_slots": 3}, "node_slots"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        Drawing(**settings)


def test_an_initialisation_has_no_numbers_of_its_own():
    drawing = Drawing(initials=(Initial(expression="0.5 * normal()", weight=1),))
    with pytest.raises(ValueError, match="expected no numbers but 0 and 1"):
        tables_of(drawing)


def test_mutations_need_a_weight():
    with pytest.raises(ValidationError, match="a weight above 0 among the mutations"):
        Mutations(**dict.fromkeys(Mutations.model_fields, 0))


ALL_MUTATIONS = Mutations(crossover=1)


def parents_of(count):
    """Return parents, half of them drawn and half known, and others for crossover."""
    drawn = draw_genomes(DRAWING, ROOM, jax.random.key(1), count // 2)
    names = known_names()
    known = stack_genomes(
        [genome_of(read_rule(names[place % len(names)]), ROOM.capacity) for place in range(count // 2)]
    )
    parents = jax.tree.map(lambda *parts: jnp.concatenate(parts), drawn, known)
    return parents, jax.tree.map(lambda array: jnp.roll(array, 1, 0), parents)


def check_children(count, generations):
    genomes, _ = parents_of(count)
    changed = dict.fromkeys(MUTATIONS, 0)
    for generation in range(generations):
        others = jax.tree.map(lambda array: jnp.roll(array, 1, 0), genomes)
        before = keys_of(genomes)
        key = jax.random.key(generation)
        genomes, mutations = mutate_genomes(DRAWING, ALL_MUTATIONS, genomes, others, key)
        for old, new, number in zip(before, keys_of(genomes), np.asarray(mutations), strict=True):
            changed[list(MUTATIONS)[number]] += old != new
        check_all(genomes, ROOM)
    return changed


@pytest.mark.slow
def test_children_are_valid_live_and_within_limits():
    changed = check_children(4 * FEW, 3)
    assert all(changed.values()), f"some mutations never change anything: {changed}"


def test_no_operator_goes_around_what_is_not_stored():
    # B, the feedback weights, are never stored to.
    parents = stack_genomes([genome_of(read_rule("feedback_alignment"), ROOM.capacity)] * (4 * FEW))
    weights = Mutations(**(dict.fromkeys(Mutations.model_fields, 0) | {"insert": 1}))
    children, _ = mutate_genomes(DRAWING, weights, parents, parents, jax.random.key(0))
    check_all(children, ROOM)


@pytest.mark.slow
def test_what_is_taken_from_another_rule_reads_constants_that_are_there():
    few = genome_of(parse("@k = 1\na : node\na <- k * x\nout = a\n"), ROOM.capacity)
    many = genome_of(parse("@k = 1\na : node\na <- k * x + 0.3 * t + 0.7\nout = a\n"), ROOM.capacity)
    weights = Mutations(**(dict.fromkeys(Mutations.model_fields, 0) | {"crossover": 1}))
    parents, others = (stack_genomes([genome] * FEW) for genome in (few, many))
    children, _ = mutate_genomes(DRAWING, weights, parents, others, jax.random.key(0))
    check_all(children, ROOM)


@pytest.mark.slow
def test_many_children_are_valid_live_and_within_limits():
    check_children(2_000, 12)


def test_complexity_goes_up_and_down():
    parents = stack_genomes([genome_of(read_rule("backprop"), ROOM.capacity)] * (4 * FEW))
    sizes = {}
    for name in ("grow", "insert", "shrink", "delete", "operator"):
        weights = Mutations(**(dict.fromkeys(Mutations.model_fields, 0) | {name: 1}))
        others = jax.tree.map(lambda array: jnp.roll(array, 1, 0), parents)
        children, numbers = mutate_genomes(DRAWING, weights, parents, others, jax.random.key(0))
        assert set(np.asarray(numbers)) == {list(MUTATIONS).index(name)}
        sizes[name] = np.asarray(children.num_tick).mean()
    before = int(parents.num_tick[0])
    assert sizes["grow"] > before + 0.2
    assert before < sizes["insert"] <= before + 1
    assert sizes["shrink"] < before - 1
    assert sizes["delete"] < before - 0.5
    # Another operator of the same form leaves all else as it was.
    assert sizes["operator"] == before


def only(name):
    return Mutations(**(dict.fromkeys(Mutations.model_fields, 0) | {name: 1}))


def test_another_definition_reaches_all_that_read_a_value():
    text = "@k = 0.5\na : node = k\nb : node\ns : edge\na <- k * sum(rev(s)) + t\nb <- x - k\ns <- k + b\n"
    genome = genome_of(parse(f"{text}out = a\n"), ROOM.capacity)
    parents = stack_genomes([genome] * (8 * FEW))
    children, _ = mutate_genomes(DRAWING, only("redefine"), parents, parents, jax.random.key(0))
    check_all(children, ROOM)
    # In ticks three lines read the constant, and one slot begins with it, which it goes on to do.
    readers = []
    for child in unstack_genomes(jax.device_get(children)):
        written = show(rule_of(child))
        lines = [line for line in written.splitlines() if "<-" in line or line.startswith("v")]
        stores = {line.split()[0]: line for line in lines if "<-" in line}
        if "x -" not in written or not {"m0", "m1", "m2"} <= stores.keys():
            continue  # another value was given a definition, or what read this one has gone
        of_b = next(line.split("x - ")[1].split()[0].strip("()") for line in lines if "x - " in line)
        readers.append((of_b, sum(of_b in line for line in lines if f"{of_b} =" not in line)))
        assert "+ 0" not in written.replace("+ 0.", ""), "what passed the new value on was left"
    others = [count for name, count in readers if name != "c0"]
    assert len(others) > 3 and max(others) == 3, "no new value is read in all three places"


@pytest.mark.parametrize("name", ["backprop", "distilled"])
def test_a_definition_that_is_opened_and_closed_again_is_the_rule(name):
    """A value is passed on to all that read it, by an instruction that then goes."""
    genome = jax.tree.map(jnp.asarray, genome_of(read_rule(name), ROOM.capacity))

    @jax.jit
    def both(old, place):
        within = opened(genome, old, place)
        return within, pruned(replaced(within, place, old))

    constants = np.flatnonzero(read_in_ticks(genome))
    values = [(FIRST_CONSTANT + number, 0) for number in constants.tolist()]
    values += [(FIRST_INSTRUCTION + number, number + 1) for number in range(int(genome.num_tick))]
    assert len(constants) > 0
    for old, place in values:
        within, closed = jax.device_get(both(old, place))
        assert old >= FIRST_INSTRUCTION or (within.tick[:, 1:] == old).sum() == 1
        assert not (within.value == old).any() and not (within.guard == old).any()
        for was, now in zip(jax.tree.leaves(genome), jax.tree.leaves(closed), strict=True):
            np.testing.assert_array_equal(was, now)


def test_an_operand_may_become_a_value_of_another_type():
    # `t` is a value of nodes, `w` one of edges: the line that repairs the rule has `w` in the place of `t`.
    text = "a : node\nw : edge = 1\ns : edge\na <- sum(w * rev(s))\ns <- x\nw <- t - t * rev(s)\nout = a\n"
    wanted = text.replace("w <- t -", "w <- w -")
    parents = stack_genomes([genome_of(parse(text), ROOM.capacity)] * 512)
    children, _ = mutate_genomes(DRAWING, only("argument"), parents, parents, jax.random.key(0))
    hashes = {rule_hash(rule_of(child)) for child in unstack_genomes(jax.device_get(children))}
    assert rule_hash(parse(wanted)) in hashes


def test_a_changed_constant_is_within_its_range_and_sometimes_of_the_other_sign():
    rule = parse("@k = 1\na : node\na <- k * x\nout = a\n")
    parents = stack_genomes([genome_of(rule, ROOM.capacity)] * (4 * FEW))
    weights = Mutations(**(dict.fromkeys(Mutations.model_fields, 0) | {"constant": 1}))
    children, _ = mutate_genomes(DRAWING, weights, parents, parents, jax.random.key(0))
    factors = np.asarray(children.constants)[:, 2]
    assert (np.abs(factors) >= 0.5).all() and (np.abs(factors) <= 2).all()
    # Four standard deviations of a share of 0.1 and of the mean of a uniform number.
    assert abs((factors < 0).mean() - 0.1) < 4 * 0.3 / 20
    assert abs(np.abs(factors).mean() - 1.25) < 4 * 0.43 / 20


def test_chances_are_uniform_and_parts_are_apart():
    def numbers(seed):
        chances = Chances(seed)
        return jnp.stack([chances.take(), chances.take(), chances.part(0).take(), chances.part(1).take()])

    drawn = np.asarray(jax.vmap(numbers)(seeds_of(jax.random.key(0), MANY)))
    assert drawn.min() >= 0 and drawn.max() < 1
    for column in drawn.T:
        counts, _ = np.histogram(column, 20, (0, 1))
        # Chi-squared with 19 degrees of freedom: 43.8 is exceeded once in a thousand times.
        assert ((counts - MANY / 20) ** 2 / (MANY / 20)).sum() < 43.8
    correlations = np.corrcoef(drawn.T)[np.triu_indices(4, 1)]
    assert (np.abs(correlations) < 5 / np.sqrt(MANY)).all()


def test_weights_are_shares():
    table = cumulative([1, 0, 3])
    chosen = jax.vmap(lambda seed: Chances(seed).one_of(table))(seeds_of(jax.random.key(0), MANY))
    shares = np.bincount(np.asarray(chosen), minlength=3) / MANY
    assert shares[1] == 0 and abs(shares[0] - 0.25) < 0.02
    with pytest.raises(ValueError, match="expected one above 0"):
        cumulative([0, 0])


def test_one_kernel_computes_what_jit_does():
    def total(values):
        return jax.lax.map(lambda row: jax.lax.fori_loop(0, 5, lambda _, row: jnp.sin(row) + 1, row), values)

    values = jax.random.normal(jax.random.key(0), (7, 3))
    np.testing.assert_array_equal(np.asarray(one_kernel(total)(values)), np.asarray(jax.jit(total)(values)))


def test_a_slot_may_build_on_what_it_holds():
    # A line that is broken as `w <- t - ...` is mended soon.
    text = "a : node\nw : edge = 1\ns : edge\na <- sum(w * rev(s))\ns <- x\nw <- t - t * rev(s)\nout = a\n"
    wanted = [
        text.replace("w <- t -", "w <- w -"),
        text.replace("w <- t - t * rev(s)", "w <- w + (t - t * rev(s))"),
        text.replace("w <- t - t * rev(s)", "w <- w - (t - t * rev(s))"),
        text.replace("a <- sum", "a <- a + sum"),
        text.replace("s <- x", "s <- s - x"),
    ]
    parents = stack_genomes([genome_of(parse(text), ROOM.capacity)] * 128)
    children, _ = mutate_genomes(DRAWING, only("accumulate"), parents, parents, jax.random.key(0))
    check_all(children, ROOM)
    hashes = {rule_hash(rule_of(child)) for child in unstack_genomes(jax.device_get(children))}
    for rule in wanted:
        assert rule_hash(parse(rule)) in hashes, rule
