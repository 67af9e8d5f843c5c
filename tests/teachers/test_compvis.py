"""CompVis checkpoints: golden networks, EMA, first stage, guidance, prompts, through the command line."""

import json
import shutil

import pytest
import tiny
import torch
from click.testing import CliRunner
from golden import relative

import solverbench as sb
from solverbench import registries
from solverbench.bench import run
from solverbench.bench.run_options import RunOptions
from solverbench.cli.main import main
from solverbench.errors import MissingError, RecordError, SpecError, UserError
from solverbench.method import VPDiscrete
from solverbench.sampling import convergence
from solverbench.teachers.families import assembly, compvis, conversion
from solverbench.teachers.teacher import SAMPLER

pytestmark = pytest.mark.usefixtures("unrendered", "few_compared")

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

SMALL = {"samples": 10, "replicates": 1, "batch": 10}
OPTIONS = {kind: {"size": tiny.SIZE, **heads} for kind, heads in tiny.HEADS.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three checkpoints, a tokenizer and prompts."""
    folder = tmp_path_factory.mktemp("compvis")
    tiny.save(folder / "bedroom.ckpt", tiny.ldm())
    tiny.save(folder / "imagenet.ckpt", tiny.ldm(10))
    tiny.save(folder / "sd.ckpt", tiny.stable_diffusion())
    tiny.tokenizer(folder / "tokenizer")
    tiny.prompts(folder / "prompts.txt")
    return folder


def described(folder, kind, options=None, files=None, **table):
    names = {tiny.UNCONDITIONAL: "bedroom", tiny.CLASSES: "imagenet", tiny.TEXT: "sd"}
    asked = {"checkpoint": folder / f"{names[kind]}.ckpt", "sampler": "euler:grid=time_uniform", "sampler_nfe": 8}
    more = {}
    if kind == tiny.TEXT:
        asked["prompts"], more = folder / "prompts.txt", {"text_heads": 2}
        files = {"tokenizer": folder / "tokenizer"} if files is None else files
    return tiny.describe(folder / "mine.toml", files, OPTIONS[kind] | more | (options or {}), **asked | table)


def load(*asked, **more):
    return sb.load_teacher(str(described(*asked, **more)))


def level(value):
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("kind", [tiny.UNCONDITIONAL, tiny.CLASSES, tiny.TEXT])
def test_where_no_sampler_is_named_it_is_the_converged_one_of_latent_models(folder, kind):
    """Not that of a paper: GAS's is .018 to .052 RMSE from the solution, see docs/teachers.md."""
    path = described(folder, kind)
    lines = [line for line in path.read_text().splitlines() if not line.startswith("sampler")]
    path.write_text("\n".join(lines))
    teacher = sb.load_teacher(str(path))
    assert (teacher.sampler, teacher.sampler_nfe) == (SAMPLER, assembly.LATENT_NFE)


@pytest.mark.parametrize("case", [tiny.UNCONDITIONAL, tiny.CLASSES, tiny.TEXT])
def test_unets_agree_with_the_golden_ones(case):
    arrays = tiny.golden()[1]
    found = conversion.unet(conversion.part(tiny.state(case), conversion.UNET), **tiny.HEADS[case])
    told = {"encoder_hidden_states": arrays[f"ctx{case}"]} if f"ctx{case}" in arrays else {}
    with torch.no_grad():
        y = assembly.build(found)(arrays[f"x{case}"], arrays[f"t{case}"], **told).sample
    assert relative(y, arrays[f"y{case}"]) < 1e-5


@pytest.mark.parametrize("case", [tiny.VQ, tiny.KL])
def test_decoders_agree_with_the_golden_ones(case):
    arrays = tiny.golden()[1]
    decode = assembly.first_stage(
        assembly.build(conversion.first_stage(conversion.part(tiny.state(case), conversion.FIRST_STAGE))), scale=1.0
    )
    with torch.no_grad():
        assert relative(decode(arrays[f"z{case}"]), arrays[f"y{case}"]) < 1e-5


def test_a_denoiser_is_the_networks_at_its_own_time(folder):
    """x - sigma eps(x / sqrt(1 + sigma^2), 1000 t - 1): the golden input, at the level of its integer time."""
    arrays, teacher = tiny.golden()[1], load(folder, tiny.UNCONDITIONAL)
    x, t, y = arrays["x0"], arrays["t0"], arrays["y0"]
    assert len(set(t.tolist())) > 1
    for row in range(len(x)):
        sigma = teacher.schedule.sigma((t[row].double() + 1) / 1000)
        with torch.no_grad():
            found = teacher.denoise(x[row : row + 1] * float((1 + sigma**2).sqrt()), sigma)
        expected = x[row] * (1 + sigma**2).sqrt() - sigma * y[row]
        assert relative(found[0].double(), expected) < 1e-5


def test_its_schedule_is_the_exact_one_behind_the_checkpoints_betas(folder):
    assert load(folder, tiny.UNCONDITIONAL).schedule == VPDiscrete.latent_diffusion()
    assert load(folder, tiny.TEXT, options={"beta_start": 0.00085, "beta_end": 0.012}).schedule == (
        VPDiscrete.stable_diffusion()
    )


def test_betas_of_its_own_win_over_the_formula(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    tiny.save(tmp_path / "bedroom.ckpt", tiny.ldm() | {"betas": tiny.betas(0.001, 0.01)})
    found = load(tmp_path, tiny.UNCONDITIONAL).schedule
    assert found.sigma_max == pytest.approx(VPDiscrete.scaled_linear(0.001, 0.01).sigma_max, rel=1e-4)


@pytest.mark.parametrize("told", [499.25, 499.5, 0.125])
def test_times_between_two_steps_are_not_rounded(folder, told):
    teacher, x = load(folder, tiny.UNCONDITIONAL), tiny.random(1, 3, 16, 16)
    state = conversion.part(tiny.state(tiny.UNCONDITIONAL), conversion.UNET)
    model = assembly.build(conversion.unet(state, head_channels=32))
    sigma = teacher.schedule.sigma(level((told + 1) / 1000))
    with torch.no_grad():
        expected = x * float((1 + sigma**2).sqrt()) - float(sigma) * model(x, torch.tensor(told)).sample
        assert relative(teacher.denoise(x * float((1 + sigma**2).sqrt()), sigma), expected) < 1e-5


def test_a_learned_level_carries_gradient(folder):
    teacher = load(folder, tiny.UNCONDITIONAL)
    sigma = level(2.0).requires_grad_()
    x = tiny.random(1, 3, 16, 16)
    teacher.denoise(x, sigma).square().mean().backward()
    with torch.no_grad():
        above, below = (teacher.denoise(x, level(s)).square().mean() for s in (2.001, 1.999))
    assert float(sigma.grad) == pytest.approx(float(above - below) / 0.002, rel=0.02)


@pytest.mark.parametrize(
    ("kind", "asked", "taken"),
    [
        (tiny.UNCONDITIONAL, None, True),
        (tiny.UNCONDITIONAL, False, False),
        (tiny.CLASSES, None, False),
        (tiny.CLASSES, True, True),
    ],
)
def test_the_moving_average_is_taken_where_upstream_takes_it(tmp_path, folder, kind, asked, taken):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    found = tiny.ldm(10 if kind == tiny.CLASSES else 0)
    name = "imagenet" if kind == tiny.CLASSES else "bedroom"
    tiny.save(tmp_path / f"{name}.ckpt", found | tiny.averages(found, value=0.0))
    teacher = load(tmp_path, kind, options={} if asked is None else {"average": asked})
    x = tiny.random(2, 3, 16, 16)
    with torch.no_grad():
        zero = torch.equal(teacher.denoiser([0, 1])(x, level(2.0)), x)  # a network of zeros predicts no noise
    assert zero is taken


def test_latents_are_quantised_before_decoding_and_gradient_passes(folder):
    teacher, plain = load(folder, tiny.UNCONDITIONAL), load(folder, tiny.UNCONDITIONAL, options={"quantise": False})
    codes = tiny.ldm()["first_stage_model.quantize.embedding.weight"]
    near = codes[torch.arange(256) % 64].T.reshape(1, 3, 16, 16)
    states = (near + tiny.random(1, 3, 16, 16, scale=1e-3)).requires_grad_()
    images = teacher.images(states)
    assert relative(images.detach(), plain.images(near)) < 1e-5
    assert relative(plain.images(states).detach(), plain.images(near)) > 1e-4
    images.sum().backward()
    assert float(states.grad.abs().sum()) > 0
    assert teacher.identity != plain.identity


def test_latents_are_decoded_in_parts_as_one_by_one(folder):
    teacher = load(folder, tiny.TEXT, options={"scale": 0.18215})
    states = tiny.random(assembly.DECODED + 3, 4, 16, 16)
    with torch.no_grad():
        together, single = teacher.images(states), torch.cat([teacher.images(each[None]) for each in states])
    assert together.shape == (11, 3, 32, 32)
    assert relative(together, single) < 1e-5


def test_the_scale_is_the_checkpoints_own(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    tiny.save(tmp_path / "sd.ckpt", tiny.stable_diffusion() | {"scale_factor": torch.tensor(0.5)})
    own, given = load(tmp_path, tiny.TEXT), load(tmp_path, tiny.TEXT, options={"scale": 1.0})
    states = tiny.random(1, 4, 16, 16)
    with torch.no_grad():
        assert relative(own.images(states), given.images(states * 2)) < 1e-6
        assert relative(load(folder, tiny.TEXT).images(states), given.images(states / 0.18215)) < 1e-6


def test_recomputing_changes_no_gradient(folder):
    gradients = []
    for checkpointing in (False, True):
        teacher = load(folder, tiny.CLASSES, options={"checkpointing": checkpointing}, guidance=2.0)
        x = tiny.random(1, 3, 16, 16).requires_grad_()
        teacher.images(teacher.denoiser([4])(x, level(1.0))).square().sum().backward()
        gradients.append(x.grad)
    assert relative(gradients[1], gradients[0]) < 1e-5


def test_guidance_leads_from_the_last_class_to_the_seeds_own(folder):
    table = tiny.ldm(10)["cond_stage_model.embedding.weight"]
    arrays = tiny.golden()[1]
    model = assembly.build(
        conversion.unet(conversion.part(tiny.state(tiny.CLASSES), conversion.UNET), head_channels=32)
    )
    sigma = VPDiscrete.latent_diffusion().sigma(level(0.4))
    x = arrays["x1"][:2]
    teacher = load(folder, tiny.CLASSES, guidance=2.0)
    assert teacher.passes == 2
    with torch.no_grad():
        led, free = (model(x, 399.0, table[rows][:, None]).sample for rows in ([3, 7], [10, 10]))
        scaled = x * float((1 + sigma**2).sqrt())
        found = teacher.denoiser([13, 17])(scaled, sigma)
    assert relative(found, scaled - float(sigma) * (free + 2 * (led - free))) < 1e-5


def test_prompts_are_encoded_as_upstream_does(folder):
    from transformers import CLIPTokenizer

    teacher = load(folder, tiny.TEXT, guidance=3.0, negative="rain")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    encoder = tiny.clip()
    model = assembly.build(conversion.unet(conversion.part(tiny.state(tiny.TEXT), conversion.UNET), heads=2))
    sigma = teacher.schedule.sigma(level(0.4))
    x = tiny.random(2, 4, 16, 16)
    with torch.no_grad():
        words = [
            encoder(tokenizer(line, padding="max_length", max_length=77, return_tensors="pt").input_ids)[0]
            for line in ("the sea", "a red bird", "rain", "rain")
        ]
        led, free = model(torch.cat((x, x)), 399.0, torch.cat(words)).sample.chunk(2)
        scaled = x * float((1 + sigma**2).sqrt())
        found = teacher.denoiser([2, 3])(scaled, sigma)
    assert relative(found, scaled - float(sigma) * (free + 3 * (led - free))) < 1e-5


@pytest.mark.parametrize(
    ("kind", "guidance"),
    [(tiny.UNCONDITIONAL, None), (tiny.CLASSES, None), (tiny.CLASSES, 2.0), (tiny.TEXT, None), (tiny.TEXT, 2.0)],
)
def test_every_kind_runs_through_the_command_line(folder, tmp_path, kind, guidance):
    told = {} if guidance is None else {"guidance": guidance}
    path = described(folder, kind, **told)
    done = CliRunner().invoke(
        main,
        ["run", "--teachers", str(path), "--solvers", "dpm,unipc", "--nfe", "4-6", "--samples", "10",
         "--replicates", "1", "--out", str(tmp_path)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    bundle = json.loads(next((tmp_path / "reports").iterdir()).joinpath("bundle.json").read_text())
    assert bundle["selection"]["teachers"] == ["mine"]


@pytest.mark.parametrize(("guidance", "rows"), [(1.0, 1), (2.0, 2)])
def test_with_guidance_a_call_passes_two_rows_and_each_holds_its_prompt(folder, tmp_path, monkeypatch, guidance, rows):
    import diffusers

    seen = []
    call = diffusers.UNet2DConditionModel.forward

    def watched(self, sample, timestep, encoder_hidden_states, **more):
        seen.append(encoder_hidden_states)
        return call(self, sample, timestep, encoder_hidden_states, **more)

    monkeypatch.setattr(diffusers.UNet2DConditionModel, "forward", watched)
    path = described(folder, tiny.TEXT, guidance=guidance, sampler="unipc:order=3:grid=time_uniform", sampler_nfe=4)
    convergence.measure(
        sb.load_teacher(str(path)), tmp_path, batch=SMALL.get("batch", 500)
    )  # so that the run makes no calls for it
    seen.clear()
    frame = run.run(RunOptions(solvers="unipc", nfe="5", teachers=str(path), out=tmp_path, workers=1, **SMALL)).frame
    assert set(frame.net_passes) == {5 * rows}
    teacher = sb.load_teacher(str(path))
    assert len(seen) == 10 * (4 + 5)  # a seed block is one image here; the teacher's own calls and the solver's
    lines = {line: assembly_words(teacher, folder, line) for line in [*tiny.PROMPTS, ""]}
    for told in seen:
        assert len(told) == rows
        own = [line for line in tiny.PROMPTS if torch.allclose(told[-1], lines[line], atol=1e-5)]
        assert len(own) == 1
        assert rows == 1 or torch.allclose(told[0], lines[""], atol=1e-5)


def assembly_words(teacher, folder, line):
    from transformers import CLIPTokenizer

    tokens = CLIPTokenizer.from_pretrained(folder / "tokenizer")(line, padding="max_length", max_length=77)
    with torch.no_grad():
        return tiny.clip()(torch.tensor([tokens.input_ids]))[0][0]


def test_safetensors_give_the_same_teacher(folder, tmp_path):
    from safetensors.torch import save_file

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    save_file({k: v.contiguous() for k, v in tiny.ldm().items()}, tmp_path / "bedroom.safetensors")
    one = load(tmp_path, tiny.UNCONDITIONAL)
    other = load(tmp_path, tiny.UNCONDITIONAL, checkpoint=tmp_path / "bedroom.safetensors")
    assert one.identity == other.identity


def test_a_checkpoint_that_names_its_training_framework_is_read(folder, tmp_path):
    """As the published Stable Diffusion files do; the framework isn't installed and nothing of it is run."""
    import sys
    import types

    name = "pytorch_lightning.callbacks.model_checkpoint"
    callback = type("ModelCheckpoint", (), {"__module__": name})
    modules = {each: types.ModuleType(each) for each in ("pytorch_lightning", "pytorch_lightning.callbacks", name)}
    modules[name].ModelCheckpoint = callback
    sys.modules.update(modules)
    try:
        tiny.save(tmp_path / "bedroom.ckpt", tiny.ldm(), callbacks={callback: {"monitor": "loss"}})
    finally:
        for each in modules:
            del sys.modules[each]
    assert load(tmp_path, tiny.UNCONDITIONAL).identity == load(folder, tiny.UNCONDITIONAL).identity


def test_it_is_recognised(folder):
    from solverbench.teachers.families.description import recognise

    assert {recognise(path) for path in folder.glob("*.ckpt")} == {"compvis"}
    assert "compvis" in registries.families


def test_an_fp16_choice_is_recorded(folder):
    teacher = load(folder, tiny.UNCONDITIONAL)
    assert teacher.arithmetic == "float32"


@pytest.mark.parametrize(
    ("kind", "changes", "kinds", "text"),
    [
        (tiny.TEXT, {"prompts": "/nowhere.txt"}, MissingError, "prompts"),
        (tiny.TEXT, {"prompt_count": 4}, UserError, "3 prompts, but 4 are asked for"),
        (tiny.TEXT, {"classes": "seed"}, UserError, "has no classes"),
        (tiny.UNCONDITIONAL, {"guidance": 2.0}, UserError, "no unconditional input"),
        (tiny.UNCONDITIONAL, {"sigma_max": 80.0}, SpecError, "starts where its training does"),
        (tiny.CLASSES, {"classes": "fixed:10"}, UserError, "the network has 10"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(folder, kind, changes, kinds, text):
    with pytest.raises(kinds, match=text) as caught:
        load(folder, kind, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        (tiny.UNCONDITIONAL, {}, "width 32 is none of the published ones; give size and heads or head_channels"),
        (tiny.UNCONDITIONAL, {"size": 16, "heads": 2}, "give head_channels"),
        (tiny.UNCONDITIONAL, {"size": 16, "head_channels": 24}, "can't be divided into heads of 24"),
        (
            tiny.CLASSES,
            {"size": 16, "head_channels": 32, "null_class": 3},
            r"null_class=3: only the last class can .*; give null_class=10",
        ),
        (tiny.UNCONDITIONAL, {"size": 16, "head_channels": 32, "averge": True}, "did you mean 'average'"),
    ],
)
def test_a_wrong_option_is_one_clear_line(folder, kind, options, text):
    name = {tiny.UNCONDITIONAL: "bedroom", tiny.CLASSES: "imagenet"}[kind]
    path = tiny.describe(folder / "bare.toml", None, options, checkpoint=folder / f"{name}.ckpt")
    with pytest.raises(UserError, match=text) as caught:
        sb.load_teacher(str(path))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_lies_beside_the_checkpoint_or_is_asked_for(folder, tmp_path):
    assert load(folder, tiny.TEXT, files={}).identity == load(folder, tiny.TEXT).identity
    shutil.copy(folder / "sd.ckpt", tmp_path)
    with pytest.raises(
        MissingError, match=r"put vocab\.json and merges\.txt of openai/clip-vit-large-patch14"
    ) as caught:
        load(folder, tiny.TEXT, files={}, checkpoint=tmp_path / "sd.ckpt")
    assert str(tmp_path / "tokenizer") in str(caught.value)


def damaged(change):
    found = tiny.ldm()
    change(found)
    return found


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: s.pop("model.diffusion_model.middle_block.0.in_layers.2.weight"), "has no middle_block.0.in_layers"),
        (lambda s: s.pop("first_stage_model.decoder.conv_in.weight"), "has no conv_in.weight"),
        (
            lambda s: s.update({"model.diffusion_model.extra": torch.ones(1)}),
            "don't belong to this architecture, such as .*extra",
        ),
        (
            lambda s: s.update({"model.diffusion_model.time_embed.0.weight": torch.ones(3, 3)}),
            "don't fit .*time_embedding",
        ),
        (lambda s: [s.pop(k) for k in [*s] if k.startswith("first_stage_model.")], "decoder: the checkpoint has no"),
        (
            lambda s: s.update({"cond_stage_model.model.x": torch.ones(1)}),
            "its condition cond_stage_model.model.x isn't supported",
        ),
    ],
)
def test_a_checkpoint_that_lacks_or_adds_something_is_one_clear_line(tmp_path, change, text):
    tiny.save(tmp_path / "bedroom.ckpt", damaged(change))
    with pytest.raises(RecordError, match=text) as caught:
        load(tmp_path, tiny.UNCONDITIONAL)
    assert "\n" not in str(caught.value)


def test_published_configurations_are_used_without_options(monkeypatch):
    """A model of a published width needs no option but what its file doesn't hold."""
    known = compvis.PUBLISHED[compvis.CLASSES, 192]
    assert (known.heads, known.size, known.averaged, known.scale) == (1, 64, False, 1.0)
