"""The reference page of all settings: `make docs`."""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from vsml.launching.schema import WholeConfig

_INTRODUCTION = """\
# Configuration reference

Generated from the schema in `vsml/config/` by `make docs`.

A run is described by YAML files and by settings on the command line:

    python launch.py --config_files configs/rand_proj.yaml --config training.iterations=500 seed=1
    vsml run rand_proj --config training.iterations=500 seed=1

A name stands for a configuration of the library, unless a file of that name is there. `vsml configs` lists
them.

**Which value wins.** From the weakest to the strongest: the defaults below, `configs/default.yaml`, each of
`--config_files` in order, the entry of an `--array` file, each `--config` in order. Mappings merge key by
key; everything else (numbers, texts, lists, null, a split) replaces what was there.

Numbers that YAML reads in a way of its own, such as 0500 (octal) and 1:30 (to the base of sixty),
are refused; quotes make them text.

**On the command line** the part after `=` is YAML: `--config evaluation.datasets=[digits]`. A number as a key
goes into a list, counted from 0, and the number after the last one appends:
`--config model.vsml.layers.0.out_size=32`. `1e-3` is a number, in files too.

**Splits.** Settings marked *splittable* take one value, or `{split: [a, b, ...], repeat: n}`: then the
trials of a meta step (antithetic pairs for `es`, episodes for `gradient`) differ, and trial i takes option
`(i // n) mod length`; `repeat` is 1 where it is absent. `pad` may be split as a whole, too. Evaluation takes
the first option.

**Schedules.** `optimizer.learning_rate` and `optimizer.noise_std` take a number or a schedule (last table).

**Arrays.** `--array FILE` holds many runs, of which `--array_index` or `SLURM_ARRAY_TASK_ID` (both from 1)
picks one. Either a list of entries, or axes whose products are the runs (the first axis varies slowest):

    array:
      - {config_files: [rand_proj.yaml], config: [training.dataset=kmnist], tags: [kmnist]}
      - {config: {training: {dataset: usps}}}

    grid:
      - [{config: [training.dataset=mnist]}, {config: [training.dataset=kmnist]}]
      - [{config: [seed=0]}, {config: [seed=1]}, {config: [seed=2]}]

Config files are looked for beside the array file, in the two folders above it, in the working directory, then
among those of the library.
Every run is checked before one starts; `--subset 1,3-5` keeps some entries and counts among those.
"""

_SHARED = ("Schedule", "FewShot", "Preprocess")  # described once: in tables of their own, in data.preprocess
_BOUNDS = {
    "ge": "≥",
    "minimum": "≥",
    "gt": ">",
    "exclusiveMinimum": ">",
    "le": "≤",
    "maximum": "≤",
    "lt": "<",
}
_NAMES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "object": "mapping",
    "null": "null",
}


def reference() -> str:
    """Return the page as Markdown: one table per section, from the JSON schema of `WholeConfig`."""
    schema = WholeConfig.model_json_schema()
    definitions = schema["$defs"]
    tables = [*_tables("", schema, definitions)]
    for path, name in (("data.few_shot", "FewShot"), ("Schedule", "Schedule")):
        tables += _tables(path, definitions[name], definitions)
    return "\n\n".join((_INTRODUCTION.rstrip(), *tables)) + "\n"


def _tables(path: str, section: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[str]:
    """Yield the table of a section, where it has rows, then those of the sections in it."""
    summary = section["description"].split("\n")[0]
    lines = [
        f"## {path or 'Top level'}",
        "",
        summary,
        "",
        "| setting | values | default | meaning |",
        "|---|---|---|---|",
    ]
    below = []
    for key, field in section["properties"].items():
        dotted = f"{path}.{key}" if path else key
        names = [name for name in _references(field.get("items", field)) if name not in _SHARED]
        below += [(f"{dotted}.N" if "items" in field else dotted, definitions[name]) for name in names]
        may_be_null = any(form.get("type") == "null" for form in _forms(field))
        if not names or "items" in field or may_be_null:
            default = f"`{json.dumps(_default(field))}`" if "default" in field else "(needed)"
            lines.append(f"| `{key}` | {_values(field)} | {default} | {field['description']} |")
    if len(lines) > 6:
        yield "\n".join(lines)
    for dotted, definition in below:
        yield from _tables(dotted, definition, definitions)


def _default(field: Mapping[str, Any]) -> Any:
    """Return the default of a field; that of a mapping is kept as pairs."""
    default = field["default"]
    return dict(default) if field.get("type") == "object" else default


def _forms(field: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [inner for form in field.get("oneOf", field.get("anyOf", ())) for inner in _forms(form)] or [field]


def _references(field: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the sections that a field may hold, splits left out."""
    for form in _forms(field):
        name = form.get("$ref", "").removeprefix("#/$defs/")
        if name and not name.startswith("Split_"):
            yield name


def _values(field: Mapping[str, Any]) -> str:
    """Say in words what a field takes."""
    forms = _forms(field)
    split = any("Split_" in form.get("$ref", "") for form in forms)
    words = [_form(form) for form in forms if "Split_" not in form.get("$ref", "")]
    return " or ".join(dict.fromkeys(words)) + (" (*splittable*)" if split else "")


def _form(form: Mapping[str, Any]) -> str:
    if "$ref" in form:
        return "schedule" if form["$ref"].endswith("/Schedule") else "mapping"
    if "const" in form or "enum" in form:
        return ", ".join(f"`{value}`" for value in form.get("enum", [form.get("const")]))
    if form["type"] == "boolean":
        return "`true`, `false`"
    if "prefixItems" in form:
        return f"list of {len(form['prefixItems'])}: {_form(form['prefixItems'][0])}"
    if "items" in form:
        return f"list of: {_values(form['items'])}"
    bounds = [f"{sign} {form[bound]}" for bound, sign in _BOUNDS.items() if bound in form]
    return " ".join((_NAMES[form["type"]], ", ".join(bounds))).strip()


def main() -> None:
    """Print the page, which is made of docstrings: PYTHONOPTIMIZE=2 and -OO leave them out."""
    if sys.flags.optimize >= 2:
        sys.exit("error: got PYTHONOPTIMIZE=2 or -OO, expected docstrings, which the page is made of")
    print(reference(), end="")


if __name__ == "__main__":
    main()
