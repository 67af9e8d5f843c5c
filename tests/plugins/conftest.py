"""The examples of docs/plugins.md in a folder, and the command line."""

import numpy as np
import pytest
from click.testing import CliRunner
from plugged import EXAMPLES

from solverbench.cli.main import main


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """The examples' files in the current folder; takes the text of another file, as file(name, text)."""
    monkeypatch.chdir(tmp_path)

    def file(name, text):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return name

    for name, text in EXAMPLES.items():
        file(name, text)
    np.save("real.npy", np.random.default_rng(0).integers(256, size=(200, 1, 8, 8), dtype=np.uint8))
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
