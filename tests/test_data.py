"""Real videos as training data: what is read, in which order, and what is refused."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from m4v.data import CachedLatents, ShapesWorld, Source, make_source
from m4v.data.cache import codec_hash
from m4v.data.clips import ClipSize, VideoSource
from m4v.data.folder import FolderSource
from m4v.data.shards import ShardSource
from m4v.latents import BlockTransform
from m4v.layout import Codec

SIZE = ClipSize(frames=9, height=16, width=16, fps=8.0)


def mp4(grey: int, n: int = 20, fps: int = 8, height: int = 16, width: int = 16) -> bytes:
    """A clip whose frame t is uniformly `grey + 3 t`: a decoded pixel tells video and frame."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for t in range(n):
            frame_HWC = np.full((height, width, 3), grey + 3 * t, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


CLIPS = {"a": mp4(10), "b": mp4(80, n=9), "c": mp4(120, n=30)}
"""With 9 frames an example: 2, 1 and 3 windows."""


def folder(path: Path, clips: dict[str, bytes] = CLIPS) -> Path:
    path.mkdir(exist_ok=True)
    for name, data in clips.items():
        (path / f"{name}.mp4").write_bytes(data)
        (path / f"{name}.txt").write_text(f"clip {name}\n", encoding="utf-8")
    return path


def shard(path: Path, clips: dict[str, bytes] = CLIPS, caption: str | None = "txt") -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in clips.items():
            members = {f"{name}.mp4": data}
            if caption == "txt":
                members[f"{name}.txt"] = f"clip {name}".encode()
            elif caption == "json":
                members[f"{name}.json"] = json.dumps({"caption": f"clip {name}"}).encode()
            for member, content in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def in_folder(path: Path) -> VideoSource:
    return FolderSource(folder(path / "clips"), SIZE)


def in_shards(path: Path) -> VideoSource:
    shard(path / "train-0.tar", {"a": CLIPS["a"], "b": CLIPS["b"]})
    shard(path / "train-1.tar", {"c": CLIPS["c"]}, caption="json")
    return ShardSource(str(path / "train-*.tar"), SIZE)


either = pytest.mark.parametrize("make", [in_folder, in_shards])
Make = Callable[[Path], VideoSource]


def levels(video_THWC: torch.Tensor) -> list[int]:
    return [round(frame.float().mean().item()) for frame in video_THWC]


# What is read


@either
def test_a_source_gives_clips_with_their_captions(make: Make, tmp_path: Path) -> None:
    source = make(tmp_path)
    batch = source.batch(0, 6, seed=0)
    assert isinstance(source, Source)
    assert batch.video_BTHWC.shape == (6, 9, 16, 16, 3)
    assert batch.video_BTHWC.dtype == torch.uint8
    first = {"clip a": (10, 37), "clip b": (80,), "clip c": (120, 147, 174)}
    seen = {(text, levels(clip)[0]) for clip, text in zip(batch.video_BTHWC, batch.captions, strict=True)}
    # Lossy: within 2 grey levels, frames being 3 apart and windows 27.
    assert sorted(text for text, _ in seen) == ["clip a"] * 2 + ["clip b"] + ["clip c"] * 3
    assert all(min(abs(grey - known) for known in first[text]) <= 2 for text, grey in seen)


@either
def test_a_window_holds_consecutive_frames(make: Make, tmp_path: Path) -> None:
    for clip_THWC in make(tmp_path).batch(0, 6, seed=0).video_BTHWC:
        np.testing.assert_allclose(np.diff(levels(clip_THWC)), 3, atol=2)


def test_folder_and_shards_hold_the_same_clips(tmp_path: Path) -> None:
    keys = [{e.key() for e in make(tmp_path).all} for make in (in_folder, in_shards)]
    assert keys[0] == keys[1]
    assert len(keys[0]) == 6


def test_frames_are_thinned_to_the_frame_rate(tmp_path: Path) -> None:
    source = FolderSource(folder(tmp_path / "fast", {"a": mp4(10, n=40, fps=24)}), SIZE)
    assert len(source.all) == 1  # 25 of 40 frames make a clip
    clip_THWC = source.batch(0, 1, seed=0).video_BTHWC[0]
    np.testing.assert_allclose(np.diff(levels(clip_THWC)), 9, atol=2)


def test_slow_videos_are_not_stretched(tmp_path: Path) -> None:
    source = FolderSource(folder(tmp_path / "slow", {"a": mp4(10, n=9, fps=4)}), SIZE)
    np.testing.assert_allclose(np.diff(levels(source.batch(0, 1, seed=0).video_BTHWC[0])), 3, atol=2)


def test_pictures_are_scaled_to_cover_and_cropped_in_the_centre(tmp_path: Path) -> None:
    wide_HWC = np.zeros((32, 128, 3), np.uint8)
    wide_HWC[:, 48:80] = 200  # the central square
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = 32, 128, "yuv420p"
        for _ in range(9):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(wide_HWC, format="rgb24")))
        container.mux(stream.encode())
    clip_THWC = (
        FolderSource(folder(tmp_path / "wide", {"w": buffer.getvalue()}), SIZE).batch(0, 1, seed=0).video_BTHWC[0]
    )
    assert (clip_THWC[:, :, 1:-1].float() - 200).abs().max() <= 6


