"""Checkpoints: pytrees of arrays in safetensors files that are whole, checked and named, or refused.

A file holds one tensor per leaf, named by its path in the pytree ("params/synapse/kernel"), and under
`__metadata__` the caller's metadata as JSON, the versions of the libraries and a SHA-256 of all of it.
"""

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from vsml.registry import suggestion
from vsml.system.files import atomic_write, library_versions
from vsml.types import Params

FORMAT_VERSION = 1
BEST_NAME = "best.safetensors"
EXPORT_NAME = "learner.safetensors"
"""The meta-parameters alone, written into a run's directory when it is complete."""

PRETRAINED_PREFIX = "pretrained:"
"""What the path of a learning algorithm that comes with the library begins with."""

PRETRAINED_FOLDER = Path(__file__).parents[1] / "algorithms"
_STEP_NAME = re.compile(r"step_(\d+)\.safetensors")
_DTYPES = {
    "BOOL": np.dtype(bool),
    **{f"{kind}{bits}": np.dtype(f"{kind.lower()}{bits // 8}") for kind in "IU" for bits in (8, 16, 32, 64)},
    **{f"F{bits}": np.dtype(f"f{bits // 8}") for bits in (16, 32, 64)},
    "BF16": np.dtype(jnp.bfloat16),
    "C64": np.dtype(np.complex64),
}


class CheckpointError(ValueError):
    """A file that cannot be used as a checkpoint; the message names it."""


class DamagedCheckpointError(CheckpointError):
    """A file that is cut short, altered, or no checkpoint at all."""


def save(path: str | os.PathLike[str], tree: Any, metadata: Mapping[str, Any]) -> None:
    """Write a pytree and its metadata as one file, replacing it in one step.

    Args:
        path: the file; its folder must exist.
        tree: pytree of arrays, numbers and typed random keys. Dicts need string keys without "/".
        metadata: what JSON can hold; `format_version`, `versions` and `random_keys` are added.

    Raises:
        ValueError: a leaf is not an array that safetensors can hold, or two leaves have the same name.
        OSError: the file cannot be written; an older file of that name is untouched.
    """
    atomic_write(path, to_bytes(tree, metadata))


def load(path: str | os.PathLike[str], template: Any = None) -> tuple[Any, dict[str, Any]]:
    """Read what `save` wrote.

    Args:
        path: the file.
        template: pytree with the structure, shapes and dtypes to expect. Leaves that are numpy arrays or
            Python numbers come back as such, all others (also jax.ShapeDtypeStruct) as JAX arrays.

    Returns:
        The pytree and the metadata. Without a template the pytree is a nested dict of numpy arrays by path,
        without empty containers, and with typed random keys as their uint32 data.

    Raises:
        DamagedCheckpointError: the file is cut short, altered, or no checkpoint.
        CheckpointError: the file has a newer format, or does not fit the template.
    """
    return from_bytes(Path(path).read_bytes(), str(path), template)


def export_params(path: str | os.PathLike[str], params: Params, metadata: Mapping[str, Any]) -> None:
    """Write a learning algorithm to share: a file with the meta-parameters alone, for `load_params`.

    Args:
        path: the file; its folder must exist.
        params: meta-parameters, nested dict of arrays.
        metadata: what a stranger needs to use them, such as the resolved config.
    """
    save(path, {"params": params}, metadata)


def load_params(
    path: str | os.PathLike[str], template: Params | None = None
) -> tuple[Params, dict[str, Any]]:
    """Read the meta-parameters, saved under "params", of a checkpoint file or of a run.

    Args:
        path: a file, a run directory or its `checkpoints` folder. In a directory the best checkpoint is
            taken, the latest where no best one has been kept yet, else learner.safetensors.
        template: meta-parameters to compare names, shapes and dtypes with.

    Returns:
        The meta-parameters (empty for a learner without any) and the metadata of their file.

    Raises:
        FileNotFoundError: there is no such file, or no checkpoint in the directory.
        CheckpointError: the file is damaged, or the meta-parameters do not fit the template.
    """
    return params_from_bytes(find_params(path).read_bytes(), str(path), template)


def find_params(path: str | os.PathLike[str]) -> Path:
    """Return the file that `load_params` takes.

    Raises:
        FileNotFoundError: there is no checkpoint in the directory.
        CheckpointError: all are damaged.
    """
    if (name := str(path)).startswith(PRETRAINED_PREFIX):
        return _pretrained_file(name.removeprefix(PRETRAINED_PREFIX))
    path = Path(path)
    if not path.is_dir():
        return path
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    best = folder / BEST_NAME
    exported = path / EXPORT_NAME
    found = best if best.exists() else CheckpointStore(folder, keep=1).newest()
    if found is None and exported.exists():
        return exported
    if found is None:
        expected = f"{BEST_NAME}, step_*.safetensors or {EXPORT_NAME}"
        raise FileNotFoundError(f"no checkpoint in {folder}: expected {expected}")
    return found


