"""Features by other networks: pytorch-fid's Inception, CLIP, DINOv2; each from stand-in weights in the real format."""

import dataclasses
import hashlib
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import toys
from click.testing import CliRunner
from metrics import standin
from PIL import Image

import solverbench as sb
from solverbench import downloads, extras, seeds
from solverbench.bench import run
from solverbench.bench.run_options import RunOptions
from solverbench.cli.main import main
from solverbench.errors import MissingError, RecordError, UserError
from solverbench.evaluation import image_sources, references, selection
from solverbench.metrics import extractors
from solverbench.metrics.extractors import inception as fid
from solverbench.metrics.extractors import transformers
from solverbench.metrics.extractors.inception_pytorch import PytorchInception
from solverbench.metrics.extractors.transformers import CLIP, CLIP_DEVIATION, DINOv2
from solverbench.metrics.frechet import Rows, frechet
from solverbench.metrics.quantise import quantise
from solverbench.teachers.conditions import Condition

pytestmark = pytest.mark.usefixtures("unrendered", "remembered")


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """A data folder of the test's own."""
    monkeypatch.setenv("SOLVERBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(fid, "cleanfid_folder", lambda: tmp_path / "clean-fid")
    standin.known(monkeypatch)
    monkeypatch.setattr(fid, "hub_folder", lambda: tmp_path / "hub")
    return tmp_path / "data"


def call(*words):
    result = CliRunner().invoke(main, list(map(str, words)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def pictures(count, height, width):
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, 6, 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear").mul(255).to(torch.uint8)


def test_pytorch_inception_gives_what_pytorch_fids_own_class_gives(data):
    """The numbers are those of clean-fid 0.1.35 with torchvision 0.28, resizer and all, on the same drawn weights."""
    state = standin.inception_state(standin.GOLDEN["convolutions"])
    data.mkdir()
    torch.save(state, data / fid.PYTORCH_FILE)
    standin.accept(data / fid.PYTORCH_FILE)
    found = extractors.load("legacy_pytorch")(pictures(2, 40, 52))
    assert found.shape == (2, 2048)
    assert found[:, ::64].numpy() == pytest.approx(np.array(standin.GOLDEN["features"]), rel=1e-4, abs=1e-5)


def test_pytorch_inception_needs_no_package(data, monkeypatch):
    standin.write_pytorch(data)
    for package in ("cleanfid", "cleanfid.resize", "torchvision", "transformers"):
        monkeypatch.setitem(sys.modules, package, None)
    network = extractors.load("legacy_pytorch")
    assert network(pictures(3, 9, 9)).shape == (3, 2048)
    assert network.identity.startswith("clean-fid/legacy_pytorch@")
    chances = network.probabilities(network(pictures(3, 9, 9)))
    assert chances.sum(1).numpy() == pytest.approx(1)


def test_where_torch_hub_keeps_pytorch_fids_weights_is_the_second_place(data, tmp_path):
    with pytest.raises(MissingError, match=r"refs fetch --extractor legacy_pytorch.*github.com/mseitzer/pytorch-fid"):
        fid.find("legacy_pytorch")
    path = standin.write_pytorch(tmp_path / "hub")
    assert fid.find("legacy_pytorch") == path


@pytest.mark.parametrize("case", ["text", "list", "lacking"])
def test_a_file_that_is_not_pytorch_fids_is_one_line(data, case):
    data.mkdir()
    content = {"text": b"no weights", "list": [torch.zeros(1)], "lacking": {"fc.weight": torch.zeros(1)}}[case]
    if isinstance(content, bytes):
        (data / fid.PYTORCH_FILE).write_bytes(content)
    else:
        torch.save(content, data / fid.PYTORCH_FILE)
    standin.accept(data / fid.PYTORCH_FILE)
    with pytest.raises(RecordError, match="not the Inception network") as caught:
        extractors.load("legacy_pytorch")(pictures(1, 8, 8))
    assert "\n" not in str(caught.value)


def test_a_network_with_another_checksum_is_not_loaded(data, tmp_path, monkeypatch):
    assert f"pt_inception-2015-12-05-{fid.SHA256[fid.PYTORCH_FILE][:8]}.pth" == fid.PYTORCH_FILE
    for place in ("data", "hub"):
        path = standin.write_pytorch(tmp_path / place)
        monkeypatch.setitem(fid.SHA256, fid.PYTORCH_FILE, 64 * "0")
        with monkeypatch.context() as patch:
            patch.setattr(torch, "load", lambda *_, **__: pytest.fail("loaded"))
            with pytest.raises(
                RecordError, match=r"not the Inception network \(its sha256 begins with \w+ instead of 0000"
            ):
                extractors.load("legacy_pytorch")(pictures(1, 8, 8))
        path.unlink()


@pytest.mark.parametrize("kind", ["right", "another file", "a link", "another user's"])
def test_a_network_in_clean_fids_folder_is_checked_before_it_runs(tmp_path, monkeypatch, kind):
    """Every user of the machine may write there, and TorchScript is code."""
    path = tmp_path / "clean-fid" / fid.FILE
    path.parent.mkdir()
    path.write_bytes(b"network")
    standin.accept(path)
    if kind == "another file":
        path.write_bytes(b"another")
    elif kind == "a link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "another user's":
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        os.chown(path, 12346, -1) if os.getuid() == 0 else None
    if kind == "right":
        with fid.checked(path) as copy:
            assert copy.read_bytes() == b"network"
            assert copy.parent not in (path.parent, tmp_path)
            assert copy.parent.stat().st_mode & 0o077 == 0
        assert not copy.exists()
        return
    said = {"another file": "its sha256 begins with", "a link": "a link or another special file"}
    with pytest.raises(RecordError, match=said.get(kind, "it belongs to another user")), fid.checked(path):
        pytest.fail("loaded")


def test_a_download_with_another_checksum_is_refused(data, monkeypatch):
    class Answer(io.BytesIO):
        status, headers = 200, {}

    monkeypatch.setattr(downloads, "_open", lambda *_: Answer(b"something else"))
    with pytest.raises(RecordError, match="its sha256 begins with"):
        fid.fetch("legacy_pytorch")
    assert not (data / fid.PYTORCH_FILE).exists()
    fid.SHA256[fid.PYTORCH_FILE] = hashlib.sha256(b"something else").hexdigest()
    assert fid.fetch("legacy_pytorch").read_bytes() == b"something else"


def prepared(image, size, mean, deviation):
    """An image [C, H, W] as the networks take it, written out: PIL's bicubic, levels to [0, 1], standardised."""
    resized = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(size, Image.Resampling.BICUBIC)
    return torch.from_numpy((np.asarray(resized) / 255 - mean) / deviation).permute(2, 0, 1).float()


def test_clip_features_are_the_projected_ones_of_the_middle(data):
    network = standin.write_clip(data)
    images = pictures(3, 60, 100)
    ready = [prepared(each, (373, 224), transformers.CLIP_MEAN, transformers.CLIP_DEVIATION) for each in images]
    with torch.no_grad():
        # 373 wide: (373 - 224) / 2 is 74.5, which torchvision rounds to the even 74
        vision = network.vision_model(pixel_values=torch.stack(ready)[..., 74:298])
        expected = network.visual_projection(vision.pooler_output)
    found = CLIP()(images)
    assert found.shape == (3, CLIP().size) == (3, 8)
    assert found.numpy() == pytest.approx(expected.numpy(), rel=1e-4, abs=1e-5)


def test_clip_score_is_the_cosine_of_image_and_prompt(data):
    network = standin.write_clip(data)
    images, prompts = pictures(4, 30, 30), ["a red ring", "a blue cross", "red", "a ring " * 60]
    scores = CLIP().scores(images, prompts)
    vocabulary = json.loads((data / "clip-vit-base-patch32" / "vocab.json").read_text())
    last = vocabulary["<|endoftext|>"]
    seen = CLIP()(images).double()
    for number, prompt in enumerate(prompts):
        letters = [piece for word in prompt.split() for piece in (*word[:-1], f"{word[-1]}</w>")]
        tokens = [0, *[vocabulary[letter] for letter in letters][:75], last]
        with torch.no_grad():
            text = network.text_model(input_ids=torch.tensor([tokens])).pooler_output
            read = network.text_projection(text).double()[0]
        cosine = float(seen[number] @ read / seen[number].norm() / read.norm())
        assert float(scores[number]) == pytest.approx(100 * max(cosine, 0), abs=1e-3)
    assert len(set(scores.tolist())) > 1


def test_dinov2_features_are_the_class_tokens_with_positions_by_the_public_rule(data):
    network = standin.write_dinov2(data)
    images = pictures(2, 60, 100)
    ready = [prepared(each, (224, 224), transformers.IMAGENET_MEAN, transformers.IMAGENET_DEVIATION) for each in images]
    stored = network.embeddings.position_embeddings
    expected_positions = torch.nn.functional.interpolate(
        stored[:, 1:].reshape(1, 37, 37, 12).permute(0, 3, 1, 2), scale_factor=16.1 / 37, mode="bicubic"
    )
    positions = transformers.positions(stored.data, 16)
    assert torch.allclose(positions[:, 1:], expected_positions.permute(0, 2, 3, 1).reshape(1, 256, 12), atol=1e-6)
    assert torch.equal(positions[:, 0], stored[:, 0])
    assert transformers.positions(positions, 16) is positions
    with torch.no_grad():
        by_transformers = network(pixel_values=torch.stack(ready)).pooler_output
        stored.data = positions
        expected = network(pixel_values=torch.stack(ready)).pooler_output
    found = DINOv2()(images)
    assert found.numpy() == pytest.approx(expected.numpy(), rel=1e-4, abs=1e-5)
    assert not torch.allclose(found, by_transformers, atol=1e-4), "its rule of positions is another"


@pytest.mark.parametrize(
    ("extractor", "metric", "write"),
    [("clip", "fid_clip", standin.write_clip), ("dinov2", "fdd", standin.write_dinov2)],
)
def test_a_distance_of_a_transformers_features_goes_through_the_command_line(data, tmp_path, extractor, metric, write):
    write(data)
    out = tmp_path / "runs"
    built = call("refs", "build", "digits", "digits", "--count", 40, "--extractor", extractor, "--out", out)
    assert built.exit_code == 0, built.output
    words = ["--nfe", 3, "--samples", 20, "--replicates", 1, "--metrics", metric, "--out", out]
    result = call("run", "--solvers", "euler", *words)
    assert result.exit_code == 0, result.output
    row = pd.read_csv(next((out / "reports").glob("*/results.csv"))).set_index("metric").loc[metric]
    identity = extractors.load(extractor).identity
    reference = references.load("digits", out, identity)
    assert row["metric_id"].startswith(f"{metric}:{identity}|n=20x1|ref=digits@{reference.sha[:12]}|u8=edm-round")
    assert row["biased"]
    seen = ["--nfe", 3, "--seeds", "50000-50019", "--format", "npz", "--to", tmp_path / "s", "--out", out]
    call("sample", "euler", *seen)
    images = torch.from_numpy(np.load(next((tmp_path / "s").glob("*.npz")))["images"]).permute(0, 3, 1, 2)
    features = extractors.load(extractor)(images).double().numpy()
    assert row["value"] == pytest.approx(frechet(Rows(features), reference.moments), rel=1e-4)
    report = next((out / "reports").glob("*/report.md")).read_text()
    assert "biased" in report
    assert "(Inception features)" not in report


def test_clip_score_of_a_run_is_the_mean_over_images_and_their_own_prompts(data, tmp_path):
    standin.write_clip(data)
    lines = ("a red ring", "a blue cross", "red")
    teacher = dataclasses.replace(toys.teacher(), condition=Condition(prompts=lines))
    options = {"solvers": "euler", "nfe": 3, "teachers": teacher, "out": tmp_path, "samples": 30, "replicates": 1}
    result = run.run(RunOptions(**options, metrics="clip_score", quantiser="adm-floor"))
    measure = result.cells[0].measures["clip_score"]
    plan = sb.tableau("euler", nfe=3, teacher=teacher).plan(teacher.schedule.prior_scale)
    images = sb.execute(plan, teacher.denoise, seeds.noise(range(50_000, 50_030), toys.SHAPE))
    prompts = [lines[seed % 3] for seed in range(50_000, 50_030)]
    scores = CLIP().scores(quantise(images, "adm-floor"), prompts).numpy()
    assert measure.value == pytest.approx(scores.mean(), abs=1e-4)
    assert measure.n == 30
    row = result.frame.set_index("metric").loc["clip_score"]
    name = f"clip_score:{CLIP().identity}|n=30x1|u8=adm-floor|seeds=50000-50029|condition=prompt"
    assert row["metric_id"].startswith(name)
    assert row["metric_id"].endswith(f"@{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()[:12]}")
    assert not row["biased"]
    assert result.cells[0].cell.key["clip_score"]["quantiser"] == "adm-floor"
    with pytest.raises(UserError, match="has no prompts"):
        run.run(RunOptions(**{**options, "teachers": toys.teacher()}, metrics="clip_score"))


def test_cmmd_goes_through_the_command_line(data, tmp_path):
    """The features of ViT-L/14 at 336 pixels, each of length 1, and the distance, computed here once more."""
    network, out = standin.write_clip_large(data), tmp_path / "runs"
    words = ["--nfe", 3, "--samples", 20, "--replicates", 1, "--metrics", "cmmd", "--out", out]
    real = torch.cat(list(image_sources.of("digits", 40).read(range(40))))
    np.save(tmp_path / "real.npy", real.numpy())
    result = call("run", "--solvers", "euler", *words, "--reference", tmp_path / "real.npy")
    assert result.exit_code == 0, result.output
    row = pd.read_csv(next((out / "reports").glob("*/results.csv"))).set_index("metric").loc["cmmd"]
    seen = ["--nfe", 3, "--seeds", "50000-50019", "--format", "npz", "--to", tmp_path / "s", "--out", out]
    call("sample", "euler", *seen)
    images = torch.from_numpy(np.load(next((tmp_path / "s").glob("*.npz")))["images"]).permute(0, 3, 1, 2)

    def rows(levels):
        wide = torch.nn.functional.interpolate(levels.expand(-1, 3, -1, -1) / 255, (336, 336), mode="bicubic")
        shift, scale = (torch.tensor(each).view(1, 3, 1, 1) for each in (transformers.CLIP_MEAN, CLIP_DEVIATION))
        with torch.no_grad():
            found = network.get_image_features(pixel_values=(wide - shift) / scale)
        found = getattr(found, "pooler_output", found).double().numpy()
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    x, y = rows(images), rows(real)
    mean = {}
    for name, (a, b) in {"xx": (x, x), "yy": (y, y), "xy": (x, y)}.items():
        kernel = np.exp(-((a[:, None] - b[None]) ** 2).sum(2) / 200)
        mean[name] = kernel.mean() if name == "xy" else kernel[~np.eye(len(a), dtype=bool)].mean()
    assert row["value"] == pytest.approx(1000 * (mean["xx"] + mean["yy"] - 2 * mean["xy"]), abs=1e-4)
    assert row["extractor"] == extractors.load("clip_l").identity
    assert not row["biased"]


def test_what_is_missing_is_said_in_the_rows(data, tmp_path, monkeypatch):
    teacher = dataclasses.replace(toys.teacher(), condition=Condition(prompts=("red",)))
    options = {"solvers": "euler", "nfe": 3, "teachers": teacher, "samples": 20, "replicates": 1}

    def reasons(metrics):
        frame = run.run(RunOptions(**options, out=tmp_path / metrics, metrics=metrics)).frame.set_index("metric")
        assert np.isfinite(frame.loc["rmse_teacher", "value"])
        return frame.loc[metrics, "reason"]

    monkeypatch.setitem(sys.modules, "transformers", None)
    for metric in ("fid_clip", "fdd", "cmmd", "clip_score"):
        assert extras.install("clip") in reasons(metric)
    monkeypatch.undo()
    monkeypatch.setenv("SOLVERBENCH_DATA", str(data))
    pytest.importorskip("transformers")
    assert "huggingface.co/openai/clip-vit-base-patch32" in reasons("fid_clip")
    assert f"model.safetensors or pytorch_model.bin are missing in {data / 'dinov2-large'}" in reasons("fdd")


def test_another_network_or_a_damaged_one_is_one_line(data):
    pytest.importorskip("transformers")
    standin.write_dinov2(data)
    (data / "dinov2-large").rename(data / "clip-vit-base-patch32")
    with pytest.raises(RecordError, match="a dinov2 network instead of clip"):
        CLIP()
    standin.write_dinov2(data)
    path = data / "dinov2-large" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RecordError, match="not the expected network"):
        DINOv2()(pictures(1, 8, 8))
    import safetensors.torch

    safetensors.torch.save_file({"layernorm.weight": torch.ones(12)}, path, metadata={"format": "pt"})
    with pytest.raises(RecordError, match=r"not the expected network \(no "):
        DINOv2()(pictures(1, 8, 8))


def test_metrics_of_two_networks_share_no_run():
    for metrics in ("fid,fid_clip", "fid_clip,fdd", "frechet_data,fdd"):
        with pytest.raises(UserError, match="different features"):
            selection.MetricSelection.of(metrics)
    with pytest.raises(UserError, match="no metric asked for uses it"):
        selection.MetricSelection.of("fid_clip", extractor="clean")
    with pytest.raises(UserError, match="extractor 'clip': not one of"):
        selection.MetricSelection.of("fid", extractor="clip")


def test_the_last_layer_of_pytorch_fids_file_gives_class_probabilities(data):
    standin.write_pytorch(data)
    network = extractors.load("legacy_pytorch")
    features = network(pictures(2, 12, 12))
    weight = PytorchInception.read(data / fid.PYTORCH_FILE, "cpu").state["fc.weight"].double()
    assert torch.equal(network.probabilities(features), torch.softmax(features.double() @ weight.T, 1))


def test_the_crop_and_size_of_a_reference_are_in_the_protocol_of_the_metric(data, tmp_path):
    standin.write_pytorch(data)
    out, folder = tmp_path / "runs", tmp_path / "real"
    folder.mkdir()
    for number, image in enumerate(pictures(30, 33, 50)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number:02d}.png")
    judged = ["--extractor", "legacy_pytorch", "--out", out]
    found = {}
    for name, crop in (("whole", []), ("small", ["--crop", "adm:8"]), ("large", ["--crop", "edm:16"])):
        assert call("refs", "build", name, folder, *crop, *judged).exit_code == 0
        words = [
            "--nfe",
            3,
            "--samples",
            20,
            "--replicates",
            1,
            "--metrics",
            "fid",
            "--reference",
            name,
            *judged,
            "--json",
        ]
        result = call("run", "--solvers", "euler", *words)
        report = Path(json.loads(result.output.strip().splitlines()[-1])["report"])
        row = pd.read_csv(report / "results.csv").set_index("metric").loc["fid"]
        found[name] = row["metric_id"], row["reference"], (report / "report.md").read_text()
    assert "crop" not in found["whole"][0] + found["whole"][1]
    assert "|crop=adm:8|u8=edm-round|" in found["small"][0]
    assert ", crop adm:8, sha256" in found["small"][1]
    assert "its images are 50x33, but digits's are 8x8" in found["whole"][2]
    assert "its images are 16x16, but digits's are 8x8" in found["large"][2]
    assert "digits's are 8x8" not in found["small"][2]


RUN = ["run", "--solvers", "euler", "--nfe", 3, "--samples", 20, "--replicates", 1, "--metrics", "fid"]


def test_a_reference_of_another_number_of_features_is_one_line(data, tmp_path):
    standin.write_pytorch(data)
    np.savez(tmp_path / "real.npz", mu=np.zeros(4), sigma=np.eye(4))
    judged = ["--extractor", "legacy_pytorch", "--reference", tmp_path / "real.npz", "--out", tmp_path / "runs"]
    result = call(*RUN, *judged)
    assert result.exit_code == 2
    assert "has 4 features, but clean-fid/legacy_pytorch@" in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_features_that_are_not_finite_fail_their_metrics_with_one_line(data, tmp_path):
    path = standin.write_pytorch(data)
    state = torch.load(path)
    state["Mixed_7c.branch1x1.bn.bias"][0] = float("inf")
    torch.save(state, path)
    standin.accept(path)
    np.savez(tmp_path / "real.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    judged = ["--extractor", "legacy_pytorch", "--reference", tmp_path / "real.npz", "--out", tmp_path / "runs"]
    result = call(*RUN, *judged)
    assert result.exit_code == 1
    why = "extractor: returned features that are not finite, within seeds 50000-50001"
    assert result.output.count(f"no fid of euler nfe=3 on digits: {why}") == 1
    assert "1 done" in result.output
