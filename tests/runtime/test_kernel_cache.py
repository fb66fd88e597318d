"""Kernels that TensorRT-RTX compiled are there for the next process, against a double."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from device_double import compare, device, images, on_device, on_host, shim
from engine_double import gpu, path

from runtime.backends import open_backend
from runtime.backends.kernel_cache import KernelCache
from runtime.bundle import open_bundle
from runtime.cache_files import write_whole

__all__ = ["device", "gpu", "path", "shim"]  # fixtures
IMAGES = np.zeros((1, 3, 32, 32), np.float32)
PATCHES = np.zeros((2, 6, 3, 3), np.float32)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache" / "contrastzsd" / "kernels"


def process(gpu, path, *, close: bool = True) -> int:
    """Number of compilations of a process that runs both networks."""
    gpu.compiled.clear()
    backend = open_backend("tensorrt_rtx", open_bundle(path))
    backend.trunk(IMAGES)
    backend.head(PATCHES)
    if close:
        backend.close()
    return len(gpu.compiled)


def test_a_process_compiles_and_the_next_does_not(gpu, path, folder):
    assert process(gpu, path) == 2
    names = sorted(file.name for file in folder.iterdir())
    assert len(names) == 2 and all(name.endswith(".Double-of-a-GPU") for name in names)
    assert process(gpu, path) == 0


def test_a_process_that_never_closes_keeps_what_its_first_images_took(gpu, path):
    assert process(gpu, path, close=False) == 2
    assert process(gpu, path) == 0


def test_later_shapes_are_kept_at_the_end(gpu, path):
    backend = open_backend("tensorrt_rtx", open_bundle(path))
    for size in (32, 64):
        backend.trunk(np.zeros((1, 3, size, size), np.float32))
    backend.close()
    gpu.compiled.clear()
    backend = open_backend("tensorrt_rtx", open_bundle(path))
    backend.trunk(np.zeros((1, 3, 64, 64), np.float32))
    backend.close()
    assert gpu.compiled == []


def test_every_size_of_image_that_stays_on_the_device_is_kept(device, path):
    frames = [*images(1, 48, 64), *images(1, 60, 60)]
    with on_device(path) as ours:
        ours(frames)
        first = len(device.compiled)
        assert first >= 3
        with on_device(path) as other, on_host(path) as exact:  # before the first is closed
            for _ in range(3):
                for found, truth in zip(other(frames), exact(frames), strict=True):
                    compare(found, truth)
    assert len(device.compiled) == first


def test_threads_share_one(gpu, path):
    backend = open_backend("tensorrt_rtx", open_bundle(path))
    backend.trunk(IMAGES)
    threads = [threading.Thread(target=backend.trunk, args=(IMAGES,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    backend.close()
    assert len(gpu.compiled) == 1
    assert sum(name == "create_runtime_cache" for _, name, _ in gpu.calls) == 2  # trunk, head


def test_what_was_made_elsewhere_is_a_warning_and_is_replaced(gpu, path, folder):
    process(gpu, path)
    files = sorted(folder.iterdir())
    for file in files:
        file.write_bytes(b"of another driver\n")
    with pytest.warns(UserWarning, match=r"is not what tensorrt_rtx .* \(made elsewhere\)") as said:
        assert process(gpu, path) == 2
    assert sorted(str(w.message).split(" ")[0] for w in said) == list(map(str, files))
    assert process(gpu, path) == 0  # and no warning


def test_a_folder_that_cannot_be_written_is_one_warning_for_each(gpu, path, folder):
    folder.parent.mkdir(parents=True)
    folder.write_bytes(b"a file where the folder should be")
    with pytest.warns(UserWarning, match=r"cannot be written .*kernels are compiled again") as said:
        assert process(gpu, path) == 2
    assert len(said) == 2  # of trunk and head, though each is saved twice


def test_a_user_without_a_home_is_a_warning(gpu, path, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.warns(UserWarning, match=r"cache of compiled kernels cannot be read \(this user"):
        assert process(gpu, path) == 2


def test_a_context_that_takes_no_cache_is_a_warning(gpu, path):
    gpu.caches = False
    with pytest.warns(UserWarning, match=r"tensorrt_rtx .* takes no runtime cache"):
        assert process(gpu, path) == 2


def test_tensorrt_keeps_nothing(folder):
    cache = KernelCache(SimpleNamespace(runtime_cache=lambda engine: None), None, "abc", "a GPU")
    cache.close()
    assert cache.shared is None and not folder.exists()


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    (tmp_path / "folder").mkdir()
    write_whole(tmp_path / "new" / "file", b"data")
    assert (tmp_path / "new" / "file").read_bytes() == b"data"
    with pytest.raises(OSError):
        write_whole(tmp_path / "folder", b"data")
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []
