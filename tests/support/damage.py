"""Damage to files: what hypothesis draws, and what it does to bytes."""

from __future__ import annotations

from hypothesis import strategies as st

Damage = list[tuple[str, float, int]]
"""Kinds, places as a share of the length, and values 0..255."""


@st.composite
def damages(draw: st.DrawFn) -> Damage:
    """One to three changes."""
    kinds = st.sampled_from(["flip", "set", "cut", "delete", "insert", "swap"])
    return draw(
        st.lists(st.tuples(kinds, st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=3)
    )


def damaged(data: bytes, damage: Damage) -> bytes:
    """The bytes after every change in turn."""
    changed = bytearray(data)
    for kind, where, value in damage:
        at = int(where * len(changed))
        match kind:
            case "flip" if changed:
                changed[at] ^= 1 << value % 8
            case "set" if changed:
                changed[at] = value
            case "cut":
                del changed[at:]
            case "delete":
                del changed[at : at + 1 + value % 4]
            case "swap":
                changed[at : at + 8] = changed[at : at + 8][::-1]
            case _:
                changed[at:at] = bytes([value])
    return bytes(changed)
