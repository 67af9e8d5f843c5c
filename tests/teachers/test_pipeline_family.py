"""The family `pipeline`: a pipeline's own call for one step is the denoiser, whatever the pipeline.

Needs diffusers and transformers. The folders are those of tiny_pipelines.
"""

import csv
import importlib.util
import json
import re
import shutil

import pytest
import tiny
import torch
from click.testing import CliRunner
from golden import relative

import solverbench as sb
from solverbench import seeds
from solverbench.cli.main import main
from solverbench.errors import GridError, MissingError, RecordError, SpecError, UserError

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
import tiny_pipelines
from pipeline_teachers import LINES, described, toml

from solverbench.method import grids
from solverbench.sampling.sample import sample
from solverbench.teachers.families import folders, schedulers
from solverbench.teachers.families.pipelines import adapter as adapters
from solverbench.teachers.families.pipelines import agreement, levels, prompts

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

LEVEL = torch.tensor(2.0, dtype=torch.float64)

REFUSED = {
    "LatentConsistencyModelPipeline": "LCMScheduler: its noise process isn't read .*jump to the image",
    "SanaSprintPipeline": "SCMScheduler: its noise process isn't read .*trigonometric",
    "HunyuanImagePipeline-distilled": "one call of HunyuanImagePipeline doesn't stand for its sampler",
    "HunyuanImagePipeline": r"one call of HunyuanImagePipeline doesn't stand for its sampler: over 3 steps they differ",
    "DiTPipeline": "DiTPipeline fails with a state of its own shape",
    "StableCascadePriorPipeline": "DDPMWuerstchenScheduler: its noise process isn't read",
    "AnyFlowPipeline": "FlowMapEulerDiscreteScheduler: its noise process isn't read .*jump to the image",
    "SkyReelsV2DiffusionForcingPipeline": "fails with a state of its own shape",
    "ConsistencyModelPipeline": "CMStochasticIterativeScheduler: its noise process isn't read .*jump to the image",
}
"""Pipelines that are refused, with the reason."""

ALONE = {
    "HiDreamImagePipeline": "its smallest images are large",
    "IFPipeline": "it reads variance_type of its scheduler's configuration, which an exported one has not",
    "BriaFiboPipeline": "it reads base_image_seq_len there",
    "Ideogram4Pipeline": "it gives its scheduler levels of its own, which an exported one refuses",
    "LTXConditionPipeline": "it gives its scheduler times of its own",
    "MochiPipeline": "its time runs from noise to data, which an exported one's doesn't",
}
"""Pipelines that aren't given an exported solver, with the reason."""


@pytest.fixture
def folder(pipeline_folder):
    """name -> its folder, made once."""
    return pipeline_folder


@pytest.fixture
def load(pipeline_teacher):
    """name -> its teacher, loaded once unless it is given further arguments of its call or fields."""
    return pipeline_teacher


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("described")


def agrees(teacher):
    """The difference that was measured at load."""
    return float(re.search(r"follows to (\S+) over 3 steps", teacher.notes[-1])[1])


def denoised(teacher, seeds, x):
    with torch.no_grad():
        return teacher.denoiser(seeds)(x * 2, LEVEL)


