"""Pickles in the layout of EDM's own: persistent objects with source code, plain torch containers, tensors, numpy.

The writer makes stand-ins of upstream's modules for as long as it pickles; nothing of upstream's is needed or run.
"""

import contextlib
import json
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parent / "data"
CASES = json.loads((DATA / "edm_networks.json").read_text())
SOURCE = "raise SystemExit('the source code inside the pickle was run')\n"


def arrays(case):
    """The golden arrays of a case: weights as a state dict, x, sigma, y."""
    with np.load(DATA / "edm_networks.npz") as found:
        prefix = f"w{case['id']}/"
        weights = {k.removeprefix(prefix): torch.from_numpy(found[k]).float() for k in found if k.startswith(prefix)}
        return weights, *(torch.from_numpy(found[f"{name}{case['id']}"]) for name in ("x", "sigma", "y"))


def _refuse(meta):
    raise AssertionError("upstream's reconstruction was called")


_refuse.__module__, _refuse.__qualname__, _refuse.__name__ = (
    "torch_utils.persistence",
    "_reconstruct_persistent_obj",
    "_reconstruct_persistent_obj",
)


class Persistent(torch.nn.Module):
    """A module that pickles as upstream's do: a call of the reconstruction with its class, source and state."""

    def __init__(self, class_name, **state):
        super().__init__()
        self.__dict__["_class_name"] = class_name
        self.__dict__.update(state)

    def __reduce__(self):
        state = {key: value for key, value in self.__dict__.items() if key != "_class_name"}
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": self._class_name, "state": state}
        return _refuse, (meta,), None


@contextlib.contextmanager
def upstream(**names):
    """Upstream's module `torch_utils.persistence`, for as long as something is pickled."""
    made = {name: types.ModuleType(name) for name in ("torch_utils", "torch_utils.persistence")}
    made["torch_utils.persistence"]._reconstruct_persistent_obj = _refuse
    made["torch_utils"].persistence = made["torch_utils.persistence"]
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]


def network(class_name, init_kwargs, weights):
    """The tree of modules that upstream would have, from a state dict."""
    kwargs = {"_init_args": (), "_init_kwargs": dict(init_kwargs)}
    root = Persistent(
        class_name, **kwargs, use_fp16=False, sigma_data=0.5, img_resolution=init_kwargs["img_resolution"]
    )
    for name, tensor in weights.items():
        *path, last = name.split(".")
        module = root
        for depth, part in enumerate(path):
            if part not in module._modules:
                plain = part in ("enc", "dec")
                child = torch.nn.ModuleDict() if plain else Persistent(_class_of(path[: depth + 1]), **_own(part))
                module._modules[part] = child
            module = module._modules[part]
        if last in ("resample_filter", "freqs", "u"):
            module.register_buffer(last, tensor.clone())
        else:
            module.register_parameter(last, torch.nn.Parameter(tensor.clone()))
    return root


def _class_of(path):
    return {"model": "SongUNet"}.get(path[-1], "UNetBlock" if len(path) == 3 else "Conv2d")


def _own(part):
    """What upstream's blocks hold beside tensors: numbers of numpy's among them."""
    return (
        {"skip_scale": np.sqrt(0.5), "_init_kwargs": {"init": {"init_weight": np.sqrt(0.2)}}} if part != "model" else {}
    )


def write(path, class_name, init_kwargs, weights, protocol=4, **beside):
    """Write a network pickle with all that upstream's snapshots hold, and `beside`; return its path."""
    content = {
        "ema": network(class_name, init_kwargs, weights),
        "loss_fn": Persistent("EDMLoss", P_mean=-1.2, P_std=1.2, sigma_data=0.5),
        "augment_pipe": Persistent("AugmentPipe", Hz_geom=np.ones((3, 3)), p=0.12),
        "dataset_kwargs": {"class_name": "training.dataset.ImageFolderDataset", "path": "cifar10.zip"},
        **beside,
    }
    with upstream():
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def golden(folder, name, protocol=4, **beside):
    """Write the network of a golden case as a pickle."""
    case = next(case for case in CASES if case["name"] == name)
    return write(folder / f"{name}.pkl", case["class_name"], case["init_kwargs"], arrays(case)[0], protocol, **beside)
