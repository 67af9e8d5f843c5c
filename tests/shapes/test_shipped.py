"""The shipped weights and references: what the record says of them is measured again here."""

import hashlib
import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from embedded import shapes_quality as quality
from embedded import training
from torch import Tensor
from torch.nn.functional import mse_loss

from solverbench.errors import MissingError, RecordError, UserError
from solverbench.learned.equip import tableau
from solverbench.method.schedules import EDM
from solverbench.method.spec import make
from solverbench.metrics.evaluation import Evaluation
from solverbench.metrics.frechet import Moments, frechet
from solverbench.metrics.quantise import quantise
from solverbench.sampling.sample import sample
from solverbench.teachers.conditions import Condition
from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded import shapes
from solverbench.teachers.embedded.shapes import data, denoiser, loss, metric
from solverbench.teachers.loading import load_teacher
from solverbench.teachers.teacher import Teacher

FILES = (
    "teacher.safetensors",
    "metric.safetensors",
    "loss.safetensors",
    "reference-data.npz",
    "reference-teacher-1.npz",
    "reference-teacher-2.npz",
)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return shapes.load()


@pytest.fixture(scope="module")
def evaluation(teacher: Teacher) -> Evaluation:
    assert teacher.evaluation is not None
    return teacher.evaluation


@pytest.fixture(scope="module")
def drawn() -> data.Drawn:
    return data.draw(data.VALIDATION_SEEDS[:2500])


def distance(evaluation: Evaluation, images: Tensor) -> float:
    return frechet(Moments.of(evaluation.extractor(quantise(images))), evaluation.data.moments)


@pytest.fixture(scope="module")
def undamaged(evaluation: Evaluation, drawn: data.Drawn) -> float:
    return distance(evaluation, drawn.images)


