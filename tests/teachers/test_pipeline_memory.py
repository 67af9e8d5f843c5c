"""Large pipelines: number formats by part, parts off the device, decoding in tiles, prompts that are kept.

Needs diffusers and transformers. The folders are those of tiny_pipelines.
"""

import importlib.util
import re

import pytest
import tiny
import torch
from golden import relative

import solverbench as sb
from solverbench.errors import MissingError, SpecError
from solverbench.store.folder import Store
from solverbench.teachers import arithmetic

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from pipeline_teachers import LINES, described

from solverbench.teachers.families.pipelines import adapter as adapters
from solverbench.teachers.families.pipelines import agreement, memory, precision, prompt_files

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

LEVEL = torch.tensor(2.0, dtype=torch.float64)


@pytest.fixture
def any_format(monkeypatch):
    """A CPU that lacks a format emulates it, for networks this small."""
    monkeypatch.setattr(arithmetic, "supports", lambda dtype, device: True)


def pipe_of(teacher):
    adapter = teacher.decode.__self__
    assert isinstance(adapter, adapters.Adapter)
    return adapter.pipe


@torch.no_grad()
def made(teacher, seeds=(0, 1)):
    """Data predictions, and what they are decoded to."""
    x = tiny.random(len(seeds), *teacher.shape)
    states = teacher.denoiser(list(seeds))(x * 2, LEVEL)
    return states, teacher.images(states)


@pytest.mark.usefixtures("any_format")
@pytest.mark.parametrize("name", ["FluxPipeline", "WanPipeline"])
def test_parts_have_number_formats_of_their_own(pipeline_teacher, name):
    whole = pipeline_teacher(name)
    table = {"vae": "bf16", "text_encoder": "bf16", "transformer": "fp32"}
    teacher = pipeline_teacher(name, fields={"dtype": table})
    parts = pipe_of(teacher).components
    assert {key: parts[key].dtype for key in table} == {
        "vae": torch.bfloat16, "text_encoder": torch.bfloat16, "transformer": torch.float32
    }  # fmt: skip
    assert teacher.arithmetic == "float32 text_encoder=bfloat16 vae=bfloat16"
    assert teacher.identity != whole.identity
    for ours, theirs in zip(made(teacher), made(whole), strict=True):
        assert 1e-6 < relative(ours.float(), theirs) < 5e-2  # bfloat16 has eight bits


@pytest.mark.usefixtures("any_format")
def test_the_default_of_a_table_is_every_other_parts_format(pipeline_teacher, tmp_path, pipeline_folder):
    table = {"default": "bf16", "vae": "fp32"}
    teacher = pipeline_teacher("FluxPipeline", fields={"dtype": table})
    assert teacher.arithmetic == "bfloat16 vae=float32"
    kinds = {
        name: part.dtype for name, part in pipe_of(teacher).components.items() if isinstance(part, torch.nn.Module)
    }
    assert kinds.pop("vae") == torch.float32
    assert set(kinds.values()) == {torch.bfloat16}
    spec = described(tmp_path, "FluxPipeline", pipeline_folder("FluxPipeline"), {"dtype": table})
    assert sb.load_teacher(f"{spec}:dtype=fp32").identity == pipeline_teacher("FluxPipeline").identity


@pytest.mark.usefixtures("any_format")
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["FluxPipeline", "HunyuanVideoPipeline", "MochiPipeline"])
def test_pipelines_are_followed_in_half_precision(pipeline_teacher, name, dtype):
    """HunyuanVideo tells rounded times from its second step on, and Mochi rounds states that it steps in float32."""
    teacher = pipeline_teacher(name, fields={"dtype": dtype})
    found = float(re.search(r"follows to (\S+) over 3 steps", teacher.notes[-1])[1])
    assert found <= agreement.bound(arithmetic.DTYPES[dtype])
    assert teacher.denoiser([0])(tiny.random(1, *teacher.shape), LEVEL).dtype == torch.float32


def test_inputs_that_other_parts_made_are_converted_alone():
    given = {
        "hidden_states": torch.ones(1, 2), "timestep": torch.ones(1, 2), "image_rotary_emb": (torch.ones(3, 4),),
        "down_block_additional_residuals": [torch.ones(1, 2)], "encoder_attention_mask": torch.ones(1, 2).long(),
    }  # fmt: skip
    seen = precision._cast(lambda state, **named: {"state": state, **named}, torch.bfloat16)(torch.ones(1, 2), **given)
    kinds = {key: (value[0] if isinstance(value, (list, tuple)) else value).dtype for key, value in seen.items()}
    assert {key for key, kind in kinds.items() if kind == torch.bfloat16} == {
        "state", "hidden_states", "down_block_additional_residuals"
    }  # fmt: skip
    assert kinds["timestep"] == kinds["image_rotary_emb"] == torch.float32


