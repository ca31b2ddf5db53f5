"""Decoding in a process of its own: the same frames as without, and whatever happens there is one video's fault."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evalkit.decoding import Decoder, DecoderLost, Job, Limits, process
from evalkit.decoding.answers import parse
from evalkit.decoding.sandbox import landlock_version
from evalkit.decoding.wire import Garbled
from evalkit.errors import RunFailed
from evalkit.types import FrameChunk, Size
from evalkit.video import VideoError, probe, read
from tests import clips
from tests.broken_decoder import COMMAND
from tests.clips import moving_scene, write_clip
from tests.test_workers import is_alive, wait_until

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests" / "data" / "decode"
CLIP = DATA / "untagged.mp4"
QUICK = Limits(timeout_s=3.0, memory_bytes=2**29)


def job(path: Path, *sizes: Size) -> Job:
    return Job(path, probe(path), frozenset(sizes))


def assert_same(found: list[FrameChunk], expected: list[FrameChunk]) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.start == theirs.start
        assert np.array_equal(mine.frames_THWC, theirs.frames_THWC)
        assert (mine.opencv_THWC is None) == (theirs.opencv_THWC is None)
        for reader in ("decord", "opencv"):
            assert np.array_equal(mine.colours(reader), theirs.colours(reader))
        assert mine.scaled.keys() == theirs.scaled.keys()
        assert all(np.array_equal(mine.scaled[size], theirs.scaled[size]) for size in theirs.scaled)


def assert_decodes(decoder: Decoder, work: Job) -> None:
    assert_same(list(decoder.read(work)), list(read(work.path, work.info, sizes=work.sizes, ahead=0)))


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six chunks: more than there are slots."""
    return write_clip(tmp_path_factory.mktemp("long") / "long.mp4", moving_scene(90))


@pytest.fixture
def broken() -> Iterator[Decoder]:
    with Decoder(QUICK, command=COMMAND) as decoder:
        yield decoder


def has_decoded(child: process.Process) -> bool:
    """Whether the first chunk of `CLIP` lies in a slot, told or not."""
    return any(slot.copy(0, (12, 50, 70, 3))[-1].any() for slot in child.slots)


# --- the same frames --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bt601.mp4", "bt709.mp4", "full_range.mp4", "untagged.mp4"])
@pytest.mark.parametrize("sizes", [(), ((64, 40), (20, 30), (200, 300))])
def test_frames_are_those_of_the_reader_in_this_process(name: str, sizes: tuple[Size, ...]) -> None:
    with Decoder() as decoder:
        assert decoder.probe(DATA / name) == probe(DATA / name)
        assert_decodes(decoder, job(DATA / name, *sizes))


def test_other_kinds(tmp_path: Path, long_clip: Path) -> None:
    rotated = tmp_path / "rotated.mp4"
    rotated.write_bytes((DATA / "bt709.mp4").read_bytes())
    clips.rotate_metadata(rotated, (0, 1, -1, 0))
    still = tmp_path / "still.png"
    Image.fromarray(moving_scene(1)[0]).save(still)
    images = [Image.fromarray(frame) for frame in moving_scene(20)]
    kinds = [
        rotated,
        still,
        long_clip,
        clips.write_gif(tmp_path / "a.gif", images),
        write_clip(tmp_path / "vp9.webm", codec="libvpx-vp9", options={"b": "1M"}),
        write_clip(tmp_path / "odd.mkv", moving_scene(9, 75, 101), codec="ffv1", pixel_format="bgr0", options={}),
        write_clip(tmp_path / "ten.mp4", pixel_format="yuv420p10le", matrix=1),
    ]
    with Decoder() as decoder:
        work = [job(path, (40, 30)) for path in kinds]
        for each in work:
            assert decoder.probe(each.path) == each.info
            decoder.expect(each)
        for each in work:
            assert_decodes(decoder, each)


