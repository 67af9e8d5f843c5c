"""Checkpoints of the GAS repository: read as its code writes them, refused as anything else, never run."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

import solverbench as sb
from solverbench.cli.main import main
from solverbench.errors import RecordError, SpecError
from solverbench.learned import trained_files, upstream
from solverbench.learned.gs import GAS, GS
from solverbench.method.execution import execute
from solverbench.teachers.teacher import Teacher

Denoise = Callable[[Tensor, Tensor], Tensor]


def flat(nfe: int, scale: float = 0.02) -> list[Tensor]:
    """Random small float32 parameters in the repository's flat order, mu_logit around uniform times."""
    generator = torch.Generator().manual_seed(nfe)
    left = torch.arange(nfe - 1, 0, -1, dtype=torch.float64)
    times = torch.logit(left / (left + 1)).float() + 0.1 * torch.randn(nfe - 1, generator=generator)
    return [times, *(scale * torch.randn(nfe, generator=generator) for _ in range(2 * nfe + 1))]


def checkpoint(nfe: int) -> dict[str, Any]:
    """What the repository's trainer saves: the EMA shadow apart from the raw parameters, Adam's state and the step."""
    shadow = flat(nfe)
    parameters = [torch.nn.Parameter(part + 1) for part in shadow]
    adam = torch.optim.Adam(parameters, lr=1e-3)
    sum(part.square().sum() for part in parameters).backward()  # type: ignore[union-attr]
    adam.step()
    return {
        "ema": {"decay": 0.999, "num_updates": 10000, "shadow_params": shadow, "collected_params": None},
        "model": parameters,
        "optim": adam.state_dict(),
        "step": 10000,
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.save(checkpoint(4), tmp_path / "10000.pt")
    return tmp_path / "10000.pt"


def named(parts: list[Tensor]) -> dict[str, Tensor]:
    """The flat list by name, written out for four calls."""
    names = ["mu_logit", "t_couple", "c1", "a1", "c2", "a2", "c3", "a3", "c4", "a4"]
    return {name: part.double() for name, part in zip(names, parts, strict=True)}


@pytest.mark.parametrize(("solver", "kind", "t_eps"), [("gas", GAS, None), ("gs", GS, 1e-4), ("gas", GAS, 1e-3)])
def test_the_samples_are_those_that_the_ema_parameters_imply(
    path: Path, teacher: Teacher, tmp_path: Path, solver: str, kind: type[GS] | type[GAS], t_eps: float | None
) -> None:
    imported = upstream.gas(path, teacher, 4, solver=solver, t_eps=t_eps)
    place = upstream.keep(imported, path, tmp_path)
    x = 80 * torch.randn(3, *teacher.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    meant = kind(t_eps=t_eps).with_parameters(named(flat(4)))
    grid = meant.grid(teacher.schedule, 4)

    def denoise(x: Tensor, sigma: Tensor, *, level: Tensor | None = None) -> Tensor:
        return teacher.denoise(x, sigma)

    by_loop = meant.integrate(denoise, x, grid)
    spec = solver if t_eps is None else f"{solver}:t_eps={t_eps}"
    by_zoo = sb.execute(sb.tableau(spec, nfe=4, teacher=teacher, out=tmp_path), teacher.denoise, x)
    torch.testing.assert_close(by_zoo, by_loop, rtol=1e-9, atol=1e-9)
    assert place == tmp_path / "trained" / "toy" / trained_files.file_name(spec, 4)


def test_the_record_says_where_it_comes_from(path: Path, teacher: Teacher, tmp_path: Path) -> None:
    import hashlib

    kept = trained_files.load(
        upstream.keep(upstream.gas(path, teacher, 4, t_eps=1e-3), path, tmp_path), teacher=teacher, nfe=4
    )
    imported = kept.record["imported"]
    assert imported["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (imported["file"], imported["t_eps"], imported["step"]) == ("10000.pt", 1e-3, 10000)
    assert (imported["ema_decay"], imported["ema_updates"]) == (0.999, 10000)
    assert kept.seeds == {}


@pytest.mark.parametrize("nfe", [1, 2, 7])
def test_any_number_of_calls_is_read_from_the_shapes(nfe: int, teacher: Teacher, tmp_path: Path) -> None:
    torch.save(checkpoint(nfe), tmp_path / "a.pt")
    assert upstream.gas(tmp_path / "a.pt", teacher, nfe).tableau.nfe == nfe
    with pytest.raises(RecordError, match=rf"shapes are for nfe={nfe}, not for nfe=9; use --nfe {nfe}"):
        upstream.gas(tmp_path / "a.pt", teacher, 9)


class Malicious:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("where", ["whole", "in the dict", "in the ema", "among the parameters"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_refused_without_being_run(
    where: str, zipped: bool, teacher: Teacher, tmp_path: Path
) -> None:
    witness = tmp_path / "ran"
    content: Any = checkpoint(4)
    match where:
        case "whole":
            content = Malicious(witness)
        case "in the dict":
            content["step"] = Malicious(witness)
        case "in the ema":
            content["ema"]["decay"] = Malicious(witness)
        case _:
            content["ema"]["shadow_params"][0] = Malicious(witness)
    torch.save(content, tmp_path / "bad.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(RecordError, match="nothing else is unpickled") as caught:
        upstream.gas(tmp_path / "bad.pt", teacher, 4)
    assert not witness.exists()
    assert "\n" not in str(caught.value)


def changed(**ema: Any) -> dict[str, Any]:
    whole = checkpoint(4)
    return {**whole, "ema": {**whole["ema"], **ema}}


def with_part(index: int, part: Any) -> dict[str, Any]:
    shadow = flat(4)
    shadow[index] = part
    return changed(shadow_params=shadow)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (torch.zeros(3), "isn't a GAS checkpoint, it is a Tensor"),
        ([1, 2], "it is a list"),
        ({"best_t_steps": torch.zeros(10)}, "it has no ema"),
        ({"ema": {"decay": 0.9}}, "no list of tensors ema.shadow_params"),
        (changed(shadow_params=[1.0, 2.0]), "no list of tensors"),
        (changed(shadow_params=flat(4)[:-1]), "it has 9 tensors"),
        (changed(shadow_params=flat(4)[:-2]), r"mu_logit of shape \[3\], not \[2\], among 8 tensors"),
        (with_part(3, torch.zeros(4, 1)), r"a1 of shape \[4, 1\], not \[4\]"),
        (with_part(2, torch.zeros(4, dtype=torch.int64)), "aren't floating point"),
        (with_part(2, torch.full((4,), torch.nan)), "c1 has a number that isn't finite"),
        (with_part(1, torch.full((4,), -2.0)), "no solver on the levels of toy"),
    ],
)
def test_another_layout_is_refused_in_one_line(content: Any, problem: str, teacher: Teacher, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(RecordError, match=problem) as caught:
        upstream.gas(tmp_path / "a.pt", teacher, 4)
    assert "\n" not in str(caught.value)


def test_garbage_and_cut_files_are_refused(path: Path, teacher: Teacher) -> None:
    content = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    noise = bytes(torch.randint(256, (500,), generator=generator).tolist())
    for bad in (b"", b"hello", noise, content[:100], content[: len(content) // 2], content[:-1]):
        path.write_bytes(bad)
        with pytest.raises(RecordError, match=r"10000\.pt: "):
            upstream.gas(path, teacher, 4)


def test_a_missing_file_folder_or_other_solver_is_named(path: Path, teacher: Teacher, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="there is no such file"):
        upstream.gas(tmp_path / "none.pt", teacher, 4)
    with pytest.raises(RecordError, match="can't be read"):
        upstream.gas(tmp_path, teacher, 4)
    with pytest.raises(RecordError, match="holds a GAS or GS solver, not euler"):
        upstream.gas(path, teacher, 4, solver="euler")
    for t_eps in (0.0, -1.0, float("nan"), 0.99, 1.0, 3.0):
        with pytest.raises((SpecError, RecordError), match="t_eps"):
            upstream.gas(path, teacher, 4, t_eps=t_eps)


def test_a_solver_that_is_there_already_is_left_alone(path: Path, teacher: Teacher, tmp_path: Path) -> None:
    imported = upstream.gas(path, teacher, 4)
    place = upstream.keep(imported, path, tmp_path)
    assert upstream.keep(imported, path, tmp_path) == place
    before = place.read_bytes()
    torch.save(with_part(1, torch.zeros(4)), path)
    with pytest.raises(RecordError, match="holds another trained solver"):
        upstream.keep(upstream.gas(path, teacher, 4), path, tmp_path)
    assert place.read_bytes() == before


def test_a_discrete_schedule_takes_no_end_time(path: Path) -> None:
    """GAS runs latent models on their own discrete times; t_eps would replace these by a linear VP schedule."""
    latent = Teacher(lambda x, sigma: x, "latent", (4, 8, 8), schedule=sb.VPDiscrete.latent_diffusion(), identity="l")
    with pytest.raises(RecordError, match="replace this schedule by a linear VP one"):
        upstream.gas(path, latent, 4, solver="gs", t_eps=1e-3)
    with pytest.raises(RecordError, match="replace this schedule by a linear VP one"):
        upstream.read(path, latent, 4, solver="gs", t_eps=1e-3)
    with pytest.raises(sb.GridError, match="on RectifiedFlow: it would replace"):
        sb.make("gs:t_eps=0.001").initial(sb.RectifiedFlow(), 4)  # type: ignore[attr-defined]


def published_sample(
    parts: list[Tensor], noise: Tensor, t_eps: float, log_alpha: Callable[[Tensor], Tensor], denoise: Denoise
) -> Tensor:
    """The authors' sampler written down from the paper: from unit noise at time 1, in the variance preserving frame.

    m_0 is the newest data prediction; the state is multiplied by A and extended by DPM-Solver++(3M) without lower order
    at the end, with corrections of the outputs, the finite differences and all earlier states.

    Args:
        parts: the file's tensors in their order.
        log_alpha: log alpha of a time; the noise has the scale s = sqrt(1 - alpha^2).
        denoise: the network's data prediction of x/alpha at level s/alpha.
    """
    theta, xi, *rest = (part.double() for part in parts)
    c, a = rest[::2], rest[1::2]  # c_1, a_1, c_2, a_2, ..
    count = len(xi)

    def scales(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log = log_alpha(t)
        s = (1 - (2 * log).exp()).sqrt()
        return log.exp(), s, log - s.log()

    mu = torch.sigmoid(theta) * (1 - 2e-5) + 1e-5
    rising = [t_eps + (1 - t_eps) * (1 - float(mu[:k].prod())) for k in range(1, count)]
    times = torch.tensor([1.0, *reversed(rising), t_eps], dtype=torch.float64)
    x, states, outputs, lams = noise, [], [], []
    for n in range(count):
        alpha, s, lam = scales(times[n])
        after, s_after, lam_after = scales(times[n + 1])
        told, s_told, _ = scales(times[n] + xi[n])
        data = denoise(x / told, s_told / told)
        epsilon = (x - told * data) / s_told
        states, outputs, lams = [x, *states], [(x - s * epsilon) / alpha, *outputs], [lam, *lams]
        h = lam_after - lam
        p1 = torch.expm1(-h)
        p2 = p1 / h + 1
        p3 = p2 / h - 0.5
        x = (s_after / s) * x - (after * p1 + c[0][n]) * outputs[0]
        if n > 0:
            r0 = (lams[0] - lams[1]) / h
            d0 = (outputs[0] - outputs[1]) / r0
        if n == 1:
            x = x - (after * p1 / 2 + c[1][n]) * d0
        if n > 1:
            r1 = (lams[1] - lams[2]) / h
            d1 = (outputs[1] - outputs[2]) / r1
            first, second = d0 + r0 / (r0 + r1) * (d0 - d1), (d0 - d1) / (r0 + r1)
            x = x + (after * p2 + c[1][n]) * first - (after * p3 + c[2][n]) * second
        for i in range(3, n + 1):
            x = x + c[i][n] * outputs[i]
        for i in range(n + 1):
            x = x + a[i][n] * states[i]
    return x


def linear(t: Tensor) -> Tensor:
    """GAS's own schedule, log alpha of (19.9, 0.1)."""
    return -19.9 * t**2 / 4 - 0.1 * t / 2


def latent(t: Tensor) -> Tensor:
    """Log alpha of the latent models of LSUN and ImageNet: linear between 1000 steps, and beyond."""
    betas = np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2
    logs = np.cumsum(np.log1p(-betas)) / 2
    place = min(max(int(np.ceil(float(t) * 1000)) - 2, 0), 998)
    slope = (logs[place + 1] - logs[place]) * 1000
    return torch.tensor(logs[place] + (float(t) - (place + 1) / 1000) * slope, dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "schedule", "given", "spec", "t_eps", "log_alpha"),
    [
        ("toy", sb.EDM(), {"t_eps": 1e-3}, "gs:authors=free:t_eps=0.001", 1e-3, linear),
        ("ffhq64", sb.EDM(), {}, "gs:authors=free:t_eps=0.0001", 1e-4, linear),
        ("latent", sb.VPDiscrete.latent_diffusion(), {}, "gs:authors=model", 1e-3, latent),
    ],
)
@pytest.mark.parametrize("nfe", [1, 2, 5])
def test_an_imported_file_samples_as_the_authors_code_does(
    name: str, schedule: sb.NoiseSchedule, given: dict[str, float], spec: str, t_eps: float,
    log_alpha: Callable[[Tensor], Tensor], nfe: int, teacher: Teacher, tmp_path: Path,
) -> None:  # fmt: skip
    here = replace(teacher, name=name, schedule=schedule)
    torch.save(checkpoint(nfe), tmp_path / "a.pt")
    imported = upstream.read(tmp_path / "a.pt", here, nfe, solver="gs", **given)
    assert trained_files.short(imported.solver) == spec
    noise = torch.randn(3, *here.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    wanted = published_sample(flat(nfe), noise, t_eps, log_alpha, teacher.denoise)
    plan = imported.tableau.plan_from_noise(schedule)
    # Twelve digits in a plan; the weights of several outputs cancel.
    torch.testing.assert_close(execute(plan, teacher.denoise, noise), wanted, rtol=1e-8, atol=1e-8)
    usual = imported.solver.with_parameters(imported.parameters)
    other = replace(usual, authors="none").grid(schedule, nfe)
    assert (float(other.sigmas[0]) == pytest.approx(80)) == isinstance(schedule, sb.EDM)


def test_a_network_with_a_largest_level_of_its_own_starts_there(path: Path, teacher: Teacher) -> None:
    own = replace(teacher, schedule=sb.EDM(0.002, 60).asked_by(frame="edm", sigma_max="network"))
    read = upstream.read(path, own, 4, t_eps=1e-3)
    assert trained_files.short(read.solver) == "gas:authors=model:t_eps=0.001"
    assert float(read.tableau.start) == pytest.approx(60)
    chosen = upstream.read(path, own, 4, solver="gas:t_eps=0.001", start="free")
    assert float(chosen.tableau.start) == pytest.approx(152.1669702839464)
    with pytest.raises(RecordError, match="t_eps is in the spec and in --t-eps; give it once"):
        upstream.read(path, own, 4, solver="gas:t_eps=0.001", t_eps=1e-3)
    with pytest.raises(SpecError, match="authors=free: it starts where a linear VP schedule does"):
        sb.make("gas:authors=free")
    with pytest.raises(RecordError, match="start=free, but files of ld3 have no such choice"):
        upstream.read(path, own, 4, solver="ld3", start="free")


def test_an_import_for_edm_without_its_end_time_says_what_to_give(path: Path, tmp_path: Path) -> None:
    words = ["zoo", "import", str(path), "--nfe", "4", "--solver", "gs", "--teacher", "digits", "--out", str(tmp_path)]
    told = CliRunner().invoke(main, words)
    assert told.exit_code == 2
    assert "times are fractions of the time range of its training, which isn't known for digits" in told.output
    assert "give its end as --t-eps; the authors train with 1e-3 on CIFAR-10" in told.output
    assert not (tmp_path / "trained").exists()
    told = CliRunner().invoke(main, [*words, "--t-eps", "1e-3", "--start", "model"])
    assert told.exit_code == 0, told.output
    assert "gs:authors=model:t_eps=0.001 nfe=4 for digits, levels 80 to 0.010486, in " in told.output
