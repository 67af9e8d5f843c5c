"""Folders of tiny diffusers pipelines: every part of the real ones, with random weights and vocabularies of letters.

A folder is what `save_pretrained` of the pipeline writes. Its parts are the classes of the published checkpoints,
a few channels wide, and its scheduler is set as the published ones are. Nothing is downloaded. Needs diffusers and
transformers; Pillow for what takes an image.
"""

import atexit
import contextlib
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import tokenizers
import torch
import transformers
from tokenizers.processors import TemplateProcessing

Parts = dict[str, Any]


@dataclass(frozen=True)
class Tiny:
    """How a tiny pipeline is made and called."""

    pipeline: str
    """The class, from `diffusers`."""
    parts: Callable[[], Parts]
    """Its arguments: networks, tokenizers, scheduler."""
    call: dict[str, Any] = field(default_factory=dict)
    """The arguments of `__call__` that keep it small."""
    prompted: bool = True
    """Whether `__call__` takes `prompt`."""


_TINY: dict[str, Tiny] = {}


def _tiny(name: str, prompted: bool = True, **call: Any) -> Callable[[Callable[[], Parts]], Callable[[], Parts]]:
    """Register the function that makes the parts of a pipeline; `name` is its class, and what comes after a `-`."""

    def register(parts: Callable[[], Parts]) -> Callable[[], Parts]:
        _TINY[name] = Tiny(name.partition("-")[0], parts, call, prompted)
        return parts

    return register


# Weights


def filled(module: torch.nn.Module) -> torch.nn.Module:
    """`module` with random weights that keep the size of what passes through, whatever its own initialization is.

    Many transformers start with zeros in their modulations and outputs, or with very small weights in their text
    encoder; some vectors start with whatever lies in memory. A matrix or kernel gets a standard deviation of one over
    the square root of its inputs, a vector called weight values about one, any other values about zero. A number keeps
    its value.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(type(module).__name__.encode()))
    with torch.no_grad():
        for name, value in module.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if value.ndim and value.numel() == max(value.shape):
                value.copy_(0.1 * noise + float(name.endswith(("weight", "gamma"))))
            elif value.ndim:
                value.copy_(noise / value[0].numel() ** 0.5)
    return module.eval()


def _net(name: str, **config: Any) -> torch.nn.Module:
    return filled(getattr(diffusers, name)(**config))


def _soften(last: torch.nn.Module) -> None:
    """Scale down the last layer of a decoder whose pixels would be black or white for the most part."""
    with torch.no_grad():
        last.weight.mul_(0.3)


# Tokenizers


_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_BYTES = [chr(code) for code in _PRINTABLE] + [chr(256 + n) for n in range(256 - len(_PRINTABLE))]
"""How byte-level vocabularies write the 256 bytes: those without a glyph as letters from 256 on."""
_LETTERS = [chr(code) for code in range(33, 127)]
_CHAT = (
    "{% for message in messages if message['role'] == 'user' %}{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{{ message['content'][0]['text'] }}{% endif %}{% endfor %}"
)
"""A chat template that keeps what the user says: letters are tokens, so a long system message would drown a prompt."""


def _numbered(words: list[str]) -> dict[str, int]:
    return {word: n for n, word in enumerate(words)}


def clip_tokenizer() -> Any:
    words = [*_BYTES, *(letter + "</w>" for letter in _BYTES), "<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer(vocab=_numbered(words), merges=[], model_max_length=77)


def t5_tokenizer() -> Any:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((letter, -2.0) for letter in ["▁", *_LETTERS])]
    return transformers.T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=512)


_OF_TEMPLATES = (
    "image describe Describe detailing color shape size texture quantity text spatial relationships objects background "
    "system user assistant prompt engineer You are the and of by"
)


def qwen_tokenizer() -> Any:
    """Bytes, and the words of the pipelines' own templates, which would drown a prompt as bytes."""
    words = [*_BYTES, "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    made = transformers.Qwen2Tokenizer(
        vocab=_numbered(words), merges=[], chat_template=_CHAT, model_max_length=1024,
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )  # fmt: skip
    made.add_tokens([tokenizers.AddedToken(word, single_word=True) for word in _OF_TEMPLATES.split()])
    return made


def _begun(tokenizer: Any) -> Any:
    """`tokenizer` with its first token before each text, as the published files have it: no text is empty then."""
    first = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{first[0]} $A", special_tokens=[first])
    return tokenizer


def gemma_tokenizer() -> Any:
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *_LETTERS]
    made = transformers.GemmaTokenizer(vocab=_numbered(words), merges=[], padding_side="right", model_max_length=1024)
    return _begun(made)


def llama_tokenizer() -> Any:
    words = ["<unk>", "<s>", "</s>", "▁", *_LETTERS]
    made = transformers.LlamaTokenizerFast(
        vocab=_numbered(words), merges=[], pad_token="</s>", chat_template=_CHAT, padding_side="right",
        model_max_length=1024,
    )  # fmt: skip
    return _begun(made)


WORDS = 514
"""The largest of these vocabularies."""


# Text encoders


_WIDTH = 32
"""Of every text encoder, so that one network's configuration fits several of them."""
_DECODER: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": _WIDTH, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 1024,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


def clip(projection: int | None = None) -> torch.nn.Module:
    config = transformers.CLIPTextConfig(
        vocab_size=WORDS, hidden_size=_WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=77, bos_token_id=512, eos_token_id=513, pad_token_id=513,
        projection_dim=projection or _WIDTH, hidden_act="quick_gelu",
    )  # fmt: skip
    kind = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    return filled(kind(config))


def t5(kind: str = "T5") -> torch.nn.Module:
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=WORDS, d_model=_WIDTH, d_kv=8, d_ff=48, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )
    return filled(getattr(transformers, f"{kind}EncoderModel")(config))


def decoder(name: str, config: str, **changes: Any) -> torch.nn.Module:
    """A language model used as a text encoder."""
    return filled(getattr(transformers, name)(getattr(transformers, config)(**_DECODER | changes)))


def gemma2() -> torch.nn.Module:
    return decoder("Gemma2Model", "Gemma2Config", sliding_window=64)


def qwen2_vl() -> torch.nn.Module:
    text = {key: value for key, value in _DECODER.items() if key != "head_dim"}
    config = transformers.Qwen2_5_VLConfig(
        text_config=text | {"rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default"}},
        vision_config={
            "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": _WIDTH,
            "patch_size": 2, "window_size": 8, "fullatt_block_indexes": [0],
        },
    )  # fmt: skip
    return filled(transformers.Qwen2_5_VLForConditionalGeneration(config))


def qwen3_vl(**changes: Any) -> Any:
    config = transformers.Qwen3VLConfig(
        text_config=_DECODER | changes | {"rope_scaling": {"mrope_section": [2, 1, 1], "rope_type": "default"}},
        vision_config={
            "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": _WIDTH,
            "patch_size": 2, "deepstack_visual_indexes": [0], "num_position_embeddings": 16,
        },
    )  # fmt: skip
    return filled(transformers.Qwen3VLModel(config))


def mistral3() -> Any:
    config = transformers.Mistral3Config(
        text_config={"model_type": "mistral", **_DECODER},
        vision_config={
            "model_type": "pixtral", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "image_size": 8, "patch_size": 4, "head_dim": 8,
        },
    )  # fmt: skip
    return filled(transformers.Mistral3ForConditionalGeneration(config))


# Decoders of images


def vae(channels: int = 4, **changes: Any) -> torch.nn.Module:
    """Two pixels a side are one of the latents."""
    config: dict[str, Any] = {
        "block_out_channels": (8, 16), "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2, "latent_channels": channels, "norm_num_groups": 4,
    }  # fmt: skip
    return _net("AutoencoderKL", **config | changes)


def _flow_vae(channels: int = 4, **changes: Any) -> torch.nn.Module:
    """As those of FLUX.1 and its relatives: shifted, without the convolutions around the latents."""
    flow = {"scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": False, "use_post_quant_conv": False}
    return vae(channels, **flow | changes)


