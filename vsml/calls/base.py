"""The interface of calls: what a run does, one a file."""

from collections.abc import Iterator
from typing import Protocol

from vsml.runs.directory import RunDirectory
from vsml.settings import Problem
from vsml.setup import Setup
from vsml.system.comm import Communicator


class Call(Protocol):
    """What a run does. It is built with `config`, its own section of settings (`NoSettings` without any).

    A call's section has the call's name in a configuration: `introspect: {before: 100}`. Of a call from
    outside of the library it is `call_options`.
    """

    def problems(self, setup: Setup) -> Iterator[Problem]:
        """Yield what this call refuses of a configuration that is right for others.

        Args:
            setup: of the run; no data may be loaded.
        """

    def plan(self, setup: Setup, ranks: int) -> list[str]:
        """Return lines that say what the run is going to do and cost.

        What the run would refuse is refused here, too, as far as it can be known without data.

        Raises:
            ValueError: the run would be refused.
        """

    def run(self, setup: Setup, run: RunDirectory | None, comm: Communicator, resume: bool) -> int:
        """Do it.

        Args:
            setup: of the run.
            run: where to write, on rank 0; None on the other ranks.
            comm: the ranks.
            resume: go on with the run in `run`.

        Returns:
            The exit code of the program.

        Raises:
            ConfigError, DataError, CheckpointError, OSError, MemoryError, FloatingPointError: their messages
                say all that there is to say.
        """
