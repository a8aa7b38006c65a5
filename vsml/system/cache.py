"""The cache: folders for what can be made anew, as compiled programs, converted data, measured rates."""

import contextlib
import functools
import hashlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path


def cache_folder(name: str, environ: Mapping[str, str] | None = None) -> Path:
    """Return a folder below the one that VSML_CACHE_DIR names, else below the user's cache; it may not exist.

    Args:
        name: of the folder.
        environ: environment variables, by default those of this process.
    """
    chosen = (os.environ if environ is None else environ).get("VSML_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser() / name
    import platformdirs  # not needed where the place of a process is found, which is standard library only

    return Path(platformdirs.user_cache_dir("vsml", appauthor=False)) / name


@functools.cache
def processor() -> str:
    """Return a short name of this kind of processor: what was compiled for another one may not run on it."""
    told = [platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):  # Linux only
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        named = ("model name", "flags", "Features", "CPU implementer", "CPU part")
        told += sorted({line for line in lines if line.startswith(named)})
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]
