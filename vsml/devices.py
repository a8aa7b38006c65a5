"""How this process uses the machine; to be decided before jax is imported."""

import os
from collections.abc import MutableMapping

_RANKS_HERE = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")


def prepare(environ: MutableMapping[str, str] | None = None) -> None:
    """Make each CPU core of this process a device of its own, so that members are evaluated side by side.

    Members are independent, so one core each beats all cores on one. Matrix products are kept on one thread:
    then their bits do not depend on the number of cores. Ranks of one machine share its cores. What XLA_FLAGS
    sets already is left as it is; accelerators are not affected.

    Args:
        environ: environment variables to read and to add to, by default those of this process.
    """
    environ = os.environ if environ is None else environ
    ranks = next((int(environ[name]) for name in _RANKS_HERE if name in environ), 1)
    cores = max(1, len(os.sched_getaffinity(0)) // ranks)
    flags = environ.get("XLA_FLAGS", "")
    for flag, value in (
        ("--xla_force_host_platform_device_count", str(cores)),
        ("--xla_cpu_multi_thread_eigen", "false"),
    ):
        if flag not in flags:
            flags = f"{flags} {flag}={value}".strip()
    environ["XLA_FLAGS"] = flags