def test_captions_from_a_manifest_come_first(tmp_path: Path) -> None:
    clips = folder(tmp_path / "clips", {"a": CLIPS["a"], "b": CLIPS["b"]})
    (clips / "manifest.jsonl").write_text('{"file": "b.mp4", "prompt": "from the manifest"}\n\n', encoding="utf-8")
    (clips / "a.txt").unlink()
    (clips / "a.json").write_text('{"text": "from json"}', encoding="utf-8")
    source = FolderSource(clips, SIZE)
    assert [item.caption for item in source.items] == ["from json", "from the manifest"]


def test_folders_within_folders_are_read(tmp_path: Path) -> None:
    folder(tmp_path / "more", {"a": CLIPS["a"]})
    assert [item.name for item in FolderSource(tmp_path, SIZE).items] == ["more/a.mp4"]


# Order


@either
def test_a_batch_is_a_pure_function_of_its_arguments(make: Make, tmp_path: Path) -> None:
    source = make(tmp_path)
    first = source.batch(5, 4, seed=2)
    source.batch(0, 3, seed=1)
    again = make(tmp_path).batch(5, 4, seed=2)
    assert torch.equal(first.video_BTHWC, again.video_BTHWC)
    assert first.captions == again.captions


def test_every_epoch_sees_everything_once_in_another_order(tmp_path: Path) -> None:
    source = in_folder(tmp_path)
    keys = [e.key() for step in range(40) for e in source.examples(step, 3, seed=7)]
    epochs = [tuple(keys[n : n + 6]) for n in range(0, 120, 6)]
    assert all(len(set(epoch)) == 6 for epoch in epochs)
    assert len(set(epochs)) > 15  # of 20 draws among 720 orders


def test_batch_size_does_not_change_the_order(tmp_path: Path) -> None:
    source = in_folder(tmp_path)
    by_two = [e.key() for step in range(6) for e in source.examples(step, 2, seed=0)]
    by_three = [e.key() for step in range(4) for e in source.examples(step, 3, seed=0)]
    assert by_two == by_three


def test_images_are_first_frames_in_an_order_of_their_own(tmp_path: Path) -> None:
    source = in_folder(tmp_path)
    images = source.batch(0, 6, seed=0, images=True)
    assert images.video_BTHWC.shape == (6, 1, 16, 16, 3)
    clips = [[e.item.name for e in source.examples(0, 6, seed=s)] for s in range(5)]
    stills = [[e.item.name for e in source.examples(0, 6, seed=s, images=True)] for s in range(5)]
    assert clips != stills


