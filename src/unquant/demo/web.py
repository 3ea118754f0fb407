"""The server of `unquant demo --serve`, on this machine's own address, which nothing outside it reaches.

The page is static and there at once; all that its requests need is imported by the first of them. What a page of another site
asks for is refused: by the name of the host, and by a method that browsers do not send to other sites without leave.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from unquant.codecs.registry import DEFAULT_MODEL, find_model
from unquant.errors import OptionError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.datastructures import MutableHeaders
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["DEFAULT_PORT", "HOST", "application", "serve"]

HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8765
_PAGE: Final = {"index.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def serve(
    model: str = DEFAULT_MODEL,
    port: int = DEFAULT_PORT,
    *,
    bpp: float = 0.15,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serves the page until the process is interrupted.

    model, a name from `unquant models` or a weights file, and bpp: that the page begins with. port: 0 for one that is free.
    ready: is told the address, at which requests are taken from then on. Raises ModelMissing, WeightsError, and OptionError
    for a port that is taken and without the packages of the extra `demo`.
    """
    find_model(model)
    try:
        import uvicorn

        app = application(model, bpp)
    except ImportError as e:
        raise OptionError("the page needs Starlette and Uvicorn: pip install 'unquant[demo]'") from e
    try:
        listening = socket.create_server((HOST, port))
    except (OSError, OverflowError) as e:
        raise OptionError(f"port {port}: cannot be listened on: {getattr(e, 'strerror', None) or e} (--port)") from e
    with listening:
        # what goes wrong is said by `requests`; the server itself would show what a request was at when it was interrupted
        config = uvicorn.Config(
            app, log_level="critical", access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        ready(f"http://{HOST}:{listening.getsockname()[1]}/")
        uvicorn.Server(config).run(sockets=[listening])


def application(model: str, bpp: float) -> Starlette:
    """The page and, below /api, its requests (`unquant.demo.requests`) as an ASGI application; arguments as of `serve`."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.datastructures import MutableHeaders
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import Response
    from starlette.routing import Mount, Route

    def page(request: Request) -> Response:
        name = request.url.path[1:] or "index.html"
        return Response(files("unquant.demo").joinpath("page", name).read_bytes(), media_type=_PAGE[name])

    made: list[ASGIApp] = []
    making = asyncio.Lock()

    def make() -> ASGIApp:
        from unquant.demo import requests
        from unquant.demo.session import Session

        return requests.application(Session(model), bpp)

    async def api(scope: Scope, receive: Receive, send: Send) -> None:
        async with making:
            if not made:
                made.append(await run_in_threadpool(make))
        await made[0](scope, receive, send)

    # PUT from another site needs a leave that is never given, and a page with its own name for 127.0.0.1 has the wrong host
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False)
    routes = [*(Route(f"/{path}", page) for path in ("", *_PAGE)), Mount("/api", api)]
    return Starlette(routes=routes, middleware=[hosts, Middleware(_WithHeaders, MutableHeaders)])


class _WithHeaders:
    """Middleware: every answer has `_HEADERS`."""

    def __init__(self, app: ASGIApp, headers_of: type[MutableHeaders]) -> None:
        self._app, self._headers_of = app, headers_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._headers_of(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, with_headers)
