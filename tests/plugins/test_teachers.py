"""A loss network and images that come with a plugin's teacher."""

from pathlib import Path

import pytest
import torch

import solverbench as sb
from solverbench import files, plugins
from solverbench.errors import MissingError, PluginError, TrainingError, UserError
from solverbench.evaluation import image_sources, reference_build, references
from solverbench.learned import recipes
from solverbench.learned.training import losses
from solverbench.learned.training.run import TrainingRun
from solverbench.learned.training.train import prepare

MINE = """
import torch
import solverbench as sb

@sb.register(kind="teacher")
def mine(device):
    def network(device):
        NETWORK
    def images(seeds):
        IMAGES
    return sb.Teacher(lambda x, sigma: 0 * x, "mine", (1, 8, 8), identity="of a test", device=device, FIELDS)
"""


@pytest.fixture
def mine(examples):
    """Write mine.py with bodies for its functions, load it, and return its teacher."""

    def load(network="return None", images="return None", fields="features={'loss': network}, images_of=images"):
        text = MINE.replace("NETWORK", network).replace("IMAGES", images).replace("FIELDS", fields)
        plugins.load(examples("mine.py", text))
        return sb.load_teacher("mine")

    return load


def training(teacher, loss="features", **changes):
    settings = [f"loss={loss}", *(f"{key}={value}" for key, value in changes.items())]
    return TrainingRun(sb.make("gs"), 3, teacher, recipes.load("gs", "digits").override(settings), 0)


def test_the_loss_network_of_the_example_compares_means_of_pixels(examples):
    plugins.load("blob.py")
    teacher = sb.load_teacher("blob:width=2")
    student = torch.ones(2, 1, 8, 8, requires_grad=True)
    value = losses.distance("features", teacher)(student, torch.zeros(2, 1, 8, 8))
    assert value.tolist() == [16, 16]
    assert torch.autograd.grad(value.sum(), student)[0].abs().sum() > 0
    with pytest.raises(TrainingError, match="teacher 'blob-width=2' has no differentiable metric"):
        losses.distance("metric_features", teacher, allow_metric_loss=True)


def test_features_and_images_are_in_no_identity(mine):
    bare, full = mine(fields="double=None"), mine()
    assert (bare.identity, bare.ode) == (full.identity, full.ode)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise RuntimeError('boom')", r"teacher 'mine' of file .*mine\.py:8: RuntimeError: boom; correct it"),
        ("return None", r"teacher 'mine' of file .*mine\.py: TypeError"),
        ("return lambda x: x.mean()", r"returned shape \(\) for 3 images; return one vector for each, \[B, D\]"),
        ("return lambda x: 0.5", r"features of teacher 'mine' of file .*: returned 0\.5 for 3 images"),
        ("return lambda x: x.detach().flatten(1)", "carry no gradient to the images; compute them with torch alone"),
    ],
)
def test_a_loss_network_that_fails_is_blamed(mine, body, said):
    teacher, student = mine(network=body), torch.ones(3, 1, 8, 8, requires_grad=True)

    def compare():
        losses.distance("features", teacher)(student, torch.zeros(3, 1, 8, 8))

    with pytest.raises(PluginError, match=said):
        compare()


def test_a_missing_loss_network_is_told_before_the_images_are_made(mine):
    run = training(mine(fields="features={}"))
    with pytest.raises(TrainingError, match="teacher 'mine' has no loss network; use l2, l1 or huber"):
        prepare(run.teacher, run.recipe, Path("runs"))
    assert not Path("runs").exists()


def test_the_network_that_measures_is_loaded_through_its_door_alone(mine):
    fields = "features={'loss': lambda device: torch.nn.Flatten(), 'metric': network}"
    teacher = mine(network="return lambda images: images.flatten(1)[:, :1]", fields=fields)
    images = torch.full((2, 1, 8, 8), 2.0)
    gap = losses.distance("metric_features", teacher, allow_metric_loss=True)
    assert gap(images, torch.zeros_like(images)).tolist() == [4, 4]
    sb.register(lambda teacher: teacher.features["metric"](teacher.device), kind="loss", name="leaking")
    with pytest.raises(PluginError, match=r"loss 'leaking' of .*: KeyError: 'metric'"):
        losses.distance("leaking", teacher)


def test_a_changed_loss_network_trains_in_a_folder_of_its_own(mine):
    before = training(mine(network="return torch.nn.Flatten()")).folder(Path("runs"))
    after = training(mine(network="return lambda images: 2 * images.flatten(1)")).folder(Path("runs"))
    assert before != after
    bare = training(mine(fields="double=None"), loss="l2")
    body = [
        bare.solver.key,
        3,
        bare.teacher.ode,
        {k: v for k, v in bare.recipe.as_key().items() if k != "training_seeds"},
    ]
    assert bare.folder(Path("runs")).name.endswith(files.digest([*body, 0])[:12]), "without one it is as it was"


def test_a_reference_of_a_plugins_images_is_named_by_their_pixels(mine):
    half = (
        "return torch.full((len(seeds), 1, 8, 8), 0.5) + torch.tensor([s % 7 / 20 for s in seeds])[:, None, None, None]"
    )
    mine(images=half)
    path = reference_build.build("mine", "mine", Path("runs"), extractor_name="digits", count=20)
    told = references.about(path)
    assert (told["origin"], told["n"], told["pixels"]) == ("generator mine 1000000-1000019", 20, "8x8")
    mine(images=half.replace("0.5", "0.4"))
    other = references.about(reference_build.build("other", "mine", Path("runs"), extractor_name="digits", count=20))
    mine(images=f"here = 1; {half}")
    again = references.about(reference_build.build("again", "mine", Path("runs"), extractor_name="digits", count=20))
    assert told["source_sha256"] == again["source_sha256"] != other["source_sha256"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 1 / 0", r"teacher 'mine' of file .*mine\.py:10: ZeroDivisionError"),
        ("return None", r"teacher 'mine': images_of returned None for 2 seeds; return float images \[B, C, H, W\]"),
        ("return torch.zeros(1, 1, 8, 8)", r"images_of returned torch.float32 \(1, 1, 8, 8\) for 2 seeds"),
        ("return torch.zeros(2, 1, 8, 8, dtype=torch.uint8)", r"images_of returned torch.uint8 \(2, 1, 8, 8\)"),
    ],
)
def test_images_that_are_none_are_blamed(mine, body, said):
    mine(images=body)
    with pytest.raises(PluginError, match=said):
        list(image_sources.of("mine", 2).read(range(2)))


def test_a_teacher_without_images_or_features_of_its_own_is_refused(mine):
    mine(fields="double=None")
    with pytest.raises(MissingError, match=r"mine: this teacher can't draw images; give an .npz of statistics"):
        image_sources.of("mine", 2)
    with pytest.raises(UserError, match="extractor 'mine': a teacher without features of its own; use one of"):
        references.extractor("mine")
    with pytest.raises(MissingError, match="refs build mine SOURCE"):
        references.named_for(sb.load_teacher("mine"), Path("runs"))


def test_what_lacks_a_reference_says_that_the_teacher_draws_one(mine):
    with pytest.raises(MissingError, match="refs build mine mine', which draws its images"):
        references.named_for(mine(), Path("runs"))
