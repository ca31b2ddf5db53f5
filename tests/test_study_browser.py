"""The study in headless Chromium, against a real server: voting by mouse, touch and keyboard, and what may go wrong."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from evalkit.study.plan_file import VOTES
from evalkit.study.types import AXES
from evalkit.study.votes import VoteStore
from tests.browser import chromium, complaints, horizontal_overflow, requests
from tests.served_study import PROMPTS, Kit, link, write_study
from tests.study_server import Server, serving
from tests.test_report_browser import CONTRASTS

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("study-browser")]

WAIT_S = 15
NAMES = [axis.name for axis in AXES]
KINDS = ("vote", "identical", "degraded")
KIT = Kit(n_models=4, n_raters=14, kinds=KINDS, size=(96, 54))
FINISHED = "r014"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A study of three screens, each with four clips to rank; tests that vote have raters of their own."""
    study = tmp_path_factory.mktemp("served") / "study"
    votes = VoteStore(study / VOTES).open(write_study(study, KIT))
    for screen in range(len(KINDS)):
        for axis in NAMES:
            votes.cast(FINISHED, screen, axis, (1, 2, 3, 4), key=f"{screen} {axis}")
        votes.finish(FINISHED, screen, NAMES, key=f"{screen}")
    votes.close()
    with serving(study) as running:
        yield running


@pytest.fixture(scope="module")
def laptop() -> Iterator[Chrome]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(laptop: Chrome, server: Server) -> Iterator[Page]:
    """A browser that nobody has used; at the end it must not have complained or called out."""
    laptop.get("about:blank")  # the last test's page may still load clips ahead, and would be told that it is unknown
    laptop.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": server.origin, "storageTypes": "all"})
    complaints(laptop)  # that page has been asked for its own
    yield Page(laptop, server)
    assert complaints(laptop) == []
    assert all(url.startswith(server.origin) for url in requests(laptop))
    assert laptop.execute_script("return window.hacked") is None


class Page:
    """A rater's browser."""

    def __init__(self, browser: Chrome, server: Server) -> None:
        self.browser = browser
        self.server = server

    def open(self, who: str, screen: int | None = None) -> Page:
        self.browser.get(self.server.origin + link(who))
        if screen is not None:
            self.go(f"/screen/{screen}")
        return self

    def go(self, path: str) -> Page:
        self.browser.get(self.server.origin + path)
        return self

    @property
    def path(self) -> str:
        return str(self.browser.current_url).removeprefix(self.server.origin)

    def js(self, code: str, *arguments: Any) -> Any:
        return self.browser.execute_script(code, *arguments)

    def find(self, css: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, css)

    def wait(self, condition: Callable[[], Any], why: str = "") -> Any:
        return WebDriverWait(self.browser, WAIT_S, poll_frequency=0.05).until(lambda _: condition(), why)

    def at(self, path: str) -> None:
        self.wait(lambda: self.path == path, f"not at {path}, but {self.path}")

    def card(self, axis: str, letter: str) -> WebElement:
        found = self.js(
            "return [...document.querySelectorAll(`[data-axis='${arguments[0]}'] .card`)]"
            ".find((card) => card.textContent === arguments[1])",
            axis,
            letter,
        )
        assert isinstance(found, WebElement)
        return found

    def order(self, axis: str) -> str:
        """Letters by place, `-` for a free one."""
        letters = self.js(
            "return [...document.querySelectorAll(`[data-axis='${arguments[0]}'] .place`)]"
            ".map((place) => place.querySelector('.card-letter')?.textContent ?? '-')",
            axis,
        )
        return "".join(letters)

    def tap(self, axis: str, letters: str) -> None:
        for letter in letters:
            card = self.card(axis, letter)
            self.js("arguments[0].scrollIntoView({block: 'center'})", card)
            card.click()

    def tap_all(self, *orders: str) -> None:
        for axis, letters in zip(NAMES, orders, strict=True):
            self.tap(axis, letters)

    def state(self) -> str:
        return str(self.find("#saving").get_attribute("data-state"))

    def saved(self) -> None:
        self.wait(lambda: self.state() == "saved", "not saved")

    def next(self) -> None:
        self.find("#next").click()

    def stored(self, rater: str) -> dict[tuple[int, str], tuple[tuple[int, ...], int]]:
        answers = VoteStore(self.server.study / VOTES).answers()
        return {(cast.screen, cast.axis): (cast.answer, cast.revision) for cast in answers if cast.rater == rater}


