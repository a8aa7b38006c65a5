"""The roofline of a machine: its measured rates, and the least time in which they allow some work.

`benchmarks/roofline.py` measures the rates; they are kept in the user's cache, one file for each machine.

The least time follows from which unit does what. On a CPU matrix products, other arithmetic and tanh (a
rational function) all go through the same vector units, so their times add up; memory is read ahead
meanwhile:

    max(matrix + elementwise + tanh, bytes / bandwidth)

On an accelerator matrix products have units of their own, while tanh is made of the same instructions as the
elementwise arithmetic:

    max(matrix, elementwise + tanh, bytes / bandwidth)

Each rate is the best that was seen: of large matrix products, of multiply-adds that are two FLOP each. That
of tanh is the best of XLA's, of the rational function in XLA, and of the 16 instructions at the rate of
multiply-adds that the rational function would take if nothing stood in its way. The bandwidth is that of the
cache where the states that a device has under way fit into it. So this is a bound from below: small products,
additions without a product, and starting programs cost more.
"""

import dataclasses
import json
import math
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from vsml.cost.counts import Cost
from vsml.system.cache import cache_folder
from vsml.system.files import atomic_write

COMMAND = "make roofline"
"""What measures and stores the rates."""

TANH_INSTRUCTIONS = 16
"""Of the rational function: two clamps, the square, 8 multiply-adds, 2 for a reciprocal, 3 products."""

_VERSION = 1


@dataclass(frozen=True)
class Roofline:
    """Measured rates of all devices of a process together.

    Attributes:
        machine: see `machine_name`.
        shared_units: matrix products, elementwise arithmetic and tanh go through the same units (a CPU).
        matrix_flops_per_s: of float32 matrix products of the best size.
        small_matrix_flops_per_s: of [64, 16] x [16, n], as synapses need them.
        multiply_add_flops_per_s: of elementwise multiply-adds on registers, two FLOP each.
        tanh_per_s: of XLA's tanh.
        rational_tanh_per_s: of the one in `vsml.networks.kernels.activations`.
        cache_bytes_per_s: read and written, of arrays that fit into the cache of a device.
        memory_bytes_per_s: likewise, of arrays that do not.
        cache_bytes: what fits, of one device.
    """

    machine: str
    shared_units: bool
    matrix_flops_per_s: float
    small_matrix_flops_per_s: float
    multiply_add_flops_per_s: float
    tanh_per_s: float
    rational_tanh_per_s: float
    cache_bytes_per_s: float
    memory_bytes_per_s: float
    cache_bytes: int


@dataclass(frozen=True)
class Bound:
    """The least time of some work, and of its parts, in seconds; see the top of this file.

    Attributes:
        matrix_s: of matrix products alone.
        elementwise_s: of other arithmetic but tanh.
        tanh_s: of all transcendentals.
        memory_s: of reading and writing.
        total_s: of all of it.
        bottleneck: what decides: "matrix products", "elementwise arithmetic", "tanh" or "memory".
    """

    matrix_s: float
    elementwise_s: float
    tanh_s: float
    memory_s: float
    total_s: float
    bottleneck: str


def bound(cost: Cost, roofline: Roofline, resident_bytes: float) -> Bound:
    """Return the least time in which a machine can do some work, spread over all its devices.

    Args:
        cost: of all of it.
        roofline: of the machine.
        resident_bytes: of the states that a device has under way at the same time.
    """
    matrix_rate = max(roofline.matrix_flops_per_s, roofline.small_matrix_flops_per_s)
    elementwise_rate = roofline.multiply_add_flops_per_s
    if roofline.shared_units:  # a matrix product is nothing but multiply-adds there
        elementwise_rate = max(elementwise_rate, matrix_rate)
    ideal_tanh = elementwise_rate / 2 / TANH_INSTRUCTIONS
    in_cache = resident_bytes <= roofline.cache_bytes
    bandwidth = roofline.cache_bytes_per_s if in_cache else roofline.memory_bytes_per_s
    parts = {
        "matrix products": cost.matrix_flops / matrix_rate,
        "elementwise arithmetic": cost.elementwise_flops / elementwise_rate,
        "tanh": cost.transcendentals / max(roofline.tanh_per_s, roofline.rational_tanh_per_s, ideal_tanh),
        "memory": cost.moved_bytes / bandwidth,
    }
    matrix, elementwise, tanh, memory = parts.values()
    # The unit that is busy longest, and in it the part that takes longest.
    units = [["matrix products", "elementwise arithmetic", "tanh"], ["memory"]]
    if not roofline.shared_units:
        units = [["matrix products"], ["elementwise arithmetic", "tanh"], ["memory"]]
    busiest = max(units, key=lambda unit: sum(parts[part] for part in unit))
    total = sum(parts[part] for part in busiest)
    return Bound(matrix, elementwise, tanh, memory, total, max(busiest, key=parts.__getitem__))


def resident_bytes(state_bytes: int, units: int, states_of_unit: int) -> int:
    """Return how large the states are that a device of this process has under way at the same time.

    A CPU takes its trials one after the other, an accelerator side by side; see `map_trials`.

    Args:
        state_bytes: of one member.
        units: of this process.
        states_of_unit: how many there are: one for each of its members, or those that `kept_states` of
            `vsml.meta.objectives.episode` counts.
    """
    devices = jax.local_devices()
    at_once = 1 if devices[0].platform == "cpu" else math.ceil(units / len(devices))
    return state_bytes * states_of_unit * at_once


def machine_name() -> str:
    """Return the model of the devices of this process, and how many there are: what rates depend on."""
    devices = jax.local_devices()
    kind = _cpu_model() if devices[0].platform == "cpu" else devices[0].device_kind
    return f"{kind} x {len(devices)}"


def _cpu_model() -> str:
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        told = ""
    found = re.search(r"^model name\s*:\s*(.+)$", told, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def slug(machine: str) -> str:
    """Return the name of a machine as a part of a file name."""
    plain = re.sub(r"\((R|TM)\)", "", machine)
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def stored_path(machine: str) -> Path:
    """Return where the rates of a machine are kept."""
    return cache_folder("roofline") / f"{slug(machine)}.json"


def save(roofline: Roofline) -> Path:
    """Keep the rates of a machine, in place of older ones.

    Returns:
        The file.

    Raises:
        OSError: it cannot be written.
    """
    path = stored_path(roofline.machine)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"version": _VERSION} | dataclasses.asdict(roofline)
    atomic_write(path, json.dumps(record, indent=2) + "\n")
    return path


def load(machine: str | None = None) -> Roofline | None:
    """Return the rates of a machine, by default of this one; None if they have not been measured.

    Raises:
        ValueError: the file is damaged, or another version of this library wrote it.
    """
    path = stored_path(machine_name() if machine is None else machine)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return _from_record(json.loads(text))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}; measure again: {COMMAND}") from error


def _from_record(record: Any) -> Roofline:
    expected = ["version", *(field.name for field in dataclasses.fields(Roofline))]
    if not isinstance(record, dict) or list(record) != expected or record["version"] != _VERSION:
        raise ValueError(f"expected an object with version {_VERSION} and {', '.join(expected[1:])}")
    del record["version"]
    roofline = Roofline(**record)
    wrong = [
        name
        for name, value in record.items()
        if name not in ("machine", "shared_units")
        and not (isinstance(value, int | float) and 0 < value < float("inf"))
    ]
    if wrong:
        raise ValueError(f"{wrong[0]}: got {record[wrong[0]]!r}, expected a positive number")
    return roofline
