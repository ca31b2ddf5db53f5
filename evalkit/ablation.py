"""Ablations: one YAML file each in `ablations/`, saying what a change is, from what baseline, and what the paper found.

A file is data only: recipe paths and values. `plan` turns one or more of them into a baseline and the arms that are
compared with it, and refuses what cannot be combined.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from evalkit.errors import UserError, unknown
from evalkit.reference import TABLES, Row, find_table, number
from evalkit.resources import resource
from evalkit.untrusted import read_text
from evalkit.untrusted.yaml import parse_yaml

System = Literal["m4v", "pyramidflow", "stiv", "lingen"]
Preset = Literal["tiny", "paper"]
Value = StrictBool | StrictInt | FiniteFloat | StrictStr | tuple[StrictInt, ...]
Slug = Annotated[StrictStr, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
RecipePath = Annotated[
    StrictStr, Field(pattern=r"^(init|reward|data|(model|codec|text|flow|sampler|train)(\.[a-z][a-z0-9_]*)+)$")
]
Changes = Mapping[RecipePath, Value]
Sentence = Annotated[StrictStr, Field(min_length=1)]

PHASES = ("init", "reward")
"""Paths that are no field of a recipe but a phase beside the training: `init` is `fresh` or `transplant` (from the
attention pre-training), `reward` the weight of the reward loss in a phase after it, 0 for no such phase."""


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Data):
    """Where a figure is printed: a reference table, the rows of baseline and variant, and the column.

    `rows` are values of the table's key column; `where` narrows them down by another column. `column` is named only
    where it differs from the metric.
    """

    table: StrictStr
    rows: tuple[StrictStr, StrictStr]
    column: StrictStr | None = None
    where: Mapping[StrictStr, StrictStr] = {}


class Effect(_Data):
    """A published effect: one metric without and with the change.

    `level` names the variant where an ablation has several.
    """

    metric: StrictStr
    baseline: FiniteFloat
    variant: FiniteFloat
    unit: Sentence
    better: Literal["higher", "lower"] = "higher"
    source: Source
    level: Slug | None = None

    @property
    def delta(self) -> float:
        """Variant minus baseline, in `unit`."""
        return self.variant - self.baseline

    @property
    def improves(self) -> bool:
        return self.delta > 0 if self.better == "higher" else self.delta < 0

    def rows(self) -> tuple[Row, Row]:
        """The rows of the reference table that hold baseline and variant.

        Raises:
            UserError: no such table.
            ValueError: no such column, or a row that is not there exactly once.
        """
        table = find_table(self.source.table)
        for column in (self.column, *self.source.where):
            if column not in table.columns:
                raise ValueError(f"{table.name} has no column {column!r}")
        first, second = (self._row(table.rows(), table.key, name) for name in self.source.rows)
        return first, second

    @property
    def column(self) -> str:
        return self.source.column or self.metric

    @property
    def citation(self) -> str:
        """The paper and table, as the reference table names them."""
        return "; ".join(dict.fromkeys(row["source"] for row in self.rows()))

    def _row(self, rows: Sequence[Row], key: str, name: str) -> Row:
        wanted = {key: name, **self.source.where}
        found = [row for row in rows if all(row[column] == cell for column, cell in wanted.items())]
        if len(found) != 1:
            raise ValueError(f"{len(found)} rows of {self.source.table} are {wanted}, not one")
        return found[0]


class Level(_Data):
    """One variant: what it changes. `presets` says where it makes sense (a tiny model has fewer blocks)."""

    name: Slug
    title: Sentence
    change: Changes = Field(min_length=1)
    presets: tuple[Preset, ...] = Field(default=("tiny", "paper"), min_length=1)


class Ablation(_Data):
    """One ablation.

    Args:
        name: what the command line calls it, and its file's name.
        title: the change in a few words.
        system: whose recipe it changes.
        question: what it answers, one sentence.
        baseline: recipe paths and the values they have without the change.
        change: recipe paths and the values that make the change; each differs from the baseline.
        variants: instead of `change`, where there is more than one level.
        order: place in the paper's sequence, for adding changes one on another.
        published: what the paper found; empty where it printed no figure.
        note: what a reader of the figures must know, or what the paper says where it prints none.
        contradicts: names of ablations of the same system that it cannot be combined with.
    """

    name: Slug
    title: Sentence
    system: System
    question: Sentence
    baseline: Changes = Field(min_length=1)
    change: Changes | None = None
    variants: tuple[Level, ...] = ()
    order: StrictInt | None = None
    published: tuple[Effect, ...]
    note: StrictStr = ""
    contradicts: tuple[Slug, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.change is None) == (not self.variants):
            raise ValueError("give either `change` or `variants`")
        names = [level.name for level in self.variants]
        if len(set(names)) < len(names):
            raise ValueError("two variants have the same name")
        if not self.published and not self.note:
            raise ValueError("nothing is published: a `note` says so")
        for level in self.all_levels:
            _check_changes(self.baseline, level)
        for preset in get_args(Preset):
            if not self.levels(preset):
                raise ValueError(f"no variant is for the preset {preset}")
        for effect in self.published:
            if (effect.level is None) == bool(self.variants) or effect.level not in (None, *names):
                raise ValueError(f"the published {effect.metric} names the level {effect.level!r}, not one of {names}")
        return self

    @property
    def all_levels(self) -> tuple[Level, ...]:
        """Its variants; a single change is one level called like the ablation."""
        if self.change is None:
            return self.variants
        return (Level(name=self.name, title=self.title, change=self.change),)

    def levels(self, preset: Preset) -> tuple[Level, ...]:
        """The variants that make sense at a preset."""
        return tuple(level for level in self.all_levels if preset in level.presets)

    def effects(self, level: str) -> tuple[Effect, ...]:
        """What is published on one of its levels."""
        return tuple(effect for effect in self.published if (effect.level or self.name) == level)


def _check_changes(baseline: Mapping[str, Value], level: Level) -> None:
    for path, value in level.change.items():
        if path not in baseline:
            raise ValueError(f"{level.name} changes {path}, which `baseline` does not state")
        if baseline[path] == value:
            raise ValueError(f"{level.name} leaves {path} at the baseline's {value!r}")


def read_ablation(path: Path) -> Ablation:
    """Read and validate one file.

    Raises:
        UserError: the file is unreadable, is not YAML, or one of its fields is wrong; the message names both.
    """
    data = parse_yaml(read_text(path, _HOW, LARGEST), f"The ablation {path}", _HOW)
    try:
        ablation = Ablation.model_validate(data)
    except ValidationError as e:
        raise _broken(path, e) from None
    if ablation.name != path.stem:
        raise UserError(f"The ablation {path} calls itself {ablation.name!r}.", "Give the file and `name` one name.")
    for index, effect in enumerate(ablation.published):
        _check_figures(path, index, effect)
    return ablation


LARGEST = 2**18
"""Bytes of a file; the longest that ships has some thousands."""
_HOW = "See ablations/README.md for the fields of an ablation."


def _broken(path: Path, error: ValidationError) -> UserError:
    first, *more = error.errors()
    field = ".".join(str(part) for part in first["loc"] if part != "[key]")
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    rest = f" (and {len(more)} more)" if more else ""
    return UserError(f"The ablation {path}{f', field {field}' if field else ''}: {message}{rest}.", _HOW)


def _check_figures(path: Path, index: int, effect: Effect) -> None:
    """Hold a published figure against the reference table that it cites."""
    where = f"The ablation {path}, field published.{index}"
    if effect.source.table not in TABLES:
        error = unknown("reference table", effect.source.table, TABLES)
        raise UserError(f"{where}: {error.what}", error.remedy)
    try:
        rows = effect.rows()
    except ValueError as e:
        raise UserError(f"{where}: {e}.", "Name a row and a column of the table it cites.") from None
    for row, figure in zip(rows, (effect.baseline, effect.variant), strict=True):
        if number(row[effect.column]) != figure:
            cell = row[effect.column] or "nothing"
            raise UserError(
                f"{where}: {effect.metric} is {figure}, and {effect.source.table} has {cell}.",
                "Write the figure as it is printed.",
            )


@cache
def load_all(folder: Path | None = None) -> Mapping[str, Ablation]:
    """All ablations of a folder (by default those that travel with the package), by name.

    Raises:
        UserError: a file is broken, or contradicts an ablation that is not there or is of another system.
    """
    folder = folder or resource("ablations")
    found = {path.stem: read_ablation(path) for path in sorted(folder.glob("*.yaml"))}
    for ablation in found.values():
        for name in ablation.contradicts:
            if name not in found or name == ablation.name or found[name].system != ablation.system:
                raise UserError(
                    f"The ablation {folder / ablation.name}.yaml, field contradicts: {name!r} is no other ablation of"
                    f" {ablation.system}.",
                    "Name only ablations that it could otherwise be combined with.",
                )
    return found


def find(name: str) -> Ablation:
    """Look an ablation up.

    Raises:
        UserError: no such ablation; names the nearest ones.
    """
    if name not in load_all():
        raise unknown("ablation", name, load_all())
    return load_all()[name]


@dataclass(frozen=True, slots=True)
class Arm:
    """One training run beside the baseline: the changes that are laid over the recipe, and what is published of it.

    `against` is the name of the arm that it is compared with; None is the baseline.
    """

    name: str
    title: str
    changes: Mapping[str, Value]
    ablation: Ablation
    effects: tuple[Effect, ...]
    against: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is trained: changes that make the baseline, and the arms. All changes are laid over one system's recipe."""

    system: System
    baseline: Mapping[str, Value]
    arms: tuple[Arm, ...]


