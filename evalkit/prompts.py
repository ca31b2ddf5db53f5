"""Prompt suites: the ones that ship, the official one, and the user's own files.

A suite is named on the command line as `custom50` (ships with the package), `full` (VBench's own list, in the folder
of checkpoints or in an installed `vbench` package) or a path to a `.txt`, `.jsonl`, `.csv` or `VBench_full_info.json`
file.
"""

from __future__ import annotations

import csv
import importlib.util
import io
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evalkit.errors import UserError, nearest
from evalkit.resources import resource
from evalkit.types import Prompt, PromptSuite
from evalkit.untrusted import is_file, parse_json, read_text, shown
from evalkit.weights import Checkpoint, default_root

OFFICIAL_LIST = Checkpoint(
    key="vbench-prompts",
    file="VBench_full_info.json",
    url="https://raw.githubusercontent.com/Vchitect/VBench/master/vbench/VBench_full_info.json",
    size=228_118,
    licence="Apache-2.0",
    source="Vchitect/VBench",
    sha256="5dd2de80ee43cda750b2b72ea7023657c0b90d3702041c7e4608c65dbe50dccd",
)
"""VBench's 946 prompts: not redistributed here, fetched like a checkpoint."""

OFFICIAL_INFO = OFFICIAL_LIST.file
LONGEST_ID = 200


def shipped() -> dict[str, Path]:
    """The suites that travel with the package, by name."""
    return {path.stem: path for path in sorted(resource("prompts").glob("*.jsonl"))}


def load_suite(subset: str) -> PromptSuite:
    """Find and read a suite by name or path.

    Raises:
        UserError: unknown name, unreadable file, no prompts, duplicate ids or an empty prompt.
    """
    if subset in shipped():
        return read_suite(shipped()[subset], name=subset)
    if subset == "full":
        return read_suite(_official_info(), name="full")
    path = Path(subset)
    if is_file(path):
        return read_suite(path)
    names = [*shipped(), "full"]
    near = nearest(subset, names)
    hint = f"Did you mean {near[0]}? " if near else ""
    raise UserError(
        f"There is no prompt suite called {subset!r}, and no file of that name.",
        f"{hint}Choose from {', '.join(names)}, or give a .txt, .jsonl, .csv or {OFFICIAL_INFO} file.",
    )


def read_suite(path: Path, name: str | None = None) -> PromptSuite:
    """Read a prompt file; the format follows the suffix.

    `.txt`: one prompt a line. `.jsonl`: objects with `text` (or `prompt`, `prompt_en`) and optionally `id`,
    `dimensions`, `auxiliary`, `source`. `.csv`: the same names as columns.
    `.json`: the official list of `prompt_en`, `dimension`, `auxiliary_info`.

    Raises:
        UserError: unreadable file, no prompts, duplicate ids or an empty prompt.
    """
    readers = {".txt": _from_txt, ".jsonl": _from_jsonl, ".csv": _from_csv, ".json": _from_official}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path} is not a prompt file.", f"Use one of the formats {', '.join(readers)}.")
    records, source = reader(read_text(path, _REMEDY), path)
    width = max(3, len(str(len(records))))
    prompts = tuple(_prompt(r, f"{n:0{width}d}", f"{path}, prompt {n}") for n, r in enumerate(records, 1))
    _check(prompts, path)
    return PromptSuite(name or path.stem, prompts, source, standard=reader is _from_official)


_REMEDY = "Save it as UTF-8 text and try again."


def _official_info() -> Path:
    if (default_root() / OFFICIAL_INFO).is_file():
        return default_root() / OFFICIAL_INFO
    spec = importlib.util.find_spec("vbench")  # located, never imported: its pins break at import time
    if spec and spec.submodule_search_locations:
        for folder in spec.submodule_search_locations:
            if (Path(folder) / OFFICIAL_INFO).is_file():
                return Path(folder) / OFFICIAL_INFO
    raise UserError(
        f"The official 946-prompt suite is not part of this package, and {OFFICIAL_INFO} is not in {default_root()}.",
        f"Run `m4v-eval weights pull {OFFICIAL_LIST.key}`, or give a path of the file as --subset (the vbench wheel has"
        " it).",
    )


