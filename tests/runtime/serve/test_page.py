"""The page in a real Chromium: what a visitor does, at the widths of a phone and of a desk."""

from __future__ import annotations

import socket
import time

import pytest
from colour_detector import ColourDetector, picture, png
from page_visits import DESK, PHONE, WAIT, choose, drag, needs_chromium, place, tags

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = [pytest.mark.slow, needs_chromium]

BOTH = picture(640, 480, red=(40, 60, 200, 220), blue=(300, 50, 420, 160))
ODD = picture(640, 480, red=(40, 60, 200, 220), odd=(300, 300, 400, 400), odd2=(480, 80, 600, 200))
TOKEN = "a-token-of-twenty-characters"


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_a_visit(served, visit, size):
    """A picture shows, a class typed is a box, a misspelling is mended, a box teaches a class."""
    page = visit(served().url, size)
    assert page.locator("#empty").is_visible() and not page.locator("#frame").is_visible()

    choose(page, BOTH)
    tags(page, "red")
    assert place(page, 0) == pytest.approx([40, 60, 200, 220], abs=4)
    assert "1 object" in page.locator("#count").inner_text()
    expect(page.locator("#spoken")).to_contain_text("red 100 %", timeout=WAIT)
    assert "trunk" in page.locator("#times").inner_text()

    page.fill("#word", "blue")
    page.press("#word", "Enter")
    tags(page, "blue", "red")
    page.wait_for_selector("#chips li.here[data-name=blue]")

    page.fill("#word", "yelow")
    page.press("#word", "Enter")
    page.wait_for_selector("#hint:not([hidden])")
    assert "“yelow” is not in the vocabulary" in page.locator("#hint").inner_text()
    page.locator("#hint button", has_text="yellow").first.click()
    page.wait_for_selector("#chips li[data-name=yellow]")
    assert page.locator("#hint").is_hidden()

    choose(page, ODD)
    tags(page, "red")
    page.click("#teach")
    drag(page, 300, 300, 400, 400)
    page.fill("#new-name", "bracket")
    page.press("#new-name", "Enter")
    tags(page, "bracket", "bracket", "red")
    assert "1 example" in page.locator("#chips li[data-name=bracket]").inner_text()

    page.locator("#chips button[aria-label='Remove red']").click()
    tags(page, "bracket", "bracket")
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_a_class_that_is_there_already_is_no_problem(served, visit):
    page = visit(served().url)
    page.fill("#word", "Red,  green")
    page.press("#word", "Enter")
    expect(page.locator("#hint")).to_have_text("“Red”, “green”: looked for already.", timeout=WAIT)
    assert "bad" not in page.get_attribute("#hint", "class")
    page.fill("#word", "red, blue")
    page.press("#word", "Enter")
    page.wait_for_selector("#chips li[data-name=blue]")
    assert page.locator("#hint").is_hidden() and page.locator("#chips li").count() == 3


def test_suggestions_are_taken_with_the_keyboard(served, visit):
    page = visit(served().url)
    page.focus("#word")
    page.keyboard.type("yel")
    page.wait_for_selector("#suggestions [role=option]")
    assert page.get_attribute("#word", "aria-expanded") == "true"
    page.keyboard.press("ArrowDown")
    assert page.get_attribute("#word", "aria-activedescendant") == "suggestion-0"
    page.keyboard.press("Enter")
    page.wait_for_selector("#chips li[data-name=yellow]")
    assert page.get_attribute("#word", "aria-expanded") == "false"
    expect(page.locator("#word")).to_have_value("", timeout=WAIT)


def test_a_class_is_taught_with_the_keyboard_alone(served, visit):
    page = visit(served().url)
    choose(page, ODD)
    tags(page, "red")
    page.focus("#teach")
    page.keyboard.press("Enter")
    for _ in range(4):  # the box begins at 224,168 to 416,312 and goes to 301,293 to 493,437
        page.keyboard.press("ArrowRight")
    for _ in range(13):
        page.keyboard.press("ArrowDown")
    for _ in range(7):
        page.keyboard.press("Shift+ArrowLeft")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("Enter")
    page.keyboard.type("bracket")
    page.keyboard.press("Enter")
    tags(page, "bracket", "bracket", "red")
    assert page.evaluate("document.activeElement.id") == "teach"
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    assert page.locator("#draw").is_hidden()


