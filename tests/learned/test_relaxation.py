"""LD3's training: noises that move within a ball, stages, optimisers by group, patience; and the references' habits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from solverbench.errors import SpecError
from solverbench.learned import recipes
from solverbench.learned.recipes import Recipe
from solverbench.learned.stages import ends, parse
from solverbench.learned.trained_files import learned
from solverbench.learned.training import checkpoint
from solverbench.learned.training import train as training
from solverbench.learned.training.data import Data
from solverbench.learned.training.patience import Patience
from solverbench.learned.training.relaxation import Relaxation, radius
from solverbench.learned.training.run import TrainingRun
from solverbench.learned.training.trainer import Trainer
from solverbench.method.execution import unrounded
from solverbench.teachers.teacher import Teacher

NFE = 3


@pytest.fixture
def relaxed(recipe: Recipe) -> Recipe:
    """LD3's recipe, short, with a ball large enough to see."""
    return replace(
        recipes.load("ld3", "toy"), iterations=35, batch=16, train_size=80, validation_size=40, radius=0.2,
        validate_every=1, noise_lr=3000.0,
    )  # fmt: skip


def student(teacher: Teacher, recipe: Recipe, data: Data, solver: str = "ld3") -> Trainer:
    return Trainer(TrainingRun(learned(solver), NFE, teacher, recipe, 0), data)


def test_the_radius_is_the_published_one() -> None:
    assert radius(1e-3, (3, 32, 32), 4) == 0.192
    assert radius(1e-3, (3, 32, 32), 10) == 0.03072
    assert radius(1e-3, (4, 64, 64), 4) == 1.024


def test_a_proposal_is_a_gradient_step_projected_to_the_ball() -> None:
    noise = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    relaxation = Relaxation(noise, 0.5, 2.0)
    chosen = torch.tensor([3, 1])
    gradient = torch.zeros(2, 1, 2, 2)
    gradient[0, 0, 0, 0], gradient[1, 0, 1, 1] = 0.1, -7.0
    proposal = relaxation.proposal(chosen, noise[chosen], gradient)
    gap = proposal - noise[chosen]
    assert gap[0, 0, 0, 0] == pytest.approx(-0.2)  # inside the ball: the whole step
    assert gap[1, 0, 1, 1] == pytest.approx(0.5)  # on its surface, down the gradient
    assert gap.flatten(1).norm(dim=1).max() <= 0.5 + 1e-6
    assert relaxation.accept(chosen, proposal, torch.tensor([False, True])) == 0.5
    assert torch.equal(relaxation.moved[3], noise[3])
    assert torch.equal(relaxation.moved[1], proposal[1])
    assert torch.equal(relaxation.given, noise)


def test_the_rate_is_halved_after_a_round_without_acceptance() -> None:
    relaxation = Relaxation(torch.zeros(2, 1), 1.0, 8.0)
    relaxation.accept(torch.tensor([0]), torch.ones(1, 1), torch.tensor([True]))
    relaxation.end_round()
    assert relaxation.rate == 8.0
    relaxation.end_round()
    assert relaxation.rate == 4.0


@pytest.mark.parametrize("compat", [False, True])
def test_noises_move_only_where_the_student_does_better_and_stay_in_their_balls(
    compat: bool, teacher: Teacher, relaxed: Recipe, data: Data
) -> None:
    moving = student(teacher, replace(relaxed, compat=compat), data)
    moving.start()
    rows = [moving.step() for _ in range(15)]
    relaxation = moving.relaxations[0]
    gaps = (relaxation.moved - data.train.noise).flatten(1).norm(dim=1)
    ball = radius(relaxed.radius, teacher.shape, NFE)
    assert relaxation.radius == ball
    assert 0 < gaps.max() <= ball * (1 + 1e-6)
    assert 0 < sum(row["accepted"] for row in rows) < 15
    assert torch.equal(data.train.noise, relaxation.given)
    # Only with compat do validation noises move, after a whole round of five batches.
    assert len(moving.relaxations) == 1 + compat
    if compat:
        assert not torch.equal(moving.relaxations[1].moved, data.validation.noise)


