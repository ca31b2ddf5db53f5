"""Do published tables agree with themselves? Every headline figure recomputed from the figures it is made of.

All headline figures here are linear in their parts, so one engine serves them all: an `Identity` says how a figure
follows from others in its row. A row contradicts itself when the recomputed figure is further from the printed one
than rounding can explain: half a unit in the last printed place of every part, times the size of its coefficient,
plus half a unit of the figure itself (the worst case, so an honest table is never accused).
"""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from evalkit.reference import TABLES, Row, half_unit, number
from evalkit.scoring import BOUNDS, LINGEN_QUALITY6, M4V_AVG4, QUALITY, QUALITY_WEIGHT, SEMANTIC, SEMANTIC_WEIGHT

AUDIT_SCHEMA = "m4v-eval/reference-audit/1"
TOLERANCE_RULE = (
    "A row contradicts itself when printed and recomputed differ by more than rounding can explain: half a unit in the"
    " last printed place of each part times its coefficient, plus half a unit of the printed figure."
)
_SLACK = 1e-9  # floating-point rounding of decimal fractions
_SHOWN_REPAIRS = 2


@dataclass(frozen=True, slots=True)
class Identity:
    """A printed figure as a linear function of others: constant + sum(coefficient x part).

    Args:
        quantity: what is recomputed, and from what.
        target: the printed column; or `fixed`, for a figure that must have a known value.
        coefficients: of each part.
        constant: added to them.
        fixed: the value itself, where it is known rather than printed.
        floor: the smallest value a part can have.
        ceiling: the largest value a part can have.
    """

    quantity: str
    target: str
    coefficients: Mapping[str, float]
    constant: float = 0.0
    fixed: float | None = None
    floor: float = 0.0
    ceiling: float = 100.0

    def evaluate(self, parts: Mapping[str, float]) -> float:
        return self.constant + math.fsum(c * parts[name] for name, c in self.coefficients.items())


@dataclass(frozen=True, slots=True)
class Check:
    """One figure of one row, recomputed.

    Args:
        table: its name.
        row: label of the row.
        source: where it was printed.
        quantity: what was recomputed.
        printed: as printed.
        recomputed: from its parts; None if one of them was not published.
        tolerance: the largest difference that rounding explains.
        missing: parts that were not published.
        diagnosis: what could have gone wrong, most telling first; empty unless the row contradicts itself.
    """

    table: str
    row: str
    source: str
    quantity: str
    printed: float
    recomputed: float | None
    tolerance: float
    missing: tuple[str, ...] = ()
    diagnosis: tuple[str, ...] = ()

    @property
    def difference(self) -> float | None:
        """Recomputed minus printed."""
        return None if self.recomputed is None else self.recomputed - self.printed

    @property
    def contradicts(self) -> bool:
        return self.difference is not None and abs(self.difference) > self.tolerance

    @property
    def verdict(self) -> str:
        if self.recomputed is None:
            return "not recomputable"
        return "contradicts" if self.contradicts else "agrees"


@dataclass(frozen=True, slots=True)
class Observation:
    """Something about a whole table rather than one figure."""

    table: str
    text: str


@dataclass(frozen=True, slots=True)
class Audit:
    checks: tuple[Check, ...]
    observations: tuple[Observation, ...]

    @property
    def contradictions(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.contradicts)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": AUDIT_SCHEMA,
            "tolerance_rule": TOLERANCE_RULE,
            "checks": [
                asdict(check) | {"difference": check.difference, "verdict": check.verdict} for check in self.checks
            ],
            "observations": [asdict(observation) for observation in self.observations],
            "user_study": [asdict(preference) | {"win_rate": preference.win_rate} for preference in user_study()],
        }


@dataclass(frozen=True, slots=True)
class _Subject:
    """Rows to check, the identities they must obey, and which printed columns share a precision."""

    table: str
    key: str
    rows: tuple[Row, ...]
    identities: tuple[Identity, ...]

    def half_units(self, source: str) -> dict[str, float]:
        peers = [row for row in self.rows if row["source"] == source]
        return {column: half_unit(row[column] for row in peers) for column in self.rows[0]}


# ---- what each headline figure is made of ----------------------------------------------------------------------------


