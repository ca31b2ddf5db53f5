"""The run directory as other stages read it.

`RUN/` holds `run.json` (what was done, with what, on what), `vbench.json` (the summary, the same text that `--json`
writes), `results.parquet` (one row per video and dimension), `posters/` and `report.html`. Reports and comparisons read
only these, never the code's state.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

RUN_SCHEMA = "m4v-eval/run/1"
VBENCH_SCHEMA = "m4v-eval/vbench/1"
SUMMARY_SCHEMAS = (VBENCH_SCHEMA, "m4v-eval/vbench-long/1", "m4v-eval/vbench-i2v/1")
"""Of `vbench.json`: a suite's own, so that nobody takes its numbers for VBench's."""

RESULT_COLUMNS = {
    "file": "string",  # name inside the videos folder
    "prompt_id": "string",
    "prompt": "string",
    "seed": "Int64",
    "video_sha256": "string",
    "width": "Int64",  # missing when the video could not be opened
    "height": "Int64",
    "n_frames": "Int64",
    "fps": "Float64",
    "dimension": "string",  # `lite/...` for stand-ins
    "version": "Int64",
    "value": "Float64",  # raw fraction; missing when unscored
    "n_terms": "Int64",  # weight where a dimension is pooled over frames
    "unscored": "string",  # the reason; missing when scored
    "key": "string",  # content address of the result
}


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One finished run, as read from its directory."""

    path: Path
    manifest: dict[str, Any]
    summary: dict[str, Any]
    results: pd.DataFrame

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def poster(self, video_sha256: str) -> Path:
        """Where the still of a video is kept (it may be missing for a video that could not be decoded)."""
        return self.path / "posters" / f"{video_sha256[:16]}.jpg"


def read_json(path: Path, *schemas: str) -> dict[str, Any]:
    """Read a JSON record and check that its schema is one of `schemas`.

    Raises:
        UserError: no such file, not JSON, or another schema.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist.", "Give the directory of a finished run (the --out of a run)."
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as e:
        raise UserError(f"{path} cannot be read: {e}.", "Run the command that wrote it again.") from None
    found = record.get("schema") if isinstance(record, dict) else None
    if found not in schemas:
        raise UserError(
            f"{path} has schema {found!r}, not {' or '.join(map(repr, schemas))}.",
            "It was written by another version; use that version, or choose a new --out.",
        )
    return dict(record)


def load_run(path: Path) -> RunRecord:
    """Load a finished run.

    Raises:
        UserError: the directory is not a finished run of this schema.
    """
    import pandas as pd

    manifest = read_json(path / "run.json", RUN_SCHEMA)
    summary = read_json(path / "vbench.json", *SUMMARY_SCHEMAS)
    try:
        results = pd.read_parquet(path / "results.parquet").astype(RESULT_COLUMNS)
    except (OSError, ValueError, KeyError) as e:
        raise UserError(f"{path / 'results.parquet'} cannot be read: {e}.", "Run the same command again.") from None
    return RunRecord(path, manifest, summary, results)