@pytest.mark.parametrize("compat", [False, True])
def test_acceptance_compares_losses_of_the_same_parameters(
    compat: bool, teacher: Teacher, relaxed: Recipe, data: Data
) -> None:
    recipe = replace(relaxed, compat=compat, lr=0.3)  # so that the parameters move much in one step
    moving = student(teacher, recipe, data)
    chosen, old = moving._chosen(1), moving.tableau(moving.vector.detach())
    batch = data.train.pick(chosen)
    moving.step()
    new = moving.tableau(moving.vector.detach())

    def loss(tableau: object, noise: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            images = unrounded(tableau, teacher.denoise, moving.scale * noise)  # type: ignore[arg-type]
        return moving.distance(images, batch.images)

    before = loss(old if compat else new, batch.noise)
    moved = moving.relaxations[0].moved[chosen]
    accepted = (moved != batch.noise).flatten(1).any(1)
    assert accepted.any()
    assert (loss(new, moved)[accepted] < before[accepted]).all()


def test_the_first_stage_leaves_the_evaluation_times_alone(teacher: Teacher, relaxed: Recipe, data: Data) -> None:
    moving = student(teacher, replace(relaxed, patience=0), data)
    moving.start()
    for _ in range(10):  # two of seven parts of 35
        moving.step()
    early = moving.descent.parameters(moving.vector.detach().clone())
    assert not early["theta2"].any()
    assert early["theta1"].std() > 0
    moving.step()  # the eleventh
    assert moving.descent.parameters(moving.vector.detach())["theta2"].any()


def test_times_are_moved_by_rmsprop_and_offsets_by_sgd_each_clipped_alone(
    teacher: Teacher, relaxed: Recipe, data: Data
) -> None:
    recipe = replace(relaxed, stages="all", radius=0.0, clip=1e-3)
    moving = student(teacher, recipe, data)
    assert [type(optimiser).__name__ for optimiser in moving.descent.optimisers] == ["RMSprop", "SGD"]
    before = moving.vector.detach().clone()
    moving.vector.grad = torch.arange(1.0, 9.0, dtype=torch.float64)
    norm = moving.descent.clip(frozenset({"times", "offsets"}))
    moving.descent.step(1)
    assert norm == pytest.approx(sum(k**2 for k in range(1, 9)) ** 0.5)
    moved = moving.vector.detach() - before
    offsets = torch.arange(5.0, 9.0, dtype=torch.float64)
    clipped = offsets * 1e-3 / (offsets.norm() + 1e-6)
    torch.testing.assert_close(moved[4:], -recipe.offsets_lr / NFE * clipped, rtol=1e-6, atol=1e-12)
    assert (moved[:4] < 0).all()
    assert moved[:4].std() < 1e-3 * moved[:4].abs().mean()  # RMSprop's first step has one length for all


def test_stages_cut_the_iterations_by_their_shares_cycle_after_cycle() -> None:
    assert ends("times:2,times+offsets:5", 1, 175) == [(50, {"times"}), (175, {"times", "offsets"})]
    assert [last for last, _ in ends("times+offsets,coefficients:3", 2, 16)] == [2, 8, 10, 16]
    assert parse("all") == [(frozenset({"times", "offsets", "coefficients"}), 1.0)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time:2", "'time' isn't a group"),
        ("times:x", "'x' isn't a share"),
        ("times:0", "'0' isn't a share"),
        ("", "''"),
    ],
)
def test_stages_that_can_not_be_read_are_refused(text: str, said: str, relaxed: Recipe) -> None:
    with pytest.raises(SpecError, match=f"stages={text}: .*{said}"):
        replace(relaxed, stages=text)


def test_patience_goes_back_to_the_best_slows_down_and_ends(teacher: Teacher, relaxed: Recipe, data: Data) -> None:
    recipe = replace(
        relaxed, iterations=400, stages="times+offsets", lr=0.2, offsets_lr=0.9, patience=2, lr_decay=0.1, lr_min=0.08,
        offsets_lr_min=0.02, stop_after=2, radius=0.0,
    )  # fmt: skip
    moving = student(teacher, recipe, data)
    moving.start()
    criteria = []
    while not moving.finished:
        row = moving.step()
        criteria.append(row["validation_loss"])
    assert moving.patience.over
    assert moving.iteration < 400
    rates = list(moving.descent.peaks)
    assert rates == [pytest.approx(0.08), pytest.approx(0.02)]
    assert moving.best.criterion == min(criteria)
    assert torch.equal(moving.vector.detach(), moving.best.vector)


