"""The store: whole files or none, damage found, and one line for a folder that can't be used."""

import json
import resource
from contextlib import contextmanager

import numpy as np
import pytest

from solverbench import files
from solverbench.errors import RecordError, StoreError
from solverbench.metrics.frechet import Moments
from solverbench.store.folder import BlockResult, Store

BLOCK = range(50_000, 50_100)


@pytest.fixture
def folder(tmp_path):
    return Store.open(tmp_path / "runs").cell({"spec": "euler", "nfe": 3})


@pytest.fixture
def result():
    rows = np.random.default_rng(0).normal(size=(100, 4))
    return BlockResult(
        Moments.of(rows), 3, np.arange(32, dtype=np.uint8).reshape(2, 1, 4, 4), {"errors": rows[:20, 0] ** 2}
    )


@contextmanager
def file_size_limit(size):
    """As on a full disk: no file may grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_block_comes_back_bit_for_bit(folder, result):
    folder.write_block(BLOCK, result)
    found = folder.read_block(BLOCK)
    assert found.moments is not None
    assert found.moments.n == 100
    assert found.moments.outer.tobytes() == result.moments.outer.tobytes()
    assert found.moments.total.tobytes() == result.moments.total.tobytes()
    assert found.arrays["errors"].tobytes() == result.arrays["errors"].tobytes()
    assert (found.nfe, found.images.tolist()) == (3, result.images.tolist())


def test_equal_results_are_equal_files(folder, result, tmp_path):
    folder.write_block(BLOCK, result)
    other = Store.open(tmp_path / "other").cell({"nfe": 3, "spec": "euler"})
    other.write_block(BLOCK, result)
    [a, b] = [next(f.path.glob("blocks/*")).read_bytes() for f in (folder, other)]
    assert a == b
    assert folder.address == other.address


def test_every_changed_byte_of_a_block_is_found(folder, result):
    folder.write_block(BLOCK, result)
    [path] = folder.path.glob("blocks/*.npz")
    whole = path.read_bytes()
    for place in [*range(0, len(whole), 97), len(whole) - 1, len(whole) - 65]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(RecordError, match=f"{path}: damaged, .*; delete this file and run again"):
            folder.read_block(BLOCK)


@pytest.mark.parametrize("kept", [0, 1, 63, 64, 700])
def test_a_block_that_is_cut_short_is_found(folder, result, kept):
    folder.write_block(BLOCK, result)
    [path] = folder.path.glob("blocks/*.npz")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RecordError, match="damaged"):
        folder.read_block(BLOCK)


@pytest.mark.parametrize("damage", ["", "{", "[]", "3", '{"a": 1}', '{"value": 2, "checksum": "0"}', "\x00" * 40])
def test_a_damaged_json_file_is_found(tmp_path, damage):
    path = tmp_path / "metrics.json"
    path.write_text(damage)
    with pytest.raises(RecordError, match="damaged"):
        files.read_json(path)


def test_an_edited_number_is_found(folder):
    folder.finish({"value": 1.25})
    path = folder.path / "metrics.json"
    path.write_text(path.read_text().replace("1.25", "1.24"))
    with pytest.raises(RecordError, match="its checksum doesn't match"):
        folder.metrics()


def test_metrics_of_another_cell_are_refused(folder, tmp_path):
    folder.finish({"value": 1.25})
    other = Store.open(tmp_path / "runs").cell({"spec": "euler", "nfe": 4})
    other.path.mkdir(parents=True)
    (folder.path / "metrics.json").rename(other.path / "metrics.json")
    with pytest.raises(RecordError, match="another cell"):
        other.metrics()


def test_a_number_that_is_not_finite_is_never_stored(folder):
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.finish({"value": float("nan")})


def test_success_forgets_an_earlier_failure(folder):
    folder.fail("out of luck", "traceback")
    assert folder.failure() == "out of luck"
    folder.finish({"value": 1.0})
    assert folder.failure() is None


def test_a_store_of_another_version_is_refused(tmp_path):
    files.write_json(tmp_path / "store.json", {"format": "solverbench-store", "version": 99})
    with pytest.raises(StoreError, match="version 99, this is version 1; choose another --out"):
        Store.open(tmp_path)


def test_cells_without_a_store_file_are_refused(folder):
    folder.finish({"value": 1.0})
    (folder.path.parents[2] / "store.json").unlink()
    with pytest.raises(StoreError, match=r"holds cells but no store\.json"):
        Store.look(folder.path.parents[2])


def test_a_damaged_store_file_says_what_to_do(tmp_path):
    Store.open(tmp_path)
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(RecordError, match=r"copy store\.json from another store"):
        Store.open(tmp_path)


def test_store_file_holds_the_format_version(tmp_path):
    Store.open(tmp_path)
    found = json.loads((tmp_path / "store.json").read_text())
    assert (found["format"], found["version"]) == ("solverbench-store", 1)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(StoreError, match="a file, not a folder"):
        Store.open(tmp_path / "runs")
    assert (tmp_path / "runs").read_text() == "mine"


@pytest.mark.parametrize("place", ["/proc/solverbench", "/dev/null/runs"])
def test_a_folder_that_cannot_be_written_is_one_line(place):
    with pytest.raises(StoreError, match=f"{place}.*can't be written .*; choose another place") as caught:
        Store.open(place)
    assert "\n" not in str(caught.value)


def test_no_space_is_one_line_and_leaves_what_was_there(folder, result):
    folder.write_block(BLOCK, result)
    before = sorted(p for p in folder.path.rglob("*"))
    with file_size_limit(200), pytest.raises(StoreError, match=r"no space left for .* bytes .*; free some space"):
        folder.write_block(range(50_100, 50_200), result)
    assert sorted(p for p in folder.path.rglob("*")) == before
    folder.read_block(BLOCK)
