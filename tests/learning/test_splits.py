from __future__ import annotations

import json
import time

import pytest

from zsd_core.errors import DataError
from zsd_core.learning.data.splits import VOC_TO_COCO, Split, load_split, split_names, split_sha256
from zsd_core.semantics import fold_name


@pytest.mark.parametrize(
    ("name", "seen", "unseen"),
    [("voc_16_4", 16, 4), ("coco_48_17", 48, 17), ("coco_65_15", 65, 15)],
)
def test_published_splits_have_their_counts(name, seen, unseen):
    split = load_split(name)
    assert (len(split.seen), len(split.unseen)) == (seen, unseen)
    assert split.name == name
    assert split.classes == split.seen + split.unseen


def test_published_lists_hold_what_the_papers_say():
    assert set(load_split("voc_16_4").unseen) == {"car", "dog", "sofa", "train"}
    small, large = load_split("coco_48_17"), load_split("coco_65_15")
    coco = set(large.classes)
    assert len(coco) == 80 and set(small.classes) < coco
    assert len(coco - set(small.classes)) == 15  # on neither side of 48/17
    assert load_split("voc_16_4").zsd_images == "only_unseen"
    assert small.zsd_images == large.zsd_images == "any_unseen"


def test_hash_is_of_the_two_lists():
    a = split_sha256(["cat"], ["dog"])
    # printf 'cat\n\ndog' | sha256sum
    assert a == "4180a3ebf7f6cb05a0799d87d6c9756dc844f0fff48f7b16f72485c77c1a306f"
    assert len({a, split_sha256(["cat", "dog"], []), split_sha256(["dog"], ["cat"])}) == 3


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_user_split_is_read_from_a_file(tmp_path, suffix):
    path = tmp_path / f"mine{suffix}"
    lists = {"seen": ["forklift", "hand truck"], "unseen": ["pallet"]}
    path.write_text(
        json.dumps(lists)
        if suffix == ".json"
        else "seen:\n- forklift\n- hand truck\nunseen: [pallet]\n"
    )
    assert load_split(path) == Split(
        name="mine", seen=("forklift", "hand truck"), unseen=("pallet",)
    )


def test_names_of_any_script_are_welcome(tmp_path):
    names = [
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\u0915\u094d\u200d\u0937",
        "\U0001f469\u200d\U0001f680",
    ]
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"seen": names, "unseen": ["no\u00a0break"]}))
    assert load_split(path).seen == tuple(names)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"seen": ["cat"], "unseen": ["Cat"]}, "'Cat' \\(unseen\\) is 'cat' \\(seen\\) again"),
        ({"seen": ["cat", "cat"], "unseen": []}, "'cat' stands in seen twice"),
        ({"seen": ["fire_truck", "fire truck"], "unseen": []}, "again"),
        ({"seen": [], "unseen": ["cat"]}, "no seen class"),
        ({"seen": ["cat"]}, "'unseen' must be a list"),
        ({"seen": ["cat", 3], "unseen": []}, "holds 3, not a class name"),
        ({"seen": ["a\nb"], "unseen": []}, "seen holds 'a.nb', not a class name"),
        ({"seen": ["a\u202eb"], "unseen": []}, "not a class name"),
        ({"seen": [" _"], "unseen": []}, "not a class name"),
        ({"seen": ["cat"], "unseen": [], "unsen": []}, "did you mean 'unseen'"),
        ({"seen": ["cat"], "unseen": [], "sha256": "00"}, "they were changed"),
        ({"seen": ["cat"], "unseen": [], "counts": {"seen": 2, "unseen": 0}}, "counts is"),
        ({"seen": ["cat"], "unseen": [], "zsd_images": "all"}, "must be 'any_unseen'"),
        ({"seen": ["cat"], "unseen": [], "name": 3}, "name is 3, must be a text"),
        ({"seen": ["cat"], "unseen": [], "name": "a\nb"}, "name is .*, must be a text"),
        (["cat"], "must be a mapping"),
    ],
)
def test_malformed_split_is_a_sentence(tmp_path, values, says):
    path = tmp_path / "split.json"
    path.write_text(json.dumps(values))
    with pytest.raises(DataError, match=says):
        load_split(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: HEX\nseen: [a]\nunseen: [b]", "name is a value of type int that is too large"),
        ("counts: HEX\nseen: [a]\nunseen: [b]", "counts is a value of type int that is too large"),
        ("sha256: HEX\nseen: [a]\nunseen: [b]", "sha256 is a value of type int that is too large"),
        ("zsd_images: HEX\nseen: [a]\nunseen: [b]", "zsd_images is a value of type int"),
        ("seen: [HEX]\nunseen: [b]", "seen holds a value of type int that"),
        ("0x" + "f" * 100 + ": 3", "has no field 258"),
        ("seen: [a]\nunseen: [b]\nunseen: [c]", "twice"),
    ],
)
def test_a_value_that_cannot_be_printed_is_a_sentence_too(tmp_path, text, says):
    path = tmp_path / "split.yaml"
    path.write_text(text.replace("HEX", "0x" + "f" * 5000))
    with pytest.raises(DataError, match=says):
        load_split(path)