@pytest.mark.parametrize("name", [name for name in tiny_pipelines.NAMES if name not in REFUSED])
def test_a_pipeline_is_followed_and_takes_an_exported_solver_back(load, folder, name):
    """An exported solver is the other way round: the pipeline calls it, rather than the other way round."""
    teacher = load(name)
    assert agrees(teacher) <= 1e-4
    if name in ALONE:
        return
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder(name), local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = sb.diffusers_scheduler("dpm:order=2", teacher=teacher, nfe=3)
    starts, scale = [], pipe.scheduler._start
    prepare = pipe.scheduler.scale_model_input
    step = pipe.scheduler.step

    def watched(output, timestep, sample, return_dict=True, **more):
        starts.append(sample.clone())
        return step(output, timestep, sample, return_dict, **more)

    pipe.scheduler.step, pipe.scheduler.scale_model_input = watched, prepare
    told = {"prompt": LINES[1]} if tiny_pipelines.prompted(name) else {}
    generator = torch.Generator("cpu").manual_seed(adapters.SEED)
    with torch.no_grad(), torch.random.fork_rng([]):
        torch.manual_seed(adapters.SEED)
        images = pipe(
            **told, **tiny_pipelines.call(name), num_inference_steps=3, generator=generator, output_type="pt"
        )[0]
        start = (starts[0] / scale).reshape(1, *teacher.shape)
        tableau = sb.tableau("dpm:order=2", nfe=3, teacher=teacher)
        states = sb.execute(tableau, teacher.denoiser([1]), start * tableau.noise_scale(teacher.schedule))
        ours = (teacher.images(states) / 2 + 0.5).clamp(0, 1)
    images = torch.as_tensor(images)
    images = images[:, images.shape[1] // 2] if images.ndim == 5 else images
    images = images.movedim(-1, 1) if images.shape[-1] == 3 else images
    assert (images.clamp(0, 1) - ours).abs().max() < 1e-4


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_one_call_does_not_stand_for_is_refused_with_the_reason(load, name):
    with pytest.raises(RecordError, match=REFUSED[name]) as caught:
        load(name)
    assert "\n" not in str(caught.value)


FLOW = ["diffusers", "FlowMatchEulerDiscreteScheduler"]


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"_class_name": "KandinskyV22Pipeline", "scheduler": ["diffusers", "DDPMScheduler"]},
         "KandinskyV22Pipeline's call needs image_embeds and negative_image_embeds, which another pipeline makes"),
        ({"_class_name": "KandinskyV22CombinedPipeline", "scheduler": ["diffusers", "DDPMScheduler"]},
         "KandinskyV22CombinedPipeline runs other pipelines, whose schedulers aren't replaced"),
        ({"_class_name": "UnCLIPPipeline"}, "UnCLIPPipeline has no part named scheduler, whose steps are replaced"),
        ({"_class_name": "FluxModularPipeline", "scheduler": FLOW}, "FluxModularPipeline isn't a pipeline"),
    ],
)  # fmt: skip
def test_what_no_scheduler_steers_is_refused_by_its_index(tmp_path, index, said):
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(RecordError, match=said) as caught:
        sb.load_teacher(f"{tmp_path}:family=pipeline:prompts={tiny.prompts(tmp_path / 'p.txt')}")
    assert "\n" not in str(caught.value)


def processor(folder):
    """Qwen-Image-Edit's reads images by torchvision."""
    edit(
        folder / "model_index.json", _class_name="QwenImageEditPipeline", processor=["transformers", "Qwen2VLProcessor"]
    )
    shutil.copytree(folder / "tokenizer", folder / "processor")
    told = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor"}
    (folder / "processor" / "preprocessor_config.json").write_text(json.dumps(told))


def published(folder):
    """FLUX.2's published folders have a processor as their tokenizer."""
    edit(folder / "model_index.json", tokenizer=["transformers", "PixtralProcessor"])


def omnigen(folder):
    parts = {"scheduler": FLOW, "tokenizer": ["transformers", "T5TokenizerFast"], "vae": ["diffusers", "AutoencoderKL"]}
    index = {"_class_name": "OmniGenPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"], **parts}
    (folder / "model_index.json").write_text(json.dumps(index))
    shutil.rmtree(folder / "tokenizer")
    (folder / "tokenizer_2").rename(folder / "tokenizer")


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
@pytest.mark.parametrize(
    ("name", "change"),
    [("QwenImagePipeline", processor), ("Flux2Pipeline", published), ("FluxPipeline", omnigen)],
)
def test_what_needs_torchvision_says_so(folder, tmp_path, name, change):
    path = shutil.copytree(folder(name), tmp_path / "folder")
    change(path)
    with pytest.raises(MissingError, match="needs torchvision, which isn't installed") as caught:
        sb.load_teacher(f"{path}:family=pipeline:prompts={tiny.prompts(tmp_path / 'p.txt')}:height=16:width=16")
    assert "\n" not in str(caught.value)


