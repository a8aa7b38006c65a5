"""All entries of an array, one after the other on this machine, each in a process of its own."""

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from vsml.config.schema import Config
from vsml.runs.progress import say
from vsml.system.signals import StopSignals

_POLL_S = 0.2
_INTERRUPTED = 130
"""Exit code after a second Ctrl-C, as shells have it."""


def run_series(
    command: Sequence[str],
    arguments: Sequence[str],
    configs: Sequence[Config],
    run_dir: str | None,
) -> int:
    """Run every entry of an array; one that fails does not keep the next ones from running.

    The first Ctrl-C lets the present entry save, and no other begins.

    Args:
        command: what runs launch.py.
        arguments: of this process, `--all` among them.
        configs: of all entries, for their names.
        run_dir: the folder that gets a folder for each entry, by its number; None: each makes its own.

    Returns:
        The exit code: 0 if all have ended well, else the largest.
    """
    shared = [word for word in arguments if word != "--all"]
    count = len(configs)
    codes: dict[int, int] = {}
    with StopSignals() as stop:
        for index, config in enumerate(configs, start=1):
            if stop:
                break
            say(f"entry {index} of {count}: {config.name}")
            folder = [] if run_dir is None else ["--run_dir", str(Path(run_dir, str(index)))]
            words = [*command, *shared, "--array_index", str(index), *folder]
            codes[index] = _run(words, stop)
    failed = [f"{index} (exit code {code})" for index, code in codes.items() if code]
    told = [f"{len(codes)} of {count} entries have run"]
    if failed:
        told.append(f"failed: {', '.join(failed)}")
    if stop:
        told.append(f"stopped by {stop.received}")
    say("; ".join(told))
    return max((abs(code) for code in codes.values()), default=0)


def _run(words: Sequence[str], stop: StopSignals) -> int:
    """Run one entry to its end, and pass on that it has to stop; return its exit code."""
    process = subprocess.Popen(words)
    told = False
    while True:
        try:
            return process.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            if stop and not told:
                told = True
                # After Ctrl-C the terminal has told it as well; this one then changes nothing.
                process.send_signal(signal.SIGTERM)
        except KeyboardInterrupt:  # the second one, which ends the entry at once
            process.wait()
            return _INTERRUPTED