def _normalised(quantity: str, target: str, dimensions: Sequence[str]) -> Identity:
    """VBench's weighted mean of normalised dimensions; figures in percent."""
    weight = sum(BOUNDS[name].weight for name in dimensions)
    slopes = {name: BOUNDS[name].weight / weight / (BOUNDS[name].high - BOUNDS[name].low) for name in dimensions}
    return Identity(quantity, target, slopes, -100.0 * sum(c * BOUNDS[name].low for name, c in slopes.items()))


def _mean(quantity: str, target: str, parts: Sequence[str]) -> Identity:
    return Identity(quantity, target, dict.fromkeys(parts, 1.0 / len(parts)))


def _combined(quantity: str, target: str, a: Identity, share_a: float, b: Identity, share_b: float) -> Identity:
    """A weighted mean of two figures that are themselves made of (different) parts."""
    slopes = {name: share_a * c for name, c in a.coefficients.items()}
    slopes |= {name: share_b * c for name, c in b.coefficients.items()}
    return Identity(quantity, target, slopes, share_a * a.constant + share_b * b.constant)


_SHARE_Q = QUALITY_WEIGHT / (QUALITY_WEIGHT + SEMANTIC_WEIGHT)
_SHARE_S = SEMANTIC_WEIGHT / (QUALITY_WEIGHT + SEMANTIC_WEIGHT)


def _t2v_total(quality: str, semantic: str, total: str) -> Identity:
    return Identity("total from printed parts", total, {quality: _SHARE_Q, semantic: _SHARE_S})


_T2V_QUALITY = _normalised("quality", "quality_score", QUALITY)
_T2V_SEMANTIC = _normalised("semantic", "semantic_score", SEMANTIC)
T2V = (
    _T2V_QUALITY,
    _T2V_SEMANTIC,
    _combined("total", "total_score", _T2V_QUALITY, _SHARE_Q, _T2V_SEMANTIC, _SHARE_S),
    _t2v_total("quality_score", "semantic_score", "total_score"),
    _mean("mean of 16", "averaged_score", (*QUALITY, *SEMANTIC)),
)

# The official image-to-video script weighs camera motion and leaves flickering out; the published table follows the
# formulas below instead. VBench-I2V normalises its two dimensions with the bounds of their text-to-video namesakes.
_I2V_PARTS = {"i2v_subject": "subject_consistency", "i2v_background": "background_consistency"}
_I2V_SLOPES = {part: 0.5 / (1.0 - BOUNDS[name].low) for part, name in _I2V_PARTS.items()}
_I2V_CONSTANT = -100.0 * sum(_I2V_SLOPES[part] * BOUNDS[name].low for part, name in _I2V_PARTS.items())
_I2V_SCORE = Identity("i2v score", "i2v_score", _I2V_SLOPES, _I2V_CONSTANT)
I2V = (
    _T2V_QUALITY,
    _I2V_SCORE,
    _combined("total", "total_score", _T2V_QUALITY, 0.5, _I2V_SCORE, 0.5),
    Identity("total from printed parts", "total_score", {"i2v_score": 0.5, "quality_score": 0.5}),
    _mean("i2v average", "i2v_avg_score", ("i2v_subject", "i2v_background", "camera_motion")),
    _mean("average", "avg_score", ("i2v_subject", "i2v_background", "camera_motion", *QUALITY)),
)

_EVALCRAFTER_PARTS = ("visual_quality", "text_video_alignment", "motion_quality", "temporal_consistency")
_STAGES = ("stage1", "stage2", "stage3", "stage4")
_HALVED = 2.0  # the M4V study prints ranks divided by this


