"""The official package's result files: written, read back, totalled by its own script, and submitted."""

from __future__ import annotations

import json
import math
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from evalkit.cli import INCOMPLETE, build_app
from evalkit.compare import compare_runs
from evalkit.errors import UserError
from evalkit.metrics import registry
from evalkit.official_results import export_run, full_info, import_results, read_results, write_export, write_submission
from evalkit.official_results.form import FORMS, BadRecordError, fraction, record, terms
from evalkit.official_results.naming import name_videos, number_in, prompt_in
from evalkit.official_results.parse import read_info
from evalkit.official_results.pooling import pooled
from evalkit.official_results.submission import archive
from evalkit.prompts import load_suite
from evalkit.records import RunRecord
from evalkit.report import compose
from evalkit.scoring import BOUNDS, totals
from tests.fabricate import Spec, write_run
from tests.official_runs import INFO, made_up
from tests.parity.official_results import GOLDEN, SEEDS

DATA = INFO.parent
GOLD = json.loads(GOLDEN.read_text())
VIDEO = {"video_path": "v/a cat-0.mp4", "video_results": 0.5}


def write(folder: Path, content: Any, name: str = "x_eval_results.json") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / name


def videos(*values: float, prompt: str = "a cat", **more: Any) -> list[dict[str, Any]]:
    return [{"video_path": f"v/{prompt}-{k}.mp4", "video_results": x, **more} for k, x in enumerate(values)]


def scores_of(run: RunRecord) -> dict[tuple[str, str], float]:
    rows = run.results[run.results["value"].notna()]
    return {(d, f): float(x) for d, f, x in zip(rows["dimension"], rows["file"], rows["value"], strict=True)}


def cli(*args: object) -> Result:
    return CliRunner().invoke(build_app(), ["official", *map(str, args)])


# What the package makes of it


@pytest.mark.parametrize("seed", SEEDS)
def test_totals_are_those_of_the_official_script(seed: int, tmp_path: Path) -> None:
    export = export_run(made_up(seed))
    official = GOLD["totals"][str(seed)]
    for name, ours in (("quality", export.totals.quality), ("semantic", export.totals.semantic)):
        assert ours == pytest.approx(100 * official[name], rel=1e-9)
    assert export.totals.total == pytest.approx(100 * official["total"], rel=1e-9)
    write_submission(export, tmp_path / "s.zip")
    with zipfile.ZipFile(tmp_path / "s.zip") as zipped:
        content = json.loads(zipped.read(f"made-up-{seed}_eval_results.json"))
    assert totals({name: score for name, (score, _) in content.items()}) == export.totals


def test_totals_in_closed_form(tmp_path: Path) -> None:
    """At the upper bound everywhere all is 100 %; half-way on the semantic side alone, the total is (4 + 1/2) / 5."""
    half = {d: (b.low + b.high) / 2 if b.group == "semantic" else b.high for d, b in BOUNDS.items()}
    for scores, semantic, total in (({d: b.high for d, b in BOUNDS.items()}, 100.0, 100.0), (half, 50.0, 90.0)):
        run = made_up(0)
        for name, score in scores.items():
            run.summary["dimensions"][name]["score"] = score
        found = export_run(run).totals
        assert (found.quality, found.semantic, found.total) == pytest.approx((100.0, semantic, total), rel=1e-9)


def test_the_prompt_list_is_the_official_one() -> None:
    found, told = full_info(made_up(0))
    assert found == GOLD["info"]
    assert not told


def test_a_prompt_that_stands_twice_has_its_videos_where_they_were_judged() -> None:
    run = made_up(0)
    elsewhere = (run.results["file"] == "The bund Shanghai, oil painting-2.mp4") & (
        run.results["dimension"] != "appearance_style"
    )
    found, _ = full_info(replace(run, results=run.results[~elsewhere]))
    twice = {tuple(e["dimension"]): len(e["video_list"]) for e in found if e["prompt_en"].startswith("The bund")}
    assert twice == {("appearance_style",): 3, ("overall_consistency", "aesthetic_quality", "imaging_quality"): 2}


