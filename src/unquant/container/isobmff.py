"""Boxes of the ISO base media file format (ISO/IEC 14496-12) and the items of HEIF (ISO/IEC 23008-12), bytes only.

What a `meta` box says about items: their type, where their data lies, properties, references. Nothing is decoded and every
count and size is checked against the bytes that are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from unquant.container.varint import Reader
from unquant.errors import CorruptStream, ImageTooLarge, UnsupportedVersion

__all__ = ["Box", "Location", "Meta", "Property", "box", "boxes", "full_box", "read_meta", "split_full_box"]

MAX_ENTRIES: Final = 2**17
"""Boxes side by side, or extents of one item: far above any picture (a grid has at most 65,536 cells), and soon read."""
MAX_TABLE: Final = 2**21
"""Bytes of one table about items, which becomes many times that as objects: room for 65,536 cells of a grid."""

_IN_FILE, _IN_IDAT = 0, 1  # construction methods


class Box(NamedTuple):
    """One box: its type of four characters, and what is in it."""

    kind: bytes
    body: memoryview


class Property(NamedTuple):
    """A property of an item; essential: a reader that does not know it must not show the item."""

    kind: bytes
    body: memoryview
    essential: bool


class Location(NamedTuple):
    """Where the data of one item lies: extents (offset, length), a length of 0 reaching to the end."""

    method: int
    data_reference: int
    extents: tuple[tuple[int, int], ...]


def boxes(view: memoryview, where: str) -> Iterator[Box]:
    """The boxes side by side in `view`, which they have to fill. Raises CorruptStream, naming `where`."""
    position = 0
    for _ in range(MAX_ENTRIES):
        left = len(view) - position
        if left == 0:
            return
        if left < 8:
            raise CorruptStream(f"{where}: {left} bytes where a box was expected (truncated or damaged)")
        size, head = int.from_bytes(view[position : position + 4], "big"), 8
        kind = bytes(view[position + 4 : position + 8])
        if size == 1:
            size, head = int.from_bytes(view[position + 8 : position + 16], "big"), 16
        elif size == 0:
            size = left
        if not head <= size <= left:
            raise CorruptStream(f"{where}: a box {_show(kind)} of {size} bytes, {left} left (truncated or damaged)")
        yield Box(kind, view[position + head : position + size])
        position += size
    raise CorruptStream(f"{where}: more than {MAX_ENTRIES} boxes")


def box(kind: bytes, *parts: bytes) -> bytes:
    """A box of up to 2^32-1 bytes."""
    return (8 + sum(map(len, parts))).to_bytes(4, "big") + kind + b"".join(parts)


def full_box(kind: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    """A box that begins with a version and flags."""
    return box(kind, bytes((version,)), flags.to_bytes(3, "big"), *parts)


def split_full_box(body: memoryview, what: str) -> tuple[int, int, Reader]:
    """Version, flags, and a cursor over the rest. Raises CorruptStream."""
    reader = Reader(body)
    version = reader.byte(what)
    return version, reader.uint(3, what), reader


@dataclass(slots=True)
class Meta:
    """The items of a file. kinds and content_types (of items `mime`) by item id; references (type, from, to)."""

    handler: bytes = b""
    primary: int | None = None
    kinds: dict[int, bytes] = field(default_factory=dict[int, bytes])
    content_types: dict[int, bytes] = field(default_factory=dict[int, bytes])
    locations: dict[int, Location] = field(default_factory=dict[int, Location])
    associated: dict[int, list[Property]] = field(default_factory=dict[int, list[Property]])
    references: list[tuple[bytes, int, tuple[int, ...]]] = field(
        default_factory=list[tuple[bytes, int, tuple[int, ...]]]
    )
    idat: memoryview | None = None

    def properties(self, item: int, kind: bytes) -> list[memoryview]:
        """The bodies of the item's properties of one type, in the order in which they are applied."""
        return [prop.body for prop in self.associated.get(item, []) if prop.kind == kind]

    def property(self, item: int, kind: bytes) -> memoryview | None:
        """The body of the only property of that type, None without. Raises CorruptStream where there are several."""
        found = self.properties(item, kind)
        if len(found) > 1:
            raise CorruptStream(f"item {item}: {len(found)} properties {_show(kind)}, at most one makes sense")
        return found[0] if found else None

    def sources(self, kind: bytes, target: int) -> list[int]:
        """The items that refer to `target` by that type, in file order."""
        return [source for name, source, targets in self.references if name == kind and target in targets]

    def targets(self, kind: bytes, source: int) -> tuple[int, ...]:
        """The items that `source` refers to by that type, in file order."""
        return next((targets for name, origin, targets in self.references if (name, origin) == (kind, source)), ())

    def data(self, item: int, file: memoryview) -> bytes:
        """The item's data, its extents joined. Raises CorruptStream, and UnsupportedVersion for data in other files."""
        location = self.locations.get(item)
        if location is None:
            raise CorruptStream(f"item {item} has no location")
        if location.data_reference or location.method not in (_IN_FILE, _IN_IDAT):
            raise UnsupportedVersion(f"item {item}: data in another file or item, which this program does not follow")
        source = file if location.method == _IN_FILE else self.idat
        if source is None:
            raise CorruptStream(f"item {item} lies in an idat box, and there is none")
        pieces: list[memoryview] = []
        total = 0
        for offset, length in location.extents:
            end = offset + length if length else len(source)
            if not offset <= end <= len(source):
                raise CorruptStream(f"item {item}: bytes {offset}..{end} of {len(source)} (truncated or damaged)")
            total += end - offset
            if total > len(source):
                raise CorruptStream(f"item {item}: its extents overlap")
            pieces.append(source[offset:end])
        return b"".join(pieces)


