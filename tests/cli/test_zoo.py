"""`solverbench zoo` as a person meets it."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import solverbench as sb
from solverbench import userdata
from solverbench.cli.main import main
from solverbench.learned import equip, trained_files, zoo
from solverbench.learned.gs import GAS
from solverbench.method.schedules import EDM
from solverbench.teachers.loading import load_teacher


def invoke(*arguments):
    return CliRunner().invoke(main, ["zoo", *map(str, arguments)], catch_exceptions=False)


def failed(result, code):
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def checkpoint(path: Path, nfe: int) -> None:
    parts = [part.float() for part in GAS().initial(EDM(), nfe).values()]
    ema = {"decay": 0.999, "num_updates": 5, "shadow_params": parts, "collected_params": None}
    torch.save({"ema": ema, "model": parts, "optim": {}, "step": 5}, path)


def test_the_list_has_every_packaged_solver_and_those_of_the_run_folder(tmp_path):
    packaged = list(zoo.packaged().rglob("*.safetensors"))
    folder = tmp_path / "trained" / "digits"
    folder.mkdir(parents=True)
    shutil.copy(zoo.packaged() / "digits" / "gs-nfe4.safetensors", folder)
    (folder / "gs-nfe5.safetensors").write_bytes(b"no")
    result = invoke("list", "--out", tmp_path, "--json")
    assert result.exit_code == 0
    told = [line for line in result.stdout.splitlines() if not line.startswith("trained by an earlier recipe: ")]
    *lines, unreadable, text = told
    assert lines[0].split() == ["solver", "nfe", "teacher", "validation", "training", "where", "identity"]
    assert "run folder" in lines[1]
    assert "3 training seeds, " in lines[1]
    assert len(lines) == 2 + len(packaged)
    assert unreadable.startswith("unreadable: ")
    assert "gs-nfe5.safetensors: damaged" in unreadable
    entries = json.loads(text)
    assert len(entries) == len(packaged) + 2
    good = [entry for entry in entries if "problem" not in entry]
    assert all(entry["identity"] and entry["validation"] > 0 and entry["cost"]["teacher_calls"] > 0 for entry in good)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """An own zoo, not there yet."""
    monkeypatch.setenv("SOLVERBENCH_DATA", str(tmp_path / "own"))
    return tmp_path / "own" / "zoo"


def altered(path: Path, nfe: int = 4, **changes) -> trained_files.Trained:
    """The packaged gs with other parameters, or another record, in a file of any name."""
    trained = trained_files.load(zoo.packaged() / "digits" / f"gs-nfe{nfe}.safetensors")
    parameters = {name: part + 1e-3 for name, part in trained.parameters.items()}
    trained = replace(trained, **({"parameters": parameters} | changes))
    trained = replace(trained, tableau=_tableau(trained))
    trained_files.save(trained, path)
    return trained


def test_an_own_zoo_comes_after_the_run_folder_and_before_the_packaged_one(tmp_path, own):
    def used(out):
        return equip.needed(trained_files.learned("gs"), 4, load_teacher("digits"), [out / "trained"]).parameters[
            "t_couple"
        ]

    invoke("list", "--out", tmp_path)
    assert not own.exists()  # looked for, not made
    mine = altered(tmp_path / "a.safetensors")
    result = invoke("add", tmp_path / "a.safetensors")
    assert result.exit_code == 0, result.output
    assert str(own / "digits" / "gs-nfe4.safetensors") in result.stdout
    assert torch.equal(used(tmp_path), mine.parameters["t_couple"])
    assert torch.equal(sb.tableau("gs", nfe=4, teacher="digits").weights, mine.tableau.weights)
    assert mine.identity in invoke("show", "gs", "--nfe", 4, "--out", tmp_path).stdout
    listed = [line.split() for line in invoke("list", "--out", tmp_path).stdout.splitlines()]
    assert [line[1:3] for line in listed if "own" in line] == [["4", "digits"]]
    (tmp_path / "trained" / "digits").mkdir(parents=True)
    shutil.copy(zoo.packaged() / "digits" / "gs-nfe4.safetensors", tmp_path / "trained" / "digits")
    assert not torch.equal(used(tmp_path), mine.parameters["t_couple"])


def _tableau(trained: trained_files.Trained) -> sb.Tableau:
    return sb.trace(trained.solver, trained.solver.grid(sb.EDM(), trained.solver.steps(trained.nfe)))


def test_adding_says_what_it_replaces(tmp_path, own):
    first = trained_files.load(zoo.packaged() / "digits" / "gs-nfe4.safetensors")
    assert "replaces" not in invoke("add", zoo.packaged() / "digits" / "gs-nfe4.safetensors").stdout
    assert "replaces" not in invoke("add", zoo.packaged() / "digits" / "gs-nfe4.safetensors").stdout
    altered(tmp_path / "a.safetensors")
    assert f"replaces {first.identity[:12]}" in invoke("add", tmp_path / "a.safetensors").stdout
    (own / "digits" / "gs-nfe4.safetensors").write_bytes(b"no")
    assert "replaces a damaged file" in invoke("add", tmp_path / "a.safetensors").stdout


def test_what_cannot_be_added_says_why_and_leaves_no_trace(tmp_path, own):
    (tmp_path / "no.safetensors").write_bytes(b"no")
    assert "damaged" in failed(invoke("add", tmp_path / "no.safetensors"), 2)
    altered(tmp_path / "foreign.safetensors", teacher_identity="0" * 64)
    assert "trained for teacher digits (000000000000), not for" in failed(
        invoke("add", tmp_path / "foreign.safetensors"), 2
    )
    altered(tmp_path / "up.safetensors", teacher="../up")
    assert "can't be a folder name" in failed(invoke("add", tmp_path / "up.safetensors"), 2)
    assert "there is no such file" in failed(invoke("add", tmp_path / "none.safetensors"), 2)
    assert not own.exists()
    assert not (tmp_path / "up").exists()


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"SOLVERBENCH_DATA": "/a/b", "XDG_DATA_HOME": "/d"}, "/a/b/zoo"),
        ({"SOLVERBENCH_DATA": "", "XDG_DATA_HOME": "/d"}, "/d/solverbench/zoo"),
        ({"SOLVERBENCH_DATA": "~/z", "HOME": "/h"}, "/h/z/zoo"),
        ({"SOLVERBENCH_DATA": "", "XDG_DATA_HOME": "", "HOME": "/h"}, "/h/.local/share/solverbench/zoo"),
        ({"SOLVERBENCH_DATA": "", "XDG_DATA_HOME": "not/absolute", "HOME": "/h"}, "/h/.local/share/solverbench/zoo"),
    ],
)
def test_where_the_own_zoo_is(monkeypatch, variables, place):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert userdata.zoo() == Path(place)
    assert list(zoo.places(Path("out")).values()) == [Path("out/trained"), Path(place), zoo.packaged()]


def test_a_solver_or_its_file_is_shown_whole(tmp_path):
    file = zoo.packaged() / "digits" / "gs-nfe4.safetensors"
    by_name, by_file = invoke("show", "gs", "--nfe", 4, "--out", tmp_path), invoke("show", file)
    assert by_name.exit_code == by_file.exit_code == 0
    assert by_name.stdout == by_file.stdout
    trained = trained_files.load(file)
    for part in (trained.identity, trained.teacher_identity, "adversarial_weight", "training seed 2", "40000-40999"):
        assert part in by_name.stdout
    assert f"{float(trained.tableau.weights[-1, -1]):.6g}" in by_name.stdout
    said = invoke("show", file, "--json").stdout.splitlines()[-1]
    assert json.loads(said) == trained.record


def test_what_cannot_be_shown_says_why(tmp_path):
    assert "give --nfe" in failed(invoke("show", "gas"), 2)
    assert "has nothing to train" in failed(invoke("show", "dpm", "--nfe", 4), 2)
    assert "gas nfe=12: not trained for teacher 'digits'" in failed(invoke("show", "gas", "--nfe", 12), 2)
    assert "there is no such file" in failed(invoke("show", tmp_path / "a.safetensors"), 2)


def test_an_export_writes_the_file_and_says_so(tmp_path):
    for kind in ("json", "py"):
        path = tmp_path / "new" / f"a.{kind}"
        result = invoke("export", "dpm", "--nfe", 5, "--format", kind, "--to", path)
        assert result.exit_code == 0, result.output
        assert str(path) in result.stdout
        assert path.stat().st_size > 500
    assert "is a folder" in failed(invoke("export", "dpm", "--nfe", 5, "--to", tmp_path), 2)


def test_an_imported_checkpoint_is_listed_shown_and_used(tmp_path):
    checkpoint(tmp_path / "5.pt", 5)
    result = invoke("import", tmp_path / "5.pt", "--nfe", 5, "--t-eps", "1e-3", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "gas:authors=free:t_eps=0.001 nfe=5 for digits, levels 152.167 to 0.01048" in result.stdout
    listed = invoke("list", "--out", tmp_path).stdout.splitlines()[1]
    assert listed.split()[:5] == [
        "gas:authors=free:form=gs:grid=learned:lower_order_final=false:offsets=true:t_eps=0.001:theory=true",
        "5",
        "digits",
        "-",
        "imported",
    ]
    shown = invoke("show", "gas:t_eps=1e-3:authors=free", "--nfe", 5, "--out", tmp_path)
    assert "imported" in shown.stdout
    assert "5.pt" in shown.stdout
    sampled = CliRunner().invoke(
        main,
        [
            "sample",
            "gas:t_eps=1e-3:authors=free",
            "--nfe",
            "5",
            "--seeds",
            "0-3",
            "--to",
            str(tmp_path / "i"),
            "--out",
            str(tmp_path),
        ],
    )
    assert sampled.exit_code == 0, sampled.output


def test_what_cannot_be_imported_says_why(tmp_path):
    checkpoint(tmp_path / "5.pt", 5)
    assert "use --nfe 5" in failed(invoke("import", tmp_path / "5.pt", "--nfe", 4, "--out", tmp_path), 2)
    assert "nothing else is unpickled" in failed(invoke("import", sys.executable, "--nfe", 4, "--out", tmp_path), 2)
    assert not (tmp_path / "trained").exists()


def test_a_recipe_that_has_changed_since_is_listed_and_shown(tmp_path):
    found = trained_files.load(zoo.packaged() / "digits" / "gs-nfe3.safetensors")
    place = tmp_path / "runs" / "trained" / "digits" / "gs-nfe3.safetensors"
    trained_files.save(replace(found, record=found.record | {"recipe": found.record["recipe"] | {"lr": 0.75}}), place)
    listed = invoke("list", "--out", tmp_path / "runs").stdout
    assert listed.count(f"trained by an earlier recipe: {place}") == 1
    assert f"{place}: lr 0.75, now " in listed
    assert "lr 0.75, now " in invoke("show", place).stdout.partition("changed since")[2]


def test_info_says_for_which_teachers_there_are_parameters(tmp_path):
    told = CliRunner().invoke(main, ["info", "gas", "--out", str(tmp_path)]).stdout
    assert "trained  on digits for nfe 1-10" in told
    assert "on shapes for nfe 4-6" in told


def test_a_file_that_is_not_there_is_said_to_be(tmp_path):
    assert "there is no such file; correct the path" in failed(invoke("add", tmp_path / "none.safetensors"), 2)
