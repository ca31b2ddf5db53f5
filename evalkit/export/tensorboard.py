"""Entries as TensorBoard's event files: a folder for each run, and in it one for each part of an ablation.

A run that is exported again is written anew, beside the old folder, which it then replaces.
"""

from __future__ import annotations

import json
import re
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from evalkit.errors import RunFailed, UserError
from evalkit.export.entry import Entry, file_name

MARK = "m4v-eval.json"
SCHEMA = "m4v-eval/tensorboard/1"


def write(entry: Entry, folder: Path) -> Path:
    """Write a run, and return its folder.

    Raises:
        UserError: TensorBoard is not installed, or the folder's place is taken by something else.
        RunFailed: the disk is full or the folder cannot be written.
    """
    _require()
    place = _place(entry, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".", suffix=".part") as temporary:
            fresh = Path(temporary) / "fresh"
            _write(entry, fresh)
            (fresh / MARK).write_text(json.dumps({"schema": SCHEMA, "identity": entry.identity}), encoding="utf-8")
            if place.exists():
                place.replace(Path(temporary) / "old")
            fresh.replace(place)
    except OSError as e:
        raise RunFailed(f"Could not write {folder}: {e.strerror or e}.", "Free space, or choose another folder.") from e
    return place


def _require() -> None:
    try:
        import_module("tensorboard")
    except ImportError:
        raise UserError(
            "--tensorboard needs TensorBoard, which is not installed.",
            "Install it: pip install 'm4v-eval[tensorboard]'.",
        ) from None


def _place(entry: Entry, folder: Path) -> Path:
    """A folder called after the run; with a part of its identity if another run's has that name."""
    name = file_name(entry.name)
    for place in (folder / name, folder / f"{name}-{entry.identity[:8]}"):
        if _owner(place) in (None, entry.identity):
            return place
    raise UserError(f"{folder / name} holds something else.", "Choose another --tensorboard folder.")


def _owner(place: Path) -> str | None:
    """Whose export a folder is; None if it is free, and nobody's identity if it is no export."""
    if not place.exists() and not place.is_symlink():
        return None
    try:
        mark = json.loads((place / MARK).read_text(encoding="utf-8"))
        return str(mark["identity"]) if mark["schema"] == SCHEMA else ""
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def _write(entry: Entry, folder: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    at: dict[str, Any] = {"walltime": entry.finished.timestamp()}
    with SummaryWriter(str(folder)) as writer:
        for name, number in entry.numbers.items():
            writer.add_scalar(name, number, 0, **at)
        for name, curve in entry.curves.items():
            for step, number in curve:
                writer.add_scalar(name, number, step, **at)
        for name, numbers in entry.samples.items():
            writer.add_histogram(name, _array(numbers), 0, **at)
        for name, path in entry.pictures.items():
            if (picture := _picture(path)) is not None:
                writer.add_image(name, picture, 0, dataformats="HWC", **at)
        for title, facts in (("settings", entry.settings), ("origin", entry.origin)):
            writer.add_text(title, _table(facts), 0, **at)
        if entry.missing:
            writer.add_text("missing", "\n".join(f"- {_cell(name)}" for name in entry.missing), 0, **at)
        _settings(writer, entry)
    for part in entry.parts:
        _write(part, folder / file_name(part.name))


def _settings(writer: Any, entry: Entry) -> None:
    """Settings for TensorBoard's table of hyperparameters, in this very folder (`add_hparams` makes another)."""
    from torch.utils.tensorboard import summary

    if entry.settings:
        make: Any = summary.hparams
        for part in make(dict(entry.settings), {}):
            writer.file_writer.add_summary(part)


def _array(numbers: Any) -> Any:
    import numpy as np

    return np.asarray(numbers, dtype=np.float64)


def _picture(path: Path) -> Any:
    """A still as an array; None if it cannot be read."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def _table(facts: Any) -> str:
    """A Markdown table."""
    rows = (f"| {_cell(name)} | {_cell(value)} |" for name, value in facts.items())
    return "\n".join(["| name | value |", "|---|---|", *rows])


def _cell(text: str) -> str:
    return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", " ".join(text.split()))
