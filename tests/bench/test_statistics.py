"""Statistics of a cell's images beside the teacher's own: what is stored, what is flagged, what older results lack."""

import json

import numpy as np
import pytest
import torch
import toys

from solverbench import files
from solverbench.bench import run as runner
from solverbench.bench import statistics
from solverbench.bench.run_options import RunOptions
from solverbench.store import transfer

pytestmark = pytest.mark.usefixtures("unrendered")


def run(out, solvers="dpm:order=2", teacher=None, nfe="8", **options):
    given = {
        "teachers": teacher or toys.teacher(sampler="dpm:order=2", sampler_nfe=20),
        "samples": 40,
        "replicates": 1,
        "batch": 3,
    } | options
    return runner.run(RunOptions(solvers=solvers, nfe=nfe, out=out, **given)).cells


def test_they_are_those_of_the_images(tmp_path):
    [found] = run(tmp_path)
    [folder] = tmp_path.glob("cells/*/*")
    own = np.concatenate([np.load(path)["images"] for path in sorted(tmp_path.glob("targets/*/*.npz"))])
    stored = json.loads((folder / "metrics.json").read_text())["statistics"]
    assert stored == found.statistics
    assert stored["images"]["n"] == stored["teacher"]["n"] == len(own) == 40
    assert stored["teacher"]["lowest"] == own.min()
    assert stored["teacher"]["highest"] == own.max()
    # Sums of float32 values in float64, in another order.
    assert stored["teacher"]["mean"] == pytest.approx(own.mean(dtype=np.float64), rel=1e-9)
    assert stored["teacher"]["deviation"] == pytest.approx(own.std(dtype=np.float64), rel=1e-9)
    assert stored["teacher"]["outside"] == pytest.approx((np.abs(own) > 1).mean(), rel=1e-9)
    ratio, low, high = stored["differences"]["deviation"]
    assert ratio == pytest.approx(stored["images"]["deviation"] / stored["teacher"]["deviation"], rel=1e-9)
    assert low < ratio < high
    assert found.flags() == {}
    assert "flagged" not in found.summary


def test_a_batch_of_another_size_gives_the_same(tmp_path):
    [three], [seven] = run(tmp_path / "a"), run(tmp_path / "b", batch=7)
    for name in ("n", "mean", "deviation", "lowest", "highest", "outside", "constant"):
        assert three.statistics["images"][name] == pytest.approx(seven.statistics["images"][name], rel=1e-5, abs=1e-6)


def wild(x, sigma):
    """A network whose samples run out of the range of images: nine times as far from 0."""
    return 9 * toys.denoise(x / 9, sigma / 9)


def test_a_network_whose_samples_diverge_is_named_once_and_not_in_every_cell(tmp_path):
    teacher = toys.teacher(wild, sampler="dpm:order=2", sampler_nfe=20)
    options = RunOptions(solvers="dpm:order=2", nfe="8-10", teachers=teacher, out=tmp_path, samples=40, replicates=1)
    found = runner.run(options)
    assert [each.flags() for each in found.cells] == [{}] * 3
    said = [line for line in found.summary().splitlines() if "out of range" in line]
    assert len(said) == 1
    assert said[0].startswith("toy's own samples are out of range: ")
    assert "of the values lie outside [-1, 1]" in said[0]
    record = json.loads((found.folder / "bundle.json").read_text())
    assert said[0] in record["notes"]


def test_a_solver_whose_samples_are_far_from_the_teachers_is_named(tmp_path):
    [dpm] = run(tmp_path)
    [heun] = run(tmp_path, "heun", nfe="4")
    assert dpm.flags() == {}
    assert "times the teacher's own" in heun.flags()["images"]


