"""The report page in headless Chromium: it works, it keeps to itself, and it fits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from evalkit.records import RunRecord
from evalkit.report import media as media_module
from evalkit.report import render
from tests.browser import chromium, complaints, horizontal_overflow, requests
from tests.fabricate import SEVEN, Spec, write_run

pytestmark = pytest.mark.browser

WAIT_S = 10
HOSTILE = (
    "<script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 2">',
    "</script><script>window.hacked = 3</script>",
    "javascript:window.hacked=4",
    "<svg onload='window.hacked = 5'>" + "without_any_space_" * 12,
    "שלום עולם \u202e reversed \u202c مرحبا",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def runs(folder: Path) -> tuple[RunRecord, RunRecord]:
    """Two runs of 30 prompts, one of them with gaps: more rows than one page of the table holds."""
    prompts = [
        *HOSTILE,
        *(f"scene number n{number}n with a {animal}" for number in range(12) for animal in ("cat", "dog")),
    ]
    unscored = {3: {"overall_consistency": "the clip is <b>too</b> short"}}
    files = {0: "javascript:alert(1).mp4", 1: "<i>&'.mp4"}
    a = write_run(folder / "run-a", Spec(prompts, files=files, unscored=unscored))
    return a, write_run(folder / "run-b", Spec(prompts, seed=1, undecodable=frozenset({2})))


@pytest.fixture(scope="module")
def page(folder: Path, runs: tuple[RunRecord, RunRecord]) -> str:
    render(runs, folder / "page.html")
    return (folder / "page.html").as_uri()


@pytest.fixture(scope="module")
def linked(folder: Path, runs: tuple[RunRecord, RunRecord]) -> str:
    """The page of one run with nothing embedded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(media_module, "CLIP_BUDGET", 0)
        patch.setattr(media_module, "POSTER_BUDGET", 0)
        render(runs[:1], folder / "linked.html")
    return (folder / "linked.html").as_uri()


@pytest.fixture(scope="module")
def laptop() -> Iterator[Chrome]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def opened(laptop: Chrome, page: str) -> Iterator[Chrome]:
    """The page of two runs, freshly loaded; at the end it must not have complained or called out."""
    laptop.get(page)
    yield laptop
    assert complaints(laptop) == []
    assert requests(laptop) == [page]
    assert laptop.execute_script("return window.hacked") is None


def column(browser: Chrome, selector: str) -> list[str]:
    return [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, f"#videos-table tbody {selector}")]


def scores(browser: Chrome, place: int) -> list[str]:
    return column(browser, f"tr td.score:nth-last-child({len(SEVEN) - place})")


def head(browser: Chrome, key: str) -> tuple[WebElement, WebElement]:
    """The button of a column and its heading."""
    button = browser.find_element(By.CSS_SELECTOR, f"#videos-table button[data-sort='{key}']")
    return button, button.find_element(By.XPATH, "./ancestor::th")


def as_shown(values: list[float], reverse: bool) -> list[str]:
    return [f"{100 * value:.2f}" for value in sorted(values, reverse=reverse)]


def test_click_sorts_every_row_not_only_the_page(opened: Chrome, runs: tuple[RunRecord, RunRecord]) -> None:
    values = [v["scores"]["aesthetic_quality"] for run in runs for v in run.summary["videos"] if v["scores"]]
    button, heading = head(opened, "4")
    button.click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert scores(opened, 4) == as_shown(values, reverse=True)[:50]
    button.click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert scores(opened, 4) == as_shown(values, reverse=False)[:50]
    others = opened.find_elements(By.CSS_SELECTOR, "#videos-table th[aria-sort]:not([aria-sort=none])")
    assert others == [heading]


def test_keyboard_sorts(opened: Chrome, runs: tuple[RunRecord, RunRecord]) -> None:
    button, heading = head(opened, "prompt")
    opened.execute_script("arguments[0].focus()", button)
    opened.switch_to.active_element.send_keys(Keys.ENTER)
    assert heading.get_attribute("aria-sort") == "ascending"
    texts = [t.lower() for t in column(opened, "td.prompt bdi")]
    assert texts[-1].startswith("scene number")
    opened.switch_to.active_element.send_keys(Keys.SPACE)
    assert heading.get_attribute("aria-sort") == "descending"
    opened.switch_to.active_element.send_keys(Keys.TAB)
    assert opened.switch_to.active_element.get_attribute("data-sort") == "0"


def test_unscored_stays_last_in_both_directions(opened: Chrome) -> None:
    button, _ = head(opened, "6")
    for _ in range(2):
        button.click()
        opened.find_element(By.ID, "next").click()
        assert scores(opened, 6)[-2:] == ["–", "–"]
        assert "–" not in scores(opened, 6)[:-2]
    reasons = [cell.get_attribute("title") for cell in opened.find_elements(By.CSS_SELECTOR, "#videos-table td.gap")]
    assert "the clip is <b>too</b> short" in reasons


