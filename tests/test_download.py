"""Downloads resume, are verified, and never leave half a file; a local server plays the publisher."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx
import pytest

from evalkit.download import OFFLINE, fetch
from evalkit.errors import RunFailed, UserError
from evalkit.weights import Checkpoint

DATA = bytes(range(256)) * 5000
CHECKPOINT = Checkpoint(
    "net", "net/net.pth", "https://publisher.example/net.pth", len(DATA), "MIT", "x", hashlib.sha256(DATA).hexdigest()
)


class Publisher:
    """Serves `data`, honours ranges, and can hang up after some bytes."""

    def __init__(self, data: bytes = DATA, ranges: bool = True, hang_up_after: int | None = None) -> None:
        self.data = data
        self.ranges = ranges
        self.hang_up_after = hang_up_after
        self.asked: list[str | None] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        wanted = request.headers.get("Range")
        self.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges else 0
        if start >= len(self.data):
            return httpx.Response(416)
        body = self.data[start:]
        headers = {"Content-Length": str(len(body))}
        return httpx.Response(206 if start else 200, headers=headers, content=self._stream(body))

    def _stream(self, body: bytes):  # type: ignore[no-untyped-def]  # noqa: ANN202
        if self.hang_up_after is None:
            yield body
            return
        yield body[: self.hang_up_after]
        raise httpx.ReadError("connection reset")

    def client(self) -> httpx.Client:
        return httpx.Client(transport=httpx.MockTransport(self))


def get(publisher: Publisher, root: Path, checkpoint: Checkpoint = CHECKPOINT) -> list[tuple[int, int]]:
    steps: list[tuple[int, int]] = []
    fetch(checkpoint, root, lambda have, total: steps.append((have, total)), publisher.client())
    return steps


def test_a_whole_download(tmp_path: Path) -> None:
    assert get(Publisher(), tmp_path)[-1] == (len(DATA), len(DATA))
    assert (tmp_path / CHECKPOINT.file).read_bytes() == DATA
    assert [p.name for p in (tmp_path / "net").iterdir()] == ["net.pth"]


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_goes_on(tmp_path: Path, ranges: bool) -> None:
    with pytest.raises(RunFailed, match="it resumes"):
        get(Publisher(hang_up_after=300_000), tmp_path)
    assert not (tmp_path / CHECKPOINT.file).exists()
    publisher = Publisher(ranges=ranges)
    get(publisher, tmp_path)
    assert publisher.asked == ["bytes=300000-"]
    assert (tmp_path / CHECKPOINT.file).read_bytes() == DATA


def test_a_download_that_lacked_only_its_last_step(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "net.pth.part").write_bytes(DATA)
    get(Publisher(), tmp_path)
    assert (tmp_path / CHECKPOINT.file).read_bytes() == DATA


def test_another_file_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Nothing was kept"):
        get(Publisher(DATA[::-1]), tmp_path)
    assert list((tmp_path / "net").iterdir()) == []


def test_a_dead_link(tmp_path: Path) -> None:
    client = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(404)))
    with pytest.raises(RunFailed, match="404"):
        fetch(CHECKPOINT, tmp_path, lambda have, total: None, client)


def test_offline_mode_forbids_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OFFLINE, "1")
    with pytest.raises(UserError, match="forbids downloads"):
        get(Publisher(), tmp_path)
