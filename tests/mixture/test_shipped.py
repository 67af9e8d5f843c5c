"""The shipped mixture: its files, its record, and what the record says of them; and how they are made."""

import hashlib
import json
import shutil

import pytest
import torch
from embedded import mixture_fit as fit
from embedded import mixture_references as references

from solverbench.errors import MissingError, RecordError
from solverbench.metrics.frechet import Moments, frechet
from solverbench.metrics.quantise import quantise
from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded import digits, mixture
from solverbench.teachers.embedded.digits import data
from solverbench.teachers.embedded.mixture import density

FILES = ("mixture.safetensors", "reference-data.npz", "reference-teacher.npz")


@pytest.fixture(scope="module")
def teacher():
    return mixture.load()


def recorded():
    record = weights.read_record(mixture.FOLDER)
    of_references = {record["references"][name]["file"]: record["references"][name]["sha256"]
                     for name in ("data", "teacher")}  # fmt: skip
    return {"mixture.safetensors": record["mixture"]["sha256"]} | of_references


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_the_recorded_hash_and_is_small(name):
    content = (mixture.FOLDER / name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == recorded()[name]
    assert len(content) < 100_000


def test_it_is_100_gaussians_with_a_variance_floor(teacher):
    fitted, config = density.load()
    assert fitted.means.shape == fitted.variances.shape == (100, 64)
    assert config["floor"] == 0.0025
    assert fitted.variances.min() == pytest.approx(0.0025, rel=1e-6)
    assert fitted.weights.sum() == pytest.approx(1, abs=1e-12)
    assert (teacher.name, teacher.shape, teacher.exact) == ("mixture", (1, 8, 8), True)


def test_it_knows_digits_that_it_was_not_fitted_on():
    fitted, _ = density.load()
    facts = weights.read_record(mixture.FOLDER)["mixture"]["log_likelihood"]
    found = fitted.log_density(data.load().copies(fit.FRESH_SEEDS).images).mean().item()
    assert found == pytest.approx(facts["fresh"], abs=1e-3)
    assert facts["fitted"] - facts["fresh"] < 1


def test_the_data_reference_is_of_the_recorded_samples(teacher):
    evaluation, facts = teacher.evaluation, teacher.evaluation.facts["data_floor"]
    assert evaluation.data.moments.n == 400_000
    first = references.FIRST_FLOOR
    fresh = density.load()[0].sample(range(first, first + 10_000))
    distance = frechet(Moments.of(evaluation.extractor(quantise(fresh))), evaluation.data.moments)
    assert abs(distance - facts["mean"]) < 4 * facts["sd"]


def test_the_teachers_samples_are_as_near_to_the_data_as_fresh_data(teacher):
    facts = teacher.evaluation.facts
    assert facts["teacher_distance"]["low"] < facts["data_floor"]["high"]
    assert facts["data_floor"]["low"] < facts["teacher_distance"]["high"]
    assert facts["sampler_error"]["rmse"] < 2e-4


def test_the_extractor_is_the_metric_network_of_the_digits(teacher):
    own = digits.load().evaluation
    assert teacher.evaluation.extractor_id == own.extractor_id
    images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(teacher.evaluation.extractor(images), own.extractor(images))


def test_another_mixture_has_another_identity_and_needs_its_own_references(tmp_path, teacher):
    shutil.copytree(mixture.FOLDER, tmp_path, dirs_exist_ok=True)
    path = tmp_path / density.FILE
    tensors, config = weights.read(path)
    tensors["means"] += 0.1
    sha = weights.write(path, tensors, config)
    record = weights.read_record(tmp_path)
    weights.add_to_record(tmp_path, "mixture", record["mixture"] | {"sha256": sha})
    with pytest.raises(RecordError, match="for another mixture"):
        mixture.load(folder=tmp_path)
    made_for = references.made_for(tmp_path)
    weights.add_to_record(tmp_path, "references", record["references"] | {"weights_sha256": made_for})
    assert mixture.load(folder=tmp_path).identity != teacher.identity


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_or_missing_file_is_named(tmp_path, name):
    shutil.copytree(mixture.FOLDER, tmp_path, dirs_exist_ok=True)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordError, match=name):
        mixture.load(folder=tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(MissingError, match=name):
        mixture.load(folder=tmp_path)


def test_the_two_commands_make_a_teacher(tmp_path, capsys):
    small = ["--components", "4", "--copies", "300", "--iterations", "3"]
    assert fit.main(["--out", str(tmp_path), *small]) == 0
    assert references.main(["--out", str(tmp_path), "--sampler", "heun", "--nfe", "8", "--size", "50"]) == 0
    assert "nats per image" in capsys.readouterr().out
    made = mixture.load(folder=tmp_path)
    assert (made.sampler, made.sampler_nfe) == ("heun", 8)
    assert made.evaluation.data.moments.n == 2000
    record = json.loads((tmp_path / weights.RECORD).read_text())
    assert record["mixture"]["iterations"] == 3
    assert record["references"]["sampler_error"]["n"] == 500


def test_fitting_twice_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        fit.make(tmp_path / name, components=3, copies=200, iterations=3, floor=0.01, say=lambda line: None)
    assert (tmp_path / "one" / density.FILE).read_bytes() == (tmp_path / "two" / density.FILE).read_bytes()


def test_references_without_a_mixture_are_one_line(tmp_path, capsys):
    assert references.main(["--out", str(tmp_path)]) == 3
    assert capsys.readouterr().err.startswith("mixture.safetensors")
