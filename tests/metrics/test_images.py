"""Images of a reference: every mode's levels, which files are counted, arrays, and damaged archives."""

import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from solverbench.errors import UserError
from solverbench.evaluation import image_files, image_sources, pixels, reference_build, references

LEVELS = np.random.default_rng(0).integers(0, 256, (6, 5), dtype=np.uint8)
COLOURS = np.random.default_rng(1).integers(0, 256, (6, 5, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def own_data(tmp_path, monkeypatch):
    monkeypatch.setenv("SOLVERBENCH_DATA", str(tmp_path / "data"))


@pytest.fixture
def own_levels(monkeypatch):
    """An extractor without a network: the images' own levels."""
    made = references.Extractor(lambda images: images.float().flatten(1), "levels")
    monkeypatch.setattr(reference_build, "extractor", lambda name, device: made)


def read(path, count=None):
    """All images of a source as one array [N, C, H, W], and what is noted of them."""
    notes = []
    found = image_sources.of(str(path), count)
    return np.concatenate([batch.numpy() for batch in found.read(range(len(found)), notes.append)]), notes


def saved(path, image, **options):
    image.save(path, **options)
    return path


def refused(message, path):
    with pytest.raises(UserError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_16_bit_copies_of_8_bit_pictures_have_the_same_features(tmp_path, own_levels):
    found = []
    for name, factor in (("shallow", np.uint8(1)), ("deep", np.uint16(257))):
        (tmp_path / name).mkdir()
        for number in range(10):
            level = np.random.default_rng(number).integers(0, 256, (4, 4), dtype=np.uint8)
            Image.fromarray(level * factor).save(tmp_path / name / f"{number}.png")
        reference_build.build(name, str(tmp_path / name), tmp_path)
        found.append(references.load(name, tmp_path, "levels"))
    assert np.array_equal(found[0].features, found[1].features)
    assert len(np.unique(found[1].features, axis=0)) == 10
    assert found[0].sha == found[1].sha


def deep(path):
    return saved(path, Image.fromarray(LEVELS.astype(np.uint16) * 257))


def big_endian(path):
    """A grey TIFF of 16 bits in big-endian order: mode I;16B."""
    content = (LEVELS.astype(">u2") * 257).astype(">u2").tobytes()
    tags = [(256, 5), (257, 6), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, 6), (279, len(content))]
    entries = b"".join(
        tag.to_bytes(2, "big") + b"\0\4\0\0\0\1" + value.to_bytes(4, "big") for tag, value in sorted(tags)
    )
    table = len(tags).to_bytes(2, "big") + entries + bytes(4)
    path.write_bytes(b"MM\0*" + (8 + len(content)).to_bytes(4, "big") + content + table)
    return path


def portable(path):
    path.write_bytes(b"P5 5 6 65535\n" + (LEVELS.astype(">u2") * 257).astype(">u2").tobytes())
    return path


GREY = {
    "1": ("a.png", lambda path: saved(path, Image.fromarray(LEVELS > 127)), np.where(LEVELS > 127, 255, 0)),
    "L": ("a.png", lambda path: saved(path, Image.fromarray(LEVELS)), LEVELS),
    "LA": ("a.png", lambda path: saved(path, Image.fromarray(LEVELS).convert("LA")), LEVELS),
    "P": ("a.png", lambda path: saved(path, Image.fromarray(LEVELS).convert("P")), LEVELS),
    "I;16 png": ("a.png", deep, LEVELS),
    "I;16 tiff": ("a.tif", deep, LEVELS),
    "I;16B": ("a.tiff", big_endian, LEVELS),
    "I pgm": ("a.pgm", portable, LEVELS),
}


@pytest.mark.parametrize("case", GREY)
def test_grey_levels_of_every_mode_are_those_of_8_bits(tmp_path, case):
    name, write, levels = GREY[case]
    found, notes = read(write(tmp_path / name).parent)
    assert np.array_equal(found[0], np.broadcast_to(levels, (3, 6, 5)))
    assert not notes


@pytest.mark.parametrize(("mode", "name"), [("RGB", "a.png"), ("RGBA", "a.png"), ("RGB", "a.ppm"), ("CMYK", "a.tif")])
def test_colours_of_every_mode_are_those_of_8_bits(tmp_path, mode, name):
    saved(tmp_path / name, Image.fromarray(COLOURS).convert(mode))
    found, notes = read(tmp_path)
    assert np.array_equal(found[0], COLOURS.transpose(2, 0, 1))
    assert not notes


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_a_mode_without_a_range_of_levels_is_refused_by_name(tmp_path, mode):
    image = Image.new("LAB", (5, 6)) if mode == "LAB" else Image.fromarray(LEVELS).convert(mode)
    saved(tmp_path / "a.tif", image)
    refused(rf"a\.tif: pixels of mode {mode}, .*; save it as RGB or grey", tmp_path)


def half_transparent():
    alpha = np.where(LEVELS > 127, 255, 0).astype(np.uint8)
    return Image.fromarray(np.dstack([COLOURS, alpha]))


@pytest.mark.parametrize("palette", [False, True])
def test_transparency_is_dropped_as_by_clean_fid_and_said(tmp_path, palette):
    image = half_transparent()
    if palette:
        image = Image.fromarray(LEVELS).convert("P")
        saved(tmp_path / "a.png", image, transparency=bytes(range(256)))
    else:
        saved(tmp_path / "a.png", image)
    found, notes = read(tmp_path)
    levels = np.broadcast_to(LEVELS, (3, 6, 5)) if palette else COLOURS.transpose(2, 0, 1)
    assert np.array_equal(found[0], levels)
    assert notes == [pixels.TRANSPARENT]


def test_an_exif_orientation_is_not_applied_as_by_clean_fid_and_said(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    saved(tmp_path / "a.png", Image.fromarray(COLOURS), exif=exif)
    found, notes = read(tmp_path)
    assert np.array_equal(found[0], COLOURS.transpose(2, 0, 1))
    assert notes == [pixels.TURNED]


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.webp"])
def test_a_file_of_several_pictures_is_refused_by_name(tmp_path, name):
    first, second = Image.fromarray(COLOURS), Image.fromarray(255 - COLOURS)
    saved(tmp_path / name, first, save_all=True, append_images=[second])
    refused(rf"{name}: 2 pictures in one file; write each to a file of its own", tmp_path)


def test_a_cameras_file_with_a_preview_is_its_picture(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(COLOURS).save(buffer, "MPO", save_all=True, append_images=[Image.fromarray(255 - COLOURS)])
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.n_frames == 2
        expected = np.array(image.convert("RGB"))
    assert np.array_equal(read(tmp_path)[0][0], expected.transpose(2, 0, 1))


def test_what_is_dropped_is_said_once_with_its_number(tmp_path, own_levels):
    (tmp_path / "real").mkdir()
    for number in range(3):
        saved(tmp_path / "real" / f"{number}.png", half_transparent() if number else Image.fromarray(COLOURS))
    lines = []
    reference_build.build("r", str(tmp_path / "real"), tmp_path, say=lines.append)
    assert lines[0] == "r: 3 images found"
    assert f"r: 2 of 3 images {pixels.TRANSPARENT}" in lines


def classes(root):
    """Ten images in two folders."""
    for folder in ("cats", "dogs"):
        (root / folder).mkdir(parents=True)
        for number in range(5):
            Image.fromarray(COLOURS).save(root / folder / f"{number}.png")
    return root


def test_hidden_folders_are_not_counted_and_said(tmp_path):
    root = classes(tmp_path / "real")
    for folder in (".ipynb_checkpoints", "__MACOSX", "cats/.thumbnails"):
        (root / folder).mkdir()
        Image.fromarray(COLOURS).save(root / folder / "0.png")
    (root / "cats" / "._0.png").write_bytes(b"resource fork")
    (root / "cats" / "notes.txt").write_text("none")
    (root / "folder.png").mkdir()
    found = image_files.found(root)
    assert str(found) == "10 images found; passed over: 4 hidden, 1 other files .txt"
    with zipfile.ZipFile(tmp_path / "real.zip", "w") as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, path.relative_to(root))
    assert len(image_files.found(tmp_path / "real.zip").files) == 10


def test_a_linked_folder_is_read_and_no_folder_twice(tmp_path):
    root, elsewhere = tmp_path / "real", classes(tmp_path / "elsewhere")
    classes(root)
    (root / "birds").symlink_to(elsewhere / "dogs", target_is_directory=True)
    (root / "cats" / "round").symlink_to(root, target_is_directory=True)
    (root / "again").symlink_to(root / "dogs", target_is_directory=True)
    found = image_files.found(root)
    assert len(found.files) == 15
    assert [name for name, _ in found.files][:5] == [f"birds/{number}.png" for number in range(5)]
    assert "2 links to folders that are read already" in str(found)


def test_a_link_that_leads_nowhere_is_one_line(tmp_path):
    classes(tmp_path)
    (tmp_path / "cats" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match=r"cats/lost\.png: a link that leads nowhere"):
        image_files.found(tmp_path)


def zipped(path, compression=zipfile.ZIP_DEFLATED):
    """A zip of two compressible grey images that Pillow stores without compression of its own."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for number in range(2):
            archive.writestr(f"{number}.pgm", b"P5 8 8 255\n" + bytes(range(number, 32 + number)) * 2)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_files_of_one_name_in_a_zip_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(3):
            archive.writestr("a.pgm", b"P5 8 8 255\n" + bytes([number]) * 64)
    refused(r"a\.zip: holds 3 files named a\.pgm; pack them again", tmp_path / "a.zip")


def test_an_encrypted_zip_is_refused_by_name(tmp_path):
    content = bytearray(zipped(tmp_path / "a.zip").read_bytes())
    for signature, flags in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        begin = 0
        while (begin := content.find(signature, begin)) >= 0:
            content[begin + flags] |= 1
            begin += 4
    (tmp_path / "a.zip").write_bytes(content)
    refused(r"0\.pgm is encrypted; unpack it", tmp_path / "a.zip")


def arrays(path):
    np.savez_compressed(path, mu=np.arange(2.0), sigma=np.eye(2))
    return path


def batch(path):
    np.savez_compressed(path, arr_0=np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3))
    return path


@pytest.mark.parametrize(("name", "write"), [("a.zip", zipped), ("a.npz", arrays), ("b.npz", batch)])
def test_a_flipped_byte_anywhere_is_one_line_or_changes_nothing(tmp_path, name, write):
    content = write(tmp_path / name).read_bytes()
    path, whole = tmp_path / name, None

    def use():
        if name == "a.npz":
            statistics = references.load(str(path), tmp_path, "clean-fid/clean").moments
            return [statistics.mean.tolist(), statistics.cov.tolist()]
        return read(path)[0].tolist()

    whole, lines = use(), 0
    for place in range(len(content)):
        for flip in (0xFF, 0x01):
            path.write_bytes(content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :])
            try:
                found = use()
            except UserError as error:
                lines += str(error).count("\n") == 0
            else:
                assert found == whole, (place, flip)
    assert lines > len(content)


@pytest.mark.parametrize(
    ("made", "levels"),
    [
        (COLOURS[None].repeat(2, 0), COLOURS),
        (COLOURS.transpose(2, 0, 1)[None].repeat(2, 0), COLOURS),
        (LEVELS[None].repeat(2, 0), LEVELS[..., None].repeat(3, 2)),
        (LEVELS[None, ..., None].repeat(2, 0), LEVELS[..., None].repeat(3, 2)),
        (COLOURS[None].repeat(2, 0).astype(np.uint16) * 257, COLOURS),
    ],
    ids=["NHWC", "NCHW", "NHW", "NHW1", "uint16"],
)
@pytest.mark.parametrize("name", ["samples_2x6x5x3.npz", "sampled.npz", "images.npy"])
def test_an_array_of_images_is_read_in_every_layout(tmp_path, made, levels, name):
    if name == "sampled.npz":
        np.savez(tmp_path / name, images=made, seeds=np.arange(2))  # as `solverbench sample --format npz`
    elif name.endswith(".npz"):
        np.savez(tmp_path / name, made, np.zeros(2, dtype=int))  # as guided-diffusion: arr_0, and its labels arr_1
    else:
        np.save(tmp_path / name, made)
    found, _ = read(tmp_path / name)
    assert np.array_equal(found, levels.transpose(2, 0, 1)[None].repeat(2, 0))


def test_an_array_and_a_folder_of_its_images_are_the_same_reference(tmp_path, own_levels, monkeypatch):
    monkeypatch.setattr(reference_build, "BLOCK", 4)
    made = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", made)
    (tmp_path / "real").mkdir()
    for number, image in enumerate(made):
        Image.fromarray(image).save(tmp_path / "real" / f"{number}.png")
    for name in ("a.npz", "real"):
        reference_build.build(name, str(tmp_path / name), tmp_path)
    array, folder = (references.load(name, tmp_path, "levels") for name in ("a.npz", "real"))
    assert array.sha == folder.sha
    assert np.array_equal(array.features, folder.features)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), r"images of float32, whose range isn't stated; give uint8"),
        (np.zeros((2, 4, 4, 3), int), r"images of int64, whose range isn't stated"),
        (np.zeros((2, 3, 4, 3), np.uint8), r"channels first or last"),
        (np.zeros((2, 4, 4, 2), np.uint8), r"an array of shape \(2, 4, 4, 2\); give images as"),
        (np.asfortranarray(np.zeros((2, 4, 4, 3), np.uint8)), "Fortran"),
        (np.zeros((2, 4, 4, 3), ">u2"), r"images of >u2"),
    ],
)
def test_an_array_that_leaves_levels_or_layout_open_is_refused(tmp_path, made, message):
    np.save(tmp_path / "a.npy", made)
    refused(message, tmp_path / "a.npy")


@pytest.mark.parametrize("count", [-5, 0, 1])
@pytest.mark.parametrize("name", ["a.npz", "b.npz", "real"])
def test_a_count_that_is_none_is_refused_of_every_source(tmp_path, count, name):
    {"a.npz": arrays, "b.npz": batch, "real": classes}[name](tmp_path / name)
    with pytest.raises(UserError, match=rf"--count {count}: too few images"):
        reference_build.build("r", str(tmp_path / name), tmp_path, count=count)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.pkl", "a.zip", "a.tar"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "a Git LFS pointer, not the file itself; run 'git lfs pull'"),
        (b"", "empty"),
        (b"<HTML>", "a web page"),
    ],
)
def test_a_file_that_stands_for_another_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: {message}"):
        reference_build.build("r", str(tmp_path / name), tmp_path)


def test_a_pointer_among_images_is_named(tmp_path):
    (classes(tmp_path) / "cats" / "3.png").write_bytes(POINTER)
    refused(r"cats/3\.png: a Git LFS pointer", tmp_path)


def test_more_or_larger_images_than_the_limits_are_refused_before_they_are_read(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(3):
        saved(folder / f"{number}.png", Image.fromarray(COLOURS))
    np.savez(tmp_path / "a.npz", arr_0=np.stack(3 * [COLOURS]))
    with monkeypatch.context() as patch:
        patch.setattr(image_files, "MOST", 2)
        refused("holds more than 2 images; give fewer", folder)
        refused(r"an array of shape \(3, 6, 5, 3\), more than 2 images of", tmp_path / "a.npz")
    with monkeypatch.context() as patch:
        patch.setattr(image_files, "BYTES", 20)
        refused(r"png has \d+ bytes, but an image has at most 20", folder)
    with monkeypatch.context() as patch:
        patch.setattr(image_files, "PIXELS", 9)
        refused("5 x 6 pixels, more than 9", folder)
        refused("images of 9 pixels each", tmp_path / "a.npz")


def test_a_pipe_among_images_is_passed_over(tmp_path):
    saved(tmp_path / "a.png", Image.fromarray(COLOURS))
    os.mkfifo(tmp_path / "b.png")
    found = image_files.found(tmp_path)
    assert [name for name, _ in found.files] == ["a.png"]
    assert "pipes, sockets and devices" in str(found)