def test_the_room_grows_while_earlier_videos_still_lie_in_it(tmp_path: Path) -> None:
    large = job(write_clip(tmp_path / "large.mp4", clips.gradient_frames(20, 360, 640, level=40)))
    with Decoder() as decoder:
        decoder.expect(job(CLIP, (30, 20)))
        decoder.expect(large)
        assert_decodes(decoder, job(CLIP, (30, 20)))
        chunks = list(decoder.read(large))
    assert_same(chunks, list(read(large.path, large.info, ahead=0)))


def test_chunks_are_the_readers_own(long_clip: Path) -> None:
    work = job(long_clip)
    with Decoder() as decoder:
        chunks = list(decoder.read(work))
        copies = [chunk.frames_THWC.copy() for chunk in chunks]
        assert all(c.frames_THWC.flags.c_contiguous and c.frames_THWC.flags.writeable for c in chunks)
        chunks[0].frames_THWC[:] = 0
        list(decoder.read(work))
    assert all(np.array_equal(c.frames_THWC, copy) for c, copy in list(zip(chunks, copies, strict=True))[1:])


def test_a_fault_travels_between_processes_whole() -> None:
    fault = pickle.loads(pickle.dumps(VideoError(Path("a b.mp4"), "empty file")))
    assert (fault.path, fault.reason) == (Path("a b.mp4"), "empty file")
    assert str(fault) == str(VideoError(Path("a b.mp4"), "empty file"))


def test_a_damaged_file_is_refused_in_the_same_words(tmp_path: Path, long_clip: Path) -> None:
    path = tmp_path / "a.mp4"
    data = bytearray(long_clip.read_bytes())
    data[3000:4500] = bytes(1500)
    path.write_bytes(data)
    (tmp_path / "empty.mp4").touch()
    with Decoder() as decoder:
        for refused in (tmp_path / "absent.mp4", tmp_path / "empty.mp4", tmp_path):
            with pytest.raises(VideoError) as theirs:
                probe(refused)
            with pytest.raises(VideoError) as mine:
                decoder.probe(refused)
            assert (mine.value.what, mine.value.reason) == (theirs.value.what, theirs.value.reason)
            assert not isinstance(mine.value, DecoderLost)
        with pytest.raises(VideoError) as theirs:
            list(read(path, probe(path)))
        with pytest.raises(VideoError) as mine:
            list(decoder.read(Job(path, decoder.probe(path))))
        assert mine.value.reason == theirs.value.reason
        assert_decodes(decoder, job(CLIP))


# --- ahead, and not at all --------------------------------------------------------------------------------------------


def test_expected_videos_are_decoded_while_this_process_does_nothing(tmp_path: Path) -> None:
    """Before anybody asks for frames: the file may be gone by then."""
    path = tmp_path / "a.mp4"
    path.write_bytes(CLIP.read_bytes())
    work = job(path)
    with Decoder() as decoder:
        decoder.expect(work)
        child = decoder._conversation._child
        assert child is not None
        wait_until(lambda: has_decoded(child))
        path.unlink()
        assert len(list(decoder.read(work))) == 1


def test_questions_are_answered_in_the_middle_of_a_video(long_clip: Path) -> None:
    with Decoder() as decoder:
        work = job(long_clip)
        decoder.expect(work)
        found = []
        for chunk in decoder.read(work):
            assert decoder.probe(CLIP) == probe(CLIP)
            found.append(chunk)
        assert_same(found, list(read(long_clip, work.info)))


def test_videos_expected_before_are_dropped(long_clip: Path) -> None:
    with Decoder() as decoder:
        works = [job(long_clip), job(DATA / "bt709.mp4"), job(CLIP), job(DATA / "bt601.mp4")]
        for work in works:
            decoder.expect(work)
        assert_decodes(decoder, works[2])
        assert_decodes(decoder, works[3])
        assert_decodes(decoder, works[0])


