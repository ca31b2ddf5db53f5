"""Caption clips with the official Tag2Text and seeded weights. Runs in the official environment.

    python -m tests.parity.tag2text_official --cache DIR --out FILE [--full]

The official `scene` does the work, under `no_grad` (without, it needs 22 GiB). Shallow networks are the official class
with blocks removed; the published size reads the first four of the sixteen frames, and so writes about the first two.
The official loader is not strict; what it reports must be nothing but tables that are not weights.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.parity import recipe, tag2text_files

PACKAGES = ("vbench", "torch", "transformers", "timm", "decord", "pillow", "numpy")
TABLES = re.compile(r".*\.(position_ids|relative_position_index|attn_mask)")
CLIPS = Path(__file__).with_name("clips")
FULL_CLIPS, FULL_FRAMES = ("square.mp4", "wide.mp4"), 4  # a few minutes each


def lay_out(cache: Path) -> None:
    """Put what the package otherwise fetches from the hub as `bert-base-uncased` into the working folder."""
    folder = cache / "bert-base-uncased"
    sizes = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    config = {"model_type": "bert", "vocab_size": tag2text_files.SIZE, **sizes}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}), encoding="utf-8")
    torch.save({}, folder / "pytorch_model.bin")  # all of it is overwritten from the checkpoint


def build() -> Any:
    from vbench.third_party.tag2Text.tag2text import Tag2Text_Caption

    return Tag2Text_Caption(image_size=384, vit="swin_b").eval()


def cut(model: Any, depth: int) -> None:
    """Keep the first blocks of every stack."""
    for stage in model.visual_encoder.layers:
        stage.blocks = stage.blocks[:depth]
    for encoder in (model.text_decoder.bert.encoder, model.tag_encoder.encoder):
        encoder.layer = encoder.layer[:depth]
        encoder.config.num_hidden_layers = depth


def load(model: Any, path: Path) -> None:
    from vbench.third_party.tag2Text.tag2text import load_checkpoint_swinbase

    _, report = load_checkpoint_swinbase(model, str(path), {"image_size": 384})
    odd = [name for name in (*report.missing_keys, *report.unexpected_keys) if not TABLES.fullmatch(name)]
    assert not odd, odd


def shorten() -> None:
    """Have the official `scene` see only the first frames that it decodes."""
    import vbench.scene

    load_video = vbench.scene.load_video
    vbench.scene.load_video = lambda *args, **options: load_video(*args, **options)[:FULL_FRAMES]


class Recorder:
    """Notes what passes through the official model while it captions a clip."""

    def __init__(self, model: Any) -> None:
        self.notes: dict[str, Any] = {}
        self._watch(model.visual_encoder, "image")
        self._watch(model.fc, "tag_logits")
        self._watch(model.tag_encoder, "memory")
        self._watch(model.text_decoder, "first_logits")
        self._wrap_generate(model.text_decoder)
        self._wrap_captions(model)

    def _watch(self, module: nn.Module, name: str) -> None:
        def note(_module: nn.Module, _inputs: object, output: Any) -> None:
            if name in self.notes:
                return
            if name == "first_logits":  # rows are beams; all of a frame are equal at first
                self.notes[name] = tag2text_files.sample(output.logits[::3, -1])
            elif name == "memory":
                self.notes[name] = tag2text_files.sample(output.last_hidden_state[::3])
            else:
                self.notes[name] = tag2text_files.sample(output)

        module.register_forward_hook(note)

    def _wrap_generate(self, decoder: Any) -> None:
        generate = decoder.generate

        def noting(*args: Any, **options: Any) -> Tensor:
            tokens: Tensor = generate(*args, **options)
            self.notes["tokens"] = [_until_end(row) for row in tokens.tolist()]
            return tokens

        decoder.generate = noting

    def _wrap_captions(self, model: Any) -> None:
        generate = model.generate

        def noting(*args: Any, **options: Any) -> Any:
            captions, tags = generate(*args, **options)
            self.notes["captions"], self.notes["tags"] = captions, tags
            return captions, tags

        model.generate = noting


def _until_end(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(tag2text_files.END)] if tag2text_files.END in tokens else tokens


def caption(model: Any, recorder: Recorder, file: str) -> dict[str, Any]:
    """Run the official `scene` on one clip."""
    from vbench.scene import scene

    recorder.notes.clear()
    facts = {"scene": {"scene": tag2text_files.SCENES[file]}}
    record = {"auxiliary_info": facts, "video_list": [str(CLIPS.resolve() / file)]}
    with torch.no_grad():
        score, _ = scene(model, [record], torch.device("cpu"))
    return {"score": score, **recorder.notes}


def frames_sha256(path: Path) -> str:
    """The frames of a clip as decord scales them for this network."""
    import decord

    decord.bridge.set_bridge("native")
    frames_THWC = decord.VideoReader(str(path), width=384, height=384, num_threads=1)[:].asnumpy()
    return hashlib.sha256(frames_THWC.tobytes()).hexdigest()


def run(full: bool, cache: Path) -> dict[str, Any]:
    depth = None if full else recipe.SHALLOW
    fingerprint = tag2text_files.write_checkpoint(cache, depth)
    model = build()
    if depth:
        cut(model, depth)
    else:
        shorten()
    load(model, cache / tag2text_files.CHECKPOINT)
    recorder = Recorder(model)
    clips = {file: caption(model, recorder, file) for file in (FULL_CLIPS if full else tag2text_files.SCENES)}
    return {"fingerprint": fingerprint, "clips": clips}


def main() -> None:
    parser = argparse.ArgumentParser(description="Caption clips with the official package and seeded weights.")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the checkpoint, in the official layout")
    parser.add_argument("--out", type=Path, required=True, help="where the results go (JSON); others' parts are kept")
    parser.add_argument("--full", action="store_true", help="the network at its published size")
    arguments = parser.parse_args()
    out, cache = arguments.out.resolve(), arguments.cache.resolve()
    golden = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    golden["vocabulary"] = tag2text_files.write_vocabulary(cache)
    lay_out(cache)
    os.chdir(cache)
    with contextlib.redirect_stdout(sys.stderr):
        if "shapes" not in golden:
            weights = {name: x for name, x in build().state_dict().items() if not TABLES.fullmatch(name)}
            golden["shapes"] = tag2text_files.collapse({name: tuple(x.shape) for name, x in weights.items()})
            out.write_text(json.dumps(golden), encoding="utf-8")
        golden["full" if arguments.full else "shallow"] = run(arguments.full, cache)
    golden["frames"] = {file: frames_sha256(CLIPS.resolve() / file) for file in tag2text_files.SCENES}
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    golden["versions"] = {"python": platform.python_version(), **versions}
    out.write_text(json.dumps(golden) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
