"""Files with more than tensors: foreign objects are skipped by name, wrappers' prefixes removed, damage is named."""

import argparse
import json
import os
import pathlib
import pickle
import sys
import types

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save_file

from solverbench.errors import RecordError
from solverbench.teachers.families import tensor_files
from solverbench.teachers.families.conversion import UNET
from solverbench.teachers.families.description import recognise

STATE = {f"{UNET}input_blocks.0.0.weight": torch.arange(6.0).reshape(2, 3), f"{UNET}out.2.bias": torch.ones(2).half()}


def same(found, expected=STATE):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        torch.testing.assert_close(found[key], value)


@pytest.fixture
def foreign():
    """Objects of packages that aren't installed when the file is read: a configuration, a callback, a dict."""
    made = {}

    def package(name, **classes):
        for n in range(1, len(name.split(".")) + 1):
            part = ".".join(name.split(".")[:n])
            sys.modules.setdefault(part, types.ModuleType(part))
            made[part] = None
        for key, cls in classes.items():
            cls.__module__, cls.__qualname__ = name, key
            setattr(sys.modules[name], key, cls)

    class DictConfig:
        def __init__(self):
            self._content, self._metadata = {"lr": 1}, types.SimpleNamespace(a=1)

        def __getstate__(self):
            return {"_content": self._content, "kind": dict, "shape": torch.Size([1])}

    class Callback:
        def __init__(self):
            self.best, self.where = np.float32(0.5), pathlib.PosixPath("/a/b")

    class AttributeDict(dict):
        """Of Lightning: a dict with items and a state of its own."""

    class Results(list):
        """A list with items."""

    package("omegaconf.dictconfig", DictConfig=DictConfig)
    package("lightning.pytorch.callbacks", Callback=Callback, AttributeDict=AttributeDict, Results=Results)
    hyper = AttributeDict(lr=0.1)
    hyper.name = "mine"
    yield {"config": DictConfig(), "callbacks": {"a": Callback()}, "hyper_parameters": hyper, "rows": Results([1, 2])}
    for name in made:
        sys.modules.pop(name, None)


def test_foreign_objects_beside_the_tensors_are_skipped_and_named(tmp_path, foreign):
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": STATE, **foreign, "args": argparse.Namespace(lr=1)}, path)
    foreign.clear()
    for name in [each for each in sys.modules if each.split(".")[0] in ("omegaconf", "lightning")]:
        del sys.modules[name]
    read = tensor_files.contents(path)
    same(read.tensors)
    [said] = read.notes
    for name in ("omegaconf.dictconfig.DictConfig", "lightning.pytorch.callbacks.Callback", "argparse.Namespace"):
        assert name in said
    assert "nothing of them was run" in said
    shapes = tensor_files.read(path, mapped=True)
    assert {key: value.shape for key, value in shapes.items()} == {key: value.shape for key, value in STATE.items()}
    assert all(value.is_meta for value in shapes.values())
    assert recognise(path) == "compvis"


@pytest.mark.parametrize(
    "beside",
    [np.float64(1.5), np.arange(3.0), pathlib.PosixPath("/a"), torch.device("cpu"), torch.Size([2]), torch.float16,
     {"x": {1, 2}}, argparse.Namespace(a=np.float64(2))],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_plain_objects_beside_the_tensors_change_nothing(tmp_path, beside, protocol):
    torch.save({"state_dict": STATE, "best": beside}, tmp_path / "a.ckpt", pickle_protocol=protocol)
    same(tensor_files.read(tmp_path / "a.ckpt"))


class Wants:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("where", ["beside", "inside", "key"])
@pytest.mark.parametrize("function", [os.mkdir, exec, eval, open, torch.load, np.load, __import__("shutil").rmtree])
def test_what_would_run_is_refused_by_name(tmp_path, where, function):
    mark = tmp_path / "ran"
    attack = Wants(function, str(mark))
    inside = {"x": attack} if where == "inside" else {}
    more = {(attack,): 1} if where == "key" else {"y": attack}
    torch.save({"state_dict": {**STATE, **inside}, "note": np.float64(1), **more}, tmp_path / "a.ckpt")
    with pytest.raises(
        RecordError, match=rf"it asks for \S*{function.__name__}\), and nothing in it was run"
    ) as caught:
        tensor_files.read(tmp_path / "a.ckpt")
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_an_unknown_function_is_never_called(tmp_path):
    """It is replaced by a stand-in, even as a tensor's value or as a call of a call's result."""
    import shelve

    mark = tmp_path / "ran"
    torch.save(
        {"state_dict": {**STATE, "x": Wants(shelve.open, str(mark))}, "y": Wants(getattr, "text", "upper")},
        tmp_path / "a.ckpt",
    )
    read = tensor_files.contents(tmp_path / "a.ckpt")
    same(read.tensors)
    assert "shelve.open" in read.notes[0]
    assert not list(tmp_path.glob("ran*"))


def edited(path, name, content):
    """Replace a record of a torch archive."""
    import zipfile

    with zipfile.ZipFile(path) as source:
        records = {each: source.read(each) for each in source.namelist()}
    with zipfile.ZipFile(path, "w") as sink:
        for key, value in records.items():
            sink.writestr(key, content if key.endswith(name) else value)


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"garbage"])
def test_a_damaged_archive_is_one_line(tmp_path, content):
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": STATE, "best": np.float64(1)}, path)
    edited(path, "data.pkl", content)
    with pytest.raises(RecordError, match=r"a\.ckpt") as caught:
        tensor_files.read(path)
    assert "\n" not in str(caught.value)


