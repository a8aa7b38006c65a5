"""The server of the dashboard: its pages, and where it listens."""

import ipaddress
import math

from vsml.dashboard.live import live_page
from vsml.dashboard.panel import steering_page
from vsml.dashboard.rule_view import rule_page
from vsml.dashboard.stepper_view import stepper_page
from vsml.search.store.database import Database
from vsml.system.extras import needed_for
from vsml.system.terminal import say

with needed_for("dashboards"):
    from nicegui import app, ui
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOCAL = ("127.0.0.1", "localhost", "[::1]")
"""Names of this machine, as a browser sends them."""

_FRAMES = (b"content-security-policy", b"frame-ancestors 'self'")
"""Header by which no page from elsewhere can show these pages in a frame, and have its buttons pressed."""


class NoFrames:
    """Sends a header with each answer that keeps pages out of frames of other pages.

    Args:
        app: what answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def with_header(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), _FRAMES]
            await send(message)

        await self.app(scope, receive, with_header)


def serve(database: Database, host: str, port: int, price_per_hour: float | None = None) -> None:
    """Show the dashboard until the process is stopped.

    Args:
        database: the database that the search writes.
        host: where it listens.
        port: where it listens.
        price_per_hour: of one worker; None leaves costs out.

    Raises:
        ValueError: the price is below 0.
        SystemExit: the port is in use.
        StoreError: the database cannot be used.
    """
    if price_per_hour is not None and not 0 <= price_per_hour < math.inf:
        raise ValueError(f"price_per_hour: got {price_per_hour}, expected a number from 0 on")
    with database.reading():
        pass  # what is wrong with it is said before a browser is opened
    app.add_middleware(NoFrames)
    if is_local(host):
        # A page from elsewhere, whose name was made to lead here, is not let in.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*_LOCAL, host])
    else:
        say(f"warning: whoever reaches {host} can steer the search; there is no password")

    @ui.page("/")
    def live() -> None:
        live_page(database, price_per_hour)

    @ui.page("/steer")
    def steer(rule: str = "") -> None:
        steering_page(database, rule)

    @ui.page("/rule/{digits}")
    def rule(digits: str) -> None:
        rule_page(database, digits)

    @ui.page("/step")
    def step(rule: str = "backprop") -> None:
        stepper_page(database, rule)

    say(f"dashboard: http://{f'[{host}]' if ':' in host else host}:{port}")
    ui.run(
        host=host, port=port, title="Search for rules", dark=None, reload=False, show=False,
        show_welcome_message=False, uvicorn_logging_level="warning",
    )  # fmt: skip


def is_local(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
