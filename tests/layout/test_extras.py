"""A missing extra is installed from where the package came: a clone, or an index."""

import importlib.metadata
import re
import tomllib

import pytest
from documents import ROOT

from solverbench import extras

CLONE = "pip install '.[fid]' in the clone of SolverBench"


@pytest.fixture(autouse=True)
def _asked_again():
    extras.from_clone.cache_clear()
    yield
    extras.from_clone.cache_clear()


def installed(monkeypatch, told):
    """As a package in site-packages, whose `direct_url.json` holds this text."""

    class Distribution:
        def read_text(self, name):
            assert name == "direct_url.json"
            return told

    monkeypatch.setattr(extras, "__file__", "/site-packages/solverbench/extras.py")
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Distribution())


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (
            '{"url": "file:///clone", "dir_info": {"editable": true}}',
            "pip install '.[fid]' in the clone of SolverBench",
        ),
        ('{"url": "file:///clone", "dir_info": {}}', "pip install '.[fid]' in the clone of SolverBench"),
        ('{"url": "file:///a.whl", "archive_info": {}}', "pip install 'solverbench[fid]'"),
        (None, "pip install 'solverbench[fid]'"),
        ("{", "pip install 'solverbench[fid]'"),
        ("7", "pip install 'solverbench[fid]'"),
    ],
)
def test_the_command_fits_how_the_package_was_installed(monkeypatch, told, expected):
    installed(monkeypatch, told)
    assert extras.install("fid") == expected


def test_no_message_names_the_index_itself_and_every_extra_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = set()
    for folder in ("solverbench", "baselines", "registries", "reports"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert path.name == "extras.py" or "pip install 'solverbench[" not in text, path
            asked |= set(re.findall(r"extras\.install\([\"'](\w+)[\"']\)", text))
    assert asked >= {"fid", "clip", "lpips", "diffusers", "ray", "tensorboard"}
    assert asked <= set(project["optional-dependencies"])
