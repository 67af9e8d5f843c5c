"""Workers: threads, several devices, a worker without shared memory and a Ray cluster store equal bytes."""

import os
import pickle
import signal

import pytest
import torch
import toys

from solverbench.bench import block
from solverbench.bench import run as runner
from solverbench.bench.run_options import RunOptions
from solverbench.bench.workers import local, ray_worker
from solverbench.bench.workers.local import LocalWorkers
from solverbench.bench.workers.ray import RayWorkers
from solverbench.errors import MissingError, UserError
from solverbench.sampling import devices

SMALL = {"solvers": "dpm,euler", "nfe": "3,4", "samples": 40, "replicates": 1, "batch": 3}


def run(out, teacher=None, **options):
    return runner.run(RunOptions(teachers=teacher or toys.teacher(), out=out, **(SMALL | options)))


def test_a_run_on_several_devices_gives_the_same_bytes(tmp_path, monkeypatch):
    run(tmp_path / "one", workers=1)
    monkeypatch.setattr(local, "devices", lambda device: ["cpu", "cpu:0"])
    used = set()
    monkeypatch.setattr(block, "peak_memory", lambda device: used.add(device) or devices.peak_memory("cpu"))
    run(tmp_path / "two", workers=2)
    assert used == {"cpu", "cpu:0"}
    assert toys.files_of(tmp_path / "one") == toys.files_of(tmp_path / "two")


def test_cuda_without_a_number_is_every_visible_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert local.devices("cuda") == ["cuda", "cuda:1", "cuda:2"]
    assert local.devices("cuda:1") == ["cuda:1"]
    assert LocalWorkers("cuda").size == 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert local.devices("cuda") == ["cuda"]
    assert local.devices("cpu") == ["cpu"]


class Remote:
    """One Ray worker in this process; units, files and results are passed to it as bytes, as between machines."""

    size = 1

    def __init__(self):
        self.worker, self.files = ray_worker.RayWorker("/nowhere"), {}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def run(self, work):
        order = ray_worker.RemoteUnit.of(work.cells, work.block, work.limits, work.out)
        found, made = self.worker.do(pickle.dumps(order), {})
        self.files |= made
        for event in self.worker.said():
            work.told(*event)
        return pickle.loads(pickle.dumps(found))


@pytest.mark.parametrize("teacher", [toys.teacher, lambda: "mixture"])
def test_a_remote_worker_gives_the_same_bytes(tmp_path, monkeypatch, teacher):
    remote = Remote()
    options = {"exact": False, "samples": 20}
    run(tmp_path / "here", teacher(), **options)
    monkeypatch.setattr(runner, "_workers", lambda *options: remote)
    run(tmp_path / "remote", teacher(), **options)
    assert toys.files_of(tmp_path / "here", pattern="cells/**/*") == toys.files_of(
        tmp_path / "remote", pattern="cells/**/*"
    )
    stored = toys.files_of(tmp_path / "here", pattern="targets/**/*.npz")
    assert len(stored) == 10
    assert {path: remote.files[path] for path in stored} == stored


def test_an_error_of_a_remote_worker_has_its_reason_and_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_workers", lambda *options: Remote())
    result = run(tmp_path, toys.teacher(broken))
    assert [each.status for each in result.cells] == ["failed"] * 4
    assert "ZeroDivisionError: a network's bug" in result.cells[0].reason
    assert "in broken" in next(tmp_path.glob("cells/*/*/error.txt")).read_text()


def broken(x, sigma):
    raise ZeroDivisionError("a network's bug")