Records = tuple[list[Mapping[str, Any]], str]
_MEND = "Mend the file and try again."


def _from_txt(text: str, path: Path) -> Records:
    return [{"text": line.strip()} for line in text.splitlines() if line.strip()], path.name


def _from_jsonl(text: str, path: Path) -> Records:
    records = []
    for n, line in enumerate(text.split("\n"), 1):  # not splitlines: a prompt may hold U+2028
        if line.strip():
            record = parse_json(line, f"{path}, line {n}", _MEND)
            if not isinstance(record, Mapping):
                raise UserError(
                    f"{path}, line {n} is not a JSON object.", 'Write {"id": ..., "text": ...} on each line.'
                )
            records.append(record)
    sources = dict.fromkeys(str(record["source"]) for record in records if record.get("source"))
    return records, "; ".join(sources) or path.name


def _from_csv(text: str, path: Path) -> Records:
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except csv.Error as e:
        raise UserError(
            f"The prompt file {path} is not CSV: {e}.", "Write a header line with a column `text`."
        ) from None
    return [{k: v for k, v in row.items() if k and v} for row in rows], path.name


def _from_official(text: str, path: Path) -> Records:
    entries = parse_json(text, str(path), _MEND)
    if not isinstance(entries, list) or not all(isinstance(e, Mapping) and "prompt_en" in e for e in entries):
        raise UserError(f"{path} is not a {OFFICIAL_INFO} list.", "Give the file from the official package.")
    keys = {"prompt_en": "text", "dimension": "dimensions", "auxiliary_info": "auxiliary"}
    return [{new: e[old] for old, new in keys.items() if old in e} for e in entries], f"VBench, {path.name}"


def _prompt(record: Mapping[str, Any], default_id: str, where: str) -> Prompt:
    text = next((str(record[k]).strip() for k in ("text", "prompt", "prompt_en") if record.get(k)), "")
    if not text:
        raise UserError(f"{where} has no text.", "Give each prompt a `text` (or `prompt`).")
    dimensions = record.get("dimensions") or ()
    if isinstance(dimensions, str):
        dimensions = [name.strip() for name in dimensions.split(",")]
    if not (isinstance(dimensions, list | tuple) and all(isinstance(name, str) for name in dimensions)):
        raise UserError(f"{where}: `dimensions` is no list of names.", 'Write it as ["color", "scene"].')
    auxiliary = record.get("auxiliary") or {}
    if not isinstance(auxiliary, Mapping):
        raise UserError(f"{where}: `auxiliary` is not an object.", 'Write it as {"dimension": {...}}.')
    id_ = str(record.get("id", default_id)).strip()
    if not (id_.isprintable() and 0 < len(id_) <= LONGEST_ID):
        raise UserError(
            f"{where} has the id {shown(id_[:80])!r}.",
            f"An id has 1 to {LONGEST_ID} characters that can be printed, or is left out.",
        )
    return Prompt(id_, text, tuple(dimensions), dict(auxiliary))


def _check(prompts: tuple[Prompt, ...], path: Path) -> None:
    if not prompts:
        raise UserError(f"The prompt file {path} holds no prompts.", "Put one prompt on each line.")
    repeated = [id_ for id_, n in Counter(p.id for p in prompts).items() if n > 1]
    if repeated:
        raise UserError(f"{path} gives the id {repeated[0]!r} to several prompts.", "Make the ids unique.")


def by_text(prompts: Iterable[Prompt]) -> dict[str, Prompt]:
    """Prompts by text. The official suite repeats two texts for different dimensions: those become one prompt."""
    merged: dict[str, Prompt] = {}
    for prompt in prompts:
        first = merged.setdefault(prompt.text, prompt)
        if first is not prompt:
            dimensions = first.dimensions + tuple(d for d in prompt.dimensions if d not in first.dimensions)
            everything = first.dimensions and prompt.dimensions
            auxiliary = {**first.auxiliary, **prompt.auxiliary}
            merged[prompt.text] = Prompt(first.id, first.text, dimensions if everything else (), auxiliary)
    return merged
