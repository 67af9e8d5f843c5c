"""The shipped weights and references: what the record says of them is measured again here."""

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from embedded import digits_train as train
from torch import Tensor
from torch.nn.functional import avg_pool2d, mse_loss

from solverbench.errors import MissingError, RecordError
from solverbench.metrics.evaluation import Evaluation
from solverbench.metrics.frechet import Moments, frechet
from solverbench.metrics.quantise import quantise
from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded import digits
from solverbench.teachers.embedded.digits import data, denoiser, loss, metric
from solverbench.teachers.teacher import Teacher

FILES = ("teacher.safetensors", "metric.safetensors", "loss.safetensors", "reference-data.npz", "reference-teacher.npz")


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return digits.load()


@pytest.fixture(scope="module")
def evaluation(teacher: Teacher) -> Evaluation:
    assert teacher.evaluation is not None
    return teacher.evaluation


@pytest.fixture(scope="module")
def copies() -> data.Copies:
    return data.load().copies(data.VALIDATION_SEEDS[:5000])


def distance(evaluation: Evaluation, images: Tensor) -> float:
    return frechet(Moments.of(evaluation.extractor(quantise(images))), evaluation.data.moments)


def recorded_hashes() -> dict[str, str]:
    record = weights.read_record(data.FOLDER)
    found = {f"{name}.safetensors": record[name]["sha256"] for name in ("teacher", "metric", "loss")}
    return found | {
        record["references"][name]["file"]: record["references"][name]["sha256"] for name in ("data", "teacher")
    }


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_the_recorded_hash_and_is_small(name: str) -> None:
    content = (data.FOLDER / name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == recorded_hashes()[name]
    assert len(content) < (3_000_000 if name.startswith("teacher") else 200_000)


def test_the_teacher_denoises(copies: data.Copies) -> None:
    """Far better than the best estimate without a network, the preconditioning's own c_skip x."""
    network, sigma = denoiser.load(), torch.tensor(0.5, dtype=torch.float64)
    clean = copies.images[:500]
    noisy = clean + 0.5 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    linear = 0.66**2 / (0.66**2 + 0.25) * noisy
    assert mse_loss(network(noisy, sigma), clean) < 0.5 * mse_loss(linear, clean)


def test_the_teacher_is_the_engines_kind(teacher: Teacher) -> None:
    assert (teacher.name, teacher.shape, teacher.device) == ("digits", (1, 8, 8), "cpu")
    assert len(teacher.identity) == 64
    assert teacher.identity == digits.load().identity
    x = torch.randn(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(teacher.denoise(x, sigma).sum(), sigma)
    assert gradient != 0


def test_another_network_has_another_identity(tmp_path: Path, teacher: Teacher) -> None:
    shutil.copytree(data.FOLDER, tmp_path, dirs_exist_ok=True)
    tensors, config = weights.read(tmp_path / "teacher.safetensors")
    tensors["leave.bias"] += 0.1
    sha = weights.write(tmp_path / "teacher.safetensors", tensors, config)
    record = weights.read_record(tmp_path)
    weights.add_to_record(tmp_path, "teacher", record["teacher"] | {"sha256": sha})
    with pytest.raises(RecordError, match="for other weights"):
        digits.load(folder=tmp_path)
    made_for = record["references"]["weights_sha256"] | {"teacher": sha}
    weights.add_to_record(tmp_path, "references", record["references"] | {"weights_sha256": made_for})
    assert digits.load(folder=tmp_path).identity != teacher.identity


@pytest.mark.parametrize("name", FILES[:2] + FILES[3:])
def test_a_damaged_or_missing_file_is_named(tmp_path: Path, name: str) -> None:
    shutil.copytree(data.FOLDER, tmp_path, dirs_exist_ok=True)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)

    def use() -> Tensor:
        evaluation = digits.load(folder=tmp_path).evaluation
        assert evaluation is not None
        return evaluation.extractor(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))

    with pytest.raises(RecordError, match=name):
        use()
    (tmp_path / name).unlink()
    with pytest.raises(MissingError, match=name):
        use()


def test_a_record_that_is_no_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / weights.RECORD).write_text(json.dumps({"schema": 7}))
    with pytest.raises(RecordError, match="schema 1"):
        weights.read_record(tmp_path)


def test_the_metric_network_knows_digits_that_it_never_saw() -> None:
    network, unseen = metric.load(), data.load().fold(held_out=True)
    found = train.accuracy(lambda images: network.classes(network.features(quantise(images))), unseen)
    assert found >= 0.97
    assert found == pytest.approx(weights.read_record(data.FOLDER)["metric"]["held_out_accuracy"], abs=0.004)


