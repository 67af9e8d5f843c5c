"""What a run says beside its numbers: which cells are one method, where it ran, and the energy it drew."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import toys

from solverbench.bench import block, run
from solverbench.bench.bundle import notes as bundle_notes
from solverbench.bench.bundle import provenance
from solverbench.bench.run_options import RunOptions
from solverbench.sampling import energy

SMALL = {"samples": 40, "replicates": 1, "batch": 3}


def notes(out, **options):
    result = run.run(RunOptions(teachers=toys.teacher(), out=out, **(SMALL | options)))
    protocol = result.cells[0].cell.protocol
    return bundle_notes.notes(result.cells, protocol)


def test_cells_that_are_one_method_are_named(tmp_path):
    found = notes(tmp_path, solvers="dpm:order=2:grid=polynomial,euler,dpm:order=3:grid=polynomial", nfe="4,8")
    assert [line for line in found if "one method" in line] == [
        "dpm:order=2:grid=polynomial and dpm:order=3:grid=polynomial are one method at NFE 4 on toy: computed once, "
        "reported under each name"
    ]
    assert not [line for line in notes(tmp_path, solvers="dpm,dpm:threshold=true", nfe=4) if "one method" in line]


def test_the_environment_names_commit_and_packages():
    found = provenance._environment("cpu")
    assert {"torch", "numpy", "python", "commit", "device", "cores"} <= found.keys()
    checkout = (Path(provenance.__file__).parents[3] / ".git").exists() and shutil.which("git")
    assert found["commit"] or not checkout


@pytest.fixture
def counter(monkeypatch):
    """A driver that counts: 7 J more each time it is asked."""

    class NVMLError(Exception):
        pass

    asked = []

    def total(handle):
        asked.append(handle)
        return 7000 * len(asked)

    library = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=total,
        nvmlSystemGetDriverVersion=lambda: "570.1",
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.setattr(
        energy.torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="0123"), raising=False
    )
    return library, asked


def test_energy_is_read_in_joules_of_the_very_device(counter):
    assert energy.joules("cuda:1") == 7.0
    assert counter[1] == ["GPU-0123"]
    assert energy.driver() == "570.1"
    assert energy.joules("cpu") is None


def test_energy_that_cannot_be_read_is_none(counter, monkeypatch):
    def refused(handle):
        raise counter[0].NVMLError("not supported")

    counter[0].nvmlDeviceGetTotalEnergyConsumption = refused
    assert energy.joules("cuda") is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert (energy.joules("cuda"), energy.driver()) == (None, "")


def test_a_units_energy_is_told_as_each_cells_part(tmp_path, monkeypatch):
    drawn = iter(range(0, 10_000, 10))
    monkeypatch.setattr(block.energy, "joules", lambda device: float(next(drawn)))
    result = run.run(RunOptions(teachers=toys.teacher(), out=tmp_path, solvers="euler,heun", nfe=4, workers=1, **SMALL))
    for each in result.cells:
        assert 0 < each.total("joules") <= 10 * 10
    frame = result.frame
    assert (frame.cost_joules > 0).all()
    assert set(frame.cost_batch) == {3}


def test_the_batch_that_was_used_is_recorded_and_a_smaller_one_than_asked_is_said(tmp_path):
    result = run.run(
        RunOptions(teachers=toys.teacher(), out=tmp_path, solvers="euler", nfe=4, **SMALL | {"batch": 500})
    )
    assert set(result.frame.cost_batch) == {4}, "40 samples are ten blocks of 4"
    said = bundle_notes.notes(result.cells, result.cells[0].cell.protocol)
    [line] = [line for line in said if "speeds of" in line]
    assert "at 4 images a call, not at the 500 of --batch, because a seed block has no more" in line