def test_patience_counts_failures_in_a_row_alone(relaxed: Recipe) -> None:
    patience = Patience(replace(relaxed, patience=3))
    seen = [patience.exhausted(improved) for improved in (False, False, True, False, False, False, False)]
    assert seen == [False, False, False, False, False, True, False]
    off = Patience(replace(relaxed, patience=0))
    assert not any(off.exhausted(False) for _ in range(50))


def test_until_patience_runs_out_a_few_validation_pairs_do(teacher: Teacher, relaxed: Recipe, data: Data) -> None:
    recipe = replace(relaxed, validation_first_use=4, patience=2, lr=0.2, radius=0.0, stages="times")
    moving = student(teacher, recipe, data)
    moving.start()
    images = unrounded(moving.tableau(moving.average), teacher.denoise, moving.scale * data.validation.noise[:4])
    few = moving.distance(images, data.validation.images[:4]).mean()
    assert moving.history[0]["validation_loss"] == pytest.approx(float(few), rel=1e-5)
    rate = moving.descent.peaks[0]
    while moving.patience.partial:
        moving.step()
    assert moving.descent.peaks[0] == rate  # the first time, it isn't lowered
    images = unrounded(moving.tableau(moving.average), teacher.denoise, moving.scale * data.validation.noise)
    assert moving.best.criterion == pytest.approx(
        float(moving.distance(images, data.validation.images).mean()), rel=1e-5
    )


class Killed(Exception):
    """Stands for the end of a process."""


@pytest.mark.parametrize("compat", [False, True])
def test_a_relaxed_training_killed_three_times_ends_bit_equal(
    compat: bool, teacher: Teacher, relaxed: Recipe, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(relaxed, compat=compat, patience=2)
    straight = training.train("ld3", NFE, teacher, recipe, seed=1, out=tmp_path / "a", data=data)
    step = Trainer.step
    for moment in (4, 13, 28):

        def stopped(self: Trainer, moment: int = moment) -> dict[str, float]:
            if self.iteration == moment:
                raise Killed
            return step(self)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "step", stopped)
            with pytest.raises(Killed):
                training.train("ld3", NFE, teacher, recipe, seed=1, out=tmp_path / "b", data=data, checkpoint_every=3)
    resumed = training.train("ld3", NFE, teacher, recipe, seed=1, out=tmp_path / "b", data=data)
    assert resumed.identity == straight.identity
    for name in ("history.csv", "path.csv"):
        one, two = (next((tmp_path / side).rglob(name)).read_bytes() for side in "ab")
        assert one == two
    run, again = (made.record["runs"][0] for made in (straight, resumed))
    assert {k: v for k, v in run.items() if k != "cost"} == {k: v for k, v in again.items() if k != "cost"}


def test_a_checkpoint_keeps_patience_rates_and_calls(
    teacher: Teacher, relaxed: Recipe, data: Data, tmp_path: Path
) -> None:
    first, second = _begun(teacher, relaxed, data), student(teacher, relaxed, data)
    first.patience.restore([1, 3, 1])
    first.relaxations[0].rate, first.relaxations[0].accepted = 0.25, 7
    first.descent.decay(frozenset({"times"}), "offsets")
    checkpoint.save(first, tmp_path / "c.safetensors")
    checkpoint.restore(second, tmp_path / "c.safetensors")
    assert second.patience.state() == [1, 3, 1]
    assert (second.relaxations[0].rate, second.relaxations[0].accepted) == (0.25, 7)
    assert second.descent.peaks[0] == pytest.approx(0.8 * relaxed.lr)
    assert second.calls == first.calls
    assert second.history == first.history


def test_a_checkpoint_of_another_shape_is_one_line(
    teacher: Teacher, relaxed: Recipe, data: Data, tmp_path: Path
) -> None:
    checkpoint.save(_begun(teacher, replace(relaxed, radius=0.0), data), tmp_path / "c.safetensors")
    with pytest.raises(checkpoint.RecordError, match=r"an incomplete checkpoint .* delete it to start the run again"):
        checkpoint.restore(student(teacher, relaxed, data), tmp_path / "c.safetensors")


def _begun(teacher: Teacher, recipe: Recipe, data: Data) -> Trainer:
    moving = student(teacher, recipe, data)
    moving.start()
    return moving
