"""References of a user's own images in a run: built once, kept, resumed, and refused with a reason."""

import dataclasses
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
from PIL import Image

import solverbench as sb
from solverbench import extras
from solverbench.bench import plan as planning
from solverbench.bench import run as runner
from solverbench.bench.run_options import RunOptions
from solverbench.errors import MissingError, RecordError, UserError
from solverbench.evaluation import image_sources, image_tables, own_data, reference_build, references
from solverbench.evaluation.pictures import InOrder
from solverbench.evaluation.references import Extractor
from solverbench.metrics.frechet import Moments, frechet
from solverbench.metrics.quantise import quantise

pytestmark = pytest.mark.usefixtures("unrendered", "remembered", "few_compared")

COUNT = 90
MADE_BY = Extractor(toys.extractor, "toy-projection", toys.SHAPE)


@pytest.fixture
def levels(tmp_path, monkeypatch):
    """90 toy images, uint8, in every form of file, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOLVERBENCH_DATA", str(tmp_path / "data"))
    made = quantise(toys.data(COUNT, seed=5))
    Path("photos").mkdir()
    for number, image in enumerate(made):
        Image.fromarray(image[0].numpy()).save(f"photos/{number:03}.png")
    with zipfile.ZipFile("photos.zip", "w") as archive:
        for file in sorted(Path("photos").iterdir()):
            archive.write(file, file.name)
    np.save("photos.npy", made.numpy())
    np.savez_compressed("images.npz", images=made.permute(0, 2, 3, 1).numpy())
    return made


def run(reference, out="runs", **options):
    small = {"solvers": "euler", "nfe": 3, "samples": 40, "replicates": 1, "teachers": toys.teacher()}
    return runner.run(RunOptions(**{**small, "metrics": "frechet_data", **options}, reference=reference, out=out))


def built(out="runs"):
    return sorted(path.name for path in Path(out, "references").glob("*.npz"))


@pytest.mark.parametrize("source", ["photos", "photos.zip", "photos.npy", "images.npz"])
def test_images_are_the_reference_of_a_run_and_are_read_once(levels, source, monkeypatch):
    result = run(source)
    [outcome] = result.cells
    measure = outcome.measures["frechet_data"]
    [name] = built()
    assert measure.reference.startswith(f"{name[:-4]} (from {source}, {COUNT} images")
    stored = references.load(name[:-4], Path("runs"), "toy-projection")
    expected = Moments.of(toys.extractor(levels))
    assert frechet(stored.moments, expected) == pytest.approx(0, abs=1e-6)
    lines = json.loads((result.folder / "bundle.json").read_text())["lines"]
    [floor] = [line for line in lines if line["label"] == "data floor"]
    assert floor["n"] == 40
    monkeypatch.setattr(reference_build, "build", lambda *_, **__: pytest.fail("built again"))
    assert run(source).counts["cached"] == 1
    assert outcome.cell.protocol.judging.reference == name[:-4], "other workers need no images"


def test_all_forms_of_the_same_images_give_the_same_distance(levels):
    found = {run(source).cells[0].measures["frechet_data"].value for source in ("photos", "photos.zip", "images.npz")}
    assert max(found) == pytest.approx(min(found), rel=1e-9)


def test_changed_images_are_read_again_although_names_and_sizes_are_the_same(levels):
    np.save("photos.npy", levels.numpy())
    first = run("photos.npy").cells[0]
    np.save("photos.npy", 255 - levels.numpy())
    second = run("photos.npy").cells[0]
    assert first.cell.address != second.cell.address
    assert len(built()) == 2


def test_a_plan_says_what_the_run_builds_and_writes_nothing(levels, tmp_path):
    options = {"solvers": "euler", "nfe": 3, "samples": 40, "replicates": 1, "teachers": toys.teacher()}
    planned = planning.plan(RunOptions(**options, metrics="frechet_data", reference="photos", out=tmp_path / "runs"))
    said = f"reference photos: its {COUNT} images have no features by toy-projection yet"
    assert said in planned.summary()
    assert not (tmp_path / "runs").exists()


def test_an_interrupted_build_goes_on_in_the_next_run(levels, monkeypatch):
    monkeypatch.setattr(reference_build, "BLOCK", 20)
    read = image_sources.Stored.read

    def once(self, part, note):
        if part.start == 40:
            raise KeyboardInterrupt
        return read(self, part, note)

    monkeypatch.setattr(image_sources.Stored, "read", once)
    with pytest.raises(KeyboardInterrupt):
        run("photos")
    seen = []
    monkeypatch.setattr(
        image_sources.Stored, "read", lambda self, part, note: seen.append(part) or read(self, part, note)
    )
    run("photos")
    assert [part.start for part in seen] == [40, 60, 80]
    assert [name.endswith("building.npz") for name in built()] == [False]


def test_checkpoints_of_many_images_become_rare(levels, monkeypatch, tmp_path):
    monkeypatch.setattr(reference_build, "BLOCK", 2)
    written = []
    write = reference_build.files.write_arrays
    monkeypatch.setattr(
        reference_build.files, "write_arrays", lambda path, arrays: written.append(1) or write(path, arrays)
    )

    reference_build.build("all", "photos.npy", tmp_path / "a", made_by=MADE_BY)
    often, written[:] = len(written), []
    monkeypatch.setattr(reference_build, "SPARSE", 2)
    reference_build.build("all", "photos.npy", tmp_path / "b", made_by=MADE_BY)
    assert len(written) < 12 < often
    assert (tmp_path / "a/references/all.npz").read_bytes() == (tmp_path / "b/references/all.npz").read_bytes()


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        ("nowhere", MissingError, "reference 'nowhere': neither a file nor stored"),
        ("empty", UserError, "holds no image"),
        ("broken", RecordError, "not an image"),
        ("large", UserError, "takes only 1x4x4"),
    ],
)
def test_images_that_can_not_be_the_reference_end_the_run(levels, source, error, said):
    for name in ("empty", "broken", "large"):
        Path(name).mkdir()
    Path("broken/a.png").write_bytes(b"no picture")
    Path("broken/b.png").write_bytes(b"no picture")
    for number in range(2):
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(f"large/{number}.png")
    with pytest.raises(error, match=said):
        run(source)


def test_a_stored_name_comes_before_a_folder_of_that_name(levels):
    reference_build.build("photos", "photos.npy", Path("runs"), made_by=MADE_BY)
    assert own_data.images("photos", Path("runs")) is None
    assert own_data.images("photos", Path("elsewhere")) is not None
    assert run("photos").cells[0].measures["frechet_data"].reference.startswith("photos (from photos.npy")


def test_another_size_is_noted(levels):
    Path("wide").mkdir()
    for number in range(30):
        Image.fromarray(np.full((4, 6), number, np.uint8)).save(f"wide/{number}.png")

    class Brightness(sb.Extractor):
        """Mean and deviation."""

        name, channels, identity = "brightness_of_test", 1, "1"

        def features(self, images):
            rows = images.flatten(1).float()
            return torch.stack([rows.mean(1), rows.std(1)], 1)

    sb.register(Brightness)
    try:
        result = run("wide", extractor="brightness_of_test", metrics=None)
    finally:
        sb.registries.extractors.withdraw("brightness_of_test")
    notes = json.loads((result.folder / "bundle.json").read_text())["notes"]
    assert any("its images are 6x4, but toy's are 4x4" in note for note in notes)


def test_a_sequence_is_read_on_where_it_ended():
    begun = []
    made = InOrder(lambda begin: begun.append(begin) or iter(range(begin, 10)))
    assert made.take(range(3)) + made.take(range(3, 5)) == [0, 1, 2, 3, 4]
    assert made.take(range(1, 3)) == [1, 2]
    assert made.take(range(8, 12)) == [8, 9]
    assert begun == [0, 1, 8]


def parquet(folder, levels, names=("train-00000-of-00002", "train-00001-of-00002"), column="image", rows=20):
    """Parquet files as `datasets` writes them: a struct of bytes and path, and the features as metadata."""
    arrow, writer = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder.mkdir(parents=True, exist_ok=True)
    shares = np.array_split(np.arange(len(levels)), len(names))
    for name, share in zip(names, shares, strict=True):
        contents = []
        for at in share:
            Image.fromarray(levels[at][0].numpy()).save("one.png")
            contents.append({"bytes": Path("one.png").read_bytes(), "path": None})
        kind = arrow.struct({"bytes": arrow.binary(), "path": arrow.string()})
        told = {"info": {"features": {column: {"_type": "Image"}, "label": {"_type": "Value", "dtype": "int64"}}}}
        table = arrow.table({column: arrow.array(contents, kind), "label": list(range(len(share)))})
        table = table.replace_schema_metadata({"huggingface": json.dumps(told)})
        writer.write_table(table, folder / f"{name}.parquet", row_group_size=rows)


def test_a_parquet_data_set_is_a_reference(levels):
    parquet(Path("set/data"), levels)
    found = run("set").cells[0]
    assert found.measures["frechet_data"].reference.startswith(built()[0][:-4])
    assert f"from set:train, {COUNT} images" in found.measures["frechet_data"].reference
    assert found.measures["frechet_data"].value == pytest.approx(run("photos").cells[0].measures["frechet_data"].value)


def test_the_rows_of_a_data_set_come_in_order_from_any_of_them(levels):
    parquet(Path("set"), levels, column="img", rows=7)
    table = image_sources.of("set", None)
    whole = torch.cat(list(table.read(range(COUNT))))
    assert whole.equal(levels.expand(-1, 3, -1, -1))
    for begin, end in ((0, 10), (10, 50), (44, 47), (88, 90), (3, 5)):
        assert torch.cat(list(table.read(range(begin, end)))).equal(whole[begin:end])
    assert len(image_sources.of("set", 12)) == 12
    assert torch.cat(list(image_sources.of("set", None, image_sources.Crop("plain", 2)).read(range(3)))).shape[2:] == (
        2,
        2,
    )


def test_a_data_set_of_several_splits_has_to_be_named(levels):
    parquet(Path("set/data"), levels, names=("test-00000-of-00001", "train-00000-of-00001"))
    with pytest.raises(UserError, match="holds the splits test, train; choose one, as in set:train"):
        image_sources.of("set", None)
    assert len(image_sources.of("set:test", None)) == 45
    with pytest.raises(UserError, match="split 'dev': set holds test, train"):
        image_sources.of("set:dev", None)
    assert run("set:test").cells[0].measures["frechet_data"].value > 0
    assert len(image_sources.of("set/data/test-00000-of-00001.parquet", None)) == 45


def test_a_data_set_that_datasets_saved_is_read(levels):
    """The layout of save_to_disk, written by hand; datasets 5.2.0's own was read once."""
    arrow = pytest.importorskip("pyarrow")
    parquet(Path("set"), levels, names=("a",))
    table = pytest.importorskip("pyarrow.parquet").read_table("set/a.parquet")
    for folder, rows in (("saved", table), ("both/train", table), ("both/test", table.slice(0, 5))):
        Path(folder).mkdir(parents=True)
        halves = [rows.slice(0, len(rows) // 2), rows.slice(len(rows) // 2)]
        names = [f"data-0000{number}-of-00002.arrow" for number in range(2)]
        for name, half in zip(names, halves, strict=True):
            with arrow.OSFile(f"{folder}/{name}", "wb") as file, arrow.ipc.new_stream(file, half.schema) as stream:
                stream.write_table(half, max_chunksize=7)
        state = {"_data_files": [{"filename": name} for name in names], "_split": None}
        Path(folder, "state.json").write_text(json.dumps(state))
    Path("both/dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    for source in ("saved", "both:train"):
        found = image_sources.of(source, None)
        assert torch.cat(list(found.read(range(COUNT)))).equal(levels.expand(-1, 3, -1, -1)), source
        assert torch.cat(list(found.read(range(30, 33)))).equal(levels[30:33].expand(-1, 3, -1, -1)), source
    assert len(image_sources.of("both:test", None)) == 5
    Path("saved/state.json").write_text("{}")
    with pytest.raises(RecordError, match="doesn't say which files belong to it"):
        image_sources.of("saved", None)


def test_rows_without_an_image_and_damaged_files_are_refused(levels):
    arrow, writer = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    kind = arrow.struct({"bytes": arrow.binary(), "path": arrow.string()})
    Path("bad").mkdir()
    paths = arrow.table({"image": arrow.array([{"bytes": None, "path": "/etc/passwd"}] * 3, kind)})
    writer.write_table(paths, "bad/a.parquet")
    with pytest.raises(RecordError, match="a row holds no image, or only the path of one"):
        list(image_sources.of("bad", None).read(range(2)))
    writer.write_table(arrow.table({"label": [1, 2]}), "bad/a.parquet")
    with pytest.raises(RecordError, match="has no column of images"):
        image_sources.of("bad", None)
    Path("bad/a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(RecordError, match=r"not a whole \.parquet"):
        image_sources.of("bad", None)


def test_without_pyarrow_the_extra_is_named(levels, monkeypatch):
    Path("set").mkdir()
    Path("set/a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingError) as caught:
        image_sources.of("set", None)
    assert extras.install("datasets") in str(caught.value)
    assert image_tables.there(Path("set"))
    assert not image_tables.there(Path("photos"))
    assert dataclasses.is_dataclass(image_tables.Table)
