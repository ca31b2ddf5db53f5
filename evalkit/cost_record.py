"""What `m4v-eval flops` and `m4v-eval latency` leave in a run directory, as the report reads it.

`RUN/flops.json` holds counted cost, `RUN/latency.json` timed cost. Either may lie beside a scored run or alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from evalkit.errors import UserError
from evalkit.records import read_json
from evalkit.untrusted.run_shape import Origin

FLOPS_SCHEMA = "m4v-eval/flops/1"
LATENCY_SCHEMA = "m4v-eval/latency/1"

Amount = Annotated[FiniteFloat, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class _Record(BaseModel):
    """Read-only; fields that a later version adds are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class CostRow(_Record):
    """One variant, counted: TFLOPs of one forward pass under the record's convention, and of a whole clip.

    A user's own network has neither clip nor tokens nor known mixers. `breakdown` maps a part of the model to its
    TFLOPs. `relative_error` is (counted - published) / published.
    """

    variant: str
    model: str
    this_model: bool = False
    dual_blocks: Count | None = None
    single_blocks: Count | None = None
    frames: Count | None = None
    height: Count | None = None
    width: Count | None = None
    tokens: Count | None = None
    parameters: Amount
    mixer_tflops: Amount | None = None
    total_tflops: Amount
    clip_tflops: Amount | None = None
    published_tflops: Amount | None = None
    published_source: str | None = None
    relative_error: FiniteFloat | None = None
    reproduced: bool | None = None
    breakdown: dict[str, Amount] = {}


class SweepRow(_Record):
    """One variant at one value of the swept parameter."""

    variant: str
    value: Amount
    tokens: Count
    mixer_tflops: Amount
    total_tflops: Amount


class CurvePoint(_Record):
    """The mixers' TFLOPs at some number of tokens, by variant."""

    tokens: Count
    mixer_tflops: dict[str, Amount]


class Crossing(_Record):
    """Where the mixers of two variants cost the same; `curve` traces both on either side of it.

    `frames` is None where every clip has more tokens.
    """

    a: str
    b: str
    tokens: Amount
    frames: Amount | None = None
    tflops: Amount | None = None
    curve: tuple[CurvePoint, ...] = ()


class Sweep(_Record):
    """Cost against clip length (`frames`) or against the number of dual-stream blocks."""

    parameter: str
    rows: tuple[SweepRow, ...]
    crossing: Crossing | None = None


class FlopsRecord(_Record):
    """`flops.json`. `convention` says what counts as a FLOP of what; its `notes` say so in words."""

    convention: dict[str, Any]
    rows: tuple[CostRow, ...]
    sweep: Sweep | None = None
    provenance: Origin = {}


class Hardware(_Record):
    """What a latency was measured on; `kind` is cuda, cpu, ..."""

    kind: str
    name: str | None = None
    gpu: str | None = None
    cpu: str | None = None
    cores: Count | None = None
    gpu_memory_bytes: Count | None = None

    @property
    def title(self) -> str:
        """What a heading calls it: its name, else the GPU, else the processor with its cores."""
        cores = "" if self.cores is None else f", {self.cores} cores"
        return self.name or self.gpu or (f"{self.cpu}{cores}" if self.cpu else "unnamed hardware")


class Ratio(_Record):
    """How many times as long as variant `to`, with its 95 % interval."""

    to: str
    value: Amount
    ci95: tuple[Amount, Amount] | None = None


class ModuleTime(_Record):
    """The time of one kind of module, in seconds, and its share of the forward pass."""

    name: str
    seconds: Amount
    share: Amount


class LatencyRow(_Record):
    """One variant, timed: median and quartiles in seconds. `failed` is the reason why there is no time."""

    variant: str
    model: str
    frames: Count | None = None
    height: Count | None = None
    width: Count | None = None
    tokens: Count | None = None
    parameters: Amount | None = None
    median_s: Amount | None = None
    q1_s: Amount | None = None
    q3_s: Amount | None = None
    repeats: Count | None = None
    peak_memory_bytes: Amount | None = None
    memory_method: str | None = None
    tflops: Amount | None = None
    achieved_tflops_per_s: Amount | None = None
    peak_tflops_per_s: Amount | None = None
    peak_source: str | None = None
    utilisation: Amount | None = None
    ratio: Ratio | None = None
    modules: tuple[ModuleTime, ...] = ()
    failed: str | None = None


class LatencyRecord(_Record):
    """`latency.json`; times on different hardware or under different settings do not compare."""

    hardware: Hardware
    settings: dict[str, Any] = {}
    rows: tuple[LatencyRow, ...]
    provenance: Origin = {}


class CostRecord(_Record):
    """The cost files of one directory; at least one of them is there."""

    path: Path
    flops: FlopsRecord | None = None
    latency: LatencyRecord | None = None

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def own_row(self) -> CostRow | None:
        """The row that is this directory's model: the only one, the one it is named after, or the first one marked."""
        rows = self.flops.rows if self.flops is not None else ()
        named = [row for row in rows if self.name in (row.variant, row.model)]
        if len(rows) == 1 or len(named) == 1:
            return (named or rows)[0]
        return next((row for row in named or rows if row.this_model), None)


def load_cost(path: Path) -> CostRecord | None:
    """Load the cost files of a directory; None if it has none.

    Raises:
        UserError: a file is not JSON, has another schema, or lacks a field.
    """
    flops = _load(path / "flops.json", FLOPS_SCHEMA, FlopsRecord)
    latency = _load(path / "latency.json", LATENCY_SCHEMA, LatencyRecord)
    return None if flops is None and latency is None else CostRecord(path=path, flops=flops, latency=latency)


R = TypeVar("R", bound=_Record)


def _load(path: Path, schema: str, kind: type[R]) -> R | None:
    if not path.exists():
        return None
    found = read_json(path, schema)
    try:
        return kind.model_validate_json(json.dumps(found), strict=True)
    except ValidationError as e:
        first = e.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path} is not a whole cost record: {place}: {first['msg']}.",
            f"Run m4v-eval {path.stem} with the same --out again.",
        ) from None
