"""The text of exported files: a plan's numbers, and the code of the ports with their SolverBench imports inlined."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import textwrap
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

from solverbench._version import __version__
from solverbench.export import sums
from solverbench.method import thresholding
from solverbench.method.tableau import Plan

_OURS = re.compile(r"^from (solverbench[\w.]*) import (\w+)\n", re.MULTILINE)
_MYPY = re.compile(r"  # type: ignore\[[\w-]+\]$", re.MULTILINE)


def plain(plan: Plan, spec: str, teacher: str, identity: str, threshold: bool) -> str:
    """Return a module with `sample(denoise, noise)`.

    Args:
        plan: plan whose first column is the weight of unit noise.
        threshold: whether the network's outputs are thresholded.
    """
    helpers = [inspect.getsource(sums.combine)] + [inspect.getsource(thresholding.threshold)] * threshold
    call = "denoise(x, torch.tensor(sigma, dtype=torch.float64))"
    return _PLAIN.format(
        version=__version__,
        spec=spec,
        teacher=teacher,
        identity=identity,
        sigmas=_listed(plan.sigmas, ""),
        rows=_rows(plan.rows, ""),
        helpers="\n\n".join(helpers),
        output=f"threshold({call})" if threshold else call,
    )


def scheduler(config: dict[str, Any] | None = None) -> str:
    """Return a module with the diffusers scheduler; with its numbers given, also `scheduler()`, which returns it."""
    own = "" if config is None else _SCHEDULER.format(config=_dict(config))
    return _copied("diffusers") + own


def scheduler_config(config: dict[str, Any]) -> str:
    """Return the text of scheduler_config.json."""
    return json.dumps({"_class_name": "TableauScheduler", **config}, indent=1, allow_nan=False) + "\n"


def sampler(fields: dict[str, Any], spec: str, teacher: str, identity: str) -> str:
    """Return a module with the k-diffusion sampler and the sampling function."""
    return _copied("k_diffusion") + _SAMPLER.format(
        spec=spec, teacher=teacher, identity=identity, fields=_dict(fields), name=fields["name"]
    )


def _copied(port: str) -> str:
    """Return the code of a port with its SolverBench imports, which are its last imports, inlined."""
    code = resources.files("solverbench.export").joinpath(f"{port}.py").read_text(encoding="utf-8")
    ours = list(_OURS.finditer(code))
    found = [getattr(importlib.import_module(module), name) for module, name in (each.groups() for each in ours)]
    helpers = "\n\n".join(map(inspect.getsource, found))
    head = code[: ours[0].start()].replace('alone."""', f'alone. Written by SolverBench {__version__}."""', 1)
    return _MYPY.sub("", f"{head.rstrip()}\n\n\n{helpers}\n\n{code[ours[-1].end() :].lstrip()}")


def _dict(fields: dict[str, Any]) -> str:
    lines = []
    for key, value in fields.items():
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], (list, tuple)):
            lines.append(f"    {key!r}: [\n{_rows(value, '    ')}    ],\n")
        elif isinstance(value, (list, tuple)):
            lines.append(f"    {key!r}: {_listed(value, '    ')},\n")
        else:
            lines.append(f"    {key!r}: {value!r},\n")
    return "{\n" + "".join(lines) + "}"


def _rows(rows: Iterable[Sequence[float]], indent: str) -> str:
    return "".join(f"{indent}    {_listed(row, indent + '    ')},\n" for row in rows)


def _listed(values: Sequence[float], indent: str) -> str:
    """Return the numbers as a list literal, wrapped to 120 columns."""
    text = f"[{', '.join(map(repr, values))}]"
    if len(text) + len(indent) < 100:
        return text
    inner = textwrap.fill(text[1:-1], 110, initial_indent=f"{indent}    ", subsequent_indent=f"{indent}    ")
    return f"[\n{inner},\n{indent}]"


_PLAIN = '''"""A few-step diffusion solver as numbers; needs torch alone. Written by SolverBench {version}."""

import torch

SPEC = {spec!r}
TEACHER = {teacher!r}
TEACHER_IDENTITY = {identity!r}

# The noise level (EDM frame: x = x0 + sigma n) that the network is told at each call.
SIGMAS = {sigmas}

# Row k: the weights of the unit noise and of the first k outputs, in the k-th input; the last row makes the sample.
WEIGHTS = [
{rows}]


@torch.no_grad()
def sample(denoise, noise):
    """Return samples from unit Gaussian `noise` [B, C, H, W].

    denoise(x, sigma) returns the network's estimate of the clean images from x = x0 + sigma n; sigma is 0-d, float64.
    """
    history = [noise]
    for sigma, row in zip(SIGMAS, WEIGHTS):
        x = combine(row, history)
        history.append({output})
    return combine(WEIGHTS[-1], history)


{helpers}'''

_SCHEDULER = '''

CONFIG = {config}


def scheduler():
    """Return the scheduler: pipe.scheduler = scheduler()."""
    return TableauScheduler(**CONFIG)
'''

_SAMPLER = '''

SPEC = {spec!r}
TEACHER = {teacher!r}
TEACHER_IDENTITY = {identity!r}

SAMPLER = Sampler(**{fields})

# For callers that give levels, and what unit noise is multiplied by to make x.
SIGMAS = torch.tensor(SAMPLER.sigmas)
SCALE = SAMPLER.scale


def {name}(model, x, sigmas=None, extra_args=None, callback=None, disable=None):
    """Return samples: model(x, sigma [B], **extra_args) is the denoised images, x is SCALE times unit noise."""
    return SAMPLER(model, x, sigmas, extra_args, callback, disable)
'''
