"""Is the reference of the other benchmarks as fast as plain code gets? The equations, written in three ways.

    python benchmarks/plain.py [--inputs 784] [--members 2] [--episode_length 50]

- `reference`: one synapse, vmapped over both sides of a layer (`vsml.networks.kernels.reference`).
- `arrays`: the same operations on arrays [I, O, ...]: a concatenation, one product, the cell.
- `split`: the product is split, so that what messages add to the gates is computed once for each unit.

All compute the same numbers, which is checked. They take turns; ratios are of the fastest runs. Results go to
benchmarks/results, unless --json names a file.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works without the package being installed

from vsml.system.devices import prepare

prepare()  # JAX reads its flags when it is imported

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from benchmarks.cases import NUM_CLASSES
from benchmarks.contestants import STATE_SIZE
from benchmarks.report import default_path, record_of, write
from vsml.networks.cells.lstm import GATE_OFFSET, Synapse, weights_of
from vsml.networks.kernels import reference
from vsml.networks.modules import Functional
from vsml.reporting.tables import Table
from vsml.types import Array

MESSAGE_SIZE = 8
MICRO_TICKS = 2

State = tuple[Array, Array]
Visit = Callable[[Synapse, State, Array, Array], tuple[State, Array]]
"""`(synapse, states [I, O, N], messages of inputs [I, M] and outputs [O, M]) -> states, messages [O, M]`."""


def by_reference(synapse: Synapse, state: State, forward: Array, backward: Array) -> tuple[State, Array]:
    """Visit as the library's reference does."""
    h, c, sent, _ = reference.visit(
        synapse, synapse.messages, *state, forward[None], backward[None], MICRO_TICKS
    )
    return (h, c), sent[0]


def by_arrays(synapse: Synapse, state: State, forward: Array, backward: Array) -> tuple[State, Array]:
    """Visit by operations on whole arrays."""
    h, c = state
    shape = (*h.shape[:2], MESSAGE_SIZE)
    from_input = jnp.broadcast_to(forward[:, None], shape)
    from_output = jnp.broadcast_to(backward[None], shape)
    for _ in range(MICRO_TICKS):
        h, c = _cell(synapse.lstm(jnp.concatenate([from_input, from_output, h], -1)), c)
    return (h, c), synapse.messages(h)[0].mean(0)


def by_split(synapse: Synapse, state: State, forward: Array, backward: Array) -> tuple[State, Array]:
    """Visit with what messages add to the gates computed once for each unit."""
    h, c = state
    kernel, bias = weights_of(synapse.lstm)
    of_forward, of_backward, of_h = jnp.split(kernel, [MESSAGE_SIZE, 2 * MESSAGE_SIZE])
    added = (forward @ of_forward)[:, None] + (backward @ of_backward)[None] + bias
    for _ in range(MICRO_TICKS):
        h, c = _cell(h @ of_h + added, c)
    # A message is linear in h: that of the mean is the mean.
    return (h, c), synapse.messages(h.mean(0))[0]


def _cell(gates: Array, c: Array) -> State:
    i, g, f, o = jnp.split(gates, 4, -1)
    c = jax.nn.sigmoid(f + GATE_OFFSET) * c + jax.nn.sigmoid(i - GATE_OFFSET) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


WAYS: dict[str, Visit] = {"reference": by_reference, "arrays": by_arrays, "split": by_split}


def programs(visit: Visit) -> dict[str, Callable[..., Any]]:
    """Return what is timed of a way: episodes of all members forward, and with their gradient."""
    synapses = Functional(lambda rngs: Synapse(STATE_SIZE, MESSAGE_SIZE, False, 1.0, rngs))

    def member(params: Any, start: State, messages: Array, errors: Array) -> Array:
        synapse = synapses.with_params(params)

        def example(state: State, arrived: tuple[Array, Array]) -> tuple[State, Array]:
            state, sent = visit(synapse, state, *arrived)
            return state, (sent**2).sum()

        return jax.lax.scan(example, start, (messages, errors))[1].sum()

    def loss(params: Any, *episodes: Any) -> Array:
        return jax.vmap(member, (None, 0, 0, 0))(params, *episodes).sum()

    return {"forward": jax.jit(loss), "gradient": jax.jit(jax.value_and_grad(loss))}


def arguments_of(inputs: int, members: int, length: int) -> tuple[Any, ...]:
    """Return meta-parameters, states, and the messages of episodes."""
    synapses = Functional(lambda rngs: Synapse(STATE_SIZE, MESSAGE_SIZE, False, 1.0, rngs))
    of_params, of_h, of_c, of_x, of_error = jax.random.split(jax.random.key(0), 5)
    shape = (members, inputs, NUM_CLASSES, STATE_SIZE)
    state = (jax.random.normal(of_h, shape), jax.random.normal(of_c, shape))
    messages = jax.random.normal(of_x, (members, length, inputs, MESSAGE_SIZE))
    errors = jax.random.normal(of_error, (members, length, NUM_CLASSES, MESSAGE_SIZE))
    return synapses.init(of_params), state, messages, errors


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--inputs", type=int, default=784)
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--episode_length", type=int, default=50)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args(arguments)
    for name, value in vars(options).items():
        if name != "json" and value < 1:
            parser.error(f"--{name}: got {value}, expected a number above 0")
    given = arguments_of(options.inputs, options.members, options.episode_length)
    by_way = {name: programs(visit) for name, visit in WAYS.items()}
    rows: list[dict[str, Any]] = []
    for what in ("forward", "gradient"):
        results = [jax.tree.leaves(each[what](*given)) for each in by_way.values()]
        for result in results[1:]:
            for number, expected in zip(result, results[0], strict=True):
                scale = float(jnp.abs(expected).max())
                np.testing.assert_allclose(number, expected, atol=1e-3 * scale)
        seconds: dict[str, float] = dict.fromkeys(by_way, float("inf"))
        for _ in range(options.repetitions):
            for name, each in by_way.items():
                started = time.perf_counter()
                jax.block_until_ready(each[what](*given))
                seconds[name] = min(seconds[name], time.perf_counter() - started)
        examples = options.members * options.episode_length
        for name, taken in seconds.items():
            ratio = seconds["reference"] / taken
            rows.append({"what": what, "way": name, "examples_s": examples / taken, "of_reference": ratio})
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    path = options.json or default_path("plain")
    write(record_of(rows, None, settings), path)
    cells = []
    for row in rows:
        cells.append([row["what"], row["way"], f"{row['examples_s']:,.0f}", f"{row['of_reference']:.2f}"])
    headings = ("what", "way", "examples/s", "of reference")
    title = f"{options.inputs} x {NUM_CLASSES}, state {STATE_SIZE}"
    Console().print(Table(headings, cells, title, left=frozenset(["what", "way"])))
    print(f"results: {path}")


if __name__ == "__main__":
    main()
