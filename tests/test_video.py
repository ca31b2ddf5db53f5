from __future__ import annotations

import contextlib
import hashlib
import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from evalkit.types import Frames
from evalkit.video import MAX_CHUNK_BYTES, VIDEO_SUFFIXES, VideoError, probe, read, read_frames
from tests import clips
from tests.clips import X264, moving_scene, write_clip

DATA = Path(__file__).parent / "data" / "decode"
OFFICIAL = json.loads((DATA / "official.json").read_text())["clips"]
CLIP = DATA / "untagged.mp4"


def decode(path: Path, **options: int) -> Frames:
    return np.concatenate([chunk.frames_THWC for chunk in read(path, probe(path), **options)])


def sha256(frames: Frames) -> str:
    return hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest()


def mean_error(frames: Frames, expected: Frames) -> float:
    assert frames.shape == expected.shape
    return float(np.abs(frames.astype(int) - expected).mean())


def fault(path: Path) -> str:
    """Why a file is refused, be it by `probe` or by `read`."""
    with pytest.raises(VideoError) as caught:
        decode(path)
    assert str(path) in caught.value.what
    return caught.value.reason


# --- exactness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(OFFICIAL))
def test_frames_are_those_of_decord_and_opencv(name: str) -> None:
    info = probe(DATA / name)
    chunks = list(read(DATA / name, info, chunk=5))
    frames = np.concatenate([chunk.colours("decord") for chunk in chunks])
    assert [info.n_frames, info.height, info.width, 3] == OFFICIAL[name]["shape"]
    assert sha256(frames) == OFFICIAL[name]["decord_sha256"]
    assert sha256(np.concatenate([chunk.colours("opencv") for chunk in chunks])) == OFFICIAL[name]["opencv_sha256"]


def test_the_matrix_matters_and_costs_nothing_where_it_does_not() -> None:
    tagged = next(read(DATA / "bt709.mp4", probe(DATA / "bt709.mp4")))
    plain = next(read(CLIP, probe(CLIP)))
    assert not np.array_equal(tagged.colours("decord"), tagged.colours("opencv"))
    assert plain.colours("opencv") is plain.colours("decord")


@given(st.integers(1, 20), st.sampled_from([0, 1, 3]), st.sampled_from([1, 3]))
@settings(max_examples=25, deadline=None)
def test_chunks_add_up_to_the_clip(chunk: int, ahead: int, threads: int) -> None:
    pieces = list(read(CLIP, probe(CLIP), chunk=chunk, ahead=ahead, threads=threads))
    assert sha256(np.concatenate([p.frames_THWC for p in pieces])) == OFFICIAL[CLIP.name]["decord_sha256"]
    assert [p.start for p in pieces] == list(range(0, 12, chunk))
    assert all(len(p.frames_THWC) == chunk for p in pieces[:-1])
    assert all(p.frames_THWC.flags.c_contiguous and p.frames_THWC.flags.owndata for p in pieces)


@given(st.lists(st.integers(0, 11), max_size=6))
@settings(max_examples=25, deadline=None)
def test_chosen_frames_are_those_frames(indices: list[int]) -> None:
    frames = read_frames(CLIP, indices)
    assert frames.shape == (len(indices), 50, 70, 3)
    assert np.array_equal(frames, decode(CLIP)[indices])


def test_a_frame_that_is_not_there() -> None:
    with pytest.raises(IndexError, match="of a clip of 12"):
        read_frames(CLIP, [3, 12])


def test_reading_chosen_frames_stops_after_the_last(tmp_path: Path) -> None:
    data = bytearray(_with_index_in_front(tmp_path))
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    whole = decode(path)
    data[-5000:] = bytes(5000)  # the last frames
    path.write_bytes(data)
    assert fault(path)
    assert np.array_equal(read_frames(path, [1, 0]), whole[[1, 0]])


# --- kinds of video ---------------------------------------------------------------------------------------------------