def _subjects() -> Iterator[_Subject]:
    yield _plain("vbench_t2v", T2V, _joined("vbench_t2v", "vbench_t2v_extra", ("averaged_score",)))
    yield _plain("vbench_i2v", I2V, _i2v_rows())
    yield _plain("vbench_custom", (_normalised("LinGen quality", "quality_score", LINGEN_QUALITY6),))
    yield _plain("m4v_ablation_averages", (_mean("mean of 4", "avg_score", M4V_AVG4),))
    yield _plain("m4v_reward_ablation", (_t2v_total("quality_score", "semantic_score", "total_score"),))
    yield _plain(
        "evalcrafter",
        (Identity("sum of 4", "final_sum_score", dict.fromkeys(_EVALCRAFTER_PARTS, 1.0)),),
    )
    yield _plain("stiv_flops", (Identity("sum of stages", "total", dict.fromkeys(_STAGES, 1.0)),), _flops_rows())
    stiv_total = _t2v_total("vbench_quality", "vbench_semantic", "vbench_total")
    stiv_i2v = Identity(
        "i2v total from printed parts", "vbench_i2v_total", {"vbench_i2v_i2v_score": 0.5, "vbench_i2v_quality": 0.5}
    )
    for number_ in ("03", "04", "06", "08", "10"):
        yield _plain(f"stiv_tables/table{number_}", (stiv_total, *([stiv_i2v] if number_ == "06" else [])))
    yield _plain("stiv_tables/table18", (_mean("average", "average", ("physical_commonsense", "semantic_adherence")),))
    yield _user_study_subject()


def _plain(name: str, identities: tuple[Identity, ...], rows: tuple[Row, ...] | None = None) -> _Subject:
    table = TABLES[name]
    return _Subject(name, table.key, rows or table.rows(), identities)


def _joined(name: str, other: str, columns: tuple[str, ...]) -> tuple[Row, ...]:
    """Rows of a table with columns that were printed for the same model in the same place, but are kept elsewhere."""
    more = {(row["model"], row["source"]): row for row in TABLES[other].rows()}
    empty = dict.fromkeys(columns, "")
    return tuple(
        {**row, **{c: more.get((row["model"], row["source"]), empty)[c] for c in columns}}
        for row in TABLES[name].rows()
    )


def _i2v_rows() -> tuple[Row, ...]:
    """STIV prints dimensions in Table 13 and the i2v score of the same models in Table 9."""
    rows = TABLES["vbench_i2v"].rows()
    scores = {row["model"]: row["i2v_score"] for row in rows if row["i2v_score"]}
    return tuple(
        {**row, "i2v_score": scores.get(row["model"], "")} if row["quality_score"] and not row["i2v_score"] else row
        for row in rows
    )


def _flops_rows() -> tuple[Row, ...]:
    """A recipe with fewer stages spent nothing on the others."""
    return tuple({**row, **{s: row[s] or "0" for s in _STAGES}} for row in TABLES["stiv_flops"].rows())


def _user_study_subject() -> _Subject:
    return _rank_subject("user_study_m4v", TABLES["user_study_m4v"].rows(), _HALVED)


def _rank_subject(table: str, rows: Sequence[Row], scale: float) -> _Subject:
    """One row a prompt and question, one column a model; the ranks 1 to M of a row, divided by the scale, sum to
    M (M + 1) / 2 / scale."""
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        group = groups.setdefault((row["prompt_id"], row["axis"]), {"source": row["source"]})
        group[row["model"]] = row["mean_rank"]
    models = dict.fromkeys(row["model"] for row in rows)
    questions = tuple(
        {"question": f"prompt {prompt}, {axis}", "axis": axis, **group} for (prompt, axis), group in groups.items()
    )
    m = len(models)
    what = {1.0: "sum of ranks", _HALVED: "sum of halved ranks"}.get(scale, f"sum of ranks divided by {scale:g}")
    identity = Identity(
        what, "", dict.fromkeys(models, 1.0), fixed=m * (m + 1) / 2 / scale, floor=1 / scale, ceiling=m / scale
    )
    return _Subject(table, "question", questions, (identity,))


# ---- checking --------------------------------------------------------------------------------------------------------


def audit() -> Audit:
    """Recompute every headline figure of the published tables."""
    subjects = tuple(_subjects())
    corpus = tuple((subject, row) for subject in subjects for row in subject.rows)
    checks = [check for subject in subjects for check in _check_subject(subject, corpus)]
    return Audit((*checks, *_permuted_checks()), (*_permutation(), *_straight_lines()))


_Corpus = Sequence[tuple[_Subject, Row]]


def _check_subject(subject: _Subject, corpus: _Corpus) -> Iterator[Check]:
    half_units = {source: subject.half_units(source) for source in {row["source"] for row in subject.rows}}
    for row in subject.rows:
        for identity in subject.identities:
            if identity.fixed is not None or row.get(identity.target):
                check = _check(subject, identity, row, half_units[row["source"]])
                yield _diagnosed(check, identity, row, subject, corpus) if check.contradicts else check


