"""The page in a real browser, headless Chromium, before a real service: every gesture that it offers."""

import base64
import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import numpy as np
import pytest
from fake_upstream import FakeUpstream, running, text_answer
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from spae.bundle import find
from spae.demo import PHOTOGRAPHS, read_credits
from spae.errors import BundleError
from spae.images import open_image, to_array
from spae.service.app import PAGE

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DOGS = PHOTOGRAPHS / "dogs.jpg"
KEY = "a-key-of-at-least-16-characters"
SECONDS = 60  # that anything may take on a busy machine, in which nothing is measured
# A service compiles batches of up to 32 before it is ready. One person needs one image at a time.
SERVE = """
from spae.cli import main
from spae.service.batching import Batcher
Batcher.__init__.__kwdefaults__["sizes"] = (1,)
raise SystemExit(main())
"""


@pytest.fixture(scope="module")
def upstream():
    fake = FakeUpstream()
    with running(fake.app) as url:
        fake.url = url
        yield fake


@pytest.fixture(scope="module")
def service(upstream, tmp_path_factory):
    """The address of `spae serve`, which wants a key."""
    try:
        find("default")
    except BundleError as error:
        pytest.skip(f"the page is tried with the shipped bundle: {error}")
    folder = tmp_path_factory.mktemp("service")
    (folder / "keys").write_text(KEY)
    command = [sys.executable, "-c", SERVE, "serve", "--port", "0", "--upstream", f"{upstream.url}/v1"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--api-keys", str(folder / "keys")], stdout=subprocess.PIPE, stderr=log, text=True
        )
    with process:
        found = re.search(r"http://[\d.:]+", process.stdout.readline())
        assert found, (folder / "log").read_text()[-2000:]
        yield found[0]
        process.terminate()
    assert process.returncode == 0


@pytest.fixture(scope="module")
def api(service):
    """The service without the page."""
    with httpx2.Client(
        base_url=service, headers={"Authorization": f"Bearer {KEY}"}, timeout=SECONDS
    ) as client:
        yield client


@pytest.fixture(scope="module")
def dogs(api):
    """What the service makes of the photograph."""
    answer = api.post("/v1/tokenize", files={"image": DOGS.read_bytes()}, data={"rivals": "8"})
    return answer.json()["data"][0]["layers"]


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("the page is tried in Chromium: install chromium")
    with sync_playwright() as playwright:
        # A new profile in a folder of its own, as launch makes it.
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, service, upstream):
    """Opens the page in a new window, with a key by default, and watches what it asks for and complains of."""
    upstream.reset()
    with contextlib.ExitStack() as stack:

        def visit(key: bool = True, **options) -> Page:
            if key:
                options["extra_http_headers"] = {"Authorization": f"Bearer {KEY}"}
            context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
            stack.callback(context.close)
            context.set_default_timeout(SECONDS * 1000)
            page = context.new_page()
            page.problems, page.asked = [], []
            page.on("pageerror", lambda error: page.problems.append(str(error)))
            page.on("console", lambda message: message.type == "error" and page.problems.append(message.text))
            page.on("request", lambda request: page.asked.append(request.url))
            page.goto(service)
            return page

        yield visit


expect.set_options(timeout=SECONDS * 1000)


def opened(page: Page, file: Path = DOGS) -> Page:
    page.set_input_files("#file", file)
    return ready(page)


def ready(page: Page) -> Page:
    """Waits for words and pictures."""
    expect(page.locator("#status")).to_contain_text(re.compile(r"words\.$"))
    return page


def layer(page: Page, number: int) -> list[str]:
    """Opens a layer; gives the words over the photograph."""
    page.check(f"#layers input[value='{number - 1}']")
    return page.locator("#places button").all_text_contents()


def fine(page: Page, *, but: str = "(?!)") -> None:
    """Nothing went wrong, and nothing came from elsewhere. `but`: problems that were meant."""
    assert [problem for problem in page.problems if not re.search(but, problem)] == []
    own = page.url.split("#")[0]
    assert [url for url in page.asked if not url.startswith((own, "data:", "blob:"))] == []


def picture(page: Page) -> str:
    expect(page.locator("#reconstruction")).to_be_visible()
    return page.locator("#reconstruction").get_attribute("src")


def pixels(url: str) -> np.ndarray:
    return np.asarray(
        Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"), np.float64
    )


def transfer(page: Page, file: Path, kind: str):
    """A file as the browser hands it over when it is dropped."""
    script = """([data, name, type]) => {
        const transfer = new DataTransfer();
        const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
        transfer.items.add(new File([bytes], name, { type }));
        return transfer;
    }"""
    data = base64.b64encode(file.read_bytes()).decode()
    return page.evaluate_handle(script, [data, file.name, kind])


