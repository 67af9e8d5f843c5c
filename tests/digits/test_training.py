"""The training loop: progress, exact resumption, and what it refuses."""

from pathlib import Path

import pytest
import torch
from embedded import digits_train as train
from embedded import training
from embedded.fitting import NetworkFit, fit, rate
from torch import nn

from solverbench.errors import RecordError, TrainingError
from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded.digits import data
from solverbench.teachers.embedded.digits.denoiser import Denoiser

QUICK = ["--threads", "1", "--steps", "12", "--batch", "16", "--classifier-steps", "6", "--classifier-batch", "16"]


class Interrupted(Exception):
    """Stands for the process being killed."""


def job(steps: int, *, stop_at: int | None = None) -> NetworkFit:
    torch.manual_seed(0)
    network, digits = Denoiser(width=16, blocks=1, embedding=8), data.load()

    def loss(step: int) -> torch.Tensor:
        if step == stop_at:
            raise Interrupted
        return train.teacher_loss(network, digits, 32, step)

    return NetworkFit("toy", network, loss, 2e-3, steps)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    losses = fit(job(150), tmp_path / "c", lambda line: None)["losses"]
    assert losses[-1][1] < 0.8 * losses[0][1]


def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = job(30)
    facts = fit(whole, tmp_path / "whole", lambda line: None)
    with pytest.raises(Interrupted):
        fit(job(30, stop_at=20), tmp_path / "cut", lambda line: None, every=0)
    resumed = job(30)
    lines: list[str] = []
    again = fit(resumed, tmp_path / "cut", lines.append)
    assert "step 20" in lines[0]
    assert again["losses"] == facts["losses"]
    for a, b in zip(whole.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_another_runs_checkpoint_is_refused(tmp_path: Path) -> None:
    fit(job(6), tmp_path / "c", lambda line: None)
    with pytest.raises(RecordError, match="remove it"):
        fit(job(7), tmp_path / "c", lambda line: None)


def test_a_loss_that_is_not_finite_stops_training(tmp_path: Path) -> None:
    network = nn.Linear(1, 1)
    broken = NetworkFit("toy", network, lambda step: network.weight.sum() / 0, 1e-3, 5)
    with pytest.raises(TrainingError, match="loss is"):
        fit(broken, tmp_path / "c", lambda line: None)


def test_the_rate_rises_and_ends_near_zero() -> None:
    rates = [rate(step, 5000, 1e-3) for step in range(5000)]
    assert max(rates) == pytest.approx(1e-3)
    assert rates[0] < 1e-5
    assert rates[-1] < 1e-8
    assert rates[:400] == [rate(step, None, 1e-3) for step in range(400)]


def test_what_a_step_draws_depends_on_the_step_alone() -> None:
    network, digits = Denoiser(width=16, blocks=1, embedding=8), data.load()
    first, again, other = (train.teacher_loss(network, digits, 32, step).item() for step in (4, 4, 5))
    assert first == again
    assert first != other


def test_levels_cover_the_range_evenly() -> None:
    levels = training.levels(70_000, torch.Generator().manual_seed(0), train.UNIFORM_SHARE)
    assert (levels > 0).all()
    logs = levels[10_000:].log()
    assert logs.mean().item() == pytest.approx(training.P_MEAN, abs=1e-3)
    assert logs.std().item() == pytest.approx(training.P_STD, abs=1e-3)
    flat = levels[:10_000].log().sort().values
    assert (flat.diff() < 2.5 * (flat[-1] - flat[0]) / 10_000).all()


def test_the_command_trains_all_networks_and_then_keeps_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    precision = torch.get_float32_matmul_precision()
    assert train.main(["--out", str(tmp_path), *QUICK]) == 0
    names = {"metric.safetensors", "loss.safetensors", "teacher.safetensors", weights.RECORD}
    assert {path.name for path in tmp_path.iterdir()} == names
    record = weights.read_record(tmp_path)
    assert record["teacher"]["steps"] == 12
    capsys.readouterr()
    assert train.main(["--out", str(tmp_path), *QUICK]) == 0
    assert capsys.readouterr().out.count("already there") == 3
    torch.set_float32_matmul_precision(precision)


def test_a_missing_gpu_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert train.main(["--out", str(tmp_path), "--device", "cuda"]) == 3
    assert capsys.readouterr().err.startswith("--device cuda: no CUDA device")