def test_a_result_file_of_the_package_is_read_as_it_is(tmp_path: Path) -> None:
    run = import_results([DATA / "clips_eval_results.json"], tmp_path / "run")
    official = json.loads((DATA / "clips_eval_results.json").read_text())["temporal_flickering"]
    assert run.summary["dimensions"]["temporal_flickering"]["score"] == official[0]
    by_file = {Path(entry["video_path"]).name: entry["video_results"] for entry in official[1]}
    assert {file: x for (_, file), x in scores_of(run).items()} == by_file
    assert run.manifest["videos_dir"] == "tests/parity/clips"
    assert run.manifest["suite"]["sha256"] == load_suite(str(DATA / "clips_full_info.json")).sha256
    assert sorted(run.results["prompt"]) == ["large", "square", "tall", "wide"]
    assert run.summary["comparability"] == []


def test_forms_agree_with_the_metrics() -> None:
    assert list(FORMS) == list(BOUNDS)
    for name, metric in registry("official").items():
        assert (FORMS[name].pooling, FORMS[name].version) == (metric.pooling, metric.version), name
    assert all(FORMS[name].low <= bounds.floor for name, bounds in BOUNDS.items())


# There and back


@settings(deadline=None, max_examples=12)
@given(
    seed=st.integers(0, 2**32),
    dimensions=st.sets(st.sampled_from(sorted(FORMS)), min_size=1),
    n_unscored=st.integers(0, 2),
)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, seed: int, dimensions: set[str], n_unscored: int) -> None:
    folder = tmp_path_factory.mktemp("trip")
    run = made_up(seed, dimensions=sorted(dimensions), n_unscored=n_unscored)
    results, _ = write_export(export_run(run), folder)
    back = import_results([results], folder / "run")
    ours, theirs = scores_of(run), scores_of(back)
    assert ours.keys() == theirs.keys()
    assert all(theirs[key] == pytest.approx(x, rel=1e-12, abs=1e-15) for key, x in ours.items())
    for name in dimensions:
        found = back.summary["dimensions"][name]
        assert found["score"] == run.summary["dimensions"][name]["score"]
        assert found["quirks"] == []
        assert found["unscored"] == (n_unscored if name == "color" else 0)
    assert back.summary["comparability"] == []  # every score pools again from its videos
    if dimensions == set(FORMS):
        assert back.manifest["suite"]["sha256"] == run.manifest["suite"]["sha256"]
    again = export_run(back, "again")
    assert {d: s for d, (s, _) in again.results.items()} == {d: s for d, (s, _) in export_run(run).results.items()}


@given(
    dimension=st.sampled_from(sorted(FORMS)),
    hits=st.integers(0, 16),
    n=st.integers(16, 40),
)
def test_a_record_reads_back(dimension: str, hits: int, n: int) -> None:
    value = float(hits > 8) if FORMS[dimension].unit == "flag" else hits / n
    entry = json.loads(json.dumps(record(dimension, "v/a.mp4", value, n)))
    assert fraction(dimension, entry["video_results"], of_video=True) == pytest.approx(value, abs=1e-15)
    assert terms(entry, value) == (n if FORMS[dimension].pooling == "frames" else None)


def test_units_and_types_are_the_official_ones() -> None:
    assert record("imaging_quality", "v", 0.625, None) == {"video_path": "v", "video_results": 62.5}
    assert record("dynamic_degree", "v", 1.0, 7)["video_results"] is True
    assert record("human_action", "v", 0.0, 16) == {"video_path": "v", "video_results": False, "cor_num_per_video": 0}
    assert record("color", "v", 0.25, 4) == {"video_path": "v", "video_results": 0.25, "cur_success_frame_rate": 0.25}
    hits = {"success_frame_count": 12, "frame_count": 16}
    assert record("scene", "v", 0.75, 16) == {"video_path": "v", "video_results": 0.75, **hits}
    pairs = {"video_sim": 7.5, "cnt_per_video": 15}
    assert record("background_consistency", "v", 0.5, 15) == {"video_path": "v", "video_results": 0.5, **pairs}


def test_unscored_videos_are_left_out_and_counted() -> None:
    export = export_run(made_up(0, n_unscored=2))
    assert len(export.results["color"][1]) == 1
    assert export.unscored == {"color": 2}
    assert any("Videos without a score are left out: color 2." in caveat for caveat in export.caveats)


