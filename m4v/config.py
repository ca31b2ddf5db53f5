"""Frozen, typed configurations with one canonical text and one hash.

A configuration is the whole recipe of a model: two runs with the same hash built the same network.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Base of every configuration: immutable, without unknown fields, validated on construction.

    Raises:
        ValueError: (pydantic's ValidationError) a field is unknown, missing or out of its range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def canonical_json(self) -> str:
        """The one text of this configuration: sorted keys, no spaces."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def config_hash(self) -> str:
        """SHA-256 of the class name and the canonical text; twelve hexadecimal digits are enough for a file name."""
        return hashlib.sha256(f"{type(self).__name__}:{self.canonical_json()}".encode()).hexdigest()

    def but(self, **changes: Any) -> Self:
        """This configuration with some fields changed, validated again (`model_copy` would not)."""
        return type(self).model_validate(self.model_dump() | changes)

    def differences(self, other: Config) -> dict[str, tuple[Any, Any]]:
        """Fields in which two configurations differ: `{field: (self, other)}`; a missing field counts as None."""
        ours, theirs = self.model_dump(), other.model_dump()
        return {
            name: (ours.get(name), theirs.get(name))
            for name in sorted(ours.keys() | theirs.keys())
            if ours.get(name) != theirs.get(name)
        }