def test_a_worker_with_another_version_or_network_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_workers", lambda *options: Remote())
    monkeypatch.setattr(ray_worker, "__version__", "0.0")
    assert "Ray worker: has SolverBench 0.0, but the run has" in run(tmp_path / "a").cells[0].reason
    monkeypatch.undo()
    monkeypatch.setattr(runner, "_workers", lambda *options: Remote())
    found = ray_worker.load_teacher("mixture")
    monkeypatch.setattr(ray_worker, "load_teacher", lambda spec, device, out: toys.teacher(identity="another"))
    result = run(tmp_path / "b", found, exact=False)
    assert "mixture is another network on this worker" in result.cells[0].reason


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"engine": "spark"}, "engine 'spark': no such engine"),
        ({"ray_address": "auto"}, "engine 'local': takes no ray-address"),
        ({"workers": 0}, "workers 0: at least one"),
        ({"engine": "ray", "workers": 0}, "workers 0: at least one"),
        (
            {"engine": "ray", "gpus_per_worker": 0.5},
            "gpus-per-worker 0.5: needs a number above 0 and device cuda, not cpu",
        ),
        ({"timeout_cell": 0}, "timeout-cell 0: not a time"),
        ({"timeout_cell": float("nan")}, "timeout-cell nan: not a time"),
    ],
)
def test_a_wrong_option_is_one_line_before_any_work(tmp_path, options, line):
    with pytest.raises(UserError, match=line):
        run(tmp_path / "none", **options)
    assert not (tmp_path / "none").exists()


def test_a_device_with_a_number_is_not_for_ray():
    with pytest.raises(UserError, match="Ray chooses which GPU"):
        RayWorkers("cuda:1")


@pytest.mark.parametrize(
    ("device", "workers", "gpus", "has", "found"),
    [
        ("cuda", None, None, {"GPU": 4.0}, 4),
        ("cuda", None, 0.5, {"GPU": 4.0}, 8),
        ("cuda", 3, 0.1, {"GPU": 1.0}, 3),
        ("cpu", None, None, {"CPU": 6.0}, 6),
        ("cuda", 5, None, {"GPU": 4.0}, "workers 5 with 1 GPU each: the Ray cluster has 4 GPUs; .* at most 4 workers"),
        ("cuda", None, None, {"CPU": 8.0}, "workers 1 with 1 GPU each: the Ray cluster has 0 GPUs"),
        ("cuda", None, 2.0, {"GPU": 1.0}, "workers 1 with 2 GPU each"),
        ("cpu", 3, None, {"CPU": 2.0}, "workers 3 with 1 CPU each: the Ray cluster has 2 CPUs"),
    ],
)
def test_more_workers_than_the_cluster_has_resources_for_are_refused(device, workers, gpus, has, found):
    asked = RayWorkers(device, workers, gpus=gpus)
    if isinstance(found, int):
        assert asked._capacity(has) == found
    else:
        with pytest.raises(MissingError, match=found):
            asked._capacity(has)


def test_without_ray_one_line_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingError, match=r"pip install '(solverbench|\.)\[ray\]'"):
        run(tmp_path, engine="ray")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    run(out)
    return toys.files_of(out)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_ray_gives_the_same_bytes(tmp_path, whole, workers):
    pytest.importorskip("ray").init(num_cpus=4, include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
    run(tmp_path, engine="ray", workers=workers)
    assert toys.files_of(tmp_path) == whole


@pytest.mark.filterwarnings("ignore")
def test_a_worker_killed_in_a_block_changes_no_byte(tmp_path, whole):
    pytest.importorskip("ray").init(num_cpus=4, include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
    marks = tmp_path / "marks"
    marks.mkdir()
    here = os.getpid()

    def dying(x, sigma):
        """Kill the worker process twice: in the first call, and in a call in the middle of a trajectory."""
        for name, due in (("first", True), ("middle", float(sigma) < 1.0)):
            if due and os.getpid() != here and not (marks / name).exists():
                (marks / name).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return toys.denoise(x, sigma)

    run(tmp_path / "out", toys.teacher(dying), engine="ray", workers=2)
    assert sorted(path.name for path in marks.iterdir()) == ["first", "middle"]
    assert toys.files_of(tmp_path / "out") == whole


@pytest.mark.filterwarnings("ignore")
def test_a_unit_that_kills_every_worker_fails_its_cells(tmp_path):
    pytest.importorskip("ray").init(num_cpus=4, include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
    here = os.getpid()

    def deadly(x, sigma):
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return toys.denoise(x, sigma)

    result = run(tmp_path, toys.teacher(deadly), engine="ray", workers=1, solvers="euler", nfe=3)
    assert "3 workers died while computing this" in result.cells[0].reason
    assert [each.status for each in run(tmp_path, solvers="euler", nfe=3).cells] == ["done"]
