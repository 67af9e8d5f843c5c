"""Forms for other code as the command line and Python give them, without diffusers; what they refuse, in one line."""

import importlib.util
import json
import sys

import alone
import pytest
import torch
from click.testing import CliRunner

import solverbench as sb
from solverbench.cli.main import main
from solverbench.errors import BudgetError, MissingError, NeedsTrainingError, SpecError, UserError
from solverbench.export import export, frames
from solverbench.method.tableau import Plan


@pytest.fixture(scope="module")
def digits():
    return sb.load_teacher("digits")


@pytest.fixture
def noise():
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def invoke(*arguments):
    return CliRunner().invoke(main, ["zoo", "export", *map(str, arguments)], catch_exceptions=False)


@pytest.mark.parametrize("solver", ["gas", "gs", "dpm:order=3"])
@pytest.mark.parametrize(
    ("kind", "to", "files"),
    [
        ("json", "a.json", ["a.json"]),
        ("py", "a.py", ["a.py"]),
        ("k-diffusion", "a.py", ["a.py"]),
        ("diffusers", "a.py", ["a.py"]),
        ("diffusers", "a", ["a/scheduler_config.json", "a/tableau_scheduler.py"]),
    ],
)
def test_every_form_is_written_and_said(tmp_path, solver, kind, to, files):
    for _ in range(2):  # the second time over the first
        done = invoke(solver, "--nfe", 4, "--format", kind, "--to", tmp_path / to)
        assert done.exit_code == 0, done.output
        assert str(tmp_path / to) in done.stdout
        assert ("takes sigma and predicts the image" in done.stdout) is (kind == "diffusers")
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert found == files


def test_the_help_tells_the_forms_apart():
    text = " ".join(invoke("--help").stdout.split())
    for words in ("json|py|diffusers|k-diffusion", "scheduler for pipelines", "sampling function"):
        assert words in text


def test_a_schedulers_configuration_is_plain_numbers(tmp_path, digits):
    export.write("heun", 4, "digits", "diffusers", tmp_path / "a", tmp_path)
    config = json.loads((tmp_path / "a" / "scheduler_config.json").read_text())
    plan = sb.tableau("heun", nfe=4, teacher=digits).plan(80.0)
    assert config["_class_name"] == "TableauScheduler"
    assert (config["prediction_type"], config["alphas"]) == ("sample", [1.0] * 4)
    assert config["sigmas"] == config["timesteps"] == list(plan.sigmas)
    assert config["weights"] == [list(row) for row in plan.rows]
    assert (config["spec"], config["teacher_identity"]) == (sb.make("heun").spec, digits.identity)


def test_times_are_what_the_network_is_told():
    """Fractions of a step, and at pure noise the last one."""
    schedule = sb.RectifiedFlow(t_start=1.0)
    teacher = sb.Teacher(sb.Adapted(alone.network, schedule, "flow", told=lambda t: 1000 * t), "f", (1, 8, 8), schedule)
    tableau = sb.tableau("euler:end=zero", grid=[1e6, 3.0, 1.0, 0.1234, 0.0], teacher=teacher)
    config, own = export._config(export._exported(tableau, None, teacher, None), teacher)
    assert own
    assert config["num_train_timesteps"] == 1000
    assert config["timesteps"] == pytest.approx([1000, 750, 500, 1000 * 0.1234 / 1.1234])
    assert config["alphas"] == pytest.approx([1 / (1 + 1e6), 0.25, 0.5, 1 / 1.1234])


def test_a_time_beyond_pure_noise_is_told_as_the_last_one():
    """As our own executor tells it: a learned solver's times may lie there."""
    squares = torch.linspace(0.9999, 0, 1000, dtype=torch.float64)
    schedule = sb.VPDiscrete.from_alphas_cumprod(squares)
    told = []
    network = sb.Adapted(lambda y, t: told.append(float(t)) or y, schedule, "v", told=lambda t: 1000 * t - 1)
    teacher = sb.Teacher(network, "snr", (1, 8, 8), schedule)
    plan = Plan((3e6, 1.0), ((1.0,), (0.5, 0.5), (0.0, 0.0, 1.0)))
    sb.execute(plan, teacher.denoise, torch.ones(1, 1, 8, 8, dtype=torch.float64))
    assert frames.frame(teacher, plan).timesteps == pytest.approx(told, rel=1e-12)
    assert frames.frame(teacher, plan).steps == 1000
    assert told[0] == 999


@pytest.mark.parametrize("kind", ["json", "py", "k-diffusion"])
def test_a_folder_for_a_file_is_refused(tmp_path, kind):
    done = invoke("dpm", "--nfe", 4, "--format", kind, "--to", tmp_path)
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "is a folder; give the file to write" in done.stderr