def made_of(api, layers) -> list[str]:
    """The pictures of all prefixes of these layers' words."""
    words = [one["words"] for one in layers]
    inputs = [{"words": words[:n]} for n in range(1, len(words) + 1)]
    return [one["url"] for one in api.post("/v1/detokenize", json={"inputs": inputs}).json()["data"]]


def test_choose_a_photograph_and_see_every_layer(visit, dogs):
    page = opened(visit())
    for number, expected in enumerate(dogs, start=1):
        assert layer(page, number) == expected["words"]
        # Word n lies over its place.
        box, stage = page.locator("#places button").last.bounding_box(), page.locator("#plane").bounding_box()
        assert box["width"] == pytest.approx(stage["width"] / expected["width"], abs=1)
        assert box["y"] + box["height"] == pytest.approx(stage["y"] + stage["height"], abs=1)
    lines = page.locator("#lines p").all_text_contents()
    assert [line.split() for line in lines] == [one["words"] for one in dogs]
    expect(page.locator("#facts")).to_contain_text("597")
    fine(page)


def test_drop_a_photograph(visit, dogs):
    page = visit()
    handed = transfer(page, DOGS, "image/jpeg")
    page.dispatch_event("body", "dragover", {"dataTransfer": handed})
    expect(page.locator("body")).to_have_class("dragging")
    page.dispatch_event("body", "drop", {"dataTransfer": handed})
    assert layer(ready(page), 2) == dogs[1]["words"]
    expect(page.locator("body")).to_have_class("working")
    page.dispatch_event("body", "drop", {"dataTransfer": page.evaluate_handle("new DataTransfer()")})
    expect(page.locator("#error")).to_contain_text("Wanted a photograph")
    fine(page)


def test_paste_a_photograph(visit, api, tmp_path):
    page = visit()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    file = tmp_path / "cat.png"
    Image.open(PHOTOGRAPHS / "cat.jpg").save(file)
    handed = transfer(page, file, "image/png")
    handed.evaluate("""(transfer) => navigator.clipboard.write(
        [new ClipboardItem({ "image/png": new Blob([transfer.files[0]], { type: "image/png" }) })])""")
    page.keyboard.press("Control+V")
    expected = api.post("/v1/tokenize", files={"image": file.read_bytes()}).json()["data"][0]
    assert layer(ready(page), 3) == expected["layers"][2]["words"]
    page.locator("#new-word").focus()
    page.evaluate("navigator.clipboard.writeText('puppy')")
    page.keyboard.press("Control+V")
    expect(page.locator("#new-word")).to_have_value("puppy")
    fine(page)


WORDS = "dog puppy canine breed paw"


def written(page: Page) -> Page:
    """Waits for the picture that words make."""
    expect(page.locator("#status")).to_contain_text(re.compile(r"layers?( hold)?\.( Not all as .*)?$"))
    return page


def test_paste_words(visit, api):
    page = visit()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("(words) => navigator.clipboard.writeText(words)", f"Sure!\n\n```\n{WORDS}\n```")
    page.keyboard.press("Control+V")
    expect(written(page).locator("#status")).to_contain_text("5 words: the first 2 of 6 layers.")
    assert layer(page, 2) == WORDS.split()[1:]
    (answer,) = api.post("/v1/detokenize", json={"text": WORDS}).json()["data"]
    assert picture(page) == answer["url"]
    expect(page.locator("#repairs summary")).to_have_text("Of 5 words: read past wrapping (1).")
    # The words are those that were written.
    expect(page.locator("#status")).not_to_contain_text("Not all")
    # There is no photograph to lay over the picture, and nothing that was chosen before others.
    expect(page.locator("#reveal-part")).to_be_hidden()
    expect(page.locator("#patch-part")).to_be_hidden()
    expect(page.locator("#rivals-part")).to_be_hidden()
    page.fill("#new-word", "beach")
    page.press("#new-word", "Enter")
    expect(page.locator("#status")).to_contain_text("Changed")
    # The words lie over the picture that they make.
    small = pixels(page.evaluate("document.getElementById('picture').toDataURL()"))
    np.testing.assert_array_equal(small, pixels(picture(page)))
    assert picture(page) != answer["url"]
    fine(page)


def test_words_that_are_missing_or_wrong(visit, api):
    page = visit()
    page.fill("#words-in", f"{WORDS} whitte grass")
    page.press("#words-in", "Enter")
    expect(written(page).locator("#status")).to_contain_text(
        "7 words, of the 21 that the first 3 of 6 layers hold."
    )
    expect(page.locator("#repairs summary")).to_have_text(
        "Of 21 words: 14 were missing and are filled with the word above; 1 not in the vocabulary, and replaced."
    )
    assert page.locator("#repairs li").all_text_contents() == ["word 6: “whitte” became “white”"]
    (answer,) = api.post("/v1/detokenize", json={"text": f"{WORDS} white grass"}).json()["data"]
    assert layer(page, 3) == answer["layers"][2]["words"]
    page.fill("#words-in", "12 34 !")
    page.click("#words-form button:not([type])")
    expect(page.locator("#error")).to_have_text(re.compile("^Your words: (?!Text)"))
    expect(page.locator("#repairs")).to_be_hidden()  # those were of the words before
    # A photograph needs no repairs.
    opened(page)
    expect(page.locator("#repairs")).to_be_hidden()
    expect(page.locator("#reveal-part")).to_be_visible()
    fine(page, but="status of 422")


