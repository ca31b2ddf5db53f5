"""Which video was generated from which prompt.

`manifest.jsonl` in the folder decides (`{"file", "prompt_id" or "prompt", "seed"}` a line, and `generation_prompt`
where the video was made from a rewritten text); without one, file names do: VBench's `<prompt>-<k>.mp4`, or
`<prompt_id>-<seed>.mp4`. File systems cut names at 255 bytes, so a name that holds the beginning of exactly one prompt
is accepted too. What does not match is listed with its nearest names.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from evalkit.errors import UserError, nearest
from evalkit.prompts import by_text
from evalkit.types import Prompt, PromptSuite, Sample
from evalkit.untrusted import inside, read_json_lines
from evalkit.video import VIDEO_SUFFIXES

MANIFEST = "manifest.jsonl"
MIN_PREFIX = 40
"""Characters that the beginning of a prompt must have before it identifies the prompt."""

MOST_HINTS = 20
"""Comparing a name with every prompt is slow: so many examples tell the user enough."""

NAMING = (
    f"Videos are matched by {MANIFEST} in the folder"
    ' ({"file": "a.mp4", "prompt_id": "custom50-01", "seed": 0} a line), else by the names'
    " `<prompt>-<k>.mp4` or `<prompt_id>-<seed>.mp4`."
)


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A file that belongs to no prompt, why, and the nearest names."""

    file: str
    reason: str
    nearest: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Matching:
    """The outcome: samples to score, prompts without a video, files without a prompt."""

    samples: tuple[Sample, ...]
    missing: tuple[Prompt, ...]
    unmatched: tuple[Unmatched, ...]


def match(folder: Path, suite: PromptSuite) -> Matching:
    """Match the videos of a folder to the prompts of a suite.

    Raises:
        UserError: no folder, no videos, nothing matched, a malformed manifest, or two files for one prompt and seed.
    """
    videos = _videos(folder)
    prompts = tuple(by_text(suite.prompts).values())
    manifest = folder / MANIFEST
    if manifest.is_file():
        found = _by_manifest(folder, videos, manifest, prompts)
    else:
        index = NameIndex(prompts)
        found = [index.match(folder / file, file) for file in videos]
    samples = [s for s in found if isinstance(s, Sample)]
    unmatched = tuple(u for u in found if isinstance(u, Unmatched))
    if not samples:
        raise _nothing_matched(folder, suite, unmatched)
    _refuse_duplicates(samples)
    order = {prompt.id: n for n, prompt in enumerate(prompts)}
    samples.sort(key=lambda s: (order[s.prompt.id], s.seed is None, s.seed or 0, s.file))
    seen = {s.prompt.id for s in samples}
    return Matching(tuple(samples), tuple(p for p in prompts if p.id not in seen), unmatched)


def _videos(folder: Path) -> list[str]:
    if not folder.is_dir():
        kind = "is a file, not a folder" if folder.exists() else "does not exist"
        raise UserError(f"The videos folder {folder} {kind}.", "Give the folder that holds the videos with --videos.")
    names = sorted(
        p.name for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES and not p.name.startswith(".")
    )
    if not names and not (folder / MANIFEST).is_file():
        raise UserError(
            f"The folder {folder} holds no videos ({', '.join(sorted(VIDEO_SUFFIXES))}).",
            "Give the folder that holds the videos themselves; sub-folders are read only if a manifest lists them.",
        )
    return names


class NameIndex:
    """Finds the prompt that a file name speaks of."""

    def __init__(self, prompts: Iterable[Prompt]) -> None:
        self.names: dict[str, Prompt] = {}
        self.hints = MOST_HINTS
        for prompt in prompts:
            self.names[_normal(prompt.text)] = prompt
            self.names[_normal(prompt.id)] = prompt
        self.sorted = sorted(self.names)

    def match(self, path: Path, file: str) -> Sample | Unmatched:
        for name, seed in _readings(path.stem):
            if prompt := self.names.get(_normal(name)):
                return Sample(path, file, prompt, seed)
        return self._by_prefix(path, file)

    def _by_prefix(self, path: Path, file: str) -> Sample | Unmatched:
        stem = path.stem
        for name, seed in _readings(stem):
            begun = self._begun(_normal(name)) if len(name) >= MIN_PREFIX else {}
            if len(begun) == 1:
                return Sample(path, file, next(iter(begun.values())), seed)
            if begun:
                return Unmatched(file, f"its name begins {len(begun)} prompts alike", tuple(begun)[:3])
        self.hints -= 1
        near = nearest(stem, self.names) if self.hints >= 0 else []
        return Unmatched(file, "its name is no prompt and no prompt id", tuple(near))

    def _begun(self, beginning: str) -> dict[str, Prompt]:
        """The prompts whose text or id begins so: they stand one after the other."""
        following = islice(self.sorted, bisect_left(self.sorted, beginning), None)
        texts = takewhile(lambda text: text.startswith(beginning), following)
        return {self.names[text].id: self.names[text] for text in texts}


