"""Weights in the layout of R3GAN's code: the same scores as its forward pass, written again here from that layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from solverbench.errors import RecordError
from solverbench.learned.recipes import Recipe
from solverbench.learned.trained_files import learned
from solverbench.learned.training import discriminators
from solverbench.learned.training.adversarial import Discriminator
from solverbench.learned.training.run import TrainingRun
from solverbench.teachers.conditions import Condition
from solverbench.teachers.teacher import Teacher

WIDTHS, CARDINALITIES, BLOCKS, CLASSES = (4, 6, 6), (2, 3, 4), 2, 5
SIDE = 16


def stored(classes: int = 0, prefix: str = "Model.", channels: int = 3) -> dict[str, Tensor]:
    """A network's tensors under upstream's names, in the order of its state dict."""
    generator = torch.Generator().manual_seed(4)

    def drawn(*shape: int) -> Tensor:
        return 0.4 * torch.randn(*shape, generator=generator)

    found: dict[str, Tensor] = {}
    for stage, (width, groups) in enumerate(zip(WIDTHS, CARDINALITIES, strict=True)):
        for block in range(BLOCKS):
            name, wide = f"MainLayers.{stage}.Layers.{block}.", 2 * width
            found[f"{name}LinearLayer1.Layer.weight"] = drawn(wide, width, 1, 1)
            found[f"{name}LinearLayer2.Layer.weight"] = drawn(wide, wide // groups, 3, 3)
            found[f"{name}LinearLayer3.Layer.weight"] = drawn(width, wide, 1, 1)
            found[f"{name}NonLinearity1.Bias"] = drawn(wide)
            found[f"{name}NonLinearity2.Bias"] = drawn(wide)
        name = f"MainLayers.{stage}.Layers.{BLOCKS}."
        if stage + 1 == len(WIDTHS):
            found[f"{name}Basis.weight"] = drawn(width, 1, 4, 4)
            found[f"{name}LinearLayer.weight"] = drawn(WIDTHS[-1] if classes else 1, width)
        else:
            if WIDTHS[stage + 1] != width:
                found[f"{name}LinearLayer.Layer.weight"] = drawn(WIDTHS[stage + 1], width, 1, 1)
            taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
            found[f"{name}Resampler.Kernel"] = torch.outer(taps, taps) / 64
    found["ExtractionLayer.Layer.weight"] = drawn(WIDTHS[0], channels, 1, 1)
    if classes:
        found["EmbeddingLayer.weight"] = drawn(WIDTHS[-1], classes)
    return {prefix + name: tensor for name, tensor in found.items()}


def scores(tensors: dict[str, Tensor], x: Tensor, classes: Tensor | None = None) -> Tensor:
    """The forward pass by upstream's names: einsum in place of 1x1 convolutions, the filter before every second pixel.

    With an embedding and no classes, the embedding is 1, as in GAS's code.
    """

    def pointwise(x: Tensor, weight: Tensor) -> Tensor:
        return torch.einsum("oc,bchw->bohw", weight[:, :, 0, 0], x)

    def activated(x: Tensor, bias: Tensor) -> Tensor:
        x = x + bias[None, :, None, None]
        return torch.where(x > 0, x, 0.2 * x)

    own = {name.removeprefix("Model."): tensor for name, tensor in tensors.items()}
    x = pointwise(x, own["ExtractionLayer.Layer.weight"])
    for stage in range(len(WIDTHS)):
        for block in range(BLOCKS):
            name = f"MainLayers.{stage}.Layers.{block}."
            y = pointwise(x, own[f"{name}LinearLayer1.Layer.weight"])
            y = activated(y, own[f"{name}NonLinearity1.Bias"])
            grouped = y.chunk(CARDINALITIES[stage], 1)
            weights = own[f"{name}LinearLayer2.Layer.weight"].chunk(CARDINALITIES[stage])
            y = torch.cat([F.conv2d(a, b, padding=1) for a, b in zip(grouped, weights, strict=True)], 1)
            y = activated(y, own[f"{name}NonLinearity2.Bias"])
            x = x + pointwise(y, own[f"{name}LinearLayer3.Layer.weight"])
        name = f"MainLayers.{stage}.Layers.{BLOCKS}."
        if stage + 1 < len(WIDTHS):
            wide, kernel = F.pad(x, (1, 1, 1, 1)), own[f"{name}Resampler.Kernel"]
            side = x.shape[-1] - 1
            x = sum(kernel[i, j] * wide[..., i : i + side, j : j + side] for i in range(4) for j in range(4))
            x = x[..., ::2, ::2]
            if f"{name}LinearLayer.Layer.weight" in own:
                x = pointwise(x, own[f"{name}LinearLayer.Layer.weight"])
    vectors = torch.einsum("chw,bchw->bc", own[f"{name}Basis.weight"][:, 0], x) @ own[f"{name}LinearLayer.weight"].T
    if "EmbeddingLayer.weight" in own and classes is not None:
        vectors = vectors * (F.one_hot(classes, CLASSES).float() @ own["EmbeddingLayer.weight"].T)
    return vectors.sum(1)


def images(channels: int = 3) -> Tensor:
    return torch.randn(6, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(9))


def network(*, classes: int = 0, channels: int = 3, low: int = 0) -> Discriminator:
    generator = torch.Generator().manual_seed(0)
    return Discriminator(
        channels, (SIDE, SIDE), widths=WIDTHS, cardinalities=CARDINALITIES, blocks=BLOCKS, generator=generator,
        classes=classes, low_stages=low,
    )  # fmt: skip


@pytest.fixture(params=["discriminator.pt", "discriminator.safetensors"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


def write(tensors: object, place: Path) -> None:
    if place.suffix == ".safetensors":
        save_file(tensors, place)  # type: ignore[arg-type]
    else:
        torch.save(tensors, place)


@pytest.mark.parametrize("prefix", ["Model.", "", "module.Model."])
def test_it_scores_as_the_network_that_the_weights_are_of(place: Path, prefix: str) -> None:
    write(stored(prefix=prefix), place)
    made = network()
    discriminators.load(made, place)
    torch.testing.assert_close(made(images()), scores(stored(), images()), rtol=1e-5, atol=1e-5)


def test_a_latent_of_four_channels_is_read_too(place: Path) -> None:
    write(stored(channels=4), place)
    made = network(channels=4)
    discriminators.load(made, place)
    torch.testing.assert_close(made(images(4)), scores(stored(channels=4), images(4)), rtol=1e-5, atol=1e-5)


def test_a_network_that_is_told_classes_is_told_those_of_the_teacher(place: Path) -> None:
    write(stored(CLASSES), place)
    made, told = network(classes=CLASSES), torch.tensor([0, 4, 2, 2, 1, 3])
    discriminators.load(made, place)
    torch.testing.assert_close(made(images(), told), scores(stored(CLASSES), images(), told), rtol=1e-5, atol=1e-5)


def test_without_classes_its_embedding_is_one_as_in_gas(place: Path) -> None:
    write(stored(CLASSES), place)
    made = network()
    discriminators.load(made, place)
    torch.testing.assert_close(made(images()), scores(stored(CLASSES), images()), rtol=1e-5, atol=1e-5)


def test_half_precision_and_the_key_of_a_snapshot_are_read(tmp_path: Path) -> None:
    halves = {name: tensor.bfloat16() for name, tensor in stored().items()}
    torch.save({"D": halves}, tmp_path / "d.pt")
    made = network()
    discriminators.load(made, tmp_path / "d.pt")
    precise = {name: tensor.float() for name, tensor in halves.items()}
    torch.testing.assert_close(made(images()), scores(precise, images()), rtol=1e-5, atol=1e-5)


def test_low_stages_round_the_same_weights(place: Path) -> None:
    write(stored(), place)
    made = network(low=2)
    discriminators.load(made, place)
    precise = scores(stored(), images())
    gap = (made(images()) - precise).norm() / precise.norm()
    assert 1e-4 < gap < 0.05  # some ten roundings of up to 2^-9


def job(teacher: Teacher, recipe: Recipe, path: Path, **changes: object) -> TrainingRun:
    sizes = {"widths": WIDTHS, "cardinalities": CARDINALITIES, "blocks": BLOCKS} | changes
    wanted = replace(recipe, discriminator_weights=str(path), **sizes)  # type: ignore[arg-type]
    return TrainingRun(learned("gas"), 2, replace(teacher, shape=(3, SIDE, SIDE)), wanted, 0)


def test_a_recipe_takes_them_and_says_which_sizes_they_have(teacher: Teacher, adversarial: Recipe, place: Path) -> None:
    write(stored(), place)
    made = discriminators.make(job(teacher, adversarial, place))
    torch.testing.assert_close(made(images()), scores(stored(), images()), rtol=1e-5, atol=1e-5)
    with pytest.raises(RecordError) as caught:
        discriminators.make(job(teacher, adversarial, place, widths=(8, 6, 6)))
    assert "change its sizes: --set widths=4+6+6 --set cardinalities=2+3+4 --set blocks=2" in str(caught.value)
    assert "\n" not in str(caught.value)
    classes = replace(teacher, condition=Condition(classes="seed", count=CLASSES))
    with pytest.raises(RecordError, match="its network is told no class; set conditional=false"):
        discriminators.make(job(classes, adversarial, place, conditional=True))


def test_what_is_no_such_network_is_refused_in_one_line(tmp_path: Path) -> None:
    def refused(tensors: object) -> str:
        torch.save(tensors, tmp_path / "d.pt")
        with pytest.raises(RecordError) as caught:
            discriminators.load(network(), tmp_path / "d.pt")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    whole = stored()
    first = "Model.MainLayers.1.Layers.0."
    without = {name: tensor for name, tensor in whole.items() if name != f"{first}NonLinearity1.Bias"}
    assert "an incomplete R3GAN discriminator ('NonLinearity1.Bias')" in refused(without)
    assert "MainLayers.1.Layers.0.Norm.weight isn't part" in refused({**whole, f"{first}Norm.weight": torch.ones(1)})
    other = {name: tensor * 2 if name.endswith("Kernel") else tensor for name, tensor in whole.items()}
    assert "its Resampler.Kernel isn't [1,3,3,1]" in refused(other)
    assert "see docs/learned.md" in refused(torch.nn.Linear(2, 2))  # a pickled network: its code isn't run
    (tmp_path / "network.pkl").write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "run").encode() + b"'\ntR.")
    with pytest.raises(RecordError, match=r"save its state_dict\(\) with R3GAN's code, see docs/learned.md"):
        discriminators.load(network(), tmp_path / "network.pkl")
    assert not (tmp_path / "run").exists()
