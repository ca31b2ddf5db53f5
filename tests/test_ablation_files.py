"""The ablations that ship: what they change exists, what they publish is printed, and mistakes are refused plainly."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter

from evalkit.ablation import PHASES, Ablation, Effect, Value, combine, find, load_all, plan, read_ablation
from evalkit.errors import UserError
from m4v.presets import recipe
from m4v.recipe import Recipe

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "ablations").glob("*.yaml"))
ALL = load_all()

# Every ablation that the project promises.
PROMISED = {
    "m4v": "registers text-recomposition mm-recomposition temp-branch dual-blocks corruption-noise reward-learning"
    " self-guidance image-video-ratio transplant gate",
    "pyramidflow": "spatial-pyramid temporal-pyramid corrective-noise causal-attention coupled-noise",
    "stiv": "qk-norm sandwich-norm temporal-patch causal-temporal-attention masks frame-replacement jit-cfg"
    " image-cross-attention condition-norm shared-adaln",
    "lingen": "rotary-major-scan tesa review-tokens",
}


def test_all_promised_ablations_are_there() -> None:
    for system, names in PROMISED.items():
        assert set(names.split()) <= {name for name, ablation in ALL.items() if ablation.system == system}
    assert set(ALL) == {path.stem for path in FILES}


def test_the_table_for_people_lists_every_file_with_its_system_and_title() -> None:
    lines = (ROOT / "ablations" / "README.md").read_text(encoding="utf-8").splitlines()
    listed = {line.split("`")[1]: line for line in lines if line.startswith("| `")}
    assert set(listed) == set(ALL)
    for name, line in listed.items():
        _, _, system, title, published, _ = (cell.strip() for cell in line.split("|"))
        assert (system, title) == (ALL[name].system, ALL[name].title)
        assert (published == "none") == (not ALL[name].published)


def field_type(model: type[BaseModel], path: str) -> Any:
    """The annotation at a dotted path, by walking the fields of configuration classes."""
    head, _, rest = path.partition(".")
    assert head in model.model_fields, f"{model.__name__} has no field {head!r}"
    annotation = model.model_fields[head].annotation
    return field_type(annotation, rest) if rest else annotation  # type: ignore[arg-type]


def config_field(ablation: Ablation, path: str) -> Any:
    if path.startswith("model."):
        return field_type(type(recipe("tiny", ablation.system).model), path.removeprefix("model."))
    return field_type(Recipe, path)


def settings_of(ablation: Ablation) -> list[tuple[str, Value]]:
    changes = [ablation.baseline, *(level.change for level in ablation.all_levels)]
    return [(path, value) for change in changes for path, value in change.items()]


@pytest.mark.parametrize("ablation", ALL.values(), ids=list(ALL))
def test_every_path_is_a_field_that_takes_the_value(ablation: Ablation) -> None:
    for path, value in settings_of(ablation):
        if path not in PHASES:
            TypeAdapter(config_field(ablation, path)).validate_python(value, strict=isinstance(value, bool | str | int))


@pytest.mark.parametrize("ablation", ALL.values(), ids=list(ALL))
@pytest.mark.parametrize("preset", ["paper", "tiny"])
def test_recipes_change_where_the_file_says_and_nowhere_else(ablation: Ablation, preset: str) -> None:
    made = plan([ablation.name], preset)  # type: ignore[arg-type]
    base = recipe(preset, ablation.system)
    baseline = base.changed(of_recipe(made.baseline))
    assert made.arms
    for level, arm in zip(ablation.levels(preset), made.arms, strict=True):  # type: ignore[arg-type]
        assert set(base.changed(of_recipe(arm.changes)).different(baseline)) == set(of_recipe(level.change))


def of_recipe(changes: Mapping[str, Value]) -> dict[str, Value]:
    return {path: value for path, value in changes.items() if path not in PHASES}


@pytest.mark.parametrize("system", list(PROMISED))
@pytest.mark.parametrize("preset", ["paper", "tiny"])
def test_all_changes_of_a_system_fit_together(system: str, preset: str) -> None:
    """As many at once as do not contradict each other: the joint baseline and every arm are valid recipes."""
    chosen: list[str] = []
    for name in (name for name, ablation in ALL.items() if ablation.system == system):
        try:
            plan([*chosen, name], preset)  # type: ignore[arg-type]
        except UserError:
            continue
        chosen.append(name)
    assert len(chosen) >= 3
    made = plan(chosen, preset)  # type: ignore[arg-type]
    for changes in (made.baseline, *(arm.changes for arm in made.arms)):
        recipe(preset, system).changed(of_recipe(changes))


def cells(effect: Effect) -> tuple[str, str]:
    """The printed figures, read from the file of the reference table by other code than the loader's."""
    path = ROOT / "evalkit" / "reference_data" / f"{effect.source.table}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    where = {header.index(column): cell for column, cell in effect.source.where.items()}
    column = header.index(effect.source.column or effect.metric)
    found = []
    for name in effect.source.rows:
        (row,) = (r for r in rows if r[0] == name and all(r[i] == cell for i, cell in where.items()))
        found.append(row[column])
    return found[0], found[1]