def _readings(stem: str) -> list[tuple[str, int | None]]:
    """`name-3` can be the whole name or `name` with seed 3; the whole name goes first."""
    numbered = re.fullmatch(r"(.+)-(\d{1,18})", stem, flags=re.DOTALL)
    return [(stem, None)] + ([(numbered[1], int(numbered[2]))] if numbered else [])


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()  # macOS writes names decomposed


def _by_manifest(
    folder: Path, videos: Iterable[str], manifest: Path, prompts: tuple[Prompt, ...]
) -> list[Sample | Unmatched]:
    by_id = {p.id: p for p in prompts}
    texts = {_normal(p.text): p for p in prompts}
    found: dict[str, Sample | Unmatched] = {}
    n_hints = 0
    for where, entry in _manifest_entries(manifest):
        file = str(entry["file"])
        if file in found:
            raise UserError(f"{where} lists {file!r} a second time.", "Keep one line for each file.")
        found[file] = listed = _listed(folder, file, entry, by_id, texts, where, n_hints < MOST_HINTS)
        n_hints += isinstance(listed, Unmatched)
    for file in videos:
        found.setdefault(file, Unmatched(file, f"{MANIFEST} does not list it"))
    return list(found.values())


def _manifest_entries(manifest: Path) -> list[tuple[str, Mapping[str, Any]]]:
    entries = []
    for where, entry in read_json_lines(manifest, NAMING):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("file"), str) or not entry["file"]:
            raise UserError(f"{where} is not an object with a `file`.", NAMING)
        entries.append((where, entry))
    return entries


def _listed(
    folder: Path,
    file: str,
    entry: Mapping[str, Any],
    by_id: Mapping[str, Prompt],
    texts: Mapping[str, Prompt],
    where: str,
    hint: bool,
) -> Sample | Unmatched:
    path = inside(folder, file)
    if path is None:
        raise UserError(
            f"{where} names {file[:200]!r}, which is outside the folder.", "List files inside the videos folder only."
        )
    if not path.is_file():
        return Unmatched(file, f"{MANIFEST} lists it, but there is no such file")
    seed = entry.get("seed")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
        raise UserError(f"{where} has the seed {seed!r}.", "Write the seed as a whole number, or leave it out.")
    if "prompt_id" in entry:
        prompt, wanted, choices = by_id.get(str(entry["prompt_id"])), str(entry["prompt_id"]), list(by_id)
    else:
        wanted, choices = str(entry.get("prompt", "")), list(texts)
        prompt = texts.get(_normal(wanted))
    if prompt is None:
        return Unmatched(
            file, f"the suite has no prompt {wanted[:80]!r}", tuple(nearest(wanted, choices) if hint else ())
        )
    return Sample(path, file, prompt, seed, _other_text(entry, prompt))


def _other_text(entry: Mapping[str, Any], prompt: Prompt) -> str | None:
    """The text that a video was generated from, if the manifest gives one that is not its prompt."""
    text = entry.get("generation_prompt") or entry.get("prompt")
    return text if isinstance(text, str) and _normal(text) not in ("", _normal(prompt.text)) else None


def _refuse_duplicates(samples: Iterable[Sample]) -> None:
    groups = defaultdict(list)
    for sample in samples:
        groups[sample.prompt.id, sample.seed].append(sample.file)
    for (prompt_id, seed), files in groups.items():
        if len(files) > 1:
            raise UserError(
                f"Several videos claim prompt {prompt_id} with {'no seed' if seed is None else f'seed {seed}'}:"
                f" {', '.join(sorted(files)[:4])}.",
                f"Give each its own seed in its name or in {MANIFEST}, or move the surplus ones away.",
            )


def _nothing_matched(folder: Path, suite: PromptSuite, unmatched: tuple[Unmatched, ...]) -> UserError:
    examples = "; ".join(
        f"{u.file!r}: {u.reason}" + (f" (nearest: {u.nearest[0][:80]!r})" if u.nearest else "") for u in unmatched[:3]
    )
    return UserError(
        f"None of the {len(unmatched)} videos in {folder} belongs to a prompt of {suite.name}. {examples}.", NAMING
    )
