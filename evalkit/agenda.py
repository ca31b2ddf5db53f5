"""What is still to be scored: handed out to one worker or several, so that each network is loaded once."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from evalkit.engine import Task
from evalkit.job import Video
from evalkit.networks import in_turn


@dataclass(frozen=True, slots=True)
class Entry:
    """A video, the features it will want, and what it must not be scored side by side with."""

    video: Video
    features: frozenset[str]
    turn: Hashable = None


class Agenda:
    """Videos in lanes, one a worker; whose lane is empty takes from the end of the longest.

    Videos with the same content, and those with the same `turn`, are never out at the same time: what is found out
    about the first decides whether the next is scored at all.

    Args:
        entries: the videos.
        lanes: workers.
        task_of: what a video lacks at this moment, None for nothing; asked when its turn comes.
    """

    def __init__(self, entries: Sequence[Entry], lanes: int, task_of: Callable[[Video], Task | None]) -> None:
        self._task_of = task_of
        self._wanted = Counter(name for entry in entries for name in entry.features)
        self._out: dict[str, Entry] = {}
        ordered = [entries[i] for i in in_turn([entry.features for entry in entries])]
        self._lanes = [deque(lane) for lane in _share_out(ordered, lanes)]

    def __len__(self) -> int:
        """Videos that are not done, those that are out included."""
        return sum(map(len, self._lanes)) + len(self._out)

    @property
    def still_wanted(self) -> frozenset[str]:
        """The features that some video which is not done wants."""
        return frozenset(name for name, count in self._wanted.items() if count > 0)

    def take(self, lane: int) -> Task | None:
        """The next task for a worker; None if nothing is left, or nothing that may be scored now."""
        own, *others = [self._lanes[lane], *sorted(self._lanes, key=len, reverse=True)]
        return self._first(own) or next((task for other in others if (task := self._last(other))), None)

    def done(self, task: Task) -> None:
        """A task that was taken needs nothing more."""
        self._strike_off(self._out.pop(task.video.sample.file))

    def give_back(self, task: Task, lane: int) -> None:
        """A task that was taken is to be done again, and first."""
        self._lanes[lane].appendleft(self._out.pop(task.video.sample.file))

    def _first(self, lane: deque[Entry]) -> Task | None:
        return self._pick(lane, range(len(lane)))

    def _last(self, lane: deque[Entry]) -> Task | None:
        return self._pick(lane, range(len(lane) - 1, -1, -1))

    def _pick(self, lane: deque[Entry], order: Sequence[int]) -> Task | None:
        """Take the first in this order that lacks something and may be scored now; drop those that lack nothing."""
        taken: Task | None = None
        dropped: list[int] = []
        contents = {entry.video.sha256 for entry in self._out.values()}
        turns = {entry.turn for entry in self._out.values() if entry.turn is not None}
        for index in order:
            entry = lane[index]
            if entry.video.sha256 in contents or entry.turn in turns:
                continue
            taken = self._task_of(entry.video)
            dropped.append(index)
            if taken is None:
                self._strike_off(entry)
            else:
                self._out[entry.video.sample.file] = entry
                break
        for index in sorted(dropped, reverse=True):
            del lane[index]
        return taken

    def _strike_off(self, entry: Entry) -> None:
        self._wanted.subtract(entry.features)


def _share_out(entries: Sequence[Entry], lanes: int) -> list[list[Entry]]:
    """Neighbours stay together; lanes have about equally many frames."""
    total = sum(entry.video.info.n_frames for entry in entries)
    shared: list[list[Entry]] = [[] for _ in range(lanes)]
    before = 0
    for entry in entries:
        frames = entry.video.info.n_frames
        shared[min(lanes - 1, int((before + frames / 2) * lanes / total))].append(entry)
        before += frames
    return shared
