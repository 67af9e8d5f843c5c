"""References: every format comes in once, bad ones are one line, a build goes on where it was."""

import dataclasses
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from solverbench import files, registries
from solverbench.errors import UserError
from solverbench.evaluation import image_sources, reference_build, reference_foreign, references
from solverbench.metrics.frechet import Gaussian, Moments, Rows, frechet
from solverbench.teachers.loading import load_teacher

CLEAN = "clean-fid/legacy_tensorflow@123456789abc"


def statistics(d=4, seed=0):
    rows = np.random.default_rng(seed).normal(size=(50, d))
    return {"mu": rows.mean(0), "sigma": np.cov(rows, rowvar=False)}


@pytest.fixture(autouse=True)
def own_data(tmp_path, monkeypatch):
    monkeypatch.setenv("SOLVERBENCH_DATA", str(tmp_path / "data"))


def written(path, arrays):
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("name", "more", "kind", "made_by"),
    [
        ("cifar10-32x32.npz", {}, "edm", "clean-fid/legacy_tensorflow"),
        ("VIRTUAL_x.npz", {"mu_s": np.zeros(2), "sigma_s": np.eye(2)}, None, "clean-fid/legacy_tensorflow"),
        ("own_legacy_tensorflow_custom_na.npz", {}, None, "clean-fid/legacy_tensorflow"),
        ("stats.npz", {}, None, "unknown"),
    ],
)
def test_statistics_of_other_tools_come_in(tmp_path, name, more, kind, made_by):
    source = written(tmp_path / name, statistics() | more)
    path = reference_build.build("ref", str(source), tmp_path / "runs", kind=kind, split="train", count=50)
    told = references.about(path)
    assert (told["extractor"], told["n"], told["split"], told["origin"]) == (made_by, 50, "train", name)
    found = references.load("ref", tmp_path / "runs", CLEAN)
    assert frechet(found.moments, Gaussian(statistics()["mu"], statistics()["sigma"])) == 0
    assert found.sha == references.load(str(source), tmp_path, CLEAN).sha
    assert "50 images, split train" in found.name
    assert found.note == ""
    assert list(references.listed(tmp_path / "runs")) == [("ref", path)]
    assert "4 features" in references.verify(path)


@pytest.mark.parametrize(("kind", "name"), [("pytorch-fid", "s.npz"), (None, "x_clean_custom_na.npz")])
def test_another_extractor_is_refused(tmp_path, kind, name):
    source = written(tmp_path / name, statistics())
    reference_build.build("ref", str(source), tmp_path, kind=kind)
    with pytest.raises(UserError, match=r"made by clean-fid/.*judged by clean-fid/legacy_tensorflow"):
        references.load("ref", tmp_path, CLEAN)


def test_a_guided_diffusion_file_may_hold_images_too_which_are_not_read(tmp_path):
    arrays = statistics() | {"mu_s": np.zeros(2), "sigma_s": np.eye(2), "arr_0": np.zeros((3, 8, 8, 3), np.uint8)}
    assert set(reference_foreign.foreign(written(tmp_path / "v.npz", arrays))[0]) == {"mu", "sigma"}