KINDS = {
    "h264.mp4": {},
    "h264.mov": {},
    "h264.mkv": {},
    "h264.avi": {},
    "h264.m4v": {},
    "h264_444_odd.mp4": {"frames": moving_scene(9, 75, 101), "pixel_format": "yuv444p"},
    "h264_422.mp4": {"pixel_format": "yuv422p"},
    "h264_10bit.mp4": {"pixel_format": "yuv420p10le"},
    "h265.mp4": {"codec": "libx265", "options": {"crf": "12", "x265-params": "log-level=none"}},
    "vp8.webm": {"codec": "libvpx", "options": {"b": "2M"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"crf": "15", "b": "0"}},
    "av1.mp4": {"codec": "libsvtav1", "frames": moving_scene(9, 64, 64), "options": {"crf": "12", "preset": "12"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"q": "2", "b": "4M"}},
    "mjpeg.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p", "options": {"b": "8M"}},
    "one_frame.mp4": {"frames": moving_scene(1)},
}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_lossy_kinds_look_like_their_source(name: str, tmp_path: Path) -> None:
    arguments = {"frames": moving_scene()} | KINDS[name]
    path = write_clip(tmp_path / name, **arguments)
    frames = decode(path)
    # Halved chroma and quantisation cost about 10 of 255 on this material; a wrong frame, matrix or order 40 and more.
    assert mean_error(frames, arguments["frames"]) < 20
    info = probe(path)
    assert (info.n_frames, info.height, info.width) == arguments["frames"].shape[:3]
    assert info.fps == pytest.approx(16, rel=1e-3)
    assert path.suffix in VIDEO_SUFFIXES


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "channels", "size"),
    [
        ("rgb_odd.mp4", "libx264rgb", "rgb24", 3, (75, 101)),
        ("ffv1_alpha.mkv", "ffv1", "bgra", 4, (48, 64)),
        ("png_alpha.mov", "png", "rgba", 4, (48, 64)),
        ("qtrle_alpha.mov", "qtrle", "argb", 4, (48, 64)),
    ],
)
def test_lossless_kinds_return_their_source(
    name: str, codec: str, pixel_format: str, channels: int, size: tuple[int, int], tmp_path: Path
) -> None:
    source = moving_scene(6, *size, channels=channels)
    options = {"qp": "0"} if codec == "libx264rgb" else {}
    path = write_clip(tmp_path / name, source, codec=codec, pixel_format=pixel_format, options=options)
    assert np.array_equal(decode(path), source[..., :3])  # transparency is dropped, not blended


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [("prores.mov", "prores_ks", "yuva444p10le"), ("vp9_alpha.webm", "libvpx-vp9", "yuva420p")],
)
def test_lossy_alpha_is_dropped(name: str, codec: str, pixel_format: str, tmp_path: Path) -> None:
    source = moving_scene(6, channels=4)
    options = {"profile": "4444"} if codec == "prores_ks" else {"crf": "10", "b": "0"}
    path = write_clip(tmp_path / name, source, codec=codec, pixel_format=pixel_format, options=options)
    assert mean_error(decode(path), source[..., :3]) < 20


def test_gray(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "gray.mkv", codec="ffv1", pixel_format="gray", options={})
    frames = decode(path)
    assert np.ptp(frames, axis=-1).max() == 0
    luma = moving_scene() @ np.array([0.299, 0.587, 0.114])  # BT.601
    assert np.abs(frames[..., 0] - luma).max() < 2  # two roundings: to limited range and back


def test_variable_frame_rate_gives_every_coded_frame_once(tmp_path: Path) -> None:
    times = [0, 40, 200, 210, 400, 1000, 1010, 1020, 1030, 1500, 1600, 2600]
    frames = {
        ms is None: decode(
            write_clip(tmp_path / f"{ms is None}.mp4", options=X264 | {"qp": "10", "bf": "2"}, times_ms=ms)
        )
        for ms in (times, None)
    }
    assert frames[False].shape == frames[True].shape
    assert mean_error(frames[False], moving_scene()) < 20


