"""The options of a run, each declared once with its default, help text, flag and role in keys and reports."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from solverbench import plugins
from solverbench.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from solverbench.method.solver import Solver
    from solverbench.teachers.teacher import Teacher

AUTO = "auto"
"""Value of `batch` that asks for a measured batch size."""

CELLS, NUMBERS, METRICS, FILES, WORK = "cells", "numbers", "metrics", "files", "work"
"""Groups of options.

CELLS choose the cells. NUMBERS and METRICS change what is computed for a cell, so different values give different
report folders. FILES and WORK change no number; a report's command states FILES, but not WORK.
"""


@dataclass(frozen=True)
class Option:
    """One option of a run.

    Args:
        name: name of the field and of the keyword argument.
        default: default value.
        help: description for the command line and `help(sb.run)`.
        group: group of options, see `CELLS`.
        metavar: placeholder of the value in the help text.
        choices: the allowed values; empty if not limited to a few.
        unset: description of the default, if its value doesn't say enough.
    """

    name: str
    default: Any
    help: str
    group: str
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    unset: str = ""

    @property
    def flag(self) -> str:
        """The flag on the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def about(self) -> str:
        """The help text, with `unset` as the default if given."""
        return f"{self.help}  [default: {self.unset}]" if self.unset else self.help

    def words(self, value: Any) -> list[str]:
        """Return the command-line words that set it to `value`; none for None, or for a flag that is off."""
        if value is None:
            return []
        if isinstance(value, bool):
            off = [] if self.default is False else [f"--no-{self.flag[2:]}"]
            return [self.flag] if value else off
        return [self.flag, _text(value)]


def _about(
    group: str, about: str, *, metavar: str | None = None, choices: tuple[str, ...] = (), unset: str = ""
) -> dict[str, Any]:
    """Return the metadata of a field of `RunOptions`; the arguments are those of `Option`."""
    return {"help": about, "group": group, "metavar": metavar, "choices": choices, "unset": unset}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of `run` and `plan`, on the command line and in Python.

    A new option needs a field here and the code that uses it. The flag, the argument of `sb.run`, the key of a config
    file, the command in a report, the name of the report's folder and, for an option of NUMBERS, the entry in each
    cell's key and the tag in the report follow from the field.
    """

    solvers: str | Solver | Sequence[str | Solver] = field(
        default="gas,dpm",
        metadata=_about(
            CELLS,
            "Specs joined with commas, such as gas,dpm:order=2. 'dpm:order=2|3' means both orders; quote the |.",
            metavar="LIST",
        ),
    )
    nfe: str | int | Sequence[int] = field(
        default="3-10",
        metadata=_about(CELLS, "Numbers of denoiser calls, such as 3-10, 3,5,8 or 4-10:2.", metavar="RANGE"),
    )
    teachers: str | Teacher | Sequence[str | Teacher] = field(
        default="digits",
        metadata=_about(
            CELLS,
            "Teachers joined with commas: names, checkpoints or TOML files. 'shapes:guidance=1|2' means both values.",
            metavar="LIST",
        ),
    )
    samples: int | None = field(
        default=None, metadata=_about(NUMBERS, "Images per replicate, a multiple of 10.", metavar="N", unset="10000")
    )
    replicates: int | None = field(
        default=None, metadata=_about(NUMBERS, "Repetitions, each with its own image seeds.", metavar="R", unset="3")
    )
    seeds: range | str | None = field(
        default=None,
        metadata=_about(NUMBERS, "Seeds of the images, both ends included.", metavar="FIRST-LAST", unset="from 50000"),
    )
    full: bool = field(
        default=False,
        metadata=_about(
            NUMBERS, "Compare every image with the teacher's own, not only the first 2000 of each replicate."
        ),
    )
    exact: bool | None = field(
        default=None,
        metadata=_about(
            NUMBERS,
            "Compare 1000 images per replicate with the exact solution of the teacher's ODE.",
            unset="on mixture only",
        ),
    )
    batch: int | str | None = field(
        default=None,
        metadata=_about(
            NUMBERS,
            "Images per denoiser call; auto measures which number is fastest on this machine.",
            metavar="B|auto",
            unset="500",
        ),
    )
    train: str | None = field(
        default=None,
        metadata=_about(
            FILES,
            "First train, by their recipes, the learned solvers that have no parameters yet.",
            choices=("missing",),
        ),
    )
    metrics: str | Sequence[str] | None = field(
        default=None,
        metadata=_about(
            METRICS,
            "Metrics joined with commas, such as fid,kid,psnr_teacher; 'solverbench list metrics' shows all.",
            metavar="LIST",
            unset="the teacher's own",
        ),
    )
    reference: str | None = field(
        default=None,
        metadata=_about(
            METRICS,
            "Real images that samples are compared with: a folder, a zip, an .npz, an .npy or a data set of Hugging "
            "Face; or their stored statistics.",
            metavar="NAME|FILE|FOLDER",
            unset="the teacher's own, or those stored under its name",
        ),
    )
    extractor: str | None = field(
        default=None,
        metadata=_about(
            METRICS,
            "Features: for FID a version of Inception (legacy_tensorflow, clean, legacy_pytorch), for frechet_data and "
            "similar metrics any other of 'solverbench list extractors'.",
            metavar="NAME",
            unset="legacy_tensorflow, or the teacher's own",
        ),
    )
    quantiser: str | None = field(
        default=None,
        metadata=_about(
            METRICS,
            "Rule that converts float images to uint8: edm-round or adm-floor.",
            metavar="RULE",
            unset="the teacher's, or edm-round",
        ),
    )
    protocol: str | None = field(
        default=None,
        metadata=_about(
            NUMBERS,
            "Named protocol with one replicate: smoke (250 images), quick (5000) or paper (50000).",
            metavar="NAME",
        ),
    )
    device: str = field(default="cpu", metadata=_about(NUMBERS, "Device: cpu, cuda or cuda:0."))
    out: str | Path = field(default="runs", metadata=_about(FILES, "Results folder.", metavar="DIR"))
    timeout_cell: float | None = field(
        default=None,
        metadata=_about(WORK, "Stop a cell after this time and report it as failed.", metavar="SECONDS"),
    )
    workers: int | None = field(
        default=None,
        metadata=_about(
            WORK,
            "Number of tasks that run in parallel; it changes no result.",
            metavar="N",
            unset="one per core or GPU",
        ),
    )
    engine: str = field(
        default="local",
        metadata=_about(
            WORK,
            "local: tasks run in threads of this process, with --device cuda on every GPU. ray: on a Ray cluster.",
            choices=("local", "ray"),
        ),
    )
    ray_address: str | None = field(
        default=None,
        metadata=_about(
            WORK, "Address of the Ray cluster.", metavar="HOST:PORT", unset="a cluster started on this machine"
        ),
    )
    gpus_per_worker: float | None = field(
        default=None,
        metadata=_about(WORK, "GPUs per Ray worker; with 0.5, two workers share a GPU.", metavar="F", unset="1"),
    )

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            _check_type(each.name, str(each.type), getattr(self, each.name))
            if isinstance(value := getattr(self, each.name), list):
                object.__setattr__(self, each.name, tuple(value))

    def changed(self, group: str) -> dict[str, Any]:
        """Return the options of a group that differ from their defaults, by name."""
        fields = [each for each in dataclasses.fields(self) if each.metadata["group"] == group]
        return {each.name: value for each in fields if (value := getattr(self, each.name)) != each.default}

    @property
    def of_numbers(self) -> RunOptions:
        """The options with only those of NUMBERS set, which a cell's results depend on besides its metrics."""
        return type(self)(**self.changed(NUMBERS))

    @property
    def selection(self) -> dict[str, Any]:
        """Options that change numbers besides the cells, as plain JSON values; part of the report folder's hash."""
        metrics = {name: value for name, value in self.changed(METRICS).items() if value}
        judging = {"judging": metrics} if metrics else {}
        kind = self.device.partition(":")[0]
        return {**self.changed(NUMBERS), "full": self.full, **judging, "device": kind}

    def command(self) -> str:
        """Return the equivalent command line; options of WORK are left out, as they change nothing in the results."""
        words = ["solverbench", "run", *plugins.flags()]
        for name, option in declared(type(self)).items():
            words += [] if option.group == WORK else option.words(getattr(self, name))
        return shlex.join(words)


KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "int": (Integral, "a whole number"),
    "float": (Real, "a number"),
    "bool": (bool, "True or False"),
    "str": (str, "text"),
    "Path": (PurePath, "a path"),
    "range": (range, "a range"),
    "Sequence[str]": ((list, tuple), "a list"),
    "None": (type(None), "None"),
}
"""The types that options are annotated with, and what they are called; other ones are checked where they are used."""


def _check_type(name: str, annotation: str, value: Any) -> None:
    """Check a value from Python against an option's annotation.

    Raises:
        UserError: it is of another type.
    """
    words = annotation.split(" | ")
    if not all(word in KINDS for word in words):
        return
    allowed = [KINDS[word] for word in words]
    number = isinstance(value, bool) and "bool" not in words  # True is a whole number to Python
    if number or not any(isinstance(value, kind) for kind, _ in allowed):
        said = " or ".join(about for _, about in allowed)
        raise UserError(asked=f"{name} {value!r}", wrong=f"of type {type(value).__name__}", remedy=f"give {said}")


def declared(cls: type[RunOptions] = RunOptions) -> dict[str, Option]:
    """Return the options by name, in the order of their fields."""
    return {each.name: Option(each.name, each.default, **each.metadata) for each in dataclasses.fields(cls)}


def spans(numbers: Sequence[int]) -> list[str]:
    """Return the sorted numbers as ranges: ["3-6", "9"]."""
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][-1] + 1:
            found[-1].append(number)
        else:
            found.append([number])
    return [str(span[0]) if len(span) == 1 else f"{span[0]}-{span[-1]}" for span in found]


def _text(value: Any) -> str:
    """Return a value as command-line text; a Solver or Teacher by its spec or name."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        whole = all(isinstance(each, int) for each in value)
        return ",".join(spans(value) if whole else map(_text, value))
    return str(value.spec or value.name) if hasattr(value, "spec") else str(value)
