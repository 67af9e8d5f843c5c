"""What trains a solver can't reach the network that measures it."""

import ast
import subprocess
import sys
from pathlib import Path

import forks
import pytest

import solverbench

ROOT = Path(solverbench.__file__).parent
TRAINING = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    for path in (*(ROOT / "learned").rglob("*.py"), *(ROOT / "teachers" / "embedded").glob("*/loss.py"))
)
FORBIDDEN = {"metric", "MetricNet", "extractor", "load_metric", "metric_network", "of_floats"}
DOOR = "learned.training.losses", "metric_features"
"""The one function that may ask for the network that measures; `allow_metric_loss` alone leads to it."""


def source(name: str, *, door: bool = False) -> str:
    """The source of a module; without what is in the door unless `door`."""
    path = ROOT / name.replace(".", "/")
    text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
    tree = ast.parse(text)
    if name == DOOR[0] and not door:
        tree.body = [node for node in tree.body if getattr(node, "name", "") != DOOR[1]]
    return ast.unparse(tree)


def forbidden(source: str) -> set[str]:
    """The forbidden names in `source`: as names, attributes, imports or in strings that are no docstrings."""
    tree, found = ast.parse(source), set()
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        words: list[str] = []
        if isinstance(node, ast.Name):
            words = [node.id]
        elif isinstance(node, ast.Attribute):
            words = [node.attr]
        elif isinstance(node, ast.alias):
            words = node.name.split(".")
        elif isinstance(node, ast.ImportFrom):
            words = (node.module or "").split(".")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in texts:
            words = node.value.replace(":", ".").split(".")
        found |= FORBIDDEN & set(words)
    return found


@pytest.mark.parametrize("name", TRAINING)
def test_training_code_does_not_name_the_metric(name: str) -> None:
    assert forbidden(source(name)) == set()


def test_the_door_is_where_the_check_leaves_it_out() -> None:
    assert forbidden(source(DOOR[0], door=True)) == {"metric"}
    assert len(TRAINING) > 20


@pytest.mark.parametrize(
    "line",
    [
        "from solverbench.teachers.embedded.digits import metric",
        "import solverbench.teachers.embedded.digits.metric as m",
        "from solverbench.teachers.embedded.digits.metric import load",
        "load = importlib.import_module('solverbench.teachers.embedded.digits.metric')",
        "features = teacher.evaluation.extractor(images)",
        "network = teacher.features['metric'](device)",
    ],
)
def test_the_check_sees_every_way_in(line: str) -> None:
    assert forbidden(line)


def test_importing_training_code_and_loading_its_network_never_imports_the_metric() -> None:
    lines = [f"import solverbench.{name}" for name in TRAINING]
    lines += ["import sys, solverbench.teachers.embedded.digits as d", "teacher = d.load(); network = d.load_loss()"]
    lines += [
        "assert teacher.evaluation is not None",
        "sys.exit('solverbench.teachers.embedded.digits.metric' in sys.modules)",
    ]
    assert forks.run(["-c", "\n".join(lines)], cwd=ROOT.parent).returncode == 0


def test_importing_the_package_does_not_import_torch() -> None:
    line = "import sys, solverbench.teachers.embedded.digits; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", line], check=False, cwd=ROOT.parent).returncode == 0
