"""benchmarks/two_samples.py in small: a solver that is plainly off is told from the teacher, the teacher isn't."""

import re
from pathlib import Path

import alone
import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "two_samples.py"


@pytest.fixture(scope="module")
def script():
    return alone.load(SCRIPT)


def test_the_area_is_the_share_of_pairs_in_order(script):
    torch.manual_seed(0)
    real, fake = torch.randn(50) + 0.7, torch.randn(70)
    pairs = (real[:, None] > fake).double().mean().item()
    assert script.area(real, fake) == pytest.approx(pairs)
    assert script.area(fake, real) == pytest.approx(1 - pairs)


def test_its_standard_error_is_that_of_repeated_draws(script):
    generator = torch.Generator().manual_seed(0)
    # Exponential scores, for which the formula is exact.
    draws = -torch.rand(2000, 2, 40, generator=generator, dtype=torch.float64).log()
    areas = torch.tensor([script.area(3 * real, fake) for real, fake in draws])
    assert areas.mean().item() == pytest.approx(0.75, abs=0.004)
    assert script.error(0.75, 40, 40) == pytest.approx(areas.std().item(), rel=0.05)


def test_euler_is_told_from_the_teacher_and_the_teacher_is_not(script, tmp_path, monkeypatch, capsys):
    recipes = script.recipes
    small = recipes.load("gas", "digits").override(["train_size=400", "validation_size=200"])
    monkeypatch.setattr(recipes, "chosen", lambda solver, teacher: small)
    asked = ["--out", str(tmp_path), "--teacher", "digits", "--solvers", "euler", "--steps", "60"]
    assert script.main(asked) == 0
    said = re.findall(r"^(\w+) step 60: seen \S+, unseen (\S+) ±", capsys.readouterr().out, re.MULTILINE)
    assert [name for name, _ in said] == ["teacher", "euler"]
    assert abs(float(said[0][1]) - 0.5) < 0.15
    assert float(said[1][1]) > 0.9
    assert script.main([*asked[:4], "--solvers", "gs,nobody"]) > 1
    caught = capsys.readouterr()
    assert (caught.out, "nobody" in caught.err) == ("", True)