@pytest.mark.parametrize("ablation", [a for a in ALL.values() if a.published], ids=lambda a: a.name)
def test_published_figures_are_those_of_the_reference_tables(ablation: Ablation) -> None:
    for effect in ablation.published:
        before, after = cells(effect)
        assert (effect.baseline, effect.variant) == (float(before), float(after)), effect
        assert effect.citation.startswith(("M4V", "STIV"))


def test_figures_of_one_paper_row_stand_in_the_right_files() -> None:
    """A few figures typed from the papers, so that not everything rests on the tables."""
    by_metric = {effect.metric: effect for effect in find("registers").published}
    assert by_metric["subject_consistency"].delta == pytest.approx(95.41 - 93.28, abs=1e-9)
    assert not by_metric["overall_consistency"].improves
    best = [effect for effect in find("dual-blocks").published if effect.level == "l8"]
    assert {effect.metric: effect.improves for effect in best} == {
        "avg_score": True,
        "tflops_241_frames": False,
        "inference_time_s_241_frames": True,
    }
    total = find("jit-cfg").published[2]
    assert (total.metric, total.baseline, total.variant) == ("total_score", 66.1, 80.7)


def test_a_plan_lays_each_change_over_one_baseline() -> None:
    made = plan(["temp-branch", "registers"])
    assert made.baseline == {
        "model.mamba.registers": False,
        "model.mamba.text": "prefix",
        "model.temporal_branch": False,
    }
    assert [arm.name for arm in made.arms] == ["temp-branch", "registers"]
    assert made.arms[1].changes == made.baseline | {"model.mamba.registers": True}
    assert all(arm.against is None for arm in made.arms)


def test_cumulative_changes_follow_the_paper() -> None:
    made = plan(["temp-branch", "mm-recomposition", "gate", "registers"], cumulative=True)
    assert [arm.name for arm in made.arms] == ["registers", "mm-recomposition", "temp-branch", "gate"]
    assert [arm.against for arm in made.arms] == [None, "registers", "mm-recomposition", "temp-branch"]
    assert made.arms[-1].changes == {
        "model.mamba.registers": True,
        "model.mamba.text": "both",
        "model.temporal_branch": True,
        "model.mamba.gate": "sum",
    }
    assert [arm.effects[0].baseline for arm in made.arms[:1]] == [93.28]


def test_levels_belong_to_presets() -> None:
    assert [arm.name for arm in plan(["dual-blocks"], "paper").arms] == [
        "dual-blocks-l2",
        "dual-blocks-l4",
        "dual-blocks-l8",
    ]
    assert "dual-blocks-l8" not in [arm.name for arm in plan(["dual-blocks"], "tiny").arms]
    (arm,) = plan(["review-tokens"], "tiny").arms
    assert arm.changes == {"model.review_tokens": 2}


@pytest.mark.parametrize(
    ("names", "cumulative", "says"),
    [
        (["regsters"], False, "Did you mean registers"),
        ([], False, "No ablation is named"),
        (["registers", "tesa"], False, "registers changes m4v, tesa changes lingen"),
        (["spatial-pyramid", "corrective-noise"], False, "contradict each other"),
        (["corrective-noise", "spatial-pyramid"], True, "contradict each other"),
        (["registers", "text-recomposition", "mm-recomposition"], True, "changes nothing on top of text-recomposition"),
        (["dual-blocks"], True, "has several levels"),
    ],
)
def test_what_cannot_be_combined_is_refused(names: list[str], cumulative: bool, says: str) -> None:
    with pytest.raises(UserError, match=says):
        plan(names, cumulative=cumulative)


