"""The discriminator's further settings: trained alone first, told the class, in bfloat16, each penalty's weight."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from solverbench.errors import TrainingError
from solverbench.learned.recipes import Recipe
from solverbench.learned.trained_files import learned
from solverbench.learned.training import discriminators
from solverbench.learned.training import train as training
from solverbench.learned.training.adversarial import Discriminator, Halving, Residual, discriminator_loss
from solverbench.learned.training.data import Data, Pairs
from solverbench.learned.training.run import TrainingRun
from solverbench.learned.training.trainer import Trainer
from solverbench.method.execution import unrounded
from solverbench.teachers.conditions import Condition
from solverbench.teachers.teacher import Teacher


def student(teacher: Teacher, recipe: Recipe, data: Data, nfe: int = 2) -> Trainer:
    return Trainer(TrainingRun(learned("gas"), nfe, teacher, recipe, 0), data)


def network(*, low: int = 0, classes: int = 0, seed: int = 0) -> Discriminator:
    """Three stages, with weights of all layers away from 0."""
    generator = torch.Generator().manual_seed(seed)
    made = Discriminator(
        3, (16, 16), widths=(8, 8, 12), cardinalities=(2, 2, 3), blocks=1, generator=generator, classes=classes,
        low_stages=low,
    )  # fmt: skip
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return made


def images(count: int = 4, *, seed: int = 5) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def classes(teacher: Teacher) -> Teacher:
    """The toy teacher, as one with three classes."""
    return replace(teacher, name="classes", condition=Condition(classes="seed", count=3))


@pytest.fixture
def labelled(data: Data, recipe: Recipe) -> Data:
    """The toy's pairs, with their seeds."""

    def told(pairs: Pairs, chosen: range) -> Pairs:
        return Pairs(pairs.noise, pairs.images, torch.tensor(chosen))

    return Data(told(data.train, recipe.train), told(data.validation, recipe.validation))


# Trained alone first


def test_the_discriminator_is_trained_alone_before_the_student_moves(
    teacher: Teacher, adversarial: Recipe, data: Data
) -> None:
    alone = student(teacher, replace(adversarial, discriminator_pretrain=5), data)
    assert alone.discriminator is not None
    alone.start()
    start, drawn = alone.vector.detach().clone(), alone.discriminator.first.detach().clone()
    validation = alone.calls["without"]
    rows = [alone.step() for _ in range(5)]
    assert torch.equal(alone.vector, start)
    assert not torch.equal(alone.discriminator.first, drawn)
    assert [row["iteration"] for row in rows] == [-5, -4, -3, -2, -1]
    assert all(row["discriminator"] > 0 and row["r1"] > 0 and "loss" not in row for row in rows)
    assert (alone.iteration, alone.done) == (0, 5)
    assert alone.calls == {"with_gradient": 0, "without": validation + 5 * adversarial.batch * 2}
    assert alone.step()["iteration"] == 1
    assert not torch.equal(alone.vector, start)
    assert [row["iteration"] for row in alone.history] == [-5, -4, -3, -2, -1, 0, 1]


def test_each_iteration_alone_has_a_batch_and_fakes_of_its_own(
    teacher: Teacher, adversarial: Recipe, data: Data, judged: list[Tensor]
) -> None:
    alone = student(teacher, replace(adversarial, discriminator_pretrain=2), data)
    alone.start()
    for _ in range(3):
        alone.step()
    for one, two in ((0, 2), (0, 4), (2, 4), (1, 3), (1, 5), (3, 5)):
        assert not torch.equal(judged[one], judged[two])
    assert torch.equal(judged[4], data.train.pick(alone._chosen(1)).images)  # the student's batches are as without


def test_what_is_trained_alone_first_resumes_bit_for_bit_and_counts_in_progress(
    teacher: Teacher, adversarial: Recipe, data: Data, tmp_path: Path
) -> None:
    recipe = replace(adversarial, discriminator_pretrain=4, iterations=6, validate_every=3)
    told: list[tuple[int, int]] = []
    straight = training.train(
        "gas", 2, teacher, recipe, seed=0, out=tmp_path / "a", data=data,
        progress=lambda made, total, *_: told.append((made, total)),
    )  # fmt: skip
    assert told == [(made, 10) for made in range(1, 11)]

    class Killed(Exception):
        pass

    def kill(moment: int) -> training.Progress:
        def progress(made: int, *_: object) -> None:
            if made == moment:
                raise Killed

        return progress

    for moment in (2, 4, 5):
        with pytest.raises(Killed):
            training.train("gas", 2, teacher, recipe, seed=0, out=tmp_path / "b", data=data, progress=kill(moment))
    resumed = training.train("gas", 2, teacher, recipe, seed=0, out=tmp_path / "b", data=data)
    assert resumed.identity == straight.identity
    histories = [next((tmp_path / side).rglob("history.csv")).read_bytes() for side in "ab"]
    assert histories[0] == histories[1]
    rows = list(csv.DictReader(histories[0].decode().splitlines()))
    assert [row["iteration"] for row in rows] == [str(number) for number in range(-4, 7)]
    assert rows[0]["discriminator"]
    assert not rows[0]["loss"]
    costs = [made.record["runs"][0]["cost"] for made in (straight, resumed)]
    assert costs[0]["student_calls_without"] == costs[1]["student_calls_without"]


