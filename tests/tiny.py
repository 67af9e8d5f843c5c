"""CompVis checkpoints as small as can be, laid out as upstream writes them, and what a prompt needs.

Their networks are the golden ones, with random weights. Nothing here imports transformers before it is needed.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parent / "data"
UNCONDITIONAL, CLASSES, TEXT, VQ, KL = range(5)
"""The golden cases: three U-Nets and two decoders."""

SIZE, HEADS = 16, {UNCONDITIONAL: {"head_channels": 32}, CLASSES: {"head_channels": 32}, TEXT: {"heads": 2}}
PROMPTS = ["a red bird", "two cats on a mat", "the sea"]


@cache
def golden():
    """(cases, arrays) of the golden networks."""
    cases = json.loads((DATA / "compvis_networks.json").read_text())
    with np.load(DATA / "compvis_networks.npz") as arrays:
        return cases, {key: torch.from_numpy(arrays[key]) for key in arrays}


def state(case):
    """The tensors of a golden case, named as in a checkpoint."""
    return {key.removeprefix(f"w{case}/"): v for key, v in golden()[1].items() if key.startswith(f"w{case}/")}


def random(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def betas(start=0.0015, end=0.0195):
    return (torch.linspace(start**0.5, end**0.5, 1000, dtype=torch.float64) ** 2).float()


def ldm(classes=0):
    """A state dict of latent diffusion, as it is below `state_dict`; with `classes` a table of one more."""
    found = state(CLASSES if classes else UNCONDITIONAL) | state(VQ) | {"betas": betas()}
    found["first_stage_model.quantize.embedding.weight"] = random(64, 3, seed=1)
    found["first_stage_model.encoder.conv_in.weight"] = random(32, 3, 3, 3)
    if classes:
        found["cond_stage_model.embedding.weight"] = random(classes + 1, 16, seed=2)
    return found


def stable_diffusion():
    """A state dict of Stable Diffusion 1.x."""
    found = state(TEXT) | state(KL) | {"betas": betas(0.00085, 0.012)}
    prefix = "cond_stage_model.transformer.text_model."
    own = {prefix + key.removeprefix("text_model."): value for key, value in clip().state_dict().items()}
    return found | own | {prefix + "embeddings.position_ids": torch.arange(77)[None]}


def save(path, found, **beside):
    """Write a checkpoint as the training framework does."""
    torch.save({"epoch": 3, "global_step": 10, "state_dict": found, **beside}, path)
    return path


def averages(found, value=None):
    """The moving average of a U-Net's weights, as upstream stores it: `value` in each, or the weights themselves."""
    kept = {key: v for key, v in found.items() if key.startswith("model.")}
    made = {"model_ema." + key.removeprefix("model.").replace(".", ""): v for key, v in kept.items()}
    made = {key: v if value is None else torch.full_like(v, value) for key, v in made.items()}
    return made | {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}


def clip(width=24, projection=None, seed=0):
    """A text encoder for the words of `tokenizer`."""
    import transformers

    config = transformers.CLIPTextConfig(
        vocab_size=514, hidden_size=width, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=77, bos_token_id=512, eos_token_id=513, pad_token_id=513,
        projection_dim=projection or width, hidden_act="quick_gelu",
    )  # fmt: skip
    torch.manual_seed(seed)
    cls = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    return cls(config).eval()


def tokenizer(folder):
    """Write the files of a CLIP tokenizer that knows single letters."""
    letters = [chr(code) for code in [*range(33, 127), *range(161, 173), *range(174, 256)]]
    letters += [chr(256 + n) for n in range(256 - len(letters))]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    return folder


def prompts(path, lines=PROMPTS):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def describe(path, files=None, options=None, **table):
    """Write a TOML description."""

    def rows(each):
        return "".join(f"{key} = {json.dumps(str(v) if isinstance(v, Path) else v)}\n" for key, v in each.items())

    path.write_text(rows(table) + "[files]\n" + rows(files or {}) + "[options]\n" + rows(options or {}))
    return path
