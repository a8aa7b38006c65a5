"""Laws on file: the points that runs came to and the settings that they share, in a file of JSON each.

A file has points and no numbers of a law: these are fitted when it is read, in a second, so they are never
those of another version of the fit.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vsml.laws.points import Points
from vsml.laws.runs import Family
from vsml.laws.variables import variables_of
from vsml.runs.metrics import is_number
from vsml.system.files import write_json

VERSION = 1

SHIPPED = Path(__file__).with_name("measured")
"""Laws that were measured with this library, and come with it."""

OWN = Path("runs", "laws")
"""Where `vsml laws fit` writes those of a user."""


def write_law(path: Path, family: Family) -> None:
    """Write the points of a law and the settings that they share."""
    points = family.points
    rows = []
    for number in range(len(points)):
        step_s = float(family.step_s[number])
        rows.append(
            {
                # Of the folder its last names: where runs are is no matter here.
                "run": "/".join(Path(str(points.runs[number])).parts[-2:]),
                "sizes": points.x[number].tolist(),
                "loss": float(points.loss[number]),
                "step_flops": float(family.step_flops[number]),
                "step_s": step_s if np.isfinite(step_s) else None,
            }
        )
    content = {
        "version": VERSION,
        "variables": list(points.names),
        "loss": family.loss,
        "training": family.training,
        "evaluation": family.evaluation,
        "points": rows,
    }
    write_json(path, content)


def read_law(path: Path) -> Family:
    """Return the points of a law from its file.

    Raises:
        ValueError: it is no file of a law, or of another version.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            raise ValueError(f"got version {content['version']!r}, expected {VERSION}")
        return _family(content)
    except (ValueError, LookupError, TypeError) as error:
        what = str(error) if isinstance(error, ValueError) else f"got something without {error}"
        raise ValueError(f"{path}: {what}; expected a file that `vsml laws fit` has written") from error


def _family(content: Mapping[str, Any]) -> Family:
    rows = content["points"]
    for number, row in enumerate(rows, start=1):
        values = [row["loss"], row["step_flops"], *row["sizes"]]
        if not all(map(is_number, values)):
            raise ValueError(f"point {number}: got {values}, expected numbers")
    sizes = np.array([row["sizes"] for row in rows], float)
    points = Points(
        tuple(content["variables"]),
        sizes.reshape(len(rows), -1),
        np.array([row["loss"] for row in rows], float),
        np.array([row["run"] for row in rows]),
    )
    step_s = [row["step_s"] if is_number(row["step_s"]) else np.nan for row in rows]
    return Family(
        variables=variables_of(content["variables"]),
        loss=str(content["loss"]),
        training=dict(content["training"]),
        evaluation=dict(content["evaluation"]),
        points=points,
        step_flops=np.array([row["step_flops"] for row in rows], float),
        step_s=np.array(step_s, float),
    )


def law_files(folders: Iterable[Path] = (OWN, SHIPPED)) -> list[Path]:
    """Return the files of laws in some folders, a user's own before those that ship."""
    return [path for folder in folders for path in sorted(folder.glob("*.json"))]
