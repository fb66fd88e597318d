"""A class taught from an example, with a real second look: over HTTP, and on the page."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_given
import tiny_text
from colour_detector import png
from page_visits import choose, drag, needs_chromium

from runtime import Detector, Example
from runtime.serve.examples import example_of
from zsd_core.errors import ImageError

BOX = (20, 30, 100, 90)


@pytest.fixture(scope="module")
def given_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teaching")
    return tiny_text.with_text(tiny_given.given_bundle(folder / "bundle"))


@pytest.fixture
def opened(given_path):
    """Open detectors of the bundle; all are closed at the end."""
    detectors = []

    def make(classes=("person", "dog")):
        options = {"backend": "onnxruntime", "threads": 1, "score_threshold": 0.0}
        detectors.append(Detector(given_path, classes=list(classes), **options))
        return detectors[-1]

    yield make
    for detector in detectors:
        detector.close()


def teach(client, body, box=BOX, name="bracket"):
    query = {"name": name, "box": ",".join(map(str, box))}
    answer = client.post("/classes/examples", params=query, content=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def found(client, body):
    """Class, score and box of what the service finds."""
    answer = client.post("/detect", content=body)
    assert answer.status_code == 200, answer.text
    return [(d["class"], d["score"], d["box"]) for d in answer.json()["detections"]]


def as_found(detections):
    """Class, score and box of ``Detections``."""
    return [(d.class_name, d.score, list(d.box)) for d in detections]


def same(answers, truth):
    assert [name for name, _, _ in answers] == [name for name, _, _ in truth]
    np.testing.assert_allclose([s for _, s, _ in answers], [s for _, s, _ in truth], atol=1e-4)
    np.testing.assert_allclose([b for *_, b in answers], [b for *_, b in truth], atol=0.06)


def test_an_example_over_http_is_the_example_of_the_detector(serve, opened, photo):
    body = png(photo[:, :, ::-1])  # the files of OpenCV are BGR
    client = serve(opened())
    before = found(client, body)
    assert "bracket" not in {name for name, _, _ in before}

    taught = teach(client, body)
    assert taught["classes"][-1]["name"] == "bracket"
    assert taught["classes"][-1]["examples"] == 1 and taught["classes"][-1]["role"] == "unseen"

    with_example = opened()
    with_example.add_classes({"bracket": [Example(photo, BOX)]})
    truth = as_found(with_example(photo))
    assert sum(name == "bracket" for name, _, _ in truth) >= 1
    same(found(client, body), truth)


def test_a_second_example_changes_the_class_as_it_does_in_the_detector(serve, opened, photo):
    body, other = png(photo[:, :, ::-1]), np.ascontiguousarray(photo[::-1])
    client = serve(opened())
    teach(client, body)
    one = found(client, body)
    listed = teach(client, png(other[:, :, ::-1]), (60, 10, 170, 110))
    assert [c["examples"] for c in listed["classes"]] == [0, 0, 2]

    with_both = opened()
    with_both.add_classes({"bracket": [Example(photo, BOX), Example(other, (60, 10, 170, 110))]})
    same(found(client, body), as_found(with_both(photo)))
    assert found(client, body) != one


def test_a_taught_class_stays_beside_names_and_goes_with_its_removal(serve, opened, photo):
    body = png(photo[:, :, ::-1])
    client = serve(opened())
    teach(client, body)
    alone = [row for row in found(client, body) if row[0] == "bracket"]
    client.post("/classes", json={"classes": ["zebra", "dent red pallet"]})
    assert [row for row in found(client, body) if row[0] == "bracket"] == alone
    client.delete("/classes?name=bracket")
    assert "bracket" not in {name for name, _, _ in found(client, body)}


def test_a_phrase_with_a_slip_is_a_class_and_has_a_hint(serve, opened):
    client = serve(opened())
    answer = client.post("/classes", json={"classes": ["dentd red pallet", "zebra"]})
    assert answer.status_code == 200
    hints = {item["name"]: item["hint"] for item in answer.json()["classes"]}
    assert hints == {
        "person": None,
        "dog": None,
        "dentd red pallet": "dented red pallet",
        "zebra": None,
    }
    meant = client.put("/classes", json={"classes": ["dentd red pallet"], "exact": True})
    assert [item["hint"] for item in meant.json()["classes"]] == [None]


@pytest.mark.slow
@needs_chromium
def test_a_box_drawn_on_the_page_teaches_the_second_look(served, visit, opened, photo):
    page = visit(served(opened(["person"])).url)
    choose(page, photo[:, :, ::-1])
    page.wait_for_selector(".tag")
    assert "bracket" not in "".join(page.locator(".tag").all_inner_texts())
    page.click("#teach")
    drag(page, *BOX, size=photo.shape[1::-1])
    page.fill("#new-name", "bracket")
    page.press("#new-name", "Enter")
    page.wait_for_selector("#chips li[data-name=bracket]")
    page.locator(".tag", has_text="bracket").first.wait_for()
    assert "1 example" in page.locator("#chips li[data-name=bracket]").inner_text()
    assert page.locator("#alert").is_hidden()


@pytest.mark.slow
@needs_chromium
def test_the_page_offers_the_likelier_spelling(served, visit, opened):
    page = visit(served(opened(["person"])).url)
    page.fill("#word", "dentd  red pallet")
    page.press("#word", "Enter")
    page.wait_for_selector("#chips li[data-name='dentd red pallet']")
    page.locator("#hint button", has_text="dented red pallet").click()
    page.wait_for_selector("#chips li[data-name='dented red pallet']")
    page.wait_for_selector("#chips li[data-name='dentd red pallet']", state="detached")
    page.wait_for_selector("#hint", state="hidden")


@pytest.mark.parametrize(("edge", "least"), [(100, 4), (1024, 4), (4096, 16)])
def test_a_box_must_be_large_enough_in_the_picture_that_is_kept(edge, least):
    image = np.zeros((40, edge, 3), np.uint8)
    assert example_of(image, (0, 0, least, 20)).box == (0, 0, 4, 20 * 4 / least)
    with pytest.raises(ImageError, match=f"needs at least {least} a side"):
        example_of(image, (0, 0, least - 0.5, 20))
