"""The folder of configurations that come with the library, and how they are found by name."""

import difflib
from pathlib import Path

_INSTALLED = Path(__file__).parents[1] / "configs"
_CHECKOUT = Path(__file__).parents[2] / "configs"

FOLDER = _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT
"""Inside of the package where it is installed from a wheel, at the top of a checkout."""


def config_names() -> tuple[str, ...]:
    """Return the names of the configurations that come with the library, such as `figures/fig6`."""
    files = sorted(FOLDER.rglob("*.yaml"))
    return tuple(file.relative_to(FOLDER).with_suffix("").as_posix() for file in files)


def find_config(name: str | Path) -> Path:
    """Return the file that a name or a path stands for.

    A file that is there goes first. Else the configurations of the library are looked through: `rand_proj`,
    `rand_proj.yaml` and `configs/rand_proj.yaml` are one of them, in whatever folder this process works.

    Args:
        name: as the user gave it.

    Returns:
        The file, or the name as it is where there is none: who reads it says so.
    """
    given = Path(name)
    if given.is_file() or given.is_absolute():
        return given
    inside = Path(*given.parts[1:]) if given.parts[:1] == ("configs",) else given
    candidates = [FOLDER / inside, FOLDER / f"{inside}.yaml"]
    return next((file for file in candidates if file.is_file()), given)


def similar_configs(name: str | Path) -> str:
    """Return what a message about a missing file ends with: names that are like it; empty without any."""
    close = difflib.get_close_matches(Path(name).with_suffix("").name, config_names(), n=1)
    return f"; did you mean {close[0]}?" if close else ""
