"""Win rates: counts, intervals that take a prompt's images for one cluster, and what a run and its report say."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from metrics import prompted_networks as networks
from metrics.test_prompted import PROMPTS, measured
from scipy import stats

from solverbench import reports
from solverbench.bench.bundle import claims, wins
from solverbench.metrics.wins import compared
from solverbench.reports.wins import against

pytestmark = pytest.mark.usefixtures("unrendered")


def test_p_agrees_with_the_interval():
    for won in range(30, 64):
        apart = np.r_[np.ones(won), -np.ones(64 - won)]
        for clusters in (np.arange(64), np.random.default_rng(won).integers(0, 12, 64)):
            found = compared(apart, np.zeros(64), clusters)
            assert (found.p <= 0.05) == (not found.low <= 0.5 <= found.high)


def test_counts_and_the_mean_difference_are_those_of_a_loop():
    a, b = np.array([3.0, 2.0, 1.0, 5.0]), np.array([1.0, 2.0, 4.0, 4.5])
    found = compared(a, b, [0, 1, 2, 3])
    assert (found.wins, found.ties, found.losses, found.rate, found.difference) == (2, 1, 1, 0.625, -0.125)
    assert (found.prompts, found.images) == (4, 4)
    lower = compared(a, b, [0, 1, 2, 3], higher=False)
    assert (lower.wins, lower.losses, lower.rate, lower.difference) == (1, 2, 0.375, -0.125)
    turned = compared(b, a, [0, 1, 2, 3])
    assert (turned.low, turned.high) == pytest.approx((1 - found.high, 1 - found.low))
    half = stats.t.ppf(0.975, 3) * stats.sem(a - b)
    assert (found.difference_low, found.difference_high) == pytest.approx((-0.125 - half, -0.125 + half))


def test_with_one_image_a_prompt_the_interval_is_wilsons_with_students_quantile():
    """45 of 64: the variance of independent images is p (1 - p)/63, so 63 images over the quantiles' squared ratio."""
    won = np.r_[np.ones(45), -np.ones(19)]
    found = compared(won, np.zeros(64), np.arange(64))
    p, z = 45 / 64, stats.norm.ppf(0.975)
    n = 63 * (z / stats.t.ppf(0.975, 63)) ** 2
    centre, half = (
        (p + z**2 / (2 * n)) / (1 + z**2 / n),
        z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + (z / n) ** 2 / 4),
    )
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half))
    assert found.p == pytest.approx(2 * stats.t.sf((p - 0.5) / (0.5 / np.sqrt(63)), 63))


def test_images_of_a_prompt_that_agree_count_as_one():
    won = np.where(np.arange(20) < 13, 1.0, -1.0)
    alone = compared(won, np.zeros(20), np.arange(20))
    copied = compared(np.repeat(won, 5), np.zeros(100), np.repeat(np.arange(20), 5))
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))
    assert copied.prompts == 20
    assert compared(np.repeat(won, 5), np.zeros(100), np.arange(100)).low > copied.low


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_without_variance_the_interval_is_that_of_as_many_images_as_prompts(rate):
    found = compared(np.full(32, rate - 0.5), np.zeros(32), np.arange(32) % 16)
    n, z = 16, stats.norm.ppf(0.975)
    centre, half = (
        (rate + z**2 / 2 / n) / (1 + z**2 / n),
        z / (1 + z**2 / n) * (rate * (1 - rate) / n + z**2 / 4 / n**2) ** 0.5,
    )
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half))
    assert found.p == pytest.approx(2 * stats.norm.sf(2 * abs(rate - 0.5) * 4))


def test_one_prompt_leaves_its_images_as_clusters():
    won = np.where(np.arange(30) < 20, 1.0, -1.0)
    one, many = compared(won, np.zeros(30), np.zeros(30, int)), compared(won, np.zeros(30), np.arange(30))
    assert (one.low, one.high) == pytest.approx((many.low, many.high))
    assert one.prompts == 1


def test_the_spread_between_trainings_widens_the_interval():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=400), generator.normal(size=400)
    alone = compared(a, b, np.arange(400))
    alike = compared(np.stack([a, a, a]), b, np.arange(400))
    apart = compared(np.stack([a - 0.5, a, a + 0.5]), b, np.arange(400))
    assert (alike.low, alike.high) == pytest.approx((alone.low, alone.high))
    assert apart.high - apart.low > 3 * (alone.high - alone.low)


