"""`solverbench zoo` as a person meets it."""

import json
import shutil
import sys
from pathlib import Path

import torch
from click.testing import CliRunner

from solverbench import zoo
from solverbench.cli import main
from solverbench.gs import GAS
from solverbench.schedules import EDM


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
    shutil.copy(zoo.packaged() / "digits" / "gs-nfe3.safetensors", folder)
    (folder / "gs-nfe4.safetensors").write_bytes(b"no")
    result = invoke("list", "--out", tmp_path, "--json")
    assert result.exit_code == 0
    *lines, unreadable, text = result.stdout.splitlines()
    assert lines[0].split() == ["solver", "nfe", "teacher", "validation", "training", "where", "identity"]
    assert "run folder" in lines[1]
    assert "3 seeds, " in lines[1]
    assert len(lines) == 2 + len(packaged)
    assert unreadable.startswith("unreadable: ")
    assert "gs-nfe4.safetensors: damaged" in unreadable
    entries = json.loads(text)
    assert len(entries) == len(packaged) + 2
    good = [entry for entry in entries if "problem" not in entry]
    assert all(entry["identity"] and entry["validation"] > 0 and entry["cost"]["teacher_calls"] > 0 for entry in good)


def test_a_solver_or_its_file_is_shown_whole(tmp_path):
    file = zoo.packaged() / "digits" / "gas-nfe4.safetensors"
    by_name, by_file = invoke("show", "gas", "--nfe", 4, "--out", tmp_path), invoke("show", file)
    assert by_name.exit_code == by_file.exit_code == 0
    assert by_name.stdout == by_file.stdout
    trained = zoo.load(file)
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
    assert "levels 80 to 0.01048" in result.stdout
    listed = invoke("list", "--out", tmp_path).stdout.splitlines()[1]
    assert listed.split()[:5] == [
        "gas:form=gs:grid=learned:lower_order_final=false:offsets=true:t_eps=0.001:theory=true",
        "5",
        "digits",
        "-",
        "imported",
    ]
    shown = invoke("show", "gas:t_eps=1e-3", "--nfe", 5, "--out", tmp_path)
    assert "imported" in shown.stdout
    assert "5.pt" in shown.stdout
    sampled = CliRunner().invoke(
        main,
        [
            "sample",
            "gas:t_eps=1e-3",
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