@pytest.mark.parametrize(
    ("dtype", "said"),
    [
        ({"vea": "fp32"}, r"dtype has no part 'vea'; did you mean 'vae'\?"),
        ({"vae": "fp8"}, "dtype=fp8: not a number format; use fp32, fp16, bf16"),
        ({"vae": 16}, "dtype.vae = 16 isn't text"),
        ({"tokenizer": "fp32"}, "dtype has no part 'tokenizer'"),
    ],
)
def test_a_wrong_table_of_formats_is_one_line(pipeline_teacher, dtype, said):
    with pytest.raises(SpecError, match=said) as caught:
        pipeline_teacher("FluxPipeline", fields={"dtype": dtype})
    assert "\n" not in str(caught.value)


def test_a_table_of_formats_is_refused_by_other_families(tmp_path, pipeline_folder):
    path = tiny.describe(
        tmp_path / "sd.toml", checkpoint=pipeline_folder("StableDiffusionPipeline"), family="diffusers"
    )
    path.write_text(path.read_text() + '[dtype]\nvae = "fp32"\n')
    with pytest.raises(SpecError, match="dtype is a table, but this is family diffusers"):
        sb.load_teacher(str(path))


def test_the_decoder_works_on_slices_and_tiles(pipeline_teacher):
    whole = pipeline_teacher("FluxPipeline")
    states, images = made(whole)
    sliced = pipeline_teacher("FluxPipeline", fields={"options": {"enable_vae_slicing": True}})
    assert pipe_of(sliced).vae.use_slicing
    with torch.no_grad():
        assert relative(sliced.images(states), images) < 1e-5  # a batch's last bits
    tiled = pipeline_teacher("FluxPipeline", fields={"options": {"enable_vae_tiling": True}})
    vae = pipe_of(tiled).vae
    vae.tile_latent_min_size, vae.tile_sample_min_size = 4, 8
    with torch.no_grad():
        assert relative(tiled.images(states), images) > 1e-3  # an image has borders inside
    assert (sliced.arithmetic, tiled.arithmetic) == ("float32", "float32 vae_tiling")
    assert sliced.identity == tiled.identity == whole.identity
    with pytest.raises(SpecError, match="enable_vae_tiling=true: no part of DDIMPipeline has tiling; leave it out"):
        pipeline_teacher("DDIMPipeline", fields={"options": {"enable_vae_tiling": True}})


OFFLOAD = {"options": {"enable_model_cpu_offload": True}}


def test_offloading_without_a_gpu_is_said_to_do_nothing(pipeline_teacher):
    teacher = pipeline_teacher("FluxPipeline", fields=OFFLOAD)
    assert any("enable_model_cpu_offload does nothing without a GPU" in note for note in teacher.notes)
    assert teacher.identity == pipeline_teacher("FluxPipeline").identity
    assert teacher.arithmetic == "float32"


