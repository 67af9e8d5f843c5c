"""Shows your own network as a teacher: here one that predicts noise on a variance-preserving schedule.

The network stands for yours. It is the exact one for data that are two blurred points, so that nothing needs training.
"""

import sys
from pathlib import Path

import torch

import solverbench as sb

CENTRES = torch.stack([torch.full((1, 4, 4), 0.5), torch.full((1, 4, 4), -0.5)])
SPREAD = 0.1
SCHEDULE = sb.VPLinear()


class Network(torch.nn.Module):
    """Predicts the noise in y = alpha x0 + s n at time t, as a trained network would."""

    def forward(self, y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = SCHEDULE.alpha(t.double())[:, None, None, None], SCHEDULE.sigma(t.double())[:, None, None, None]
        x, s, variance = y.double() / alpha, alpha * sigma, SPREAD**2 + sigma**2
        distances = ((x[:, None] - CENTRES) ** 2).sum((2, 3, 4))
        shares = torch.softmax(-distances / (2 * variance.flatten()[:, None]), dim=1)
        mean = torch.einsum("bk,kchw->bchw", shares, CENTRES.double())
        x0 = mean + SPREAD**2 / variance * (x - mean)
        return ((y - alpha * x0) / s).to(y.dtype)


def main(out: Path) -> None:
    network = Network()
    denoise = sb.Adapted(sb.per_image(network), SCHEDULE, predicts="eps")
    teacher = sb.Teacher(
        denoise,
        "two-points",
        (1, 4, 4),
        schedule=SCHEDULE,
        identity="two points, spread 0.1",  # of a trained network: sb.fingerprint(network), a sha256 of its weights
        sampler="dpm:grid=time_uniform",
        sampler_nfe=100,
    )
    frame = sb.run(solvers="euler,dpm,unipc", nfe="4,8,16", teachers=teacher, samples=200, replicates=1, out=str(out))
    table = frame[frame.metric == "rmse_teacher"].pivot(index="solver", columns="nfe", values="value")
    print("RMSE to the network's own samples with 100 calls")
    print(table.round(4).to_string())
    assert (table[16] < table[4]).all()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"))
