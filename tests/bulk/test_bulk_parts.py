"""What a run of `unquant bulk` is made of, without Ray: sources, blocks, workers, the manifest."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import pickle
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image

import unquant
from unquant import places
from unquant.bulk import Bulk, Task, run
from unquant.bulk.manifest import Manifest
from unquant.bulk.run import Actor, Blocks, table_of
from unquant.bulk.sources import Item, items_of
from unquant.bulk.work import ROW, Worker
from unquant.errors import InputError, OptionError
from unquant.places import Place

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

JPEG = frozenset([".jpg"])


def jpeg(width: int = 48, height: int = 32, colour: int = 90) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (colour, 60, 120)).save(buffer, "JPEG")
    return buffer.getvalue()


def put(path: Path, data: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg() if data is None else data)
    return path


# ---- sources ---------------------------------------------------------------------------------------------------------


def test_a_folder(tmp_path: Path) -> None:
    for name in ("b.jpg", "a/c.JPG", "a/.hidden.jpg", ".git/d.jpg", "notes.txt", "b.unq"):
        put(tmp_path / name)
    found = items_of(Place(str(tmp_path)), JPEG, None)
    assert [item.relative for item in found] == ["a/c.JPG", "b.jpg"]
    assert found[1].source == str(tmp_path / "b.jpg")
    assert found[1].read("bytes") == jpeg()
    assert found[1].size == len(jpeg())


def test_a_list(tmp_path: Path) -> None:
    names = [put(tmp_path / name) for name in ("in/a.jpg", "in/deep/b.jpg")]
    listed = tmp_path / "names.txt"
    listed.write_text("\n".join(["# photographs", "", *map(str, names)]))
    found = items_of(Place(str(listed)), JPEG, None)
    assert [(item.source, item.relative) for item in found] == [(str(names[0]), "a.jpg"), (str(names[1]), "deep/b.jpg")]
    listed.write_text("s3://bucket/x/a.jpg\ns3://bucket/x/y/b.jpg?region=eu-west-1\n")
    assert [item.relative for item in items_of(Place(str(listed)), JPEG, None)] == ["a.jpg", "y/b.jpg"]
    listed.write_text("\n")
    with pytest.raises(InputError, match=r"names\.txt: nothing in it"):
        items_of(Place(str(listed)), JPEG, None)


def test_parquet_of_paths_and_of_bytes(tmp_path: Path) -> None:
    names = [str(put(tmp_path / name)) for name in ("in/a.jpg", "in/deep/b.jpg")]
    pq.write_table(pa.table({"path": names}), tmp_path / "paths.parquet")
    found = items_of(Place(str(tmp_path / "paths.parquet")), JPEG, None)
    assert [(item.source, item.relative) for item in found] == list(zip(names, ["a.jpg", "deep/b.jpg"], strict=True))
    images = [jpeg(colour=n) for n in range(5)]
    named = ["a", "../../out", "/etc/c", None, "e.jpg"]
    held = pa.table({"name": named, "photo": images})
    pq.write_table(held, tmp_path / "held.parquet", row_group_size=2)
    found = items_of(Place(str(tmp_path / "held.parquet")), JPEG, "photo")
    assert [item.relative for item in found] == ["a", "out", "etc/c", "00000003", "e.jpg"]
    assert [(item.group, item.row) for item in found] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    assert [item.read("photo") for item in found] == images
    with pytest.raises(OptionError, match=r"held\.parquet: neither a column path nor bytes.*it has name, photo"):
        items_of(Place(str(tmp_path / "held.parquet")), JPEG, None)
    put(tmp_path / "no.parquet", b"PAR0")
    with pytest.raises(InputError, match=r"no\.parquet: no Parquet file"):
        items_of(Place(str(tmp_path / "no.parquet")), JPEG, None)


@pytest.mark.parametrize(
    ("uri", "error", "message"),
    [
        ("nowhere", InputError, "nowhere: no such file"),
        ("gopher://host/a", OptionError, "gopher://host/a: no filesystem"),
    ],
)
def test_a_place_that_cannot_be_read(uri: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        items_of(Place(uri), JPEG, None)


# ---- places ----------------------------------------------------------------------------------------------------------


def test_a_filesystem_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    query = "?endpoint_override=127.0.0.1:1&scheme=http"
    one, path = Place(f"s3://photos/a/b.jpg{query}").opened()
    other = pickle.loads(pickle.dumps(Place(f"s3://photos/c.jpg{query}")))
    assert (other.opened()[0] is one, path, other.opened()[1]) == (True, "photos/a/b.jpg", "photos/c.jpg")
    with ThreadPoolExecutor(4) as threads:
        assert {id(place.opened()[0]) for place in threads.map(one_more, [query] * 50)} == {id(one)}
    assert Place(f"s3://elsewhere/c.jpg{query}").opened()[0] is not one
    assert Place(f"s3://photos/c.jpg{query}&region=eu-west-1").opened()[0] is not one


def one_more(query: str) -> Place:
    return Place(f"s3://photos/d.jpg{query}")


@pytest.mark.parametrize("name", ["my photo.jpg", "100%.jpg", "a?b#1.jpg", "ünï/date=2026/x.jpg", "%41.jpg"])
def test_any_name_below_a_url(name: str, tmp_path: Path) -> None:
    """And as many write it in a list, where it is no URL."""
    place = Place(f"file://{tmp_path}").child(name)
    place.write(b"data")
    assert (tmp_path / name).read_bytes() == place.read() == b"data"
    assert Place.named(place.uri) == place
    assert place.name == Path(name).name
    if name[0] not in "a%":
        assert Place.named(f"file://{tmp_path}/{name}").read() == b"data"
    (tmp_path / "names.txt").write_text(place.uri)
    assert items_of(Place(str(tmp_path / "names.txt")), JPEG, None)[0].relative == Path(name).name


def test_an_object_is_written_and_read_by_a_request_each(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            plain = re.sub(r"\x1b\[\d+m", "", record.getMessage())
            requests.extend(re.findall(r'"([A-Z]+ /\S+) HTTP', plain))

    place = Place.named(bucket.format("my photo.jpg"))
    place.opened()
    monkeypatch.setattr(logging.getLogger("werkzeug"), "handlers", [Listener()])
    place.write(b"data")
    assert requests == ["PUT /photos/my%20photo.jpg"]
    del requests[:]
    assert place.read() == b"data"
    assert requests == ["HEAD /photos/my%20photo.jpg", "GET /photos/my%20photo.jpg"]
    place.write(jpeg(2000, 2000))
    del requests[:]
    assert Task(False, "av1").pixels(Item(place.uri, "my photo.jpg")) == 2000 * 2000
    assert requests == ["HEAD /photos/my%20photo.jpg", "GET /photos/my%20photo.jpg"]


def test_no_one_is_asked_for_a_role_where_no_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS's library would wait for an answer at every request."""
    monkeypatch.setattr(places, "_METADATA", ("127.0.0.1", 1))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "")  # so that it is as before at the end
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    Place("s3://nobody/x?endpoint_override=127.0.0.1:1&scheme=http").opened()
    assert os.environ["AWS_EC2_METADATA_DISABLED"] == "true"
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(places, "_METADATA", server.getsockname())
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        Place("s3://somebody/x?endpoint_override=127.0.0.1:1&scheme=http&region=us-east-1").opened()
        assert "AWS_EC2_METADATA_DISABLED" not in os.environ


