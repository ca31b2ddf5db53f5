"""`slurm.yaml`: where jobs go and what each stage of a run asks for."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError, model_validator

from evalkit.errors import UserError, nearest
from evalkit.untrusted import read_text

Stage = Literal["train", "generate", "score", "report"]
STAGES: tuple[Stage, ...] = get_args(Stage)

EXAMPLE = Path(__file__).with_name("example.yaml")
SHORTEST = 0.1
"""Hours: SLURM's warning comes 90 seconds before the end, and a job must get somewhere before it."""

Text = Annotated[StrictStr, Field(min_length=1)]
Hours = Annotated[float, Field(ge=SHORTEST, le=24 * 365, allow_inf_nan=False)]
Gigabytes = Annotated[float, Field(gt=0, allow_inf_nan=False)]

_REMEDY = "`m4v-eval cluster-example` prints a file that explains every field."


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Resources(_Data):
    """What one job of a stage gets: its time limit, and what it finds on each of its nodes."""

    hours: Hours
    gpus: StrictInt = Field(default=0, ge=0)
    cpus: StrictInt = Field(default=1, ge=1)
    memory: Gigabytes | None = None
    nodes: StrictInt = Field(default=1, ge=1)


class Stages(_Data):
    """The four stages; not every command has all of them."""

    train: Resources = Resources(hours=24)
    generate: Resources = Resources(hours=4)
    score: Resources = Resources(hours=4)
    report: Resources = Resources(hours=1)

    @model_validator(mode="after")
    def _only_training_has_many_hosts(self) -> Self:
        for stage in STAGES:
            if stage != "train" and self.of(stage).nodes > 1:
                raise ValueError(f"{stage}.nodes: only training spans several hosts; give more `shards` instead")
        return self

    def of(self, stage: Stage) -> Resources:
        found: Resources = getattr(self, stage)
        return found


class ClusterConfig(_Data):
    """A whole file.

    Args:
        executor: `slurm`, or `local`: the jobs run on this machine, and the command waits for them.
        partition, account, qos, constraint: as sbatch has them; left out, the cluster's own.
        shards: jobs that videos are shared out to.
        parallel: jobs of an array that run at a time.
        requeue: how often a job that ran into its time limit goes on in a new one; preempted jobs always do.
        python: interpreter on the nodes; left out, that of this command.
        setup: shell lines before it.
        sbatch: further options of sbatch, by their long names.
        stages: what each asks for.
    """

    executor: Literal["slurm", "local"] = "slurm"
    partition: Text | None = None
    account: Text | None = None
    qos: Text | None = None
    constraint: Text | None = None
    shards: StrictInt = Field(default=1, ge=1, le=10_000)
    parallel: StrictInt = Field(default=256, ge=1)
    requeue: StrictInt = Field(default=3, ge=0)
    python: Text | None = None
    setup: tuple[Text, ...] = Field(default=(), strict=False)
    sbatch: Mapping[Text, StrictBool | StrictInt | StrictStr] = {}
    stages: Stages = Stages()

    @model_validator(mode="after")
    def _local_is_one_host(self) -> Self:
        if self.executor == "local" and self.stages.train.nodes > 1:
            raise ValueError("stages.train.nodes: the local executor has one host")
        return self

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        return self.model_dump(mode="json")


class _Loader(yaml.SafeLoader):
    """Refuses keys that stand twice, of which YAML would keep the last one, and aliases, which can explode."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not used here", None)
        return super().compose_node(parent, index)


def read_config(path: Path) -> ClusterConfig:
    """Read and check a cluster file.

    Raises:
        UserError: unreadable, not YAML, an unknown key (names the nearest), or a value that cannot be; with the field.
    """
    try:
        data = yaml.load(read_text(path, _REMEDY), Loader=_Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as e:
        raise UserError(f"{path} is not the YAML it should be: {' '.join(str(e).split())}.", _REMEDY) from None
    if data is None:
        data = {}
    try:
        return ClusterConfig.model_validate(data)
    except ValidationError as e:
        raise _broken(path, e) from None


def _broken(path: Path, error: ValidationError) -> UserError:
    first, *more = error.errors(include_url=False, include_input=False)
    rest = f" (and {len(more)} more)" if more else ""
    place = [str(part) for part in first["loc"] if part != "[key]"]
    if first["type"] == "extra_forbidden":
        near = nearest(place[-1], _fields(place[:-1]), n=1)
        meant = f" Did you mean {near[0]}?" if near else ""
        return UserError(f"{path}: there is no field {'.'.join(place)}{rest}.{meant}", _REMEDY)
    message = first["msg"].removeprefix("Value error, ")
    where = f", field {'.'.join(place)}" if place and not message.startswith("stages") else ""
    return UserError(f"{path}{where}: {message[:1].lower() + message[1:]}{rest}.", _REMEDY)


def _fields(place: list[str]) -> list[str]:
    """Names of the fields at a place of the file."""
    model: Any = ClusterConfig
    for part in place:
        model = model.model_fields[part].annotation
    return list(model.model_fields)