# Schedulers


def _flow(**config: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**config)


_SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
_SIZE = {"height": 16, "width": 16}


# Z-Image, Qwen-Image, FLUX


@_tiny("ZImagePipeline", **_SIZE, guidance_scale=4.0, max_sequence_length=64)
def _z_image() -> Parts:
    return {
        "transformer": _net(
            "ZImageTransformer2DModel", in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2,
            cap_feat_dim=_WIDTH, axes_dims=[8, 4, 4], axes_lens=[128, 32, 32],
        ),
        "vae": _flow_vae(),
        "text_encoder": decoder("Qwen3Model", "Qwen3Config"),
        "tokenizer": qwen_tokenizer(),
        "scheduler": _flow(shift=3.0),
    }  # fmt: skip


def _qwen_image_vae() -> torch.nn.Module:
    return _net(
        "AutoencoderKLQwenImage", base_dim=8, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False],
        latents_mean=[-0.7, 0.1, 0.9, -0.2], latents_std=[2.8, 1.4, 2.3, 1.2],
    )  # fmt: skip


@_tiny("QwenImagePipeline", **_SIZE, true_cfg_scale=3.0, negative_prompt=" ", max_sequence_length=512)
def _qwen_image() -> Parts:
    return {
        "transformer": _net(
            "QwenImageTransformer2DModel", in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=_WIDTH, axes_dims_rope=(4, 6, 6),
        ),
        "vae": _qwen_image_vae(),
        "text_encoder": qwen2_vl(),
        "tokenizer": qwen_tokenizer(),
        "scheduler": _flow(
            use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
        ),
    }  # fmt: skip


def _flux_transformer(guided: bool, channels: int = 16) -> torch.nn.Module:
    return _net(
        "FluxTransformer2DModel", patch_size=1, in_channels=channels, out_channels=16, num_layers=1,
        num_single_layers=1, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=_WIDTH,
        pooled_projection_dim=_WIDTH, axes_dims_rope=(4, 6, 6), guidance_embeds=guided,
    )  # fmt: skip


_FLUX_SHIFT = {"shift": 3.0, "use_dynamic_shifting": True}


def _flux(guided: bool = True, channels: int = 16) -> Parts:
    return {
        "transformer": _flux_transformer(guided, channels),
        "vae": _flow_vae(),
        "text_encoder": clip(),
        "tokenizer": clip_tokenizer(),
        "text_encoder_2": t5(),
        "tokenizer_2": t5_tokenizer(),
        "scheduler": _flow(**_FLUX_SHIFT) if guided else _flow(shift=1.0),
    }


_tiny("FluxPipeline", **_SIZE, guidance_scale=3.5, max_sequence_length=32)(_flux)
_tiny("FluxPipeline-schnell", **_SIZE, guidance_scale=0.0, max_sequence_length=32)(lambda: _flux(guided=False))


def _flux2_vae() -> torch.nn.Module:
    return _net(
        "AutoencoderKLFlux2", block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4, layers_per_block=1,
    )  # fmt: skip


@_tiny("Flux2Pipeline", **_SIZE, guidance_scale=4.0, max_sequence_length=32, text_encoder_out_layers=[1, 2])
def _flux2() -> Parts:
    return {
        "transformer": _net(
            "Flux2Transformer2DModel", in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=2 * _WIDTH, timestep_guidance_channels=32,
            axes_dims_rope=(4, 4, 4, 4),
        ),
        "vae": _flux2_vae(),
        "text_encoder": mistral3(),
        "tokenizer": llama_tokenizer(),
        "scheduler": _flow(**_FLUX_SHIFT),
    }  # fmt: skip


# Stable Diffusion


def _unet(channels: int = 4, **changes: Any) -> torch.nn.Module:
    config: dict[str, Any] = {
        "sample_size": 8, "in_channels": channels, "block_out_channels": (16, 32), "layers_per_block": 1,
        "norm_num_groups": 8, "attention_head_dim": 2, "cross_attention_dim": _WIDTH,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }  # fmt: skip
    return _net("UNet2DConditionModel", **config | changes)


def _stable_diffusion(channels: int = 4) -> Parts:
    return {
        "unet": _unet(channels),
        "vae": vae(),
        "text_encoder": clip(),
        "tokenizer": clip_tokenizer(),
        "scheduler": diffusers.PNDMScheduler(**_SD, skip_prk_steps=True),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


_tiny("StableDiffusionPipeline", **_SIZE, guidance_scale=5.0)(_stable_diffusion)

_XL: dict[str, Any] = {
    "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
    "cross_attention_dim": 2 * _WIDTH, "projection_class_embeddings_input_dim": 6 * 8 + _WIDTH,
}  # fmt: skip


def _stable_diffusion_xl(channels: int = 4) -> Parts:
    return {
        "unet": _unet(channels, **_XL),
        "vae": vae(scaling_factor=0.13025),
        "text_encoder": clip(),
        "tokenizer": clip_tokenizer(),
        "text_encoder_2": clip(projection=_WIDTH),
        "tokenizer_2": clip_tokenizer(),
        "scheduler": diffusers.EulerDiscreteScheduler(**_SD, timestep_spacing="leading"),
    }


_tiny("StableDiffusionXLPipeline", **_SIZE, guidance_scale=5.0)(_stable_diffusion_xl)


def picture(size: int = 16) -> Any:
    """A colour gradient as a Pillow image: what control, inpainting and editing pipelines are given."""
    import PIL.Image

    row = torch.linspace(0, 255, size)
    pixels = torch.stack((row.expand(size, size), row[:, None].expand(size, size), row.flip(0).expand(size, size)), -1)
    return PIL.Image.fromarray(pixels.to(torch.uint8).numpy())


def _control(**changes: Any) -> torch.nn.Module:
    config: dict[str, Any] = {
        "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8, "attention_head_dim": 2,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "conditioning_embedding_out_channels": (8, 16),
        "cross_attention_dim": _WIDTH,
    }  # fmt: skip
    return _net("ControlNetModel", **config | changes)


@_tiny("StableDiffusionXLControlNetPipeline", **_SIZE, guidance_scale=5.0, image=picture)
def _controlnet_xl() -> Parts:
    return _stable_diffusion_xl() | {"controlnet": _control(**_XL)}


@_tiny("StableDiffusion3Pipeline", **_SIZE, guidance_scale=5.0, max_sequence_length=32)
def _stable_diffusion_3(**changes: Any) -> Parts:
    return {
        "transformer": _net(
            "SD3Transformer2DModel", sample_size=8, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
            num_attention_heads=4, joint_attention_dim=2 * _WIDTH, caption_projection_dim=32,
            pooled_projection_dim=2 * _WIDTH, pos_embed_max_size=8, **changes,
        ),
        "vae": _flow_vae(),
        "text_encoder": clip(projection=_WIDTH),
        "tokenizer": clip_tokenizer(),
        "text_encoder_2": clip(projection=_WIDTH),
        "tokenizer_2": clip_tokenizer(),
        "text_encoder_3": filled(transformers.T5EncoderModel(transformers.T5Config(
            vocab_size=WORDS, d_model=2 * _WIDTH, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
            feed_forward_proj="gated-gelu",
        ))),
        "tokenizer_3": t5_tokenizer(),
        "scheduler": _flow(shift=3.0),
    }  # fmt: skip


# Images by transformers


def _deep_vae() -> torch.nn.Module:
    """Sana's: two pixels a side are one of the latents."""
    return _net(
        "AutoencoderDC", latent_channels=4, attention_head_dim=8, encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"), encoder_block_out_channels=(8, 16),
        decoder_block_out_channels=(8, 16), encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), (5,)), decoder_qkv_multiscales=((), (5,)), scaling_factor=0.41407,
    )  # fmt: skip


_UNBINNED: dict[str, Any] = {"use_resolution_binning": False, "clean_caption": False}
"""Otherwise a size of 32 becomes one of the sizes of training, about 1000."""


