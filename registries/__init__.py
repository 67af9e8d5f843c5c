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
)

teachers = Registry("teacher", {"digits": "solverbench.digits:load"})