def test_mochis_time_is_turned_back(load, folder, monkeypatch):
    """Euler's method on its own levels is its own sampler; with its time or its output unturned it is refused."""
    teacher = load("MochiPipeline")
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder("MochiPipeline"), local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    noise, call = seeds.noise([0], teacher.shape), tiny_pipelines.call("MochiPipeline")
    state = noise.reshape(1, *adapter_of(teacher).state)
    with torch.no_grad():
        expected = pipe(LINES[0], latents=state, num_inference_steps=4, output_type="latent", **call)[0]
        tableau = sb.tableau("euler:grid=pipeline:end=zero", nfe=4, teacher=teacher)
        found = sb.execute(tableau.plan_from_noise(teacher.schedule), teacher.denoiser([0]), noise)
    assert relative(found.reshape(expected.shape), expected) < 1e-4  # 1 - sigma is rounded to float32
    monkeypatch.setattr(adapters, "turned", lambda scheduler: False)
    with pytest.raises(RecordError, match=r"follow no rule|doesn't stand for its sampler"):
        load("MochiPipeline", fields={"name": "unturned"})


@pytest.mark.parametrize("name", ["QwenImagePipeline", "ZImagePipeline", "FluxPipeline", "WanPipeline"])
def test_a_batch_of_prompts_equals_one_at_a_time(load, name):
    teacher = load(name)
    x = tiny.random(3, *teacher.shape)
    together = denoised(teacher, [0, 1, 2], x)
    alone = torch.cat([denoised(teacher, [n], x[n : n + 1]) for n in range(3)])
    assert relative(together, alone) < 1e-5
    assert relative(denoised(teacher, [1, 1, 1], x), alone) > 1e-3


@pytest.mark.parametrize(
    ("name", "network", "passes"),
    [("FluxPipeline", "transformer", 1), ("StableDiffusionXLPAGPipeline", "unet", 3), ("WanPipeline", "transformer", 2),
     ("Flux2Pipeline", "transformer", 1)],
)  # fmt: skip
def test_an_image_costs_exactly_its_calls_and_a_prompt_is_encoded_once(load, name, network, passes):
    teacher = load(name, fields={"name": "counted"})
    assert teacher.passes == passes
    adapter, rows, texts = adapter_of(teacher), [], []
    block = largest(adapter.networks.modules[network])[0]
    block.register_forward_pre_hook(lambda module, args, kwargs: rows.append(len(first_tensor(args, kwargs))),
                                    with_kwargs=True)  # fmt: skip
    adapter.pipe.text_encoder.register_forward_pre_hook(lambda *_: texts.append(1))
    for spec in "unipc:order=2", "heun:grid=logsnr":
        plan = sb.tableau(spec, nfe=4, teacher=teacher).plan_from_noise(teacher.schedule)
        sample(plan, teacher, range(3), nfe=4)
        assert sum(rows) == 4 * 3 * passes
        assert len(texts) <= 3 * 2  # with the negative prompt of each
        rows.clear()


def largest(network):
    """The first list of blocks of a transformer."""
    return next(each for each in network.children() if isinstance(each, torch.nn.ModuleList))


def first_tensor(args, kwargs):
    return next(each for each in (*args, kwargs.get("hidden_states")) if isinstance(each, torch.Tensor))


def adapter_of(teacher):
    """The adapter behind a teacher's decoder."""
    return teacher.decode.__self__