def test_a_storage_smaller_than_claimed_is_refused(tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save({"best": np.float64(1), "state_dict": STATE}, path)
    edited(path, "data/0", b"\0" * 4)
    with pytest.raises(RecordError, match="a storage of 6 numbers, more than its record has"):
        tensor_files.read(path)


def test_a_pickled_module_is_named(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pt")
    with pytest.raises(RecordError, match=r"a pickled torch\.nn\.modules\.linear\.Linear, whose code isn't run; save"):
        tensor_files.read(tmp_path / "a.pt")
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "a.pt")
    with pytest.raises(RecordError, match=r"no tensors by name but a pickled torch\.nn\.modules\.linear\.Linear"):
        tensor_files.read(tmp_path / "a.pt")


def test_the_only_set_of_tensors_is_read_and_several_are_not_guessed(tmp_path):
    torch.save({"model": STATE, "step": 1}, tmp_path / "a.pt")
    read = tensor_files.contents(tmp_path / "a.pt")
    same(read.tensors)
    assert read.notes == ("a.pt: the tensors under 'model' are read",)
    torch.save({"model": STATE, "ema": STATE}, tmp_path / "a.pt")
    with pytest.raises(RecordError, match=r"several sets of tensors \(model, ema\)"):
        tensor_files.read(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("prefix", "inner", "said"),
    [
        ("module.", "", ("module.",)),
        ("_orig_mod.", "", ("_orig_mod.",)),
        ("ema_model.", "", ("ema_model.",)),
        ("model.", "", ("model.",)),
        ("module._orig_mod.", "", ("_orig_mod.", "module.")),
        ("", "_orig_mod.", ("_orig_mod.",)),
        ("", "", ()),
    ],
)
def test_wrappers_names_are_removed_and_said(prefix, inner, said):
    wrapped = {f"{prefix}{UNET}{inner}{key.removeprefix(UNET)}": value for key, value in STATE.items()}
    found, removed = tensor_files.unwrapped(wrapped, UNET)
    same(found)
    assert removed == said


def test_a_moving_average_is_taken_before_the_weights_it_averages():
    both = {f"{owner}{key}": value + n for n, owner in enumerate(("network.", "ema_model."))
            for key, value in STATE.items()}  # fmt: skip
    found, removed = tensor_files.unwrapped(both, UNET)
    same(found, {key: value + 1 for key, value in STATE.items()})
    assert removed == ("ema_model.",)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "a pointer of Git LFS"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"GGUF\x03\x00\x00\x00", r"quantised weights \(GGUF\)"),
    ],
)
def test_what_is_no_checkpoint_at_all_is_named(tmp_path, content, text):
    for name in ("a.ckpt", "a.safetensors", "a.gguf"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RecordError, match=text) as caught:
            recognise(tmp_path / name)
        assert "family=edm" not in str(caught.value)


def test_truncated_files_are_named_as_truncated(tmp_path):
    tiny.save(tmp_path / "a.ckpt", STATE)
    save_file({key: value.contiguous() for key, value in STATE.items()}, tmp_path / "a.safetensors")
    for name in ("a.ckpt", "a.safetensors"):
        whole = (tmp_path / name).read_bytes()
        for part in (len(whole) // 3, len(whole) - 7):
            (tmp_path / name).write_bytes(whole[:part])
            with pytest.raises(RecordError, match=r"truncated: .*; download it again"):
                tensor_files.read(tmp_path / name)
            with pytest.raises(RecordError, match="truncated"):
                recognise(tmp_path / name)


def test_sharded_files_are_read_together(tmp_path):
    keys = list(STATE)
    for n, key in enumerate(keys):
        torch.save({key: STATE[key]}, tmp_path / f"w-{n}.bin")
    index = tmp_path / "w.bin.index.json"
    index.write_text(json.dumps({"weight_map": {key: f"w-{n}.bin" for n, key in enumerate(keys)}}))
    same(tensor_files.sharded(index).tensors)
    index.write_text(json.dumps({"weight_map": {"other": "w-0.bin"}}))
    with pytest.raises(RecordError, match="lack 1 tensors, such as other"):
        tensor_files.sharded(index)
    index.write_text(json.dumps({"weight_map": {"other": "../w-0.bin"}}))
    with pytest.raises(RecordError, match="outside its folder"):
        tensor_files.sharded(index)


def test_an_old_pickle_of_foreign_objects_is_refused_by_name(tmp_path):
    (tmp_path / "a.ckpt").write_bytes(pickle.dumps({"a": argparse.Namespace(b=1)}))
    with pytest.raises(RecordError, match="not a plain checkpoint of tensors"):
        tensor_files.read(tmp_path / "a.ckpt")