@_tiny(
    "SanaPipeline", height=32, width=32, guidance_scale=3.0, max_sequence_length=32, complex_human_instruction=None,
    **_UNBINNED,
)  # fmt: skip
def _sana() -> Parts:
    return {
        "transformer": _net(
            "SanaTransformer2DModel", in_channels=4, out_channels=4, num_attention_heads=4, attention_head_dim=8,
            num_layers=2, num_cross_attention_heads=4, cross_attention_head_dim=8, cross_attention_dim=32,
            caption_channels=_WIDTH, sample_size=16,
        ),
        "vae": _deep_vae(),
        "text_encoder": gemma2(),
        "tokenizer": gemma_tokenizer(),
        "scheduler": diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    }  # fmt: skip


def _pixart(sized: bool) -> Parts:
    return {
        "transformer": _net(
            "PixArtTransformer2DModel", num_attention_heads=4, attention_head_dim=12, in_channels=4, out_channels=8,
            num_layers=2, sample_size=128 if sized else 8, cross_attention_dim=48, caption_channels=_WIDTH,
            use_additional_conditions=sized,
        ),
        "vae": vae(),
        "text_encoder": t5(),
        "tokenizer": t5_tokenizer(),
        "scheduler": diffusers.DPMSolverMultistepScheduler(beta_schedule="linear", beta_start=0.0001, beta_end=0.02),
    }  # fmt: skip


_PIXART: dict[str, Any] = {**_SIZE, **_UNBINNED, "guidance_scale": 3.0, "max_sequence_length": 32}
_tiny("PixArtAlphaPipeline", **_PIXART)(lambda: _pixart(sized=True))
_tiny("PixArtSigmaPipeline", **_PIXART)(lambda: _pixart(sized=False))


@_tiny("Lumina2Pipeline", height=64, width=64, guidance_scale=3.0, max_sequence_length=32, system_prompt=".")
def _lumina2() -> Parts:
    return {
        "transformer": _net(
            "Lumina2Transformer2DModel", sample_size=8, in_channels=4, hidden_size=32, num_layers=2,
            num_refiner_layers=1, num_attention_heads=2, num_kv_heads=1, multiple_of=16, axes_dim_rope=(4, 6, 6),
            axes_lens=(64, 16, 16), cap_feat_dim=_WIDTH,
        ),
        "vae": _flow_vae(),
        "text_encoder": gemma2(),
        "tokenizer": gemma_tokenizer(),
        "scheduler": _flow(shift=6.0),
    }  # fmt: skip


@_tiny("ChromaPipeline", **_SIZE, guidance_scale=3.0, max_sequence_length=32)
def _chroma() -> Parts:
    return {
        "transformer": _net(
            "ChromaTransformer2DModel", patch_size=1, in_channels=16, num_layers=1, num_single_layers=1,
            attention_head_dim=16, num_attention_heads=2, joint_attention_dim=_WIDTH, axes_dims_rope=(4, 6, 6),
            approximator_num_channels=8, approximator_hidden_dim=32, approximator_layers=1,
        ),
        "vae": _flow_vae(),
        "text_encoder": t5(),
        "tokenizer": t5_tokenizer(),
        "scheduler": _flow(**_FLUX_SHIFT),
    }  # fmt: skip


@_tiny("AuraFlowPipeline", **_SIZE, guidance_scale=3.0, max_sequence_length=32)
def _aura_flow() -> Parts:
    return {
        "transformer": _net(
            "AuraFlowTransformer2DModel", sample_size=8, in_channels=4, num_mmdit_layers=1, num_single_dit_layers=1,
            attention_head_dim=8, num_attention_heads=4, joint_attention_dim=_WIDTH, caption_projection_dim=32,
            pos_embed_max_size=16,
        ),
        "vae": vae(scaling_factor=0.13025),
        "text_encoder": t5("UMT5"),
        "tokenizer": t5_tokenizer(),
        "scheduler": _flow(shift=1.73),
    }  # fmt: skip


def glm() -> torch.nn.Module:
    return decoder("GlmModel", "GlmConfig", attention_bias=True)


@_tiny("CogView4Pipeline", **_SIZE, guidance_scale=3.0, max_sequence_length=32)
def _cogview4() -> Parts:
    return {
        "transformer": _net(
            "CogView4Transformer2DModel", in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
            num_attention_heads=4, text_embed_dim=_WIDTH, time_embed_dim=16, condition_dim=8, pos_embed_max_size=16,
            sample_size=8, rope_axes_dim=(16, 16),
        ),
        "vae": _flow_vae(),
        "text_encoder": glm(),
        "tokenizer": llama_tokenizer(),
        "scheduler": _flow(use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, time_shift_type="linear"),
    }  # fmt: skip


_COG_NOISE: dict[str, Any] = {
    **_SD, "steps_offset": 0, "clip_sample": False, "prediction_type": "v_prediction", "timestep_spacing": "trailing",
    "rescale_betas_zero_snr": True,
}  # fmt: skip


@_tiny("CogView3PlusPipeline", **_SIZE, guidance_scale=3.0, max_sequence_length=32)
def _cogview3() -> Parts:
    return {
        "transformer": _net(
            "CogView3PlusTransformer2DModel", in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
            num_attention_heads=4, text_embed_dim=_WIDTH, time_embed_dim=16, condition_dim=8, pos_embed_max_size=8,
            sample_size=8,
        ),
        "vae": vae(scaling_factor=0.13025),
        "text_encoder": t5(),
        "tokenizer": t5_tokenizer(),
        "scheduler": diffusers.CogVideoXDDIMScheduler(**_COG_NOISE, snr_shift_scale=4.0),
    }  # fmt: skip


@_tiny("HiDreamImagePipeline", **_SIZE, guidance_scale=3.0, max_sequence_length=32)
def _hidream() -> Parts:
    return {
        "transformer": _net(
            "HiDreamImageTransformer2DModel", patch_size=2, in_channels=4, num_layers=1, num_single_layers=1,
            attention_head_dim=16, num_attention_heads=1, caption_channels=[_WIDTH, _WIDTH], text_emb_dim=2 * _WIDTH,
            num_routed_experts=2, num_activated_experts=1, axes_dims_rope=(4, 6, 6), max_resolution=(128, 128),
            llama_layers=[0, 1],
        ),
        "vae": _flow_vae(
            block_out_channels=(8,), down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",)
        ),
        "text_encoder": clip(projection=_WIDTH),
        "tokenizer": clip_tokenizer(),
        "text_encoder_2": clip(projection=_WIDTH),
        "tokenizer_2": clip_tokenizer(),
        "text_encoder_3": t5(),
        "tokenizer_3": t5_tokenizer(),
        "text_encoder_4": decoder("LlamaForCausalLM", "LlamaConfig"),
        "tokenizer_4": llama_tokenizer(),
        "scheduler": _flow(shift=3.0),
    }  # fmt: skip


# Videos


_VIDEO: dict[str, Any] = {**_SIZE, "num_frames": 3, "guidance_scale": 3.0, "max_sequence_length": 32}


def _wan_transformer(channels: int = 4, **changes: Any) -> torch.nn.Module:
    return _net(
        "WanTransformer3DModel", num_attention_heads=2, attention_head_dim=12, in_channels=channels, out_channels=4,
        text_dim=_WIDTH, freq_dim=16, ffn_dim=32, num_layers=2, rope_max_seq_len=32, **changes,
    )  # fmt: skip


def _wan_vae(halvings: int = 1) -> torch.nn.Module:
    """Two frames after the first, and two pixels a side, are one of the latents, per halving."""
    return _net(
        "AutoencoderKLWan", base_dim=8, z_dim=4, dim_mult=[1, 2, 2][: 1 + halvings], num_res_blocks=1,
        temperal_downsample=[True] * halvings, latents_mean=[-0.7, 0.1, 0.9, -0.2], latents_std=[2.8, 1.4, 2.3, 1.2],
        scale_factor_temporal=2**halvings, scale_factor_spatial=2**halvings,
    )  # fmt: skip


