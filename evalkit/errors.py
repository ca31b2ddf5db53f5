"""Errors that a person can act on.

Every error the command line shows says three things: what was wrong, where, and what to do about it.
Anything else that escapes is a defect of this package and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right.

    Args:
        what: what was wrong and where, in one sentence.
        remedy: what to do about it, in one sentence.
    """

    exit_code = 2  # the command line's contract; 1 is left to defects

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what} {remedy}")
        self.what = what
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[UserError], tuple[str, str]]:
        return type(self), (self.what, self.remedy)  # so that it travels between processes


class RunFailed(UserError):
    """The machine, not the input, stands in the way (disk full, run directory locked); finished results are kept."""


def nearest(name: str, choices: Iterable[str], n: int = 3) -> list[str]:
    """Return up to `n` of `choices` that look like `name`, best first (for "did you mean")."""
    by_lower = {choice.lower(): choice for choice in choices}
    hits = difflib.get_close_matches(name.lower(), by_lower, n=n, cutoff=0.5)
    return [by_lower[hit] for hit in hits]


def unknown(kind: str, name: str, choices: Iterable[str]) -> UserError:
    """The error for a name that is not registered: near names first, then all of them."""
    known = sorted(choices)
    near = nearest(name, known)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return UserError(f"There is no {kind} called {name!r}.", f"{hint}Choose from: {', '.join(known)}.")
