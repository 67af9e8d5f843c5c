"""The scheduler that a pipeline's folder names, as a spec with the options of its configuration."""

import json
from pathlib import Path

import pytest
import torch
import toys

import solverbench as sb
from solverbench import registries
from solverbench.choice import defaults, native
from solverbench.teachers.teacher import Pipeline

SD = {"beta_schedule": "scaled_linear", "steps_offset": 1, "timestep_spacing": "leading"}


@pytest.mark.parametrize(
    ("name", "config", "spec"),
    [
        ("DDIMScheduler", {}, "euler:grid=leading:end=zero:offset=0"),
        ("DDIMScheduler", SD | {"set_alpha_to_one": False}, "euler:grid=leading"),
        ("DDIMScheduler", {"timestep_spacing": "trailing"}, "euler:grid=trailing:end=zero"),
        ("DDIMScheduler", {"set_alpha_to_one": False}, "euler:grid=leading:end=zero:offset=0"),
        ("EulerDiscreteScheduler", SD, "euler:grid=leading:end=zero"),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, "euler:grid=polynomial:end=zero"),
        ("DPMSolverMultistepScheduler", {}, "dpm:order=2:grid=dpm_linspace:lower_order_final=false:end=zero"),
        (
            "DPMSolverMultistepScheduler",
            {"timestep_spacing": "trailing", "solver_order": 3, "algorithm_type": "dpmsolver"},
            "dpm:order=3:grid=trailing:lower_order_final=false:end=zero:prediction=noise",
        ),
        ("DPMSolverMultistepScheduler", SD | {"final_sigmas_type": "sigma_min"}, "dpm:order=2:grid=dpm_leading"),
        (
            "DPMSolverMultistepScheduler",
            {"solver_type": "heun"},
            "dpm:order=2:grid=dpm_linspace:lower_order_final=false:end=zero:variant=taylor",
        ),
        (
            "UniPCMultistepScheduler",
            {"use_lu_lambdas": True},
            "unipc:order=2:grid=logsnr:lower_order_final=false:end=zero",
        ),
        ("LCMScheduler", {}, ""),
        ("Unheard", {}, ""),
    ],
)  # fmt: skip
def test_a_configuration_gives_the_spec_of_docs_names(tmp_path, name, config, spec):
    assert all(each.spec for each in registries.foreign(name)) == (spec != "") or not registries.foreign(name)
    place = tmp_path / "scheduler"
    place.mkdir()
    (place / "scheduler_config.json").write_text(json.dumps({"_class_name": name, **config}))
    teacher = toys.teacher(pipeline=Pipeline(Path(tmp_path)))
    assert defaults.own_scheduler(teacher) == spec


def test_without_a_readable_configuration_there_is_euler_alone(tmp_path):
    for teacher in (toys.teacher(), toys.teacher(pipeline=Pipeline(tmp_path))):
        assert defaults.defaults(teacher) == {"plain default": "euler"}


def test_a_pipelines_own_levels_are_its_grid():
    found = defaults.configured("euler:grid=linspace:end=zero", {"shift": 3.0}, own=True)
    assert found == "euler:grid=pipeline:end=zero"


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("euler:grid=leading", ("DDIMScheduler", "leading", False)),
        ("euler:grid=trailing:end=zero", ("DDIMScheduler", "trailing", True)),
        ("dpm:order=2:grid=dpm_linspace", ("DPMSolverMultistepScheduler", "linspace", "sigma_min")),
        (
            "unipc:order=2:grid=trailing:lower_order_final=false:end=zero",
            ("UniPCMultistepScheduler", "trailing", "zero"),
        ),
        ("dpm:order=3:grid=polynomial", None),
    ],
)
def test_a_scheduler_of_diffusers_that_makes_the_same_samples_is_found(tmp_path, spec, found):
    place = tmp_path / "scheduler"
    place.mkdir()
    own = {"_class_name": "PNDMScheduler", "use_karras_sigmas": True, "beta_end": 0.012, **SD}
    (place / "scheduler_config.json").write_text(json.dumps(own))
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    teacher = toys.teacher(
        schedule=sb.VPDiscrete(((1 - betas).log().cumsum(0) / 2).tolist()), pipeline=Pipeline(tmp_path)
    )
    made = native.config(sb.tableau(spec, nfe=5, teacher=teacher), teacher)
    if found is None:
        assert made is None
        return
    told = made.get("final_sigmas_type", made.get("set_alpha_to_one"))
    assert (made["_class_name"], made["timestep_spacing"], told) == found
    assert made["beta_end"] == 0.012
    assert "use_karras_sigmas" not in made
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "DDIMPipeline"}))
    alone = native.config(sb.tableau(spec, nfe=5, teacher=teacher), teacher)
    assert alone == (made if found[0] == "DDIMScheduler" else None)
    assert defaults.configured(spec.partition(":")[0], made).partition(":")[0] == spec.partition(":")[0]