def _wan() -> Parts:
    return {
        "transformer": _wan_transformer(),
        "vae": _wan_vae(),
        "text_encoder": t5("UMT5"),
        "tokenizer": t5_tokenizer(),
        "scheduler": diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, final_sigmas_type="zero"
        ),
    }  # fmt: skip


_tiny("WanPipeline", **_VIDEO)(_wan)


def _ltx_vae(**changes: Any) -> torch.nn.Module:
    config: dict[str, Any] = {
        "latent_channels": 4, "block_out_channels": (8, 8), "layers_per_block": (1, 1, 1), "patch_size": 2,
        "down_block_types": ("LTXVideoDownBlock3D",) * 2, "decoder_block_out_channels": (8, 8),
        "decoder_layers_per_block": (1, 1, 1), "spatio_temporal_scaling": (True, False),
        "decoder_spatio_temporal_scaling": (True, False), "decoder_inject_noise": (False,) * 3,
        "upsample_residual": (False, False), "upsample_factor": (1, 1), "downsample_type": ("conv", "conv"),
    }  # fmt: skip
    return _net("AutoencoderKLLTXVideo", **config | changes)


@_tiny("LTXPipeline", **_VIDEO | {"height": 32, "width": 32})
def _ltx(**changes: Any) -> Parts:
    return {
        "transformer": _net(
            "LTXVideoTransformer3DModel", in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12,
            cross_attention_dim=24, num_layers=2, caption_channels=_WIDTH,
        ),
        "vae": _ltx_vae(**changes),
        "text_encoder": t5(),
        "tokenizer": t5_tokenizer(),
        "scheduler": _flow(
            use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, max_image_seq_len=4096,
            shift_terminal=0.1,
        ),
    }  # fmt: skip


def _cogvideox_vae() -> torch.nn.Module:
    made: Any = _net(
        "AutoencoderKLCogVideoX", down_block_types=("CogVideoXDownBlock3D",) * 2,
        up_block_types=("CogVideoXUpBlock3D",) * 2, block_out_channels=(8, 16), latent_channels=4,
        layers_per_block=1, norm_num_groups=4, temporal_compression_ratio=2, scaling_factor=0.7,
    )  # fmt: skip
    _soften(made.decoder.conv_out.conv)
    return made


@_tiny("CogVideoXPipeline", **_VIDEO | {"num_frames": 5})
def _cogvideox(channels: int = 4, **changes: Any) -> Parts:
    config: dict[str, Any] = {
        "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": channels, "out_channels": 4,
        "time_embed_dim": 8, "text_embed_dim": _WIDTH, "num_layers": 2, "sample_width": 8, "sample_height": 8,
        "sample_frames": 3, "temporal_compression_ratio": 2, "max_text_seq_length": 32,
        "use_rotary_positional_embeddings": True,
    }  # fmt: skip
    return {
        "transformer": _net("CogVideoXTransformer3DModel", **config | changes),
        "vae": _cogvideox_vae(),
        "text_encoder": t5(),
        "tokenizer": t5_tokenizer(),
        "scheduler": diffusers.CogVideoXDDIMScheduler(**_COG_NOISE, snr_shift_scale=1.0),
    }  # fmt: skip


_PLAIN: dict[str, Any] = {"template": "{}", "crop_start": 0}
"""A template of prompts that adds nothing."""


def _hunyuan_vae() -> torch.nn.Module:
    return _net(
        "AutoencoderKLHunyuanVideo", latent_channels=4, down_block_types=("HunyuanVideoDownBlock3D",) * 2,
        up_block_types=("HunyuanVideoUpBlock3D",) * 2, block_out_channels=(8, 16), layers_per_block=1,
        norm_num_groups=4, spatial_compression_ratio=2, temporal_compression_ratio=4,
    )  # fmt: skip


def _hunyuan_transformer(channels: int = 4, **changes: Any) -> torch.nn.Module:
    return _net(
        "HunyuanVideoTransformer3DModel", in_channels=channels, out_channels=4, num_attention_heads=2,
        attention_head_dim=16, num_layers=1, num_single_layers=1, num_refiner_layers=1, text_embed_dim=_WIDTH,
        pooled_projection_dim=_WIDTH, rope_axes_dim=(4, 6, 6), **changes,
    )  # fmt: skip


@_tiny("HunyuanVideoPipeline", **_VIDEO | {"num_frames": 5}, prompt_template=_PLAIN)
def _hunyuan_video() -> Parts:
    return {
        "transformer": _hunyuan_transformer(),
        "vae": _hunyuan_vae(),
        "text_encoder": decoder("LlamaModel", "LlamaConfig", num_hidden_layers=3),
        "tokenizer": llama_tokenizer(),
        "text_encoder_2": clip(),
        "tokenizer_2": clip_tokenizer(),
        "scheduler": _flow(shift=7.0),
    }


# Relatives of the above: few-step versions, images given beside the prompt, other guidance


_tiny("ZImagePipeline-turbo", **_SIZE, guidance_scale=0.0, max_sequence_length=64)(_z_image)
_tiny("CogVideoXPipeline-5b", **_VIDEO | {"num_frames": 5})(
    lambda: _cogvideox() | {"scheduler": diffusers.CogVideoXDPMScheduler(**_COG_NOISE, snr_shift_scale=1.0)}
)


@_tiny("WanPipeline-2.2", **_VIDEO, guidance_scale_2=2.0)
def _wan22() -> Parts:
    """Two transformers, one for the noisier half of the steps."""
    second = _wan_transformer(eps=1e-5)
    with torch.no_grad():
        second.proj_out.weight.neg_()
    return _wan() | {"transformer_2": second, "boundary_ratio": 0.875}


_tiny("StableDiffusionXLPipeline-turbo", **_SIZE, guidance_scale=0.0)(
    lambda: (
        _stable_diffusion_xl()
        | {"scheduler": diffusers.EulerAncestralDiscreteScheduler(**_SD, timestep_spacing="trailing")}
    )
)


@_tiny("LatentConsistencyModelPipeline", **_SIZE, guidance_scale=8.0)
def _lcm() -> Parts:
    return _stable_diffusion() | {
        "unet": _unet(time_cond_proj_dim=16),
        "scheduler": diffusers.LCMScheduler(**{**_SD, "steps_offset": 0}),
    }


_tiny("StableDiffusionPAGPipeline", **_SIZE, guidance_scale=5.0, pag_scale=2.0)(_stable_diffusion)
_tiny("StableDiffusionXLPAGPipeline", **_SIZE, guidance_scale=5.0, pag_scale=2.0)(_stable_diffusion_xl)