def test_what_cannot_be_exported_says_why_and_writes_nothing(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file; give the folder of a scheduler"):
        export.write("dpm", 4, "digits", "diffusers", tmp_path / "file", tmp_path)
    for kind in ("diffusers", "k-diffusion"):
        with pytest.raises(BudgetError, match="heun with nfe=5"):
            export.write("heun", 5, "digits", kind, tmp_path / "a", tmp_path)
        with pytest.raises(NeedsTrainingError, match="gas nfe=12: not trained"):
            export.write("gas", 12, "digits", kind, tmp_path / "a", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_an_adaptor_of_a_solvers_own_is_refused(digits):
    class Doubled(type(sb.make("euler"))):
        def adapt(self, denoise):
            return lambda x, sigma: 2 * denoise(x, sigma)

    with pytest.raises(SpecError, match="by its own code"):
        sb.k_diffusion_sampler(Doubled(), nfe=3, teacher=digits)


def test_without_diffusers_its_scheduler_says_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "diffusers" else find(name))
    with pytest.raises(MissingError, match=r"pip install '(solverbench|\.)\[diffusers\]'"):
        sb.diffusers_scheduler("dpm", nfe=4, teacher="digits")


@pytest.mark.parametrize("spec", ["euler", "unipc:order=3", "dpm:threshold=true", "gas", "dpm:afs=true"])
def test_the_sampler_makes_our_samples(digits, noise, spec):
    sampler = sb.k_diffusion_sampler(spec, nfe=4, teacher=digits)
    with torch.no_grad():
        found = sampler(digits_by_vector(digits), noise * sampler.scale)
        plan = sb.tableau(sb.make(spec), nfe=4, teacher=digits).plan_from_noise(digits.schedule)
        expected = sb.execute(plan, sb.make(spec).adapt(digits.denoise), noise)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def digits_by_vector(digits):
    """A model of k-diffusion: the levels are a vector, all the same."""

    def model(x, sigma):
        assert sigma.shape == (len(x),)
        return digits.denoise(x, sigma[0].double())

    return model


def test_a_sampler_neither_changes_its_input_nor_keeps_a_graph(digits, noise):
    sampler = sb.k_diffusion_sampler("dpm", nfe=3, teacher=digits)
    x = (noise * 80).requires_grad_(True)
    before = x.detach().clone()
    assert not sampler(alone.denoise, x).requires_grad
    assert torch.equal(x, before)


def test_levels_other_than_its_own_are_refused(digits, noise):
    sampler = sb.k_diffusion_sampler("dpm", nfe=3, teacher=digits)
    x = noise * sampler.scale
    expected = sampler(alone.denoise, x)
    for own in (None, torch.tensor(sampler.sigmas), torch.tensor(sampler.sigmas, dtype=torch.float64)):
        assert torch.equal(sampler(alone.denoise, x, own), expected)
    other = torch.tensor(sampler.sigmas)
    other[1] *= 1.01
    for given in (other, torch.tensor([80.0, 1.0, 0.0]), torch.linspace(80, 0, 100)):
        with pytest.raises(
            ValueError, match=r"sample_dpm_3: sigmas 80.*its weights hold only for its own 4 levels"
        ) as caught:
            sampler(alone.denoise, x, given)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("spec", "nfe", "levels"),
    [("euler", 3, 4), ("euler:end=zero", 3, 4), ("heun", 4, 5), ("dpm:afs=true", 3, 5), ("gs", 3, 4)],
)
def test_a_samplers_levels_go_from_its_start_to_its_end(digits, spec, nfe, levels):
    sampler = sb.k_diffusion_sampler(spec, nfe=nfe, teacher=digits)
    assert len(sampler.sigmas) == levels
    assert sampler.sigmas[0] == pytest.approx(80)
    assert sampler.sigmas[-1] == pytest.approx(0 if "zero" in spec else 0.002)


@pytest.mark.parametrize("form", ["sampler", "scheduler"])
def test_text_of_a_spec_stays_text(form, digits):
    name = '\'"""\nraise SystemExit\n{spec}{}'
    exported = export.Exported(name, name, name, 80.0, False, sb.tableau("euler", nfe=2))
    if form == "sampler":
        space = {"__name__": "exported"}
        source = export.as_k_diffusion(exported)
        compile(source, "exported", "exec")
        tail = source[source.index("SPEC = ") : source.index("SAMPLER = ")]
        exec(tail, space)
        assert space["SPEC"] == space["TEACHER"] == space["TEACHER_IDENTITY"] == name
        assert "def sample__raise_SystemExit_spec__2(" in source
    else:
        source = export.as_scheduler(exported, digits)
        compile(source, "exported", "exec")
        space = {}
        exec(source[source.index("CONFIG = ") : source.index("def scheduler()")], space)
        assert space["CONFIG"]["spec"] == name


def test_a_sampler_loads_where_modules_are_not_registered(tmp_path, noise):
    """As loaders of extensions may: a dataclass looks its annotations up in sys.modules if they are text."""
    export.write("dpm", 4, "digits", "k-diffusion", tmp_path / "loose.py", tmp_path)
    spec = importlib.util.spec_from_file_location("loose", tmp_path / "loose.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert "loose" not in sys.modules
    assert module.sample_dpm_4(alone.denoise, noise * module.SCALE).shape == noise.shape


@pytest.mark.parametrize("kind", ["k-diffusion", "diffusers"])
def test_a_module_imports_nothing_of_ours_and_says_who_wrote_it(tmp_path, kind):
    export.write("dpm", 4, "digits", kind, tmp_path / "a.py", tmp_path)
    text = (tmp_path / "a.py").read_text()
    imported = [line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))]
    known = ("__future__", "collections.abc", "dataclasses", "typing", "math", "torch", "diffusers")
    assert all(name in known or name.startswith("diffusers.") for name in imported)
    assert f"Written by SolverBench {sb.__version__}" in text.splitlines()[0]
    assert "type: ignore" not in text
