"""Faults in plugins: each fails what it is in and nothing else, and the reason says what is wrong, and where."""

import json
import re
from pathlib import Path

import pytest
import torch
import toys

import solverbench as sb
from solverbench import conformance, plugins, registries
from solverbench.bench import run as runner
from solverbench.bench.run_options import RunOptions
from solverbench.errors import LoopError, NotLinearError

pytestmark = pytest.mark.usefixtures("unrendered", "remembered", "few_compared", "forked_checks")

SMALL = ("--nfe", "5", "--samples", "20", "--replicates", "1", "--no-exact")

SOLVER = '''
import solverbench as sb


class Faulty(sb.Solver):
    """A test's own."""

    name = "faulty"
    paper = "none"
    METHODS
    def integrate(self, denoise, x, grid):
        for n in range(grid.steps):
            s, t = grid.sigmas[n], grid.sigmas[n + 1]
            BODY
        return x
'''

STEP = "x = x + (t - s) * (x - denoise(x, s)) / s"


def solver(body=STEP, methods="", result="return x"):
    return SOLVER.replace("BODY", body).replace("METHODS", methods).replace("return x", result)


def run(solvers, **options):
    given = {"teachers": toys.teacher(), "out": "runs", "samples": 20, "replicates": 1, "batch": 4, "nfe": "5"}
    return runner.run(RunOptions(solvers=solvers, **(given | options)))


def line(text, part):
    """The number of the line of `text` that holds `part`."""
    return 1 + next(n for n, each in enumerate(text.splitlines()) if part in each)


INTEGRATE = "def integrate"

