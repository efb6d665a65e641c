"""The page in a real browser: Chromium without a window."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from aim_sdk import AIMPipeline
from aim_sdk.serving.keys import Keys, Rights, digest_of
from aim_sdk.serving.settings import ServeSettings
from tests.servers import Live, data, given, serving

playwright = pytest.importorskip("playwright.sync_api", reason="the browser's driver is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

KEY = "a key of the page's tests"


@pytest.fixture(scope="module")
def pipe() -> AIMPipeline:
    return AIMPipeline.from_pretrained("pocket", device="cpu")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def live(pipe: AIMPipeline, tmp_path: Path) -> Iterator[Live]:
    with serving(pipe, ServeSettings(banks=tmp_path / "banks")) as made:
        yield made


@pytest.fixture(params=["light", "dark", "phone"])
def page(request: pytest.FixtureRequest, browser: Any, live: Live) -> Iterator[Any]:
    """A page that must ask nobody else and report no error."""
    looks: dict[str, dict[str, Any]] = {
        "light": {"color_scheme": "light"},
        "dark": {"color_scheme": "dark"},
        "phone": {"viewport": {"width": 360, "height": 780}, "has_touch": True},
    }
    context = browser.new_context(**looks[request.param])
    made = context.new_page()
    problems: list[str] = []
    made.on("console", lambda said: problems.append(said.text) if said.type in ("error", "warning") else None)
    made.on("pageerror", lambda error: problems.append(str(error)))
    made.on(
        "request",
        lambda sent: problems.append(sent.url) if not sent.url.startswith((live.url, "data:", "blob:")) else None,
    )
    made.goto(live.url)
    yield made
    context.close()
    assert problems == []


def shape(color: str, path: Path | None = None) -> Image.Image:
    made = Image.new("RGB", (96, 96), "white")
    ImageDraw.Draw(made).rectangle((20, 20, 76, 76), fill=color)
    if path is not None:
        made.save(path)
    return made


def test_a_bank_is_made_filled_filtered_and_emptied(page: Any, live: Live, tmp_path: Path) -> None:
    page.get_by_text("There is no bank yet").wait_for()
    page.once("dialog", lambda dialog: dialog.accept("shapes"))
    page.get_by_role("button", name="New bank").click()
    page.get_by_text("No demonstration here yet").wait_for()
    files = [tmp_path / "red.png", tmp_path / "blue.png", tmp_path / "not.png"]
    shape("red", files[0])
    shape("blue", files[1])
    files[2].write_bytes(b"not an image")
    page.get_by_label("Drop pictures here to add").set_input_files(files)
    page.get_by_label("What is asked of each").fill("What is it?")
    for name, answer in (("red.png", "a dax"), ("blue.png", "a blick"), ("not.png", "nothing")):
        page.get_by_label(f"Answer for {name}").fill(answer)
    page.get_by_role("button", name="Add 3").click()
    page.get_by_role("alert").filter(has_text="not.png").wait_for()
    page.get_by_role("img", name="Demonstration: a dax").wait_for()
    assert page.get_by_role("img", name="Demonstration:").count() == 2
    held = live.service.banks.bank("shapes")
    assert {entry.demonstration.text for entry in held.values()} == {"What is it?"}
    page.get_by_label("Text or answer contains").fill("BLICK")
    page.get_by_role("img", name="Demonstration: a dax").wait_for(state="detached")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Remove a blick").click()
    page.get_by_text("No demonstration here with this filter").wait_for()
    assert [entry.demonstration.answer for entry in held.values()] == ["a dax"]
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_picture_is_answered_in_every_mode(page: Any, live: Live, tmp_path: Path) -> None:
    live.fill("shapes", [given(shape("red"), "a dax"), given(shape("blue"), "a blick")])
    page.reload()
    page.get_by_role("button", name="Playground").click()
    page.get_by_label("Drop a picture to ask about").set_input_files(
        {"name": "q.png", "mimeType": "image/png", "buffer": data(shape("darkred"))}
    )
    page.get_by_label("Question").fill("What is it?")
    page.get_by_role("button", name="Answer in every mode").click()
    shown = page.locator(".modes article")
    shown.nth(3).wait_for()
    titles = shown.locator("header").all_inner_texts()
    assert [title.partition(":")[0] for title in titles] == ["Zero-shot", "Text-only", "AIM", "Interleaved"]
    page.locator(".modes article:nth-child(3) .thumbs img").nth(1).wait_for()
    assert shown.nth(0).locator(".thumbs").count() == 0
    assert page.locator(".said").nth(2).inner_text() in ("a dax", "a blick")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_the_page_works_by_keyboard(page: Any, live: Live) -> None:
    live.fill("shapes", [given(shape("red"), "a dax")])
    page.reload()
    page.get_by_role("img", name="Demonstration: a dax").wait_for()
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("[document.activeElement.tagName, document.activeElement.innerText].join(' ')"))
    assert any("Playground" in one for one in reached)
    assert any(one.startswith("INPUT") for one in reached)
    assert any("Remove" in one for one in reached)


def test_a_key_is_asked_for(browser: Any, pipe: AIMPipeline, tmp_path: Path) -> None:
    rights = {"page": Rights(sha256=digest_of(KEY), may=("ask", "write"))}
    with serving(pipe, ServeSettings(banks=tmp_path), Keys(rights)) as live:
        page = browser.new_page()
        page.goto(live.url)
        page.get_by_label("API key").fill("wrong")
        page.get_by_role("button", name="Open").click()
        page.get_by_role("alert").filter(has_text="not one of this service's").wait_for()
        page.get_by_label("API key").fill(KEY)
        page.get_by_role("button", name="Open").click()
        page.get_by_text("There is no bank yet").wait_for()
        live.client.headers["Authorization"] = f"Bearer {KEY}"
        live.fill("shapes", [given(shape("red"), "a dax")])
        page.reload()
        page.get_by_role("img", name="Demonstration: a dax").wait_for()
        page.get_by_role("button", name="Forget the key of page").click()
        page.get_by_label("API key").wait_for()
        page.close()


def test_what_is_refused_is_shown_and_not_offered(browser: Any, pipe: AIMPipeline, tmp_path: Path) -> None:
    rights = {
        "page": Rights(sha256=digest_of(KEY), may=("ask", "write")),
        "guest": Rights(sha256=digest_of("guest-" * 4)),
    }
    with serving(pipe, ServeSettings(banks=tmp_path), Keys(rights)) as live:
        live.client.headers["Authorization"] = f"Bearer {KEY}"
        live.fill("shapes", [given(shape("red"), "a dax <b>bold</b><img src=x onerror=alert(1)>")])
        page = browser.new_page()
        page.goto(live.url)
        page.get_by_label("API key").fill("guest-" * 4)
        page.get_by_role("button", name="Open").click()
        page.get_by_text("a dax <b>bold</b>").first.wait_for()
        for name in ("New bank", "Delete bank", "Remove"):
            assert page.get_by_role("button", name=name).count() == 0
        page.get_by_label("Metadata, as field:value").fill("nothing")
        page.get_by_role("alert").filter(has_text="write field:value").wait_for()
        page.get_by_role("button", name="Forget the key of guest").click()
        page.get_by_label("API key").fill(KEY)
        page.get_by_role("button", name="Open").click()
        page.once("dialog", lambda dialog: dialog.accept("-no"))
        page.get_by_role("button", name="New bank").click()
        page.get_by_role("alert").filter(has_text="cannot name a bank").wait_for()
        assert page.locator("select").input_value() == "shapes"
        page.get_by_label("Drop pictures here to add").set_input_files(
            {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"x"}
        )
        page.get_by_role("alert").filter(has_text="Not a picture: notes.txt").wait_for()
        page.close()


def test_the_reference_needs_no_other_host(browser: Any, live: Live) -> None:
    page, others = browser.new_page(), []
    page.on("request", lambda sent: others.append(sent.url) if not sent.url.startswith((live.url, "data:")) else None)
    page.goto(f"{live.url}/docs")
    page.get_by_text("/v1/chat/completions").first.wait_for()
    assert others == []
    page.close()
