"""The report page, read as text: what it says, what it hides, and what it must never contain."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from evalkit.cli import build_app
from evalkit.errors import UserError
from evalkit.records import RunRecord
from evalkit.reference import TABLES
from evalkit.report import ShownRun, Video, compose, extremes, render, sections
from evalkit.report import media as media_module
from evalkit.report import page as page_module
from evalkit.report.media import link
from evalkit.resources import resource
from tests.fabricate import SEVEN, Spec, write_run

PROMPTS = ("a red ball rolls down a hill", "two dogs play chess", "rain on a tin roof")
LITE = {name if name == "temporal_flickering" else f"lite/{name}": mean for name, mean in SEVEN.items()}
HOSTILE = (
    "<script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 2">',
    "</script><script>window.hacked = 3</script>",
    "quotes ' and \" & ampersands; <!-- a comment; ]]> and \u2028 line separators",
    "שלום עולם \u202e reversed \u202c مرحبا",
    "{{ 7 * 7 }} ${7 * 7} $\\frac{1}{2}$",
)
VOID = {"meta", "link", "input", "img", "br"}


class Parsed(HTMLParser):
    """Every element with its attributes, the visible text, and whether the tags are balanced."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"unclosed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        self.raw.get(inside, self.text).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.raw["script"][0])
        return found


def parse(*runs: RunRecord, at: Path | None = None) -> Parsed:
    return Parsed(compose(runs, at or runs[0].path / "report.html"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def complete(folder: Path) -> RunRecord:
    return write_run(folder / "complete", Spec(PROMPTS, videos_per_prompt=2))


@pytest.fixture(scope="module")
def gappy(folder: Path) -> RunRecord:
    """One of everything that can be missing."""
    return write_run(
        folder / "gappy",
        Spec(
            PROMPTS[:2],
            seed=1,
            undecodable=frozenset({0}),
            unscored={1: {"overall_consistency": "the clip is too short"}},
            missing=[{"id": "custom50-03", "text": PROMPTS[2]}],
            unmatched=[{"file": "holiday.mp4", "reason": "no prompt is like it", "nearest": ["custom50-01"]}],
        ),
    )


@pytest.fixture(scope="module")
def lite(folder: Path) -> RunRecord:
    return write_run(folder / "stand-ins", Spec(PROMPTS, profile="lite", scores=LITE))


@pytest.fixture(scope="module")
def hostile(folder: Path) -> RunRecord:
    """A run in which every string that users control attacks the page."""
    return write_run(
        folder / "<b>run",
        Spec(
            HOSTILE,
            files={0: "javascript:alert(1).mp4", 1: "<i>&\"'.mp4", 2: "per%63ent #1?.mp4"},
            unscored={3: {"imaging_quality": "<u>reason</u>"}},
            missing=[{"id": "<s>", "text": "</script><b>missing</b>"}],
            unmatched=[{"file": "<em>.mp4", "reason": "<tt>", "nearest": ["<h1>"]}],
            command=("m4v-eval", "vbench", "<script>window.hacked = 4</script>"),
        ),
    )


@pytest.fixture(scope="module")
def pages(complete: RunRecord, gappy: RunRecord, lite: RunRecord, hostile: RunRecord) -> dict[str, Parsed]:
    """Pages of all kinds; parsing them checks that their tags balance."""
    return {
        "complete": parse(complete),
        "gappy": parse(gappy),
        "lite": parse(lite),
        "hostile": parse(hostile),
        "two": parse(complete, gappy),
    }


KINDS = ("complete", "gappy", "lite", "hostile", "two")


@pytest.mark.parametrize("kind", KINDS)
def test_the_policy_names_exactly_what_is_inside(pages: dict[str, Parsed], kind: str) -> None:
    page = pages[kind]
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    digests = {
        name: "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for name, text in (("style-src", page.raw["style"][0]), ("script-src", page.raw["script"][1]))
    }
    assert len(page.raw["style"]) == 1
    assert len(page.raw["script"]) == 2  # the data, which does not run, and our script
    assert "default-src 'none'" in policy
    assert all(f"{name} '{digest}'" in policy for name, digest in digests.items())
    assert "unsafe" not in policy


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_inline_and_nothing_from_outside(pages: dict[str, Parsed], kind: str) -> None:
    for tag, attributes in pages[kind].elements:
        assert "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href"):
            target = attributes.get(name)
            assert target is None or target.startswith(("#", "data:")), target
    for uri in [*pages[kind].data["posters"].values(), *(src for src, _ in pages[kind].data["clips"].values())]:
        assert uri.startswith(("data:", "./"))


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_unique_and_references_resolve(pages: dict[str, Parsed], kind: str) -> None:
    ids = Counter(attributes["id"] for _, attributes in pages[kind].elements if "id" in attributes)
    assert max(ids.values()) == 1
    for _, attributes in pages[kind].elements:
        for reference in re.findall(r"#([^\s)\"']+)", f"{attributes.get('href')} {attributes.get('clip-path')}"):
            assert reference in ids


def test_hostile_text_stays_text(pages: dict[str, Parsed], hostile: RunRecord) -> None:
    page = pages["hostile"]
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"b", "i", "u", "s", "em", "tt", "h5", "img"}
    assert len(page.all("h1")) == 1
    assert [text for _, text in page.data["prompts"]] == list(HOSTILE)
    for text in ("<b>run", "<u>reason</u>", "</script><b>missing</b>", "<em>.mp4", "window.hacked = 4"):
        assert text in page.words
    assert "49" not in [cell.strip() for cell in page.text]  # `{{ 7 * 7 }}` was not evaluated