def plan(names: Iterable[str], preset: Preset = "tiny", *, cumulative: bool = False) -> Plan:
    """Combine ablations: their baselines together, and each change alone or, if cumulative, one on another.

    Cumulative changes are added in the paper's order; those without one follow in the order given.

    Raises:
        UserError: no name, an unknown one, or ablations that cannot be combined; the message says why.
    """
    return combine([find(name) for name in dict.fromkeys(names)], preset, cumulative=cumulative)


def combine(ablations: Sequence[Ablation], preset: Preset = "tiny", *, cumulative: bool = False) -> Plan:
    """`plan` for ablations at hand."""
    if not ablations:
        raise UserError("No ablation is named.", f"Choose from: {', '.join(sorted(load_all()))}.")
    for a, b in combinations(ablations, 2):
        _check_pair(a, b)
    baseline = {path: value for ablation in ablations for path, value in ablation.baseline.items()}
    arms = _stacked(ablations, baseline, preset) if cumulative else _apart(ablations, baseline, preset)
    return Plan(ablations[0].system, baseline, arms)


def _check_pair(a: Ablation, b: Ablation) -> None:
    if a.system != b.system:
        raise _contradiction(a, b, f"{a.name} changes {a.system}, {b.name} changes {b.system}")
    if b.name in a.contradicts or a.name in b.contradicts:
        raise _contradiction(a, b, "without the one, the other has nothing to act on")
    for path in a.baseline.keys() & b.baseline.keys():
        if a.baseline[path] != b.baseline[path]:
            values = f"{a.baseline[path]!r} and {b.baseline[path]!r}"
            raise _contradiction(a, b, f"their baselines set {path} to {values}")