def test_the_loss_network_knows_digits_that_it_never_saw() -> None:
    assert train.accuracy(loss.load().logits, data.load().fold(held_out=True)) >= 0.95


def test_metric_features_are_deterministic_and_do_not_depend_on_the_batch(
    evaluation: Evaluation, copies: data.Copies
) -> None:
    images = quantise(copies.images[:200])
    features = evaluation.extractor(images)
    assert features.shape == (200, metric.FEATURES)
    assert features.dtype == torch.float32
    assert torch.equal(features, evaluation.extractor(images))
    torch.testing.assert_close(evaluation.extractor(images[:9]), features[:9], atol=1e-5, rtol=1e-5)


def test_loss_features_pass_gradient_to_the_image(copies: data.Copies) -> None:
    network, target = digits.load_loss(), copies.images[:4]
    x = (0.9 * target).requires_grad_()
    difference = network(x) - network(target)
    assert difference.ndim == 2
    (gradient,) = torch.autograd.grad(difference.square().sum(), x)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
    assert all(not parameter.requires_grad for parameter in network.parameters())


def test_the_loss_networks_distance_is_zero_at_home_and_grows(copies: data.Copies) -> None:
    network, x = digits.load_loss(), copies.images[:200]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    found = [(network(x + s * noise) - network(x)).square().sum(1).mean().item() for s in (0, 0.05, 0.1, 0.2, 0.4)]
    assert found[0] == 0
    assert found == sorted(set(found))


def blurred(x: Tensor, strength: float) -> Tensor:
    return torch.lerp(x, avg_pool2d(x, 3, 1, 1, count_include_pad=False), strength)


def noisy(x: Tensor, strength: float) -> Tensor:
    return x + strength * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


def shrunken(x: Tensor, strength: float) -> Tensor:
    return torch.lerp(x, x.mean(0, keepdim=True), strength)


@pytest.mark.parametrize(
    ("corrupted", "strengths"),
    [
        (blurred, (0.0, 0.1, 0.2, 0.4, 0.8)),
        (noisy, (0.0, 0.05, 0.1, 0.2, 0.4)),
        (shrunken, (0.0, 0.05, 0.1, 0.2, 0.4)),
    ],
)
def test_the_distance_ranks_a_corruption_by_its_strength(
    evaluation: Evaluation,
    copies: data.Copies,
    corrupted: Callable[[Tensor, float], Tensor],
    strengths: tuple[float, ...],
) -> None:
    found = [distance(evaluation, corrupted(copies.images, strength)) for strength in strengths]
    assert all(later > 1.2 * earlier for earlier, later in itertools.pairwise(found)), found


def test_the_distance_ranks_missing_classes(evaluation: Evaluation, copies: data.Copies) -> None:
    found = [distance(evaluation, copies.images[copies.labels >= missing][:2500]) for missing in (0, 1, 3, 5)]
    assert all(later > 1.5 * earlier for earlier, later in itertools.pairwise(found)), found


def test_the_data_reference_is_of_the_recorded_seeds(evaluation: Evaluation) -> None:
    """Fresh copies are as far from it as the record says, and its size is that of its seeds."""
    facts = evaluation.facts["data_floor"]
    assert evaluation.data.moments.n == len(data.REFERENCE_SEEDS)
    fresh = data.load().copies(data.FLOOR_SEEDS[: facts["n"]])
    assert abs(distance(evaluation, fresh.images) - facts["mean"]) < 6 * facts["sd"]


def test_the_teacher_reference_lies_as_far_from_the_data_as_its_sets(evaluation: Evaluation) -> None:
    """A whole is a little nearer than its sets of 10 000, by the floor of such a set."""
    reference, facts = evaluation.teacher.moments, evaluation.facts
    whole = frechet(reference, evaluation.data.moments)
    sets, floor = facts["teacher_distance"], facts["teacher_floor"]
    assert reference.n == sets["n"] * sets["sets"]
    assert sets["mean"] - 2 * floor["mean"] < whole < sets["mean"]


def test_the_teacher_beats_the_first_prototype(evaluation: Evaluation) -> None:
    """The prototype: 0.39 at n = 5000 with a floor of 0.054, or 13 floors at n = 10 000, where the floor is half."""
    facts = evaluation.facts
    assert facts["teacher_distance"]["mean"] < 7.2 * facts["data_floor"]["mean"]


def test_the_teacher_does_not_memorise(evaluation: Evaluation) -> None:
    near = evaluation.facts["nearest"]
    assert 0.9 * near["fresh_data"] < near["samples"] < 1.5 * near["fresh_data"]