def test_a_dimension_without_a_score_is_missing_not_zero() -> None:
    export = export_run(made_up(0, n_unscored=3))
    assert "color" not in export.results
    assert export.totals.missing == ("color",)
    assert export.totals.semantic is None
    assert any("1 of 16 dimensions have no score: color." in caveat for caveat in export.caveats)


def test_nothing_is_said_of_where_the_videos_lie() -> None:
    files = export_run(made_up(0)).files()
    assert all(b"/home/someone" not in content for content in files.values())


# Submission


def test_submission_holds_the_two_files_and_nothing_of_its_making(tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        write_submission(export_run(made_up(0)), tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as zipped:
        assert zipped.namelist() == ["made-up-0_eval_results.json", "made-up-0_full_info.json"]
        assert all(entry.date_time == (1980, 1, 1, 0, 0, 0) for entry in zipped.infolist())
        assert isinstance(json.loads(zipped.read("made-up-0_full_info.json")), list)


def test_a_partial_submission_must_be_asked_for(tmp_path: Path) -> None:
    export = export_run(made_up(0, dimensions=["scene", "color"]))
    with pytest.raises(UserError, match=r"14 of 16 dimensions.*counts each of them as 0.*--partial"):
        write_submission(export, tmp_path / "s.zip")
    assert not (tmp_path / "s.zip").exists()
    write_submission(export, tmp_path / "s.zip", partial=True)
    assert (tmp_path / "s.zip").exists()
    with pytest.raises(UserError, match=r"is not called \.zip"):
        write_submission(export, tmp_path / "s.json", partial=True)


@given(st.dictionaries(st.sampled_from(["a.json", "b.json", "c.json"]), st.binary(max_size=200)))
def test_archives_hold_what_was_put_in(contents: dict[str, bytes]) -> None:
    import io

    with zipfile.ZipFile(io.BytesIO(archive(contents))) as zipped:
        assert {name: zipped.read(name) for name in zipped.namelist()} == contents
    assert archive(contents) == archive(dict(contents))


@pytest.mark.parametrize("name", [".hidden", "__mac", "a/b", "a\\b"])
def test_names_that_the_leaderboard_passes_over_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="Choose another --name"):
        export_run(made_up(0), name)


def test_lite_runs_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "lite", Spec(["a cat"], profile="lite", clip_size=None))
    with pytest.raises(UserError, match=r"stand-ins, not VBench's.*--profile official"):
        export_run(run)
    run.summary["profile"] = "i2v"
    with pytest.raises(UserError, match="is a i2v run: it is scored by other rules"):
        export_run(run)


def test_caveats_say_what_keeps_the_numbers_from_being_official(tmp_path: Path) -> None:
    spec = Spec(["a cat", "a dog"], precision="bf16", clip_size=None, missing=[{"id": "9", "text": "a bird"}])
    run = write_run(tmp_path / "run", spec)
    run.summary["foreign_weights"] = ["dino-vitb16"]
    run.summary["comparability"] = [{"kind": "long-clips", "text": "The clips are long."}]
    export = export_run(run)
    text = " ".join(export.caveats)
    assert export.caveats[0] == "Not the published weights, so not VBench's scores: dino-vitb16."
    for part in (
        "bf16",
        "9 of 16 dimensions",
        "1 of 3 prompts have no video",
        "The clips are long.",
        "not found again",
    ):
        assert part in text
    assert [entry["prompt_en"] for entry in export.info] == ["a cat", "a dog"]


# Import: prompts


def test_prompts_and_numbers_come_from_official_names() -> None:
    assert (prompt_in("v/a cat, front-view-3.mp4"), number_in("v/a cat, front-view-3.mp4")) == ("a cat, front-view", 3)
    assert (prompt_in("v/a cat.mp4"), number_in("v/a cat.mp4")) == ("a cat", None)
    assert prompt_in("v/-3.mp4") == "-3"


@given(st.lists(st.from_regex(r"[a-z0-9 ]{1,8}(-[0-9]{1,2})?", fullmatch=True), min_size=1, unique=True))
def test_each_video_gets_the_prompt_of_its_name(stems: list[str]) -> None:
    naming = name_videos([f"v/{stem}.mp4" for stem in stems], [], None)
    for stem in stems:
        assert naming.videos[f"v/{stem}.mp4"].prompt.text == prompt_in(stem + ".mp4")


