"""Command lines that are refused before any work, and those that look as though they should be."""

import os

import pytest
from videos import write_video

from runtime.detect import main, parse
from runtime.results import keep_inputs
from zsd_core.errors import ImageError


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / "one.mp4")


def test_two_results_never_share_a_file(clip, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    for lines in ("one.json", "../out/one.mp4"):
        arguments = [str(clip), "--output", str(out), "--jsonl", str(out / lines)]
        assert main([*arguments, "--bundle", "nowhere"]) == 1
        assert "would be written twice" in capsys.readouterr().err
    assert not out.exists()


def test_an_input_that_is_called_like_the_json_of_a_result_is_kept(tmp_path, photo, capsys):
    import cv2

    data = cv2.imencode(".jpg", photo)[1].tobytes()
    path = tmp_path / "pic.json"
    path.write_bytes(data)
    assert main([str(path), "--output", str(tmp_path), "--bundle", "nowhere"]) == 1
    assert "pic.json is an input itself" in capsys.readouterr().err
    assert path.read_bytes() == data


def test_one_file_has_many_names(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for _ in ("not there", "there"):
        with pytest.raises(ImageError, match="written twice"):
            keep_inputs([tmp_path / "a" / "x.json", tmp_path / "b" / "x.json"], [])
        keep_inputs([tmp_path / "a" / "x.json", tmp_path / "b" / "y.json"], [])
        (tmp_path / "a" / "x.json").touch()
    os.link(tmp_path / "a" / "x.json", tmp_path / "y.json")
    with pytest.raises(ImageError, match="is an input itself"):
        keep_inputs([tmp_path / "y.json"], [tmp_path / "a" / "x.json"])


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_a_largest_picture_is_a_number(clip, tmp_path, capsys, number):
    arguments = [str(clip), "--output", str(tmp_path / "out"), "--max-pixels", number]
    assert main(arguments) == 1
    assert f"error: --max-pixels is {number}, must be a number" in capsys.readouterr().err


def test_behind_two_dashes_all_are_inputs():
    args = parse(["a.jpg", "--track", "b.jpg", "--", "-c.jpg", "--no-retry", "--"])
    assert args.inputs == ["a.jpg", "b.jpg", "-c.jpg", "--no-retry", "--"]
    assert args.track and not args.no_retry
    assert parse(["--", "0"]).inputs == ["0"]
