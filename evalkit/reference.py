"""Published tables: every figure as printed, with its source.

The files travel with the package (`reference_data/`). Cells stay text, because how a number is printed says how
precisely it is known; `number` and `half_unit` read them. What contradicts itself is kept as printed and is found by
`evalkit.audit`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from evalkit.errors import unknown

_FOLDER = Path(__file__).parent / "reference_data"

Row = Mapping[str, str]
PromptSet = Literal["official", "custom"]


@dataclass(frozen=True, slots=True)
class ReferenceTable:
    """One published table.

    Args:
        name: what the command line calls it; the file is `<name>.csv`.
        title: what it holds.
        unit: of its figures.
        key: the column that names a row.
    """

    name: str
    title: str
    unit: str
    key: str = "variant"

    def rows(self) -> tuple[Row, ...]:
        """All rows, cells as printed; an empty cell is not published or not readable."""
        return _read(self.name)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of figures and labels, without the source and the note."""
        return tuple(column for column in self.rows()[0] if column not in ("source", "note"))

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row["source"] for row in self.rows()))


@dataclass(frozen=True, slots=True)
class Published:
    """One published figure of one model."""

    model: str
    value: float
    source: str
    note: str


_VBENCH = "percent"
_TABLES = (
    ReferenceTable("vbench_t2v", "VBench text-to-video, official prompts, 16 dimensions and totals", _VBENCH, "model"),
    ReferenceTable("vbench_t2v_extra", "More columns of the same tables: average, access, data", _VBENCH, "model"),
    ReferenceTable("vbench_custom", "VBench on customised prompts: LinGen, M4V ablation", _VBENCH, "model"),
    ReferenceTable("vbench_i2v", "VBench image-to-video", _VBENCH, "model"),
    ReferenceTable("lingen_as_printed", "LinGen Tables 1 and 2 under their printed headings", _VBENCH, "model"),
    ReferenceTable("lingen_training", "LinGen training stages", "as headed", "stage"),
    ReferenceTable("m4v_ablation_averages", "M4V architecture ablation with its printed average", _VBENCH),
    ReferenceTable("m4v_efficiency", "M4V cost of the mixers in one forward pass at 241 frames", "TFLOPs, s"),
    ReferenceTable("m4v_reward_ablation", "M4V reward learning and generated data", _VBENCH, "reward_learning"),
    ReferenceTable("m4v_table6", "M4V cost and score by number of dual-stream blocks", "TFLOPs, s, percent", "l"),
    ReferenceTable(
        "user_study_m4v", "M4V user study, halved mean rank of each video", "rank / 2, low is good", "model"
    ),
    ReferenceTable("evalcrafter", "EvalCrafter scores", "EvalCrafter's own", "model"),
    ReferenceTable("pyramidflow_hparams", "PyramidFlow training configuration", "as printed", "configuration"),
    ReferenceTable("stiv_ablations", "STIV ablations, a row a variant and metric", "as named by the metric"),
    ReferenceTable("stiv_flops", "STIV training cost by initialisation", "1e21 FLOPs", "models"),
    ReferenceTable("stiv_model_configs", "STIV model sizes", "as headed", "model"),
    ReferenceTable("stiv_tables/table02", "STIV: stability and conditioning of text-to-image", "as headed"),
    ReferenceTable("stiv_tables/table03", "STIV: text-to-video architecture", _VBENCH),
    ReferenceTable("stiv_tables/table04", "STIV: initialisation at higher resolution", "FVD, percent"),
    ReferenceTable("stiv_tables/table06", "STIV: one model for both tasks", _VBENCH),
    ReferenceTable("stiv_tables/table07", "STIV: image-condition guidance and motion", _VBENCH),
    ReferenceTable("stiv_tables/table08", "STIV: VBench text-to-video, summary", _VBENCH),
    ReferenceTable("stiv_tables/table10", "STIV: training data", "FVD, percent"),
    ReferenceTable("stiv_tables/table11", "STIV: video captions", "as headed"),
    ReferenceTable("stiv_tables/table16", "STIV: Table 4 by dimension", _VBENCH),
    ReferenceTable("stiv_tables/table17", "STIV: initialisation at more frames, by dimension", _VBENCH),
    ReferenceTable("stiv_tables/table18", "STIV: physical plausibility", _VBENCH),
    ReferenceTable("stiv_tables/table19", "STIV: class-conditional UCF-101", "as headed"),
    ReferenceTable("stiv_tables/table20", "STIV: video prediction", "FVD"),
    ReferenceTable("stiv_tables/table21", "STIV: frame interpolation", "FID, FVD"),
    ReferenceTable("stiv_tables/table22", "STIV: multi-view generation", "PSNR, SSIM, LPIPS"),
)
TABLES: Mapping[str, ReferenceTable] = {table.name: table for table in _TABLES}


def find_table(name: str) -> ReferenceTable:
    """Look a table up.

    Raises:
        UserError: no such table; names the nearest ones.
    """
    if name not in TABLES:
        raise unknown("reference table", name, TABLES)
    return TABLES[name]


def published(dimension: str, prompts: PromptSet = "official") -> tuple[Published, ...]:
    """Published values of one dimension (or of `quality_score`, `semantic_score`, `total_score`), in percent.

    Args:
        dimension: official name.
        prompts: VBench's own prompts, or customised ones. Scores on different prompts do not compare.

    Raises:
        ValueError: the tables have no such column.
    """
    table = TABLES[{"official": "vbench_t2v", "custom": "vbench_custom"}[prompts]]
    if dimension not in table.columns[1:]:
        raise ValueError(f"{table.name} has no column {dimension!r}")
    values = ((row, number(row[dimension])) for row in table.rows())
    return tuple(Published(row["model"], x, row["source"], row["note"]) for row, x in values if x is not None)


def number(cell: str) -> float | None:
    """A printed figure; None if the cell is empty."""
    return float(cell) if cell else None


def half_unit(cells: Iterable[str]) -> float:
    """Half a unit in the last printed place: how far a figure of this column may lie from what was rounded.

    The place is that of the cell with most decimals, since trailing zeros are often left out (89.2 beside 95.27).
    """
    decimals = max((len(cell.partition(".")[2]) for cell in cells), default=0)
    return 0.5 * 10.0**-decimals


@cache
def _read(name: str) -> tuple[Row, ...]:
    with (_FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))
