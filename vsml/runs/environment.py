"""The environment of a run: versions, device, command, and the state of the checkout."""

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

from vsml.system.files import library_versions

_GIT_TIMEOUT_S = 10.0

GIT_STATE_NAME = "git_state.json"
"""In a copy of the code, which has no history: what `git_state` said of the original."""


def describe_environment(world_size: int = 1) -> dict[str, Any]:
    """Return what a run's numbers may depend on, ready for environment.json.

    Args:
        world_size: number of ranks.

    Returns:
        versions, python, platform, git {commit, dirty} of this library (None outside a git checkout), device
        {platform, kind, count} of this rank, world_size, command_line.
    """
    devices = jax.local_devices()
    return {
        "versions": library_versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": git_state(Path(__file__).parents[2]),
        "device": {
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "count": len(devices),
        },
        "world_size": world_size,
        "command_line": [sys.executable, *sys.argv],
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return commit and dirtiness of the checkout that this is, or was copied from; None where there is none.

    Args:
        folder: the one that has launch.py and vsml/.
    """
    copied = folder / GIT_STATE_NAME
    if copied.exists():
        return json.loads(copied.read_text())

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_GIT_TIMEOUT_S
        ).stdout.strip()

    try:
        # A library installed into a virtual environment inside some other checkout is not part of that one.
        if not git("ls-files", "vsml/__init__.py"):
            return None
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
