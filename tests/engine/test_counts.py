"""What the executor does, counted rather than timed: operations a step, calls, and nothing that waits for a device."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

import solverbench as sb
from solverbench.method import prefixes
from solverbench.method.execution import Captured, Counter, _Buffer, _levels, _trajectory, walk
from solverbench.method.tableau import Plan

PLACE = Path(__file__).parents[2] / "benchmarks" / "counts.py"
SPEC = importlib.util.spec_from_file_location("counts", PLACE)
counts = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(counts)

SOLVERS = ["euler", "heun", "dpm2", "dpm:order=3", "unipc:order=3", "ipndm:order=4", "deis:order=4", "dpm:end=zero"]
SHAPE = (4, 3, 8, 8)


def plan(spec, nfe=8):
    return sb.tableau(f"{spec}:grid=polynomial" if "dpm2" not in spec else spec, nfe=nfe).plan()


def images(device="cpu", number=0):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(number)).to(device)


def by_product(plan, denoise, x):
    """As on CUDA."""
    return _trajectory(_Buffer(x, plan.rows), _levels(plan.sigmas), denoise)


def nonlinear(x, sigma):
    return torch.tanh(x / (1 + float(sigma)))


@pytest.mark.parametrize("spec", SOLVERS)
def test_a_step_takes_no_more_operations_than_its_row_has_terms_and_one(spec):
    asked, x, d = plan(spec), images(), images(number=1)
    with counts.Operations() as operations:
        sb.execute(asked, lambda x, sigma: d, x)
    assert 0 < operations.total <= sum(sum(weight != 0 for weight in row) + 1 for row in asked.rows)


def test_a_weight_of_zero_costs_nothing():
    asked = Plan((80.0, 9.0, 1.0), ((80.0,), (0.5, 0.5), (0.1, 0.0, 0.9), (0.2, 0.0, 0.0, 0.8)))
    x, d = images(), images(number=1)
    with counts.Operations() as operations:
        sb.execute(asked, lambda x, sigma: d, x)
    assert operations.names == {"mul": 4, "add_": 3}


@pytest.mark.parametrize("spec", SOLVERS)
def test_a_fused_step_takes_three_operations_at_most(spec):
    asked, x, d = plan(spec), images(), images(number=1)
    past, levels = _Buffer(x, asked.rows), _levels(asked.sigmas)
    with counts.Operations() as operations:
        _trajectory(past, levels, lambda x, sigma: d)
    assert operations.names == {"mv": asked.nfe + 1, "copy_": asked.nfe}
    assert operations.total <= 3 * asked.nfe


def test_a_fused_step_moves_the_states_that_it_combines_and_three_more():
    """A state is read for each term and one is written; an output is copied."""
    asked, x = plan("dpm:order=3"), images()
    past, levels, d = _Buffer(x, asked.rows), _levels(asked.sigmas), images(number=1)
    with counts.Operations() as operations:
        _trajectory(past, levels, lambda x, sigma: d)
    weights = 4 * sum(map(len, asked.rows))
    states = sum(len(row) + 1 for row in asked.rows) + 2 * asked.nfe
    assert operations.moved == 4 * x.numel() * states + weights


def test_a_tree_takes_as_few_operations_as_its_rows_have_terms():
    plans = [plan(spec, 5) for spec in ("euler", "dpm:order=2", "dpm:order=3", "ipndm:order=4")]
    tree, x, d = prefixes.grow(plans), images(), images(number=1)
    calls = {call for end in tree.ends for call in end.path}
    with counts.Operations() as operations:
        found = list(walk(tree, lambda call, x, sigma: d, x, lambda end: True))
    assert len(found) == len(tree.ends)
    rows = [call.row for call in calls] + [end.row for end in tree.ends]
    assert operations.total <= sum(sum(weight != 0 for weight in row) + 1 for row in rows)


@pytest.mark.parametrize("spec", SOLVERS)
def test_the_denoiser_is_called_as_often_as_the_solver_says(spec):
    denoise = Counter(nonlinear)
    sb.execute(plan(spec), denoise, images())
    assert denoise.calls == plan(spec).nfe == 8


@pytest.mark.parametrize("spec", SOLVERS)
def test_nothing_waits_for_the_images(spec):
    """Images on the meta device have no numbers: to read one, or to copy one to the host, is an error there."""
    sample = sb.execute(plan(spec), lambda x, sigma: x / 2, images("meta"))
    assert (sample.device.type, sample.shape) == ("meta", SHAPE)


def test_nothing_waits_for_the_images_of_a_tree():
    tree = prefixes.grow([plan("euler", 4), plan("dpm:order=2", 4)])
    found = list(walk(tree, lambda call, x, sigma: x / 2, images("meta"), lambda end: True))
    assert [sample.device.type for _, sample in found] == ["meta", "meta"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spec", SOLVERS)
def test_the_product_gives_what_the_chain_gives(spec, dtype):
    x = 80 * images().to(dtype)
    chain, product = (run(plan(spec), nonlinear, x) for run in (sb.execute, by_product))
    error = (chain - product).abs().max() / chain.abs().max()
    assert error < (1e-5 if dtype == torch.float32 else 1e-13)


def test_the_product_passes_gradient_on():
    found = []
    for run in (sb.execute, by_product):
        x = images().double().requires_grad_(True)
        found.append(torch.autograd.grad(run(plan("unipc:order=3"), nonlinear, x).square().sum(), x)[0])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def test_a_tree_by_products_gives_each_plan_as_it_is_alone(monkeypatch):
    """Nothing of a branch is left in the buffer for the next one."""
    plans = [plan(spec, 5) for spec in ("euler", "dpm:order=2", "dpm:order=3", "ipndm:order=4")] + [plan("euler", 3)]
    tree, x = prefixes.grow(plans), images()
    monkeypatch.setattr("solverbench.method.execution._Chain", _Buffer)
    for end, sample in walk(tree, lambda call, x, sigma: nonlinear(x, sigma), x, lambda end: True):
        for place in end.plans:
            torch.testing.assert_close(sample, by_product(plans[place], nonlinear, x), rtol=1e-6, atol=1e-7)


def test_a_buffer_takes_only_images_as_it_was_made_for():
    past = _Buffer(images(), plan("euler").rows)
    with pytest.raises(ValueError, match=r"x is \(2, 3, 8, 8\)"):
        past.begin(images()[:2])
    with pytest.raises(ValueError, match=r"denoise returned \(2, 3, 8, 8\)"):
        past.keep(0, images()[:2])


def test_a_plan_of_more_calls_than_python_recurses_is_one_path():
    """Euler's, written down: each input is the one before it, and a step."""
    calls = sys.getrecursionlimit() + 100
    rows = tuple((1.0, *(0.001,) * k) for k in range(calls + 1))
    long = Plan(tuple(80.0 / (k + 1) for k in range(calls)), rows)
    tree = prefixes.grow([long, long])
    assert (tree.asked, tree.needed, [end.plans for end in tree.ends]) == (2 * calls, calls, [[0, 1]])
    [(_, sample)] = walk(tree, lambda call, x, sigma: x, images()[:1, :1, :1, :1], lambda end: True)
    torch.testing.assert_close(sample, images()[:1, :1, :1, :1] * 1.001**calls, rtol=1e-3, atol=0)