def test_a_link_that_carries_the_words(visit):
    page = opened(visit())
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#prefix").fill("3")
    before, words = picture(page), page.locator("#lines p").all_text_contents()[:3]
    page.click("#copy-link")
    expect(page.locator("#copy-note")).to_have_text("Copied a link that carries 21 words.")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == f"{page.url}#words={'+'.join(' '.join(words).split())}"
    opened(page)
    expect(page.locator("#copy-note")).to_be_empty()  # it was of the words before
    page.goto("about:blank")
    page.asked.clear()
    page.goto(link)
    assert picture(written(page)) == before
    assert page.locator("#lines p").all_text_contents() == words
    assert not any("words=" in url.split("#")[0] for url in page.asked)
    page.evaluate("location.hash = '#words=%E0'")
    expect(page.locator("#error")).to_contain_text("damaged")
    fine(page)


def test_a_prompt_to_copy(visit, api):
    page = visit()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#copy-prompt")
    expect(page.locator("#prompt-note")).to_contain_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == api.get("/v1/prompt").json()["text"]
    fine(page)


def test_the_photograph_over_the_picture_and_a_download(visit):
    page = opened(visit())
    page.locator("#prefix").fill("5")
    page.locator("#reveal").fill("50")
    assert (
        page.locator("#original").evaluate("(one) => getComputedStyle(one).clipPath")
        == "inset(0px 50% 0px 0px)"
    )
    boxes = [page.locator(one).bounding_box() for one in ("#original", "#reconstruction")]
    assert boxes[0] == pytest.approx(boxes[1], abs=1)
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "dogs, 341 words.png"
    saved = np.asarray(Image.open(download.value.path()).convert("RGB"), np.float64)
    np.testing.assert_array_equal(saved, pixels(picture(page)))
    fine(page)


def test_undo(visit, dogs):
    page = opened(visit())
    page.locator("#prefix").fill("2")
    before = picture(page)
    pictures = [before]
    for word in ("beach", "bridge"):
        page.fill("#new-word", word)
        page.press("#new-word", "Enter")
        expect(page.locator("#status")).to_contain_text(re.compile(f"Changed .* to “{word}”"))
        expect(page.locator("#before")).to_have_attribute("src", pictures[-1])
        pictures.append(picture(page))
    page.click("#restore-all")
    expect(page.locator("#status")).to_contain_text("as they came")
    for expected in (pictures[2], pictures[1], before):
        page.keyboard.press("Control+Z")
        expect(page.locator("#reconstruction")).to_have_attribute("src", expected)
    assert layer(page, 2) == dogs[1]["words"]
    expect(page.locator("#restore-all")).to_be_hidden()
    page.keyboard.press("Control+z")
    assert picture(page) == before
    fine(page)


def test_one_of_the_photographs_that_are_there(visit):
    page = visit()
    page.click(".sample[data-file='cat.jpg']")
    ready(page)
    expect(page.locator("#status")).to_contain_text("Chelsea the cat")
    fine(page)


def test_point_at_a_word_and_see_its_patch_and_its_rivals(visit, dogs):
    page = opened(visit())
    photograph = np.asarray(Image.open(DOGS).convert("RGB"), np.float64)
    for number, index in ((1, 0), (2, 3), (3, 6), (4, 35)):
        layer(page, number)
        page.locator("#places button").nth(index).hover()
        one = dogs[number - 1]
        expect(page.locator("#word")).to_have_text(one["words"][index])
        assert page.locator("#rivals button").all_text_contents() == one["rivals"][index]
        row, column, side = index // one["width"], index % one["width"], 256 // one["width"]
        if number > 1:
            expect(page.locator("#where")).to_contain_text(
                f"row {row + 1} of {one['height']}, column {column + 1}"
            )
        patch = pixels(page.evaluate("document.getElementById('patch').toDataURL()"))
        place = photograph[row * side : (row + 1) * side, column * side : (column + 1) * side]
        resized = np.asarray(Image.fromarray(place.astype(np.uint8)).resize((96, 96)), np.float64)
        assert np.abs(patch - resized).mean() < 6
        made = pixels(page.evaluate("document.getElementById('patch-made').toDataURL()"))
        whole = pixels(picture(page))
        side = 64 // one["width"]
        part = whole[row * side : (row + 1) * side, column * side : (column + 1) * side]
        assert np.abs(made.mean((0, 1)) - part.mean((0, 1))).max() < 12
    # In the list, too.
    page.locator("#lines .layer1 .word").hover()
    expect(page.locator("#word")).to_have_text(dogs[0]["words"][0])
    fine(page)


