"""Files of the LD3 repository: exactly the times in them, for the right teacher, or one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

import solverbench as sb
from solverbench.cli.main import main
from solverbench.errors import RecordError
from solverbench.learned import trained_files, upstream
from solverbench.learned.ld3 import integrate_decoupled
from solverbench.teachers.teacher import Teacher

LATENT = sb.VPDiscrete.stable_diffusion()
EDM_TIMES = [80.0, 9.3, 2.1, 0.4, 0.002]
LATENT_TIMES = [1.0, 0.68, 0.37, 0.12, 0.001]


def content(times: list[float], shifted: list[float]) -> dict[str, Any]:
    """What the repository's trainer saves: its raw parameters, and the times that they come to."""
    both = torch.tensor([*times, *shifted], dtype=torch.float32)
    return {"params1": torch.ones(5), "params2": torch.zeros(5), "best_t_steps": both}


def of(teacher: Teacher, schedule: sb.NoiseSchedule) -> Teacher:
    return Teacher(teacher.denoise, teacher.name, teacher.shape, schedule=schedule, identity="cd" * 32)


@pytest.mark.parametrize("spec", ["ld3", "ld3:base=ipndm:order=2", "ld3:base=dpm:mode=time", "ld3:compat=true"])
@pytest.mark.parametrize("latent", [False, True])
@pytest.mark.parametrize("far", [False, True])
def test_levels_told_levels_and_samples_are_those_of_the_files_times(
    spec: str, latent: bool, far: bool, teacher: Teacher, tmp_path: Path
) -> None:
    """Also where shifts go beyond the limit of our own training, or past a neighbour."""
    teacher = of(teacher, LATENT) if latent else teacher
    times = LATENT_TIMES if latent else EDM_TIMES
    shifted = [times[0], times[1] * 1.01, times[2] * (0.2 if far else 0.99), times[3] * 1.02, times[4]]
    torch.save(content(times, shifted), tmp_path / "best_v2.pt")
    imported = upstream.read(tmp_path / "best_v2.pt", teacher, 4, solver=spec)
    exact = torch.tensor([times, shifted], dtype=torch.float32).double()
    grid, told = teacher.schedule.sigma(exact[0]), teacher.schedule.sigma(exact[1])
    torch.testing.assert_close(imported.tableau.levels[:-1], grid[:-1], rtol=1e-6, atol=0)
    torch.testing.assert_close(imported.tableau.levels[1:-1], grid[1:-1], rtol=1e-11, atol=0)
    torch.testing.assert_close(imported.tableau.sigmas[1:], told[1:-1], rtol=1e-11, atol=0)
    if "compat" not in spec:  # whose limit, by the gaps of logits, is any number
        assert ("limited=false" in imported.spec) == far
    assert imported.tableau.start == teacher.schedule.sigma_max

    place = upstream.keep(imported, tmp_path / "best_v2.pt", tmp_path)
    again = trained_files.load(place, teacher=teacher, nfe=4)
    x = torch.randn(3, *teacher.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = x * teacher.schedule.sigma_max
    base = {"ld3": "unipc:variant=bh1", "ld3:compat=true": "unipc:variant=bh1"}.get(spec)
    base = base or spec.removeprefix("ld3:base=").removesuffix(":mode=time")

    def denoise(x: Tensor, sigma: Tensor, *, level: Tensor | None = None) -> Tensor:
        return teacher.denoise(x, sigma)

    own = torch.tensor([teacher.schedule.sigma_max, teacher.schedule.sigma_min], dtype=torch.float64)
    levels = sb.Grid(torch.cat([own[:1], grid[1:-1], own[1:]]), teacher.schedule)
    by_loop = integrate_decoupled(sb.make(base), denoise, x, levels, torch.cat([own[:1], told[1:-1]]))
    found = sb.execute(sb.tableau(imported.spec, nfe=4, teacher=teacher, out=tmp_path), teacher.denoise, x)
    torch.testing.assert_close(found, by_loop, rtol=1e-9, atol=1e-9)
    assert again.record["imported"]["layout"] == "LD3 repository, best_t_steps"


@pytest.mark.parametrize(
    ("held", "problem"),
    [
        (torch.zeros(10), "isn't a file of LD3, it is a Tensor"),
        ({"ema": {"shadow_params": []}}, "it has no best_t_steps, but ema"),
        ({"best_t_steps": [80.0, 0.002]}, "isn't a tensor of floating point numbers"),
        ({"best_t_steps": torch.arange(10)}, "isn't a tensor of floating point numbers"),
        ({"best_t_steps": torch.ones(9)}, r"of shape \[9\]"),
        ({"best_t_steps": torch.ones(5, 2)}, r"of shape \[5, 2\]"),
        (content(EDM_TIMES[::-1], EDM_TIMES[::-1]), "whose first half, .*, doesn't fall"),
        (content(EDM_TIMES, [80.0, 9.3, -1.0, 0.4, 0.002]), "with the time -1, which isn't above 0"),
        (content(EDM_TIMES, [80.0, 9.3, float("nan"), 0.4, 0.002]), "a number that isn't finite"),
        (content(LATENT_TIMES, LATENT_TIMES), "goes from 1 to 0.001, but this schedule goes from 80 to 0.002"),
        (content(EDM_TIMES, [70.0, *EDM_TIMES[1:]]), "its first call: gets time 70 instead of 80"),
    ],
)
def test_another_layout_or_teacher_is_refused_in_one_line(
    held: Any, problem: str, teacher: Teacher, tmp_path: Path
) -> None:
    torch.save(held, tmp_path / "a.pt")
    with pytest.raises(RecordError, match=problem) as caught:
        upstream.ld3(tmp_path / "a.pt", teacher, 4)
    assert "\n" not in str(caught.value)


def test_calls_t_eps_and_the_kind_of_file_are_checked(teacher: Teacher, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(content(EDM_TIMES, EDM_TIMES), path)
    with pytest.raises(RecordError, match="shapes are for nfe=4, not for nfe=5; use --nfe 4"):
        upstream.ld3(path, teacher, 5)
    with pytest.raises(RecordError, match="leave --t-eps out"):
        upstream.read(path, teacher, 4, solver="ld3", t_eps=1e-3)
    with pytest.raises(RecordError, match="isn't a GAS checkpoint, it has no ema, but best_t_steps, params1, params2"):
        upstream.read(path, teacher, 4)
    with pytest.raises(RecordError, match="isn't what the GAS repository trains"):
        upstream.read(path, teacher, 4, solver="gas:form=lms")


def test_the_command_imports_it_and_says_what_to_run(tmp_path: Path) -> None:
    torch.save(content(EDM_TIMES, EDM_TIMES), tmp_path / "a.pt")
    arguments = [
        "zoo",
        "import",
        str(tmp_path / "a.pt"),
        "--nfe",
        "4",
        "--solver",
        "ld3:order=2",
        "--out",
        str(tmp_path),
    ]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "order=2" in result.stdout
    assert "levels 80 to 0.002" in result.stdout
