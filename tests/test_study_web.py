"""The web app without a browser: blinding, sessions, forged and hostile requests, limits, and what is stored."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from evalkit import video
from evalkit.errors import RunFailed, UserError
from evalkit.study.plan_file import CLIPS, SECRET, save_plan
from evalkit.study.types import Plan
from evalkit.study.web import Options, Rate, build_app
from evalkit.study.web.limits import Buckets
from evalkit.study.web.media import ServedClip
from evalkit.study.web.options import public_origin
from evalkit.study.web.sessions import Sessions
from tests.served_study import PROMPTS, Kit, answers_of, link, make_plan, secrets_of, token, write_study

BASE = "http://127.0.0.1:8000"
AXES = ("aesthetic_quality", "motion_smoothness", "semantic_coherence")
SECURITY = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}


class Visitor:
    """A browser without scripts: keeps cookies, and says like a browser where its requests come from."""

    def __init__(self, app: FastAPI, runner: asyncio.Runner, address: str = "198.51.100.7", base: str = BASE) -> None:
        transport = httpx.ASGITransport(app, client=(address, 4711))
        self.client = httpx.AsyncClient(transport=transport, base_url=base)
        self.runner = runner
        self.base = base
        self.token = ""

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self.runner.run(self.client.request(method, path, **more))

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.ask("GET", path, **more)

    def enter(self, who: str) -> Visitor:
        assert self.get(link(who)).status_code == 303
        if who != "admin":
            self.token = self.data(0)["pageToken"]
        return self

    def data(self, screen: int) -> dict[str, Any]:
        found = re.search(r'id="screen-data">(.*?)</script>', self.get(f"/screen/{screen}").text, re.DOTALL)
        assert found is not None
        return json.loads(found[1])

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        sent = {
            "Origin": self.base,
            "X-Study-Token": self.token,
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }
        return self.ask("POST", path, json=body, headers=sent)

    def cast(self, answer: Any, screen: Any = 0, axis: Any = AXES[0], key: Any = None, **more: Any) -> httpx.Response:
        made = key or f"key-{screen}-{axis}-{answer}"
        body = {"key": re.sub(r"[^A-Za-z0-9]", "-", made)[:60], "screen": screen, "axis": axis, "answer": answer}
        return self.post("/answer", {**body, **more})

    def finish(self, screen: int) -> httpx.Response:
        for axis in AXES:
            assert self.cast([1, 2, 3], screen, axis).status_code == 200
        return self.post("/done", {"key": f"done-{screen:04}", "screen": screen, "seconds": 3})


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study whose clips other studies of the same make can use."""
    folder = tmp_path_factory.mktemp("clips")
    write_study(folder)
    return folder


@pytest.fixture
def study(tmp_path: Path, clips: Path) -> Path:
    return copied(clips, tmp_path / "study")


def copied(clips: Path, study: Path, kit: Kit | None = None) -> Path:
    study.mkdir()
    for file in clips.iterdir():
        if file.name == CLIPS:
            (study / CLIPS).symlink_to(file)
        else:
            (study / file.name).write_bytes(file.read_bytes())
    save_plan(study, make_plan(kit or Kit()))
    return study


@pytest.fixture
def plan() -> Plan:
    return make_plan(Kit())


@pytest.fixture
def serve(runner: asyncio.Runner) -> Iterator[Callable[..., FastAPI]]:
    apps: list[FastAPI] = []

    def build(study: Path, **options: Any) -> FastAPI:
        apps.append(build_app(study, Options(**options)))
        return apps[-1]

    yield build
    for app in apps:
        app.state.served.store.close()


@pytest.fixture
def app(study: Path, serve: Callable[..., FastAPI]) -> FastAPI:
    return serve(study)


@pytest.fixture
def visitor(app: FastAPI, runner: asyncio.Runner) -> Visitor:
    return Visitor(app, runner)


@pytest.fixture
def rater(visitor: Visitor) -> Visitor:
    return visitor.enter("r001")


def stored(app: FastAPI) -> list[tuple[str, int, str, tuple[int, ...]]]:
    return [(c.rater, c.screen, c.axis, c.answer) for c in app.state.served.store.answers()]


