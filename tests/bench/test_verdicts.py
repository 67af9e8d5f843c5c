"""Verdicts: what a paired interval says about a claim, and which claims the cells at hand allow."""

from types import SimpleNamespace

import numpy as np
import pytest

from solverbench.bench.bundle import claims
from solverbench.bench.bundle.claims import verdicts
from solverbench.bench.measure import Measure
from solverbench.learned.trained_files import Trained
from solverbench.wording import BELOW_ERROR

TEACHER = SimpleNamespace(name="toy", shown="toy")


ALL = ("rmse_teacher", "frechet_teacher", "frechet_data")
LEARNED = ("gs", "gas", "ld3", "s4s_alt")


def outcome(solver, nfe, value, *, noise=0.0, metrics=ALL, seeds=(0.1, 0.1001), metric_loss=False, error=None):
    """A finished cell of one replicate; `noise` spreads its leave-one-outs, `seeds` are its validation errors.

    `error` is that of the reference.
    """
    left = value + noise * np.linspace(-1, 1, 10)[None]
    runs = [{"seed": i, "validation": error} for i, error in enumerate(seeds)]
    trained = Trained("gs", nfe, "toy", "", {}, None, {"seed": 0, "runs": runs}) if solver in LEARNED else None
    about = {"learned": solver in LEARNED, "trained": trained, "metric_loss": metric_loss, "inferred": ""}
    cell = SimpleNamespace(teacher=TEACHER, solver=solver, spec=f"{solver}:grid=x", nfe=nfe, **about)
    made = {m: Measure(m, np.array([value]), left, 100, "same", "reference") for m in metrics}
    return SimpleNamespace(cell=cell, measures=made, status="done", reference_error=error, parts=())


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
    assert found[0]["claim"] == "gas NFE 5 ahead of dpm NFE 5 on toy"
    assert found[0]["difference"] == pytest.approx(value - 1.0)
    assert found[0]["low"] <= found[0]["difference"] <= found[0]["high"]


@pytest.mark.parametrize(("value", "decided"), [(0.9, "held"), (1.1, "not held")])
def test_a_difference_smaller_than_the_error_of_the_reference_decides_nothing(value, decided):
    """It has a part only in the RMSE: the other distances have references of their own."""
    found = verdicts([outcome("gas", 5, value, error=0.2), outcome("dpm", 5, 1.0, error=0.2)])
    assert [(each["verdict"], each.get("caution")) for each in found] == [
        (BELOW_ERROR, "the difference is below the reference's error, 0.2"),
        (decided, None),
    ]
    assert [each.get("reference_error") for each in found] == [0.2, None]
    [found, _] = verdicts([outcome("gas", 5, value, error=0.05), outcome("dpm", 5, 1.0, error=0.05)])
    assert (found["verdict"], found.get("caution")) == (decided, None)


def test_a_difference_that_the_images_leave_open_is_no_matter_of_the_reference():
    """More images may decide it, whatever the reference."""
    found = verdicts([outcome("gas", 5, 0.9, noise=0.2, error=0.2), outcome("dpm", 5, 1.0, error=0.2)])
    assert [each["verdict"] for each in found] == ["unresolved", "unresolved"]
    assert "below the reference's error" in found[0]["caution"]


def test_an_open_question_below_the_error_of_the_reference_is_not_level():
    [found, _, _] = verdicts([outcome("gs", 5, 0.9, error=0.2), outcome("s4s_alt", 5, 1.0, error=0.2)])
    assert found["verdict"] == BELOW_ERROR


def test_noise_that_two_cells_share_does_not_blur_their_difference():
    found = verdicts([outcome("gas", 5, 0.9, noise=0.2), outcome("dpm", 5, 1.0, noise=0.2)])
    assert found[0]["verdict"] == "held"


def test_all_claims_of_the_cells_at_hand_are_made_and_no_others():
    cells = [outcome(solver, nfe, 1.0) for solver in ("gas", "gs", "dpm", "euler", "heun") for nfe in (4, 7)]
    claims = [(each["claim"], each["metric"]) for each in verdicts(cells)]
    said = {claim.removesuffix(" on toy") for claim, _ in claims}
    level = {
        f"{learned} NFE {nfe} ahead of {classical} NFE {nfe}"
        for learned in ("gas", "gs")
        for classical in ("dpm", "euler")
        for nfe in (4, 7)
    }
    fewer = {f"{learned} NFE 4 ahead of dpm NFE 7" for learned in ("gas", "gs")}
    between = {f"gas NFE {nfe} ahead of gs NFE {nfe}" for nfe in (4, 7)}
    assert said == level | fewer | between
    assert len(claims) == len(set(claims)) == 2 * len(level) + 3 * (len(fewer) + len(between))


def test_cells_without_results_are_left_out():
    missing = outcome("dpm", 5, 1.0, metrics=())
    assert verdicts([outcome("gas", 5, 1.0), missing]) == []
    alone = outcome("dpm", 5, 1.0, metrics=("rmse_teacher",))
    assert [each["metric"] for each in verdicts([outcome("gas", 5, 1.0), alone])] == ["rmse_teacher"]


