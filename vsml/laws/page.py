"""A page about laws: one section for each size, with a figure, the laws in words, and their rivals."""

from collections.abc import Sequence
from pathlib import Path

from vsml.laws.figure import draw_laws
from vsml.laws.summary import Summary, lines, rival_table
from vsml.reporting.tables import markdown
from vsml.system.files import atomic_write


def write_page(folder: Path, sections: Sequence[tuple[str, Sequence[tuple[str, Summary]]]]) -> Path:
    """Write `laws.md` with its figures, and return its path.

    Args:
        folder: made if need be.
        sections: names of sizes, each with its laws: what tells each from the others, and the law.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = ["# Laws", ""]
    for name, laws in sections:
        figure = folder / f"{name}.png"
        draw_laws(figure, [law for _, law in laws], [label for label, _ in laws])
        text += [f"## {name}", "", f"![The law of {name}]({figure.name})", ""]
        for label, law in laws:
            text += [f"### {label}", "", *[f"- {line.strip()}" for line in lines(law)], ""]
            text += [markdown(rival_table(law)), ""]
    path = folder / "laws.md"
    atomic_write(path, "\n".join(text))
    return path
