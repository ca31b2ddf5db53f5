"""What the two JSON records of a run must look like for comparisons and pages to read them without asking again.

Fields that a later version adds are let through. Names and texts may be anything: pages and tables escape them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from evalkit.errors import UserError
from evalkit.untrusted.text import shown

Number = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]
"""Stills are called after it, so it must be no path."""


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class _Suite(_Shape):
    name: str
    sha256: str
    n_prompts: Count


class _Prompt(_Shape):
    id: str


class _Direction(_Shape):
    higher_is_better: bool = True


class Manifest(_Shape):
    """What comparisons read of `run.json`; what is not there they ask for themselves."""

    suite: _Suite = _Suite(name="", sha256="", n_prompts=0)
    profile: str = ""
    precision: str = ""
    weights: dict[str, str] = {}


class Summary(_Shape):
    """What comparisons read of `vbench.json`."""

    dimensions: dict[str, _Direction] = {}
    missing_prompts: list[_Prompt] = []


# --- whole, as pages show them ---------------------------------------------------------------------------------------


class _WholeSuite(_Suite):
    source: str


class _Git(_Shape):
    commit: str
    dirty: bool


class _Hardware(_Shape):
    cpu: str
    cores: Count | None
    memory_gib: Number | None
    gpu: str | None


class _File(_Shape):
    file: str
    sha256: str


class _Imported(_Shape):
    name: str
    by: str
    files: list[_File]


class WholeManifest(_Shape):
    """All of `run.json`; an imported run knows nothing of code and hardware."""

    command: list[Any]
    finished: str
    videos_dir: str
    config: dict[str, Any]
    config_sha256: str
    suite: _WholeSuite
    profile: str
    precision: str
    weights: dict[str, str]
    seed: int
    git: _Git | None = None
    packages: dict[str, str]
    hardware: _Hardware | None = None
    imported: _Imported | None = None

    @model_validator(mode="after")
    def _says_where(self) -> WholeManifest:
        if self.imported is None and (self.hardware is None or "git" not in self.model_fields_set):
            raise ValueError("it does not say on which machine, or with which code")
        return self


class _Dimension(_Shape):
    score: Number | None
    n: Count
    unscored: Count
    ci95: Annotated[list[Number], Field(min_length=2, max_length=2)] | None
    higher_is_better: bool
    title: str
    summary: str
    version: int
    quirks: list[str]


class _Video(_Shape):
    file: str
    prompt_id: str
    prompt: str
    seed: int | None
    sha256: Hash | None
    scores: dict[str, Number]
    unscored: dict[str, str]


class _WholePrompt(_Prompt):
    text: str


class _Unmatched(_Shape):
    file: str
    reason: str
    nearest: list[str]


class _Caveat(_Shape):
    kind: str
    text: str


class _Coverage(_Shape):
    scored: list[str]
    missing: list[str]


class _Aggregate(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, Number | None]
    coverage: _Coverage


class WholeSummary(_Shape):
    """All of `vbench.json`; every score is of a dimension that the record describes."""

    profile: str
    precision: str
    subset: _WholeSuite
    dimensions: dict[str, _Dimension]
    videos: list[_Video]
    missing_prompts: list[_WholePrompt]
    unmatched_files: list[_Unmatched]
    comparability: list[_Caveat] = []
    interrupted: bool = False
    foreign_weights: list[str] = []
    unavailable: dict[str, str] = {}
    aggregate: _Aggregate

    @model_validator(mode="after")
    def _describes_all(self) -> WholeSummary:
        strange = {name for video in self.videos for name in (*video.scores, *video.unscored)} - self.dimensions.keys()
        if strange:
            raise ValueError(f"it has scores in {min(strange)[:60]!r}, which is not among its dimensions")
        return self


def check_shape(record: dict[str, Any], shape: type[BaseModel], path: Path) -> None:
    """Refuse a record that lacks something, or holds it in another form.

    Raises:
        UserError: naming the first field that is wrong, and how many more are.
    """
    try:
        shape.model_validate(record)
    except ValidationError as e:
        first, *more = e.errors(include_url=False, include_input=False)
        place = shown(".".join(str(part)[:60] for part in first["loc"])) or "the record"
        rest = f" (and {len(more)} more)" if more else ""
        raise UserError(
            f"{shown(path)} is not a whole record: {place}: {first['msg']}{rest}.",
            "Run the command that wrote it again.",
        ) from None


class _Origin(_Shape):
    """What pages show of where a record of cost or of an ablation comes from."""

    command: list[Any] | None = None
    finished: str | None = None
    git: _Git | None = None
    hardware: _Hardware | None = None
    packages: dict[str, str] = {}


def _checked(origin: dict[str, Any]) -> dict[str, Any]:
    _Origin.model_validate(origin)
    return origin


Origin = Annotated[dict[str, Any], AfterValidator(_checked)]
"""A field of a pydantic model: kept as it is, if pages can show it."""