def test_filter_and_paging(opened: Chrome) -> None:
    status = opened.find_element(By.ID, "table-status")
    assert status.text == "60 videos"
    assert len(column(opened, "tr")) == 50
    opened.find_element(By.ID, "next").click()
    assert len(column(opened, "tr")) == 10
    assert opened.find_element(By.ID, "page-status").text == "page 2 of 2"
    box = opened.find_element(By.ID, "filter")
    box.send_keys("CAT n7n")
    assert status.text == "2 of 60 videos"
    assert set(column(opened, "td.prompt bdi")) == {"scene number n7n with a cat"}
    assert not opened.find_element(By.ID, "pager").is_displayed()
    Select(opened.find_element(By.ID, "run-filter")).select_by_value("1")
    assert status.text == "1 of 60 videos"
    box.send_keys(" nothing")
    assert column(opened, "tr") == ["No video matches."]


def test_prompts_are_text(opened: Chrome) -> None:
    texts = column(opened, "td.prompt bdi")
    for prompt in HOSTILE[:4]:
        assert prompt in texts
    assert not opened.find_elements(By.CSS_SELECTOR, "#videos-table i, #videos-table script, #videos-table svg")


def played(browser: Chrome) -> WebElement:
    """The clip in the player, once it has moved."""
    video = browser.find_element(By.CSS_SELECTOR, "#player video")
    WebDriverWait(browser, WAIT_S).until(
        lambda b: b.execute_script("return arguments[0].readyState >= 2 && arguments[0].currentTime > 0", video)
    )
    return video


def test_embedded_clip_plays(opened: Chrome) -> None:
    opened.find_element(By.CSS_SELECTOR, "#videos-table .clip").click()
    video = played(opened)
    assert str(video.get_attribute("src")).startswith("data:video/mp4")
    assert opened.execute_script("return [arguments[0].videoWidth, arguments[0].videoHeight]", video) == [96, 64]
    player = opened.find_element(By.ID, "player")
    assert HOSTILE[0] in player.text
    assert "javascript:alert(1).mp4" in player.text
    assert "96 × 64, 24 frames, 24 fps" in player.text
    opened.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not player.is_displayed()
    assert not opened.find_elements(By.CSS_SELECTOR, "#player video")


def test_best_and_worst_play(opened: Chrome) -> None:
    opened.find_element(By.CSS_SELECTOR, ".cards .clip").click()
    played(opened)


def test_undecodable_video_has_no_player(opened: Chrome) -> None:
    disabled = opened.find_elements(By.CSS_SELECTOR, "#videos-table .clip:disabled")
    assert [button.text for button in disabled] == ["no still"]


def test_linked_clip_and_still_load(laptop: Chrome, linked: str) -> None:
    laptop.get(linked)
    laptop.find_element(By.CSS_SELECTOR, "#videos-table .clip").click()
    video = played(laptop)
    assert str(video.get_attribute("src")).endswith("/run-a-videos/javascript%3Aalert%281%29.mp4")
    still = laptop.find_element(By.CSS_SELECTOR, "#videos-table .clip img")
    assert laptop.execute_script("return arguments[0].naturalWidth", still) == 96
    assert complaints(laptop) == []
    assert all(url.startswith("file:") for url in requests(laptop))


def test_broken_clip_says_so(laptop: Chrome, folder: Path) -> None:
    run = write_run(folder / "broken", Spec(["a broken clip"]))
    (Path(run.manifest["videos_dir"]) / run.summary["videos"][0]["file"]).write_bytes(b"not a video")
    render([run], folder / "broken.html")
    laptop.get((folder / "broken.html").as_uri())
    laptop.find_element(By.CSS_SELECTOR, "#videos-table .clip").click()
    trouble = laptop.find_element(By.CSS_SELECTOR, "#player .trouble")
    WebDriverWait(laptop, WAIT_S).until(lambda _: trouble.is_displayed())
    assert "could not play the clip" in trouble.text


@pytest.mark.parametrize("width", [390, 820])
def test_nothing_overflows(page: str, width: int) -> None:
    with chromium(width, 844, touch=True) as browser:
        browser.get(page)
        assert browser.execute_script("return innerWidth") == width
        assert horizontal_overflow(browser) == 0
        browser.execute_script("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
        assert horizontal_overflow(browser) == 0
        browser.find_element(By.CSS_SELECTOR, ".cards .clip").click()
        assert browser.execute_script("return document.getElementById('player').getBoundingClientRect().right") <= width
        assert complaints(browser) == []


CONTRASTS = """
const channel = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
const luminance = (c) => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const paper = (e) => {
  for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] === 1) return c;
  }
  return null;
};
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const e = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !e.checkVisibility() || e.closest("script, style, button:disabled")) continue;
  const style = getComputedStyle(e);
  const ink = parse(e.closest("svg") ? style.fill : style.color);
  const [x, y] = [luminance(ink), luminance(paper(e))].sort((a, b) => b - a);
  found.push([(x + 0.05) / (y + 0.05), walker.currentNode.data.trim().slice(0, 40)]);
}
return found;
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_contrast_meets_wcag_aa_in_both_themes(page: str, dark: bool) -> None:
    """At least 4.5 : 1 for every visible text, plots included (WCAG 2.2, success criterion 1.4.3)."""
    with chromium(dark=dark) as browser:
        browser.get(page)
        paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(21, 24, 28)" if dark else "rgb(253, 253, 252)")
        found = browser.execute_script(CONTRASTS)
        assert len(found) > 300
        assert [entry for entry in found if entry[0] < 4.5] == []
