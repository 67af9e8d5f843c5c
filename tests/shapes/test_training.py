"""The training and its command; the loop itself is that of the digits."""

from pathlib import Path

import pytest
import torch
from embedded import guided_references, training
from embedded import shapes_references as references
from embedded import shapes_train as train
from embedded import stages as staged
from embedded.fitting import NetworkFit, fit
from embedded.growth import grown

from solverbench.errors import UserError
from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded import streams
from solverbench.teachers.embedded.shapes import data
from solverbench.teachers.embedded.shapes.denoiser import NULL, Denoiser

QUICK = ["--threads", "1", "--steps", "8", "--batch", "8", "--classifier-steps", "4", "--classifier-batch", "16"]
CPU = torch.device("cpu")


class Interrupted(Exception):
    """Stands for the process being killed."""


def job(steps: int, *, stop_at: int | None = None) -> NetworkFit:
    torch.manual_seed(0)
    network = Denoiser(widths=(16, 16, 32), attention=(False, False, True), embedding=16)

    def loss(step: int) -> torch.Tensor:
        if step == stop_at:
            raise Interrupted
        return train.teacher_loss(network, CPU, 16, step)

    return NetworkFit("toy", network, loss, 3e-3, steps)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    losses = fit(job(60), tmp_path / "c", lambda line: None)["losses"]
    assert losses[-1][1] < 0.8 * losses[0][1]


def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = job(12)
    fit(whole, tmp_path / "whole", lambda line: None)
    with pytest.raises(Interrupted):
        fit(job(12, stop_at=7), tmp_path / "cut", lambda line: None, every=0)
    resumed = job(12)
    fit(resumed, tmp_path / "cut", lambda line: None)
    for a, b in zip(whole.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_more_training_goes_on_from_the_weights_with_fresh_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "VALIDATED", (1, 10))
    asked = [*QUICK, "--out", str(tmp_path), "--networks", "teacher"]
    assert train.main(asked) == 0
    once, first = weights.read_record(tmp_path)["teacher"], train.denoiser.load(tmp_path)
    drawn: list[int] = []
    draw = data.draw

    def watched(seeds: torch.Tensor) -> data.Drawn:
        drawn.append(int(seeds[0]))
        return draw(seeds)

    monkeypatch.setattr(data, "draw", watched)
    assert train.main([*asked, "--more", "5", "--rate", "0"]) == 0
    twice, same = weights.read_record(tmp_path)["teacher"], train.denoiser.load(tmp_path)
    assert drawn[:5] == [streams.TEACHER_STREAM + 8 * k for k in range(8, 13)]
    assert (twice["images"], twice["before"]) == (8 * 13, once)
    for a, b in zip(first.parameters(), same.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), "at a rate of 0 nothing changes"
    assert train.main(asked) == 0
    assert weights.read_record(tmp_path)["teacher"] == twice, "without --more what is there is kept"


def test_a_grown_network_computes_what_the_smaller_one_does() -> None:
    torch.manual_seed(0)
    small = Denoiser(widths=(16, 32, 32), blocks=(1, 2, 1), attention=(False, True, True), embedding=16)
    for parameter in small.parameters():
        parameter.data.normal_(std=0.1)
    large = grown(small, (32, 64, 96), (3, 2, 2))
    noisy, sigma, classes = torch.randn(4, *data.SHAPE), torch.tensor(0.7).double(), torch.arange(4)
    expected, actual = small(noisy, sigma, classes), large(noisy, sigma, classes)
    assert (expected - small(noisy, sigma, classes + 1)).abs().max() > 1e-3
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    train.denoising_loss(large, noisy, sigma.expand(4), torch.randn_like(noisy), classes).backward()
    for name, parameter in large.named_parameters():
        assert parameter.grad is not None, name
        assert ".outer" not in name or parameter.grad.any(), name
    with pytest.raises(UserError, match="name no smaller ones"):
        grown(large, (16, 64, 96), (3, 2, 2))


def test_the_shipped_teacher_is_trained_in_stages_and_a_cut_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "VALIDATED", (1, 10))
    large = {"widths": [48, 64, 128], "blocks": [2, 1, 1]}
    stages = ({"steps": 3, "rate": 1e-3}, {"more": 2, "rate": 1e-3}, {"more": 2, "rate": 1e-3} | large)
    asked = [*QUICK, "--out", str(tmp_path), "--networks", "teacher", "--shipped"]
    monkeypatch.setattr(train, "SHIPPED", stages[:2])
    assert train.main(asked) == 0
    monkeypatch.setattr(train, "SHIPPED", stages)
    assert train.main(asked) == 0
    record = weights.read_record(tmp_path)["teacher"]
    assert (record["images"], record["config"]["blocks"]) == (8 * 7, [2, 1, 1])
    assert record["before"]["before"]["config"]["widths"] == [32, 64, 128]
    assert train.main(asked) == 0
    assert weights.read_record(tmp_path)["teacher"] == record, "all stages are there: nothing is left to train"


