"""Videos from a trained checkpoint: one file for each prompt and seed, with a manifest; resumable.

The noise of a video depends on the prompt's id and the seed alone, so that two models answer the same prompt from the
same noise, in any batch and in any order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.encode import write_video
from evalkit.errors import UserError
from evalkit.files import hash_file, write_atomically
from evalkit.job import Progress, Silent
from evalkit.prompts import load_suite
from evalkit.types import Prompt

if TYPE_CHECKING:
    import torch

    from m4v.latents import LatentCodec
    from m4v.recipe import Recipe, System

GENERATION_SCHEMA = "m4v-eval/generation/1"
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
    """
    progress = progress or Silent()
    suite = load_suite(request.subset)
    recipe, system, codec = _load(request)
    _claim(request, recipe, suite.sha256)
    pieces = [Piece(prompt, seed) for seed in request.seeds for prompt in suite.prompts]
    missing = [piece for piece in pieces if not (request.out / piece.file).exists()]
    progress.start("generating videos", len(missing))
    for start in range(0, len(missing), request.batch):
        batch = missing[start : start + request.batch]
        for piece, frames in zip(batch, _sample(recipe, system, codec, batch, request), strict=True):
            write_video(request.out / piece.file, iter(frames), round(request.fps), crf=CRF)
            progress.advance()
    write_atomically(request.out / "manifest.jsonl", b"".join(_line(piece) for piece in pieces))
    return len(missing)


def _line(piece: Piece) -> bytes:
    record = {"file": piece.file, "prompt_id": piece.prompt.id, "prompt": piece.prompt.text, "seed": piece.seed}
    return (json.dumps(record, ensure_ascii=False) + "\n").encode()


def _load(request: Request) -> tuple[Recipe, System, LatentCodec]:
    from m4v.checkpoint import load_system

    try:
        recipe, system, codec = load_system(request.checkpoint, ema=request.ema)
        changed = recipe.changed(dict(request.changes))
    except ValueError as e:
        raise UserError(f"{e}.", "Give a checkpoint that m4v-eval wrote (last.pt, or its folder).") from None
    wrong = [path for path, _ in request.changes if not path.startswith("sampler.")]
    if wrong:
        raise UserError(f"{wrong[0]} is fixed by the checkpoint.", "Only sampler.* can be changed for sampling.")
    return changed, system.to(request.device), codec.to(request.device)


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
    claim = request.out / "generation.json"
    if claim.exists():
        found = json.loads(claim.read_text(encoding="utf-8"))
        differs = sorted(key for key in record if found.get(key) != record[key])
        if differs:
            raise UserError(
                f"{request.out} holds videos made otherwise ({', '.join(differs)} differ).", "Choose another --out."
            )
        return
    if request.out.is_dir() and any(request.out.glob("*.mp4")):
        raise UserError(f"{request.out} holds videos that are not ours.", "Choose an empty --out.")
    write_atomically(claim, json.dumps(record, indent=1, ensure_ascii=False).encode())


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
