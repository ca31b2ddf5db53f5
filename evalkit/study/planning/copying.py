"""All blinded copies of a study, in parallel; what was copied before an interruption is not copied again.

The folder in which a study grows has a journal, `copies.jsonl`: one line for each finished copy, with what it was made
from. It names models, so only its owner can read it, and it is gone when the study is done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from evalkit.errors import RunFailed, UserError
from evalkit.files import hash_file
from evalkit.job import Progress
from evalkit.study.plan_file import CLIPS, PRIVATE
from evalkit.study.planning.assignment import Item
from evalkit.study.planning.clips import CRF, BlindCopy, blind_copy, remarks
from evalkit.study.planning.video_sets import listed
from evalkit.study.types import StudyClip
from evalkit.types import Sample, VideoInfo
from evalkit.video import VideoError, probe

JOURNAL = "copies.jsonl"
_VERSION = 1
"""Raise it when copies come out differently, so that none from before is taken up again."""
_WORKERS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Source:
    """A video to be copied: which it is, what it is like, and the seed of its spoiling (None for a true copy)."""

    model: str
    item: Item
    path: Path
    sha256: str
    info: VideoInfo
    spoil_seed: int | None = None

    @property
    def key(self) -> str:
        return json.dumps([_VERSION, CRF, self.model, *self.item, self.sha256, self.spoil_seed])


def inspect(
    samples: Mapping[tuple[str, Item], Sample], progress: Progress
) -> tuple[dict[tuple[str, Item], Source], list[str]]:
    """Open every video, and say what raters will not see as the file has it.

    Raises:
        UserError: some cannot be opened; all of them are listed.
    """
    progress.start("looking at the videos", len(samples))
    sources, notes, broken = {}, [], []
    for (model, item), sample in samples.items():
        try:
            info = probe(sample.path)
            if min(info.width, info.height) < 2:
                raise VideoError(sample.path, f"pictures of {info.width}x{info.height} pixels")
            notes += [f"{model}, {sample.file}: {remark}" for remark in remarks(sample.path, info)]
            sources[model, item] = Source(model, item, sample.path, hash_file(sample.path), info)
        except VideoError as e:
            broken.append(f"{sample.path}: {e.reason}")
        except OSError as e:
            broken.append(f"{sample.path}: {e.strerror or e}")
        progress.advance()
    if broken:
        raise undecodable(broken)
    return sources, notes


def undecodable(broken: Sequence[str]) -> UserError:
    """Of videos that cannot be shown."""
    return UserError(
        f"{len(broken)} videos cannot be decoded, and an unequal set is not a study.\n  "
        + listed(broken, "\n  ")
        + "\n",
        "Make or copy them again; or take them out of their folders and add --common, which leaves their prompts out.",
    )


def copy_all(sources: Iterable[Source], folder: Path, progress: Progress) -> dict[str, StudyClip]:
    """Copy every source into `folder/clips/`, and remove what an earlier attempt has left there besides.

    Returns:
        The clips by the key of their source.

    Raises:
        UserError: some do not decode completely; all of them are listed.
        RunFailed: the folder cannot be written.
    """
    wanted = {source.key: source for source in sources}
    done = {key: copy for key, copy in _journal(folder).items() if key in wanted}
    progress.start("copying the videos", len(wanted))
    progress.advance(len(done))
    broken: set[str] = set()
    pool = ThreadPoolExecutor(_WORKERS)
    try:
        waiting = {
            pool.submit(blind_copy, source.path, source.info, folder / CLIPS, source.spoil_seed): source
            for key, source in wanted.items()
            if key not in done
        }
        for future in as_completed(waiting):
            _take(future, waiting[future], folder, done, broken)
            progress.advance()
    finally:
        pool.shutdown(cancel_futures=True)
    if broken:
        raise undecodable(sorted(broken))
    kept = {f"{copy.id}.mp4" for copy in done.values()}
    for file in (folder / CLIPS).iterdir():
        if file.name not in kept:
            file.unlink()
    return {key: _clip(wanted[key], copy) for key, copy in done.items()}


def _take(
    future: Future[BlindCopy], source: Source, folder: Path, done: dict[str, BlindCopy], broken: set[str]
) -> None:
    try:
        done[source.key] = future.result()
    except VideoError as e:
        broken.add(f"{source.path}: {e.reason}")  # once, even if it was to be spoiled as well
        return
    try:
        handle = os.open(folder / JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE)
        with os.fdopen(handle, "a", encoding="utf-8") as journal:
            journal.write(json.dumps({"key": source.key, "copy": asdict(done[source.key])}) + "\n")
    except OSError as e:
        raise RunFailed(f"Could not write in {folder}: {e.strerror or e}.", "Free space and run it again.") from e


def _journal(folder: Path) -> dict[str, BlindCopy]:
    """Copies of an interrupted attempt that are whole."""
    path = folder / JOURNAL
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
            copy = BlindCopy(**entry["copy"])
        except (ValueError, TypeError, KeyError, RecursionError):  # the line that was being written
            continue
        clip = folder / CLIPS / f"{copy.id}.mp4"
        if clip.is_file() and hash_file(clip) == copy.sha256:
            found[str(entry["key"])] = copy
    return found


def _clip(source: Source, copy: BlindCopy) -> StudyClip:
    prompt, seed = source.item
    return StudyClip(
        copy.id,
        source.model,
        prompt,
        seed,
        copy.sha256,
        copy.width,
        copy.height,
        copy.duration_s,
        degraded=source.spoil_seed is not None,
    )
