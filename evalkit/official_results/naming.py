"""Which prompt a video of a result file belongs to: by the list beside the file, else by its name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath

from evalkit.errors import UserError
from evalkit.matching import NameIndex, Unmatched
from evalkit.official_results.parse import FULL_INFO, Info
from evalkit.prompts import by_text
from evalkit.types import Prompt, PromptSuite


@dataclass(frozen=True, slots=True)
class Named:
    """A video of a result file: its name below the folder that all have in common, prompt, and number."""

    file: str
    prompt: Prompt
    seed: int | None


@dataclass(frozen=True, slots=True)
class Naming:
    """All videos by the path that the files have for them.

    Args:
        suite: the prompts.
        videos_dir: the folder that all paths have in common.
        videos: by path.
        unmatched: those that belong to no prompt of the suite; each got a prompt of its own.
    """

    suite: PromptSuite
    videos_dir: str
    videos: Mapping[str, Named]
    unmatched: tuple[Unmatched, ...]


def name_videos(paths: Sequence[str], infos: Sequence[Info], suite: PromptSuite | None) -> Naming:
    """Find the prompt of each video.

    Args:
        paths: as the files have them, each once.
        infos: the prompt lists that belong to the files.
        suite: the prompts to look in; None makes one of the lists and, for other videos, of the file names.

    Raises:
        UserError: no video belongs to a prompt of the suite that was given.
    """
    told = {path: text for info in reversed(infos) for path, text in info.prompts.items()}
    folder, files = _below_common_folder(paths)
    texts = {path: told.get(path) or prompt_in(files[path]) for path in paths}
    unmatched: list[Unmatched] = []
    if suite is None:
        suite = _suite_of(infos, texts.values())
        prompts = by_text(suite.prompts)
        found = {path: prompts[text] for path, text in texts.items()}
    else:
        found, unmatched = _look_up(files, told, texts, suite)
    videos = {path: Named(files[path], prompt, number_in(files[path])) for path, prompt in found.items()}
    return Naming(suite, folder, videos, tuple(unmatched))


def prompt_in(file: str) -> str:
    """The prompt that the official package reads from a file name: without the ending and a number after a hyphen."""
    stem = PurePosixPath(file).stem
    return re.sub(r"-\d+$", "", stem) or stem


def number_in(file: str) -> int | None:
    """The number at the end of an official file name."""
    found = re.search(r"-(\d{1,18})$", PurePosixPath(file).stem)
    return int(found[1]) if found else None


def _below_common_folder(paths: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The folder that all paths have in common, and by path the rest of it."""
    parts = {path: PurePosixPath(path).parts for path in paths}
    levels = zip(*(found[:-1] for found in parts.values()), strict=False)
    common = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels)]
    below = {path: PurePosixPath(*found[len(common) :]) for path, found in parts.items()}
    return str(PurePosixPath(*common)), {path: str(file) for path, file in below.items()}


def _suite_of(infos: Sequence[Info], texts: Iterable[str]) -> PromptSuite:
    """The prompts of the lists, then those that stand in file names only; one list alone keeps its identity."""
    listed = [prompt for info in infos for prompt in info.suite.prompts]
    each: dict[tuple[str, tuple[str, ...]], Prompt] = {}
    for prompt in listed:
        each.setdefault((prompt.text, prompt.dimensions), prompt)
    have = {prompt.text for prompt in listed}
    by_name = [Prompt("", text) for text in dict.fromkeys(texts) if text not in have]
    if len(infos) == 1 and len(each) == len(listed) and not by_name:
        return infos[0].suite
    found = [*each.values(), *by_name]
    width = max(3, len(str(len(found))))
    numbered = tuple(replace(prompt, id=f"{n:0{width}d}") for n, prompt in enumerate(found, 1))
    lists = infos[0].file.name if len(infos) == 1 else f"{len(infos)} files *{FULL_INFO}"
    sources = [lists] * bool(infos) + ["file names of the videos"] * bool(by_name)
    return PromptSuite("imported prompts", numbered, ", ".join(sources))


def _look_up(
    files: Mapping[str, str], told: Mapping[str, str], texts: Mapping[str, str], suite: PromptSuite
) -> tuple[dict[str, Prompt], list[Unmatched]]:
    prompts = by_text(suite.prompts)
    index = NameIndex(tuple(prompts.values()))
    found: dict[str, Prompt] = {}
    unmatched = []
    for path, file in files.items():
        prompt = prompts.get(told[path].strip()) if path in told else None
        if prompt is None:
            sample = index.match(Path(PurePosixPath(file).name), file)
            if isinstance(sample, Unmatched):
                reason = f"no prompt of {suite.name} is {texts[path]!r}; its score counts all the same"
                unmatched.append(replace(sample, reason=reason))
                prompt = Prompt(f"not in the suite: {texts[path]}", texts[path])
            else:
                prompt = sample.prompt
        found[path] = prompt
    if len(unmatched) == len(files):
        examples = ", ".join(repr(text) for text in list(dict.fromkeys(texts.values()))[:3])
        raise UserError(
            f"None of the {len(files)} videos belongs to a prompt of {suite.name}; they were made from {examples}.",
            "Give the suite that the videos were made from, or leave out --subset.",
        )
    return found, unmatched
