"""A page about laws: one section for each size, with a figure, the laws in words, and their rivals."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vsml.laws.figure import draw_laws
from vsml.laws.runs import Family
from vsml.laws.summary import Summary, lines, rival_table
from vsml.reporting.tables import markdown
from vsml.system.files import atomic_write


@dataclass(frozen=True, eq=False)
class Part:
    """Laws of one size.

    Attributes:
        name: of the size.
        laws: what tells each from the others, and the law.
        beside: the runs with another loss, for the figure.
    """

    name: str
    laws: Sequence[tuple[str, Summary]]
    beside: Sequence[Family] = ()


def write_page(folder: Path, parts: Sequence[Part]) -> Path:
    """Write `laws.md` with its figures, and return its path.

    Args:
        folder: made if need be.
        parts: of it, one for each size.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = ["# Laws", ""]
    for part in parts:
        figure = folder / f"{part.name}.png"
        laws, labels = [law for _, law in part.laws], [label for label, _ in part.laws]
        draw_laws(figure, laws, labels, part.beside)
        text += [f"## {part.name}", "", f"![The law of {part.name}]({figure.name})", ""]
        for label, law in part.laws:
            text += [f"### {label}", "", *[f"- {line.strip()}" for line in lines(law)], ""]
            text += [markdown(rival_table(law)), ""]
    path = folder / "laws.md"
    atomic_write(path, "\n".join(text))
    return path
