"""What every test runs under, and in which order; flags are set before JAX, which reads them once."""

import itertools
import os
import shutil
import sys
from pathlib import Path

import pytest

# Two devices even without an accelerator, so that what is spread over devices is; one thread each, so that
# neither speed nor bits depend on what else the machine does. XLA's older emitters compile in half the time,
# which is most of the time of the tests. Flags that the user gave stay, and win.
_FLAGS = (
    "--xla_force_host_platform_device_count=2 --xla_cpu_multi_thread_eigen=false "
    "--xla_cpu_use_fusion_emitters=false"
)
os.environ["XLA_FLAGS"] = f"{_FLAGS} {os.environ.get('XLA_FLAGS', '')}".strip()

# What XLA compiles is kept: for the other worker, for processes that tests start and for the next run. Its
# key is the program with XLA's version, flags and processor: no change of the code meets an old one.
COMPILED = Path(__file__).parents[1] / "build" / "compiled"
MOST_COMPILED = 2**30
"""Bytes; from there on the folder is begun anew."""
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(COMPILED))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

MAPS = Path("/proc/self/maps")
MOST_MAPS = 30_000
_TORN_DOWN = itertools.count()

# Test files by what they hold the library against, in the order in which they run: the first tier that fails
# names the kind of fault. Each file is in it once, less `test_` and `.py`; in a tier, long files go first.
TIERS = {
    "algebra and properties": """
        vsml learners values objective gradient evolution conv network edges graph_vsml layers synapse wirings
        learner_memory references standardise generators transforms distribution few_shot ensemble experiments
        candidates checkpoint memory streams meta_settings metrics callbacks setup plan ahead scaling roofline
        regression laws laws_runs inner_law battery abilities graphs rule_harness rule_language rule_learner
        rule_watching rule_latex rule_drawing rule_breeding rule_steering rule_stages rule_simplifying
        rule_store rule_store_server
        layout moved package command registry episodic
        config preprocess_settings docs advice commands
        sources bounds failing_inputs failing_files robust_inputs download inventory converted
        devices comm assign_gpu trust locks files signals environment_flags runs tracking
        tables text_plots plots console series submission
    """,
    "published numbers and files": "few_examples decoders graph_results",
    "golden cases": "golden rules_golden diagrams",
    "a second implementation": """
        rule_machines rule_lessons known_rules native native_positions kernels products fused cuda
        antithetic backprop cost benchmarks few_rows few_values torch
    """,
    "end to end": """
        configs sklearn online river cloning introspection distilling evaluate pretrained probes train figures
        demo examples notebooks report search_page dashboard
        rules_page learner_page layer_page transform_page dataset_page objective_page optimizer_page
        metric_page callback_page call_page outside site
        launch one_process kills attacked_runs slurm ssh
    """,
}
TIER_OF = {f"test_{name}.py": tier for tier, names in TIERS.items() for name in names.split()}
ORDER = list(TIER_OF)


def pytest_sessionstart(session):
    """Begin the folder of compiled programs anew where it has grown too large; a worker leaves it alone."""
    if hasattr(session.config, "workerinput") or not COMPILED.is_dir():
        return
    if sum(path.stat().st_size for path in COMPILED.iterdir()) > MOST_COMPILED:
        shutil.rmtree(COMPILED)


def pytest_configure():
    """Refuse to run where a test file has no tier, or a tier has a file that is not there."""
    listed = [f"test_{name}.py" for names in TIERS.values() for name in names.split()]
    there = {path.name for path in Path(__file__).parent.glob("test_*.py")}
    faults = {
        "in no tier": sorted(there - set(listed)),
        "in a tier and not there": sorted(set(listed) - there),
        "in a tier twice": sorted({name for name in listed if listed.count(name) > 1}),
    }
    told = [f"{', '.join(names)} is {fault}" for fault, names in faults.items() if names]
    if told:
        raise pytest.UsageError(f"tests/conftest.py: TIERS needs every test file once: {'; '.join(told)}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Run the tests tier by tier; the tests of a file stay together, in their order."""
    items.sort(key=lambda item: ORDER.index(item.path.name))


def pytest_runtest_teardown(item, nextitem):
    """Forget compiled programs before there are too many: each is mapped into memory some times over.

    Linux ends a process that asks for more than 65,530 maps, unless it was told another number.
    """
    if nextitem is not None and nextitem.path == item.path and next(_TORN_DOWN) % 5:
        return
    if "jax" in sys.modules and MAPS.is_file():
        with MAPS.open("rb") as lines:
            count = sum(1 for _ in lines)
        if count > MOST_MAPS:
            sys.modules["jax"].clear_caches()


def pytest_terminal_summary(terminalreporter):
    """Say which is the first tier that failed."""
    failed = [*terminalreporter.getreports("failed"), *terminalreporter.getreports("error")]
    files = {report.nodeid.partition("::")[0].rpartition("/")[2] for report in failed}
    tiers = [tier for name, tier in TIER_OF.items() if name in files]
    if tiers:
        terminalreporter.write_line(f"The first tier that fails: {tiers[0]} (tests/README.md)", red=True)


@pytest.fixture(scope="module")
def hasty():
    """Let XLA optimise little, here and in processes started here: runs this short do little but compile."""
    import jax  # not before the flags above are set

    jax.config.update("jax_disable_most_optimizations", True)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
    yield
    del os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"]
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()  # no other test shall run this code


@pytest.fixture(scope="module")
def explicit_ranks():
    """Let no array be broadcast to more axes unless the code says so: too few axes are a mistake, mostly."""
    import jax  # not before the flags above are set

    jax.config.update("jax_numpy_rank_promotion", "raise")
    yield
    jax.config.update("jax_numpy_rank_promotion", "allow")


@pytest.fixture(scope="module")
def double():
    """Compute in float64, as golden numbers were."""
    import jax  # not before the flags above are set

    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
    jax.clear_caches()  # no other test shall run this code