def stored(*, deviation=(1.0, 0.9, 1.1), mean=(0.0, -0.1, 0.1), outside=(0.0, 0.0, 0.0), constant=(0.0, 0.0, 0.0)):
    one = {"n": 100, "lowest": -1.0, "highest": 1.0, "mean": 0.0, "deviation": 0.5, "outside": 0.1, "constant": 0.0}
    differences = {"deviation": deviation, "mean": mean, "outside": outside, "constant": constant}
    return {"images": one, "teacher": one, "square": [0.25, 0.2, 0.3], "differences": differences}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"deviation": (1.3, 1.26, 1.34)}, "the deviation is 1.30 times the teacher's own (0.5)"),
        ({"deviation": (1.3, 1.24, 1.36)}, ""),
        ({"deviation": (0.7, 0.65, 0.75)}, "the deviation is 0.70 times the teacher's own (0.5)"),
        ({"mean": (-0.4, -0.5, -0.3)}, "the mean is -0.40 deviations from the teacher's own (0)"),
        ({"mean": (-0.4, -0.6, -0.2)}, ""),
        ({"outside": (0.4, 0.3, 0.5)}, "50% of the values lie outside [-1, 1] (of the teacher's own 10%)"),
        ({"constant": (0.2, 0.1, 0.3)}, "20% of the images are of one colour (of the teacher's own 0%)"),
    ],
)
def test_a_limit_counts_where_the_whole_interval_is_beyond_it(changed, said):
    found = statistics.flags(stored(**changed), pixels=True)
    assert found == ({"images": said} if said else {})


def test_latents_have_no_range():
    far = stored(outside=(0.9, 0.8, 1.0)) | {"square": [25.0, 24.0, 26.0]}
    assert statistics.flags(far, pixels=False) == {}
    assert "as where samples diverge" in statistics.flags(far, pixels=True)["images"]
    both = far | {"teacher": far["teacher"] | {"deviation": 5.0}}
    assert "diverge" not in statistics.flags(both, pixels=True)["images"]
    assert "deviation 5" in statistics.teacher_diverges(both, pixels=True)
    assert statistics.teacher_diverges(both, pixels=False) == statistics.teacher_diverges(far, pixels=True) == ""


def test_constant_images_are_counted():
    states = torch.zeros(3, 3, 4, 4)
    levels = torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
    levels[1] += torch.tensor([10, 20, 30], dtype=torch.uint8)[:, None, None]  # one colour
    levels[2, 0, 0, 0] = 1
    assert statistics.row(states, levels)[statistics.COLUMNS.index("constant")] == 2


def without(path):
    """Write a result file again as earlier versions did."""
    if path.suffix == ".npz":
        arrays = files.read_arrays(path)
        files.write_arrays(path, {name: each for name, each in arrays.items() if name != statistics.NAME})
    else:
        body = files.read_json(path)
        files.write_json(path, {name: each for name, each in body.items() if name != statistics.NAME})


def test_results_of_an_earlier_version_stay_as_they_are(tmp_path):
    [new] = run(tmp_path)
    for path in [*tmp_path.glob("cells/*/*/blocks/*.npz"), *tmp_path.glob("cells/*/*/metrics.json")]:
        without(path)
    [old] = run(tmp_path)
    assert (old.status, old.cell.address, old.statistics, old.flags()) == ("cached", new.cell.address, {}, {})
    assert old.measures["rmse_teacher"].value == new.measures["rmse_teacher"].value
    next(tmp_path.glob("cells/*/*/metrics.json")).unlink()
    next(iter(sorted(tmp_path.glob("cells/*/*/blocks/*.npz")))).unlink()  # made again beside old ones
    [mixed] = run(tmp_path)
    assert (mixed.status, mixed.statistics) == ("done", {})


def test_stores_of_two_versions_are_merged_without_a_conflict(tmp_path):
    run(tmp_path / "a")
    run(tmp_path / "b")
    changed = [*(tmp_path / "b").glob("cells/*/*/blocks/*.npz"), *(tmp_path / "b").glob("cells/*/*/metrics.json")]
    for path in changed:
        without(path)
        assert transfer._close(path, tmp_path / "a" / path.relative_to(tmp_path / "b"))
