"""Recipes by preset and system: `tiny` is trained by a CPU in minutes, `paper` is the published size and schedule."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from m4v.flow import FlowConfig
from m4v.latents import CodecRecipe
from m4v.layout import Codec
from m4v.recipe import Recipe, TrainConfig, near_names
from m4v.sample import SamplerConfig
from m4v.text import TextConfig
from m4v.variants import presets

SYSTEMS = ("m4v", "pyramidflow", "stiv", "lingen")
FULL_SEQUENCE = FlowConfig(spatial_pyramid=False, temporal_pyramid=False, stages=1, corruption="none")

TINY_TEXT = TextConfig(tokens=8, width=64, pooled_width=64, layers=1, heads=4, buckets=1024)
"""Long enough for the captions of `shapes:easy` and of the suite shapes50."""
TINY_TRAIN = TrainConfig(
    steps=1500,
    batch=16,
    optimizer="muon",
    lr=4e-3,
    betas=(0.9, 0.99),
    eps=1e-8,
    warmup=50,
    decay=0.6,
    ema=0.995,
    precision="bfloat16",
    save_every=100,
)
"""Small batches, many steps, averaged weights, a learning rate that falls over most of the run."""
TINY_FLOW = FULL_SEQUENCE.but(time="logit-normal", time_mean=-0.7)
"""All at once, and more often at the noisy end: there it is decided what is where, and how it moves."""
TINY_SAMPLER = SamplerConfig(steps=25, first_frame_steps=25, guidance=3.0, first_frame_guidance=3.0, image_guidance=3.0)

PAPER_TEXT = TextConfig(
    kind="pretrained", tokens=128, width=4096, pooled_width=768, precision="bfloat16", layers=0, heads=1, buckets=1
)
PAPER_TRAIN = TrainConfig(
    steps=20_000,
    batch=64,
    micro_batch=1,
    lr=1e-4,
    betas=(0.9, 0.95),
    eps=1e-6,
    weight_decay=1e-4,
    clip=1.0,
    warmup=1000,
    ema=0.9999,
    precision="bfloat16",
    save_every=500,
    activation_checkpointing=True,
    shard=True,
)
"""PyramidFlow's Table 4 where M4V says nothing; moving average of STIV; 64 GPUs (M4V supplement) with one clip each."""


def recipe(preset: str, system: str) -> Recipe:
    """The recipe of a system at a preset.

    Raises:
        ValueError: there is none of that name; near names are given.
    """
    for what, name, choices in (("preset", preset, tuple(_RECIPES)), ("system", system, SYSTEMS)):
        if name not in choices:
            raise ValueError(f"no {what} {name!r}{near_names(name, choices)}")
    return _RECIPES[preset][system]()


def recipe_names() -> list[tuple[str, str]]:
    """Preset and system of every recipe."""
    return [(preset, system) for preset, systems in _RECIPES.items() for system in systems]


def _make(system: str, name: str, description: str, changes: dict[str, Any], **parts: Any) -> Recipe:
    """A recipe whose codec and text have the shapes that the model asks for."""
    model = presets()[system].but(**changes)
    return Recipe(name=name, description=description, system=system, model=model, **parts)


_TINY_BACKBONE = {
    "width": 128,
    "heads": 4,
    "layers": 6,
    "dual_slots": 2,
    "dual_blocks": 2,
    "positions": "both",
    "position_period": 100.0,
    "first_frame_steps": 25,
    "frame_steps": 25,
}


def _tiny(system: str, name: str, description: str, changes: dict[str, Any], **parts: Any) -> Recipe:
    codec = CodecRecipe(shape=parts.pop("shape", Codec(channels=64)), chunk=1)
    common = {"flow": TINY_FLOW, "text": TINY_TEXT, "sampler": TINY_SAMPLER, "train": TINY_TRAIN, "data": "shapes:easy"}
    parts = common | {"codec": codec} | parts
    changes = {"text_tokens": TINY_TEXT.tokens} | changes
    return _make(system, f"tiny-{name}", description, changes, **parts)


def _tiny_m4v() -> Recipe:
    return _tiny(
        "m4v-tiny",
        "m4v",
        "17 frames of 32 x 32; both pyramids are off: all frames are made at once, at full resolution. Two dual-stream "
        "attention blocks and four single-stream Mamba blocks of width 128.",
        _TINY_BACKBONE
        | {
            "spatial_pyramid": False,
            "temporal_pyramid": False,
            "causal": False,
            "mamba": {"state": 32, "chunk": 128},
        },
        flow=TINY_FLOW.but(stages=2),
        train=TINY_TRAIN.but(steps=800),
    )


