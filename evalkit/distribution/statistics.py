"""Mean and covariance of a reference in a file, so that its videos need not travel with them.

The file is an `.npz`: for each measure `NAME_mu`, `NAME_sigma` and `NAME_n` (`NAME` is `fid` or `fvd`), and `about`, a
line of JSON that says by which protocol and weights they were made. A file with `mu` and `sigma` alone, as other tools
write them, is read too: which measure it is for shows in the width, and nothing else is known of it.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.distribution.frechet import Gaussian
from evalkit.distribution.measures import MEASURES
from evalkit.errors import UserError
from evalkit.files import write_atomically

SCHEMA = "m4v-eval/distribution-statistics/1"


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
    try:
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"])) if "about" in arrays else {}
            if about and about.get("schema") != SCHEMA:
                raise ValueError(f"its schema is {about.get('schema')!r}")
            return Statistics({name: _gaussian(arrays, name) for name in names}, about)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as e:
        why = str(e).splitlines()[0] if str(e) else repr(e)
        raise UserError(
            f"The file {path} holds no statistics of a reference: {why}.",
            "Give a file that --save-statistics wrote for the same measures, or the folder of reference videos.",
        ) from e


def _gaussian(arrays: Mapping[str, Any], name: str) -> Gaussian:
    prefix = f"{name}_" if f"{name}_mu" in arrays else ""
    width = MEASURES[name].width
    if f"{prefix}mu" not in arrays or arrays[f"{prefix}mu"].shape != (width,):
        raise ValueError(f"{name} is not in it")
    n = int(arrays[f"{prefix}n"]) if f"{prefix}n" in arrays else None
    return Gaussian.of_moments(arrays[f"{prefix}mu"], arrays[f"{prefix}sigma"], n)
