"""The CUDA kernels of `fused`, compiled for the GPU that is there or for a CPU that emulates one.

For a GPU, NVRTC compiles `fused.cu`, and the C++ compiler `fused.cpp`, which launches it. For a CPU both are
one library, with `emulated.h` in place of `device.h`. All is kept in the user's cache.
"""

import ctypes
import functools
import os
from pathlib import Path

import jax

from vsml.networks.kernels import libraries, nvrtc
from vsml.system.files import atomic_path
from vsml.system.trust import open_trusted

MIN_CAPABILITY = (8, 0)
"""Oldest GPUs whose tensor cores multiply what the kernels need: Ampere."""

PLATFORM = "CUDA"
"""Of what XLA calls the kernels."""

LAUNCHER_OPTIONS = ("-ldl",)
"""Of the C++ compiler."""

_FOLDER = Path(__file__).parent

SOURCE = _FOLDER / "fused.cu"
LAUNCHER = _FOLDER / "fused.cpp"
HEADERS = [_FOLDER / name for name in ("fused.h", "device.h", "products.h", "states.h")]
EMULATOR = _FOLDER / "emulated.h"


@functools.cache
def compiled(definitions: tuple[str, ...], capability: str | None) -> tuple[Path, str]:
    """Return the library that launches kernels, and the name of the program that it shall run.

    Args:
        definitions: what the program is compiled for.
        capability: compute capability of the GPU; None for a CPU that emulates one.

    Raises:
        OSError: something is missing, or does not compile.
        SubprocessError: the compiler does not end.
    """
    if os.name != "posix":
        raise OSError(f"it is for POSIX systems, and this one is {os.name}")
    if capability is None:
        options = ["-O1", "-DEMULATED", *definitions]
        library = libraries.build(LAUNCHER, [*HEADERS, SOURCE, EMULATOR], options)
        libraries.register(library, "cpu")
        return library, ""
    library = libraries.build(LAUNCHER, HEADERS, [], LAUNCHER_OPTIONS)
    options = ["--std=c++17", *definitions]
    texts = [path.read_text() for path in (*HEADERS, SOURCE)]
    key = libraries.key_of([*texts, *options, capability, nvrtc.version()])

    def make(file: Path) -> None:
        with atomic_path(file) as temporary:
            temporary.write_bytes(nvrtc.compile_for(capability, SOURCE, HEADERS, options))
            os.chmod(temporary, 0o600)

    program = libraries.kept(f"fused-{key}.cubin", make)
    _keep(libraries.register(library, PLATFORM), program)
    return library, program.stem


def _keep(launcher: ctypes.CDLL, program: Path) -> None:
    """Hand a program to the library that launches it.

    Raises:
        OSError: another user could have written it, or there is no driver.
    """
    with os.fdopen(open_trusted(program), "rb") as file:
        text = file.read()
    keep = launcher.vsml_keep
    keep.restype = ctypes.c_char_p
    keep.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int64, ctypes.c_char_p]
    fault = keep(program.stem.encode(), text, len(text), nvrtc.DRIVER.encode())
    if fault:
        raise OSError(fault.decode(errors="replace"))


def capability() -> str:
    """Return the compute capability of the GPUs here, as "9.0".

    Raises:
        OSError: they are too old, not alike, or do not say.
    """
    found = {str(getattr(device, "compute_capability", "unknown")) for device in jax.local_devices()}
    if len(found) != 1:
        raise OSError(f"GPUs are not alike: got compute capabilities {', '.join(sorted(found))}")
    (capability,) = found
    parts = capability.split(".")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise OSError(f"got compute capability {capability!r}, expected two numbers, as 9.0")
    if tuple(map(int, parts)) < MIN_CAPABILITY:
        least = ".".join(map(str, MIN_CAPABILITY))
        raise OSError(f"got compute capability {capability}, expected at least {least}")
    return capability
