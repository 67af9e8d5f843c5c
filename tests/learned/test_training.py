"""Training on a toy mixture: it learns, resumes bit for bit, follows the recipe, and says what went wrong."""

from __future__ import annotations

import csv
import importlib.machinery
import itertools
import math
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from solverbench.errors import MissingError, TrainingError
from solverbench.learned.recipes import Recipe
from solverbench.learned.trained_files import Trained, learned
from solverbench.learned.training import checkpoint
from solverbench.learned.training import train as training
from solverbench.learned.training.adversarial import discriminator_loss, generator_loss
from solverbench.learned.training.data import Data, Pairs
from solverbench.learned.training.optimiser import GroupedOptimiser, rate
from solverbench.learned.training.result import result
from solverbench.learned.training.run import TrainingRun
from solverbench.learned.training.trainer import Trainer, average, validation_error
from solverbench.method.execution import unrounded
from solverbench.teachers.teacher import Teacher

SOLVERS = ("gs", "gas")


class Killed(Exception):
    """Stands for the end of a process."""


def kill_at(*moments: int) -> training.Progress:
    def progress(iteration: int, total: int, loss: float, validation: float | None) -> None:
        if iteration in moments:
            raise Killed

    return progress


def student(solver: str, nfe: int, teacher: Teacher, recipe: Recipe, data: Data, seed: int = 0) -> Trainer:
    return Trainer(TrainingRun(learned(solver), nfe, teacher, recipe, seed), data)


def rows(folder: Path) -> list[dict[str, str]]:
    with next(folder.glob("trained/toy/runs/*/history.csv")).open(newline="") as file:
        return list(csv.DictReader(file))


def chosen(solver: str, recipe: Recipe, adversarial: Recipe) -> Recipe:
    return adversarial if solver == "gas" else recipe


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("nfe", [1, 2, 4])
def test_fit_lowers_the_loss_and_the_validation_error(
    solver: str, nfe: int, teacher: Teacher, recipe: Recipe, adversarial: Recipe, data: Data, tmp_path: Path
) -> None:
    wanted = chosen(solver, recipe, adversarial)
    trained = training.train(solver, nfe, teacher, wanted, seed=0, out=tmp_path, data=data)
    run = trained.record["runs"][0]
    history = rows(tmp_path)
    assert run["validation_last"] < 0.95 * run["validation_initial"]
    assert float(history[-1]["distance"]) < 0.95 * float(history[1]["distance"])
    assert [row["iteration"] for row in history] == [str(k) for k in range(31)]
    assert {row["iteration"] for row in history if row["validation"]} == {"0", "10", "20", "30"}


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_killed_run_ends_bit_equal_to_an_undisturbed_one(
    solver: str, teacher: Teacher, recipe: Recipe, adversarial: Recipe, data: Data, tmp_path: Path
) -> None:
    wanted = chosen(solver, recipe, adversarial)
    straight = training.train(solver, 3, teacher, wanted, seed=1, out=tmp_path / "a", data=data)
    for moment in (10, 20):
        with pytest.raises(Killed):
            training.train(solver, 3, teacher, wanted, seed=1, out=tmp_path / "b", data=data, progress=kill_at(moment))
    seen: list[int] = []
    resumed = training.train(
        solver, 3, teacher, wanted, seed=1, out=tmp_path / "b", data=data, progress=lambda k, *_: seen.append(k)
    )
    assert seen == list(range(21, 31))
    assert all(torch.equal(straight.parameters[name], resumed.parameters[name]) for name in straight.parameters)
    assert straight.identity == resumed.identity
    assert rows(tmp_path / "a") == rows(tmp_path / "b")
    assert straight.record["runs"][0]["validation_best"] == resumed.record["runs"][0]["validation_best"]


def test_a_run_killed_without_warning_goes_on_from_its_last_checkpoint(
    teacher: Teacher, adversarial: Recipe, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = training.train("gas", 2, teacher, adversarial, seed=0, out=tmp_path / "a", data=data)
    step = Trainer.step

    def stopped(self: Trainer) -> dict[str, float]:
        if self.iteration == 13:
            raise Killed
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stopped)
        with pytest.raises(Killed):
            training.train("gas", 2, teacher, adversarial, seed=0, out=tmp_path / "b", data=data, checkpoint_every=5)
    resumed = training.train("gas", 2, teacher, adversarial, seed=0, out=tmp_path / "b", data=data)
    assert straight.identity == resumed.identity
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


