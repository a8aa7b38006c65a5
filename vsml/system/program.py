"""How this process was started: what messages tell to type, and what starts another one like it."""

import sys
from pathlib import Path

COMMAND = "vsml"
"""The console command of the package."""

_ROOT = Path(__file__).parents[2]

_WORDS = {"launch.py": "run", "python -m vsml.tasks": "data"}
"""What the command calls a program, where that is not the name of its module."""


def as_typed(program: str) -> str:
    """Return how the user has started a program, such as `vsml demo` for `python -m vsml.demo`.

    Args:
        program: how it is started in a checkout: "launch.py" or "python -m vsml.NAME"; others stay.
    """
    prefix = f"python -m {COMMAND}."
    is_known = program in _WORDS or program.startswith(prefix)
    if not (is_known and _is_command()):
        return program
    word = _WORDS.get(program, program.removeprefix(prefix))
    return f"{COMMAND} {word}"


def run_command() -> str:
    """Return what a user types to start a run: `vsml run` where that was typed, else `python launch.py`."""
    return as_typed("launch.py") if _is_command() else "python launch.py"


def _is_command() -> bool:
    started = Path(sys.argv[0])
    is_module = started.name == "__main__.py" and started.parent.name == COMMAND
    return started.stem == COMMAND or is_module


def run_program() -> list[str]:
    """Return the words of a program that does runs, whatever folder it works in, to be followed by options.

    In a checkout that is launch.py, which finds the library beside itself.
    """
    launch = _ROOT / "launch.py"
    is_checkout = launch.is_file() and (_ROOT / "pyproject.toml").is_file()
    if is_checkout:
        return [sys.executable, str(launch)]
    return [sys.executable, "-m", COMMAND, "run"]