def recorded_hashes() -> dict[str, str]:
    record = weights.read_record(data.FOLDER)
    references = record["references"]
    moments = [references["data"], *references["teacher"].values()]
    found = {f"{name}.safetensors": record[name]["sha256"] for name in ("teacher", "metric", "loss")}
    return found | {each["file"]: each["sha256"] for each in moments}


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_the_recorded_hash_and_is_small(name: str) -> None:
    content = (data.FOLDER / name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == recorded_hashes()[name]
    assert len(content) < (3_200_000 if name.startswith("teacher") else 500_000)


def test_the_teacher_denoises(drawn: data.Drawn) -> None:
    """Far better than the best guess without a network, c_skip x; better still if told the class."""
    network, sigma = denoiser.load(), torch.tensor(0.5, dtype=torch.float64)
    clean, labels = drawn.images[:300], drawn.labels[:300]
    noisy = clean + 0.5 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    linear = network.sigma_data**2 / (network.sigma_data**2 + 0.25) * noisy
    told, untold = mse_loss(network(noisy, sigma, labels), clean), mse_loss(network(noisy, sigma), clean)
    assert told < untold < 0.3 * mse_loss(linear, clean)


def test_the_teacher_is_the_engines_kind(teacher: Teacher) -> None:
    assert (teacher.name, teacher.shape, teacher.device, teacher.passes) == ("shapes", (3, 16, 16), "cpu", 1)
    assert len(teacher.identity) == 64
    assert teacher.identity == shapes.load().identity
    x = torch.randn(7, *data.SHAPE, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(teacher.denoiser(range(7))(x, sigma).sum(), sigma)
    assert gradient != 0


def test_a_spec_sets_guidance_and_classes() -> None:
    guided, fixed = load_teacher("shapes:guidance=2"), load_teacher("shapes:classes=fixed:3")
    assert guided.passes == 2
    assert guided.condition == Condition(classes="seed", count=10, guidance=2.0)
    assert guided.evaluation is not None
    assert "guidance 2" in guided.evaluation.teacher.name
    assert fixed.condition is not None
    assert fixed.condition.labels(range(3), data.SHAPE) == [3, 3, 3]
    assert fixed.evaluation is None  # the references are of all classes
    with pytest.raises(UserError, match="use 0 to 9"):
        load_teacher("shapes:classes=fixed:10")


def test_references_of_other_weights_are_refused(tmp_path: Path, teacher: Teacher) -> None:
    shutil.copytree(data.FOLDER, tmp_path, dirs_exist_ok=True)
    tensors, config = weights.read(tmp_path / "teacher.safetensors")
    tensors["leave.bias"] += 0.1
    sha = weights.write(tmp_path / "teacher.safetensors", tensors, config)
    record = weights.read_record(tmp_path)
    weights.add_to_record(tmp_path, "teacher", record["teacher"] | {"sha256": sha})
    with pytest.raises(RecordError, match="for other weights"):
        shapes.load(folder=tmp_path)
    made_for = record["references"]["weights_sha256"] | {"teacher": sha}
    weights.add_to_record(tmp_path, "references", record["references"] | {"weights_sha256": made_for})
    assert shapes.load(folder=tmp_path).identity != teacher.identity


@pytest.mark.parametrize("name", [*FILES[:2], *FILES[3:5]])
def test_a_damaged_or_missing_file_is_named(tmp_path: Path, name: str) -> None:
    shutil.copytree(data.FOLDER, tmp_path, dirs_exist_ok=True)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)

    def use() -> Tensor:
        evaluation = shapes.load(folder=tmp_path).evaluation
        assert evaluation is not None
        return evaluation.extractor(torch.zeros(1, *data.SHAPE, dtype=torch.uint8))

    with pytest.raises(RecordError, match=name):
        use()
    (tmp_path / name).unlink()
    with pytest.raises(MissingError, match=name):
        use()


def test_the_metric_network_knows_images_that_it_never_saw(drawn: data.Drawn) -> None:
    found = quality.attributes(metric.load(), drawn)
    assert found["class"] >= 0.98
    assert found["class"] == pytest.approx(weights.read_record(data.FOLDER)["metric"]["held_out_accuracy"], abs=0.01)
    assert found["background"] >= 0.99
    read = {name: value for name, value in found.items() if name.startswith("R²") and "tilt" not in name}
    assert min(read.values()) > 0.9, read


def test_the_loss_network_knows_images_that_it_never_saw(drawn: data.Drawn) -> None:
    assert training.accuracy(loss.load().logits, drawn.images, drawn.labels) >= 0.9


def test_metric_features_are_deterministic_and_do_not_depend_on_the_batch(
    evaluation: Evaluation, drawn: data.Drawn
) -> None:
    images = quantise(drawn.images[:200])
    features = evaluation.extractor(images)
    assert features.shape == (200, metric.FEATURES)
    assert features.dtype == torch.float32
    assert torch.equal(features, evaluation.extractor(images))
    torch.testing.assert_close(evaluation.extractor(images[:9]), features[:9], atol=1e-4, rtol=1e-4)


def test_metric_features_of_float_images_carry_gradient_to_those_who_say_so(
    evaluation: Evaluation, drawn: data.Drawn
) -> None:
    images = quantise(drawn.images[:20])
    x = (images.float() / 127.5 - 1).requires_grad_()
    features = shapes.load_metric()(x)
    torch.testing.assert_close(features.detach(), evaluation.extractor(images), atol=1e-4, rtol=1e-4)
    (gradient,) = torch.autograd.grad(features.sum(), x)
    assert gradient.abs().sum() > 0


def test_loss_features_pass_gradient_to_the_image_and_their_distance_grows(drawn: data.Drawn) -> None:
    network, x = shapes.load_loss(), drawn.images[:100]
    moved = (0.9 * x).requires_grad_()
    (gradient,) = torch.autograd.grad((network(moved) - network(x)).square().sum(), moved)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
    assert all(not parameter.requires_grad for parameter in network.parameters())
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    found = [(network(x + s * noise) - network(x)).square().sum(1).mean().item() for s in (0, 0.05, 0.1, 0.2, 0.4)]
    assert found[0] == 0
    assert found == sorted(set(found))


@pytest.mark.parametrize("name", quality.CORRUPTIONS)
def test_the_distance_ranks_a_corruption_by_its_strength(
    evaluation: Evaluation, drawn: data.Drawn, undamaged: float, name: str
) -> None:
    corrupt, (none, *strengths) = quality.CORRUPTIONS[name]
    assert none == 0
    assert torch.equal(corrupt(drawn.images, none), drawn.images)
    found = [undamaged, *(distance(evaluation, corrupt(drawn.images, strength)) for strength in strengths)]
    assert all(later > 1.2 * earlier for earlier, later in itertools.pairwise(found)), found


def test_the_distance_ranks_missing_classes(evaluation: Evaluation, drawn: data.Drawn) -> None:
    found = [distance(evaluation, drawn.images[drawn.labels >= missing][:1200]) for missing in (0, 1, 3, 5)]
    assert all(later > 1.5 * earlier for earlier, later in itertools.pairwise(found)), found


def test_the_data_reference_is_of_the_recorded_seeds(evaluation: Evaluation) -> None:
    """Fresh images are as far from it as the record says, and its size is that of its seeds."""
    facts = evaluation.facts["data_floor"]
    assert evaluation.data.moments.n == len(data.REFERENCE_SEEDS)
    fresh = data.draw(data.FLOOR_SEEDS[: facts["n"]])
    assert abs(distance(evaluation, fresh.images) - facts["mean"]) < 6 * facts["sd"]


def test_the_teacher_reference_lies_as_far_from_the_data_as_its_sets(evaluation: Evaluation) -> None:
    """A whole is a little nearer than its sets, by the floor of such a set."""
    reference, facts = evaluation.teacher.moments, evaluation.facts
    whole = frechet(reference, evaluation.data.moments)
    sets, floor = facts["teacher_distance"], facts["teacher_floor"]
    assert reference.n == sets["n"] * sets["sets"]
    assert sets["mean"] - 2 * floor["mean"] < whole < sets["mean"]


def test_samples_are_of_the_class_that_they_are_told_and_more_so_with_guidance(teacher: Teacher) -> None:
    """Fifty of each, with the calls of a quick sampler."""
    classifier, schedule, right = metric.load(), EDM(), []
    plan = tableau(make("dpm:order=2:grid=polynomial"), nfe=10, schedule=schedule).plan(schedule.prior_scale)
    for spec in ("shapes", "shapes:guidance=2"):
        images = sample(plan, load_teacher(spec), range(60_000, 60_050), nfe=10)
        found = classifier.classes(classifier.features(quantise(images))).argmax(1)
        right.append((found == torch.arange(50) % 10).double().mean().item())
    assert 0.6 < right[0] <= right[1], right


def test_loading_the_teacher_and_the_loss_network_never_imports_the_metric() -> None:
    lines = ["import sys, solverbench.teachers.embedded.shapes as s", "sys.exit(1) if 'torch' in sys.modules else None"]
    lines += ["teacher = s.load(); network = s.load_loss()", "assert teacher.evaluation is not None"]
    lines += ["sys.exit('solverbench.teachers.embedded.shapes.metric' in sys.modules)"]
    assert subprocess.run([sys.executable, "-c", "\n".join(lines)], check=False).returncode == 0
