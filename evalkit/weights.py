"""Checkpoints: where they live, what they must be, and how they are opened.

The folder is the official package's cache (`$VBENCH_CACHE_DIR`, default `~/.cache/vbench`) in the official layout, so
a machine that has run VBench already has the files. Nothing is ever downloaded unless `pull` is called.

Trust: plain checkpoints are read with `weights_only=True`, which runs no code. OpenAI's CLIP files are TorchScript
archives, which can run code; they are opened only if their sha256 is the published one, or with `trust_archives`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import struct
import warnings
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from evalkit.errors import RunFailed, UserError
from evalkit.files import hash_file, write_atomically

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")

_UNREADABLE: tuple[type[Exception], ...] = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    RuntimeError,
    EOFError,
    OSError,
    MemoryError,
)
_UNREADABLE += (LookupError, TypeError, ValueError, AttributeError, AssertionError, OverflowError)
_UNREADABLE += (struct.error, zlib.error)
"""How a damaged archive or pickle can fail."""

LEDGER = "m4v-eval-sha256.json"
"""Written beside the checkpoints: sha256 of each file, with the size and times it was computed at, and a checksum."""
_CHECK = "checksum"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One published file.

    Args:
        key: short name for tables.
        file: path below the cache folder, as the official package lays it out.
        url: where the publisher offers it.
        size: bytes, as published; 0 if unknown.
        licence: of the weights, as the publisher states it.
        source: who published it.
        sha256: as published; None where the publisher gives none (then the first verified use records it).
        archive: whether the file is a TorchScript archive.
        member: the file's name inside the zip at `url`, where the publisher offers no plain file; all else is of the
            file itself.
    """

    key: str
    file: str
    url: str
    size: int
    licence: str
    source: str
    sha256: str | None = None
    archive: bool = False
    member: str | None = None


class MissingWeights(UserError):
    """A checkpoint that a dimension needs is not on this machine."""


def default_root() -> Path:
    """The official cache folder."""
    return Path(os.environ.get("VBENCH_CACHE_DIR") or Path.home() / ".cache" / "vbench")


class WeightStore:
    """The checkpoints in one folder.

    Args:
        root: folder in the official layout.
        trust_archives: open TorchScript archives whose sha256 is not the published one.
    """

    def __init__(self, root: Path, trust_archives: bool = False) -> None:
        self.root = root
        self.trust_archives = trust_archives
        self._loaded: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()

    def shared(self, key: str, build: Callable[[], T]) -> T:
        """What `build` makes, made once for all who ask under this key, and gone when the last of them is.

        Dimensions that read one network in different ways share its weights so.
        """
        found: T | None = self._loaded.get(key)
        if found is None:
            found = self._loaded[key] = build()
        return found

    def path(self, checkpoint: Checkpoint) -> Path:
        """Raises MissingWeights if the file is not there."""
        self.require([checkpoint])
        return self.root / checkpoint.file

    def require(self, checkpoints: Iterable[Checkpoint], otherwise: str = "") -> None:
        """Raises MissingWeights that names every file that is not there, and what else could be done."""
        missing = [c for c in checkpoints if not self.has(c)]
        if missing:
            raise MissingWeights(
                f"Missing in {self.root}: {', '.join(c.file for c in missing)}.",
                f"Run `m4v-eval weights pull {' '.join(c.key for c in missing)}`, or point --weights or"
                f" $VBENCH_CACHE_DIR at the folder that holds them{otherwise}.",
            )

    def has(self, checkpoint: Checkpoint) -> bool:
        return (self.root / checkpoint.file).is_file()

    def recorded(self, checkpoint: Checkpoint) -> str | None:
        """The sha256 of the file that first fitted its network here, for publishers who give none."""
        entry = self._ledger().get(checkpoint.file, {})
        return str(entry["sha256"]) if entry.get("verified") else None

    def vouch(self, checkpoints: Iterable[Checkpoint]) -> None:
        """Record that these files fit their networks; from now on other files in their place are refused.

        Files that were opened on the user's word alone are not vouched for.
        """
        if self.trust_archives:
            return
        ledger = self._ledger()
        for checkpoint in checkpoints:
            if checkpoint.file in ledger:
                ledger[checkpoint.file]["verified"] = True
        self._write(ledger)

    def forget(self, checkpoint: Checkpoint) -> None:
        """Drop the record of a file that was fetched anew."""
        ledger = self._ledger()
        if ledger.pop(checkpoint.file, None):
            self._write(ledger)

    def sha256(self, checkpoint: Checkpoint) -> str:
        """The file's sha256; computed once and remembered until the file changes.

        A change that leaves size and mtime as they were shows in the ctime. Damage on disk shows in none of them:
        `m4v-eval weights verify` reads the files again.

        Raises:
            MissingWeights: no such file.
            UserError: the file is not the one its publisher (or an earlier verified use) vouches for.
        """
        path = self.path(checkpoint)
        stat = path.stat()
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        ledger = self._ledger()
        entry = ledger.get(checkpoint.file, {})
        known = entry.get("stamp") == stamp
        digest: str = entry["sha256"] if known else hash_file(path)
        expected = checkpoint.sha256 or self.recorded(checkpoint)
        if expected and digest != expected and not self.trust_archives:
            vouched = "its publisher gives" if checkpoint.sha256 else f"an earlier use recorded in {LEDGER}"
            raise UserError(
                f"The checkpoint {path} has sha256 {digest[:12]}..., not {expected[:12]}... as {vouched}.",
                f"Fetch it again with `m4v-eval weights pull {checkpoint.key} --force`, or pass --trust-weights if you"
                " mean to use this file.",
            )
        if not known:
            self._write(ledger | {checkpoint.file: {"sha256": digest, "stamp": stamp}})
        return digest

    def state_dict(self, checkpoint: Checkpoint, mapped: bool = False) -> dict[str, Tensor]:
        """Read the tensors of a checkpoint without running code from it (archives: see the module's notes).

        With `mapped` they stay in the file until they are used: for files of which most is not needed. Whoever keeps
        such a tensor must copy it, or it changes when the file is written anew.

        Raises:
            UserError: the file is not what it claims to be.
        """
        import torch

        self.sha256(checkpoint)
        path = self.path(checkpoint)
        try:
            with warnings.catch_warnings(action="ignore"):  # what matters is raised below, with a remedy
                if checkpoint.archive and _is_torchscript(path):
                    return dict(torch.jit.load(str(path), map_location="cpu").state_dict())  # type: ignore[no-untyped-call]
                mapped = mapped and zipfile.is_zipfile(path)  # torch's older format cannot be mapped
                _refuse_packed(path)
                loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
            tensors = _unwrap(loaded)
        except _UNREADABLE as e:
            raise _not_a_checkpoint(
                checkpoint, path, str(e).strip().splitlines()[0][:160] if str(e) else repr(e)
            ) from e
        if tensors is None:
            raise _not_a_checkpoint(checkpoint, path, "it holds no table of tensors")
        return tensors

    def _ledger(self) -> dict[str, Any]:
        try:
            ledger = json.loads((self.root / LEDGER).read_text())
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(ledger, dict) or ledger.pop(_CHECK, None) not in (None, _checksum(ledger)):
            return {}
        entries = ledger.items()
        return {key: e for key, e in entries if isinstance(e, dict) and isinstance(e.get("sha256"), str)}

    def _write(self, ledger: Mapping[str, Any]) -> None:
        with contextlib.suppress(RunFailed):  # a read-only cache is fine: the hash is computed again next time
            sealed = {**ledger, _CHECK: _checksum(ledger)}
            write_atomically(self.root / LEDGER, json.dumps(sealed, indent=1, sort_keys=True).encode())