def test_a_slider_by_keyboard_over_all_prefixes(visit, api, dogs):
    page = opened(visit())
    expected = made_of(api, dogs)
    assert picture(page) == expected[-1]
    original = to_array(open_image(DOGS), 64).astype(np.float64)
    slider = page.locator("#prefix")
    slider.focus()
    page.keyboard.press("Home")
    errors = []
    for number, url in enumerate(expected, start=1):
        expect(page.locator("#reconstruction")).to_have_attribute("src", url)
        words = sum(len(one["words"]) for one in dogs[:number])
        expect(page.locator("#prefix-note")).to_contain_text(f"{words} word")
        assert str(words) in slider.get_attribute("aria-valuetext")
        errors.append(((pixels(picture(page)) - original) ** 2).mean())
        page.keyboard.press("ArrowRight")
    assert errors[-1] < errors[2] < errors[0]
    fine(page)


def test_a_rival_changes_the_word_and_the_picture_and_can_be_undone(visit, api, dogs):
    page = opened(visit())
    before = picture(page)
    layer(page, 4)
    page.locator("#places button").nth(9).click()
    rival = dogs[3]["rivals"][9][2]
    page.get_by_role("button", name=rival, exact=True).click()
    expect(page.locator("#status")).to_contain_text("Changed")
    changed = [dict(one, words=list(one["words"])) for one in dogs]
    changed[3]["words"][9] = rival
    assert layer(page, 4) == changed[3]["words"]
    expect(page.locator("#places button").nth(9)).to_have_class(re.compile("changed"))
    assert picture(page) == made_of(api, changed)[-1] != before
    expect(page.locator("#restore")).to_have_text(f"Put back “{dogs[3]['words'][9]}”")
    page.click("#restore")
    expect(page.locator("#restore")).to_be_hidden()
    assert picture(page) == before
    page.get_by_role("button", name=rival, exact=True).click()
    expect(page.locator("#restore-all")).to_be_visible()
    page.click("#restore-all")
    expect(page.locator("#restore-all")).to_be_hidden()
    assert picture(page) == before
    assert layer(page, 4) == dogs[3]["words"]
    fine(page)


def test_suggestions_are_not_waited_for(visit):
    page = opened(visit())
    suggestions = re.compile("/v1/vocabulary")
    page.route(suggestions, lambda route: None)  # never answered
    with page.expect_request(suggestions):
        page.fill("#new-word", "beach")
    with page.expect_event("requestfailed", lambda request: suggestions.search(request.url)):
        page.press("#new-word", "Enter")
    expect(page.locator("#status")).to_contain_text("Changed")
    fine(page)


def test_another_photograph_while_all_is_put_back(visit, api):
    page = opened(visit())
    page.fill("#new-word", "beach")
    page.press("#new-word", "Enter")
    expect(page.locator("#restore-all")).to_be_visible()
    held = []
    page.route("**/v1/detokenize", lambda route: route.continue_() if held else held.append(route))
    with page.expect_request("**/v1/detokenize"):
        page.click("#restore-all")
    cat = PHOTOGRAPHS / "cat.jpg"
    page.set_input_files("#file", cat)
    expect(page.locator("#status")).to_contain_text("cat.jpg became")
    # What comes too late of the first photograph changes nothing of the second.
    with page.expect_response("**/v1/detokenize"):
        held[0].fulfill(status=503, json={"error": {"message": "busy"}})
    found = api.post("/v1/tokenize", files={"image": cat.read_bytes()}).json()["data"][0]["layers"]
    for number in (1, 2):
        assert layer(page, number) == found[number - 1]["words"]
    fine(page, but="503")