@pytest.mark.parametrize("name", ["WanPipeline", "QwenImagePipeline", "StableDiffusionXLPipeline"])
def test_gradients_are_those_of_finite_differences(load, name):
    teacher = load(name)
    x, away = tiny.random(1, *teacher.shape), tiny.random(1, *teacher.shape, seed=1)
    denoise = teacher.denoiser([1])

    def value(x):
        return (teacher.images(denoise(x, LEVEL)) ** 2).mean()

    point = x.clone().requires_grad_()
    value(point).backward()
    slope = float((point.grad * away).sum())
    with torch.no_grad():
        h = 3e-3
        expected = float((value(x + h * away).double() - value(x - h * away).double()) / (2 * h))
    assert slope == pytest.approx(expected, rel=2e-2, abs=1e-4)  # float32 differences of a value near 1


@pytest.mark.parametrize("name", ["WanPipeline", "QwenImagePipeline", "ZImagePipeline", "StableDiffusionXLPipeline"])
def test_gradients_reach_the_time_that_a_network_is_told(load, name):
    """Learned solvers choose their levels by it."""
    teacher = load(name)
    x, denoise = tiny.random(1, *teacher.shape), teacher.denoiser([1])

    def value(level):
        return (denoise(x, level).double() ** 2).mean()

    level = LEVEL.clone().requires_grad_()
    value(level).backward()
    with torch.no_grad():
        h = 5e-4
        expected = float((value(LEVEL + h) - value(LEVEL - h)) / (2 * h))
    assert float(level.grad) == pytest.approx(expected, rel=5e-2, abs=1e-4)  # differences in float32


READ = {
    "DDIMPipeline": {},
    "DDPMPipeline": {},
    "FluxKontextPipeline": {"distilled": "guidance_scale"},
    "FluxPipeline": {"distilled": "guidance_scale"},
    "FluxPipeline-schnell": {},
    "LDMPipeline": {},
    "PNDMPipeline": {},
    "PixArtAlphaPipeline": {"guidance": "guidance_scale"},
    "PixArtSigmaPipeline": {"guidance": "guidance_scale"},
    "StableDiffusion3Pipeline": {"guidance": "guidance_scale"},
    "StableDiffusion3Pipeline-3.5": {"guidance": "guidance_scale"},
    "StableDiffusionPipeline": {"guidance": "guidance_scale"},
    "StableDiffusionXLPipeline": {"guidance": "guidance_scale"},
    "StableDiffusionXLPipeline-turbo": {},
}
"""Pipelines that the family `diffusers` reads, and its options that the call has under other names."""


def test_every_reader_is_compared_but_dits():
    """DiT's own call is refused, as its scheduler is given two rows per image; test_diffusers follows it."""
    assert {name for name in tiny_pipelines.NAMES if kind(name) in folders.PIPELINES} == {*READ, "DiTPipeline"}
    assert {kind(name) for name in READ} | {"DiTPipeline"} == set(folders.PIPELINES)


def kind(name):
    """The class of a tiny pipeline."""
    return name.partition("-")[0]


@pytest.mark.parametrize("name", sorted(READ))
def test_the_readers_agree_with_the_pipelines_own_call(load, folder, place, name):
    without = {"image": None} if name == "FluxKontextPipeline" else {}
    slow, call = load(name, **without), tiny_pipelines.call(name)
    told = {key: call[own] for key, own in READ[name].items()}
    if tiny_pipelines.prompted(name):
        told["prompts"] = tiny.prompts(place / "p.txt", LINES)
    told |= {"text_length": call["max_sequence_length"]} if "max_sequence_length" in call else {}
    told["size"] = 8 if name.startswith("Flux") else slow.shape[-1]
    fast = sb.load_teacher(":".join([f"{folder(name)}:family=diffusers", *(f"{key}={v}" for key, v in told.items())]))
    assert slow.passes == fast.passes
    x = tiny.random(2, *fast.shape)
    ours, theirs = denoised(slow, [0, 1], packed(x, slow.shape)), denoised(fast, [0, 1], x)
    assert relative(ours, packed(theirs, slow.shape)) < 1e-5
    with torch.no_grad():  # unconditional pipelines clip their images themselves
        own, images = (each.clamp(-1, 1) for each in (slow.images(packed(theirs, slow.shape)), fast.images(theirs)))
    assert relative(own, images) < 1e-5