def test_the_suite_that_is_given_decides(tmp_path: Path) -> None:
    results = write(tmp_path, {"scene": [0.5, videos(0.5, 0.5, prompt="alley") + videos(0.5, prompt="no such place")]})
    run = import_results([results], tmp_path / "run", subset=str(INFO))
    suite = load_suite(str(INFO))
    assert run.manifest["suite"]["sha256"] == suite.sha256
    alley = next(p for p in suite.prompts if p.text == "alley")
    assert set(run.results[run.results["prompt"] == "alley"]["prompt_id"]) == {alley.id}
    assert [u["file"] for u in run.summary["unmatched_files"]] == ["no such place-0.mp4"]
    assert run.summary["missing_prompts"] == []  # no other prompt asks for scene
    assert run.summary["dimensions"]["scene"]["n"] == 3


def test_a_suite_that_fits_no_video_is_refused(tmp_path: Path) -> None:
    results = write(tmp_path, {"scene": [0.5, videos(0.5)]})
    with pytest.raises(UserError, match=r"None of the 1 videos belongs to a prompt of VBench_full_info.*'a cat'"):
        import_results([results], tmp_path / "run", subset=str(INFO))


def test_dimensions_of_separate_runs_and_folders_come_together(tmp_path: Path) -> None:
    scene = [{"video_path": f"/data/scene/1024x576/alley-{k}.mp4", "video_results": 0.5} for k in range(2)]
    colour = [{"video_path": "/data/color/1024x576/a red bicycle-0.mp4", "video_results": 1.0}]
    files = [
        write(tmp_path, {"color": [1.0, colour]}, "color_eval_results.json"),
        write(tmp_path, {"scene": [0.5, scene]}, "scene_eval_results.json"),
    ]
    run = import_results(files, tmp_path / "run")
    assert run.manifest["videos_dir"] == "/data"
    assert set(run.results["file"]) == {
        "scene/1024x576/alley-0.mp4",
        "scene/1024x576/alley-1.mp4",
        "color/1024x576/a red bicycle-0.mp4",
    }
    assert run.summary["subset"]["n_prompts"] == 2
    assert [f["file"] for f in run.manifest["imported"]["files"]] == [f.name for f in files]


def test_windows_paths_are_read(tmp_path: Path) -> None:
    results = write(tmp_path, {"scene": [0.5, [{"video_path": "C:\\v\\alley-4.mp4", "video_results": 0.5}]]})
    row = import_results([results], tmp_path / "run").results.iloc[0]
    assert (row["file"], row["prompt"], row["seed"]) == ("alley-4.mp4", "alley", 4)


def test_videos_that_the_package_left_out_are_listed(tmp_path: Path) -> None:
    results = write(tmp_path, {"color": [0.5, videos(0.5)]})
    listed = [{"prompt_en": "a cat", "dimension": ["color"], "video_list": ["v/a cat-0.mp4", "v/a cat-1.mp4"]}]
    write(tmp_path, listed, "x_full_info.json")
    run = import_results([results], tmp_path / "run")
    assert run.summary["dimensions"]["color"] | {"n": 1, "unscored": 1} == run.summary["dimensions"]["color"]
    video = next(v for v in run.summary["videos"] if v["file"] == "a cat-1.mp4")
    assert "no frame shows the object" in video["unscored"]["color"]


# Import: scores


def test_one_gpu_pools_frames(tmp_path: Path) -> None:
    two = [VIDEO | {"success_frame_count": 8, "frame_count": 16}]
    two += [{"video_path": "v/b-0.mp4", "video_results": 1.0, "success_frame_count": 4, "frame_count": 4}]
    found = read_results([write(tmp_path, {"object_class": [0.6, two]})])["object_class"]
    assert [entry.n_terms for entry in found.entries] == [16, 4]
    assert pooled(found).warning is None  # (8 + 4) / (16 + 4)