def test_phrases_and_their_slips(served, visit):
    page = visit(served(ColourDetector(phrases=True)).url)
    choose(page, BOTH)
    tags(page, "red")
    page.fill("#word", "bleu pallet")
    page.press("#word", "Enter")
    page.wait_for_selector("#hint:not([hidden])")
    assert "“bleu pallet” looks misspelt" in page.locator("#hint").inner_text()
    page.locator("#hint button", has_text="Keep it").click()
    page.wait_for_selector("#chips li[data-name='bleu pallet']")
    page.fill("#word", "a driver's bleu pallet")
    page.press("#word", "Enter")
    expect(page.locator("#hint")).to_contain_text("“a driver's bleu pallet” looks", timeout=WAIT)
    page.locator("#hint button", has_text="a driver's blue pallet").click()
    page.wait_for_selector('#chips li[data-name="a driver\'s blue pallet"]')
    page.fill("#word", "a bleu one")
    page.press("#word", "Enter")
    page.locator("#hint button", has_text="a blue one").click()
    page.wait_for_selector("#chips li.here[data-name='a blue one']")


def test_a_class_that_is_learnt_and_not_found_is_told(served, visit):
    running = served()
    running.detector.set_thresholds(score_threshold=(0.3, 1.0))  # a new class is never found
    page = visit(running.url)
    choose(page, ODD)
    tags(page, "red")
    page.click("#teach")
    drag(page, 300, 300, 400, 400)
    page.fill("#new-name", "bracket")
    page.press("#new-name", "Enter")
    expect(page.locator("#notice")).to_contain_text("“bracket” is learnt", timeout=WAIT)
    tags(page, "red")


def test_only_these_and_reset(served, visit):
    page = visit(served().url)
    choose(page, BOTH)
    tags(page, "red")
    page.fill("#word", "blue, yellow")
    page.click("#only")
    tags(page, "blue")
    assert page.locator("#chips li").count() == 2
    page.click("#reset")
    tags(page, "red")


def test_nothing_found_offers_the_near_miss(served, visit):
    page = visit(served().url)
    page.evaluate("fetch('thresholds', {method: 'PATCH', body: '{\"score_threshold\": 1}'})")
    expect(page.locator("#score-seen-value")).to_have_text("100 %", timeout=WAIT)
    choose(page, BOTH)
    page.wait_for_selector("#notice:not([hidden])")
    assert "“red” with 100 %" in page.locator("#notice").inner_text()
    page.click("#notice-action")
    tags(page, "red")
    expect(page.locator("#score-seen-value")).to_have_text("95 %", timeout=WAIT)


def test_thresholds_of_single_classes_are_shown_and_end(served, visit):
    running = served()
    page = visit(running.url)
    running.service.service.set_thresholds({"score_threshold": {"red": 1.0, "green": 0.9}})
    own = page.locator("#own")
    expect(own).to_contain_text("Of their own: red from 100 %, green from 90 %.", timeout=WAIT)
    choose(page, BOTH)
    page.click("#notice-action")
    tags(page, "red")
    assert running.detector.limits.by_role == {"seen": 0.3, "unseen": 0.3}
    expect(own).to_contain_text("Of their own: green from 90 %.", timeout=WAIT)
    page.click("#own-end")
    expect(own).to_be_hidden(timeout=WAIT)
    assert running.detector.limits.by_class == {}


def test_sliders_change_the_thresholds_and_say_so(served, visit):
    running = served()
    page = visit(running.url)
    choose(page, BOTH)
    tags(page, "red")
    assert page.get_attribute("#score-seen", "aria-valuetext") == "30 %"
    page.focus("#score-seen")
    page.keyboard.press("End")
    page.wait_for_selector("#notice:not([hidden])")
    assert running.detector.limits.by_role == {"seen": 1.0, "unseen": 0.3}
    assert page.get_attribute("#score-seen", "aria-valuetext") == "100 %"


def test_a_photo_is_dropped_and_pasted(served, visit):
    page = visit(served().url)
    for event, colour in (("drop", "red"), ("paste", "blue")):
        page.evaluate(
            """async ([event, bytes]) => {
                const file = new File([new Uint8Array(bytes)], "a.png", {type: "image/png"});
                const data = new DataTransfer();
                data.items.add(file);
                dispatchEvent(event === "drop"
                    ? new DragEvent("drop", {dataTransfer: data, cancelable: true})
                    : new ClipboardEvent("paste", {clipboardData: data}));
            }""",
            [event, list(png(picture(80, 60, **{colour: (9, 9, 50, 50)})))],
        )
        tags(page, *([colour] if colour == "red" else []))


def test_problems_are_sentences(served, visit):
    running = served(ColourDetector(learns=False))
    page = visit(running.url)
    page.set_input_files(
        "#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"}
    )
    page.wait_for_selector("#alert:not([hidden])")
    assert "notes.txt is not a picture" in page.locator("#alert").inner_text()
    page.click("#alert-close")
    choose(page, BOTH)
    tags(page, "red")
    assert page.is_disabled("#teach")
    assert "cannot learn" in page.get_attribute("#teach", "title")
    running.stop()
    page.wait_for_selector("#state[data-state=gone]")
    page.click("#reset")
    page.wait_for_selector("#hint:not([hidden])")
    assert "does not answer" in page.locator("#hint").inner_text()


