"""Plugins in installed packages: found by their entry points, refused with a reason, gone when uninstalled."""

import json
import os
import subprocess
import sys
from pathlib import Path

import forks
import pytest
from plugged import EXAMPLES, PYPROJECT

import solverbench as sb
from solverbench import plugins, registries
from solverbench.errors import PluginError

GOOD = """
import solverbench as sb
class Good(sb.Solver):
    '''A step of Euler's.'''
    name = "good"
    def integrate(self, denoise, x, grid):
        return x + (grid.sigmas[-1] - grid.sigmas[0]) * (x - denoise(x, grid.sigmas[0])) / grid.sigmas[0]
def helper(): ...
class Sub:
    Twin = type("Twin", (Good,), {"name": "twin", "__doc__": None})
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Lay a package where Python finds it as installed: package(name, {module: source}, {group: {name: target}})."""

    def lay(name, modules, points, version="1.0"):
        folder = tmp_path / name
        for module, text in modules.items():
            (folder / f"{module}.py").parent.mkdir(parents=True, exist_ok=True)
            (folder / f"{module}.py").write_text(text)
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [f"[solverbench.{g}]\n" + "".join(f"{n} = {t}\n" for n, t in p.items()) for g, p in points.items()]
        (info / "entry_points.txt").write_text("\n".join(lines))
        monkeypatch.syspath_prepend(folder)

    return lay


def listed(invoke, what="solvers"):
    result = invoke("list", what, "--json")
    assert result.exit_code == 0, result.stderr
    return {(row["name"], row["plugin"]): row for row in json.loads(result.stdout)}


def test_an_installed_solver_is_listed_and_runs(package, invoke):
    package("offered", {"offered_good": GOOD}, {"solvers": {"good": "offered_good:Good"}})
    assert listed(invoke)["good", "package offered 1.0"] == {
        "name": "good", "aliases": [], "about": "A step of Euler's.", "plugin": "package offered 1.0",
        "unavailable": "",
    }  # fmt: skip
    assert sb.tableau("good", nfe=1).nfe == 1
    told = plugins.provenance(registries.solvers, "good")
    assert (told["source"], told["target"]) == ("package offered 1.0", "offered_good:Good")
    assert told["sha256"] == registries.fingerprint(registries.solvers.get("good")) != ""
    assert "plugin   package offered 1.0, sha256 " in invoke("info", "good").stdout


@pytest.mark.parametrize(
    ("text", "target", "why"),
    [
        ("import nowhere\n", "offered_bad:Good", "offered_bad.py:1: ModuleNotFoundError: No module named 'nowhere'"),
        ("x = (\n", "offered_bad:Good", "offered_bad.py:1: SyntaxError: '(' was never closed"),
        ("def f():\n    1 / 0\nf()\n", "offered_bad:Good", "offered_bad.py:2: ZeroDivisionError: division by zero"),
        ("raise SystemExit(2)\n", "offered_bad:Good", "offered_bad.py:1: SystemExit: 2"),
        ("", "offered_nowhere:Good", "ModuleNotFoundError: No module named 'offered_nowhere'"),
        ("", "offered_bad:Good", "AttributeError: module 'offered_bad' has no attribute 'Good'"),
        (GOOD, "offered_bad:helper", "which isn't a Solver; derive its class from solverbench.Solver"),
        (GOOD, "offered_bad:Good", "whose name is 'good'; give both the same"),
        (GOOD, "offered_bad:Good [extra]", "whose name is 'good'; give both the same"),
        (GOOD, "offered_bad", "ImportError: the entry point names only a module; name an object in it, as in"),
    ],
)
def test_what_cannot_be_had_is_listed_with_its_reason_and_breaks_nothing(package, invoke, text, target, why):
    package("offered", {"offered_bad": text}, {"solvers": {"bad": target}})
    rows = listed(invoke)
    row = rows.pop(("bad", "package offered 1.0"))
    assert why in row["unavailable"]
    assert row["about"] == ""
    assert not any(each["unavailable"] for each in rows.values())
    assert len(rows) == len(registries.solvers.builtin)
    [line] = [line for line in invoke("list").stdout.splitlines() if line.startswith("bad ")]
    assert "  unavailable: " in line
    assert "package offered 1.0" in line
    assert why in line
    result = invoke("plan", "--solvers", "bad", "--nfe", "3")
    assert (result.exit_code, result.stderr.count("\n")) == (3, 1)
    assert result.line.startswith("Error: solver 'bad': package offered 1.0 ")
    assert why in result.line
    assert invoke("info", "bad").exit_code == 3
    assert invoke("plan", "--solvers", "euler", "--nfe", "3").exit_code == 0
    assert sb.make("euler").name == "euler"


