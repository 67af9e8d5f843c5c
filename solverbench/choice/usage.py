"""The files with which a pick is used: its exports, and a script that makes an image with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from solverbench import seeds
from solverbench.choice import native
from solverbench.errors import UserError
from solverbench.export import export, frames
from solverbench.export.export import MODULE, Exported
from solverbench.method.spec import make
from solverbench.teachers.families.pipelines.arguments import IMAGE
from solverbench.teachers.teacher import Pipeline, Teacher

KINDS = ("json", "py", "k-diffusion", "sigmas", "diffusers")
"""What a pick can be exported as."""

SCRIPT = "use.py"
"""The name of the script."""

NATIVE = "native"
"""The folder of the configuration of diffusers' own scheduler, where it has the pick."""


def check_kinds(kinds: Sequence[str]) -> None:
    """Check the names of exports.

    Raises:
        UserError: one is unknown.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(asked=f"--export {kind}", wrong="isn't a kind of export", remedy=f"use {', '.join(KINDS)}")


def notes(kinds: Sequence[str], teacher: Teacher) -> list[str]:
    """Return what a user of the exports should know."""
    if "diffusers" not in kinds or frames.own(teacher):
        return []
    return ["the exported scheduler is for a network that takes sigma and predicts the image from x0 + sigma n"]


def texts(spec: str, nfe: int, teacher: Teacher, kinds: Sequence[str], out: Path) -> dict[str, str]:
    """Return the files for a solver by name: each of `kinds`, and the script.

    Args:
        out: results folder, searched for trained solvers and searched grids.

    Raises:
        UserError: it can't be exported.
    """
    exported = export.collect(make(spec), nfe, teacher, out)
    found: dict[str, str] = {}
    for kind in kinds:
        found |= _export(kind, exported, teacher)
    head = f'"""{spec} with {nfe} calls, chosen for {teacher.shown}."""\n\n'
    if "diffusers" in kinds and teacher.pipeline is not None and frames.own(teacher):
        own = None if exported.threshold else native.config(exported.tableau, teacher)
        if own is not None:
            found[f"{NATIVE}/scheduler_config.json"] = json.dumps(own, indent=2, sort_keys=True) + "\n"
        return found | {SCRIPT: head + _in_pipeline(nfe, teacher, teacher.pipeline, own)}
    return found | {SCRIPT: head + _alone(spec, nfe, teacher, out)}


def _export(kind: str, exported: Exported, teacher: Teacher) -> dict[str, str]:
    """Return file name to text of one export."""
    if kind == "json":
        return {"solver.json": export.as_json(exported)}
    if kind == "py":
        return {"solver.py": export.as_python(exported)}
    if kind == "k-diffusion":
        return {"k_diffusion_sampler.py": export.as_k_diffusion(exported)}
    if kind == "sigmas":
        levels = [*exported.tableau.levels[:-1].tolist(), 0.0]
        return {"sigmas.txt": ", ".join(f"{each:.6g}" for each in levels) + "\n"}
    return {f"scheduler/{name}": text for name, text in export.as_scheduler_folder(exported, teacher).items()}


def _in_pipeline(nfe: int, teacher: Teacher, pipeline: Pipeline, own: Mapping[str, Any] | None) -> str:
    """Return a script that runs the user's pipeline with the pick's scheduler; it makes the image of `sample`.

    Args:
        own: configuration of diffusers' own scheduler; None for the exported class.
    """
    call, more = _call(teacher, pipeline), ""
    noise = f"torch.Generator().manual_seed({seeds.EVALUATION_START})"
    if pipeline.state is None:
        call.append(f"generator={noise}")
    else:
        shape = ", ".join(map(str, (1, *pipeline.state)))
        more = f"noise = torch.randn({shape}, generator={noise}) * pipe.scheduler.init_noise_sigma\n"
        call.append("latents=noise")
    images = [part for part in call if "load_image(" in part]
    stored = f"torch_dtype=torch.{teacher.arithmetic.split()[0]}"
    stored += f", variant={pipeline.variant!r}" if pipeline.variant else ""
    moved = f'.to("{teacher.device}")' if teacher.device != "cpu" else ""
    name = "TableauScheduler" if own is None else str(own["_class_name"])
    module = MODULE.removesuffix(".py")
    return (
        "import sys\n" * (own is None)
        + "from pathlib import Path\n\nimport torch\nfrom diffusers import "
        + ("DiffusionPipeline\n" if own is None else ", ".join(sorted((name, "DiffusionPipeline"))) + "\n")
        + "from diffusers.utils import load_image\n" * bool(images)
        + f'\nhere = Path(__file__).parent / "{NATIVE if own else "scheduler"}"\n'
        + f"sys.path.insert(0, str(here))\nfrom {module} import {name}\n" * (own is None)
        + f"\npipe = DiffusionPipeline.from_pretrained({str(pipeline.folder.absolute())!r}, {stored}){moved}\n"
        f"pipe.scheduler = {name}.from_pretrained(here)\n"
        f"{more}made = pipe({', '.join([*call, f'num_inference_steps={nfe}'])})[0][0]\n"
        '(made[len(made) // 2] if isinstance(made, list) else made).save("image.png")  # of a video, its middle frame\n'
    )


def _call(teacher: Teacher, pipeline: Pipeline) -> list[str]:
    """Return the arguments of the pipeline's call for the first evaluation seed, as source text."""
    found, first = list[str](), [seeds.EVALUATION_START]
    if teacher.condition is not None and teacher.condition.prompts:
        found.append(f"prompt={teacher.condition.lines(first)[0]!r}")
    if teacher.condition is not None and teacher.condition.classes is not None:
        found.append(f"class_labels={teacher.condition.labels(first, teacher.shape)!r}")
    for key, value in pipeline.call.items():
        image = IMAGE.search(key) and isinstance(value, str)
        found.append(f"{key}=load_image({str(Path(value).absolute())!r})" if image else f"{key}={value!r}")
    return found


def _alone(spec: str, nfe: int, teacher: Teacher, out: Path) -> str:
    """Return a script that samples the teacher by SolverBench."""
    first = seeds.EVALUATION_START
    loaded = f"sb.load_teacher({teacher.spec!r})" if teacher.spec else "...  # the sb.Teacher that was given"
    return (
        "from pathlib import Path\n\nimport solverbench as sb\n\n"
        f"seeds = range({first}, {first + 16})\n"
        f"teacher = {loaded}\n"
        f"tableau = sb.tableau({spec!r}, nfe={nfe}, teacher=teacher, out=Path({str(out.absolute())!r}))\n"
        "plan = tableau.plan_from_noise(teacher.schedule)\n"
        f"denoise = sb.make({spec!r}).adapt(teacher.denoiser(seeds))\n"
        "images = teacher.images(sb.execute(plan, denoise, sb.noise(seeds, teacher)))\n"
        "print(images.shape, images.min(), images.max())\n"
    )
