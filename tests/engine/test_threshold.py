"""Dynamic thresholding: exactly its formula, outside the tableau, and in every cell and sample that asks for it."""

import numpy as np
import pytest
import torch
import toys
from golden import golden

import solverbench as sb
from solverbench.bench import images, run
from solverbench.bench.run_options import RunOptions
from solverbench.errors import UserError
from solverbench.method.thresholding import thresholded
from solverbench.sampling import endpoints

SMALL = {"nfe": "3", "samples": 40, "replicates": 1, "batch": 10}


def loud(x, sigma):
    """The toy denoiser, three times as bright."""
    return 3 * toys.denoise(x, sigma)


def by_formula(d):
    c = torch.stack([torch.quantile(image.abs().flatten(), 0.995) for image in d]).clamp(min=1)
    c = c.reshape(-1, *[1] * (d.dim() - 1))
    return d.clamp(-c, c) / c


@pytest.mark.parametrize("shape", [(5, 3, 8, 8), (4, 1, 8, 8), (3, 7), (2, 1)])
@pytest.mark.parametrize("scale", [0.1, 0.6, 40.0])
def test_outputs_are_clipped_and_divided_by_their_own_quantile(shape, scale):
    d = scale * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    d[0] *= 0.01
    found = thresholded(lambda x, sigma: d)(torch.zeros(shape), torch.tensor(1.0))
    torch.testing.assert_close(found, by_formula(d), rtol=1e-14, atol=0)
    assert torch.equal(found[0], d[0]) == bool(d[0].abs().max() <= 1)
    assert found.abs().max() <= 1


def test_an_images_threshold_depends_on_no_other_image():
    d = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(2)) * torch.arange(1, 7).reshape(-1, 1, 1, 1)
    adapted = thresholded(lambda x, sigma: x)
    together = adapted(d, torch.tensor(1.0))
    assert torch.equal(together, torch.cat([adapted(one[None], torch.tensor(1.0)) for one in d]))


def test_it_is_off_by_default_and_no_part_of_the_tableau():
    plain, with_it = sb.make("dpm"), sb.make("dpm:threshold=true")
    denoise = golden("solvers_edm_frame").denoise
    assert plain.adapt(denoise) is denoise
    assert with_it.adapt(denoise) is not denoise
    assert sb.tableau(with_it, nfe=4).equals(sb.tableau(plain, nfe=4))


def test_a_thresholded_cell_is_the_plain_one_on_a_thresholded_network(tmp_path):
    def values(solvers, denoise):
        frame = run.run(
            RunOptions(solvers=solvers, teachers=toys.teacher(denoise), out=tmp_path / denoise.__name__, **SMALL)
        ).frame
        return [tuple(part[part.metric == "frechet_data"].value) for _, part in frame.groupby("solver", sort=False)]

    plain, with_it = values("dpm,dpm:threshold=true", loud)
    (by_hand,) = values("dpm", thresholded(loud))
    assert with_it == by_hand != plain


def test_a_thresholded_cell_has_an_address_of_its_own(tmp_path):
    chosen = run.run(RunOptions(solvers="dpm,dpm:threshold=true", teachers=toys.teacher(loud), out=tmp_path, **SMALL))
    plain, with_it = [each.cell for each in chosen.cells]
    assert plain.plan == with_it.plan
    assert plain.address != with_it.address


def test_samples_written_to_files_are_thresholded_too(tmp_path):
    def sample(solver):
        images.write(solver, 2, "50000-50003", "npz", tmp_path / solver, 4, "digits", "cpu", tmp_path)
        with np.load(next((tmp_path / solver).glob("*.npz"))) as arrays:
            return arrays["images"]

    assert (sample("euler") != sample("euler:threshold=true")).any()


def test_a_teachers_sampler_can_not_threshold():
    with pytest.raises(UserError, match="leave threshold out"):
        endpoints.sampler_plan(toys.teacher(sampler="dpm:threshold=true"))
