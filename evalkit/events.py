"""What happens in a long run besides steps: told to whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Doing:
    """What one of several workers is at; `what` is a file, a stage, or empty when it has nothing to do."""

    worker: str
    what: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Something could not be done, and why; the run goes on without it."""

    what: str
    why: str


Event = Doing | Failed
