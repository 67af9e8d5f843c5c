"""The reference is measured: the error of the teacher's sampler, where it is kept, and what a run says of it."""

import dataclasses
import math

import pytest
import torch
import toys

import solverbench as sb
from solverbench import files, reports, seeds
from solverbench.bench import plan as planning
from solverbench.bench import run as runner
from solverbench.bench.progress import Silent
from solverbench.bench.run_options import RunOptions
from solverbench.errors import SpecError
from solverbench.reports.pages import tables
from solverbench.reports.parts import parts
from solverbench.sampling import convergence, endpoints
from solverbench.sampling.convergence import Measurement, Rival
from solverbench.store import layout
from solverbench.teachers import convergence as told
from solverbench.teachers.loading import load_teacher
from solverbench.teachers.teacher import SAMPLER, SAMPLER_NFE, Teacher

SMALL = {"samples": 20, "replicates": 1, "workers": 1}


def teacher(denoise=toys.denoise, **changes):
    """The toy teacher without an error that comes with it."""
    return toys.teacher(denoise, **({"sampler": "dpm:order=3", "sampler_nfe": 10, "sampler_error": None} | changes))


def options(out, taught, solvers="dpm,unipc,euler", nfe="4,10", **changes):
    return RunOptions(solvers=solvers, nfe=nfe, teachers=taught, out=out, **(SMALL | changes))


class Counting:
    """The toy's denoiser with counted images; raises KeyboardInterrupt after `last` of them."""

    def __init__(self, last=math.inf):
        self.images, self.last = 0, last

    def __call__(self, x, sigma):
        if self.images >= self.last:
            raise KeyboardInterrupt
        self.images += len(x)
        return toys.denoise(x, sigma)


