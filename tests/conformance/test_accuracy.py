"""Mistakes in bringing a network along are caught by the one-step error, and what is right passes, on every schedule.

The networks hear the time that they are told, as trained ones do: they denoise for the level that stands for it.
"""

import dataclasses

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import solverbench as sb
from solverbench import conformance
from solverbench.cli.main import main
from solverbench.conformance import accuracy, denoising, images, one_step
from solverbench.errors import UserError

SCHEDULE = sb.VPDiscrete.from_alphas_cumprod((1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0))
MIXTURE = sb.load_teacher("mixture")
COUNTED = "give told=lambda t: 1000 * t - 1"


def network(predicts, of=lambda x, sigma: MIXTURE.denoise(x, sigma)):
    """A network that counts 1000 steps, from an exact denoiser."""

    def predicted(y, t):
        time = ((t.double() + 1) / 1000).clamp(SCHEDULE.t_eps, 1).cpu()
        sigma = SCHEDULE.sigma(time)
        alpha = SCHEDULE.alpha(time)
        d = of(y / alpha.to(y), sigma)
        noise = (y - alpha.to(y) * d) / (alpha * sigma).to(y)
        return {"eps": noise, "v": alpha.to(y) * noise - (alpha * sigma).to(y) * d, "x0": d}[predicts]

    return predicted


def counted(t):
    return 1000 * t - 1


def teacher(predicts="eps", taken=None, told=counted, through=None, **changed):
    """A teacher of the exact network, but for what is changed."""
    found = network(predicts) if through is None else through(network(predicts))
    denoise = sb.Adapted(found, SCHEDULE, taken or predicts, told=told)
    given = {"schedule": SCHEDULE, "identity": "a" * 64, "sampler": "dpm", "images_of": MIXTURE.images_of}
    return sb.Teacher(denoise, "discrete", (1, 8, 8), **given | changed)


NAMES = ("error", "growth", "bias", "size", "span")


def failed(subject, given=None):
    """Name of each failed check of predictions to its finding."""
    found = [check.outcome() for check in conformance.checks(subject, images=given) if check.name in NAMES]
    return {each.name: each.finding for each in found if not each.passed}


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("predicts", ["eps", "v", "x0"])
def test_what_is_right_passes(predicts, real):
    sound = teacher(predicts)
    assert failed(sound if real else dataclasses.replace(sound, images_of=None)) == {}


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("name", ["digits", "mixture"])
def test_the_embedded_teachers_pass(name, real):
    sound = sb.load_teacher(name)
    assert failed(sound if real else dataclasses.replace(sound, images_of=None)) == {}


def halved(net):
    return lambda y, t: net(y / 2, t)


def unscaled(net):
    """Handed y, it takes it for x."""
    return lambda y, t: net(y / SCHEDULE.alpha((t.double() + 1) / 1000).to(y), t)


