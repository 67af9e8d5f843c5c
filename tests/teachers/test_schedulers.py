"""What is read of a diffusers scheduler's configuration, and what is refused by name; diffusers isn't needed."""

import math

import pytest
import torch

from solverbench.errors import RecordError
from solverbench.method.rectified_flow import RectifiedFlow
from solverbench.method.vp_discrete import VPDiscrete
from solverbench.teachers.families import schedulers

VIDEO = {
    "_class_name": "EulerDiscreteScheduler", "prediction_type": "v_prediction", "timestep_type": "continuous",
    "use_karras_sigmas": True, "sigma_min": 0.002, "sigma_max": 700.0, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "beta_end": 0.012, "trained_betas": None, "timestep_spacing": "leading", "steps_offset": 1,
    "skip_prk_steps": True, "set_alpha_to_one": False, "clip_sample": False, "interpolation_type": "linear",
    "_diffusers_version": "0.24.0",
}  # fmt: skip
"""Stable Video Diffusion's, as published."""

PUBLISHED = [
    {"_class_name": "DDPMScheduler", "_diffusers_version": "0.1.1", "beta_end": 0.02, "beta_schedule": "linear",
     "beta_start": 0.0001, "clip_sample": True, "num_train_timesteps": 1000, "timestep_values": None,
     "trained_betas": None, "variance_type": "fixed_large", "tensor_format": "pt"},
    {"_class_name": "PNDMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
     "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
     "trained_betas": None, "clip_sample": False},
    {"_class_name": "EulerDiscreteScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear",
     "beta_start": 0.00085, "clip_sample": False, "interpolation_type": "linear", "num_train_timesteps": 1000,
     "prediction_type": "epsilon", "sample_max_value": 1.0, "set_alpha_to_one": False, "skip_prk_steps": True,
     "steps_offset": 1, "timestep_spacing": "leading", "trained_betas": None, "use_karras_sigmas": False,
     "rescale_betas_zero_snr": False, "sigma_max": None, "sigma_min": None, "timestep_type": "discrete"},
    {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver++", "lambda_min_clipped": -math.inf,
     "variance_type": None, "solver_order": 2, "thresholding": False, "dynamic_thresholding_ratio": 0.995,
     "sample_max_value": 1.0, "lower_order_final": True, "euler_at_final": False, "use_lu_lambdas": False},
    {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0,
     "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256,
     "max_image_seq_len": 4096, "shift_terminal": None, "time_shift_type": "exponential", "invert_sigmas": False},
    VIDEO,
]  # fmt: skip
"""Configurations in the layout of published ones."""


def level(value):
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("config", PUBLISHED, ids=lambda config: config["_class_name"])
def test_published_configurations_are_read(config):
    read = schedulers.settled(config)
    assert schedulers.schedule(read).sigma_max > 10
    assert schedulers.facts(read)["steps"] == 1000


def test_continuous_time_starts_where_upstream_does_and_is_a_quarter_of_the_logarithm():
    read = schedulers.settled(VIDEO)
    schedule = schedulers.schedule(read)
    assert (schedule.sigma_max, schedule.sigma_min) == (pytest.approx(700), pytest.approx(0.002))
    told = schedulers.told(read, schedule)
    for sigma in (700.0, 134.9, 1.0, 0.002):
        assert float(told(schedule.time(level(sigma)))) == pytest.approx(math.log(sigma) / 4, abs=1e-9)
    assert float(told(schedule.time(level(134.9)))) == pytest.approx(1.226, abs=1e-3)
    assert schedule.key["sigma_max"] == 700.0


@pytest.mark.parametrize("name", ["CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"])
def test_a_shift_of_the_snr_divides_it(name):
    config = {"_class_name": name, "prediction_type": "v_prediction"}
    shifted, plain = (schedulers.alphas_cumprod(schedulers.settled(config | more))
                      for more in ({}, {"snr_shift_scale": 1.0}))  # fmt: skip
    assert torch.allclose(shifted / (1 - shifted), plain / (1 - plain) / 3, rtol=1e-10)
    assert float((shifted - plain).abs().max()) == pytest.approx(0.268, abs=1e-3)
    named = schedulers.rule(schedulers.settled(config))
    assert named["snr_shift_scale"] == 3.0
    assert "snr_shift_scale" not in schedulers.rule(schedulers.settled(config | {"snr_shift_scale": 1.0}))


def test_omitted_betas_are_the_classes_own():
    heun, ddim = (schedulers.settled({"_class_name": name}) for name in ("HeunDiscreteScheduler", "DDIMScheduler"))
    assert (heun["beta_start"], heun["beta_end"]) == (0.00085, 0.012)
    assert (ddim["beta_start"], ddim["beta_end"]) == (0.0001, 0.02)
    assert schedulers.settled({"_class_name": "UnCLIPScheduler"})["beta_schedule"] == "squaredcos_cap_v2"


