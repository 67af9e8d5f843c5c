"""Keys: equal on every processor, different where what was asked is, and never a way to reuse another result.

SOLVERBENCH_RECORD_PLANS=1 records the plans of `test_recorded_plans_have_their_recorded_keys_and_numbers` again.
"""

import dataclasses
import itertools
import json
import math
import os
import random
import re
from pathlib import Path

import pytest
import torch
import toys

import solverbench as sb
from solverbench import files, plugins
from solverbench.bench import plan as planning
from solverbench.bench import resolve
from solverbench.bench import run as runner
from solverbench.bench.protocol import Protocol
from solverbench.bench.run_options import RunOptions
from solverbench.errors import RecordError, UserError
from solverbench.evaluation import reference_build, references
from solverbench.method import schedules, tableau, tracing
from solverbench.method.declarations import option
from solverbench.method.schedules import NoiseSchedule, VPLinear
from solverbench.method.tableau import Plan
from solverbench.method.vp_discrete import VPDiscrete
from solverbench.sampling import endpoints
from solverbench.sampling import exact as solutions
from solverbench.teachers.families import schedulers


def _settled(config):
    return schedulers.settled({"_class_name": "DDPMScheduler", "prediction_type": "v_prediction", **config})


def _schedule(config):
    return schedulers.schedule(_settled(config))


PLANS = Path(__file__).parent.parent / "data" / "plans.json"
SPECS = [
    *("euler", "euler:afs=true", "euler:end=zero", "ddim:grid=time_uniform", "heun", "heun:end=zero", "dpm2:r=0.7"),
    *("dpm:order=1", "dpm:order=2:grid=logsnr", "dpm", "dpm:d2=full", "dpm:singlestep=true:grid=time_quadratic"),
    *("deis", "deis:form=rho:order=3", "deis:order=4:grid=time_poly", "ipndm", "ipndm:order=3:grid=polynomial:rho=5"),
    *("ipndm_v", "unipc", "unipc:variant=bh1:order=2", "euler:grid=80+9.7+0.8+0.002"),
    *("adams:corrector=4:simple=true", "dpm:order=2:variant=taylor", "exprk:stages=3", "cab"),
    "pfdiff:grid=arctan:c=0.5",
]
BUDGETS = (3, 4, 8, 10, 20, 64)
SCHEDULES: dict[str, NoiseSchedule] = {
    "edm": sb.EDM(),
    "vp": VPLinear(),
    "latent": VPDiscrete.latent_diffusion(),
    "flow": sb.RectifiedFlow(),
}
SMALL = {"samples": 20, "replicates": 1}

HELPER = "def slope(x, d, sigma):\n    return (x - d) / sigma\n"
PLUGIN = """
import solverbench as sb
from helper import slope

class Mine(sb.Solver):
    name = "mine"
    consistent = False

    def integrate(self, denoise, x, grid):
        s = grid.sigmas
        for n in range(grid.steps):  # Euler
            x = x + (s[n + 1] - s[n]) * slope(x, denoise(x, s[n]), s[n])
        return x
"""


def planned():
    """Spec, budget and schedule, each with its key and some numbers of its plan."""
    for (name, schedule), spec, nfe in itertools.product(SCHEDULES.items(), SPECS, BUDGETS):
        solver = sb.make(spec).on(schedule)
        try:
            plan = sb.tableau(solver, nfe=nfe, schedule=schedule).plan_from_noise(schedule)
        except UserError:
            continue
        numbers = [*plan.sigmas[:: math.ceil(nfe / 6)], *plan.rows[-1][:3], *plan.rows[len(plan.rows) // 2][:3]]
        key = {"solver": tableau.asked(solver.key, plan), "schedule": schedule.key}
        yield f"{spec} {nfe} {name}", files.digest(key), numbers


@pytest.mark.isa
def test_recorded_plans_have_their_recorded_keys_and_numbers(monkeypatch):
    """Where numbers differ at an equal key: raise `version` in the solver or schedule, or grids.VERSIONS.

    That loop and tableau agree is not compared here: it takes most of the time, and tests/conformance does.
    """
    monkeypatch.setattr(tracing, "check_linear", lambda solver, grid, tableau: None)
    made = {name: {"key": key[:16], "numbers": numbers} for name, key, numbers in planned()}
    if os.environ.get("SOLVERBENCH_RECORD_PLANS"):
        PLANS.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in made.items()) + "\n}\n")
    recorded = json.loads(PLANS.read_text())
    assert made.keys() == recorded.keys()
    for name, plan in made.items():
        assert plan["key"] == recorded[name]["key"], name
        assert plan["numbers"] == pytest.approx(recorded[name]["numbers"], rel=1e-8, abs=1e-8), name


