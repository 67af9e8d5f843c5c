"""Plugins in files: loaded before anything starts, treated as built-ins are, and told apart when they change."""

import json
import pickle
import re
import sys
from pathlib import Path

import forks
import pytest
import torch
import toys
from plugged import EXAMPLES

import solverbench as sb
from solverbench import plugins, registries
from solverbench.bench import plan, resolve
from solverbench.bench import run as runner
from solverbench.bench.block import UnitTask
from solverbench.bench.protocol import Protocol
from solverbench.bench.run_options import RunOptions
from solverbench.bench.workers import ray_worker
from solverbench.errors import PluginError, SpecError, UnknownNameError
from solverbench.learned import recipes
from solverbench.learned.training import losses
from solverbench.learned.training.run import TrainingRun
from solverbench.method.solver import LearnedSolver
from solverbench.sampling.sample import Cancel

EXAMPLE = EXAMPLES["ab2.py"]
SMALL = {"samples": 20, "replicates": 1, "batch": 4}

ADAPTING = """
import solverbench as sb
class Halved(sb.Solver):
    name = "halved"
    def adapt(self, denoise):
        return lambda x, sigma: 0.5 * denoise(x, sigma)
    def integrate(self, denoise, x, grid):
        for here, there in zip(grid.sigmas[:-1], grid.sigmas[1:]):
            x = x + (there - here) * (x - denoise(x, here)) / here
        return x
"""


def run(solvers, out, **options):
    return runner.run(RunOptions(solvers=solvers, teachers=toys.teacher(), out=out, **(SMALL | {"nfe": "4"} | options)))


def cell(solver, out="runs", teacher=None, **options):
    """The one cell of a solver at 4 calls."""
    asked = {"solvers": solver, "nfe": 4, "teachers": teacher or toys.teacher(), "out": out}
    given = RunOptions(**asked, samples=20, replicates=1, batch=4, **options)
    [found] = resolve.resolve(given, Protocol.of(given))
    return found


def test_a_solver_from_a_file_is_counted_shared_and_kept(examples):
    plugins.load("ab2.py")
    alone = run("ab2", "alone")
    assert [each.status for each in alone.cells] == ["done"]
    planned = plan.plan(RunOptions(solvers="ab2,euler", nfe="4", teachers=toys.teacher(), out="grid", **SMALL))
    assert planned.needed == planned.asked - 2  # the first step is the same, and so are two calls
    among = run("ab2,euler,dpm", "grid", workers=2)
    path = f"cells/{alone.cells[0].cell.address[:2]}/{alone.cells[0].cell.address}/**/*"
    found = toys.files_of(Path("alone"), pattern=path)
    assert len(found) == 12  # cell.json, metrics.json, ten blocks
    assert found == toys.files_of(Path("grid"), pattern=path)
    assert [each.measures["rmse_teacher"].n for each in among.cells] == [20] * 3
    assert [each.status for each in run("ab2", "grid").cells] == ["cached"]