def ranks(order: str) -> tuple[int, ...]:
    """The answer that an order of letters is: the rank of A, of B, ..."""
    return tuple(1 + order.index(letter) for letter in sorted(order))


def drag(browser: Chrome, card: WebElement, target: WebElement) -> None:
    still = "return document.getAnimations().every((animation) => animation.playState === 'finished')"
    WebDriverWait(browser, WAIT_S, poll_frequency=0.02).until(lambda _: browser.execute_script(still))
    browser.execute_script("arguments[0].closest('.question').scrollIntoView({block: 'center'})", card)
    ActionChains(browser, duration=20).click_and_hold(card).move_to_element(target).release().perform()


# ---- whole studies ---------------------------------------------------------------------------------------------------


def by_taps(page: Page, screen: int) -> list[str]:
    orders = ["DABC", "ABCD", "BADC"]
    page.tap_all(*orders)
    return orders


def by_keyboard(page: Page, screen: int) -> list[str]:
    """Tab to a question, letters best to worst; in the second by numbers, in the third by Enter and arrows."""
    tab_to(page, f"[data-axis='{NAMES[0]}'] .card")
    press(page, "c", "a", "d", "b")
    tab_to(page, f"[data-axis='{NAMES[1]}'] .card")
    press(page, "4", "2", "1", "3")  # A, then the focus goes on to B, C and D
    tab_to(page, f"[data-axis='{NAMES[2]}'] .card")
    press(page, Keys.ENTER, Keys.ENTER, Keys.ENTER, Keys.ENTER, Keys.ARROW_LEFT, Keys.HOME)
    return ["CADB", "CBDA", "DABC"]


def by_dragging(page: Page, screen: int) -> list[str]:
    orders = ["BDAC", "ACBD", "DCBA"]
    for axis, order in zip(NAMES, orders, strict=True):
        slots = page.browser.find_elements(By.CSS_SELECTOR, f"[data-axis='{axis}'] .place")
        for place in (3, 0, 2, 1):
            drag(page.browser, page.card(axis, order[place]), slots[place])
    return orders


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.browser.switch_to.active_element.send_keys(key)


def tab_to(page: Page, css: str) -> None:
    """Press Tab until the first of these elements has the focus."""
    target = page.find(css)
    for _ in range(60):
        if page.browser.switch_to.active_element == target:
            return
        ActionChains(page.browser).send_keys(Keys.TAB).perform()
    raise AssertionError(f"Tab never reaches {css}")


def whole_study(server: Server, rater: str, way: Callable[[Page, int], list[str]], width: int) -> dict[Any, Any]:
    """Vote on every screen; returns what should be stored."""
    expected = {}
    with chromium(width, 800) as browser:
        page = Page(browser, server).open(rater)
        keyboard = way is by_keyboard
        follow(page, "a.primary", keyboard)
        for screen in range(len(KINDS)):
            page.at(f"/screen/{screen}")
            assert page.find("#progress-text").text == f"{screen + 1} of {len(KINDS)}"
            assert not page.find("#next").is_enabled()
            for axis, order in zip(NAMES, way(page, screen), strict=True):
                assert page.order(axis) == order
                expected[screen, axis] = (ranks(order), 1)
            if keyboard:
                expected[screen, NAMES[2]] = (ranks("DABC"), 3)  # complete, then moved twice
            page.saved()
            follow(page, "#next", keyboard)
        page.at("/finish")
        assert "Thank you" in page.find("h1").text
        assert page.js("return window.hacked") is None
        assert complaints(browser) == []
        page.open(rater)
        page.at("/finish")
    return expected