def test_a_store_that_asks_for_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there are none."""

    class Refusing(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(403 if self.headers["Authorization"] is None else 404)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        place = Place(f"s3://photos/a.jpg?endpoint_override=127.0.0.1:{server.server_port}&scheme=http")
        with pytest.raises(InputError, match=r"a\.jpg.*cannot be read: .*ACCESS_DENIED.*are there credentials"):
            place.is_folder  # noqa: B018
        server.shutdown()


# ---- blocks ----------------------------------------------------------------------------------------------------------


def test_blocks_have_so_many_pixels(tmp_path: Path) -> None:
    """And one image at least; one that cannot be read counts as a megapixel."""
    sizes = [(100, 100), (100, 50), (200, 100), (10, 10), (10, 10)]
    for number, size in enumerate(sizes):
        put(tmp_path / f"{number}.jpg", jpeg(*size))
    put(tmp_path / "9.jpg", b"broken")
    items = items_of(Place(str(tmp_path)), JPEG, None)

    def cut(pixels: int, images: int = 100) -> list[list[str]]:
        blocks = Blocks(Task(False, "av1"), pixels, images)(table_of([asdict(item) for item in items]))
        return [[Path(item["source"]).stem for item in block] for block in map(Blocks.items, blocks)]

    assert cut(15_100) == [["0", "1"], ["2"], ["3", "4"], ["9"]]
    assert cut(10**9) == [["0", "1", "2", "3", "4", "9"]]
    assert cut(10**9, 4) == [["0", "1", "2", "3"], ["4", "9"]]
    assert cut(1) == [["0"], ["1"], ["2"], ["3"], ["4"], ["9"]]


def test_a_block_comes_back_in_one_row(tmp_path: Path) -> None:
    """Ray makes each row a block of its own and lets an actor wait between them: half the throughput of small images."""
    for number in range(3):
        put(tmp_path / f"{number}.jpg", b"broken")
    items = [asdict(item) for item in items_of(Place(str(tmp_path)), JPEG, None)]
    manifest = Manifest(Place(str(tmp_path / "manifest.parquet")), {})
    manifest.begin(resume=False, force=False)
    (row,) = Actor(Task(False, "av1", {"quality": 40}), manifest)(table_of(items)).to_pylist()
    assert [found["source"] for found in json.loads(row["rows"])] == [item["source"] for item in items]


# ---- workers ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("shipped_av1")
def test_a_row_and_the_way_back(tmp_path: Path) -> None:
    put(tmp_path / "in/a.jpg")
    (item,) = items_of(Place(str(tmp_path / "in")), JPEG, None)
    row = Worker(Task(False, "av1", {"quality": 40}, Place(str(tmp_path / "out")))).row(item)
    made = tmp_path / "out/a.unq"
    data = made.read_bytes()
    assert data == unquant.encode(jpeg(), quality=40)
    assert row.keys() == ROW.keys()
    assert (row["source"], row["output"], row["error"], row["kind"]) == (item.source, str(made), None, None)
    assert row["source_sha256"] == hashlib.sha256(jpeg()).hexdigest()
    assert row["output_sha256"] == hashlib.sha256(data).hexdigest()
    assert (row["width"], row["height"], row["bytes"], row["output_bytes"]) == (48, 32, len(data), len(data))
    assert row["bpp"] == pytest.approx(8 * len(data) / (48 * 32))
    assert (row["model"], row["stream_id"]) == ("av1", unquant.info(data).stream_id)
    back = Worker(Task(True, "av1", {"realism": 0.0}))
    (file,) = items_of(Place(str(tmp_path / "out")), frozenset([".unq"]), None)
    row = back.row(file)
    assert row["error"] is None
    with Image.open(tmp_path / "out/a.png") as image:
        assert image.tobytes() == unquant.decode(data, realism=0.0).tobytes()
    assert (row["bytes"], row["output_bytes"]) == (len(data), (tmp_path / "out/a.png").stat().st_size)


@pytest.mark.usefixtures("shipped_av1")
def test_what_cannot_be_done_is_a_row(tmp_path: Path) -> None:
    worker = Worker(Task(False, "av1", {}, Place(str(tmp_path / "out")), max_pixels=48 * 32))
    put(tmp_path / "broken.jpg", jpeg()[:300])
    put(tmp_path / "large.jpg", jpeg(width=49))
    (tmp_path / "out/folder.unq").mkdir(parents=True)
    put(tmp_path / "folder.jpg")
    items = [Item(str(tmp_path / name), name) for name in ("broken.jpg", "large.jpg", "gone.jpg", "folder.jpg")]
    rows = worker.rows(items)
    assert [row["kind"] for row in rows] == ["InputError", "ImageTooLarge", "InputError", "InputError"]
    assert all(row["error"].startswith(str(tmp_path)) for row in rows)
    assert not [path for path in (tmp_path / "out").glob("*") if path.is_file()]


@pytest.mark.usefixtures("shipped_av1")
def test_a_full_disk_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    put(tmp_path / "a.jpg")
    monkeypatch.setattr(Path, "write_bytes", full)
    worker = Worker(Task(False, "av1", {}, Place(str(tmp_path / "out"))))
    with pytest.raises(InputError, match=r"a\.unq: cannot be written: No space left on device"):
        worker.row(Item(str(tmp_path / "a.jpg"), "a.jpg"))
    assert not [path for path in (tmp_path / "out").glob("*") if path.is_file()]


# ---- manifest --------------------------------------------------------------------------------------------------------


def row(source: str, **values: Any) -> dict[str, Any]:
    return dict.fromkeys(ROW) | {"source": source, "output": f"{source}.unq", **values}


def test_rows_of_parts_outlive_the_run(tmp_path: Path) -> None:
    place, asked = Place(str(tmp_path / "m.parquet")), {"options": {"bpp": 0.2}, "weights": "a"}
    first = Manifest(place, asked)
    assert not first.begin(resume=False, force=False)
    first.add([row("b", bytes=1), row("c", error="c: no", kind="InputError")])
    # killed here; what failed is tried again
    again = Manifest(place, asked)
    with pytest.raises(OptionError, match="--resume goes on"):
        again.begin(resume=False, force=False)
    rows = again.begin(resume=True, force=False)
    assert {source: row["kind"] for source, row in rows.items()} == {"b": None, "c": "InputError"}
    again.add([row("a", bytes=2), row("c", bytes=3)])
    again.finish(["a", "b", "c"])
    table = pq.read_table(tmp_path / "m.parquet")
    assert table.column_names == list(ROW)
    assert table.column("source").to_pylist() == ["a", "b", "c"]
    assert table.column("bytes").to_pylist() == [2, 1, 3]
    assert table.column("error").to_pylist() == [None, None, None]
    assert [path.name for path in tmp_path.iterdir()] == ["m.parquet"]
    assert set(Manifest(place, asked).begin(resume=True, force=False)) == {"a", "b", "c"}


def test_another_run_s_manifest(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "m.parquet"))
    old = Manifest(place, {"options": {"bpp": 0.2}})
    old.begin(resume=False, force=False)
    old.add([row("a", bytes=1)])
    new = Manifest(place, {"options": {"bpp": 0.3}})
    for _ in ("its parts", "the whole"):
        with pytest.raises(OptionError, match=r"options \{'bpp': 0.2\}, now \{'bpp': 0.3\}"):
            new.begin(resume=True, force=False)
        old.finish(["a"])
    assert not new.begin(resume=False, force=True)
    put(tmp_path / "n.parquet", b"PAR1 or not")
    with pytest.raises(InputError, match=r"n\.parquet: no manifest"):
        Manifest(Place(str(tmp_path / "n.parquet")), {}).begin(resume=True, force=False)


def test_a_first_run_with_resume_overwrites_nothing(tmp_path: Path) -> None:
    """Any more than one without it."""
    put(tmp_path / "in/a.jpg")
    put(tmp_path / "out/a.unq", b"of someone")
    out = Place(str(tmp_path / "out"))
    bulk = Bulk(Task(False, "av1", {}, out), Place(str(tmp_path / "in")), JPEG, out.child("m.parquet"), {}, resume=True)
    for _ in range(2):  # the second goes on
        assert run(bulk).failures == {"OutputExists": 1}
    assert (tmp_path / "out/a.unq").read_bytes() == b"of someone"
