"""What a study will be, before its videos are copied: who judges what. With the copies it becomes the plan."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from evalkit.prompts import load_suite
from evalkit.study.links import digest
from evalkit.study.planning.assignment import Item, Showing, assign
from evalkit.study.planning.clips import CRF, MAX_SIDE
from evalkit.study.planning.planted import Planter
from evalkit.study.planning.request import StudyRequest
from evalkit.study.planning.video_sets import VideoSets, gather
from evalkit.study.types import Plan, RaterPlan, Screen, StudyClip
from evalkit.types import PromptSuite

ClipKey = tuple[str, Item, bool]
"""Model, item, and whether it is the spoiled copy."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A study without clips and links.

    Args:
        request: what was asked for.
        suite: the prompts.
        sets: what all models have.
        screens: votes asked of each rater.
        balanced: whether pairs of models meet equally often by design.
        raters: the screens of each, attention checks included.
    """

    request: StudyRequest
    suite: PromptSuite
    sets: VideoSets
    screens: int
    balanced: bool
    raters: tuple[tuple[Showing, ...], ...]

    @property
    def spoiled(self) -> tuple[tuple[str, Item], ...]:
        """Models and items of which a spoiled copy is shown."""
        shown = (screen for screens in self.raters for screen in screens)
        return tuple(dict.fromkeys((s.models[s.spoiled], s.item) for s in shown if s.spoiled is not None))

    def plan(self, clips: Mapping[ClipKey, StudyClip], tokens: Sequence[str]) -> Plan:
        """The plan to be saved.

        Args:
            clips: the copies.
            tokens: of the admin and then of each rater; only their sums are kept.
        """
        request = self.request
        return Plan(
            name=request.name,
            protocol=request.protocol,
            ties=request.protocol != "rank" or bool(request.ties),
            models=request.models,
            axes=request.questions,
            suite={"name": self.suite.name, "sha256": self.suite.sha256, "n_prompts": len(self.suite.prompts)},
            prompts=self.sets.prompts,
            clips={clip.id: clip for clip in sorted(clips.values(), key=lambda clip: clip.id)},
            raters=tuple(
                RaterPlan(f"r{n:03d}", digest(tokens[n]), tuple(_screen(screen, clips) for screen in screens))
                for n, screens in enumerate(self.raters, 1)
            ),
            seed=request.seed,
            max_failed_checks=request.max_failed,
            admin_sha256=digest(tokens[0]),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            settings=self._settings(clips),
        )

    def _settings(self, clips: Mapping[ClipKey, StudyClip]) -> dict[str, Any]:
        request = self.request
        return {
            "block_size": request.on_screen,
            "balanced_design": self.balanced,
            "screens": self.screens,
            "checks": request.checks,
            "samples": request.per_prompt,
            "common": request.common,
            "rater_spread": request.spreads.rater,
            "prompt_spread": request.spreads.prompt,
            "encoding": {"codec": "h264", "crf": CRF, "max_side": MAX_SIDE},
            "videos": {label: _text(os.fspath(folder.absolute())) for label, folder in request.videos.items()},
            "files": {clips[(*key, False)].id: _text(sample.file) for key, sample in self.sets.samples.items()},
        }


def draft(request: StudyRequest) -> Draft:
    """Find the videos and deal the screens; nothing is written.

    Raises:
        UserError: the request cannot be meant, or videos are missing.
    """
    request.validate()
    suite = load_suite(request.suite)
    sets = gather(suite, request.videos, per_prompt=request.per_prompt, common=request.common)
    screens = request.screens_of(len(sets.items))
    assignment = assign(
        sets.items,
        request.models,
        protocol=request.protocol,
        block_size=request.on_screen,
        n_raters=request.raters,
        screens=screens,
        seed=request.seed,
    )
    planter = Planter(sets.items, request.models, request.on_screen, request.check_kinds, request.seed)
    raters = tuple(planter.plant(votes, request.checks) for votes in assignment.raters)
    return Draft(request, suite, sets, screens, assignment.balanced, raters)


def _screen(showing: Showing, clips: Mapping[ClipKey, StudyClip]) -> Screen:
    ids = tuple(clips[model, showing.item, place == showing.spoiled].id for place, model in enumerate(showing.models))
    return Screen(showing.kind, showing.item[0], ids)


def _text(name: str) -> str:
    """A file name as UTF-8 text, whatever its bytes."""
    return os.fsencode(name).decode("utf-8", "replace")
