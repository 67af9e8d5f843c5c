"""Singlestep DPM-Solver(++) against diffusers' scheduler, call by call; its lists of orders and its grid by hand."""

import pytest
import torch
from golden import golden, relative

import solverbench as sb
from solverbench.method.exponential import block_orders

REFERENCE = golden("solvers_singlestep")
CASES = [pytest.param(case, id=f"{case['prediction']}-{case['order']}-{case['nfe']}-calls") for case in REFERENCE.cases]


@pytest.mark.parametrize("case", CASES)
def test_every_state_is_the_one_that_diffusers_computes(case):
    levels = REFERENCE("sig", case)
    spec = f"dpm:singlestep=true:order={case['order']}:prediction={case['prediction']}"
    tableau = sb.tableau(spec, grid=levels.tolist())
    assert tableau.nfe == case["nfe"]
    source = golden("solvers_edm_frame")
    history = [source.arrays["latents"][:1] * levels[0]]
    for n, expected in enumerate(REFERENCE("states", case)):
        state = sum(weight * past for weight, past in zip(tableau.weights[n], history, strict=False))
        assert relative(state, expected) < 1e-12
        history.append(source.denoise(state, levels[n]))


@pytest.mark.parametrize("case", CASES)
def test_diffusers_takes_other_orders_only_in_an_even_budget_of_order_2(case):
    """It ends such a budget with two first-order steps; DPM-Solver's own list keeps the second order throughout."""
    ours = [place for size in block_orders(case["nfe"], case["order"]) for place in range(1, size + 1)]
    assert ours == case["orders"]
    differs = case["order"] == 2 and case["nfe"] % 2 == 0
    assert case["diffusers_orders"] == ([*ours[:-1], 1] if differs else ours)


@pytest.mark.parametrize(
    ("calls", "order", "expected"),
    [
        (1, 2, [1]),
        (4, 2, [2, 2]),
        (5, 2, [2, 2, 1]),
        (1, 3, [1]),
        (2, 3, [2]),
        (3, 3, [2, 1]),
        (7, 3, [3, 3, 1]),
        (8, 3, [3, 3, 2]),
        (9, 3, [3, 3, 2, 1]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_the_orders_of_the_blocks_spend_the_calls(calls, order, expected):
    assert block_orders(calls, order) == expected


@pytest.mark.parametrize("end", ["sigma_min", "zero"])
def test_blocks_are_equally_long_in_lambda_and_cut_equally(end):
    solver = sb.make(f"dpm:singlestep=true:end={end}")
    steps = solver.steps(5 + (end == "zero"))
    sigmas = solver.grid(sb.EDM(), steps).sigmas
    body = sigmas[sigmas > 0].log()
    places = (body[0] - body) / (body[0] - body[-1])
    assert places.tolist() == pytest.approx([0, 1 / 6, 2 / 6, 1 / 2, 3 / 4, 1], abs=1e-12)
    assert sigmas[[0, 5]].tolist() == [80, 0.002]
    assert len(sigmas) == 6 + (end == "zero")


def test_on_other_grids_a_block_takes_its_intervals_as_they_are():
    grids = [sb.make(f"dpm:{kind}grid=polynomial").grid(sb.EDM(), 5).sigmas for kind in ("singlestep=true:", "")]
    assert torch.equal(*grids)
