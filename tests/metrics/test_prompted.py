"""Scores of an image and its prompt: CLIP score, PickScore and plugins."""

import dataclasses
import hashlib
import sys

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
import toys
from click.testing import CliRunner
from metrics import prompted_networks as networks
from PIL import Image

from solverbench import extras
from solverbench.bench import run
from solverbench.bench.run_options import RunOptions
from solverbench.cli.main import main
from solverbench.errors import MissingError, RecordError
from solverbench.metrics.extractors import transformers
from solverbench.metrics.extractors.transformers import CLIP, PickScore
from solverbench.metrics.quantise import quantise
from solverbench.sampling import sample
from solverbench.teachers.conditions import Condition

pytestmark = pytest.mark.usefixtures("unrendered")

BOTH = ("PickScore_v1", networks.WORDS)
PROMPTS = ("a red ring", "two", "a blue cross on a mat")


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """A data folder of the test's own."""
    monkeypatch.setenv("SOLVERBENCH_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def pictures(count, height, width):
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, 6, 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear").mul(255).to(torch.uint8)


def prepared(image, left):
    """An image [3, H, W] as its README's processor prepares it, by hand: [3, 224, 224] float64."""
    height, width = image.shape[1:]
    wide = int(224 * width / height)
    resized = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((wide, 224), Image.Resampling.BICUBIC)
    levels = np.asarray(resized)[:, left : left + 224] / 255
    return ((levels - transformers.CLIP_MEAN) / transformers.CLIP_DEVIATION).transpose(2, 0, 1)


def teacher():
    return dataclasses.replace(toys.teacher(), condition=Condition(prompts=PROMPTS))


def measured(out, metrics, **more):
    options = {"solvers": "euler", "nfe": 3, "teachers": teacher(), "samples": 20, "replicates": 1}
    return run.run(RunOptions(**(options | more), out=out, metrics=metrics))


def test_pickscore_is_the_scaled_cosine_of_a_stand_ins_features(data, monkeypatch):
    """Every step by hand in float64; 60 x 101 pixels become 377 wide, of which 76 of 153 are cut at the left."""
    networks.stand_in(monkeypatch, data, *BOTH)
    images = pictures(3, 60, 101)
    seen = np.stack([prepared(each, 76).mean((1, 2)) for each in images])
    read = np.array([[1 + len(prompt), 1, -1] for prompt in PROMPTS])
    cosines = (seen * read).sum(1) / np.linalg.norm(seen, axis=1) / np.linalg.norm(read, axis=1)
    found = PickScore().scores(images, PROMPTS).numpy()
    assert found == pytest.approx(np.exp(np.float32(networks.SCALE)) * cosines, rel=1e-6)


def test_pickscore_is_that_of_its_readme_on_a_folder_in_the_published_layout(data):
    """README: exp(logit_scale) text @ image of normalised features, by transformers' own processor and tokens."""
    network = networks.write_pickscore(data)
    library = pytest.importorskip("transformers")
    images = pictures(3, 61, 101)
    processor = library.CLIPImageProcessorPil.from_pretrained(data / networks.WORDS)
    tokenizer = library.CLIPTokenizer.from_pretrained(data / networks.WORDS)
    for number, prompt in enumerate(PROMPTS):
        image = Image.fromarray(images[number].permute(1, 2, 0).numpy())
        pixels = processor(images=image, return_tensors="pt")["pixel_values"]
        words = tokenizer(prompt, padding=True, truncation=True, max_length=77, return_tensors="pt")
        with torch.no_grad():
            seen, read = network.get_image_features(pixel_values=pixels), network.get_text_features(**words)
        seen, read = (getattr(each, "pooler_output", each).double() for each in (seen, read))
        seen, read = (each / torch.norm(each, dim=-1, keepdim=True) for each in (seen, read))
        expected = float(network.logit_scale.detach().double().exp() * (read @ seen.T)[0, 0])
        found = float(PickScore().scores(images[number : number + 1], [prompt])[0])
        assert found == pytest.approx(expected, abs=1e-6 * np.exp(networks.SCALE))


def test_both_scores_of_a_run_are_the_means_over_images_and_their_own_prompts(data, tmp_path, monkeypatch):
    networks.stand_in(monkeypatch, data, *BOTH, "clip-vit-base-patch32")
    result = measured(tmp_path / "runs", "clip_score,pickscore", quantiser="adm-floor")
    [outcome] = result.cells
    chosen = outcome.cell.protocol.seeds
    images = quantise(sample.sample(outcome.cell.plan, outcome.cell.teacher, chosen, nfe=3), "adm-floor")
    prompts = [PROMPTS[seed % 3] for seed in chosen]
    for name, network in {"clip_score": CLIP(), "pickscore": PickScore()}.items():
        expected = network.scores(images, prompts).numpy()
        assert outcome.measures[name].value == pytest.approx(expected.mean(), rel=1e-6)
        row = result.frame.set_index("metric").loc[name]
        assert row["metric_id"].startswith(f"{name}:{network.identity}|n=20x1|u8=adm-floor|seeds=50000-50019|")
        assert row["metric_id"].endswith(f"@{hashlib.sha256(chr(10).join(PROMPTS).encode()).hexdigest()[:12]}")
        assert outcome.cell.key[name] == {"network": network.identity, "quantiser": "adm-floor"}
        assert not row["biased"]


TEACHER = """import solverbench as sb
from solverbench.teachers.conditions import Condition

@sb.register(kind="teacher", name="painter")
def load(device):
    def denoise(x, sigma):
        return x / (1 + sigma**2).to(x)

    told = Condition(prompts=("a red ring", "two", "a blue cross on a mat"))
    return sb.Teacher(denoise, "painter", (1, 8, 8), identity="gaussian", condition=told, device=device)
"""


def rows_of(tmp_path, *words):
    """The exit code of a run on the command line, and the rows of its table by metric."""
    out = tmp_path / "runs"
    asked = ["--solvers", "euler", "--nfe", "3", "--samples", "20", "--replicates", "1", "--out", out]
    result = CliRunner().invoke(main, list(map(str, ["run", *asked, *words])))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    frame = pd.read_csv(next((out / "reports").glob("*/results.csv")))
    return result, frame.set_index("metric")


def test_a_missing_network_is_a_row_with_its_reason_beside_one_that_is_there(data, tmp_path, monkeypatch):
    networks.stand_in(monkeypatch, data, *BOTH)
    (tmp_path / "painter.py").write_text(TEACHER)
    plugged = ["--plugin", tmp_path / "painter.py", "--teachers", "painter", "--metrics", "clip_score,pickscore"]
    result, rows = rows_of(tmp_path, *plugged)
    assert result.exit_code == 0
    assert np.isfinite(rows.loc["pickscore", "value"])
    assert np.isnan(rows.loc["clip_score", "value"])
    home = data / "clip-vit-base-patch32"
    said = (
        f"clip-vit-base-patch32: config.json and model.safetensors or pytorch_model.bin are missing in {home}; "
        "put them there from https://huggingface.co/openai/clip-vit-base-patch32, "
        f"as by 'hf download openai/clip-vit-base-patch32 --local-dir {home}'"
    )
    assert rows.loc["clip_score", "reason"] == said
    assert said in result.output
    assert rows_of(tmp_path, *plugged, "--strict")[0].exit_code == 5


def test_one_line_says_what_to_fetch_for_pickscore(data, monkeypatch):
    networks.stand_in(monkeypatch, data, networks.WORDS)
    with pytest.raises(MissingError) as caught:
        PickScore()
    hub = "https://huggingface.co/"
    assert str(caught.value) == (
        f"PickScore_v1: config.json and model.safetensors or pytorch_model.bin are missing in {data / 'PickScore_v1'}; "
        f"put them there from {hub}yuvalkirstain/PickScore_v1, as by 'hf download yuvalkirstain/PickScore_v1 "
        f"--local-dir {data / 'PickScore_v1'}', and its tokenizer by 'hf download laion/{networks.WORDS} "
        f"--local-dir {data / networks.WORDS}'"
    )


def test_pickscore_without_a_tokenizer_or_with_another_network_is_one_line(data, monkeypatch):
    networks.stand_in(monkeypatch, data, "PickScore_v1")
    places = f"{data / 'PickScore_v1'} and {data / networks.WORDS}"
    with pytest.raises(MissingError, match=f"vocab.json and merges.txt, are missing in {places}; .*hf download laion/"):
        PickScore().check_words()
    for name in ("vocab.json", "merges.txt"):
        (data / "PickScore_v1" / name).write_text("{}")
    assert PickScore().check_words() == data / "PickScore_v1"
    config = data / "PickScore_v1" / "config.json"
    config.write_text(config.read_text().replace("14", "32"))
    with pytest.raises(RecordError, match="32 pixels instead of ViT-H/14's 14"):
        PickScore()


def test_without_transformers_the_extra_is_named(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    result = measured(tmp_path / "runs", "clip_score,pickscore")
    for metric in ("clip_score", "pickscore"):
        assert extras.install("clip") in result.frame.set_index("metric").loc[metric, "reason"]
    assert np.isfinite(result.frame.set_index("metric").loc["rmse_teacher", "value"])


def test_both_are_listed():
    listed = CliRunner().invoke(main, ["list", "metrics"]).output
    assert "clip_score" in listed
    assert "pickscore" in listed
    assert "better   higher" in CliRunner().invoke(main, ["info", "pickscore"]).output
    assert "better   lower" in CliRunner().invoke(main, ["info", "fid"]).output


def test_a_stable_diffusion_folder_is_judged_from_the_command_line(data, tmp_path):
    """A tiny pipeline, PickScore in the published layout, no network access; CLIP's folder is missing."""
    pytest.importorskip("diffusers")
    import tiny_folders as folders

    networks.write_pickscore(data)
    folder = folders.stable_diffusion(tmp_path / "sd")
    spec = f"{folder}:prompts={tiny.prompts(tmp_path / 'lines.txt')}:guidance=3:sampler_nfe=5"
    result, rows = rows_of(tmp_path, "--teachers", spec, "--metrics", "clip_score,pickscore")
    assert result.exit_code == 0, result.output
    assert "hf download openai/clip-vit-base-patch32" in rows.loc["clip_score", "reason"]
    assert rows.loc["pickscore", "extractor"] == PickScore().identity
    seen = ["--nfe", 3, "--seeds", "50000-50019", "--format", "npz", "--to", tmp_path / "s", "--batch", 2]
    CliRunner().invoke(main, list(map(str, ["sample", "euler", "--teacher", spec, *seen])))
    images = torch.from_numpy(np.load(next((tmp_path / "s").glob("*.npz")))["images"]).permute(0, 3, 1, 2)
    prompts = [tiny.PROMPTS[seed % 3] for seed in range(50_000, 50_020)]
    network = PickScore()  # by twos, as a run's blocks are: batches change the last bits
    scores = [network.scores(images[n : n + 2], prompts[n : n + 2]) for n in range(0, 20, 2)]
    assert rows.loc["pickscore", "value"] == pytest.approx(torch.cat(scores).mean().item(), rel=1e-6)
