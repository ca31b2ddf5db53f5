"""Reading the official package's files, with every fault named by file, dimension and video."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, TypeGuard

from evalkit.errors import UserError, unknown
from evalkit.official_results.form import FORMS, BadRecordError, fraction, last_frame, terms
from evalkit.types import PromptSuite
from evalkit.untrusted import parse_json, read_text

EVAL_RESULTS = "_eval_results.json"
FULL_INFO = "_full_info.json"

SHAPE = f'A *{EVAL_RESULTS} reads {{"dimension": [score, [{{"video_path": ..., "video_results": ...}}, ...]]}}'
TABLES = "`m4v-eval score` reads tables of dimension scores without videos."


@dataclass(frozen=True, slots=True)
class Entry:
    """One video in one dimension.

    Args:
        path: as the file has it, but with forward slashes and without `./`.
        value: a fraction.
        n_terms: frames or frame pairs averaged into it; None if the file does not say.
        last_frame: the score of its last frame alone, where the file has that.
    """

    path: str
    value: float
    n_terms: int | None
    last_frame: float | None


@dataclass(frozen=True, slots=True)
class Scored:
    """One dimension as a file has it: its score, a fraction, and its videos."""

    name: str
    file: Path
    score: float
    entries: tuple[Entry, ...]


def read_results(files: Iterable[Path]) -> dict[str, Scored]:
    """Read result files, one or several dimensions in each; in the order of the VBench paper.

    Raises:
        UserError: unreadable or damaged, not of the official shape, nothing scored, or a dimension in two files.
    """
    found: dict[str, Scored] = {}
    for file in files:
        for name, content in _dimensions(file):
            if name in found:
                raise UserError(
                    f"{name} stands in {found[name].file} and in {file}.", "Leave out one of the two, or mend its name."
                )
            found[name] = _scored(name, content, file)
    if not found:
        raise UserError("There is no result file to read.", "Give at least one.")
    return {name: found[name] for name in FORMS if name in found}


def read_json(file: Path) -> Any:
    """What a JSON file holds; objects that name a key twice are refused.

    Raises:
        UserError: unreadable, or not JSON.
    """
    text = read_text(file, f"Give a *{EVAL_RESULTS} of VBench.")
    return parse_json(text, str(file), "It may be cut short or damaged; copy it again.", finite=False)


def _dimensions(file: Path) -> list[tuple[str, Any]]:
    content = read_json(file)
    if not isinstance(content, dict) or not content:
        info = isinstance(content, list) and file.name.endswith(FULL_INFO)
        hint = f" Give the *{EVAL_RESULTS} beside it; this file is found from there." if info else ""
        raise UserError(f"{file} holds no results.", f"{SHAPE}.{hint}")
    for name in content:
        if name not in FORMS:
            error = unknown("dimension of VBench", name, FORMS)
            raise UserError(f"{file}: {error.what}", error.remedy)
    return list(content.items())


def _scored(name: str, content: Any, file: Path) -> Scored:
    where = f"{file}, {name}"
    if not (isinstance(content, list) and len(content) == 2 and isinstance(content[1], list)):
        raise UserError(f"{where} is not a score with its videos.", f"{SHAPE}. {TABLES}")
    score, records = content
    if not records:
        raise UserError(
            f"{where} has no videos (its score is {score!r}).",
            "The package writes this when it finds no file called <prompt>-<k>.mp4: leave the file out, or score again"
            " with files of such names or --mode=custom_input.",
        )
    try:
        value = fraction(name, score, of_video=False)
    except BadRecordError as e:
        _refuse(f"{where}: the score", e)
    entries = tuple(_entry(name, record, f"{where}, video {n}") for n, record in enumerate(records, 1))
    seen: set[str] = set()
    for entry in entries:
        if entry.path in seen:
            raise UserError(f"{where} has {entry.path!r} twice.", "Score again with every video named once.")
        seen.add(entry.path)
    return Scored(name, file, value, entries)


def _entry(name: str, record: Any, where: str) -> Entry:
    path = record.get("video_path") if isinstance(record, dict) else None
    if not (_is_text(path) and "video_results" in record):
        raise UserError(f"{where} is no record with `video_path` and `video_results`.", f"{SHAPE}.")
    try:
        value = fraction(name, record["video_results"], of_video=True)
        last = last_frame(record) if name == "appearance_style" else None
        return Entry(_one_spelling(path), value, terms(record, value), last)
    except BadRecordError as e:
        _refuse(f"{where} ({path!r})", e)


def _is_text(path: object) -> TypeGuard[str]:
    """Whether a name can be written down again: JSON can hold halves of characters."""
    if not (isinstance(path, str) and path.strip()):
        return False
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _one_spelling(path: str) -> str:
    """A path with forward slashes and without `./`, whatever system it was written on."""
    return str(PurePosixPath(path if "/" in path else path.replace("\\", "/")))


def _refuse(what: str, fault: BadRecordError) -> NoReturn:
    raise UserError(
        f"{what} {fault}.", "A score that is not there must not be made up: score again, or leave it out."
    ) from None


@dataclass(frozen=True, slots=True)
class Info:
    """A `*_full_info.json`: its prompts, the prompt of each video, and the videos that each dimension was to see."""

    file: Path
    suite: PromptSuite
    prompts: dict[str, str]
    asked: dict[str, list[str]]


def read_info(file: Path) -> Info:
    """Read the list of prompts that the package wrote beside its results.

    Raises:
        UserError: unreadable, or not such a list.
    """
    from evalkit.prompts import read_suite

    suite = read_suite(file)
    prompts: dict[str, str] = {}
    asked: dict[str, list[str]] = {}
    for n, (entry, prompt) in enumerate(zip(read_json(file), suite.prompts, strict=True), 1):
        videos = entry.get("video_list", [])
        videos = [videos] if isinstance(videos, str) else videos
        if not (isinstance(videos, list) and all(map(_is_text, videos))):
            raise UserError(f"{file}, prompt {n}: `video_list` is no list of paths.", "Copy the file again.")
        videos = [_one_spelling(path) for path in videos]
        for path in videos:
            prompts.setdefault(path, prompt.text)
        for dimension in prompt.dimensions:
            asked.setdefault(dimension, []).extend(videos)
    return Info(file, suite, prompts, asked)


def info_beside(results: Path) -> Path | None:
    """The `X_full_info.json` that belongs to `X_eval_results.json`; None if there is none."""
    if not results.name.endswith(EVAL_RESULTS):
        return None
    info = results.with_name(results.name.removesuffix(EVAL_RESULTS) + FULL_INFO)
    return info if info.is_file() else None
