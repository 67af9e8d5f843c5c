"""Published numbers beside ours in a report: a paper's, of the same network, and never our own record."""

import dataclasses

import pytest
import toys

from solverbench.bench import published, run
from solverbench.bench.run_options import RunOptions

SMALL = {"samples": 40, "replicates": 1, "batch": 4}


@pytest.fixture
def outcomes(tmp_path):
    """Ten calls of Euler on a stand-in for CIFAR-10's network, with a number that stands for its FID."""
    teacher = dataclasses.replace(toys.teacher(name="cifar10-dtype=fp16"), spec="cifar10:dtype=fp16")
    found = run.run(RunOptions(solvers="euler", nfe=4, teachers=teacher, out=tmp_path, **SMALL)).cells
    return [dataclasses.replace(each, measures={"fid": each.measures["frechet_data"]}) for each in found]


def test_a_papers_numbers_stand_beside_those_of_its_network_whatever_its_options(outcomes):
    found = published.compared(outcomes)
    assert found
    assert {(row["teacher"], row["nfe"], row["metric"]) for row in found} == {("cifar10", 4, "fid")}


def test_our_own_record_is_not_published(tmp_path):
    found = run.run(RunOptions(solvers="dpm", nfe=3, teachers="digits", out=tmp_path, samples=40, replicates=1)).cells
    assert "rmse_teacher" in found[0].measures
    assert published.compared(found) == []