def mask(size: int = 16) -> Any:
    """The right half, white, as a Pillow image."""
    import PIL.Image

    return PIL.Image.fromarray((torch.arange(size).expand(size, size) >= size // 2).numpy().astype("uint8") * 255)


_tiny("StableDiffusionInpaintPipeline", **_SIZE, guidance_scale=5.0, image=picture, mask_image=mask)(
    lambda: _stable_diffusion(channels=9)
)
_tiny("StableDiffusionInstructPix2PixPipeline", guidance_scale=5.0, image_guidance_scale=1.5, image=picture)(
    lambda: _stable_diffusion(channels=8)
)
_tiny(
    "FluxFillPipeline", **_SIZE, guidance_scale=30.0, max_sequence_length=32, image=picture, mask_image=mask
)(lambda: _flux(channels=16 + 16 + 4 * 4))  # fmt: skip
_tiny(
    "FluxKontextPipeline", **_SIZE, guidance_scale=2.5, max_sequence_length=32, image=picture, max_area=256,
    _auto_resize=False,
)(_flux)  # fmt: skip


@_tiny("Flux2KleinPipeline", **_SIZE, guidance_scale=4.0, max_sequence_length=32, text_encoder_out_layers=[1, 2])
def _flux2_klein() -> Parts:
    return _flux2() | {
        "text_encoder": decoder("Qwen3ForCausalLM", "Qwen3Config"),
        "tokenizer": qwen_tokenizer(),
    }


@_tiny("AnimateDiffPipeline", **_SIZE, num_frames=2, guidance_scale=5.0)
def _animate_diff() -> Parts:
    sd = _stable_diffusion()
    return {name: sd[name] for name in ("unet", "vae", "text_encoder", "tokenizer")} | {
        "motion_adapter": _net(
            "MotionAdapter", block_out_channels=(16, 32), motion_layers_per_block=1, motion_num_attention_heads=2,
            motion_norm_num_groups=8, motion_max_seq_length=8,
        ),
        "scheduler": diffusers.DDIMScheduler(
            **{**_SD, "beta_schedule": "linear"}, clip_sample=False, timestep_spacing="linspace"
        ),
    }  # fmt: skip


def vision(size: int = 224) -> torch.nn.Module:
    config = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=size,
        patch_size=size // 8, projection_dim=_WIDTH,
    )  # fmt: skip
    return filled(transformers.CLIPVisionModelWithProjection(config))


@_tiny("StableVideoDiffusionPipeline", prompted=False, **_SIZE, num_frames=2, decode_chunk_size=2, image=picture)
def _stable_video() -> Parts:
    """Norms have 32 groups: of one channel each, they would take away what the time adds."""
    return {
        "vae": _net(
            "AutoencoderKLTemporalDecoder", block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2,
        ),
        "image_encoder": vision(),
        "unet": _net(
            "UNetSpatioTemporalConditionModel", sample_size=8, block_out_channels=(64,), layers_per_block=1,
            down_block_types=("DownBlockSpatioTemporal",), num_attention_heads=(2,),
            up_block_types=("UpBlockSpatioTemporal",),
            cross_attention_dim=_WIDTH, addition_time_embed_dim=8, projection_class_embeddings_input_dim=24,
            num_frames=2,
        ),
        "scheduler": diffusers.EulerDiscreteScheduler(
            prediction_type="v_prediction", use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0,
            timestep_type="continuous", timestep_spacing="leading", **_SD,
        ),
        "feature_extractor": transformers.CLIPImageProcessor(),
    }  # fmt: skip


@_tiny("DiTPipeline", prompted=False, class_labels=[3], guidance_scale=3.0)
def _dit() -> Parts:
    return {
        "transformer": _net(
            "DiTTransformer2DModel", num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8,
            num_layers=2, sample_size=8, patch_size=2, num_embeds_ada_norm=1000,
        ),
        "vae": vae(),
        "scheduler": diffusers.DDIMScheduler(beta_schedule="linear", clip_sample=False),
    }  # fmt: skip


# Others


@_tiny("Kandinsky3Pipeline", height=64, width=64, guidance_scale=3.0)
def _kandinsky3() -> Parts:
    return {
        "unet": _net(
            "Kandinsky3UNet", in_channels=4, time_embedding_dim=16, groups=4, attention_head_dim=4, layers_per_block=2,
            block_out_channels=(16, 16, 16, 16), cross_attention_dim=16, encoder_hid_dim=_WIDTH,
        ),
        "movq": _net(
            "VQModel", block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4,
            up_block_types=("UpDecoderBlock2D",) * 2, num_vq_embeddings=16, vq_embed_dim=4,
            norm_type="spatial",
        ),
        "text_encoder": t5(),
        "tokenizer": t5_tokenizer(),
        "scheduler": diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=True),
    }  # fmt: skip


@_tiny("Kandinsky5T2VPipeline", **_VIDEO | {"num_frames": 5, "max_sequence_length": 512})
def _kandinsky5() -> Parts:
    return {
        "transformer": _net(
            "Kandinsky5Transformer3DModel", in_visual_dim=4, in_text_dim=_WIDTH, in_text_dim2=_WIDTH, time_dim=16,
            out_visual_dim=4, model_dim=32, ff_dim=48, num_text_blocks=1, num_visual_blocks=1, axes_dims=(4, 6, 6),
        ),
        "vae": _hunyuan_vae(),
        "text_encoder": qwen2_vl(),
        "tokenizer": qwen_tokenizer(),
        "text_encoder_2": clip(),
        "tokenizer_2": clip_tokenizer(),
        "scheduler": _flow(shift=5.0),
    }  # fmt: skip


def _hunyuan_image(guider: Any, **changes: Any) -> Parts:
    return {
        "transformer": _net(
            "HunyuanImageTransformer2DModel", in_channels=4, out_channels=4, num_attention_heads=2,
            attention_head_dim=16, num_layers=1, num_single_layers=1, num_refiner_layers=1, text_embed_dim=_WIDTH,
            rope_axes_dim=(8, 8), **changes,
        ),
        "vae": _net(
            "AutoencoderKLHunyuanImage", in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(32, 32),
            layers_per_block=1, spatial_compression_ratio=2, sample_size=16, scaling_factor=0.75,
        ),
        "text_encoder": qwen2_vl(),
        "tokenizer": qwen_tokenizer(),
        "text_encoder_2": t5(),
        "tokenizer_2": transformers.ByT5Tokenizer(extra_ids=0),
        "guider": guider,
        "scheduler": _flow(shift=5.0),
    }  # fmt: skip


@_tiny("HunyuanImagePipeline", **_SIZE)
def _hunyuan_image_remembering() -> Parts:
    """Its guider adds up what it saw in the steps before, from the second on (published: from the sixth)."""
    from diffusers.guiders import AdaptiveProjectedMixGuidance

    return _hunyuan_image(AdaptiveProjectedMixGuidance(adaptive_projected_guidance_start_step=1))


@_tiny("HunyuanImagePipeline-plain", **_SIZE)
def _hunyuan_image_plain() -> Parts:
    from diffusers.guiders import ClassifierFreeGuidance

    return _hunyuan_image(ClassifierFreeGuidance(guidance_scale=3.0))


_tiny("HunyuanImagePipeline-distilled", **_SIZE, distilled_guidance_scale=3.25)(
    lambda: _hunyuan_image(None, guidance_embeds=True, use_meanflow=True)
)


def bert_tokenizer() -> Any:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_LETTERS, *("##" + letter for letter in _LETTERS)]
    return transformers.BertTokenizer(vocab=_numbered(words), model_max_length=77)


def bert() -> torch.nn.Module:
    config = transformers.BertConfig(
        vocab_size=WORDS, hidden_size=_WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128,
    )  # fmt: skip
    return filled(transformers.BertModel(config))


@_tiny("HunyuanDiTPipeline", **_SIZE, guidance_scale=3.0, use_resolution_binning=False)
def _hunyuan_dit() -> Parts:
    return {
        "transformer": _net(
            "HunyuanDiT2DModel", num_attention_heads=2, attention_head_dim=16, in_channels=4, patch_size=2,
            sample_size=8, hidden_size=32, num_layers=2, mlp_ratio=1.5, cross_attention_dim=_WIDTH,
            cross_attention_dim_t5=_WIDTH, pooled_projection_dim=32, text_len=77, text_len_t5=256,
        ),
        "vae": vae(scaling_factor=0.13025),
        "text_encoder": bert(),
        "tokenizer": bert_tokenizer(),
        "text_encoder_2": t5("MT5"),
        "tokenizer_2": t5_tokenizer(),
        "scheduler": diffusers.DDPMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.03, prediction_type="v_prediction",
            clip_sample=False, steps_offset=1,
        ),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }  # fmt: skip


@_tiny("OvisImagePipeline", **_SIZE, guidance_scale=3.0, max_sequence_length=64)
def _ovis() -> Parts:
    return {
        "transformer": _net(
            "OvisImageTransformer2DModel", in_channels=16, out_channels=16, num_layers=1, num_single_layers=1,
            attention_head_dim=16, num_attention_heads=2, joint_attention_dim=_WIDTH, axes_dims_rope=(4, 6, 6),
        ),
        "vae": _flow_vae(),
        "text_encoder": decoder("Qwen3Model", "Qwen3Config"),
        "tokenizer": qwen_tokenizer(),
        "scheduler": _flow(**_FLUX_SHIFT),
    }  # fmt: skip