def error(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


# ---- blinding --------------------------------------------------------------------------------------------------------


def crawl(visitor: Visitor, start: str) -> dict[str, httpx.Response]:
    """Everything that can be reached from a page by its links, sources and data."""
    seen: dict[str, httpx.Response] = {}
    waiting = [start]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen[path] = response = visitor.get(path)
        if "text/html" in response.headers.get("content-type", ""):
            found = re.findall(r'(?:href|src)="(/[^"]*)"', response.text)
            found += re.findall(r'"(/clip/[^"]*)"', response.text)
            waiting += [address.replace("&amp;", "&") for address in found]
        if response.is_redirect:
            waiting.append(response.headers["location"])
        if path.startswith("/static/") and path.endswith(".js"):
            folder = path.rpartition("/")[0]
            waiting += [f"{folder}/{name}" for name in re.findall(r'from "\./([^"]+)"', response.text)]
    return seen


@pytest.mark.parametrize("protocol", ["rank", "pairwise", "likert5"])
def test_nothing_a_rater_gets_names_a_model_a_file_or_a_check(
    clips: Path, tmp_path: Path, serve: Callable[..., FastAPI], runner: asyncio.Runner, protocol: Any
) -> None:
    kit = Kit(protocol=protocol)
    visitor = Visitor(serve(copied(clips, tmp_path / "study", kit)), runner)
    plan = make_plan(kit)
    pages = {f"link {link('r001')}": visitor.get(link("r001"))}
    for screen in range(len(kit.kinds)):
        pages |= {f"{screen} {path}": response for path, response in crawl(visitor, "/").items()}
        visitor.token = visitor.data(screen)["pageToken"]
        for axis, answer in answers_of(kit, plan, "r001", screen).items():
            pages[f"cast {screen} {axis}"] = visitor.cast(answer, screen, axis)
        pages[f"done {screen}"] = visitor.post("/done", {"key": f"done-{screen:04}", "screen": screen})
        pages[f"state {screen}"] = visitor.get(f"/state/{screen}")
    pages |= {f"end {path}": response for path, response in crawl(visitor, "/").items()}
    pages |= {path: visitor.get(path) for path in ("/nothing", "/screen/99", "/clip/0/99", "/admin", "/clip/x/y")}
    pages["wrong"] = visitor.cast([9], 0)
    kinds = {response.headers.get("content-type", "").partition(";")[0] for response in pages.values()}
    assert {"text/html", "video/mp4", "application/json", "text/javascript", "text/css"} <= kinds
    assert sum(path.rpartition(" ")[2].startswith("/clip/") for path in pages) > 10
    assert any("/finish" in path for path in pages)
    words = [word.lower() for word in [*secrets_of(plan), *(token(who) for who in ("r002", "admin"))]]
    for path, response in pages.items():
        said = f"{response.headers} {response.url}".lower() + response.content.decode("utf-8", "replace").lower()
        assert [word for word in words if word in said] == [], path


def masked(text: str) -> str:
    """A page without its numbers and without what is drawn at random for each address."""
    return re.sub(r"\d+(\.\d+)?", "#", re.sub(r"[0-9a-f]{12,}", "@", text))


def test_a_check_looks_like_any_screen(
    clips: Path, tmp_path: Path, serve: Callable[..., FastAPI], runner: asyncio.Runner
) -> None:
    one = dict.fromkeys(PROMPTS, "the same words")
    kit = Kit(kinds=("vote", "identical", "degraded", "vote", "vote"), prompts=one)
    rater = Visitor(serve(copied(clips, tmp_path / "study", kit)), runner).enter("r001")
    shown = []
    for screen in range(4):
        page, clip = rater.get(f"/screen/{screen}"), [rater.get(f"/clip/{screen}/{place}") for place in range(3)]
        state, cast = rater.get(f"/state/{screen}"), rater.cast([1, 2, 3], screen)
        done = rater.finish(screen)
        headers = [{k: masked(v) for k, v in r.headers.items()} for r in (page, *clip, state, cast, done)]
        shown.append((masked(page.text), headers, masked(state.text), masked(cast.text), masked(done.text)))
        lengths = {r.headers["content-length"] for r in clip}
        assert len(lengths) == 3, "a clip shown twice is not seen by its length"
    # The first screen alone has no way back.
    assert shown[1] == shown[2] == shown[3]
    assert shown[0][1:] == shown[1][1:]


def test_all_clips_have_the_same_headers_and_none_tells_a_time_or_tag(rater: Visitor) -> None:
    seen = set()
    for screen in range(4):
        for place in range(3):
            response = rater.get(f"/clip/{screen}/{place}")
            headers = dict(response.headers)
            headers.pop("content-length")
            seen.add(json.dumps(headers, sort_keys=True))
            assert not {"last-modified", "etag", "content-disposition"} & set(headers)
    assert len(seen) == 1


def test_a_padded_clip_plays_as_before(rater: Visitor, study: Path, plan: Plan, tmp_path: Path) -> None:
    clip = plan.raters[0].screens[0].clips[1]
    (tmp_path / "served.mp4").write_bytes(rater.get("/clip/0/1").content)
    paths = (tmp_path / "served.mp4", study / CLIPS / f"{clip}.mp4")
    served, planned = (video.read_frames(path, range(16)) for path in paths)
    assert np.array_equal(served, planned)


def test_the_prompt_is_text(rater: Visitor) -> None:
    page = rater.get("/screen/0").text
    assert "&lt;script&gt;window.hacked = 1&lt;/script&gt; a cat &amp; a dog" in page
    assert "<script>window" not in page


# ---- sessions --------------------------------------------------------------------------------------------------------


def test_a_link_sets_a_strict_cookie_and_leads_away_from_the_token(visitor: Visitor) -> None:
    response = visitor.get(link("r001"))
    assert (response.status_code, response.headers["location"]) == (303, "/")
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert "path=/" in cookie.lower()
    assert "secure" not in cookie.lower()
    assert token("r001") not in cookie
    assert "Start" in visitor.get("/").text


def test_cookies_are_secure_behind_tls(study: Path, serve: Callable[..., FastAPI], runner: asyncio.Runner) -> None:
    visitor = Visitor(serve(study, public_url="https://study.example.org"), runner, base="https://study.example.org")
    response = visitor.get(link("r001"))
    assert "secure" in response.headers["set-cookie"].lower()
    assert response.headers["strict-transport-security"]
    assert visitor.enter("r001").cast([1, 2, 3]).status_code == 200


def test_a_link_in_a_mail_leads_on_by_a_page_of_our_own(visitor: Visitor) -> None:
    """A strict cookie is not sent along a redirect that another site has begun."""
    response = visitor.get(link("r001"), headers={"Sec-Fetch-Site": "cross-site"})
    assert response.status_code == 200
    assert '<meta http-equiv="refresh" content="0; url=/">' in response.text
    assert token("r001") not in response.text
    assert visitor.get("/").status_code == 200


@pytest.mark.parametrize(
    "forged",
    [
        "x",
        "%00",
        token("r001")[:-1],
        token("r001") + "a",
        token("r001").upper(),
        "a" * 5000,
        "%E2%98%83%F0%9F%8E%AC",
        "%FF%FE",
        "'%20OR%20'1'='1",
        "r001",
        "..%2f..%2fstudy.json",
        "%2e%2e",
    ],
)
@pytest.mark.parametrize("kind", ["r", "admin"])
def test_forged_links_open_nothing(visitor: Visitor, kind: str, forged: str) -> None:
    response = visitor.get(f"/{kind}/{forged}")
    assert response.status_code == 404
    assert "set-cookie" not in response.headers
    assert visitor.get("/").status_code == visitor.get("/admin").status_code == 401


def test_an_empty_link_opens_nothing(visitor: Visitor) -> None:
    assert [visitor.get(path).status_code for path in ("/r/", "/r", "/admin/", "/r//")] == [404] * 4


def test_a_rater_is_no_admin_and_an_admin_no_rater(app: FastAPI, runner: asyncio.Runner, study: Path) -> None:
    rater = Visitor(app, runner).enter("r001")
    for path in ("/admin", "/admin/export/votes.csv", "/admin/export/answers.json", "/admin/export/open-links.csv"):
        assert rater.get(path).status_code == 401
    assert rater.get(f"/r/{token('admin')}").status_code == rater.get(f"/admin/{token('r001')}").status_code == 404
    admin = Visitor(app, runner)
    assert admin.get(link("admin")).headers["location"] == "/admin"
    for path in ("/", "/screen/0", "/clip/0/0", "/state/0", "/finish", "/intro"):
        assert admin.get(path).status_code == 401


def test_cookies_cannot_be_forged_swapped_or_kept_for_ever(app: FastAPI, runner: asyncio.Runner, plan: Plan) -> None:
    sessions: Sessions = app.state.served.sessions
    good = sessions.seal("r001")
    who, issued, signature = good.split(".")
    bad = [
        f"r002.{issued}.{signature}",
        f"{who}.{int(issued) + 1}.{signature}",
        f"{who}.{issued}.{signature[::-1]}",
        f"{who}.{issued}.",
        f"{who}.{issued}",
        good + "0",
        sessions.seal("admin"),
        "",
        "." * 3,
        "\u00e9" * 20,
    ]
    assert sessions.rater(good) == "r001"
    assert [sessions.rater(cookie) for cookie in bad] == [None] * len(bad)
    for cookie in bad[:6]:
        visitor = Visitor(app, runner)
        assert visitor.get("/", headers={"Cookie": f"{sessions.cookie}={cookie}"}).status_code == 401
    other_secret = Sessions(b"x" * 32, plan)
    assert sessions.rater(other_secret.seal("r001")) is None
    late = Sessions(bytes(32), plan, clock=lambda: 1e9 + 61 * 86400)
    assert late.rater(Sessions(bytes(32), plan, clock=lambda: 1e9).seal("r001")) is None
    assert late.rater(Sessions(bytes(32), plan, clock=lambda: 1e9 + 5 * 86400).seal("r001")) == "r001"


def test_a_new_token_ends_the_sessions_of_the_old_one(plan: Plan) -> None:
    cookie = Sessions(bytes(32), plan).seal("r001")
    renewed = replace(plan, raters=(replace(plan.raters[0], token_sha256="0" * 64), *plan.raters[1:]))
    assert Sessions(bytes(32), plan).rater(cookie) == "r001"
    assert Sessions(bytes(32), renewed).rater(cookie) is None


def test_another_link_switches_and_the_first_raters_page_is_refused(app: FastAPI, visitor: Visitor) -> None:
    first = visitor.enter("r001").token
    tag = visitor.data(0)["tag"]
    assert visitor.cast([1, 2, 3]).status_code == 200
    visitor.enter("r002")
    second, visitor.token = visitor.token, first
    response = visitor.cast([3, 2, 1])
    assert error(response) == (403, "other-rater")
    assert "Open your own link again" in response.json()["error"]["message"]
    done = visitor.post("/done", {"key": "done-0001", "screen": 0})
    assert error(done) == (403, "other-rater")
    assert visitor.get(f"/clip/0/0?t={tag}").status_code == 403, "the page would show the wrong clips"
    assert stored(app) == [("r001", 0, AXES[0], (1, 2, 3))]
    visitor.token = second
    assert visitor.cast([2, 1, 3]).status_code == 200
    assert ("r002", 0, AXES[0], (2, 1, 3)) in stored(app)


def test_opening_ones_link_again_spoils_no_open_page(rater: Visitor) -> None:
    rater.get(link("r001"))
    assert rater.cast([1, 2, 3]).status_code == 200


# ---- requests from elsewhere -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "", "http://127.0.0.1:9000", "http://127.0.0.1:8000.evil.example"]
)
def test_foreign_origins_store_nothing(rater: Visitor, app: FastAPI, origin: str) -> None:
    assert error(rater.post("/answer", {"key": "key-00001", "screen": 0}, Origin=origin)) == (403, "origin")
    assert stored(app) == []


