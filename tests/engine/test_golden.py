"""The engine's solvers give the numbers that public implementations give."""

from collections import Counter as Counted
from typing import Any

import pytest
import torch
from golden import golden, relative

import solverbench as sb
from solverbench.method.execution import Counter

pytestmark = pytest.mark.isa

EDM = golden("solvers_edm_frame")
VP = golden("solvers_vp_frame")


def public_form(case: dict[str, Any]) -> str:
    """The options with which an Adams method is what the public code computes, slips and quadrature included."""
    if case["solver"] == "deis":
        return ":form=tab:quadrature=compat" if case["deis_mode"] == "tab" else ":form=rho"
    return ":compat=true" if case["solver"] == "ipndm_v" and case["max_order"] > 2 else ""


def spec_of(case: dict[str, Any]) -> str:
    """Our spec for a case of the EDM file."""
    grid = f"grid={case['schedule']}" + ("" if case["schedule"] == "logsnr" else f":rho={case['rho']}")
    grid += (":afs=true" if case.get("afs") else "") + (":end=zero" if case.get("denoise_to_zero") else "")
    name, _, threshold = case["solver"].partition("+")
    if name in ("dpmpp", "unipc"):
        spec = f"{name}:{grid}:order={case['max_order']}:lower_order_final={str(case['lower_order_final']).lower()}"
        spec += ":prediction=" + ("data" if case["predict_x0"] else "noise")
        spec += f":variant={case['variant']}" if name == "unipc" else ""
        return spec + (":threshold=true" if threshold else "")
    if case["solver"] == "dpm2":
        return f"dpm2:{grid}:r={case.get('r', 0.5)}"
    if case["solver"] in ("ipndm", "ipndm_v", "deis"):
        return f"{case['solver']}:{grid}:order={case['max_order']}" + public_form(case)
    return f"{case['solver']}:{grid}"


CASES = [pytest.param(spec := spec_of(case), case, id=f"{case['id']}-{spec}") for case in EDM.cases]
GS_CASES = [pytest.param(case, id=str(case["id"])) for case in VP.cases if case["solver"] == "gs"]
NO_THEORY_CASES = [pytest.param(case, id=str(case["id"])) for case in VP.cases if case["solver"] == "gs_notheory"]
LD3_CASES = [pytest.param(case, id=str(case["id"])) for case in VP.cases if case["solver"] == "ipndm_ld3"]
UNIPC_CASES = [pytest.param(case, id=str(case["id"])) for case in VP.cases if case["solver"] == "unipc_vp"]


def test_every_case_is_compared():
    by_name = Counted(spec.values[0].partition(":")[0] for spec in CASES)
    counts = {"deis": 15, "dpm2": 2, "dpmpp": 30, "euler": 18, "heun": 1, "ipndm": 12, "ipndm_v": 9, "unipc": 48}
    assert by_name == counts
    assert by_name.total() == len(EDM.cases) == 135
    assert (len(GS_CASES), len(NO_THEORY_CASES), len(LD3_CASES), len(UNIPC_CASES)) == (4, 4, 12, 48)
    assert len(VP.cases) == 68


@pytest.mark.parametrize(("spec", "case"), CASES)
def test_edm_frame_case(spec, case):
    schedule = sb.EDM(case["sigma_min"], case["sigma_max"])
    solver = sb.make(spec)
    grid = solver.grid(schedule, solver.steps(case["nfe"]))
    denoise = Counter(EDM.denoise)
    tableau = sb.trace(solver, grid)
    sample = sb.execute(tableau, solver.adapt(denoise), EDM.arrays["latents"] * EDM("sig", case)[0])
    assert ((tableau.sigmas - EDM("lev", case)).abs() / EDM("lev", case)).max() < 1e-10
    assert denoise.calls == len(EDM("lev", case)) == case["nfe"]
    levels = grid.sigmas[:-1] if case.get("denoise_to_zero") else grid.sigmas
    assert ((levels - EDM("sig", case)).abs() / EDM("sig", case)).max() < 1e-10
    assert relative(sample, EDM("out", case)) < 1e-9


