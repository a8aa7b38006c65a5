"""What was measured, against the oracle and against what the machine could do; as a table and as JSON."""

import dataclasses
import datetime
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from benchmarks.cases import NUM_CLASSES, Case
from benchmarks.contestants import ORACLE
from vsml.cost.counts import Cost, cost_of
from vsml.cost.roofline import Bound, Roofline, bound, machine_name, resident_bytes, slug
from vsml.learners import Vsml
from vsml.meta.objectives.episode import kept_states, segments_of
from vsml.meta.trials import state_bytes
from vsml.reporting.tables import Table
from vsml.runs.environment import git_state
from vsml.system.files import library_versions

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Result:
    """What came out for one contestant in one case.

    Attributes:
        case: the case.
        contestant: who.
        examples_per_s: over all devices together; None where nothing was run.
        memory_bytes: of one device; None where nothing was compiled.
        note: why something is missing, else empty.
    """

    case: Case
    contestant: str
    examples_per_s: float | None = None
    memory_bytes: int | None = None
    note: str = ""


def learner_of(case: Case) -> Vsml:
    """Return the learner that a case is about; others do the same work."""
    return Vsml(case.input_shape, NUM_CLASSES, case.config())


def segments_in(case: Case) -> int:
    """Return into how many segments the episodes of a case are cut."""
    if case.what == "forward" or not case.segmented:
        return 1
    return segments_of(learner_of(case), case.episode_length, 1)


def cost_in(case: Case) -> Cost:
    """Return the cost of an example."""
    return cost_of(learner_of(case), 1, case.what, segments_in(case))


def bound_in(case: Case, roofline: Roofline) -> Bound:
    """Return the least time of an example."""
    kept = case.members_of_unit
    if case.what == "gradient":
        kept = kept_states(case.episode_length, segments_in(case))
    units = case.members // case.members_of_unit
    resident = resident_bytes(state_bytes(learner_of(case), 1), units, kept)
    return bound(cost_in(case), roofline, resident)


def rows_of(results: Sequence[Result], roofline: Roofline | None) -> list[dict[str, Any]]:
    """Return the results with all that can be said of them, ready for JSON."""
    oracles = {result.case: result for result in results if result.contestant == ORACLE}
    rows = []
    for result in results:
        case, oracle = result.case, oracles.get(result.case)
        least = bound_in(case, roofline) if roofline else None
        row: dict[str, Any] = {
            "axis": case.axis,
            "what": case.what,
            "layers": case.layers,
            "depth": len(case.hidden) + 1,
            "inputs": case.inputs,
            "members": case.members,
            "episode_length": case.episode_length,
            "segments": segments_in(case),
            "contestant": result.contestant,
            "examples_per_s": result.examples_per_s,
            "of_oracle": _ratio(result.examples_per_s, oracle and oracle.examples_per_s),
            "least_s_of_example": least and least.total_s,
            "bottleneck": least and least.bottleneck,
            "of_roofline": result.examples_per_s and least and result.examples_per_s * least.total_s,
            "memory_bytes": result.memory_bytes,
            "memory_saving": _ratio(oracle and oracle.memory_bytes, result.memory_bytes),
            "note": result.note,
        }
        rows.append(row)
    return rows


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one and other else None


def table_of(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """Return the results as a table, a line for each contestant in each case."""
    left = ("what", "layers", "contestant", "note")
    headings = ("what", "layers", "T", "members", "contestant", "examples/s", "of roofline", "of oracle")
    cells = []
    for row in rows:
        cut = f" in {row['segments']}" if row["segments"] > 1 else ""
        mebibytes = row["memory_bytes"] and row["memory_bytes"] / 2**20
        cells.append(
            [
                row["what"],
                row["layers"],
                f"{row['episode_length']:,}{cut}",
                f"{row['members']:,}",
                row["contestant"],
                _formatted(row["examples_per_s"], "{:,.0f}"),
                _formatted(row["of_roofline"], "{:.1%}"),
                _formatted(row["of_oracle"], "{:.2f}x"),
                _formatted(mebibytes, "{:,.1f}"),
                _formatted(row["memory_saving"], "{:.1f}x"),
                row["note"],
            ]
        )
    caption = (
        "T in n: cut into n segments. of roofline: examples/s of what the machine's rates allow. MiB: of one "
        "device, as the compiler reports it; oracle's: how many times as much the oracle needs"
    )
    return Table((*headings, "MiB", "oracle's", "note"), cells, title, caption, frozenset(left))


def _formatted(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def record_of(
    rows: Sequence[dict[str, Any]], roofline: Roofline | None, settings: dict[str, Any]
) -> dict[str, Any]:
    """Return all of it ready for JSON; no names of machines or folders."""
    devices = jax.local_devices()
    return {
        "date": datetime.date.today().isoformat(),
        "machine": {
            "name": machine_name(),
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "devices": len(devices),
        },
        "versions": library_versions(),
        "python": platform.python_version(),
        "git": git_state(ROOT),
        "roofline": dataclasses.asdict(roofline) if roofline else None,
        "num_classes": NUM_CLASSES,
        "settings": settings,
        "results": list(rows),
    }


def default_path(about: str = "") -> Path:
    """Return where results are written unless something else is asked for; `about` is put into the name."""
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M")
    return ROOT / "benchmarks" / "results" / f"{now}-{about and f'{about}-'}{slug(machine_name())}.json"


def write(record: dict[str, Any], path: Path) -> None:
    """Write a record; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
