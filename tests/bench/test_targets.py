"""The teacher's own samples: kept, found again, the same for any number of workers."""

import pytest
import torch
import toys

import solverbench as sb
from solverbench import files, seeds
from solverbench.errors import RecordError
from solverbench.method.tracing import tableau as trace
from solverbench.sampling import endpoints

CHOSEN = range(1_990, 3_005)


class Counting:
    def __init__(self):
        self.images = 0

    def __call__(self, x, sigma):
        self.images += len(x)
        return toys.denoise(x, sigma)


def test_endpoints_are_the_teacher_samplers_samples(tmp_path):
    teacher = toys.teacher()
    plan = sb.tableau("heun", nfe=8, teacher=teacher).plan(teacher.schedule.prior_scale)
    expected = sb.execute(plan, teacher.denoise, seeds.noise(CHOSEN, toys.SHAPE))
    found = endpoints.endpoints(teacher, CHOSEN, tmp_path)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=1e-5)


def test_files_are_cut_at_multiples_of_1000_and_made_once(tmp_path):
    first = endpoints.endpoints(toys.teacher(), CHOSEN, tmp_path, workers=1)
    names = ["1990-1999", "2000-2999", "3000-3004"]
    assert sorted(p.name for p in tmp_path.glob("targets/*/*.npz")) == [f"{name}.npz" for name in names]
    assert sorted(p.parent.name for p in tmp_path.glob("targets/*/*/*")) == names
    counting = Counting()
    again = endpoints.endpoints(toys.teacher(counting), CHOSEN, tmp_path, workers=3)
    assert counting.images == 0
    assert torch.equal(first, again)
    other = endpoints.endpoints(toys.teacher(), CHOSEN, tmp_path / "other", workers=3)
    assert torch.equal(first, other)


def test_a_batch_that_had_to_be_halved_is_recorded_and_the_samples_are_the_same(tmp_path):
    def tight(x, sigma):
        if len(x) > 30:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return toys.denoise(x, sigma)

    chosen, batches = range(1_000, 1_110), {}
    found = {}
    for name, denoise in (("roomy", toys.denoise), ("tight", tight)):
        found[name] = endpoints.endpoints(toys.teacher(denoise), chosen, tmp_path / name, batch=100)
        [told] = (tmp_path / name).glob("targets/*/1000-1109/timing.json")
        record = files.read_json(told)
        batches[name] = record["batch"]
        assert record["images"] == 110
    assert batches == {"roomy": 100, "tight": 25}
    assert torch.allclose(found["roomy"], found["tight"], atol=1e-5)


def test_endpoints_may_be_trained_on(tmp_path):
    found = endpoints.endpoints(toys.teacher(), range(4), tmp_path)
    assert not found.requires_grad
    assert not found.is_inference()
    assert torch.ones((), requires_grad=True).mul(found).sum().requires_grad


@pytest.mark.parametrize("change", [{"identity": "b"}, {"sampler_nfe": 10}, {"sampler": "euler"}])
def test_another_teacher_or_sampler_has_other_files(tmp_path, change):
    endpoints.endpoints(toys.teacher(), range(4), tmp_path)
    endpoints.endpoints(toys.teacher(**change), range(4), tmp_path)
    assert len(list(tmp_path.glob("targets/*"))) == 2


def test_a_file_of_other_images_is_refused(tmp_path):
    endpoints.endpoints(toys.teacher(), range(8), tmp_path)
    [path] = tmp_path.glob("targets/*/*.npz")
    path.rename(path.with_name("0-3.npz"))
    with pytest.raises(RecordError, match=r"holds images \(8, 1, 4, 4\)"):
        endpoints.endpoints(toys.teacher(), range(4), tmp_path)


def test_the_plan_of_a_built_in_sampler_is_traced_once_and_a_plugins_each_time(monkeypatch):
    traced = []
    monkeypatch.setattr(endpoints, "_plans", {})
    monkeypatch.setattr(endpoints, "tableau", lambda solver, **asked: traced.append(solver) or trace(solver, **asked))

    class Mine(type(sb.make("euler"))):
        name = "mine"

    for solver, times in ((sb.make("heun"), 1), (Mine(), 2)):
        traced.clear()
        first, second = (endpoints.goal(solver, 8, sb.EDM()) for _ in range(2))
        assert (first, traced) == (second, [solver] * times)
    for nfe, schedule in ((10, sb.EDM()), (8, sb.EDM(0.002, 70.0)), (8, sb.VPLinear())):
        assert endpoints.goal(sb.make("heun"), nfe, schedule) != first
        assert traced.pop() == sb.make("heun").on(schedule)
    assert not endpoints._settled({"grid": {"name": "pipeline"}}), "the schedule's key leaves its levels out"
    for nfe in range(1, 3 * endpoints.KEPT):
        endpoints.goal(sb.make("euler"), nfe, sb.EDM())
    assert len(endpoints._plans) <= endpoints.KEPT