def test_baselines_that_disagree_are_refused() -> None:
    other = find("gate").model_copy(update={"name": "mine", "baseline": {"model.mamba.gate": "sum"}})
    with pytest.raises(UserError, match=r"their baselines set model\.mamba\.gate to 'silu' and 'sum'"):
        combine([find("gate"), other])


GOOD: dict[str, Any] = {
    "name": "mine",
    "title": "my change",
    "system": "m4v",
    "question": "Does it help?",
    "baseline": {"model.qk_norm": False},
    "change": {"model.qk_norm": True},
    "published": [],
    "note": "Nothing is printed.",
}
FIGURE: dict[str, Any] = {
    "metric": "avg_score",
    "baseline": 56.43,
    "variant": 57.01,
    "unit": "percent",
    "source": {"table": "m4v_table6", "rows": ["0", "2"]},
}
LEVEL = {"name": "a", "title": "a", "change": {"model.qk_norm": True}}


def write(folder: Path, **changes: Any) -> Path:
    fields = {key: value for key, value in (GOOD | changes).items() if value is not None}
    (folder / "mine.yaml").write_text(yaml.safe_dump(fields))
    return folder / "mine.yaml"


def test_a_good_file_of_ones_own(tmp_path: Path) -> None:
    ablation = read_ablation(write(tmp_path, published=[FIGURE]))
    assert ablation.published[0].delta == pytest.approx(0.58)
    assert load_all(tmp_path)["mine"] == ablation


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"question": None}, "field question: field required"),
        ({"sytem": "m4v"}, "field sytem: extra inputs"),
        ({"system": "sora"}, "field system: input should be 'm4v'"),
        ({"name": "other"}, "calls itself 'other'"),
        ({"name": "My Change"}, "field name: string should match"),
        ({"baseline": {"modle.qk_norm": False}}, "field baseline.modle.qk_norm: string should match"),
        ({"change": {"model.qk_norm": False}}, "mine leaves model.qk_norm at the baseline's False"),
        ({"change": {"model.causal": False}}, "mine changes model.causal, which `baseline` does not state"),
        ({"change": None}, "give either `change` or `variants`"),
        ({"variants": [LEVEL]}, "give either `change` or `variants`"),
        ({"change": None, "variants": [LEVEL, LEVEL]}, "two variants have the same name"),
        ({"change": None, "variants": [LEVEL | {"presets": ["tiny"]}]}, "no variant is for the preset paper"),
        ({"change": None, "variants": [LEVEL], "published": [FIGURE]}, "names the level None"),
        ({"published": [FIGURE | {"level": "a"}]}, "names the level 'a'"),
        ({"note": None}, "nothing is published: a `note` says so"),
        ({"published": [FIGURE | {"variant": 57.1}]}, "published.0: avg_score is 57.1, and m4v_table6 has 57.01"),
        ({"published": [FIGURE | {"metric": "avg"}]}, "m4v_table6 has no column 'avg'"),
        ({"published": [FIGURE | {"source": {"table": "m4v_table5", "rows": ["0", "2"]}}]}, "Did you mean m4v_table6"),
        ({"published": [FIGURE | {"source": {"table": "m4v_table6", "rows": ["0", "3"]}}]}, "0 rows of m4v_table6"),
        ({"published": [FIGURE | {"source": {"table": "m4v_table6", "rows": [0, 2]}}]}, "published.0.source.rows.0"),
        ({"published": [FIGURE | {"baseline": float("nan")}]}, "published.0.baseline: input should be a finite"),
    ],
)
def test_mistakes_are_named_with_file_and_field(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(UserError) as caught:
        read_ablation(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value) or "Did you mean" in says
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: [", "cannot be read"),
        ("name: a\nname: b\n", "'name' stands twice"),
        ("[1, 2]", "input should be a valid"),
    ],
)
def test_files_that_are_no_ablation(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=says):
        read_ablation(tmp_path / "mine.yaml")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_ablation(tmp_path / "mine.yaml")


def test_contradictions_name_ablations_that_exist(tmp_path: Path) -> None:
    write(tmp_path, contradicts=["registers"])
    with pytest.raises(UserError, match="field contradicts: 'registers' is no other ablation of m4v"):
        load_all(tmp_path)
