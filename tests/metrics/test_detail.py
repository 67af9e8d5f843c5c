"""Power of fine detail: closed forms of blur and noise, bands, intervals, and through a run and its report."""

import json
import math

import numpy as np
import pytest
import torch
import toys
from click.testing import CliRunner

import solverbench as sb
from solverbench import reports
from solverbench.bench import run
from solverbench.bench.measure import Measure
from solverbench.bench.run_options import RunOptions
from solverbench.cli.main import main
from solverbench.errors import UserError
from solverbench.metrics import spectrum
from solverbench.metrics.table import TABLE

pytestmark = pytest.mark.usefixtures("unrendered")


def noise(count=200, size=(3, 16, 16), seed=1):
    return torch.randn(count, *size, generator=torch.Generator().manual_seed(seed))


def blurred(images, share):
    """Each pixel moved by `share` of the way to its neighbours' mean, along both sides; borders are repeated."""
    for axis in (-2, -1):
        first, last = images.narrow(axis, 0, 1), images.narrow(axis, images.shape[axis] - 1, 1)
        wide = torch.cat([first, images, last], axis)
        around = wide.narrow(axis, 0, images.shape[axis]) + wide.narrow(axis, 2, images.shape[axis])
        images = (1 - share) * images + share * around / 2
    return images


def value(score, images, others):
    rows = score(None, images, others).numpy()[None]
    values, left = spectrum.decibels(rows)
    assert left.shape == (1, 10)
    return float(values[0])


def transfer(share, size):
    """The blur's factor of each frequency: borders that are repeated are those of the cosine transform."""
    one = 1 - share + share * np.cos(np.pi * np.arange(size) / size)
    return np.outer(one, one)


def fine(size):
    place = np.arange(size) / size
    return np.hypot(place[:, None], place) >= 0.5


def test_of_equal_images_it_is_zero():
    images = noise()
    assert value(spectrum.beside, images, images) == 0
    assert value(spectrum.beside, torch.zeros(10, 1, 8, 8), torch.ones(10, 1, 8, 8)) == 0  # no detail in either


