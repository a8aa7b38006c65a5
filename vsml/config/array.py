"""Many runs in one file: entries, or a grid of them, picked by number."""

import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from vsml.config.files import (
    DEFAULT_FILE,
    AnyConfig,
    ArrayEntry,
    ConfigError,
    load_config,
    read_section,
    show,
)
from vsml.config.folder import FOLDER, find_config
from vsml.settings import Section

_RANGE = re.compile(r"\s*(\d+)\s*(?:-\s*(\d+)\s*(?::\s*(\d+)\s*)?)?")


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | Mapping) else value


class _Entry(Section):
    config_files: tuple[str, ...] = ()
    config: Annotated[tuple[Any, ...], BeforeValidator(_listed)] = ()
    tags: tuple[str, ...] = ()


class _ArrayFile(Section):
    array: tuple[_Entry, ...] = ()
    grid: tuple[Annotated[tuple[_Entry, ...], Field(min_length=1)], ...] = ()


def load_array(path: str | Path, subset: str | None = None) -> tuple[ArrayEntry, ...]:
    """Read the runs of an array file.

    The file has either `array:`, a list of entries {config_files, config, tags}, or `grid:`, a list of
    axes, each a list of entries: the runs are their products, the first axis slowest. `config` is a list of
    `a.b=YAML` or of mappings, or one mapping. A relative config file is looked for beside the array file,
    then in the two folders above it, then in the working directory.

    Args:
        path: the array file, or the name of one of the library.
        subset: the entries to keep, from 1, such as "1,3-5"; None keeps all.

    Raises:
        ConfigError: lists every mistake of the file or of `subset`.
    """
    path = find_config(path)
    parsed = read_section(path, _ArrayFile)
    if bool(parsed.array) == bool(parsed.grid):
        raise ConfigError([f"{path}: expected entries in one of `array` and `grid`"])
    products = itertools.product(*parsed.grid) if parsed.grid else ((entry,) for entry in parsed.array)
    entries: list[ArrayEntry] = []
    mistakes: list[str] = []
    for number, parts in enumerate(products, start=1):
        try:
            entries.append(_combine(parts, path, f"{path} entry {number}"))
        except ConfigError as error:
            mistakes.extend(error.mistakes)
    if mistakes:
        raise ConfigError(mistakes)
    return tuple(entries[index] for index in _chosen(subset, len(entries)))


def _combine(parts: Iterable[_Entry], array_file: Path, label: str) -> ArrayEntry:
    parts = tuple(parts)
    names = [name for part in parts for name in part.config_files]
    config = [override for part in parts for override in part.config]
    folders = [*array_file.absolute().parents[:3], Path.cwd(), FOLDER]
    found = [next((f / name for f in folders if (f / name).is_file()), None) for name in names]
    wheres = " or ".join(dict.fromkeys(map(str, folders)))
    mistakes = [
        f"{label}: config file {name} is not in {wheres}"
        for name, file in zip(names, found, strict=True)
        if file is None
    ]
    mistakes += [
        f"{label}: config: got {show(item)}, expected path=value or a mapping"
        for item in config
        if not isinstance(item, str | Mapping)
    ]
    if mistakes:
        raise ConfigError(mistakes)
    tags = tuple(tag for part in parts for tag in part.tags)
    return ArrayEntry(label, tuple(file for file in found if file), tuple(config), tags, tuple(names))


def _chosen(subset: str | None, count: int) -> list[int]:
    """Return the positions, from 0, of the entries that "1,3-5" names."""
    if subset is None:
        return list(range(count))
    try:
        numbers = parse_ranges(subset, count)
    except RangeError as error:
        expected = f"numbers or ranges from 1 to {count}, such as 1,3-5"
        raise ConfigError([f"--subset {subset}: got {error.part!r}, expected {expected}"]) from error
    if len(set(numbers)) < len(numbers):
        raise ConfigError([f"--subset {subset}: an entry is named twice"])
    return [number - 1 for number in numbers]


class RangeError(ValueError):
    """A text that does not name numbers of an array.

    Attributes:
        part: what is wrong in it, between two commas.
    """

    def __init__(self, part: str) -> None:
        super().__init__(f"got {part!r}, expected a number or a range such as 3-5 or 1-9:2")
        self.part = part


def parse_ranges(text: str, count: int | None = None) -> list[int]:
    """Return the numbers that "1,3-5" or "1-9:2" names, in its order; some may be there twice.

    Args:
        text: numbers from 1 and ranges of them, whose last part is a step.
        count: the largest number that there is; None does not check that.

    Raises:
        RangeError: a part is of another form, or names a number that is not there.
    """
    numbers: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise RangeError(part)
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        is_there = count is None or last <= count
        if not (1 <= first <= last and step >= 1 and is_there):
            raise RangeError(part)
        numbers.extend(range(first, last + 1, step))
    return numbers


def load_array_configs(
    schema: type[AnyConfig],
    entries: Sequence[ArrayEntry],
    files: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    *,
    tags: Sequence[str] = (),
    default: str | Path | None = DEFAULT_FILE,
) -> tuple[AnyConfig, ...]:
    """Return the configuration of every entry, so that none starts while another is wrong.

    Args:
        schema: the sections that there are.
        entries: what `load_array` returned; the rest as for `load_config`.
        files: YAML files below every entry.
        overrides: `a.b=YAML` on top of every entry.
        tags: added to tracking.wandb.tags.
        default: the lowest file.

    Raises:
        ConfigError: lists every mistake of every entry.
    """
    configs: list[AnyConfig] = []
    mistakes: list[str] = []
    for entry in entries:
        try:
            config = load_config(schema, files, overrides, entry=entry, tags=tags, default=default)
            configs.append(config)
        except ConfigError as error:
            mistakes.extend(error.mistakes)
    if mistakes:
        raise ConfigError(mistakes)
    return tuple(configs)


def array_index(given: int | None, count: int, environ: Mapping[str, str] = os.environ) -> int:
    """Return which of `count` array entries to run, from 1.

    Args:
        given: --array_index, which goes first.
        count: entries there are, after --subset.
        environ: where SLURM_ARRAY_TASK_ID is looked up.

    Raises:
        ConfigError: no index, or one out of range.
    """
    text = environ.get("SLURM_ARRAY_TASK_ID") if given is None else str(given)
    name = "SLURM_ARRAY_TASK_ID" if given is None else "--array_index"
    if text is None:
        expected = f"--array_index or SLURM_ARRAY_TASK_ID, a number from 1 to {count}"
        raise ConfigError([f"the array has {count} entries and none was chosen: expected {expected}"])
    if not text.isdecimal() or not 1 <= int(text) <= count:
        raise ConfigError([f"{name}: got {text}, expected a number from 1 to {count}"])
    return int(text)
