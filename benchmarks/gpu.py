"""Measurements that need a GPU: graphs, cells and grids against sample-to-PNG-then-FID, precision, training.

python benchmarks/gpu.py [--diff-sampler PATH] [--gas PATH]: JSON lines, or one that says that there is no GPU. The
network is EDM's for 32x32 images (SongUNet, 55.7 million parameters) with random weights; features come from a stack of
convolutions of about Inception's cost. --quick tests the script with tiny sizes, on a CPU if necessary; its figures are
meaningless.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import comparators
import executor
import harness
import numpy as np
import sharing
import torch
import training
from PIL import Image
from scipy import linalg
from torch import Tensor, nn

import solverbench as sb
from solverbench import seeds
from solverbench.bench import run as runner
from solverbench.bench.run_options import RunOptions
from solverbench.method import execution
from solverbench.metrics.evaluation import Evaluation, Reference
from solverbench.metrics.frechet import Moments
from solverbench.teachers.families.edm_networks import Preconditioned

EDM = {
    "img_resolution": 32, "img_channels": 3, "label_dim": 0, "model_type": "SongUNet", "model_channels": 128,
    "channel_mult": (2, 2, 2), "num_blocks": 4, "attn_resolutions": (16,), "embedding_type": "positional",
    "encoder_type": "standard", "decoder_type": "standard", "channel_mult_noise": 1, "resample_filter": (1, 1),
    "augment_dim": 9, "dropout": 0.0,
}  # fmt: skip
TINY = EDM | {"img_resolution": 16, "model_channels": 32, "channel_mult": (1,), "num_blocks": 1}
CELL, GRID = 1.3, 2.0
"""Goals for images per second relative to the anchors' scripts: of a cell, and of the six solvers together at NFE 4."""


@dataclass(frozen=True)
class Setting:
    """The device, networks and sizes of a measurement."""

    device: str
    network: nn.Module
    extractor: nn.Module
    images: int
    batches: Sequence[int]
    pairs: int
    rehearsal: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Image shape (C, H, W)."""
        side = int(self.network.shape[1])  # type: ignore[index]
        return 3, side, side

    def done(self) -> None:
        """Wait until the device has finished."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def timed(self, ways: dict[str, Callable[[], object]]) -> dict[str, harness.Times]:
        """Return the times of each way, including the device's work."""

        def waited(way: Callable[[], object]) -> Callable[[], object]:
            return lambda: (way(), self.done())

        return harness.alternate({name: waited(way) for name, way in ways.items()}, self.pairs)

    @property
    def teacher(self) -> sb.Teacher:
        """The network as a teacher, evaluated with the stack's features."""

        def features(levels: Tensor) -> Tensor:
            with torch.no_grad():
                found: Tensor = self.extractor(levels.float() / 127.5 - 1)
            return found

        width = int(self.extractor.width)  # type: ignore[arg-type]
        moments = Moments.of(np.random.default_rng(0).normal(size=(2 * width, width)))
        reference = Reference(moments, "made up", "0" * 64)
        evaluation = Evaluation(features, "a stack of convolutions", "edm-round", reference, None)
        about = {"device": self.device, "sampler": "euler", "sampler_nfe": 4, "evaluation": evaluation}
        return sb.Teacher(self.network, "edm-size", self.shape, identity="random weights", **about)  # type: ignore[arg-type]


