"""Files as threads use them."""

import gc
import hashlib
import io
import os
import sys
import threading
import zipfile

import numpy as np
import pytest

from solverbench import files
from solverbench.errors import RecordError


@pytest.fixture
def busy_collector():
    """Python code runs in every collection, as with some profilers and test tools: threads change places there."""

    def called(phase, about):
        sum(range(50))

    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(20)
    gc.callbacks.append(called)
    yield
    gc.callbacks.remove(called)
    gc.set_threshold(*threshold)
    sys.setswitchinterval(interval)


def test_threads_read_arrays_at_once(tmp_path, monkeypatch, busy_collector):
    """numpy parses Python to read a header, which fails in Python 3.11 where two threads do it at once."""
    monkeypatch.setattr(files, "_header", files._header.__wrapped__)  # parsed each time
    path = tmp_path / "a.npz"
    files.write_arrays(path, {f"x{k}": np.zeros((3, 4)) for k in range(8)})
    errors = []

    def read(depth):
        if depth:
            return read(depth - 1)
        for _ in range(60):
            try:
                files.read_arrays(path)
                files.read_array(path, "x3")
            except BaseException as error:
                errors.append(error)
        return None

    threads = [threading.Thread(target=read, args=(7 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Else a machine that loses power could keep the name without the content."""
    path, forced = tmp_path / "a", []

    def fsync(number):
        forced.append((os.fstat(number).st_size, path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_bytes(path, b"content")
    assert forced == [(len(b"content"), False)]
    assert path.read_bytes() == b"content"


@pytest.mark.parametrize("mark", [b"\x93NUMPX\x01\x00", b"\x93NUMPY\x09\x00"])
def test_an_array_of_another_format_is_damage(tmp_path, mark):
    """The zip and all checksums are right; the first bytes of the array are of another format or another version."""
    array, content = io.BytesIO(), io.BytesIO()
    np.save(array, np.arange(3))
    with zipfile.ZipFile(content, "w") as archive:
        archive.comment = b"0" * files.HEX
        archive.writestr("a.npy", mark + array.getvalue()[len(mark) :])
    whole = content.getvalue()[: -files.HEX]
    (tmp_path / "a.npz").write_bytes(whole + hashlib.sha256(whole).hexdigest().encode())
    with pytest.raises(RecordError, match="not one of our files"):
        files.read_arrays(tmp_path / "a.npz")
