"""Solvers written for other code: the JSON reads back to an equal tableau, the Python file runs on torch alone."""

from __future__ import annotations

import json
from pathlib import Path

import forks
import pytest
import torch
from torch import Tensor

import solverbench as sb
from solverbench.errors import BudgetError, NeedsTrainingError, RecordError, SpecError, UserError
from solverbench.export import export

SOLVERS = ["gas", "gs", "dpm:order=3", "unipc", "heun:end=zero", "dpm:afs=true", "dpm:threshold=true"]
NFE = 3

ALONE = """
import sys
sys.modules["solverbench"] = None
import torch
sys.path.insert(0, sys.argv[1])
import exported
torch.set_num_threads(1)
def denoise(x, sigma):
    assert sigma.shape == () and sigma.dtype == torch.float64
    s = sigma.to(x.dtype)
    return 1.5 * torch.tanh(3 * x / (1 + s**2).sqrt() + 0.2)
torch.save(exported.sample(denoise, torch.load(sys.argv[2])), sys.argv[3])
assert not [name for name in sys.modules if name.split(".")[0] in ("solverbench", "registries") and sys.modules[name]]
"""


def denoise(x: Tensor, sigma: Tensor) -> Tensor:
    s = sigma.to(x.dtype)
    return 1.5 * torch.tanh(3 * x / (1 + s**2).sqrt() + 0.2)


@pytest.fixture(scope="module")
def digits() -> sb.Teacher:
    return sb.load_teacher("digits")


@pytest.mark.parametrize("spec", SOLVERS)
def test_json_reads_back_to_an_equal_tableau(spec: str, digits: sb.Teacher, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    export.write(spec, NFE, "digits", "json", path, tmp_path)
    back = export.from_json(path.read_text(), str(path))
    assert back.tableau.equals(sb.tableau(sb.make(spec), nfe=NFE, teacher=digits), tolerance=0)
    assert (back.spec, back.teacher, back.teacher_identity) == (sb.make(spec).spec, "digits", digits.identity)
    assert back.prior_scale == digits.schedule.prior_scale
    assert back.threshold is ("threshold" in spec)
    assert {"sigmas", "weights", "levels", "start", "spec", "nfe"} <= set(json.loads(path.read_text()))


@pytest.mark.parametrize("spec", ["gas", "dpm:order=3", "dpm:threshold=true"])
def test_the_python_file_makes_the_same_images_without_solverbench(
    spec: str, digits: sb.Teacher, tmp_path: Path
) -> None:
    export.write(spec, NFE, "digits", "py", tmp_path / "exported.py", tmp_path)
    noise = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.save(noise, tmp_path / "noise.pt")
    files = [str(tmp_path), str(tmp_path / "noise.pt"), str(tmp_path / "images.pt")]
    done = forks.run(["-I", "-c", ALONE, *files], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    images = torch.load(tmp_path / "images.pt", weights_only=True)
    tableau = sb.tableau(sb.make(spec), nfe=NFE, teacher=digits)
    adapted = sb.make(spec).adapt(denoise)
    by_tableau = sb.execute(tableau, adapted, noise * digits.schedule.prior_scale)
    torch.testing.assert_close(images, by_tableau, rtol=1e-4, atol=1e-5)
    by_plan = sb.execute(tableau.plan(digits.schedule.prior_scale), adapted, noise)
    torch.testing.assert_close(images, by_plan, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("nfe", [1, 4, 10])
def test_the_python_file_is_short_and_imports_torch_alone(nfe: int, tmp_path: Path) -> None:
    export.write("gs", nfe, "digits", "py", tmp_path / "a.py", tmp_path)
    lines = (tmp_path / "a.py").read_text().splitlines()
    assert len(lines) < (50 if nfe < 5 else 70)
    assert [line for line in lines if "import" in line] == ["import torch"]


def test_text_of_a_spec_stays_text_in_the_python_file() -> None:
    name = '\'"""\nraise SystemExit\n{spec}{}'
    tableau = sb.tableau("euler", nfe=2)
    source = export.as_python(export.Exported(name, name, name, 80.0, False, tableau))
    space: dict[str, object] = {}
    exec(source, space)
    assert space["SPEC"] == space["TEACHER"] == name


def test_a_solver_with_an_adaptor_of_its_own_is_refused(digits: sb.Teacher) -> None:
    class Doubled(type(sb.make("euler"))):  # type: ignore[misc]
        def adapt(self, denoise):  # type: ignore[no-untyped-def]
            return lambda x, sigma: 2 * denoise(x, sigma)

    with pytest.raises(SpecError, match="by its own code"):
        export.collect(Doubled(), 3, digits)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "isn't a solverbench-tableau"),
        ("[1, 2]", "isn't a solverbench-tableau"),
        (
            '{"format": "other", "version": 1}',
            "other version 1, but this SolverBench reads solverbench-tableau version 1",
        ),
        ('{"format": "solverbench-tableau", "version": 1}', "incomplete tableau"),
        ('{"format": "solverbench-tableau", "version": 1, "sigmas": [[1], [1, 2]]}', "incomplete tableau"),
    ],
)
def test_other_json_is_refused(text: str, problem: str) -> None:
    with pytest.raises(RecordError, match=problem):
        export.from_json(text, "a.json")


def test_json_with_a_number_changed_to_nonsense_is_refused(digits: sb.Teacher) -> None:
    body = json.loads(export.as_json(export.collect(sb.make("euler"), 2, digits)))
    for change in ({"nfe": 3}, {"sigmas": [80.0, -1.0]}, {"start": float("nan")}, {"weights": "no"}):
        with pytest.raises(RecordError, match="incomplete tableau"):
            export.from_json(json.dumps({**body, **change}), "a.json")


def test_what_cannot_be_exported_says_why(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="--nfe 0: below 1"):
        export.write("euler", 0, "digits", "py", tmp_path / "a.py", tmp_path)
    with pytest.raises(BudgetError, match="heun with nfe=5"):
        export.write("heun", 5, "digits", "py", tmp_path / "a.py", tmp_path)
    with pytest.raises(NeedsTrainingError, match="gas nfe=12: not trained"):
        export.write("gas", 12, "digits", "py", tmp_path / "a.py", tmp_path)
    with pytest.raises(UserError, match="is a folder"):
        export.write("euler", 2, "digits", "py", tmp_path, tmp_path)
    assert list(tmp_path.iterdir()) == []
