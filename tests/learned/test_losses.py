"""The distillation losses, per image, against closed forms."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from solverbench import losses
from solverbench.errors import TrainingError
from solverbench.recipes import LOSSES

STUDENT = torch.tensor([3.0, 0.0, 0.0, 4.0]).reshape(1, 1, 2, 2)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("l2", 25 / 4), ("l1", 7 / 4), ("huber", ((4 * 0.00054**2 + 25) ** 0.5 - 0.00054 * 2) / 2)],
)
def test_a_loss_is_its_formula_for_every_image(name: str, expected: float) -> None:
    student = torch.cat([STUDENT, torch.zeros(1, 1, 2, 2)])
    values = losses.distance(name, "digits", "cpu")(student, torch.zeros(2, 1, 2, 2))
    assert values.tolist() == [pytest.approx(expected), pytest.approx(0, abs=1e-9)]


@pytest.mark.parametrize("name", ["l2", "l1", "huber"])
def test_a_loss_has_a_finite_gradient_at_its_minimum(name: str) -> None:
    student = torch.zeros(2, 1, 2, 2, requires_grad=True)
    losses.distance(name, "digits", "cpu")(student, torch.zeros(2, 1, 2, 2)).sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_features_are_compared_by_the_teachers_loss_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def load_loss(device: object) -> object:
        asked.append(device)
        return lambda x: torch.stack([x.flatten(1).sum(1), x.flatten(1).amax(1)], 1)

    monkeypatch.setattr("solverbench.digits.load_loss", load_loss)
    distance = losses.distance("features", "digits", "cpu")
    student, target = STUDENT.clone().requires_grad_(True), torch.zeros(1, 1, 2, 2, requires_grad=True)
    value: Tensor = distance(student, target)
    assert value.tolist() == [49 + 16]
    value.sum().backward()
    assert student.grad is not None
    assert target.grad is None
    assert asked == ["cpu"]


def test_features_of_a_teacher_without_a_loss_network_are_refused() -> None:
    with pytest.raises(TrainingError, match="loss features: teacher 'mine' has no loss network; use l2, l1 or huber"):
        losses.distance("features", "mine", "cpu")


def test_every_loss_that_a_recipe_may_name_exists() -> None:
    for name in set(LOSSES) - {"features"}:
        losses.distance(name, "digits", "cpu")


def test_training_never_imports_the_network_that_measures() -> None:
    program = (
        "import sys, solverbench.training, solverbench.losses, solverbench.digits\n"
        "solverbench.losses.distance('l2', 'digits', 'cpu')\n"
        "try: solverbench.losses.distance('features', 'digits', 'cpu')\n"
        "except solverbench.errors.MissingError: pass\n"
        "assert 'solverbench.digits.loss' in sys.modules\n"
        "assert 'solverbench.digits.metric' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