BAD = {
    "text": (b"no archive", "not a whole .npz"),
    "cut": (None, "not a whole .npz"),
    "other": ({"images": np.zeros(3)}, "holds images, not mu and sigma"),
    "shape": ({"mu": np.zeros(4), "sigma": np.eye(5)}, r"mu is \(4,\) and sigma \(5, 5\)"),
    "nan": (statistics() | {"mu": np.full(4, np.nan)}, "mu holds values that are not finite"),
    "asymmetric": ({"mu": np.zeros(2), "sigma": np.array([[1.0, 0.5], [0.0, 1.0]])}, "isn't symmetric"),
    "indefinite": ({"mu": np.zeros(2), "sigma": np.diag([1.0, -0.1])}, "negative eigenvalues"),
    "pickled": ({"mu": np.array([{"a": 1}], dtype=object), "sigma": np.eye(1)}, "not a whole .npz"),
    "whole": ({"mu": np.zeros(2, dtype=int), "sigma": np.eye(2)}, "mu is int64"),
    "one": ({"feats": np.ones((1, 3))}, "too few images"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_line(tmp_path, case):
    content, message = BAD[case]
    path = tmp_path / "bad.npz"
    if isinstance(content, dict):
        np.savez(path, **content)
    else:
        np.savez(path, **statistics())
        path.write_bytes(content or path.read_bytes()[:-100])
    for use in (
        lambda: references.load(str(path), tmp_path, CLEAN),
        lambda: reference_build.build("x", str(path), tmp_path),
    ):
        with pytest.raises(UserError, match=message) as caught:
            use()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "references").exists()


def test_a_singular_covariance_is_used_and_said(tmp_path):
    sigma = np.diag([1.0, 1.0, 0.0])
    found = references.load(str(written(tmp_path / "s.npz", {"mu": np.zeros(3), "sigma": sigma})), tmp_path, CLEAN)
    assert "its covariance is singular" in found.note
    assert frechet(Gaussian(np.zeros(3), np.eye(3)), found.moments) == pytest.approx(1)


@pytest.fixture
def mean_colour(monkeypatch):
    """An extractor without a network: each channel's mean."""
    calls = []

    def extract(images):
        calls.append(len(images))
        return images.float().flatten(2).mean(2)

    made = references.Extractor(extract, "mean-colour")
    monkeypatch.setattr(reference_build, "extractor", lambda name, device: made)
    return calls


def images(folder, count, *, size=6):
    folder.mkdir()
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number:04d}.png")
    return pixels


def test_a_folder_and_a_zip_of_it_are_the_same_reference(tmp_path, mean_colour):
    pixels = images(tmp_path / "real", 20)
    (tmp_path / "real" / "notes.txt").write_text("no image")
    with zipfile.ZipFile(tmp_path / "real.zip", "w") as archive:
        for path in sorted((tmp_path / "real").iterdir(), reverse=True):
            archive.write(path, path.name)
    found = []
    for source in ("real", "real.zip"):
        path = reference_build.build(source.replace(".", "-"), str(tmp_path / source), tmp_path)
        found.append(files.read_arrays(path))
        assert references.about(path)["n"] == 20
    assert found[0]["mu"].tobytes() == found[1]["mu"].tobytes()
    rows = pixels.reshape(20, -1, 3).mean(1)
    assert found[0]["mu"] == pytest.approx(rows.mean(0), rel=1e-6)
    assert found[0]["sigma"] == pytest.approx(np.cov(rows, rowvar=False), rel=1e-4)
    assert found[0]["features"].shape == (20, 3)


def test_an_interrupted_build_goes_on_to_the_same_bytes(tmp_path, mean_colour, monkeypatch):
    images(tmp_path / "real", 11)
    monkeypatch.setattr(reference_build, "BLOCK", 4)
    monkeypatch.setattr(reference_build, "KEPT", 5)
    whole = reference_build.build("r", str(tmp_path / "real"), tmp_path / "a").read_bytes()

    def stop(line):
        if "8 of 11" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reference_build.build("r", str(tmp_path / "real"), tmp_path / "b", say=stop)
    mean_colour.clear()
    assert reference_build.build("r", str(tmp_path / "real"), tmp_path / "b").read_bytes() == whole
    assert sum(mean_colour) == 3, "resuming after 8 of 11"
    assert [path.name for path in (tmp_path / "b" / "references").iterdir()] == ["r.npz"]


def test_few_images_are_kept_as_vectors(tmp_path, mean_colour):
    images(tmp_path / "real", 3)
    reference_build.build("r", str(tmp_path / "real"), tmp_path)
    found = references.load("r", tmp_path, "mean-colour")
    assert isinstance(found.moments, Rows)
    assert "singular (3 images, 3 features)" in found.note