def test_a_checkpoint_keeps_the_best_parameters_so_far(
    teacher: Teacher, recipe: Recipe, data: Data, tmp_path: Path
) -> None:
    first = student("gs", 2, teacher, replace(recipe, validate_every=1), data)
    first.step()
    first.step()
    checkpoint.save(first, tmp_path / "checkpoint")
    second = student("gs", 2, teacher, recipe, data)
    checkpoint.restore(second, tmp_path / "checkpoint")
    assert (second.best.criterion, second.best.iteration) == (first.best.criterion, first.best.iteration)
    assert torch.equal(second.best.vector, first.best.vector)
    assert math.isfinite(second.best.criterion)


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0.0, [8.0] * 6),
        ("linear", 0.0, [8.0, 6.6, 5.2, 3.8, 2.4, 1.0]),
        ("cosine", 0.0, [1 + 3.5 * (1 + math.cos(math.pi * k / 5)) for k in range(6)]),
        ("constant", 0.5, [8 / 3, 16 / 3, 8.0, 8.0, 8.0, 8.0]),
        ("linear", 0.5, [8 / 3, 16 / 3, 8.0, 8.0, 4.5, 1.0]),
        ("cosine", 1.0, [8 * k / 6 for k in range(1, 7)]),
    ],
)
def test_a_schedule_starts_at_the_rate_and_ends_at_the_least(
    recipe: Recipe, schedule: str, warmup: float, expected: list[float]
) -> None:
    settings = replace(recipe, iterations=6, schedule=schedule, warmup=warmup)
    assert [rate(settings, k, 8.0, 1.0) for k in range(1, 7)] == pytest.approx(expected, rel=1e-14)
    assert rate(replace(settings, iterations=1, warmup=0.0), 1, 8.0, 1.0) == 8.0
    assert rate(replace(settings, warmup=0.0), 6, 0.5, 1.0) == 0.5  # never raised to the least


