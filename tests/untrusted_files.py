"""Every reader of files from outside, with a valid file for it."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.errors import UserError

Make = Callable[[Path], Path]
Read = Callable[[Path], object]


@dataclass(frozen=True)
class Subject:
    """A reader.

    Args:
        make: writes valid files into a folder and returns the one that is mutated.
        read: reads them from the folder as a command would.
        kinds: mutations that suit the file (`tests.mutants`).
        errors: what it may raise; the text names a file of the folder.
    """

    make: Make
    read: Read
    kinds: tuple[str, ...] = ("bytes",)
    errors: type[Exception] = UserError


JSON = ("bytes", "json")
LINES = ("bytes", "lines")


def _text(name: str, content: str) -> Make:
    def make(root: Path) -> Path:
        (root / name).write_text(content, encoding="utf-8")
        return root / name

    return make


def _lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


# --- prompts, manifests, tables ---------------------------------------------------------------------------------------

PROMPTS = ("a red ball", "a blue cube", "a green tree in the wind")
RED = {"color": {"color": "red"}}
RECORDS: tuple[dict[str, Any], ...] = (
    {"id": "p-1", "text": PROMPTS[0], "dimensions": ["color"], "auxiliary": RED, "source": "made up"},
    {"id": "p-2", "prompt": PROMPTS[1], "dimensions": "scene, color"},
    {"prompt_en": PROMPTS[2]},
)
CSV_PROMPTS = 'id,text,dimensions\np-1,a red ball,color\np-2,"a blue cube, turning",\n'
OFFICIAL = [{"prompt_en": text, "dimension": ["color"], "auxiliary_info": RED} for text in PROMPTS]
SCORES = "model,source,subject_consistency,color,scene\nA,paper,97.5,80.1,50\nB,,96.5,,49.25\n"
JSON_SCORES = [{"model": "A", "subject_consistency": 0.975, "color": 0.8}, {"model": "B", "color": [0.5, []]}]


def _read_prompts(name: str) -> Read:
    def read(root: Path) -> object:
        from evalkit.prompts import by_text, load_suite

        suite = load_suite(str(root / name))
        return suite.sha256, by_text(suite.prompts)

    return read


def _make_manifest(root: Path) -> Path:
    _text("prompts.jsonl", _lines(*RECORDS))(root)
    for k in range(3):
        (root / f"{k}.mp4").write_bytes(b"")
    entries = [{"file": f"{k}.mp4", "prompt_id": f"p-{k + 1}", "seed": k} for k in range(2)]
    last = {"file": "2.mp4", "prompt": PROMPTS[2], "generation_prompt": "a tree, rewritten"}
    return _text("manifest.jsonl", _lines(*entries, last))(root)


def _read_manifest(root: Path) -> object:
    from evalkit.matching import match
    from evalkit.prompts import load_suite

    return match(root, load_suite(str(root / "prompts.jsonl")))


def _read_scores(name: str) -> Read:
    def read(root: Path) -> object:
        from evalkit.score_table import read_table

        return json.dumps(read_table(root / name).to_json(), allow_nan=False).encode()

    return read


def _make_ablation_file(root: Path) -> Path:
    from evalkit.resources import resource

    return _text("registers.yaml", (resource("ablations") / "registers.yaml").read_text(encoding="utf-8"))(root)


def _read_ablation_file(root: Path) -> object:
    from evalkit.ablation import read_ablation

    return read_ablation(root / "registers.yaml")


# --- runs -------------------------------------------------------------------------------------------------------------


def _of_run(file: str) -> Make:
    """Two runs, `a` and `b`; the file is one of `a`."""

    def make(root: Path) -> Path:
        from tests.fabricate import Spec, write_run

        for seed, name in enumerate("ab"):
            spec = Spec(
                PROMPTS,
                {"subject_consistency": 0.9, "color": 0.5, "temporal_flickering": 0.9},
                seed=seed,
                clip_size=None,
                unscored={0: {"color": "no colour"}},
                missing=[{"id": "m", "text": "missing"}],
                unmatched=[{"file": "x.mp4", "reason": "no prompt", "nearest": ["y"]}],
            )
            write_run(root / name, spec)
        return root / "a" / file

    return make


def _compare(root: Path) -> object:
    from evalkit.compare import compare_runs
    from evalkit.records import load_run

    return json.dumps(compare_runs(load_run(root / "a"), load_run(root / "b")).to_json())


def _page(root: Path) -> object:
    from evalkit.report import compose, load

    runs, costs = load([root / "a"])
    page = compose(runs, root / "page.html", costs).encode("utf-8", "replace")
    assert b"<script>alert" not in page
    return page


def _compare_and_page(root: Path) -> object:
    """Both readers see the file, also where the first refuses it."""
    refused = None
    try:
        _compare(root)
    except UserError as e:
        refused = e
    page = _page(root)
    if refused is not None:
        raise refused
    return page


def _study_subset(root: Path) -> object:
    from evalkit.records import load_run
    from evalkit.subset_study import Settings, study_runs

    return study_runs([load_run(root / name) for name in "ab"], Settings(subset=None, draws=3))


def _of_cost(file: str) -> Make:
    def make(root: Path) -> Path:
        from tests.fabricate import frame_sweep, latency_row, m4v_rows, write_flops, write_latency

        write_flops(root / "a", m4v_rows(), sweep=frame_sweep())
        write_latency(root / "a", [latency_row("attention", 2.0), latency_row("mamba", 1.0)])
        return root / "a" / file

    return make


def _make_latency(root: Path) -> Path:
    record = json.loads(_of_cost("latency.json")(root).read_text())
    for row in record["rows"]:
        row |= {"inputs": None, "seconds": [1.0, 1.1, 0.9]}
    return _text("latency.json", json.dumps(record))(root)


def _read_latency(root: Path) -> object:
    from evalkit.latency.record import load

    return load(root / "latency.json")


def _make_ablation(root: Path) -> Path:
    from tests.fabricate import AblationSpec, write_ablation

    return write_ablation(root / "a", AblationSpec(PROMPTS)) / "ablation.json"


def _read_ablation(root: Path) -> object:
    from evalkit.report import compose_ablation

    return compose_ablation(root / "a", root / "page.html")


def _make_timings(root: Path) -> Path:
    from evalkit.timings import Spent, Timings, keep

    spent = Spent(2.0, 3, 60)
    for _ in range(2):
        keep(root, Timings("cpu", {"cpu": "x"}, 2, {"score": 3.0}, spent, spent, spent, {"clip": spent}))
    return root / "timings.jsonl"


def _read_timings(root: Path) -> object:
    from evalkit.timings import read

    return [found.score + found.waiting + found.setup for found in read(root)]


def _make_journal(root: Path) -> Path:
    from evalkit.store import Journal

    with Journal(root / "results.jsonl") as journal:
        for k in range(5):
            journal.put(f"key{k}", {"value": 0.5, "n_terms": k, "unscored": None})
    return root / "results.jsonl"


def _read_journal(root: Path) -> object:
    from evalkit.store import Journal

    with Journal(root / "results.jsonl") as journal:
        return [journal.get(f"key{k}") for k in range(5)]


def _make_official(root: Path) -> Path:
    for name in ("clips_full_info.json", "clips_eval_results.json"):
        (root / name).write_bytes((Path(__file__).parent / "data/official" / name).read_bytes())
    return root / "clips_eval_results.json"


def _make_official_info(root: Path) -> Path:
    return _make_official(root).with_name("clips_full_info.json")


def _read_official(root: Path) -> object:
    from evalkit.official_results import import_results

    with tempfile.TemporaryDirectory(dir=root.parent) as out:
        return import_results([root / "clips_eval_results.json"], Path(out) / "run")


# --- checkpoints and arrays -------------------------------------------------------------------------------------------


def _make_checkpoint(root: Path) -> Path:
    from m4v.checkpoint import Checkpoint, save_checkpoint
    from m4v.latents import make_codec
    from m4v.presets import recipe
    from m4v.recipe import build_system

    small = {"model.layers": 2, "model.dual_blocks": 1, "model.dual_slots": 1, "text.buckets": 32}
    tiny = recipe("tiny", "m4v").changed(small)
    system, codec = build_system(tiny), make_codec(tiny.codec)
    weights = {name: tensor.clone() for name, tensor in system.state_dict().items()}
    save_checkpoint(Checkpoint(tiny, 3, weights, {}, {}, dict(codec.state_dict()), {"source": "shapes"}), root)
    return root / "last.pt"


def _read_checkpoint(root: Path) -> object:
    from m4v.checkpoint import load_system

    return load_system(root / "last.pt")


def _make_recipe(root: Path) -> Path:
    """The recipe of a checkpoint as a file of its own, put back before the checkpoint is read."""
    return _text("recipe.json", _packed(_make_checkpoint(root))["recipe"])(root)


def _read_recipe(root: Path) -> object:
    import torch

    kept = (root / "last.pt").read_bytes()
    recipe = (root / "recipe.json").read_text(encoding="utf-8", errors="replace")
    try:
        torch.save(_packed(root / "last.pt") | {"recipe": recipe}, root / "last.pt")
        return _read_checkpoint(root)
    finally:
        (root / "last.pt").write_bytes(kept)


def _packed(path: Path) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = torch.load(path, weights_only=True)
    return found


def _make_pickle(root: Path) -> Path:
    """The pickle inside a checkpoint as a file of its own, put back with a right checksum before it is read."""
    with zipfile.ZipFile(_make_checkpoint(root)) as archive:
        (root / "data.pkl").write_bytes(archive.read(_pickle_in(archive)))
    return root / "data.pkl"


def _pickle_in(archive: zipfile.ZipFile) -> str:
    return next(name for name in archive.namelist() if name.endswith("/data.pkl"))


def _read_pickle(root: Path) -> object:
    kept = (root / "last.pt").read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(kept)) as old, zipfile.ZipFile(root / "last.pt", "w") as new:
            for name in old.namelist():
                new.writestr(name, (root / "data.pkl").read_bytes() if name == _pickle_in(old) else old.read(name))
        return _read_checkpoint(root)
    finally:
        (root / "last.pt").write_bytes(kept)


def _make_weights(old: bool = False) -> Make:
    def make(root: Path) -> Path:
        import torch

        tensors = {"state_dict": {"a": torch.zeros(4, 4), "b": torch.ones(3)}}
        torch.save(tensors, root / "w.pt", _use_new_zipfile_serialization=not old)
        return root / "w.pt"

    return make


def _read_weights(root: Path) -> object:
    from evalkit.weights import LEDGER, Checkpoint, WeightStore

    try:
        return WeightStore(root).state_dict(Checkpoint("w", "w.pt", "https://example.org/w.pt", 0, "-", "-"))
    finally:
        (root / LEDGER).unlink(missing_ok=True)


def _make_statistics(root: Path) -> Path:
    from evalkit.distribution.frechet import Gaussian
    from evalkit.distribution.measures import MEASURES
    from evalkit.distribution.statistics import save

    width = MEASURES["fvd"].width
    save(root / "s.npz", {"fvd": Gaussian(np.zeros(width), np.ones((1, width)), 7)}, {"weights": "x"})
    return root / "s.npz"


def _read_statistics(root: Path) -> object:
    from evalkit.distribution.statistics import load

    return load(root / "s.npz", ["fvd"])


# --- training data ----------------------------------------------------------------------------------------------------


def _make_shard(root: Path) -> Path:
    with tarfile.open(root / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for k in range(3):
            for suffix, data in ((".mp4", b"video"), (".json", b'{"caption": "a"}')):
                info = tarfile.TarInfo(f"{k}-{'n' * 120}{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return root / "x.tar"


def _read_shard(root: Path) -> object:
    from m4v.data.shards import _items

    return [item.caption for item in _items([root / "x.tar"], str(root / "x.tar"))]


def _make_captions(root: Path) -> Path:
    for k in range(3):
        (root / f"{k}.mp4").write_bytes(b"video")
    return _text("manifest.jsonl", _lines(*({"file": f"{k}.mp4", "caption": f"clip {k}"} for k in range(3))))(root)


def _read_captions(root: Path) -> object:
    from m4v.data.folder import _items

    return [item.caption.encode() for item in _items(root)]


# --- studies ----------------------------------------------------------------------------------------------------------

RANKINGS = "rater,prompt_id,axis,model,rank\n" + "".join(
    f"r{r},p{p},motion_smoothness,{m},{1 + (n + r) % 3}\n"
    for r in range(3)
    for p in range(2)
    for n, m in enumerate("ABC")
)
PAIRS = "rater,prompt_id,axis,model_a,model_b,choice\n" + "".join(
    f"r{r},p{p},motion_smoothness,A,B,{'ab'[(r + p) % 2]}\n" for r in range(3) for p in range(2)
)
MEANS = "prompt_id,axis,model,mean_rank\n" + "".join(
    f"p{p},x,{m},{n + 1}\n" for p in range(3) for n, m in enumerate("AB")
)


def _aggregate(name: str) -> Read:
    def read(root: Path) -> object:
        from evalkit.study.aggregate import aggregate

        return aggregate(root / name)

    return read


def _make_study(root: Path) -> Path:
    from evalkit.study.plan_file import PLAN, VOTES, save_plan
    from evalkit.study.votes import VoteStore
    from tests.test_study_reveal import MOTION, plan

    study = plan()
    save_plan(root, study)
    store = VoteStore(root / VOTES).open(study)
    store.cast("r1", 0, MOTION, (1, 2, 3), key="one", seconds=9.0)
    store.cast("r2", 0, MOTION, (3, 1, 2), key="one")
    store.close()
    return root / PLAN


def _make_votes(root: Path) -> Path:
    return _make_study(root).with_name("votes.sqlite")


def _read_votes(root: Path) -> object:
    from evalkit.study.reveal import load_ballots

    journal = [root / f"votes.sqlite-{kind}" for kind in ("wal", "shm")]  # SQLite's own, of the file before
    try:
        for file in journal:
            file.unlink(missing_ok=True)
        return load_ballots(root)
    finally:
        for file in journal:
            file.unlink(missing_ok=True)


def _make_import(root: Path) -> Path:
    from evalkit.study.forms.imported import import_votes

    import_votes([_text("votes.csv", RANKINGS)(root)], root / "study")
    return root / "study" / "import.json"


SUBJECTS: dict[str, Subject] = {
    "prompts.txt": Subject(_text("p.txt", "\n".join(PROMPTS)), _read_prompts("p.txt")),
    "prompts.jsonl": Subject(_text("p.jsonl", _lines(*RECORDS)), _read_prompts("p.jsonl"), LINES),
    "prompts.csv": Subject(_text("p.csv", CSV_PROMPTS), _read_prompts("p.csv")),
    "prompts.json": Subject(_text("p.json", json.dumps(OFFICIAL)), _read_prompts("p.json"), JSON),
    "manifest": Subject(_make_manifest, _read_manifest, LINES),
    "scores.csv": Subject(_text("s.csv", SCORES), _read_scores("s.csv")),
    "scores.json": Subject(_text("s.json", json.dumps(JSON_SCORES)), _read_scores("s.json"), JSON),
    "ablation.yaml": Subject(_make_ablation_file, _read_ablation_file),
    "official results": Subject(_make_official, _read_official, JSON),
    "official prompts": Subject(_make_official_info, _read_official, JSON),
    "run.json": Subject(_of_run("run.json"), _compare_and_page, JSON),
    "vbench.json": Subject(_of_run("vbench.json"), _compare_and_page, JSON),
    "results.parquet": Subject(_of_run("results.parquet"), _compare_and_page),
    "subset study": Subject(_of_run("vbench.json"), _study_subset, ("json",)),
    "flops.json": Subject(_of_cost("flops.json"), _page, JSON),
    "latency.json": Subject(_of_cost("latency.json"), _page, JSON),
    "latency --against": Subject(_make_latency, _read_latency, JSON),
    "ablation.json": Subject(_make_ablation, _read_ablation, JSON),
    "timings": Subject(_make_timings, _read_timings, LINES),
    "journal": Subject(_make_journal, _read_journal),
    "checkpoint": Subject(_make_checkpoint, _read_checkpoint, errors=ValueError),
    "recipe in a checkpoint": Subject(_make_recipe, _read_recipe, ("json", "bytes"), ValueError),
    "pickle in a checkpoint": Subject(_make_pickle, _read_pickle, errors=ValueError),
    "weights": Subject(_make_weights(), _read_weights),
    "weights, old format": Subject(_make_weights(old=True), _read_weights),
    "statistics": Subject(_make_statistics, _read_statistics),
    "shard": Subject(_make_shard, _read_shard, errors=ValueError),
    "captions": Subject(_make_captions, _read_captions, LINES, ValueError),
    "rankings": Subject(_text("votes.csv", RANKINGS), _aggregate("votes.csv")),
    "pairs": Subject(_text("votes.csv", PAIRS), _aggregate("votes.csv")),
    "mean ranks": Subject(_text("votes.csv", MEANS), _aggregate("votes.csv")),
    "study plan": Subject(_make_study, _read_votes, JSON),
    "votes": Subject(_make_votes, _read_votes),
    "study import": Subject(_make_import, _aggregate("study"), JSON),
}