def test_a_page_token_is_needed(rater: Visitor, app: FastAPI, runner: asyncio.Runner) -> None:
    body = {"key": "key-00001", "screen": 0, "axis": AXES[0], "answer": [1, 2, 3]}
    for wrong in ("", "0" * 64, rater.token[:-1], "%00", rater.token.upper()):
        assert error(rater.post("/answer", body, X_Study_Token=wrong)) == (403, "page-token")
    without = rater.ask("POST", "/answer", json=body, headers={"Origin": BASE})
    assert error(without) == (403, "page-token")
    no_origin = rater.ask("POST", "/answer", json=body, headers={"X-Study-Token": rater.token})
    assert error(no_origin) == (403, "origin")
    stranger = Visitor(app, runner)
    stranger.token = rater.token
    assert error(stranger.post("/answer", body)) == (401, "no-session")
    assert stored(app) == []


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1:8000", True),
        ("localhost", True),
        ("LOCALHOST:80", True),
        ("[::1]:8000", True),
        ("study.example.org", True),
        ("study.example.org:8443", True),
        ("lab.example.org", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("192.0.2.1", False),
        ("", False),
        ("localhost@evil.example", False),
        ("localhost, evil.example", False),
    ],
)
def test_only_known_hosts(
    study: Path, serve: Callable[..., FastAPI], runner: asyncio.Runner, host: str, known: bool
) -> None:
    app = serve(study, public_url="https://study.example.org", hosts=("lab.example.org",))
    response = Visitor(app, runner).get("/robots.txt", headers={"Host": host})
    assert response.status_code == (200 if known else 421)