def test_a_json_split_that_names_a_side_twice_is_refused(tmp_path):
    (tmp_path / "split.json").write_text('{"seen": ["a"], "unseen": ["b"], "unseen": ["c"]}')
    with pytest.raises(DataError, match="the key 'unseen' stands there twice"):
        load_split(tmp_path / "split.json")


def test_a_name_that_stands_twice_in_a_long_list_is_found_in_linear_time():
    """10,000 names took two seconds: each was counted in all of them."""
    names = [f"c{i}" for i in (*range(50_000), 49_999)]
    start = time.process_time()
    with pytest.raises(DataError, match="'c49999' stands in seen twice"):
        Split(name="long", seen=tuple(names), unseen=())
    assert time.process_time() - start < 5


def test_edited_published_list_is_refused(tmp_path, monkeypatch):
    import zsd_core.learning.data.splits as module

    values = json.loads((module._FOLDER / "coco_48_17.json").read_text())
    values["seen"].remove("bench")
    (tmp_path / "coco_48_17.json").write_text(json.dumps(values))
    monkeypatch.setattr(module, "_FOLDER", tmp_path)
    with pytest.raises(DataError, match=r"counts is .*they were changed"):
        load_split("coco_48_17")
    values["counts"]["seen"] = 47
    (tmp_path / "coco_48_17.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match=r"sha256 is .*they were changed"):
        load_split("coco_48_17")


def test_unknown_and_unreadable_splits(tmp_path):
    with pytest.raises(DataError, match="did you mean 'coco_48_17'"):
        load_split("coco_4817")
    for name in ("a\0b.json", "\ud800.yaml", "x" * 300 + ".json"):
        with pytest.raises(DataError, match="cannot read split"):
            load_split(name)
    with pytest.raises(DataError, match="No such file"):
        load_split(tmp_path / "none.json")
    (tmp_path / "bad.yaml").write_text("seen: [cat")
    with pytest.raises(DataError, match=r"is (not JSON|not valid YAML|no text)"):
        load_split(tmp_path / "bad.yaml")
    (tmp_path / "bytes.json").write_bytes(b"\xff{")
    with pytest.raises(DataError, match=r"is (not JSON|not valid YAML|no text)"):
        load_split(tmp_path / "bytes.json")
    assert "voc_16_4" in split_names()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    "name, text",
    [("a.json", '{"seen": ["café"], "unseen": []}'), ("a.yaml", "seen: [café]\nunseen: []")],
)
def test_a_split_of_an_editor_with_marks_is_read(tmp_path, name, text, encoding):
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert load_split(tmp_path / name).seen == ("café",)


def test_spellings_join_voc_and_coco_without_merging_a_split_that_has_both():
    voc, coco = load_split("voc_16_4").spellings(), load_split("coco_65_15").spellings()
    for voc_name, coco_name in VOC_TO_COCO.items():
        assert voc[coco_name] == voc_name
        assert coco[voc_name] == coco_name
    assert "truck" not in voc
    both = Split(name="both", seen=("sofa",), unseen=("couch",)).spellings()
    assert (both["sofa"], both["couch"]) == ("sofa", "couch")
    assert fold_name(" Fire_Truck ") == "fire truck"
    assert fold_name("Cafe\u0301\u00a0cup") == fold_name("caf\u00e9 cup")  # as macOS writes it


def test_data_sets_and_bundles_mean_the_same_by_a_name():
    split = Split(name="x", seen=("Straße",), unseen=("cat",))
    assert split.spellings()[fold_name("STRASSE")] == "Straße"
