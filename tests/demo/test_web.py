"""The server of the page: what it gives, and what it refuses."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from page import Server, served
from PIL import Image

from unquant.cli.app import app
from unquant.errors import OptionError

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with served("-m", "tiny_av1", "--bpp", "0.8") as found:
        yield found


def request(
    server: Server, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response.status, response.headers, data


def put(server: Server, path: str, asked: object) -> tuple[int, Any]:
    status, _, data = request(server, "PUT", path, asked if isinstance(asked, bytes) else json.dumps(asked).encode())
    return status, json.loads(data)


def test_the_page_asks_nobody_else(server: Server) -> None:
    for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
        status, headers, data = request(server, "GET", path)
        assert (status, headers.get_content_type()) == (200, kind)
        assert b"http:" not in data
        assert b"https:" not in data
        assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert request(server, "GET", "/../session.py")[0] == 404
    assert "default-src 'none'" in request(server, "GET", "/api/start")[1]["Content-Security-Policy"]
    assert request(server, "GET", "/session.py")[0] == 404


@pytest.mark.slow
def test_there_and_back(server: Server) -> None:
    start = json.loads(request(server, "GET", "/api/start")[2])
    assert start["models"][0] == {"name": "tiny_av1", "draws_avif": True}
    assert start["bpp"] == 0.8
    photograph = start["photograph"]
    asked = {
        "photograph": photograph["key"],
        "name": "coffee.png",
        "model": "tiny_av1",
        "bpp": 0.8,
        "container": "avif",
    }
    status, file = put(server, "/api/encode", asked)
    assert status == 200, file
    _, headers, data = request(server, "GET", f"/api/content/{file['key']}.avif")
    assert headers.get_content_type() == "application/octet-stream"
    assert len(data) == file["bytes"] <= 0.8 * 600 * 400 / 8
    assert put(server, "/api/files?name=a.avif", data)[1]["key"] == file["key"]
    status, drawn = put(server, "/api/decode", {"file": file["key"], "model": "tiny_av1", "seed": str(2**64 - 1)})
    assert status == 200, drawn
    _, headers, picture = request(server, "GET", f"/api/content/{drawn['picture']}.png")
    assert headers.get_content_type() == "image/png"
    assert Image.open(io.BytesIO(picture)).size == (600, 400)


def test_errors_are_words(server: Server) -> None:
    assert put(server, "/api/photographs?name=../x/words.jpg", b"no picture")[1]["error"].startswith("words.jpg: ")
    assert put(server, "/api/photographs?name=a.jpg", b"") == (400, {"error": "a.jpg: is empty"})
    assert put(server, "/api/files?name=a.unq", b"UNQ!")[0] == 400
    asked = {"file": "0" * 32, "model": "tiny_av1", "realism": "much"}
    status, found = put(server, "/api/decode", asked)
    assert status == 400
    assert found["error"].startswith("realism: ")
    assert put(server, "/api/decode", asked | {"realism": 1, "else": 1})[1]["error"].startswith("else: ")
    assert "no longer kept" in put(server, "/api/decode", asked | {"realism": 1})[1]["error"]
    assert put(server, "/api/decode", b"{")[0] == 400
    assert put(server, "/api/decode", b" " * 2**17)[0] == 413


def test_other_sites_are_refused(server: Server) -> None:
    assert request(server, "GET", "/", Host="evil.example")[0] == 400
    port = urlsplit(server.url).port
    assert request(server, "GET", "/", Host=f"localhost:{port}")[0] == 200
    status, headers, _ = request(
        server, "OPTIONS", "/api/files", Origin="http://evil.example", Access_Control_Request_Method="PUT"
    )
    assert status == 405
    assert not [name for name in headers if name.lower().startswith("access-control")]
    assert request(server, "POST", "/api/files", b"x")[0] == 405  # which other sites may send


def test_nothing_but_this_machine_reaches_it(server: Server) -> None:
    port = urlsplit(server.url).port
    with socket.socket() as other, pytest.raises(OSError):  # noqa: PT011
        other.bind(("127.0.0.1", port))
    with socket.socket() as other:  # another address of this machine is free
        other.bind(("127.0.0.2", port))


def test_a_port_that_is_taken(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    from unquant.demo.web import serve

    port = urlsplit(server.url).port
    with pytest.raises(OptionError, match=f"port {port}: cannot be listened on: Address already in use"):
        serve(port=port)
    with pytest.raises(SystemExit) as ended:
        app(["demo", "--serve", "--no-browser", "--port", str(port)])
    assert ended.value.code == 2
    assert "Address already in use" in capsys.readouterr().err


@pytest.mark.slow
def test_it_can_be_interrupted_at_work() -> None:
    ended: list[int] = []
    with served("-m", "tiny_av1") as server:
        photograph = json.loads(request(server, "GET", "/api/start")[2])["photograph"]["key"]
        asked = {"photograph": photograph, "name": "a", "model": "av1", "bpp": 0.3, "effort": 9}

        def encode() -> None:
            ended.append(request(server, "PUT", "/api/encode", json.dumps(asked).encode())[0])

        work = threading.Thread(target=encode)
        work.start()
        time.sleep(0.3)
        assert work.is_alive()
    work.join()
    assert ended == [500]


def test_a_defect_is_told_and_shown_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from unquant.demo import requests

    class Broken:
        add_photograph = add_file = encode = decode = compare = bundled = None

        def invented(self, file: str, model: str) -> None:
            raise ZeroDivisionError("by nothing")

    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b'{"file": "a", "model": "b"}'}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "PUT", "path": "/invented", "query_string": b"", "headers": []}
    with pytest.raises(ZeroDivisionError):
        asyncio.run(requests.application(Broken(), 0.1)(scope, receive, send))
    assert sent[0]["status"] == 500
    assert json.loads(sent[1]["body"]) == {"error": "internal error: ZeroDivisionError: by nothing"}
    assert "ZeroDivisionError: by nothing" in capsys.readouterr().err
