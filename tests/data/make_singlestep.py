"""Make solvers_singlestep.json and .npz beside this file: what diffusers' DPMSolverSinglestepScheduler computes.

Run it in tests/ as `python -m data.make_singlestep`, where diffusers is installed; the project never needs it.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from diffusers import DPMSolverSinglestepScheduler
from golden import golden

LEVELS = [80.0, 41.0, 11.0, 7.1, 2.9, 1.3, 0.31, 0.02]
BLOCKS = {
    2: {4: [1, 2, 1, 2], 5: [1, 2, 1, 2, 1], 6: [1, 2, 1, 2, 1, 2]},
    3: {4: [1, 2, 3, 1], 5: [1, 2, 3, 1, 2], 6: [1, 2, 3, 1, 2, 1], 7: [1, 2, 3, 1, 2, 3, 1]},
}
"""Order and calls: the order of each call's update, as DPM-Solver's own list has them."""


def run(prediction: str, order: int, orders: list[int], sigmas: torch.Tensor) -> tuple[list[int], torch.Tensor]:
    """Return the scheduler's own list of orders, and the states [calls + 1, ...] in the EDM frame with ours."""
    scheduler = DPMSolverSinglestepScheduler(
        algorithm_type="dpmsolver++" if prediction == "data" else "dpmsolver",
        solver_order=order,
        prediction_type="sample",
        lower_order_final=True,
        final_sigmas_type="sigma_min",
    )
    scheduler.set_timesteps(len(orders))
    own, scheduler.order_list, scheduler.sigmas = scheduler.order_list, orders, sigmas
    scheduler.set_begin_index(0)
    source = golden("solvers_edm_frame")
    x = source.arrays["latents"][:1] * sigmas[0]
    states = [x]
    for n, sigma in enumerate(sigmas[:-1]):
        # The second stage of a third-order block is a "heun" update there, its last one a "midpoint" update.
        stage = order == 3 and orders[n : n + 2] == [2, 3]
        scheduler.register_to_config(solver_type="heun" if stage else "midpoint")
        shrink = (1 + sigma**2).rsqrt()
        sample = scheduler.step(source.denoise(x, sigma), n, shrink * x, return_dict=False)[0]
        x = sample * (1 + sigmas[n + 1] ** 2).sqrt()
        states.append(x)
    return own, torch.stack(states)


if __name__ == "__main__":
    cases, arrays = [], {}
    for prediction in ("data", "noise"):
        for order, lists in BLOCKS.items():
            for calls, orders in lists.items():
                place = len(cases)
                sigmas = torch.tensor(LEVELS[: calls + 1], dtype=torch.float64)
                own, states = run(prediction, order, orders, sigmas)
                arrays |= {f"sig{place}": sigmas.numpy(), f"states{place}": states.numpy()}
                case = {"id": place, "prediction": prediction, "order": order, "nfe": calls}
                cases.append(case | {"orders": orders, "diffusers_orders": own})
    made = {"made_with": {name: version(name) for name in ("diffusers", "torch", "numpy")}}
    folder = Path(__file__).parent
    text = ",\n".join(json.dumps(case | made) for case in cases)
    (folder / "solvers_singlestep.json").write_text(f"[\n{text}\n]\n")
    np.savez_compressed(folder / "solvers_singlestep.npz", **arrays)
