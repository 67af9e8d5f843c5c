"""The batch that `auto` finds: as many images as still pay, the same in every run of a folder."""

from pathlib import Path

import pytest
import torch

from solverbench import files
from solverbench.bench import autobatch, estimates, plan, run
from solverbench.bench.run_options import RunOptions
from solverbench.errors import RecordError, UserError
from solverbench.teachers.teacher import Teacher
from tests import toys

SMALL = {"solvers": "dpm,euler", "nfe": "2", "samples": 1000, "replicates": 1, "workers": 1}


def paced(monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], fits: int = 10**6) -> list[int]:
    """Have a call of a batch take these seconds for an image, and more than `fits` images not fit."""
    tried: list[int] = []

    def probe(teacher: Teacher, batch: int) -> float:
        tried.append(batch)
        if batch > fits:
            raise torch.OutOfMemoryError
        return seconds[batch]

    monkeypatch.setattr(estimates, "probe", probe)
    return tried


@pytest.mark.parametrize(
    ("fits", "most", "found"),
    [(10**6, 10**4, 128), (64, 10**4, 64), (10**6, 100, 64), (10**6, 20, 20), (16, 10**4, 16)],
)
def test_a_batch_is_doubled_while_that_pays_and_fits(
    monkeypatch: pytest.MonkeyPatch, fits: int, most: int, found: int
) -> None:
    paced(monkeypatch, {20: 1.0, 32: 1.0, 64: 0.6, 128: 0.4, 256: 0.39, 512: 0.1}, fits)
    assert autobatch.fastest(toys.teacher(), most) == found


def test_another_run_in_the_folder_takes_the_same_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    paced(monkeypatch, {32: 1.0, 64: 0.5})
    planned = plan.plan(RunOptions(**SMALL, teachers=toys.teacher(), batch="auto", out=tmp_path))
    assert not list(tmp_path.iterdir()), "a plan writes nothing"
    first = run.run(RunOptions(**SMALL, teachers=toys.teacher(), batch="auto", out=tmp_path))
    tried = paced(monkeypatch, {32: 1.0, 64: 1.0})
    again = run.run(RunOptions(**SMALL, teachers=toys.teacher(), batch="auto", out=tmp_path))
    assert not tried
    assert [cell.status for cell in again.cells] == ["cached", "cached"]
    assert {each.cell.key["batch"] for each in (*planned.cells, *first.cells, *again.cells)} == {64}
    given = run.run(RunOptions(**SMALL, teachers=toys.teacher(), batch="64", out=tmp_path))
    assert [cell.status for cell in given.cells] == ["cached", "cached"]


def test_the_slowest_grower_of_several_teachers_sets_the_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wanted = {"a": 256, "b": 32}
    monkeypatch.setattr(autobatch, "fastest", lambda teacher, most: wanted[teacher.name])
    teachers = [toys.teacher(name=name, identity=name) for name in wanted]
    assert autobatch.chosen(teachers, 1000, tmp_path, keep=True, say=lambda line: None) == 32
    assert autobatch.chosen(teachers[:1], 1000, tmp_path, keep=True, say=lambda line: None) == 256
    assert autobatch.chosen(teachers[:1], 100, tmp_path, keep=True, say=lambda line: None) == 100


def test_a_network_that_fails_when_tried_leaves_that_to_its_cells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(teacher: Teacher, batch: int) -> float:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(estimates, "probe", broken)
    assert autobatch.chosen([toys.teacher()], 1000, tmp_path, keep=True, say=lambda line: None) == 500
    assert not (tmp_path / autobatch.FILE).exists()


def test_a_wrong_word_and_a_damaged_file_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batch 'large': neither a number of images nor auto"):
        plan.plan(RunOptions(**SMALL, teachers=toys.teacher(), batch="large", out=tmp_path))
    files.write_json(tmp_path / autobatch.FILE, {"x": "many"})
    with pytest.raises(RecordError, match=r"batches.json: damaged; delete it"):
        autobatch.chosen([toys.teacher()], 10, tmp_path, keep=False, say=lambda line: None)
