"""Inputs: files, folders, videos, cameras, addresses of files and of streams."""

import os

import cv2
import numpy as np
import pytest

from runtime.images import read_image
from runtime.sources import IMAGES, find_sources, source_of
from zsd_core.errors import ImageError


@pytest.fixture
def video_path(tmp_path):
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for index in range(6):
        writer.write(np.full((48, 64, 3), 40 * index, np.uint8))
    writer.release()
    return path


def test_what_the_command_line_names_is_sorted_out(tmp_path, video_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("b.PNG", "a.jpg", "notes.txt"):
        (folder / name).touch()
    found, _ = find_sources(
        [str(folder), str(folder / "a.jpg"), str(video_path), "0", "rtsp://x/y"]
    )
    assert [(s.kind, s.name) for s in found] == [
        ("image", "a"),
        ("image", "b"),
        ("image", "a-2"),
        ("video", "clip"),
        ("live", "camera0"),
        ("live", "stream"),
    ]


def test_equal_names_get_a_number(tmp_path):
    for name in ("a.jpg", "a.png", "a-2.jpg"):
        (tmp_path / name).touch()
    names = [s.name for s in find_sources([str(tmp_path)])[0]]
    assert len(set(names)) == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.jpg", "no such file or folder; a camera is a number"),
        ("file.pdf", r"\.pdf is neither an image"),
        ("plain", "no suffix is neither"),
        ("file://[clip.mp4", r"file://\[clip.mp4: is malformed; give the path"),
        ("empty", "holds no image"),
    ],
)
def test_what_is_not_there_or_of_no_use_is_said(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.pdf").touch()
    (tmp_path / "plain").touch()
    with pytest.raises(ImageError, match=message):
        find_sources([name if "://" in name else str(tmp_path / name)])


def test_neither_a_folder_called_like_an_image_nor_a_hidden_file_is_one(tmp_path):
    (tmp_path / "a.jpg").mkdir()
    (tmp_path / "b.jpg").touch()
    (tmp_path / "._b.jpg").touch()  # what macOS leaves on cards
    assert [s.name for s in find_sources([str(tmp_path)])[0]] == ["b"]


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", forbidden)  # tests may run as root, who may
    with pytest.raises(ImageError, match=r"cannot be listed: Permission denied\."):
        find_sources([str(tmp_path)])


def test_an_address_may_be_longer_than_the_name_of_a_file():
    address = "https://camera/stream?token=" + 300 * "x"
    (found,), _ = find_sources([address])
    assert (found.kind, found.place) == ("live", address)
    assert "xxx" not in repr(found)
    with pytest.raises(ImageError, match="no such file"):
        find_sources([300 * "x"])


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("rtsp://cam/1", "live"),
        ("rtsp://cam/video.mp4", "live"),
        ("http://cam/mjpg", "live"),
        ("http://cam/live.m3u8", "live"),
        ("udp://239.0.0.1:1234", "live"),
        ("https://host/clip.mp4?token=1", "video"),
        ("http://host/a/clip.MKV", "video"),
        ("http://host/snapshot.jpg", "image"),
        ("rtsp://[::1", "live"),
        ("nvarguscamerasrc ! video/x-raw ! appsink", "live"),
    ],
)
def test_the_kind_of_an_address_is_told_by_its_scheme_and_suffix(address, kind):
    assert source_of(address).kind == kind


def test_a_file_address_is_a_file(tmp_path, video_path):
    video_path.rename(tmp_path / "a clip.mp4")
    source = source_of(f"file://{tmp_path}/a%20clip.mp4")
    assert (source.kind, source.place) == ("video", str(tmp_path / "a clip.mp4"))
    (tmp_path / "a.png").touch()
    ((image,), _) = find_sources([f"file://{tmp_path}/a.png"])
    assert (image.kind, image.name) == ("image", "a")