WRONG = {
    "times in [0, 1]": ({"told": None}, COUNTED),
    "times reversed": ({"told": lambda t: 1000 * (1 - t)}, COUNTED),
    "half the times": ({"told": lambda t: 500 * t}, COUNTED),
    "eps as v": ({"predicts": "eps", "taken": "v"}, 'give predicts="eps"'),
    "eps as x0": ({"predicts": "eps", "taken": "x0"}, 'give predicts="eps"'),
    "v as eps": ({"predicts": "v", "taken": "eps"}, 'give predicts="v"'),
    "v as x0": ({"predicts": "v", "taken": "x0"}, 'give predicts="v"'),
    "x0 as eps": ({"predicts": "x0", "taken": "eps"}, 'give predicts="x0"'),
    "x0 as v": ({"predicts": "x0", "taken": "v"}, 'give predicts="x0"'),
    "times in [0, 1] to v": ({"predicts": "v", "told": lambda t: t}, COUNTED),
    "half the input": ({"through": halved}, "look at `told` (the times that the network is told), `predicts`"),
    "input not scaled": ({"through": unscaled}, "scale its input inside"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_caught_on_real_images_and_named(mistake):
    changed, remedy = WRONG[mistake]
    found = failed(teacher(**changed))
    assert "error" in found
    assert remedy in found["error"]


def test_an_untrained_network_is_not_called_one_that_predicts_v():
    found = failed(teacher(through=lambda net: lambda y, t: 0.01 * y.flip(-1)))
    assert "whether the network is trained" in found["error"]
    assert "seems to be" not in found["error"]


@pytest.mark.parametrize("bound", [False, True])
def test_a_folder_of_diffusers_is_told_of_its_configuration(tmp_path, bound):
    """Its user gives no argument `predicts`; with a condition, the adaptor is behind `bind`."""
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text("{}")
    wrong = teacher("v", "eps", spec=f"{tmp_path}:clip=1")
    if bound:
        inner = wrong.denoise
        condition = sb.Condition(count=2)
        wrong = dataclasses.replace(
            wrong, denoise=lambda x, sigma: inner(x, sigma), bind=lambda seeds: inner, condition=condition
        )
    remedy = 'is taken for eps; prediction_type in scheduler_config.json may have to be "v_prediction"'
    assert remedy in failed(wrong, MIXTURE.images_of(range(one_step.IMAGES)))["error"]


UNSEEN = {"x0 as v", "half the input"}
"""What makes samples that its own predictions fit: only real images tell."""


@pytest.mark.parametrize("mistake", sorted(WRONG.keys() - UNSEEN))
def test_a_mistake_is_caught_without_images_too(mistake):
    changed, _ = WRONG[mistake]
    found = failed(teacher(**changed, images_of=None))
    assert found
    assert all("look at `told`" in finding for finding in found.values())


def test_a_step_more_or_less_is_too_small_to_be_seen():
    assert failed(teacher(told=lambda t: 999 * t)) == {}
    assert failed(teacher(told=lambda t: 1000 * t)) == {}


@pytest.mark.parametrize(("scale", "shift", "said"), [(0.5, 0.5, "[0, 1]"), (127.5, 127.5, "[0, 255]")])
def test_a_network_of_images_in_another_range_is_named(scale, shift, said):
    """Its data are scale x + shift, and it is handed images on [-1, 1]."""

    def denoise(x, sigma):
        return scale * MIXTURE.denoise((x - shift) / scale, sigma / scale) + shift

    schedule = sb.EDM(0.002 * scale, 80 * max(scale, 1))
    found = sb.Teacher(denoise, "ranged", (1, 8, 8), schedule, identity="b" * 64, images_of=MIXTURE.images_of)
    assert f"the network's images lie in {said}" in failed(found)["error"]


def test_channels_in_reverse_order_are_seen():
    """A Gaussian of three channels with other means and deviations."""
    means, deviations = torch.tensor([0.5, 0.0, -0.5]), torch.tensor([0.1, 0.2, 0.3])

    def images_of(seeds):
        rows = [torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return means[:, None, None] + deviations[:, None, None] * torch.stack(rows)

    def denoise(x, sigma, order=(0, 1, 2)):
        mean = means[list(order)][:, None, None].to(x)
        variance, noise = deviations[list(order)][:, None, None].to(x) ** 2, (sigma**2).to(x)
        return (variance * x + noise * mean) / (variance + noise)

    def of(order):
        return sb.Teacher(
            lambda x, sigma: denoise(x, sigma, order), "rgb", (3, 4, 4), identity="c" * 64, images_of=images_of
        )

    found = {order: conformance.checks(of(order))[-1] for order in ((0, 1, 2), (2, 1, 0))}
    (_, right), (_, swapped) = ((order, check.outcome()) for order, check in found.items() if check.name == "channels")
    assert (right.status, swapped.status) == (conformance.PASS, conformance.FAIL)
    assert "the network takes blue, green, red" in swapped.finding


def test_gradients_of_a_network_that_counts_steps_agree_with_differences():
    """Its output varies within a training step, as embeddings of the step do; 1 % of sigma spans 2.6 steps."""

    def embedded(net):
        return lambda y, t: net(y, t) * (1 + 0.1 * torch.sin(3 * t))

    sound = teacher(through=embedded)
    assert "agree" in denoising.level_gradient(sound)
    assert "agree" in denoising.state_gradient(sound)
    partly = dataclasses.replace(
        sound, denoise=lambda x, sigma: sound.denoise(x, (sigma + sigma.detach()) / 2)
    )  # half of the gradient is lost
    with pytest.raises(denoising.Failed, match="the gradient of sigma"):
        denoising.level_gradient(partly)


def write(folder, pictures):
    folder.mkdir()
    for n, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{n:03}.png")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """100 grey images of the mixture's data."""
    drawn = sb.load_teacher("digits").images_of(range(100))
    levels = ((drawn[:, 0] + 1) * 127.5).round().byte().numpy()
    return write(tmp_path_factory.mktemp("images") / "digits", levels)


def test_images_of_a_folder_are_spread_over_it_and_read_as_the_teacher_takes_them(folder):
    found = images.read(dataclasses.replace(teacher(), images_of=None), str(folder))
    assert found.shape == (one_step.IMAGES, 1, 8, 8)
    drawn = sb.load_teacher("digits").images_of(range(100))
    assert (found[-1] - drawn[98]).abs().max() < 1 / 127.5  # number 63 * 100 // 64
    assert "real images" in accuracy.error(teacher(), one_step.known(teacher(), found))


def test_check_compares_a_teacher_with_a_folder_of_images(folder):
    result = CliRunner().invoke(main, ["check", "digits", "--images", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "  pass          error                64 of real images" in result.stdout


def test_images_that_do_not_fit_are_refused_in_one_line(folder, tmp_path):
    wide = write(tmp_path / "wide", [np.zeros((8, 9), np.uint8)] * 8)
    few = write(tmp_path / "few", [np.zeros((8, 8), np.uint8)] * 7)
    latent = dataclasses.replace(teacher(), decode=torch.tanh)
    classed = dataclasses.replace(teacher(), condition=sb.Condition(classes="seed", count=3))
    for subject, source, said in (
        (teacher(), wide, "an image has 9x8 pixels, its own have 8x8; scale them, as by --crop edm:8"),
        (teacher(), few, "holds 7 images; give at least 8"),
        (latent, folder, "it denoises latents"),
        (classed, folder, "which image has which condition"),
    ):
        with pytest.raises(UserError, match=said):
            images.read(subject, str(source))
    said = CliRunner().invoke(main, ["check", "euler", "--images", str(folder)]).stderr
    assert "no teacher is checked; name one, or leave --images out" in said
    assert "there are no images to crop" in CliRunner().invoke(main, ["check", "digits", "--crop", "edm:8"]).stderr


def test_guided_predictions_are_not_compared():
    found = conformance.checks(sb.load_teacher("shapes:guidance=2"))
    assert not {check.name for check in found} & {*NAMES, "channels"}
