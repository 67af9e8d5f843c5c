"""PickScore by transformers in the layout that is published, and a stand-in for transformers itself."""

import json
import sys
import types

import pytest
import torch

WORDS = "CLIP-ViT-H-14-laion2B-s32B-b79K"
SCALE = 4.6
"""Logit scale of the networks; PickScore's own is 4.605."""


def write_pickscore(folder):
    """Put a PickScore of 8 features in the data folder, and its tokenizer in the other repository's; return it.

    `eos_token_id` is 2 as in the published configuration, so that the end is found as the largest token.
    """
    import tiny

    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**tower, "vocab_size": 514, "projection_dim": 8, "hidden_act": "gelu", "eos_token_id": 2}
    vision = {**tower, "patch_size": 14, "image_size": 224, "projection_dim": 8, "hidden_act": "gelu"}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    network = transformers.CLIPModel(config)
    network.logit_scale.data.fill_(SCALE)
    network.save_pretrained(folder / "PickScore_v1")
    transformers.CLIPImageProcessorPil(crop_size=224, size=224).save_pretrained(folder / WORDS)
    tiny.tokenizer(folder / WORDS)
    return network.eval()


class Network(torch.nn.Module):
    """What `CLIPModel` has of the published network, with features that are easy to compute by hand."""

    def __init__(self):
        super().__init__()
        self.logit_scale = torch.nn.Parameter(torch.tensor(SCALE))
        self.visual_projection = self.text_projection = torch.nn.Identity()

    def vision_model(self, pixel_values):
        return types.SimpleNamespace(pooler_output=pixel_values.mean((2, 3)))

    def text_model(self, input_ids, attention_mask):
        rows = [[1.0 + ids.float().sum(), 1.0, -1.0] for ids in input_ids]
        return types.SimpleNamespace(pooler_output=torch.tensor(rows))


def tokens(prompts):
    """The numbers of letters: what the stand-in's tokenizer returns."""
    return {"input_ids": torch.tensor([[len(each)] for each in prompts]), "attention_mask": torch.ones(len(prompts), 1)}


def stand_in(monkeypatch, folder, *names):
    """Put a module in place of transformers, and write folders of networks that it loads.

    Args:
        names: folders in the data folder, such as PickScore_v1.
    """
    module = types.ModuleType("transformers")

    def loaded(path, **more):
        assert more["local_files_only"]
        return Network(), {"missing_keys": set(), "mismatched_keys": set()}

    def tokenizer(path, local_files_only):
        assert local_files_only
        return lambda prompts, **more: tokens(prompts)

    module.CLIPModel = types.SimpleNamespace(from_pretrained=loaded)
    module.CLIPTokenizer = types.SimpleNamespace(from_pretrained=tokenizer)
    monkeypatch.setitem(sys.modules, "transformers", module)
    patches = {"PickScore_v1": 14, "clip-vit-base-patch32": 32}
    for name in names:
        home = folder / name
        home.mkdir(parents=True)
        if name in patches:
            told = {"model_type": "clip", "projection_dim": 3, "vision_config": {"patch_size": patches[name]}}
            (home / "config.json").write_text(json.dumps(told))
            (home / "model.safetensors").write_bytes(name.encode())
        if name != "PickScore_v1":
            (home / "tokenizer.json").write_text("{}")
