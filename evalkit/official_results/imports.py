"""The official package's results as a run directory, so that reports and comparisons read them like any other run.

Such a run says of itself that it was imported, from which files, and nothing of machine, weights or code that scored
the videos: the files do not record them. Its precision is called fp32, which stands for "as the package computes".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from evalkit import __version__
from evalkit.comparability import VBENCH_SHA256
from evalkit.errors import UserError
from evalkit.files import hash_file
from evalkit.lock import holding
from evalkit.official_results.form import FORMS
from evalkit.official_results.naming import Named, Naming, name_videos
from evalkit.official_results.parse import Info, Scored, info_beside, read_info, read_results
from evalkit.official_results.pooling import pooled
from evalkit.prompts import by_text, load_suite
from evalkit.records import RESULT_COLUMNS, RUN_SCHEMA, VBENCH_SCHEMA, RunRecord, load_run, read_json, save_run
from evalkit.stats import bootstrap_mean
from evalkit.store import content_key
from evalkit.summary import aggregate

LEFT_OUT = {
    "color": "left out by the package: no frame shows the object in any colour",
    "temporal_flickering": "left out by the package: the video could not be opened",
}


@dataclass(frozen=True, slots=True)
class _Missing:
    """A video that a dimension was to see and that has no result there."""

    path: str
    dimension: str


def import_results(
    files: Sequence[Path],
    out: Path,
    *,
    subset: str | None = None,
    name: str | None = None,
    seed: int = 0,
    command: Sequence[str] = (),
) -> RunRecord:
    """Write a run directory from result files of the official package.

    Args:
        files: one or several `*_eval_results.json`, with different dimensions.
        out: the run directory; an earlier import there is replaced.
        subset: the prompt suite that the videos were made from; None takes the `*_full_info.json` beside the files and,
            where there is none, the file names of the videos.
        name: of the model; None takes the directory's.
        seed: of the bootstrap.
        command: what was typed.

    Raises:
        UserError: a file is damaged, or a dimension stands in two; no video belongs to the suite; `out` holds a run
            that was scored here.
        RunFailed: the directory cannot be written, or another process writes to it.
    """
    scored = read_results(files)
    infos = [read_info(info) for info in dict.fromkeys(map(info_beside, files)) if info is not None]
    missing = [m for info in infos for m in _missing(info, scored)]
    paths = list(dict.fromkeys([e.path for s in scored.values() for e in s.entries] + [m.path for m in missing]))
    naming = name_videos(paths, infos, None if subset is None else load_suite(subset))
    origin = {
        "name": name or out.resolve().name,
        "by": f"m4v-eval {__version__}",
        "files": [{"file": f.name, "sha256": hash_file(f)} for f in (*files, *(info.file for info in infos))],
    }
    table = _table(scored, missing, naming)
    with holding(out, "Results are imported into it"):
        _refuse_own_run(out)
        found_in = next((str(info.file.resolve()) for info in infos if info.suite is naming.suite), None)
        record = _manifest(command, naming, subset or found_in, seed, origin, list(scored))
        summary = _summary(scored, naming, table, record, seed)
        save_run(out, table, summary, record)
    return load_run(out)


def _refuse_own_run(out: Path) -> None:
    if (out / "results.jsonl").exists() or (
        (out / "run.json").exists() and "imported" not in read_json(out / "run.json", RUN_SCHEMA)
    ):
        raise UserError(f"{out} holds a run that was scored here.", "Choose another --out.")


def _missing(info: Info, scored: Mapping[str, Scored]) -> Iterator[_Missing]:
    """Videos that the package was to judge, and that it left out of the results beside the list."""
    for dimension, found in scored.items():
        if info_beside(found.file) == info.file:
            have, listed = {entry.path for entry in found.entries}, dict.fromkeys(info.asked.get(dimension, ()))
            if have & listed.keys():  # otherwise the results name folders of frames, and cannot be told from the list
                yield from (_Missing(path, dimension) for path in listed if path not in have)


def _table(scored: Mapping[str, Scored], missing: Sequence[_Missing], naming: Naming) -> pd.DataFrame:
    rows = []
    for dimension, found in scored.items():
        file_sha256 = hash_file(found.file)
        for entry in found.entries:
            key = content_key(imported=file_sha256, dimension=dimension, video=entry.path)
            score = {"value": entry.value, "n_terms": entry.n_terms, "key": key}
            rows.append(_row(naming.videos[entry.path], dimension) | score)
    for gap in missing:
        reason = LEFT_OUT.get(gap.dimension, "listed for this dimension, but not in the results")
        rows.append(_row(naming.videos[gap.path], gap.dimension) | {"unscored": reason})
    return pd.DataFrame(rows, columns=list(RESULT_COLUMNS)).astype(RESULT_COLUMNS)


def _row(video: Named, dimension: str) -> dict[str, Any]:
    return {
        "file": video.file,
        "prompt_id": video.prompt.id,
        "prompt": video.prompt.text,
        "seed": video.seed,
        "dimension": dimension,
        "version": FORMS[dimension].version,
    }


def _dimension(scored: Scored, unscored: int, naming: Naming, seed: int) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """A dimension's entry in the summary, and what keeps its score from being comparable."""
    found = pooled(scored)
    prompts = [naming.videos[entry.path].prompt.id for entry in scored.entries]
    interval = bootstrap_mean(found.pool.values_N, prompts, found.pool.weights_N, seed=seed)
    known = interval.low is not None and interval.high is not None
    summary = {
        "score": scored.score,
        "n": len(scored.entries),
        "unscored": unscored,
        "ci95": [interval.low, interval.high] if known else None,
        "higher_is_better": True,
        "title": scored.name.replace("_", " ").capitalize(),
        "summary": f"Imported from {scored.file.name}: computed by VBench's own package.",
        "version": FORMS[scored.name].version,
        "quirks": [] if found.note is None else [found.note],
    }
    return summary, [] if found.warning is None else [{"kind": "imported-pooling", "text": found.warning}]


