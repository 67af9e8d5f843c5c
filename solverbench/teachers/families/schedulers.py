"""The noise process in a diffusers scheduler's configuration: the network's prediction, its state and its times.

`settled` accepts the schedulers and options of an allow-list, each with a stated role. Those that make the noise
process are read. Those that only place, order or randomise a sampler's steps do not change the ODE and are left out.
Everything else is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from solverbench.errors import RecordError
from solverbench.method.rectified_flow import RectifiedFlow
from solverbench.method.schedules import STAND_IN, NoiseSchedule, VPLinear, array_digest
from solverbench.method.vp_discrete import VPDiscrete

PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0", "flow_prediction": "flow"}
"""Names of the networks' outputs in diffusers to those in SolverBench."""

ZERO, FLOW, CONTINUOUS, SHIFTED = "rescale_betas_zero_snr", "use_flow_sigmas", "timestep_type", "snr_shift_scale"
"""Options that change the noise process and that only some classes have."""


@dataclass(frozen=True)
class Kind:
    """A scheduler class of diffusers.

    Args:
        has: the options among `ZERO`, `FLOW`, `CONTINUOUS` and `SHIFTED` that the class has.
        defaults: defaults of the class that differ from `COMMON`.
        flow: whether the class itself is a flow's.
    """

    has: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    flow: bool = False


_SD = {"beta_start": 0.00085, "beta_end": 0.012}
_COG = Kind(frozenset({ZERO, SHIFTED}), {**_SD, "beta_schedule": "scaled_linear", SHIFTED: 3.0})

KINDS = {
    "DDIMScheduler": Kind(frozenset({ZERO})),
    "DDIMParallelScheduler": Kind(frozenset({ZERO})),
    "DDPMScheduler": Kind(frozenset({ZERO})),
    "DDPMParallelScheduler": Kind(frozenset({ZERO})),
    "CogVideoXDDIMScheduler": _COG,
    "CogVideoXDPMScheduler": _COG,
    "PNDMScheduler": Kind(),
    "LMSDiscreteScheduler": Kind(),
    "EulerDiscreteScheduler": Kind(frozenset({ZERO, CONTINUOUS})),
    "EulerAncestralDiscreteScheduler": Kind(frozenset({ZERO})),
    "HeunDiscreteScheduler": Kind(defaults=_SD),
    "KDPM2DiscreteScheduler": Kind(defaults=_SD),
    "KDPM2AncestralDiscreteScheduler": Kind(defaults=_SD),
    "DPMSolverSDEScheduler": Kind(defaults=_SD),
    "DPMSolverMultistepScheduler": Kind(frozenset({ZERO, FLOW})),
    "DPMSolverSinglestepScheduler": Kind(frozenset({FLOW})),
    "DEISMultistepScheduler": Kind(frozenset({FLOW})),
    "UniPCMultistepScheduler": Kind(frozenset({ZERO, FLOW})),
    "SASolverScheduler": Kind(frozenset({FLOW})),
    "UnCLIPScheduler": Kind(defaults={"beta_schedule": "squaredcos_cap_v2"}),
    "FlowMatchEulerDiscreteScheduler": Kind(flow=True),
    "FlowMatchHeunDiscreteScheduler": Kind(flow=True),
}
"""The scheduler classes that are read; their defaults are diffusers' own."""

_CONSISTENCY = "a sampler of distilled networks, which jump to the image and follow no ODE"
_EDM = "EDM's preconditioning by sigma_data"
_BACKWARDS = "it goes from the image to noise"
_TOKENS = "its states are tokens, not images with noise"

ANOTHER = (
    "give a folder whose scheduler_config.json names a discrete VP or flow scheduler of diffusers, such as "
    "DDIMScheduler, EulerDiscreteScheduler or FlowMatchEulerDiscreteScheduler"
)
INSTEAD = {_EDM: "use sb.Teacher around its network, as docs/teachers-latent.md shows"}
"""What to do about a refused scheduler, by the reason; `ANOTHER` if nothing is known."""