def test_an_interrupted_run_of_a_plugin_goes_on(examples):
    plugins.load("ab2.py")
    run("ab2", "whole")
    whole = toys.files_of(Path("whole"))
    run("ab2", "broken")
    next(Path("broken").glob("cells/*/*/metrics.json")).unlink()
    blocks = sorted(Path("broken").glob("cells/*/*/blocks/*.npz"))
    for path in blocks[3:]:
        path.unlink()
    [planned] = plan.plan(RunOptions(solvers="ab2", nfe="4", teachers=toys.teacher(), out="broken", **SMALL)).cells
    assert (planned.status, planned.blocks_done, planned.blocks_missing) == ("partial", 3, 7)
    run("ab2", "broken")
    assert toys.files_of(Path("broken")) == whole


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import solverbench as sb\nimport nowhere\n", "mine.py:2: ModuleNotFoundError: No module named 'nowhere'"),
        ("x = 1\n\ndef f(:\n", "mine.py:3: SyntaxError: invalid syntax"),
        ("def f():\n    return 1 / 0\n\nf()\n", "mine.py:2: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(0)\n", "mine.py:2: SystemExit: 0"),
        ("import json\njson.loads('{')\n", "mine.py:2: JSONDecodeError: Expecting property name"),
        ("\n\neval('1 +')\n", "mine.py:3: SyntaxError: invalid syntax"),
        ("x = 1\0\n", "Error: source code string cannot contain null bytes"),
        ("x = 1\n", "mine.py: registers nothing; give its solver a `name`"),
        ("import solverbench as sb\nclass A(sb.Solver):\n    name = 'a'\n", "mine.py: registers nothing"),
        (
            "import solverbench as sb\nclass A(sb.Solver):\n    name = 'E 2'\n    def integrate(self, d, x, g): ...\n",
            "mine.py: A: name 'E 2'; give the class a lowercase word",
        ),
        (
            "import solverbench as sb\n@sb.register(kind='grid')\ndef karras(schedule, steps): ...\n",
            "mine.py:2: grid 'karras': already registered by ",
        ),
        (
            "import solverbench as sb\n@sb.register(kind='solver')\ndef mine(): ...\n",
            "which isn't a Solver; derive its class from solverbench.Solver",
        ),
        (
            "import solverbench as sb\n@sb.register\ndef mine(): ...\n",
            "mine.py:2: mine: its kind can't be recognised; register it with",
        ),
        (
            "import solverbench as sb\n@sb.register(kind='gird')\ndef mine(): ...\n",
            "mine: kind='gird' isn't known; register it with kind='solver' or 'teacher' or 'grid' or "
            "'metric' or 'extractor' or 'loss'",
        ),
        ("import solverbench as sb\nsb.register(3, kind='grid', name='three')\n", "3, which can't be called"),
        (
            "import solverbench as sb\nfrom solverbench.baselines.euler import Euler\nclass Mine(Euler):\n    pass\n",
            "mine.py: registers nothing; give its solver a `name`",
        ),
    ],
)
def test_a_file_that_fails_is_refused_in_one_line_before_anything_starts(examples, invoke, text, said):
    result = invoke("run", "--plugin", examples("mine.py", text), "--solvers", "euler", "--nfe", "3")
    assert result.exit_code == 3
    assert said in result.line
    assert re.match(r"Error: plugin \S*mine.py", result.line)
    assert result.stderr.count("\n") == 1
    assert not Path("runs").exists()
    assert "mine" not in [*registries.solvers, *registries.grids]


def test_a_file_that_is_absent_is_refused(examples, invoke):
    result = invoke("list", "--plugin", "nix.py")
    assert result.exit_code == 3
    assert result.line == (
        "Error: plugin nix.py: can't be read (No such file or directory); give the path of a Python file"
    )
    assert "Is a directory" in invoke("info", "euler", "--plugin", ".").line


def test_a_file_that_fails_in_the_end_leaves_nothing_behind(examples, invoke):
    text = EXAMPLE.replace("class AB2", "@sb.register\nclass AB2")
    invoke("list", "--plugin", examples("mine.py", text + "\n1 / 0\n"))
    assert "ab2" not in registries.solvers
    assert not [name for name in sys.modules if name.startswith("solverbench_plugin_mine")]
    assert invoke("list", "--plugin", examples("mine.py", EXAMPLE)).exit_code == 0
    assert "ab2" in registries.solvers


def test_two_files_with_one_name_are_refused_naming_both(examples, invoke):
    examples("again.py", EXAMPLE)
    result = invoke("list", "--plugin", "ab2.py", "--plugin", "again.py")
    assert result.exit_code == 3
    assert re.search(r"again.py: solver 'ab2': already registered by file .*/ab2.py; choose another name", result.line)


