"""The scheduler that a pipeline's folder names, as a spec with the options of its configuration."""

import json
from pathlib import Path

import pytest
import toys

from solverbench import registries
from solverbench.choice import defaults
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