def packed(x, shape):
    """The state as the pipeline keeps it: FLUX's is packed, two by two."""
    if x.shape[1:] == torch.Size(shape):
        return x
    rows = diffusers.FluxPipeline._pack_latents(x, *x.shape)
    return rows.reshape(-1, *shape)


@pytest.mark.parametrize(
    "name", ["FluxPipeline", "CogView4Pipeline", "StableDiffusionXLPipeline", "WanPipeline", "LTXPipeline"]
)
def test_the_pipelines_grid_is_its_own_schedulers(load, folder, name):
    teacher = load(name)
    grid = grids.named("pipeline", teacher.schedule, 5)
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder(name), local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        pipe(LINES[0], **tiny_pipelines.call(name), num_inference_steps=5)
    own = pipe.scheduler.sigmas[:-1].double()
    if schedulers.flows(schedulers.settled({**pipe.scheduler.config, "_class_name": type(pipe.scheduler).__name__})):
        own = own / (1 - own).clamp(min=1 / (1 + 1e6))
    assert relative(grid.sigmas[:-1].clamp(max=1e5), own.clamp(max=1e5)) < 1e-5
    assert grid.sigmas[-1] == pytest.approx(teacher.schedule.sigma_min)
    assert grids.named("pipeline", teacher.schedule, 5, end=0.0).sigmas[-1] == 0


def test_the_pipelines_grid_is_refused_elsewhere():
    with pytest.raises(GridError, match="give its folder with family=pipeline, or name another grid"):
        grids.named("pipeline", sb.EDM(), 5)


def test_a_wrong_time_is_caught(load, monkeypatch):
    told = levels.told
    monkeypatch.setattr(levels, "told", lambda *args: lambda t: 0.97 * told(*args)(t))
    for name in "FluxPipeline", "StableDiffusionPipeline":
        with pytest.raises(RecordError, match="doesn't stand for its sampler: over 3 steps they differ by"):
            load(name, fields={"name": "late"})


def test_a_wrong_prediction_type_is_caught(load, monkeypatch):
    monkeypatch.setattr(schedulers, "prediction", lambda made: "v")
    for name in "ZImagePipeline", "StableDiffusionPipeline":
        with pytest.raises(RecordError, match="doesn't stand for its sampler: over 3 steps they differ by"):
            load(name, fields={"name": "wrong"})


def test_a_dropped_guidance_is_caught(load, monkeypatch):
    output = adapters.Adapter.output

    def unguided(self, *args):
        given, self.given = self.given, {**self.given, "guidance_scale": 1.0}
        try:
            return output(self, *args)
        finally:
            self.given = given

    monkeypatch.setattr(adapters.Adapter, "output", unguided)
    with pytest.raises(RecordError, match="doesn't stand for its sampler: over 3 steps they differ by"):
        load("WanPipeline", fields={"name": "unguided"})


def test_an_output_that_depends_on_earlier_steps_is_caught(load, monkeypatch):
    forward, seen = diffusers.FluxTransformer2DModel.forward, []

    def remembering(self, *args, **kwargs):
        found = forward(self, *args, **kwargs)
        seen.append(1)
        return (found[0] * (1 + 0.01 * len(seen)),)

    monkeypatch.setattr(diffusers.FluxTransformer2DModel, "forward", remembering)
    with pytest.raises(RecordError, match="such as earlier steps"):
        load("FluxPipeline", fields={"name": "remembering"})


