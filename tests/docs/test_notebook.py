"""docs/notebook.ipynb: its cells run, in a kernel or here, and it is stored without outputs."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import warnings

import pytest
from documents import ROOT

from solverbench.cli import progress, terminal
from solverbench.reports import Bundle

BOOK = ROOT / "docs" / "notebook.ipynb"


@pytest.fixture(scope="module")
def cells():
    found = json.loads(BOOK.read_text(encoding="utf-8"))["cells"]
    return [(each["cell_type"], "".join(each["source"]), each) for each in found]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_no_output_is_stored(cells):
    assert [each["outputs"] for kind, _, each in cells if kind == "code" and each["outputs"]] == []
    assert {each["execution_count"] for kind, _, each in cells if kind == "code"} == {None}


def test_its_links_lead_somewhere(cells):
    for kind, text, _ in cells:
        if kind == "markdown":
            assert [link for link in re.findall(r"\]\(([^)]+)\)", text) if not (BOOK.parent / link).is_file()] == []


@pytest.mark.usefixtures("few_compared", "loose", "unrendered", "remembered")
def test_its_cells_run_and_show_something(cells, here):
    """The value of each cell's last line is what a notebook shows."""
    place: dict[str, object] = {}
    shown = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind, text, _ in cells:
            if kind == "code":
                body = ast.parse(text)
                last = body.body.pop()
                assert isinstance(last, ast.Expr), text
                exec(compile(body, "<cell>", "exec"), place)
                shown.append(eval(compile(ast.Expression(last.value), "<cell>", "eval"), place))
    for each in shown:
        assert any(hasattr(each, name) for name in ("_repr_html_", "_repr_png_")) or len(repr(each)) < 300
    assert isinstance(place["results"], Bundle)
    assert place["trained"].validation < 0.2  # untrained, GS starts at DPM-Solver++(3M), .207
    assert len(repr(place["results"]).splitlines()) == 1
    assert "6 cells" in repr(place["results"])


def test_a_kernel_gets_a_bar_if_it_has_the_widgets(monkeypatch):
    class Shell:
        kernel = None

    class IPython:
        @staticmethod
        def get_ipython():
            return Shell()

    assert not terminal.in_notebook() or "ipykernel" in sys.modules
    monkeypatch.setitem(sys.modules, "IPython", IPython)
    monkeypatch.setitem(sys.modules, "ipykernel", IPython)
    assert terminal.in_notebook()
    for there in (True, False):
        monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name, there=there: there or None)
        console = progress._console(None)
        assert console is None if not there else console.is_jupyter


KERNEL = """
import json, sys
import nbformat
from nbclient import NotebookClient

book = nbformat.read(sys.argv[1], as_version=4)
book.cells = [each for each in book.cells if each.cell_type == "code"][:3]
NotebookClient(book, timeout=600, kernel_name="here", resources={"metadata": {"path": "."}}).execute()
print(json.dumps([[key for output in each.outputs for key in output.get("data", {})] for each in book.cells]))
"""


def test_it_runs_in_a_kernel(tmp_path):
    """The first cells, as a notebook runs them; the packages for it are no part of the tests' own environment."""
    if importlib.util.find_spec("nbclient") is None or importlib.util.find_spec("ipykernel") is None:
        pytest.skip("no nbclient and ipykernel")
    place = tmp_path / "jupyter" / "kernels" / "here"
    place.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (place / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "here", "language": "python"}))
    paths = {"JUPYTER_PATH": str(place.parents[1]), "JUPYTER_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}
    command = [sys.executable, "-c", KERNEL, str(BOOK)]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | paths, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kinds = json.loads(done.stdout.splitlines()[-1])
    assert all("text/html" in each for each in kinds)
    widgets = "application/vnd.jupyter.widget-view+json"
    assert (widgets in kinds[0]) is (importlib.util.find_spec("ipywidgets") is not None)