def _check(subject: _Subject, identity: Identity, row: Row, half_units: Mapping[str, float]) -> Check:
    printed = identity.fixed if identity.fixed is not None else float(row[identity.target])
    parts = {name: number(row[name]) for name in identity.coefficients}
    known = {name: x for name, x in parts.items() if x is not None}
    missing = tuple(name for name in parts if name not in known)
    tolerance = sum(abs(c) * half_units[name] for name, c in identity.coefficients.items())
    tolerance += half_units.get(identity.target, 0.0) + _SLACK
    recomputed = None if missing else identity.evaluate(known)
    return Check(
        subject.table, row[subject.key], row["source"], identity.quantity, printed, recomputed, tolerance, missing
    )


# ---- diagnosis -------------------------------------------------------------------------------------------------------


def _diagnosed(check: Check, identity: Identity, row: Row, subject: _Subject, corpus: _Corpus) -> Check:
    judged = _judged_by_others(check, identity, row, subject)
    outside = _outside(check, identity, row)
    score_is_wrong = outside or any(wrong for wrong, _ in judged)
    found = (
        *(text for _, text in judged),
        *outside,
        *_independent(identity, row, subject),
        *_copies(identity, row, corpus),
        *([] if score_is_wrong else _repair_lines(check, identity, row, subject, corpus)),
    )
    return replace(check, diagnosis=found)


def _judged_by_others(check: Check, identity: Identity, row: Row, subject: _Subject) -> list[tuple[bool, str]]:
    """Does a figure made from this one take the side of the printed or of the recomputed value?

    Returns:
        For each such figure: whether it says that the printed value is wrong, and in words.
    """
    half_units = subject.half_units(row["source"])
    found = []
    for other in subject.identities:
        if identity.target not in other.coefficients or not row.get(other.target):
            continue
        as_printed = _check(subject, other, row, half_units).contradicts
        as_recomputed = _check(subject, other, {**row, identity.target: f"{check.recomputed:.6f}"}, half_units)
        if as_printed and not as_recomputed.contradicts:
            found.append((True, f"{other.target} fits the recomputed {check.quantity}: the printed one is wrong"))
        elif as_recomputed.contradicts and not as_printed:
            found.append((False, f"{other.target} fits the printed {check.quantity}: a part of it is wrong"))
    return found


def _independent(identity: Identity, row: Row, subject: _Subject) -> Iterator[str]:
    """Another figure of the row that contradicts its own, other parts: then one misprint is not enough."""
    half_units = subject.half_units(row["source"])
    for other in subject.identities:
        if other.coefficients.keys() & identity.coefficients.keys() or identity.target in other.coefficients:
            continue
        printed = row.get(other.target) and other.target not in identity.coefficients
        if printed and _check(subject, other, row, half_units).contradicts:
            yield f"{other.quantity} contradicts its parts too, and shares none: more than one figure is wrong"


def _copies(identity: Identity, row: Row, corpus: _Corpus) -> Iterator[str]:
    """Another model's row with the same parts, wherever it was printed."""
    for label in dict.fromkeys(
        f"{', '.join(shared)} are those of {other['model']} ({other['source']})"
        for _, other in corpus
        if not _same_model(row, other) and (shared := _shared_figures(identity, row, other))
    ):
        yield f"{label}: a copy, or one model under two names"


def _shared_figures(identity: Identity, row: Row, other: Row) -> list[str]:
    """The parts that both rows print, if they are enough to tell and all the same; else nothing."""
    both = [name for name in identity.coefficients if "model" in row and row[name] and other.get(name)]
    enough = len(both) >= min(len(identity.coefficients), 5)
    return both if enough and all(_same_figure(row[name], other[name]) for name in both) else []


def _same_model(row: Row, other: Row) -> bool:
    return "model" in row and "model" in other and alias(other["model"]) == alias(row["model"])


def _same_figure(a: str, b: str) -> bool:
    """Equal after rounding to the coarser of the two."""
    return abs(float(a) - float(b)) <= max(half_unit([a]), half_unit([b])) + _SLACK


