"""Videos from a trained checkpoint: one file for each prompt and seed, with a manifest; resumable.

The noise of a video depends on the prompt's id and the seed alone, so that two models answer the same prompt from the
same noise, in any batch and in any order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from evalkit.container_end import is_whole_mp4
from evalkit.encode import write_video
from evalkit.errors import UserError
from evalkit.files import hash_file, remove_unfinished, write_atomically
from evalkit.job import Progress, Shard, Silent
from evalkit.lock import holding
from evalkit.prompts import load_suite
from evalkit.records import read_json
from evalkit.types import Prompt
from evalkit.untrusted import check_file_name

if TYPE_CHECKING:
    import torch

    from m4v.latents import LatentCodec
    from m4v.recipe import Recipe, System

GENERATION_SCHEMA = "m4v-eval/generation/1"
T = TypeVar("T")
MANIFEST, CLAIM = "manifest.jsonl", "generation.json"
CRF = 12  # scores should see the model, not the encoder


@dataclass(frozen=True, slots=True)
class Request:
    """What to generate.

    Args:
        checkpoint: a checkpoint file, or the folder of a training run.
        subset: name or path of the prompt suite.
        out: folder of the videos.
        seeds: one video of every prompt for each.
        batch: prompts at a time; changes speed and memory, not the videos.
        device: `cpu` or `cuda`.
        fps: of the files.
        ema: sample from the averaged weights.
        changes: fields of the recipe's sampler that are changed, such as `sampler.guidance`.
        shard: make only this part of the videos; whichever shard finds all of them there writes the manifest.
    """

    checkpoint: Path
    subset: str
    out: Path
    seeds: tuple[int, ...] = (0,)
    batch: int = 25
    device: str = "cpu"
    fps: float = 8.0
    ema: bool = True
    changes: tuple[tuple[str, Any], ...] = ()
    shard: Shard | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """One video to be made."""

    prompt: Prompt
    seed: int

    @property
    def file(self) -> str:
        return f"{self.prompt.id}-{self.seed}.mp4"


def generate(request: Request, progress: Progress | None = None) -> int:
    """Make the videos that are missing, and the manifest; returns how many were made.

    Raises:
        UserError: no such checkpoint or suite, a field that the sampler does not have, or a folder that holds other
            videos.
        RunFailed: the folder cannot be written, or another process makes the same videos.
    """
    progress = progress or Silent()
    suite = load_suite(request.subset)
    for prompt in suite.prompts:
        check_file_name(prompt.id, f"{request.subset}: the prompt id")
    recipe, system, codec = _load(request)
    with _held(request):
        _claim(request, recipe, suite.sha256)
        missing = _missing(request)
        size = batch_size(len(request.seeds) * len(suite.prompts), request.batch, request.shard)
        progress.start("generating videos", len(missing))
        for start in range(0, len(missing), size):
            batch = missing[start : start + size]
            for piece, frames in zip(batch, _sample(recipe, system, codec, batch, request), strict=True):
                write_video(request.out / piece.file, iter(frames), round(request.fps), crf=CRF)
                progress.advance()
        _conclude(request)
    return len(missing)


@contextmanager
def _held(request: Request) -> Iterator[None]:
    """Hold the folder; shards share it, for no two of them make the same video."""
    if request.shard is not None:
        yield
        return
    with holding(request.out, "Videos are made in it"):
        remove_unfinished(request.out)
        yield


def _conclude(request: Request) -> None:
    """Write the manifest if all videos are there."""
    everything = pieces_of(replace(request, shard=None))
    if all(is_whole_mp4(request.out / piece.file) for piece in everything):
        lines = [_line(piece, hash_file(request.out / piece.file)) for piece in everything]
        write_atomically(request.out / MANIFEST, b"".join(lines))


def _missing(request: Request) -> list[Piece]:
    """Pieces without a video, or with one that was cut short or is not the one that the manifest was written for."""
    known = _checksums(request.out / MANIFEST)

    def is_made(piece: Piece) -> bool:
        path = request.out / piece.file
        return is_whole_mp4(path) and (piece.file not in known or hash_file(path) == known[piece.file])

    return [piece for piece in pieces_of(request) if not is_made(piece)]


def _checksums(manifest: Path) -> dict[str, str]:
    """sha256 of each video when the manifest was written; a damaged line says nothing."""
    found = {}
    for line in manifest.read_bytes().splitlines() if manifest.is_file() else ():
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            record = json.loads(line)
            found[str(record["file"])] = str(record["sha256"])
    return found


def pieces_of(request: Request) -> list[Piece]:
    """The videos that are asked for, or those of the request's shard."""
    prompts = load_suite(request.subset).prompts
    pieces = [Piece(prompt, seed) for seed in request.seeds for prompt in prompts]
    return pieces if request.shard is None else share(pieces, request.batch, request.shard)


