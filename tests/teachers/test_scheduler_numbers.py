"""Schedulers of diffusers beside what is read of them: levels, told times and one denoised step, or a named refusal.

Needs diffusers. `python tests/teachers/test_scheduler_numbers.py` prints the table of docs/teachers-latent.md.
"""

import json
import math
import sys
import types

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers

import solverbench as sb
from solverbench.errors import RecordError
from solverbench.teachers.adaptors import Adapted
from solverbench.teachers.families import flow_calls, schedulers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of diffusers and numpy

SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
V, ZERO = {"prediction_type": "v_prediction"}, {"rescale_betas_zero_snr": True}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
KARRAS, CONTINUOUS = {"use_karras_sigmas": True}, {"timestep_type": "continuous", **V}
LEADING = {"timestep_spacing": "leading", "steps_offset": 1}

CASES = [
    ("DDIMScheduler", {"clip_sample": False}),
    ("DDIMScheduler", {"clip_sample": False, **SD, **LEADING}),
    ("DDIMScheduler", {"clip_sample": False, "prediction_type": "sample"}),
    ("DDIMScheduler", {"clip_sample": False, **V, **ZERO, "timestep_spacing": "trailing"}),
    ("DDIMParallelScheduler", {"clip_sample": False}),
    ("DDPMScheduler", {"clip_sample": False}),
    ("DDPMScheduler", {"clip_sample": False, "beta_schedule": "squaredcos_cap_v2", **V}),
    ("DDPMScheduler", {"clip_sample": False, "beta_schedule": "sigmoid"}),
    ("DDPMScheduler", {"clip_sample": False, "trained_betas": [0.0005 + 0.00002 * n for n in range(1000)]}),
    ("DDPMParallelScheduler", {"clip_sample": False, "num_train_timesteps": 100}),
    ("CogVideoXDDIMScheduler", {"clip_sample": False, **V}),
    ("CogVideoXDDIMScheduler", {"clip_sample": False, **V, **ZERO, "timestep_spacing": "trailing"}),
    ("CogVideoXDPMScheduler", {"clip_sample": False, **V, "snr_shift_scale": 1.0}),
    ("PNDMScheduler", {"skip_prk_steps": True, **SD, **LEADING}),
    ("PNDMScheduler", {"skip_prk_steps": True, **V}),
    ("LMSDiscreteScheduler", SD),
    ("EulerDiscreteScheduler", {}),
    ("EulerDiscreteScheduler", {**SD, **LEADING}),
    ("EulerDiscreteScheduler", {**SD, **KARRAS}),
    ("EulerDiscreteScheduler", {**V, **ZERO, "timestep_spacing": "trailing"}),
    ("EulerDiscreteScheduler", {**CONTINUOUS, **KARRAS, "sigma_min": 0.002, "sigma_max": 700.0}),
    ("EulerDiscreteScheduler", {**CONTINUOUS, "use_exponential_sigmas": True, "sigma_max": 80.0}),
    ("EulerDiscreteScheduler", {**CONTINUOUS, **SD}),
    ("EulerAncestralDiscreteScheduler", SD),
    ("HeunDiscreteScheduler", {}),
    ("HeunDiscreteScheduler", {**KARRAS, **V}),
    ("KDPM2DiscreteScheduler", {}),
    ("KDPM2AncestralDiscreteScheduler", {}),
    ("DPMSolverSDEScheduler", {}),
    ("DPMSolverMultistepScheduler", SD),
    ("DPMSolverMultistepScheduler", {**SD, **KARRAS, "algorithm_type": "sde-dpmsolver++"}),
    ("DPMSolverMultistepScheduler", {**SD, "use_lu_lambdas": True}),
    ("DPMSolverMultistepScheduler", {**FLOW, "flow_shift": 3.0}),
    ("DPMSolverSinglestepScheduler", {**SD, **V}),
    ("DEISMultistepScheduler", {"beta_schedule": "squaredcos_cap_v2", **V}),
    ("DEISMultistepScheduler", {**FLOW, "flow_shift": 2.0}),
    ("UniPCMultistepScheduler", SD),
    ("UniPCMultistepScheduler", {**FLOW, "flow_shift": 5.0}),
    ("SASolverScheduler", {**SD, "prediction_type": "sample"}),
    ("UnCLIPScheduler", {"clip_sample": False}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}),
    ("FlowMatchEulerDiscreteScheduler", KARRAS),
    ("FlowMatchHeunDiscreteScheduler", {}),
    ("DDIMScheduler", ZERO),
    ("EulerDiscreteScheduler", ZERO),
    ("EulerDiscreteScheduler", {"timestep_type": "continuous"}),
    ("EulerDiscreteScheduler", {**KARRAS, "sigma_max": 10.0}),
    ("DPMSolverMultistepScheduler", {"prediction_type": "flow_prediction"}),
    ("UniPCMultistepScheduler", {"use_flow_sigmas": True}),
    ("HeunDiscreteScheduler", {"beta_schedule": "exp"}),
    ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}),
    ("IPNDMScheduler", {}),
    ("LCMScheduler", {}),
    ("TCDScheduler", {}),
    ("EDMEulerScheduler", {}),
    ("DDIMInverseScheduler", {}),
    ("ScoreSdeVeScheduler", {}),
]
"""Scheduler classes with options of their own; the last are refused."""

