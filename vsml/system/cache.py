"""The cache: folders for what can be made anew, as compiled programs, converted data, measured rates."""

import contextlib
import functools
import hashlib
import os
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path

from vsml.system.hashes import SHOWN_DIGITS
from vsml.system.trust import private_folder


def cache_folder(name: str, environ: Mapping[str, str] | None = None) -> Path:
    """Return a folder below the one that VSML_CACHE_DIR names, else below the user's cache; it may not exist.

    Args:
        name: of the folder.
        environ: environment variables, by default those of this process.

    Raises:
        UntrustedError: there is no home folder, and another user has made the one that stands in for it.
        OSError: VSML_CACHE_DIR begins with ~, and there is no home folder.
    """
    chosen = (os.environ if environ is None else environ).get("VSML_CACHE_DIR")
    if chosen:
        return expand_home(chosen) / name
    import platformdirs  # not needed where the place of a process is found, which is standard library only

    try:
        user_cache = Path(platformdirs.user_cache_dir("vsml", appauthor=False))
    except RuntimeError:
        # Neither HOME nor a home folder of this user id, as in some containers.
        user_cache = private_folder(Path(tempfile.gettempdir()) / f"vsml-{user_id()}")
    return user_cache / name


def private_cache_folder(name: str, environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder of this user alone in `cache_folder(name)`, made where it is not there.

    Args:
        name: of the folder.
        environ: environment variables, by default those of this process.

    Raises:
        UntrustedError: another user has made it.
        OSError: it cannot be made.
    """
    return private_folder(cache_folder(name, environ) / user_id())


def user_id() -> str:
    """Return the number of this user; nothing but one word on systems that number no users."""
    return str(os.getuid()) if hasattr(os, "getuid") else "user"


def expand_home(path: str | os.PathLike[str]) -> Path:
    """Return a path whose "~" is replaced by the home folder.

    Raises:
        OSError: there is no home folder: HOME is not set, and this user id has none.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        expected = "HOME to be set, or a path without ~"
        raise OSError(f"{path}: this user ({user_id()}) has no home folder, expected {expected}") from error


@functools.cache
def processor() -> str:
    """Return a short name of this kind of processor: what was compiled for another one may not run on it."""
    told = [platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):  # Linux only
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        named = ("model name", "flags", "Features", "CPU implementer", "CPU part")
        told += sorted({line for line in lines if line.startswith(named)})
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:SHOWN_DIGITS]