@pytest.mark.parametrize(
    ("dimension", "content", "expected"),
    [
        pytest.param(
            "object_class",
            [0.75, [VIDEO | {"frame_count": 16}, {"video_path": "b", "video_results": 1.0, "frame_count": 4}]],
            "0.750000, the mean over all videos alike, as the package pools on several GPUs; on one GPU it would have"
            " been 0.600000",
            id="several-gpus",
        ),
        pytest.param(
            "appearance_style",
            [
                0.35,
                [VIDEO | {"frame_results": [0.7, 0.3], "cur_sim": 0.3}, VIDEO | {"video_path": "b", "cur_sim": 0.4}],
            ],
            "0.350000, the mean over the last frame of each video, as the package pools on several GPUs",
            id="last-frames",
        ),
        pytest.param(
            "subject_consistency",
            [0.9, videos(0.5, 1.0)],
            "0.900000, but its videos pool to 0.750000 (all videos alike): on one GPU the package weighs",
            id="frames-unknown",
        ),
        pytest.param(
            "motion_smoothness", [0.9, videos(0.5, 1.0)], "0.900000, but its videos pool to 0.750000", id="edited"
        ),
    ],
)
def test_a_score_that_its_videos_do_not_give_is_named(
    tmp_path: Path, dimension: str, content: Any, expected: str
) -> None:
    run = import_results([write(tmp_path, {dimension: content})], tmp_path / "run")
    (caveat,) = run.summary["comparability"]
    assert caveat["text"].startswith(f"{dimension}: the score in x_eval_results.json is {expected}")
    assert run.summary["dimensions"][dimension]["score"] == content[0]  # the file's, all the same


def test_agreement_is_within_a_millionth(tmp_path: Path) -> None:
    for offset, n_warnings in ((0.9e-6, 0), (1.1e-6, 1)):
        found = read_results([write(tmp_path, {"motion_smoothness": [0.75 + offset, videos(0.5, 1.0)]})])
        assert bool(pooled(found["motion_smoothness"]).warning) == n_warnings


def test_what_the_file_leaves_open_is_said(tmp_path: Path) -> None:
    run = import_results([write(tmp_path, {"subject_consistency": [0.75, videos(0.5, 1.0)]})], tmp_path / "run")
    (note,) = run.summary["dimensions"]["subject_consistency"]["quirks"]
    assert "does not say how many frames" in note
    assert run.summary["comparability"] == []


def test_intervals_are_those_of_the_prompts(tmp_path: Path) -> None:
    """Two prompts with means 0.25 and 0.75: t interval with one degree of freedom, 0.5 +- 12.706 x 0.25."""
    content = [0.5, videos(0.2, 0.3) + videos(0.7, 0.8, prompt="a dog")]
    run = import_results([write(tmp_path, {"motion_smoothness": content})], tmp_path / "run")
    low, high = run.summary["dimensions"]["motion_smoothness"]["ci95"]
    assert (low + high) / 2 == pytest.approx(0.5)
    assert (high - low) / 2 == pytest.approx(12.7062047 * 0.25, rel=1e-6)


