"""Run GRiT's official text decoder, and the official judgement of what GRiT found. Runs in the official environment.

    python -m tests.parity.grit_text_official --out tests/parity/grit_text_golden.json [--full]

The decoder's files are imported by their paths and the detector's module is replaced by an empty one, so that
detectron2 need not be installed. The decoder is the official class with the sizes of the official configuration; a
shallow one has fewer layers. The dimensions' functions run whole, on frames that a stand-in for the detector answers
with the detections of `grit_scenes`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import platform
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.parity import grit_scenes, grit_text, grit_words, recipe

TEXT = "third_party/grit_src/grit/modeling/text"
PACKAGES = ("vbench", "torch", "numpy", "transformers")
CLS, SEP = 101, 102


def official_text_module() -> Any:
    """`text_decoder.py` and its siblings as a package of their own."""
    spec = importlib.util.find_spec("vbench")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = types.ModuleType("official_text")
    package.__path__ = [str(Path(next(iter(spec.submodule_search_locations))) / TEXT)]
    sys.modules["official_text"] = package
    return importlib.import_module("official_text.text_decoder")


def textual_head(module: Any, layers: int) -> Any:
    """The transformer, with the sizes that `grit/config.py` and the ROI heads give it."""
    return module.TransformerDecoderTextualHead(
        object_feature_size=256,
        vocab_size=30522,
        hidden_size=768,
        num_layers=layers,
        attention_heads=12,
        feedforward_size=768 * 4,
        mask_future_positions=True,
        padding_idx=0,
        decoder_type="bert_en",
        use_act_checkpoint=False,
    ).eval()


def describe(module: Any, textual: Any, task: str, tokenizer: Any, boxes: int) -> dict[str, Any]:
    """Tokens, log-probabilities and texts of the recipe's boxes, and the logits of each step where they are watched."""
    search = module.AutoRegressiveBeamSearch(
        end_token_id=SEP, max_steps=40, beam_size=1, objectdet=task == "ObjectDet", per_node_beam_size=1
    )
    begin = {"ObjectDet": CLS, "DenseCap": 103 + 1}[task]
    decoder = module.GRiTTextDecoder(textual, begin, search, "smooth", tokenizer).eval()
    steps: list[Any] = []
    plain = decoder.decoding_step

    def watched(features: Any, text: Any) -> Any:
        logits = plain(features, text)
        steps.append(logits[: grit_text.WATCHED_BOXES])
        return logits

    decoder.decoding_step = watched
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        output = decoder({"object_features": torch.from_numpy(grit_text.features(boxes))})
    tokens = output["predictions"].tolist()
    logits = torch.stack([steps[i] for i in grit_text.WATCHED_STEPS if i < len(steps)])
    return {
        "tokens": tokens,
        "logprobs": output["logprobs"].flatten().tolist(),
        "texts": [tokenizer.decode(row[1:], skip_special_tokens=True) for row in tokens],
        "logits": _rounded(logits[..., list(grit_text.WATCHED_WORDS)]),
        "logsumexp": _rounded(logits.logsumexp(dim=-1)),
    }


def _rounded(tensor: Any) -> Any:
    return np.round(tensor.double().numpy(), 5).tolist()


def run_size(module: Any, size: str, tokenizer: Any) -> dict[str, Any]:
    """All texts of one size, for each way of ending, and the fingerprint of the recipe's weights."""
    textual = textual_head(module, grit_text.LAYERS[size])
    collapsed = grit_text.collapse({name: tuple(t.shape) for name, t in textual.state_dict().items()})
    weights = grit_text.weights(collapsed, grit_text.LAYERS[size])
    state = {name.removeprefix(grit_words.PREFIX): torch.from_numpy(w) for name, w in weights.items()}
    textual.load_state_dict(state | {grit_text.TIED: state["embedding.words.weight"]})
    cases = {}
    for case, end_bias in grit_text.END_BIAS[size].items():
        if end_bias is not None:
            textual.output.bias.data[SEP] = end_bias
        boxes = grit_text.BOXES[size] if case == "usual" else grit_text.WATCHED_BOXES
        cases[case] = {task: describe(module, textual, task, tokenizer, boxes) for task in grit_text.TASKS}
    return {"tensors": collapsed, "fingerprint": recipe.fingerprint(weights), "cases": cases}