def test_the_built_in_wins_over_a_plugin_of_its_name(package, invoke):
    text = GOOD.replace('"good"', '"dpm"')
    package("offered", {"offered_dpm": text}, {"solvers": {"dpm": "offered_dpm:Good", "ddim": "offered_dpm:Good"}})
    rows = listed(invoke)
    assert rows["dpm", ""]["unavailable"] == ""
    for name in ("dpm", "ddim"):
        assert rows[name, "package offered 1.0"]["unavailable"] == f"solver '{name}' is built in and takes precedence"
    assert sb.make("dpm").paper.startswith("DPM-Solver++")
    assert sb.make("ddim").name == "euler"
    assert list(registries.solvers).count("dpm") == 1


def test_two_plugins_of_one_name_are_neither_to_be_had(package, invoke):
    package("offered_a", {"offered_a": GOOD}, {"solvers": {"good": "offered_a:Good"}})
    package("offered_b", {"offered_b": GOOD}, {"solvers": {"good": "offered_b:Good", "twin": "offered_b:Sub.Twin"}})
    rows = listed(invoke)
    why = "offered by package offered_a 1.0 and package offered_b 1.0; rename one, or uninstall one of them"
    assert rows["good", "package offered_a 1.0, package offered_b 1.0"]["unavailable"] == why
    assert rows["twin", "package offered_b 1.0"]["unavailable"] == ""
    with pytest.raises(PluginError, match=f"solver 'good': {why}"):
        sb.make("good")
    assert invoke("plan", "--solvers", "good,twin", "--nfe", "1").exit_code == 3
    assert invoke("plan", "--solvers", "twin", "--nfe", "1").exit_code == 0


def test_a_file_and_a_package_of_one_name_clash_unless_they_are_the_same(package, tmp_path):
    package("offered", {"offered_good": GOOD}, {"solvers": {"good": "offered_good:Good"}})
    sb.load_plugin(tmp_path / "offered" / "offered_good.py")
    assert sb.make("good").name == "good"
    other = tmp_path / "other.py"
    other.write_text(GOOD)
    registries.solvers.withdraw("good")
    sb.load_plugin(other)
    why = r"solver 'good': offered by file .*other.py and package offered 1.0; leave out --plugin, or rename one"
    with pytest.raises(PluginError, match=why):
        sb.make("good")


def test_a_package_that_registers_what_it_offers_is_one_plugin(package):
    text = GOOD.replace("class Good", "@sb.register\nclass Good")
    package("offered", {"offered_good": text}, {"solvers": {"good": "offered_good:Good"}})
    assert sb.make("good").name == "good"
    assert not any(row.unavailable for row in registries.solvers.listed())


