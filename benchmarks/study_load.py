"""200 raters at once against a real server of a study: how fast votes are stored, and that none is lost.

    python -m benchmarks.study_load [--raters 200] [--screens 10] [--seconds 30]

Three parts, each with a server process of its own and raters (httpx) on the loopback of this machine:

- `burst`: every rater answers without a pause; one submission in ten is sent twice, as after a lost connection.
- `killed`: the same, and the server is killed (SIGKILL) and started again in the middle; raters repeat what was not
  acknowledged.
- `paced`: raters open each screen with its clips and think between answers, two seconds on average.

After each part the votes are read from the database: every acknowledged answer must be there exactly once, as it was
sent, and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import resource
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from evalkit.provenance import git, hardware, packages
from evalkit.study.plan_file import VOTES
from evalkit.study.types import AXES
from tests.served_study import Kit, link, write_study
from tests.study_server import Server, serving

RESULTS = Path(__file__).with_name("results")
N_MODELS = 5
THINK_S = 2.0
AGAIN = 0.1
RETRY_S = 0.2
RETRIES = 300

Vote = tuple[str, int, str, str]
"""Rater, screen, axis, answer as JSON."""


@dataclass
class Load:
    """What the raters sent, and what came back."""

    acknowledged: dict[tuple[str, str], Vote] = field(default_factory=dict)
    """By rater and key of the submission."""
    times_s: list[float] = field(default_factory=list)
    """Of each acknowledged answer, from sending it to its acknowledgement."""
    n_repeated: int = 0
    n_failed: int = 0
    """Requests that were not answered, and sent again."""


class Rater:
    """One rater with a connection of its own."""

    def __init__(self, id_: str, origin: str, load: Load, seed: int) -> None:
        self.id = id_
        self.load = load
        self.draw = random.Random(seed)
        self.client = httpx.AsyncClient(base_url=origin, timeout=30, trust_env=False)
        self.headers = {"Origin": origin}

    async def enter(self) -> None:
        await self.reached(lambda: self.client.get(link(self.id)))
        await self.see(0)

    async def see(self, screen: int) -> list[str]:
        """Open a screen; returns the addresses of its clips."""
        page = await self.reached(lambda: self.client.get(f"/screen/{screen}"))
        found = re.search(r'id="screen-data">(.*?)</script>', page.text, re.DOTALL)
        assert found is not None, page.text[:200]
        self.headers["X-Study-Token"] = json.loads(found[1])["pageToken"]
        return [address.replace("&amp;", "&") for address in re.findall(r'src="(/clip/[^"]+)"', page.text)]

    async def reached(self, ask: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
        """Ask until there is an answer."""
        for _ in range(RETRIES):
            try:
                response = await ask()
            except httpx.TransportError:
                self.load.n_failed += 1
                await asyncio.sleep(RETRY_S)
                continue
            assert response.status_code < 400, f"{response.status_code}: {response.text[:200]}"
            return response
        raise RuntimeError("the server does not answer")

    async def cast(self, screen: int, axis: str) -> None:
        answer = self.draw.sample(range(1, N_MODELS + 1), N_MODELS)
        key = f"{self.draw.getrandbits(128):032x}"
        body = {"key": key, "screen": screen, "axis": axis, "answer": answer, "seconds": 1.0}
        for time_again in range(1 + (self.draw.random() < AGAIN)):
            began = time.perf_counter()
            reply = await self.reached(lambda: self.client.post("/answer", json=body, headers=self.headers))
            self.load.times_s.append(time.perf_counter() - began)
            self.load.n_repeated += reply.json()["repeated"]
            assert reply.json()["repeated"] or not time_again
        self.load.acknowledged[self.id, key] = (self.id, screen, axis, json.dumps(answer))

    async def done(self, screen: int) -> None:
        body = {"key": f"{self.draw.getrandbits(128):032x}", "screen": screen, "seconds": 3.0}
        await self.reached(lambda: self.client.post("/done", json=body, headers=self.headers))

    async def hurry(self, n_screens: int) -> None:
        """Answer everything without a pause."""
        for screen in range(n_screens):
            for axis in AXES:
                await self.cast(screen, axis.name)
            await self.done(screen)

    async def take_time(self, n_screens: int, until: float) -> None:
        """Answer like a person, until the time is up."""
        for screen in range(n_screens):
            for address in await self.see(screen):
                await self.reached(lambda address=address: self.client.get(address))  # type: ignore[misc]
            for axis in AXES:
                await asyncio.sleep(self.draw.expovariate(1 / THINK_S))
                if time.perf_counter() > until:
                    return
                await self.cast(screen, axis.name)
            await self.done(screen)


async def all_at_once(raters: list[Rater], way: Callable[[Rater], Awaitable[None]]) -> float:
    """Let all raters vote; returns the seconds it took, entering not counted."""
    await asyncio.gather(*(rater.enter() for rater in raters))
    began = time.perf_counter()
    await asyncio.gather(*(way(rater) for rater in raters))
    took_s = time.perf_counter() - began
    await asyncio.gather(*(rater.client.aclose() for rater in raters))
    return took_s


async def killed_midway(raters: list[Rater], n_screens: int, server: Server) -> float:
    """The burst, with the server killed once a third of the answers is stored."""
    load, total = raters[0].load, len(raters) * n_screens * len(AXES)

    async def killer() -> None:
        while len(load.acknowledged) < total / 3:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)

    killing = asyncio.create_task(killer())
    took_s = await all_at_once(raters, lambda rater: rater.hurry(n_screens))
    await killing
    return took_s


def check(votes: Path, load: Load) -> int:
    """Make sure that every acknowledged answer is stored once and as sent, and nothing else; returns how many."""
    db = sqlite3.connect(votes)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    stored = {
        (r, key): (r, s, a, text)
        for r, key, s, a, text in db.execute("SELECT rater, key, screen, axis, answer FROM answers")
    }
    (n_rows,) = db.execute("SELECT count(*) FROM answers").fetchone()
    questions = Counter(vote[:3] for vote in stored.values())
    db.close()
    lost = [key for key, vote in load.acknowledged.items() if stored.get(key) != vote]
    assert not lost, f"{len(lost)} acknowledged answers are not stored as sent"
    assert n_rows == len(stored), "a submission is stored twice"
    assert max(questions.values()) == 1, "a question is answered twice"
    assert n_rows == len(load.acknowledged), "answers that nobody got acknowledged"
    return int(n_rows)


def measure(name: str, study: Path, n_raters: int, n_screens: int, seconds: float) -> dict[str, Any]:
    """One part, on a study without votes."""
    for file in study.glob(f"{VOTES}*"):
        file.unlink()
    load, load_1min, before = Load(), os.getloadavg()[0], cpu_seconds()
    with serving(study, "--rate-limit", "1000") as server:
        raters = [Rater(f"r{n + 1:03}", server.origin, load, seed=n) for n in range(n_raters)]
        if name == "burst":
            took_s = asyncio.run(all_at_once(raters, lambda rater: rater.hurry(n_screens)))
        elif name == "killed":
            took_s = asyncio.run(killed_midway(raters, n_screens, server))
        else:
            until = time.perf_counter() + seconds
            took_s = asyncio.run(all_at_once(raters, lambda rater: rater.take_time(n_screens, until)))
    server_s, raters_s = (round(after - then, 2) for after, then in zip(cpu_seconds(), before, strict=True))
    n_stored = check(study / VOTES, load)
    p50, p95, p99, worst = (1000 * float(x) for x in np.percentile(load.times_s, [50, 95, 99, 100]))
    return {
        "acknowledged": len(load.acknowledged),
        "stored": n_stored,
        "lost": 0,
        "recognised_repetitions": load.n_repeated,
        "requests_sent_again": load.n_failed,
        "seconds": round(took_s, 2),
        "votes_per_s": round(len(load.acknowledged) / took_s, 1),
        "latency_ms": {"p50": round(p50, 1), "p95": round(p95, 1), "p99": round(p99, 1), "max": round(worst, 1)},
        "cpu_s": {"server": server_s, "raters": raters_s},
        "load_1min": round(load_1min, 2),
    }


def cpu_seconds() -> tuple[float, float]:
    """Processor seconds of servers that have ended, and of this process."""
    children, own = resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF)
    return children.ru_utime + children.ru_stime, own.ru_utime + own.ru_stime


def versions() -> dict[str, str]:
    """Of all that takes part."""
    names = ("fastapi", "starlette", "uvicorn", "h11", "pydantic", "httpx")
    return {**packages(), **{name: metadata.version(name) for name in names}, "sqlite": sqlite3.sqlite_version}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study_load", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--raters", type=int, default=200)
    parser.add_argument("--screens", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=30, help="how long raters take their time")
    parser.add_argument(
        "--parts", nargs="+", choices=("burst", "killed", "paced"), default=["burst", "killed", "paced"]
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "study_load.json")
    given = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study"
        prompts = {f"p{n:02}": f"prompt {n}" for n in range(given.screens)}
        write_study(
            study, Kit(n_models=N_MODELS, n_raters=given.raters, kinds=("vote",) * given.screens, prompts=prompts)
        )
        sizes = [file.stat().st_size for file in (study / "clips").iterdir()]
        parts = {}
        for name in given.parts:
            parts[name] = found = measure(name, study, given.raters, given.screens, given.seconds)
            print(
                f"{name:<8}{found['acknowledged']:>7} answers{found['votes_per_s']:>9.1f} a second, ms:"
                f" {json.dumps(found['latency_ms'])}, lost: {found['lost']}",
                flush=True,
            )
    result = {
        "schema": "m4v-eval/study-load/1",
        "setting": {
            "raters": given.raters,
            "screens": given.screens,
            "axes": len(AXES),
            "clips_a_screen": N_MODELS,
            "clip_bytes": round(sum(sizes) / len(sizes)),
            "sent_twice": AGAIN,
            "think_s": THINK_S,
        },
        "hardware": hardware("cpu"),
        "packages": versions(),
        "git": git(),
        "parts": parts,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