def _checksum(ledger: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(ledger, sort_keys=True).encode()).hexdigest()


def _refuse_packed(path: Path) -> None:
    """Raises ValueError for an archive that would unpack to more than it has; `torch.save` packs nothing."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
                raise ValueError("it unpacks to more than it has")


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _unwrap(loaded: object) -> dict[str, Tensor] | None:
    """Publishers wrap the table of tensors under various names; find it."""
    import torch

    if not isinstance(loaded, Mapping):
        return None
    for key in ("state_dict", "model", "params", "params_ema"):
        if isinstance(loaded.get(key), Mapping):
            return _unwrap(loaded[key])
    tensors = {str(key): value for key, value in loaded.items() if isinstance(value, torch.Tensor)}
    return tensors or None


def _not_a_checkpoint(checkpoint: Checkpoint, path: Path, why: str) -> UserError:
    return UserError(
        f"The file {path} is not the {checkpoint.key} checkpoint: {why}.",
        f"Fetch it again with `m4v-eval weights pull {checkpoint.key} --force`.",
    )


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor], checkpoint: Checkpoint) -> None:
    """Give `module` the tensors as its own, in its precision, in evaluation mode and without gradients.

    The module may be on the meta device: then its weights are neither initialised for nothing nor held twice.

    Raises:
        UserError: a tensor is missing, surplus or of another shape; names the first few.
    """
    own = module.state_dict()
    missing = [k for k in own if k not in tensors]
    surplus = [k for k in tensors if k not in own]
    shapes = [
        f"{k} is {tuple(tensors[k].shape)}, not {tuple(own[k].shape)}"
        for k in own
        if k in tensors and tensors[k].shape != own[k].shape
    ]
    faults = [f"{k} is missing" for k in missing] + shapes + [f"{k} does not belong there" for k in surplus]
    if faults:
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        raise UserError(
            f"The checkpoint {checkpoint.file} does not fit {type(module).__name__}: {'; '.join(faults[:3])}{more}.",
            f"It may be another model's file; fetch it again with `m4v-eval weights pull {checkpoint.key} --force`.",
        )
    module.load_state_dict({k: tensors[k].to(own[k].dtype) for k in own}, strict=True, assign=True)
    module.eval().requires_grad_(False)
