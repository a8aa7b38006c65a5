"""CUDA programs, compiled while Python runs by NVIDIA's compiler library, NVRTC.

It comes with JAX for GPUs (the wheels `nvidia-cuda-nvrtc`), or with CUDA. Nothing else of CUDA is needed.
"""

import ctypes
import functools
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_SYSTEM = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")
"""What the loader of the system may know."""

DRIVER = "libcuda.so.1"
"""What drives a GPU; it comes with the GPU's own software."""


def places() -> list[str]:
    """Return where NVRTC may be: as wheels have it, in the folder of CUDA, and where the system looks.

    What is newer than the driver comes last, as the driver may not take what it makes.
    """
    found = [*_in_wheels(), *_in_toolkit(os.environ), *_SYSTEM]
    newest = _major_of_driver()
    return sorted(found, key=lambda place: newest is not None and (_version(place) or [0])[0] > newest)


def _major_of_driver() -> int | None:
    """Return the newest CUDA that the driver knows, as 12; None where there is none."""
    number = ctypes.c_int()
    try:
        failed = ctypes.CDLL(DRIVER).cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return None
    return None if failed else number.value // 1000


def _version(place: str) -> list[int]:
    return [int(part) for part in place.partition(".so.")[2].split(".") if part.isdigit()]


def _in_wheels() -> Iterator[str]:
    found = importlib.util.find_spec("nvidia")
    for folder in (found.submodule_search_locations or []) if found else []:
        yield from _newest_first(Path(folder), "*/lib/libnvrtc.so.*")


def _in_toolkit(environ: Mapping[str, str]) -> Iterator[str]:
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if environ.get(name):
            yield from _newest_first(Path(environ[name]), "lib*/libnvrtc.so.*")


def _newest_first(folder: Path, pattern: str) -> list[str]:
    return sorted(map(str, folder.glob(pattern)), key=_version, reverse=True)


@functools.cache
def _library() -> ctypes.CDLL:
    """Load NVRTC.

    Raises:
        OSError: it is nowhere.
    """
    tried = places()
    for place in tried:
        try:
            return ctypes.CDLL(place)
        except OSError:
            continue
    raise OSError(
        "no NVRTC (libnvrtc.so), the compiler that comes with JAX for GPUs: "
        'pip install "jax[cuda12]" or "jax[cuda13]"'
    )


def version() -> str:
    """Return the version of NVRTC.

    Raises:
        OSError: there is none, or it does not say.
    """
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)), "nvrtcVersion")
    return f"{major.value}.{minor.value}"


def compile_for(
    capability: str,
    source: Path,
    headers: Sequence[Path],
    options: Sequence[str],
) -> bytes:
    """Return what a GPU runs (a CUBIN) of a program.

    Args:
        capability: compute capability of the GPU, as "9.0".
        source: in CUDA C++.
        headers: what it includes; others are not found.
        options: of the compiler.

    Raises:
        OSError: there is no NVRTC, it does not know the GPU, or the source does not compile.
    """
    library = _library()
    program = ctypes.c_void_p()
    texts = (ctypes.c_char_p * len(headers))(*(path.read_bytes() for path in headers))
    names = (ctypes.c_char_p * len(headers))(*(path.name.encode() for path in headers))
    created = library.nvrtcCreateProgram(
        ctypes.byref(program), source.read_bytes(), source.name.encode(), len(headers), texts, names
    )
    _check(created, "nvrtcCreateProgram")
    try:
        every = [f"--gpu-architecture=sm_{capability.replace('.', '')}", *options]
        arguments = (ctypes.c_char_p * len(every))(*(option.encode() for option in every))
        compiled = library.nvrtcCompileProgram(program, len(every), arguments)
        if compiled:
            log = _read(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
            raise OSError(
                f"NVRTC {version()} cannot compile {source.name} for compute capability {capability}: "
                f"{_told(compiled)}: {log.strip()[-2000:]}"
            )
        return _read(program, "CUBIN")
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _read(program: ctypes.c_void_p, what: str) -> bytes:
    """Return one of the texts that belong to a program."""
    size = ctypes.c_size_t()
    _check(getattr(_library(), f"nvrtcGet{what}Size")(program, ctypes.byref(size)), f"nvrtcGet{what}Size")
    text = ctypes.create_string_buffer(size.value)
    _check(getattr(_library(), f"nvrtcGet{what}")(program, text), f"nvrtcGet{what}")
    return text.raw


def _check(code: int, function: str) -> None:
    if code:
        raise OSError(f"{function}: {_told(code)}")


def _told(code: int) -> str:
    told = _library().nvrtcGetErrorString
    told.restype = ctypes.c_char_p
    return (told(code) or b"unknown error").decode(errors="replace")