FIRST_REFUSED = next(n for n, (name, options) in enumerate(CASES) if (name, options) == ("DDIMScheduler", ZERO))
CALLS = 10
LARGEST = 1e-5
"""Largest difference of alpha and s, and of a denoised step relative to its largest value."""

WHOLE, BETWEEN, CUT = 1e-3, 0.02, 1.0
"""Largest difference of told times in training steps: at a step, between two, and where diffusers drops fractions.

Diffusers' tables are float32. Between two steps it interpolates sigma or its logarithm, and we the logarithm of alpha.
"""


def called(case):
    name, options = case
    said = {key: "…" if key == "trained_betas" else value for key, value in options.items()}
    return " ".join([f"`{name}`", *(f"{key}={value}" for key, value in said.items() if key != "clip_sample")])


def made(case):
    """The scheduler, and its configuration as its file holds it."""
    name, options = case
    if name == "DPMSolverSDEScheduler":  # its noise comes from another package; no noise enters what is compared
        noise = lambda t0=None, t1=None, size=None, **_: lambda a, b: torch.zeros(size)  # noqa: E731
        sys.modules.setdefault("torchsde", types.SimpleNamespace(BrownianInterval=noise, BrownianTree=noise))
        from diffusers.schedulers.scheduling_dpmsolver_sde import DPMSolverSDEScheduler as found
    else:
        found = getattr(diffusers, name)
    scheduler = found(**options)
    return scheduler, {"_class_name": name, **json.loads(scheduler.to_json_string())}


def levels(scheduler, flow):
    """(n, alpha, s) of upstream's n-th call, for calls that don't finish another one's step."""
    sigmas = getattr(scheduler, "sigmas", None)
    stepped = hasattr(scheduler, "step_index")
    for n in range(0, len(scheduler.timesteps), 2 if hasattr(scheduler, "state_in_first_order") else 1):
        if sigmas is None or not stepped:
            squared = scheduler.alphas_cumprod[int(scheduler.timesteps[n])].double()
        elif flow:
            yield n, 1 - sigmas[n].double(), sigmas[n].double()
            continue
        else:
            squared = 1 / (1 + sigmas[n].double() ** 2)
        yield n, squared.sqrt(), (1 - squared).sqrt()


def denoised(scheduler, output, y, n):
    """Upstream's data prediction at its n-th call, in its own code, from the network's output and state."""
    told = scheduler.timesteps[n]
    for name, value in {"_step_index": n, "sample": None, "dt": None, "prev_derivative": None}.items():
        if hasattr(scheduler, name):
            setattr(scheduler, name, value)
    if hasattr(scheduler, "is_scale_input_called"):
        scheduler.is_scale_input_called = True
    if hasattr(scheduler, "convert_model_output"):
        return scheduler.convert_model_output(output, sample=y)
    if isinstance(scheduler, diffusers.PNDMScheduler):
        before = int(told) - 100
        state = scheduler._get_prev_sample(y, int(told), before, output)
        one, other = (scheduler.alphas_cumprod[int(t)].double() if t >= 0 else scheduler.final_alpha_cumprod.double()
                      for t in (told, before))  # fmt: skip
        ratio = ((1 - other) / (1 - one)).sqrt()
        return (state - ratio * y) / (other.sqrt() - ratio * one.sqrt())
    if isinstance(scheduler, diffusers.FlowMatchEulerDiscreteScheduler | diffusers.FlowMatchHeunDiscreteScheduler):
        step = scheduler.sigmas[n + 1].double() - scheduler.sigmas[n].double()
        state = scheduler.step(output, told, y, return_dict=False)[0].double()
        return y - scheduler.sigmas[n].double() * (state - y) / step
    if isinstance(scheduler, diffusers.CogVideoXDPMScheduler):
        return scheduler.step(output, None, int(told), None, y)[1]
    if hasattr(scheduler, "sigmas"):  # its states are x0 + sigma n, which it scales for the network
        scale = (1 + scheduler.sigmas[n].double() ** 2).sqrt()
        return scheduler.step(output, told, y * scale).pred_original_sample
    return scheduler.step(output, int(told), y).pred_original_sample


