"""What every test runs under; set before JAX is imported, since JAX reads it once."""

import os

import pytest

# Two devices even without an accelerator, so that what is spread over devices is; one thread each, so that
# neither speed nor bits depend on what else the machine does. Flags that the user gave stay, and win.
_FLAGS = "--xla_force_host_platform_device_count=2 --xla_cpu_multi_thread_eigen=false"
os.environ["XLA_FLAGS"] = f"{_FLAGS} {os.environ.get('XLA_FLAGS', '')}".strip()


@pytest.fixture(scope="module")
def hasty():
    """Let XLA optimise little: runs this short do hardly anything but compile."""
    import jax  # not before the flags above are set

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()  # no other test shall run this code