FAULTS = {
    "no return": (solver(result="pass"), INTEGRATE, "integrate returned None; return the final state"),
    "a tuple": (
        solver(result="return x, 1"), INTEGRATE,
        "integrate returned an object of type tuple; return the final state",
    ),
    "a shape": (
        solver(result="return x[None]"), INTEGRATE,
        "integrate returned a tensor (1, 8, 2, 2, 2) for a state (8, 2, 2, 2); return the final state",
    ),
    "item": (
        solver("s = s.item().sqrt()"), ".item()",
        "AttributeError: 'float' object has no attribute 'sqrt'; keep levels and coefficients as 0-d tensors, "
        "without .item() or float()",
    ),
    "in place": (
        solver("d = denoise(x, s)\n            x += (t - s) * (x - d) / s"), "x +=",
        "x is changed in place after denoise was called with it; make a new tensor, as in x = x + d in place of x += d",
    ),
    "endless": (
        solver(f"while True:\n                {STEP}"), STEP,
        "the loop calls denoise more than 4 times a step and doesn't end; end it at grid.steps: the grid fixes the "
        "steps, an adaptive step size can't be run",
    ),
    "raises": (
        solver(f"if n == 4:\n                raise RuntimeError('no fifth step')\n            {STEP}"), "raise ",
        "RuntimeError: no fifth step; fix it there",
    ),
    "typo": (solver("x = denosie(x, s)"), "denosie", "NameError: name 'denosie' is not defined; fix it there"),
    "exit": (solver("raise SystemExit(7)"), "SystemExit", "SystemExit: 7; fix it there"),
    "no state": (solver("x = denoise(None, s)"), "None", "denoise gets None as x; pass it the state"),
    "all levels": (
        solver("x = denoise(x, grid.sigmas)"), "denoise(x, grid",
        "denoise gets a tensor (6,) as sigma; pass it one level, such as grid.sigmas[n]",
    ),
    "steps": (
        solver(methods="def steps(self, nfe):\n        return 'two'\n"), "def steps",
        "steps(5) returned 'two'; return the number of grid intervals",
    ),
    "no steps": (
        solver(methods="def steps(self, nfe):\n        return 0\n"), "def steps",
        "steps(5) returned 0; return the number of grid intervals",
    ),
    "no grid": (
        solver(methods="def grid(self, schedule, steps):\n        pass\n"), "def grid",
        "grid returned None; return a Grid",
    ),
    "a rising grid": (
        solver(methods="def grid(self, schedule, steps):\n        return sb.Grid(super().grid(schedule, steps)"
                       ".sigmas.flip(0), schedule)\n"), "sb.Grid(",
        "levels must strictly decrease; fix it there",
    ),
    "adapt": (
        solver(methods="def adapt(self, denoise):\n        return 1 / 0\n"), "1 / 0",
        "ZeroDivisionError: division by zero",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_solver_fails_its_cells_alone_and_says_what_and_where(examples, fault):
    text, part, said = FAULTS[fault]
    plugins.load(examples("faulty.py", text))
    faulty, euler = run("faulty,euler").cells
    assert (faulty.status, euler.status) == ("failed", "done")
    place = f"{Path('faulty.py').resolve()}:{line(text, part)}: "
    assert faulty.reason.startswith(place)
    assert faulty.reason.endswith(said)


def test_whoever_interrupts_a_run_is_obeyed_in_a_plugin_too(examples):
    plugins.load(examples("faulty.py", solver("raise KeyboardInterrupt")))
    with pytest.raises(KeyboardInterrupt):
        run("faulty,euler")


def test_a_loop_that_runs_on_images_alone_is_told_so():
    class Shaped(sb.Solver):
        name = "shaped"

        def integrate(self, denoise, x, grid):
            return denoise(x, grid.sigmas[0]) * x.shape[1]

    said = r"on images, but not on .* test_faults\.py:\d+: IndexError: tuple index out of range; use no shapes, reduct"
    with pytest.raises(NotLinearError, match=said.replace(" test", " .*test")):
        sb.tableau(Shaped(), nfe=2)


def test_a_copy_may_be_changed_in_place():
    class Copying(sb.Solver):
        name = "copying"

        def integrate(self, denoise, x, grid):
            for n in range(grid.steps):
                d = denoise(x, grid.sigmas[n])
                x = x.clone()
                x -= d
                x *= grid.sigmas[n + 1] / grid.sigmas[n]
                x += d
            return x

    assert sb.tableau(Copying(), nfe=3).equals(sb.tableau("euler", nfe=3))


def test_a_change_in_place_of_what_was_made_in_the_loop_is_found():
    class Later(sb.Solver):
        name = "later"

        def integrate(self, denoise, x, grid):
            x = 1.0 * x
            d = denoise(x, grid.sigmas[0])
            torch.sub(x, d, out=x)
            return x

    with pytest.raises(LoopError, match=r"test_faults\.py:\d+: x is changed in place after"):
        sb.tableau(Later(), nfe=1)


@pytest.mark.parametrize("fault", ["no return", "raises", "exit", "endless"])
def test_check_says_a_reason_once(examples, invoke, fault):
    text, part, said = FAULTS[fault]
    result = invoke("check", examples("faulty.py", text))
    assert result.exit_code == 4
    failed = [each.split(maxsplit=2)[1:] for each in result.stdout.splitlines() if each.startswith("  fail ")]
    assert failed[0] == ["nfe", f"{Path('faulty.py').resolve()}:{line(text, part)}: {said}"]
    assert len(failed) > 10
    assert {why for _, why in failed[1:]} == {"the same as nfe"}


def test_what_a_check_can_place_nowhere_is_placed_at_the_class(examples):
    (subject,) = [sb.make(name) for _, name in plugins.offered(plugins.load(examples("faulty.py", solver(
        methods="def grid(self, schedule, steps):\n        pass\n"))))]  # fmt: skip
    found = [each.finding for each in conformance.run_all(subject) if not each.passed]
    assert all(re.match(r"the same as |.*faulty\.py:\d+: ", each) for each in found)


TEACHER = """
import solverbench as sb

@sb.register(kind="teacher")
def faulty(device):
    def denoise(x, sigma):
        BODY
    return sb.Teacher(denoise, "faulty", (1, 8, 8), identity="of a test", device=device)
"""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return None", r"denoise returned None for a state \(2, 1, 8, 8\); return the data prediction"),
        ("return x / (1 // 0)", r"faulty\.py:7: ZeroDivisionError: integer division or modulo by zero"),
        ("raise SystemExit(5)", r"faulty\.py:7: SystemExit: 5"),
    ],
)
def test_a_fault_in_a_teacher_fails_its_cells_alone(examples, invoke, body, said):
    plugin = examples("faulty.py", TEACHER.replace("BODY", body))
    result = invoke("run", "--plugin", plugin, "--teachers", "faulty,mixture", "--solvers", "euler", *SMALL, "--json")
    counts = json.loads(result.stdout.splitlines()[-1])["counts"]
    assert {status: count for status, count in counts.items() if count} == {"done": 1, "failed": 1}
    assert re.search(rf"euler nfe=5 on faulty: failed, .*{said}", result.stdout)
    assert Path(json.loads(result.stdout.splitlines()[-1])["report"], "report.html").exists()