def test_a_changed_file_is_run_again_and_an_equal_one_is_not(examples):
    first = plugins.load("ab2.py")
    assert plugins.load(Path("ab2.py").resolve()) is first
    examples("ab2.py", EXAMPLE.replace("blend: float = sb.option(1.0", "blend: float = sb.option(0.25"))
    assert plugins.load("ab2.py") is not first
    assert sb.make("ab2").blend == 0.25


def test_plugins_stand_in_a_config_file(examples, invoke):
    both = 'plugin = ["ab2.py", "harmonic.py"]\nsolvers = "ab2:grid=harmonic"\nnfe = "3"\n'
    result = invoke("plan", "--config", examples("both.toml", both), "--json")
    assert result.exit_code == 0, result.stderr
    [planned] = json.loads(result.stdout.splitlines()[-1])["cells"]
    assert planned["spec"] == "ab2:blend=1:grid=harmonic"
    result = invoke("plan", "--config", examples("one.toml", 'plugin = "ab2.py"\nsolvers = "ab2"\nnfe = "3"\n'))
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--help"], ["plan", "--help"], ["list", "--help"], ["info", "--help"], ["train", "--help"],
        ["sample", "--help"], ["doctor", "--help"], ["reproduce", "--help"], ["zoo", "list", "--help"],
        ["zoo", "show", "--help"], ["zoo", "export", "--help"], ["zoo", "add", "--help"], ["zoo", "import", "--help"],
        ["teachers", "list", "--help"], ["teachers", "info", "--help"], ["teachers", "verify", "--help"],
        ["refs", "build", "--help"],
    ],
)  # fmt: skip
def test_each_command_that_looks_names_up_takes_plugins(invoke, words):
    assert "--plugin FILE.py" in invoke(*words).stdout


def test_info_names_the_plugin(examples, invoke):
    said = invoke("info", "ab2", "--plugin", "ab2.py").stdout
    assert f"plugin   file {Path('ab2.py').resolve()}, sha256 " in said
    assert re.search(r"defined  .*/ab2.py:4", said)
    assert "paper    Hairer" in said


def test_the_report_names_the_plugin_and_how_to_run_it_again(examples):
    plugins.load("ab2.py")
    record = json.loads((run("ab2,euler", "runs").folder / "bundle.json").read_text())
    path = str(Path("ab2.py").resolve())
    assert f" --plugin {path} " in record["command"]
    sha = registries.fingerprint(registries.solvers.get("ab2"))
    assert record["environment"]["plugin solver ab2"] == f"file {path}, AB2, sha256 {sha[:16]}"
    assert "plugin solver euler" not in record["environment"]
    assert "hairer1993" in record["bibtex"]
    named = [json.loads(p.read_text())["names"] for p in Path("runs").glob("cells/*/*/cell.json")]
    told = {"source": f"file {path}", "target": "AB2", "sha256": sha}
    assert {"solver ab2": told} in [each.get("plugins") for each in named]
    assert sum("plugins" in each for each in named) == 1


def test_what_to_train_is_said_with_the_plugin(examples):
    plugins.load("ab2.py")
    assert run("gs,euler", "runs").cells[0].reason.endswith(f" --plugin {Path('ab2.py').resolve()}")


def test_a_change_of_what_is_executed_makes_another_cell_and_a_comment_does_not(examples):
    plugins.load("ab2.py")
    before = cell("ab2").address
    examples("ab2.py", "# Adams and Bashforth.\n" + EXAMPLE)
    plugins.load("ab2.py")
    assert cell("ab2").address == before
    examples("ab2.py", EXAMPLE.replace("(2 * past[1])", "(3 * past[1])"))
    plugins.load("ab2.py")
    assert cell("ab2").address != before