def share(pieces: Sequence[T], batch: int, shard: Shard) -> list[T]:
    """A shard's part: whole batches in turn, so that a video is made in the same company with and without shards."""
    size = batch_size(len(pieces), batch, shard)
    batches = [pieces[start : start + size] for start in range(0, len(pieces), size)]
    return [piece for batch in batches[shard.index :: shard.count] for piece in batch]


def batch_size(pieces: int, batch: int, shard: Shard | None) -> int:
    """How many of so many pieces are made at a time: as asked for, but few enough that every shard has some."""
    return batch if shard is None else max(1, min(batch, pieces // shard.count))


def is_complete(request: Request) -> bool:
    """Whether all videos of the request (or of its shard) are there, and the manifest where they are all there are."""
    if _missing(request):
        return False
    return (request.out / MANIFEST).exists() or bool(_missing(replace(request, shard=None)))


def _line(piece: Piece, sha256: str) -> bytes:
    prompt = piece.prompt
    record = {"file": piece.file, "prompt_id": prompt.id, "prompt": prompt.text, "seed": piece.seed, "sha256": sha256}
    return (json.dumps(record, ensure_ascii=False) + "\n").encode()


def check_folder(request: Request) -> None:
    """Refuse to add to a folder that holds other videos; cheap as long as it is empty.

    Raises:
        UserError: it does, or there is no such checkpoint or suite.
    """
    suite = load_suite(request.subset)
    if not (request.out / CLAIM).exists() and not _has_videos(request.out):
        return
    from m4v.checkpoint import load_checkpoint

    with _explained():
        recipe = load_checkpoint(request.checkpoint).recipe
        _claim(request, _changed(recipe, request), suite.sha256)


def _load(request: Request) -> tuple[Recipe, System, LatentCodec]:
    from m4v.checkpoint import load_system

    with _explained():
        recipe, system, codec = load_system(request.checkpoint, ema=request.ema)
        return _changed(recipe, request), system.to(request.device), codec.to(request.device)


def _changed(recipe: Recipe, request: Request) -> Recipe:
    wrong = [path for path, _ in request.changes if not path.startswith("sampler.")]
    if wrong:
        raise UserError(f"{wrong[0]} is fixed by the checkpoint.", "Only sampler.* can be changed for sampling.")
    return recipe.changed(dict(request.changes))


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except ValueError as e:
        raise UserError(f"{e}.", "Give a checkpoint that m4v-eval wrote (last.pt, or its folder).") from None


def _claim(request: Request, recipe: Recipe, suite: str) -> None:
    """Say whose videos the folder holds, and refuse to mix them with others."""
    path = request.checkpoint / "last.pt" if request.checkpoint.is_dir() else request.checkpoint
    record = {
        "schema": GENERATION_SCHEMA,
        "checkpoint_sha256": hash_file(path),
        "recipe": json.loads(recipe.canonical_json()),
        "recipe_hash": recipe.config_hash(),
        "suite_sha256": suite,
        "fps": request.fps,
        "ema": request.ema,
    }
    claim = request.out / CLAIM
    others = _has_videos(request.out)  # asked first: another shard may claim and begin
    if claim.exists():
        found = _read_claim(claim)
        differs = sorted(key for key in record if found.get(key) != record[key])
        if differs:
            raise UserError(
                f"{request.out} holds videos made otherwise ({', '.join(differs)} differ).", "Choose another --out."
            )
        return
    if others:
        raise UserError(f"{request.out} holds videos that are not ours.", "Choose an empty --out.")
    write_atomically(claim, json.dumps(record, indent=1, ensure_ascii=False).encode())


def _read_claim(claim: Path) -> dict[str, Any]:
    try:
        return read_json(claim, GENERATION_SCHEMA)
    except UserError as e:
        raise UserError(e.what, "Whose videos these are is not known any more: choose another --out.") from None


def _has_videos(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob("*.mp4"))


def _sample(
    recipe: Recipe, system: System, codec: LatentCodec, pieces: Sequence[Piece], request: Request
) -> Iterator[Any]:
    """Clips (T, H, W, 3) in uint8, one a piece."""
    import torch

    from m4v.sample import sample

    with torch.no_grad():
        text, null = system.text([piece.prompt.text for piece in pieces]), system.text([""])
        latents = sample(
            system.velocity,
            text,
            null,
            recipe.codec.shape.latent_shape(*recipe.model.clip),
            recipe.codec.shape.channels,
            recipe.flow,
            recipe.sampler,
            generators=[_noise(piece) for piece in pieces],
        )
        yield from codec.decode(latents).cpu().numpy()


def _noise(piece: Piece) -> torch.Generator:
    import torch

    from m4v.recipe import derived_seed

    return torch.Generator().manual_seed(derived_seed("sample", piece.seed, piece.prompt.id))