def load_tokenizer() -> Any:
    from transformers import BertTokenizer

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        path.write_text("\n".join(grit_words.vocabulary()) + "\n", encoding="utf-8")
        return BertTokenizer(str(path), do_lower_case=True)


class ToldDetector:
    """Stands in for the official `DenseCaptioning`: answers each frame with the next of the told detections."""

    def __init__(self, scenes: list[grit_scenes.Scene]) -> None:
        self.frames: Iterator[list[grit_scenes.Detection]] = (frame for scene in scenes for frame in scene.frames)

    def run_caption_tensor(self, frame: object) -> tuple[list[tuple[str, list[int], list[str]]], None]:
        found = next(self.frames)
        names = [name for _, _, name in found]
        return [(text, [int(side) for side in box], names) for text, box, _ in found], None


def judge(dimension: str) -> dict[str, Any]:
    """The dimension's official function on the scenes: its score, and that of each clip it counts, by number."""
    module = importlib.import_module(f"vbench.{dimension}")
    told = grit_scenes.scenes(dimension)

    def load_video(path: str, num_frames: int, return_tensor: bool = True) -> Any:
        return torch.zeros(num_frames, 3, 8, 8) if return_tensor else np.zeros((num_frames, 8, 8, 3), np.uint8)

    module.load_video = load_video
    entries = [
        {"prompt": scene.prompt, "auxiliary_info": scene.auxiliary, "video_list": [str(i)]}
        for i, scene in enumerate(told)
    ]
    score, records = getattr(module, dimension)(ToldDetector(told), entries, torch.device("cpu"))
    return {
        "scenes": grit_scenes.identity(dimension),
        "score": float(score),
        "videos": {record["video_path"]: float(record["video_results"]) for record in records},
    }


def without_area() -> str:
    """What happens officially to two objects whose boxes hold no whole pixel."""
    from vbench.spatial_relationship import get_position_score

    try:
        return str(get_position_score("on the left of", [3, 3, 3, 9], [7, 3, 7, 9]))
    except ZeroDivisionError as e:
        return type(e).__name__


def main() -> None:
    parser = argparse.ArgumentParser(description="Run GRiT's official text decoder with seeded weights.")
    parser.add_argument("--out", type=Path, required=True, help="where the results go (JSON); updated if it is there")
    parser.add_argument("--full", action="store_true", help="the decoder at its published size as well")
    arguments = parser.parse_args()

    stand_in = types.ModuleType("vbench.third_party.grit_model")
    stand_in.DenseCaptioning = None  # type: ignore[attr-defined]
    sys.modules[stand_in.__name__] = stand_in
    tokenizer, module = load_tokenizer(), official_text_module()
    result = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {}
    result["versions"] = {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in PACKAGES}
    result["seed"] = recipe.SEED
    for size in ("shallow", "full") if arguments.full else ("shallow",):
        result[size] = run_size(module, size, tokenizer)
    result["joined"] = [tokenizer.decode(row, skip_special_tokens=True) for row in grit_text.token_sequences()]
    result["dimensions"] = {dimension: judge(dimension) for dimension in grit_scenes.DIMENSIONS}
    result["without_area"] = without_area()
    arguments.out.write_text(_compact(result), encoding="utf-8")


def _compact(result: dict[str, Any]) -> str:
    """JSON with one line for each entry of the first two levels."""
    lines = []
    for key, value in result.items():
        if isinstance(value, dict):
            inner = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in value.items())
            lines.append(f" {json.dumps(key)}: {{\n{inner}\n }}")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    main()
