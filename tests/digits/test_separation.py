"""What trains a solver can't reach the network that measures it."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import solverbench

ROOT = Path(solverbench.__file__).parent
TRAINING = (
    *("training", "student", "job", "pairs", "stages", "descent", "relaxation", "patience", "checkpoints", "result"),
    *("adversarial", "discriminators", "losses", "recipes", "gs", "ld3", "s4s", "coefficients", "discretisation"),
    *("digits.loss", "digits.fitting", "shapes.loss"),
)
FORBIDDEN = {"metric", "MetricNet", "extractor", "load_metric", "features_metric"}


def present() -> list[str]:
    return [name for name in TRAINING if importlib.util.find_spec(f"solverbench.{name}") is not None]


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
    path = ROOT / (name.replace(".", "/") + ".py")
    if not path.is_file():
        pytest.skip(f"solverbench.{name} isn't there")
    assert forbidden(path.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    "line",
    [
        "from solverbench.teachers.embedded.digits import metric",
        "import solverbench.teachers.embedded.digits.metric as m",
        "from solverbench.teachers.embedded.digits.metric import load",
        "load = importlib.import_module('solverbench.teachers.embedded.digits.metric')",
        "features = teacher.evaluation.extractor(images)",
    ],
)
def test_the_check_sees_every_way_in(line: str) -> None:
    assert forbidden(line)


def test_importing_training_code_and_loading_its_network_never_imports_the_metric() -> None:
    lines = [f"import solverbench.{name}" for name in present()]
    lines += ["import sys, solverbench.teachers.embedded.digits as d", "teacher = d.load(); network = d.load_loss()"]
    lines += [
        "assert teacher.evaluation is not None",
        "sys.exit('solverbench.teachers.embedded.digits.metric' in sys.modules)",
    ]
    assert subprocess.run([sys.executable, "-c", "\n".join(lines)], check=False, cwd=ROOT.parent).returncode == 0


def test_importing_the_package_does_not_import_torch() -> None:
    line = "import sys, solverbench.teachers.embedded.digits; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", line], check=False, cwd=ROOT.parent).returncode == 0
