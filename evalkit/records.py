"""The run directory as other stages read it.

`RUN/` holds `run.json` (what was done, with what, on what), `vbench.json` (the summary, the same text that `--json`
writes), `results.parquet` (one row per video and dimension), `posters/` and `report.html`. Reports and comparisons read
only these, never the code's state.

`run.json` is written last. It holds its own checksum and those of the two other files, so that what is damaged, or half
replaced by a later run, is refused and never shown.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import UserError
from evalkit.files import hash_file, write_atomically
from evalkit.untrusted import parse_json, read_text

if TYPE_CHECKING:
    import pandas as pd

RUN_SCHEMA = "m4v-eval/run/1"
VBENCH_SCHEMA = "m4v-eval/vbench/1"
SUMMARY_SCHEMAS = (VBENCH_SCHEMA, "m4v-eval/vbench-long/1", "m4v-eval/vbench-i2v/1")
"""Of `vbench.json`: a suite's own, so that nobody takes its numbers for VBench's."""

CHECKSUM, FILES = "checksum", "files"

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
    text = read_text(path, "Give the directory of a finished run (the --out of a run).")
    record = parse_json(text, str(path), "Run the command that wrote it again.", finite=False)
    found = record.get("schema") if isinstance(record, dict) else None
    if found not in schemas:
        raise _other_version(path, found, schemas)
    if record.pop(CHECKSUM, None) not in (None, _checksum(record)):  # earlier versions wrote none
        raise UserError(f"{path} is damaged: its checksum does not fit.", "Run the command that wrote it again.")
    return dict(record)


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with its checksum, which `read_json` looks at and takes off."""
    return {**record, CHECKSUM: _checksum(record)}


def _checksum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _other_version(path: Path, found: object, schemas: tuple[str, ...]) -> UserError:
    return UserError(
        f"{path} has schema {found!r}, not {' or '.join(map(repr, schemas))}.",
        "It was written by another version; use that version, or choose a new --out.",
    )


def check_version(run: Path) -> None:
    """Refuse to write into another version's run; a damaged `run.json` is no obstacle, for it is written anew.

    Raises:
        UserError: the run is another version's.
    """
    path = run / "run.json"
    try:
        found = json.loads(path.read_bytes())["schema"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    if found != RUN_SCHEMA:
        raise _other_version(path, found, (RUN_SCHEMA,))


def save_run(run: Path, results: pd.DataFrame, summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """Write `results.parquet`, `vbench.json` and, last, `run.json`.

    Raises:
        RunFailed: the disk is full or the folder cannot be written.
    """
    files = {"results.parquet": results.to_parquet(index=False), "vbench.json": _as_json(summary)}
    for name, data in files.items():
        write_atomically(run / name, data)
    checksums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    write_atomically(run / "run.json", _as_json(sealed({"schema": RUN_SCHEMA, **manifest, FILES: checksums})))


def _as_json(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False).encode()


def load_run(path: Path, *, whole: bool = False) -> RunRecord:
    """Load a finished run.

    Args:
        path: its directory.
        whole: make sure that everything is there that a page shows, not only what comparisons read.

    Raises:
        UserError: the directory is not a finished run of this schema, or a record is damaged.
    """
    from evalkit.untrusted.run_shape import Manifest, Summary, WholeManifest, WholeSummary, check_shape
    from evalkit.untrusted.tables import read_parquet

    manifest = read_json(path / "run.json", RUN_SCHEMA)
    check_shape(manifest, WholeManifest if whole else Manifest, path / "run.json")
    _check_files(path, manifest)
    summary = read_json(path / "vbench.json", *SUMMARY_SCHEMAS)
    check_shape(summary, WholeSummary if whole else Summary, path / "vbench.json")
    results = read_parquet(path / "results.parquet", RESULT_COLUMNS, "Run the same command again.")
    return RunRecord(path, manifest, summary, results)


def _check_files(run: Path, manifest: Mapping[str, Any]) -> None:
    """Raises UserError unless the files are those that `run.json` was written for."""
    written = manifest.get(FILES)
    for name, checksum in written.items() if isinstance(written, dict) else ():
        try:
            same = hash_file(run / name) == checksum
        except OSError as e:
            raise UserError(f"{run / name} cannot be read: {e.strerror or e}.", "Run the same command again.") from None
        if not same:
            raise UserError(
                f"{run / name} is not the file that run.json was written for: it is damaged, or a later run goes on.",
                "Run the same command again; nothing that is finished is computed again.",
            )