@_tiny("BriaPipeline", **_SIZE, guidance_scale=3.0, max_sequence_length=32)
def _bria() -> Parts:
    return {
        "transformer": _net(
            "BriaTransformer2DModel", in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=_WIDTH, axes_dims_rope=[4, 6, 6],
        ),
        "vae": vae(),
        "text_encoder": t5(),
        "tokenizer": t5_tokenizer(),
        "scheduler": _flow(**_FLUX_SHIFT),
    }  # fmt: skip


@_tiny("Krea2Pipeline", **_SIZE, guidance_scale=3.0, max_sequence_length=256)
def _krea2() -> Parts:
    return {
        "transformer": _net(
            "Krea2Transformer2DModel", in_channels=16, num_layers=1, attention_head_dim=16, num_attention_heads=2,
            num_key_value_heads=1, intermediate_size=48, timestep_embed_dim=16, text_hidden_dim=_WIDTH,
            num_text_layers=2, text_num_attention_heads=2, text_num_key_value_heads=1, text_intermediate_size=48,
            num_layerwise_text_blocks=1, num_refiner_text_blocks=1, axes_dims_rope=(4, 6, 6),
        ),
        "vae": _qwen_image_vae(),
        "text_encoder": qwen3_vl(),
        "tokenizer": qwen_tokenizer(),
        "text_encoder_select_layers": (1, 2),
        "scheduler": _flow(use_dynamic_shifting=True),
    }  # fmt: skip


@_tiny("IFPipeline", **_SIZE, guidance_scale=3.0, clean_caption=False)
def _deepfloyd() -> Parts:
    """In pixels, with a variance that is learned; it has no decoder and takes no latents."""
    return {
        "unet": _net(
            "UNet2DConditionModel", sample_size=16, in_channels=3, out_channels=6, block_out_channels=(16, 32),
            layers_per_block=1, norm_num_groups=8, attention_head_dim=8, cross_attention_dim=32, encoder_hid_dim=_WIDTH,
            encoder_hid_dim_type="text_proj", addition_embed_type="text", addition_embed_type_num_heads=2,
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn", resnet_time_scale_shift="scale_shift",
            cross_attention_norm="group_norm", only_cross_attention=True, act_fn="gelu",
        ),
        "text_encoder": t5(),
        "tokenizer": t5_tokenizer(),
        "scheduler": diffusers.DDPMScheduler(
            beta_schedule="squaredcos_cap_v2", variance_type="learned_range", thresholding=True,
            dynamic_thresholding_ratio=0.95, sample_max_value=1.5,
        ),
        "safety_checker": None,
        "feature_extractor": None,
        "watermarker": None,
        "requires_safety_checker": False,
    }  # fmt: skip


@_tiny("SkyReelsV2Pipeline", **_VIDEO)
def _skyreels() -> Parts:
    return _wan() | {
        "transformer": _net(
            "SkyReelsV2Transformer3DModel", num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
            text_dim=_WIDTH, freq_dim=16, ffn_dim=32, num_layers=2, rope_max_seq_len=32,
        ),
    }  # fmt: skip


@_tiny("LattePipeline", **_SIZE, video_length=2, guidance_scale=3.0, clean_caption=False)
def _latte() -> Parts:
    return {
        "transformer": _net(
            "LatteTransformer3DModel", num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=8,
            num_layers=1, cross_attention_dim=24, attention_bias=True, sample_size=8, patch_size=2,
            activation_fn="gelu-approximate", num_embeds_ada_norm=1000, norm_type="ada_norm_single",
            norm_elementwise_affine=False, caption_channels=_WIDTH, video_length=2,
        ),
        "vae": vae(),
        "text_encoder": t5(),
        "tokenizer": t5_tokenizer(),
        "scheduler": diffusers.DDIMScheduler(beta_schedule="linear", clip_sample=False),
    }  # fmt: skip


def _mochi_vae() -> torch.nn.Module:
    made: Any = _net(
        "AutoencoderKLMochi", encoder_block_out_channels=(32, 32), decoder_block_out_channels=(32, 32),
        layers_per_block=(1, 1, 1), temporal_expansions=(2,), spatial_expansions=(2,),
        add_attention_block=(False, True, True),
    )  # fmt: skip
    _soften(made.decoder.proj_out)
    return made


@_tiny("MochiPipeline", **_VIDEO | {"height": 64, "width": 64, "num_frames": 7})
def _mochi() -> Parts:
    return {
        "transformer": _net(
            "MochiTransformer3DModel", num_attention_heads=2, attention_head_dim=8, num_layers=2,
            pooled_projection_dim=16, in_channels=12, text_embed_dim=_WIDTH, time_embed_dim=16, max_sequence_length=32,
        ),
        "vae": _mochi_vae(),
        "text_encoder": t5(),
        "tokenizer": t5_tokenizer(),
        "scheduler": _flow(invert_sigmas=True),
    }  # fmt: skip


@_tiny(
    "SanaSprintPipeline", height=32, width=32, guidance_scale=4.5, max_sequence_length=32, intermediate_timesteps=None,
    complex_human_instruction=None, **_UNBINNED,
)  # fmt: skip
def _sana_sprint() -> Parts:
    return _sana() | {
        "transformer": _net(
            "SanaTransformer2DModel", in_channels=4, out_channels=4, num_attention_heads=4, attention_head_dim=8,
            num_layers=2, num_cross_attention_heads=4, cross_attention_head_dim=8, cross_attention_dim=32,
            caption_channels=_WIDTH, sample_size=16, guidance_embeds=True, qk_norm="rms_norm_across_heads",
            timestep_scale=1000.0,
        ),
        "scheduler": diffusers.SCMScheduler(),
    }  # fmt: skip


@_tiny("LuminaPipeline", height=64, width=64, guidance_scale=3.0, max_sequence_length=32, clean_caption=False)
def _lumina() -> Parts:
    return {
        "transformer": _net(
            "LuminaNextDiT2DModel", sample_size=8, in_channels=4, hidden_size=32, num_layers=2, num_attention_heads=2,
            num_kv_heads=1, multiple_of=16, cross_attention_dim=_WIDTH,
        ),
        "vae": vae(scaling_factor=0.13025),
        "text_encoder": decoder("GemmaModel", "GemmaConfig"),
        "tokenizer": gemma_tokenizer(),
        "scheduler": _flow(),
    }  # fmt: skip


@_tiny("PRXPipeline", **_SIZE, guidance_scale=3.0, use_resolution_binning=False, tokenizer_max_length=32)
def _prx() -> Parts:
    """Half of an encoder and decoder, whose published configuration is that of both."""
    from transformers.models.t5gemma.modeling_t5gemma import T5GemmaEncoder

    config = transformers.T5GemmaConfig(encoder=_DECODER, decoder=_DECODER, is_encoder_decoder=False)
    encoder: Any = filled(T5GemmaEncoder(config.encoder))
    encoder.config = config
    return {
        "transformer": _net(
            "PRXTransformer2DModel", in_channels=4, context_in_dim=_WIDTH, hidden_size=32, mlp_ratio=2.0, num_heads=2,
            depth=2, axes_dim=[8, 8],
        ),
        "vae": _flow_vae(),
        "text_encoder": encoder,
        "tokenizer": gemma_tokenizer(),
        "scheduler": _flow(shift=3.0),
    }  # fmt: skip


@_tiny(
    "SanaVideoPipeline", height=32, width=32, frames=3, guidance_scale=3.0, max_sequence_length=32,
    complex_human_instruction=None, use_resolution_binning=False,
)  # fmt: skip
def _sana_video() -> Parts:
    return _sana() | {
        "transformer": _net(
            "SanaVideoTransformer3DModel", in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12,
            num_layers=2, num_cross_attention_heads=2, cross_attention_head_dim=12, cross_attention_dim=24,
            caption_channels=_WIDTH, sample_size=16, rope_max_seq_len=32,
        ),
        "vae": _wan_vae(),
    }  # fmt: skip


@_tiny("StableDiffusionControlNetPipeline", guidance_scale=5.0, image=picture)
def _controlnet() -> Parts:
    return _stable_diffusion() | {"controlnet": _control()}


