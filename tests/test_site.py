"""The site builds without a warning, leads nowhere that is not there, and sets its formulas."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
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


def test_every_picture_of_a_page_says_what_it_shows(pages, site):
    for path, page in pages.items():
        if path.is_relative_to(site / "site") or path.parent == site:
            assert all(given.get("alt") for given in page.pictures), path


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_every_formula_is_set_without_a_network(pages):
    from playwright.sync_api import sync_playwright

    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS.split())
        view = browser.new_page()
        view.on("request", lambda request: asked.append(request.url))
        for path, page in pages.items():
            if not page.formulas:
                continue
            view.goto(path.as_uri(), wait_until="domcontentloaded")
            view.wait_for_function("window.MathJax && MathJax.startup && MathJax.startup.promise")
            view.evaluate("MathJax.startup.promise")
            left, wrong = view.evaluate(
                "[[...document.querySelectorAll('.math')]"
                ".filter(e => !e.querySelector('mjx-container')).length,"
                " document.querySelectorAll('mjx-merror, [data-mjx-error]').length]"
            )
            assert (left, wrong) == (0, 0), path
        browser.close()
    assert asked
    assert not [url for url in asked if not url.startswith(("file:", "data:"))]
