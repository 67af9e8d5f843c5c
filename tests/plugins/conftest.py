"""What a test registers is gone after it."""

import sys

import pytest
from click.testing import CliRunner
from plugged import EXAMPLES

import registries
from solverbench import plugins
from solverbench.cli import main


@pytest.fixture(autouse=True)
def _as_before():
    tables = {kind: dict(registry._registered) for kind, registry in registries.extensible.items()}
    held, registered, modules, path = dict(plugins._held), list(plugins._registered), set(sys.modules), list(sys.path)
    yield
    for kind, registry in registries.extensible.items():
        registry._registered = tables[kind]
    plugins._held, plugins._registered, sys.path[:] = held, registered, path
    for name in set(sys.modules) - modules:
        if name.startswith(("solverbench_plugin_", "offered")):
            del sys.modules[name]


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """The examples' files in the current folder; takes the text of another file, as file(name, text)."""
    monkeypatch.chdir(tmp_path)

    def file(name, text):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return name

    for name, text in EXAMPLES.items():
        file(name, text)
    return file


@pytest.fixture
def invoke():
    """Run the command line; its result, whose `line` is what it said in the end."""

    def call(*words):
        result = CliRunner().invoke(main, [str(word) for word in words])
        result.line = (result.stderr.strip() or "\n").splitlines()[-1]
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call
