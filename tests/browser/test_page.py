"""The page in a real browser: Debian's chromium, headless."""

import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scarprune.report.figure import all_figures
from scarprune.report.page import write_page
from support.findings import KINDS, write_folder

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")]
READY = "document.documentElement.dataset.drawn"
DRAWN = [figure for figure in all_figures() if figure.name != "agreement"]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = write_folder(tmp_path_factory.mktemp("findings"))
    write_page(folder, folder / "report.html")
    return (folder / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page, wide and light; ends in an error if it said anything or asked for anything."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    said: list[str] = []
    context.route("**/*", lambda route: _only(route, address, said))
    opened = context.new_page()
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.goto(address)
    opened.wait_for_function(READY)
    yield opened
    context.close()
    assert said == []


def _only(route: Any, address: str, said: list[str]) -> None:
    if route.request.url == address:
        route.continue_()
    else:
        said.append(f"asked for {route.request.url}")
        route.abort()


@pytest.mark.parametrize("figure", DRAWN, ids=lambda figure: figure.name)
def test_a_figure_holds_the_values_of_its_json(page: Any, figure: Any) -> None:
    module = importlib.import_module(f"scarprune.report.figures.{figure.name}")
    if not hasattr(module, "rows") or figure.name == "trajectory":
        pytest.skip("shares its rows with another figure")
    shown = page.evaluate("name => scarpruneViews[name].data(name).map(({...row}) => row)", figure.name)
    wanted = module.rows(KINDS[figure.artifact]())
    assert [{key: row.get(key) for key in wanted[0]} for row in shown] == wanted


def test_hovering_a_channel_names_it(page: Any) -> None:
    dot = page.locator("#activation path[aria-roledescription='circle']").first
    dot.scroll_into_view_if_needed()
    dot.hover(force=True)
    tip = page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    for words in ("channel", "loss proxy", "activation rank", "write overlap"):
        assert words in tip.inner_text()


def test_choosing_a_site_redraws_it(page: Any) -> None:
    page.locator("#mass select").select_option("layers.1.mlp")
    assert page.evaluate("scarpruneViews.mass.signal('site')") == "layers.1.mlp"


def test_the_core_is_downloaded(page: Any, tmp_path: Path) -> None:
    with page.expect_download() as waiting:
        page.locator("#csv").click()
    waiting.value.save_as(tmp_path / "core.csv")
    lines = (tmp_path / "core.csv").read_text().splitlines()
    assert lines[0] == "site,layer,channel"
    assert lines[-2:] == ["layers.1.mlp,1,0", "layers.1.mlp,1,1"]
    assert len(lines) == 5


def test_strings_stay_strings(page: Any) -> None:
    assert page.evaluate("window.broken") is None


def test_dark_and_light_can_be_switched(page: Any) -> None:
    assert page.evaluate(READY) == "light"
    page.locator("#theme").click()
    page.wait_for_function(f"{READY} === 'dark'")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(21, 24, 28)"
    assert "#f0786b" in page.locator("#concentration svg").inner_html().lower()


def test_the_numbers_of_a_figure_open_as_a_table(page: Any) -> None:
    page.locator("#births details summary").click()
    assert page.locator("#births table tbody tr").count() == 2


def test_a_phone_scrolls_downwards_only(page: Any) -> None:
    page.set_viewport_size({"width": 375, "height": 700})
    page.reload()
    page.wait_for_function(READY)
    assert page.evaluate("document.documentElement.scrollWidth") == 375


def test_it_prints(page: Any) -> None:
    assert page.pdf().startswith(b"%PDF")