REFUSED = {
    "LCMScheduler": _CONSISTENCY,
    "TCDScheduler": _CONSISTENCY,
    "FlowMatchLCMScheduler": _CONSISTENCY,
    "FlowMapEulerDiscreteScheduler": _CONSISTENCY,
    "CMStochasticIterativeScheduler": _CONSISTENCY,
    "ConsistencyDecoderScheduler": _CONSISTENCY,
    "PiflowScheduler": _CONSISTENCY,
    "HeliosDMDScheduler": _CONSISTENCY,
    "HeliosScheduler": "its process has several stages",
    "SCMScheduler": "trigonometric flows",
    "EDMEulerScheduler": _EDM,
    "EDMDPMSolverMultistepScheduler": _EDM,
    "CosineDPMSolverMultistepScheduler": _EDM,
    "DDIMInverseScheduler": _BACKWARDS,
    "DPMSolverMultistepInverseScheduler": _BACKWARDS,
    "RePaintScheduler": "it fills a masked image",
    "KarrasVeScheduler": "a variance exploding process",
    "ScoreSdeVeScheduler": "a variance exploding process",
    "ScoreSdeVpScheduler": "a process in continuous time",
    "IPNDMScheduler": "a trigonometric process in continuous time",
    "DDPMWuerstchenScheduler": "a process in continuous time",
    "LTXEulerAncestralRFScheduler": "its levels come from its pipeline",
    "MiniMaxH3Scheduler": "its levels come from its pipeline",
    "RFD4ProteinaScheduler": "its states are proteins",
    "AmusedScheduler": _TOKENS,
    "VQDiffusionScheduler": _TOKENS,
    "BlockRefinementScheduler": _TOKENS,
    "DiscreteDDIMScheduler": _TOKENS,
    "EntropyBoundScheduler": _TOKENS,
    "TableauScheduler": "an exported solver, which knows only a few times",
}
"""Schedulers whose process is not read, with the reason; unknown ones are refused, too."""

COMMON: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    ZERO: False,
    FLOW: False,
    CONTINUOUS: "discrete",
    SHIFTED: 1.0,
    "sigma_min": None,
    "sigma_max": None,
    "shift": 1.0,
    "flow_shift": 1.0,
    "use_dynamic_shifting": False,
    "invert_sigmas": False,
}
"""Options that make the noise process, with their defaults."""

GRAIN = 1000
"""Steps of a flow's training, where `num_train_timesteps` is 1."""

STRETCHED = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
"""Options that place the steps between two levels, in continuous time between `sigma_min` and `sigma_max`."""

CLIPPED = {
    "clip_sample": ("clip_sample_range",),
    "thresholding": ("dynamic_thresholding_ratio", "sample_max_value"),
}
"""Options that change the data prediction at each step, with their own settings; see `dropped`."""

STEPS = {
    "timestep_spacing", "steps_offset", "set_alpha_to_one", "final_sigmas_type", "interpolation_type",
    "lambda_min_clipped", "use_lu_lambdas", *STRETCHED,
    "base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "time_shift_type", "shift_terminal",
}  # fmt: skip
"""Options that place a sampler's steps on the ODE's path; grids take their place."""

METHOD = {
    "solver_order", "algorithm_type", "solver_type", "lower_order_final", "euler_at_final", "predict_x0",
    "disable_corrector", "solver_p", "skip_prk_steps", "predictor_order", "corrector_order",
}  # fmt: skip
"""Options of a sampler's formula; solvers take its place."""

NOISE = {"variance_type", "noise_sampler_seed", "tau_func", "stochastic_sampling"}
"""Options of the noise that stochastic samplers add; the ODE has none, and a learned variance is left out."""

FOREIGN = {"original_inference_steps", "timestep_scaling", "scale_factors", "upscale_mode", "rho", "sigma_schedule"}
"""Options of refused classes, left over in a configuration converted from one; diffusers ignores them, too."""

