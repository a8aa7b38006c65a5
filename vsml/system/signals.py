"""Signals that ask a run to stop: they set a flag, and the loop looks at it where it can save."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")


class Stopped(Exception):  # noqa: N818, no error: it is what was asked for
    """All ranks have agreed to stop; the message says why."""


class StopSignals:
    """Context manager that turns SIGINT, SIGTERM, SIGUSR1 and SIGHUP into a flag.

    The first signal is remembered by its name; a second SIGINT raises KeyboardInterrupt, for a user who
    cannot wait. A signal that was ignored on entry stays ignored, so that `nohup` still protects from SIGHUP.
    The former handlers are restored on exit. Python allows handlers in the main thread only: in any other
    this does nothing.

        with StopSignals() as stop:
            while not stop:
                ...

    Attributes:
        received: name of the first signal, such as "SIGTERM"; None as long as there was none.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __bool__(self) -> bool:
        """Whether a signal has come."""
        return self.received is not None

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is not threading.main_thread():
            return self
        for name in _STOP_SIGNALS:
            number = getattr(signal, name, None)  # Windows has only some of them
            # None: a handler that was not installed by Python and could not be restored.
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or signal.Signals(number).name