_tiny("FluxControlPipeline", **_SIZE, guidance_scale=10.0, max_sequence_length=32, control_image=picture)(
    lambda: _flux(channels=32)
)


@_tiny("WanImageToVideoPipeline", **_VIDEO | {"height": 32, "width": 32, "num_frames": 5}, image=picture)
def _wan_from_image() -> Parts:
    """The transformer is given the latents, a mask of the four frames that are one, and the image's latents.

    Its decoder reads four frames at once, whatever its configuration.
    """
    return _wan() | {
        "transformer": _wan_transformer(channels=4 + 4 + 4, image_dim=16),
        "vae": _wan_vae(halvings=2),
        "image_encoder": filled(transformers.CLIPVisionModel(vision().config)),
        "image_processor": transformers.CLIPImageProcessor(),
    }


@_tiny("CogVideoXImageToVideoPipeline", **_VIDEO | {"num_frames": 5}, image=picture)
def _cogvideox_from_image() -> Parts:
    return _cogvideox(channels=8)


@_tiny("LongCatImagePipeline", **_SIZE, guidance_scale=3.0, enable_prompt_rewrite=False)
def _longcat() -> Parts:
    """Its processor, which only rewrites prompts, is a tokenizer: the published one needs torchvision."""
    return {
        "transformer": _net(
            "LongCatImageTransformer2DModel", in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=_WIDTH, pooled_projection_dim=_WIDTH, axes_dims_rope=[4, 6, 6],
        ),
        "vae": _flow_vae(channels=16),
        "text_encoder": qwen2_vl(),
        "tokenizer": qwen_tokenizer(),
        "text_processor": qwen_tokenizer(),
        "scheduler": _flow(**_FLUX_SHIFT),
    }  # fmt: skip


@_tiny("LDMTextToImagePipeline", height=64, width=64, guidance_scale=3.0)
def _ldm_text() -> Parts:
    """Its image is larger than its latents by a factor of eight, whatever its decoder."""
    from diffusers.pipelines.latent_diffusion import LDMBertModel
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig

    config = LDMBertConfig(
        vocab_size=WORDS, encoder_layers=2, encoder_ffn_dim=48, encoder_attention_heads=4, head_dim=8, d_model=_WIDTH
    )
    return {
        "unet": _unet(),
        "vqvae": vae(),
        "bert": filled(LDMBertModel(config)),
        "tokenizer": bert_tokenizer(),
        "scheduler": diffusers.DDIMScheduler(**{**_SD, "steps_offset": 0}, clip_sample=False),
    }


def _cascade_unet(**changes: Any) -> torch.nn.Module:
    config: dict[str, Any] = {
        "in_channels": 4, "out_channels": 4, "timestep_ratio_embedding_dim": 16, "conditioning_dim": 32,
        "block_out_channels": (32, 32), "num_attention_heads": (2, 2), "down_num_layers_per_block": (1, 1),
        "up_num_layers_per_block": (1, 1), "clip_text_pooled_in_channels": _WIDTH, "clip_seq": 2, "dropout": 0.1,
    }  # fmt: skip
    return _net("StableCascadeUNet", **config | changes)


@_tiny("StableCascadePriorPipeline", height=64, width=64, guidance_scale=3.0)
def _cascade_prior() -> Parts:
    """Its result is an embedding for the decoder pipeline, not an image."""
    return {
        "prior": _cascade_unet(
            clip_text_in_channels=_WIDTH, clip_image_in_channels=_WIDTH, switch_level=(False,)
        ),
        "text_encoder": clip(projection=_WIDTH),
        "tokenizer": clip_tokenizer(),
        "scheduler": diffusers.DDPMWuerstchenScheduler(),
        "resolution_multiple": 8.0,
    }  # fmt: skip


def chatglm() -> torch.nn.Module:
    from diffusers.pipelines.kolors import ChatGLMModel
    from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig

    return filled(ChatGLMModel(ChatGLMConfig(
        num_layers=2, padded_vocab_size=WORDS, hidden_size=_WIDTH, ffn_hidden_size=48, kv_channels=8,
        num_attention_heads=4, seq_length=256, rmsnorm=True, add_qkv_bias=True, multi_query_attention=True,
        multi_query_group_num=2, bias_dropout_fusion=False, original_rope=True,
    )))  # fmt: skip


def chatglm_tokenizer() -> Any:
    """Of single letters, by a model that sentencepiece makes from them."""
    import sentencepiece
    from diffusers.pipelines.kolors import ChatGLMTokenizer

    folder = Path(tempfile.mkdtemp())  # read again when the tokenizer is saved
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "tokenizer.model"
    with path.open("wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([" ".join(_LETTERS)] * 2), model_writer=model, vocab_size=len(_LETTERS) + 4,
            model_type="char", character_coverage=1.0, minloglevel=2,
        )  # fmt: skip
    return ChatGLMTokenizer(str(path))


@_tiny("KolorsPipeline", **_SIZE, guidance_scale=3.0, max_sequence_length=64)
def _kolors() -> Parts:
    return {
        "unet": _unet(
            **_XL | {"cross_attention_dim": 2 * _WIDTH}, encoder_hid_dim=_WIDTH, encoder_hid_dim_type="text_proj",
        ),
        "vae": vae(scaling_factor=0.13025),
        "text_encoder": chatglm(),
        "tokenizer": chatglm_tokenizer(),
        "scheduler": diffusers.EulerDiscreteScheduler(**{**_SD, "beta_end": 0.014}, timestep_spacing="leading"),
    }  # fmt: skip


# More versions and tasks of the first ones


@_tiny("StableDiffusion3Pipeline-3.5", **_SIZE, guidance_scale=4.5, max_sequence_length=32)
def _stable_diffusion_35() -> Parts:
    return _stable_diffusion_3(qk_norm="rms_norm", dual_attention_layers=(0,))


@_tiny("LTXPipeline-0.9.1", **_VIDEO | {"height": 32, "width": 32}, decode_timestep=0.05, decode_noise_scale=0.025)
def _ltx091() -> Parts:
    """Its decoder is told a time; latents get noise of the call's generator, and features of torch's own."""
    return _ltx(timestep_conditioning=True, decoder_inject_noise=(False, True, False))


@_tiny("CogVideoXPipeline-1.5", **_VIDEO | {"num_frames": 5})
def _cogvideox15() -> Parts:
    """Latent frames in pairs: three of them become four, and its video loses the first again."""
    return _cogvideox(patch_size_t=2, patch_bias=False, sample_frames=5)


_tiny("StableDiffusionXLInpaintPipeline", **_SIZE, guidance_scale=5.0, image=picture, mask_image=mask, strength=1.0)(
    lambda: _stable_diffusion_xl(channels=9)
)


@_tiny("StableDiffusionUpscalePipeline", guidance_scale=5.0, noise_level=20, image=picture)
def _upscale() -> Parts:
    """The image that it enlarges gets noise of the call's generator."""
    sd = _stable_diffusion()
    return {name: sd[name] for name in ("text_encoder", "tokenizer")} | {
        "vae": vae(scaling_factor=0.08333),
        "unet": _unet(channels=7, num_class_embeds=1000),
        "low_res_scheduler": diffusers.DDPMScheduler(beta_schedule="scaled_linear"),
        "scheduler": diffusers.DDIMScheduler(**_SD, prediction_type="v_prediction", clip_sample=False),
    }


@_tiny("FluxControlNetPipeline", **_SIZE, guidance_scale=3.5, max_sequence_length=32, control_image=picture)
def _flux_controlnet() -> Parts:
    return _flux() | {
        "controlnet": _net(
            "FluxControlNetModel", patch_size=1, in_channels=16, num_layers=1, num_single_layers=1,
            attention_head_dim=16, num_attention_heads=2, joint_attention_dim=_WIDTH, pooled_projection_dim=_WIDTH,
            axes_dims_rope=(4, 6, 6), guidance_embeds=True,
        ),
    }  # fmt: skip