def test_a_change_beside_the_plan_makes_another_cell(examples):
    """What `adapt` makes of the denoiser is in no plan."""
    plugins.load(examples("mine.py", ADAPTING))
    before = cell("halved")
    plugins.load(examples("mine.py", ADAPTING.replace("0.5", "0.6")))
    after = cell("halved")
    assert before.plan == after.plan
    assert before.address != after.address
    assert "adapt" not in cell("dpm:threshold=true").key


def test_a_class_defined_anew_takes_the_place_of_the_old_one():
    def define(value):
        @sb.register
        class Mine(sb.Solver):
            """One step."""

            name = "mine"

            def integrate(self, denoise, x, grid):
                return value * denoise(x, grid.sigmas[0])

    define(1.0)
    define(0.5)
    assert float(sb.tableau("mine", nfe=1).weights[1, 1]) == 0.5


def test_another_class_of_a_taken_name_is_refused():
    class One(sb.Solver):
        name = "mine"

        def integrate(self, denoise, x, grid):
            return x

    class Two(One):
        pass

    sb.register(One)
    with pytest.raises(SpecError, match=r"solver 'mine': already registered by file .*; choose another name"):
        sb.register(Two)
    assert sb.register(sb.make("euler").__class__).name == "euler"  # a built-in is what it is


def test_a_solver_whose_options_fail_is_blamed(examples, invoke):
    failing = "    def __post_init__(self):\n        super().__post_init__()\n        {}['x']\n\n"
    text = EXAMPLE.replace("    def integrate", failing + "    def integrate")
    result = invoke("plan", "--plugin", examples("mine.py", text), "--solvers", "ab2", "--nfe", "3")
    assert result.exit_code == 3
    assert re.match(r"Error: solver 'ab2' of file .*mine.py: .*mine.py:\d+: KeyError: 'x'; correct it", result.line)


def test_a_loop_that_fails_fails_its_cells_alone(examples):
    plugins.load(examples("mine.py", EXAMPLE.replace("past = None\n", "past = None\n        1 / 0\n", 1)))
    result = run("ab2,euler", "runs")
    assert [each.status for each in result.cells] == ["failed", "done"]
    assert "ZeroDivisionError" in result.cells[0].reason


def test_a_grid_by_a_plugin_is_a_grid_of_every_solver(examples):
    plugins.load("harmonic.py")
    sigmas = sb.tableau("dpm:grid=harmonic", nfe=4).levels
    steps = (1 / (1 + sigmas)).diff()
    assert (steps - steps.mean()).abs().max() < 1e-6
    assert sigmas[0] == 80
    assert cell("dpm:grid=harmonic").plugins["grid harmonic"]["target"] == "harmonic"
    with pytest.raises(SpecError, match="this grid has no rho"):
        sb.make("dpm:grid=harmonic:rho=3")
    text = "import torch\nimport solverbench as sb\n@sb.register(kind='grid')\ndef bent(schedule, steps, *, rho=2.0):\n"
    text += "    return sb.Grid(torch.linspace(80 ** (1 / rho), 0.1, steps + 1).double() ** rho, schedule)\n"
    plugins.load(examples("bent.py", text))
    assert sb.make("euler:grid=bent").spec == "euler:afs=false:end=sigma_min:grid=bent:rho=2:threshold=false"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return [3, 2]", "grid 'mine': returned [3, 2] where a Grid of 4 was asked for; correct the plugin"),
        ("return sb.make('euler').grid(schedule, 2)",
         "grid 'mine': returned a grid of 2 steps where a Grid of 4 was asked for"),
        ("return {}['x']", "mine.py:4: KeyError: 'x'; correct it"),
    ],
)  # fmt: skip
def test_a_grid_that_fails_fails_its_cells_alone(examples, body, said):
    text = f"import solverbench as sb\n@sb.register(kind='grid')\ndef mine(schedule, steps):\n    {body}\n"
    plugins.load(examples("mine.py", text))
    result = run("dpm:grid=mine,euler", "runs")
    assert [each.status for each in result.cells] == ["failed", "done"]
    assert said in result.cells[0].reason


