"""The report in a real browser: it complains of nothing, asks for nothing, fits a phone, can be read, and works by keyboard.

With SPAMOPS_PICTURES=FOLDER in the environment the pictures of docs/report.md are made anew.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from browser import MISSING, Browser, browser
from long_history import decisions, long_history
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from spamops import feedback, report
from spamops.ledger import Ledger

pytestmark = [
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
NOW = datetime(2026, 3, 1, 15, 30, tzinfo=UTC)
PICTURES = os.environ.get("SPAMOPS_PICTURES")
HOSTILE = '"><img src=x onerror="document.title=1"></script><script>document.title=2</script>'

CONTRASTS = """
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const rgba = (text) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data]; };
const light = ([r, g, b]) => { const f = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
const contrast = (a, b) => { const [x, y] = [light(a), light(b)]; return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05); };
const behind = (element) => { for (; element; element = element.parentElement) {
  const colour = rgba(getComputedStyle(element).backgroundColor); if (colour[3] === 255) return colour; }
  return [255, 255, 255, 255]; };
const low = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let seen = 0;
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || element.closest("script, style, title, button:disabled")) continue;
  if (!element.getClientRects().length) continue;
  const style = getComputedStyle(element);
  const ink = rgba(element.closest("svg") ? style.fill : style.color);
  const value = contrast(ink, behind(element));
  seen += 1;
  if (value < 4.5) low.push([value.toFixed(2), walker.currentNode.data.trim().slice(0, 40)]);
}
for (const shape of document.querySelectorAll("rect:not(.rail)")) {
  if (!shape.getClientRects().length) continue;
  const value = contrast(rgba(getComputedStyle(shape).fill), behind(shape));
  seen += 1;
  if (value < 3) low.push([value.toFixed(2), shape.getAttribute("class")]);
}
return [seen, low];
"""
"""How many texts and shapes are seen, and those with less contrast than WCAG 2.2 wants (1.4.3: 4.5 for texts, 1.4.11: 3)."""


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    """The browser."""
    with browser() as opened:
        yield opened


URL = "https://example.org/moderation/{id}/"


@pytest.fixture(scope="module")
def tidy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ledger, Path]:
    """Ten thousand verdicts over sixty runs, and their report."""
    folder = tmp_path_factory.mktemp("report")
    ledger = long_history(folder / "state", NOW)
    csv = decisions(ledger, NOW).encode()
    feedback.store(ledger, feedback.read(io.BytesIO(csv), NOW), NOW)
    path = folder / "tidy.html"
    path.write_text(report.render(report.compute(ledger, NOW), URL))
    return ledger, path


@pytest.fixture(scope="module")
def history(tidy: tuple[Ledger, Path]) -> Ledger:
    """The same, with one item whose id is hostile."""
    ledger = tidy[0]
    with ledger.transaction() as db:
        db.execute(
            "UPDATE verdicts SET item_id = ?, decided_by = ?, indicators = '[\"</script>\"]' WHERE rowid ="
            " (SELECT MIN(rowid) FROM verdicts WHERE run_id = 50 AND is_spam = 1)",
            (HOSTILE, HOSTILE),
        )
    return ledger


@pytest.fixture(scope="module")
def page(history: Ledger, tidy: tuple[Ledger, Path]) -> Path:
    """The report of it."""
    path = tidy[1].with_name("report.html")
    path.write_text(report.render(report.compute(history, NOW), URL))
    return path


@pytest.fixture(autouse=True)
def as_usual(window: Browser) -> None:
    """A window of a desk, light, with scripts; what was said before is somebody else's."""
    window.resize(1200, 900)
    window.prefer("light")
    window.scripts(on=True)
    window.complaints()
    window.requests()


def test_it_opens_without_a_complaint_and_asks_for_nothing_else(window: Browser, page: Path) -> None:
    window.open(page)
    for details in (50, 60):
        window.run("location.hash = arguments[0]", f"#run-{details}")
        wait(window, f"return document.querySelectorAll('#run-{details} .verdicts tbody tr').length === 50")
    assert window.complaints() == []
    asked = {address for address in window.requests() if not address.startswith(("data:", "about:"))}
    assert asked == {page.as_uri()}
    assert window.run("return performance.getEntriesByType('resource').length") == 0


def test_a_complaint_would_be_heard(window: Browser, page: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text().replace('"use strict";', '"use strict"; // changed\n', 1))
    window.open(broken)
    assert any("Content Security Policy" in text for text in window.complaints())


