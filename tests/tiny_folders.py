"""Diffusers folders of tiny random networks, saved by diffusers itself, and what upstream's loops make of them.

Needs diffusers and transformers.
"""

import json

import diffusers
import tiny
import torch

import solverbench

STEPS = 5
FAST = {"sampler": "euler:grid=time_uniform", "sampler_nfe": 6}
VP = {"num_train_timesteps": 1000, "beta_schedule": "linear", "clip_sample": True}


def seeded(make, seed=0):
    torch.manual_seed(seed)
    return make().eval()


def unet(classes=None, out=3, sample_size=8):
    return seeded(
        lambda: diffusers.UNet2DModel(
            sample_size=sample_size, in_channels=3, out_channels=out, block_out_channels=(16, 32), layers_per_block=1,
            norm_num_groups=8, attention_head_dim=8, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"), num_class_embeds=classes,
        )
    )  # fmt: skip


def vae(channels=4, shift=None):
    return seeded(
        lambda: diffusers.AutoencoderKL(
            block_out_channels=(16, 32), down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=channels, norm_num_groups=8, shift_factor=shift,
        )
    )  # fmt: skip


def vq():
    return seeded(
        lambda: diffusers.VQModel(
            block_out_channels=(16, 32), down_block_types=("DownEncoderBlock2D",) * 2, num_vq_embeddings=16,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=3, norm_num_groups=8, scaling_factor=0.5,
        )
    )  # fmt: skip


def dit(learned_variance=True):
    return seeded(
        lambda: diffusers.DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8 if learned_variance else 4,
            num_layers=2, sample_size=8, patch_size=2, num_embeds_ada_norm=10,
        )
    )  # fmt: skip


def text_unet():
    return seeded(
        lambda: diffusers.UNet2DConditionModel(
            sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, attention_head_dim=2,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), cross_attention_dim=24,
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )
    )  # fmt: skip


def xl_unet(pooled=12):
    return seeded(
        lambda: diffusers.UNet2DConditionModel(
            sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, attention_head_dim=2,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), cross_attention_dim=32,
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), use_linear_projection=True,
            addition_embed_type="text_time", addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + pooled,
        )
    )  # fmt: skip


def pixart(sized):
    return seeded(
        lambda: diffusers.PixArtTransformer2DModel(
            num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=8, num_layers=2, sample_size=8,
            cross_attention_dim=24, caption_channels=32, use_additional_conditions=sized,
        )
    )  # fmt: skip


def t5(width=32):
    import transformers

    config = transformers.T5Config(
        vocab_size=20, d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu"
    )
    return seeded(lambda: transformers.T5EncoderModel(config))


def t5_tokenizer():
    import transformers

    letters = [(letter, -2.0) for letter in "▁abcdeinorst"]
    return transformers.T5TokenizerFast(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters], extra_ids=0)


def sd3():
    return seeded(
        lambda: diffusers.SD3Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
            num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=24,
            pos_embed_max_size=8,
        )
    )  # fmt: skip


def flux(guidance_embeds=True):
    return seeded(
        lambda: diffusers.FluxTransformer2DModel(
            patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=24, axes_dims_rope=(4, 4, 8),
            guidance_embeds=guidance_embeds,
        )
    )  # fmt: skip


def save(folder, pipeline, scheduler, **parts):
    """Write a pipeline's folder: `parts` by name, each as it saves itself."""
    index = {"_class_name": pipeline, "_diffusers_version": diffusers.__version__}
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in {"scheduler": scheduler, **parts}.items():
        part.save_pretrained(folder / name)
        index[name] = [type(part).__module__.partition(".")[0], type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def ddpm(folder, **scheduler):
    return save(folder, "DDPMPipeline", diffusers.DDPMScheduler(**VP | scheduler), unet=unet())


def text(folder):
    """The parts of a CLIP text encoder."""
    import transformers

    return {
        "text_encoder": tiny.clip(),
        "tokenizer": transformers.CLIPTokenizer.from_pretrained(tiny.tokenizer(folder / "words"), model_max_length=77),
    }


def load(folder, files=None, options=None, **table):
    path = tiny.describe(folder.parent / "mine.toml", files, options, **{"checkpoint": folder} | FAST | table)
    return solverbench.load_teacher(str(path))


@torch.no_grad()
def ours(teacher, sigmas, noise, seeds=(0,)):
    """The EDM-frame sample of Euler's method on `sigmas` from unit noise."""
    spec = "euler:end=zero" if sigmas[-1] == 0 else "euler"
    tableau = solverbench.tableau(spec, grid=sigmas)
    return solverbench.execute(tableau, teacher.denoiser(list(seeds)), noise * teacher.schedule.scale(sigmas[0]))


@torch.no_grad()
def upstream(scheduler, network, noise, steps=STEPS):
    """Its sampler's own loop, and what it was told: states and times."""
    scheduler.set_timesteps(steps)
    x = noise  # of unit scale for each of them
    for t in scheduler.timesteps:
        more = {"eta": 0.0} if isinstance(scheduler, diffusers.DDIMScheduler) else {}
        x = scheduler.step(network(x, t), t, x, **more).prev_sample
    return x


def ddim(teacher, config):
    """DDIM on `config`, and the levels of its times, its end at the first training step."""
    same = {"timestep_spacing": "trailing", "set_alpha_to_one": False, "clip_sample": False, "steps_offset": 1}
    scheduler = diffusers.DDIMScheduler.from_config({**config, **same})
    scheduler.set_timesteps(STEPS)
    times = torch.cat((scheduler.timesteps.double() + 1, torch.ones(1))) / 1000
    return scheduler, [float(teacher.schedule.sigma(t)) for t in times.double()]


def stable_diffusion(folder):
    return save(
        folder, "StableDiffusionPipeline",
        diffusers.DDIMScheduler(**VP | {"beta_schedule": "scaled_linear"}, timestep_spacing="trailing"),
        unet=text_unet(), vae=vae(), **text(folder),
    )  # fmt: skip