def test_a_teacher_by_a_plugin_has_options(examples):
    plugins.load("blob.py")
    teacher = sb.load_teacher("blob:width=2")
    assert (teacher.name, teacher.identity) == ("blob-width=2", "gaussian 2.0")
    x = torch.ones(1, 1, 8, 8)
    assert teacher.denoise(x, torch.tensor(2.0)).mean() == 0.5
    with pytest.raises(SpecError, match="no option 'height'; it takes width"):
        sb.load_teacher("blob:height=2")


@pytest.mark.parametrize(
    ("body", "said"), [("return 3", "its loader returned 3, not a Teacher"), ("return {}['w']", "KeyError: 'w'")]
)
def test_a_teacher_that_fails_is_blamed(examples, invoke, body, said):
    text = f"import solverbench as sb\n@sb.register(kind='teacher')\ndef mine(device):\n    {body}\n"
    result = invoke("run", "--plugin", examples("mine.py", text), "--teachers", "mine", "--solvers", "euler")
    assert result.exit_code == 3
    assert said in result.line
    assert not Path("runs").exists()


def test_a_loss_by_a_plugin_trains(examples):
    plugins.load("charbonnier.py")
    gap = torch.full((2, 1, 8, 8), 3.0)
    distance = losses.distance("charbonnier", toys.teacher())
    assert distance(gap, torch.zeros_like(gap)).tolist() == pytest.approx([(9 + 1e-4) ** 0.5] * 2)
    job = _job("charbonnier")
    assert job.recipe.loss == "charbonnier"
    with pytest.raises(SpecError, match="loss=nix: isn't one of its values; use charbonnier, features, huber"):
        _job("nix")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise RuntimeError('boom')", r"mine\.py:\d+: RuntimeError: boom; correct it"),
        ("return None", r"loss 'mine' of .*mine\.py: returned None, which can't be called"),
        ("return lambda a, b: 1 / 0", r"mine\.py:\d+: ZeroDivisionError"),
        ("return lambda a, b: (a - b).mean()", r"returned shape \(\) for 3 images; return one number for each"),
        ("return lambda a, b: 0.5", r"returned 0\.5 for 3 images"),
        ("return lambda a, b: (a - b).detach().flatten(1).mean(1)", "carries no gradient to the student's images"),
        ("return lambda a, b: (a - b).flatten(1).mean(1) / 0", "isn't finite for finite images; correct it"),
    ],
)
def test_a_loss_that_fails_is_blamed(examples, invoke, body, said):
    text = f"import solverbench as sb\n@sb.register(kind='loss')\ndef mine(teacher):\n    {body}\n"
    plugins.load(examples("mine.py", text))
    student = torch.ones(3, 1, 8, 8, requires_grad=True)
    with pytest.raises(PluginError, match=said):
        losses.distance("mine", toys.teacher())(student, torch.zeros(3, 1, 8, 8))


def test_a_loss_that_can_t_be_had_is_told_before_the_images_are_made(examples, invoke):
    text = "import solverbench as sb\n@sb.register(kind='loss')\ndef mine(teacher):\n    return None\n"
    settings = ["--set", "loss=mine", "--set", "iterations=1"]
    result = invoke("train", "gs", "--nfe", "3", "--plugin", examples("mine.py", text), *settings, "--out", "made")
    assert (result.exit_code, result.line.startswith("Error: loss 'mine' of ")) == (3, True)
    assert not list(Path("made").glob("targets/*"))


def test_a_changed_loss_or_learned_solver_trains_in_a_folder_of_its_own(examples):
    plugins.load("charbonnier.py")
    usual, before = _job("l2").folder(Path("runs")), _job("charbonnier").folder(Path("runs"))
    examples("charbonnier.py", Path("charbonnier.py").read_text().replace("1e-4", "1e-3"))
    plugins.load("charbonnier.py")
    assert len({usual, before, _job("charbonnier").folder(Path("runs"))}) == 3
    assert _job("l2").folder(Path("runs")) == usual