@pytest.mark.parametrize("body", ["return x / (1 // 0)", "raise SystemExit(5)"])
def test_a_plan_says_which_teacher_fails(examples, invoke, body):
    plugin = examples("faulty.py", TEACHER.replace("BODY", body))
    result = invoke("plan", "--plugin", plugin, "--teachers", "faulty,mixture", "--solvers", "euler", *SMALL)
    assert result.exit_code == 3
    assert re.search(
        r"teacher 'faulty' of file .*faulty\.py:7: (ZeroDivisionError|SystemExit): .*; correct it", result.line
    )


def test_a_grid_that_rises_fails_its_cells_alone(examples, invoke):
    text = "import torch\nimport solverbench as sb\n@sb.register(kind='grid')\ndef rising(schedule, steps):\n"
    text += "    return sb.Grid(torch.linspace(1, 80, steps + 1).double(), schedule)\n"
    plugin = examples("rising.py", text)
    result = invoke("run", "--plugin", plugin, "--teachers", "mixture", "--solvers", "euler:grid=rising,euler", *SMALL)
    path = Path(plugin).resolve()
    assert f"euler:grid=rising nfe=5 on mixture: failed, {path}:5: grid 1+16.8" in result.stdout
    assert "16.8 follows 1; levels must strictly decrease; fix it there" in result.stdout
    assert "2 cells: 1 done, 1 failed" in result.stdout
    rising = invoke("run", "--teachers", "mixture", "--solvers", "euler:grid=1+2+3,euler", *SMALL)
    assert (rising.exit_code, rising.stdout) == (2, "")  # the levels are the user's own


def test_a_metric_that_cannot_be_made_is_a_row_with_its_reason(examples, invoke):
    text = "import solverbench as sb\nclass M(sb.Metric):\n    '''Bad.'''\n    name = 'bad'\n"
    text += "    def __init__(self, device='cpu'):\n        raise RuntimeError('no weights')\n"
    text += "    def values(self, images): ...\n"
    plugin = examples("bad.py", text)
    result = invoke(
        "run", "--plugin", plugin, "--metrics", "bad", "--teachers", "mixture", "--solvers", "euler", *SMALL
    )
    path = Path(plugin).resolve()
    assert result.exit_code == 1
    assert f"no bad of mixture: metric 'bad' of file {path}: {path}:6: RuntimeError: no weights; correct it" in (
        result.stdout
    )
    assert "1 cell: 1 done" in result.stdout


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("k: int = sb.option('three')", "the default of option 'k': 'three' is str; give int"),
        (
            "k: str = sb.option('a', choices=('b', 'c'))",
            "the default of option 'k': a isn't one of its values; use b or c",
        ),
        ("k: list = sb.option(())", "option 'k' is declared as list; declare a bool, int, float or str"),
        ("k: 'nowhere' = sb.option(1)", "the types of its options can't be read (NameError: name 'nowhere' is not"),
    ],
)
def test_an_option_with_an_impossible_default_is_refused_when_it_is_loaded(examples, invoke, monkeypatch, option, said):
    text = solver(methods=option + "\n")
    result = invoke("run", "--plugin", examples("faulty.py", text), "--solvers", "euler", *SMALL)
    path = Path("faulty.py").resolve()
    assert result.exit_code == 3
    assert result.line.startswith(f"Error: plugin {path}: solver 'faulty': {path}:{line(text, 'class Faulty')}: {said}")
    package = Path("faulty-1.0.dist-info")
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[solverbench.solvers]\nfaulty = offered:Faulty\n")
    examples("offered.py", text)
    monkeypatch.syspath_prepend(Path.cwd())
    assert re.search(rf"faulty +unavailable: .*{re.escape(said)}", invoke("list").stdout)
    asked = invoke("plan", "--solvers", "faulty", *SMALL)
    assert (asked.exit_code, said in asked.line) == (3, True)
    assert invoke("plan", "--solvers", "euler", "--teachers", "mixture", *SMALL).exit_code == 0


