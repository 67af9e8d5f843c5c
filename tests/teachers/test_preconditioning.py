"""VE and iDDPM preconditioning against their published formulas, worked out here apart from the code under test.

Source: Karras et al. 2022, arXiv:2206.00364, table 1, columns VE and iDDPM, and where the table leaves something open
(the order of levels, what the network is told, the channels of the variance) its public code, read and not run.
"""

import math

import edm_pickles
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import solverbench as sb
from solverbench import userdata
from solverbench.cli.main import main
from solverbench.teachers.families.edm_networks import Preconditioned

pytestmark = pytest.mark.usefixtures("unrendered", "few_compared")

SONG = {"model_type": "SongUNet", "embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2,
        "resample_filter": [1, 3, 3, 1], "model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1,
        "attn_resolutions": [8]}  # fmt: skip
ADM = {"model_type": "DhariwalUNet", "model_channels": 64, "channel_mult": [1], "num_blocks": 1,
       "attn_resolutions": [8]}  # fmt: skip
IMAGE = {"img_resolution": 8, "img_channels": 3, "label_dim": 0}
KWARGS = {"VEPrecond": IMAGE | SONG, "iDDPMPrecond": IMAGE | ADM}


@pytest.fixture(autouse=True)
def data(monkeypatch, tmp_path):
    monkeypatch.setenv(userdata.VARIABLE, str(tmp_path / "data"))


def upstreams_levels(count=1000, low=0.001, high=0.008):
    """u_0 .. u_M by the table's recursion, in float32 as upstream's buffer holds it."""
    angle = [np.float32(0.5 * math.pi * j / count / (high + 1)) for j in range(count + 1)]
    bars = [np.sin(each) ** 2 for each in angle]
    u = np.zeros(count + 1, dtype=np.float32)
    for j in range(count, 0, -1):
        kept = max(bars[j - 1] / bars[j], np.float32(low))
        u[j - 1] = np.sqrt((u[j] ** 2 + np.float32(1)) / kept - np.float32(1))
    return torch.from_numpy(u)


def random_network(name):
    """The network of a checkpoint: random weights, and upstream's own levels where it keeps them."""
    network = Preconditioned(name, KWARGS[name])
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    for key, buffer in network.named_buffers():
        if key.endswith("freqs"):
            buffer.normal_(generator=generator)
        if key == "u":
            buffer.copy_(upstreams_levels())
    return network.eval()


def test_the_levels_of_iddpm_are_the_tables():
    """Also in float64, by products from the other end: u_j^2 + 1 = 1/prod of the kept ratios below j."""
    network = Preconditioned("iDDPMPrecond", KWARGS["iDDPMPrecond"])
    product, wanted = 1.0, []
    for j in range(1000, 0, -1):
        ratio = math.sin(math.pi / 2 * (j - 1) / 1000 / 1.008) ** 2 / math.sin(math.pi / 2 * j / 1000 / 1.008) ** 2
        product *= max(ratio, 0.001)
        wanted.append(math.sqrt(1 / product - 1))
    assert network.u[:-1].tolist() == pytest.approx(wanted[::-1], rel=1e-6)
    assert network.u[-1] == 0
    assert network.u.tolist() == pytest.approx(upstreams_levels().tolist(), rel=1e-3)


def test_a_checkpoints_own_levels_are_used(tmp_path):
    network = random_network("iDDPMPrecond")
    path = edm_pickles.write(tmp_path / "i.pkl", "iDDPMPrecond", KWARGS["iDDPMPrecond"], network.state_dict())
    for options in ("", ":channels_last=true"):
        schedule = sb.load_teacher(f"{path}{options}").schedule
        assert schedule.levels == tuple(upstreams_levels()[:-1].tolist())
        assert schedule.sigma_max == min(schedule.levels, key=lambda level: abs(level - 80))
        assert schedule.sigma_min == min(schedule.levels)


@pytest.mark.parametrize("sigma", [0.02, 0.3, 2.0, 37.0, 100.0])
@pytest.mark.parametrize("name", KWARGS)
def test_a_pickle_gives_the_tables_data_prediction(tmp_path, name, sigma):
    network = random_network(name)
    path = edm_pickles.write(tmp_path / f"{name}.pkl", name, KWARGS[name], network.state_dict())
    teacher = sb.load_teacher(str(path))
    x = sigma * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        if name == "VEPrecond":  # skip 1, out sigma, in 1, noise ln(sigma/2)
            wanted = x + sigma * network.model(x, torch.tensor([math.log(sigma / 2)]), None)
        else:  # skip 1, out -sigma, in 1/sqrt(sigma^2 + 1), noise M - 1 - argmin |u_j - sigma|; the variance left out
            nearest = int((upstreams_levels().double() - sigma).abs().argmin())
            told = torch.tensor([1000.0 - 1 - nearest])
            wanted = x - sigma * network.model(x / math.sqrt(sigma**2 + 1), told, None)[:, :3]
        found = teacher.denoise(x, torch.tensor(sigma, dtype=torch.float64))
    assert network.model(x, torch.zeros(1), None).shape[1] == (3 if name == "VEPrecond" else 6)
    assert ((found - wanted).abs().max() / (wanted - x).abs().max()) < 1e-5


def test_the_ends_are_those_that_upstreams_sampler_takes(tmp_path):
    ends = {}
    for name in KWARGS:
        path = edm_pickles.write(tmp_path / f"{name}.pkl", name, KWARGS[name], random_network(name).state_dict())
        schedule = sb.load_teacher(str(path)).schedule
        ends[name] = schedule.sigma_max, schedule.sigma_min
    assert ends["VEPrecond"] == (80.0, 0.02)
    assert ends["iDDPMPrecond"] == pytest.approx((80.0, float(upstreams_levels()[-2])), rel=5e-3)


@pytest.mark.parametrize("name", KWARGS)
def test_both_run_through_the_command_line(tmp_path, name):
    path = edm_pickles.write(tmp_path / f"{name}.pkl", name, KWARGS[name], random_network(name).state_dict())
    line = ["run", "--teachers", f"{path}:sampler=heun:sampler_nfe=8", "--solvers", "dpm,unipc", "--nfe", "4-6"]
    done = CliRunner().invoke(
        main, [*line, "--samples", "10", "--replicates", "1", "--out", str(tmp_path / "runs")]
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "6 cells: 6 done" in done.stdout