def follow(page: Page, css: str, keyboard: bool) -> None:
    if keyboard:
        tab_to(page, css)
        press(page, Keys.ENTER)
    else:
        page.find(css).click()


def test_three_raters_at_once_by_taps_keyboard_and_drag(server: Server) -> None:
    ways = [("r001", by_taps, 1280), ("r002", by_keyboard, 1280), ("r003", by_dragging, 1000)]
    with ThreadPoolExecutor(3) as pool:
        expected = list(pool.map(lambda way: whole_study(server, *way), ways))
    for (rater, _, _), answers in zip(ways, expected, strict=True):
        assert Page(None, server).stored(rater) == answers  # type: ignore[arg-type]
    progress = VoteStore(server.study / VOTES).progress()
    assert all(progress[rater].done == {0, 1, 2} for rater, _, _ in ways)


# ---- ranking ---------------------------------------------------------------------------------------------------------


def test_moving_making_room_and_taking_back(page: Page) -> None:
    page.open("r004", 0)
    axis = NAMES[0]
    slots = page.browser.find_elements(By.CSS_SELECTOR, f"[data-axis='{axis}'] .place")
    tray = page.find(f"[data-axis='{axis}'] .tray")
    page.tap(axis, "AB")
    assert page.order(axis) == "AB--"
    drag(page.browser, page.card(axis, "C"), slots[0])
    assert page.order(axis) == "CAB-", "those in between make room"
    drag(page.browser, page.card(axis, "D"), slots[1])
    assert page.order(axis) == "CDAB"
    drag(page.browser, page.card(axis, "C"), slots[3])
    assert page.order(axis) == "DABC"
    drag(page.browser, page.card(axis, "A"), tray)
    assert page.order(axis) == "D-BC"
    drag(page.browser, page.card(axis, "B"), page.find("#prompt"))
    assert page.order(axis) == "D-BC", "dropped elsewhere, it goes back"
    page.tap(axis, "B")
    assert page.order(axis) == "D--C"
    page.tap(axis, "BA")
    assert page.order(axis) == "DBAC"
    page.saved()
    assert page.stored("r004")[0, axis][0] == ranks("DBAC")