class Stack(nn.Module):
    """Convolutions at 299x299 of about 6 GMAC per image, as in Inception-v3, to `width` features."""

    def __init__(self, width: int, side: int = 299) -> None:
        super().__init__()
        self.width, self.side = width, side
        widths = [3, 64, 192, 288, 768] if side > 100 else [3, 8, 8, 8, 8]
        strides = [2, 2, 1, 2]
        convolutions = [nn.Conv2d(a, b, 3, s, 1) for a, b, s in zip(widths[:-1], widths[1:], strides, strict=True)]
        layers = [layer for convolution in convolutions for layer in (convolution, nn.ReLU())]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the features [B, width] of images in [-1, 1]."""
        found: Tensor = self.layers(nn.functional.interpolate(x, self.side, mode="bilinear"))
        return found


def measure(options: harness.Options) -> Iterator[harness.Line]:
    """Yield the figures."""
    if not torch.cuda.is_available() and not options.quick:
        yield {"benchmark": "gpu", "verdict": "not measured: no GPU here"}
        return
    setting = _setting(options)
    about = {"benchmark": "gpu", "device": setting.device, "rehearsal": setting.rehearsal}
    about["parameters"] = sum(each.numel() for each in setting.network.parameters())
    for part in (_executor, _pipeline, _precision, _training):
        for line in part(setting, options):
            yield about | line | ({"verdict": "rehearsal"} if setting.rehearsal else {})


def _setting(options: harness.Options) -> Setting:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    network = Preconditioned("EDMPrecond", TINY if options.quick else EDM)
    for parameter in network.parameters():  # parameters that are initialised to 0 would make the work trivial
        nn.init.normal_(parameter, std=0.02)
    network = network.to(device).eval().requires_grad_(False)
    stack = (Stack(16, 32) if options.quick else Stack(2048)).to(device).eval().requires_grad_(False)
    sizes = (40, (4,)) if options.quick else (10_000, (64, 256))
    return Setting(device, network, stack, *sizes, pairs=options.pairs, rehearsal=options.quick)


@torch.no_grad()
def _executor(setting: Setting, options: harness.Options) -> Iterator[harness.Line]:
    """Yield eager and captured execution against the same number of bare forwards."""
    plan = executor.tableau_of("dpm:order=3").plan(80.0)
    for batch in setting.batches:
        noise = seeds.noise(range(batch), setting.shape).to(setting.device)
        levels = [torch.tensor(sigma, dtype=torch.float64) for sigma in plan.sigmas]

        def bare(noise: Tensor = noise, levels: list[Tensor] = levels) -> None:
            for level in levels:
                setting.network(noise, level)

        ways = {"bare": bare, "eager": lambda noise=noise: sb.execute(plan, setting.network, noise)}
        apart = None
        if setting.device == "cuda":
            captured = execution.Captured(plan, setting.network, noise)
            apart = float((captured(noise) - ways["eager"]()).abs().max())  # type: ignore[operator]
            ways["captured"] = lambda noise=noise, captured=captured: captured(noise)
        times = setting.timed(ways)
        ratio = harness.Ratio.of(times["eager"].wall, times["bare"].wall)
        goal = 1.02 if batch >= 256 else 1.05
        yield {
            "case": "executor", "batch": batch, "nfe": plan.nfe,
            "seconds": {name: each.as_dict() for name, each in times.items()}, "eager_over_bare": ratio.as_dict(),
            "captured_over_eager": "captured" in times
            and harness.Ratio.of(times["captured"].wall, times["eager"].wall).as_dict(),
            "captured_differs_by": apart, "goal": goal, "verdict": ratio.verdict(at_most=goal),
        }  # fmt: skip


def _pipeline(setting: Setting, options: harness.Options) -> Iterator[harness.Line]:
    """Yield images per second of a cell and of the six solvers at NFE 4, against the anchors' two scripts."""
    batch, nfe, teacher = setting.batches[-1], 4, setting.teacher
    asked: dict[str, Any] = {
        "nfe": nfe, "teachers": teacher, "samples": setting.images, "replicates": 1, "batch": batch, "exact": False,
        "device": setting.device, "workers": 1, "seeds": range(50_000, 50_000 + setting.images),
    }  # fmt: skip
    core = ",".join(f"{name}:grid=polynomial" for name in sharing.CORE)
    clone = options.clones.get("diff-sampler")
    sampler = next(each for each in comparators.diff_sampler(clone) if "dpm_pp(3)" in each.name) if clone else None
    with tempfile.TemporaryDirectory() as place:
        count = iter(range(10**6))

        def ours(solvers: str) -> None:
            out = Path(place) / str(next(count))
            runner.run(RunOptions(**asked, solvers=solvers, out=out))

        ways = {
            "cell": lambda: ours("dpm:order=3:grid=polynomial"),
            "grid": lambda: ours(core),
            "anchor": lambda: _anchor(setting, sampler, nfe),
        }
        times = setting.timed(ways)
    for name, cells, goal in (("cell", 1, CELL), ("grid", len(sharing.CORE), GRID)):
        ratio = harness.Ratio([cells * a / b for a, b in zip(times["anchor"].wall, times[name].wall, strict=True)])
        yield {
            "case": f"a {name} against sample-to-PNG-then-FID", "nfe": nfe, "batch": batch, "images": setting.images,
            "cells": cells, "anchor": sampler.source if sampler else "our executor, then PNG and FID as the anchors do",
            "images_per_second_over_anchor": ratio.as_dict(), "goal": goal, "verdict": ratio.verdict(at_least=goal),
            "seconds": {each: times[each].as_dict() for each in (name, "anchor")},
            "ours_makes_beside": "the teacher's own samples of the same noise, and errors against them",
        }  # fmt: skip


