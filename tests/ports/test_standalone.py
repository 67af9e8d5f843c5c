"""Exported files, where torch is all there is, make the samples that we make: every solver, in every form."""

from __future__ import annotations

import alone
import forks
import pytest
import torch

import solverbench as sb
from solverbench.export import export

CLASSICAL = {
    "euler": 4, "heun": 4, "heun:end=zero": 5, "dpm2": 4, "dpm:order=3": 5, "dpm:prediction=noise": 4,
    "dpm:order=2:end=zero": 4, "dpm:order=3:singlestep=true": 6, "unipc:order=3:variant=bh1": 5, "unipc:end=zero": 4,
    "deis": 5, "ipndm:order=4": 5, "ipndm_v:order=3": 4, "dpm:afs=true": 4, "dpm:threshold=true": 3,
    "euler:end=zero": 1,
}  # fmt: skip
LEARNED = {"gs": 4, "gas": 3, "ld3:mode=time": 4, "s4s": 5, "s4s_alt": 3}
RANDOM = {"gs": 4, "ld3": 3}
"""Learned ones, with parameters that nobody trained, in frames other than the zoo's."""

PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0", "flow_prediction": "flow"}


def teacher(predicts, schedule, count=1000):
    flow = isinstance(schedule, sb.RectifiedFlow)
    told = (lambda t: count * t) if flow else (lambda t: count * t - 1)
    return sb.Teacher(sb.Adapted(alone.network, schedule, predicts, told=told), f"net-{predicts}", (1, 8, 8), schedule)


def schedule(prediction):
    return sb.RectifiedFlow() if prediction == "flow_prediction" else sb.VPDiscrete.stable_diffusion()


def shifted(spec, schedule, nfe):
    """The learned solver with parameters off those that it starts from."""
    solver, generator = sb.make(spec), torch.Generator().manual_seed(2)
    start = solver.initial(schedule, nfe)
    return solver.with_parameters(
        {name: p + 0.02 * torch.randn(p.shape, dtype=p.dtype, generator=generator) for name, p in start.items()}
    )


@pytest.fixture(scope="module")
def noise():
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def samples(tmp_path_factory, noise):
    """(kind, name) -> (the sample of the exported file, ours)."""
    folder, expected = tmp_path_factory.mktemp("exported"), {}
    digits = sb.load_teacher("digits")

    def put(kind, name, text, solver, made, denoise):
        path = folder / kind / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        plan = made.tableau.plan(made.prior_scale)
        expected[kind, name] = sb.execute(plan, solver.adapt(denoise), noise)

    for number, (spec, nfe) in enumerate({**CLASSICAL, **LEARNED}.items()):
        solver = sb.make(spec)
        made = export.collect(solver, nfe, digits)
        put("py", f"n{number}", export.as_python(made), solver, made, alone.denoise)
        put("k-diffusion", f"n{number}", export.as_k_diffusion(made), solver, made, alone.denoise)
        put("diffusers", f"edm{number}", export.as_scheduler(made, digits), solver, made, alone.denoise)
    for prediction, predicts in PREDICTIONS.items():
        net = teacher(predicts, schedule(prediction))
        for number, (spec, nfe) in enumerate({**CLASSICAL, **RANDOM}.items()):
            solver = sb.make(spec) if spec in CLASSICAL else shifted(spec, net.schedule, nfe)
            made = export.collect(solver, nfe, net)
            name = f"{prediction}{number}"
            put("diffusers", name, export.as_scheduler(made, net), solver, made, net.denoise)
    torch.save(noise, folder / "noise.pt")
    done = forks.run(["-I", alone.__file__, folder], cwd=folder)
    assert done.returncode == 0, done.stderr
    found = torch.load(folder / "found.pt", weights_only=True)
    assert found.keys() == expected.keys()
    return {key: (found[key], expected[key]) for key in expected}


@pytest.mark.parametrize("spec", [*CLASSICAL, *LEARNED])
@pytest.mark.parametrize("kind", ["py", "k-diffusion", "diffusers"])
def test_an_exported_file_makes_our_samples(samples, kind, spec):
    number = [*CLASSICAL, *LEARNED].index(spec)
    found, expected = samples[kind, f"edm{number}" if kind == "diffusers" else f"n{number}"]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("spec", [*CLASSICAL, *RANDOM])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_scheduler_makes_our_samples_of_a_network_in_its_own_frame(samples, prediction, spec):
    found, expected = samples["diffusers", f"{prediction}{[*CLASSICAL, *RANDOM].index(spec)}"]
    scale = expected.abs().max()
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-9)