def test_broken_plugins_of_other_kinds_are_told(package, invoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "value = 3\nclass Mine:\n    name = 'mine'\n"
    points = {kind: {"mine": "offered_bad:value"} for kind in ("teachers", "grids", "losses", "metrics")}
    package("offered", {"offered_bad": text}, points)
    for what, why in {
        "teachers": "3, which can't be called; offer a function", "grids": "3, which can't be called",
        "losses": "3, which can't be called", "metrics": "3, which isn't a Metric",
    }.items():  # fmt: skip
        assert why in listed(invoke, what)["mine", "package offered 1.0"]["unavailable"]
    assert "unavailable: " in invoke("teachers", "list").stdout
    for words in (["--teachers", "mine"], ["--solvers", "dpm:grid=mine"]):
        result = invoke("plan", "--nfe", "3", *words)
        assert (result.exit_code, result.stderr.count("\n")) == (3, 1)
        assert "package offered 1.0 offers offered_bad:value, 3, which" in result.line
    result = invoke("plan", "--nfe", "3", "--metrics", "mine")  # the other metrics of the cells can be measured
    assert result.exit_code == 0
    assert "package offered 1.0 offers offered_bad:value, 3, which isn't a Metric" in result.stdout
    result = invoke("train", "gs", "--nfe", "3", "--set", "loss=mine", "--set", "iterations=1", "--out", "nowhere")
    assert result.exit_code == 3
    assert not Path("nowhere").exists()


def test_nothing_of_a_plugin_is_imported_until_it_is_asked_for(package):
    package("offered", {"offered_loud": "raise Exception('loud')"}, {"solvers": {"loud": "offered_loud:Good"}})
    assert sb.make("euler").name == "euler"
    assert "loud" in registries.solvers
    assert "loud" in list(registries.solvers)
    assert "offered_loud" not in sys.modules


def test_listing_light_plugins_imports_no_torch(package, tmp_path):
    """Nor does listing solvers, where no plugin offers one."""
    text = "def mine(schedule, steps):\n    'Light.'\n"
    package("offered", {"offered_light": text}, {"grids": {"mine": "offered_light:mine"}})
    code = "import sys; from solverbench import registries; sys.path.insert(0, sys.argv[1])\n"
    code += "assert [x.about for x in registries.grids.listed() if x.plugin] == ['Light.']\n"
    code += "assert not [x for x in registries.solvers.listed() if x.plugin]\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "offered"], timeout=600).returncode == 0


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An environment for packages; run with words, in a folder of its own, it sees them and what this one has."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    program = folder / "venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    [site] = (folder / "venv").glob("[Ll]ib/**/site-packages")
    way = os.pathsep.join([str(site), *filter(None, sys.path)])

    def call(*words, say):
        told = forks.run(words, input=json.dumps(say), cwd=folder, env={**os.environ, "PYTHONPATH": way})
        assert told.returncode == 0, told.stderr
        return told

    call.program, call.folder = program, folder
    return call


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The package of docs/plugins.md, built outside the repository."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("package")
    (folder / "mysolvers").mkdir()
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "mysolvers" / "__init__.py").touch()
    for name, text in EXAMPLES.items():
        (folder / "mysolvers" / name).write_text(text)
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=folder, check=True)
    [built] = folder.glob("dist/*.whl")
    return built


SESSION = """
import contextlib, io, json, sys
from solverbench import registries as r
from solverbench.reports.drawing import base
base.render = lambda figure, kind: b"not rendered in this test"
from solverbench.cli.main import main

told = [{k: [[x.name, x.plugin, x.unavailable] for x in v.listed() if x.plugin] for k, v in r.extensible.items()}]
for words in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words, prog_name="solverbench")
        except SystemExit as ended:
            code = ended.code
    told.append([code or 0, out.getvalue(), err.getvalue()])
print(json.dumps(told))
"""
"""What is registered by plugins, and what some commands say, in one process; no figure of theirs is rendered."""


def test_a_wheel_is_listed_runs_and_is_gone_once_uninstalled(python, wheel):
    pip = [sys.executable, "-m", "pip", "--python", python.program, "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", wheel], check=True)
    named = {"solver": "ab2", "teacher": "blob", "grid": "harmonic", "metric": "contrast", "loss": "charbonnier"}
    named["extractor"] = "patches"
    run = [
        "run", "--solvers", "ab2,dpm:grid=harmonic,euler", "--nfe", "4", "--teachers", "blob",
        "--metrics", "contrast", "--samples", "20", "--replicates", "1", "--out", "runs",
    ]  # fmt: skip
    found, checked, done = json.loads(python("-c", SESSION, say=[["check", "ab2", "blob"], run]).stdout)
    assert found == {kind: [[name, "package mysolvers 0.1.0", ""]] for kind, name in named.items()}
    assert " 0 fail, " in checked[1], checked
    assert done[0] == 0, done
    [bundle] = python.folder.glob("runs/reports/*/bundle.json")
    record = json.loads(bundle.read_text())
    assert record["counts"]["done"] == 3
    told = {name: text for name, text in record["environment"].items() if name.startswith("plugin ")}
    assert list(told) == ["plugin solver ab2", "plugin teacher blob", "plugin metric contrast", "plugin grid harmonic"]
    assert all(text.startswith("package mysolvers 0.1.0, mysolvers.") for text in told.values())
    assert "package mysolvers 0.1.0" in (bundle.parent / "report.html").read_text()
    subprocess.run([*pip, "uninstall", "-q", "-y", "mysolvers"], check=True)
    plan = ["plan", "--solvers", "ab2", "--nfe", "4"]
    found, gone, drawn = json.loads(python("-c", SESSION, say=[plan, ["report", "--out", "runs"]]).stdout)
    assert found == {kind: [] for kind in named}
    assert (gone[0], gone[2].count("\n")) == (2, 1)
    assert "solver 'ab2': not registered" in gone[2]
    assert drawn[0] == 0, drawn
