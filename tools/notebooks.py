"""Run notebooks of examples/ again and keep them small: `make notebook`.

    python tools/notebooks.py examples/own_table_in_five_minutes.ipynb

Each runs in a temporary folder, where its files go. What is kept says nothing of the machine: no times, no
paths, no version of Python. Pictures are made small.
"""

import argparse
import base64
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

__all__ = ["CellExecutionError", "execute", "main", "smaller", "tidy"]

COLOURS = 64
"""Colours of a picture: figures with lines and bars look the same, at a third of their size."""

WIDTH = 800
"""Largest width of a picture, in pixels."""

TIMEOUT_S = 3600
"""Longest time that a cell may take, in seconds."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run notebooks, each in place of what it was."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    for path in parser.parse_args(arguments).notebooks:
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            execute(notebook, folder)
        tidy(notebook)
        nbformat.write(notebook, path)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def execute(notebook: nbformat.NotebookNode, folder: str | Path) -> None:
    """Run all cells in a folder; outputs are put into the notebook.

    Raises:
        CellExecutionError: a cell raises.
    """
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT_S,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Leave out what is of this machine alone, and make pictures smaller."""
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            picture = output.get("data", {}).get("image/png")
            if picture:
                output["data"]["image/png"] = smaller(picture)


def smaller(picture: str) -> str:
    """Return a PNG, base64, that is not wide and has few colours."""
    image = Image.open(BytesIO(base64.b64decode(picture))).convert("RGB")
    image.thumbnail((WIDTH, image.height), Image.Resampling.LANCZOS)
    written = BytesIO()
    # An octree keeps colours that are rare, such as those of thin lines.
    few = image.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(written, "PNG", optimize=True)
    return base64.b64encode(written.getvalue()).decode("ascii")


if __name__ == "__main__":
    main()