def _outside(check: Check, identity: Identity, row: Row) -> list[str]:
    """A weighted mean lies between its parts."""
    mean_like = identity.constant == 0.0 and math.isclose(sum(identity.coefficients.values()), 1.0)
    parts = [float(row[name]) for name in identity.coefficients]
    if mean_like and not min(parts) - check.tolerance <= check.printed <= max(parts) + check.tolerance:
        return [f"{check.printed:g} lies outside its parts, so it is no mean of them: probably another quantity"]
    return []


@dataclass(frozen=True, slots=True)
class Repair:
    """One part, changed so that the printed figure comes out.

    Args:
        column: the part.
        printed: its cell.
        needed: the value that restores the row.
        evidence: why this part rather than another; empty if nothing says so.
        rank: kind of evidence, the most telling first, then by how many standard deviations of its column the value
            becomes more unusual (negative: more usual).
    """

    column: str
    printed: str
    needed: float
    evidence: str
    rank: tuple[int, float]

    def __str__(self) -> str:
        return f"{self.column} {self.printed} -> {self.needed:.4g} would restore it{self.evidence}"


def _repairs(check: Check, identity: Identity, row: Row, subject: _Subject, corpus: _Corpus) -> list[Repair]:
    """The single misprints that would explain the row, the best supported first."""
    found = (_repair(column, check, identity, row, subject, corpus) for column in identity.coefficients)
    return sorted((repair for repair in found if repair is not None), key=lambda repair: repair.rank)


def _repair_lines(check: Check, identity: Identity, row: Row, subject: _Subject, corpus: _Corpus) -> list[str]:
    repairs = _repairs(check, identity, row, subject, corpus)
    if not repairs:
        return ["no single part can explain it"]
    shown = [repair for repair in repairs if repair.evidence][:_SHOWN_REPAIRS] or repairs[:1]
    others = len(repairs) - len(shown)
    return [
        *map(str, shown),
        *([f"a misprint in {others} other part{'s' * (others > 1)} could do so too"] * (others > 0)),
    ]


def _repair(
    column: str, check: Check, identity: Identity, row: Row, subject: _Subject, corpus: _Corpus
) -> Repair | None:
    slope = identity.coefficients[column]
    printed = row[column]
    needed = float(printed) - (check.difference or 0.0) / slope
    reach = check.tolerance / abs(slope)
    if not identity.floor - reach <= needed <= identity.ceiling + reach:
        return None
    needed = min(max(needed, identity.floor), identity.ceiling)
    close = min(reach, half_unit([printed]) + _SLACK)
    surprise = _surprise(column, needed, row, subject) - _surprise(column, float(printed), row, subject)
    for rank, evidence in enumerate(
        (
            _printed_elsewhere(column, needed, reach, row, corpus),
            _decimal_point(printed, needed, reach),
            _doubled(column, row, identity),
            f"; one digit differs ({digit})" if (digit := one_digit(printed, needed, close)) else "",
        )
    ):
        if evidence:
            return Repair(column, printed, needed, evidence, (rank, surprise))
    return Repair(column, printed, needed, "", (9, surprise))


def _surprise(column: str, x: float, row: Row, subject: _Subject) -> float:
    """How many standard deviations a value lies from the rest of its column (same question, in the user study)."""
    rest = [
        float(other[column])
        for other in subject.rows
        if other.get(column) and other is not row and other.get("axis") == row.get("axis")
    ]
    spread = statistics.pstdev(rest) if len(rest) > 1 else 0.0
    return abs(x - statistics.fmean(rest)) / spread if spread else 0.0


def _printed_elsewhere(column: str, needed: float, reach: float, row: Row, corpus: _Corpus) -> str:
    for _, other in corpus:
        cell = other.get(column, "")
        elsewhere = _same_model(row, other) and other["source"] != row["source"]
        if elsewhere and cell and not _same_figure(cell, row[column]) and abs(float(cell) - needed) <= reach:
            return f"; {other['source']} prints {cell}"
    return ""


def _decimal_point(printed: str, needed: float, reach: float) -> str:
    fits = [factor for factor in (0.01, 0.1, 10.0, 100.0) if abs(float(printed) * factor - needed) <= reach]
    return f"; the decimal point may have slipped ({float(printed) * fits[0]:g})" if fits else ""