def test_a_falling_rate_is_the_steps_and_resumes_bit_for_bit(
    teacher: Teacher, recipe: Recipe, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    falling = replace(
        recipe, schedule="cosine", warmup=0.2, lr_min=1e-3, offsets_optimiser="sgd", offsets_lr=0.1, offsets_lr_min=0.01
    )
    used: list[list[float]] = []
    step = GroupedOptimiser.step

    def watched(self: GroupedOptimiser, iteration: int) -> None:
        step(self, iteration)
        used.append([optimiser.param_groups[0]["lr"] for optimiser in self.optimisers])

    monkeypatch.setattr(GroupedOptimiser, "step", watched)
    straight = training.train("gs", 3, teacher, falling, seed=1, out=tmp_path / "a", data=data)
    assert used[5] == used[6] == [falling.lr, pytest.approx(0.1 / 3)]  # SGD's rate on offsets is a call's
    assert used[29] == pytest.approx([1e-3, 0.01])
    assert all(one[0] > two[0] for one, two in itertools.pairwise(used[6:]))
    with pytest.raises(Killed):
        training.train("gs", 3, teacher, falling, seed=1, out=tmp_path / "b", data=data, progress=kill_at(17))
    resumed = training.train("gs", 3, teacher, falling, seed=1, out=tmp_path / "b", data=data)
    assert resumed.identity == straight.identity
    assert used[30:47] + used[47:] == used[:30]
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


def test_patience_lowers_what_the_schedule_starts_from(teacher: Teacher, recipe: Recipe, data: Data) -> None:
    falling = replace(recipe, schedule="linear", lr_min=0.0, lr_decay=0.5, patience=1)
    moving = student("gs", 2, teacher, falling, data).descent
    moving.decay(frozenset(("times",)), "times")
    moving.step(11)
    assert moving.optimisers[0].param_groups[0]["lr"] == pytest.approx(falling.lr / 2 * (1 - 10 / 29))


def test_a_training_that_blows_up_stops_and_keeps_the_best(
    teacher: Teacher, recipe: Recipe, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = iter([0.5, 0.3, 0.2, 0.59, 0.2 * 3.01, 0.1, 0.1])  # of the untrained solver, then every 5 iterations
    validated = Trainer._validated
    monkeypatch.setattr(Trainer, "_validated", lambda self: validated(self) | {"validation": next(measured)})
    careful = replace(recipe, validate_every=5, stop_above=3.0, choose="last")
    with pytest.raises(Killed):  # at the very iteration that ends it
        training.train("gs", 2, teacher, careful, seed=0, out=tmp_path, data=data, progress=kill_at(20))
    trained = training.train("gs", 2, teacher, careful, seed=0, out=tmp_path, data=data, progress=kill_at(21))
    run = trained.record["runs"][0]
    assert (run["validation"], run["best_iteration"], run["iterations"], run["stopped"]) == (0.2, 10, 20, 20)
    assert run["note"].startswith(
        "stopped at iteration 20 of 30: the validation error rose to 0.602, 3.0 times the best so far; "
        "the parameters of iteration 10 (0.2) are kept."
    )
    monkeypatch.undo()
    shorter = student("gs", 2, teacher, careful, data)
    while shorter.iteration < 10:
        shorter.step()
    kept = shorter.descent.parameters(shorter.average)
    assert all(torch.equal(trained.parameters[name], kept[name]) for name in kept)
    assert rows(tmp_path)[-1]["iteration"] == "20"


def test_without_a_limit_no_validation_error_ends_a_training(
    teacher: Teacher, recipe: Recipe, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving = student("gs", 1, teacher, replace(recipe, stop_above=0.0, validate_every=1), data)
    errors = iter([1.0, 1e-9, 1e9])
    monkeypatch.setattr(moving, "_validated", lambda: {"validation": next(errors)})
    moving.start()
    moving.step()
    moving.step()
    assert not moving.finished
    run = result(moving).record["runs"][0]
    assert run["validation"] == 1e9
    assert "stopped" not in run


def test_a_finished_run_is_read_back_not_repeated(teacher: Teacher, recipe: Recipe, data: Data, tmp_path: Path) -> None:
    first = training.train("gs", 2, teacher, recipe, seed=0, out=tmp_path, data=data)
    again = training.train("gs", 2, teacher, recipe, seed=0, out=tmp_path, data=data, progress=kill_at(*range(31)))
    assert again.identity == first.identity
    assert not list(tmp_path.rglob("checkpoint*"))


def test_another_recipe_seed_or_teacher_is_another_run(teacher: Teacher, recipe: Recipe, tmp_path: Path) -> None:
    solver = learned("gs")
    jobs = [
        TrainingRun(solver, 2, teacher, recipe, 0),
        TrainingRun(solver, 2, teacher, recipe, 1),
        TrainingRun(solver, 3, teacher, recipe, 0),
        TrainingRun(solver, 2, teacher, replace(recipe, lr=0.01), 0),
        TrainingRun(solver, 2, replace(teacher, identity="cd" * 32), recipe, 0),
    ]
    assert len({job.folder(tmp_path) for job in jobs}) == len(jobs)
    assert TrainingRun(solver, 2, teacher, replace(recipe, training_seeds=9), 0).folder(tmp_path) == jobs[0].folder(
        tmp_path
    )


def test_an_adversarial_iteration_moves_the_discriminator_with_both_penalties(
    teacher: Teacher, adversarial: Recipe, data: Data
) -> None:
    moving = student("gas", 3, teacher, adversarial, data)
    assert moving.discriminator is not None
    before = {name: tensor.clone() for name, tensor in moving.discriminator.state_dict().items()}
    for _ in range(20):
        row = moving.step()
    moved = {
        name for name, tensor in moving.discriminator.state_dict().items() if not torch.equal(before[name], tensor)
    }
    assert moved == set(before)
    assert row["r1"] > 0
    assert row["r2"] > 0
    for images in (data.train.images[:4], torch.randn(4, 1, 8, 8)):  # a pair of one image: only its penalty is left
        moving.discriminator.requires_grad_(True)
        loss = discriminator_loss(moving.discriminator, images, images, gamma=1.0)
        slopes = torch.autograd.grad(loss.loss, [moving.discriminator.first])
        assert slopes[0].abs().max() > 1e-4


def test_the_student_does_not_train_the_discriminator(teacher: Teacher, adversarial: Recipe, data: Data) -> None:
    moving = student("gas", 2, teacher, replace(adversarial, discriminator_lr=1e-30), data)
    moving.step()
    assert moving.discriminator is not None
    left = [parameter.grad for parameter in moving.discriminator.parameters()]
    moving.step()
    assert all(not parameter.requires_grad for parameter in moving.discriminator.parameters())
    assert all(slope is not None for slope in left)  # those of its own step


def test_an_iteration_is_the_published_one_in_the_published_order(
    teacher: Teacher, adversarial: Recipe, data: Data
) -> None:
    """One GAS iteration by hand: fakes of fresh noise and the old student, the new discriminator for the student."""
    moving = student("gas", 2, teacher, adversarial, data)
    other = student("gas", 2, teacher, adversarial, data)
    assert other.discriminator is not None
    batch = data.train.pick(other._chosen(1))
    tableau, scale = other.tableau(other.vector), other.scale
    images = unrounded(tableau, teacher.denoise, scale * batch.noise)
    shown = other._discriminator_step(tableau, batch, 1)
    adversarial_loss = generator_loss(other.discriminator, images, batch.images)
    distance = (images - batch.images).square().flatten(1).mean(1)
    loss = (distance + adversarial.adversarial_weight * adversarial_loss).mean()
    (slope,) = torch.autograd.grad(loss, [other.vector])
    row = moving.step()
    assert row["loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert row["distance"] == pytest.approx(distance.mean().item(), rel=1e-6)
    assert row["adversarial"] == pytest.approx(adversarial_loss.mean().item(), rel=1e-6)
    assert row["d_fake"] == pytest.approx(shown["d_fake"].item(), rel=1e-6)
    assert row["gradient"] == pytest.approx(slope.norm().item(), rel=1e-5)
    clipped = slope / max(1.0, slope.norm().item())
    expected = other.vector.detach() - adversarial.lr * clipped / (clipped.abs() + 1e-8)  # Adam's first step
    torch.testing.assert_close(moving.vector.detach(), expected.detach(), rtol=1e-6, atol=1e-8)
    state = moving.descent.optimisers[0].state
    momentum = torch.cat([state[part]["exp_avg"] for part in moving.descent.parts.values()])
    torch.testing.assert_close(momentum, 0.1 * clipped, rtol=1e-5, atol=1e-8)
    mixed = 2 / 11 * other.vector + 9 / 11 * moving.vector  # the average's first update
    torch.testing.assert_close(moving.average, mixed.detach(), rtol=1e-12, atol=0)


def test_fakes_of_the_discriminator_come_from_other_noise_than_the_batch(
    teacher: Teacher, adversarial: Recipe, data: Data, judged: list[Tensor]
) -> None:
    moving = student("gas", 2, teacher, adversarial, data)
    batch = data.train.pick(moving._chosen(1))
    tableau, scale = moving.tableau(moving.vector), moving.scale
    with torch.no_grad():
        images = unrounded(tableau, teacher.denoise, scale * batch.noise)
    moving.step()
    moving.step()
    assert torch.equal(judged[0], batch.images)
    assert not judged[1].requires_grad
    assert (judged[1] - images).abs().amax((1, 2, 3)).min() > 0.05
    assert not torch.equal(judged[1], judged[3])


def test_without_its_adversarial_part_gas_is_gs(teacher: Teacher, recipe: Recipe, data: Data, tmp_path: Path) -> None:
    gs, gas = (training.train(name, 3, teacher, recipe, seed=0, out=tmp_path, data=data) for name in SOLVERS)
    assert all(torch.equal(gs.parameters[name], gas.parameters[name]) for name in gs.parameters)


def test_average_follows_the_warm_up_rule() -> None:
    shadow = torch.zeros(1, dtype=torch.float64)
    by_hand = 0.0
    for update, value in enumerate((1.0, 3.0, -2.0), start=1):
        average(shadow, torch.tensor([value], dtype=torch.float64), 0.2, update)
        kept = (2 / 11, 0.2, 0.2)[update - 1]  # (1 + 1)/(10 + 1), then the decay: (1 + 2)/(10 + 2) = 0.25 is above it
        by_hand = kept * by_hand + (1 - kept) * value
        assert shadow.item() == pytest.approx(by_hand, rel=1e-14)


def test_the_result_is_the_average_and_the_best_if_the_recipe_says_so(
    teacher: Teacher, recipe: Recipe, data: Data
) -> None:
    wild = replace(recipe, lr=0.3, ema_decay=0.3, validate_every=1)
    results = {}
    for choose in ("last", "best"):
        moving = student("gs", 2, teacher, replace(wild, choose=choose), data)
        moving.start()
        while moving.iteration < wild.iterations:
            moving.step()
        results[choose] = result(moving)
        vector = torch.cat([tensor.flatten() for tensor in results[choose].parameters.values()])
        assert torch.equal(vector, moving.average if choose == "last" else moving.best.vector)
        assert not torch.equal(vector, moving.vector.detach())
    run = results["best"].record["runs"][0]
    assert run["validation"] == run["validation_best"] < run["validation_last"]
    assert results["last"].record["runs"][0]["validation"] == run["validation_last"]


def test_validation_error_is_the_root_mean_square_of_each_image() -> None:
    images = torch.stack([torch.zeros(1, 2, 2), torch.tensor([[[3.0, 0.0], [0.0, 4.0]]])])
    assert validation_error(images, torch.zeros(2, 1, 2, 2)).tolist() == [0.0, 2.5]


def test_every_epoch_takes_each_pair_once_in_another_order(teacher: Teacher, recipe: Recipe, data: Data) -> None:
    moving = student("gs", 1, teacher, replace(recipe, batch=30), data)
    picked = [
        data.train.noise[moving._chosen(k)] for k in (1, 2, 3, 4)
    ]  # two batches of 30 per epoch of 80, 20 dropped
    assert len(torch.cat(picked[:2]).unique(dim=0)) == 60
    assert len(torch.cat(picked[2:]).unique(dim=0)) == 60
    assert not torch.equal(picked[0], picked[2])
    again = student("gs", 1, teacher, replace(recipe, batch=30), data)
    assert torch.equal(data.train.noise[again._chosen(4)], picked[3])


def test_times_that_reach_zero_are_an_error_with_step_and_value(
    teacher: Teacher, recipe: Recipe, data: Data, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"gs nfe=10 training seed 0, iteration \d+: gs: call \d+ .* time -\d"):
        training.train("gs", 10, teacher, replace(recipe, lr=0.9), seed=0, out=tmp_path, data=data)


def test_a_loss_that_is_not_finite_stops_and_keeps_what_there_is(
    teacher: Teacher, recipe: Recipe, data: Data, tmp_path: Path
) -> None:
    calls = 0

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal calls
        calls += x.requires_grad or sigma.requires_grad
        return teacher.denoise(x, sigma) * (math.nan if calls > 2 * 12 else 1)

    with pytest.raises(TrainingError, match=r"gs nfe=2 training seed 0, iteration 13: .*nan is not finite"):
        training.train(
            "gs", 2, replace(teacher, denoise=denoise), recipe, seed=0, out=tmp_path, data=data, checkpoint_every=5
        )
    assert rows(tmp_path)[-1]["iteration"] == "12"
    healed = training.train("gs", 2, teacher, recipe, seed=0, out=tmp_path, data=data)
    assert healed.identity == training.train("gs", 2, teacher, recipe, seed=0, out=tmp_path / "b", data=data).identity


def test_several_training_seeds_are_tried_and_the_best_by_validation_is_kept(
    teacher: Teacher, recipe: Recipe, data: Data, tmp_path: Path
) -> None:
    counts: list[tuple[int, int]] = []
    best = training.train_best(
        "gs", 2, teacher, recipe, out=tmp_path, data=data, progress=lambda k, n, *_: counts.append((k, n))
    )
    runs = best.record["runs"]
    assert [run["seed"] for run in runs] == [0, 1]
    assert runs[0]["validation"] != runs[1]["validation"]
    assert best.record["seed"] == min(runs, key=lambda run: run["validation"])["seed"]
    single = training.train("gs", 2, teacher, recipe, seed=best.record["seed"], out=tmp_path, data=data)
    assert single.identity == best.identity
    assert counts == [(k, 60) for k in range(1, 61)]


def test_the_record_says_what_it_cost_and_which_seeds_it_saw(
    teacher: Teacher, adversarial: Recipe, data: Data, tmp_path: Path
) -> None:
    trained = training.train("gas", 2, teacher, adversarial, seed=0, out=tmp_path, data=data)
    cost = trained.record["runs"][0]["cost"]
    assert cost["teacher_calls"] == (80 + 40) * 20
    assert cost["student_calls_with_gradient"] == 30 * 16 * 2
    assert cost["student_calls_without"] == (30 * 16 + 4 * 40) * 2  # fakes, and four validations
    assert cost["seconds"] > 0
    assert cost["peak_memory_bytes"] > 0
    assert trained.seeds == {"training": range(80), "validation": range(40_000, 40_040)}
    assert trained.record["recipe"] == adversarial.as_dict()


def test_gs_is_not_trained_with_a_discriminator(teacher: Teacher, adversarial: Recipe) -> None:
    with pytest.raises(
        TrainingError, match=r"adversarial_weight=0.5, but gs has no adversarial training; leave it out or train gas"
    ):
        TrainingRun(learned("gs"), 2, teacher, adversarial, 0)


def test_a_teacher_of_oblong_images_has_a_discriminator_too(teacher: Teacher, adversarial: Recipe) -> None:
    oblong = replace(teacher, shape=(1, 8, 16), denoise=lambda x, sigma: x / (1 + sigma.to(x) ** 2))
    noise = torch.randn(80, 1, 8, 16, generator=torch.Generator().manual_seed(0))
    moving = student("gas", 2, oblong, adversarial, Data(Pairs(noise, noise), Pairs(noise[:40], noise[:40])))
    assert math.isfinite(moving.step()["adversarial"])


def test_training_starts_where_the_teacher_does(teacher: Teacher, recipe: Recipe, data: Data) -> None:
    assert student("gs", 2, teacher, recipe, data).scale == teacher.schedule.prior_scale == 80


def test_prepared_pairs_are_noise_by_seed_and_the_teacher_samplers_images(
    teacher: Teacher, recipe: Recipe, data: Data, tmp_path: Path
) -> None:
    made = training.prepare(teacher, recipe, tmp_path)
    for own, wanted in ((made.train, data.train), (made.validation, data.validation)):
        assert torch.equal(own.noise, wanted.noise)
        torch.testing.assert_close(own.images, wanted.images, rtol=1e-4, atol=1e-4)
    assert isinstance(training.train("gs", 1, teacher, replace(recipe, iterations=1), seed=0, out=tmp_path), Trained)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"widths": (8,)}, "no number of widths leaves"),
        ({"discriminator_weights": "nowhere.safetensors"}, "there is no such file"),
        ({"loss": "features"}, "has no loss network"),
    ],
)
def test_what_a_recipe_needs_is_looked_at_before_any_image_is_made(
    teacher: Teacher, adversarial: Recipe, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    def called(x: Tensor, sigma: Tensor) -> Tensor:
        raise AssertionError("an image was begun")

    shape = (1, 64, 4) if "widths" in change else teacher.shape
    with pytest.raises((TrainingError, MissingError), match=said):
        training.prepare(replace(teacher, denoise=called, shape=shape), replace(adversarial, **change), tmp_path)


def test_tensorboard_gets_every_number_or_says_which_extra_is_missing(
    teacher: Teacher, recipe: Recipe, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, float, int]] = []

    class SummaryWriter:
        def __init__(self, folder: Path) -> None:
            self.folder = folder

        def add_scalar(self, name: str, value: float, step: int) -> None:
            seen.append((name, value, step))

        def flush(self) -> None:
            assert self.folder.name == "tensorboard"

    short = replace(recipe, iterations=2)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingError, match=r"pip install '(solverbench|\.)\[tensorboard\]'"):
        training.train("gs", 2, teacher, short, seed=0, out=tmp_path, data=data, tensorboard=True)
    package = types.ModuleType("tensorboard")
    package.__spec__ = importlib.machinery.ModuleSpec("tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboard", package)
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    training.train("gs", 2, teacher, short, seed=0, out=tmp_path, data=data, tensorboard=True)
    assert [(name, step) for name, _, step in seen] == [
        (name, step)
        for step in (1, 2)
        for name in ("distance", "loss", "gradient", *(("validation",) if step == 2 else ()))
    ]