def test_a_word_by_keyboard_alone(visit, api, dogs):
    page = opened(visit())
    layer(page, 3)
    page.locator("#places [tabindex='0']").focus()
    # From the word under the one that was chosen before, the first of the layer above.
    expect(page.locator("#places [tabindex='0']")).to_have_attribute("data-index", "5")
    for key in ("ArrowDown", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    expect(page.locator("#word")).to_have_text(dogs[2]["words"][6])
    page.keyboard.press("Enter")
    expect(page.locator("#new-word")).to_be_focused()
    page.keyboard.type("beac")
    expect(page.locator("#suggestions button").first).to_have_text(re.compile("^beac"))
    page.keyboard.type("h")
    page.keyboard.press("Enter")
    expect(page.locator("#word")).to_have_text("beach")
    changed = [dict(one, words=list(one["words"])) for one in dogs]
    changed[2]["words"][6] = "beach"
    # Of all words the picture is as before: what says what is seen paints pictures of few words alone.
    made = made_of(api, changed)
    assert picture(page) == made[2]
    assert made[-1] == made_of(api, dogs)[-1]
    fine(page)


@pytest.mark.parametrize(
    ("written", "note", "word"),
    [
        ("beachh", "“beachh” is not one of the words: “beach” was taken instead.", "beach"),
        ("two words", "Wanted one word", None),
        ("33", "is no word", None),
    ],
)
def test_words_that_are_none(visit, dogs, written, note, word):
    page = opened(visit())
    before = picture(page)
    page.fill("#new-word", written)
    page.press("#new-word", "Enter")
    expect(page.locator("#change-note")).to_contain_text(note)
    assert layer(page, 2)[0] == (word or dogs[1]["words"][0])
    assert (picture(page) == before) == (word is None)
    fine(page)


def test_copy_words(visit, api, dogs):
    page = opened(visit())
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#prefix").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Copy 5 words as text").click()
    expect(page.locator("#copy-note")).to_have_text("Copied 5 words as text.")
    text = page.evaluate("navigator.clipboard.readText()")
    assert text.split() == dogs[0]["words"] + dogs[1]["words"]
    assert api.post("/v1/detokenize", json={"text": text}).json()["data"][0]["repairs"] == []
    page.keyboard.press("Tab")
    page.locator("#prefix").press("End")
    page.get_by_role("button", name="Copy 597 words as JSON").click()
    expect(page.locator("#copy-note")).to_have_text("Copied 597 words as JSON.")
    record = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert (record["image"], record["model"]) == ("dogs.jpg", "default")
    assert record["layers"] == [{k: v for k, v in one.items() if k != "rivals"} for one in dogs]
    fine(page)


def test_copy_where_the_browser_does_not_let(visit, dogs):
    page = opened(visit())
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
    page.click("#copy-text")
    expect(page.locator("#copy-note")).to_contain_text("copy the text below")
    expect(page.locator("#copy-by-hand")).to_have_value(
        " ".join(word for one in dogs for word in one["words"])
    )
    selected = page.evaluate("document.activeElement.selectionEnd - document.activeElement.selectionStart")
    assert selected == len(page.locator("#copy-by-hand").input_value())
    fine(page)


def test_chat_about_the_picture(visit, upstream, dogs):
    page = opened(visit())
    five = " ".join(dogs[0]["words"] + dogs[1]["words"])
    page.click("#tab-chat")
    upstream.answer = ["Two ", "dogs: <ima", f"ge> {five} </image>", " See?"]
    page.fill("#question", "What is this?")
    page.press("#question", "Enter")
    answer = page.locator(".message.assistant").first
    expect(answer.locator(".text")).to_contain_text("See?")
    expect(answer.locator(".picture-words")).to_have_text(five)
    shown = answer.locator("img")
    expect(shown).to_be_visible()
    assert shown.evaluate("async (image) => { await image.decode(); return image.naturalWidth; }") == 64
    expect(answer.locator("figcaption")).to_have_text("a picture made from 5 words")
    (sent,) = [body for body, _ in upstream.asked if body]
    assert f"<image> {five} </image>\nWhat is this?" in sent["messages"][-1]["content"]
    assert sent["stream"]
    # The next turn knows the first; now with more words and a picture wanted.
    upstream.answer = "No."
    page.check("#draw")
    page.fill("#question", "Sure?")
    page.click("#send")
    expect(page.locator(".message.assistant").nth(1).locator(".text")).to_have_text("No.")
    sent = [body for body, _ in upstream.asked if body][-1]["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "user"]
    assert five in sent[2]["content"]
    assert sent[-1]["content"] == "Sure?"
    assert "End your answer with a picture." in sent[0]["content"]
    page.click("#forget")
    expect(page.locator(".message")).to_have_count(0)
    fine(page)


def test_chat_about_changed_words(visit, upstream, dogs):
    page = opened(visit())
    caption = page.locator(".message.user figcaption")

    def ask(tab: bool = True) -> list[dict]:
        if tab:
            page.click("#tab-chat")
        answers = page.locator(".message.assistant").count()
        page.fill("#question", "What is this?")
        page.press("#question", "Enter")
        expect(page.locator(".message.assistant").nth(answers).locator(".text")).to_have_text("Yes.")
        expect(page.locator("#send")).to_be_visible()
        return [body for body, _ in upstream.asked if body][-1]["messages"]

    upstream.answer = "Yes."
    page.fill("#new-word", "beach")
    page.press("#new-word", "Enter")
    # Asked at once: the change is waited for.
    sent = ask()
    words = [dogs[0]["words"][0], *dogs[1]["words"]]
    changed = ["beach" if i == 1 else word for i, word in enumerate(words)]
    assert sent[1]["content"] == f"<image> {' '.join(changed)} </image>\nWhat is this?"
    expect(caption).to_have_text("dogs.jpg, sent as 5 words, 1 of them changed")
    # More words from now on, in the same conversation.
    page.select_option("#chat-layers", "3")
    sent = ask(tab=False)
    assert sent[1]["content"] == f"<image> {' '.join(changed + dogs[2]['words'])} </image>\nWhat is this?"
    assert [message["content"] for message in sent[2:]] == ["Yes.", "What is this?"]
    expect(caption).to_have_text("dogs.jpg, sent as 21 words, 1 of them changed")
    # As they were, again.
    page.click("#tab-words")
    page.click("#restore-all")
    sent = ask()
    assert sent[1]["content"].startswith(f"<image> {' '.join(words + dogs[2]['words'])} </image>")
    expect(caption).to_have_text("dogs.jpg, sent as 21 words")
    fine(page)


def test_a_conversation_that_fails_and_one_that_is_stopped(visit, upstream):
    page = opened(visit())
    page.click("#tab-chat")
    upstream.answer = text_answer("The model is on holiday.", 503)
    page.fill("#question", "Hello?")
    page.press("#question", "Enter")
    expect(page.locator(".message.failed [role=alert]")).to_contain_text("holiday")
    expect(page.locator("#question")).to_have_value("Hello?")
    upstream.answer, upstream.pause = ["Well, ", "and "], 600
    page.click("#send")
    expect(page.locator(".message.assistant").last).to_contain_text("Well,")
    page.click("#stop")
    expect(page.locator(".message.assistant").last).to_contain_text("Stopped.")
    expect(page.locator("#send")).to_be_visible()
    assert upstream.gone.wait(SECONDS)
    fine(page, but="status of 503")


def test_what_is_no_photograph(visit, dogs, tmp_path):
    page = opened(visit())
    text, empty, broken = tmp_path / "notes.txt", tmp_path / "empty.jpg", tmp_path / "broken.png"
    text.write_text("not a picture")
    empty.write_bytes(b"")
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 99)
    for file, message in ((text, "Wanted a JPEG, PNG or WebP"), (empty, "empty"), (broken, "damaged")):
        page.set_input_files("#file", file)
        error = page.get_by_role("alert").filter(has_text=file.name)
        expect(error).to_contain_text(re.compile(message, re.IGNORECASE))
        expect(page.locator("#status")).to_be_empty()
    # What was there is there still, and can be worked with.
    assert layer(page, 2) == dogs[1]["words"]
    page.locator("#rivals button").first.click()
    expect(page.locator("#status")).to_contain_text("Changed")
    opened(page)
    expect(page.locator("#error")).to_be_hidden()
    fine(page, but="status of 4(15|22)")


def test_a_service_that_cannot_be_reached(visit):
    page = visit()
    expect(page.locator("#facts dd").first).to_be_visible()
    page.context.set_offline(True)
    page.set_input_files("#file", DOGS)
    expect(page.locator("#error")).to_contain_text("dogs.jpg: No answer from the service")
    page.context.set_offline(False)
    opened(page)
    fine(page, but="ERR_INTERNET_DISCONNECTED")


def test_a_service_with_keys(visit):
    page = visit(key=False)
    expect(page.locator("#key-form")).to_be_visible()
    held = []
    page.route("**/v1/tokenize", lambda route: held.append(route))
    with page.expect_request("**/v1/tokenize"):
        page.set_input_files("#file", DOGS)  # waits for the key
    page.fill("#key", "a-key-that-nobody-has")
    page.press("#key", "Enter")
    expect(page.locator("#error")).to_contain_text("unknown key")
    # That the photograph was sent without one is answered late, and says nothing of this key.
    with page.expect_response("**/v1/tokenize"):
        held[0].continue_()
    page.unroute("**/v1/tokenize")
    page.evaluate("new Promise((done) => setTimeout(done, 100))")
    expect(page.locator("#error")).to_contain_text("unknown key")
    page.fill("#key", KEY)
    page.press("#key", "Enter")
    ready(page)
    expect(page.locator("#key-form")).to_be_hidden()
    expect(page.locator("#error")).to_be_hidden()
    kept = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie, location.href]")
    assert kept[:3] == [0, 0, ""]
    assert KEY not in kept[3]
    fine(page, but="status of 401")