def test_without_a_discriminator_nothing_is_trained_alone(teacher: Teacher, recipe: Recipe, data: Data) -> None:
    plain = student(teacher, replace(recipe, discriminator_pretrain=5), data)
    assert plain.job.recipe.length == recipe.iterations
    plain.start()
    assert plain.step()["iteration"] == 1


def test_a_penalty_that_is_not_finite_is_named_with_the_iteration_alone(
    teacher: Teacher, adversarial: Recipe, data: Data, tmp_path: Path
) -> None:
    wild = replace(adversarial, discriminator_pretrain=3, gamma=3e38, discriminator_lr=1.0)
    with pytest.raises(TrainingError, match="iteration 2 of the discriminator alone"):
        training.train("gas", 2, teacher, wild, seed=0, out=tmp_path, data=data)


# Told the class


def test_a_discriminator_that_is_told_the_class_projects_on_its_embedding() -> None:
    made = network(classes=3)
    assert made.embedding is not None
    assert made.embedding.shape == (12, 3)
    x, told = images(), torch.tensor([2, 0, 2, 1])
    before_last = made.layers[:-1](x)
    vectors = F.conv2d(before_last, made.layers[-1].weight).flatten(1)  # type: ignore[arg-type]
    expected = torch.stack([vector @ made.embedding[:, each] for vector, each in zip(vectors, told, strict=True)])
    torch.testing.assert_close(made(x, told), expected)
    assert not torch.allclose(made(x, told), made(x, torch.tensor([0, 0, 2, 1])))


def test_an_embedding_starts_at_the_scale_of_r3gans() -> None:
    generator = torch.Generator().manual_seed(0)
    made = Discriminator(1, (8, 8), widths=(8, 256), cardinalities=(2, 4), blocks=1, generator=generator, classes=50)
    assert made.embedding is not None
    # normal, of deviation 1/sqrt(E) over the square root of the fan-in, the number of classes
    assert made.embedding.std().item() == pytest.approx(1 / math.sqrt(256 * 50), rel=0.05)  # of 12 800 draws