def test_bad_images_and_names_are_one_line(tmp_path, mean_colour):
    images(tmp_path / "real", 3)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.zip").write_bytes(b"PK nonsense")

    def refused(message, name, source, **options):
        with pytest.raises(UserError, match=message) as caught:
            reference_build.build(name, str(source), tmp_path, **options)
        assert "\n" not in str(caught.value)

    refused("holds no image", "r", tmp_path / "empty")
    refused("not a zip", "r", tmp_path / "bad.zip")
    refused("neither a file or folder nor an embedded generator", "r", "nowhere")
    refused("not one word", "../r", tmp_path / "real")
    refused("too few images", "r", tmp_path / "real", count=1)
    refused("holds 3 images", "r", tmp_path / "real", count=9)
    refused("--kind edm: .*leave --kind out", "r", tmp_path / "real", kind="edm")
    refused("--kind edm: .*nowhere.npz is no file or folder", "r", tmp_path / "nowhere.npz", kind="edm")
    reference_build.build("r", str(tmp_path / "real"), tmp_path)
    refused("exists with other content", "r", tmp_path / "real", count=2)
    (tmp_path / "real" / "0001.png").write_bytes(b"no png")
    refused(r"0001.png: not an image \(of no known format\)", "s", tmp_path / "real")
    with pytest.raises(UserError, match="neither a file nor stored"):
        references.load("nowhere", tmp_path, CLEAN)


def test_features_that_are_not_finite_are_refused(tmp_path, monkeypatch):
    images(tmp_path / "real", 3)
    made = references.Extractor(lambda x: torch.full((len(x), 3), float("nan")), "nan")
    monkeypatch.setattr(reference_build, "extractor", lambda name, device: made)
    with pytest.raises(UserError, match="features of images 0-2 are not finite"):
        reference_build.build("r", str(tmp_path / "real"), tmp_path)


def test_an_embedded_generator_gives_the_features_of_its_own_data(tmp_path):
    path = reference_build.build("digits", "digits", tmp_path, extractor_name="digits", count=300)
    from solverbench import load_teacher

    judged = load_teacher("digits").evaluation
    found = references.load("digits", tmp_path, judged.extractor_id)
    assert found.features.shape == (300, 64)
    assert frechet(Moments.of(found.features), judged.data.moments) < 20
    assert references.about(path)["origin"] == "generator digits 1000000-1000299"


@pytest.mark.parametrize("name", registries.teachers.builtin)
def test_an_embedded_generator_draws_images_like_its_teachers(name):
    teacher = load_teacher(name)
    drawn = teacher.images_of(range(1_000_000, 1_000_004))
    assert drawn.shape == (4, *teacher.shape)
    assert drawn.isfinite().all()  # the mixture, being Gaussian, goes beyond [-1, 1] a little
    assert drawn.std() > 0.1
    assert torch.equal(drawn, teacher.images_of(range(1_000_000, 1_000_004)))
    assert not torch.equal(drawn, teacher.images_of(range(1_000_004, 1_000_008)))


