"""Figures of a training: what is drawn of its tables, and one clear line for each damage."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from solverbench import reports
from solverbench.reports.figures import training

ITERATIONS, CALLS = 60, 3


def history(adversarial: bool = True) -> pd.DataFrame:
    """One row before the first iteration, then losses that fall, validated every twenty."""
    i = np.arange(ITERATIONS + 1)
    table = pd.DataFrame({"iteration": i, "distance": 0.3 * np.exp(-i / 20) + 0.01, "gradient": 0.5})
    judged = 0.7 + 0.1 * np.cos(i) if adversarial else np.full(len(i), np.nan)
    table = table.assign(adversarial=judged, loss=table["distance"] + np.nan_to_num(0.1 * judged))
    table = table.assign(d_real=judged, d_fake=judged - 0.2, discriminator=judged, r1=judged, r2=judged)
    table["validation"] = np.where(i % 20 == 0, 0.5 * np.exp(-i / 30), np.nan)
    table.loc[0, ["loss", "distance", "adversarial", "d_real", "d_fake"]] = np.nan
    return table[list(training.HISTORY)]


def moved(decoupled: float = 0.1) -> pd.DataFrame:
    """Levels from 80 to 0.002, told apart from the second call on, and three parameters."""
    rows = []
    for i in range(0, ITERATIONS + 1, 20):
        levels = 80 * (0.002 / 80) ** (np.arange(CALLS + 1) / CALLS) * (1 + i / 1000)
        rows += [(i, "level", k, level) for k, level in enumerate(levels)]
        rows += [(i, "told", k, levels[k] * (1 + decoupled * k * i)) for k in range(CALLS)]
        rows += [(i, name, k, k * i / 100) for name in ("mu_logit", "c1", "c2") for k in range(2)]
    return pd.DataFrame(rows, columns=list(training.PATH))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    history().to_csv(tmp_path / "history.csv", index=False)
    moved().to_csv(tmp_path / "path.csv", index=False)
    return tmp_path


def lines(axes, width: float) -> list[np.ndarray]:
    return [np.asarray(line.get_ydata(), dtype=float) for line in axes.lines if line.get_linewidth() == width]


def test_a_training_is_drawn_as_curves_and_path_twice_the_same(run: Path) -> None:
    before = set(run.iterdir())
    written = reports.training(run)
    assert [path.name for path in written] == [f"{n}.{k}" for n in ("curves", "path") for k in ("png", "pdf", "svg")]
    assert set(run.iterdir()) - before == set(written)
    first = {path: path.read_bytes() for path in written}
    assert {path: path.read_bytes() for path in reports.training(run)} == first


def test_without_a_path_the_curves_are_drawn_alone(run: Path) -> None:
    (run / "path.csv").unlink()
    assert {path.stem for path in reports.training(run)} == {"curves"}


def test_the_curves_show_losses_judgement_and_validation() -> None:
    table = history()
    losses, judged, validation = training.curves(table).axes
    drawn = {line.get_label(): line for line in losses.lines if not line.get_label().startswith("_")}
    assert list(drawn) == ["distance", "adversarial", "loss: their weighted sum"]
    assert losses.get_yscale() == validation.get_yscale() == "log"
    np.testing.assert_allclose(lines(losses, 0.4)[0], table["distance"].iloc[1:])
    assert judged.get_yscale() == "linear"
    np.testing.assert_allclose(lines(judged, 0.4)[0], 0.2)
    np.testing.assert_allclose(lines(validation, 1.0)[0], table["validation"].dropna())
    assert f"{table['validation'].min():.4g}" in {text.get_text() for text in validation.texts}


def test_a_training_without_a_discriminator_has_no_panel_for_it() -> None:
    losses, validation = training.curves(history(adversarial=False)).axes
    assert len(lines(losses, 1.1)) == 1
    assert validation.get_title(loc="left") == "validation RMSE"


def test_the_path_shows_levels_told_ones_and_parameters_by_letter() -> None:
    levels, first, second = training.path(moved()).axes
    assert levels.get_yscale() == "log"
    assert len(lines(levels, 1.0)) == CALLS + 1
    assert len(lines(levels, 0.9)) == CALLS - 1  # the first call is told its own level
    assert levels.get_title(loc="left") == "noise levels, dashed: told to the network"
    assert first.get_title(loc="left") == "mu_logit, 2 numbers"
    assert second.get_title(loc="left") == "c (c1 to c2), 4 numbers"
    np.testing.assert_allclose(lines(first, 0.8)[1], [0.0, 0.2, 0.4, 0.6])


def test_levels_that_are_told_as_they_are_are_drawn_once() -> None:
    levels = training.path(moved(decoupled=0.0)).axes[0]
    assert levels.get_title(loc="left") == "noise levels"
    assert not lines(levels, 0.9)


def test_a_level_of_zero_does_not_spoil_a_logarithmic_axis() -> None:
    table = moved()
    table.loc[(table["name"] == "level") & (table["index"] == CALLS), "value"] = 0.0
    levels = training.path(table).axes[0]
    assert levels.get_yscale() == "log"
    assert levels.get_ylim()[0] > 0.01


HEAD = ",".join(training.PATH)
DAMAGES = {
    "no history": (lambda run: (run / "history.csv").unlink(), "history.csv: it is not there"),
    "empty": (lambda run: (run / "history.csv").write_text(""), "cannot be read as CSV"),
    "no rows": (lambda run: (run / "path.csv").write_text(f"{HEAD}\n"), "it has no rows"),
    "foreign": (lambda run: (run / "path.csv").write_text("a,b\n1,2\n"), "columns iteration, name, .* not there"),
    "word": (lambda run: (run / "path.csv").write_text(f"{HEAD}\n0,level,0,x\n"), "'x' is not a number"),
    "no index": (lambda run: (run / "path.csv").write_text(f"{HEAD}\n0,level,,1\n"), "has no index"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_table_gives_one_clear_line_and_draws_nothing(run: Path, name: str) -> None:
    damage, message = DAMAGES[name]
    damage(run)
    with pytest.raises(reports.BundleError, match=message) as caught:
        reports.training(run)
    assert re.fullmatch(r".+: .+; .+", str(caught.value))
    assert not list(run.glob("*.png"))
