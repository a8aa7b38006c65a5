"""From YAML files and the command line to a checked configuration, and back to YAML.

Later layers win: schema defaults < default.yaml < files in order < array entry < overrides `a.b=YAML`.
Mappings merge key by key. Everything else replaces what was there: scalars, lists, null, and
`{split: ...}`, which is one value.
"""

import difflib
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from vsml.config.folder import FOLDER, find_config, similar_configs
from vsml.config.renamed import present_key, with_present_keys
from vsml.config.schema import Config
from vsml.settings import SectionError, merge

DEFAULT_FILE = FOLDER / "default.yaml"
"""The lowest file."""

MAX_FILE_BYTES = 1 << 20
"""Size of a YAML file, at most."""

MAX_DEPTH = 50
"""How deep values may be nested, and how many parts a dotted path may have."""

MAX_VALUES = 20_000
"""How many values a text may have, aliases counted as what they stand for."""

MAX_DIGITS = 19
"""How many digits a whole number may have: those of 64 bits."""

MAX_LINES = 40
"""How many lines a message about mistakes has, at most."""

MAX_CHARACTERS = 2000
"""How long the message about one mistake is, at most."""

KeyPath = tuple[Any, ...]
AnySection = TypeVar("AnySection", bound=BaseModel)
AnyConfig = TypeVar("AnyConfig", bound=Config)


class ConfigError(ValueError):
    """All mistakes of a configuration at once.

    Attributes:
        mistakes: one line each: dotted path, got, expected, and where the value came from. The message has
            the first of them, MAX_LINES lines at most.
    """

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(dict.fromkeys(mistakes))
        count = len(self.mistakes)
        heading = f"{count} mistake{'s' if count > 1 else ''} in the configuration:"
        lines = [heading]
        for mistake in self.mistakes:
            rest = count - (len(lines) - 1)
            # The last line is for how many are left out.
            if len(lines) == MAX_LINES - 1 and rest > 1:
                lines.append(f"and {rest} more")
                break
            is_long = len(mistake) > MAX_CHARACTERS
            lines.append(f"{mistake[:MAX_CHARACTERS]}..." if is_long else mistake)
        super().__init__("\n  ".join(lines))


# Merging.


def _assign(tree: Any, path: KeyPath, value: Any) -> Any:
    """Return `tree` with `value` merged in at `path`.

    Raises:
        LookupError: a list has no such place, or there is no list; the message says what there is.
    """
    if not path:
        return merge(tree, value)
    key, rest = path[0], path[1:]
    if not isinstance(key, int):
        if isinstance(tree, list):
            raise LookupError(f"{key!r} is no place in a list; expected a number from 0 to {len(tree)}")
        below = tree if isinstance(tree, Mapping) else {}
        return {**below, key: _assign(below.get(key), rest, value)}
    if isinstance(tree, Mapping):
        raise LookupError(f"{key} is no key of a mapping; expected one of {', '.join(map(str, tree))}")
    items = tree if isinstance(tree, list) else []
    if key > len(items):
        raise LookupError(f"{key} is no place in a list; expected a number from 0 to {len(items)}")
    item = items[key] if key < len(items) else None
    return [*items[:key], _assign(item, rest, value), *items[key + 1 :]]


def _paths(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the path of every node in `value`, `path` being its own."""
    yield path
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, child in items:
        yield from _paths(child, (*path, key))


# Reading.


class _Loader(yaml.SafeLoader):
    """Safe YAML 1.1 that also takes 1e-3 (no dot) for a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)

_INT_TAG = "tag:yaml.org,2002:int"
_FLOAT_TAG = "tag:yaml.org,2002:float"

_OCTAL = re.compile(r"[-+]?0[0-9_]+")

_CONSTRUCT_ERRORS = (LookupError, AttributeError, TypeError, ArithmeticError, RecursionError)
"""What pyyaml raises, besides its own errors, for a tag that does not fit its value, as `!!bool maybe`."""


