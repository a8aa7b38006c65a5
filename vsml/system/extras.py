"""Libraries that not everybody needs: which extra brings one, and what is said where it is missing.

    with needed_for("figures"):
        from matplotlib.figure import Figure

Standard library only.
"""

import contextlib
import importlib.util
from collections.abc import Iterator

EXTRAS = {
    "train": ("evosax", "matplotlib", "PIL", "pooch", "psutil", "requests", "rich", "scipy", "urllib3"),
    "plot": ("matplotlib",),
    "report": ("matplotlib", "plotly", "rich"),
    "wandb": ("wandb",),
    "mpi": ("mpi4py",),
    "rules": ("matplotlib", "networkx"),
    "search": ("psycopg", "pyarrow", "sqlalchemy"),
    "dashboard": ("nicegui", "starlette"),
    "latex": ("sympy",),
    "river": ("river",),
    "torch": ("torch",),
}
"""Modules of each extra of pyproject.toml."""

_SMALLEST_FIRST = (
    "plot",
    "latex",
    "river",
    "torch",
    "dashboard",
    "rules",
    "search",
    "report",
    "wandb",
    "mpi",
    "train",
)


class MissingExtraError(ImportError):
    """A library that an extra of the package brings is not installed; the message has the command for it."""


@contextlib.contextmanager
def needed_for(what: str) -> Iterator[None]:
    """Say which command installs a library that is missing.

    Args:
        what: what it is imported for, in the plural: "figures".

    Raises:
        MissingExtraError: the block imports a module of `EXTRAS` that is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        for extra in _SMALLEST_FIRST:
            if library in EXTRAS[extra]:
                raise MissingExtraError(_missing(what, [library], extra), name=library) from error
        raise


def check_extra(extra: str, what: str) -> None:
    """Check that all of an extra is installed, before work begins that needs it at its end.

    Args:
        extra: one of `EXTRAS`.
        what: what needs it, in the plural.

    Raises:
        MissingExtraError: some of it is not; the message names all that is missing.
    """
    absent = [module for module in EXTRAS[extra] if importlib.util.find_spec(module) is None]
    if absent:
        raise MissingExtraError(_missing(what, absent, extra), name=absent[0])


def _missing(what: str, libraries: list[str], extra: str) -> str:
    return (
        f"{what} need {', '.join(libraries)}, not installed here; "
        f"to install what is missing: {install_command(extra)}"
    )


def install_command(extra: str) -> str:
    """Return the command that installs an extra."""
    return f'python -m pip install "vsml[{extra}]"'
