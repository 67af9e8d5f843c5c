"""The commands and code of docs/export.md run as they are written."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from solverbench.cli.main import main

TEXT = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
BLOCKS = re.findall(r"^```(console|python)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_page_runs_as_it_is_written(tmp_path, monkeypatch):
    assert len(BLOCKS) == 7
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    diffusers = importlib.util.find_spec("diffusers") and importlib.util.find_spec("transformers")
    if diffusers:
        import tiny_folders

        tiny_folders.ddpm(tmp_path / "my-ddpm")
    for kind, code in BLOCKS:
        if not diffusers and re.search(r"import diffusers|export\.diffusers|my-ddpm", code):
            continue
        if kind == "python":
            space = {}
            exec(compile(code, "docs/export.md", "exec"), space)
            assert all(torch.is_tensor(space[name]) or space[name] for name in ("images", "x") if name in space)
            continue
        for line in code.splitlines():
            done = CliRunner().invoke(main, line.split()[1:], catch_exceptions=False)
            assert done.exit_code == 0, f"{line}: {done.output}"
    for name in ("k_gas4", "tableau_scheduler"):  # it imports them from the folder it wrote
        sys.modules.pop(name, None)
    assert (tmp_path / "gas4" / "scheduler_config.json").is_file()