class Told(Silent):
    def __init__(self):
        self.lines, self.done, self.asked = [], {}, 0

    def begin(self, images, calls, seconds):
        self.asked = calls

    def advance(self, cell, images, calls):
        self.done[cell] = self.done.get(cell, 0) + calls

    def note(self, line):
        self.lines.append(line)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The same run with references of 10 and of 200 calls."""
    out = tmp_path_factory.mktemp("reference")
    found = {}
    for nfe in (10, 200):
        heard = Told()
        found[nfe] = runner.run(options(out / str(nfe), teacher(sampler_nfe=nfe), nfe="10"), progress=heard), heard
    return found


def rmse(frame, solver, nfe):
    [row] = frame[(frame.solver == solver) & (frame.nfe == nfe) & (frame.metric == "rmse_teacher")].to_dict("records")
    return row


def test_a_reference_of_few_calls_is_not_converged_and_the_run_says_so(results):
    result, heard = results[10]
    [line] = [line for line in heard.lines if "reference" in line]
    assert line.startswith("the reference of toy isn't converged: its error is 0.0")
    likely = told.more(10, rmse(result.frame, "unipc", 10)["reference_error"])
    assert line.endswith(f"give the teacher's sampler more calls, as in sampler_nfe={likely}, or another sampler")
    assert result.summary().count(line) == 1
    assert "reference-error" not in result.summary()  # the cells are in one sentence
    record = reports.load(result.folder).record
    assert line in record["notes"]
    assert record["tags"][0] == line
    compared = record["protocol"]["reference error of toy"]
    assert "to the same sampler with 20 calls" in compared
    assert "to deis:order=3:grid=logsnr with 40 calls (64 images, seeds 50000-50063)" in compared
    assert "of 3 cells on toy have an RMSE below 10 times the error of their reference" in result.summary()
    row = rmse(result.frame, "unipc", 10)
    assert row["flags"].startswith("reference-error: its RMSE ")
    assert row["value"] < 10 * row["reference_error"]
    others = result.frame[result.frame.metric != "rmse_teacher"]
    assert set(others["flags"]) == {""}  # they have references of their own
    assert others.reference_error.isna().all()


def test_the_calls_that_are_suggested_are_likely_to_do():
    """The error falls with the square of the calls at least; twice to ten times as many are suggested."""
    assert told.more(40, 0.089) == 200
    assert told.more(10, 1.01 * told.ROUGH) == 20
    assert told.more(10, 5.0) == 100


def test_a_reference_of_many_calls_is_converged(results):
    result, heard = results[200]
    assert heard.lines == []
    assert "reference" not in result.summary()
    assert set(result.frame["flags"]) == {""}
    assert rmse(result.frame, "unipc", 10)["reference_error"] < told.ROUGH / 10


def test_the_report_has_the_error_the_mark_and_the_sentences(results):
    for nfe, marked in ((10, True), (200, False)):
        bundle = reports.load(results[nfe][0].folder)
        assert "to the same sampler with" in bundle.record["protocol"]["reference error of toy"]
        assert any("isn't converged" in note for note in bundle.record["notes"]) is marked
        [part] = [part for part in parts(bundle.frame, bundle.record) if part.metric == "rmse_teacher"]
        table = tables.markdown(part)
        assert table.count("reference-error: an RMSE below 10 times the error of its reference") == marked
        assert "**" in table
        assert "never marked best" not in table


def test_its_calls_are_in_the_plan_and_in_the_progress_and_it_is_measured_once(tmp_path):
    counting = Counting()
    taught = teacher(counting)
    before = planning.plan(options(tmp_path, taught))
    assert not list(tmp_path.iterdir())
    [planned] = before.references
    assert (planned.images, planned.calls) == (64, 64 * (10 + 20 + 40))
    assert planned.line in before.summary()
    assert before.as_dict()["references"][0]["calls"] == planned.calls
    counting.images, heard = 0, Told()
    runner.run(options(tmp_path, taught), progress=heard)
    assert heard.done["reference of toy"] == planned.calls
    assert sum(heard.done.values()) == heard.asked
    assert [each.calls for each in planning.plan(options(tmp_path, taught)).references] == [0]
    counting.images, again = 0, Told()
    runner.run(options(tmp_path, taught, solvers="euler", nfe="4"), progress=again)
    assert counting.images == 0
    assert again.lines == []
    [place] = tmp_path.glob("convergence/*/50000-50063.npz")
    name = place.relative_to(tmp_path).as_posix()
    assert name in set(layout.walk(tmp_path))
    assert layout.check(tmp_path, name, lambda path: None) is None
    place.write_bytes(place.read_bytes()[:-1])
    assert layout.check(tmp_path, name, lambda path: None) is not None
    runner.run(options(tmp_path, taught), progress=Told())
    assert counting.images == 0  # from the stored images
    assert layout.check(tmp_path, name, lambda path: None) is None


def test_an_interrupted_measurement_goes_on(tmp_path):
    stopped = Counting(last=64 * (10 + 20) + 1)
    with pytest.raises(KeyboardInterrupt):
        runner.run(options(tmp_path, teacher(stopped)))
    kept = {path.parent.name for path in tmp_path.glob("targets/*/50000-50063.npz")}
    assert len(kept) == 2
    counting = Counting()
    task = Measurement(teacher(counting), tmp_path)
    assert [rival.name for rival in task.missing] == ["other"]
    assert convergence.measure(task.teacher, tmp_path) == convergence.measure(teacher(), tmp_path / "whole")
    assert counting.images == 64 * 40


def test_the_numbers_are_those_of_the_images(tmp_path):
    found = convergence.measure(teacher(), tmp_path)
    chosen = range(50_000, 50_064)
    made = {}
    for spec, nfe in (("dpm:order=3", 10), ("dpm:order=3", 20), ("deis:order=3:grid=logsnr", 40)):
        plan = sb.tableau(spec, nfe=nfe, teacher=teacher()).plan(teacher().schedule.prior_scale)
        made[nfe] = sb.execute(plan, toys.denoise, seeds.noise(chosen, toys.SHAPE))
    expected = [float((made[10] - made[nfe]).double().square().mean().sqrt()) for nfe in (20, 40)]
    assert [each.rmse for each in found.comparisons] == pytest.approx(expected, rel=1e-3)
    assert found.error == max(each.rmse for each in found.comparisons)
    assert told.Convergence.of(found.as_dict()) == found


@pytest.mark.parametrize(
    ("sampler", "nfe", "doubled", "other"),
    [
        ("dpm:order=3", 10, 20, "deis:order=3:grid=logsnr"),
        ("unipc:grid=time_uniform", 20, 40, "deis:order=3:grid=time_uniform:rho=1"),
        ("heun:rho=5", 64, 128, "unipc:order=3:grid=polynomial:rho=5"),
        ("heun:end=zero", 35, 71, "unipc:order=3:end=zero:grid=polynomial:rho=7"),
        ("euler:grid=80+5+1+0.002", 3, None, "unipc:order=3:grid=time_quadratic"),
    ],
)
def test_twice_the_calls_and_a_solver_of_another_family(sampler, nfe, doubled, other):
    taught = teacher(sampler=sampler, sampler_nfe=nfe)
    again, another = convergence.doubled(taught), convergence.other(taught)
    assert (again.teacher.sampler_nfe if isinstance(again, Rival) else None) == doubled
    assert (another.teacher.sampler, another.teacher.sampler_nfe) == (other, max(2 * nfe, 40))


def test_an_error_that_is_unknown_says_why_and_ends_nothing(tmp_path):
    """A network that knows no level but those of the sampler itself."""
    levels = {round(float(s), 6) for s in endpoints.sampler_plan(teacher()).sigmas}

    def strict(x, sigma):
        return toys.denoise(x, sigma) * (1 if round(float(sigma), 6) in levels else math.nan)

    heard = Told()
    result = runner.run(options(tmp_path, teacher(strict), solvers="dpm:order=3", nfe="10"), progress=heard)
    assert result.counts["done"] == 1
    assert "the error of the reference of toy is unknown" in result.summary()
    assert "images not finite" in result.summary()
    assert rmse(result.frame, "dpm:order=3", 10)["reference_error"] is None
    with pytest.raises(SpecError):
        runner.run(options(tmp_path, teacher(sampler="nothing")))


def test_an_error_that_comes_with_a_teacher_holds_for_its_own_sampler_alone(tmp_path):
    digits = load_teacher("digits", "cpu")
    plan = endpoints.sampler_plan(digits)
    assert convergence.shipped(digits, plan) is digits.sampler_error
    other = dataclasses.replace(digits, sampler_nfe=10)
    assert convergence.shipped(other, endpoints.sampler_plan(other)) is None
    found = convergence.measure(other, tmp_path)
    assert found.rough
    mixture = load_teacher("mixture", "cpu")
    assert "to the exact solution of its ODE" in convergence.measure(mixture, tmp_path).text


def test_the_recorded_error_of_digits_is_measured_again(tmp_path):
    """Recorded over 1000 images, here over 64; float32 and the processor move single images by far less than this."""
    digits = load_teacher("digits", "cpu")
    found = convergence.measure(dataclasses.replace(digits, sampler_error=None), tmp_path)
    assert digits.sampler_error.error < 1e-4
    assert found.error < 3 * digits.sampler_error.error


COSINE = torch.cos((torch.linspace(0, 1, 1001, dtype=torch.float64)[1:] + 0.008) / 1.008 * math.pi / 2) ** 2
SCHEDULES = {
    "edm": sb.EDM(),
    "linear betas": sb.VPDiscrete.from_alphas_cumprod(
        (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    ),
    "latent": sb.VPDiscrete.latent_diffusion(),
    "cosine": sb.VPDiscrete.from_alphas_cumprod(COSINE[:-1]),
    "flow": sb.RectifiedFlow(t_start=1.0),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_default_sampler_is_converged_on_every_schedule(name, tmp_path):
    """On an exact denoiser; 20 calls on equal times, the former default of folders, are off by .02 to .04."""
    mixture = load_teacher("mixture", "cpu")
    taught = Teacher(mixture.denoise, "mine", mixture.shape, schedule=SCHEDULES[name], identity="mine")
    assert (taught.sampler, taught.sampler_nfe) == (SAMPLER, SAMPLER_NFE)
    assert convergence.measure(taught, tmp_path, images=16).error < 1e-3
    former = dataclasses.replace(taught, sampler="unipc:order=3:grid=time_uniform", sampler_nfe=20)
    assert convergence.measure(former, tmp_path, images=16).rough


def test_the_sampler_of_a_description_is_measured_too(tmp_path):
    """Stored images are made for the key of the sampler, so another choice is another measurement."""
    first = Measurement(teacher(), tmp_path).place
    assert Measurement(teacher(sampler_nfe=12), tmp_path).place != first
    assert Measurement(teacher(identity="another"), tmp_path).place != first
    assert Measurement(teacher(), tmp_path).place == first
    assert files.digest(Measurement(teacher(), tmp_path).key)[:32] == first.parent.name
