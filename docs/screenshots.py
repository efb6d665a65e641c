"""``python docs/screenshots.py``: the pictures of the service's page, in Chromium, with what pocket really answers.

Needs the extra ``clients`` and Chromium. Nothing is chosen: the bank is the demonstrations of the demo's first set of
new names, and the picture that is asked about is its first query.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Final

from playwright.sync_api import sync_playwright

from aim_sdk import AIMPipeline
from aim_sdk.bank import DemonstrationBank, NewBankWarning
from aim_sdk.files.images import load_image
from aim_sdk.serving.settings import ServeSettings
from benchmarks.pocket.sets import pairs
from tests.servers import data, serving

ASSETS: Final = Path(__file__).parent / "assets"


def main() -> None:
    """Take them."""
    pair = next(pairs("emoji-names", shots=4, limit=None, seed=0))
    pipe = AIMPipeline.from_pretrained("pocket", device="cpu")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", NewBankWarning)
        with DemonstrationBank.open(Path(folder) / "names", encoder=pipe.encoder, create=True) as bank:
            bank.add(pair.demonstrations)
        query = pair.queries[0].query
        with serving(pipe, ServeSettings(banks=Path(folder))) as live, sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
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
            browser.close()


if __name__ == "__main__":
    main()
