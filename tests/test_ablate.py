"""`m4v-eval ablate` and `generate`, end to end on a few steps of the smallest model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalkit.ablate.command import Request, prepare
from evalkit.ablate.compare import compare_variants, score_table
from evalkit.ablate.experiment import training_flops
from evalkit.ablation import load_all
from evalkit.errors import UserError
from tests.test_cli import cli, refused

SCENE = {"objects": [{"colour": "red", "shape": "circle"}], "motion": "left"}
PROMPTS = [
    {"id": "p1", "text": "a red circle moves left", "auxiliary": {"scene": SCENE}},
    {"id": "p2", "text": "a blue square moves up"},
]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "two.jsonl"
    path.write_text("".join(json.dumps(prompt) + "\n" for prompt in PROMPTS))
    return path


def ask(*names: str, **changes: object) -> Request:
    fields: dict[str, object] = {
        "names": names,
        "preset": "tiny",
        "steps": 2,
        "pretrain_steps": 2,
        "seeds": (0,),
        "data": None,
        "subset": None,
        "cumulative": False,
        "profile": "lite",
        "weights": None,
        "device": "cpu",
        "threads": 1,
        "out": Path("unused"),
    }
    return Request(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(load_all()))
def test_every_ablation_has_a_design(name: str) -> None:
    experiment = prepare(ask(name))
    baseline, *variants = experiment.variants
    assert variants
    assert baseline.against is None
    for variant in variants:
        different = baseline.recipe.different(variant.recipe)
        assert different or (variant.init, variant.reward) != (baseline.init, baseline.reward)
        assert variant.recipe.train.steps == 2
        assert training_flops(variant.recipe) > 0


def test_cumulative_variants_stand_on_each_other() -> None:
    experiment = prepare(ask("registers", "text-recomposition", cumulative=True))
    assert [v.against for v in experiment.variants] == [None, "baseline", experiment.variants[1].name]


@pytest.fixture(scope="module")
def run(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole experiment of two seeds; the cache of pre-trainings is this test's own."""
    out = tmp_path_factory.mktemp("ablate")
    done = start(suite, out)
    assert done.returncode == 0, done.stderr
    return out


def start(suite: Path, out: Path, *more: str, cache: Path | None = None) -> object:
    options = ["--steps", "2", "--pretrain-steps", "2", "--seeds", "0,1", "--subset", suite, "--threads", "1"]
    files = ["--out", out / "run", "--json", out / "a.json"]
    return cli("ablate", "registers", *options, *files, *more, M4V_EVAL_CACHE=str(cache or out / "cache"))


def test_an_experiment_leaves_its_record(run: Path) -> None:
    record = json.loads((run / "a.json").read_text())
    assert record["schema"] == "m4v-eval/ablation/1"
    assert record["baseline"] == "baseline"
    assert [variant["name"] for variant in record["variants"]] == ["baseline", "registers"]
    baseline, registers = record["variants"]
    assert registers["changes"] == {"model.mamba.registers": [False, True]}
    assert registers["parameters"] > baseline["parameters"]
    assert registers["tflops"] > baseline["tflops"] > 0
    assert registers["train"]["steps"] == 2
    assert registers["train"]["final_loss"] > 0
    assert registers["published"][0]["variant"] == 95.41
    for metric, summary in registers["metrics"].items():
        assert summary["n"] + summary["unscored"] == 4, metric  # two prompts, two seeds
    named = {(c["variant"], c["metric"]) for c in record["comparisons"]}
    assert named == {("registers", metric) for metric in registers["metrics"]}
    assert all(c["n_seeds"] == 2 for c in record["comparisons"] if c["n"] > 1)
    assert "truth/colour" in registers["metrics"]
    assert registers["metrics"]["truth/colour"]["unscored"] == 2  # p2 says nothing that could be true
    assert (run / "run" / "report.html").stat().st_size > 10_000


def test_a_second_run_computes_nothing_and_says_the_same(suite: Path, run: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (run / "run").rglob("*") if p.suffix in (".mp4", ".pt")}
    record = json.loads((run / "a.json").read_text())
    done = start(suite, run)
    assert done.returncode == 0, done.stderr  # type: ignore[attr-defined]
    assert {p: p.stat().st_mtime_ns for p in before} == before
    again = json.loads((run / "a.json").read_text())
    assert (again["variants"], again["comparisons"]) == (record["variants"], record["comparisons"])


def test_models_trained_side_by_side_are_the_same(suite: Path, run: Path, tmp_path: Path) -> None:
    """Two processes of one thread each against one process: every number equal, to the bit."""
    done = start(suite, tmp_path, "--threads", "2", "--jobs", "2", cache=run / "cache")
    assert done.returncode == 0, done.stderr  # type: ignore[attr-defined]
    found, before = (json.loads((folder / "a.json").read_text()) for folder in (tmp_path, run))
    assert (found["variants"], found["comparisons"]) == (before["variants"], before["comparisons"])