def test_on_all_addresses_any_address_is_known_but_no_name(
    study: Path, serve: Callable[..., FastAPI], runner: asyncio.Runner
) -> None:
    visitor = Visitor(serve(study, any_address=True), runner)
    found = [
        visitor.get("/robots.txt", headers={"Host": h}).status_code for h in ("192.0.2.1:80", "[2001:db8::1]", "x.org")
    ]
    assert found == [200, 200, 421]


def test_every_answer_carries_the_headers(rater: Visitor, app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    responses = [
        *(rater.get(path) for path in ("/", "/screen/0", "/screen/3", "/intro", "/state/0", "/clip/0/0", "/finish")),
        *(rater.get(path) for path in ("/nothing", "/admin", "/r/forged", "/clip/9/9", "/robots.txt", "/docs")),
        rater.get("/robots.txt", headers={"Host": "evil.example"}),
        rater.get("/clip/0/0", headers={"Range": "bytes=0-9"}),
        rater.get("/clip/0/0", headers={"Range": "bytes=99999999-"}),
        rater.ask("PUT", "/answer"),
        rater.ask("HEAD", "/"),
        rater.ask("OPTIONS", "/answer"),
        rater.cast([1, 2, 3]),
        rater.cast([1, 1, 1]),
        rater.post("/answer", "x" * 20_000),
        rater.post("/answer", {}, Origin="http://evil.example"),
        next(r for path, r in crawl(rater, "/").items() if path.endswith("screen.js")),
    ]
    assert {r.status_code for r in responses} >= {200, 206, 303, 401, 403, 404, 405, 413, 416, 421, 422}
    for response in responses:
        where = (response.request.method, response.request.url)
        for name, value in SECURITY.items():
            assert response.headers[name] == value, where
        policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'", where
        assert policy["frame-ancestors"] == "'none'", where
        for source in ("script-src", "style-src", "media-src", "img-src", "connect-src"):
            assert policy[source] == "'self'", where
        assert "unsafe" not in response.headers["content-security-policy"]
        assert "server" not in response.headers
        assert "traceback" not in response.text.lower()
        lasting = str(response.request.url.path).startswith("/static/")
        assert response.headers["cache-control"] == (
            "public, max-age=31536000, immutable" if lasting else "no-store"
        ), where


def test_the_interface_is_not_described(visitor: Visitor) -> None:
    for path in ("/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"):
        assert visitor.get(path).status_code == 404


def test_a_defect_gives_a_short_page_and_goes_to_the_log(
    rater: Visitor, app: FastAPI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object, **more: object) -> None:
        raise RuntimeError("Mellow-Mamba at /secret/path")

    monkeypatch.setattr(type(app.state.served.store), "answers_of", broken)
    with caplog.at_level(logging.ERROR):
        page, script = rater.get("/screen/0"), rater.get("/state/0")
    assert page.status_code == script.status_code == 500
    for response in (page, script):
        assert "Mellow" not in response.text
        assert "RuntimeError" not in response.text
        assert response.headers["content-security-policy"]
    assert error(script) == (500, "defect")
    assert "Mellow-Mamba at /secret/path" in caplog.text


def test_a_full_disk_is_told_and_to_be_tried_again(
    rater: Visitor, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **more: object) -> None:
        raise RunFailed("The votes in /secret/path cannot be reached.", "Free the disk.")

    monkeypatch.setattr(type(app.state.served.store), "cast", full)
    response = rater.cast([1, 2, 3])
    assert error(response) == (503, "store")
    assert int(response.headers["retry-after"]) > 0
    assert "secret" not in response.text


# ---- hostile and wrong submissions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([1, 2], "3 clips"),
        ([1, 2, 3, 4], "3 clips"),
        ([], "3 clips"),
        ([1, 1, 3], "no ties"),
        ([1, 2, 4], "from 1 to 3"),
        ([0, 1, 2], "from 1 to 3"),
        ([1, 3, 3], "no ties"),
        ([-1, 2, 3], "from 1 to 3"),
        ([1] * 101, "list of whole numbers"),
        ([1, 2, 10**30], "list of whole numbers"),
        (["1", 2, 3], "list of whole numbers"),
        ([1.0, 2.5, 3], "list of whole numbers"),
        ([True, 2, 3], "list of whole numbers"),
        ([None, 2, 3], "list of whole numbers"),
        ([[1], 2, 3], "list of whole numbers"),
        ("123", "list of whole numbers"),
        ({"0": 1}, "list of whole numbers"),
        (None, "list of whole numbers"),
    ],
)
def test_impossible_ranks_are_refused_in_words(rater: Visitor, app: FastAPI, answer: Any, words: str) -> None:
    response = rater.cast(answer, key="key-000001")
    assert response.status_code == 422
    assert words in response.json()["error"]["message"]
    assert stored(app) == []


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("screen", -1, "whole number"),
        ("screen", "0", "whole number"),
        ("screen", 1.5, "whole number"),
        ("screen", True, "whole number"),
        ("screen", None, "whole number"),
        ("screen", 10**40, "whole number"),
        ("axis", 3, "name of a question"),
        ("axis", "nothing_we_ask", "does not ask"),
        ("axis", "aesthetic_quality'; DROP TABLE answers; --", "does not ask"),
        ("axis", "\ud800", "name of a question"),
        ("axis", "x" * 300, "name of a question"),
        ("key", "short", "8 to 64"),
        ("key", "k" * 65, "8 to 64"),
        ("key", "'; DROP TABLE answers; --", "8 to 64"),
        ("key", "key-0001\n", "8 to 64"),
        ("key", 12345678, "8 to 64"),
        ("seconds", -1, "number from 0"),
        ("seconds", "3", "number from 0"),
        ("seconds", 1e300, "number from 0"),
        ("seconds", float("nan"), "number from 0"),
        ("seconds", float("inf"), "number from 0"),
        ("rater", "r002", "no submission"),
    ],
)
def test_wrong_fields_are_named(rater: Visitor, app: FastAPI, field: str, value: Any, words: str) -> None:
    body = {"key": "key-00001", "screen": 0, "axis": AXES[0], "answer": [1, 2, 3], field: value}
    headers = {"Origin": BASE, "X-Study-Token": rater.token, "Content-Type": "application/json"}
    response = rater.ask("POST", "/answer", content=json.dumps(body), headers=headers)
    assert response.status_code == 422
    assert words in response.json()["error"]["message"]
    assert stored(app) == []


