"""Files as threads use them."""

import gc
import os
import sys
import threading

import numpy as np
import pytest

from solverbench import files


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


def test_threads_read_arrays_at_once(tmp_path, busy_collector):
    """numpy parses Python to read a header, which fails in Python 3.11 where two threads do it at once."""
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
