"""The tiny folders of diffusers pipelines are loaded by diffusers, and prompts and seeds matter to what comes out."""

import contextlib

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("PIL")

import diffusers
import tiny_pipelines

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries about themselves
STEPS = 2
LARGEST = dict.fromkeys(tiny_pipelines.NAMES, 3.2e6) | {"StableVideoDiffusionPipeline": 6e6}  # bytes


def sampled(pipe, name, prompt="a red bird", seed=0):
    """The pipeline's own result of two steps, as one tensor."""
    told = tiny_pipelines.call(name) | ({"prompt": prompt} if tiny_pipelines.prompted(name) else {})
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # Some draw from torch's own generator, too.
        torch.manual_seed(seed)
        found = pipe(**told, num_inference_steps=STEPS, generator=generator, output_type="np")[0]
    return torch.as_tensor(found[0] if isinstance(found, list) else found)


def mistold(module, args, kwargs):
    """A network's arguments, with another time, whether times end at one or at a thousand."""
    name = next((key for key in ("timestep", "timesteps", "timestep_ratio", "t") if key in kwargs), None)
    if name:
        return args, kwargs | {name: kwargs[name] / 2 + 0.25}
    return (args[0], args[1] / 2 + 0.25, *args[2:]), kwargs


@contextlib.contextmanager
def other_times(pipe):
    """While its networks are told other times than its scheduler's."""
    networks = [getattr(pipe, name, None) for name in ("unet", "transformer", "transformer_2", "prior")]
    hooks = [each.register_forward_pre_hook(mistold, with_kwargs=True) for each in networks if each is not None]
    yield
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("name", tiny_pipelines.NAMES)
def test_it_loads_and_samples(pipeline_folder, name):
    """Each input matters to what comes out, so that one that is lost on the way is seen."""
    folder = pipeline_folder(name)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < LARGEST[name]
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    first = sampled(pipe, name)
    assert torch.isfinite(first).all()
    assert first.std() > 0.05
    if first.min() >= 0 and first.max() <= 1:  # neither one colour nor black and white alone
        assert first.std() < 0.49
    assert (first - sampled(pipe, name, seed=1)).abs().mean() > 0.01
    with other_times(pipe):
        assert (first - sampled(pipe, name)).abs().mean() > 0.001
    if tiny_pipelines.prompted(name):
        assert (first - sampled(pipe, name, "two cats on a mat")).abs().mean() > 0.001


def test_a_folder_is_the_same_each_time(tmp_path):
    name = "StableDiffusionPipeline"
    one, two = (tiny_pipelines.make(name, tmp_path / each) for each in ("one", "two"))
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(two) for path in two.rglob("*") if path.is_file())
    assert [file for file in files if (one / file).read_bytes() != (two / file).read_bytes()] == []