OLD = {"tensor_format": None, "timestep_values": None, "predict_epsilon": True}
"""Options of the first versions of diffusers, with the only value (None: any) that changes nothing."""


def settled(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that make the noise process, each with its value, and the class's name.

    Args:
        config: configuration of the scheduler, as in scheduler_config.json.

    Raises:
        RecordError: an unknown scheduler or option, or one whose process is not read; it is named.
    """
    name = str(config.get("_class_name", "")) or "a scheduler without _class_name"
    if name not in KINDS:
        why = REFUSED.get(name, "this scheduler isn't known")
        raise RecordError(asked=name, wrong=f"its noise process isn't read ({why})", remedy=INSTEAD.get(why, ANOTHER))
    kind = KINDS[name]
    _known(name, config)
    found = {**COMMON, **kind.defaults}
    found |= {key: config[key] for key in COMMON if config.get(key) is not None}
    for key in (ZERO, FLOW, SHIFTED, CONTINUOUS):
        if key not in kind.has and found[key] != COMMON[key]:
            raise RecordError(
                asked=name, wrong=f"{key} = {found[key]!r} isn't an option of this class, so diffusers ignores it",
                remedy=f"name a class that has {key} as _class_name in its scheduler_config.json, or take it out",
            )  # fmt: skip
    found |= {key: bool(config.get(key)) for key in STRETCHED}
    made = {"_class_name": name, **found}
    _checked(name, made)
    return made


def dropped(config: Mapping[str, Any]) -> str:
    """Return a sentence on the options that change upstream's samples and are not applied; empty if there are none."""
    found = [key for key in CLIPPED if config.get(key)]
    if not found:
        return ""
    return (
        f"{' and '.join(found)} of the {config.get('_class_name', 'scheduler')}: not applied, because clipped steps "
        "don't follow the ODE; the option clip=1, as in ./folder:clip=1, clips the data prediction in every call"
    )


def _known(name: str, config: Mapping[str, Any]) -> None:
    """Raise `RecordError` if the configuration holds an option without a known role."""
    beside = {key for pair in CLIPPED.items() for key in (pair[0], *pair[1])}
    for key, value in config.items():
        if key.startswith("_") or key in COMMON or key in STEPS | METHOD | NOISE | FOREIGN | beside:
            continue
        if key in OLD and OLD[key] in (None, value):
            continue
        raise RecordError(
            asked=name, wrong=f"{key} = {value!r} isn't an option that is known, and may change the noise process",
            remedy="take it out of scheduler_config.json if it doesn't",
        )  # fmt: skip


def _checked(name: str, made: Mapping[str, Any]) -> None:
    """Raise `RecordError` if settled options contradict each other or need an unsupported feature."""
    asked = made["prediction_type"]

    def refuse(wrong: str, remedy: str) -> None:
        raise RecordError(asked=name, wrong=wrong, remedy=remedy)

    if KINDS[name].flow:
        if asked not in ("epsilon", "flow_prediction"):  # the first is what converted configurations are left with
            refuse(f"prediction_type = {asked!r}, but this class takes flows", "correct its configuration")
        if made["invert_sigmas"]:
            refuse(
                "invert_sigmas turns the time round, which isn't read here", "read the pipeline with family=pipeline"
            )
        return
    if asked not in PREDICTIONS:
        refuse(f"prediction_type {asked!r} isn't read", f"it may be {', '.join(PREDICTIONS)}")
    if made[FLOW] != (asked == "flow_prediction"):
        refuse(
            f"{FLOW} = {made[FLOW]} with prediction_type = {asked!r}",
            "a flow has both use_flow_sigmas = true and prediction_type = 'flow_prediction', others have neither",
        )
    if made[CONTINUOUS] not in ("discrete", "continuous"):
        refuse(f"{CONTINUOUS} = {made[CONTINUOUS]!r} isn't known", "it may be discrete or continuous")
    if _continuous(made):
        if asked != "v_prediction":
            refuse(f"{CONTINUOUS} = 'continuous' with prediction_type = {asked!r} isn't read", "v_prediction is")
        if made[ZERO] and made["sigma_max"] is None:
            refuse(f"{ZERO} = True in continuous time has no finite first level", "give sigma_max")
    elif made["sigma_min"] is not None or made["sigma_max"] is not None:
        refuse(
            f"sigma_min = {made['sigma_min']}, sigma_max = {made['sigma_max']}: ends of their own are read only with "
            "timestep_type = 'continuous'",
            "take them out of scheduler_config.json; sigma_min may be given as an option of the teacher",
        )
    if made[ZERO] and asked == "epsilon":
        refuse(
            f"{ZERO} = True with prediction_type = 'epsilon': at the first level the state holds no data, and a "
            "prediction of its noise says nothing about the image",
            "correct prediction_type, or take rescale_betas_zero_snr out if the network was trained without it",
        )


def _continuous(made: Mapping[str, Any]) -> bool:
    return bool(made[CONTINUOUS] == "continuous")


def prediction(made: Mapping[str, Any]) -> str:
    """Return what the network predicts: eps, v, x0 or flow; `made` is from `settled`, here and below."""
    return "flow" if flows(made) else PREDICTIONS[made["prediction_type"]]


def flows(made: Mapping[str, Any]) -> bool:
    """Return whether the state is (1 - t) x0 + t n and the network predicts n - x0."""
    return KINDS[made["_class_name"]].flow or bool(made[FLOW])


def steps(made: Mapping[str, Any]) -> int:
    """Return the number of training steps, in which a network's own time is counted."""
    return int(made["num_train_timesteps"])


def schedule(made: Mapping[str, Any]) -> NoiseSchedule:
    """Return the noise schedule.

    In continuous time it is a VP schedule between the two ends, as the network sees states of unit variance.

    Raises:
        RecordError: betas that are unknown or not between 0 and 1.
    """
    if flows(made):
        first, last = flow_times(made)
        return RectifiedFlow(t_start=1.0, t_end=last, t_first=first)
    if _continuous(made):
        low, high = ends(made)
        return VPLinear.refit(low, high).asked_by(frame="vp", sigma_min=low, sigma_max=high)
    return VPDiscrete.from_alphas_cumprod(alphas_cumprod(made)).asked_by(**rule(made))


def ends(made: Mapping[str, Any]) -> tuple[float, float]:
    """Return the last and first level in continuous time: sigma_min and sigma_max where upstream uses them.

    It does if one of `STRETCHED` places the levels; otherwise, and without them, they are those of the betas.
    """
    squares = alphas_cumprod(made)
    first, last = (float(((1 - value) / value).sqrt()) for value in (squares[0], squares[-1]))
    stretched = any(made[key] for key in STRETCHED)
    low, high = (made[key] if stretched and made[key] is not None else None for key in ("sigma_min", "sigma_max"))
    low, high = float(low or first), float(high or last)
    if not 0 < low < high < STAND_IN:
        raise RecordError(
            asked=made["_class_name"], wrong=f"levels from {high:g} to {low:g}",
            remedy="give sigma_min and sigma_max with 0 < sigma_min < sigma_max, both finite",
        )  # fmt: skip
    return low, high


def told(made: Mapping[str, Any], schedule: NoiseSchedule) -> Any:
    """Return the map from the schedule's time to the network's time input.

    A flow counts from 0 to M, a discrete schedule from 0 to M - 1, and continuous time is log(sigma)/4 (Karras et al.
    2022, arXiv:2206.00364, table 1, c_noise).
    """
    count = steps(made)
    if flows(made):
        return lambda t: count * t
    if _continuous(made):
        return lambda t: schedule.sigma(t).log() / 4
    return lambda t: count * t - 1


def facts(made: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that belong to the model, as plain JSON values."""
    found: dict[str, Any] = {"prediction": prediction(made), "steps": steps(made)}
    if _continuous(made):
        return found | {"continuous": list(ends(made))}
    return found if flows(made) else found | {"alphas_cumprod": alphas_cumprod(made).tolist()}


def flow_times(made: Mapping[str, Any]) -> tuple[float, float]:
    """Return a flow's first training time below 1 and its last one, with the scheduler's fixed shift applied."""
    count = steps(made)
    count = GRAIN if count == 1 else count  # times are told on [0, 1], and say nothing about training's steps
    asked = made["shift"] if KINDS[made["_class_name"]].flow else made["flow_shift"]
    shift = 1.0 if made["use_dynamic_shifting"] else float(asked)
    first, last = (shift * t / (1 + (shift - 1) * t) for t in ((count - 1) / count, 1 / count))
    return first, last


def rule(made: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of `alphas_cumprod` as plain JSON values; they name the schedule in keys."""
    more: dict[str, Any] = {"zero_terminal_snr": True} if made[ZERO] else {}
    more |= {SHIFTED: float(made[SHIFTED])} if made[SHIFTED] != 1 else {}
    if made["trained_betas"] is not None:
        return {"trained_betas": array_digest([float(beta) for beta in made["trained_betas"]]), **more}
    asked = {"beta_schedule": made["beta_schedule"], "steps": steps(made)}
    if asked["beta_schedule"] != "squaredcos_cap_v2":
        asked |= {"beta_start": float(made["beta_start"]), "beta_end": float(made["beta_end"])}
    return asked | more


def alphas_cumprod(made: Mapping[str, Any]) -> Tensor:
    """Return alpha^2 at each training step [M], float64; the last is 0 with rescaling to zero terminal SNR.

    Raises:
        RecordError: an unknown rule for its betas.

    Source: the formulas of diffusers' schedulers, whose own tables are in float32; Lin et al. 2023, arXiv:2305.08891,
    algorithm 1, for the rescaling. `snr_shift_scale` divides alpha^2/(1 - alpha^2): Yang et al. 2024, arXiv:2408.06072.
    """
    squares = torch.cumprod(1 - betas(made), 0)
    if made[SHIFTED] != 1:
        shift = float(made[SHIFTED])
        squares = squares / (shift + (1 - shift) * squares)
    if not made[ZERO]:
        return squares
    roots = squares.sqrt()
    first, last = roots[0].clone(), roots[-1].clone()
    return ((roots - last) * (first / (first - last))) ** 2


def betas(made: Mapping[str, Any]) -> Tensor:
    """Return the variances added by training [M], float64, before any shift or rescaling.

    Raises:
        RecordError: an unknown rule, or variances that are not between 0 and 1.
    """
    count = steps(made)
    start, end, rule = float(made["beta_start"]), float(made["beta_end"]), made["beta_schedule"]
    if made["trained_betas"] is not None:
        found = torch.tensor(made["trained_betas"], dtype=torch.float64)
    elif rule == "linear":
        found = torch.linspace(start, end, count, dtype=torch.float64)
    elif rule == "scaled_linear":
        found = torch.linspace(math.sqrt(start), math.sqrt(end), count, dtype=torch.float64) ** 2
    elif rule == "squaredcos_cap_v2":
        # Source: Nichol & Dhariwal 2021, arXiv:2102.09672, equation 17, with betas of at most 0.999.
        times = torch.arange(count + 1, dtype=torch.float64) / count
        squares = ((times + 0.008) / 1.008 * math.pi / 2).cos() ** 2
        found = (1 - squares[1:] / squares[:-1]).clamp(max=0.999)
    elif rule == "sigmoid":
        found = torch.linspace(-6, 6, count, dtype=torch.float64).sigmoid() * (end - start) + start
    else:
        raise RecordError(
            asked=made["_class_name"], wrong=f"beta_schedule {rule!r} isn't known",
            remedy="write the betas themselves, as trained_betas",
        )  # fmt: skip
    if not ((found > 0) & (found < 1)).all() or len(found) < 2:
        raise RecordError(
            asked=made["_class_name"], wrong=f"{len(found)} betas, not all between 0 and 1",
            remedy="correct its configuration",
        )  # fmt: skip
    return found
