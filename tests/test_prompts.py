"""Prompt suites: what ships is the study's data, what users write is read or refused with a reason."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import UserError
from evalkit.prompts import by_text, load_suite, read_suite
from evalkit.resources import resource
from evalkit.types import Prompt


def test_custom50_is_the_published_suite() -> None:
    suite = load_suite("custom50")
    assert [p.id for p in suite.prompts] == [f"custom50-{n:02d}" for n in range(1, 51)]
    assert suite.prompts[0].text.startswith("A breathtaking coastal beach in spring, where gentle waves")
    assert suite.prompts[49].text == "a group of school children is seen walking together, with smartphones."
    assert suite.prompts[4].text.count("’") == 1  # typographic characters as printed
    assert "M4V supplement" in suite.source


def test_the_readme_states_the_suites_identity() -> None:
    table = (resource("prompts") / "README.md").read_text(encoding="utf-8")
    stated = re.search(r"`custom50` \| 50 \| `([0-9a-f]{64})`", table)
    assert stated
    assert stated[1] == load_suite("custom50").sha256


def test_identity_is_of_the_content_and_not_of_the_format(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("first\n\nsecond\n", encoding="utf-8")
    (tmp_path / "a.csv").write_text('id,text\n001,first\n002,"second"\n', encoding="utf-8")
    lines = [json.dumps({"id": f"00{n}", "prompt": text}) for n, text in enumerate(("first", "second"), 1)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    suites = [read_suite(tmp_path / name) for name in ("a.txt", "a.csv", "a.jsonl")]
    assert len({suite.sha256 for suite in suites}) == 1
    assert [p.text for p in suites[0].prompts] == ["first", "second"]


def test_the_official_list_keeps_dimensions_and_facts(tmp_path: Path) -> None:
    path = tmp_path / "VBench_full_info.json"
    entry = {
        "prompt_en": "a red bicycle",
        "dimension": ["color", "object_class"],
        "auxiliary_info": {"color": {"color": "red"}},
    }
    path.write_text(json.dumps([entry, {"prompt_en": "a person", "dimension": ["human_action"]}]), encoding="utf-8")
    first, second = read_suite(path).prompts
    assert first.asks_for("color")
    assert not first.asks_for("human_action")
    assert first.auxiliary["color"] == {"color": "red"}
    assert second.dimensions == ("human_action",)


def test_a_prompt_listed_twice_serves_the_dimensions_of_both() -> None:
    merged = by_text([Prompt("1", "the bund", ("a",)), Prompt("2", "x"), Prompt("3", "the bund", ("b", "a"))])
    assert merged["the bund"].dimensions == ("a", "b")
    assert merged["the bund"].id == "1"
    assert set(merged) == {"the bund", "x"}


@given(
    st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(str.strip), min_size=1, max_size=8)
)
def test_jsonl_round_trip(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("suite") / "p.jsonl"
    path.write_text("\n".join(json.dumps({"id": str(n), "text": t}) for n, t in enumerate(texts)), encoding="utf-8")
    assert [p.text for p in read_suite(path).prompts] == [t.strip() for t in texts]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.txt", "", "holds no prompts"),
        ("p.txt", b"\xff\xfe\x00bad", "cannot be read"),
        ("p.jsonl", '{"id": 1', "line 1 cannot be read: it is not JSON"),
        ("p.jsonl", "[1]", "line 1 is not a JSON object"),
        ("p.jsonl", '{"id": "a"}', "prompt 1 has no text"),
        ("p.jsonl", '{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}', "gives the id 'a' to several"),
        ("p.jsonl", '{"text": "x", "auxiliary": [1]}', "`auxiliary` is not an object"),
        ("p.jsonl", "[" * 100_000, "is not JSON"),
        ("p.csv", "wrong,columns\n1,2\n", "has no text"),
        ("p.json", '{"not": "a list"}', "is not a VBench_full_info.json list"),
        ("p.yaml", "x", "is not a prompt file"),
    ],
)
def test_bad_files_are_refused_with_a_reason(tmp_path: Path, name: str, content: str | bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=re.escape(says)):
        read_suite(path)


def test_an_unknown_suite_names_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean custom50"):
        load_suite("custom-50")