def said(*cells):
    return [(each["claim"].removesuffix(" on toy"), each["metric"], each["verdict"]) for each in verdicts(cells)]


def test_gas_meets_the_best_classical_solver_with_more_calls_metric_by_metric():
    heun, ipndm = outcome("heun", 6, 1.0), outcome("ipndm", 6, 1.2)
    ipndm.measures["frechet_data"] = outcome("ipndm", 6, 0.8).measures["frechet_data"]
    best = "ahead of the best classical solver of this run"
    assert said(outcome("gas", 4, 0.9), heun, ipndm, outcome("gs", 6, 0.1)) == [
        (f"gas NFE 4 {best} at NFE 6, heun,", "rmse_teacher", "held"),
        (f"gas NFE 4 {best} at NFE 6, heun,", "frechet_teacher", "held"),
        (f"gas NFE 4 {best} at NFE 6, ipndm,", "frechet_data", "not held"),
    ]
    twice = {claim for claim, _, _ in said(outcome("gas", 5, 1.0), outcome("heun", 10, 1.0), outcome("ipndm", 9, 0.5))}
    assert twice == {f"gas NFE 5 {best} at NFE 10, heun,"}


@pytest.mark.parametrize(
    ("value", "noise", "verdict"),
    [(0.9, 0.0, "gs ahead"), (1.1, 0.0, "s4s_alt ahead"), (0.9, 0.3, "level"), (1.0, 0.0, "level")],
)
def test_where_nothing_is_claimed_the_verdict_says_who_is_ahead(value, noise, verdict):
    found = said(outcome("gs", 4, value, noise=noise), outcome("s4s_alt", 4, 1.0), outcome("s4s_alt", 5, 1.0))
    assert found == [("gs NFE 4 against s4s_alt NFE 4", metric, verdict) for metric in ALL]


def test_gs_is_judged_against_ld3_at_the_same_budget():
    found = said(outcome("gs", 4, 0.9), outcome("ld3", 4, 1.0), outcome("ld3", 5, 1.0))
    assert found == [("gs NFE 4 ahead of ld3 NFE 4", metric, "held") for metric in ALL]


@pytest.mark.parametrize("marked", ["gas", "gs"])
def test_a_solver_trained_on_the_metric_is_in_no_claim(marked):
    gas, gs = (outcome(name, 4, 1.0, metric_loss=name == marked) for name in ("gas", "gs"))
    assert verdicts([gas, gs]) == []


def test_training_seeds_that_differ_by_more_than_the_solvers_are_a_caution():
    def cautions(gas, gs):
        return {each.get("caution", "") for each in verdicts([gas, gs])}

    gas = outcome("gas", 4, 0.98, seeds=(0.1, 0.103, 0.102))
    [found] = cautions(gas, outcome("gs", 4, 1.0))
    assert found == (
        "gas: its validation RMSE varies by 3.0% between training seeds, more than this difference of 2.0%"
    )
    assert cautions(outcome("gas", 4, 0.96, seeds=(0.1, 0.103, 0.102)), outcome("gs", 4, 1.0)) == {""}
    [found] = cautions(gas, outcome("gs", 4, 2.0, seeds=(0.1,)))
    assert found == "gs: the spread of its training seeds is unknown"
    assert all("caution" not in each for each in verdicts([gas, outcome("dpm", 4, 0.98)]))


def test_one_line_adds_a_claim(monkeypatch):
    cells = outcome("heun", 4, 1.0), outcome("ld3", 4, 0.9)
    assert said(*cells) == []
    monkeypatch.setattr(claims, "RULES", (*claims.RULES, claims.Rule(("ld3",), ("heun",), ("frechet_data",))))
    assert said(*cells) == [("ld3 NFE 4 ahead of heun NFE 4", "frechet_data", "held")]


def test_verdicts_are_corrected_for_their_number():
    """A difference of 2.6 standard errors decides one claim alone, and none of two by each of two metrics."""
    noise = np.linspace(-1, 1, 10)
    error = float(np.sqrt(9 / 10 * ((0.02 * noise) ** 2).sum()))
    one = verdicts([outcome("gas", 5, 1 - 2.6 * error, noise=0.02, metrics=("rmse_teacher",)), outcome("dpm", 5, 1.0)])
    assert [(each["verdict"], each["comparisons"]) for each in one] == [("held", 1)]
    assert one[0]["p"] == one[0]["p_holm"] <= 0.05
    cells = [outcome("gas", 5, 1 - 2.6 * error, noise=0.02), outcome("dpm", 5, 1.0), outcome("euler", 5, 1.0)]
    found = verdicts(cells)
    assert [(each["verdict"], each["comparisons"]) for each in found] == [("unresolved", 4)] * 4
    assert {(each["low"], each["high"]) for each in found} == {(one[0]["low"], one[0]["high"])}  # they stay
    assert [each["p_holm"] for each in found] == pytest.approx([4 * one[0]["p"]] * 4)


def test_a_rival_chosen_from_several_counts_as_all_of_them():
    cells = [outcome("gas", 4, 0.9), *(outcome(name, 8, 1.0) for name in ("heun", "ipndm", "deis"))]
    found = verdicts(cells)
    assert len(found) == 3
    assert {each["comparisons"] for each in found} == {9}
