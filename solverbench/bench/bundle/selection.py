"""TODO."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from solverbench import files, plugins, seeds
from solverbench.bench.outcome import Outcome, teachers_of_outcomes
from solverbench.bench.protocol import Protocol
from solverbench.sampling import endpoints


def name(outcomes: Sequence[Outcome], protocol: Protocol, device: str) -> str:
    """Return the report's folder: a slug and a short hash of the selection."""
    selection = _selection(outcomes, protocol, device)
    words = "-".join([*selection["teachers"], *selection["solvers"], "nfe", *_spans(selection["nfe"])])
    slug = re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-")[:60]
    return f"{slug}-{files.digest(selection)[:8]}"


def _selection(outcomes: Sequence[Outcome], protocol: Protocol, device: str) -> dict[str, Any]:
    each = [outcome.cell for outcome in outcomes]
    return {
        "teachers": list(dict.fromkeys(cell.teacher.name for cell in each)),
        "identities": list(dict.fromkeys(cell.teacher.identity for cell in each)),
        "solvers": list(dict.fromkeys(cell.solver for cell in each)),
        "specs": list(dict.fromkeys(cell.spec for cell in each)),
        "nfe": sorted({cell.nfe for cell in each}),
        "seeds": seeds.label(protocol.seeds),
        "samples": protocol.samples,
        "batch": protocol.batch,
        "full": protocol.full,
        **({} if protocol.exact is None else {"exact": protocol.exact}),
        **_conditions(outcomes),
        **({"judging": protocol.judging.selection} if protocol.judging.selection else {}),
        "device": torch.device(device).type,
    }


def _conditions(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What the teachers' images depend on beside identities, where that isn't the usual."""
    found = {teacher.name: endpoints.conditioned(teacher) for teacher in teachers_of_outcomes(outcomes)}
    for teacher in teachers_of_outcomes(outcomes):
        if teacher.arithmetic != "float32":
            found[teacher.name]["dtype"] = teacher.arithmetic
    told = {name: each for name, each in found.items() if each}
    return {"conditions": told} if told else {}


def _command(outcomes: Sequence[Outcome], protocol: Protocol, device: str, root: Path, train: str | None) -> str:
    selection = _selection(outcomes, protocol, device)
    words = ["solverbench", "run", "--solvers", ",".join(selection["solvers"])]
    asked = [teacher.spec or teacher.name for teacher in teachers_of_outcomes(outcomes)]
    words += ["--nfe", ",".join(_spans(selection["nfe"])), "--teachers", ",".join(asked)]
    words += ["--samples", str(protocol.samples), "--seeds", selection["seeds"], "--batch", str(protocol.batch)]
    exact = {None: [], True: ["--exact"], False: ["--no-exact"]}[protocol.exact]
    words += ["--train", train] if train else []
    words += [*(["--full"] if protocol.full else []), *exact, *protocol.judging.flags]
    words += [*plugins.flags(), "--device", device, "--out", str(root)]
    return shlex.join(words)


def _spans(numbers: Sequence[int]) -> list[str]:
    """Sorted numbers as people write them: 3-6, 9."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    return [str(span[0]) if len(span) == 1 else f"{span[0]}-{span[-1]}" for span in spans]
