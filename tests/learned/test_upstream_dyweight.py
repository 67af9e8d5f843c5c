"""Checkpoints of the DyWeight repository: their tensors alone are read, under names that the user gives."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import edm_pickles as writing
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from solverbench.cli.main import main
from solverbench.errors import RecordError
from solverbench.learned import trained_files, upstream
from solverbench.method.exponential import ADAMS_BASHFORTH
from solverbench.teachers.teacher import Teacher

SPEC = "dyweight:history=3:afs=true"
NAMES = "model.weights,model.scales"


def tensors(nfe: int = 4) -> tuple[Tensor, Tensor]:
    """Weights [nfe + 1, 3] near those of Adams-Bashforth, and scales [nfe], float32."""
    dice = torch.Generator().manual_seed(0)
    weights = torch.tensor(ADAMS_BASHFORTH[3]).repeat(nfe + 1, 1) + 0.1 * torch.randn(nfe + 1, 3, generator=dice)
    return weights, 1 + 0.1 * torch.randn(nfe, generator=dice)


def checkpoint(path: Path, weights: Tensor, scales: Tensor) -> Path:
    """An object with source code that holds the two tensors as parameters, as far as the layout is known."""
    module = writing.Persistent("Predictor", num_steps=6)
    module.weights, module.scales = torch.nn.Parameter(weights), torch.nn.Parameter(scales)
    with writing.upstream(), path.open("wb") as file:
        pickle.dump({"model": module, "step": 625}, file)
    return path


def test_the_solver_has_exactly_the_files_tensors_and_nothing_is_run(teacher: Teacher, tmp_path: Path) -> None:
    weights, scales = tensors()
    path = checkpoint(tmp_path / "network-snapshot.pkl", weights, scales)
    imported = upstream.read(path, teacher, 4, solver=SPEC, names=NAMES)
    assert torch.equal(imported.parameters["a"], scales.double())
    for n in range(5):
        assert torch.equal(imported.parameters[f"w{n}"], weights[n, : n + 1].double())
    place = upstream.keep(imported, path, tmp_path)
    again = trained_files.load(place, teacher=teacher, nfe=4)
    assert again.identity == imported.identity
    assert again.record["imported"]["tensors"] == NAMES.split(",")
    plain = tmp_path / "plain.pt"
    torch.save({"model.weights": weights, "model.scales": scales}, plain)
    assert upstream.read(plain, teacher, 4, solver=SPEC, names=NAMES).identity == imported.identity


@pytest.mark.parametrize(
    ("changed", "names", "spec", "said"),
    [
        ({}, None, SPEC, r"its tensors are model\.scales \[4\], model\.weights \[5, 3\]; name those of its weights"),
        ({}, "model.w,model.a", SPEC, r"model\.weights \[5, 3\], not model\.w,model\.a; name those"),
        ({}, NAMES, "dyweight:history=3", r"where .* has \[4, 3\] and \[4\]; give the history and afs"),
        ({}, "model.scales,model.weights", SPEC, r"weights \[4\] and scales \[5, 3\], where"),
        ({"scales": torch.ones(5)}, NAMES, SPEC, r"its shapes are for nfe=5, not for nfe=4; use --nfe 5"),
        ({"weights": tensors()[0].flip(1)}, NAMES, SPEC, "the oldest output comes first; reverse the columns"),
        ({"scales": torch.full((4,), float("nan"))}, NAMES, SPEC, "a number that isn't finite"),
        ({}, NAMES, "ld3", "its tensors have known names; leave --tensors out"),
    ],
)
def test_what_cannot_be_read_for_certain_is_refused(
    changed: dict[str, Tensor], names: str | None, spec: str, said: str, teacher: Teacher, tmp_path: Path
) -> None:
    weights, scales = tensors()
    given: dict[str, Any] = {"weights": weights, "scales": scales} | changed
    path = checkpoint(tmp_path / "network-snapshot.pkl", **given)
    with pytest.raises(RecordError, match=said):
        upstream.read(path, teacher, 4, solver=spec, names=names)


class Runs:
    """What a hostile pickle does when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return Path.touch, (self.witness,)


def test_a_pickle_that_would_run_something_is_refused_unrun(teacher: Teacher, tmp_path: Path) -> None:
    (tmp_path / "hostile.pkl").write_bytes(pickle.dumps({"model": Runs(tmp_path / "ran")}))
    with pytest.raises(RecordError, match="refused, and nothing in it was run"):
        upstream.read(tmp_path / "hostile.pkl", teacher, 4, solver=SPEC, names=NAMES)
    assert not (tmp_path / "ran").exists()


def test_an_object_within_itself_ends_in_one_line(teacher: Teacher, tmp_path: Path) -> None:
    nested: dict[str, Any] = {}
    nested["again"] = nested
    (tmp_path / "nested.pkl").write_bytes(pickle.dumps(nested))
    with pytest.raises(RecordError, match="its content isn't valid"):
        upstream.read(tmp_path / "nested.pkl", teacher, 4, solver=SPEC, names=NAMES)


def test_the_command_takes_the_names(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "network-snapshot.pkl", *tensors())
    words = ["zoo", "import", str(path), "--nfe", "4", "--solver", SPEC, "--out", str(tmp_path)]
    refused = CliRunner().invoke(main, words)
    assert refused.exit_code != 0
    told = CliRunner().invoke(main, [*words, "--tensors", NAMES])
    assert told.exit_code == 0, told.output
    assert "levels 80 to 0.002" in told.output
