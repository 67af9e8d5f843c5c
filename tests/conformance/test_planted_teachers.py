"""A bug of each kind in a teacher is caught, by a check whose name says what it is; what has none passes."""

import dataclasses

import numpy as np
import pytest
import torch

import solverbench as sb
from solverbench import conformance

MEAN, VARIANCE = 0.5, 0.04


def gaussian(x, sigma):
    """The exact denoiser of N(MEAN, VARIANCE)."""
    noise = (sigma**2).to(x.device, x.dtype)
    return (VARIANCE * x + noise * MEAN) / (VARIANCE + noise)


def teacher(denoise=gaussian, **changed):
    """A sound one, but for what is changed."""
    return dataclasses.replace(sb.Teacher(denoise, "sound", (1, 4, 4), identity="a" * 64), **changed)


class Labelled:
    """Conditions a batch by its seeds: the mean is moved by the class."""

    def __init__(self, labels=lambda seeds: [seed % 3 for seed in seeds]):
        self.labels = labels

    def __call__(self, seeds):
        moved = torch.tensor(self.labels(seeds)).reshape(-1, 1, 1, 1) / 10
        return lambda x, sigma: gaussian(x - moved, sigma) + moved


CLASSES = sb.Condition(classes="seed", count=3)


class Skewed(sb.EDM):
    """Has times that don't stand for its levels."""

    def time(self, sigma):
        return sigma * 2


def noise(x, sigma):
    return (x - gaussian(x, sigma)) / sigma.to(x)


def many_levels(x, sigma):
    return gaussian(x, sigma.reshape(1)[[0, 1]])


def flat(x, sigma):
    return gaussian(x, sigma).flatten(1)


def wide(x, sigma):
    return gaussian(x.double(), sigma)


def listed(x, sigma):
    return gaussian(x, sigma).tolist()


def breaking(x, sigma):
    return gaussian(x, sigma) / (sigma > 0.01)


def shrunk(x, sigma):
    return 0.9 * gaussian(x, sigma)


def idle(x, sigma):
    return x * 1.0


def normalised(x, sigma):
    d = gaussian(x, sigma)
    return d - 0.1 * d.mean(0, keepdim=True)


def dropping(x, sigma):
    return gaussian(x, sigma) + 0.01 * torch.rand(x.shape)


def seeding(x, sigma):
    torch.manual_seed(0)
    return gaussian(x, sigma)


def drawing(x, sigma):
    np.random.rand()  # noqa: NPY002 - the bug
    return gaussian(x, sigma)


class Averaging:
    """Keeps a running mean."""

    def __init__(self):
        self.mean = 0.0

    def __call__(self, x, sigma):
        self.mean = 0.9 * self.mean + 0.1 * float(x.detach().mean())
        return gaussian(x, sigma) + 0.01 * self.mean


def overwriting(x, sigma):
    d = gaussian(x, sigma)
    if not x.requires_grad:
        x.mul_(0.5)
    return d


def scaling(x, sigma):
    d = gaussian(x, sigma)
    if not sigma.requires_grad:
        sigma.mul_(1.1)
    return d


@torch.no_grad()
def graphless(x, sigma):
    return gaussian(x, sigma)


def halved(x, sigma):
    return gaussian((x + x.detach()) / 2, sigma)


def converting(x, sigma):
    return gaussian(x, torch.tensor(sigma.detach().item(), dtype=torch.float64))


def partial(x, sigma):
    return gaussian(x, (sigma + sigma.detach()) / 2)


WEIGHT = torch.ones((), requires_grad=True)


def unfrozen(x, sigma):
    return WEIGHT * gaussian(x, sigma)


def raising(x, sigma):
    raise KeyError("weights")


CAUGHT = [
    (teacher(noise), "small_noise"),
    (teacher(noise), "removes_noise"),
    (teacher(many_levels), "form"),
    (teacher(raising), "form"),
    (teacher(flat), "form"),
    (teacher(wide), "form"),
    (teacher(listed), "form"),
    (teacher(breaking), "finite"),
    (teacher(shrunk), "small_noise"),
    (teacher(idle), "removes_noise"),
    (teacher(normalised), "batch"),
    (teacher(dropping), "repeatable"),
    (teacher(dropping), "randomness"),
    (teacher(seeding), "randomness"),
    (teacher(drawing), "randomness"),
    (teacher(Averaging()), "repeatable"),
    (teacher(overwriting), "inputs"),
    (teacher(scaling), "inputs"),
    (teacher(graphless), "state_gradient"),
    (teacher(halved), "state_gradient"),
    (teacher(graphless), "level_gradient"),
    (teacher(converting), "level_gradient"),
    (teacher(partial), "level_gradient"),
    (teacher(unfrozen), "detached"),
    (teacher(name="two words"), "identity"),
    (teacher(identity=sb.Teacher.identity), "identity"),
    (teacher(schedule=Skewed()), "schedule"),
    (teacher(sampler="hoin"), "sampler"),
    (teacher(sampler="heun", sampler_nfe=63), "sampler"),
    (teacher(bind=Labelled()), "conditions"),
    (teacher(bind=Labelled(lambda seeds: [n % 3 for n, _ in enumerate(seeds)]), condition=CLASSES), "conditions"),
    (teacher(double=lambda x, sigma: gaussian(x.float(), sigma)), "double"),
    (teacher(double=lambda x, sigma: 1.01 * gaussian(x, sigma)), "double"),
    (teacher(decode=lambda states: states.detach()), "decode"),
    (teacher(decode=lambda states: states.flatten(1)), "decode"),
    (teacher(move=lambda device: teacher(identity="b" * 64)), "move"),
]


@pytest.mark.parametrize(
    "sound",
    [
        teacher(),
        teacher(schedule=sb.VPLinear(), sampler="dpm"),
        teacher(schedule=sb.RectifiedFlow(), sampler="dpm"),
        teacher(schedule=sb.RectifiedFlow(t_start=1.0), sampler="dpm"),
        teacher(bind=Labelled(), condition=CLASSES, double=gaussian, decode=torch.tanh, move=lambda device: teacher()),
    ],
    ids=["edm", "vp", "flow", "flow from infinity", "conditioned"],
)
def test_a_sound_teacher_passes(sound):
    conformance.assert_conforms(sound)


@pytest.mark.parametrize(("planted", "name"), CAUGHT, ids=[f"{n}-{name}" for n, (_, name) in enumerate(CAUGHT)])
def test_a_planted_bug_is_caught(planted, name):
    (check,) = (check for check in conformance.checks(planted) if check.name == name)
    found = check.outcome()
    assert (found.name, found.status) == (name, conformance.FAIL)
    assert "fix it there" not in found.finding
    assert "; " in found.finding  # what was found; what to do


def test_what_isn_t_declared_is_said():
    undeclared = {found.name for found in conformance.run_all(teacher()) if found.status == conformance.UNDECLARED}
    assert undeclared == {"conditions", "double", "decode", "move", "teacher_key", "channels"}


def test_all_failures_are_told_at_once():
    with pytest.raises(conformance.ConformanceError) as caught:
        conformance.assert_conforms(teacher(unfrozen, name="two words"))
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["identity", "detached"]


def test_seeding_is_found_after_other_checks_have_run_the_network():
    (check,) = (check for check in conformance.checks(teacher(seeding)) if check.name == "randomness")
    assert [check.outcome().status for _ in range(3)] == [conformance.FAIL] * 3
