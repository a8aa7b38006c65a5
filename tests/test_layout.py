"""The rooms of the library: who may import whom, and what is imported only where it is used."""

import ast
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

import vsml

ROOT = Path(__file__).parents[1]

# Rooms from the top to the foundation. A module is in the room that names it or the nearest package around
# it; it may import its own room and those below.
ROOMS = [
    {"vsml"},  # the package itself: what is offered at the door, of which no room makes use
    {
        "launch",
        "vsml.launching",
        "vsml.dashboard",
        "vsml.rules.__main__",
        "vsml.battery.__main__",
        "vsml.laws.__main__",
    },
    {
        "vsml.sklearn",
        "vsml.river",
        "vsml.online",
        "vsml.torch",
        "vsml.pretrained",
        "vsml.report",
        "vsml.figures",
        "vsml.demo",
    },
    {"vsml.calls", "vsml.cost.ranks"},
    {
        "vsml.cost",
        "vsml.evaluation",
        "vsml.introspection",
        "vsml.laws",
        # Those of the battery that know settings and files; the tests themselves are further down.
        "vsml.battery.contestants",
        "vsml.battery.measuring",
        "vsml.battery.report",
        "vsml.battery.leaderboard",
        "vsml.battery.drawing",
        "vsml.battery.page",
    },
    {"vsml.setup"},
    {"vsml.runs", "vsml.reporting"},
    {"vsml.config"},
    {"vsml.search"},
    {"vsml.meta"},
    {"vsml.battery"},
    {"vsml.learners"},
    {"vsml.networks", "vsml.tasks", "vsml.rules"},
    {"vsml.graphs"},
    {
        "vsml.settings",
        "vsml.registry",
        "vsml.options",
        "vsml.losses",
        "vsml.types",
        "vsml.system",
        "vsml.moved",
    },
]

# Downwards, and yet forbidden: how synapses compute is no matter of data or settings, a learner meets its
# tasks as episodes only, and rules that a person can read are no networks of synapses.
STRANGERS = [
    ("vsml.learners", "vsml.tasks"),
    ("vsml.networks", "vsml.tasks"),
    ("vsml.tasks", "vsml.networks"),
    ("vsml.rules", "vsml.networks"),
    ("vsml.rules", "vsml.tasks"),
]


def find_modules():
    modules = {}
    for path in [ROOT / "launch.py", *sorted((ROOT / "vsml").rglob("*.py"))]:
        if path.exists():
            parts = path.relative_to(ROOT).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


MODULES = find_modules()


@functools.cache
def tree_of(name):
    return ast.parse(MODULES[name].read_text())


@functools.cache
def imports_of(name, source=None, everywhere=True):
    """Return the dotted names that a module imports: of modules, and of what is taken from them.

    With everywhere=False only what is imported as soon as the module is.
    """
    found = set()
    pending = [tree_of(name) if source is None else ast.parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names} | {module}
        if everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            pending.extend(ast.iter_child_nodes(node))
    return frozenset(found)


def modules_imported(name, source=None):
    """Return the modules of this library that a module imports."""
    found = imports_of(name, source)
    modules = found & set(MODULES)
    # `from vsml.networks.kernels import tiled` is about that module, not about the package as well.
    return {m for m in modules if not any(other.startswith(m + ".") for other in modules)} - {name}


def room(name):
    for number, members in enumerate(ROOMS):
        if name in members:
            return number
    return room(name.rpartition(".")[0])


def uses(name, library, everywhere=True):
    return any(
        found == library or found.startswith(library + ".")
        for found in imports_of(name, everywhere=everywhere)
    )


def is_in(name, package):
    return name == package or name.startswith(package + ".")


def test_every_module_has_a_room():
    homeless = [name for name in MODULES if name != "vsml" and room(name) == room("vsml")]
    assert not homeless, f"put {homeless} into a room of ROOMS"


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_downwards_only(name):
    upwards = {other for other in modules_imported(name) if room(other) < room(name)}
    assert not upwards, f"{name} is below {upwards}"


@pytest.mark.parametrize(("upper", "lower"), STRANGERS)
def test_rooms_that_need_not_know_each_other_do_not(upper, lower):
    for name in MODULES:
        if is_in(name, upper):
            assert not {other for other in modules_imported(name) if other.startswith(lower)}, name


def test_no_module_imports_itself_in_a_circle():
    done = set()

    def visit(name, path):
        assert name not in path, " -> ".join([*path, name])
        if name not in done:
            for other in modules_imported(name):
                visit(other, [*path, name])
        done.add(name)

    for name in MODULES:
        visit(name, [])


def test_the_package_itself_brings_in_no_room_before_it_is_asked():
    code = (
        "import sys, vsml;"
        "rooms = [name for name in sys.modules if name.startswith(('vsml.', 'jax'))];"
        "assert rooms == ['vsml.moved'], rooms;"
        "vsml.load_learner; assert 'vsml.pretrained' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_no_room_takes_anything_from_the_door():
    offered = {f"vsml.{name}" for name in vsml.__all__}
    assert not [name for name in MODULES if name != "vsml" and imports_of(name) & offered]


def test_the_package_has_nothing_that_it_does_not_offer():
    with pytest.raises(AttributeError, match="no attribute 'load_leaner'"):
        vsml.load_leaner  # noqa: B018


def test_reading_a_configuration_starts_no_device():
    code = "from vsml.launching.schema import load_config; load_config()"
    environment = os.environ | {"JAX_PLATFORMS": "none such"}  # which JAX refuses when it starts
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)


def test_mpi_is_known_to_comm_alone_and_not_before_it_is_needed():
    assert [name for name in MODULES if uses(name, "mpi4py")] == ["vsml.system.comm"]
    assert not uses("vsml.system.comm", "mpi4py", everywhere=False)


def test_the_pytorch_twin_needs_no_jax():
    pending = {name for name in MODULES if is_in(name, "vsml.torch")}
    seen = set()
    while pending:
        name = pending.pop()
        assert not any(uses(name, library, everywhere=False) for library in ("jax", "flax", "optax")), name
        seen.add(name)
        pending |= modules_imported(name) - seen
    assert "vsml.torch.twin" in seen and "vsml.system.tensors" in seen


def test_wandb_is_imported_where_it_is_used():
    assert [name for name in MODULES if uses(name, "wandb")] == ["vsml.runs.wandb"]
    assert not uses("vsml.runs.wandb", "wandb", everywhere=False)


@pytest.mark.parametrize("library", ["pickle", "cloudpickle", "dill", "joblib", "shelve"])
def test_nothing_is_ever_pickled(library):
    assert not [name for name in MODULES if uses(name, library)]


def test_numpy_files_are_loaded_without_pickle():
    for name, path in MODULES.items():
        assert "allow_pickle=True" not in path.read_text(), name


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import vsml.system.comm", {"vsml.system.comm"}),
        ("from vsml import types, losses", {"vsml.types", "vsml.losses"}),
        ("from vsml.networks.kernels import tiled", {"vsml.networks.kernels.tiled"}),
        ("from vsml.learners import Vsml", {"vsml.learners"}),
        ("from . import gradient", {"vsml.meta.optimizers.gradient"}),
        ("from ...system.comm import Communicator", {"vsml.system.comm"}),
        ("def f():\n    from vsml.system.comm import connect", {"vsml.system.comm"}),
        ("import numpy", set()),
    ],
)
def test_every_form_of_import_is_seen(source, expected):
    assert modules_imported("vsml.meta.optimizers.evosax", source) == expected
