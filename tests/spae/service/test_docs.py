"""The documentation in a real browser: every route is there, and its example runs."""

import json
import shutil

import pytest
from fake_upstream import running
from some_images import encoded

from spae.service.app import create_app
from spae.service.settings import Settings

playwright = pytest.importorskip("playwright.sync_api", reason="the documentation is tested in Chromium")
CHROMIUM = shutil.which("chromium")


@pytest.fixture
def url(fakes, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("a-key-for-the-documentation")
    with running(create_app(Settings(api_keys_file=str(keys)))) as url:
        yield url


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the path")
def test_every_example_runs(url):
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(60_000)
        elsewhere, failures = [], []
        page.on("request", lambda request: request.url.startswith(url) or elsewhere.append(request.url))
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(f"{url}/docs")
        page.wait_for_selector(".route")
        cards = {card.locator("h2").inner_text(): card for card in page.locator(".route").all()}
        document = json.loads(page.evaluate("fetch('openapi.json').then(one => one.text())"))
        assert len(cards) == sum(len(methods) for methods in document["paths"].values())

        def run(name: str) -> tuple[str, str]:
            cards[name].locator("button").click()
            cards[name].locator("button:enabled").wait_for()
            answer = cards[name].locator("section")
            return answer.locator("p").first.inner_text(), answer.locator("pre").inner_text()

        status, text = run("GET /v1/models")
        assert status == "Status 401"
        assert "invalid_api_key" in text
        page.fill("#key", "a-key-for-the-documentation")
        page.press("#key", "Enter")
        # The example's words are the default tokenizer's, not the fake one's.
        cards["POST /v1/detokenize"].locator("textarea").fill('{"text": "snow coal"}')
        for name in cards:
            status, text = run(name)
            assert status == "Status 200", (name, text)
        assert cards["POST /v1/detokenize"].locator("img").count() == 1
        picture = {"name": "a.png", "mimeType": "image/png", "buffer": encoded()}
        cards["POST /v1/tokenize"].locator("input[type=file]").set_input_files([picture, picture])
        status, text = run("POST /v1/tokenize")
        assert status == "Status 200"
        assert len(json.loads(text)["data"]) == 2
        assert elsewhere == []
        assert failures == []
        browser.close()
