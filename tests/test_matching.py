"""Which video belongs to which prompt; what does not match is listed, never guessed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from evalkit.errors import UserError
from evalkit.matching import MANIFEST, Matching, match
from evalkit.types import Prompt, PromptSuite

LONG = "A cozy, dimly-lit restaurant with rustic wooden tables"
SUITE = PromptSuite(
    "suite",
    (
        Prompt("p-1", "a red bicycle"),
        Prompt("p-2", "a cat-like robot"),
        Prompt("p-3", LONG + " adorned with candles"),
        Prompt("p-4", LONG + " and vases"),
    ),
    "test",
)


def folder_of(tmp_path: Path, *names: str, manifest: list[object] | None = None) -> Path:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"video")
    if manifest is not None:
        lines = [line if isinstance(line, str) else json.dumps(line) for line in manifest]
        (tmp_path / MANIFEST).write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def pairs(matching: Matching) -> dict[str, tuple[str, int | None]]:
    return {s.file: (s.prompt.id, s.seed) for s in matching.samples}


def test_names(tmp_path: Path) -> None:
    names = ("a red bicycle-0.mp4", "a red bicycle-12.mp4", "a cat-like robot.mp4", "p-1-3.mp4", "p-2-1.MP4")
    matching = match(folder_of(tmp_path, *names, "notes.txt", "._a red bicycle-0.mp4"), SUITE)
    assert pairs(matching) == {
        "a red bicycle-0.mp4": ("p-1", 0),
        "a red bicycle-12.mp4": ("p-1", 12),
        "a cat-like robot.mp4": ("p-2", None),
        "p-1-3.mp4": ("p-1", 3),
        "p-2-1.MP4": ("p-2", 1),
    }
    assert [p.id for p in matching.missing] == ["p-3", "p-4"]
    assert matching.unmatched == ()


def test_an_id_that_ends_in_a_number_is_not_taken_for_a_seed(tmp_path: Path) -> None:
    assert pairs(match(folder_of(tmp_path, "p-2.mp4"), SUITE)) == {"p-2.mp4": ("p-2", None)}


def test_a_name_cut_by_the_file_system(tmp_path: Path) -> None:
    matching = match(folder_of(tmp_path, LONG + " adorned-0.mp4", LONG + "-0.mp4", LONG[:20] + "-0.mp4"), SUITE)
    assert pairs(matching) == {LONG + " adorned-0.mp4": ("p-3", 0)}
    reasons = {u.file: u.reason for u in matching.unmatched}
    assert reasons[LONG + "-0.mp4"] == "its name begins 2 prompts alike"
    assert reasons[LONG[:20] + "-0.mp4"] == "its name is no prompt and no prompt id"


def test_decomposed_names_match(tmp_path: Path) -> None:
    suite = PromptSuite("s", (Prompt("1", "a café"),), "test")
    assert pairs(match(folder_of(tmp_path, "a cafe\u0301-0.mp4"), suite)) == {"a cafe\u0301-0.mp4": ("1", 0)}


def test_unmatched_files_name_the_nearest(tmp_path: Path) -> None:
    matching = match(folder_of(tmp_path, "p-1-0.mp4", "a red bicicle-0.mp4"), SUITE)
    (unmatched,) = matching.unmatched
    assert "a red bicycle" in unmatched.nearest


def test_a_manifest_decides(tmp_path: Path) -> None:
    manifest: list[object] = [
        {"file": "x.mp4", "prompt_id": "p-2", "seed": 7},
        {"file": "sub/y.mp4", "prompt": "a red bicycle"},
        "",
        {"file": "gone.mp4", "prompt_id": "p-1", "seed": 1},
        {"file": "z.mp4", "prompt_id": "p-9"},
    ]
    matching = match(folder_of(tmp_path, "x.mp4", "sub/y.mp4", "z.mp4", "p-1-0.mp4", manifest=manifest), SUITE)
    assert pairs(matching) == {"x.mp4": ("p-2", 7), "sub/y.mp4": ("p-1", None)}
    reasons = {u.file: u.reason for u in matching.unmatched}
    assert reasons["gone.mp4"] == "manifest.jsonl lists it, but there is no such file"
    assert reasons["z.mp4"] == "the suite has no prompt 'p-9'"
    assert reasons["p-1-0.mp4"] == "manifest.jsonl does not list it"


@pytest.mark.parametrize(
    ("names", "manifest", "says"),
    [
        (("p-1-0.mp4", "a red bicycle-0.mp4"), None, "Several videos claim prompt p-1 with seed 0"),
        (("p-1.mp4", "p-1.webm"), None, "Several videos claim prompt p-1 with no seed"),
        (("robot.mp4",), None, "None of the 1 videos"),
        (("readme.txt",), None, "holds no videos"),
        (("x.mp4",), [{"file": "../x.mp4", "prompt_id": "p-1"}], "outside the folder"),
        (("x.mp4",), [{"file": "/etc/passwd", "prompt_id": "p-1"}], "outside the folder"),
        (("x.mp4",), ["{not json"], "line 1 cannot be read: it is not JSON"),
        (("x.mp4",), [[1]], "line 1 is not an object"),
        (("x.mp4",), [{"file": 3}], "line 1 is not an object"),
        (("x.mp4",), [{"file": "x.mp4", "prompt_id": "p-1", "seed": "0"}], "has the seed '0'"),
        (("x.mp4",), [{"file": "x.mp4", "prompt_id": "p-1"}] * 2, "a second time"),
    ],
)
def test_bad_folders_are_refused(
    tmp_path: Path, names: tuple[str, ...], manifest: list[object] | None, says: str
) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        match(folder_of(tmp_path, *names, manifest=manifest), SUITE)


def test_no_match_explains_the_naming_rules(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        match(folder_of(tmp_path, "a red bicicle-0.mp4"), SUITE)
    assert "nearest: 'a red bicycle'" in error.value.what
    assert "<prompt_id>-<seed>.mp4" in error.value.remedy


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        match(tmp_path / "gone", SUITE)
    with pytest.raises(UserError, match="is a file"):
        match(folder_of(tmp_path, "a.mp4") / "a.mp4", SUITE)