def test_on_a_phone(visit, dogs):
    page = opened(visit(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True))

    expect(page.locator("#reconstruction")).to_be_in_viewport(ratio=1)
    expect(page.locator(".sample").last).to_be_in_viewport(ratio=1)
    for sample in page.locator(".sample").all():
        box = sample.bounding_box()
        assert min(box["width"], box["height"]) >= 44  # what a finger hits
    expect(page.locator("#hint")).to_contain_text("Tap a word")

    def narrow():
        width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width == [360, 360]

    for number in range(1, 7):
        layer(page, number)
        narrow()
    layer(page, 3)
    page.locator("#places button").nth(5).tap()
    expect(page.locator("#word")).to_have_text(dogs[2]["words"][5])
    page.locator("#rivals button").first.tap()
    expect(page.locator("#status")).to_contain_text("Changed")
    expect(page.locator("#reconstruction")).to_be_in_viewport()
    layer(page, 5)
    expect(page.locator("#hint")).to_contain_text("too many to write here")
    page.tap("#zoom-in")
    page.tap("#zoom-in")
    narrow()
    page.locator("#lines summary").first.tap()
    narrow()
    page.tap("#tab-chat")
    narrow()
    for motion, scrolled in (("no-preference", "smooth"), ("reduce", "auto")):
        page.emulate_media(reduced_motion=motion)
        expect(page.locator("html")).to_have_css("scroll-behavior", scrolled)
    fine(page)


