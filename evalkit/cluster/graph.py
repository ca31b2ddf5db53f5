"""What a command consists of on a cluster, and what of it is still to be submitted: pure, and knows of no scheduler.

Every command is a bundle of chains: of each shard, or each variant with each seed. Something may come before them
(pre-training) and something after them (the report).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from evalkit.cluster.config import Stage
from evalkit.job import Progress

Wait = Literal["ok", "each", "any"]
"""Until all of another step has succeeded; until the task of the same number has; until all of it has ended."""


class Work(Protocol):
    """What a job does. It can be pickled, and resumes from its own directory when it is called again."""

    def __call__(self, progress: Progress) -> None:
        """Do what is missing.

        Raises:
            KeyboardInterrupt: it was asked to stop; what is finished is kept.
        """

    def found(self) -> bool | None:
        """Whether the result is there, whoever made it; None where that cannot be seen, and its last word counts."""


@dataclass(frozen=True, slots=True)
class Task:
    """One job's share.

    Args:
        stage: whose resources it gets.
        name: what it is called within its stage.
        key: content address of all that its result depends on; a finished task with another key is done again.
        work: what is done.
    """

    stage: Stage
    name: str
    key: str
    work: Work


@dataclass(frozen=True, slots=True)
class Chain:
    """Tasks one after the other, each needing the one before; `waits` for what comes before all chains, or not."""

    tasks: tuple[Task, ...]
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Graph:
    """A command: `first` before the chains that wait for it, `last` when all have ended, whichever way."""

    chains: tuple[Chain, ...]
    first: Task | None = None
    last: Task | None = None

    @property
    def tasks(self) -> tuple[Task, ...]:
        before = (self.first,) if self.first else ()
        depth = max((len(chain.tasks) for chain in self.chains), default=0)
        rows = tuple(chain.tasks[i] for i in range(depth) for chain in self.chains if i < len(chain.tasks))
        return (*before, *rows, *((self.last,) if self.last else ()))


@dataclass(frozen=True, slots=True)
class Step:
    """Tasks of one stage, submitted together as an array; `after` are earlier steps, by their numbers."""

    tasks: tuple[Task, ...]
    after: tuple[int, ...] = ()
    wait: Wait = "any"

    @property
    def stage(self) -> Stage:
        return self.tasks[0].stage


def steps(graph: Graph, is_done: Callable[[Task], bool]) -> list[Step]:
    """What is to be submitted, in an order in which each step comes after those it waits for.

    A chain goes on with its first task that is not done. Chains that go on at the same place make one array a stage.
    """
    rest = [(chain, _remaining(chain.tasks, is_done)) for chain in graph.chains]
    groups: dict[tuple[int, int, bool], list[tuple[Task, ...]]] = {}
    needs_first = graph.first is not None and not is_done(graph.first)
    for chain, tasks in rest:
        if tasks:
            waits = needs_first and chain.waits and len(tasks) == len(chain.tasks)
            groups.setdefault((len(chain.tasks), len(tasks), waits), []).append(tasks)
    found: list[Step] = []
    if graph.first and any(waits for _, _, waits in groups):
        found.append(Step((graph.first,)))
    ends = []
    for (_, _, waits), chains in groups.items():
        found += _arrays(chains, len(found), 0 if waits else None)
        ends.append(len(found) - 1)
    if graph.last and (groups or not is_done(graph.last)):
        found.append(Step((graph.last,), tuple(ends), "any"))
    return found


def _remaining(tasks: Sequence[Task], is_done: Callable[[Task], bool]) -> tuple[Task, ...]:
    for number, task in enumerate(tasks):
        if not is_done(task):
            return tuple(tasks[number:])
    return ()


def _arrays(chains: Sequence[tuple[Task, ...]], start: int, first: int | None) -> list[Step]:
    """One array for each stage of equally long chains; its n-th task waits for the n-th of the array before."""
    arrays = [Step(tuple(tasks)) for tasks in zip(*chains, strict=True)]
    begun = arrays[0] if first is None else Step(arrays[0].tasks, (first,), "ok")
    return [begun, *(Step(array.tasks, (start + i,), "each") for i, array in enumerate(arrays[1:]))]