def test_imaging_quality_is_in_percent_and_negative_cosines_are_scores(tmp_path: Path) -> None:
    content = {"imaging_quality": [0.65, videos(60.0, 70)], "temporal_style": [-0.1, videos(-0.1)]}
    run = import_results([write(tmp_path, content)], tmp_path / "run")
    assert sorted(scores_of(run).values()) == [-0.1, 0.6, 0.7]
    assert run.summary["comparability"] == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is not JSON"),
        ('{"scene": [0.5, [{"video_path"', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"scene": [0.5, []], "scene": [0.5, []]}', "'scene' twice in one object"),
        ("[]", "holds no results"),
        ("{}", "holds no results"),
        ({"i2v_subject": [0.5, [VIDEO]]}, "no dimension of VBench called 'i2v_subject'"),
        ({"scene": 0.5}, "not a score with its videos.*m4v-eval score"),
        ({"scene": [0.5, 0.5]}, "not a score with its videos"),
        ('{"motion_smoothness": [NaN, []]}', r"no videos \(its score is nan\).*<prompt>-<k>\.mp4"),
        ({"scene": [0.5, [0.5]]}, "video 1 is no record"),
        ({"scene": [0.5, [{"video_path": "a.mp4"}]]}, "video 1 is no record"),
        ({"scene": [0.5, [VIDEO, VIDEO]]}, "'v/a cat-0.mp4' twice"),
        ({"scene": [0.5, [VIDEO | {"video_path": "\ud800.mp4"}]]}, "half a character"),
        ({"scene": [None, [VIDEO]]}, "the score is None, not a number"),
        ({"scene": ["0.5", [VIDEO]]}, "the score is '0.5', not a number"),
        ({"scene": [True, [VIDEO]]}, "the score is True, not a number"),
        ({"scene": [math.nan, [VIDEO]]}, "the score is nan"),
        ({"scene": [0.5, [VIDEO | {"video_results": math.nan}]]}, r"video 1 \('v/a cat-0.mp4'\) is nan"),
        ({"scene": [0.5, [VIDEO | {"video_results": math.inf}]]}, "is inf"),
        ({"scene": [0.5, [VIDEO | {"video_results": 10**400}]]}, "more than 64 bits"),
        ({"scene": [0.5, [VIDEO | {"video_results": -0.1}]]}, "is -0.1, outside 0 to 1"),
        ({"scene": [50.0, [VIDEO]]}, "the score is 50.0, outside 0 to 1"),
        ({"imaging_quality": [0.5, videos(500.0)]}, "is 500.0, outside -100 to 200"),
        ({"dynamic_degree": [0.5, [VIDEO]]}, "is 0.5, neither true nor false"),
        ({"scene": [0.5, [VIDEO | {"frame_count": 0}]]}, "has frame_count 0"),
        ({"scene": [0.5, [VIDEO | {"frame_count": 1.5}]]}, "has frame_count 1.5"),
        ({"scene": [0.5, [VIDEO | {"frame_count": 16, "success_frame_count": 4}]]}, "says 4 of 16 frames, but 0.5"),
    ],
)
def test_damaged_files_are_refused_in_words(tmp_path: Path, content: Any, expected: str) -> None:
    file = write(tmp_path, content)
    with pytest.raises(UserError, match=expected) as error:
        import_results([file], tmp_path / "run")
    assert str(file) in error.value.what
    assert not (tmp_path / "run").exists()


@settings(deadline=None, max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["scene", "color", "video_path", "video_results", "frame_count"]), inner, max_size=3
            )
        ),
        max_leaves=12,
    )
)
def test_no_json_gives_a_traceback(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    file = write(tmp_path_factory.getbasetemp() / "any", content)
    try:
        for scored in read_results([file]).values():
            assert all(math.isfinite(entry.value) for entry in scored.entries)
    except UserError:
        pass


def test_a_dimension_in_two_files_is_refused(tmp_path: Path) -> None:
    files = [write(tmp_path, {"scene": [0.5, [VIDEO]]}, f"{name}_eval_results.json") for name in "ab"]
    with pytest.raises(UserError, match=r"scene stands in .*a_eval_results\.json and in .*b_eval_results\.json"):
        read_results(files)


def test_a_prompt_list_in_place_of_results_is_explained() -> None:
    with pytest.raises(UserError, match=r"holds no results.*_eval_results\.json beside it"):
        read_results([DATA / "clips_full_info.json"])


def test_a_damaged_prompt_list_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, [{"prompt_en": "a cat", "dimension": [], "video_list": [3]}], "x_full_info.json")
    with pytest.raises(UserError, match="prompt 1: `video_list` is no list of paths"):
        read_info(file)


@pytest.mark.parametrize("value", ["0.5", None, [], True])
def test_a_score_is_a_number(value: object) -> None:
    with pytest.raises(BadRecordError):
        fraction("scene", value, of_video=True)


# The run directory


def test_runs_that_were_scored_here_are_not_overwritten(tmp_path: Path) -> None:
    own = write_run(tmp_path / "own", Spec(["a cat"], clip_size=None))
    with pytest.raises(UserError, match="holds a run that was scored here"):
        import_results([DATA / "clips_eval_results.json"], own.path)
    for _ in range(2):  # an import may be repeated
        import_results([DATA / "clips_eval_results.json"], tmp_path / "run")