def _tiny_pyramidflow() -> Recipe:
    return _tiny(
        "pyramidflow-tiny",
        "pyramidflow",
        "17 frames of 32 x 32, two levels of both pyramids: 2 x 2 and 4 x 4 latents, frame after frame.",
        _TINY_BACKBONE | {"first_frame_steps": 10, "frame_steps": 10},
        flow=FlowConfig(stages=2, corruption="constant", time=TINY_FLOW.time, time_mean=TINY_FLOW.time_mean),
        sampler=TINY_SAMPLER.but(steps=10, first_frame_steps=10),
    )


def _tiny_stiv() -> Recipe:
    return _tiny(
        "stiv-tiny",
        "stiv",
        "16 frames of 32 x 32, each encoded by itself, two in a patch; all frames are made at once.",
        {"width": 128, "steps": 25},
        shape=Codec(temporal=1, channels=64, causal=False),
    )


def _tiny_lingen() -> Recipe:
    return _tiny(
        "lingen-tiny",
        "lingen",
        "17 frames of 32 x 32 with the codec of the tiny M4V; all frames are made at once.",
        {"steps": 25},
    )


def _paper(system: str, name: str, description: str, changes: dict[str, Any], **parts: Any) -> Recipe:
    codec = CodecRecipe(kind="diffusers", shape=parts.pop("shape", Codec()), chunk=1)
    parts = {"codec": codec, "text": PAPER_TEXT, "train": PAPER_TRAIN, "data": "videos", **parts}
    return _make(system, f"paper-{name}", description, changes, **parts)


def _paper_m4v() -> Recipe:
    return _paper(
        "m4v",
        "m4v",
        "384p, 57 frames, learning rate 1e-4, 20,000 steps: the setting of the published ablations (M4V supplement "
        "D.2). The batch is not published: one clip for each of 64 GPUs.",
        {"clip": (57, 384, 640)},
        train=PAPER_TRAIN.but(images=(1, 8)),
    )


def _paper_pyramidflow() -> Recipe:
    return _paper(
        "pyramidflow",
        "pyramidflow",
        "The first video stage of PyramidFlow's Table 4 at 384p, 57 frames.",
        {"clip": (57, 384, 640)},
        flow=FlowConfig(corruption="constant"),
        train=PAPER_TRAIN.but(steps=200_000, batch=768),
    )


def _paper_stiv() -> Recipe:
    train = {
        "steps": 400_000,
        "batch": 1024,
        "optimizer": "adafactor",
        "lr": 2e-4,
        "weight_decay": 0.0,
        "mask_ratio": 0.5,
        "shard": False,
    }
    return _paper(
        "stiv-xl",
        "stiv",
        "STIV-XL, 20 frames of 256 x 256, text to video (STIV Section 3.1). The text encoders are T5 and CLIP, as for "
        "the other systems, instead of the CLIP features of the paper.",
        {"clip": (20, 256, 256), "text_width": 4096, "pooled_width": 768},
        shape=Codec(temporal=1, channels=8, causal=False),
        flow=FULL_SEQUENCE,
        sampler=SamplerConfig(steps=50, first_frame_steps=50, guidance=7.5, image_guidance=7.5),
        train=PAPER_TRAIN.but(**train),
    )


def _paper_lingen() -> Recipe:
    return _paper(
        "lingen-4b",
        "lingen",
        "272 frames of 256 x 256 (LinGen supplement, Table 5, second row; hybrid training 1 : 100). The learning rate "
        "is not published.",
        {"clip": (272, 256, 256)},
        shape=Codec(causal=False),
        flow=FULL_SEQUENCE,
        sampler=SamplerConfig(steps=50, first_frame_steps=50),
        train=PAPER_TRAIN.but(steps=125_000, batch=1024, images=(1, 100)),
    )


_RECIPES: dict[str, dict[str, Callable[[], Recipe]]] = {
    "tiny": {
        "m4v": cache(_tiny_m4v),
        "pyramidflow": cache(_tiny_pyramidflow),
        "stiv": cache(_tiny_stiv),
        "lingen": cache(_tiny_lingen),
    },
    "paper": {
        "m4v": cache(_paper_m4v),
        "pyramidflow": cache(_paper_pyramidflow),
        "stiv": cache(_paper_stiv),
        "lingen": cache(_paper_lingen),
    },
}
