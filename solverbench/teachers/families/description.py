"""Teachers as data: a checkpoint on disk, described by a TOML file or by options, and read by its family.

A family is a module with `load(description, device) -> Teacher` and `recognises(path) -> bool`, which inspects a file
or folder without executing anything in it. Families are registered in `registries.families`.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from solverbench import options as keywords
from solverbench import registries
from solverbench.errors import MissingError, RecordError, SpecError, UnknownNameError, UserError
from solverbench.teachers import prompt_sets
from solverbench.teachers.families import hub
from solverbench.teachers.prompt_sets import Prompts

if TYPE_CHECKING:
    from solverbench.teachers.arithmetic import Arithmetic
    from solverbench.teachers.conditions import Condition
    from solverbench.teachers.teacher import Teacher

Settings = TypeVar("Settings")

PATHS = ("checkpoint", "prompts")
"""Fields of a description that are paths, relative to the TOML file, or in a spec to the working directory."""


@dataclass(frozen=True)
class Description:
    """A teacher as data. Every field but `checkpoint` has a default; None means the family's default.

    Args:
        checkpoint: file or folder of the checkpoint.
        name: name, one word; derived from the file's name if empty.
        family: family in `registries.families`; recognised from the file if empty.
        files: further files of the family, by role.
        classes: class policy of a class-conditional model; see `Condition`.
        prompts: file of prompts, or a named set's; see `prompt_sets`.
        prompt_count: minimum number of prompts, as a protocol requires.
        negative: negative prompt, from which guidance leads away. None if there is none, which some networks are told
            by zeros; "" is the encoded empty prompt.
        guidance: guidance weight; 1 is no guidance.
        guidance_rescale: share of guidance's rescaling; see `Condition`. None is none.
        dtype, channels_last, compile: see `Arithmetic`.
        dtypes: number formats of parts that have another than `dtype`, for the family `pipeline`.
        sigma_min, sigma_max: levels where sampling ends and starts, in the EDM frame.
        sampler, sampler_nfe: teacher sampler and its calls.
        options: the family's own options, read by `settings`.
        call: arguments of the pipeline's own call, for the family `pipeline`.
        results: results folder in which a family may keep what is costly to make again, such as encoded prompts; None
            if there is none. It changes no number.
    """

    checkpoint: Path
    name: str = ""
    family: str = ""
    files: Mapping[str, Path] = field(default_factory=dict)
    classes: str | None = None
    prompts: Path | None = None
    prompt_count: int | None = None
    negative: str | None = None
    guidance: float | None = None
    guidance_rescale: float | None = None
    dtype: str = "fp32"
    channels_last: bool = False
    compile: bool = False
    sigma_min: float | None = None
    sigma_max: float | None = None
    sampler: str | None = None
    sampler_nfe: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    results: Path | None = None

    @property
    def arithmetic(self) -> Arithmetic:
        """The arithmetic of the network."""
        from solverbench.teachers.arithmetic import Arithmetic

        return Arithmetic(self.dtype, self.channels_last, self.compile)

    def settings(self, declared: type[Settings]) -> Settings:
        """Return the family's own options as an instance of the dataclass `declared`, with its defaults.

        Raises:
            SpecError: an undeclared option or a value of the wrong type.
        """
        beside = {*keywords.of(Description), *PATHS} - {"checkpoint"}
        return declared(**keywords.read(f"{self.name} (family {self.family})", declared, self.options, beside))

    def file(self, what: str) -> Path | None:
        """Return one of the further files; None if the description does not name it.

        Raises:
            MissingError: the named file does not exist.
        """
        path = self.files.get(what)
        if path is not None and not path.exists():
            raise MissingError(
                asked=self.name,
                wrong=f"its {what} {path} isn't there",
                remedy=f"correct files.{what} of its description",
            )
        return path

    def condition(
        self, *, count: int = 0, text: bool = False, absent: bool = False, rescaled: bool = False
    ) -> Condition | None:
        """Return the condition of the images; None for a network without a condition input.

        Args:
            count: number of the network's classes; 0 if it has none.
            text: whether it takes a prompt.
            absent: whether it has an unconditional input, which guidance needs.
            rescaled: whether its family rescales guidance.

        Raises:
            UserError: the network does not support the policy, prompts or guidance, or it needs prompts and there are
                none or fewer than `prompt_count`.
        """
        from solverbench.teachers.conditions import Condition

        if self.classes is not None and not count:
            raise UserError(
                asked=f"{self.name}:classes={self.classes}",
                wrong="the network has no classes",
                remedy="leave classes out",
            )
        if not text and (self.prompts is not None or self.negative is not None):
            raise UserError(
                asked=self.name, wrong="prompts are given, but this network takes no text", remedy="leave them out"
            )
        if not absent and self.guidance not in (None, 1.0):
            raise UserError(
                asked=f"{self.name}:guidance={self.guidance:g}",
                wrong="this network has no unconditional input",
                remedy="leave guidance out",
            )
        if self.guidance_rescale and not (absent and rescaled):
            raise UserError(
                asked=self.name, wrong=f"guidance_rescale {self.guidance_rescale:g}, but this network doesn't take it",
                remedy="leave guidance_rescale out",
            )  # fmt: skip
        if not count and not text:
            return None
        told = self._prompts() if text else Prompts(())
        policy = (self.classes or "seed") if count else None
        weight = 1.0 if self.guidance is None else self.guidance
        about = policy, count, told.lines, self.negative or "", weight, self.guidance_rescale or 0.0
        return Condition(*about, told.negatives)

    def _prompts(self) -> Prompts:
        if self.prompts is None:
            raise UserError(
                asked=self.name, wrong="needs prompts",
                remedy="add :prompts=FILE to it, a text file with one prompt per line, or :prompts=small, a set of 64",
            )  # fmt: skip
        try:
            told = prompt_sets.read(self.prompts)
        except (MissingError, RecordError) as error:
            asked = f"{self.name}:prompts={self.prompts}"
            raise type(error)(asked=asked, wrong=error.wrong, remedy=error.remedy) from None
        if len(told.lines) < (least := max(self.prompt_count or 1, 1)):
            raise UserError(
                asked=f"{self.name}:prompts={self.prompts}",
                wrong=f"has {len(told.lines)} prompts, but {least} are asked for",
                remedy="give more, or another prompt_count",
            )
        return told


def read(path: Path, given: Mapping[str, str]) -> Description:
    """Return the description in a TOML file or of a checkpoint, changed by options.

    Args:
        path: .toml file, whose paths are relative to it, or a checkpoint's file or folder.
        given: options of a spec, which override the file's. Keys that are no fields are the family's own options.

    Raises:
        MissingError: there is no such file.
        SpecError: an unknown key, a value of the wrong type, or a file that is not TOML.
    """
    if not path.exists():
        raise MissingError(
            asked=f"teacher {str(path)!r}", wrong="there is no such file or folder",
            remedy=_download(str(path)) or "give a checkpoint or a TOML file",
        )  # fmt: skip
    asked, described = str(path), path.suffix == ".toml"
    table = _table(path) if described else {"checkpoint": path.name}
    others: Any = table.pop("files", {})
    own: Any = table.pop("options", {})
    call: Any = table.pop("call", {})
    if not all(isinstance(each, dict) for each in (others, own, call)):
        raise SpecError(
            asked=asked, wrong="'files', 'options' and 'call' are tables",
            remedy="write [files], [options] or [call] above their keys",
        )  # fmt: skip
    dtypes = _formats(asked, table)
    if "checkpoint" not in table:
        raise SpecError(
            asked=asked, wrong="has no checkpoint", remedy="write checkpoint = 'FILE', the network's file or folder"
        )
    here = path.resolve().parent
    known = {*keywords.of(Description), *PATHS}
    changes = {key: text for key, text in given.items() if key in known}
    values = _resolved(asked, table, here) | _resolved(asked, changes, Path.cwd())
    paths = {key: values.pop(key) for key in PATHS if key in values}
    plain = keywords.read(asked, Description, values)
    plain["name"] = plain.get("name") or _word(path.stem if path.is_file() else path.resolve().name)
    return Description(
        files={key: _path(asked, key, value, here) for key, value in others.items()},
        options={**own, **{key: text for key, text in given.items() if key not in known}},
        call=call,
        dtypes={} if "dtype" in given else dtypes,
        **paths,
        **plain,
    )


def _formats(asked: str, table: dict[str, Any]) -> dict[str, str]:
    """Take a table of number formats by part out of a description, and leave its default.

    Raises:
        SpecError: a value that isn't text, or no number format.
    """
    from solverbench.teachers.arithmetic import Arithmetic

    if not isinstance(table.get("dtype"), dict):
        return {}
    found: dict[str, Any] = dict(table.pop("dtype"))
    for part, text in found.items():
        if not isinstance(text, str):
            raise SpecError(asked=asked, wrong=f"dtype.{part} = {text!r} isn't text", remedy="write it in quotes")
        Arithmetic(text)
    table["dtype"] = found.pop("default", Description.dtype)
    return found


def load(path: Path, given: Mapping[str, str], device: str, results: Path | None = None) -> Teacher:
    """Return the teacher of a TOML description or a checkpoint, with options.

    Args:
        results: see `Description`.

    Raises:
        MissingError, SpecError: see `read`.
        UnknownNameError: there is no such family.
        RecordError: the checkpoint is damaged, unsafe, or of another family.
        UserError: the family refuses the description; a one-line reason.
    """
    description = dataclasses.replace(read(path, given), results=results)
    if not description.checkpoint.exists():
        given_as = str(description.checkpoint.relative_to(path.resolve().parent)) if path.suffix == ".toml" else ""
        raise MissingError(
            asked=description.name, wrong=f"its checkpoint {description.checkpoint} isn't there",
            remedy=_download(given_as) or "correct the path",
        )  # fmt: skip
    if not description.family:
        found = recognise(description.checkpoint)
        found = "pipeline" if description.call and found == "diffusers" else found
        description = dataclasses.replace(description, family=found)
    if description.family not in registries.families:
        raise UnknownNameError(
            asked=description.name,
            wrong=f"family {description.family!r} isn't known",
            remedy=f"use one of {', '.join(registries.families)}",
        )
    if description.call and description.family != "pipeline":
        raise SpecError(
            asked=description.name, wrong=f"[call] is the family pipeline's, and this is {description.family}",
            remedy='leave it out, or write family = "pipeline"',
        )  # fmt: skip
    if description.dtypes and description.family != "pipeline":
        raise SpecError(
            asked=description.name, wrong=f"dtype is a table, but this is family {description.family}",
            remedy='write one format, as in dtype = "bf16", or family = "pipeline"',
        )  # fmt: skip
    for dtype in {description.dtype, *description.dtypes.values()}:
        dataclasses.replace(description.arithmetic, dtype=dtype).check(device)
    teacher: Teacher = registries.families.get(description.family)(description, device)
    return teacher


def recognise(path: Path) -> str:
    """Return the family of a checkpoint's file or folder by inspecting it; nothing in it is executed.

    Raises:
        RecordError: no family recognises it, or several do.
    """
    if path.is_dir() and not any(path.iterdir()):
        raise RecordError(
            asked=path, wrong="an empty folder", remedy="give a checkpoint's file, or the folder that holds its files"
        )
    found = [name for name in registries.families if _recognised(name, path)]
    if not found and (error := _named(path)) is not None:
        raise error
    if len(found) != 1:
        what = f"could be {' or '.join(found)}" if found else "no family recognises this checkpoint"
        example = f"{path}:family={found[0] if found else 'edm'}"
        raise RecordError(asked=path, wrong=what, remedy=f"give its family, as in {example}. {_families()}")
    return found[0]


def _recognised(name: str, path: Path) -> bool:
    try:
        return bool(_module(name).recognises(path))
    except UserError:
        raise
    except Exception:  # a family that stumbles over a damaged or foreign file doesn't know it
        return False


def _named(path: Path) -> RecordError | None:
    from solverbench.teachers.families import names

    return names.unknown(path)


def _download(text: str) -> str:
    """Return how to get a hub repository if `text` reads like its id, else an empty text."""
    from solverbench.teachers.families import names

    hub = names.hub_id(text)
    return names.download(hub) if hub else ""


def _families() -> str:
    return f"The families are {', '.join(registries.families)}."


def _module(name: str) -> Any:
    return importlib.import_module(registries.families.get(name).__module__)


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SpecError(asked=path, wrong=f"can't be read as TOML ({error})", remedy="see docs/teachers.md") from None


def _resolved(asked: str, table: Mapping[str, Any], here: Path) -> dict[str, Any]:
    return {key: _path(asked, key, value, here) if key in PATHS else value for key, value in table.items()}


def _path(asked: str, key: str, value: Any, here: Path) -> Path:
    if not isinstance(value, str):
        raise SpecError(asked=asked, wrong=f"{key} = {value!r} isn't a path", remedy="write it as text, in quotes")
    if key == "checkpoint" and value.startswith(hub.PREFIX):
        return hub.snapshot(value)[1]
    path = here / Path(value).expanduser()
    if key == "prompts" and not path.exists() and (named := prompt_sets.find(value)) is not None:
        return named
    return path


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._=+-]+", "-", text).strip("-.") or "teacher"
