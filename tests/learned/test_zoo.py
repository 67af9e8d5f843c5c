"""Files of trained solvers: what goes in comes out, and what is damaged, foreign or for something else is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import solverbench as sb
from solverbench import tensors
from solverbench.errors import NeedsTrainingError, RecordError, SpecError
from solverbench.learned import equip, trained_files, zoo
from solverbench.learned.recipes import Recipe
from solverbench.learned.trained_files import Trained
from solverbench.learned.training import train as training
from solverbench.learned.training.trainer import Data
from solverbench.method.spec import make
from solverbench.method.tracing import trace
from solverbench.teachers.teacher import Teacher


@pytest.fixture(scope="module", params=[1, 3])
def trained(
    request: pytest.FixtureRequest,
    teacher: Teacher,
    recipe: Recipe,
    data: Data,
    tmp_path_factory: pytest.TempPathFactory,
) -> Trained:
    out = tmp_path_factory.mktemp("runs")
    return training.train("gs", request.param, teacher, replace(recipe, iterations=5), seed=0, out=out, data=data)


@pytest.fixture
def path(trained: Trained, tmp_path: Path) -> Path:
    trained_files.save(trained, tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def test_a_file_gives_back_the_parameters_and_the_same_plan(trained: Trained, path: Path, teacher: Teacher) -> None:
    loaded = trained_files.load(path, teacher=teacher, nfe=trained.nfe)
    assert all(torch.equal(loaded.parameters[name], trained.parameters[name]) for name in trained.parameters)
    assert list(loaded.parameters) == list(trained.parameters)
    assert loaded.tableau.plan().key == trained.tableau.plan().key
    assert loaded.record == json.loads(json.dumps(trained.record))
    assert loaded.identity == trained.identity
    solver = loaded.solver
    traced = trace(solver, solver.grid(teacher.schedule, loaded.nfe))
    assert traced.plan().key == trained.tableau.plan().key


def test_a_file_holds_float64_numbers_and_json_alone(path: Path) -> None:
    with safe_open(path, "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float64}  # noqa: SIM118
        metadata = json.loads(file.metadata()["solverbench"])
    assert {"version", "spec", "nfe", "teacher", "teacher_identity", "record", "checksum"} <= set(metadata)


def test_the_identity_changes_with_any_number_and_not_with_the_cost(trained: Trained) -> None:
    name = "t_couple"
    moved = {**trained.parameters, name: trained.parameters[name] + 1e-16 + 1e-12}
    assert replace(trained, parameters=moved).identity != trained.identity
    assert replace(trained, record={}).identity == trained.identity
    assert replace(trained, teacher_identity="0").identity != trained.identity


@pytest.mark.parametrize("where", [0.02, 0.3, 0.6, 0.99])
def test_a_damaged_file_is_refused(path: Path, where: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * where)] ^= 1
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"damaged|isn't a"):
        trained_files.load(path)


def test_a_cut_or_empty_file_is_refused(path: Path) -> None:
    content = path.read_bytes()
    for size in (0, 7, 100, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(RecordError, match="damaged"):
            trained_files.load(path)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "b.safetensors")
    with pytest.raises(RecordError, match="isn't a SolverBench file of the format solverbench-trained"):
        trained_files.load(tmp_path / "b.safetensors")


def test_a_checkpoint_is_no_trained_solver(tmp_path: Path) -> None:
    tensors.write(tmp_path / "c.safetensors", {}, {}, "solverbench-checkpoint", 1)
    with pytest.raises(RecordError, match="isn't a SolverBench file of the format solverbench-trained"):
        trained_files.load(tmp_path / "c.safetensors")


def test_another_version_is_refused(trained: Trained, tmp_path: Path) -> None:
    tensors.write(tmp_path / "d.safetensors", {}, {}, trained_files.FORMAT, 99)
    with pytest.raises(RecordError, match="version 99 of solverbench-trained, but this SolverBench reads version 1"):
        trained_files.load(tmp_path / "d.safetensors")


def test_a_file_with_parameters_of_other_shapes_is_refused(trained: Trained, tmp_path: Path) -> None:
    short = {**trained.parameters, "t_couple": torch.zeros(7, dtype=torch.float64)}
    trained_files.save(replace(trained, parameters=short), tmp_path / "e.safetensors")
    with pytest.raises(RecordError, match="incomplete"):
        trained_files.load(tmp_path / "e.safetensors")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"f\.safetensors: there is no such file"):
        trained_files.load(tmp_path / "f.safetensors")


def test_a_file_for_another_teacher_or_budget_says_for_which(trained: Trained, path: Path, teacher: Teacher) -> None:
    other = replace(teacher, identity="ef" * 32)
    with pytest.raises(RecordError, match=r"trained for teacher toy \(abababababab\), not for toy \(efefefefefef\)"):
        trained_files.load(path, teacher=other)
    with pytest.raises(RecordError, match=f"trained for nfe={trained.nfe}, not for nfe=9"):
        trained_files.load(path, nfe=9)


def test_folders_are_searched_in_order_by_teacher_solver_and_budget(
    trained: Trained, teacher: Teacher, tmp_path: Path
) -> None:
    name = trained_files.file_name("gs", trained.nfe)
    assert name == f"gs-nfe{trained.nfe}.safetensors"
    folders = [tmp_path / "one", tmp_path / "two"]
    assert zoo.find("gs", teacher, trained.nfe, folders) is None
    trained_files.save(trained, folders[1] / "toy" / name)
    found = zoo.find("gs", teacher, trained.nfe, folders)
    assert found is not None
    assert found.identity == trained.identity
    moved = {key: value + 1 for key, value in trained.parameters.items()}
    trained_files.save(replace(trained, parameters=moved), folders[0] / "toy" / name)
    first = zoo.find("gs", teacher, trained.nfe, folders)
    assert first is not None
    assert first.identity != trained.identity
    assert zoo.find("gas", teacher, trained.nfe, folders) is None
    assert zoo.find("gs", teacher, trained.nfe + 1, folders) is None


def test_a_found_file_of_another_solver_or_teacher_is_refused(
    trained: Trained, teacher: Teacher, tmp_path: Path
) -> None:
    trained_files.save(trained, tmp_path / "toy" / trained_files.file_name("gas", trained.nfe))
    with pytest.raises(RecordError, match=r"holds gs:.*form=gs:.*, not gas:.*form=gs:"):
        zoo.find("gas", teacher, trained.nfe, [tmp_path])
    trained_files.save(trained, tmp_path / "toy" / trained_files.file_name("gs", trained.nfe))
    with pytest.raises(RecordError, match="trained for teacher"):
        zoo.find("gs", replace(teacher, identity="0" * 64), trained.nfe, [tmp_path])


def test_options_of_a_solver_are_another_file() -> None:
    assert trained_files.file_name("gs:t_eps=0.0001", 4) == "gs-t_eps=0.0001-nfe4.safetensors"
    assert trained_files.file_name("gs", 4) == trained_files.file_name("gs:form=gs", 4) == "gs-nfe4.safetensors"
    assert trained_files.file_name("s4s:form=pc:order=2", 4) == "s4s-form=pc-order=2-nfe4.safetensors"
    long = [trained_files.file_name("s4s:grid=" + "+".join(str(80 - k - j / 7) for k in range(15)), 4) for j in (0, 1)]
    assert long[0] != long[1]
    assert max(map(len, long)) < 40


def test_a_solver_is_equipped_with_its_parameters_or_told_to_train(
    trained: Trained, teacher: Teacher, tmp_path: Path
) -> None:
    trained_files.save(trained, tmp_path / "toy" / trained_files.file_name("gs", trained.nfe))
    solver = trained_files.learned("gs")
    found = equip.needed(solver, trained.nfe, teacher, [tmp_path])
    assert torch.equal(found.parameters["t_couple"], trained.parameters["t_couple"])
    with pytest.raises(NeedsTrainingError, match="gs nfe=7: not trained for teacher 'toy'; run 'solverbench train gs"):
        equip.needed(solver, 7, teacher, [tmp_path])
    with pytest.raises(NeedsTrainingError, match="give the argument teacher"):
        sb.tableau("gs", nfe=4)


def test_a_solver_without_parameters_is_not_a_trained_one() -> None:
    assert make("euler").learned is False
    with pytest.raises(SpecError, match="has nothing to train"):
        trained_files.learned("euler")


@pytest.mark.isa
def test_every_packaged_file_loads_and_traces_to_its_tableau() -> None:
    for path in zoo.packaged().rglob("*.safetensors"):
        trained = trained_files.load(path)
        assert path.name == trained_files.file_name(trained.spec, trained.nfe)
        assert path.parent.name == trained.teacher
        solver = trained.solver
        traced = trace(solver, solver.grid(sb.EDM(), solver.steps(trained.nfe)))
        assert trained.still(traced), path
        assert not trained.still(replace(traced, weights=traced.weights * (1 + 1e-8)))