@pytest.mark.parametrize("path", ["/answer", "/done"])
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "application/json"),
        (b"null", "application/json"),
        (b"[]", "application/json"),
        (b"{", "application/json"),
        (b"[" * 8000, "application/json"),
        (b"\xff\xfe\x00", "application/json"),
        (b"9" * 8000, "application/json"),
        (b'{"key": "key-00001", "screen": 0, "axis": "aesthetic_quality", "answer": [1, 2, 3]}', "text/plain"),
        (b"key=key-00001&screen=0", "application/x-www-form-urlencoded"),
    ],
)
def test_bodies_that_are_none(rater: Visitor, app: FastAPI, path: str, content: bytes, kind: str) -> None:
    headers = {"Origin": BASE, "X-Study-Token": rater.token, "Content-Type": kind}
    response = rater.ask("POST", path, content=content, headers=headers)
    assert error(response)[0] in (400, 422)
    assert stored(app) == []


def test_huge_bodies_are_cut_off(rater: Visitor, app: FastAPI) -> None:
    asked = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal asked
        for _ in range(100_000):
            asked += 1
            yield b"x" * 4096

    headers = {"Origin": BASE, "X-Study-Token": rater.token, "Content-Type": "application/json"}
    assert error(rater.ask("POST", "/answer", content=endless(), headers=headers)) == (413, "too-large")
    assert asked < 10, "the rest is never read"
    assert error(rater.post("/answer", "x" * 20_000)) == (413, "too-large")
    lying = {**headers, "Content-Length": "9" * 400}
    assert rater.ask("POST", "/answer", content=b"{}", headers=lying).status_code == 413
    assert rater.cast([1, 2, 3]).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/clip/0/../../study.json",
        "/clip/..%2f..%2fstudy.json/0",
        "/clip/0/..%2f..%2f..%2fsecret",
        "/clip/0/%2e%2e",
        "/clip/0/0/../../../links.csv",
        "/static/../study.json",
        "/static/x/..%2f..%2fvotes.py",
        "/clips/",
        "/study.json",
        "/votes.sqlite",
        "/clip/-1/0",
        "/clip/0/-1",
        "/clip/0/3",
        "/clip/4/0",
        "/clip/" + "9" * 5000 + "/0",
        "/clip/%D9%A3/0",
        "/clip/0x0/0",
        "/clip/0/0.mp4",
        "/clip/1e0/0",
        "/screen/" + "1" * 5000,
        "/screen/-1",
        "/state/99",
        "/screen/0/",
    ],
)
def test_no_path_leads_outside_or_to_what_is_not_there(rater: Visitor, path: str) -> None:
    """The path is given as it is: a client may tidy it up, an attacker's does not."""
    raw = httpx.URL(BASE).copy_with(raw_path=path.encode())
    assert rater.runner.run(rater.client.request("GET", raw)).status_code == 404


def test_clips_are_for_their_rater_only(app: FastAPI, runner: asyncio.Runner, plan: Plan, study: Path) -> None:
    assert Visitor(app, runner).get("/clip/0/0").status_code == 401
    for rater in plan.raters:
        visitor = Visitor(app, runner).enter(rater.id)
        for screen, shown in enumerate(rater.screens):
            for place, clip in enumerate(shown.clips):
                data = (study / CLIPS / f"{clip}.mp4").read_bytes()
                assert visitor.get(f"/clip/{screen}/{place}").content.startswith(data)