@pytest.mark.parametrize("days", [7, 30])
def test_it_shows_the_figures_that_the_history_holds(window: Browser, page: Path, history: Ledger, days: int) -> None:
    window.open(page)
    window.run("document.getElementById(arguments[0]).click()", f"days-{days}")
    shown = dict(
        window.run(
            "return [...document.querySelectorAll('[data-figure]')].filter(e => e.getClientRects().length)"
            ".map(e => [e.dataset.figure, e.innerText])"
        )
    )
    since = (NOW.replace(hour=0, minute=0) - timedelta(days=days - 1)).isoformat(timespec="milliseconds")
    with history.transaction() as db:
        runs, spam, not_spam, failed, units = db.execute(
            "SELECT COUNT(*), SUM(spam), SUM(not_spam), SUM(failed), SUM(service_units) FROM runs WHERE ended_at >= ?",
            (since,),
        ).fetchone()
        reviewed = db.execute("SELECT COUNT(*) FROM feedback WHERE run_id IS NOT NULL").fetchone()[0]
    assert (shown["checked"], shown["spam"], shown["failed"], shown["runs"]) == (
        f"{spam + not_spam:,}",
        f"{spam:,}",
        f"{failed:,}",
        f"{runs:,}",
    )
    assert shown["spam-share"] == f"{100 * spam / (spam + not_spam):.1f} %"
    assert shown["units"] == f"{units:,.2f}"
    assert shown["reviewed"] == f"{reviewed:,}"
    visible = window.run(
        "return [...document.querySelectorAll('.period')].filter(e => e.getClientRects().length).length"
    )
    assert visible == 1
    # Each chart's figures are in the table beside it, and the columns are as high as these say.
    table = window.run(
        "return [...document.querySelectorAll('.period')].find(e => e.getClientRects().length)"
        ".querySelectorAll('.card')[0].querySelectorAll('tbody tr').length"
    )
    assert table == days


def test_every_verdict_of_a_run_can_be_reached(window: Browser, page: Path, history: Ledger) -> None:
    window.open(page)
    window.run("location.hash = '#run-50'")
    wait(window, "return document.querySelectorAll('#run-50 .verdicts tbody tr').length === 50")
    seen: list[list[str]] = []
    while True:
        seen += window.run(
            "return [...document.querySelectorAll('#run-50 .verdicts tbody tr')]"
            ".map(row => [...row.cells].map(cell => cell.innerText.trim()))"
        )
        if window.run("return document.querySelector('#run-50 .pager button:last-child').disabled"):
            break
        window.run("document.querySelector('#run-50 .pager button:last-child').click()")
    run = history.run(50)
    assert run is not None
    words = {True: "spam", False: "not spam", None: "failed"}
    assert [(row[0], row[2]) for row in seen] == [(v["item_id"], words[v["is_spam"]]) for v in run["verdicts"]]
    for word, is_spam in (("spam", True), ("not spam", False), ("failed", None)):
        expected = sum(v["is_spam"] is is_spam for v in run["verdicts"])
        text = window.run(
            "const b = [...document.querySelectorAll('#run-50 .filters button')].find(b => b.innerText.startsWith(arguments[0]));"
            "b.click(); return [b.innerText, b.getAttribute('aria-pressed'), document.querySelector('#run-50 [role=status]').innerText]",
            f"{word} (",
        )
        assert text[:2] == [f"{word} ({expected})", "true"]
        assert text[2].endswith(f"of {expected}") if expected else text[2] == "none"


