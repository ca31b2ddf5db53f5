"""All 16 dimensions from one command, with seeded weights in the place of the published ones.

    python -m tests.parity.sixteen [--full] [--out DIR]        # or: make sixteen

Writes a checkpoint for every network in the official layout and a suite of four prompts that ask for all 16 dimensions,
scores four short clips in one run, and sets every score beside what the official package gave with the same weights.
Without --full the networks have a few blocks per stack.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import torch

from evalkit.backbones import clip_style, grit, tag2text, umt
from evalkit.backbones._grit_network import Grit, GritShape
from evalkit.backbones._grit_text import TextShape
from evalkit.backbones._vitdet import VitShape
from evalkit.backbones.base import Runtime
from evalkit.backbones.tag2text import Shape, Tag2Text
from evalkit.job import Request
from evalkit.metrics import DIMENSIONS
from evalkit.records import RunRecord
from evalkit.runner import score_folder
from tests.parity import checkpoints, grit_checkpoint, native, raft_official, recipe, tag2text_files
from tests.parity.dimensions import VIDEO_SCALE
from tests.parity.styles_actions_official import ACTIONS, STYLES, expand, write_umt

HERE = Path(__file__).parent
CLIPS = HERE / "clips"
TOLERANCE = 1e-4
Size = Literal["shallow", "full"]
BOXES = ("object_class", "multiple_objects", "color", "spatial_relationship")
ELSEWHERE: dict[Size, dict[str, str]] = {
    "shallow": {"scene": "test_parity_tag2text.py"},
    "full": {"scene": "test_parity_tag2text.py", **dict.fromkeys(BOXES, "test_parity_grit.py")},
}
"""What is scored but not compared here: both captioners read one vocabulary, here GRiT's made-up one, and the full GRiT
is compared on frames that are no clip."""

Videos = dict[str, dict[str, float]]
"""By dimension, the official score of each video."""

GRIT = GritShape(
    backbone=VitShape(layers=grit_checkpoint.SIZES["shallow"].layers or 0),
    text=TextShape(layers=grit_checkpoint.SIZES["shallow"].text_layers or 0),
)
TAGS = Shape(image_blocks=(recipe.SHALLOW,) * 4, encoder_layers=recipe.SHALLOW, decoder_layers=recipe.SHALLOW)


def golden(part: str) -> Any:
    """A golden file of the official package's results."""
    return json.loads((HERE / f"{part}golden.json").read_text(encoding="utf-8"))


@contextmanager
def shallow() -> Iterator[None]:
    """Build all networks with a few blocks per stack; all else, checkpoints and loaders included, stays as it is."""
    text_tower = partial(clip_style.build_text_tower, layers=recipe.SHALLOW)
    with ExitStack() as patches:
        patches.enter_context(native.shallow(recipe.SHALLOW))
        patches.enter_context(mock.patch.object(umt, "Umt", partial(umt.Umt, depth=recipe.SHALLOW)))
        patches.enter_context(mock.patch.object(clip_style, "build_text_tower", text_tower))
        patches.enter_context(mock.patch.object(tag2text, "Tag2Text", partial(Tag2Text, TAGS)))
        patches.enter_context(mock.patch.object(grit, "Grit", partial(Grit, GRIT)))
        yield


def write_weights(cache: Path, size: Size) -> None:
    """Write the checkpoints of all networks below `cache`."""
    depth = recipe.SHALLOW if size == "shallow" else None
    checkpoints.write(cache, checkpoints.FILES, depth)
    raft_official.write_checkpoint(cache, raft_official.recorded_shapes())
    write_umt(cache, recipe.weights("umt", expand(golden("styles_actions_")["umt"]["tensors"], depth)))
    tag2text_files.write_checkpoint(cache, depth)
    with torch.device("meta"):
        network = Grit(GRIT if size == "shallow" else GritShape())
    shapes = grit_checkpoint.published({name: tuple(t.shape) for name, t in network.state_dict().items()})
    grit_checkpoint.write(cache, shapes, grit_checkpoint.SIZES[size])


def official(size: Size) -> Videos:
    """What the official package gave; a video that it did not score in a dimension has no entry."""
    seven, styles, captions, boxes = (golden(p) for p in ("", "styles_actions_", "tag2text_", "grit_"))
    found: Videos = {
        name: {file: value * VIDEO_SCALE[name] for file, value in entry["videos"].items()}
        for name, entry in seven[size]["scores"].items()
    }
    found["dynamic_degree"] = {f: float(v) for f, v in golden("raft_")["dynamic_degree"]["videos"].items()}
    found |= {name: styles[size][name]["videos"] for name in ("human_action", "temporal_style", "appearance_style")}
    found["scene"] = {file: entry["score"] for file, entry in captions[size]["clips"].items()}
    found |= {
        name: {file: value for file, value in entry["videos"].items() if (CLIPS / file).exists()}
        for name, entry in boxes[size]["scores"].items()
    }
    assert found.keys() == set(DIMENSIONS)
    return found


