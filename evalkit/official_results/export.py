"""A run, written as the official package writes its results."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from evalkit.errors import UserError
from evalkit.files import write_atomically
from evalkit.official_results.form import FORMS, record
from evalkit.official_results.parse import EVAL_RESULTS, FULL_INFO
from evalkit.prompts import load_suite
from evalkit.records import RunRecord
from evalkit.scoring import BOUNDS, Totals, totals
from evalkit.types import Prompt

Results = dict[str, list[Any]]
"""`{dimension: [score, [record, ...]]}`."""


@dataclass(frozen=True, slots=True)
class Export:
    """What the official files will hold.

    Args:
        name: what they are called, before `_eval_results.json`.
        results: of `_eval_results.json`.
        info: of `_full_info.json`.
        unscored: by dimension, the videos that are left out because they have no score.
        caveats: why the numbers may not be called, or compared with, VBench's; most serious first.
    """

    name: str
    results: Results
    info: list[dict[str, Any]]
    unscored: dict[str, int]
    caveats: tuple[str, ...]

    @property
    def totals(self) -> Totals:
        return totals({dimension: content[0] for dimension, content in self.results.items()})

    def files(self) -> dict[str, bytes]:
        """Content by file name, laid out as the package lays it out."""
        contents = {EVAL_RESULTS: self.results, FULL_INFO: self.info}
        return {self.name + end: json.dumps(x, indent=4, allow_nan=False).encode() for end, x in contents.items()}


def export_run(run: RunRecord, name: str | None = None) -> Export:
    """Bring a run into the official form.

    Videos that have no score are left out and counted. Paths start with the name of the videos folder: where that lies
    on this machine is nobody's business.

    Args:
        run: of the official profile.
        name: of the files; None takes the run's.

    Raises:
        UserError: a run of another profile or without a single score, or a name that the leaderboard would pass over.
    """
    profile = run.summary["profile"]
    if profile != "official":
        what = "its numbers are stand-ins, not VBench's" if profile == "lite" else "it is scored by other rules"
        raise UserError(
            f"{run.name} is a {profile} run: {what}.",
            "Score the videos with `m4v-eval vbench --profile official` and export that run.",
        )
    called = _checked_name(name or (run.manifest.get("imported") or {}).get("name") or run.name)
    scores = {d: found["score"] for d, found in run.summary["dimensions"].items() if d in BOUNDS}
    rows = run.results[run.results["dimension"].isin(list(scores))]
    scored = rows[rows["value"].notna()]
    results: Results = {
        dimension: [float(scores[dimension]), _records(run, scored[scored["dimension"] == dimension])]
        for dimension in FORMS
        if scores.get(dimension) is not None
    }
    if not results:
        raise UserError(f"{run.name} has no scored dimension.", "See why with `m4v-eval report`.")
    unscored = Counter(rows[rows["value"].isna()]["dimension"])
    info, told = full_info(run)
    caveats = (*_caveats(run, results, dict(unscored)), *told)
    return Export(called, results, info, {d: unscored[d] for d in FORMS if unscored[d]}, caveats)


def write_export(export: Export, folder: Path) -> list[Path]:
    """Write both files.

    Raises:
        RunFailed: the folder cannot be written.
    """
    for name, content in export.files().items():
        write_atomically(folder / name, content)
    return [folder / name for name in export.files()]


def _checked_name(name: str) -> str:
    if not name or "/" in name or "\\" in name or name.startswith((".", "__")):
        raise UserError(
            f"Files cannot be called {name!r}: the leaderboard passes over names that begin with `.` or `__`.",
            "Choose another --name, without slashes.",
        )
    return name


def _path(run: RunRecord, file: str) -> str:
    folder = Path(run.manifest["videos_dir"]).name
    return f"{folder}/{file}" if folder else file


def _records(run: RunRecord, rows: pd.DataFrame) -> list[dict[str, Any]]:
    columns = (rows[name] for name in ("dimension", "file", "value", "n_terms"))
    return [
        record(dimension, _path(run, file), float(value), None if pd.isna(n_terms) else int(n_terms))
        for dimension, file, value, n_terms in zip(*columns, strict=True)
    ]


def full_info(run: RunRecord) -> tuple[list[dict[str, Any]], list[str]]:
    """The prompts with their videos, and what is to be said about that list.

    With the run's suite at hand: its prompts for the run's dimensions, as the package's standard mode lists them, those
    without a video included. Without it: the prompts that have videos, with the dimensions these were judged in.
    """
    judged: dict[str, dict[str, set[str]]] = {}  # by prompt, then by file: dimensions
    names = [name for name in run.results.columns if name in ("prompt", "file", "dimension")]
    for row in run.results[names].to_dict("records"):
        judged.setdefault(row["prompt"], {}).setdefault(row["file"], set()).add(row["dimension"])
    dimensions = [name for name in FORMS if name in run.summary["dimensions"]]
    try:
        suite = load_suite(str(run.manifest["config"].get("subset")))
    except UserError:
        suite = None
    if suite is None or suite.sha256 != run.manifest["suite"]["sha256"]:
        prompts = [Prompt(text, text, tuple(_in_order(files))) for text, files in judged.items()]
        told = f"The prompt suite {run.manifest['suite']['name']} was not found again: {FULL_INFO} lists only prompts"
        return _entries(run, prompts, dimensions, judged), [f"{told} with videos, without their auxiliary facts."]
    asked = [p for p in suite.prompts if any(p.asks_for(dimension) for dimension in dimensions)]
    return _entries(run, asked, dimensions, judged), []


def _entries(
    run: RunRecord, prompts: list[Prompt], dimensions: list[str], judged: dict[str, dict[str, set[str]]]
) -> list[dict[str, Any]]:
    entries = []
    for prompt in prompts:
        files = judged.get(prompt.text, {})
        named = list(prompt.dimensions) or _in_order(files) or dimensions
        auxiliary = {"auxiliary_info": dict(prompt.auxiliary)} if prompt.auxiliary else {}
        videos = [_path(run, file) for file, judgements in files.items() if judgements & set(named)]
        entries.append({"prompt_en": prompt.text, "dimension": named, **auxiliary, "video_list": videos})
    return entries


def _in_order(files: dict[str, set[str]]) -> list[str]:
    found = set().union(*files.values())
    return [dimension for dimension in FORMS if dimension in found]


def _caveats(run: RunRecord, results: Results, unscored: dict[str, int]) -> Iterator[str]:
    summary = run.summary
    if foreign := summary.get("foreign_weights"):
        yield f"Not the published weights, so not VBench's scores: {', '.join(foreign)}."
    if summary["precision"] != "fp32":
        yield f"Networks ran in {summary['precision']}, not in the official precision."
    if imported := run.manifest.get("imported"):
        yield f"Imported from {', '.join(file['file'] for file in imported['files'])}: not scored by this program."
    if summary.get("interrupted"):
        yield "The run was interrupted."
    if missing := [name for name in FORMS if name not in results]:
        yield f"{len(missing)} of {len(FORMS)} dimensions have no score: {', '.join(missing)}."
    if summary.get("protocol", {}).get("standard") is False:
        yield f"The prompts are those of {summary['subset']['name']}, not VBench's own."
    if prompts := summary["missing_prompts"]:
        yield f"{len(prompts):,} of {summary['subset']['n_prompts']:,} prompts have no video."
    if unscored:
        listed = ", ".join(f"{name} {unscored[name]:,}" for name in FORMS if name in unscored)
        yield f"Videos without a score are left out: {listed}."
    if files := summary["unmatched_files"]:
        yield f"{len(files):,} files matched no prompt."
    yield from (caveat["text"] for caveat in summary.get("comparability", []))