@pytest.mark.isa
@pytest.mark.parametrize("name", ["digits", "mixture", "shapes"])
def test_an_embedded_teachers_references_are_of_the_sampler_that_runs(name):
    folder = Path(sb.__file__).parent / "teachers" / "embedded" / name / "data"
    record = json.loads((folder / "record.json").read_text())["references"]
    assert endpoints.sampler_plan(sb.load_teacher(name)).asked == (record.get("asked") or record["teacher"]["asked"])


def resolved(teachers, solvers, out):
    asked = RunOptions(solvers=solvers, nfe="3-10,20", teachers=teachers, samples=20, replicates=1, exact=True, out=out)
    return resolve.resolve(asked, Protocol.of(asked))


def places(found, out):
    """Every address of some cells: their own, their teacher's samples', their exact solutions'."""
    block = range(50_000, 50_020)
    return {
        f"{cell}": (
            cell.address,
            str(endpoints.location(cell.teacher, cell.targets, block, out)),
            str(solutions.location(cell.teacher, block, out)),
        )
        for cell in found
        if cell.plan is not None
    }


def test_one_unit_in_the_last_place_on_every_planned_number_changes_no_address(tmp_path, monkeypatch):
    asked = "digits,mixture", "euler,deis,ipndm_v,unipc,dpm2,gs,gas,ld3:mode=time,dpm:grid=time_uniform"
    before = resolved(*asked, tmp_path)
    drawn = random.Random(0)

    def nudged(value):
        return math.nextafter(value, drawn.choice((-math.inf, math.inf)))

    rounded = tableau._rounded
    monkeypatch.setattr(tableau, "_rounded", lambda value: nudged(rounded(value)) if value else value)
    monkeypatch.setattr(schedules.EDM, "scale", lambda self, start: nudged(start))
    after = resolved(*asked, tmp_path)
    assert len(places(before, tmp_path)) > 100
    assert places(before, tmp_path) == places(after, tmp_path)
    moved = [(a.plan, b.plan) for a, b in zip(before, after, strict=True) if a.plan is not None]
    assert all(a != b and a.fits(b) and a.key != b.key for a, b in moved)


def test_a_new_option_at_its_default_changes_no_key(monkeypatch):
    class Old(sb.Solver):
        name = "old"

        def integrate(self, denoise, x, grid):
            return denoise(x, grid.sigmas[0])

    class New(Old):
        more: float = option(0.5)

    keys = []
    for cls, given in ((Old, {}), (New, {}), (New, {"more": 0.5}), (New, {"more": 1}), (New, {"more": 1.0})):
        keys.append({key: value for key, value in cls(**given).key.items() if key != "sources"})
    assert keys[0] == keys[1] == keys[2] != keys[3] == keys[4]


def test_what_is_asked_for_differently_has_different_keys():
    specs = [*SPECS, "euler:grid=80+9.7+0.8+0.0020000000000000005", "dpm:grid=polynomial:rho=6.999999999999999"]
    assert len({json.dumps(sb.make(spec).key, sort_keys=True) for spec in specs}) == len(specs)
    assert sb.make("dpm:grid=polynomial:rho=7").key == sb.make("dpm:grid=polynomial").key
    assert sb.make("dpm:order=3").key == sb.make("dpmpp").key


@pytest.mark.parametrize(
    ("make", "other"),
    [
        (lambda: VPLinear.refit(0.002, 80.0), lambda: VPLinear.refit(0.002, 81.0)),
        (lambda: VPLinear.clamped(0.002, 80.0, 1e-3), lambda: VPLinear.clamped(0.002, 80.0, 1e-4)),
        (lambda: VPDiscrete.scaled_linear(0.0015, 0.0195), lambda: VPDiscrete.scaled_linear(0.0015, 0.0196)),
        (
            lambda: VPDiscrete.from_alphas_cumprod([0.9, 0.5, 0.1]),
            lambda: VPDiscrete.from_alphas_cumprod([0.9, 0.5, 0.2]),
        ),
        (
            lambda: _schedule({"beta_schedule": "scaled_linear", "beta_end": 0.012}),
            lambda: _schedule({"beta_schedule": "scaled_linear", "beta_end": 0.013}),
        ),
        (lambda: _schedule({}), lambda: _schedule({"rescale_betas_zero_snr": True})),
        (lambda: _schedule({"trained_betas": [0.1, 0.2, 0.3]}), lambda: _schedule({"trained_betas": [0.1, 0.2, 0.4]})),
    ],
)
def test_a_schedule_is_named_by_its_rule_whatever_a_processor_makes_of_it(make, other, monkeypatch):
    before = make().key
    assert json.loads(json.dumps(before)) == before != other().key

    def last_bit(function):
        return lambda *given, **more: torch.nextafter(found := function(*given, **more), 2 * found)

    with monkeypatch.context() as patch:  # another processor's functions
        for name in ("log1p", "linspace"):
            patch.setattr(torch, name, last_bit(getattr(torch, name)))
        for name in ("log", "cumsum"):
            patch.setattr(torch.Tensor, name, last_bit(getattr(torch.Tensor, name)))
        plain = math.log1p
        patch.setattr(math, "log1p", lambda value: math.nextafter(plain(value), math.inf))
        changed = make()
    assert changed.key == before
    assert changed != make()


