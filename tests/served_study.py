"""A small study on disk, ready to be served: tiny clips, known tokens, a vote screen and both kinds of checks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from evalkit.encode import write_video
from evalkit.study.plan_file import CLIPS, LINKS, SECRET, save_plan, write_private
from evalkit.study.types import AXES, Axis, Plan, Protocol, RaterPlan, Screen, StudyClip

MODELS = ("Mellow-Mamba", "Zebra <b>9</b>", "Quartz", "Onyx", "Topaz")
"""Words that stand nowhere on a rater's page."""
PROMPTS = {
    "p00": "<script>window.hacked = 1</script> a cat & a dog",
    "p01": "قطة تعبر \u202e الشارع שלום",
    "p02": "a slow pan over a market " * 60,
    "p03": "two boats on a lake",
}


@dataclass(frozen=True)
class Kit:
    """What a test study is like.

    Args:
        protocol: how screens are answered.
        ties: whether clips may share a rank.
        n_models: models, and clips a screen in `rank`.
        n_raters: raters, `r001` on.
        kinds: of the screens of each rater, in order.
        axes: questions.
        size: width and height of the clips.
        seconds: of the first model's clips; each further model's are a little longer.
    """

    protocol: Protocol = "rank"
    ties: bool = False
    n_models: int = 3
    n_raters: int = 2
    kinds: Sequence[str] = ("vote", "identical", "degraded", "vote")
    axes: Sequence[Axis] = AXES
    size: tuple[int, int] = (64, 36)
    seconds: float = 1.0
    name: str = "Which clips do you like?"
    prompts: dict[str, str] = field(default_factory=lambda: dict(PROMPTS))


def token(who: str) -> str:
    """The token of a rater, or of `admin`."""
    return hashlib.sha256(f"token of {who}".encode()).hexdigest()[:32]


def link(who: str) -> str:
    return f"/admin/{token(who)}" if who == "admin" else f"/r/{token(who)}"


def make_plan(kit: Kit) -> Plan:
    """A plan in which rater by rater the clips of a screen are shown in another order."""
    models = MODELS[: kit.n_models]
    clips = {
        clip_id(model, prompt, degraded): StudyClip(
            clip_id(model, prompt, degraded),
            model,
            prompt,
            0,
            hashlib.sha256(f"{model}{prompt}".encode()).hexdigest(),
            *kit.size,
            kit.seconds + 0.125 * n,
            degraded,
        )
        for prompt in kit.prompts
        for n, model in enumerate(models)
        for degraded in (False, True)
    }
    return Plan(
        name=kit.name,
        protocol=kit.protocol,
        ties=kit.ties,
        models=models,
        axes=tuple(kit.axes),
        suite={"name": "tiny", "sha256": "0" * 64, "n_prompts": len(kit.prompts)},
        prompts=kit.prompts,
        clips=clips,
        raters=tuple(_rater(kit, n) for n in range(kit.n_raters)),
        seed=0,
        max_failed_checks=1 / 3,
        admin_sha256=_sha256(token("admin")),
        created="2000-01-01T00:00:00+00:00",
    )


def clip_id(model: str, prompt: str, degraded: bool = False) -> str:
    return "c" + hashlib.sha256(f"{model}|{prompt}|{degraded}".encode()).hexdigest()[:20]


def _rater(kit: Kit, place: int) -> RaterPlan:
    id_ = f"r{place + 1:03}"
    prompts = list(kit.prompts)
    screens = [_screen(kit, kind, prompts[n % len(prompts)], n + place) for n, kind in enumerate(kit.kinds)]
    return RaterPlan(id_, _sha256(token(id_)), tuple(screens))


def _screen(kit: Kit, kind: str, prompt: str, turn: int) -> Screen:
    n = kit.n_models if kit.protocol == "rank" else 2
    shown = [MODELS[(turn + k) % kit.n_models] for k in range(n)]
    ids = [clip_id(model, prompt) for model in shown]
    if kind == "identical":
        ids[-1] = ids[0]
    elif kind == "degraded":
        ids[turn % n] = clip_id(shown[turn % n], prompt, degraded=True)
    return Screen(kind, prompt, tuple(ids))  # type: ignore[arg-type]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_study(folder: Path, kit: Kit | None = None) -> Plan:
    """Write a study: its plan, clips, links and secret."""
    kit = kit or Kit()
    plan = make_plan(kit)
    save_plan(folder, plan)
    for n, clip in enumerate(plan.clips.values()):
        write_video(folder / CLIPS / f"{clip.id}.mp4", _frames(clip, n), 16, crf=30)
    whos = [*(rater.id for rater in plan.raters), "admin"]
    write_private(folder / LINKS, "".join(["who,link\n", *(f"{who},{link(who)}\n" for who in whos)]).encode())
    write_private(folder / SECRET, (hashlib.sha256(folder.name.encode()).hexdigest() + "\n").encode())
    return plan


def _frames(clip: StudyClip, seed: int) -> np.ndarray:
    """A square that wanders over a gradient; noise if the clip is spoiled."""
    rng = np.random.default_rng(seed)
    t, y, x = np.mgrid[: round(16 * clip.duration_s), : clip.height, : clip.width]
    hue = rng.integers(40, 200, 3)
    frames = hue * (0.5 + 0.5 * (x / clip.width)[..., None]) + 30 * np.sin(y / clip.height * 6)[..., None]
    side = clip.height // 4
    left = (t * clip.width // (3 * len(t))) + clip.width // 5
    frames[(abs(x - left) < side) & (abs(y - clip.height // 2) < side)] = (240, 240, 230)
    if clip.degraded:
        frames = frames + rng.integers(-90, 90, frames.shape)
    return frames.clip(0, 255).astype(np.uint8)


def answers_of(kit: Kit, plan: Plan, rater: str, screen: int) -> dict[str, list[int]]:
    """An answer to every question of a screen, other ones for other raters and screens."""
    place = int(rater[1:]) + screen
    n = len(next(r for r in plan.raters if r.id == rater).screens[screen].clips)
    if kit.protocol == "rank":
        return {axis.name: [(k + place + a) % n + 1 for k in range(n)] for a, axis in enumerate(plan.axes)}
    strongest = 1 if kit.protocol == "pairwise" else 2
    return {axis.name: [(place + a) % (2 * strongest + 1) - strongest] for a, axis in enumerate(plan.axes)}


def secrets_of(plan: Plan) -> list[str]:
    """What must not reach a rater: models, ids of clips, and words for the checks."""
    return [*plan.models, "mellow", "zebra", "mamba", *plan.clips, "identical", "degraded"]