def test_a_class_without_a_loop_is_told_what_it_lacks(examples, invoke):
    text = "import solverbench as sb\nclass A(sb.Solver):\n    name = 'a'\n"
    said = invoke("list", "--plugin", examples("mine.py", text)).line
    assert said.endswith("registers nothing; its class A has a name, but no `integrate`; define that")


def test_info_says_what_a_metric_a_grid_and_a_loss_are(examples, invoke):
    said = invoke("info", "contrast", "--plugin", "contrast.py").stdout.splitlines()
    path = Path("contrast.py").resolve()
    assert said[0] == "contrast: Contrast of an image, the deviation of its grey levels."
    assert said[1:3] == ["  kind     metric", f"  defined  {path}:4"]
    assert said[3].startswith(f"  plugin   file {path}, sha256 ")
    assert said[4] == "  better   higher"
    assert "  kind     grid" in invoke("info", "harmonic", "--plugin", "harmonic.py").stdout
    assert "  kind     loss" in invoke("info", "charbonnier", "--plugin", "charbonnier.py").stdout
    karras = invoke("info", "karras").stdout
    assert karras.startswith("polynomial = karras: ")
    assert karras.endswith("  options\n    rho = 7\n")
    assert "  kind     metric" in invoke("info", "fid").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("check", "contrast.py"), "contrast.py: has only metric 'contrast'; only solvers, teachers and extractors"),
        (("check", "karras"), "check karras: is a grid; only solvers, teachers and extractors"),
        (("info", "heun:q=1"), "heun has no option 'q'; it has afs, "),
        (("info", "heun:Grid=1"), "heun has no option 'Grid'; did you mean 'grid'? It has afs, "),
        (("run", "--metrics", "zzz"), "metric 'zzz': not known; known are fid, "),
        (("run", "--metrics", "FID"), "metric 'FID': not known; did you mean 'fid'? Known are fid, "),
        (("train", "gs", "--nfe", "3", "--set", "zzz=1", "--show-recipe"), "there is no setting 'zzz'; there are "),
        (("info", "GAS"), "solver 'GAS': not registered; did you mean 'gas'? See "),
        (("check", "HEUN"), "check HEUN: neither a solver nor a teacher; did you mean 'heun'? Give "),
        (("info", "heun:grid=KARRAS"), "grid 'KARRAS': not registered; did you mean 'karras'? See "),
    ],
)
def test_a_mistake_is_told_with_what_was_meant(examples, invoke, words, said):
    assert said in invoke(*words).line


def test_loading_again_after_a_fault_is_as_before(examples):
    plugins.load(examples("faulty.py", solver("x = denosie(x, s)")))
    plugins.load(examples("faulty.py", solver()))
    assert [each.status for each in run("faulty").cells] == ["done"]
    assert registries.solvers.get("faulty").__name__ == "Faulty"
