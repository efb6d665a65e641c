"""``python docs/screenshots.py``: pictures of the service's page and of a report, in Chromium; pocket really answers.

Needs the extra ``clients`` and Chromium. Nothing is chosen. The service's bank is the demonstrations of the demo's
first set of new names, and the picture that is asked about is its first query. The report is of 100 pictures of
easy-VQA with a made-up word for each of five colours, a tenth of them wrong.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, sync_playwright

from aim_sdk import AIMPipeline, Demonstration
from aim_sdk.assessment.report import write_page
from aim_sdk.bank import DemonstrationBank, NewBankWarning
from aim_sdk.files.images import load_image
from aim_sdk.serving.settings import ServeSettings
from benchmarks.pocket.sets import pairs
from benchmarks.pocket.trials import pictures
from tests.servers import data, serving

ASSETS: Final = Path(__file__).parent / "assets"
WORDS: Final = ("blick", "dax", "wug", "toma", "fep")


def main() -> None:
    """Take them."""
    pipe = AIMPipeline.from_pretrained("pocket", device="cpu")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        report(pipe, browser)
        service(pipe, browser)
        browser.close()


def report(pipe: AIMPipeline, browser: Browser) -> None:
    """The page of `aim-icl bank assess`."""
    assessed = AIMPipeline(pipe.backend, pipe.projector)
    assessed.bank.add(_words())
    with tempfile.TemporaryDirectory() as folder:
        found = assessed.assess(folder=folder, progress=True)
        print(found.verdict.sentence)
        images = {entry.key: entry.demonstration.image for entry in assessed.bank.values()}
        write_page(found, assessed.bank, place := Path(folder) / "assessment.html", images)
        page = browser.new_page(viewport={"width": 1000, "height": 800})
        page.goto(place.as_uri())
        shown = {"x": 0, "y": 0, "width": 1000, "height": page.get_by_role("heading", name="harm").bounding_box()["y"]}
        page.screenshot(path=ASSETS / "assessment-report.png", full_page=True, clip=shown)


def _words() -> list[Demonstration]:
    """20 pictures of each of five colours with the colour's word; every tenth demonstration has another word."""
    found, rng = pictures("train", "What color is the shape?"), random.Random(0)
    shown = [
        Demonstration(picture, "What is this?", word)
        for colour, word in zip(sorted(found), WORDS, strict=False)
        for picture in rng.sample(list(dict.fromkeys(found[colour])), 20)
    ]
    shown = rng.sample(shown, len(shown))
    wrong = {n: rng.choice([word for word in WORDS if word != shown[n].answer]) for n in range(0, len(shown), 10)}
    return [replace(one, answer=wrong.get(n, one.answer)) for n, one in enumerate(shown)]


def service(pipe: AIMPipeline, browser: Browser) -> None:
    """The page of `aim-icl serve`."""
    pair = next(pairs("emoji-names", shots=4, limit=None, seed=0))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", NewBankWarning)
        with DemonstrationBank.open(Path(folder) / "names", encoder=pipe.encoder, create=True) as bank:
            bank.add(pair.demonstrations)
        query = pair.queries[0].query
        with serving(pipe, ServeSettings(banks=Path(folder))) as live:
            page = browser.new_page(viewport={"width": 1100, "height": 800})
            page.goto(live.url)
            page.get_by_role("img", name="Demonstration:").nth(3).wait_for()
            page.screenshot(path=ASSETS / "serve-bank.png", full_page=True)
            page.get_by_role("button", name="Playground").click()
            picture = {"name": "query.png", "mimeType": "image/png", "buffer": data(load_image(query.image))}
            page.get_by_label("Drop a picture to ask about").set_input_files(picture)
            page.get_by_label("Question").fill(query.text)
            page.get_by_role("button", name="Answer in every mode").click()
            page.locator(".modes article").nth(3).wait_for()
            page.wait_for_timeout(1500)  # the pictures of what was shown
            page.screenshot(path=ASSETS / "serve-playground.png", full_page=True)


if __name__ == "__main__":
    main()