def test_variants_see_the_same_data_and_start_alike(run: Path) -> None:
    """The first loss depends on data, noise and time only, as long as the new parts start as no change."""
    first = [
        json.loads((run / "run" / name / "seed0" / "train" / "losses.jsonl").read_text().splitlines()[0])["loss"]
        for name in ("baseline", "registers")
    ]
    assert first[0] == pytest.approx(first[1], rel=0.2)


def test_another_recipe_in_the_same_directory_is_refused(suite: Path, run: Path) -> None:
    options = ["--steps", "3", "--pretrain-steps", "2", "--subset", suite, "--out", run / "run"]
    done = cli("ablate", "registers", *options, M4V_EVAL_CACHE=str(run / "cache"))
    refused(done, "train.steps")


@pytest.mark.slow
def test_generated_videos_do_not_depend_on_their_batch(suite: Path, run: Path, tmp_path: Path) -> None:
    checkpoint = run / "run" / "baseline" / "seed0" / "train"
    for batch in ("1", "2"):
        done = cli("generate", "--model", checkpoint, "--prompts", suite, "--out", tmp_path / batch, "--batch", batch)
        assert done.returncode == 0, done.stderr
        assert "2 videos made" in done.stdout
    names = sorted(p.name for p in (tmp_path / "1").glob("*.mp4"))
    assert names == ["p1-0.mp4", "p2-0.mp4"]
    manifest = [json.loads(line) for line in (tmp_path / "1" / "manifest.jsonl").read_text().splitlines()]
    assert [(line["file"], line["prompt_id"], line["seed"]) for line in manifest] == [
        ("p1-0.mp4", "p1", 0),
        ("p2-0.mp4", "p2", 0),
    ]
    (tmp_path / "1" / "p1-0.mp4").unlink()
    done = cli("generate", "--model", checkpoint, "--prompts", suite, "--out", tmp_path / "1")
    assert "1 videos made" in done.stdout
    refused(
        cli("generate", "--model", checkpoint, "--prompts", suite, "--out", tmp_path / "1", "--guidance", "1"),
        "made otherwise",
    )


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["register"], "Did you mean registers"),
        ([], "No ablation is named"),
        (["registers", "qk-norm"], "contradict"),
        (["registers", "--preset", "huge"], "no preset called"),
        (["registers", "--seeds", "0,0"], "different numbers"),
        (["registers", "--data", "circles"], "--data circles"),
        (["registers", "--subset", "shapes51"], "no prompt suite called"),
    ],
)
def test_bad_requests_are_one_clear_line(args: list[str], says: str, tmp_path: Path) -> None:
    refused(cli("ablate", *args, "--out", tmp_path / "run", M4V_EVAL_CACHE=str(tmp_path)), says)


def test_a_checkpoint_that_is_none(suite: Path, tmp_path: Path) -> None:
    refused(cli("generate", "--model", tmp_path, "--prompts", suite, "--out", tmp_path / "v"), "no such checkpoint")
    (tmp_path / "last.pt").write_bytes(b"not a checkpoint")
    refused(cli("generate", "--model", tmp_path, "--prompts", suite, "--out", tmp_path / "v"), "not a readable")


def test_the_list_names_all_ablations() -> None:
    done = cli("ablate", "--list")
    assert done.returncode == 0
    assert all(name in done.stdout for name in load_all())


def test_only_mamba_starts_from_attention() -> None:
    with pytest.raises(UserError):
        prepare(ask("transplant", data="nowhere:else", preset="none"))


def test_scores_are_tabled_by_seed_and_prompt(run: Path) -> None:
    from evalkit.records import load_run

    runs = {
        name: [load_run(run / "run" / name / f"seed{k}" / "scores") for k in (0, 1)]
        for name in ("baseline", "registers")
    }
    table = score_table(runs["baseline"], "temporal_flickering", ["p1", "p2", "p3"])
    assert table.shape == (2, 3)
    values = runs["baseline"][1].results.query("dimension == 'temporal_flickering' and prompt_id == 'p2'")["value"]
    assert table[1, 1] == float(values.iloc[0])
    compared = compare_variants(runs, [("registers", "baseline")])
    one = next(c for c in compared if c.metric == "temporal_flickering")
    other = score_table(runs["registers"], "temporal_flickering", ["p1", "p2"])
    assert one.comparison.result.delta == pytest.approx((other - table[:, :2]).mean())
    assert compare_variants(runs, [("baseline", "baseline")])[0].verdict == "not distinguishable"
