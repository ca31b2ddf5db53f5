"""The zip that the leaderboard takes: the result files at its top level.

The leaderboard's reader (the official `scripts/cal_final_score.py`) takes every JSON object in the archive for results,
passes over lists such as `_full_info.json`, and counts a dimension that it does not find as a raw score of 0.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from evalkit.errors import UserError
from evalkit.files import write_atomically
from evalkit.official_results.export import Export

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time a zip can hold."""


def write_submission(export: Export, file: Path, *, partial: bool = False) -> None:
    """Write the archive; the same results give the same bytes.

    Args:
        export: what to submit.
        file: where to write it.
        partial: whether dimensions may be missing.

    Raises:
        UserError: dimensions are missing, or the file is not called `.zip`.
        RunFailed: the file cannot be written.
    """
    if file.suffix.lower() != ".zip":
        raise UserError(f"{file} is not called .zip.", "Choose a name such as --out eval_results.zip.")
    missing = export.totals.missing
    if missing and not partial:
        raise UserError(
            f"{export.name} has no score in {len(missing)} of 16 dimensions ({', '.join(missing)}), and the leaderboard"
            " counts each of them as 0.",
            "Score them, or pass --partial to write the file all the same.",
        )
    write_atomically(file, archive(export.files()))


def archive(contents: dict[str, bytes]) -> bytes:
    """A zip of these files that holds no time, owner or system of its making."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as zipped:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, wherever it is written
            entry.external_attr = 0o644 << 16
            zipped.writestr(entry, content)
    return buffer.getvalue()