def test_a_changed_copy_of_a_schedule_does_not_keep_its_rule():
    made = VPDiscrete.latent_diffusion()
    assert dataclasses.replace(made, t_eps=0.01).key != made.key


@dataclasses.dataclass(frozen=True)
class Shifted(sb.EDM):
    shift: float = 1.0


class Plain(VPLinear):
    def __init__(self, beta):
        super().__init__(beta_d=beta)


def test_a_users_own_schedule_is_named_by_its_fields_and_its_source():
    assert Shifted().key == Shifted(shift=1).key != Shifted(shift=2.0).key
    assert re.fullmatch("[0-9a-f]{64}", Shifted().key["source"])
    assert Plain(19.9).key == Plain(19.9).key != Plain(19.0).key

    @dataclasses.dataclass(frozen=True)
    class Local(sb.EDM):
        pass

    assert Local().key["source"] == ""
    assert Local().key != Local(sigma_max=81.0).key


@pytest.fixture
def files_of_a_plugin(tmp_path, monkeypatch):
    """Writes a plugin's file and the module that it imports, and loads it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def load(plugin=PLUGIN, helper=HELPER):
        Path("mine.py").write_text(plugin)
        Path("helper.py").write_text(helper)
        exec(compile(helper, "helper.py", "exec"), (module := __import__("helper")).__dict__)
        assert module
        plugins._held.clear()
        plugins.load("mine.py")

    yield load
    __import__("sys").modules.pop("helper", None)


def run(**options):
    return runner.run(RunOptions(solvers="mine", nfe="4", teachers=toys.teacher(), out="runs", **(SMALL | options)))


def test_the_source_of_a_plugin_is_in_its_key_but_not_its_comments(files_of_a_plugin):
    def key(plugin):
        files_of_a_plugin(plugin)
        return sb.make("mine").key

    first = key(PLUGIN)
    assert first == key(PLUGIN.replace("  # Euler", "  # another remark\n"))
    assert first == key("# above\n\n" + PLUGIN + "\n\nOTHER = 1\n")
    assert first != key(PLUGIN.replace("x + (s", "x + 1.0 * (s"))
    assert first["sources"] != [""]


def test_a_plugins_edited_helper_is_told_from_its_results(files_of_a_plugin):
    files_of_a_plugin()
    [made] = run().cells
    assert made.status == "done"
    assert [each.status for each in run().cells] == ["cached"]
    files_of_a_plugin(helper=HELPER.replace("(x - d)", "0.99 * (x - d)"))
    planned = planning.plan(RunOptions(solvers="mine", nfe="4", teachers=toys.teacher(), out="runs", **SMALL))
    [cell] = planned.cells
    assert cell.status == "failed"
    assert "of other coefficients" in cell.reason
    assert "raise `version`" in cell.reason
    files_of_a_plugin(
        PLUGIN.replace('"mine"\n', '"mine"\n    version = 2\n'), HELPER.replace("(x - d)", "0.99 * (x - d)")
    )
    [anew] = run().cells
    assert (anew.status, anew.cell.address != made.cell.address) == ("done", True)


def test_a_teacher_sampler_by_an_edited_helper_is_told_from_its_samples(files_of_a_plugin):
    files_of_a_plugin()
    teacher = toys.teacher(sampler="mine", sampler_nfe=4)
    endpoints.endpoints(teacher, range(20), "runs")
    endpoints.endpoints(teacher, range(20), "runs")
    files_of_a_plugin(helper=HELPER.replace("(x - d)", "0.99 * (x - d)"))
    with pytest.raises(RecordError, match="samples of another sampler"):
        endpoints.endpoints(teacher, range(20), "runs")


def test_a_class_without_a_source_is_named_by_its_numbers(tmp_path):
    def solver(factor):
        class Local(sb.Solver):
            name = "local"
            consistent = False

            def integrate(self, denoise, x, grid):
                return x + factor * denoise(x, grid.sigmas[0])

        return Local()

    def cell(factor):
        asked = {"solvers": solver(factor), "nfe": 1, "teachers": toys.teacher(), "out": tmp_path}
        options = RunOptions(**asked, samples=20, replicates=1, batch=4)
        [found] = resolve.resolve(options, Protocol.of(options))
        return found

    assert cell(0.5).key["solver"]["sources"] == [""]
    assert cell(0.5).address == cell(0.5).address != cell(0.25).address


def test_a_plugins_grid_is_named_by_its_source(files_of_a_plugin):
    text = f'{PLUGIN}\nfrom solverbench.method import grids\n@sb.register(kind="grid")\n'
    text += "def wide(schedule, steps):\n    return grids.logsnr(schedule, steps)\n"
    files_of_a_plugin(text)
    key = sb.make("euler:grid=wide").key
    assert re.fullmatch("[0-9a-f]{64}", key["grid"]["source"])
    files_of_a_plugin(text.replace("grids.logsnr", "grids.polynomial"))
    assert sb.make("euler:grid=wide").key != key


def test_the_rule_of_a_scheduler_holds_all_that_its_betas_come_from():
    """Whatever option changes the table changes the rule."""
    base = {"beta_schedule": "sigmoid", "num_train_timesteps": 100, "prediction_type": "v_prediction"}
    changes = [{"beta_start": 2e-4}, {"beta_end": 0.03}, {"beta_schedule": "linear"}, {"num_train_timesteps": 101}]
    changes += [{"rescale_betas_zero_snr": True}, {"trained_betas": [0.1, 0.2]}]
    changes += [{"_class_name": "CogVideoXDDIMScheduler", "snr_shift_scale": 2.0, "beta_start": 1e-4, "beta_end": 0.02}]
    for change in changes:
        read = [_settled(config) for config in (base, base | change)]
        table = [schedulers.alphas_cumprod(each) for each in read]
        assert table[0].shape != table[1].shape or not torch.equal(*table)
        assert schedulers.rule(read[0]) != schedulers.rule(read[1]), change


def test_equal_images_are_one_reference_whatever_their_features_round_to(tmp_path, monkeypatch):
    torch.manual_seed(0)
    images = toys.data(40)
    from PIL import Image

    for n, image in enumerate(images):
        values = ((image[0].clamp(-1, 1) + 1) * 127.5).byte().numpy()
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(values).save(tmp_path / "images" / f"{n:03}.png")
    shas = []
    for shift in (0.0, 1e-7):
        made = references.Extractor(lambda x, shift=shift: toys.extractor(x[:, :1]) + shift, "toy-projection")
        monkeypatch.setattr(reference_build, "extractor", lambda name, device="cpu", made=made: made)
        out = tmp_path / f"runs{shift}"
        reference_build.build("real", str(tmp_path / "images"), out)
        shas.append(references.load("real", out, "toy-projection").sha)
    assert shas[0] == shas[1]


def test_plans_fit_within_the_rounding_of_two_processors_alone():
    plan = sb.tableau("unipc", nfe=8).plan(80.0)
    assert Plan.of(json.loads(json.dumps(plan.as_dict()))) == plan
    near = Plan(plan.sigmas, tuple(tuple(w * (1 + 1e-10) for w in row) for row in plan.rows))
    far = Plan(plan.sigmas, tuple(tuple(w * (1 + 1e-6) for w in row) for row in plan.rows))
    assert plan.fits(near)
    assert not plan.fits(far)
    assert not plan.fits(sb.tableau("unipc", nfe=7).plan(80.0))
    with pytest.raises(ValueError, match="rows of"):
        Plan.of({"sigmas": [1.0, 0.5], "rows": [[1.0], [1.0]]})


def test_what_a_pipelines_levels_follow_from_is_in_the_key_of_that_grid_alone():
    def levels(steps):
        return torch.linspace(1e6, 1.0, steps, dtype=torch.float64)

    flow = sb.RectifiedFlow(t_start=1.0)
    plain, one, other = (flow.with_calls(levels, rule) for rule in (None, {"shift": 2.0}, {"shift": 3.0}))
    asked = [endpoints.goal(sb.make("euler:grid=pipeline"), 3, each).asked for each in (plain, one, other)]
    assert len(set(asked)) == 3
    unmoved = [endpoints.goal(sb.make("euler:grid=trailing"), 3, each).asked for each in (flow, plain, one, other)]
    assert len(set(unmoved)) == 1