def pretrained_names() -> tuple[str, ...]:
    """Return the names of the learning algorithms that come with the library."""
    return tuple(sorted(path.stem for path in PRETRAINED_FOLDER.glob("*.safetensors")))


def _pretrained_file(name: str) -> Path:
    if name not in pretrained_names():
        names = pretrained_names()
        expected = f"one of {', '.join(names)}, or the path of a file{suggestion(name, names)}"
        raise FileNotFoundError(f"{PRETRAINED_PREFIX}{name}: no such learning algorithm; expected {expected}")
    return PRETRAINED_FOLDER / f"{name}.safetensors"


def params_from_bytes(
    data: bytes, where: str, template: Params | None = None
) -> tuple[Params, dict[str, Any]]:
    """Decode the content of a file; `where` is for messages, the rest as in `load_params`."""
    tensors, metadata = _decode(data, where)
    params = {
        name.removeprefix("params/"): value for name, value in tensors.items() if name.startswith("params/")
    }
    return (_nest(params) if template is None else _fit(params, metadata, template, where)), metadata


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one run: the last `keep` as step_00000100.safetensors, and best.safetensors.

    Attributes:
        directory: the folder; made by the first save.
        keep: how many of the newest stay, at least 1.

    Raises:
        ValueError: `keep` is below 1.
    """

    directory: Path
    keep: int = 3

    def __post_init__(self) -> None:
        """Check `keep`."""
        if self.keep < 1:
            raise ValueError(f"checkpoint.keep: expected at least 1, got {self.keep}")

    def steps(self) -> list[int]:
        """Return the steps that have a file, ascending; damaged files count too."""
        found = (_STEP_NAME.fullmatch(path.name) for path in Path(self.directory).glob("step_*.safetensors"))
        return sorted(int(match[1]) for match in found if match)

    def path(self, step: int) -> Path:
        """Return the file of a step."""
        return Path(self.directory) / f"step_{step:08d}.safetensors"

    def save(self, step: int, tree: Any, metadata: Mapping[str, Any]) -> Path:
        """Write the checkpoint of a step, then delete all but the last `keep`.

        Files of later steps go too: they are left over from before the run was resumed from an earlier one.
        Nothing is deleted unless the new file is safely written.

        Args:
            step: meta steps done; recorded in the metadata.
            tree: as in `save`.
            metadata: as in `save`.

        Returns:
            The file.
        """
        self._write(self.path(step), step, tree, metadata)
        kept = [other for other in self.steps() if other <= step][-self.keep :]
        for other in self.steps():
            if other not in kept:
                self.path(other).unlink()
        return self.path(step)

    def save_best(self, step: int, tree: Any, metadata: Mapping[str, Any]) -> Path:
        """Replace best.safetensors; arguments as in `save`."""
        self._write(Path(self.directory) / BEST_NAME, step, tree, metadata)
        return Path(self.directory) / BEST_NAME

    def newest(self) -> Path | None:
        """Return the newest undamaged checkpoint, None where there is none at all.

        A damaged newer one is skipped with a warning that names it.

        Raises:
            CheckpointError: there are checkpoints, but all are damaged; or the newest has a newer format.
        """
        steps = self.steps()
        for step in reversed(steps):
            path = self.path(step)
            try:
                _decode(path.read_bytes(), str(path))
            except DamagedCheckpointError as error:
                warnings.warn(f"skipped a damaged checkpoint: {error}", stacklevel=2)
            else:
                return path
        if steps:
            raise CheckpointError(f"all {len(steps)} checkpoints in {self.directory} are damaged")
        return None

    def latest(self, template: Any = None) -> tuple[Any, dict[str, Any]] | None:
        """Load the newest undamaged checkpoint; None where there is none at all.

        Args:
            template: as in `load`. A checkpoint that does not fit it is an error and not skipped.

        Raises:
            CheckpointError: as `newest` and `load` raise it.
        """
        path = self.newest()
        return None if path is None else load(path, template)

    def _write(self, path: Path, step: int, tree: Any, metadata: Mapping[str, Any]) -> None:
        path.parent.mkdir(exist_ok=True)  # not its parents: a run's folder that is away is not to be replaced
        save(path, tree, {**metadata, "step": step})


def to_bytes(tree: Any, metadata: Mapping[str, Any]) -> bytes:
    """Return what `save` writes."""
    tensors, random_keys = _flatten(tree)
    text = json.dumps(
        {
            **metadata,
            "format_version": FORMAT_VERSION,
            "versions": library_versions(),
            "random_keys": random_keys,
        }
    )
    header = {"format_version": str(FORMAT_VERSION), "metadata": text, "sha256": _checksum(tensors, text)}
    return safetensors.numpy.save(tensors, header)


def from_bytes(data: bytes, where: str, template: Any = None) -> tuple[Any, dict[str, Any]]:
    """Return what `load` returns; `where` names the origin of the bytes in errors."""
    tensors, metadata = _decode(data, where)
    return (_nest(tensors) if template is None else _fit(tensors, metadata, template, where)), metadata


def _flatten(tree: Any) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the tensors by name, and the implementation of those that were typed random keys."""
    tensors: dict[str, np.ndarray] = {}
    random_keys = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = _name(path)
        if _is_random_key(leaf):
            random_keys[name] = str(jax.random.key_impl(leaf))
            leaf = jax.random.key_data(leaf)
        array = np.array(leaf, order="C")  # safetensors would store the wrong values of a transposed view
        if array.dtype not in _DTYPES.values():
            raise ValueError(f"checkpoint: {name} has dtype {array.dtype}; expected an array of numbers")
        if name in tensors:
            raise ValueError(f"checkpoint: two leaves of the tree are named {name}")
        tensors[name] = array
    return tensors, random_keys


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _is_random_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _checksum(tensors: Mapping[str, np.ndarray], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"\n{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _decode(data: bytes, where: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return tensors by name and metadata, after all checks that need no template."""
    try:
        views = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise DamagedCheckpointError(
            f"{where}: damaged, cut short or not a safetensors file ({error})"
        ) from error
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    version = header.get("format_version", "")
    if not version.isdecimal():
        raise DamagedCheckpointError(f"{where}: a safetensors file, but not a checkpoint of this library")
    if int(version) > FORMAT_VERSION:  # asked first: another format may have another checksum
        raise CheckpointError(
            f"{where}: has format version {version}, expected at most {FORMAT_VERSION}: upgrade vsml"
        )
    tensors = {}
    for name, view in views:
        if view["dtype"] not in _DTYPES:
            raise DamagedCheckpointError(f"{where}: {name} has the unknown dtype {view['dtype']}")
        tensors[name] = np.frombuffer(view["data"], _DTYPES[view["dtype"]]).reshape(view["shape"]).copy()
    text = header.get("metadata", "")
    if _checksum(tensors, text) != header.get("sha256"):
        raise DamagedCheckpointError(f"{where}: damaged, its content does not match its checksum")
    return tensors, json.loads(text)


def _nest(tensors: Mapping[str, np.ndarray]) -> Any:
    """Return the nested dict of names split at "/"; the array itself where the tree was a single leaf."""
    if set(tensors) == {""}:
        return tensors[""]
    tree: dict[str, Any] = {}
    for name, array in tensors.items():
        *folders, last = name.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = array
    return tree


def _fit(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any], template: Any, where: str) -> Any:
    """Return the tensors in the structure of the template, or raise with every difference."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    expected = {_name(path): leaf for path, leaf in leaves}
    problems = [
        *(f"{name}: missing" for name in expected if name not in tensors),
        *(f"{name}: not expected" for name in tensors if name not in expected),
    ]
    fitted = []
    for name, leaf in expected.items():
        if name not in tensors:
            continue
        got = _describe_saved(tensors[name], metadata["random_keys"].get(name))
        if got != _describe(leaf):
            problems.append(f"{name}: got {got}, expected {_describe(leaf)}")
        else:
            fitted.append(_like(leaf, tensors[name]))
    if problems:
        raise CheckpointError(f"{where}: does not fit what it is loaded into:\n  " + "\n  ".join(problems))
    return jax.tree_util.tree_unflatten(structure, fitted)


def _describe(leaf: Any) -> str:
    if _is_random_key(leaf):
        return f"random key {jax.random.key_impl(leaf)} {tuple(leaf.shape)}"
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return f"{np.dtype(leaf.dtype).name} {tuple(leaf.shape)}"


def _describe_saved(array: np.ndarray, random_key: str | None) -> str:
    if random_key is not None:
        return f"random key {random_key} {array.shape[:-1]}"
    return f"{array.dtype.name} {array.shape}"


def _like(leaf: Any, array: np.ndarray) -> Any:
    if _is_random_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf))
    if isinstance(leaf, bool | int | float | complex):
        return type(leaf)(array.item())
    return array if isinstance(leaf, np.ndarray | np.generic) else jnp.asarray(array)