def test_a_hostile_id_is_only_ever_text(window: Browser, page: Path) -> None:
    window.open(page)
    title = window.run("return document.title")
    window.run("location.hash = '#run-50'")
    wait(window, "return document.querySelectorAll('#run-50 .verdicts tbody tr').length > 0")
    window.run(
        "[...document.querySelectorAll('#run-50 .filters button')].find(b => b.innerText.startsWith('spam (')).click()"
    )
    link = window.run(
        "const a = [...document.querySelectorAll('#run-50 a.id')].find(a => a.innerText.includes('onerror'));"
        "return a && [a.innerText, a.href]"
    )
    assert link[0] == HOSTILE
    assert re.fullmatch(r"https://example\.org/moderation/[A-Za-z0-9%._*'()!~-]+/", link[1])
    assert window.run("return [document.title, document.images.length]") == [title, 0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_charts_can_be_told_from_what_is_behind_them(window: Browser, page: Path, scheme: str) -> None:
    window.prefer(scheme)
    window.open(page)
    window.run(
        "for (const id of ['#run-60', '#run-59', '#run-49']) document.querySelector(id).parentElement.open = true"
    )
    wait(window, "return document.querySelectorAll('#run-60 .verdicts tbody tr').length > 0")
    seen, low = window.run(CONTRASTS)
    assert seen > 1000
    assert low == []
    grey = "document.documentElement.style.setProperty('--soft', '#777'); " + CONTRASTS
    assert len(window.run(grey)[1]) > 100, "a grey that cannot be read would be found"
    ink = window.run("return getComputedStyle(document.body).backgroundColor")
    bright = sum(map(int, re.findall(r"\d+", ink)[:3])) > 384
    assert bright == (scheme == "light")


def test_it_fits_a_phone(window: Browser, page: Path) -> None:
    window.resize(390, 844, mobile=True)
    window.open(page)
    window.run("document.querySelector('#run-60').parentElement.open = true")
    wait(window, "return document.querySelectorAll('#run-60 .verdicts tbody tr').length > 0")
    assert window.run("return document.documentElement.scrollWidth") == 390
    # What is wider than the page scrolls within it, and can be reached by the keyboard.
    loose = window.run(
        "return [...document.querySelectorAll('body *')].filter(e => e.getClientRects().length && !e.closest('.skip')"
        " && e.getBoundingClientRect().right > 391 && !e.closest('.scroll') && !e.closest('svg')).map(e => e.outerHTML.slice(0, 80))"
    )
    assert loose == []
    assert window.run("return [...document.querySelectorAll('.scroll')].every(e => e.tabIndex === 0 && e.ariaLabel)")
    # Names of days do not lie on each other.
    boxes = window.run(
        "return [...[...document.querySelectorAll('.plot')].find(e => e.getClientRects().length).querySelectorAll('.area text')]"
        ".map(e => e.getBoundingClientRect()).filter(b => b.width).map(b => [b.left, b.right])"
    )
    assert len(boxes) > 2
    assert all(left[1] <= right[0] for left, right in pairwise(boxes))


def test_it_works_by_keyboard_alone(window: Browser, page: Path) -> None:
    window.open(page)
    keys = ActionChains(window.driver)
    keys.send_keys(Keys.TAB).perform()
    assert window.run("return document.activeElement.className") == "skip"
    for _ in range(4):
        ActionChains(window.driver).send_keys(Keys.TAB).perform()
    assert window.run("return document.activeElement.id") == "days-7"
    ActionChains(window.driver).send_keys(Keys.ARROW_RIGHT).perform()
    assert window.run("return document.querySelector('.days-30').getClientRects().length") == 1
    assert window.run("return document.querySelector('.days-7').getClientRects().length") == 0
    window.run("document.querySelector('details.run summary').focus()")
    ActionChains(window.driver).send_keys(Keys.ENTER).perform()
    wait(window, "return document.querySelectorAll('details.run[open] .verdicts tbody tr').length === 50")


def test_without_scripts_everything_is_there_but_the_single_verdicts(window: Browser, page: Path) -> None:
    window.scripts(on=False)
    window.open(page)
    try:
        elements = window.driver.find_elements("css selector", "[data-figure=checked]")
        assert [element.is_displayed() for element in elements] == [True, False]
        window.driver.find_element("css selector", "label[for=days-30]").click()
        assert [element.is_displayed() for element in elements] == [False, True]
        details = window.driver.find_element("css selector", "details.run")
        details.find_element("css selector", "summary").click()
        assert "waking the server" in details.text
        assert "spamops show 60" in details.text
    finally:
        window.scripts(on=True)
    assert window.complaints() == []


def test_every_chart_has_a_name_and_every_table_a_caption(window: Browser, page: Path) -> None:
    window.open(page)
    assert (
        window.run("return [...document.querySelectorAll('[role=img]')].filter(e => !e.ariaLabel.trim()).length") == 0
    )
    assert (
        window.run("return [...document.querySelectorAll('table')].filter(e => !e.caption.textContent.trim()).length")
        == 0
    )
    figures = (
        "return [...document.querySelectorAll('figure')].filter(e => !e.parentElement.querySelector('table')).length"
    )
    assert window.run(figures) == 0
    assert window.run("return [...document.querySelectorAll('th')].filter(e => !e.scope).length") == 0


def test_it_can_be_seen(window: Browser, tidy: tuple[Ledger, Path], tmp_path: Path) -> None:
    folder = Path(PICTURES) if PICTURES else tmp_path
    for name, width, height, scheme, there in (
        ("report-light", 1100, 1500, "light", ""),
        ("report-dark", 1100, 1500, "dark", ""),
        ("report-phone", 390, 1500, "light", ""),
        ("report-run", 1100, 1300, "light", "#run-59"),
        ("report-moderators", 1100, 1300, "light", "#moderators"),
    ):
        window.resize(width, height, mobile=width < 500)
        window.prefer(scheme)
        window.open(tidy[1])
        window.run("location.hash = arguments[0]", there)
        wait(window, "return document.readyState === 'complete'")
        window.picture(folder / f"{name}.png")
        assert (folder / f"{name}.png").stat().st_size > 10_000


def wait(window: Browser, condition: str) -> None:
    """Until the page says so; the browser's own clock decides, because a toggle comes a moment after its cause."""
    window.driver.set_script_timeout(60)
    window.driver.execute_async_script(
        "const done = arguments[arguments.length - 1]; const holds = () => {" + condition + "};"
        "const look = () => holds() ? done() : setTimeout(look, 20); look();"
    )
