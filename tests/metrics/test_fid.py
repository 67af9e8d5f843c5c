"""The whole FID path through the command line, with a stand-in where the Inception network belongs."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from metrics import standin
from PIL import Image

from solverbench.cli.main import main
from solverbench.errors import FeatureError, MissingError
from solverbench.evaluation import references
from solverbench.metrics.extractors import inception as fid
from solverbench.metrics.extractors.inception_pytorch import PytorchInception
from solverbench.metrics.quantise import quantise
from solverbench.teachers.embedded.digits import data

pytestmark = pytest.mark.usefixtures("unrendered", "remembered")

pytest.importorskip("cleanfid")
RUN = ["run", "--solvers", "euler", "--nfe", "3", "--samples", "60", "--replicates", "2"]


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """A data folder of the test's own."""
    monkeypatch.setenv("SOLVERBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(fid, "cleanfid_folder", lambda: tmp_path / "clean-fid")
    standin.known(monkeypatch)
    monkeypatch.setattr(fid, "hub_folder", lambda: tmp_path / "hub")
    return tmp_path


def call(*words):
    result = CliRunner().invoke(main, list(map(str, words)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def write_images(folder, images):
    folder.mkdir()
    for number, image in enumerate(quantise(images)):
        Image.fromarray(image[0].numpy()).save(folder / f"{number:05d}.png")


def by_clean_fid(monkeypatch, path, folder, mode):
    """Features [n, 16] of the PNG files as clean-fid makes them."""
    package = standin.clean_fid(monkeypatch)
    from cleanfid.inception_torchscript import InceptionV3W

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if mode == "legacy_pytorch":  # its class needs torchvision; test_extractors has its own numbers
            inner = PytorchInception.read(path, "cpu")
            network = lambda x: inner(2 * (x / 255) - 1)  # noqa: E731
        else:
            network = InceptionV3W(str(path.parent), download=False, resize_inside=mode == "legacy_tensorflow")
    resize, rows = package.build_resizer(mode), []
    for file in sorted(folder.glob("*.png")):
        image = resize(np.array(Image.open(file).convert("RGB")))
        batch = torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1)[None]
        rows.append(package.get_batch_features(batch, network, torch.device("cpu")))
    return package, np.concatenate(rows)[:, :16].astype(np.float64)


@pytest.mark.parametrize("mode", fid.MODES)
def test_images_in_memory_give_what_clean_fid_gives_from_png_files(places, monkeypatch, mode):
    path = (standin.write_pytorch if mode == "legacy_pytorch" else standin.write)(places / "data")
    out = places / "runs"
    write_images(places / "real", data.load().copies(range(90)).images)
    built = call("refs", "build", "real", places / "real", "--extractor", mode, "--split", "test", "--out", out)
    assert built.exit_code == 0, built.output
    result = call(*RUN, "--metrics", "fid", "--reference", "real", "--extractor", mode, "--out", out)
    assert result.exit_code == 0, result.output
    frame = pd.read_csv(next((out / "reports").glob("*/results.csv")))
    row = frame[frame["metric"] == "fid"].iloc[0]
    expected, package = [], None
    for number in range(2):
        first = 50_000 + 60 * number
        to = places / f"samples{number}"
        call("sample", "euler", "--nfe", "3", "--seeds", f"{first}-{first + 59}", "--to", to, "--out", out)
        package, ours = by_clean_fid(monkeypatch, path, to, mode)
        _, real = by_clean_fid(monkeypatch, path, places / "real", mode)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            expected.append(package.fid_from_feats(ours, real))
    assert row["value"] == pytest.approx(np.mean(expected), rel=1e-5)
    assert row["sd"] == pytest.approx(np.std(expected, ddof=1), rel=1e-3)
    sha = references.load("real", out, fid.Inception(mode).identity).sha[:12]
    network = fid.Inception(mode).identity
    assert row["metric_id"] == (f"fid:{network}|n=60x2|ref=real@{sha}|u8=edm-round|seeds=50000-50119|condition=none")
    assert bool(row["biased"])
    report = next((out / "reports").glob("*/report.md")).read_text()
    assert "biased" in report
    assert "split test" in report


def test_all_metrics_come_from_the_same_features_and_resume_to_the_same_bytes(places):
    standin.write(places / "data")
    out = places / "runs"
    call("refs", "build", "digits", "digits", "--count", "60", "--out", out)
    names = "fid,fid_inf,kid,precision,recall,inception_score,psnr_teacher"
    words = [*RUN, "--metrics", names, "--quantiser", "adm-floor", "--out", out]
    assert call(*words).exit_code == 0
    frame = pd.read_csv(next((out / "reports").glob("*/results.csv")))
    assert set(frame["metric"]) == {*names.split(","), "rmse_teacher"}
    assert frame["value"].notna().all()
    identities = frame.set_index("metric")["metric_id"]
    assert (
        identities[["fid", "fid_inf", "kid", "precision", "recall", "inception_score"]]
        .str.contains("|u8=adm-floor|", regex=False)
        .all()
    )
    values = frame.set_index("metric")["value"]
    assert values["fid_inf"] < values["fid"]
    assert values["psnr_teacher"] == pytest.approx(-20 * np.log10(values["rmse_teacher"] / 2), rel=0.05)
    biased = frame.set_index("metric")["biased"]
    assert not biased[["kid", "psnr_teacher", "rmse_teacher"]].any()
    assert biased[["fid", "fid_inf", "precision", "recall", "inception_score"]].all()
    path = next((out / "cells").glob("*/*/metrics.json"))
    before = path.read_bytes()
    path.unlink()
    assert call(*words).exit_code == 0
    assert path.read_bytes() == before


def test_two_references_never_share_a_table(places):
    """Also n and quantiser: the rows become parts, each with its own caption."""
    from solverbench import reports

    standin.write(places / "data")
    out = places / "runs"
    frames = []
    for count, rule in ((40, "edm-round"), (50, "edm-round"), (40, "adm-floor")):
        call("refs", "build", f"digits{count}", "digits", "--count", count, "--out", out)
        words = ["--metrics", "fid", "--reference", f"digits{count}", "--quantiser", rule, "--out", out, "--json"]
        result = call("run", "--solvers", "euler", "--nfe", "3", "--samples", "20", "--replicates", "1", *words)
        folder = json.loads(result.output.strip().splitlines()[-1])["report"]
        frames.append(pd.read_csv(f"{folder}/results.csv").assign(solver=f"{rule}-{count}"))
    from solverbench.reports.bundle import tidy
    from solverbench.reports.parts import parts

    found = [part for part in parts(tidy(pd.concat(frames)), {}) if part.metric == "fid"]
    assert [len(part.solvers) for part in found] == [1, 1, 1]
    assert len({(part.reference, part.quantiser) for part in found}) == 3
    assert reports is not None


def rows(out):
    return pd.read_csv(next((out / "reports").glob("*/results.csv"))).set_index("metric")


def test_without_the_network_the_rest_is_measured_and_the_rows_of_fid_say_what_is_missing(places):
    out = places / "runs"
    result = call(*RUN, "--metrics", "fid,psnr_teacher", "--out", out)
    assert result.exit_code == 0, result.output
    found = rows(out)
    assert np.isfinite(found.loc[["rmse_teacher", "psnr_teacher"], "value"]).all()
    assert np.isnan(found.loc["fid", "value"])
    for part in (str(places / "data" / fid.FILE), str(places / "clean-fid"), "https://nvlabs-fi-cdn.nvidia.com/",
                 "reference 'digits': neither a file nor stored", "refs build digits"):  # fmt: skip
        assert part in found.loc["fid", "reason"]
    first, last = result.output.splitlines()[0], [line for line in result.output.splitlines() if line][:-3]
    assert first.startswith("no fid of digits: ")
    assert fid.FILE in first
    assert first in last
    folder = next((out / "reports").iterdir())
    for name in ("report.md", "table-digits-fid.md", "table-digits-fid.tex", "page.html"):
        if (folder / name).exists():
            assert "2015-12-05.pt" in (folder / name).read_text().replace("\\_", "_"), name
    assert "No value" in (folder / "table-digits-fid.md").read_text()
    assert (folder / "images-digits.png").exists()
    assert call(*RUN, "--metrics", "fid,psnr_teacher", "--out", out, "--strict").exit_code == 5
    planned = call("plan", *RUN[1:], "--metrics", "fid,psnr_teacher", "--out", out)
    assert "no fid of digits: " in planned.output

    standin.write(places / "data")
    call("refs", "build", "digits", "digits", "--count", "60", "--out", out)
    result = call(*RUN, "--metrics", "fid,psnr_teacher", "--out", out, "--strict")
    assert result.exit_code == 0, result.output
    assert np.isfinite(rows(out)["value"]).all()
    assert rows(out).loc["psnr_teacher", "value"] == found.loc["psnr_teacher", "value"]


def test_a_reference_that_was_named_and_is_not_there_ends_the_run(places):
    result = call(*RUN, "--metrics", "fid", "--reference", "nowhere", "--out", places / "runs")
    assert result.exit_code == 3
    assert "reference 'nowhere': neither a file nor stored" in result.output
    assert not (places / "runs").exists()


def test_where_clean_fid_keeps_it_is_the_second_place(places):
    path = standin.write(places / "clean-fid")
    assert fid.find() == path
    assert fid.find() != standin.write(places / "data")
    assert fid.find() == places / "data" / fid.FILE


def test_a_file_that_is_no_network_is_one_line(places):
    (places / "data").mkdir()
    (places / "data" / fid.FILE).write_bytes(b"not a network")
    result = call("refs", "build", "digits", "digits", "--count", "5", "--out", places / "runs")
    assert result.exit_code != 0
    assert "not the Inception network" in result.output


@pytest.mark.parametrize(("channels", "like"), [(1, 3), (2, 3), (4, 3), (3, 3)])
def test_channels_become_three_as_pil_does_it(channels, like):
    images = torch.randint(0, 256, (2, channels, 5, 6), dtype=torch.uint8)
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    for image, made in zip(images, fid.three(images), strict=True):
        pixels = image.permute(1, 2, 0).squeeze(-1).numpy()
        expected = np.array(Image.fromarray(pixels, mode if channels == 2 else None).convert("RGB"))
        assert np.array_equal(made.permute(1, 2, 0).numpy(), expected)
    with pytest.raises(FeatureError, match="1 to 4 channels"):
        fid.three(torch.zeros(1, 5, 4, 4, dtype=torch.uint8))


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cleanfid.resize", None)
    with pytest.raises(MissingError, match=r"pip install '(solverbench|\.)\[fid\]'"):
        fid.find()
