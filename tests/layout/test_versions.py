"""The versions that were tested stand in one file, and what runs on a newer torch says so."""

import json
import re
import tomllib

import pytest
import torch
import toys
from click.testing import CliRunner
from documents import PAGES, ROOT
from packaging.requirements import Requirement

from solverbench import extras, tested
from solverbench.bench import run
from solverbench.bench.progress import Silent
from solverbench.bench.run_options import RunOptions
from solverbench.cli.main import main

PINS = {
    pin.name: pin
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if (text := line.partition("#")[0].strip())
    for pin in [Requirement(text)]
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NEEDED = [Requirement(each) for each in PROJECT["dependencies"]]
TOOLS = [Requirement(each) for extra in ("dev", "docs") for each in PROJECT["optional-dependencies"][extra]]


def test_every_dependency_has_a_tested_version_that_its_bounds_allow():
    assert {each.name for each in NEEDED} <= PINS.keys() <= {each.name for each in NEEDED + TOOLS}
    for each in NEEDED + TOOLS:
        if each.name in PINS:
            [pin] = PINS[each.name].specifier
            assert pin.operator == "=="
            assert each.specifier.contains(pin.version), f"{each} forbids {pin}"


def test_a_dependency_has_a_lowest_version_and_no_highest():
    for each in NEEDED:
        assert [bound.operator for bound in each.specifier] == [">="], each


@pytest.mark.parametrize("page", [ROOT / "constraints.txt", *PAGES], ids=lambda page: page.name)
def test_one_torch_is_named(page):
    assert set(re.findall(r"torch==([\w.]+)", page.read_text())) <= {tested.TORCH}


@pytest.mark.parametrize("installed", ["2.6.0", "2.13.0+cpu", "2.13.1", "2.9.1+cu128", "unknown"])
def test_a_torch_that_isnt_newer_makes_no_line(installed, monkeypatch):
    monkeypatch.setattr(tested, "TORCH", "2.13.0")
    assert tested.newer(installed) == []


@pytest.mark.parametrize("installed", ["2.14.0", "2.100.0.dev20270101+cu130", "3.0"])
def test_a_newer_torch_makes_one_line(installed, monkeypatch):
    monkeypatch.setattr(tested, "TORCH", "2.13.0")
    [line] = tested.newer(installed)
    assert line.startswith(f"torch {installed} is newer than 2.13.0, the newest that was tested")


class Told(Silent):
    def __init__(self):
        self.lines = []

    def note(self, line):
        self.lines.append(line)


def test_a_run_and_its_report_say_that_torch_is_newer(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.99.0+cu140")
    told, line = Told(), tested.newer("2.99.0+cu140")[0]
    asked = {"solvers": "euler", "nfe": 2, "teachers": toys.teacher(), "samples": 20, "replicates": 1}
    result = run.run(RunOptions(**asked, out=tmp_path), progress=told)
    assert told.lines == [line]
    assert json.loads((result.folder / "bundle.json").read_text())["notes"].count(line) == 1


def test_every_extra_that_a_user_may_install_has_a_purpose():
    """`doctor` lists them."""
    assert set(extras.EXTRAS) == PROJECT["optional-dependencies"].keys() - {"all", "dev", "docs"}


def test_doctor_says_that_torch_is_newer_and_is_well(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    result = CliRunner().invoke(main, ["doctor", "--out", str(tmp_path / "runs")])
    assert result.exit_code == 0
    assert f"ok    {tested.newer('2.99.0')[0]}\n" in result.stdout
    for name, extra in extras.EXTRAS.items():
        assert f"  extra {name}, for {extra.purpose}: " in result.stdout