def test_half_the_amplitude_is_a_quarter_of_the_power():
    images = noise()
    assert value(spectrum.beside, images / 2 + 0.3, images) == pytest.approx(-20 * math.log10(2), abs=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_blur_is_negative_by_its_closed_form(share):
    """Of white noise every frequency has the same power, so the ratio is the mean of the squared transfer function."""
    images = noise(1000).double()
    expected = 10 * math.log10((transfer(share, 16) ** 2)[fine(16)].mean())
    assert expected < -0.4
    assert value(spectrum.beside, blurred(images, share), images) == pytest.approx(expected, abs=0.03)  # 3000 draws
    error = 10 * math.log10(((1 - transfer(share, 16)) ** 2)[fine(16)].mean())
    assert value(spectrum.residual, blurred(images, share), images) == pytest.approx(error, abs=0.03)


def test_blur_of_one_pattern_is_exactly_its_transfer_function():
    across = torch.cos(math.pi * 12 * (torch.arange(16, dtype=torch.float64) + 0.5) / 16)
    images = across.expand(10, 3, 16, 16)
    expected = 20 * math.log10(1 - 0.5 + 0.5 * math.cos(math.pi * 12 / 16))
    assert value(spectrum.beside, blurred(images, 0.5), images) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("deviation", [0.1, 0.5])
def test_white_noise_is_positive_by_its_closed_form(deviation):
    """Noise of variance s^2 has the power s^2 at each frequency, as the images have 1."""
    images = noise(1000)
    noisy = images + deviation * noise(1000, seed=2)
    expected = 10 * math.log10(1 + deviation**2)
    assert value(spectrum.beside, noisy, images) == pytest.approx(expected, abs=0.03)
    assert value(spectrum.residual, noisy, images) == pytest.approx(20 * math.log10(deviation), abs=0.03)


def test_a_ramp_that_ends_at_the_border_has_little_detail():
    """In a Fourier transform its jump at the border would be a third of the power of an alternating column."""
    ramp = torch.linspace(-1, 1, 16).expand(10, 1, 16, 16)
    assert spectrum.powers(ramp)[:, spectrum.FINE :].sum() < 1e-3 * spectrum.powers(ramp).sum()


def test_bands_add_up_to_the_variance_and_each_has_its_frequencies():
    images = noise(5, (2, 12, 20))
    spread = images.double().flatten(2).var(2, unbiased=False).mean(1)
    torch.testing.assert_close(spectrum.powers(images).sum(1), spread)
    for frequency, band in ((1, 0), (3, 0), (4, 1), (7, 1), (8, 2), (15, 2)):
        wave = torch.cos(math.pi * frequency * (torch.arange(16) + 0.5) / 16).expand(1, 1, 16, 16)
        assert spectrum.powers(wave)[0].argmax() == band, frequency
        assert spectrum.powers(wave)[0].sum() == pytest.approx(0.5, abs=1e-6)
    corner = torch.cos(math.pi * 15 * (torch.arange(16) + 0.5) / 16)
    assert spectrum.powers(torch.outer(corner, corner)[None, None])[0].argmax() == 3


def test_the_ratio_in_each_band_is_that_of_the_sums():
    images, others = noise(50), noise(50, seed=4)
    rows = spectrum.beside(None, images, others).numpy()
    expected = 10 * np.log10(spectrum.powers(images).sum(0).numpy() / spectrum.powers(others).sum(0).numpy())
    np.testing.assert_allclose(spectrum.by_band(rows), expected, atol=1e-6)


def test_a_value_with_a_block_left_out_is_that_of_the_other_images():
    images, others = noise(100), noise(100, seed=4)
    images[30:40] *= 3
    rows = spectrum.beside(None, images, others).numpy()
    _, left = spectrum.decibels(rows[None])
    without, _ = spectrum.decibels(np.concatenate([rows[:30], rows[40:]])[None])
    assert left[0, 3] == pytest.approx(without[0], abs=1e-9)
    assert left[0, 3] < left[0, 4] - 1


def test_its_interval_covers_the_closed_form_as_often_as_it_says():
    expected, inside = 10 * math.log10(1 + 0.3**2), 0
    for seed in range(60):
        images = noise(50, (1, 8, 8), seed)
        noisy = images + 0.3 * noise(50, (1, 8, 8), 1000 + seed)
        values, left = spectrum.decibels(spectrum.beside(None, noisy, images).numpy()[None])
        low, high = Measure("detail_teacher", values, left, 50, "", "").interval
        inside += low <= expected <= high
    assert 51 <= inside <= 60  # binomial: 57 of 60, below 51 in one case of 300


def test_it_is_measured_by_a_run_and_never_the_best(tmp_path):
    options = {
        "solvers": "euler,dpm:order=2", "nfe": 3, "samples": 100, "replicates": 2, "teachers": toys.teacher(),
        "out": tmp_path, "metrics": "detail_teacher,residual_teacher",
    }  # fmt: skip
    result = run.run(RunOptions(**options))
    assert result.exit_code == 0
    [euler, _] = result.cells
    teacher = toys.teacher()
    made, own = (
        sb.execute(sb.tableau(solver, nfe=nfe, teacher=teacher).plan(teacher.schedule.prior_scale), teacher.denoise,
                   sb.noise(range(50_000, 50_100), teacher))
        for solver, nfe in (("euler", 3), (teacher.sampler, teacher.sampler_nfe))
    )  # fmt: skip
    for name, score in (("detail_teacher", spectrum.beside), ("residual_teacher", spectrum.residual)):
        assert euler.measures[name].replicates[0] == pytest.approx(value(score, made, own), abs=1e-3)
    assert euler.cell.key["pairs"] == ["detail_teacher", "residual_teacher"]
    plain = run.run(RunOptions(**options | {"metrics": None})).cells[0]
    assert "pairs" not in plain.cell.key
    tables = {each.title.partition(" ")[0]: each for each in result.tables}
    assert "0 is the teacher's" in tables["detail_teacher"].title
    assert "better" not in tables["detail_teacher"].title
    assert not any(entry.best for _, row in tables["detail_teacher"].rows for entry in row)
    assert any(entry.best for _, row in tables["residual_teacher"].rows for entry in row)
    record = json.loads((result.folder / "bundle.json").read_text())
    assert record["metrics"]["detail_teacher"]["ranked"] is False
    assert "ranked" not in record["metrics"]["rmse_teacher"]
    reports.write(result.folder)
    text = (result.folder / "table-toy-detail_teacher.md").read_text(encoding="utf-8")
    assert "neither higher nor lower values are better" in text
    assert "**Bold**" not in text
    assert "**Bold**" in (result.folder / "table-toy-residual_teacher.md").read_text(encoding="utf-8")


def test_it_is_listed_and_described():
    assert "better   near 0" in CliRunner().invoke(main, ["info", "detail_teacher"]).output
    assert "better   lower" in CliRunner().invoke(main, ["info", "residual_teacher"]).output
    assert not TABLE["detail_teacher"].ranked


def test_nothing_is_recommended_by_it(tmp_path):
    with pytest.raises(UserError, match="by detail_teacher: none of its values is better; choose by another metric"):
        sb.recommend(toys.teacher(), 3, by="detail_teacher", out=tmp_path)
