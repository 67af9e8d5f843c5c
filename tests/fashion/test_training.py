"""The training of the fashion networks, on a few images in the files' own format."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from embedded import fashion_images, fashion_train, guided_references
from embedded import fashion_quality as quality
from embedded import fashion_references as references
from PIL import Image

from solverbench.errors import MissingError, RecordError
from solverbench.teachers.embedded import artifacts, fashion
from solverbench.teachers.embedded.fashion.denoiser import Denoiser

QUICK = ["--threads", "1", "--steps", "3", "--batch", "8", "--classifier-steps", "3", "--classifier-batch", "16"]


def idx(array: np.ndarray) -> bytes:
    """An array of bytes in the format of the published files."""
    return gzip.compress(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 300 + 300 images: a bar for each class, and noise."""
    place, rng = tmp_path_factory.mktemp("fashion"), np.random.default_rng(0)
    for name in ("train", "t10k"):
        labels = (np.arange(300) % 10).astype(np.uint8)
        images = rng.integers(0, 60, (300, 28, 28), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 6] += 150
        (place / f"{name}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (place / f"{name}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
    return place


def test_the_files_are_read_as_published(data: Path) -> None:
    found = fashion_images.read(data, held_out=True)
    assert found.images.shape == (300, 1, 28, 28)
    assert found.labels.tolist() == [n % 10 for n in range(300)]
    assert -1 <= found.images.min() < found.images.max() <= 1
    assert (found.images[3, 0, 6:12] > 0.15).all()
    assert (found.images[3, 0, :6] < -0.5).all()


def test_other_files_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"train-images-idx3-ubyte.gz: there is no such file; install"):
        fashion_images.read(tmp_path, held_out=False)
    for path in data.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros(7, np.uint8)))
    with pytest.raises(RecordError, match="images and labels don't fit"):
        fashion_images.read(tmp_path, held_out=True)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x0d\x01\0\0\0\x02ab"))
    with pytest.raises(RecordError, match="isn't an IDX file of bytes"):
        fashion_images.read(tmp_path, held_out=True)


def test_a_batch_depends_on_its_seed_alone(data: Path) -> None:
    images = fashion_images.read(data, held_out=False)
    network = Denoiser(widths=(32, 32), blocks=(1, 1), embedding=16)
    first, again, other = (fashion_train.teacher_loss(network, images, 32, step).item() for step in (4, 4, 5))
    assert first == again != other
    moved = fashion_train.moved(images, 3, 50)
    chosen = fashion_train.drawn(images, 3, 50)
    assert torch.equal(moved.labels, chosen.labels)
    assert not torch.equal(moved.images, chosen.images)


def test_the_commands_make_a_whole_teacher(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    precision = torch.get_float32_matmul_precision()
    monkeypatch.setattr(fashion_train, "VALIDATED", (1, 10))
    monkeypatch.setattr(guided_references, "COMPARED", 2)
    monkeypatch.setattr(guided_references, "SET", 150)  # more than the features, so that a covariance has full rank
    monkeypatch.setattr(guided_references, "NOISE_SEEDS", range(1_000_000, 1_000_300))
    where = ["--data", str(data), "--out", str(tmp_path)]
    assert fashion_train.main([*where, *QUICK, "--widths", "32", "32", "--blocks", "1", "1"]) == 0
    more = ["--networks", "teacher", "--more", "2", "--widths", "32", "64", "--blocks", "1", "2"]
    assert fashion_train.main([*where, *QUICK, *more]) == 0
    assert references.main([*where, "--nfe", "2", "--guidance", "1", "2"]) == 0
    record = artifacts.read_record(tmp_path)
    assert record["teacher"]["config"]["blocks"] == [1, 2]
    assert record["teacher"]["images"] == 5 * 8
    assert record["references"]["data"]["n"] == 300
    teacher = fashion.load(guidance=2.0, folder=tmp_path)
    assert teacher.evaluation is not None
    assert teacher.evaluation.teacher.moments.n == 300
    assert fashion.load(guidance=3.0, folder=tmp_path).evaluation is None
    assert fashion.load_loss(folder=tmp_path)(torch.zeros(2, *teacher.shape)).isfinite().all()
    assert fashion.load_metric(folder=tmp_path)(torch.zeros(2, *teacher.shape)).shape == (2, 128)
    capsys.readouterr()
    assert references.main([*where, "--nfe", "2"]) == 0
    assert capsys.readouterr().out.count("is there already") == 2
    told = ["--data", str(data), "--folder", str(tmp_path)]
    assert quality.main([*told, "--guidance", "2", "--samples", "150"]) == 0
    said = capsys.readouterr().out
    assert "The metric network's share" in said
    assert said.count("\n| 2 | 2 |") == 1
    assert "| samples at guidance 1 |" in said
    assert quality.main([*told, "--picture", str(tmp_path / "sheet.png")]) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == ((3 * 8 + 2) * 30, 300)
    torch.set_float32_matmul_precision(precision)


def test_the_nearest_neighbour_is_found() -> None:
    those = torch.randn(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    found = quality.nearest(those[5:9] + 0.25, those)
    torch.testing.assert_close(found, torch.full((4,), 0.25), rtol=1e-3, atol=1e-3)