def noise(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def by_edm(image, size):
    """EDM's dataset_tool.py --transform=center-crop, written with arrays."""
    pixels = np.array(image)
    high, wide, short = *pixels.shape[:2], min(pixels.shape[:2])
    middle = pixels[(high - short) // 2 : (high + short) // 2, (wide - short) // 2 : (wide + short) // 2]
    return np.array(Image.fromarray(middle).resize((size, size), Image.Resampling.LANCZOS))


def by_adm(image, size):
    """ADM's center_crop_arr: by halves, then bicubic, then the rows and columns of the middle."""
    while min(*image.size) >= 2 * size:
        image = image.resize(tuple(side // 2 for side in image.size), Image.Resampling.BOX)
    factor = size / min(*image.size)
    pixels = np.array(image.resize(tuple(round(side * factor) for side in image.size), Image.Resampling.BICUBIC))
    top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    return pixels[top : top + size, left : left + size]


def by_torchvision(image, size):
    """Resize(size) and CenterCrop(size) of torchvision on a PIL image, without torchvision."""
    wide, high = image.size
    wider, higher = (size, int(size * high / wide)) if wide <= high else (int(size * wide / high), size)
    pixels = np.array(image.resize((wider, higher), Image.Resampling.BILINEAR))
    top, left = round((higher - size) / 2.0), round((wider - size) / 2.0)
    return pixels[top : top + size, left : left + size]


@pytest.mark.parametrize(
    ("width", "height"), [(53, 40), (40, 53), (100, 41), (30, 90), (8, 8), (9, 17), (16, 24), (8, 17)]
)
@pytest.mark.parametrize("size", [8, 13])
@pytest.mark.parametrize(("rule", "by"), [("edm", by_edm), ("adm", by_adm), ("torch", by_torchvision)])
def test_crops_are_those_of_the_public_code(rule, by, width, height, size):
    image = noise(width, height)
    found = image_sources.Crop.parse(f"{rule}:{size}")(image)
    assert found.size == (size, size)
    assert np.array_equal(np.array(found), by(image, size))


def test_a_plain_crop_is_the_middle():
    image = noise(11, 8)
    found = np.array(image_sources.Crop("plain", 4)(image))
    assert np.array_equal(found, np.array(image)[2:6, 3:7])
    with pytest.raises(ValueError, match="11x8 pixels, too small for a crop of 9"):
        image_sources.Crop("plain", 9)(image)


def test_a_crop_makes_one_reference_of_images_of_several_sizes_and_is_in_its_protocol(tmp_path, mean_colour):
    (tmp_path / "real").mkdir()
    for number, (width, height) in enumerate([(20, 30), (31, 20), (24, 24), (50, 22)]):
        noise(width, height, number).save(tmp_path / "real" / f"{number}.png")
    whole = reference_build.build("whole", str(tmp_path / "real"), tmp_path)
    assert references.about(whole)["pixels"] == "of several sizes"
    assert "crop" not in references.about(whole)
    cut = reference_build.build("cut", str(tmp_path / "real"), tmp_path, crop=image_sources.Crop.parse("adm:16"))
    told = references.about(cut)
    assert (told["crop"], told["pixels"]) == ("adm:16", "16x16")
    sizes = [(20, 30), (31, 20), (24, 24)]
    rows = [by_adm(noise(*size, number), 16).reshape(-1, 3).mean(0) for number, size in enumerate(sizes)]
    found = references.load("cut", tmp_path, "mean-colour")
    assert found.features[:3] == pytest.approx(np.array(rows), rel=1e-6)
    assert ", crop adm:16, sha256" in found.name
    assert found.crop == "adm:16"
    assert "crop adm:16" in references.verify(cut)
    with pytest.raises(UserError, match=r"0\.png: 20x30 pixels, too small for a crop of 64"):
        reference_build.build("x", str(tmp_path / "real"), tmp_path, crop=image_sources.Crop.parse("plain:64"))


@pytest.mark.parametrize("text", ["adm", "adm:0", "adm:-8", "middle:8", "adm:8:8", ":8", "ADM:8"])
def test_a_crop_that_is_not_one_is_refused(text):
    with pytest.raises(UserError, match=r"not RULE:SIZE with a rule of edm, adm, torch, plain"):
        image_sources.Crop.parse(text)


def test_a_crop_of_what_has_no_images_to_cut_is_refused(tmp_path):
    crop = image_sources.Crop("adm", 8)
    source = written(tmp_path / "s.npz", statistics())
    with pytest.raises(UserError, match="holds statistics, not images"):
        reference_build.build("r", str(source), tmp_path, crop=crop)
    with pytest.raises(UserError, match="all have one size"):
        reference_build.build("r", "digits", tmp_path, extractor_name="digits", crop=crop)


def stored(out, name, *, extractor=CLEAN, origin="x"):
    about = {"name": name, "origin": origin, "kind": "edm", "extractor": extractor, "n": 50, "split": "train"}
    encoded = np.frombuffer(files.canonical(about).encode(), dtype=np.uint8)
    files.write_arrays(out / "references" / f"{name}.npz", {**statistics(), "about": encoded})


def teacher(name, spec=""):
    return dataclasses.replace(load_teacher("mixture"), name=name, spec=spec or name)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("cifar10", ""),
        ("cifar10-dtype=fp16", "cifar10:dtype=fp16"),
        ("cifar10-classes=fixed-3-dtype=fp16", "cifar10:classes=fixed:3:dtype=fp16"),
        ("cifar10-dtype=fp16", "/models/cifar10.toml:dtype=fp16"),
        ("fast-dtype=fp16", "cifar10:dtype=fp16:name=fast"),
        ("cifar10_cond", ""),
        ("cifar10_cond-dtype=fp16", "cifar10_cond:dtype=fp16"),
    ],
)
def test_a_teachers_reference_is_that_of_its_data_whatever_its_options(tmp_path, name, spec):
    stored(tmp_path, "cifar10")
    stored(tmp_path, "ffhq64")
    assert references.named_for(teacher(name, spec), tmp_path, CLEAN) == "cifar10"


def test_a_name_with_the_very_options_comes_first_and_a_published_file_serves_under_any_name(tmp_path):
    stored(tmp_path, "mine", origin="cifar10-32x32.npz")
    assert references.named_for(teacher("cifar10-dtype=fp16", "cifar10:dtype=fp16"), tmp_path, CLEAN) == "mine"
    stored(tmp_path, "cifar10")
    stored(tmp_path, "cifar10-dtype=fp16")
    found = references.named_for(teacher("cifar10-dtype=fp16", "cifar10:dtype=fp16"), tmp_path, CLEAN)
    assert found == "cifar10-dtype=fp16"


def test_a_reference_of_other_data_or_by_another_extractor_does_not_serve(tmp_path):
    stored(tmp_path, "ffhq64", origin="ffhq-64x64.npz")
    with pytest.raises(UserError, match="reference 'cifar10': neither a file nor stored"):
        references.named_for(teacher("cifar10-dtype=fp16", "cifar10:dtype=fp16"), tmp_path, CLEAN)
    stored(tmp_path, "cifar10", extractor="clean-fid/clean")
    with pytest.raises(
        UserError, match=r"no stored reference is by clean-fid/legacy_tensorflow@.*\(found: cifar10\).*--extractor"
    ):
        references.named_for(teacher("cifar10"), tmp_path, CLEAN)
    assert references.named_for(teacher("cifar10"), tmp_path) == "cifar10"


def test_statistics_of_clip_features_are_not_taken_for_those_of_inception(tmp_path):
    source = written(tmp_path / "own_clean_clip_vit_b_32_custom_na.npz", statistics())
    reference_build.build("r", str(source), tmp_path)
    with pytest.raises(UserError, match="made by clip-vit-base-patch32, but the images are judged by clean-fid/clean"):
        references.load("r", tmp_path, "clean-fid/clean@123456789abc")
    assert references.load("r", tmp_path, "clip-vit-base-patch32@123456789abc").moments.mean.shape == (4,)


def test_the_kept_vectors_are_evenly_spaced_over_all_images(tmp_path, mean_colour, monkeypatch):
    pixels = images(tmp_path / "real", 13)
    monkeypatch.setattr(reference_build, "BLOCK", 4)
    monkeypatch.setattr(reference_build, "KEPT", 5)
    reference_build.build("r", str(tmp_path / "real"), tmp_path)
    found = references.load("r", tmp_path, "mean-colour")
    assert found.features == pytest.approx(pixels.reshape(13, -1, 3).mean(1)[[0, 3, 6, 9, 12]], rel=1e-6)