def _doubled(column: str, row: Row, identity: Identity) -> str:
    twins = [name for name in identity.coefficients if name != column and row[name] == row[column]]
    return f"; it repeats {twins[0]} of the same row" if twins and len(identity.coefficients) > 2 else ""


def one_digit(printed: str, needed: float, reach: float) -> str | None:
    """The cell with one digit changed so that it is what is needed, within `reach`; None if one is not enough."""
    candidates = (
        printed[:i] + digit + printed[i + 1 :]
        for i, old in enumerate(printed)
        if old.isdigit()
        for digit in "0123456789"
        if digit != old
    )
    nearest = min(candidates, key=lambda candidate: abs(float(candidate) - needed), default=None)
    return nearest if nearest is not None and abs(float(nearest) - needed) <= reach else None


def alias(model: str) -> str:
    """A model's name without spelling variants: `Open-Sora 1.2` and `OpenSora V1.2` are one."""
    plain = re.sub(r"\.0\b", "", model.lower())
    return re.sub(r"v(?=\d)", "", re.sub(r"[^a-z0-9.]", "", plain))


# ---- whole tables ----------------------------------------------------------------------------------------------------

# LinGen's headings, and the dimension each one names.
LINGEN_HEADINGS = {
    "subject_consist": "subject_consistency",
    "bg_consis": "background_consistency",
    "temp_flick": "temporal_flickering",
    "motion_smooth": "motion_smoothness",
    "aesthe_quality": "aesthetic_quality",
    "imag_quality": "imaging_quality",
    "dyna_degree": "dynamic_degree",
}


def _as_headed() -> _Subject:
    slopes = {heading: _T2V_QUALITY.coefficients[name] for heading, name in LINGEN_HEADINGS.items()}
    identity = replace(_T2V_QUALITY, quantity="quality as headed", coefficients=slopes)
    return _plain("lingen_as_printed", (identity,))


def _permuted_checks() -> Iterator[Check]:
    subject = _as_headed()
    hint = ("see the note on the order of the headings",) if list(_permutation()) else ()
    for check in _check_subject(subject, ()):
        yield replace(check, diagnosis=hint) if check.contradicts and hint else check


def _permutation() -> Iterator[Observation]:
    """Try every assignment of dimensions to columns; say what all assignments that fit every row agree on."""
    subject = _as_headed()
    (identity,) = subject.identities
    headings, names = tuple(LINGEN_HEADINGS), tuple(LINGEN_HEADINGS.values())
    x_RC = np.array([[float(row[h]) for h in headings] for row in subject.rows])
    printed_R = np.array([float(row[identity.target]) for row in subject.rows])
    orders = list(itertools.permutations(range(len(names))))
    slopes = np.array([_T2V_QUALITY.coefficients[name] for name in names])
    recomputed_RP = identity.constant + x_RC @ slopes[np.array(orders)].T
    half = half_unit(row[h] for row in subject.rows for h in headings)
    tolerance = half * slopes.sum() + half_unit(row[identity.target] for row in subject.rows) + _SLACK
    fits_P = (np.abs(recomputed_RP - printed_R[:, None]) <= tolerance).all(axis=0)
    fitting = [orders[i] for i in np.flatnonzero(fits_P)]
    if fits_P[orders.index(tuple(range(len(names))))] or not fitting:
        return
    moved = [(c, sorted({names[order[c]] for order in fitting})) for c in range(len(names))]
    said = [f"{headings[c]} holds {' or '.join(held)}" for c, held in moved if held != [LINGEN_HEADINGS[headings[c]]]]
    yield Observation(
        subject.table,
        f"the headings are permuted: {len(fitting)} of {len(orders)} orders reproduce the quality of all"
        f" {len(x_RC)} rows, the printed order is not among them, and in all of them {'; '.join(said)}",
    )


