"""The tables of trained solvers on pages: those of the stored numbers, which belong to the files that are shipped."""

import json
import shlex

import documents
import pytest
from click.testing import CliRunner

from solverbench.cli.main import main


@pytest.fixture(scope="module")
def maker():
    return documents.tool("trained")


def test_the_tables_are_those_of_the_stored_numbers(maker):
    texts = [page.read_text(encoding="utf-8") for page in maker.PAGES]
    assert [maker.page(text) for text in texts] == texts
    assert [text.count("made by docs/tools/trained.py") for text in texts] == [3, 2]
    for page, command in zip(texts, maker.COMMANDS.values(), strict=True):
        assert f"    {command}\n" in page


def test_a_number_that_was_typed_would_be_seen(maker):
    page = maker.PAGES[0].read_text(encoding="utf-8")
    value = maker.measured(maker.stored(), "digits", "rmse_teacher", ("dpm",), (3,)).split("**")[1]
    assert maker.page(page.replace(value, value.replace("±", "+-"))) == page


@pytest.mark.parametrize("run", ["digits", "learned"])
def test_the_stored_numbers_belong_to_the_files_as_they_are(maker, run, tmp_path):
    """A cell's address holds the hash of a trained file; the plan of the page's command has the same addresses."""
    told = CliRunner().invoke(main, ["plan", *shlex.split(maker.COMMANDS[run])[2:], "--out", str(tmp_path), "--json"])
    cells = json.loads(told.stdout.splitlines()[-1])["cells"]
    # A cell has no address before its grid is searched.
    searched = {cell["solver"] for cell in cells if cell["status"] == "to-search"}
    planned = {cell["cell"] for cell in cells if cell["cell"]}
    kept = {row["cell"]: key[2] for key, row in maker.stored().items() if key[0] == run}
    addresses = {address: solver for together, solver in kept.items() for address in together.split("+")}
    assert planned <= set(addresses)
    assert {solver for address, solver in addresses.items() if address not in planned} <= searched


def test_every_training_of_a_shipped_solver_has_a_line(maker):
    """Each is shipped with three trainings."""
    known = maker.trainings()
    budgets = {solver: range(1 if solver in ("gs", "gas") else 2, 11) for solver in maker.SHIPPED}
    assert {key: len(known[key]) for solver in budgets for nfe in budgets[solver] if (key := (solver, nfe))} == {
        (solver, nfe): 3 for solver in budgets for nfe in budgets[solver]
    }