def test_answers_to_screens_one_does_not_have(rater: Visitor, app: FastAPI) -> None:
    assert error(rater.cast([1, 2, 3], screen=4)) == (404, "not-found")
    assert error(rater.post("/done", {"key": "done-0001", "screen": 4})) == (404, "not-found")
    assert stored(app) == []


# ---- ranges ----------------------------------------------------------------------------------------------------------


def test_ranges(rater: Visitor) -> None:
    whole = rater.get("/clip/0/0")
    data, total = whole.content, len(whole.content)
    assert (whole.status_code, int(whole.headers["content-length"])) == (200, total)
    assert whole.headers["accept-ranges"] == "bytes"
    for wanted, start, stop in (
        ("bytes=0-", 0, total),
        ("bytes=0-0", 0, 1),
        ("bytes=10-99", 10, 100),
        (f"bytes={total - 3}-", total - 3, total),
        (f"bytes={total - 3}-{total + 900}", total - 3, total),
        ("bytes=-5", total - 5, total),
        (f"bytes=-{total + 5}", 0, total),
    ):
        part = rater.get("/clip/0/0", headers={"Range": wanted})
        assert (part.status_code, part.content) == (206, data[start:stop]), wanted
        assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{total}"
    for beyond in (f"bytes={total}-", "bytes=-0", "bytes=999999999999999-"):
        refused = rater.get("/clip/0/0", headers={"Range": beyond})
        assert (refused.status_code, refused.headers["content-range"]) == (416, f"bytes */{total}"), beyond
    for ignored in ("bytes=5-2", "bytes=-", "bytes=0-1,5-6", "items=0-1", "bytes=a-b", "bytes=" + "9" * 99 + "-", ""):
        assert rater.get("/clip/0/0", headers={"Range": ignored}).content == data, ignored
    conditional = rater.get("/clip/0/0", headers={"Range": "bytes=0-1", "If-Range": '"tag"'})
    assert (conditional.status_code, conditional.content) == (200, data)


@given(size=st.integers(0, 300), padding=st.integers(8, 300), data=st.data())
def test_reading_any_part_is_slicing_the_whole(
    size: int, padding: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("part") / "clip.mp4"
    path.write_bytes(bytes(n % 251 for n in range(size)))
    clip = ServedClip(path, size, padding)
    whole = path.read_bytes() + padding.to_bytes(4, "big") + b"free" + bytes(padding - 8)
    start = data.draw(st.integers(0, clip.total))
    stop = data.draw(st.integers(start, clip.total))
    assert b"".join(clip.read(start, stop)) == whole[start:stop]


def test_a_browser_keeps_clips_of_one_rater_apart_from_anothers(rater: Visitor) -> None:
    first = rater.data(0)["tag"]
    kept = rater.get(f"/clip/0/0?t={first}")
    assert kept.headers["cache-control"] == "private, max-age=86400, immutable"
    assert rater.enter("r002").data(0)["tag"] != first


# ---- pace ------------------------------------------------------------------------------------------------------------


def test_buckets_fill_again() -> None:
    now = [0.0]
    buckets = Buckets(Rate(per_s=2, burst=3), clock=lambda: now[0])
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 0]
    assert buckets.take("a") == pytest.approx(0.5)
    assert buckets.take("b") == 0
    now[0] = 0.5
    assert buckets.take("a") == 0
    assert buckets.take("a") > 0
    now[0] = 100
    assert [buckets.take("a") > 0 for _ in range(4)] == [False] * 3 + [True], "no more than the burst is saved up"


def test_buckets_stay_few() -> None:
    buckets = Buckets(Rate(1, 1), clock=lambda: 0.0)
    for n in range(25_000):
        buckets.take(str(n))
    assert len(buckets._buckets) == 10_000


def test_a_flood_of_forged_links_is_slowed_down_and_honest_ones_are_not(app: FastAPI, runner: asyncio.Runner) -> None:
    attacker = Visitor(app, runner, address="203.0.113.5")
    statuses = [attacker.get(f"/r/forged{n}").status_code for n in range(60)]
    assert statuses[:20] == [404] * 20
    assert statuses[25:] == [429] * 35
    refused = attacker.get("/admin/forged")
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert attacker.get(link("r001")).status_code == 303, "a colleague behind the same address"
    assert Visitor(app, runner).get("/r/forged").status_code == 404, "another address"


def test_one_rater_and_one_address_are_bounded(
    study: Path, serve: Callable[..., FastAPI], runner: asyncio.Runner
) -> None:
    app = serve(study, per_rater=Rate(0.001, 12), per_address=Rate(0.001, 40))
    first, second = Visitor(app, runner).enter("r001"), Visitor(app, runner).enter("r002")
    assert [first.get("/state/0").status_code for _ in range(14)] == [200] * 11 + [429] * 3
    assert error(first.cast([1, 2, 3])) == (429, "too-fast")
    assert second.get("/state/0").status_code == 200
    statuses = [Visitor(app, runner).get("/robots.txt").status_code for _ in range(40)]
    assert statuses.index(429) < 30
    assert Visitor(app, runner, address="192.0.2.9").get("/robots.txt").status_code == 200
    assert stored(app) == []