def prompts(size: Size) -> Iterator[dict[str, Any]]:
    """A prompt for each clip that asks for everything the official package scored it in."""
    scored, asked = official(size), golden("grit_")["shallow"]["asked"]
    for line in (CLIPS / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        file = record["file"]
        yield {
            "id": record["prompt_id"],
            "text": record["prompt"],
            "dimensions": [name for name in DIMENSIONS if file in (asked if name in BOXES else scored[name])],
            "auxiliary": {
                "human_action": {"action": ACTIONS[size].get(file)},
                "appearance_style": {"appearance_style": STYLES[file]},
                "scene": {"scene": tag2text_files.SCENES[file]},
                **asked.get(file, {}),
            },
        }


def lay_out(work: Path, size: Size) -> Request:
    """Make everything that a run needs below `work`."""
    videos, weights = work / "videos", work / "weights"
    shutil.copytree(CLIPS, videos, dirs_exist_ok=True)
    write_weights(weights, size)
    suite = work / "prompts.jsonl"
    suite.write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts(size)), encoding="utf-8")
    return Request(
        videos, str(suite), work / "run", "official", weights=weights, trust_archives=True, runtime=Runtime()
    )


@dataclass(frozen=True, slots=True)
class Line:
    """One dimension: how many videos were scored, and how far the worst is from the official score.

    `worst` is None if the two sides scored different videos; `elsewhere` names the test that compares it instead, and
    `broken` counts the videos on which a network failed.
    """

    dimension: str
    videos: int
    worst: float | None
    elsewhere: str | None
    broken: int

    @property
    def holds(self) -> bool:
        if self.elsewhere:
            return self.broken == 0
        return self.videos > 0 and self.worst is not None and self.worst <= TOLERANCE


def compare(record: RunRecord, size: Size) -> list[Line]:
    """Every dimension's videos beside the official package's, in the order of tables."""
    expected = official(size)
    lines = []
    for name in DIMENSIONS:
        ours = {v["file"]: v["scores"][name] for v in record.summary["videos"] if name in v["scores"]}
        broken = sum(" failed: " in video["unscored"].get(name, "") for video in record.summary["videos"])
        same = ours.keys() == expected[name].keys()
        gaps = [abs(ours[file] - value) for file, value in expected[name].items()] if same else []
        lines.append(Line(name, len(ours), max(gaps) if gaps else None, ELSEWHERE[size].get(name), broken))
    return lines


def table(lines: list[Line]) -> str:
    """The comparison as text, one line a dimension."""
    rows = [f"{'dimension':<24}{'videos':>8}{'|video| max':>14}{'tolerance':>12}"]
    for line in lines:
        if line.elsewhere:
            rows.append(f"{line.dimension:<24}{line.videos:>8}  scored; compared in {line.elsewhere}")
            continue
        worst = "other videos" if line.worst is None else f"{line.worst:.1e}"
        rows.append(
            f"{line.dimension:<24}{line.videos:>8}{worst:>14}{TOLERANCE:>12.0e}  {'ok' if line.holds else 'NO'}"
        )
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.parity.sixteen", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--full", action="store_true", help="networks of the published sizes: 9 GB of disk")
    parser.add_argument("--out", type=Path, default=HERE.parents[1] / "build" / "sixteen", help="where everything goes")
    arguments = parser.parse_args()
    size: Size = "full" if arguments.full else "shallow"
    work = arguments.out / size
    print(f"writing {size} networks with seeded weights to {work}", file=sys.stderr)
    request = lay_out(work, size)
    with nullcontext() if arguments.full else shallow():
        lines = compare(_score(request), size)
    print(table(lines))
    return 0 if all(line.holds for line in lines) else 1


def _score(request: Request) -> RunRecord:
    from evalkit.cli import out
    from evalkit.cli.progress import watching
    from evalkit.cli.tables import scores
    from evalkit.report import render

    with watching() as bars:
        record = score_folder(request, bars, sys.argv)
    render([record], request.out / "report.html")
    out.print(scores(record))
    return record


if __name__ == "__main__":
    sys.exit(main())
