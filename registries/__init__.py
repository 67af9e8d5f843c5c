"""The built-in names. Nothing is imported until it is asked for."""

from registries.registry import Registry as Registry
from registries.registry import UnknownName as UnknownName

solvers = Registry(
    "solver",
    {
        "dpm": "baselines.dpm:DPMSolverPP",
        "euler": "baselines.euler:Euler",
        "gas": "solverbench.gs:GAS",
        "gs": "solverbench.gs:GS",
        "heun": "baselines.heun:Heun",
    },
    aliases={"ddim": "euler", "dpmpp": "dpm"},
    about={
        "dpm": "DPM-Solver++, multistep, orders 1-3 (arXiv:2211.01095)",
        "euler": "Euler's method, which is DDIM (arXiv:2010.02502)",
        "gas": "Generalized Adversarial Solver, learned (arXiv:2510.17699)",
        "gs": "Generalized Solver, GAS without its adversarial loss, learned (arXiv:2510.17699)",
        "heun": "Heun's method as EDM uses it, two calls a step (arXiv:2206.00364)",
    },
)

grids = Registry(
    "grid",
    {
        "learned": "solverbench.grids:learned",
        "logsnr": "solverbench.grids:logsnr",
        "polynomial": "solverbench.grids:polynomial",
        "time_uniform": "solverbench.grids:time_uniform",
    },
    aliases={"karras": "polynomial"},
    about={
        "learned": "from the parameters of a learned solver",
        "logsnr": "equal steps in log sigma (arXiv:2206.00927)",
        "polynomial": "equal steps in sigma^(1/rho), rho = 7 (arXiv:2206.00364)",
        "time_uniform": "equal steps in t^(1/rho) of the VP schedule, rho = 1 (arXiv:2206.00927)",
    },
)

teachers = Registry(
    "teacher",
    {"digits": "solverbench.digits:load"},
    about={"digits": "handwritten digits, 1x8x8: a small EDM-preconditioned MLP, packaged"},
)