def test_changes_of_others_show_at_once(served, visit):
    running = served()
    page = visit(running.url)
    choose(page, BOTH)
    tags(page, "red")
    running.service.service.add(["blue"])
    tags(page, "blue", "red")


def test_no_name_is_read_as_html(served, visit):
    evil = "<img src=x onerror=alert(1)>'\""
    running = served(ColourDetector(phrases=True))
    running.service.service.add({f"{evil} blue": None})
    page = visit(running.url)
    choose(page, BOTH)
    tags(page, evil.split(" ")[0], "red")
    assert evil in page.locator("#found").inner_text() + page.locator("#chips").inner_text()
    page.fill("#word", f"{evil} bleu")
    page.press("#word", "Enter")
    page.wait_for_selector("#hint:not([hidden])")
    assert f"“{evil} bleu” looks misspelt" in page.locator("#hint").inner_text()
    page.locator("#hint button", has_text=f"{evil} blue").wait_for()
    assert page.locator("img").count() == 0


def test_a_source_is_watched_and_teaches(served, visit, door):
    page = visit(served(sources=[door], loop=True).url)
    page.click("[data-source='live:door']")
    tags(page, "red")
    assert "ms old" in page.locator("#total").inner_text()
    page.click("#teach")
    drag(page, 300, 300, 400, 400)
    page.fill("#new-name", "bracket")
    page.press("#new-name", "Enter")
    tags(page, "bracket", "bracket", "red")


def test_a_source_that_gives_nothing_says_why_and_shows_no_old_picture(served, visit):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    camera = f"rtsp://me:secret@127.0.0.1:{port}/front"
    page = visit(served(sources=[camera], live_timeout=1).url)
    choose(page, BOTH)
    tags(page, "red")
    page.click("[data-source='live:127-0-0-1-front']")
    expect(page.locator("#waiting")).to_have_text("Waiting for 127-0-0-1-front …", timeout=WAIT)
    assert page.locator("#frame").is_hidden() and page.locator("#found li").count() == 0
    page.wait_for_selector("#tabs i[data-state=lost]")
    page.wait_for_selector("#alert:not([hidden])")
    assert "secret" not in page.content()
    page.click("[data-source=photo]")
    tags(page, "red")


def test_the_webcam_is_searched(served, visit):
    running = served()
    page = visit(running.url, PHONE, permissions=["camera"])
    page.click("#start-webcam")
    page.wait_for_selector("#frame:not([hidden])")
    expect(page.locator("#total")).to_contain_text("per second", timeout=WAIT)
    before = running.detector.calls
    end = time.monotonic() + 30
    while running.detector.calls < before + 3 and time.monotonic() < end:
        page.wait_for_timeout(100)
    assert running.detector.calls >= before + 3
    for part in ("#times", "#view", "html"):
        assert page.evaluate(
            f"(e => e.scrollWidth <= e.clientWidth)(document.querySelector('{part}'))"
        )
    page.click("[data-source=photo]")
    page.wait_for_selector("#empty:not([hidden])")


def test_a_visitor_signs_in_with_the_token(served, visit):
    page = visit(served(token=TOKEN).url, PHONE, wait="#token")
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    page.fill("#token", TOKEN)
    page.click("button")
    page.wait_for_selector("#state[data-state=ready]")
    choose(page, BOTH)
    tags(page, "red")


def test_everything_that_is_used_has_a_name(served, visit):
    page = visit(served().url)
    choose(page, BOTH)
    tags(page, "red")
    nameless = page.evaluate(
        """[...document.querySelectorAll('button, input, [role=img], [role=listbox], a')]
            .filter((e) => !e.getAttribute('aria-label') && !e.labels?.length &&
                !e.textContent.trim() && e.type !== 'file').map((e) => e.outerHTML)"""
    )
    assert nameless == []
    assert page.evaluate("document.documentElement.lang") == "en"


def contrast(first, second):
    def light(colour):
        parts = [int(colour.strip()[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(first), light(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_stand_out_from_their_ground(served, visit, scheme):
    page = visit(served().url, color_scheme=scheme)
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    names = "text soft accent on-accent card ground well tint bad bad-ground edge".split()
    color = {
        name: page.evaluate(
            f"getComputedStyle(document.documentElement).getPropertyValue('--{name}')"
        )
        for name in names
    }
    for letters, ground in [
        ("text", "card"),
        ("text", "ground"),
        ("text", "tint"),
        ("soft", "card"),
        ("soft", "ground"),
        ("soft", "well"),
        ("accent", "card"),
        ("accent", "tint"),
        ("on-accent", "accent"),
        ("bad", "bad-ground"),
    ]:
        assert contrast(color[letters], color[ground]) >= 4.5, (letters, ground)
    assert contrast(color["edge"], color["card"]) >= 3
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") != scheme
