"""Mutants of valid files: what a careless copy, a broken disk or somebody with bad intentions makes of them."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

PIECES = (
    *(b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\x1b]0;x\x07", b"\r", b"\n", b'"', b",", b"'", b"{", b"[", b"}", b"]"),
    *(b"\\ud800", b"NaN", b"Infinity", b"-1", b"1e999", b"9" * 400, b"../", b"/etc/passwd", b"&a [*a]", b"*a"),
    *(b"!!python/object/apply:os.system", b"[" * 2000, b"{{7*7}}", b"</script>", "\u2028".encode(), "\u202e".encode()),
    *(b"=cmd()", b"a" * 5000),
)
"""Bytes that mean something to one reader or another."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, -(10**400), 0.0, -0.0, 0.5, 1e308, -1e308, 5e-324),
    *(float("nan"), float("inf"), "", "x", "\x00", "../../x", "/etc/passwd", "a\nb", "\u202e", "\x1b[2J", "=1+1"),
    *("<script>alert(1)</script>", "x" * 5000, "nan", "2026-99-99"),
    *([], {}, [[]], [None], {"": None}, ["x"], [0.5, 0.5], {"x": 1}, {"file": "x"}),
)


def of_bytes(data: bytes, draw: random.Random) -> bytes:
    """One to four byte-level changes: flips, cuts, insertions, repetitions and swaps."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        draw.choice((_flip, _flip, _cut, _insert, _insert, _repeat, _overwrite, _truncate))(found, draw)
    return bytes(found)


def _span(data: bytearray, draw: random.Random) -> tuple[int, int]:
    start = draw.randrange(len(data) + 1)
    return start, min(len(data), start + draw.choice((1, 2, 4, 16, 64, 512)))


def _flip(data: bytearray, draw: random.Random) -> None:
    for _ in range(min(len(data), draw.choice((1, 1, 2, 8)))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _cut(data: bytearray, draw: random.Random) -> None:
    start, stop = _span(data, draw)
    del data[start:stop]


def _insert(data: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(data) + 1)
    data[at:at] = draw.choice(PIECES)


def _repeat(data: bytearray, draw: random.Random) -> None:
    start, stop = _span(data, draw)
    data[start:start] = data[start:stop] * draw.choice((1, 2, 50))


def _overwrite(data: bytearray, draw: random.Random) -> None:
    start, stop = _span(data, draw)
    data[start:stop] = draw.choice((bytes(stop - start), b"\xff" * (stop - start), draw.randbytes(stop - start)))


def _truncate(data: bytearray, draw: random.Random) -> None:
    del data[draw.randrange(len(data) + 1) :]


def of_json(data: bytes, draw: random.Random) -> bytes:
    """One to three changes of the structure: a value replaced, taken out, doubled, renamed or wrapped."""
    value = json.loads(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            break
        holder, key = draw.choice(places)
        draw.choice((_replace, _replace, _replace, _drop, _rename, _wrap, _borrow))(holder, key, draw, places)
    return json.dumps(value, ensure_ascii=draw.random() < 0.8).encode("utf-8", "surrogatepass")


def of_json_lines(data: bytes, draw: random.Random) -> bytes:
    """As `of_json`, in one of the lines."""
    lines = data.splitlines()
    at = draw.randrange(len(lines))
    lines[at] = of_json(lines[at], draw)
    return b"\n".join(draw.choice((lines, [*lines, lines[at]]))) + b"\n"


Places = list[tuple[Any, Any]]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _replace(holder: Any, key: Any, draw: random.Random, places: Places) -> None:
    holder[key] = copy.deepcopy(draw.choice(VALUES))


def _drop(holder: Any, key: Any, draw: random.Random, places: Places) -> None:
    del holder[key]


def _rename(holder: Any, key: Any, draw: random.Random, places: Places) -> None:
    if isinstance(holder, dict):
        holder[draw.choice(("", "x", "__class__", "../x", f"{key} ", "\x00"))] = holder.pop(key)
    else:
        holder.insert(draw.randrange(len(holder) + 1), copy.deepcopy(holder[key]))


def _wrap(holder: Any, key: Any, draw: random.Random, places: Places) -> None:
    holder[key] = draw.choice(([holder[key]], {"x": holder[key]}, str(holder[key]), [[holder[key]] * 3]))


def _borrow(holder: Any, key: Any, draw: random.Random, places: Places) -> None:
    other, place = draw.choice(places)
    try:
        holder[key] = copy.deepcopy(other[place])
    except (KeyError, IndexError):  # it has been dropped
        holder[key] = None


MUTATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "bytes": of_bytes,
    "json": of_json,
    "lines": of_json_lines,
}