def drawn_box(page: Page, one: tuple[float, float], other: tuple[float, float]) -> tuple[list[int], dict]:
    """The box in pixels of the photograph between two points of the plane, given as shares of it; and where these are
    on the screen."""
    width, height = open_image(DOGS).size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    x1, y1, x2, y2 = (share * side for share in (*one, *other))
    plane = page.locator("#plane").bounding_box()
    points = [
        {"x": plane["x"] + x * plane["width"], "y": plane["y"] + y * plane["height"]} for x, y in (one, other)
    ]
    return [left + x1, top + y1, x2 - x1, y2 - y1], points


def asked_for(page: Page, draw) -> list[float]:
    """The box that the page asks about when something is drawn."""
    with page.expect_request("**/v1/regions") as request:
        draw()
    (box,) = request.value.post_data_json["regions"]
    return box


def test_regions_of_the_photograph(visit, api, upstream):
    page = opened(visit())
    page.click("#draw-region")
    expect(page.locator("#draw-region")).to_have_text("Done")
    # What applies is said instead of how to point at words.
    expect(page.locator("#hint")).to_be_hidden()
    expect(page.locator("#photograph .bar .drawing")).to_have_text("Drag over a part of the photograph.")
    expect(page.locator("#status")).to_have_text("Drag over a part of the photograph.")
    wanted, (start, end) = drawn_box(page, (0.75, 0.8), (0.25, 0.4))

    def draw():
        page.mouse.move(**start)
        page.mouse.down()
        page.mouse.move(**end, steps=3)
        page.mouse.up()

    box = asked_for(page, draw)
    # From whichever corner it is drawn; no more than what a pixel of the screen covers away.
    x, y, width, height = wanted
    np.testing.assert_allclose(box, [x + width, y + height, -width, -height], atol=3)
    url = f"data:image/jpeg;base64,{base64.b64encode(DOGS.read_bytes()).decode()}"
    answer = api.post("/v1/regions", json={"image": url, "regions": [box]}).json()
    words = " ".join(answer["data"][0]["words"])
    expect(page.locator("#region-list li span")).to_have_text([words])
    expect(page.locator("#status")).to_have_text(f"Region 1: {words}")
    frame, plane = page.locator(".region").bounding_box(), page.locator("#plane").bounding_box()
    assert frame["width"] == pytest.approx(plane["width"] / 2, abs=2)
    # A slip draws nothing; behind "Done" the pointer points at words again.
    page.mouse.click(**start)
    expect(page.locator(".region")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator("#hint")).to_be_visible()
    expect(page.locator(".drawing").first).to_be_hidden()
    layer(page, 2)
    page.mouse.click(**start)
    expect(page.locator("#places .chosen")).to_have_count(1)
    page.click("#tab-chat")
    page.fill("#question", "What is region 1?")
    page.press("#question", "Enter")
    expect(page.locator(".message.assistant .text")).not_to_be_empty()
    assert upstream.asked[-1][0]["messages"][-1]["content"].endswith(
        f" </image>\nRegion 1: {words}\nWhat is region 1?"
    )
    page.click("#tab-words")
    page.get_by_label("Remove region 1").click()
    expect(page.locator(".region")).to_have_count(0)
    # Words alone have no photograph to draw on.
    page.fill("#words-in", WORDS)
    page.press("#words-in", "Enter")
    written(page)
    expect(page.locator("#draw-region")).to_be_hidden()
    fine(page)