def _parse(text: str, source: str) -> tuple[Any, dict[KeyPath, int]]:
    """Return what a YAML text says, and the line (from 1) of every node.

    Raises:
        ConfigError: a syntax error, a key given twice, a number that YAML reads in another way than most
            readers do, or more than a configuration can be; with line and column.
    """
    try:
        _check_bounds(text)
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[KeyPath, int] = {}
        mistakes = list(_inspect(node, (), (), lines)) if node else []
        if not mistakes:
            return (loader.construct_document(node) if node else None), lines
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none, such as 2021-13-01
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1} column {mark.column + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError([f"{source}{place}: not valid YAML: {problem}"]) from error
    except _CONSTRUCT_ERRORS as error:
        raise ConfigError([f"{source}: not valid YAML: a tag (!!) that does not fit its value"]) from error
    raise ConfigError(f"{source} {mistake}" for mistake in mistakes)


def _check_bounds(text: str) -> None:
    """Go through a text without building anything, and stop where it is no configuration.

    Raises:
        yaml.YAMLError: a syntax error, too deep a nesting, or too many values.
    """
    sizes: dict[str, int] = {}  # of what an alias stands for, by the name of its anchor
    open_sizes = [0]
    open_anchors: list[str | None] = []
    for event in yaml.parse(text, Loader=_Loader):
        size = 0
        if isinstance(event, yaml.CollectionStartEvent):
            open_sizes.append(1)
            open_anchors.append(event.anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            size = open_sizes.pop()
            anchor = open_anchors.pop()
            if anchor is not None:
                sizes[anchor] = size
        elif isinstance(event, yaml.ScalarEvent):
            size = 1
        elif isinstance(event, yaml.AliasEvent):
            size = sizes.get(str(event.anchor), 1)
        open_sizes[-1] += size
        if len(open_sizes) > MAX_DEPTH:
            raise _beyond_bounds(f"nested more than {MAX_DEPTH} deep", event)
        if open_sizes[-1] > MAX_VALUES:
            problem = f"more than {MAX_VALUES} values, aliases counted as what they stand for"
            raise _beyond_bounds(problem, event)


def _beyond_bounds(problem: str, event: yaml.Event) -> yaml.YAMLError:
    """Return the error that names the place of an event."""
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)  # type: ignore[arg-type]


def _inspect(
    node: yaml.Node, path: KeyPath, above: tuple[yaml.Node, ...], lines: dict[KeyPath, int]
) -> Iterator[str]:
    """Fill `lines`, and yield what is not taken: keys given twice, endless aliases, ambiguous numbers."""
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if node in above:
        yield f"line {line}: not valid here: an alias that contains itself"
    elif isinstance(node, yaml.MappingNode):
        first_lines: dict[str, int] = {}
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode):
                yield f"line {key.start_mark.line + 1}: got a list or mapping as a key, expected text"
                continue
            name, line = key.value, key.start_mark.line + 1
            if name in first_lines and name != "<<":
                first = f"first in line {first_lines[name]}"
                yield f"line {line}: {_dotted((*path, name))} is given twice, {first}"
            first_lines.setdefault(name, line)
            lines.setdefault((*path, name), line)
            yield from _inspect(child, (*path, name), (*above, node), lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield from _inspect(child, (*path, index), (*above, node), lines)
    else:
        fault = _fault_of_number(node)
        if fault:
            place = f"{_dotted(path)}: " if path else ""
            yield f"line {line}: {place}{fault}"


def _fault_of_number(node: yaml.Node) -> str | None:
    """Return why a scalar is refused: YAML 1.1 reads 0500 as 320, and 1:30 as 90."""
    text = node.value
    if node.tag not in (_INT_TAG, _FLOAT_TAG):
        return None
    if ":" in text:
        expected = "a number without colons, or text in quotes"
        return f"got {text[:80]}, which YAML reads as a number to the base of sixty, expected {expected}"
    if node.tag == _INT_TAG and _OCTAL.fullmatch(text):
        expected = f"{text.lstrip('+-0_') or '0'} without leading zeros, or text in quotes"
        return f"got {text[:80]}, which YAML reads as an octal number, expected {expected[:120]}"
    if node.tag == _INT_TAG and len(text.lstrip("+-")) > MAX_DIGITS:
        return f"got a whole number of {len(text.lstrip('+-'))} digits, expected at most {MAX_DIGITS}"
    return None


def _read_mapping(path: Path) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """Return the mapping in a YAML file (empty for an empty file), and the line of every node."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        text = content.decode("utf-8-sig")  # without the mark that some editors of Windows put in front
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        where = f"(working directory {Path.cwd()}){similar_configs(path)}"
        raise ConfigError([f"{path}: cannot be read: {reason} {where}"]) from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError([f"{path}: has more than {MAX_FILE_BYTES} bytes, expected a configuration"])
    value, lines = _parse(text, str(path))
    if value is not None and not isinstance(value, dict):
        raise ConfigError([f"{path}: got {show(value)} at the top, expected a mapping of sections"])
    return value or {}, lines


def _parse_override(text: str) -> tuple[KeyPath, Any]:
    """Return path and value of `a.b.0=YAML`.

    Raises:
        ConfigError: no `=`, an empty key, or a value that is not YAML.
    """
    dotted, equals, value = text.partition("=")
    keys = [key.strip() for key in dotted.split(".")]
    shown = _on_one_line(text)
    if not equals or not all(keys):
        raise ConfigError(
            [f"--config {shown}: got {show(text)}, expected path=value, such as training.iterations=5"]
        )
    if len(keys) > MAX_DEPTH:
        raise ConfigError([f"--config {shown}: got {len(keys)} parts, expected at most {MAX_DEPTH}"])
    return _key_path(keys), _parse(value, f"--config {shown}:")[0]


def _on_one_line(text: str) -> str:
    """Return a text as messages have it, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:197]}..."


