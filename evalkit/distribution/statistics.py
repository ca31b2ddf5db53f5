"""Mean and covariance of a reference in a file, so that its videos need not travel with them.

The file is an `.npz`: for each measure `NAME_mu`, `NAME_sigma` and `NAME_n` (`NAME` is `fid` or `fvd`), and `about`, a
line of JSON that says by which protocol and weights they were made. A file with `mu` and `sigma` alone, as other tools
write them, is read too: which measure it is for shows in the width, and nothing else is known of it.
"""

from __future__ import annotations

import io
import json
import lzma
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.distribution.frechet import Gaussian
from evalkit.distribution.measures import MEASURES
from evalkit.errors import UserError
from evalkit.files import write_atomically
from evalkit.untrusted import parse_json, read_bytes

SCHEMA = "m4v-eval/distribution-statistics/1"
LARGEST = 512 * 2**20
"""Bytes of a file, packed or not; the covariance of 2,048 features has 32 MiB."""
UNZIP_ERRORS = (zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError, OverflowError, MemoryError)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a file holds: a Gaussian a measure, and how it was made (empty if the file does not say)."""

    gaussians: Mapping[str, Gaussian]
    about: Mapping[str, Any]


def save(path: Path, gaussians: Mapping[str, Gaussian], about: Mapping[str, Any]) -> None:
    """Write the statistics of a set. Raises RunFailed if the file cannot be written."""
    arrays: dict[str, Any] = {"about": np.array(json.dumps({"schema": SCHEMA, **about}, sort_keys=True))}
    for name, gaussian in gaussians.items():
        arrays |= {f"{name}_mu": gaussian.mean_D, f"{name}_sigma": gaussian.covariance_DD, f"{name}_n": gaussian.n}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def load(path: Path, names: Iterable[str]) -> Statistics:
    """Read the statistics of a set for the measures called `names`.

    Raises:
        UserError: the file does not hold them.
    """
    remedy = "Give a file that --save-statistics wrote for the same measures, or the folder of reference videos."
    data = read_bytes(path, remedy, LARGEST)
    try:
        _check_archive(data)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            about = parse_json(str(arrays["about"]), f"{path}, about", remedy) if "about" in arrays else {}
            if not isinstance(about, dict) or (about and about.get("schema") != SCHEMA):
                raise ValueError(f"its schema is {about.get('schema')!r}" if isinstance(about, dict) else "no schema")
            return Statistics({name: _gaussian(arrays, name) for name in names}, about)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError, *UNZIP_ERRORS) as e:
        why = str(e).splitlines()[0] if str(e) else repr(e)
        raise UserError(f"The file {path} holds no statistics of a reference: {why}.", remedy) from e


def _check_archive(data: bytes) -> None:
    """Raises ValueError for what would unpack to more than such a file can hold, or is no archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > LARGEST:
            raise ValueError(f"it unpacks to more than {LARGEST // 2**20} MiB")


def _gaussian(arrays: Mapping[str, Any], name: str) -> Gaussian:
    prefix = f"{name}_" if f"{name}_mu" in arrays else ""
    width = MEASURES[name].width
    mean_D, covariance_DD = _array(arrays, f"{prefix}mu", (width,)), _array(arrays, f"{prefix}sigma", (width, width))
    if mean_D is None or covariance_DD is None:
        raise ValueError(f"{name} is not in it")
    n = int(arrays[f"{prefix}n"]) if f"{prefix}n" in arrays else None
    return Gaussian.of_moments(mean_D, covariance_DD, n)


def _array(arrays: Mapping[str, Any], key: str, shape: tuple[int, ...]) -> Any:
    """An array of numbers of that shape; None if there is none."""
    found = arrays.get(key)
    return found if found is not None and found.shape == shape and found.dtype.kind == "f" else None