@pytest.mark.parametrize("touch", [True, False])
def test_what_is_above_the_photograph_takes_one_line(visit, touch):
    """On a phone with a finger only while a region is drawn."""
    page = opened(visit(has_touch=touch, is_mobile=touch))
    bar, button = page.locator("#photograph .bar"), page.locator("#draw-region")

    def one_line(width: int) -> None:
        page.set_viewport_size({"width": width, "height": 800})
        assert bar.bounding_box()["height"] < 1.5 * button.bounding_box()["height"]

    widths = (360, 390, 430) if touch else (640, 896, 900, 1024, 1217, 1280)
    for width in () if touch else widths:
        one_line(width)
    button.click()
    for width in widths:
        one_line(width)


def test_regions_drawn_with_keys(visit):
    page = opened(visit())
    page.focus("#draw-region")
    page.keyboard.press("Enter")

    def draw():
        for key in ("ArrowUp", "ArrowLeft", "ArrowDown", "Shift+ArrowRight", "Shift+ArrowUp", "Enter"):
            page.keyboard.press(key)

    # The first key brings the middle quarter; each of the others is a thirty-second of the square.
    wanted, _ = drawn_box(page, (11 / 32, 13 / 32), (20 / 32, 20 / 32))
    np.testing.assert_allclose(asked_for(page, draw), wanted, atol=1)
    expect(page.locator("#region-list li span")).to_have_text(re.compile(r"^(\S+ ){4}\S+$"))
    fine(page)


def test_regions_drawn_with_a_finger(visit):
    page = opened(visit(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True))
    page.tap("#draw-region")
    page.locator("#plane").scroll_into_view_if_needed()
    wanted, (start, end) = drawn_box(page, (0.2, 0.2), (0.6, 0.5))
    finger = page.context.new_cdp_session(page)
    before = page.locator("#plane").bounding_box()

    def draw():
        for kind, points in (("touchStart", [start]), ("touchMove", [end]), ("touchEnd", [])):
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    np.testing.assert_allclose(asked_for(page, draw), wanted, atol=5)
    expect(page.locator("#region-list li span")).to_have_text(re.compile(r"^(\S+ ){4}\S+$"))
    # The finger drew, and scrolled nothing away.
    assert page.locator("#plane").bounding_box()["y"] == pytest.approx(before["y"], abs=2)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    fine(page)


def test_many_words(visit, dogs):
    page = opened(visit())
    for number in (4, 5):
        layer(page, number)
        if number == 5:
            page.click("#zoom-in")
        places = page.locator("#places button")
        sizes = places.evaluate_all("(all) => all.map((one) => parseFloat(getComputedStyle(one).fontSize))")
        assert min(sizes) >= 6
        assert np.median(sizes) >= 8
        index = dogs[number - 1]["words"].index(max(dogs[number - 1]["words"], key=len))
        places.nth(index).hover()
        if sizes[index] < 12:  # it is written once more, larger
            expect(page.locator("#flag")).to_have_text(dogs[number - 1]["words"][index])
    page.click("#zoom-in")
    expect(page.locator("#zoom-in")).to_be_disabled()
    sizes = places.evaluate_all("(all) => all.map((one) => parseFloat(getComputedStyle(one).fontSize))")
    assert min(sizes) >= 12
    # What has the focus comes into view.
    places.nth(255).focus()
    expect(places.nth(255)).to_be_in_viewport()
    fine(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(visit, scheme):
    page = opened(visit(color_scheme=scheme))
    script = """(all) => all.map((one) => {
        let behind = one;
        while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
        return [getComputedStyle(one).color, getComputedStyle(behind).backgroundColor];
    })"""
    texts = page.locator(
        "h1, h2, p:not(.blank), label, button:not(#places button):enabled, dt, dd, output, summary"
    )
    pairs = texts.evaluate_all(script)
    assert len(pairs) > 30
    for colour, background in pairs:
        ink, paper = (_luminance(one) for one in (colour, background))
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, (colour, background)
    paper = _luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert paper > 0.9 if scheme == "light" else paper < 0.05
    fine(page)


def _luminance(colour: str) -> float:
    """Relative luminance, as WCAG defines it."""
    rgb = np.array([float(part) for part in re.findall(r"[\d.]+", colour)[:3]]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_the_policy_of_the_page(service):
    answer = httpx2.get(service)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"""\son\w+=|style=|<style|<script(?![^>]*\ssrc=)|https?://""", answer.text)
    for name in re.findall(r'(?:src|href)="(page/[^"]+)"', answer.text):
        assert httpx2.get(f"{service}/{name}").status_code == 200
    for path in PAGE.iterdir():
        assert not re.search(r"https?://", path.read_text("utf-8")), path.name


def test_the_photographs_that_are_there_are_credited():
    text = (PAGE / "index.html").read_text("utf-8")
    credits = read_credits()
    names = re.findall(r'data-file="([^"]+)"', text)
    assert len(names) == 4
    for name in names:
        credit = credits[name]
        assert f'title="{credit.what}: {credit.author}, {credit.licence}"' in text