def test_a_flow_takes_the_shift_of_its_own_class():
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "shift": 3.0, "flow_shift": 5.0}
    multistep = schedulers.schedule(schedulers.settled({"_class_name": "UniPCMultistepScheduler", **flow}))
    matched = schedulers.schedule(schedulers.settled({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}))
    assert isinstance(multistep, RectifiedFlow)
    assert multistep.t_first == pytest.approx(5 * 0.999 / (1 + 4 * 0.999))
    assert matched.t_first == pytest.approx(3 * 0.999 / (1 + 2 * 0.999))


def test_what_only_places_the_steps_changes_nothing():
    plain = schedulers.settled({"_class_name": "EulerDiscreteScheduler"})
    other = {"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True, "timestep_spacing": "trailing"}
    assert schedulers.schedule(schedulers.settled(other)) == schedulers.schedule(plain)
    assert isinstance(schedulers.schedule(plain), VPDiscrete)


EULER, DDIM, FLOWS = ({"_class_name": name} for name in (
    "EulerDiscreteScheduler", "DDIMScheduler", "FlowMatchEulerDiscreteScheduler"))  # fmt: skip


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"_class_name": "MineScheduler"}, r"MineScheduler: its noise process isn't read \(this scheduler isn't known"),
        ({}, "a scheduler without _class_name"),
        ({"_class_name": "IPNDMScheduler"}, "IPNDMScheduler: .* trigonometric"),
        ({"_class_name": "LCMScheduler"}, "LCMScheduler: .* distilled"),
        ({"_class_name": "EDMEulerScheduler"}, "EDMEulerScheduler: .* preconditioning"),
        ({**DDIM, "sigma_curve": "mine"}, "DDIMScheduler: sigma_curve = 'mine' isn't an option that is known"),
        ({**DDIM, "prediction_type": "score"}, "prediction_type 'score'"),
        ({**DDIM, "predict_epsilon": False}, "predict_epsilon = False"),
        ({**DDIM, "snr_shift_scale": 3.0}, "snr_shift_scale = 3.0 isn't an option of this class"),
        ({**DDIM, "use_flow_sigmas": True}, "use_flow_sigmas = True isn't an option of this class"),
        ({**DDIM, "timestep_type": "continuous"}, "timestep_type = 'continuous' isn't an option of this class"),
        ({"_class_name": "PNDMScheduler", "rescale_betas_zero_snr": True}, "rescale_betas_zero_snr = True isn't an"),
        ({**DDIM, "rescale_betas_zero_snr": True}, "rescale_betas_zero_snr = True with prediction_type = 'epsilon'"),
        ({**EULER, "timestep_type": "continuous"}, "timestep_type = 'continuous' with prediction_type = 'epsilon'"),
        ({**EULER, "timestep_type": "mine"}, "timestep_type = 'mine' isn't known"),
        ({**EULER, "sigma_max": 700.0}, r"sigma_max = 700\.0: ends of their own"),
        ({**VIDEO, "sigma_min": 800.0}, "levels from 700 to 800"),
        ({"_class_name": "DPMSolverMultistepScheduler", "prediction_type": "flow_prediction"}, "use_flow_sigmas = Fal"),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "with prediction_type = 'epsilon'; a f"),
        ({**FLOWS, "invert_sigmas": True}, "invert_sigmas turns the time round, .* family=pipeline"),
        ({**FLOWS, "prediction_type": "v_prediction"}, "but this class takes flows"),
        ({**DDIM, "beta_schedule": "mine"}, "beta_schedule 'mine'"),
        ({**DDIM, "trained_betas": [0.5, 1.0]}, "not all between 0 and 1"),
    ],
)  # fmt: skip
def test_everything_else_is_refused_by_name(config, text):
    with pytest.raises(RecordError, match=text) as caught:
        schedulers.schedule(schedulers.settled(config))
    assert "\n" not in str(caught.value)


def test_a_flow_whose_time_is_told_on_the_unit_interval_has_a_thousands_levels():
    """OmniGen's num_train_timesteps is 1, which says nothing about its training."""
    one, many = (schedulers.settled({**FLOWS, "num_train_timesteps": count}) for count in (1, 1000))
    schedule = schedulers.schedule(one)
    assert schedule == schedulers.schedule(many)
    t = torch.tensor(0.25, dtype=torch.float64)
    assert (schedulers.told(one, schedule)(t), schedulers.told(many, schedule)(t)) == (0.25, 250)


def test_options_that_change_upstreams_samples_are_named():
    said = schedulers.dropped({**DDIM, "clip_sample": True, "thresholding": True})
    assert said.startswith("clip_sample and thresholding of the DDIMScheduler: not applied")
    assert schedulers.dropped({**DDIM, "clip_sample": False}) == ""
