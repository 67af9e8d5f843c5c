"""Every error says what was asked, what is wrong with it, and what to do instead, each in its own field."""

import ast
import pickle
from pathlib import Path

import pytest

from solverbench.errors import BudgetError, RecordError
from solverbench.wording import Problem, concerning

ROOT = Path(__file__).parents[2]
TREES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for folder in ("solverbench", "baselines", "registries", "reports", "tools", "benchmarks", "examples")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
FIELDS = ("asked", "wrong", "remedy")


def classes():
    """Return the names of `Problem` and of every class derived from it."""
    found, bases = {"Problem"}, {}
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    while more := {name for name, above in bases.items() if above & found} - found:
        found |= more
    return found


def faults():
    """Yield each place where an error is made with a field that is missing, empty or holds two."""
    names = classes()
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or ast.unparse(node.func).rpartition(".")[2] not in names:
                continue
            given = {each.arg: each.value for each in node.keywords}
            where = f"{path}:{node.lineno}"
            yield from (f"{where}: no {field}" for field in FIELDS if field not in given)
            yield from (f"{where}: a sentence without its field" for _ in node.args)
            for field, value in given.items():
                text = "".join(str(each.value) for each in ast.walk(value) if isinstance(each, ast.Constant))
                if isinstance(value, ast.Constant) and field in FIELDS and not text:
                    yield f"{where}: {field} is empty"
                if field == "wrong" and "; " in text:
                    yield f"{where}: wrong holds a second clause; the remedy has its own field"


def test_every_error_is_made_of_three_fields():
    assert not list(faults())


def test_a_sentence_alone_is_no_error():
    with pytest.raises(TypeError):
        Problem("heun with nfe=5: each step costs 2 calls; use nfe=4")


@pytest.mark.parametrize("copied", [lambda error: error, lambda error: pickle.loads(pickle.dumps(error))])
def test_the_sentence_is_the_three_fields(copied):
    error = copied(BudgetError(asked="heun with nfe=5", wrong="each step costs 2 calls", remedy="use nfe=4", near=[4]))
    assert str(error) == "heun with nfe=5: each step costs 2 calls; use nfe=4"
    assert (error.asked, error.wrong, error.remedy, error.near) == (
        "heun with nfe=5", "each step costs 2 calls", "use nfe=4", frozenset([4])
    )  # fmt: skip


def test_a_subject_that_is_known_is_not_repeated():
    error = RecordError(asked="a.pt", wrong="truncated", remedy="download it again")
    assert error.without("a.pt") == "truncated; download it again"
    assert (error.finding("a.pt"), error.finding("b.pt")) == ("truncated", "a.pt: truncated")
    with pytest.raises(RecordError, match=r"^teacher x: a\.pt: truncated; download it again$"), concerning("teacher x"):
        raise error