def test_the_identity_tells_data_apart(tmp_path: Path) -> None:
    one = in_folder(tmp_path).describe()
    other = FolderSource(folder(tmp_path / "other", {"a": CLIPS["a"]}), SIZE).describe()
    assert one["sha256"] != other["sha256"]
    assert one == in_folder(tmp_path).describe()
    assert one["clips"] == 6
    assert json.loads(json.dumps(one)) == one


# Latents on disk


def codec(channels: int = 24) -> BlockTransform:
    transform = BlockTransform(Codec(channels=channels))
    transform.fit([ShapesWorld(frames=9, height=16, width=16).batch(0, 8, seed=0).video_BTHWC])
    return transform


@either
def test_cached_latents_are_those_of_the_source(make: Make, tmp_path: Path) -> None:
    source, blocks = make(tmp_path), codec()
    for _ in range(2):  # encoded, then read
        cached = CachedLatents(source, blocks, tmp_path / "cache").batch(1, 3, seed=0)
        batch = source.batch(1, 3, seed=0)
        assert cached.captions == batch.captions
        # Clips are encoded one by one: sums may differ in the last bits of float32.
        torch.testing.assert_close(cached.latents_BCTYX, blocks.encode(batch.video_BTHWC), rtol=1e-5, atol=1e-5)


def test_a_clip_is_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, blocks, calls = in_folder(tmp_path), codec(), []
    encode = blocks.encode
    monkeypatch.setattr(blocks, "encode", lambda video: (calls.append(1), encode(video))[1])
    cached = CachedLatents(source, blocks, tmp_path / "cache")
    for step in range(10):
        cached.batch(step, 3, seed=step)
    assert len(calls) == len(source.all) == len(list((tmp_path / "cache").rglob("*.npy")))


def test_a_damaged_file_of_the_cache_is_written_anew(tmp_path: Path) -> None:
    cached = CachedLatents(in_folder(tmp_path), codec(), tmp_path / "cache")
    before = cached.batch(0, 6, seed=0).latents_BCTYX
    for path in (tmp_path / "cache").rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(cached.batch(0, 6, seed=0).latents_BCTYX, before)
    assert all(path.stat().st_size > 100 for path in (tmp_path / "cache").rglob("*.npy"))


def test_other_codecs_and_other_statistics_have_other_latents() -> None:
    fitted, other = codec(), BlockTransform(Codec(channels=24))
    other.fit([torch.randint(0, 256, (4, 9, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))])
    assert len({codec_hash(fitted), codec_hash(other), codec_hash(codec(16))}) == 3
    assert codec_hash(fitted) == codec_hash(codec())


def test_changed_bytes_are_another_clip(tmp_path: Path) -> None:
    before = {e.key() for e in in_folder(tmp_path).all}
    folder(tmp_path / "clips", {"b": mp4(81, n=9)})
    assert len(before - {e.key() for e in FolderSource(tmp_path / "clips", SIZE).all}) == 1


# What a user types