@torch.no_grad()
def _anchor(setting: Setting, sampler: comparators.Comparator | None, nfe: int) -> float:
    """Run the anchors' two scripts in one process: images to PNG files, then features, moments, Fréchet distance."""
    tableau = executor.tableau_of("dpm:order=3", nfe)
    levels = torch.cat([tableau.sigmas, tableau.levels[-1:]]).to(setting.device)
    plan = tableau.plan(80.0)
    network = setting.network
    run = sampler.prepare(network, levels, torch.float32) if sampler else lambda x: sb.execute(plan, network, x)
    with tempfile.TemporaryDirectory() as folder:
        for begin in range(0, setting.images, setting.batches[-1]):
            part = range(begin, min(begin + setting.batches[-1], setting.images))
            noise = torch.stack([torch.randn(setting.shape, generator=torch.Generator().manual_seed(k)) for k in part])
            made = (run(noise.to(setting.device)) * 127.5 + 128).clip(0, 255).to(torch.uint8)
            for number, image in zip(part, made.permute(0, 2, 3, 1).cpu().numpy(), strict=True):
                Image.fromarray(image, "RGB").save(Path(folder) / f"{number:06d}.png")
        paths = sorted(Path(folder).iterdir())
        rows = []
        for begin in range(0, len(paths), setting.batches[-1]):
            read = np.stack([np.array(Image.open(path)) for path in paths[begin : begin + setting.batches[-1]]])
            images = torch.from_numpy(read).permute(0, 3, 1, 2).to(setting.device)
            rows.append(setting.extractor(images.float() / 127.5 - 1).double().cpu().numpy())
    features = np.concatenate(rows)
    covariance = np.cov(features, rowvar=False)
    root = linalg.sqrtm(covariance @ np.eye(len(covariance)))
    return float((features.mean(0) ** 2).sum() + np.trace(covariance) + len(covariance) - 2 * np.trace(root.real))


@torch.no_grad()
def _precision(setting: Setting, options: harness.Options) -> Iterator[harness.Line]:
    """Yield forwards per second in each arithmetic relative to float32, and the change of the images."""
    batch, plan = setting.batches[-1], executor.tableau_of("dpm:order=3").plan(80.0)
    noise = seeds.noise(range(batch), setting.shape).to(setting.device)
    plain = sb.execute(plan, setting.network, noise)

    def cast(dtype: torch.dtype) -> Callable[[Tensor, Tensor], Tensor]:
        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            with torch.autocast(setting.device, dtype=dtype):
                found: Tensor = setting.network(x, sigma).float()
            return found

        return denoise

    def tf32(x: Tensor, sigma: Tensor) -> Tensor:
        before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        try:
            found: Tensor = setting.network(x, sigma)
        finally:
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
        return found

    modes = {"bfloat16": cast(torch.bfloat16), "float16": cast(torch.float16), "tf32": tf32}
    for name, denoise in modes.items():
        moved = sb.execute(plan, denoise, noise) - plain
        ways = {"float32": lambda: sb.execute(plan, setting.network, noise)}
        ways["other"] = lambda denoise=denoise: sb.execute(plan, denoise, noise)
        times = setting.timed(ways)
        yield {
            "case": "precision", "arithmetic": name, "batch": batch, "nfe": plan.nfe,
            "speed_over_float32": harness.Ratio.of(times["float32"].wall, times["other"].wall).as_dict(),
            "images_change_by": {"most": float(moved.abs().max()), "rms": float(moved.square().mean().sqrt())},
            "verdict": "no goal",
        }  # fmt: skip


def _training(setting: Setting, options: harness.Options) -> Iterator[harness.Line]:
    """Yield an iteration in each memory mode against GAS's code, and the memory of each."""
    clone, teacher = options.clones.get("gas"), replace(setting.teacher, evaluation=None)
    for nfe in (4, 10):
        ways: dict[str, Callable[[], object]] = {
            memory: training.ours(nfe, memory, teacher=teacher) for memory in ("store", "recompute")
        }
        if clone is not None:
            ways["gas"] = training.theirs(nfe, clone, teacher=teacher)
        times = setting.timed(ways)
        line: harness.Line = {
            "case": "training", "nfe": nfe, "batch": training.BATCH,
            "seconds": {name: each.as_dict() for name, each in times.items()},
            "gigabytes": {name: _held(setting, way) for name, way in ways.items()},
        }  # fmt: skip
        if clone is None:
            yield line | {"verdict": "not measured: no clone of GAS was named (--gas PATH)"}
            continue
        ratio = harness.Ratio.of(times["store"].wall, times["gas"].wall)
        yield line | {"ours_over_gas": ratio.as_dict(), "goal": 1.0, "verdict": ratio.verdict(at_most=1.0)}


def _held(setting: Setting, way: Callable[[], object]) -> float | None:
    """Return the peak memory in GiB that torch allocates on the device during an iteration; None without CUDA."""
    if setting.device != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats()
    way()
    return torch.cuda.max_memory_allocated() / 2**30


if __name__ == "__main__":
    harness.main(measure)