@pytest.mark.parametrize(("prompts", "seeds"), [(20, 5), (64, 1), (64, 10)])
def test_the_interval_covers_the_truth_of_prompts_that_are_drawn(prompts, seeds):
    """95 % nominal; half of the variance of a score's difference is the prompt's. 300 trials: 90 to 98 %."""
    hits, naive = 0, 0
    for trial in range(300):
        generator = np.random.default_rng([prompts, seeds, trial])
        apart = 0.524 + np.sqrt(0.5) * (generator.normal(size=(prompts, 1)) + generator.normal(size=(prompts, seeds)))
        each = compared(apart.ravel(), np.zeros(apart.size), np.repeat(np.arange(prompts), seeds))
        alone = compared(apart.ravel(), np.zeros(apart.size), np.arange(apart.size))
        truth = stats.norm.cdf(0.524)
        hits += each.low <= truth <= each.high
        naive += alone.low <= truth <= alone.high
    assert 0.90 <= hits / 300 <= 0.98
    assert seeds == 1 or naive / 300 < 0.9, "images alone are too narrow where prompts differ"


OPTIONS = {"solvers": "euler,dpm,heun", "nfe": "4", "samples": 30}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a stand-in for transformers and its networks."""
    folder = tmp_path_factory.mktemp("wins")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOLVERBENCH_DATA", str(folder / "data"))
        networks.stand_in(patch, folder / "data", "PickScore_v1", networks.WORDS)
        yield folder


@pytest.fixture(scope="module")
def run(home):
    """A run of three solvers with PickScore."""
    return measured(home / "runs", "pickscore", **OPTIONS)


def stored(outcome, root):
    """The scores in a cell's blocks, read without the product's code."""
    [folder] = root.glob(f"cells/*/{outcome.cell.address}/blocks")
    found = sorted(folder.glob("*.npz"), key=lambda path: int(path.stem.split("-")[0]))
    return np.concatenate([np.load(path)["pickscore"] for path in found])


def test_a_run_keeps_win_rates_of_each_pair_and_the_means_of_each_prompt(run, home):
    record = json.loads((run.folder / "bundle.json").read_text())
    assert [(each["a"], each["b"]) for each in record["wins"]] == [("euler", "dpm"), ("euler", "heun"), ("dpm", "heun")]
    scores = {outcome.cell.solver: stored(outcome, home / "runs") for outcome in run.cells}
    numbers = np.arange(50_000, 50_030) % 3
    for each in record["wins"]:
        a, b = scores[each["a"]], scores[each["b"]]
        assert each["rate"] == pytest.approx(((a > b) + (a == b) / 2).mean())
        assert (each["prompts"], each["images"]) == (3, 30)
        gaps = {PROMPTS[n]: (a - b)[numbers == n].mean() for n in range(3)}
        found = dict(map(tuple, [*each["up"], *each["down"]]))
        assert found == pytest.approx({line: gap for line, gap in gaps.items() if gap})
    table = pd.read_csv(run.folder / wins.PROMPTS).set_index(["solver", "prompt"])
    assert table.loc[("dpm", PROMPTS[1]), "mean"] == pytest.approx(scores["dpm"][numbers == 1].mean())
    assert set(table["images"]) == {10}
    assert table.loc["dpm"]["line"].to_dict() == {line: n for n, line in enumerate(PROMPTS)}


def test_a_repeated_run_says_the_same_and_lost_blocks_leave_the_pair_out(run, home):
    before = json.loads((run.folder / "bundle.json").read_text())["wins"]
    again = measured(home / "runs", "pickscore", **OPTIONS)
    assert {outcome.status for outcome in again.cells} == {"cached"}
    assert json.loads((again.folder / "bundle.json").read_text())["wins"] == before
    [outcome] = [each for each in again.cells if each.cell.solver == "heun"]
    [folder] = (home / "runs").glob(f"cells/*/{outcome.cell.address}/blocks")
    lost = next(folder.glob("*.npz"))
    kept = lost.read_bytes()
    lost.unlink()
    assert [each.outcome.cell.solver for each in wins.found(again.cells, home / "runs")] == ["euler", "dpm"]
    lost.write_bytes(kept)


def test_the_report_shows_win_rates_against_the_baseline(run):
    bundle = reports.load(run.folder)
    for baseline, sign in (("dpm", 1), ("euler", -1)):
        found = {each.label: each for each in against(bundle, baseline)}
        assert list(found) == [name for name in ("euler", "dpm", "heun") if name != baseline]
        other = found["euler" if baseline == "dpm" else "dpm"]
        entry = bundle.record["wins"][0]
        assert other.rate == pytest.approx(entry["rate"] if sign > 0 else 1 - entry["rate"])
        assert other.low == pytest.approx(entry["low"] if sign > 0 else 1 - entry["high"])
        first, second = sorted(found.values(), key=lambda each: each.p)
        assert first.p_holm == pytest.approx(min(1, 2 * first.p))
        assert second.p_holm == pytest.approx(max(first.p_holm, second.p))
        assert other.difference_high == pytest.approx(sign * entry["difference_high" if sign > 0 else "difference_low"])
    reports.write(run.folder)
    text, page = ((run.folder / f"report.{kind}").read_text() for kind in ("md", "html"))
    assert "## Win rates against dpm" in text
    assert "after Holm's correction" in text
    assert against(bundle, "dpm")[0].text in text
    assert 'id="wins"' in page
    assert PROMPTS[0] in page
    assert pd.read_csv(run.folder / "wins.csv")["win rate"].tolist() == [each.text for each in against(bundle, "dpm")]
    assert "\\begin{table}" in (run.folder / "wins.tex").read_text()


def test_damaged_entries_of_a_bundle_are_left_out(run):
    bundle = reports.load(run.folder)
    whole = bundle.record["wins"][0]
    for key, value in (("rate", "no"), ("low", float("nan")), ("up", [["one"]]), ("a", "nobody"), ("nfe", None)):
        bundle.record["wins"][0] = {**whole, key: value}
        assert len(against(bundle, "dpm")) == 1
    bundle.record["wins"][0] = "damaged"
    assert len(against(bundle, "dpm")) == 1


def test_a_verdict_of_a_score_is_decided_by_the_win_rate_and_counts_each_rival(run, home):
    scores = wins.found(run.cells, home / "runs")

    def of(name, shift, learned):
        [each] = [one for one in scores if one.outcome.cell.solver == name]
        cell = SimpleNamespace(
            teacher=each.outcome.cell.teacher, solver=name, nfe=4, learned=learned, metric_loss=False, inferred=""
        )
        values = np.arange(30.0) % 7 + shift
        outcome = SimpleNamespace(cell=cell, measures={"pickscore": SimpleNamespace(value=values.mean(), over="same")})
        return wins.Scores(outcome, each.metric, values, np.arange(30), {n: str(n) for n in range(30)})

    rivals = [of("dpm", 0.0, False), of("heun", -1.0, False)]
    [found] = claims.verdicts([], [of("euler", 0.5, True), *rivals])
    assert found["claim"] == "euler NFE 4 against dpm NFE 4 on toy"
    assert (found["verdict"], found["wins"]["rate"], found["difference"]) == ("euler ahead", 1.0, 0.5)
    assert found["comparisons"] == 2
    assert found["p_holm"] == pytest.approx(2 * found["p"]) == pytest.approx(4 * stats.norm.sf(30**0.5))
    [found] = claims.verdicts([], [of("euler", 0.0, True), *rivals])
    assert (found["verdict"], found["wins"]["rate"]) == ("level", 0.5)
    [found] = claims.verdicts([], [of("euler", -0.5, True), *rivals])
    assert found["verdict"] == "dpm ahead"
    assert claims.verdicts([], rivals) == []


def test_the_verdict_stands_in_the_report_with_its_rate(run, tmp_path):
    folder = tmp_path / "report"
    shutil.copytree(run.folder, folder)
    record = json.loads((folder / "bundle.json").read_text())
    told = {"claim": "a against b", "verdict": "a ahead", "difference": 1.0, "low": 0.5, "high": 1.5,
            "metric": "pickscore", "p": 0.001, "p_holm": 0.002, "comparisons": 2,
            "wins": {"rate": 0.7, "low": 0.6, "high": 0.8}}  # fmt: skip
    record["verdicts"] = [told, {**told, "wins": "damaged"}]
    (folder / "bundle.json").write_text(json.dumps(record))
    reports.write(folder)
    assert pd.read_csv(folder / "verdicts.csv", keep_default_na=False)["win rate"].tolist() == ["70 % (60 to 80)", ""]
