"""Verdicts: what a paired interval says about a claim, and which claims the cells at hand allow."""

from types import SimpleNamespace

import numpy as np
import pytest

from solverbench.measures import Measure
from solverbench.verdicts import verdicts

TEACHER = SimpleNamespace(name="toy")


def outcome(solver, nfe, value, *, noise=0.0, metrics=("rmse_teacher", "frechet_teacher", "frechet_data")):
    """A finished cell of one replicate; `noise` spreads its leave-one-outs."""
    left = value + noise * np.linspace(-1, 1, 10)[None]
    learned = solver in ("gs", "gas")
    cell = SimpleNamespace(teacher=TEACHER, solver=solver, spec=f"{solver}:grid=x", nfe=nfe, learned=learned)
    made = {m: Measure(m, np.array([value]), left, 100, "same", "reference") for m in metrics}
    return SimpleNamespace(cell=cell, measures=made, status="done")


@pytest.mark.parametrize(
    ("value", "noise", "expected"),
    [
        (0.9, 0.0, "held"),
        (1.0, 0.0, "held"),
        (1.1, 0.0, "not held"),
        (0.9, 0.2, "unresolved"),
        (1.1, 0.2, "unresolved"),
    ],
)
def test_the_paired_interval_decides(value, noise, expected):
    found = verdicts([outcome("gas", 5, value, noise=noise), outcome("dpm", 5, 1.0)])
    assert [(each["metric"], each["verdict"]) for each in found] == [
        ("rmse_teacher", expected),
        ("frechet_teacher", expected),
    ]
    assert found[0]["claim"] == "gas NFE 5 at least level with dpm NFE 5 on toy"
    assert found[0]["difference"] == pytest.approx(value - 1.0)
    assert found[0]["low"] <= found[0]["difference"] <= found[0]["high"]


def test_noise_that_two_cells_share_does_not_blur_their_difference():
    found = verdicts([outcome("gas", 5, 0.9, noise=0.2), outcome("dpm", 5, 1.0, noise=0.2)])
    assert found[0]["verdict"] == "held"


def test_all_claims_of_the_cells_at_hand_are_made_and_no_others():
    cells = [outcome(solver, nfe, 1.0) for solver in ("gas", "gs", "dpm", "euler", "heun") for nfe in (4, 7)]
    claims = [(each["claim"], each["metric"]) for each in verdicts(cells)]
    said = {claim.removesuffix(" on toy") for claim, _ in claims}
    level = {
        f"{learned} NFE {nfe} at least level with {classical} NFE {nfe}"
        for learned in ("gas", "gs")
        for classical in ("dpm", "euler")
        for nfe in (4, 7)
    }
    fewer = {f"{learned} NFE 4 at least level with dpm NFE 7" for learned in ("gas", "gs")}
    between = {f"gas NFE {nfe} at least level with gs NFE {nfe}" for nfe in (4, 7)}
    assert said == level | fewer | between
    assert len(claims) == len(set(claims)) == 2 * len(level) + 3 * (len(fewer) + len(between))


def test_cells_without_results_are_left_out():
    missing = outcome("dpm", 5, 1.0, metrics=())
    assert verdicts([outcome("gas", 5, 1.0), missing]) == []
    alone = outcome("dpm", 5, 1.0, metrics=("rmse_teacher",))
    assert [each["metric"] for each in verdicts([outcome("gas", 5, 1.0), alone])] == ["rmse_teacher"]
