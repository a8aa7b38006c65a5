"""Libraries of compiled functions that XLA calls, made on the machine that runs them.

A source beside this file is compiled at its first use by the C++ compiler that is there, for this very
processor, kept in the user's cache, and called through `jax.ffi`. What another program has made (as NVRTC for
GPUs) is kept in the same way: `kept`.
"""

import atexit
import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax

from vsml.system.cache import private_cache_folder, processor
from vsml.system.files import atomic_path
from vsml.system.locks import take_turns
from vsml.system.trust import UntrustedError, checksum_of, open_trusted

COMPILE_S = 300.0
"""How long a compiler may take; it takes some 6 seconds."""

_COMPILERS = ("c++", "g++", "clang++")

_BY_PROCESSOR = ("aarch64", "arm", "ppc")
"""Families whose compilers take -mcpu for the very processor of a machine; others take -march."""


def _flags(machine: str) -> tuple[str, ...]:
    """Return the options of the compiler on a machine, as `platform.machine` calls it."""
    names_processor = machine.lower().startswith(_BY_PROCESSOR)
    native = "-mcpu=native" if names_processor else "-march=native"
    return ("-O3", native, "-std=c++17", "-shared", "-fPIC", "-w")


_FLAGS = _flags(platform.machine())

_REGISTERED: set[str] = set()
"""Targets that XLA knows; of one name is what was made of one source in one way, wherever it lies."""


def build(
    source: Path,
    headers: Sequence[Path],
    definitions: Sequence[str],
    options: Sequence[str] = (),
) -> Path:
    """Return the compiled library, from the cache or anew.

    Args:
        source: in C++.
        headers: what it includes, apart from XLA's.
        definitions: options that define macros.
        options: more of them, behind the usual ones.

    Raises:
        OSError: there is no compiler, the cache cannot be written, or the source does not compile.
        SubprocessError: the compiler does not end.
    """
    # Where a header is matters as little as where the source is: every copy shares what was compiled once.
    every = [*_compiler(), *_FLAGS, *options, *definitions]
    command = [*every, f"-I{jax.ffi.include_dir()}", str(source)]
    texts = [path.read_text() for path in (*headers, source)]
    key = key_of([*texts, *every, jax.__version__, processor(), *platform.libc_ver()])
    return kept(f"{source.stem}-{key}.so", lambda library: _compile(command, library))


def key_of(made_of: Sequence[str]) -> str:
    """Return a short name of all that a file is made of."""
    return hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:16]


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """Return a file of the cache, made if it is not there or not as it was made.

    Args:
        name: says all that it is made of.
        make: writes it, as a whole or not at all.

    Raises:
        OSError: the cache cannot be written.
    """
    file = _folder() / name
    # The first process makes it, the others find what it has made.
    with take_turns(file.with_suffix(".lock")):
        fault = _fault(file)
        if fault is not None and file.exists():
            warnings.warn(f"compiling anew: {fault}", RuntimeWarning, stacklevel=3)
        if fault is not None:
            make(file)
            _seal(file)
    return file


def register(
    library: Path,
    platform: str,
    functions: Sequence[str] = ("forward", "backward"),
) -> ctypes.CDLL:
    """Load a library, and tell XLA of its functions.

    Args:
        library: what `build` returned.
        platform: "cpu" or "CUDA".
        functions: their names, without `vsml_`.

    Raises:
        OSError: another user could have written it, or it cannot be loaded.
    """
    loaded = _load(library)
    for name in functions:
        registered = target(name, library)
        if registered not in _REGISTERED:  # once a process: XLA refuses the same from another folder
            handler = jax.ffi.pycapsule(getattr(loaded, f"vsml_{name}"))
            jax.ffi.register_ffi_target(registered, handler, platform=platform)
            _REGISTERED.add(registered)
    return loaded


def target(name: str, library: Path) -> str:
    """Return what XLA calls a function by; what it compiled on other days must not mean another one."""
    return f"vsml-{library.stem}-{name}"


def _compiler() -> list[str]:
    """Return the command of the C++ compiler.

    Raises:
        OSError: there is none, or CXX is no command.
    """
    asked = os.environ.get("CXX", "")
    try:
        words = shlex.split(asked)
    except ValueError as error:
        raise OSError(f"CXX: got {asked!r}, expected a command: {error}") from error
    compiler = words or list(filter(shutil.which, _COMPILERS))[:1]
    if not compiler:
        raise OSError(f"no C++ compiler: none of {', '.join(_COMPILERS)} is there, and CXX is not set")
    return compiler


def _folder() -> Path:
    """Return the folder of compiled kernels: nobody runs what another user has compiled."""
    try:
        return private_cache_folder("kernels")
    except UntrustedError as error:
        warnings.warn(f"kernels are compiled for this process alone: {error}", RuntimeWarning, stacklevel=2)
        return _folder_of_process()


@functools.cache
def _folder_of_process() -> Path:
    """Return a folder that goes when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="vsml-kernels-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _checksum_file(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _fault(library: Path) -> str | None:
    """Return why a file must not be taken; None where it is as `kept` has left it."""
    try:
        with _opened(library) as descriptor, _opened(_checksum_file(library)) as sealed:
            got = checksum_of(descriptor, library.name)
            expected = os.read(sealed, 2 * len(got)).decode(errors="replace").strip()
    except OSError as error:
        return str(error)
    return None if got == expected else f"{library}: damaged, its content does not match its checksum"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = open_trusted(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _load(library: Path) -> ctypes.CDLL:
    """Load the very file that is checked.

    Raises:
        OSError: another user could have written it, or it cannot be loaded.
    """
    descriptor = open_trusted(library)
    by_descriptor = f"/proc/self/fd/{descriptor}"  # Linux only
    if not os.path.exists(by_descriptor):
        os.close(descriptor)
        return ctypes.CDLL(str(library))
    # Not closed: of two libraries by the same name the loader would take the first for both.
    return ctypes.CDLL(by_descriptor)


def _compile(command: list[str], library: Path) -> None:
    """Make the library, which is there as a whole or not at all."""
    with atomic_path(library) as temporary:
        done = subprocess.run(
            [*command, "-o", str(temporary)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMPILE_S,
        )
        if done.returncode:
            raise OSError(
                f"{command[0]} cannot compile {Path(command[-1]).name}: {done.stderr.strip()[-2000:]}"
            )
        os.chmod(temporary, 0o700)  # whatever the umask says


def _seal(library: Path) -> None:
    """Keep the checksum of a file beside it."""
    with _opened(library) as descriptor:
        checksum = checksum_of(descriptor, library.name)
    with atomic_path(_checksum_file(library)) as temporary:
        temporary.write_text(f"{checksum}\n", encoding="utf-8")
        os.chmod(temporary, 0o600)