def test_one_that_was_not_expected_comes_first(long_clip: Path) -> None:
    with Decoder() as decoder:
        expected = [job(long_clip), job(DATA / "bt709.mp4")]
        for work in expected:
            decoder.expect(work)
        decoder.probe(CLIP)
        assert_decodes(decoder, job(CLIP))
        for work in expected:
            assert_decodes(decoder, work)


def test_readers_may_stop_early(long_clip: Path) -> None:
    with Decoder() as decoder:
        for _ in range(3):
            decoder.expect(job(long_clip))
            frames = decoder.read(job(long_clip))
            next(frames)
            frames.close()
        assert_decodes(decoder, job(CLIP))
        abandoned = decoder.read(job(long_clip))
        next(abandoned)
        assert_decodes(decoder, job(CLIP))
        with pytest.raises(ValueError, match="dropped"):
            next(abandoned)


def test_more_videos_than_are_asked_for_at_a_time() -> None:
    with Decoder() as decoder:
        works = [job(DATA / name) for name in ("bt709.mp4", "untagged.mp4")] * 10
        for work in works:
            decoder.expect(work)
        for work in works:
            assert_decodes(decoder, work)


def test_an_idle_process_is_kept_for_the_next_decoder(long_clip: Path) -> None:
    with Decoder() as decoder:
        decoder.probe(CLIP)
        first = decoder._conversation._child
    with Decoder() as decoder:
        frames = decoder.read(job(long_clip))
        next(frames)
        assert decoder._conversation._child is first
        frames.close()
    with Decoder() as decoder, Decoder() as other:
        assert_decodes(decoder, job(CLIP))
        assert_decodes(other, job(CLIP))
        assert decoder._conversation._child is first
        assert other._conversation._child is not first
    with Decoder(QUICK) as decoder:
        decoder.probe(CLIP)
        assert decoder._conversation._child is not first


def test_no_process_without_work() -> None:
    before = set(process._running)
    with Decoder(command=("/nowhere",)):
        pass
    gc.collect()
    assert set(process._running) <= before


# --- processes that fail ----------------------------------------------------------------------------------------------

FAULTS = {
    "hang": "the decoder gave no frame for 3 s",
    "seize": "the decoder gave no frame for 3 s",
    "segv": "the decoder crashed (signal SEGV)",
    "abort": "the decoder crashed (signal ABRT)",
    "exit": "the decoder crashed (exit code 7)",
    "kill": "the decoder crashed (signal KILL)",
    "eat": "needs more than 512 MiB of memory to decode",
    "babble": "the decoder crashed (its answers make no sense)",
    "lie": "the decoder crashed (its answers make no sense)",
    "flood": "the decoder crashed (its answers make no sense)",
    "cut": "the decoder crashed (its answers make no sense)",
}


@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.slow) if k == "seize" else k for k in FAULTS])
def test_the_video_is_marked_and_the_next_one_is_read(
    kind: str, broken: Decoder, tmp_path: Path, long_clip: Path
) -> None:
    """The fault comes after what was decoded before it, and only when its own video is read."""
    path = tmp_path / f"{kind}-1.mp4"
    path.write_bytes(long_clip.read_bytes())
    bad, good = job(path), job(CLIP, (20, 30))
    for work in (good, bad, good):
        broken.expect(work)
    assert_decodes(broken, good)
    chunks: list[FrameChunk] = []
    with pytest.raises(DecoderLost) as caught:
        chunks.extend(broken.read(bad))
    assert caught.value.reason == FAULTS[kind]
    assert str(path) in caught.value.what
    assert_same(chunks, list(read(path, bad.info))[: len(chunks)])
    assert len(chunks) <= 1
    assert_decodes(broken, good)