def read_meta(body: memoryview) -> Meta:
    """The items that a `meta` box describes. Raises CorruptStream, UnsupportedVersion (a version of iloc above 2)."""
    meta = Meta()
    split_full_box(body, "meta")
    single: dict[bytes, memoryview] = {}
    for kind, content in boxes(body[4:], "meta"):
        if kind in single:
            raise CorruptStream(f"meta: two boxes {_show(kind)}")
        if kind in _PARSERS or kind == b"idat":
            single[kind] = content
    meta.idat = single.pop(b"idat", None)
    for kind, content in single.items():
        if kind != b"iprp":
            _check_table(kind, content)
        _PARSERS[kind](meta, content)
    return meta


def _check_table(kind: bytes, content: memoryview) -> None:
    if len(content) > MAX_TABLE:
        raise ImageTooLarge(f"box {_show(kind)} of {len(content)} bytes: at most {MAX_TABLE} are accepted")


def _read_handler(meta: Meta, body: memoryview) -> None:
    _, _, reader = split_full_box(body, "hdlr")
    reader.take(4, "hdlr")
    meta.handler = reader.take(4, "hdlr")


def _read_primary(meta: Meta, body: memoryview) -> None:
    version, _, reader = split_full_box(body, "pitm")
    meta.primary = reader.uint(4 if version else 2, "pitm")


def _read_locations(meta: Meta, body: memoryview) -> None:
    version, _, reader = split_full_box(body, "iloc")
    if version > 2:
        raise UnsupportedVersion(f"iloc: version {version} is unknown to this program")
    sizes = reader.uint(2, "iloc")
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    if version == 0:
        index_size = 0
    if not {offset_size, length_size, base_size, index_size} <= {0, 4, 8}:
        raise CorruptStream(f"iloc: sizes {sizes:04x} are not of 0, 4 or 8 bytes")
    id_size = 4 if version == 2 else 2
    for _ in range(reader.uint(id_size, "iloc")):
        item = reader.uint(id_size, "iloc")
        method = reader.uint(2, "iloc") & 15 if version else _IN_FILE
        data_reference = reader.uint(2, "iloc")
        base = reader.uint(base_size, "iloc")
        count = reader.uint(2, "iloc")
        # extents without a field take no bytes, so that their number would be limited by nothing
        if count > 1 and not index_size + offset_size + length_size:
            raise CorruptStream(f"iloc: {count} extents without offsets or lengths")
        extents: list[tuple[int, int]] = []
        for _ in range(count):
            reader.uint(index_size, "iloc")
            offset = base + reader.uint(offset_size, "iloc")
            extents.append((offset, reader.uint(length_size, "iloc")))
        if item in meta.locations:
            raise CorruptStream(f"iloc: item {item} stands twice")
        meta.locations[item] = Location(method, data_reference, tuple(extents))


def _read_infos(meta: Meta, body: memoryview) -> None:
    version, _, reader = split_full_box(body, "iinf")
    count = reader.uint(4 if version else 2, "iinf")
    entries = [content for kind, content in boxes(body[4 + (4 if version else 2) :], "iinf") if kind == b"infe"]
    if len(entries) != count:
        raise CorruptStream(f"iinf: {len(entries)} entries where {count} are announced")
    for content in entries:
        version, _, reader = split_full_box(content, "infe")
        if version < 2:  # of MPEG-21, without an item type
            continue
        item = reader.uint(2 if version == 2 else 4, "infe")
        reader.take(2, "infe")  # protection
        kind = reader.take(4, "infe")
        if item in meta.kinds:
            raise CorruptStream(f"iinf: item {item} stands twice")
        meta.kinds[item] = kind
        if kind == b"mime":
            _, _, rest = reader.take(reader.remaining, "infe").partition(b"\0")
            meta.content_types[item] = rest.partition(b"\0")[0]


def _read_references(meta: Meta, body: memoryview) -> None:
    version, _, _ = split_full_box(body, "iref")
    size = 4 if version else 2
    for kind, content in boxes(body[4:], "iref"):
        reader = Reader(content)
        source, count = reader.uint(size, "iref"), reader.uint(2, "iref")
        meta.references.append((kind, source, tuple(reader.uint(size, "iref") for _ in range(count))))


def _read_properties(meta: Meta, body: memoryview) -> None:
    known: list[Box] = []
    tables: list[memoryview] = []
    for kind, content in boxes(body, "iprp"):
        if kind == b"ipco":
            known += boxes(content, "ipco")
        elif kind == b"ipma":
            tables.append(content)
    seen: dict[int, Property] = {}
    for content in tables:
        _check_table(b"ipma", content)
        version, flags, reader = split_full_box(content, "ipma")
        size = 2 if flags & 1 else 1
        for _ in range(reader.uint(4, "ipma")):
            item = reader.uint(4 if version else 2, "ipma")
            if item in meta.associated:
                raise CorruptStream(f"ipma: item {item} stands twice")
            properties = meta.associated[item] = []
            for _ in range(reader.byte("ipma")):
                word = reader.uint(size, "ipma")
                index = word & (1 << (8 * size - 1)) - 1
                if index > len(known):
                    raise CorruptStream(f"ipma: property {index} of {len(known)}")
                if index:
                    essential = word != index
                    key = index if essential else -index
                    if key not in seen:
                        seen[key] = Property(*known[index - 1], essential)
                    properties.append(seen[key])


_PARSERS: Final = {
    b"hdlr": _read_handler,
    b"pitm": _read_primary,
    b"iloc": _read_locations,
    b"iinf": _read_infos,
    b"iref": _read_references,
    b"iprp": _read_properties,
}


def _show(kind: bytes) -> str:
    return repr(kind.decode("latin-1"))