def test_links_cannot_become_schemes_and_are_quoted(pages: dict[str, Parsed], hostile: RunRecord, folder: Path) -> None:
    assert link(folder / "javascript:alert(1).mp4", folder / "page.html") == "./javascript%3Aalert%281%29.mp4"
    assert link(folder / "a" / "per%63ent #1?.mp4", folder / "b" / "page.html") == "./../a/per%2563ent%20%231%3F.mp4"


@pytest.mark.parametrize("file", ["../secret.mp4", "/etc/hostname", "sub/../../secret.mp4"])
def test_files_outside_the_videos_folder_are_never_touched(folder: Path, tmp_path: Path, file: str) -> None:
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    run = write_run(tmp_path / "run", Spec(PROMPTS[:1], clip_size=None))
    run.summary["videos"][0]["file"] = file
    page = parse(run)
    assert page.data["clips"] == {}
    assert base64.b64encode(b"secret").decode() not in " ".join(page.raw["script"])


def test_same_run_same_bytes(complete: RunRecord, tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        render([complete], tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_scores_are_percent_with_two_decimals(pages: dict[str, Parsed], complete: RunRecord) -> None:
    for found in complete.summary["dimensions"].values():
        low, high = found["ci95"]
        shown = f"{100 * found['score']:.2f} {100 * low:.2f} – {100 * high:.2f} {found['n']}"
        assert shown in pages["complete"].words
    videos = complete.summary["videos"]
    assert len(pages["complete"].data["videos"]) == len(videos)
    for row, video in zip(pages["complete"].data["videos"], videos, strict=True):
        assert row[6] == pytest.approx([100 * video["scores"][name] for name in SEVEN], abs=5e-5)
        assert row[5] == "96 × 64, 24 frames, 24 fps"


def test_complete_run_says_so(pages: dict[str, Parsed]) -> None:
    assert "Complete: 6 videos, each scored in 7 dimensions; nothing is missing." in pages["complete"].words
    assert "Nothing: every prompt has a video" in pages["complete"].words


def test_gaps_are_counted_listed_and_never_zero(pages: dict[str, Parsed], gappy: RunRecord) -> None:
    words = pages["gappy"].words
    assert "1 of 3 prompts without a video; 1 file matched no prompt; 8 of 14 video–dimension pairs unscored" in words
    assert PROMPTS[2] in words
    assert "holiday.mp4 no prompt is like it; nearest: custom50-01" in words
    assert "1 video unscored: the video cannot be decoded" in words
    assert "1 video unscored: the clip is too short" in words
    undecodable, short = pages["gappy"].data["videos"]
    assert undecodable[4] is None
    assert undecodable[6] == [None] * 7
    assert short[6][-1] is None
    assert short[7] == {"6": "the clip is too short"}


def test_interrupted_run_is_not_complete(complete: RunRecord) -> None:
    summary = {**complete.summary, "interrupted": True}
    assert "Incomplete: the run was interrupted." in parse(replaced(complete, summary=summary)).words


def replaced(run: RunRecord, **changes: Any) -> RunRecord:
    return RunRecord(run.path, changes.get("manifest", run.manifest), changes.get("summary", run.summary), run.results)


def test_lite_is_not_vbench(pages: dict[str, Parsed]) -> None:
    words = pages["lite"].words
    assert "These are not VBench scores." in words
    assert "Official profile." not in words
    assert "Published rows" not in words
    assert not any(row["model"] in words for row in TABLES["vbench_custom"].rows() if len(row["model"]) > 5)
    assert "Subject consistency (lite)" in words


def test_profiles_never_share_a_page(complete: RunRecord, lite: RunRecord, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot share a page"):
        render([complete, lite], tmp_path / "page.html")
    with pytest.raises(UserError, match="no run"):
        render([], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_reduced_precision_is_labelled(complete: RunRecord, pages: dict[str, Parsed]) -> None:
    words = parse(replaced(complete, summary={**complete.summary, "precision": "bf16"})).words
    assert "Not the official number: reduced precision." in words
    assert "this run, bf16: not the official number" in words
    assert "reduced precision" not in pages["complete"].words


def test_other_weights_are_labelled(complete: RunRecord, pages: dict[str, Parsed]) -> None:
    words = parse(replaced(complete, summary={**complete.summary, "foreign_weights": ["clip-vit-b-32"]})).words
    assert "Not the published weights." in words
    assert "clip-vit-b-32. The scores are not VBench scores." in words
    assert "Not the published weights." not in pages["complete"].words


def test_published_rows_are_as_printed(pages: dict[str, Parsed], complete: RunRecord) -> None:
    words = pages["complete"].words
    for row in TABLES["vbench_custom"].rows():
        assert " ".join([row["model"], *(row[name] or "–" for name in SEVEN), row["source"]]) in words
    elsewhere = {**complete.summary, "subset": {**complete.summary["subset"], "name": "my-prompts"}}
    assert "Published rows" not in parse(replaced(complete, summary=elsewhere)).words


def test_two_runs_are_compared_prompt_by_prompt(pages: dict[str, Parsed], complete: RunRecord) -> None:
    assert "B gappy against A complete" in pages["two"].words
    assert "Verdict on B" in pages["two"].words
    assert "Paired comparison" not in pages["complete"].words
    assert [run["label"] for run in pages["two"].data["runs"]] == ["A", "B"]
    other = {**complete.manifest, "suite": {**complete.manifest["suite"], "sha256": "0" * 64}}
    words = parse(complete, replaced(complete, manifest=other)).words
    assert "do not compare: prompt suites" in words


def test_different_suites_are_pointed_out(complete: RunRecord, pages: dict[str, Parsed]) -> None:
    other = {**complete.summary, "subset": {**complete.summary["subset"], "sha256": "0" * 64}}
    assert "Different prompt suites." in parse(complete, replaced(complete, summary=other)).words
    assert "Different prompt suites." not in pages["two"].words


def test_provenance_repeats_the_run(pages: dict[str, Parsed], complete: RunRecord) -> None:
    words = pages["complete"].words
    manifest = complete.manifest
    for text in (
        "m4v-eval vbench --subset custom50 --videos 'clips of mine'",
        manifest["config_sha256"],
        manifest["suite"]["sha256"],
        manifest["git"]["commit"],
        *manifest["weights"].values(),
        *manifest["packages"].values(),
    ):
        assert text in words


def test_clips_are_embedded_while_small_and_linked_when_not(
    complete: RunRecord, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sizes = [(Path(complete.manifest["videos_dir"]) / v["file"]).stat().st_size for v in complete.summary["videos"]]
    monkeypatch.setattr(media_module, "CLIP_BYTES", sorted(sizes)[len(sizes) // 2])
    page = parse(complete, at=tmp_path / "page.html")
    clips = [page.data["clips"][row[4]][0] for row in page.data["videos"]]
    assert [src.startswith("data:video/mp4;base64,") for src in clips] == [
        size <= sorted(sizes)[len(sizes) // 2] for size in sizes
    ]
    linked = [src for src in clips if src.startswith("./")]
    assert linked
    assert all((tmp_path / src).resolve().is_file() for src in linked)


def test_the_budget_goes_to_the_best_and_the_worst(complete: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "N_EXTREMES", 1)
    best, worst = extremes(shown(complete), ShownRun(0, complete), "subject_consistency", 1)
    files = [Path(complete.manifest["videos_dir"]) / video.file for video in (*best, *worst)]
    monkeypatch.setattr(media_module, "CLIP_BUDGET", sum(4 * -(-file.stat().st_size // 3) for file in files))
    clips = parse(complete).data["clips"]
    assert {name for name, (src, _) in clips.items() if src.startswith("data:")} == {
        str(video.media) for video in (*best, *worst)
    }


def shown(run: RunRecord) -> tuple[Video, ...]:
    return page_module.list_videos([ShownRun(0, run)])


def test_formats_that_browsers_cannot_play_are_links(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Spec(PROMPTS[:1], files={0: "clip.mkv"}))
    assert [kind for _, kind in parse(run).data["clips"].values()] == [""]


def test_nothing_scored_is_still_a_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Spec(PROMPTS[:2], undecodable=frozenset({0, 1})))
    words = parse(run).words
    assert "14 of 14 video–dimension pairs unscored" in words
    assert "0.00" not in words


def test_no_videos_is_still_a_page(tmp_path: Path) -> None:
    missing = [{"id": "custom50-01", "text": PROMPTS[0]}]
    run = write_run(tmp_path / "run", Spec((), missing=missing))
    assert "Incomplete: 1 of 1 prompt without a video." in parse(run).words


def test_full_size_stays_small(tmp_path: Path) -> None:
    """946 prompts with five videos each: rows travel as data, and the script shows them a page at a time."""
    prompts = [f"prompt number {number} of the full suite, with some words to fill a line" for number in range(946)]
    run = write_run(tmp_path / "run", Spec(prompts, videos_per_prompt=5, clip_size=None, suite="full"))
    html = compose([run], tmp_path / "page.html")
    assert len(html) < 2_000_000
    assert len(Parsed(html).data["videos"]) == 4730


def test_a_section_is_one_file(complete: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(resource("reports"), tmp_path / "reports")
    (tmp_path / "reports" / "sections" / "extra.py").write_text(
        "from markupsafe import escape\n"
        "from evalkit.report import Section\n"
        "SECTION = Section('Extra things', 25, lambda page: escape(f'<{len(page.videos)} videos>'))\n"
    )
    monkeypatch.setattr(page_module, "resource", lambda name: tmp_path / name)
    found = sections.__wrapped__()
    orders = [section.order for section in found]
    assert orders == sorted(orders)
    monkeypatch.setattr(page_module, "sections", lambda: found)
    page = parse(complete)
    assert "Extra things <6 videos>" in page.words
    assert {"href": "#extra-things"} in page.all("a")


def test_a_file_without_a_section_is_a_defect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reports" / "sections").mkdir(parents=True)
    (tmp_path / "reports" / "sections" / "empty.py").write_text("")
    monkeypatch.setattr(page_module, "resource", lambda name: tmp_path / name)
    with pytest.raises(RuntimeError, match="holds no SECTION"):
        sections.__wrapped__()


def test_section_orders_and_anchors_are_unique() -> None:
    assert len({section.order for section in sections()}) == len(sections())
    assert len({section.anchor for section in sections()}) == len(sections())


@given(values=st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12), n=st.integers(1, 4), rising=st.booleans())
def test_extremes_are_the_ends_of_the_ranking(values: list[float | None], n: int, rising: bool) -> None:
    videos = tuple(
        Video(i, 0, f"{i}.mp4", str(i), "", 0, None, "", {} if x is None else {"d": x}, {})
        for i, x in enumerate(values)
    )
    summary = {"dimensions": {"d": {"higher_is_better": rising}}}
    run = ShownRun(0, RunRecord(Path("run"), {}, summary, None))  # type: ignore[arg-type]
    best, worst = extremes(videos, run, "d", n)
    ranking = sorted((x for x in values if x is not None), reverse=rising)
    assert [video.scores["d"] for video in best] == ranking[: len(best)]
    assert [video.scores["d"] for video in worst] == ranking[::-1][: len(worst)]
    assert not {video.index for video in best} & {video.index for video in worst}
    assert len(best) + len(worst) == min(len(ranking), 2 * n)


@given(st.integers(0, 2000))
def test_run_labels_are_spreadsheet_columns(index: int) -> None:
    label = ShownRun(index, None).label  # type: ignore[arg-type]
    value = 0
    for letter in label:
        value = 26 * value + ord(letter) - ord("A") + 1
    assert value == index + 1


def test_command_writes_the_page(complete: RunRecord, gappy: RunRecord, tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    done = CliRunner().invoke(build_app(), ["report", str(complete.path), str(gappy.path), "--out", str(page)])
    assert done.exit_code == 0
    assert done.stdout.strip() == str(page)
    assert "2 runs side by side" in page.read_text(encoding="utf-8")


def test_command_refuses_what_is_not_a_run(tmp_path: Path) -> None:
    done = CliRunner().invoke(build_app(), ["report", str(tmp_path), "--out", str(tmp_path / "page.html")])
    assert isinstance(done.exception, UserError)
    assert "run.json does not exist" in str(done.exception)
    assert not (tmp_path / "page.html").exists()


def test_what_keeps_scores_from_being_comparable_is_on_the_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Spec(["a cat", "a dog"], clip_size=None))
    run.summary["comparability"] = [{"kind": "long-clips", "text": "2 of 2 clips last 5 s & more."}]
    page = compose([run], tmp_path / "page.html")
    assert "2 of 2 clips last 5 s &amp; more." in page
    assert 'href="#comparability"' in page
    run.summary["comparability"] = []
    assert "comparability-banner" not in compose([run], tmp_path / "page.html")