def test_the_bound_follows_the_number_format():
    assert agreement.bound(torch.float32) == 1e-3
    assert agreement.bound(torch.bfloat16) == pytest.approx(8 / 128)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (":heigth=16", r"takes no argument 'heigth' that can be given; did you mean 'height'\?"),
        (":guidance=3", "guidance 3: FluxPipeline has names of its own for it; give guidance_scale or true_cfg_scale"),
        (":num_inference_steps=4", "num_inference_steps isn't given in a call; --nfe gives the number of calls"),
        (":latents=4", "latents isn't given in a call"),
        (":height=17000000000", "fails with its arguments"),
        (":height=oval", "fails with its arguments"),
        (":classes=seed", "the network has no classes"),
        (":max_sequence_length=9999", "fails with its arguments"),
    ],
)
def test_a_wrong_argument_of_a_call_is_one_line(folder, place, spec, text):
    tiny.prompts(place / "p.txt", LINES)
    with pytest.raises(UserError, match=text) as caught:
        sb.load_teacher(f"{folder('FluxPipeline')}:family=pipeline:prompts={place / 'p.txt'}:width=16{spec}")
    assert "\n" not in str(caught.value)


def test_arguments_of_a_call_are_the_pipelines_alone(folder, place):
    path = tiny.describe(place / "other.toml", checkpoint=folder("StableDiffusionPipeline"), family="diffusers")
    path.write_text(path.read_text() + "[call]\nheight = 16\n")
    with pytest.raises(SpecError, match=r"\[call\] is the family pipeline's, and this is diffusers"):
        sb.load_teacher(str(path))
    path.write_text("call = 3\n" + path.read_text().replace("[call]\nheight = 16\n", ""))
    with pytest.raises(SpecError, match="'call' are tables"):
        sb.load_teacher(str(path))
    with pytest.raises(SpecError, match=r"no option 'height'.*with family=pipeline it takes the arguments of its"):
        sb.load_teacher(f"{folder('StableDiffusionPipeline')}:height=16")
    path = tiny.describe(place / "none.toml", checkpoint=folder("FluxPipeline"), family="pipeline")
    with pytest.raises(UserError, match="needs prompts"):
        sb.load_teacher(str(path))


def test_the_identity_is_that_of_parts_and_call(load, folder, tmp_path):
    teacher = load("FluxPipeline")
    assert teacher.identity == load("FluxPipeline", fields={"name": "again"}).identity
    others = [load("FluxPipeline", guidance_scale=2.0), load("FluxPipeline", fields={"negative": "rain"})]
    copied = shutil.copytree(folder("FluxPipeline"), tmp_path / "flux")
    edit(copied / "scheduler" / "scheduler_config.json", max_shift=1.0)
    others.append(load("FluxPipeline", where=copied))
    shutil.copytree(folder("FluxPipeline") / "scheduler", copied / "scheduler", dirs_exist_ok=True)
    assert load("FluxPipeline", where=copied).identity == teacher.identity
    changed(copied / "vae" / "diffusion_pytorch_model.safetensors")
    others.append(load("FluxPipeline", where=copied))
    assert len({teacher.identity, *(each.identity for each in others)}) == 5


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def changed(path):
    """Change one number of a file of weights."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    name = min(tensors)
    tensors[name] = tensors[name] + 1e-3
    save_file(tensors, path)


def test_prompts_of_a_batch_are_put_together_from_their_rows():
    short, long = torch.ones(1, 2, 3), torch.ones(1, 4, 3)
    ids = torch.arange(6).reshape(2, 3)
    batch = prompts.merged([(short, [torch.ones(2)], ids, None), (long, [torch.ones(4)], ids, None)])
    assert batch[0].shape == (2, 4, 3)
    assert batch[0][0, 2:].eq(0).all()
    assert [len(each) for each in batch[1]] == [2, 4]
    assert torch.equal(batch[2], ids)
    assert batch[3] is None
    with pytest.raises(prompts.Unlike):
        prompts.merged([ids, ids + 1])


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The hub's cache, with one repository of one revision."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--owner--flux"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    return repository / "snapshots" / COMMIT


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_repository_of_the_hubs_cache_is_its_commit(cache, load, folder, place, tmp_path):
    shutil.copytree(folder("FluxPipeline"), cache)
    call = tiny_pipelines.call("FluxPipeline")
    options = f":family=pipeline:prompts={tiny.prompts(tmp_path / 'p.txt', LINES)}"
    options += "".join(f":{key}={value}" for key, value in call.items())
    teacher = sb.load_teacher(f"hf:owner/flux{options}")
    assert teacher.spec.startswith(f"hf:owner/flux@{COMMIT}:")
    assert teacher.name.startswith("flux-")
    assert teacher.identity == load("FluxPipeline").identity
    assert sb.load_teacher(teacher.spec).identity == teacher.identity
    path = tiny.describe(tmp_path / "mine.toml", checkpoint="hf:owner/flux@main", prompts=tmp_path / "p.txt")
    path.write_text(path.read_text() + "[call]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in call.items()))
    assert sb.load_teacher(str(path)).identity == teacher.identity


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("hf:owner/other", r"isn't in huggingface_hub's cache, .* run 'hf download owner/other'"),
        ("hf:owner/flux@v2", r"run 'hf download owner/flux --revision v2'"),
        ("hf:flux", "not a repository of the hub; write hf:OWNER/NAME@REVISION"),
        ("hf:owner/../flux", "not a repository of the hub"),
    ],
)
def test_what_the_hubs_cache_lacks_is_told_with_the_command(cache, text, remedy):
    with pytest.raises(UserError, match=remedy) as caught:
        sb.load_teacher(text)
    assert "\n" not in str(caught.value)


class Ran:
    """What runs when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder("FluxPipeline"), tmp_path / "flux")