@pytest.mark.parametrize(("trusted", "refused"), [(True, False), (False, True)])
def test_behind_a_proxy_the_last_address_counts(
    study: Path, serve: Callable[..., FastAPI], runner: asyncio.Runner, trusted: bool, refused: bool
) -> None:
    app = serve(study, per_address=Rate(0.001, 5), trust_proxy=trusted)
    proxy = Visitor(app, runner, address="127.0.0.1")
    for n in range(12):
        last = proxy.get("/robots.txt", headers={"X-Forwarded-For": f"203.0.113.9, 192.0.2.{n}"})
    assert (last.status_code == 429) == refused
    if trusted:
        spoofed = [proxy.get("/robots.txt", headers={"X-Forwarded-For": f"192.0.2.{n}, 203.0.113.1"}) for n in range(8)]
        assert spoofed[-1].status_code == 429, "what the client wrote itself does not count"


def test_honest_use_meets_no_limit(
    clips: Path, tmp_path: Path, serve: Callable[..., FastAPI], runner: asyncio.Runner
) -> None:
    """A rater in haste: every request of a study at once, with the ranges a browser asks for and a few reloads."""
    app = serve(copied(clips, tmp_path / "study"))
    rater = Visitor(app, runner).enter("r001")
    for screen in range(4):
        statuses = [rater.get(f"/screen/{screen}").status_code for _ in range(3)]
        for place in range(3):
            for wanted in ("bytes=0-", "bytes=0-999", "bytes=500-"):
                statuses.append(rater.get(f"/clip/{screen}/{place}", headers={"Range": wanted}).status_code)
        statuses.append(rater.finish(screen).status_code)
        assert set(statuses) <= {200, 206}


# ---- voting ----------------------------------------------------------------------------------------------------------


def test_a_whole_study_resumes_and_can_be_corrected(rater: Visitor, app: FastAPI) -> None:
    assert "Start" in rater.get("/").text
    assert rater.get("/screen/2").headers["location"] == "/screen/0", "screens come in order"
    assert rater.get("/finish").headers["location"] == "/screen/0"
    for screen in range(4):
        assert f"{screen + 1} of 4" in rater.get(f"/screen/{screen}").text
        done = rater.finish(screen).json()
        assert done == {"next": f"/screen/{screen + 1}" if screen < 3 else "/finish", "repeated": False}
        again = Visitor(app, rater.runner)
        assert again.get(link("r001")).status_code == 303
        assert again.get("/").headers["location"] == done["next"]
    assert "Thank you" in rater.get("/finish").text
    assert rater.cast([3, 2, 1], 1, AXES[1]).json() == {"revision": 2, "repeated": False}
    assert rater.data(1)["answers"] == {AXES[0]: [1, 2, 3], AXES[1]: [3, 2, 1], AXES[2]: [1, 2, 3]}
    assert rater.get("/state/1").json()["answers"][AXES[1]] == [3, 2, 1]
    assert ("r001", 1, AXES[1], (3, 2, 1)) in stored(app)
    assert len(stored(app)) == 12


def test_nothing_is_stored_twice(rater: Visitor, app: FastAPI) -> None:
    assert rater.cast([1, 2, 3], key="key-00001").json() == {"revision": 1, "repeated": False}
    assert rater.cast([1, 2, 3], key="key-00001").json() == {"revision": 1, "repeated": True}
    assert error(rater.cast([3, 2, 1], key="key-00001")) == (409, "contradiction")
    assert error(rater.post("/done", {"key": "done-0001", "screen": 0})) == (409, "contradiction")
    for axis in AXES:
        rater.cast([1, 2, 3], axis=axis)
    first = rater.post("/done", {"key": "done-0002", "screen": 0})
    assert first.json() == {"next": "/screen/1", "repeated": False}
    assert rater.post("/done", {"key": "done-0002", "screen": 0}).json() == {"next": "/screen/1", "repeated": True}
    assert len(app.state.served.store.log()["completions"]) == 1


def test_seconds_add_up_over_visits(rater: Visitor) -> None:
    assert rater.data(0)["seconds"] == 0
    rater.cast([1, 2, 3], seconds=7)
    assert rater.data(0)["seconds"] == 7.0


@pytest.mark.parametrize(
    ("protocol", "good", "bad"),
    [("pairwise", [[-1], [0], [1]], [[2], [], [1, 0]]), ("likert5", [[-2], [0], [2]], [[3], [-3], [1, 2]])],
)
def test_the_other_protocols(
    clips: Path,
    tmp_path: Path,
    serve: Callable[..., FastAPI],
    runner: asyncio.Runner,
    protocol: Any,
    good: list[list[int]],
    bad: list[list[int]],
) -> None:
    app = serve(copied(clips, tmp_path / "study", Kit(protocol=protocol)))
    rater = Visitor(app, runner).enter("r001")
    assert [rater.cast(answer).status_code for answer in good] == [200] * 3
    assert [rater.cast(answer).status_code for answer in bad] == [422] * 3
    assert stored(app) == [("r001", 0, AXES[0], tuple(good[-1]))]


def test_ties_where_the_plan_allows_them(
    clips: Path, tmp_path: Path, serve: Callable[..., FastAPI], runner: asyncio.Runner
) -> None:
    app = serve(copied(clips, tmp_path / "study", Kit(ties=True)))
    rater = Visitor(app, runner).enter("r001")
    assert [rater.cast(answer).status_code for answer in ([1, 1, 3], [1, 1, 1], [2, 1, 2])] == [200] * 3
    response = rater.cast([1, 1, 2])
    assert response.status_code == 422
    assert "hole" in response.json()["error"]["message"]