def test_only_cuda_captures():
    with pytest.raises(ValueError, match="x is on cpu, but CUDA graphs need CUDA"):
        Captured(plan("euler"), nonlinear, images())


@pytest.mark.gpu
@pytest.mark.parametrize("spec", SOLVERS)
def test_a_captured_trajectory_gives_what_execution_gives(spec):
    network = torch.nn.Conv2d(3, 3, 3, padding=1).cuda()

    def denoise(x, sigma):
        return torch.tanh(network(x / (1 + sigma.to(x))))

    with torch.no_grad():
        captured = Captured(plan(spec), denoise, images("cuda"))
        for number in range(3):
            x = images("cuda", number)
            torch.testing.assert_close(captured(x), sb.execute(plan(spec), denoise, x), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"x is \(2, 3, 8, 8\)"):
        captured(images("cuda")[:2])


@pytest.mark.gpu
def test_on_cuda_a_tree_gives_the_bytes_of_each_plan_alone():
    plans = [plan(spec, 5) for spec in ("euler", "dpm:order=2", "dpm:order=3", "ipndm:order=4")] + [plan("euler", 3)]
    tree, x = prefixes.grow(plans), images("cuda")
    for end, sample in walk(tree, lambda call, x, sigma: nonlinear(x, sigma), x, lambda end: True):
        for place in end.plans:
            assert torch.equal(sample, sb.execute(plans[place], nonlinear, x))


@pytest.mark.gpu
def test_on_cuda_nothing_waits_for_the_device():
    """CUDA's own watch: an error where the host would wait."""
    x, asked = images("cuda"), plan("dpm:order=3")
    torch.cuda.set_sync_debug_mode("error")
    try:
        sb.execute(asked, lambda x, sigma: torch.tanh(x), x)
    finally:
        torch.cuda.set_sync_debug_mode("default")
