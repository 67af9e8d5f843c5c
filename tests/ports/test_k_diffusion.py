"""On the same levels exported samplers make the samples of k-diffusion's own, where that is installed."""

import importlib
import importlib.util
import sys
import types

import alone
import pytest
import torch
from golden import relative

import solverbench as sb

OWN = {
    "sample_euler": "euler:end=zero",
    "sample_heun": "heun:end=zero",
    "sample_dpm_2": "dpm2:end=zero",
    "sample_dpmpp_2m": "dpm:order=2:lower_order_final=false:end=zero",
}


@pytest.fixture(scope="module")
def sampling():
    """The module alone: the package around it needs much that its samplers don't."""
    package = importlib.util.find_spec("k_diffusion")
    if package is None:
        pytest.skip("needs k-diffusion")
    for needed in ("torchsde", "tqdm"):
        pytest.importorskip(needed)
    names = ("k_diffusion", "k_diffusion.utils", "k_diffusion.sampling")
    with pytest.MonkeyPatch.context() as patch:
        for name in names[:2]:
            patch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules["k_diffusion"].__path__ = package.submodule_search_locations
        sys.modules["k_diffusion"].utils = sys.modules["k_diffusion.utils"]
        sys.modules["k_diffusion.utils"].append_dims = lambda x, n: x[(...,) + (None,) * (n - x.ndim)]
        yield importlib.import_module(names[2])
        sys.modules.pop(names[2], None)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", OWN)
def test_on_the_same_levels_it_makes_the_samples_of_its_own(sampling, name):
    sigmas = sampling.get_sigmas_karras(6, 0.02, 40.0).double()
    made = sb.tableau(OWN[name], grid=sigmas.tolist())
    x = 40 * torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sampler = sb.k_diffusion_sampler(made, teacher=sb.Teacher(alone.denoise, "any", (1, 8, 8), sb.EDM(0.02, 40.0)))
    own = getattr(sampling, name)
    assert relative(sampler(alone.denoise, x), own(alone.denoise, x, sigmas, disable=True)) < 1e-9
    told, callbacks = [], []
    for sample in (own, sampler):
        sample(alone.denoise, x, None if sample is sampler else sigmas, callback=callbacks.append, disable=True)
        told.append([float(call["sigma"]) for call in callbacks])
        callbacks.clear()
    if name in ("sample_euler", "sample_dpmpp_2m"):  # with two calls an interval k-diffusion tells of one
        assert told[0] == pytest.approx(told[1])
