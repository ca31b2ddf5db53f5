"""Parquet from others: only the columns asked for, and only as much as the file can honestly hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import UserError
from evalkit.untrusted.text import LARGEST, read_bytes, shown

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MOST_ROWS = 5_000_000
"""Of a run: ten times 4,730 videos in a hundred dimensions."""
MOST_CHARACTERS = 2 * 2**30
"""Of all texts of a column together, repetitions counted (a file stores a text once, however often it stands)."""


def read_parquet(path: Path, columns: Mapping[str, str], remedy: str) -> pd.DataFrame:
    """Read columns as the given pandas types; what else the file holds is left unread.

    Metadata by which pandas or Arrow would build other objects is not looked at.

    Raises:
        UserError: no such file, no Parquet, a column is missing or of another type, or it is too large.
    """
    import pyarrow as pa

    try:
        return _frame(_table(path, columns, remedy), columns)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as e:
        why = shown((str(e).strip().splitlines() or [type(e).__name__])[0][:200])
        raise UserError(f"{shown(path)} cannot be read: {why}.", remedy) from None


def _table(path: Path, columns: Mapping[str, str], remedy: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [name for name, kind in columns.items() if kind == "string"]
    buffer = pa.BufferReader(read_bytes(path, remedy, LARGEST))
    with pq.ParquetFile(buffer, read_dictionary=texts) as file:
        about = file.metadata
        if about.num_rows > MOST_ROWS:
            raise ValueError(f"it claims {about.num_rows:,} rows, more than {MOST_ROWS:,}")
        if missing := [name for name in columns if name not in file.schema_arrow.names]:
            raise ValueError(f"it has no column {', '.join(missing)}")
        table = file.read(columns=list(columns), use_pandas_metadata=False)
    for name in texts:
        if _characters(table.column(name)) > MOST_CHARACTERS:
            raise ValueError(f"the texts of {name} are too long")
    return table


def _characters(column: pa.ChunkedArray) -> int:
    import pyarrow as pa
    import pyarrow.compute as pc

    total = 0
    for chunk in column.chunks:
        if isinstance(chunk, pa.DictionaryArray):
            lengths = pc.binary_length(chunk.dictionary).take(chunk.indices)
        elif pa.types.is_null(chunk.type):
            continue
        else:
            lengths = pc.binary_length(chunk)
        total += pc.sum(lengths).as_py() or 0
    return total


def _frame(table: pa.Table, columns: Mapping[str, str]) -> pd.DataFrame:
    import pandas as pd

    made: dict[str, Any] = {}
    for name, kind in columns.items():
        if kind == "string" and not _is_text(table.column(name).type):
            raise ValueError(f"{name} holds {table.column(name).type}, not text")
        found = table.column(name).to_pandas()
        made[name] = (found.astype(object) if kind == "string" else found).astype(kind)
    return pd.DataFrame(made)


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_null(inner))