def custom(folder, marker):
    (folder / "pipeline.py").write_text(f"open({str(marker)!r}, 'w')\n")


def remote(folder, marker):
    (folder / "text_encoder" / "mine.py").write_text(f"open({str(marker)!r}, 'w')\n")
    edit(folder / "text_encoder" / "config.json", auto_map={"AutoModel": "mine.Mine"})


def mapped(folder, marker):
    edit(folder / "text_encoder" / "config.json", auto_map={"AutoModel": "mine.Mine"})


def elsewhere(folder, marker):
    edit(folder / "model_index.json", vae=["antigravity", "Vae"])


def function(folder, marker):
    edit(folder / "model_index.json", vae=["diffusers", "utils"])


def unknown(folder, marker):
    edit(folder / "model_index.json", _class_name="MinePipeline")


def listed(folder, marker):
    edit(folder / "model_index.json", _class_name=["pipeline", "Mine"])


def pickled(folder, marker):
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({"x": Ran(marker)}, folder / "transformer" / "diffusion_pytorch_model.bin")


def pickled_text(folder, marker):
    (folder / "text_encoder" / "model.safetensors").unlink()
    torch.save({"x": Ran(marker)}, folder / "text_encoder" / "pytorch_model.bin")


def quantised(folder, marker):
    edit(folder / "transformer" / "config.json", quantization_config={"quant_method": "bitsandbytes"})


def extra(folder, marker):
    edit(folder / "model_index.json", controlnet=["diffusers", "FluxControlNetModel"])


def gone(folder, marker):
    shutil.rmtree(folder / "vae")


def short(folder, marker):
    from safetensors.torch import load_file, save_file

    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors[min(tensors)]
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (custom, r"pipeline\.py is code, which is not run"),
        (remote, r"mine\.py is code, which is not run"),
        (mapped, "auto_map names custom code, which is not run"),
        (elsewhere, r"vae is antigravity\.Vae, and only classes of diffusers and transformers are run"),
        (function, r"vae is diffusers\.utils, and only classes"),
        (unknown, "MinePipeline isn't a pipeline of diffusers"),
        (listed, "is custom code, which is not run"),
        (pickled, "not loaded"),
        (pickled_text, "not loaded"),
        (quantised, "its weights are quantised by bitsandbytes"),
        (extra, r"takes no part controlnet \(diffusers\.FluxControlNetModel\)"),
        (gone, r"has no folder vae, which its model_index\.json names"),
        (short, "missing tensors|not loaded"),
    ],
)
def test_a_hostile_or_damaged_folder_runs_nothing(copied, tmp_path, change, text):
    marker = tmp_path / "ran"
    change(copied, marker)
    tiny.prompts(tmp_path / "p.txt", LINES)
    with pytest.raises((RecordError, MissingError), match=text) as caught:
        sb.load_teacher(f"{copied}:family=pipeline:prompts={tmp_path / 'p.txt'}:height=16:width=16")
    assert not marker.exists()
    assert "\n" not in str(caught.value)


