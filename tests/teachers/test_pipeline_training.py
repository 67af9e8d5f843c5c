"""Solvers are trained on pipelines: what is learned is better, and the pipeline itself makes it again.

Needs diffusers and transformers. The folders are those of tiny_pipelines.
"""

import lpips_package
import pytest
import torch
from golden import relative

import solverbench as sb
from solverbench import seeds
from solverbench.errors import TrainingError
from solverbench.export import export
from solverbench.learned import recipes, trained_files
from solverbench.learned.training.train import train_best

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import tiny_pipelines
from pipeline_teachers import LINES

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
    pytest.mark.usefixtures("few_compared"),
]

NFE = 3
SMALL = ("train_size=4", "validation_size=2", "batch=2", "training_seeds=1", "validate_every=10", "choose=best")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Teachers' images are kept here for all tests."""
    return tmp_path_factory.mktemp("trained")


def trained(solver, teacher, out, *settings):
    recipe = recipes.chosen(trained_files.learned(solver), teacher).override((*SMALL, *settings))
    return train_best(solver, NFE, teacher, recipe, out=out)


@pytest.mark.parametrize(
    ("name", "solver", "settings", "share"),
    [
        ("FluxPipeline", "gs", ("iterations=30", "lr=1e-2"), 0.6),
        ("WanPipeline", "gs", ("iterations=30", "lr=1e-2"), 0.8),
        ("FluxPipeline", "gas", ("iterations=10", "lr=1e-2", "widths=4+8", "cardinalities=2+2"), 0.9),
        ("LTXPipeline", "ld3", ("iterations=10",), 0.9),
        ("LTXPipeline", "s4s", ("iterations=20",), 0.95),
    ],
)
def test_training_pays_and_the_pipeline_makes_the_same_with_the_exported_scheduler(
    pipeline_teacher, pipeline_folder, out, tmp_path, monkeypatch, name, solver, settings, share
):
    """`share` of the untrained solver's error on the validation images; measured: a fifth less than that."""
    teacher = pipeline_teacher(name)
    run = trained(solver, teacher, out, *settings).record["runs"][0]
    assert run["validation"] < share * run["validation_initial"]
    monkeypatch.setattr(export, "load_teacher", lambda spec: teacher)
    export.write(solver, NFE, teacher.spec, "diffusers", tmp_path / "scheduler", out)
    noise = seeds.noise([1], teacher.shape)
    state = teacher.decode.__self__.state
    told = {
        "folder": pipeline_folder(name), "saved": str(tmp_path / "scheduler"), "noise": noise.reshape(1, *state),
        "call": tiny_pipelines.call(name), "prompt": LINES[1],
    }  # fmt: skip
    with monkeypatch.context() as patched:
        patched.syspath_prepend(tmp_path / "scheduler")
        exec(SCRIPT, told, told)
    plan = sb.tableau(solver, nfe=NFE, teacher=teacher, out=out).plan_from_noise(teacher.schedule)
    with torch.no_grad():
        ours = sb.execute(plan, teacher.denoiser([1]), noise)
    assert relative(told["latents"].reshape(ours.shape), ours) < 1e-4


SCRIPT = """
import diffusers, tableau_scheduler
pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
pipe.scheduler = tableau_scheduler.TableauScheduler.from_pretrained(saved)
start = noise * pipe.scheduler.init_noise_sigma
latents = pipe(prompt, latents=start, num_inference_steps=3, output_type="latent", **call)[0]
"""


def test_an_adversarial_part_without_a_size_is_refused_before_any_image(pipeline_teacher, tmp_path):
    with pytest.raises(TrainingError, match=r"discriminator for images of 128 x 4: no number of widths .* such as gs"):
        trained("gas", pipeline_teacher("LTXPipeline"), tmp_path)
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.parametrize(("name", "loss"), [("FluxPipeline", "lpips"), ("WanPipeline", "lpips_native")])
def test_lpips_sees_what_the_pipelines_decoder_makes(pipeline_teacher, out, tmp_path, monkeypatch, name, loss):
    """Of a video the middle frame; the gradient goes through the decoder and the calls before it."""
    seen = lpips_package.install(monkeypatch, tmp_path)
    teacher = pipeline_teacher(name)
    run = trained("gs", teacher, out, "iterations=2", f"loss={loss}").record["runs"][0]
    assert run["loss_last"] > 0
    side = 224 if loss == "lpips" else 16
    assert {tuple(each.shape) for pair in seen for each in pair} == {(2, 3, side, side)}
    assert all(each.abs().max() <= 1 for pair in seen for each in pair)
    assert all(student.requires_grad and not target.requires_grad for student, target in seen)