@pytest.mark.parametrize(("spec", "case"), [p for p in CASES if "quadrature=compat" in p.values[0]])
def test_deis_with_exact_quadrature_is_near_the_public_codes(spec, case):
    exact = sb.make(spec.replace("quadrature=compat", "quadrature=exact"))
    grid = exact.grid(sb.EDM(case["sigma_min"], case["sigma_max"]), case["nfe"])
    sample = sb.execute(sb.trace(exact, grid), EDM.denoise, EDM.arrays["latents"] * EDM("sig", case)[0])
    assert 1e-8 < relative(sample, EDM("out", case)) < 1e-4


def given(case: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The parameters that a case of the VP file was made with."""
    prefix = f"p{case['id']}_"
    return {key.removeprefix(prefix): value for key, value in VP.arrays.items() if key.startswith(prefix)}


def compare_learned(solver: sb.LearnedSolver, case: dict[str, Any], t_eps: float) -> None:
    """The solver's tableau on the case's VP model makes its calls at its levels and gives its sample."""
    vp = sb.VPLinear(case["vp_beta_d"], case["vp_beta_min"], t_eps)
    grid = solver.grid(vp, case["nfe"])
    tableau = sb.trace(solver, grid)
    denoise = Counter(VP.denoise)
    sample = sb.execute(tableau, denoise, VP.arrays["noise"] * vp.prior_scale)
    end = vp.alpha(torch.tensor(t_eps, dtype=torch.float64))
    assert denoise.calls == len(VP("lev", case)) == case["nfe"]
    assert relative(vp.time(grid.sigmas), VP("t", case)) < 1e-10
    assert relative(tableau.levels, vp.sigma(VP("t", case))) < 1e-10
    assert ((tableau.sigmas - VP("lev", case)).abs() / VP("lev", case)).max() < 1e-10
    assert relative(sample * end, VP("out", case)) < 1e-8


@pytest.mark.parametrize("case", GS_CASES)
def test_gs_case(case):
    compare_learned(sb.make("gs").with_parameters(given(case)), case, case["t_eps"])


@pytest.mark.parametrize("case", NO_THEORY_CASES)
def test_gs_without_theory_case(case):
    compare_learned(sb.make("s4s_gas_compat").with_parameters(given(case)), case, case["t_eps"])


@pytest.mark.parametrize("case", [p for p in NO_THEORY_CASES if p.values[0]["perturbation"] == 0])
def test_gs_without_theory_starts_as_the_public_code_does(case):
    vp = sb.VPLinear(case["vp_beta_d"], case["vp_beta_min"], case["t_eps"])
    found, expected = sb.make("s4s_gas_compat").initial(vp, case["nfe"]), given(case)
    assert list(found) == list(expected)
    assert all(torch.allclose(found[name], expected[name], rtol=0, atol=1e-9) for name in expected)


@pytest.mark.parametrize("case", LD3_CASES)
def test_ld3_on_ipndm_case(case):
    t, told = VP("t", case), VP("tt", case)
    theta1 = torch.cat([torch.ones(1), t.flip(0).diff().log()])
    ld3 = sb.make(f"ld3:base=ipndm:order={case['order']}:mode=time")
    ld3 = ld3.with_parameters({"theta1": theta1, "theta2": told - t})
    assert ((told - t).abs().max() > 0) == (case["decouple"] > 0)
    compare_learned(ld3, case, float(t[-1]))


@pytest.mark.parametrize("case", UNIPC_CASES)
def test_unipc_on_a_vp_model_case(case):
    vp = sb.VPLinear(case["vp_beta_d"], case["vp_beta_min"], case["t_eps"])
    grid = {"logSNR": "logsnr", "time_uniform": "time_uniform", "time_quadratic": "time_uniform:rho=2"}[case["skip"]]
    unipc = sb.make(f"unipc:grid={grid}:order={case['order']}:variant={case['variant']}")
    tableau = sb.trace(unipc, unipc.grid(vp, case["nfe"]))
    denoise = Counter(VP.denoise)
    sample = sb.execute(tableau, denoise, VP.arrays["noise"] * vp.prior_scale)
    end = vp.alpha(torch.tensor(case["t_eps"], dtype=torch.float64))
    assert denoise.calls == len(VP("lev", case)) == case["nfe"]
    assert relative(tableau.sigmas, VP("lev", case)) < 1e-10
    assert relative(sample * end, VP("out", case)) < 1e-8
