"""Checks of a solver's declarations: name, source, options, spec and repr."""

from __future__ import annotations

import dataclasses

from solverbench.conformance.trials import Failed
from solverbench.method.declarations import declared
from solverbench.method.schedules import NoiseSchedule
from solverbench.method.solver import Solver
from solverbench.options import parse
from solverbench.plugins import WORD


def documented(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless the class declares its name, docstring and paper."""
    cls = type(solver)
    doc = cls.__dict__.get("__doc__") or ""
    if not WORD.fullmatch(cls.name):
        raise Failed(f"is called {cls.name!r}; give the class a lowercase word as `name`")
    if not doc.strip() or doc.startswith(f"{cls.__name__}("):  # a dataclass's automatic docstring
        raise Failed("has no docstring; describe the method in one line")
    if not cls.paper:
        raise Failed("has no `paper`; name its source, or say that it is unpublished")
    return f"{cls.name}, {cls.paper}"


def options(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless every field is an option with a line of help, so that specs and `info` cover it."""
    known = declared(type(solver))
    told = {field.name for field, _ in known.values()} | {"parameters"}
    for field in dataclasses.fields(solver):
        if field.name not in told:
            raise Failed(
                f"has a field {field.name!r} that no spec holds; declare it with sb.option, or as ClassVar if it is "
                "no option"
            )
    for key, (field, _) in sorted(known.items()):
        if not field.metadata["help"].strip():
            raise Failed(f"option {key!r} has no help; give sb.option a line as help=")
    shared = sorted(key for key in known if key in declared(Solver))
    own = ", ".join(sorted(set(known) - set(shared))) or "none of its own"
    return f"{own}; of its grid, as for every solver: {', '.join(shared)}" if shared else own


def spec_round_trip(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless parsing the canonical spec gives an equal solver."""
    again = from_spec(type(solver), solver.spec)
    if again != solver or again.spec != solver.spec or solver.spec.partition(":")[0] != type(solver).name:
        raise Failed(f"reads back as {again.spec}; declare options with sb.option")
    return solver.spec


def from_spec(cls: type[Solver], spec: str) -> Solver:
    """Return the solver of class `cls` with the options of a canonical spec; the registry is not used."""
    given = {}
    for part in spec.split(":")[1:]:
        key, _, text = part.partition("=")
        field, kind = declared(cls)[key]
        given[field.name] = parse(spec, kind, text)
    return cls(**given)


def representable(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless the repr is one line that names the class and contains no memory address."""
    text = repr(solver)
    if type(solver).__name__ not in text or "\n" in text or " at 0x" in text:
        raise Failed(f"repr is {text[:60]!r}; keep the dataclass's own")
    return text
