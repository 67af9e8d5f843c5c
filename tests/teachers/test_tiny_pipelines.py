"""The tiny folders of diffusers pipelines are loaded by diffusers, and prompts and seeds matter to what comes out."""

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("PIL")

import diffusers
import tiny_pipelines

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries about themselves
STEPS = 2
LARGEST = 3.2e6  # bytes


def sampled(pipe, name, prompt="a red bird", seed=0):
    """The pipeline's own result of two steps, as one tensor."""
    told = tiny_pipelines.call(name) | ({"prompt": prompt} if tiny_pipelines.prompted(name) else {})
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # Some draw from torch's own generator, too.
        torch.manual_seed(seed)
        found = pipe(**told, num_inference_steps=STEPS, generator=generator, output_type="np")[0]
    return torch.as_tensor(found[0] if isinstance(found, list) else found)


@pytest.mark.parametrize("name", tiny_pipelines.NAMES)
def test_it_loads_and_samples(pipeline_folder, name):
    folder = pipeline_folder(name)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < LARGEST
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    first = sampled(pipe, name)
    assert torch.isfinite(first).all()
    assert first.std() > 0.05
    if first.min() >= 0 and first.max() <= 1:  # neither one colour nor black and white alone
        assert first.std() < 0.49
    assert (first - sampled(pipe, name, seed=1)).abs().mean() > 0.01
    if tiny_pipelines.prompted(name):
        assert (first - sampled(pipe, name, "two cats on a mat")).abs().mean() > 0.001


def test_a_folder_is_the_same_each_time(tmp_path):
    name = "StableDiffusionPipeline"
    one, two = (tiny_pipelines.make(name, tmp_path / each) for each in ("one", "two"))
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(two) for path in two.rglob("*") if path.is_file())
    assert [file for file in files if (one / file).read_bytes() != (two / file).read_bytes()] == []
