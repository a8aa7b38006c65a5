"""The interpreter of the search computes what programs and the harness do, bit for bit or to rounding."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_rules import random_rule

from vsml.graphs import generate, to_arrays
from vsml.rules import Harness, Settings, canonical, known_names, pack_all, parse, read_rule
from vsml.search.genome import genome_of, stack_genomes
from vsml.search.lesson import Lesson, answers
from vsml.search.one_kernel import one_kernel
from vsml.search.settings import Room
from vsml.search.union import noise_of, union_of

pytestmark = pytest.mark.usefixtures("hasty", "double")

ROOM = Room(slots=16, constants=24, initial=32, operators=64)
EXAMPLES = 3
COUNT = 40

GRAPHS = [generate("waxman", 2, 3, 2, seed=1), generate("layered", 2, 2, 2, seed=0)]

SETTINGS = {
    "error": Settings(ticks=5, read_tick=2, loss="regression"),
    "late and announced": Settings(
        ticks=4,
        read_tick=2,
        teach_hold=3,
        announce=True,
        read="mean",
        read_mean=2,
        reset="signals",
        x_hold=2,
        loss="regression",
    ),
    "broadcast": Settings(ticks=4, read_tick=1, teach="broadcast_error", loss="regression"),
    "reward": Settings(ticks=4, read_tick=1, teach="reward", loss="regression"),
    "as input": Settings(ticks=4, read_tick=1, teach="target_as_input", teach_hold=3, loss="regression"),
}


def rules_of(count):
    """Return rules that come with the library, then random ones."""
    rules = [canonical(read_rule(name)) for name in known_names()]
    return [*rules, *(canonical(parse(random_rule(seed))) for seed in range(count - len(rules)))]


def stream(key):
    x = jax.random.normal(key, (EXAMPLES, len(GRAPHS), 2))
    targets = jax.random.normal(jax.random.fold_in(key, 1), (EXAMPLES, len(GRAPHS), 2))
    return x, targets


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_lessons_have_the_numbers_of_the_harness(name):
    settings = SETTINGS[name]
    rules = rules_of(COUNT)
    x, targets = stream(jax.random.key(0))
    keys = jax.random.split(jax.random.key(7), len(GRAPHS))
    union = union_of(GRAPHS, keys, ROOM.slots, jnp.float64)
    noise = noise_of(GRAPHS, keys, EXAMPLES * settings.ticks, jnp.float64)
    lesson = Lesson(union, x, targets, noise, settings)
    genomes = stack_genomes([genome_of(rule, ROOM.capacity) for rule in rules])
    run = one_kernel(lambda genomes: jax.lax.map(lambda each: answers(each, lesson)[0], genomes))
    found = np.asarray(run(genomes))
    harness, programs = Harness(settings), pack_all(rules)
    # Genomes have constants of 32 bits.
    programs = replace(programs, constants=programs.constants.astype(jnp.float32))
    for place, graph in enumerate(GRAPHS):
        arrays = to_arrays(graph)

        def alone(program, arrays=arrays, place=place):
            state = harness.begin(program, arrays, keys[place], jnp.float64)

            def step(state, shown):
                return harness.example(program, arrays, state, *shown)

            return jax.lax.scan(step, state, (x[:, place], targets[:, place]))[1]

        expected = np.asarray(jax.jit(lambda programs, alone=alone: jax.lax.map(alone, programs))(programs))
        far = np.abs(found[:, :, place] - expected) > 1e-9 * (1 + np.abs(expected))
        wrong = np.flatnonzero(far.reshape(len(rules), -1).any(1))
        assert not len(wrong), f"rules {wrong} on {graph}"
        assert np.abs(expected).max(axis=(1, 2)).astype(bool).sum() > COUNT / 2, "most answers are 0"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"read": "ready"}, "read: got ready"),
        ({"reset": "all"}, "reset: got all"),
        ({"loss": "classes"}, "loss: got classes"),
    ],
)
def test_what_a_lesson_cannot_have_is_refused(settings, message):
    keys = jax.random.split(jax.random.key(0), len(GRAPHS))
    union = union_of(GRAPHS, keys, 2)
    given = {"ticks": 4, "read_tick": 1, "loss": "regression"} | settings
    with pytest.raises(ValueError, match=message):
        Lesson(union, *stream(jax.random.key(0)), None, Settings(**given))


def test_instances_have_as_many_outputs_as_each_other_and_a_key_each():
    other = generate("layered", 2, 2, 3, seed=0)
    keys = jax.random.split(jax.random.key(0), 2)
    with pytest.raises(ValueError, match=r"outputs: got graphs of \[2, 3\]"):
        union_of([GRAPHS[0], other], keys, 2)
    with pytest.raises(ValueError, match="keys: got 2, expected one for each of 1 graphs"):
        union_of(GRAPHS[:1], keys, 2)


@pytest.mark.slow
def test_instances_do_not_see_each_other():
    settings = SETTINGS["error"]
    keys = jax.random.split(jax.random.key(0), 2)
    union = union_of([GRAPHS[0]] * 2, keys, ROOM.slots, jnp.float64)
    x, targets = stream(jax.random.key(0))
    genomes = stack_genomes([genome_of(read_rule("recurrent_backprop"), ROOM.capacity)])
    run = one_kernel(
        lambda x: jax.lax.map(lambda g: answers(g, Lesson(union, x, targets, None, settings))[0], genomes)
    )
    first, second = run(x), run(x.at[:, 1].add(1.0))
    np.testing.assert_array_equal(np.asarray(first[:, :, 0]), np.asarray(second[:, :, 0]))
    assert not np.array_equal(np.asarray(first[:, :, 1]), np.asarray(second[:, :, 1]))