def ran(*args):
    done = CliRunner().invoke(main, [str(each) for each in args])
    assert done.exit_code == 0, done.output
    return done.output


FEW = {"sampler": "euler:grid=time_uniform", "sampler_nfe": 6}


@pytest.mark.usefixtures("few_compared", "unrendered")
def test_a_video_pipeline_is_trained_for_run_sampled_and_resumed(place, folder, tmp_path, monkeypatch):
    spec, out = (
        described(place, "WanPipeline", folder("WanPipeline"), {"negative": "rain", "name": "wan", **FEW}),
        tmp_path,
    )
    few = ("iterations=2", "train_size=2", "validation_size=2", "batch=2", "training_seeds=1", "validate_every=1")
    small = [word for each in few for word in ("--set", each)]
    assert "validation RMSE" in ran("train", "gs,ld3", "--nfe", 3, "--teacher", spec, "--out", out, *small)
    asked = ["--teachers", spec, "--solvers", "gs,ld3,euler:grid=pipeline", "--nfe", 3, "--samples", 10, "--batch",
             "auto", "--replicates", 1, "--out", out]  # fmt: skip
    ran("run", *asked)
    assert len(list((out / "prompts").rglob("*.safetensors"))) == len(LINES)
    cells = sorted(out.rglob("record.json"))
    before = {path: path.stat().st_mtime_ns for path in cells}
    ran("run", *asked)
    assert before == {path: path.stat().st_mtime_ns for path in sorted(out.rglob("record.json"))}
    table = next((out / "reports").rglob("results.csv"))
    assert {row["net_passes"] for row in csv.DictReader(table.open())} == {"6"}
    ran("sample", "gs", "--nfe", 3, "--seeds", "0-1", "--teacher", spec, "--out", out, "--to", tmp_path / "images")
    assert len(list((tmp_path / "images").glob("*.png"))) == 2
    saved = tmp_path / "scheduler"
    ran("zoo", "export", "gs", "--nfe", 3, "--teacher", spec, "--out", out, "--format", "diffusers", "--to", saved)
    teacher = sb.load_teacher(spec)
    noise = seeds.noise([1], teacher.shape)
    told = {"folder": folder("WanPipeline"), "saved": str(saved), "call": tiny_pipelines.call("WanPipeline")}
    with monkeypatch.context() as patched:
        patched.syspath_prepend(saved)
        exec(SCRIPT, told | {"noise": noise.reshape(1, *adapter_of(teacher).state)}, told)
    plan = sb.tableau("gs", nfe=3, teacher=teacher, out=out).plan_from_noise(teacher.schedule)
    states = sample(plan, teacher, range(1, 2), nfe=3)
    with torch.no_grad():
        images = (teacher.images(states) / 2 + 0.5).clamp(0, 1)
    assert (told["frames"][:, 1] - images).abs().max() < 1e-4


SCRIPT = """
import diffusers, tableau_scheduler
pipe = diffusers.WanPipeline.from_pretrained(folder)
pipe.scheduler = tableau_scheduler.TableauScheduler.from_pretrained(saved)
start = noise * pipe.scheduler.init_noise_sigma
frames = pipe("two cats on a mat by the sea", "rain", latents=start, num_inference_steps=3, output_type="pt", **call)[0]
"""
