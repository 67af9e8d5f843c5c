"""The distillation losses, per image, against closed forms."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import forks
import lpips_package
import pytest
import torch
from torch import Tensor

from solverbench import registries
from solverbench.errors import MissingError, TrainingError
from solverbench.learned.training import losses
from solverbench.teachers.loading import load_teacher
from solverbench.teachers.teacher import FeatureNetwork, Teacher

DIGITS = Teacher(lambda x, sigma: x, "digits", (1, 2, 2))
STUDENT = torch.tensor([3.0, 0.0, 0.0, 4.0]).reshape(1, 1, 2, 2)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("l2", 25 / 4), ("l1", 7 / 4), ("huber", ((4 * 0.00054**2 + 25) ** 0.5 - 0.00054 * 2) / 2)],
)
def test_a_loss_is_its_formula_for_every_image(name: str, expected: float) -> None:
    student = torch.cat([STUDENT, torch.zeros(1, 1, 2, 2)])
    values = losses.distance(name, DIGITS)(student, torch.zeros(2, 1, 2, 2))
    assert values.tolist() == [pytest.approx(expected), pytest.approx(0, abs=1e-9)]


@pytest.mark.parametrize("name", ["l2", "l1", "huber"])
def test_a_loss_has_a_finite_gradient_at_its_minimum(name: str) -> None:
    student = torch.zeros(2, 1, 2, 2, requires_grad=True)
    losses.distance(name, DIGITS)(student, torch.zeros(2, 1, 2, 2)).sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_features_are_compared_by_the_teachers_loss_network() -> None:
    asked: list[str] = []

    def load(device: str) -> FeatureNetwork:
        asked.append(device)
        return lambda x: torch.stack([x.flatten(1).sum(1), x.flatten(1).amax(1)], 1)

    distance = losses.distance("features", replace(DIGITS, features={"loss": load}))
    student, target = STUDENT.clone().requires_grad_(True), torch.zeros(1, 1, 2, 2, requires_grad=True)
    value: Tensor = distance(student, target)
    assert value.tolist() == [49 + 16]
    value.sum().backward()
    assert student.grad is not None
    assert target.grad is None
    assert asked == ["cpu"]


def test_features_of_a_teacher_without_a_loss_network_are_refused() -> None:
    with pytest.raises(TrainingError, match="loss features: teacher 'mine' has no loss network; use l2, l1 or huber"):
        losses.distance("features", replace(DIGITS, name="mine", features={"metric": lambda device: torch.abs}))


def test_losses_on_images_see_them_decoded() -> None:
    features = {"loss": lambda device: lambda x: x.flatten(1)}
    teacher = replace(DIGITS, decode=lambda state: 3 * state, features=features)
    assert losses.distance("features", teacher)(STUDENT, torch.zeros(1, 1, 2, 2)).tolist() == [9 * 25]
    assert losses.distance("l2", teacher)(STUDENT, torch.zeros(1, 1, 2, 2)).tolist() == [25 / 4]


def test_every_loss_that_a_recipe_may_name_exists(lpips: list[tuple[Tensor, Tensor]]) -> None:
    teacher = load_teacher("digits")
    x = torch.zeros(1, 1, 8, 8)
    for name in registries.losses:
        assert losses.distance(name, teacher, allow_metric_loss=True)(x, x).tolist() == [pytest.approx(0, abs=1e-9)]


@pytest.fixture
def lpips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Tensor, Tensor]]:
    """What the stand-in for the lpips package was shown."""
    return lpips_package.install(monkeypatch, tmp_path)


@pytest.mark.parametrize(("name", "side"), [("lpips", 224), ("lpips_native", 2)])
def test_lpips_sees_colour_images_of_its_size_within_the_range(
    name: str, side: int, lpips: list[tuple[Tensor, Tensor]]
) -> None:
    student = STUDENT.clone().requires_grad_(True)
    value = losses.distance(name, DIGITS)(student, torch.zeros(1, 1, 2, 2))
    assert value.shape == (1,)
    (slope,) = torch.autograd.grad(value.sum(), student)
    assert slope.isfinite().all()
    shown, target = lpips[0]
    assert shown.shape == target.shape == (1, 3, side, side)
    assert shown.max() == 1


def test_lpips_without_its_package_or_weights_says_what_to_do(
    lpips: list[tuple[Tensor, Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoints" / "vgg16-397923af.pth").unlink()
    with pytest.raises(MissingError, match=r"put https://.*vgg16-397923af.pth at .*checkpoints"):
        losses.distance("lpips", DIGITS)
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(MissingError, match=r"pip install '(solverbench|\.)\[lpips\]'"):
        losses.distance("lpips", DIGITS)


def test_the_metrics_features_are_a_loss_only_where_the_recipe_says_so(teacher: Teacher) -> None:
    digits = load_teacher("digits")
    images = (torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 255).round()
    floats = images / 127.5 - 1
    value = losses.distance("metric_features", digits, allow_metric_loss=True)(floats, floats.flip(0))
    assert digits.evaluation is not None
    features = digits.evaluation.extractor(images.to(torch.uint8))
    torch.testing.assert_close(value, (features - features.flip(0)).square().sum(1), rtol=1e-4, atol=1e-4)
    with pytest.raises(TrainingError, match="teacher 'toy' has no differentiable metric"):
        losses.distance("metric_features", teacher, allow_metric_loss=True)


def test_a_loss_is_given_the_network_that_measures_only_where_the_recipe_says_so() -> None:
    given: list[set[str]] = []

    def watched(teacher: Teacher) -> losses.Distance:
        given.append(set(teacher.features))
        return losses.l2(teacher)

    registries.losses.register("watched", watched)
    for allowed in (False, True):
        losses.distance("watched", load_teacher("digits"), allow_metric_loss=allowed)
    assert given == [{"loss"}, {"loss", "metric"}]


def test_training_never_imports_the_network_that_measures() -> None:
    program = (
        "import sys\n"
        "from solverbench.learned.training import losses, train\n"
        "from solverbench.teachers.embedded import digits\n"
        "teacher = digits.load()\n"
        "losses.distance('l2', teacher)\n"
        "losses.distance('features', teacher)\n"
        "assert 'solverbench.teachers.embedded.digits.loss' in sys.modules\n"
        "assert 'solverbench.teachers.embedded.digits.metric' not in sys.modules\n"
        "losses.distance('metric_features', teacher, allow_metric_loss=True)\n"
        "assert 'solverbench.teachers.embedded.digits.metric' in sys.modules\n"
    )
    forks.run(["-c", program], check=True)
