"""What every test runs under; set before JAX is imported, since JAX reads it once."""

import os

# Two devices even without an accelerator, so that what is spread over devices is; one thread each, so that
# neither speed nor bits depend on what else the machine does. Flags that the user gave stay, and win.
_FLAGS = "--xla_force_host_platform_device_count=2 --xla_cpu_multi_thread_eigen=false"
os.environ["XLA_FLAGS"] = f"{_FLAGS} {os.environ.get('XLA_FLAGS', '')}".strip()