def test_classes_do_not_change_the_other_weights_that_are_drawn() -> None:
    def drawn(classes: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(3)
        made = Discriminator(
            1, (8, 8), widths=(8, 12), cardinalities=(2, 3), blocks=1, generator=generator, classes=classes
        )
        return made.state_dict()

    plain, told = drawn(0), drawn(4)
    last = list(plain)[-1]
    assert all(torch.equal(plain[name], told[name]) for name in plain if name != last)


def test_it_is_told_the_classes_of_the_batch(classes: Teacher, adversarial: Recipe, labelled: Data) -> None:
    moving = student(classes, replace(adversarial, conditional=True), labelled)
    discriminator = moving.discriminator
    assert discriminator is not None
    assert discriminator.embedding is not None
    batch = labelled.train.pick(torch.tensor([0, 4, 5]))
    twice = torch.cat([batch.images, batch.images])
    told = torch.tensor([0, 1, 2, 0, 1, 2])  # seeds 0, 4, 5 of three classes
    torch.testing.assert_close(moving._judge(batch)(twice), discriminator(twice, told))
    before = discriminator.embedding.detach().clone()
    moving.start()
    for _ in range(3):
        moving.step()
    assert (discriminator.embedding - before).abs().amin(0).min() > 0  # each class was in a batch
    assert len(moving.history) == 4


def test_told_classes_in_bfloat16_it_resumes_bit_for_bit(
    classes: Teacher, adversarial: Recipe, labelled: Data, tmp_path: Path
) -> None:
    recipe = replace(adversarial, conditional=True, bf16_stages=1, discriminator_pretrain=2, iterations=3)

    def stop(made: int, *_: object) -> None:
        if made == 3:
            raise InterruptedError

    straight = training.train("gas", 2, classes, recipe, seed=0, out=tmp_path / "a", data=labelled)
    with pytest.raises(InterruptedError):
        training.train("gas", 2, classes, recipe, seed=0, out=tmp_path / "b", data=labelled, progress=stop)
    resumed = training.train("gas", 2, classes, recipe, seed=0, out=tmp_path / "b", data=labelled)
    assert resumed.identity == straight.identity


def test_a_teacher_without_classes_has_no_conditional_discriminator(
    teacher: Teacher, adversarial: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"conditional=true.*has no classes"):
        training.prepare(teacher, replace(adversarial, conditional=True), tmp_path)
    prompted = replace(teacher, condition=Condition(prompts=("a", "b")))
    with pytest.raises(TrainingError, match=r"conditional=true.*has no classes"):
        discriminators.check(prompted, replace(adversarial, conditional=True))


# In bfloat16


def by_hand(made: Discriminator, x: Tensor, low: int) -> Tensor:
    """The scores with `low` stages rounded to bfloat16 after each operation, as R3GAN's public code does."""

    def convolved(x: Tensor, weight: Tensor, **settings: int) -> Tensor:
        return F.conv2d(x.float(), weight.to(x.dtype).float(), **settings).to(x.dtype)

    stage, kind = 0, torch.bfloat16 if low else torch.float32
    x = convolved(x.to(kind), made.first)
    for layer in list(made.layers)[1:-2]:
        x = x.to(torch.bfloat16 if stage < low else torch.float32)
        if isinstance(layer, Residual):
            y = x
            for part in (layer.w1, layer.w2):
                assert part.bias is not None
                y = convolved(y, part.weight, padding=part.padding, groups=part.groups)
                y = F.leaky_relu(y + part.bias.to(y.dtype)[:, None, None], 0.2)
            x = x + convolved(y, layer.w3.weight)
        else:
            assert isinstance(layer, Halving)
            channels = x.shape[1]
            x = convolved(x, layer.kernel.repeat(channels, 1, 1, 1), stride=2, padding=1, groups=channels)
            if layer.widen is not None:
                x = convolved(x, layer.widen.weight)
            stage += 1
    basis, last = made.layers[-2].weight, made.layers[-1].weight
    return F.conv2d(F.conv2d(x.float(), basis, groups=len(basis)), last).flatten()  # type: ignore[arg-type]


@pytest.mark.parametrize("low", [0, 1, 2])
def test_stages_in_bfloat16_are_those_of_the_full_size(low: int) -> None:
    made, x = network(low=low), images()
    scores = made(x)
    assert scores.dtype == torch.float32
    precise = network(low=0)(x)
    gap = (scores - precise).norm()
    # The same roundings, but for the few that another order of a sum decides.
    assert (scores - by_hand(made, x, low)).norm() < 0.3 * gap + 1e-5 * precise.norm()
    # A rounding to bfloat16 is up to 2^-9 = .002, and there are about ten on each path.
    assert gap == 0 if low == 0 else 1e-4 * precise.norm() < gap < 0.05 * precise.norm()


def test_the_penalties_of_stages_in_bfloat16_have_gradients_near_the_precise_ones() -> None:
    slopes = []
    for low in (0, 2):
        made = network(low=low)
        terms = discriminator_loss(made, images(seed=6), images(seed=7), gamma=2.0)
        slopes.append(torch.autograd.grad(terms.loss, list(made.parameters())))
    for precise, rough in zip(*slopes, strict=True):
        assert rough.dtype == torch.float32
        # Sums of products that are rounded to .4 % each; those of biases cancel most. Measured: .002 to .10.
        assert (precise - rough).norm() < 0.25 * precise.norm()


def test_the_last_stage_stays_in_float32(teacher: Teacher, adversarial: Recipe, data: Data) -> None:
    low = replace(adversarial, bf16_stages=1)
    moving = student(teacher, low, data)
    moving.start()
    row = moving.step()
    assert math.isfinite(row["r1"])
    with pytest.raises(TrainingError, match=r"bf16_stages=2 .*it has 2 stages.*set bf16_stages to at most 1"):
        student(teacher, replace(adversarial, bf16_stages=2), data)


# Penalties by themselves


@pytest.mark.parametrize(("first", "second"), [(0.0, 1.0), (1.0, 0.0), (0.5, 3.0)])
def test_each_penalty_has_its_own_weight(first: float, second: float) -> None:
    made, real, fake = network(), images(seed=1), 2 * images(seed=2)
    terms = discriminator_loss(made, real, fake, 0.2, "relativistic", (first, second))
    torch.testing.assert_close(terms.loss - terms.adversarial, 0.1 * (first * terms.r1 + second * terms.r2))


def test_the_recipes_weights_reach_the_penalties(teacher: Teacher, adversarial: Recipe, data: Data) -> None:
    """A student's step with R1 alone, by hand."""
    alone = student(teacher, replace(adversarial, r2_weight=0.0, gamma=5.0), data)
    other = student(teacher, adversarial, data)
    assert alone.discriminator is not None
    assert other.discriminator is not None
    tableau, batch = other.tableau(other.vector), data.train.pick(other._chosen(1))
    fresh = torch.randn(batch.noise.shape, generator=training.seeds.generator(0, "fresh noise", 1))
    with torch.no_grad():
        fakes = unrounded(tableau, teacher.denoise, other.scale * fresh)
    other.discriminator.requires_grad_(True)
    discriminator_loss(other.discriminator, batch.images, fakes, 5.0, "relativistic", (1.0, 0.0)).loss.backward()
    other.discriminator_adam.step()
    alone.step()
    for name, expected in other.discriminator.state_dict().items():
        torch.testing.assert_close(alone.discriminator.state_dict()[name], expected)