def network(y, t):
    return torch.sin(3 * y + 0.7) * 0.8 + 0.3 * torch.cos(t / 300)


def compared(case):
    """The largest differences: of alpha and s, of told times in training steps, of one denoised step; and the bound."""
    scheduler, config = made(case)
    read = schedulers.settled(config)
    schedule, flow, count = schedulers.schedule(read), schedulers.flows(read), schedulers.steps(read)
    told, continuous = schedulers.told(read, schedule), read["timestep_type"] == "continuous"
    scheduler.set_timesteps(CALLS, **{"mu": 0.7} if config.get("use_dynamic_shifting") else {})
    cut = not scheduler.timesteps.is_floating_point() and (
        flow or any(config.get(key) for key in (*schedulers.STRETCHED, "use_lu_lambdas"))
    )
    rows = []
    for n, alpha, s in levels(scheduler, flow):
        sigma = (s / alpha).clamp(max=schedule.sigma_max)
        at = scheduler.timesteps[n].double()
        whole = continuous or flow or at == at.round()
        x0, eps = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(n), dtype=torch.float64).chunk(2)
        y, t = alpha * x0 + s * eps, told(schedule.time(sigma).clamp(max=schedule.t_last))
        upstream = denoised(scheduler, network(y, t), y, n).double()
        own = Adapted(network, schedule, schedulers.prediction(read), told=told)(
            y / schedule.alpha(schedule.time(sigma)), sigma
        )
        if isinstance(scheduler, diffusers.DEISMultistepScheduler):  # which keeps the noise
            own = (y - alpha * own) / s
        if read["rescale_betas_zero_snr"] and n == 0:  # the last alpha is 0, for which some write 2^-12
            alpha, s, t = 0 * alpha, s / s, told(torch.tensor(1.0, dtype=torch.float64))
        level = torch.zeros(())
        if not cut and whole:  # the level at upstream's own time
            time = schedule.time((4 * at).exp()) if continuous else at / count if flow else (at + 1) / count
            found = schedule.alpha(time.clamp(max=schedule.t_last))
            level = torch.maximum((found - alpha).abs(), (found * schedule.sigma(time) - s).abs())
        bound = CUT if cut else WHOLE if whole else BETWEEN
        step = (own - upstream).abs().max() / upstream.abs().max()
        rows.append((float(level), float((t - at).abs()), float(step), bound))
    return tuple(max(column) for column in zip(*rows, strict=True))


@pytest.mark.parametrize("case", CASES[:FIRST_REFUSED], ids=called)
def test_what_is_read_agrees_with_upstream(case):
    level, clock, step, bound = compared(case)
    assert level <= LARGEST
    assert clock <= bound
    assert step <= LARGEST


@pytest.mark.parametrize("case", CASES[FIRST_REFUSED:], ids=called)
def test_what_is_not_read_is_refused_by_name(case):
    name, options = case
    _, config = made(case)
    with pytest.raises(RecordError, match="|".join([name, *options])) as caught:
        schedulers.schedule(schedulers.settled(config))
    assert "\n" not in str(caught.value)


def test_every_scheduler_of_diffusers_is_read_or_refused_with_a_reason():
    found = {name for name in dir(diffusers) if name.endswith("Scheduler")}
    assert found - {*schedulers.KINDS, *schedulers.REFUSED} <= {"Scheduler"}


@pytest.mark.parametrize("name", schedulers.KINDS)
def test_every_option_of_a_scheduler_that_is_read_has_a_role_and_upstreams_default(name):
    _, config = made((name, {}))
    read = schedulers.settled(config)
    bare = schedulers.settled({"_class_name": name})
    assert bare == read
    for key in (schedulers.ZERO, schedulers.FLOW, schedulers.CONTINUOUS, schedulers.SHIFTED):
        assert (key in config) == (key in schedulers.KINDS[name].has), key


def table():
    """The rows of docs/teachers-latent.md: what agrees, and what is refused."""
    for case in CASES:
        try:
            level, clock, step, _ = compared(case)
            yield f"| {called(case)} | {level:.0e} | {clock:.0e} | {step:.0e} |"
        except RecordError as error:
            why = error.wrong.partition(": ")[0]
            yield f"| {called(case)} | refused: {why} | | |"