def _key_path(keys: Iterable[str]) -> KeyPath:
    return tuple(int(key) if _is_index(key) else key for key in keys)


def _is_index(key: str) -> bool:
    """Return whether a part of a path is the number of a place in a list."""
    return key.isascii() and key.isdigit() and len(key) <= MAX_DIGITS


def _dotted(path: KeyPath) -> str:
    return ".".join(map(str, path))


def show(value: Any) -> str:
    """Return the value as messages show it, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of thousands of digits
        text = f"a number of {value.bit_length()} bits" if isinstance(value, int) else "a very long number"
    return text if len(text) <= 80 else f"{text[:77]}..."


# Layers and where their values came from.


class _Layers:
    """A raw configuration that grows layer by layer, with the sources of its values and the mistakes."""

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self.tree: Any = tree
        self.sources: dict[KeyPath, str] = {}
        self.mistakes: list[str] = []

    def add_file(self, path: Path) -> None:
        try:
            value, lines = _read_mapping(path)
        except ConfigError as error:
            self.mistakes.extend(error.mistakes)
            return
        self.tree = merge(self.tree, with_present_keys(value, str(path)))
        self.sources |= {key_path: f"{path} line {line}" for key_path, line in lines.items()}

    def add_override(self, override: str | Mapping[str, Any], label: str = "") -> None:
        """Put `a.b=YAML`, or a mapping whose keys may be dotted, on top; `label` says who asks for it."""
        source = label or f"--config {_on_one_line(str(override))}"
        try:
            if isinstance(override, str):
                assignments = [_parse_override(override)]
            else:
                assignments = [(_key_path(str(key).split(".")), value) for key, value in override.items()]
        except ConfigError as error:
            self.mistakes.extend(
                mistake + (f" (from {label})" if label else "") for mistake in error.mistakes
            )
            return
        for given_path, given_value in assignments:
            dotted = _dotted(given_path)
            path = (*given_path[:-1], present_key(dotted, given_path[-1], source))
            value = with_present_keys(given_value, source, dotted)
            try:
                self.tree = _assign(self.tree, path, value)
            except LookupError as error:
                self.mistakes.append(f"{_dotted(path)}: {error} (from {source})")
            else:
                self.sources |= dict.fromkeys(_paths(value, path), source)

    def add_tags(self, tags: Sequence[str], label: str) -> None:
        """Append to tracking.wandb.tags; a value there that is no list is left for the schema to refuse."""
        path = ("tracking", "wandb", "tags")
        present = self.tree
        for key in path:
            present = present.get(key) if isinstance(present, Mapping) else None
        if tags and isinstance(present, list):
            self.tree = _assign(self.tree, path, [*present, *tags])
            self.sources |= {(*path, len(present) + index): label for index in range(len(tags))}

    def source(self, paths: Iterable[KeyPath]) -> str:
        """Say where the first of these values that is not a default came from."""
        heads = (path[:length] for path in paths for length in range(len(path), 0, -1))
        return next((f" (from {self.sources[head]})" for head in heads if head in self.sources), "")


# Checking against the schema.


class _Finding(NamedTuple):
    path: KeyPath
    message: str
    involved: tuple[KeyPath, ...]


def _validate(layers: _Layers, schema: type[AnySection]) -> AnySection:
    """Build the section, or raise ConfigError with every mistake.

    Checks between values run only where the values themselves are right. So wrong ones are taken out and
    the rest is checked again, until nothing is wrong; what rests on a value taken out is not judged.
    """
    tree, mistakes, removed = layers.tree, list(layers.mistakes), set[KeyPath]()
    while True:
        try:
            section = schema.model_validate(tree)
        except ValidationError as error:
            findings = list(_findings(error, schema))
        else:
            if mistakes:
                raise ConfigError(mistakes)
            return section
        for finding in findings:
            if not any(_overlap(path, gone) for path in finding.involved for gone in removed):
                mistakes.append(
                    f"{_dotted(finding.path)}: {finding.message}{layers.source(finding.involved)}"
                )
        before, gone_now = tree, set[KeyPath]()
        for finding in findings:
            for path in finding.involved:
                gone = _nearest(tree, path)
                resting = path != finding.path and gone != path  # a default, or taken out before
                if not resting and not any(path[:depth] in gone_now for depth in range(len(path) + 1)):
                    tree = _drop(tree, gone)
                    gone_now.add(gone or path)
        removed.update(gone_now)
        if tree == before:
            raise ConfigError(mistakes)


def _overlap(one: KeyPath, other: KeyPath) -> bool:
    return all(a == b for a, b in zip(one, other, strict=False))


def _nearest(tree: Any, path: KeyPath) -> KeyPath:
    """Return the longest part of `path` that is there and is a key of a mapping, as lists go whole."""
    deepest = 0
    for depth, key in enumerate(path, start=1):
        if isinstance(tree, Mapping) and key in tree:
            tree, deepest = tree[key], depth
        elif isinstance(tree, list) and isinstance(key, int) and key < len(tree):
            tree = tree[key]
        else:
            break
    return path[:deepest]


def _drop(tree: Any, path: KeyPath) -> Any:
    """Return `tree` less what is at `path`; an empty path drops nothing."""
    if not path:
        return tree
    key, rest = path[0], path[1:]
    if isinstance(tree, list):
        return [*tree[:key], _drop(tree[key], rest), *tree[key + 1 :]]
    if rest:
        return {**tree, key: _drop(tree[key], rest)}
    return {name: value for name, value in tree.items() if name != key}


_EXPECTED = {  # where pydantic speaks of Python and the reader thinks of YAML
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "string_pattern_mismatch": "text without spaces and slashes",
    "tuple_type": "a list",
    "too_short": "at least {min_length} in the list",
    "too_long": "at most {max_length} in the list",
    "model_type": "a mapping",
    "dataclass_type": "a mapping",
    "mapping_type": "a mapping",
}


_SPLITTABLE = (
    "only training.dataset, training.episode_length, data.filter_classes and each value in data.preprocess "
    "may be split"
)


def _findings(error: ValidationError, schema: type[BaseModel]) -> Iterator[_Finding]:
    for detail in error.errors(include_url=False):
        path = tuple(key for key in detail["loc"] if not str(key).startswith("<"))
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, SectionError):
            for problem in cause.problems:
                own, *others = ((*path, *_key_path(p.split("."))) for p in (problem.path, *problem.involves))
                message = f"got {show(problem.got)}, expected {problem.expected}"
                yield _Finding(own, message, (own, *others))
        elif detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            yield _Finding(path, f"unknown key{_suggestion(path, schema)}", (path,))
        elif detail["type"] in ("missing", "missing_argument"):
            yield _Finding(path, "missing, and it has no default", (path,))
        else:
            expected = detail["msg"].removeprefix("Input should be ")
            if detail["type"] in _EXPECTED:
                expected = _EXPECTED[detail["type"]].format(**detail.get("ctx", {}))
            if isinstance(detail["input"], Mapping) and "split" in detail["input"]:
                expected += f"; {_SPLITTABLE}"
            yield _Finding(path, f"got {show(detail['input'])}, expected {expected}", (path,))


def _suggestion(path: KeyPath, schema: type[BaseModel]) -> str:
    known = {schema}
    for key in path[:-1]:
        if isinstance(key, str) and key != "split":
            known = {model for each in known if key in each.model_fields for model in _models(each, key)}
    key = str(path[-1])
    # Of a section in several forms, another form may know the key.
    siblings = sorted({name for model in known for name in model.model_fields} - {key})
    if key == "split":
        return f"; {_SPLITTABLE}"
    close = [_dotted((*path[:-1], name)) for name in difflib.get_close_matches(key, siblings, n=1)]
    elsewhere = [dotted for dotted in _all_paths(schema) if dotted.rpartition(".")[-1] == key]
    if close or elsewhere:
        return f"; did you mean {' or '.join(close or elsewhere)}?"
    return f"; known here: {', '.join(siblings)}" if siblings else ""


def _models(model: type[BaseModel], key: str) -> Iterator[type[BaseModel]]:
    """Yield the sections that field `key` may hold."""
    stack: list[Any] = [model.model_fields[key].annotation]
    while stack:
        annotation = stack.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield annotation
        else:
            stack.extend(get_args(annotation))


@functools.cache
def _all_paths(schema: type[BaseModel]) -> tuple[str, ...]:
    return tuple(_schema_paths(schema))


def _schema_paths(schema: type[BaseModel], above: str = "") -> Iterator[str]:
    """Yield the dotted path of every setting, sections left out."""
    for name, field in schema.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _schema_paths(field.annotation, f"{above}{name}.")
        else:
            yield above + name


def read_section(path: Path, schema: type[AnySection]) -> AnySection:
    """Read one YAML file as one section, or raise ConfigError with every mistake."""
    layers = _Layers({})
    layers.add_file(path)
    return _validate(layers, schema)


# Whole configurations.


@dataclass(frozen=True)
class ArrayEntry:
    """One run of an array file.

    Attributes:
        label: file and number, for messages.
        config_files: YAML files, merged over the ones given on the command line.
        config: overrides `a.b=YAML`, or mappings, in order.
        tags: added to tracking.wandb.tags.
        named: what the array file calls `config_files`.
    """

    label: str
    config_files: tuple[Path, ...] = ()
    config: tuple[str | Mapping[str, Any], ...] = ()
    tags: tuple[str, ...] = ()
    named: tuple[str, ...] = ()


def load_config(
    schema: type[AnyConfig],
    files: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    *,
    entry: ArrayEntry | None = None,
    tags: Sequence[str] = (),
    default: str | Path | None = DEFAULT_FILE,
) -> AnyConfig:
    """Merge all layers and check the result.

    Args:
        schema: the sections that there are.
        files: YAML files, or names of configurations of the library (see `find_config`), merged in order.
        overrides: `a.b=YAML` each, on top of everything. A number as a key goes into a list, from 0; the one
            after the last appends.
        entry: an array entry, between files and overrides.
        tags: added to tracking.wandb.tags.
        default: the lowest file. DEFAULT_FILE is left out where it is not installed; None leaves it out, as
            is right for the config.yaml that a run has written.

    Raises:
        ConfigError: lists every mistake in files, overrides and values.
    """
    layers = _Layers(_plain(schema()))
    if default is not None and (default != DEFAULT_FILE or DEFAULT_FILE.exists()):
        layers.add_file(Path(default))
    for file in files:
        layers.add_file(find_config(file))
    if entry is not None:
        for file in entry.config_files:
            layers.add_file(file)
        for override in entry.config:
            layers.add_override(override, entry.label)
        layers.add_tags(entry.tags, entry.label)
    for text in overrides:
        layers.add_override(text)
    layers.add_tags(tags, "--tags")
    return _validate(layers, schema)


def _plain(config: BaseModel) -> dict[str, Any]:
    return config.model_dump(mode="json", by_alias=True)


def dump(config: BaseModel) -> str:
    """Return YAML with every setting; `load_config` reads the same configuration from it."""
    return yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True, default_flow_style=None)