def _job(loss):
    recipe = recipes.load("gs", "digits").override([f"loss={loss}"])
    solver = sb.make("gs")
    assert isinstance(solver, LearnedSolver)
    return TrainingRun(solver, 3, toys.teacher(), recipe, 0)


def test_asking_for_what_nobody_offers_is_as_before(examples):
    plugins.load("ab2.py")
    with pytest.raises(UnknownNameError, match="solver 'ab22': not registered; did you mean 'ab2'"):
        sb.make("ab22")


WORKER = """
import pickle, sys
from solverbench.bench.workers.ray_worker import RayWorker
held, order = pickle.load(open("sent.pickle", "rb"))
[done], made = RayWorker("/nowhere", (), held).do(order, {})
pickle.dump(done.result.arrays, open("back.pickle", "wb"))
"""


def test_a_worker_gets_the_files_from_the_run(examples):
    """A process that has never seen the files, which are gone by then."""
    for name in ("ab2.py", "harmonic.py", "blob.py", "contrast.py"):
        plugins.load(name)
    asked = cell("ab2:grid=harmonic", teacher="blob:width=0.5", metrics="contrast")
    block = asked.protocol.blocks[0]
    order = pickle.dumps(ray_worker.RemoteUnit.of([asked], block, [], Path("runs")))
    Path("sent.pickle").write_bytes(pickle.dumps((plugins.loaded(), order)))
    for held in plugins.loaded():
        Path(held.path).unlink()
    forks.run(["-c", WORKER], check=True)
    arrays = pickle.loads(Path("back.pickle").read_bytes())
    [here] = UnitTask([asked], block, Path("here"), Cancel())()
    assert {name: each.tolist() for name, each in arrays.items()} == {
        name: each.tolist() for name, each in here.result.arrays.items()
    }
    assert list(arrays) == ["errors", "score_contrast", "statistics"]
    assert len(arrays["errors"]) == 2


def test_a_worker_that_cannot_run_a_file_says_why(examples):
    held = plugins.Held("/somewhere/mine.py", b"import nowhere\n")
    with pytest.raises(PluginError, match=r"plugin /somewhere/mine\.py:1: ModuleNotFoundError: No module named 'now"):
        ray_worker.RayWorker("/nowhere", (), (held,)).do(b"", {})


def test_on_a_cluster_of_ray_plugins_give_the_same_bytes(examples):
    pytest.importorskip("ray")
    plugins.load("ab2.py")
    plugins.load("contrast.py")
    options = {
        "solvers": "ab2,euler",
        "nfe": "3",
        "teachers": "mixture",
        "metrics": "contrast",
        **SMALL,
        "exact": False,
    }
    runner.run(RunOptions(out="here", **options))
    runner.run(RunOptions(out="there", engine="ray", workers=1, **options))
    here = toys.files_of(Path("here"), pattern="cells/**/*")
    assert here == toys.files_of(Path("there"), pattern="cells/**/*")
    assert len(here) == 24


def test_what_was_registered_in_a_notebook_goes_to_a_worker(examples):
    """Of a class that no module has, the order carries the class itself, as Ray's own pickling allows."""

    @sb.register
    class Level(sb.Metric):
        """Mean level."""

        name = "level"

        def values(self, images):
            return images.double().flatten(1).mean(1)

    asked = cell("euler", metrics="level")
    [(kind, offer)] = ray_worker.RemoteUnit.of([asked], asked.protocol.blocks[0], [], Path("runs")).typed
    assert (kind, offer.thing) == ("metric", Level)
    assert ray_worker.RemoteUnit.of([cell("euler")], asked.protocol.blocks[0], [], Path("runs")).typed == ()
    registries.metrics.withdraw("level")
    registries.metrics.adopt(offer)
    assert registries.metrics.get("level") is Level
