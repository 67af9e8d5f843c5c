"""Folders of tiny diffusers pipelines: every part of the real ones, with random weights and vocabularies of letters.

A folder is what `save_pretrained` of the pipeline writes. Its parts are the classes of the published checkpoints,
a few channels wide, and its scheduler has the published settings. Nothing is downloaded. Needs diffusers and
transformers; Pillow for what takes an image.
"""

import contextlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
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


def _tiny(
    name: str, pipeline: str | None = None, prompted: bool = True, **call: Any
) -> Callable[[Callable[[], Parts]], Callable[[], Parts]]:
    """Register the function that makes the parts of a pipeline."""

    def register(parts: Callable[[], Parts]) -> Callable[[], Parts]:
        _TINY[name] = Tiny(pipeline or name.partition("-")[0], parts, call, prompted)
        return parts

    return register


# Weights


def filled(module: torch.nn.Module) -> torch.nn.Module:
    """`module` with random weights that keep the size of what passes through, whatever its own initialization is.

    Many transformers start with zeros in their modulations and outputs, or with very small weights in their text
    encoder. A matrix or kernel gets a standard deviation of one over the square root of its inputs. A vector (bias, or
    weight of a norm) keeps its values, with a tenth of noise.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(type(module).__name__.encode()))
    with torch.no_grad():
        for value in module.parameters():
            noise = torch.randn(value.shape, generator=generator)
            if value.numel() == max(value.shape, default=1):
                value.add_(0.1 * noise)
            else:
                value.copy_(noise / value[0].numel() ** 0.5)
    return module.eval()


def _net(name: str, **config: Any) -> torch.nn.Module:
    return filled(getattr(diffusers, name)(**config))


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


def qwen_tokenizer() -> Any:
    words = [*_BYTES, "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return transformers.Qwen2Tokenizer(
        vocab=_numbered(words), merges=[], chat_template=_CHAT, model_max_length=1024,
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )  # fmt: skip


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


def mistral3() -> torch.nn.Module:
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


@_tiny("Flux2Pipeline", **_SIZE, guidance_scale=4.0, max_sequence_length=32, text_encoder_out_layers=[1, 2])
def _flux2() -> Parts:
    return {
        "transformer": _net(
            "Flux2Transformer2DModel", in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=2 * _WIDTH, timestep_guidance_channels=32,
            axes_dims_rope=(4, 4, 4, 4),
        ),
        "vae": _net(
            "AutoencoderKLFlux2", block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4, layers_per_block=1,
        ),
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


@_tiny("StableDiffusionXLControlNetPipeline", **_SIZE, guidance_scale=5.0, image=picture)
def _controlnet_xl() -> Parts:
    control = {
        "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8, "attention_head_dim": 2,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "conditioning_embedding_out_channels": (8, 16),
    }  # fmt: skip
    return _stable_diffusion_xl() | {"controlnet": _net("ControlNetModel", **control | _XL)}


@_tiny("StableDiffusion3Pipeline", **_SIZE, guidance_scale=5.0, max_sequence_length=32)
def _stable_diffusion_3() -> Parts:
    return {
        "transformer": _net(
            "SD3Transformer2DModel", sample_size=8, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
            num_attention_heads=4, joint_attention_dim=2 * _WIDTH, caption_projection_dim=32,
            pooled_projection_dim=2 * _WIDTH, pos_embed_max_size=8,
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
            attention_head_dim=16, num_attention_heads=2, caption_channels=[_WIDTH, _WIDTH], text_emb_dim=2 * _WIDTH,
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


def _wan(scheduler: Any | None = None) -> Parts:
    return {
        "transformer": _wan_transformer(),
        "vae": _net(
            "AutoencoderKLWan", base_dim=8, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[True],
            latents_mean=[-0.7, 0.1, 0.9, -0.2], latents_std=[2.8, 1.4, 2.3, 1.2], scale_factor_temporal=2,
            scale_factor_spatial=2,
        ),
        "text_encoder": t5("UMT5"),
        "tokenizer": t5_tokenizer(),
        "scheduler": scheduler
        or diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, final_sigmas_type="zero"
        ),
    }  # fmt: skip


_tiny("WanPipeline", **_VIDEO)(_wan)


@_tiny("LTXPipeline", **_VIDEO | {"height": 32, "width": 32})
def _ltx() -> Parts:
    return {
        "transformer": _net(
            "LTXVideoTransformer3DModel", in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12,
            cross_attention_dim=24, num_layers=2, caption_channels=_WIDTH,
        ),
        "vae": _net(
            "AutoencoderKLLTXVideo", latent_channels=4, block_out_channels=(8, 8), layers_per_block=(1, 1, 1),
            down_block_types=("LTXVideoDownBlock3D",) * 2, decoder_block_out_channels=(8, 8),
            decoder_layers_per_block=(1, 1, 1), spatio_temporal_scaling=(True, False),
            decoder_spatio_temporal_scaling=(True, False), decoder_inject_noise=(False,) * 3, patch_size=2,
            upsample_residual=(False, False), upsample_factor=(1, 1), downsample_type=("conv", "conv"),
        ),
        "text_encoder": t5(),
        "tokenizer": t5_tokenizer(),
        "scheduler": _flow(
            use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, max_image_seq_len=4096,
            shift_terminal=0.1,
        ),
    }  # fmt: skip


def _cogvideox_vae() -> torch.nn.Module:
    made = _net(
        "AutoencoderKLCogVideoX", down_block_types=("CogVideoXDownBlock3D",) * 2,
        up_block_types=("CogVideoXUpBlock3D",) * 2, block_out_channels=(8, 16), latent_channels=4,
        layers_per_block=1, norm_num_groups=4, temporal_compression_ratio=2, scaling_factor=0.7,
    )  # fmt: skip
    with torch.no_grad():  # else most pixels are black or white
        made.decoder.conv_out.conv.weight.mul_(0.3)
    return made


@_tiny("CogVideoXPipeline", **_VIDEO | {"num_frames": 5})
def _cogvideox() -> Parts:
    return {
        "transformer": _net(
            "CogVideoXTransformer3DModel", num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4,
            time_embed_dim=8, text_embed_dim=_WIDTH, num_layers=2, sample_width=8, sample_height=8, sample_frames=3,
            temporal_compression_ratio=2, max_text_seq_length=32, use_rotary_positional_embeddings=True,
        ),
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


NAMES: tuple[str, ...] = tuple(_TINY)
"""The pipelines, by class; `-` and a word for a second folder of one class."""


def pipeline(name: str) -> Any:
    """The pipeline itself, before it is saved."""
    found = _TINY[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of biases: see `filled`
        return getattr(diffusers, found.pipeline)(**found.parts())


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without progress bars and the notes of libraries about their own defaults."""
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
