"""The site, built from nothing without a network, in a headless Chromium: no page asks for anything
beyond it, every link inside holds, pictures have words, the widgets work.
"""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from scipy.special import betainc

from catchup.mixers.cutmix import cut_box
from catchup.plots.results import beta_density

ROOT = Path(__file__).parents[2]
PAGES = ("index.html", "docs/results.html", "api/mixers.html", "_static/playground.html")
PAGES += ("_static/inspector.html",)
WIDTHS = (400, 1280, 1920)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "build.py", out, "--stored"],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr  # Sphinx's warnings are errors
    return out / "html"


@pytest.fixture
def opened(browser, site):
    """Opens a page; what it said on the console, and asked for beyond the site, fails the test."""
    heard, pages = [], []

    def open_page(name, width):
        page = browser.new_page(viewport={"width": width, "height": 800})
        pages.append(page)
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("requestfailed", lambda request: heard.append(f"failed: {request.url}"))
        page.on(
            "request",
            lambda request: heard.append(request.url) if request.url.startswith("http") else None,
        )
        page.goto((site / name).as_uri())
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not heard


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_without_a_word_and_is_no_wider_than_the_screen(opened, name, width):
    page = opened(name, width)
    page.wait_for_load_state("load")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


class Links(HTMLParser):
    """What a page points to, what can be pointed to in it, and its pictures."""

    def __init__(self, text):
        super().__init__()
        self.targets, self.places, self.pictures = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.places |= {named[key] for key in ("id", "name") if named.get(key)}
        self.targets += [named[key] for key in ("href", "src") if named.get(key)]
        if tag == "img":
            self.pictures.append(named)


def test_every_link_inside_holds_and_every_picture_has_words(site):
    pages = {path: Links(path.read_text()) for path in site.rglob("*.html")}
    assert len(pages) > 40
    for path, page in pages.items():
        for target in page.targets:
            file, _, place = unquote(target).partition("#")
            file = file.partition("?")[0]
            if re.match(r"[a-z]+:", target) or path.name == "search.html":
                continue
            there = (path.parent / file).resolve() if file else path
            assert there.exists(), f"{path.relative_to(site)} points to {target}"
            if place and there in pages and there.suffix == ".html":
                assert place in pages[there].places, f"{path.relative_to(site)}: {target}"
        for picture in page.pictures:
            assert picture.get("alt"), f"{path.relative_to(site)}: {picture.get('src')}"


def test_every_public_name_stands_in_the_pages_of_its_room(site):
    import catchup

    text = "".join(path.read_text() for path in (site / "api").glob("*.html"))
    for name in ("CatchUpMix", "find_blocks", "recording", "fit", "pgd", "feature_drop_curves"):
        assert re.search(rf'id="catchup\.\w+\.{name}"', text), name
    assert catchup.CatchUpMix.__name__ in text


@pytest.mark.parametrize("alpha", [0.05, 0.5, 1.0, 3.0, 31.6])
def test_the_playground_says_what_python_says(opened, alpha):
    page = opened("_static/playground.html", 1280)
    for lam, channels in ((0.03, 4), (0.29, 64), (0.6, 512), (0.97, 1024)):
        shown = page.evaluate(f"playground({alpha}, {lam}, {channels})")
        assert shown["density"] == pytest.approx(beta_density(lam, alpha), rel=1e-9)
        assert shown["nearPlain"] == pytest.approx(2 * betainc(alpha, alpha, 0.1), rel=1e-9)
        assert shown["kept"] == int(lam * channels)
        top, bottom, left, right = cut_box(64, 64, lam, (0.5, 0.5))
        assert shown["box"] == [top, bottom] == [left, right]
        assert shown["label"] == pytest.approx(1 - (bottom - top) ** 2 / 64**2)


def test_the_playground_answers_keys(opened):
    page = opened("_static/playground.html", 1280)
    page.focus("#lam")
    page.keyboard.press("ArrowRight")
    assert page.text_content("#lam-is") == "0.61"
    assert "K = ⌊0.61 · 64⌋ = 39 lagging filters kept" in page.text_content("#shares-says")


def test_the_inspector_answers_keys(opened):
    page = opened("_static/inspector.html", 1280)
    page.wait_for_selector(".catchup-inspector canvas[data-drawn]", state="attached")
    slider = page.locator('.catchup-inspector input[type="range"]').first
    before = slider.input_value()
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert float(slider.input_value()) > float(before)