def _summary(
    scored: Mapping[str, Scored], naming: Naming, table: pd.DataFrame, record: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    dimensions, caveats = {}, []
    for dimension, found in scored.items():
        gaps = int(table[table["dimension"] == dimension]["value"].isna().sum())
        dimensions[dimension], told = _dimension(found, gaps, naming, seed)
        caveats += told
    have = set(table["prompt_id"])
    prompts = by_text(naming.suite.prompts).values()
    missing = [p for p in prompts if p.id not in have and any(p.asks_for(dimension) for dimension in scored)]
    return {
        "schema": VBENCH_SCHEMA,
        "profile": "official",
        "precision": record["precision"],
        "subset": record["suite"],
        "dimensions": dimensions,
        "videos": _videos(table),
        "missing_prompts": [{"id": p.id, "text": p.text} for p in missing],
        "unmatched_files": [asdict(unmatched) for unmatched in naming.unmatched],
        "protocol": {"standard": naming.suite.sha256 == VBENCH_SHA256, "static_filter": None},
        "comparability": caveats,
        "interrupted": False,
        "foreign_weights": [],
        "aggregate": aggregate({name: found["score"] for name, found in dimensions.items()}, lite=False),
        "provenance": record,
    }


def _videos(table: pd.DataFrame) -> list[dict[str, Any]]:
    videos: dict[str, dict[str, Any]] = {}
    for row in table.to_dict("records"):
        seed = None if pd.isna(row["seed"]) else int(row["seed"])
        facts = {"file": row["file"], "prompt_id": row["prompt_id"], "prompt": row["prompt"], "seed": seed}
        video = videos.setdefault(row["file"], {**facts, "sha256": None, "scores": {}, "unscored": {}})
        if pd.isna(row["value"]):
            video["unscored"][row["dimension"]] = row["unscored"]
        else:
            video["scores"][row["dimension"]] = row["value"]
    return list(videos.values())


def _manifest(
    command: Sequence[str],
    naming: Naming,
    subset: str | None,
    seed: int,
    origin: Mapping[str, Any],
    dimensions: Sequence[str],
) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat("T", "seconds")
    suite = naming.suite
    config = {"imported": [f["sha256"] for f in origin["files"]], "subset": subset, "dimensions": list(dimensions)}
    return {
        "command": list(command),
        "created": now,
        "finished": now,
        "imported": dict(origin),
        "videos_dir": naming.videos_dir,
        "config": {**config, "profile": "official", "seed": seed},
        "config_sha256": content_key(**config, profile="official", seed=seed),
        "suite": {"name": suite.name, "sha256": suite.sha256, "n_prompts": len(suite.prompts), "source": suite.source},
        "profile": "official",
        "precision": "fp32",
        "weights": {},
        "seed": seed,
        "git": None,
        "packages": {},
        "hardware": None,
        "stages": {"score": "imported"},
    }
