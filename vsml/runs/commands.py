"""Commands that messages tell users to type, quoted as a shell needs them."""

import os
import shlex

from vsml.system.program import run_command


def resume_command(folder: str | os.PathLike[str]) -> str:
    """Return the command that goes on with the run in a folder, whatever the folder is called."""
    path = os.fspath(folder)
    if path.startswith("-"):  # else it would be taken for an option
        path = os.path.join(".", path)
    return f"{run_command()} {shlex.join(['--resume', path])}"
