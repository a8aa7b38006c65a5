"""Programs of Debian's packages that tests need: installed when root, else the tests are skipped."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest


def need(packages: Mapping[str, str]) -> None:
    """Install what is missing, or skip the test with the reason.

    Args:
        packages: the package by program.
    """
    if not _missing(packages):
        return
    if os.geteuid() or not shutil.which("apt-get"):
        names = ", ".join(_missing(packages))
        pytest.skip(f"needs Debian's packages {names}, and only root can install them")
    with open(Path(tempfile.gettempdir()) / "vsml-tests-apt.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests in another process may be at it
        if not (missing := _missing(packages)):
            return
        for command in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
            done = subprocess.run(
                ["apt-get", "-qq", *command],
                env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
                capture_output=True,
                text=True,
                timeout=600,
            )
            if done.returncode:
                pytest.skip(f"{', '.join(missing)} could not be installed: {done.stderr.strip()[-300:]}")


def _missing(packages: Mapping[str, str]) -> list[str]:
    path = os.environ["PATH"] + ":/usr/sbin"
    return sorted({package for program, package in packages.items() if not shutil.which(program, path=path)})
