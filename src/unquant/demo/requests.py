"""What the page asks the server for: requests, checked, to calls of a session, and answers and errors as JSON."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import PurePath
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from unquant.demo.session import LIMITS, Session
from unquant.errors import ImageTooLarge, InputError, OptionError, UnquantError

__all__ = ["application"]

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


class _Invented(_Asked):
    file: str
    model: str


class _Compare(_Asked):
    photograph: str
    codec: Literal["avif", "jpeg"]
    target_bytes: int = Field(gt=0)


def application(session: Session, bpp: float) -> Starlette:
    """The requests as an ASGI application. bpp: that the page begins with."""

    def start(_: Request) -> Response:
        rows = [{"name": name, "draws_avif": entry.draws_avif} for name, entry in session.models.items()]
        return JSONResponse({"models": rows, "bpp": bpp, "photograph": asdict(session.bundled())})

    def content(request: Request) -> Response:
        key, _, suffix = request.path_params["name"].partition(".")
        kind = "image/png" if suffix == "png" else "application/octet-stream"
        return Response(session.content(key), media_type=kind)

    def upload(take: Callable[[bytes, str], Any]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            name = PurePath(request.query_params.get("name", "")).name or "file"
            data = await _body(request, LIMITS.max_file, name)
            return JSONResponse(asdict(await run_in_threadpool(take, data, name)))

        return endpoint

    def ask(kind: type[R], do: Callable[..., Any]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            asked = _parsed(kind, await _body(request, 2**16, "request"))
            return JSONResponse(asdict(await run_in_threadpool(do, **asked.model_dump())))

        return endpoint

    def refused(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, 413 if isinstance(error, ImageTooLarge) else 400)

    def failed(_: Request, error: Exception) -> Response:  # a defect of this program
        traceback.print_exception(error)
        return JSONResponse({"error": f"internal error: {type(error).__name__}: {error}"}, 500)

    routes = [
        Route("/start", start),
        Route("/content/{name}", content),
        Route("/photographs", upload(session.add_photograph), methods=["PUT"]),
        Route("/files", upload(session.add_file), methods=["PUT"]),
        Route("/encode", ask(_Encode, session.encode), methods=["PUT"]),
        Route("/decode", ask(_Decode, session.decode), methods=["PUT"]),
        Route("/invented", ask(_Invented, session.invented), methods=["PUT"]),
        Route("/compare", ask(_Compare, session.compare), methods=["PUT"]),
    ]
    handlers: Mapping[Any, Any] = {UnquantError: refused, Exception: failed}
    return Starlette(routes=routes, exception_handlers=handlers)


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