def test_what_is_said_to_those_who_do_not_see(page: Page) -> None:
    page.open("r004", 0)
    axis = NAMES[1]
    said = page.find("#announcer")
    assert said.get_attribute("aria-live") == "polite"
    page.js("arguments[0].focus()", page.card(axis, "B"))
    press(page, "2")
    assert said.text == "Motion smoothness: clip B place 2 of 4; 3 clips left."
    assert page.card(axis, "B").get_attribute("aria-label") == "Clip B, place 2 of 4"
    assert page.browser.switch_to.active_element == page.card(axis, "C"), "the focus goes on to the next clip"
    press(page, Keys.ARROW_RIGHT)
    assert page.browser.switch_to.active_element == page.card(axis, "D")
    press(page, "9", "x", Keys.ARROW_RIGHT)
    assert page.order(axis) == "-B--", "keys that mean nothing do nothing"
    page.js("arguments[0].focus()", page.card(axis, "B"))
    press(page, Keys.DELETE)
    assert said.text == "Motion smoothness: clip B has no place; 4 clips left."
    outline = page.js("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "the focus is seen"


def test_half_a_ranking_survives_a_reload(page: Page) -> None:
    page.open("r005", 0)
    page.tap(NAMES[0], "DB")
    page.tap(NAMES[1], "ABCD")
    page.saved()
    page.browser.refresh()
    assert (page.order(NAMES[0]), page.order(NAMES[1]), page.order(NAMES[2])) == ("DB--", "ABCD", "----")
    assert not page.find("#next").is_enabled()
    page.tap(NAMES[0], "AC")
    page.tap(NAMES[2], "CDAB")
    page.saved()
    page.browser.refresh()
    assert [page.order(axis) for axis in NAMES] == ["DBAC", "ABCD", "CDAB"]
    assert page.find("#next").is_enabled()
    assert page.stored("r005") == {
        (0, axis): (ranks(order), 1) for axis, order in zip(NAMES, ("DBAC", "ABCD", "CDAB"), strict=True)
    }


def test_ties_where_they_are_allowed(tmp_path: Path) -> None:
    write_study(tmp_path / "study", Kit(ties=True, kinds=("vote",), n_raters=1))
    with serving(tmp_path / "study") as server, chromium() as browser:
        page = Page(browser, server).open("r001", 0)
        axis = NAMES[0]
        ties = page.browser.find_elements(By.CSS_SELECTOR, f"[data-axis='{axis}'] .tie")
        assert [tie.is_displayed() for tie in ties] == [False, False]
        page.tap(axis, "CAB")
        ties[0].click()
        page.saved()
        assert page.stored("r001")[0, axis] == ((1, 3, 1), 2)
        assert [name.text for name in browser.find_elements(By.CSS_SELECTOR, f"[data-axis='{axis}'] .place-name")] == [
            "1",
            "1",
            "3",
        ]
        page.js("arguments[0].focus()", page.card(axis, "B"))
        press(page, "=")
        assert page.card(axis, "B").get_attribute("aria-label") == "Clip B, equal place 1 of 3"
        page.saved()
        browser.refresh()
        page.js("arguments[0].focus()", page.card(axis, "C"))
        press(page, Keys.HOME)
        page.saved()
        assert page.order(axis) == "CAB"
        assert page.stored("r001")[0, axis][0] == (2, 2, 1), "A and B stay equal, C is no longer theirs"
        assert complaints(browser) == []


@pytest.mark.parametrize(("protocol", "keys"), [("pairwise", 3), ("likert5", 5)])
def test_choices_between_two(tmp_path: Path, protocol: Any, keys: int) -> None:
    write_study(tmp_path / "study", Kit(protocol=protocol, kinds=("vote", "identical"), n_raters=1))
    with serving(tmp_path / "study") as server, chromium(360, 740, touch=True) as browser:
        page = Page(browser, server).open("r001", 0)
        assert horizontal_overflow(browser) == 0
        levels = browser.find_elements(By.CSS_SELECTOR, f"[data-axis='{NAMES[0]}'] .level")
        assert len(levels) == keys
        page.js("arguments[0].scrollIntoView({block: 'center'})", levels[0])
        levels[0].click()
        page.saved()
        page.js("arguments[0].querySelector('input').focus()", page.find(f"[data-axis='{NAMES[1]}']"))
        press(page, str(keys))
        press(page, Keys.ARROW_LEFT)
        page.js("arguments[0].querySelector('input').focus()", page.find(f"[data-axis='{NAMES[2]}']"))
        press(page, str(keys // 2 + 1))
        page.wait(lambda: page.find("#next").is_enabled())
        page.saved()
        strongest = keys // 2
        said = {axis: answer for (_, axis), (answer, _) in page.stored("r001").items()}
        assert said == {NAMES[0]: (-strongest,), NAMES[1]: (strongest - 1,), NAMES[2]: (0,)}
        page.next()
        page.at("/screen/1")
        page.go("/screen/0")
        chosen = browser.find_elements(By.CSS_SELECTOR, "input:checked")
        assert [int(str(i.get_attribute("value"))) for i in chosen] == [-strongest, strongest - 1, 0]
        assert complaints(browser) == []


# ---- clips -----------------------------------------------------------------------------------------------------------

TIMES = "return [...document.querySelectorAll('video')].map((v) => v.currentTime)"


def playing(page: Page) -> None:
    page.wait(lambda: min(page.js(TIMES)) > 0.05, "the clips do not play")


def test_clips_of_every_screen_play_in_step_and_begin_again_together(page: Page) -> None:
    page.open("r006", 0)
    for screen in range(len(KINDS)):
        page.at(f"/screen/{screen}")
        playing(page)
        apart = page.js(
            """
            const videos = [...document.querySelectorAll('video')];
            const shortest = Math.min(...videos.map((v) => v.duration));
            const done = arguments[arguments.length - 1];
            return new Promise((resolve) => {
              const apart = []; let last = 0, again = 0;
              const look = () => {
                const times = videos.map((v) => v.currentTime);
                if (Math.max(...times) < last - 0.2) again += 1;
                last = Math.max(...times);
                const moving = videos.every((v) => !v.paused && !v.seeking) && Math.max(...times) < shortest;
                if (moving) apart.push(Math.max(...times) - Math.min(...times));
                if (again < 1) requestAnimationFrame(look); else resolve(apart);
              };
              look();
            });
            """
        )
        assert len(apart) > 5
        apart.sort()
        assert apart[int(0.9 * len(apart))] < 0.1, "nine pictures of ten are less than 0.1 s apart"
        page.tap_all("ABCD", "BCDA", "CDAB")
        page.next()
    page.at("/finish")


def test_shorter_clips_rest_on_their_last_picture(page: Page) -> None:
    page.open("r007", 0)
    playing(page)
    durations = page.js("return [...document.querySelectorAll('video')].map((v) => v.duration)")
    assert max(durations) - min(durations) > 0.2
    page.wait(lambda: max(page.js(TIMES)) > min(durations) + 0.1, "the longer clips go on")


def test_play_pause_restart_and_scrub(page: Page) -> None:
    page.open("r007", 0)
    playing(page)
    button = page.find("#play")
    assert button.get_attribute("aria-label") == "Pause"
    button.click()
    assert button.get_attribute("aria-label") == "Play"
    paused = page.js(TIMES)
    page.js("const s = document.getElementById('scrub'); s.value = 500; s.dispatchEvent(new Event('input'))")
    middle = page.js("return Math.max(...[...document.querySelectorAll('video')].map((v) => v.duration))") / 2
    page.wait(lambda: all(abs(t - middle) < 0.03 for t in page.js(TIMES)), "all go to the middle")
    assert page.js(TIMES) != paused
    page.find("#restart").click()
    page.wait(lambda: page.js(TIMES) == [0, 0, 0, 0])
    page.js("document.activeElement.blur()")
    ActionChains(page.browser).send_keys(Keys.SPACE).perform()
    playing(page)
    ActionChains(page.browser).send_keys(Keys.SPACE).perform()
    assert page.js("return [...document.querySelectorAll('video')].every((v) => v.paused)")


def test_while_one_clip_waits_for_data_all_wait(page: Page) -> None:
    page.open("r007", 0)
    playing(page)
    page.js(
        "const clip = document.querySelectorAll('video')[1];"
        "Object.defineProperty(clip, 'readyState', { get: () => 2, configurable: true })"
    )
    all_paused = "return [...document.querySelectorAll('video')].every((v) => v.paused)"
    page.wait(lambda: page.js(all_paused) and page.js("return Boolean(document.querySelector('.waiting'))"))
    held = page.js(TIMES)
    time.sleep(0.4)
    assert page.js(TIMES) == held
    page.js("delete document.querySelectorAll('video')[1].readyState")
    page.wait(lambda: not page.js(all_paused) and page.js(TIMES) != held, "they go on")


def test_a_clip_can_be_seen_larger(page: Page) -> None:
    page.open("r007", 0)
    widths = "return [...document.querySelectorAll('.clip')].map((c) => c.getBoundingClientRect().width)"
    before = page.js(widths)
    assert max(before) - min(before) < 1
    button = page.browser.find_elements(By.CSS_SELECTOR, ".enlarge")[2]
    page.js("arguments[0].focus()", button)
    press(page, Keys.ENTER)
    assert button.get_attribute("aria-pressed") == "true"
    after = page.js(widths)
    assert after[2] > 1.3 * before[2]
    assert after[0] < before[0]
    page.find(".clip:nth-child(1) video").click()
    assert page.js(widths)[0] > 1.3 * before[0]
    ActionChains(page.browser).send_keys(Keys.ESCAPE).perform()
    assert page.js(widths) == before


def test_the_next_screens_clips_come_from_the_browsers_memory(page: Page) -> None:
    page.open("r008", 0)
    ahead = "return performance.getEntriesByType('resource').filter((e) => e.name.includes('/clip/1/')).length"
    page.wait(lambda: page.js(ahead) == 4, "the next clips are not fetched")
    page.tap_all("ABCD", "ABCD", "ABCD")
    page.next()
    page.at("/screen/1")
    playing(page)
    resources = page.js("return performance.getEntriesByType('resource').map((e) => [e.name, e.transferSize])")
    assert [sent for name, sent in resources if "/clip/1/" in name] == [0, 0, 0, 0]


def test_nothing_moves_by_itself_for_those_who_asked_for_that(page: Page) -> None:
    feature = {"name": "prefers-reduced-motion", "value": "reduce"}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    try:
        page.open("r007", 0)
        page.wait(lambda: page.js("return [...document.querySelectorAll('video')].every((v) => v.readyState === 4)"))
        time.sleep(0.3)
        assert page.js(TIMES) == [0, 0, 0, 0]
        page.find("#play").click()
        playing(page)
    finally:
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


# ---- trouble ---------------------------------------------------------------------------------------------------------


def test_a_server_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    """Killed in the middle of a screen: answers wait in the browser, over a reload of the server, and arrive once."""
    write_study(tmp_path / "study", Kit(n_models=3, kinds=("vote", "vote"), n_raters=1, size=(64, 36)))
    with serving(tmp_path / "study") as server, chromium() as browser:
        page = Page(browser, server).open("r001", 0)
        playing(page)
        page.tap(NAMES[0], "BCA")
        page.saved()
        server.kill()
        page.tap(NAMES[1], "CAB")
        page.tap(NAMES[0], "B")
        page.tap(NAMES[0], "B")  # taken back and put again: nothing new
        page.tap(NAMES[2], "ABC")
        page.wait(lambda: page.state() == "away", "it does not say that the study is away")
        assert "Your answers are kept here" in page.find("#saving").text
        page.next()
        time.sleep(0.5)
        assert page.path == "/screen/0", "it waits rather than show an error page"
        assert set(page.stored("r001")) == {(0, NAMES[0])}
        server.start()
        page.at("/screen/1")
        expected = {(0, axis): (ranks(order), 1) for axis, order in zip(NAMES, ("BCA", "CAB", "ABC"), strict=True)}
        assert page.stored("r001") == expected
        playing(page)
        page.tap(NAMES[0], "CBA")
        server.kill()
        server.start()
        page.saved()
        page.tap(NAMES[1], "ABC")
        server.kill()
        page.tap(NAMES[2], "BAC")
        page.wait(lambda: page.state() == "away")
        browser.get("about:blank")  # the tab is closed while the study is away
        server.start()
        page.open("r001")
        page.at("/screen/1")
        assert [page.order(axis) for axis in NAMES] == ["CBA", "ABC", "BAC"]
        page.saved()
        page.next()
        page.at("/finish")
        stored = page.stored("r001")
        assert {key: answer for key, (answer, _) in stored.items()} == {
            **{key: answer for key, (answer, _) in expected.items()},
            **{(1, axis): ranks(order) for axis, order in zip(NAMES, ("CBA", "ABC", "BAC"), strict=True)},
        }
        assert {revision for _, revision in stored.values()} == {1}
        assert {c["screen"] for c in VoteStore(server.study / VOTES).log()["completions"]} == {0, 1}
        others = [text for text in complaints(browser) if "net::ERR_" not in text]
        assert others == []


def test_the_back_button_and_a_correction(page: Page) -> None:
    page.open("r009", 0)
    page.tap_all("ABCD", "BCDA", "CDAB")
    page.next()
    page.at("/screen/1")
    page.tap(NAMES[0], "DC")
    page.browser.back()
    page.at("/screen/0")
    page.wait(lambda: [page.order(axis) for axis in NAMES] == ["ABCD", "BCDA", "CDAB"])
    assert page.find("#next").is_enabled()
    page.js("arguments[0].focus()", page.card(NAMES[0], "D"))
    press(page, Keys.HOME)
    page.saved()
    assert page.stored("r009")[0, NAMES[0]] == (ranks("DABC"), 2)
    page.next()
    page.at("/screen/1")
    page.wait(lambda: page.order(NAMES[0]) == "DC--")
    page.find("#previous").click()
    page.at("/screen/0")
    assert page.order(NAMES[0]) == "DABC"
    assert len(page.stored("r009")) == 3


def test_a_double_click_on_next_skips_nothing(page: Page) -> None:
    page.open("r010", 0)
    page.tap_all("ABCD", "BCDA", "CDAB")
    ActionChains(page.browser).double_click(page.find("#next")).perform()
    page.at("/screen/1")
    time.sleep(0.3)
    assert page.path == "/screen/1"
    log = VoteStore(page.server.study / VOTES).log()
    assert [c["screen"] for c in log["completions"] if c["rater"] == "r010"] == [0]
    assert len([a for a in log["answers"] if a["rater"] == "r010"]) == 3


def test_two_tabs_of_one_rater(page: Page) -> None:
    page.open("r011", 0)
    first = page.browser.current_window_handle
    page.tap(NAMES[0], "ABCD")
    page.saved()
    page.browser.switch_to.new_window("tab")
    page.go("/")
    page.at("/screen/0")
    assert page.order(NAMES[0]) == "ABCD"
    page.js("arguments[0].focus()", page.card(NAMES[0], "A"))
    press(page, Keys.END)
    page.tap(NAMES[1], "CDAB")
    page.saved()
    page.browser.close()
    page.browser.switch_to.window(first)
    page.js("window.dispatchEvent(new Event('focus'))")
    page.wait(lambda: page.order(NAMES[0]) == "BCDA" and page.order(NAMES[1]) == "CDAB", "the first tab catches up")
    page.tap(NAMES[2], "ABCD")
    page.saved()
    page.next()
    page.at("/screen/1")
    assert page.stored("r011") == {
        (0, NAMES[0]): (ranks("BCDA"), 2),
        (0, NAMES[1]): (ranks("CDAB"), 1),
        (0, NAMES[2]): (ranks("ABCD"), 1),
    }


def test_another_persons_link_in_a_second_tab(page: Page, server: Server) -> None:
    page.open("r012", 0)
    before = page.stored("r004")
    first = page.browser.current_window_handle
    page.browser.switch_to.new_window("tab")
    page.open("r004", 0)
    page.browser.close()
    page.browser.switch_to.window(first)
    page.tap(NAMES[0], "ABCD")
    page.wait(lambda: page.state() == "refused")
    assert "Open your own link again" in page.find("#saving").text
    assert not page.find("#next").is_enabled()
    assert page.stored("r012") == {}
    assert page.stored("r004") == before
    complaints(page.browser)  # the refusal itself
    page.browser.switch_to.new_window("tab")
    page.open("r012")
    page.browser.close()
    page.browser.switch_to.window(first)
    page.js("window.dispatchEvent(new Event('focus'))")
    page.saved()
    assert page.stored("r012") == {(0, NAMES[0]): (ranks("ABCD"), 1)}, "the answer was kept for its own rater"


def test_a_link_from_another_site(page: Page, server: Server) -> None:
    """Such as from mail in a browser: a strict cookie must not get lost on the way."""

    class Mail(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f'<link rel="icon" href="data:,"><a href="{server.origin}{link("r007")}">vote</a>'.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mail) as mail:
        threading.Thread(target=mail.serve_forever, daemon=True).start()
        page.browser.get(f"http://localhost:{mail.server_port}/")  # another site than 127.0.0.1
        page.find("a").click()
        page.wait(lambda: page.path == "/" and "Thank you for your time" in page.find("h1").text)
        mail.shutdown()
    assert link("r007") not in page.js("return document.referrer")
    requests(page.browser)  # the mail's own page


# ---- looks -----------------------------------------------------------------------------------------------------------


def test_prompts_of_all_kinds(page: Page) -> None:
    page.open("r013", 0)
    for screen, prompt in enumerate(list(PROMPTS.values())[: len(KINDS)]):
        page.at(f"/screen/{screen}")
        shown = page.find("#prompt")
        assert page.js("return arguments[0].textContent", shown) == prompt
        direction = "rtl" if screen == 1 else "ltr"
        assert page.js("return getComputedStyle(arguments[0]).direction", shown) == direction
        assert shown.size["height"] < 150, "a very long prompt scrolls within itself"
        assert shown.get_attribute("tabindex") == ("0" if len(prompt) > 1000 else None), "and by keys"
        assert horizontal_overflow(page.browser) == 0
        if screen < len(KINDS) - 1:
            for axis in NAMES:
                if page.order(axis) == "----":
                    page.tap(axis, "ABCD")
            page.next()
    assert page.js("return window.hacked") is None


@pytest.mark.parametrize("size", [(360, 740), (740, 360), (820, 1180)], ids=["phone", "lying", "tablet"])
def test_it_fits_and_can_be_dragged_by_finger(server: Server, size: tuple[int, int]) -> None:
    with chromium(*size, touch=True) as browser:
        page = Page(browser, server).open(FINISHED)
        for path in ("/intro", "/screen/0", "/screen/1", "/finish", "/nothing"):
            page.go(path)
            assert page.js("return innerWidth") == size[0]
            assert horizontal_overflow(browser) == 0, path
        complaints(browser)  # that there is nothing at /nothing
        page.go("/screen/2")
        axis, order = NAMES[1], page.order(NAMES[1])
        last = page.card(axis, order[3])
        page.js("arguments[0].scrollIntoView({block: 'center'})", last)
        swipe(browser, last, page.find(f"[data-axis='{axis}'] .place"))
        page.wait(lambda: page.order(axis) == order[3] + order[:3], "the card does not follow the finger")
        assert page.js("return getComputedStyle(arguments[0]).touchAction", last) == "none"
        page.saved()
        page.browser.find_elements(By.CSS_SELECTOR, ".enlarge")[1].click()
        assert horizontal_overflow(browser) == 0
        targets = page.js(
            "return [...document.querySelectorAll('button, a.button, input, .level')]"
            ".filter((e) => e.checkVisibility()).map((e) => [e.className || e.id, e.getBoundingClientRect()])"
            ".map(([name, box]) => [name, box.width, box.height])"
        )
        assert [target for target in targets if min(target[1:]) < 24] == []  # WCAG 2.2, success criterion 2.5.8
        assert complaints(browser) == []


def swipe(browser: Chrome, card: WebElement, target: WebElement) -> None:
    """A finger that draws a card to a place."""
    points = [browser.execute_script(MIDDLE, element) for element in (card, target)]
    (x0, y0), (x1, y1) = points
    steps = [(x0 + (x1 - x0) * k / 6, y0 + (y1 - y0) * k / 6) for k in range(7)]
    for n, (x, y) in enumerate(steps):
        kind = "touchMove" if n else "touchStart"
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


MIDDLE = "const r = arguments[0].getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2]"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_contrast_meets_wcag_aa_in_both_themes(server: Server, dark: bool) -> None:
    """At least 4.5 : 1 for every visible text (WCAG 2.2, success criterion 1.4.3); disabled buttons are exempt."""
    with chromium(dark=dark) as browser:
        page = Page(browser, server).open(FINISHED)
        for path in ("/intro", "/screen/0", "/finish"):
            page.go(path)
            found = page.js(CONTRASTS)
            assert len(found) > 3
            assert [entry for entry in found if entry[0] < 4.5] == [], path
        page.open("admin")
        page.at("/admin")
        assert [entry for entry in page.js(CONTRASTS) if entry[0] < 4.5] == []
        assert complaints(browser) == []
        assert horizontal_overflow(browser) == 0


def test_the_accessibility_tree_names_everything(page: Page) -> None:
    page.open("r013", 0)
    nodes = page.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")
    ]
    roles = {"button", "link", "slider", "progressbar", "group", "region", "list"}
    assert [role for role, name in named if role in roles and not name.strip()] == []
    assert ("slider", "Time") in named
    assert any(role == "group" and name.startswith("Aesthetic quality Which looks better?") for role, name in named)