def test_imported_runs_claim_nothing_that_nobody_recorded(tmp_path: Path) -> None:
    run = import_results([DATA / "clips_eval_results.json"], tmp_path / "run", name="LaVie")
    assert run.manifest["imported"]["name"] == "LaVie"
    assert [f["file"] for f in run.manifest["imported"]["files"]] == ["clips_eval_results.json", "clips_full_info.json"]
    assert all(len(f["sha256"]) == 64 for f in run.manifest["imported"]["files"])
    assert (run.manifest["weights"], run.manifest["hardware"], run.manifest["git"]) == ({}, None, None)
    assert run.results["video_sha256"].isna().all()


def test_an_imported_run_compares(tmp_path: Path) -> None:
    files, runs = [], []
    for n, seed in enumerate((1, 2)):
        files.append(write_export(export_run(made_up(seed)), tmp_path / str(n))[0])
        runs.append(import_results([files[-1]], tmp_path / f"run{n}"))
    found = {c.metric: c for c in compare_runs(*runs).dimensions}
    assert found.keys() == set(FORMS)
    one, two = (scores_of(made_up(seed)) for seed in (1, 2))
    files_of = [f for d, f in one if d == "scene"]
    expected = sum(two["scene", f] - one["scene", f] for f in files_of) / len(files_of)
    assert found["scene"].result.delta == pytest.approx(expected)


def test_the_page_says_that_a_run_was_imported(tmp_path: Path) -> None:
    run = import_results([DATA / "clips_eval_results.json"], tmp_path / "run")
    html = compose([run], tmp_path / "page.html")
    assert 'id="import-banner"' in html
    assert 'id="profile-banner"' not in html
    assert "imported by m4v-eval" in html
    assert run.manifest["imported"]["files"][0]["sha256"] in html
    own = write_run(tmp_path / "own", Spec(["a cat"], clip_size=None))
    alone = compose([own], tmp_path / "page.html")
    assert 'id="import-banner"' not in alone
    assert "Imported" not in alone
    both = compose([own, run], tmp_path / "page.html")
    assert 'id="import-banner"' in both
    assert 'id="profile-banner"' in both


# The command line


def make_run(folder: Path, seed: int = 0, **options: Any) -> Path:
    results = write_export(export_run(made_up(seed, **options)), folder)[0]
    return import_results([results], folder / "run").path


def test_commands_from_file_to_file(tmp_path: Path) -> None:
    results = write_export(export_run(made_up(0, n_unscored=0)), tmp_path)[0]
    imported = cli("import", results, "--out", tmp_path / "run", "--name", "X")
    assert imported.exit_code == 0, imported.output
    exported = cli("export", tmp_path / "run", "--out", tmp_path / "again")
    assert exported.exit_code == 0, exported.output
    first, second = (json.loads(f.read_text()) for f in (results, tmp_path / "again/X_eval_results.json"))
    assert first.keys() == second.keys()
    assert all(first[d][0] == second[d][0] for d in first)
    sent = cli("submission", tmp_path / "run", "--out", tmp_path / "s.zip")
    assert sent.exit_code == 0, sent.output
    assert "not scored by this program" in sent.output


def test_exit_codes_tell_incomplete_from_refused(tmp_path: Path) -> None:
    whole = make_run(tmp_path / "a")
    assert cli("export", whole, "--out", tmp_path).exit_code == INCOMPLETE  # a video of colour has no score
    part = make_run(tmp_path / "b", dimensions=["scene"])
    refused = cli("submission", part, "--out", tmp_path / "s.zip")
    assert isinstance(refused.exception, UserError)
    assert refused.exception.exit_code == 2
    assert cli("submission", part, "--out", tmp_path / "s.zip", "--partial").exit_code == INCOMPLETE
    results = tmp_path / "a/made-up-0_eval_results.json"
    assert cli("import", results, "--out", tmp_path / "c").exit_code == INCOMPLETE
    assert isinstance(cli("import", tmp_path / "no.json", "--out", tmp_path / "d").exception, UserError)


def test_the_prompt_list_without_the_suite(tmp_path: Path) -> None:
    run = made_up(0)
    changed = write(tmp_path, [{"prompt_en": "changed", "dimension": ["scene"]}], "other.json")
    run.manifest["config"]["subset"] = str(changed)
    found, told = full_info(run)
    assert len(told) == 1
    assert all(entry["video_list"] and "auxiliary_info" not in entry for entry in found)
    assert {e["prompt_en"]: e["dimension"] for e in found}["alley"] == ["background_consistency", "scene"]
