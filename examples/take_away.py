"""Shows a trained solver leaving for other code: as JSON, applied in five lines of numpy, with the same images."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import solverbench as sb


def sample(text, denoise, noise):
    """All that other code needs: the numbers, and adding up."""
    solver = json.loads(text)
    history = [solver["prior_scale"] * noise]
    for sigma, row in zip(solver["sigmas"], solver["weights"], strict=False):
        history.append(denoise(sum(w * past for w, past in zip(row, history, strict=False)), sigma))
    return sum(w * past for w, past in zip(solver["weights"][-1], history, strict=True))


def main(out: Path) -> None:
    file = out / "gas4.json"
    out.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "solverbench", "zoo", "export", "gas", "--nfe", "4", "--format", "json"]
    subprocess.run([*command, "--to", str(file)], check=True)
    text = file.read_text(encoding="utf-8")

    teacher = sb.load_teacher("digits")
    tableau = sb.tableau("gas", nfe=4, teacher=teacher)
    noise = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def denoise(x, sigma):
        return teacher.denoise(torch.from_numpy(x).float(), torch.tensor(sigma, dtype=torch.float64)).numpy()

    ours = sb.execute(tableau, teacher.denoise, tableau.noise_scale(teacher.schedule) * noise)
    theirs = sample(text, denoise, noise.numpy())
    print(f"{len(text)} characters; largest difference {np.abs(ours.numpy() - theirs).max():.1e}")
    assert np.allclose(ours.numpy(), theirs, atol=1e-5)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"))