def test_bfloat16_is_for_devices_that_compute_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes: list[torch.dtype] = []

    def spy(x: torch.Tensor, sigma: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        dtypes.append((x[0, 0] @ x[0, 0]).dtype)
        return x

    x = torch.zeros(2, *data.SHAPE)
    for known, name in (({}, "float32"), ({"amx_bf16": True}, "bfloat16"), ({"avx512_bf16": True}, "bfloat16")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known, raising=False)
        assert staged.arithmetic(CPU) == name
        staged.estimator(spy, torch.zeros(2))(x, torch.ones(2))  # type: ignore[arg-type]
        assert dtypes.pop() == getattr(torch, name)
    assert staged.arithmetic(torch.device("cuda")) == "bfloat16"


def test_a_tenth_of_the_images_is_shown_without_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[torch.Tensor] = []

    def spy(
        network: Denoiser, clean: torch.Tensor, sigma: object, noise: object, classes: torch.Tensor
    ) -> torch.Tensor:
        told.append(classes)
        return clean.mean()

    monkeypatch.setattr(train, "denoising_loss", spy)
    train.teacher_loss(Denoiser(), CPU, 4000, 0)
    (classes,) = told
    assert (classes == NULL).double().mean().item() == pytest.approx(train.DROPPED, abs=0.02)
    first = data.draw(range(streams.TEACHER_STREAM, streams.TEACHER_STREAM + 4000)).labels
    assert torch.equal(classes[classes != NULL], first[classes != NULL])


def test_levels_cover_the_range_evenly() -> None:
    levels = training.levels(16_000, torch.Generator().manual_seed(0), train.UNIFORM_SHARE)
    logs = levels[1000:].log()
    assert logs.mean().item() == pytest.approx(training.P_MEAN, abs=2e-3)
    assert logs.std().item() == pytest.approx(training.P_STD, abs=5e-3)
    flat = levels[:1000].log().sort().values
    assert (flat.diff() < 2.5 * (flat[-1] - flat[0]) / 1000).all()


def test_the_commands_make_a_whole_teacher(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks, references, and a teacher that loads; a second call keeps what is there."""
    from solverbench.teachers.embedded.shapes import load

    precision = torch.get_float32_matmul_precision()
    monkeypatch.setattr(train, "VALIDATED", (1, 10))
    monkeypatch.setattr(train, "CLASSIFIED", 100)
    assert train.main(["--out", str(tmp_path), *QUICK]) == 0
    monkeypatch.setattr(guided_references, "COMPARED", 2)
    monkeypatch.setattr(guided_references, "SET", 70)  # more than the features, so that a covariance has full rank
    monkeypatch.setattr(guided_references, "NOISE_SEEDS", range(1_000_000, 1_000_140))
    monkeypatch.setattr(data, "REFERENCE_SEEDS", data.REFERENCE_SEEDS[:2000])
    monkeypatch.setattr(data, "FLOOR_SEEDS", data.FLOOR_SEEDS[:140])
    asked = ["--out", str(tmp_path), "--nfe", "2", "--guidance", "1", "2"]
    assert references.main(asked) == 0
    names = {"metric.safetensors", "loss.safetensors", "teacher.safetensors", weights.RECORD, "reference-data.npz"}
    names |= {"reference-teacher-1.npz", "reference-teacher-2.npz"}
    assert {path.name for path in tmp_path.iterdir()} == names
    teacher = load(guidance=2.0, folder=tmp_path)
    assert teacher.evaluation is not None
    assert teacher.evaluation.teacher.moments.n == 140
    assert load(guidance=3.0, folder=tmp_path).evaluation is None
    capsys.readouterr()
    assert train.main(["--out", str(tmp_path), *QUICK]) == 0
    assert references.main(asked) == 0
    told = capsys.readouterr().out
    assert (told.count("already there"), told.count("is there already")) == (3, 2)
    torch.set_float32_matmul_precision(precision)


def test_a_missing_gpu_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    for command in (train.main, references.main):
        assert command(["--out", str(tmp_path), "--device", "cuda"]) == 3
        assert capsys.readouterr().err.startswith("--device cuda: no CUDA device")