def test_offloading_without_accelerate_says_what_to_install(pipeline_teacher, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(memory, "offloads", lambda device: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "accelerate" else find(name))
    with pytest.raises(MissingError, match="needs accelerate, which isn't installed; pip install accelerate"):
        pipeline_teacher("FluxPipeline", fields={**OFFLOAD, "name": "without"})


@pytest.mark.parametrize("name", ["FluxPipeline", "WanPipeline-2.2"])
def test_parts_that_come_and_go_make_the_same(pipeline_teacher, monkeypatch, name):
    """Accelerate's hooks move nothing on the CPU; what they are put around is watched all the same.

    A second round follows a decoding, after which the hooks are new.
    """
    pytest.importorskip("accelerate")
    monkeypatch.setattr(memory, "offloads", lambda device: True)
    plain = pipeline_teacher(name)
    teacher = pipeline_teacher(name, fields={**OFFLOAD, "name": "offloaded"})
    assert teacher.notes == plain.notes
    gone = []
    for hook in pipe_of(teacher)._all_hooks:
        monkeypatch.setattr(hook, "offload", lambda model=hook.model: gone.append(type(model).__name__))
    expected = made(plain)
    for _ in range(2):
        for ours, theirs in zip(made(teacher), expected, strict=True):
            assert relative(ours, theirs) < 1e-6
    assert {"AutoencoderKL", "AutoencoderKLWan"} & set(gone)
    assert teacher.passes == plain.passes
    x = tiny.random(1, *teacher.shape).requires_grad_()
    with pytest.raises(SpecError, match="gradients go through several parts"):
        teacher.images(teacher.denoiser([0])(x, LEVEL))
    if name == "FluxPipeline":
        gone.clear()
        pipe_of(teacher).encode_prompt(prompt="a new one", prompt_2=None, max_sequence_length=32)
        assert "FluxTransformer2DModel" in gone  # which the calls before have left on the device
        teacher.denoiser([0])(x, LEVEL).sum().backward()
        assert x.grad.abs().max() > 0


@pytest.fixture
def texts(monkeypatch):
    """How often CLIP's text encoder ran."""
    import transformers

    ran, forward = [], transformers.CLIPTextModel.forward

    def counted(self, *args, **kwargs):
        ran.append(1)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(transformers.CLIPTextModel, "forward", counted)
    return ran


@pytest.fixture
def store(tmp_path):
    return Store.open(tmp_path / "runs").root


def kept(store):
    return sorted((store / "prompts").rglob("*.safetensors"))


def test_a_second_process_does_not_encode_prompts_again(pipeline_folder, tmp_path, store, texts):
    def loaded(out, **call):
        spec = described(tmp_path, "FluxPipeline", pipeline_folder("FluxPipeline"), None, call)
        return sb.load_teacher(spec, out=out)

    first = loaded(store)
    expected = made(first, (0, 1, 2))
    assert len(texts) == len(LINES) == len(kept(store))
    texts.clear()
    second = loaded(store)
    for ours, theirs in zip(made(second, (0, 1, 2)), expected, strict=True):
        assert torch.equal(ours, theirs)
    assert not texts
    for path in kept(store):  # tensors and JSON alone
        path.write_bytes(path.read_bytes()[:-3] + b"abc")
    made(loaded(store), (0, 1, 2))
    assert len(texts) == len(LINES)
    texts.clear()
    made(loaded(store), (0, 1, 2))
    assert not texts  # damaged ones were written again
    made(loaded(store, guidance_scale=2.0), (0, 1, 2))
    assert len(kept(store)) == 2 * len(LINES)
    texts.clear()
    made(loaded(None), (0, 1, 2))
    assert len(texts) == len(LINES)


def test_prompts_are_written_into_a_store_alone(pipeline_folder, tmp_path, texts):
    """A command that is refused, or only plans, has made no store."""
    spec = described(tmp_path, "FluxPipeline", pipeline_folder("FluxPipeline"))
    teacher = sb.load_teacher(spec, out=tmp_path / "runs")
    made(teacher, (0, 1))
    assert not (tmp_path / "runs").exists()
    root = Store.open(tmp_path / "runs").root
    made(teacher, (2,))
    assert len(kept(root)) == len(LINES)  # those before as well
    without = described(tmp_path, "FluxPipeline", pipeline_folder("FluxPipeline"), {"options": {"keep_prompts": False}})
    texts.clear()
    made(sb.load_teacher(without, out=root), (0, 1, 2))
    assert len(texts) == len(LINES)


def test_kept_prompts_are_what_was_encoded(store):
    rows = prompt_files.PromptFiles(store, "identity", "cpu")
    row = (torch.ones(1, 2, dtype=torch.bfloat16), None, [torch.arange(3)], (True, 2, "text"))
    rows.put("a", row)
    found = prompt_files.PromptFiles(store, "identity", "cpu").get("a")
    assert found[0].dtype == torch.bfloat16
    assert torch.equal(found[0], row[0])
    assert torch.equal(found[2][0], row[2][0])
    assert (found[1], found[3], type(found[2])) == (None, (True, 2, "text"), list)
    assert rows.get("b") is None
    assert prompt_files.PromptFiles(store, "another", "cpu").get("a") is None
    rows.put("c", {"a": object()})
    assert rows.get("c") is None


def test_no_link_and_no_foreign_file_is_followed(store, tmp_path):
    rows = prompt_files.PromptFiles(store, "identity", "cpu")
    rows.put("a", torch.ones(1))
    (path,) = kept(store)
    content = path.read_bytes()
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_bytes(content)
    assert rows.get("a") is None
    path.unlink()
    torch.save({"a": torch.ones(1)}, path)
    assert rows.get("a") is None
    (store / "prompts").rename(tmp_path / "moved")
    (store / "prompts").symlink_to(tmp_path / "moved")
    rows.put("b", torch.ones(1))
    assert rows.get("b") is None
    assert len(list((tmp_path / "moved").rglob("*"))) == 2


def test_a_full_folder_of_prompts_is_left_as_it_is(store, monkeypatch):
    monkeypatch.setattr(prompt_files, "MOST", 1000)
    rows = prompt_files.PromptFiles(store, "identity", "cpu")
    for name in "ab":
        rows.put(name, torch.ones(100))
    assert len(kept(store)) == 1


def test_frames_are_teachers_of_their_own(pipeline_teacher):
    middle = pipeline_teacher("WanPipeline")
    first = pipeline_teacher("WanPipeline", fields={"options": {"frame": 0}})
    states, images = made(middle)
    with torch.no_grad():
        assert relative(first.images(states), images) > 1e-3
    assert first.identity != middle.identity


def test_a_clipped_data_prediction_is_a_teacher_of_its_own(pipeline_teacher):
    plain = pipeline_teacher("DDIMPipeline")
    assert any("clip=1 clips the data prediction" in note for note in plain.notes)
    clipped = pipeline_teacher("DDIMPipeline", fields={"options": {"clip": 0.5}})
    assert torch.equal(made(clipped)[0], made(plain)[0].clamp(-0.5, 0.5))
    assert clipped.identity != plain.identity
    assert not any("clip=1" in note for note in clipped.notes)
    with pytest.raises(SpecError, match="clip=0: not a bound above 0"):
        pipeline_teacher("DDIMPipeline", fields={"options": {"clip": 0}})