TOKENS = 1024
PLACED = [
    ("FlowMatchEulerDiscreteScheduler", {}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0, "shift_terminal": 0.1}),
    ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}),
    ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True, "time_shift_type": "linear", "max_shift": 2.0}),
    ("FlowMatchEulerDiscreteScheduler", {  # LTX-Video's
        "use_dynamic_shifting": True, "base_shift": 0.95, "max_shift": 2.05, "base_image_seq_len": 1024,
        "shift_terminal": 0.1}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 2.0, **KARRAS}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 2.0, "use_exponential_sigmas": True}),
    ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True, "use_beta_sigmas": True}),
    ("DPMSolverMultistepScheduler", {**FLOW, "flow_shift": 3.0}),
    ("DPMSolverSinglestepScheduler", {**FLOW, "flow_shift": 3.0}),
    ("DEISMultistepScheduler", {**FLOW, "flow_shift": 2.0}),
    ("SASolverScheduler", {**FLOW, "flow_shift": 2.0}),
    ("UniPCMultistepScheduler", {**FLOW, "flow_shift": 5.0}),
    ("UniPCMultistepScheduler", {**FLOW, "shift_terminal": 0.02}),
    ("UniPCMultistepScheduler", {**FLOW, "use_dynamic_shifting": True}),
]  # fmt: skip
"""Flow schedulers whose times are compared, given by the scheduler (SD3) and by the pipeline (FLUX, LTX)."""


GIVEN = [
    (case, trailing) for case in PLACED for trailing in (False, True) if not (trailing and "use_flow_sigmas" in case[1])
]


@pytest.mark.parametrize(
    ("case", "trailing"), GIVEN, ids=lambda each: called(each) if isinstance(each, tuple) else str(each)
)
def test_a_flow_schedulers_calls_are_diffusers_own(case, trailing):
    scheduler, config = made(case)
    found = flow_calls.of(config, trailing=trailing, tokens=TOKENS)
    given = {key: config.get(key) or default for key, default in flow_calls.RESOLUTION.items()}
    slope = (given["max_shift"] - given["base_shift"]) / (given["max_image_seq_len"] - given["base_image_seq_len"])
    mu = given["base_shift"] + slope * (TOKENS - given["base_image_seq_len"])  # calculate_shift of the pipelines
    for steps in (1, 4, 9):
        if steps == 1 and config.get("shift_terminal"):  # 0/0 upstream: its only time is the first one and the last
            assert float(found.times(1)) == pytest.approx(1.0, abs=1e-5)
            continue
        own = {"sigmas": np.linspace(1.0, 1 / steps, steps)} if trailing else {"num_inference_steps": steps}
        scheduler.set_timesteps(**own, **({"mu": mu} if config.get("use_dynamic_shifting") else {}))
        count = len(scheduler.timesteps)
        assert torch.allclose(found.times(steps), scheduler.sigmas[:count].double(), rtol=0, atol=1e-6)
    assert found.rule["class"] == case[0]


@pytest.mark.parametrize(
    "case",
    [("FlowMatchHeunDiscreteScheduler", {}), ("EulerDiscreteScheduler", {}),
     ("DPMSolverMultistepScheduler", {**FLOW, **KARRAS})],
    ids=called,
)  # fmt: skip
def test_where_the_calls_are_not_known_the_grid_is_refused(case):
    assert flow_calls.of(made(case)[1]) is None


def test_a_shift_by_resolution_needs_the_number_of_tokens():
    config = made(("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}))[1]
    assert flow_calls.of(config) is None
    one, other = (flow_calls.of(config, tokens=count) for count in (256, 4096))
    assert (one.shift, other.shift) == pytest.approx((math.exp(0.5), math.exp(1.15)))
    assert one.rule != other.rule


@pytest.mark.parametrize("kind", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
@pytest.mark.parametrize(("predicted", "sign"), [("epsilon", 1), ("v_prediction", -1)])
def test_the_formula_that_stands_for_edms_preconditioning_is_the_schedulers(kind, predicted, sign):
    """The code of docs/teachers-latent.md: levels, told times and one denoised step."""
    scheduler = getattr(diffusers, kind)(sigma_data=0.5, prediction_type=predicted)
    scheduler.set_timesteps(CALLS)
    levels = sb.make("euler:grid=polynomial").grid(
        sb.EDM(scheduler.config.sigma_min, scheduler.config.sigma_max), CALLS - 1
    )
    assert torch.allclose(scheduler.sigmas[:-1].double(), levels.sigmas, rtol=1e-5)
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for sigma, told in zip(scheduler.sigmas[:-1].double(), scheduler.timesteps.double(), strict=True):
        state, size = x * sigma, (sigma**2 + 0.25) ** 0.5
        output = network(state / size, sigma.log() / 4)
        ours = (0.5 / size) ** 2 * state + sign * sigma * 0.5 / size * output
        theirs = scheduler.precondition_outputs(
            state, network(scheduler.precondition_inputs(state, sigma), told), sigma
        )
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))


if __name__ == "__main__":
    print("\n".join(table()))