def _straight_lines() -> Iterator[Observation]:
    """Measured columns do not lie exactly on a line in L; interpolated ones do."""
    rows = TABLES["m4v_table6"].rows()
    l_R = [float(row["l"]) for row in rows]
    for column in ("tflops_241_frames", "inference_time_s_241_frames", "avg_score"):
        y_R = [float(row[column]) for row in rows]
        slope = (y_R[-1] - y_R[0]) / (l_R[-1] - l_R[0])
        worst = max(abs(y - y_R[0] - slope * (x - l_R[0])) for x, y in zip(l_R, y_R, strict=True))
        if worst <= 2 * half_unit(row[column] for row in rows) + _SLACK:
            yield Observation(
                "m4v_table6",
                f"{column} is exactly linear in L: all {len(rows)} rows lie on {y_R[0]:g} {slope:+g} L"
                f" (largest deviation {worst:.3f}), so they were probably computed or interpolated, not measured",
            )


# ---- mean ranks ------------------------------------------------------------------------------------------------------

MOST_REPAIRED = 50
"""Rows of ranks that are searched for misprints."""


@dataclass(frozen=True, slots=True)
class RankRow:
    """The mean ranks of all models for one prompt and question.

    Args:
        prompt_id: the prompt.
        axis: the question.
        ranks: as printed, by model.
        check: of their sum.
        repairs: single misprints that would explain a sum that contradicts itself, the best supported first.
    """

    prompt_id: str
    axis: str
    ranks: Mapping[str, str]
    check: Check
    repairs: tuple[Repair, ...]


def check_ranks(table: str, rows: Sequence[Row], scale: float) -> tuple[RankRow, ...]:
    """Check that the ranks of each prompt and question sum as the ranks of all models must.

    Args:
        table: its name.
        rows: with `prompt_id`, `axis`, `model`, `mean_rank` and `source`; every model for each prompt and question.
        scale: what ranks were divided by: 1, or 2 for halved ranks.

    Returns:
        A row for each prompt and question; where more than `MOST_REPAIRED` contradict themselves, none has repairs:
        what is usual in a column cannot be told from such a table.
    """
    subject = _rank_subject(table, rows, scale)
    (identity,) = subject.identities
    questions = dict.fromkeys((row["prompt_id"], row["axis"]) for row in rows)
    half_units = {source: subject.half_units(source) for source in {row["source"] for row in subject.rows}}
    checks = [_check(subject, identity, row, half_units[row["source"]]) for row in subject.rows]
    repairable = sum(check.contradicts for check in checks) <= MOST_REPAIRED
    found = []
    for (prompt_id, axis), row, check in zip(questions, subject.rows, checks, strict=True):
        repairs = _repairs(check, identity, row, subject, ()) if check.contradicts and repairable else []
        ranks = {model: row[model] for model in identity.coefficients}
        found.append(RankRow(prompt_id, axis, ranks, check, tuple(repairs)))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Preference:
    """How often raters ranked M4V before another model, over the prompts; ranks are halved means, low is good."""

    axis: str
    opponent: str
    m4v_lower: int
    m4v_higher: int
    equal: int
    m4v_mean: float
    opponent_mean: float

    @property
    def win_rate(self) -> float:
        """Share of prompts on which M4V is ranked better; a tie is half a win."""
        return (self.m4v_lower + 0.5 * self.equal) / (self.m4v_lower + self.m4v_higher + self.equal)


def user_study() -> tuple[Preference, ...]:
    """M4V against each other model, for each question.

    A row of ranks that contradicts itself enters with its best supported repair, as the audit reports it.
    """
    rows = check_ranks("user_study_m4v", TABLES["user_study_m4v"].rows(), _HALVED)
    return tuple(
        _preference(axis, opponent, [_repaired(row) for row in rows if row.axis == axis])
        for axis in dict.fromkeys(row.axis for row in rows)
        for opponent in rows[0].ranks
        if opponent != "M4V"
    )


def _repaired(row: RankRow) -> Mapping[str, str]:
    if not row.check.contradicts:
        return row.ranks
    best = row.repairs[0]
    return {**row.ranks, best.column: f"{best.needed:.6f}"}


def _preference(axis: str, opponent: str, rows: Sequence[Row]) -> Preference:
    ours, theirs = ([float(row[model]) for row in rows] for model in ("M4V", opponent))
    lower = sum(a < b for a, b in zip(ours, theirs, strict=True))
    higher = sum(a > b for a, b in zip(ours, theirs, strict=True))
    equal = len(rows) - lower - higher
    return Preference(axis, opponent, lower, higher, equal, statistics.fmean(ours), statistics.fmean(theirs))