@pytest.mark.parametrize("kind", ["segv", pytest.param("hang", marks=pytest.mark.slow), "eat"])
def test_a_file_that_cannot_be_opened_does_not_harm_the_video_being_read(
    kind: str, broken: Decoder, tmp_path: Path, long_clip: Path
) -> None:
    path = tmp_path / f"{kind}-probe.mp4"
    path.write_bytes(CLIP.read_bytes())
    work = job(long_clip, (20, 30))
    found = []
    for number, chunk in enumerate(broken.read(work)):
        found.append(chunk)
        if number == 1:
            with pytest.raises(DecoderLost) as caught:
                broken.probe(path)
            assert caught.value.reason == FAULTS[kind]
    assert_same(found, list(read(long_clip, work.info, sizes=work.sizes)))


def test_a_process_killed_by_others_is_replaced_and_no_frame_is_lost(long_clip: Path) -> None:
    """As the kernel does when memory is short: not the video's fault, unless it happens again."""
    work = job(long_clip)
    with Decoder() as decoder:
        found = []
        for number, chunk in enumerate(decoder.read(work)):
            found.append(chunk)
            if number == 0:
                child = decoder._conversation._child
                assert child is not None
                os.kill(child.pid, signal.SIGKILL)
        assert_same(found, list(read(long_clip, work.info)))
        decoder.probe(CLIP)
        child = decoder._conversation._child
        assert child is not None
        os.kill(child.pid, signal.SIGKILL)  # at nothing
        assert_decodes(decoder, work)


@pytest.mark.parametrize("command", [(*COMMAND, "never"), ("/nowhere/python",)])
def test_a_process_that_does_not_start_is_not_the_videos_fault(command: tuple[str, ...]) -> None:
    with Decoder(QUICK, command=command) as decoder:
        with pytest.raises(RunFailed, match="does not start"):
            decoder.probe(CLIP)
        with pytest.raises(RunFailed, match="does not start"):
            list(decoder.read(job(CLIP)))


