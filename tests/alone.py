"""Runs exported files where torch is all there is: `python -I alone.py FOLDER`, as `test_standalone` writes FOLDER.

What a scheduler takes from diffusers is a stand-in: what its own code says of it, without diffusers' code.
"""

import functools
import importlib.util
import inspect
import math
import sys
import types
from pathlib import Path

import torch

ABSENT = ("solverbench", "registries", "baselines", "reports", "diffusers", "k_diffusion", "transformers", "tqdm")


def forbid():
    for name in ABSENT:
        sys.modules[name] = None


def stand_in():
    """Put modules in place of diffusers that keep a configuration and nothing else."""

    def register_to_config(init):
        @functools.wraps(init)
        def wrapped(self, **given):
            defaults = {n: p.default for n, p in inspect.signature(init).parameters.items() if n != "self"}
            self.config = types.SimpleNamespace(**defaults | given)
            init(self, **given)

        return wrapped

    class Logging:
        @staticmethod
        def get_logger(name):
            return types.SimpleNamespace(warning=lambda text: None)

    class Output(types.SimpleNamespace):
        pass

    modules = {
        "diffusers": {},
        "diffusers.configuration_utils": {"ConfigMixin": object, "register_to_config": register_to_config},
        "diffusers.schedulers": {},
        "diffusers.schedulers.scheduling_utils": {"SchedulerMixin": type("M", (), {}), "SchedulerOutput": Output},
        "diffusers.utils": {"logging": Logging},
    }
    for name, content in modules.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(content)


def network(y, t):
    """A random nonlinear one, of the time in single precision, as a scheduler tells it."""
    t = t.float().to(y.dtype) / 1000
    return 1.5 * torch.tanh(2 * y * torch.cos(3 * t) + 0.3 * y.roll(1, -1) - t)


def denoise(x, sigma):
    """The same kind of network as a denoiser of the EDM frame."""
    sigma = sigma.float()
    s = sigma.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1)) if sigma.dim() else sigma.to(x.dtype)
    return 1.5 * torch.tanh(3 * x / (1 + s**2).sqrt() + 0.3 * x.roll(1, -1) / (1 + s) + 0.2)


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def run(kind, module, noise):
    """What a user of the file does with it."""
    if kind == "py":
        return module.sample(denoise, noise)
    if kind == "k-diffusion":
        functions = [f for name, f in vars(module).items() if name.startswith("sample_")]
        assert len(functions) == 1
        assert list(inspect.signature(functions[0]).parameters) == [
            "model", "x", "sigmas", "extra_args", "callback", "disable",
        ]  # fmt: skip
        calls = []

        def model(x, sigma, *, shift):
            assert sigma.shape == (len(x),)
            assert sigma.dtype == x.dtype
            return denoise(x, sigma) + shift

        sampled = functions[0](
            model, noise * module.SCALE, module.SIGMAS, {"shift": 0.0}, callback=calls.append, disable=True
        )
        assert [call["i"] for call in calls] == list(range(len(calls)))
        assert all({"x", "i", "sigma", "sigma_hat", "denoised"} == set(call) for call in calls)
        assert all(
            math.isclose(float(call["sigma"]), level) for call, level in zip(calls, module.SAMPLER.told, strict=True)
        )
        return sampled
    scheduler = module.scheduler()
    told = denoise if "edm" in module.__name__ else network

    def loop():
        scheduler.set_timesteps(len(scheduler.config.timesteps))
        y = noise * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            y = scheduler.step(told(scheduler.scale_model_input(y, t), t), t, y).prev_sample
        return y

    sampled = loop()
    assert torch.equal(loop(), sampled)  # nothing of a run is left for the next
    return sampled


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    forbid()
    noise = torch.load(folder / "noise.pt")
    found = {}
    for kind in ("py", "k-diffusion", "diffusers"):
        if kind == "diffusers":
            stand_in()
        for path in sorted((folder / kind).glob("*.py")):
            found[kind, path.stem] = run(kind, load(path), noise)
    torch.save(found, folder / "found.pt")
    assert not [name for name in ABSENT if sys.modules.get(name) and name != "diffusers"]
