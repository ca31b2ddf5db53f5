"""Files that mean harm: each is decoded whole or refused, and nothing else happens."""

from __future__ import annotations

import os
import resource
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from evalkit.decoding import Decoder, Job, Limits
from evalkit.decoding.process import release_idle
from evalkit.types import VideoInfo
from evalkit.video import MAX_FRAMES, VideoError, probe, read
from tests.clips import moving_scene, write_clip, write_gif
from tests.hostile import SEEDS, mutant, whole_files

ROOT = Path(__file__).parent.parent
CLIP = ROOT / "tests" / "data" / "decode" / "untagged.mp4"
LIMITS = Limits(timeout_s=30.0, memory_bytes=2**30)
LIMIT_FAULTS = ("the decoder gave no frame", "the decoder crashed", "needs more than")
FAST, SLOW = 5, 250
"""Mutants of each of the twelve kinds of file."""


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(LIMITS) as decoder:
        yield decoder


def fault(decoder: Decoder, path: Path) -> str:
    """Why both ways to decode refuse it; they agree."""
    with pytest.raises(VideoError) as mine:
        list(decoder.read(Job(path, decoder.probe(path))))
    with pytest.raises(VideoError) as theirs:
        list(read(path, probe(path)))
    assert mine.value.reason == theirs.value.reason
    return mine.value.reason


# --- mutants ----------------------------------------------------------------------------------------------------------


def outcome(decoder: Decoder, path: Path) -> str:
    """Decoded to exactly the frames that were promised, refused, or stopped at a limit."""
    try:
        info = decoder.probe(path)
        chunks = list(decoder.read(Job(path, info, frozenset({(32, 24)}))))
    except VideoError as e:
        return next((limit for limit in LIMIT_FAULTS if e.reason.startswith(limit)), "refused")
    assert sum(len(chunk.frames_THWC) for chunk in chunks) == info.n_frames
    assert all(chunk.frames_THWC.shape[1:] == (info.height, info.width, 3) for chunk in chunks)
    return "decoded"


def survive(seeds: range, folder: Path, here: Path) -> Counter[str]:
    """Feed mutants of every kind of file; nothing may be left behind, there or in the current folder."""
    whole = {path: path.read_bytes() for path in whole_files(folder)}
    files = set(folder.iterdir())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: Counter[str] = Counter()
    release_idle()  # that one runs in another folder
    with Decoder(LIMITS) as decoder:
        for seed in seeds:
            for path, data in whole.items():
                hostile = folder / f"hostile{path.suffix}"
                hostile.write_bytes(mutant(data, path.name, seed))
                outcomes[outcome(decoder, hostile)] += 1
                hostile.unlink()
    assert set(folder.iterdir()) == files
    assert {path: path.read_bytes() for path in whole} == whole
    assert not list(here.iterdir())
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 200 * 1024
    return outcomes


def check(outcomes: Counter[str], mutants: int) -> None:
    """Both ends of the scale are reached, and the limits are for exceptions."""
    print(dict(outcomes))
    assert outcomes.total() == mutants * (len(SEEDS) + 1)
    assert outcomes["decoded"] > 0.1 * outcomes.total()
    assert outcomes["refused"] > 0.3 * outcomes.total()
    assert sum(outcomes[limit] for limit in LIMIT_FAULTS) < 0.01 * outcomes.total() + 1


