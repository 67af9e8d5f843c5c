"""A tiny network with the interface of the Inception file that clean-fid loads: TorchScript, 0-255 in, 2048 out."""

import importlib
import sys
import types
import warnings

import pytest
import torch
from torch import nn

from solverbench import fid


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
    return folder / fid.FILE


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
