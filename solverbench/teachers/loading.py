"""Loading of a teacher by name, description or checkpoint path."""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import re
from pathlib import Path

from solverbench import options as keywords
from solverbench import plugins, registries, userdata
from solverbench.errors import PluginError, UnknownNameError
from solverbench.teachers.families import description, hub
from solverbench.teachers.teacher import Teacher, _labelled, _parts, shortened
from solverbench.wording import printable


def load_teacher(text: str, device: str = "cpu", *, out: Path | str | None = None) -> Teacher:
    """Return the teacher that `text` names.

    Args:
        text: registered or imported name, or path of a TOML description or of a checkpoint's file or folder, whose
            family is recognised from its content; or `hf:OWNER/NAME@REVISION`, a repository in the hub's cache. Options
            may follow, as in `shapes:guidance=2` or `model.pkl:classes=fixed:3:dtype=fp16`.
        out: results folder, in which encoded prompts are looked up and kept; none are if None.

    What a user should know about how it was read (`Teacher.notes`) is logged as warnings, one line each.

    Raises:
        UnknownNameError: there is no such teacher.
        PluginError: a plugin offers it but cannot be loaded.
        SpecError: an unknown option or an invalid value.
        MissingError, RecordError: its files are missing, damaged, or of no known family.
    """
    head, given = _parts(text)
    results = None if out is None else Path(out)
    spec = ":".join([head, *(f"{key}={value}" for key, value in sorted(given.items()))])
    if head in registries.teachers:
        load = plugins.get(registries.teachers, head)
        options = keywords.read(head, load, given)
        with plugins.blamed(registries.teachers, head):
            teacher = load(device, **options)
    elif head.startswith(hub.PREFIX):
        name, path = hub.snapshot(head)
        teacher = description.load(path, {"name": name.partition("/")[2], **given}, device, results)
        spec = hub.pinned(name, path) + spec.removeprefix(head)
    elif Path(head).name == head and (imported := userdata.teachers() / f"{head}.toml").is_file():
        teacher = description.load(imported, given, device, results)
    elif Path(head).exists() or re.search(r"[/\\.]", head):
        teacher = description.load(Path(head), given, device, results)
    else:
        raise _unknown(head)
    if not isinstance(teacher, Teacher):
        raise PluginError(
            asked=f"teacher {head!r}",
            wrong=f"its loader returned {teacher!r}, not a Teacher",
            remedy="correct the plugin",
        )
    [found] = shortened([dataclasses.replace(teacher, name=_labelled(teacher.name, given), spec=spec)])
    for note in found.notes if multiprocessing.parent_process() is None else ():  # workers would repeat it
        logging.getLogger(__name__).warning("%s: %s", printable(found.shown), printable(note))
    return found


def _unknown(name: str) -> UnknownNameError:
    try:
        registries.teachers.resolve(name)
    except registries.UnknownName as error:
        own = ", ".join(sorted(path.stem for path in userdata.teachers().glob("*.toml")))
        fetched = f" Its checkpoint: solverbench teachers fetch {name}." if name in registries.catalogue() else ""
        remedy = f"{error.remedy}{f' Imported: {own}.' if own else ''}{fetched}"
        return UnknownNameError(asked=error.asked, wrong=error.wrong, remedy=remedy)
    raise AssertionError(name)
