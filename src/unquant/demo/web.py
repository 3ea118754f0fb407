"""The page of `unquant demo --serve`: a server on this machine's own address, which nothing outside it reaches.

The page is static and there at once; torch is imported by the first request that needs it. What a page of another site
asks for is refused: by the name of the host, by the origin, and by a content type that browsers do not send unasked.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unquant.demo.session import LIMITS, Session
from unquant.errors import ImageTooLarge, InputError, OptionError, UnquantError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["DEFAULT_PORT", "HOST", "application", "serve"]

HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8765
_PAGE: Final = {
    "": ("index.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

R = TypeVar("R", bound="_Asked")


class _Asked(BaseModel):
    """What a request holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Encode(_Asked):
    photograph: str
    name: str
    model: str
    bpp: float
    effort: int | None = None
    container: Literal["unq", "avif"] = "unq"


class _Decode(_Asked):
    file: str
    model: str
    realism: float | None = None
    steps: int | None = None
    seed: int | None = None  # as text where it is beyond the whole numbers of a browser
    preview: bool = False


class _Compare(_Asked):
    photograph: str
    codec: Literal["avif", "jpeg"]
    target_bytes: int = Field(gt=0)


def serve(
    session: Session, port: int = DEFAULT_PORT, *, bpp: float = 0.15, ready: Callable[[str], None] = lambda url: None
) -> None:
    """Serves the page until the process is interrupted.

    port: 0 for one that is free. bpp: that the page begins with. ready: is told the address, at which requests are taken from
    then on. Raises OptionError for a port that is taken, and without the packages of the extra `demo`.
    """
    try:
        import uvicorn

        app = application(session, bpp)
    except ImportError as e:
        raise OptionError("the page needs Starlette and Uvicorn: pip install 'unquant[demo]'") from e
    try:
        listening = socket.create_server((HOST, port))
    except (OSError, OverflowError) as e:
        raise OptionError(f"port {port}: cannot be listened on: {getattr(e, 'strerror', None) or e} (--port)") from e
    with listening:
        config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        ready(f"http://{HOST}:{listening.getsockname()[1]}/")
        uvicorn.Server(config).run(sockets=[listening])


def application(session: Session, bpp: float = 0.15) -> Starlette:
    """The page and its requests as an ASGI application. bpp: that the page begins with."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    def answer(found: object, status: int = 200) -> Response:
        return JSONResponse(found, status, _HEADERS)

    def page(request: Request) -> Response:
        name, kind = _PAGE[request.url.path[1:]]
        return Response(
            files("unquant.demo").joinpath("page", name).read_bytes(), 200, _HEADERS, f"{kind}; charset=utf-8"
        )

    def start(_: Request) -> Response:
        rows = [{"name": name, "draws_avif": entry.draws_avif} for name, entry in session.models.items()]
        return answer({"models": rows, "bpp": bpp, "photograph": asdict(session.bundled())})

    def content(request: Request) -> Response:
        key, _, suffix = request.path_params["name"].partition(".")
        kind = "image/png" if suffix == "png" else "application/octet-stream"
        return Response(session.content(key), 200, _HEADERS, kind)

    def upload(take: Callable[[bytes, str], Any]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            name = PurePath(request.query_params.get("name", "")).name or "file"
            data = await _body(request, LIMITS.max_file, name)
            return answer(asdict(await run_in_threadpool(take, data, name)))

        return endpoint

    def ask(kind: type[R], do: Callable[..., Any]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            asked = _parsed(kind, await _body(request, 2**16, "request"))
            return answer(asdict(await run_in_threadpool(do, **asked.model_dump())))

        return endpoint

    def refused(_: Request, error: Exception) -> Response:
        return answer({"error": str(error)}, 413 if isinstance(error, ImageTooLarge) else 400)

    def failed(_: Request, error: Exception) -> Response:  # and the server writes its traceback to the terminal
        return answer({"error": f"internal error: {type(error).__name__}: {error}"}, 500)

    routes = [
        *(Route(f"/{path}", page) for path in ("", *_PAGE)),
        Route("/start", start),
        Route("/content/{name}", content),
        Route("/photographs", upload(session.add_photograph), methods=["PUT"]),
        Route("/files", upload(session.add_file), methods=["PUT"]),
        Route("/encode", ask(_Encode, session.encode), methods=["PUT"]),
        Route("/decode", ask(_Decode, session.decode), methods=["PUT"]),
        Route("/compare", ask(_Compare, session.compare), methods=["PUT"]),
    ]
    handlers: Mapping[Any, Any] = {UnquantError: refused, Exception: failed}
    # PUT from another site needs a leave that is never given, and a page with its own name for 127.0.0.1 has the wrong host
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False)
    return Starlette(routes=routes, middleware=[hosts], exception_handlers=handlers)


async def _body(request: Request, most: int, name: str) -> bytes:
    """What is sent, `most` bytes of it at most: no more is read."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > most:
            raise ImageTooLarge(f"{name}: at most {most} bytes are accepted")
    if not size:
        raise InputError(f"{name}: is empty")
    return b"".join(parts)


def _parsed(kind: type[R], data: bytes) -> R:
    try:
        return kind.model_validate_json(data)
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise OptionError(f"{where or 'request'}: {first['msg']}") from e