@_tiny("StableDiffusion3ControlNetPipeline", **_SIZE, guidance_scale=5.0, max_sequence_length=32, control_image=picture)
def _stable_diffusion_3_controlnet() -> Parts:
    """The latents of its control image are drawn from torch's own generator."""
    return _stable_diffusion_3() | {
        "controlnet": _net(
            "SD3ControlNetModel", sample_size=8, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8,
            num_attention_heads=4, joint_attention_dim=2 * _WIDTH, caption_projection_dim=32,
            pooled_projection_dim=2 * _WIDTH, pos_embed_max_size=8,
        ),
    }  # fmt: skip


@_tiny("ErnieImagePipeline", **_SIZE, guidance_scale=3.0)
def _ernie() -> Parts:
    return {
        "transformer": _net(
            "ErnieImageTransformer2DModel", hidden_size=32, num_attention_heads=2, num_layers=2, ffn_hidden_size=48,
            in_channels=16, out_channels=16, text_in_dim=_WIDTH, rope_axes_dim=(4, 6, 6),
        ),
        "vae": _flux2_vae(),
        "text_encoder": mistral3().model,
        "tokenizer": llama_tokenizer(),
        "scheduler": _flow(shift=3.0),
    }  # fmt: skip


@_tiny("Ideogram4Pipeline", **_SIZE, guidance_scale=3.0, guidance_schedule=None, max_sequence_length=64)
def _ideogram4() -> Parts:
    """A second transformer predicts without the prompt. Of its text encoder thirteen of 36 layers are read."""

    def transformer() -> torch.nn.Module:
        return _net(
            "Ideogram4Transformer2DModel", in_channels=16, num_layers=1, attention_head_dim=16, num_attention_heads=2,
            intermediate_size=48, adaln_dim=16, llm_features_dim=13 * _WIDTH, mrope_section=(4, 2, 2),
        )  # fmt: skip

    free: Any = transformer()
    with torch.no_grad():
        free.final_layer.linear.weight.neg_()
    return {
        "transformer": transformer(),
        "unconditional_transformer": free,
        "vae": _flux2_vae(),
        "text_encoder": qwen3_vl(num_hidden_layers=36, intermediate_size=8),
        "tokenizer": qwen_tokenizer(),
        "scheduler": _flow(),
    }


@_tiny("BriaFiboPipeline", height=128, width=128, guidance_scale=3.0, max_sequence_length=64, negative_prompt=".")
def _bria_fibo() -> Parts:
    """Its image is larger than its latents by a factor of sixteen, whatever its decoder."""
    return {
        "transformer": _net(
            "BriaFiboTransformer2DModel", in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=2 * _WIDTH, text_encoder_dim=_WIDTH, axes_dims_rope=[4, 6, 6],
        ),
        "vae": _wan_vae(),
        "text_encoder": decoder("SmolLM3ForCausalLM", "SmolLM3Config"),
        "tokenizer": llama_tokenizer(),
        "scheduler": _flow(**_FLUX_SHIFT),
    }  # fmt: skip


@_tiny("AnyFlowPipeline", **_VIDEO)
def _anyflow() -> Parts:
    """A map from one time to another: its transformer is told both."""
    return _wan() | {
        "transformer": _net(
            "AnyFlowTransformer3DModel", num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
            text_dim=_WIDTH, freq_dim=16, ffn_dim=32, num_layers=2, rope_max_seq_len=32,
        ),
        "scheduler": diffusers.FlowMapEulerDiscreteScheduler(shift=5.0),
    }  # fmt: skip


@_tiny("StableDiffusionXLImg2ImgPipeline", guidance_scale=5.0, image=picture, strength=1.0)
def _refiner() -> Parts:
    """SDXL's refiner: one text encoder, and how beautiful the image is to be."""
    xl = _stable_diffusion_xl()
    return {name: xl[name] for name in ("vae", "text_encoder_2", "tokenizer_2", "scheduler")} | {
        "unet": _unet(**_XL | {"cross_attention_dim": _WIDTH, "projection_class_embeddings_input_dim": 5 * 8 + _WIDTH}),
        "text_encoder": None,
        "tokenizer": None,
        "requires_aesthetics_score": True,
    }


_tiny("StableDiffusion3PAGPipeline", **_SIZE, guidance_scale=4.5, max_sequence_length=32, pag_scale=2.0)(
    _stable_diffusion_3
)


_LTX: dict[str, Any] = _VIDEO | {"height": 32, "width": 32}
_tiny("LTXConditionPipeline", **_LTX)(lambda: _ltx() | {"scheduler": _flow()})
_tiny("LTXImageToVideoPipeline", **_LTX, image=lambda: picture(32))(_ltx)
_tiny("WanPipeline-ti2v", **_VIDEO)(lambda: _wan() | {"expand_timesteps": True})


@_tiny("WanVACEPipeline", **_LTX | {"num_frames": 5})
def _wan_vace() -> Parts:
    """Beside the latents go those of a video in two parts, by its mask, and the mask of each 4x4 pixels."""
    return _wan() | {
        "transformer": _net(
            "WanVACETransformer3DModel", num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
            text_dim=_WIDTH, freq_dim=16, ffn_dim=32, num_layers=2, rope_max_seq_len=32, vace_layers=[0],
            vace_in_channels=2 * 4 + 4 * 4,
        ),
        "vae": _wan_vae(halvings=2),
    }  # fmt: skip


_tiny("SkyReelsV2DiffusionForcingPipeline", **_VIDEO, base_num_frames=3)(_skyreels)


# Without a prompt


def _pixel_unet() -> torch.nn.Module:
    return _net(
        "UNet2DModel", sample_size=16, in_channels=3, out_channels=3, block_out_channels=(16, 32), layers_per_block=1,
        norm_num_groups=8, attention_head_dim=8, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip


_tiny("DDPMPipeline", prompted=False)(
    lambda: {"unet": _pixel_unet(), "scheduler": diffusers.DDPMScheduler(beta_schedule="linear")}
)
_tiny("DDIMPipeline", prompted=False)(
    lambda: {"unet": _pixel_unet(), "scheduler": diffusers.DDIMScheduler(beta_schedule="linear")}
)
_tiny("PNDMPipeline", prompted=False)(
    lambda: {"unet": _pixel_unet(), "scheduler": diffusers.PNDMScheduler(beta_schedule="linear", skip_prk_steps=True)}
)
_tiny("LDMPipeline", prompted=False)(
    lambda: {
        "unet": _pixel_unet(),
        "vqvae": _net(
            "VQModel", block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=3,
            up_block_types=("UpDecoderBlock2D",) * 2, num_vq_embeddings=16, norm_num_groups=4,
        ),
        "scheduler": diffusers.DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False),
    }
)  # fmt: skip
_tiny("ConsistencyModelPipeline", prompted=False)(
    lambda: {"unet": _pixel_unet(), "scheduler": diffusers.CMStochasticIterativeScheduler()}
)


NAMES: tuple[str, ...] = tuple(_TINY)
"""The pipelines, by class; `-` and a word for a second folder of one class."""


def pipeline(name: str) -> Any:
    """The pipeline itself, before it is saved."""
    found = _TINY[name]
    with torch.random.fork_rng(devices=[]):  # Initial values are drawn before `filled` replaces them.
        return getattr(diffusers, found.pipeline)(**found.parts())


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without the notes of diffusers about its own defaults."""
    level = diffusers.utils.logging.get_verbosity()
    diffusers.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers.utils.logging.set_verbosity(level)


def make(name: str, folder: Path) -> Path:
    """Write the folder of a pipeline, and return it."""
    with _silent():
        pipeline(name).save_pretrained(folder)
    return folder


def call(name: str) -> dict[str, object]:
    """The arguments of the pipeline's `__call__` that keep it small: all but a prompt, steps, generator and output."""
    return {key: value() if callable(value) else value for key, value in _TINY[name].call.items()}


def prompted(name: str) -> bool:
    """Whether the pipeline's `__call__` takes `prompt`."""
    return _TINY[name].prompted