def test_frames_that_an_edit_list_cuts_off_do_not_count(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", moving_scene(24), options=X264 | {"g": "8"})
    cut = clips.remux(whole, tmp_path / "cut.mp4", shift=3)
    assert probe(cut).n_frames == 21
    assert np.array_equal(decode(cut), decode(whole)[3:])


def test_hidden_vp8_frames_do_not_count(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.webm", codec="libvpx", options={"b": "2M"})
    hidden = clips.hide_vp8_frame(whole, tmp_path / "hidden.webm", index=4)
    assert probe(hidden).n_frames == 11
    assert np.array_equal(decode(hidden), np.delete(decode(whole), 4, axis=0))


@pytest.mark.parametrize(
    ("matrix", "rotation", "turns"),
    [((0, 1, -1, 0), 270, 3), ((-1, 0, 0, -1), 180, 2), ((0, -1, 1, 0), 90, 1), ((1, 0, 0, 1), 0, 0)],
)
def test_rotation_metadata_is_applied(
    matrix: tuple[int, int, int, int], rotation: int, turns: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(CLIP.read_bytes())
    clips.rotate_metadata(path, matrix)
    info = probe(path)
    assert info.rotation == rotation
    assert (info.height, info.width) == ((70, 50) if turns % 2 else (50, 70))
    assert np.array_equal(decode(path), np.rot90(decode(CLIP), turns, axes=(1, 2)))


SCALED_BY_DECORD = {
    (0, 1, -1, 0): "88e873dddf0a22ca9c7ccbba7ab66560c238fff3847f58a68a435e18864c9c7a",
    (-1, 0, 0, -1): "8a0549ade77044cb7fc1acc0cb1e590fc683fcf5fea13ee10a56cc699f8f99b2",
    (0, -1, 1, 0): "82e6b8ae455a96e75f3d68324cb609cb479d9785ffdcd50d415614aa1b648789",
    (1, 0, 0, 1): "15a56b829938e188c3464e9ab7540f2e6943fbe4c9c97481151aea61295bb3a5",
}
"""sha256 of the frames that decord 0.6.0 gives for a display matrix when it is asked for 64x40 pixels."""


@pytest.mark.parametrize("matrix", SCALED_BY_DECORD)
def test_scaled_frames_are_those_of_decord(matrix: tuple[int, int, int, int], tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(CLIP.read_bytes())
    clips.rotate_metadata(path, matrix)
    chunks = list(read(path, probe(path), chunk=5, sizes=[(64, 40), (20, 30)]))
    scaled_THWC = np.concatenate([chunk.colours("decord", (64, 40)) for chunk in chunks])
    assert scaled_THWC.shape == (probe(path).n_frames, 40, 64, 3)
    assert sha256(scaled_THWC) == SCALED_BY_DECORD[matrix]
    assert chunks[0].colours("decord", (20, 30)).shape == (5, 30, 20, 3)
    assert np.array_equal(np.concatenate([chunk.frames_THWC for chunk in chunks]), decode(path))


def test_gifs_come_at_their_own_size(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    images = gif_images()
    images[0].save(path, save_all=True, append_images=images[1:])
    chunk = next(read(path, probe(path), sizes=[(64, 40)]))
    assert chunk.colours("decord", (64, 40)) is chunk.frames_THWC


# --- GIFs and stills --------------------------------------------------------------------------------------------------


def gif_images() -> list[Image.Image]:
    """Frames with transparency and changing parts, so that Pillow writes partial frames with disposal."""
    images = []
    for t in range(7):
        image = Image.new("RGBA", (61, 43), (200, 30, 60, 0 if t % 2 else 255))
        image.paste(Image.fromarray(moving_scene(7, 20, 30)[t]), (t * 3, t * 2))
        images.append(image)
    return images


@pytest.mark.parametrize("options", [{}, {"disposal": 2}, {"disposal": 1, "optimize": True}])
def test_gif_frames_are_those_of_pillow(options: dict[str, object], tmp_path: Path) -> None:
    path = clips.write_gif(tmp_path / "a.gif", gif_images(), **options)
    with Image.open(path) as image:
        expected = np.stack([np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)])
    info = probe(path)
    assert np.array_equal(decode(path, chunk=3), expected)
    assert (info.n_frames, info.width, info.height) == (7, 61, 43)
    assert info.fps == pytest.approx(1000 / 60)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.jpeg"])
def test_a_still_is_a_clip_of_one_frame(name: str, tmp_path: Path) -> None:
    Image.fromarray(moving_scene(1)[0]).save(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        assert np.array_equal(decode(tmp_path / name), np.array(image.convert("RGB"))[None])
    assert probe(tmp_path / name).n_frames == 1


def test_a_truncated_gif_or_still_is_refused(tmp_path: Path) -> None:
    gif = clips.write_gif(tmp_path / "a.gif", gif_images())
    data = gif.read_bytes()
    for size in range(20, len(data) - 1, 97):
        gif.write_bytes(data[:size])
        assert fault(gif)
    png = tmp_path / "a.png"
    Image.fromarray(moving_scene(1)[0]).save(png)
    png.write_bytes(png.read_bytes()[:-400])
    assert "not a whole image" in fault(png)


# --- damaged input ----------------------------------------------------------------------------------------------------


def _with_index_in_front(tmp_path: Path, frames: Frames | None = None) -> bytes:
    """The bytes of an MP4 whose index (moov) comes first, so that a cut takes only frames."""
    source = write_clip(tmp_path / "source.mp4", moving_scene(33) if frames is None else frames)
    with (
        av.open(str(source)) as reader,
        av.open(str(tmp_path / "f.mp4"), "w", options={"movflags": "faststart"}) as writer,
    ):
        copy = writer.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                writer.mux(packet)
    return (tmp_path / "f.mp4").read_bytes()


def test_files_that_are_no_videos(tmp_path: Path) -> None:
    empty, text, folder = tmp_path / "empty.mp4", tmp_path / "text.mp4", tmp_path / "folder.mp4"
    empty.touch()
    text.write_text("This is not a video.\n" * 50)
    folder.mkdir()
    assert fault(empty) == "empty file"
    assert fault(text).startswith("not a video file")
    assert fault(folder) == fault(tmp_path / "absent.mp4") == "no such file"
    assert fault(clips.write_audio(tmp_path / "audio.mp4")) == "no video stream"
    for name in ("empty.gif", "empty.png"):
        (tmp_path / name).touch()
        assert fault(tmp_path / name) == "empty file"
    (tmp_path / "text.gif").write_text("no picture")
    assert fault(tmp_path / "text.gif").startswith("not a whole image")


def test_a_codec_nobody_knows(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(CLIP.read_bytes().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))
    assert fault(path) == "no decoder for its video stream"


def test_a_video_without_its_index(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(CLIP.read_bytes()[:6000])  # this file's index comes last
    assert fault(path) == "truncated: the file ends before its index"


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.99])
def test_a_video_cut_after_its_index(share: float, tmp_path: Path) -> None:
    data = _with_index_in_front(tmp_path)
    path = tmp_path / "a.mp4"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(VideoError, match=r"truncated: \d+ of 33 frames are there, \d+ bytes are missing"):
        probe(path)


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libx264"), ("a.webm", "libvpx-vp9"), ("a.avi", "libx264")])
def test_other_containers_cut_short(name: str, codec: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / name, codec=codec, options={"b": "1M"})
    assert len(decode(path)) == 12
    data = path.read_bytes()
    for share in (0.5, 0.9):
        path.write_bytes(data[: int(share * len(data))])
        assert "truncated" in fault(path) or "damaged" in fault(path)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("ahead", [0, 2])
def test_frames_lost_in_the_middle(threads: int, ahead: int, tmp_path: Path) -> None:
    data = bytearray(_with_index_in_front(tmp_path))
    middle = len(data) // 2
    data[middle : middle + 1500] = random.Random(0).randbytes(1500)
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    info = probe(path)
    assert info.n_frames == 33
    with pytest.raises(VideoError, match=r"damaged: \d+ of 33 frames decode|truncated: \d+ of 33 frames decode"):
        list(read(path, info, threads=threads, ahead=ahead))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_arbitrary_damage_is_refused_or_leaves_every_frame(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(CLIP.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1), label="at")
    patch = data.draw(st.binary(min_size=1, max_size=200), label="patch")
    content[at : at + len(patch)] = patch
    path = tmp_path_factory.mktemp("damaged") / "a.mp4"
    path.write_bytes(content)
    with contextlib.suppress(VideoError):
        assert len(decode(path)) == probe(path).n_frames


@given(size=st.integers(0, CLIP.stat().st_size - 1))
@settings(max_examples=40, deadline=None)
def test_no_truncation_goes_unnoticed(size: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.mp4"
    path.write_bytes(CLIP.read_bytes()[:size])
    assert fault(path)


def test_another_clip_than_the_one_probed(tmp_path: Path) -> None:
    other = write_clip(tmp_path / "other.mp4", moving_scene(12, 48, 64))
    longer = write_clip(tmp_path / "longer.mp4", moving_scene(13, 50, 70))
    with pytest.raises(VideoError, match="frame size changes"):
        list(read(other, probe(CLIP)))
    with pytest.raises(VideoError, match="more than the 12 frames"):
        list(read(longer, probe(CLIP)))


# --- threads and memory -----------------------------------------------------------------------------------------------


def decoding_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "decode-ahead"]


def test_the_thread_ends_with_the_consumer() -> None:
    frames: Iterator = read(CLIP, probe(CLIP), chunk=1, ahead=1)
    next(frames)
    assert len(decoding_threads()) == 1
    frames.close()
    assert not decoding_threads()

    def consume() -> None:
        for _ in read(CLIP, probe(CLIP), chunk=1, ahead=1):
            raise KeyError("the consumer fails")

    with pytest.raises(KeyError):
        consume()
    assert not decoding_threads()
    assert len(list(read(CLIP, probe(CLIP), chunk=1, ahead=1))) == 12
    assert not decoding_threads()


def test_chunks_of_large_frames_are_short() -> None:
    info = probe(CLIP)
    huge = type(info)(7680, 4320, 12, 16.0, "h264", "yuv420p")
    with pytest.raises(VideoError, match="frame size changes"):  # before that, one frame's chunk was allocated
        next(read(CLIP, huge, ahead=0))
    assert MAX_CHUNK_BYTES // (7680 * 4320 * 3) == 1


PEAK = """
import resource, sys
from pathlib import Path
from evalkit.lite.temporal_flickering import METRIC
from evalkit.types import Clip
from evalkit.video import probe, read
path = Path(sys.argv[1])
info = probe(path)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
reader = METRIC.features[0].load(None, None).open(Clip(info, ""))
for chunk in read(path, info):
    reader.push(chunk.start, chunk.frames_THWC)
assert len(reader.close()) == info.n_frames - 1 == 299
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_memory_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    """300 frames of 1080p are 1.8 GiB of RGB; one pass stays below 600 MiB whatever the length.

    That is the chunk being filled, two waiting, one in use and the one before it (95 MiB each), and the decoder.
    """
    path = tmp_path / "long.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"preset": "ultrafast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        picture = av.VideoFrame(1920, 1080, "yuv420p")
        for plane in picture.planes:
            plane.update(bytes(plane.buffer_size))
        for index in range(300):
            picture.pts = index
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    ran = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 600