def test_a_restart_goes_on_where_it_was(study: Path, serve: Callable[..., FastAPI], runner: asyncio.Runner) -> None:
    first = serve(study)
    rater = Visitor(first, runner).enter("r001")
    rater.finish(0)
    first.state.served.store.close()
    second = serve(study)
    rater.client._transport = httpx.ASGITransport(second, client=("198.51.100.7", 1))
    assert rater.cast([3, 1, 2], screen=1).status_code == 200, "the same page and the same cookie"
    assert len(stored(second)) == 4


# ---- the admin -------------------------------------------------------------------------------------------------------


def test_the_admin_sees_progress_checks_agreement_and_exports(
    clips: Path, tmp_path: Path, serve: Callable[..., FastAPI], runner: asyncio.Runner
) -> None:
    kit = Kit(n_raters=4)
    study = copied(clips, tmp_path / "study", kit)
    app, plan = serve(study), make_plan(kit)
    for who, fails in (("r001", False), ("r002", False), ("r003", True)):
        rater = Visitor(app, runner).enter(who)
        for screen in range(3 if who == "r002" else 4):
            for axis in AXES:
                assert rater.cast(honest(plan, who, screen, fails), screen, axis).status_code == 200
            assert rater.post("/done", {"key": f"done-{screen:04}", "screen": screen}).status_code == 200
    admin = Visitor(app, runner).enter("admin")
    page = admin.get("/admin").text
    rows = [
        re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", row)).strip()
        for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    ]
    by_rater = {row.split()[0]: row for row in rows if row.startswith("r0")}
    assert "4 of 4" in by_rater["r001"]
    assert "0 of 2 yes" in by_rater["r001"]
    assert "3 of 4" in by_rater["r002"]
    assert "2 of 2 no: failed 2 of 2 attention checks" in by_rater["r003"]
    assert "never" in by_rater["r004"]
    aesthetic = next(row for row in rows if row.startswith("Aesthetic quality"))
    assert aesthetic.split()[2] == "3", "votes of the two raters who count: two screens and one"
    table = list(csv.DictReader(io.StringIO(admin.get("/admin/export/votes.csv").text)))
    assert {row["model"] for row in table} == set(plan.models)
    assert {row["rater"] for row in table} == {"r001", "r002"}
    everything = admin.get("/admin/export/answers.json")
    assert len(everything.json()["answers"]) == 33
    assert token("r001") not in everything.text
    assert 'sha256": "' + plan.raters[0].token_sha256 not in everything.text
    links = list(csv.DictReader(io.StringIO(admin.get("/admin/export/open-links.csv").text)))
    assert [(row["who"], row["done"]) for row in links] == [("r002", "3"), ("r004", "0")]
    assert links[0]["link"] == link("r002")


def honest(plan: Plan, who: str, screen: int, fails: bool) -> list[int]:
    """Models by name, the spoiled clip last; who fails puts twins far apart and the spoiled one first."""
    shown = next(r for r in plan.raters if r.id == who).screens[screen]

    def key(place: int) -> Any:
        clip = plan.clips[shown.clips[place]]
        if fails and shown.kind != "vote":
            return (not clip.degraded, place) if shown.kind == "degraded" else place
        return (clip.degraded, clip.model, place)

    order = sorted(range(len(shown.clips)), key=key)
    return [1 + order.index(place) for place in range(len(shown.clips))]


# ---- what is served --------------------------------------------------------------------------------------------------


def test_a_clip_that_is_missing_or_lies_outside_is_named(study: Path, plan: Plan, tmp_path: Path) -> None:
    clips = study / CLIPS
    inside = clips.resolve()
    clips.unlink()
    clips.mkdir()
    for file in inside.iterdir():
        (clips / file.name).write_bytes(file.read_bytes())
    victim = clips / f"{plan.raters[0].screens[0].clips[0]}.mp4"
    data = victim.read_bytes()
    victim.unlink()
    with pytest.raises(UserError, match="lacks 1 of 24 clips"):
        build_app(study)
    (tmp_path / "elsewhere.mp4").write_bytes(data)
    victim.symlink_to(tmp_path / "elsewhere.mp4")
    with pytest.raises(UserError, match="outside"):
        build_app(study)
    name = "../../elsewhere"
    screens = tuple(replace(s, clips=(name, *s.clips[1:])) for s in plan.raters[0].screens)
    hostile = replace(
        plan,
        clips={**plan.clips, name: replace(next(iter(plan.clips.values())), id=name)},
        raters=(replace(plan.raters[0], screens=screens),),
    )
    save_plan(study, hostile)
    victim.unlink()
    victim.write_bytes(data)
    with pytest.raises(UserError, match="elsewhere"):
        build_app(study)


@pytest.mark.parametrize("text", [None, "", "abc", "zz" * 32, "00" * 8])
def test_a_damaged_secret_is_named(study: Path, text: str | None) -> None:
    (study / SECRET).unlink()
    if text is not None:
        (study / SECRET).write_text(text)
    with pytest.raises(UserError, match="secret"):
        build_app(study)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://study.example.org/", "https://study.example.org"),
        ("https://Study.example.org:443", "https://study.example.org"),
        ("http://192.0.2.1:8000", "http://192.0.2.1:8000"),
        ("http://[::1]:80/", "http://[::1]"),
    ],
)
def test_public_origins(url: str, origin: str) -> None:
    assert public_origin(url) == origin


@pytest.mark.parametrize(
    "url",
    ["study.example.org", "ftp://x", "https://", "https://x/path", "https://u@x", "https://x:y", "https://x?a=1", ""],
)
def test_urls_that_are_no_origin(url: str) -> None:
    with pytest.raises(UserError):
        public_origin(url)
