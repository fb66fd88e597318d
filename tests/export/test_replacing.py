"""Nothing but a bundle is lost when a bundle takes its place."""

from __future__ import annotations

import json
import zipfile

import pytest
import tiny

from export import calibrate, evaluate, gpu_check, text, verify
from export.writing.bundle_writer import amend_bundle
from export.writing.replacing import check_replaceable, replacing, unlisted
from export.writing.working_copy import working_copy
from runtime.archive import MANIFEST
from runtime.bundle import open_bundle
from runtime.signature import SIGNATURE
from zsd_core.errors import BundleError


def contents(folder):
    """Bytes of every file below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def kept(fresh_bundle_path):
    """A bundle, and the work of others in its folder."""
    (fresh_bundle_path / "notes.txt").write_text("years of work")
    (fresh_bundle_path / ".git/refs").mkdir(parents=True)
    (fresh_bundle_path / ".git/HEAD").write_text("ref: refs/heads/main")
    return fresh_bundle_path


REFUSED = (
    r"tiny holds files that are not part of a bundle: \.git/HEAD, notes\.txt\. They are neither"
)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: amend_bundle(path, metrics={"a": 1}),
        lambda path: tiny.tiny_bundle(path, overwrite=True),
        lambda path: working_copy(path),
        lambda path: replacing(path).__enter__(),
    ],
    ids=["amend", "overwrite", "working copy", "replace"],
)
def test_files_that_the_manifest_does_not_list_are_named_and_stay(kept, change):
    before = contents(kept)
    with pytest.raises(BundleError, match=REFUSED):
        change(kept)
    assert contents(kept) == before
    assert [path.name for path in kept.parent.iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (verify, ["--record"]),
        (evaluate, ["--annotations", "a.json", "--images", ".", "--write-metrics", "a"]),
        (calibrate, ["--annotations", "a.json", "--images", "."]),
        (text, []),
    ],
    ids=["verify", "evaluate", "calibrate", "text"],
)
def test_commands_say_so_before_they_work(kept, command, options, capsys):
    assert command.main([str(kept), *options]) == 1
    assert "holds files that are not part of a bundle" in capsys.readouterr().err


def test_a_copy_elsewhere_leaves_them_behind(kept, tmp_path):
    amend_bundle(kept, output=tmp_path / "copy", metrics={"a": 1})
    assert open_bundle(tmp_path / "copy").manifest["metrics"] == {"a": 1}
    assert unlisted(tmp_path / "copy") == [] and (kept / "notes.txt").is_file()


@pytest.mark.parametrize("inside", ["", "folder/"])
def test_a_zip_is_looked_into(fresh_bundle_path, tmp_path, inside):
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(fresh_bundle_path.iterdir()):
            archive.write(file, inside + file.name)
        archive.writestr(inside + SIGNATURE, "{}")
    assert unlisted(path) == []
    check_replaceable(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(inside + "notes.txt", "years of work")
    before = path.read_bytes()
    with pytest.raises(BundleError, match=r"not part of a bundle: notes\.txt\."):
        amend_bundle(path, metrics={"a": 1})
    assert path.read_bytes() == before


def test_only_bundles_and_empty_folders_are_replaced(fresh_bundle_path, tmp_path):
    check_replaceable(tmp_path / "nothing")
    (tmp_path / "empty/folders").mkdir(parents=True)
    check_replaceable(tmp_path / "empty")
    (fresh_bundle_path / SIGNATURE).write_text("{}")
    check_replaceable(fresh_bundle_path)
    (fresh_bundle_path / "link").symlink_to(tmp_path)
    with pytest.raises(BundleError, match="bundle: link"):
        check_replaceable(fresh_bundle_path)
    for name, text_of in {"a.zip": b"no zip", "b": b"a file"}.items():
        (tmp_path / name).write_bytes(text_of)
        with pytest.raises(BundleError, match="is no bundle that can be read"):
            check_replaceable(tmp_path / name)


@pytest.mark.parametrize("manifest", ["{}", "[1]", '{"files": [1]}', '{"name": "an extension"}'])
def test_a_manifest_of_something_else_lists_nothing(tmp_path, manifest):
    (tmp_path / MANIFEST).write_text(manifest)
    for number in range(7):
        (tmp_path / f"{number}.js").touch()
    with pytest.raises(BundleError, match=r"0\.js, 1\.js, 2\.js, 3\.js, 4\.js and 3 more"):
        check_replaceable(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(BundleError, match="is no bundle that can be read"):
        check_replaceable(tmp_path)


def test_copies_for_the_gpu_replace_bundles_only(tmp_path):
    folder = tmp_path / "bundles"
    copies = gpu_check.fresh_copies(folder)
    assert copies == gpu_check.fresh_copies(folder)
    (folder / "thesis").mkdir()
    (folder / "thesis/thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match=r"thesis\.tex"):
        gpu_check.fresh_copies(folder)
    assert (folder / "thesis/thesis.tex").is_file()
    assert json.loads((copies[0] / MANIFEST).read_text())["files"]