def test_outputs_of_addresses_have_no_credentials_in_their_names():
    addresses = ["rtsp://u:p@cam/1", "http://u:p@host/clip.mp4", "http://host/clip.mp4?key=p"]
    found, _ = find_sources(addresses)
    assert [s.name for s in found] == ["stream", "clip", "clip-2"]
    assert source_of(addresses[0]).name == "rtsp://***@cam/1"
    with pytest.raises(ImageError) as error:
        find_sources(["rtsp:/user:secret@cam"])
    assert "secret" not in str(error.value)


def test_a_folder_says_what_was_passed_over(tmp_path):
    for name in ("a.jpg", "b.txt", "c.csv", "d.pdf", "e.doc", ".hidden.jpg", "clip.mp4"):
        (tmp_path / name).write_bytes(b"text")
    (tmp_path / "sub").mkdir()
    found, (note,) = find_sources([str(tmp_path)])
    assert [s.name for s in found] == ["a"]
    assert note == (
        f"{tmp_path}: passed over .hidden.jpg (hidden), sub (folders), clip.mp4 (videos), "
        "b.txt c.csv d.pdf and 1 more (no images)."
    )
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(ImageError, match=r"holds no image .*; it holds .*clip\.mp4 \(videos\)"):
        find_sources([str(tmp_path)])


def test_a_link_that_leads_nowhere_or_to_itself_is_no_image(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 6, 3), np.uint8))
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "none.jpg").symlink_to(tmp_path / "nowhere.jpg")
    found, (note,) = find_sources([str(tmp_path)])
    assert [source.name for source in found] == ["a"]
    assert "loop.jpg none.jpg (no images)" in note


def test_a_folder_gives_every_image_that_the_detector_reads(tmp_path, photo):
    """All suffixes that OpenCV writes and reads here, and an image without a suffix."""
    written = {"plain"}
    for suffix in sorted(IMAGES):
        try:
            done = cv2.imwrite(str(tmp_path / f"image{suffix}"), photo)
        except cv2.error:
            continue
        if done and cv2.haveImageReader(str(tmp_path / f"image{suffix}")):
            written.add(f"image{suffix}")
    assert {"image.jpe", "image.dib", "image.webp"} <= written
    (tmp_path / "plain").write_bytes(cv2.imencode(".png", photo)[1].tobytes())
    found, _ = find_sources([str(tmp_path)])
    assert written <= {os.path.basename(s.place) for s in found}


def test_a_picture_of_a_telephone_is_not_passed_over(tmp_path):
    """HEIC is not read; whoever names a file or a folder of it is told so, and what to do."""
    path = tmp_path / "IMG_1.HEIC"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert source_of(str(path)).kind == "image"
    (found,), notes = find_sources([str(tmp_path)])
    assert (found.place, notes) == (str(path), [])
    with pytest.raises(ImageError, match=r"IMG_1\.HEIC: is a HEIC picture, .*save it as JPEG"):
        read_image(found.place, "bgr")


def test_a_camera_is_a_number_or_a_device(monkeypatch):
    monkeypatch.setattr(os.path, "exists", lambda path: path == "/dev/video3")
    found, _ = find_sources(["0", "/dev/video3"])
    assert [(s.kind, s.place, s.name) for s in found] == [
        ("live", "0", "camera0"),
        ("live", "/dev/video3", "camera3"),
    ]
    assert source_of(1).place == "1"


def test_no_password_and_no_escape_becomes_a_file_name(tmp_path):
    (tmp_path / "a\x1b[31m\n.jpg").touch()
    addresses = [
        "http://cam/pwd=secret.jpg",
        "http://cam/x.jpg?pwd=secret",
        "http://u:p/secret@c/x.jpg#secret",
        "http://c/secret:p@[x.jpg",
    ]
    names = [source.name for source in find_sources([str(tmp_path), *addresses])[0]]
    assert names == ["a\ufffd[31m\ufffd", "pwd=___", "x", "x-2", "___@[x"]