@pytest.fixture
def here(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    folder = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(folder)
    return folder


def test_mutants(tmp_path: Path, here: Path) -> None:
    check(survive(range(FAST), tmp_path, here), FAST)


@pytest.mark.slow
def test_many_mutants(tmp_path: Path, here: Path) -> None:
    check(survive(range(FAST, FAST + SLOW), tmp_path, here), SLOW)


def test_whole_files_are_decoded_by_the_same_measure(tmp_path: Path, decoder: Decoder) -> None:
    assert {outcome(decoder, path) for path in whole_files(tmp_path)} == {"decoded"}


# --- files that lead elsewhere ----------------------------------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[tuple[int, list[bytes]]]:
    """A port, and what has come in there."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    heard.append(connection.recv(1000))
                    if heard[-1] == b"stop":
                        return

        thread = threading.Thread(target=serve)
        thread.start()
        port = server.getsockname()[1]
        yield port, heard
        with socket.create_connection(("127.0.0.1", port)) as last:
            last.sendall(b"stop")
        thread.join()


HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.0,\n{}\n#EXT-X-ENDLIST\n"
PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile 'other.mp4'\nfile 'other.mp4'\n",
    "hls": HLS.format("other.mp4"),
    "hls over http": HLS.format("http://127.0.0.1:PORT/other.mp4"),
    "hls with a key": HLS.replace("#EXTINF", '#EXT-X-KEY:METHOD=AES-128,URI="http://127.0.0.1:PORT/key"\n#EXTINF'),
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    '<Representation id="1" mimeType="video/mp4"><BaseURL>http://127.0.0.1:PORT/other.mp4</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video PORT RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
}


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".gif", ".png"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_playlists_under_other_names_are_no_videos(
    kind: str, suffix: str, tmp_path: Path, decoder: Decoder, listener: tuple[int, list[bytes]]
) -> None:
    port, heard = listener
    other = tmp_path / "other.mp4"
    other.write_bytes(CLIP.read_bytes())
    os.utime(other, (1, 10))  # a file system that notes reading does so, at the latest, when that was before writing
    playlist = tmp_path / f"playlist{suffix}"
    playlist.write_text(PLAYLISTS[kind].format(other).replace("PORT", str(port)))
    assert fault(decoder, playlist).startswith(("not a video file", "not a whole image (unknown format)"))
    assert other.stat().st_atime == 1
    assert not heard


def test_libavformat_itself_would_follow_a_playlist(tmp_path: Path) -> None:
    """What the test above guards against is real."""
    (tmp_path / "other.mp4").write_bytes(CLIP.read_bytes())
    playlist = tmp_path / "playlist.mp4"
    playlist.write_text(PLAYLISTS["concat"])
    with av.open(str(playlist)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 24


@pytest.mark.parametrize("name", ["concat:other.mp4", "subfile,,start,0,end,0,,:other.mp4", "http:other.mp4"])
def test_names_that_look_like_addresses(
    name: str, tmp_path: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.mp4").write_bytes(CLIP.read_bytes())
    with pytest.raises(VideoError, match="no such file"):
        probe(Path(name))
    Path(name).write_text("no video\n" * 100)
    assert fault(decoder, Path(name)).startswith("not a video file")
    Path(name).write_bytes(CLIP.read_bytes())
    assert probe(Path(name)) == probe(CLIP)


def test_a_movie_with_its_media_in_another_file(tmp_path: Path, decoder: Decoder) -> None:
    """A data reference (ISO/IEC 14496-12, 8.7.2) to a file: QuickTime would read that one."""
    data = CLIP.read_bytes()
    at = data.index(b"url ") - 4
    assert data[at : at + 12] == struct.pack(">I4sI", 12, b"url ", 1)
    reference = tmp_path / "reference.mp4"
    reference.write_bytes(data[: at + 8] + struct.pack(">I", 0) + data[at + 12 :])  # "not in this file"
    assert outcome(decoder, reference) in ("decoded", "refused")  # from its own bytes, or not at all


def test_no_program_is_started_for_an_image(tmp_path: Path, decoder: Decoder) -> None:
    """Pillow would have Ghostscript draw PostScript."""
    for suffix in (".gif", ".png", ".jpg"):
        path = tmp_path / f"a{suffix}"
        path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n")
        assert fault(decoder, path) == "not a whole image (unknown format)"


# --- what is no file --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif", ".png"])
def test_only_regular_files_are_opened(suffix: str, tmp_path: Path, decoder: Decoder) -> None:
    """Opening a pipe that nobody writes to would wait for ever; `/dev/zero` never ends."""
    pipe, device, loop, twin = (tmp_path / f"{name}{suffix}" for name in ("pipe", "device", "loop", "twin"))
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    loop.symlink_to(twin)
    twin.symlink_to(loop)
    (tmp_path / f"folder{suffix}").mkdir()
    assert fault(decoder, pipe) == fault(decoder, device) == "not a regular file"
    assert fault(decoder, loop) == "the file cannot be read (too many levels of symbolic links)"
    assert fault(decoder, tmp_path / f"folder{suffix}") == "no such file"
    assert fault(decoder, tmp_path / f"\0{suffix}") == "no such file"


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path, decoder: Decoder) -> None:
    for suffix in (".mp4", ".gif"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(CLIP.read_bytes())
        path.chmod(0)
        assert fault(decoder, path) == "the file cannot be read (permission denied)"


# --- a few bytes that promise much ------------------------------------------------------------------------------------


def png_of(width: int, height: int) -> bytes:
    """A PNG with that header and next to no data."""

    def piece(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = piece(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + piece(b"IDAT", zlib.compress(bytes(1000))) + piece(b"IEND", b"")


@pytest.mark.parametrize("side", [8200, 9460, 12_000, 30_000, 65_535])
def test_images_that_unfold_to_gigabytes(side: int, tmp_path: Path, decoder: Decoder) -> None:
    """Sizes around Pillow's own limits, too, which are a warning and an exception."""
    png, gif = tmp_path / "a.png", tmp_path / "a.gif"
    png.write_bytes(png_of(side, side))
    whole = bytearray(write_gif(gif, [Image.fromarray(frame) for frame in moving_scene(3)]).read_bytes())
    whole[6:10] = struct.pack("<HH", side, side)
    gif.write_bytes(whole)
    for path in (png, gif):
        assert "larger than 67 megapixels" in fault(decoder, path)


def test_a_gif_that_grows_while_it_plays(tmp_path: Path, decoder: Decoder) -> None:
    gif = write_gif(tmp_path / "a.gif", [Image.fromarray(frame) for frame in moving_scene(3)])
    data = bytearray(gif.read_bytes())
    second = data.index(b"\x21\xf9", data.index(b"\x2c") + 1) + 8  # its image descriptor
    assert data[second : second + 1] == b"\x2c"
    data[second + 1 : second + 9] = struct.pack("<HHHH", 0, 0, 65_535, 65_535)
    gif.write_bytes(data)
    assert fault(decoder, gif)


def test_videos_of_giant_frames(tmp_path: Path, decoder: Decoder) -> None:
    """The size in the container, and that in the stream alone (JPEG's frame header, ITU-T T.81, B.2.2)."""
    frames = moving_scene(3)
    jpeg = {"codec": "mjpeg", "pixel_format": "yuvj420p", "options": {"b": "2M"}}
    data = write_clip(tmp_path / "a.avi", frames, **jpeg).read_bytes()
    stream = tmp_path / "stream.avi"
    stream.write_bytes(data.replace(struct.pack(">HH", 48, 64), struct.pack(">HH", 60_000, 60_000)))
    assert "damaged" in fault(decoder, stream)
    container = write_clip(tmp_path / "container.mov", frames, codec="qtrle", pixel_format="rgb24", options={})
    data = container.read_bytes()
    container.write_bytes(data.replace(struct.pack(">HH", 64, 48), struct.pack(">HH", 9000, 9000)))
    assert fault(decoder, container) == "frames of 9000 x 9000 pixels are larger than 67 megapixels"


@pytest.mark.parametrize(
    ("width", "height", "n_frames", "why"),
    [
        (60_000, 60_000, 12, "larger than 67 megapixels"),
        (10**30, 10**30, 12, "larger than 67 megapixels"),
        (70, 50, MAX_FRAMES + 1, "more than 1,048,576 frames"),
        (70, 50, MAX_FRAMES, "truncated: 12 of 1048576"),
        (0, 50, 12, "no video has 12 frames of 0 x 50"),
        (-70, 50, 12, "no video has"),
        (70, 50, 0, "no video has"),
        (70, 48, 12, "the frame size changes at frame 0"),
    ],
)
def test_what_is_said_of_a_video_need_not_be_true(
    width: int, height: int, n_frames: int, why: str, decoder: Decoder
) -> None:
    """As a journal that somebody has edited could make it."""
    info = VideoInfo(width, height, n_frames, 16.0, "h264", "yuv420p")
    with pytest.raises(VideoError, match=why):
        list(decoder.read(Job(CLIP, info)))
    with pytest.raises(VideoError, match=why):
        list(read(CLIP, info, ahead=0))


@pytest.mark.slow
def test_memory_that_a_video_really_needs(tmp_path: Path) -> None:
    """A frame of 8 megapixels does not fit into 8 MiB, and does into the default.

    Decoders report want of memory as such, or call the frame that they have no room for damaged.
    """
    frames = np.zeros((2, 2160, 3840, 3), np.uint8)
    path = write_clip(tmp_path / "4k.mkv", frames, codec="mjpeg", pixel_format="yuvj420p", options={"q": "31"})
    with Decoder(Limits(memory_bytes=2**23)) as decoder:
        with pytest.raises(VideoError, match=r"needs more than 8 MiB of memory to decode|damaged"):
            decoder.probe(path)
        assert decoder.probe(CLIP) == probe(CLIP)
    with Decoder() as decoder:
        chunks = list(decoder.read(Job(path, decoder.probe(path))))
    assert [chunk.frames_THWC.shape for chunk in chunks] == [(2, 2160, 3840, 3)]


def test_bombs_are_refused_without_a_warning_on_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_of(12_000, 12_000))
    script = (
        "import sys; from pathlib import Path; from evalkit.video import VideoError, probe\n"
        "try: probe(Path(sys.argv[1]))\nexcept VideoError as e: print(e.reason)"
    )
    ran = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True, cwd=ROOT)
    assert (ran.stdout, ran.stderr) == ("larger than 67 megapixels\n", "")