@pytest.mark.slow
def test_closing_in_the_middle_of_a_hang(broken: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "hang.mp4"
    path.write_bytes(CLIP.read_bytes())
    broken.expect(job(path))
    child = broken._conversation._child
    assert child is not None
    wait_until(lambda: has_decoded(child))
    broken.close()
    wait_until(lambda: not is_alive(child.pid))


@pytest.mark.skipif(not landlock_version(), reason="this kernel has no Landlock")
def test_the_process_may_not_write_connect_or_start_programs(broken: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "write.mp4"
    path.write_bytes(CLIP.read_bytes())
    with pytest.raises(VideoError) as caught:
        list(broken.read(job(path)))
    allowed = "nothing" if landlock_version() >= 4 else "connect: [Errno 111] Connection refused"
    assert caught.value.reason == f"it did: {allowed}"
    assert [file.name for file in tmp_path.iterdir()] == ["write.mp4"]
    assert path.read_bytes() == CLIP.read_bytes()


# --- and its parent ---------------------------------------------------------------------------------------------------

PARENT = """
import sys
from pathlib import Path
from evalkit.decoding import Decoder, Job, Limits
from evalkit.video import probe
from tests.broken_decoder import COMMAND
path, untroubled = map(Path, sys.argv[1:])
decoder = Decoder(Limits(timeout_s=2.0), command=COMMAND)
info = decoder.probe(untroubled)
decoder.expect(Job(path, info))
print(decoder._conversation._child.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("name", ["idle.mp4", "hang.mp4", pytest.param("seize.mp4", marks=pytest.mark.slow)])
def test_the_process_ends_when_its_parent_is_killed(name: str, tmp_path: Path) -> None:
    """Even one that hangs in C and never lets go of the interpreter."""
    path = tmp_path / name
    path.write_bytes(CLIP.read_bytes())
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, path, CLIP],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.kill()
    wait_until(lambda: not is_alive(child))


CTRL_C = """
import os, signal, sys, threading
from pathlib import Path
from evalkit.decoding import Decoder, Job, Limits
from tests.broken_decoder import COMMAND
with Decoder(command=COMMAND) as decoder:
    path, untroubled = map(Path, sys.argv[1:])
    info = decoder.probe(untroubled)
    print(decoder._conversation._child.pid, flush=True)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    list(decoder.read(Job(path, info)))
"""


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "hang.mp4"
    path.write_bytes(CLIP.read_bytes())
    ran = subprocess.run(
        [sys.executable, "-c", CTRL_C, path, CLIP],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ran.stderr.strip().endswith("KeyboardInterrupt")
    assert not is_alive(int(ran.stdout))


def inherited(handles: list[int]) -> list[int]:
    """Which of these are open here."""
    return [handle for handle in handles if Path(f"/proc/self/fd/{handle}").exists()]


FORKS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@FORKS
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_forks_and_programs_started_meanwhile_inherit_nothing() -> None:
    """Otherwise they would keep the decoding process alive, or talk to it."""
    with Decoder() as decoder:
        decoder.probe(CLIP)
        child = decoder._conversation._child
        assert child is not None
        mine = [child._channel.socket.fileno(), *(slot.fileno() for slot in child.slots)]
        assert inherited(mine) == mine
        listed = subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, close_fds=False)
        assert "memfd" not in listed.stdout
        reader, writer = os.pipe()
        fork = os.fork()
        if not fork:
            os.write(writer, repr(inherited(mine)).encode())
            os._exit(0)
        os.waitpid(fork, 0)
        os.close(writer)
        with os.fdopen(reader) as report:
            assert report.read() == "[]"
        assert_decodes(decoder, job(CLIP))


@FORKS
def test_a_fork_finds_a_process_of_its_own() -> None:
    with Decoder() as decoder:
        decoder.probe(CLIP)
        context = multiprocessing.get_context("fork")
        results = context.SimpleQueue()
        fork = context.Process(target=lambda: results.put(sum(len(c.frames_THWC) for c in decoder.read(job(CLIP)))))
        fork.start()
        fork.join(60)
        assert fork.exitcode == 0
        assert results.get() == 12
        assert_decodes(decoder, job(CLIP))


def test_a_hostile_file_in_the_current_folder_is_not_imported(tmp_path: Path) -> None:
    for name in ("numpy", "av", "json", "PIL", "evalkit"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    script = (
        "import sys; sys.path[0] = sys.argv.pop(); from pathlib import Path; from evalkit.decoding import Decoder\n"
        "with Decoder() as d: print(d.probe(Path(sys.argv[1])).n_frames)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, CLIP, ROOT], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert ran.stdout == "12\n", ran.stderr


def test_the_process_imports_no_networks_and_no_tables() -> None:
    script = "import sys, evalkit.decoding.child; print([m for m in ('torch', 'pandas', 'scipy') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout == "[]\n"


# --- what it says is not believed -------------------------------------------------------------------------------------

INFO = {"width": 8, "height": 8, "n_frames": 1, "fps": 1.0, "codec": "h264", "pixel_format": "yuv420p", "rotation": 0}


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0},
        {"width": "8"},
        {"width": True},
        {"width": 2**40},
        {"width": 2**16, "height": 2**16},
        {"n_frames": 0},
        {"n_frames": 10**9},
        {"fps": float("nan")},
        {"fps": -1.0},
        {"codec": None},
        {"rotation": 45},
    ],
)
def test_facts_that_cannot_be(change: dict[str, object]) -> None:
    assert parse({"task": 1, "says": "probed", "info": INFO})
    with pytest.raises(Garbled):
        parse({"task": 1, "says": "probed", "info": INFO | change})


@pytest.mark.parametrize("message", [{}, {"task": 1}, {"task": -1, "says": "hello"}, {"task": 1, "says": ["hello"]}])
def test_answers_that_are_none(message: dict[str, object]) -> None:
    with pytest.raises(Garbled):
        parse(message)


def test_reasons_cannot_command_the_terminal() -> None:
    _, refused = parse({"task": 1, "says": "refused", "reason": "\x1b[2J" + "x" * 10_000})
    assert refused.reason.startswith("?[2Jxxx")
    assert len(refused.reason) == 400