def _contradiction(a: Ablation, b: Ablation, why: str) -> UserError:
    return UserError(f"{a.name} and {b.name} contradict each other: {why}.", "Run them one after the other.")


def _apart(ablations: Sequence[Ablation], baseline: Mapping[str, Value], preset: Preset) -> tuple[Arm, ...]:
    return tuple(
        Arm(
            _arm_name(ablation, level),
            level.title,
            {**baseline, **level.change},
            ablation,
            ablation.effects(level.name),
        )
        for ablation in ablations
        for level in ablation.levels(preset)
    )


def _arm_name(ablation: Ablation, level: Level) -> str:
    return ablation.name if level.name == ablation.name else f"{ablation.name}-{level.name}"


def _stacked(ablations: Sequence[Ablation], baseline: Mapping[str, Value], preset: Preset) -> tuple[Arm, ...]:
    arms: list[Arm] = []
    changes, below = dict(baseline), "the baseline"
    for ablation in sorted(ablations, key=lambda a: (a.order is None, a.order or 0)):
        level = _only_level(ablation, preset)
        added = {**changes, **level.change}
        if added == changes:
            raise UserError(
                f"{ablation.name} changes nothing on top of {below}.", "Leave it out, or leave out --cumulative."
            )
        arms.append(
            Arm(
                ablation.name,
                f"+ {level.title}",
                added,
                ablation,
                ablation.effects(level.name),
                against=arms[-1].name if arms else None,
            )
        )
        changes, below = added, ablation.name
    return tuple(arms)


def _only_level(ablation: Ablation, preset: Preset) -> Level:
    levels = ablation.levels(preset)
    if len(levels) > 1:
        raise UserError(
            f"{ablation.name} has several levels ({', '.join(level.name for level in levels)}), and --cumulative adds"
            " one change at a time.",
            f"Leave out {ablation.name}, or leave out --cumulative.",
        )
    return levels[0]
