"""The site builds without a warning, leads nowhere that is not there, and sets its formulas."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
HANGS = 600_000  # milliseconds: no page is too slow on a busy machine
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
FLAGS += " --disable-background-networking --disable-component-update"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("myst_nb") is None, reason="needs the extra docs"),
    pytest.mark.xdist_group("site"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    settings = ROOT / "notebooks" / "site"
    build = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "-q"]
    build += ["-b", "html", "-d", folder / "trees"]
    build += ["-c", settings, settings.parent, folder / "html"]
    done = subprocess.run(build, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return folder / "html"


class Page(HTMLParser):
    """What a page points to, what can be pointed to, and its pictures."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.pictures: list[dict[str, str | None]] = []
        self.formulas = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors.update(value for key, value in attrs if key in ("id", "name") and value)
        self.targets += [str(given[key]) for key in ("href", "src") if given.get(key)]
        if tag == "img":
            self.pictures.append(given)
        if "math" in (given.get("class") or "").split():
            self.formulas += 1


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    found = {path: Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}
    assert len(found) > 30
    return found


def test_nothing_points_to_what_is_not_there(pages):
    broken = []
    for path, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or target.startswith("//") or target == "#":
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not to.exists():
                broken.append(f"{path.name}: {target}")
            elif parts.fragment and to.suffix == ".html" and to in pages:
                anchor = unquote(parts.fragment)
                if anchor not in pages[to].anchors:
                    broken.append(f"{path.name}: {target}")
    assert not broken


def test_nothing_is_loaded_from_elsewhere(pages):
    for path, page in pages.items():
        for given in page.pictures:
            assert not urlsplit(given.get("src") or "").scheme.startswith("http"), path


def test_every_picture_of_a_page_says_what_it_shows(pages):
    assert sum(len(page.pictures) for page in pages.values()) > 40
    for path, page in pages.items():
        assert all(given.get("alt") for given in page.pictures), path


def test_the_reference_tells_what_is_in_every_module(site):
    text = (site / "site" / "generated" / "api" / "index.html").read_text(encoding="utf-8")
    rows = re.findall(r"<tr.*?</tr>", text, flags=re.DOTALL)
    told = [re.sub(r"<.*?>", " ", row).split(None, 1) for row in rows if "bandit." in row]
    assert {"bandit.losses", "bandit.analysis", "bandit.groups"} <= {name for name, _ in told}
    assert all(len(sentence.split()) >= 3 for _, sentence in told)
    losses = (site / "site" / "generated" / "api" / "bandit.losses.html").read_text("utf-8")
    assert "Alias for field" not in losses


def test_pages_are_light_enough_to_be_mailed(site):
    assert (site / "site" / "pages" / "explorer.html").stat().st_size < 1e6


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=BROWSER, args=FLAGS.split(), timeout=HANGS
        )
        yield browser
        browser.close()


def opened(browser, **how):
    view = browser.new_page(**how)
    view.set_default_timeout(HANGS)
    return view


def wait_for_formulas(view) -> None:
    view.wait_for_function("window.MathJax && MathJax.startup && MathJax.startup.promise")
    view.evaluate("MathJax.startup.promise")


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_the_pages_that_everyone_sees_fit_a_telephone(browser, site, pages):
    view = opened(browser, viewport={"width": 390, "height": 800})
    for name in ("site/index", "site/course", "site/pages/contract", "site/pages/explorer"):
        view.goto((site / f"{name}.html").as_uri())
        if pages[site / f"{name}.html"].formulas:
            wait_for_formulas(view)
        assert view.evaluate("document.documentElement.scrollWidth") <= 390, name
        # The first stop of the Tab key leads past the navigation.
        view.keyboard.press("Tab")
        assert "main content" in view.evaluate("document.activeElement.textContent"), name


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_the_lists_at_the_sides_are_not_cut(browser, site):
    view = browser.new_page(viewport={"width": 1280, "height": 800})
    for name in ("generated/api/bandit.analysis", "generated/api/bandit.history", "course"):
        view.goto((site / "site" / f"{name}.html").as_uri())
        # Also what is shown only while its part of the page is read.
        view.add_style_tag(content=".bd-sidebar-secondary ul { display: block !important; }")
        ends = view.evaluate(
            "[...document.querySelectorAll('.bd-sidebar-primary a, .bd-sidebar-secondary a, '"
            " + '.bd-sidebar-secondary code')].map(e => e.getBoundingClientRect().right)"
        )
        assert ends
        assert max(ends) <= 1280, name


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_the_slider_of_still_pictures_moves_from_the_keyboard(browser, site):
    view = opened(browser)
    view.goto((site / "site" / "pages" / "explorer.html").as_uri())
    slider = view.get_by_label("Share of arm 3 in the behavior")
    shown = view.locator(".frames-state:visible")
    assert shown.count() == 1
    before = shown.locator("img").get_attribute("src")
    assert "IPO comes to rest away from" in shown.inner_text()
    slider.focus()
    view.keyboard.press("ArrowRight")
    assert shown.count() == 1
    assert shown.locator("img").get_attribute("src") != before
    assert slider.get_attribute("aria-valuetext") == "behavior (0.0667, 0.1333, 0.8000)"
    view.keyboard.press("Home")
    assert "never compare {arm 1, arm 2} with {arm 3}" in shown.inner_text()


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_every_formula_is_set_without_a_network(pages, browser):
    asked: list[str] = []
    view = opened(browser)
    view.on("request", lambda request: asked.append(request.url))
    for path, page in pages.items():
        if not page.formulas:
            continue
        view.goto(path.as_uri(), wait_until="domcontentloaded")
        wait_for_formulas(view)
        left, wrong = view.evaluate(
            "[[...document.querySelectorAll('.math')]"
            ".filter(e => !e.querySelector('mjx-container')).length,"
            " document.querySelectorAll('mjx-merror, [data-mjx-error]').length]"
        )
        assert (left, wrong) == (0, 0), path
    assert asked
    assert not [url for url in asked if not url.startswith(("file:", "data:"))]