def test_make_source_tells_worlds_folders_and_shards_apart(tmp_path: Path) -> None:
    in_shards(tmp_path)
    folder(tmp_path / "clips")
    size = {"frames": 9, "height": 16, "width": 16}
    assert make_source("shapes", **size).describe()["level"] == "default"
    assert make_source("shapes:easy", **size).describe()["level"] == "easy"
    assert make_source("shapes:full", **size).describe()["level"] == "full"
    assert make_source(str(tmp_path / "clips"), **size).describe()["source"] == "folder"
    assert make_source(str(tmp_path / "train-*.tar"), **size).describe()["source"] == "shards"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("shpes", r"'shpes' is neither .*did you mean shapes\?"),
        ("shapes:hard", "'shapes:hard' is neither one of shapes, shapes:easy, shapes:full"),
        ("nowhere/*.tar", r"no file matches nowhere/\*\.tar"),
    ],
)
def test_unknown_sources_are_refused(spec: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_source(spec)


# Bad data: one clear sentence


def test_a_missing_or_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere"):
        FolderSource(tmp_path / "nowhere", SIZE)
    with pytest.raises(ValueError, match=r"holds no videos \(\.mp4"):
        FolderSource(tmp_path, SIZE)


def test_videos_without_captions_are_counted_and_named(tmp_path: Path) -> None:
    clips = folder(tmp_path / "clips")
    (clips / "a.txt").unlink()
    (clips / "c.txt").write_text("  \n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"2 of 3 videos in .* have no caption \(a\.mp4; c\.mp4\): write a manifest"):
        FolderSource(clips, SIZE)
    shard(tmp_path / "bare.tar", caption=None)
    with pytest.raises(ValueError, match=r"3 of 3 videos .*bare\.tar, member a\.mp4"):
        ShardSource(str(tmp_path / "bare.tar"), SIZE)


def test_short_videos_are_counted_and_named(tmp_path: Path) -> None:
    clips = folder(tmp_path / "clips", {**CLIPS, **{f"s{n}": mp4(10, n=n) for n in range(1, 6)}})
    with pytest.raises(
        ValueError, match=r"5 of 8 videos .*too short for 9 frames at 8 a second: s1\.mp4 has 1 frames"
    ) as e:
        FolderSource(clips, SIZE)
    assert "; and 2 more" in str(e.value)


def test_files_that_are_no_videos_are_named(tmp_path: Path) -> None:
    clips = folder(tmp_path / "clips", {"a": CLIPS["a"], "bad": b"no video at all" * 100})
    with pytest.raises(ValueError, match=r"bad\.mp4 is not a video"):
        FolderSource(clips, SIZE)
    shard(tmp_path / "x.tar", {"a": CLIPS["a"], "bad": b"no video at all" * 100})
    with pytest.raises(ValueError, match=r"x\.tar, member bad\.mp4 is not a video"):
        ShardSource(str(tmp_path / "x.tar"), SIZE)


def test_a_video_that_breaks_off_is_named(tmp_path: Path) -> None:
    whole = mp4(10)
    at = whole.index(b"mdat") + 20
    torn = whole[:at] + b"\xff" * (len(whole) - at - 1200) + whole[len(whole) - 1200 :]
    source = FolderSource(folder(tmp_path / "clips", {"torn": torn}), SIZE)
    with pytest.raises(ValueError, match=r"torn\.mp4 (does not decode|ends before)"):
        source.batch(0, 2, seed=0)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: b"not a tar" * 100, r"d\.tar is not a readable tar archive after its beginning"),
        (lambda data: b"", r"d\.tar is not a readable tar archive"),
        (lambda data: data[: len(data) * 2 // 3], r"d\.tar is cut off inside member"),
        (lambda data: data[:512], r"d\.tar is cut off inside member a\.mp4"),
    ],
)
def test_damaged_shards_are_named(damage: Callable[[bytes], bytes], said: str, tmp_path: Path) -> None:
    path = shard(tmp_path / "d.tar", {"a": CLIPS["a"]})
    path.write_bytes(damage(path.read_bytes()[: 512 + len(CLIPS["a"])]))  # a header and its content
    with pytest.raises(ValueError, match=said):
        ShardSource(str(path), SIZE)


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = shard(tmp_path / "d.tar")
    with tarfile.open(path) as archive:
        header = archive.getmember("b.mp4").offset
    data = bytearray(path.read_bytes())
    data[header : header + 512] = b"\x55" * 512
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"d\.tar is damaged after member a\.txt"):
        ShardSource(str(path), SIZE)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("manifest.jsonl", "{", "manifest.jsonl, line 1 is not JSON"),
        ("manifest.jsonl", '{"caption": "x"}', "manifest.jsonl, line 1 names no file"),
        ("a.json", "[", "a.json cannot be read as a caption"),
    ],
)
def test_broken_captions_are_named(name: str, content: str, said: str, tmp_path: Path) -> None:
    clips = folder(tmp_path / "clips", {"a": CLIPS["a"]})
    (clips / "a.txt").unlink()
    (clips / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        FolderSource(clips, SIZE)
