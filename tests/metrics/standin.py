"""Tiny networks in the formats of the real ones: TorchScript's and pytorch-fid's Inception, CLIP and DINOv2."""

import hashlib
import importlib
import json
import sys
import types
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from solverbench.metrics.extractors import inception as fid


class StandIn(nn.Module):
    """Resizes inside like the real one, unless its layers are called, as clean-fid's clean mode does."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        # 16 features and then zeros, so that few images give them a covariance of full rank.
        self.layers = nn.Sequential(
            nn.AvgPool2d(13), nn.Flatten(), nn.Linear(3 * 23 * 23, 16), nn.SiLU(), nn.ZeroPad1d((0, 2032))
        )
        self.output = nn.Linear(2048, 1008)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        x = torch.nn.functional.interpolate(img.to(torch.float32), size=[299, 299], mode="bilinear")
        features = self.layers((x - 128) / 128).reshape(-1, 2048)
        return features if return_features else torch.softmax(self.output(features), dim=1)


def write(folder):
    """Put the network where its weights belong in the data folder `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(StandIn().eval()).save(str(folder / fid.FILE))
    return accept(folder / fid.FILE)


def accept(path):
    """Make this file's checksum the known one; `known` undoes it after the test."""
    fid.SHA256[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return path


def known(monkeypatch):
    """Let `accept` change the known checksums for one test."""
    monkeypatch.setattr(fid, "SHA256", dict(fid.SHA256))


def clean_fid(monkeypatch):
    """clean-fid's own functions on features, with stand-ins for what it imports beside them and they don't use."""
    pytest.importorskip("cleanfid")
    loaders = types.ModuleType("cleanfid.features")
    loaders.build_feature_extractor = loaders.get_reference_statistics = None
    for name, module in {"torchvision": types.ModuleType("torchvision"), "cleanfid.features": loaders}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "cleanfid.utils", raising=False)
    monkeypatch.delitem(sys.modules, "cleanfid.fid", raising=False)
    return importlib.import_module("cleanfid.fid")


GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "inception_pytorch.json").read_text())


def inception_state(shapes, narrow=1):
    """Weights under the names of pytorch-fid's file, drawn from a fixed generator.

    Args:
        shapes: of every convolution, by name.
        narrow: divides the widths inside; the last block still gives 2048 features.
    """
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, (out, into, high, wide) in shapes.items():
        last = name.startswith("Mixed_7c") and not name.endswith(("3x3_1", "3x3dbl_1", "3x3dbl_2"))
        out, into = out if last else out // narrow, into if into == 3 else into // narrow
        weight = torch.randn(out, into, high, wide, generator=generator) / (into * high * wide / 2) ** 0.5
        state[f"{name}.conv.weight"] = weight
        state[f"{name}.bn.weight"] = 1 + 0.1 * torch.randn(out, generator=generator)
        state[f"{name}.bn.bias"] = 0.1 * torch.randn(out, generator=generator)
        state[f"{name}.bn.running_mean"] = 0.1 * torch.randn(out, generator=generator)
        state[f"{name}.bn.running_var"] = 1 + 0.1 * torch.rand(out, generator=generator)
    state["fc.weight"], state["fc.bias"] = torch.randn(1008, 2048, generator=generator) / 45, torch.zeros(1008)
    return state


def write_pytorch(folder):
    """Put a narrow network where pytorch-fid's weights belong in the data folder `folder`: 16 features, then zeros."""
    state = inception_state(GOLDEN["convolutions"], narrow=16)
    for name in GOLDEN["convolutions"]:
        if name.startswith("Mixed_7c") and not name.endswith(("3x3_1", "3x3dbl_1", "3x3dbl_2")):
            kept = 16 if name.endswith("branch1x1") else 0
            state[f"{name}.bn.weight"][kept:] = 0
            state[f"{name}.bn.bias"][kept:] = 0
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / fid.PYTORCH_FILE)
    return accept(folder / fid.PYTORCH_FILE)


WORDS = ["a", "red", "ring", "blue", "cross"]


def write_clip(folder):
    """Put a CLIP of 8 features with its tokenizer where it belongs in the data folder `folder`; return it."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    letters = sorted({letter for word in WORDS for letter in word})
    pieces = ["<|startoftext|>", *letters, *(f"{letter}</w>" for letter in letters), "<|endoftext|>"]
    tokens = {"bos_token_id": 0, "eos_token_id": len(pieces) - 1, "pad_token_id": len(pieces) - 1}
    network = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={**tower, "vocab_size": len(pieces), "projection_dim": 8, **tokens},
            vision_config={**tower, "patch_size": 32, "image_size": 224, "projection_dim": 8},
            projection_dim=8,
        )
    )
    home = folder / "clip-vit-base-patch32"
    network.save_pretrained(home)
    (home / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (home / "merges.txt").write_text("#version: 0.2\n")
    return network.eval()


def write_clip_large(folder):
    """Put a CLIP ViT-L/14 of 8 features where it belongs in the data folder `folder`; return it."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {**tower, "patch_size": 14, "image_size": 336, "projection_dim": 8}
    text = {**tower, "vocab_size": 10, "projection_dim": 8}
    network = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    network.save_pretrained(folder / "clip-vit-large-patch14-336")
    return network.eval()


def write_dinov2(folder, pixels=518):
    """Put a DINOv2 of 12 features where it belongs in the data folder `folder`; return it."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    network = transformers.Dinov2Model(
        transformers.Dinov2Config(
            hidden_size=12, num_hidden_layers=2, num_attention_heads=2, image_size=pixels, patch_size=14
        )
    )
    network.save_pretrained(folder / "dinov2-large")
    return network.eval()
