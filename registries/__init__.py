"""The registries of built-in names. Entries are imported on first use."""

if __name__ != "solverbench.registries":  # in a checkout, this folder could be imported twice under two names
    raise ImportError("registries: import it as solverbench.registries")

from solverbench.registries.plugins import Offer as Offer
from solverbench.registries.plugins import Unavailable as Unavailable
from solverbench.registries.plugins import fingerprint as fingerprint
from solverbench.registries.plugins import origin as origin
from solverbench.registries.plugins import place as place
from solverbench.registries.plugins import source as source
from solverbench.registries.plugins import why as why
from solverbench.registries.published import Foreign as Foreign
from solverbench.registries.published import Result as Result
from solverbench.registries.published import authors as authors
from solverbench.registries.published import ays as ays
from solverbench.registries.published import bibliography as bibliography
from solverbench.registries.published import catalogue as catalogue
from solverbench.registries.published import described as described
from solverbench.registries.published import foreign as foreign
from solverbench.registries.published import gits as gits
from solverbench.registries.published import papers as papers
from solverbench.registries.published import prompt_file as prompt_file
from solverbench.registries.published import prompts as prompts
from solverbench.registries.published import recommended as recommended
from solverbench.registries.published import results as results
from solverbench.registries.registry import Listed as Listed
from solverbench.registries.registry import Registry as Registry
from solverbench.registries.registry import Rejected as Rejected
from solverbench.registries.registry import UnknownName as UnknownName

CHECK = "solverbench.plugins:wrong"
"""The function that checks an object from a plugin against its kind, as "module:Name"."""

solvers = Registry(
    "solver",
    {
        "adams": "solverbench.baselines.adams:Adams",
        "bns": "solverbench.learned.bns:BNS",
        "cab": "solverbench.baselines.cab:CAB",
        "deis": "solverbench.baselines.deis:DEIS",
        "dpm": "solverbench.baselines.dpm:DPMSolverPP",
        "dpm2": "solverbench.baselines.dpm2:DPM2",
        "dpmv3": "solverbench.learned.dpmv3:DPMSolverV3",
        "dyweight": "solverbench.learned.dyweight:DyWeight",
        "epd": "solverbench.learned.epd:EPD",
        "euler": "solverbench.baselines.euler:Euler",
        "exprk": "solverbench.baselines.exprk:ExpRK",
        "free": "solverbench.learned.free:Free",
        "gas": "solverbench.learned.gs:GAS",
        "ge": "solverbench.baselines.ge:GradientEstimation",
        "gs": "solverbench.learned.gs:GS",
        "heun": "solverbench.baselines.heun:Heun",
        "heunpp2": "solverbench.baselines.heunpp2:HeunPP2",
        "ipndm": "solverbench.baselines.ipndm:IPNDM",
        "ipndm_v": "solverbench.baselines.ipndm_v:IPNDMV",
        "ld3": "solverbench.learned.ld3:LD3",
        "pfdiff": "solverbench.baselines.pfdiff:PFDiff",
        "s4s": "solverbench.learned.s4s:S4S",
        "s4s_alt": "solverbench.learned.s4s:S4SAlt",
        "s4s_gas_compat": "solverbench.learned.gs:S4SGASCompat",
        "s4s_joint": "solverbench.learned.s4s:S4SJoint",
        "unipc": "solverbench.baselines.unipc:UniPC",
    },
    aliases={"ddim": "euler", "dpmpp": "dpm"},
    about={
        "adams": "exponential Adams, orders 1-4, with corrector: SA-Solver without noise (arXiv:2309.05019)",
        "bns": "BNS, all levels and weights of a non-stationary solver, learned (arXiv:2403.01329)",
        "cab": "Adams-Bashforth with variable steps and a second difference, orders 2-3 (arXiv:2605.16736)",
        "deis": "DEIS, exponential Adams-Bashforth, orders 1-4 (arXiv:2204.13902)",
        "dpm": "DPM-Solver++ and DPM-Solver, multistep or singlestep, orders 1-3 (arXiv:2211.01095)",
        "dpm2": "DPM-Solver-2, singlestep, two calls a step (arXiv:2206.00927)",
        "dpmv3": "DPM-Solver-v3 with scalar statistics of the teacher, orders 1-3, learned (arXiv:2310.13268)",
        "dyweight": "DyWeight, iPNDM with weights that needn't sum to one, learned (arXiv:2603.11607)",
        "epd": "EPD-Solver, K calls side by side inside each step; a plugin on iPNDM, learned (arXiv:2507.14797)",
        "euler": "Euler's method, which is DDIM (arXiv:2010.02502)",
        "exprk": "exponential Runge-Kutta, two or three calls a step: RES singlestep (arXiv:2308.02157)",
        "free": "all weights and levels trained, an estimated bound for linear solvers, learned (arXiv:2403.01329)",
        "gas": "Generalized Adversarial Solver, learned (arXiv:2510.17699)",
        "ge": "gradient estimation, two slopes with constant weights (arXiv:2306.04848)",
        "gs": "Generalized Solver, GAS without its adversarial loss, learned (arXiv:2510.17699)",
        "heun": "Heun's method, two calls a step; EDM's own sampler is heun:end=zero (arXiv:2206.00364)",
        "heunpp2": "Heun++ of ComfyUI, three calls a step, of first order",
        "ipndm": "iPNDM, Adams-Bashforth with constant coefficients, orders 1-4 (arXiv:2204.13902)",
        "ipndm_v": "iPNDM with variable steps, orders 1-4 (arXiv:2204.13902)",
        "ld3": "LD3, a classical solver on learned levels, learned (arXiv:2405.15506)",
        "pfdiff": "PFDiff on DDIM, slopes of the past and the future (arXiv:2408.08822)",
        "s4s": "S4S, learned weights on a fixed grid, multistep, corrected or singlestep, learned (arXiv:2502.17423)",
        "s4s_alt": "S4S-Alt, S4S on LD3's learned levels, trained in turns, learned (arXiv:2502.17423)",
        "s4s_gas_compat": "S4S as GAS's public code runs it, learned; for comparison only (arXiv:2510.17699)",
        "s4s_joint": "S4S-Alt's solver with levels and weights trained at once, learned (arXiv:2502.17423)",
        "unipc": "UniPC, multistep predictor-corrector, orders 1-3 (arXiv:2302.04867)",
    },
    group="solverbench.solvers",
    check=CHECK,
)

grids = Registry(
    "grid",
    {
        "arctan": "solverbench.method.comfyui:arctan",
        "ays": "solverbench.method.comfyui:ays",
        "ays_sdxl": "solverbench.method.comfyui:ays_sdxl",
        "beta": "solverbench.method.comfyui:beta",
        "ddim_uniform": "solverbench.method.comfyui:ddim_uniform",
        "discrete": "solverbench.method.grids:discrete",
        "dmn": "solverbench.learned.searches.grids:dmn",
        "dpm_leading": "solverbench.method.spacings:dpm_leading",
        "dpm_linspace": "solverbench.method.spacings:dpm_linspace",
        "flow_shift": "solverbench.method.spacings:flow_shift",
        "gits": "solverbench.learned.searches.grids:gits",
        "gits_dpm": "solverbench.method.grids:gits_dpm",
        "gits_ipndm": "solverbench.method.grids:gits_ipndm",
        "leading": "solverbench.method.spacings:leading",
        "learned": "solverbench.method.grids:learned",
        "linear_quadratic": "solverbench.method.comfyui:linear_quadratic",
        "linspace": "solverbench.method.spacings:linspace",
        "logsnr": "solverbench.method.grids:logsnr",
        "normal": "solverbench.method.comfyui:normal",
        "oss": "solverbench.learned.searches.grids:oss",
        "pipeline": "solverbench.method.spacings:pipeline",
        "polynomial": "solverbench.method.grids:polynomial",
        "sgm_uniform": "solverbench.method.comfyui:sgm_uniform",
        "simple": "solverbench.method.comfyui:simple",
        "time_poly": "solverbench.method.grids:time_poly",
        "time_quadratic": "solverbench.method.grids:time_quadratic",
        "time_uniform": "solverbench.method.grids:time_uniform",
        "trailing": "solverbench.method.spacings:trailing",
    },
    aliases={"karras": "polynomial", "kl_optimal": "arctan"},
    about={
        "arctan": "equal steps in arctan(sigma/c), optimal for DDIM on Gaussian data; c = 1 (arXiv:2404.14507)",
        "ays": "Align Your Steps for Stable Diffusion 1.5, and for Stable Video Diffusion (arXiv:2404.14507)",
        "ays_sdxl": "Align Your Steps for Stable Diffusion XL (arXiv:2404.14507)",
        "beta": "ComfyUI's beta: training steps at quantiles of Beta(a, b), 0.6 both (arXiv:2407.12173)",
        "ddim_uniform": "ComfyUI's ddim_uniform: training steps 1 + k (M // N)",
        "discrete": "equal steps in t^(1/rho) of a discrete VP schedule, rho = 1 (arXiv:2312.00094)",
        "dmn": "searched: least bound on the solver's error, no network calls (arXiv:2402.17376)",
        "dpm_leading": "diffusers' leading spacing of DPM-Solver, UniPC and DEIS (arXiv:2305.08891)",
        "dpm_linspace": "diffusers' linspace spacing of DPM-Solver, UniPC and DEIS (arXiv:2305.08891)",
        "flow_shift": "a flow's t = s u/(1 + (s - 1) u) at equal steps in u, s = shift (arXiv:2403.03206)",
        "gits": "searched on the teacher: cheapest path through its trajectories (arXiv:2405.11326)",
        "gits_dpm": "published for DPM-Solver++ on Stable Diffusion, 3, 5-8 and 10 steps (arXiv:2405.11326)",
        "gits_ipndm": "published for iPNDM on Stable Diffusion, 3-10 steps (arXiv:2405.11326)",
        "leading": "diffusers' leading spacing of DDIM and Euler (arXiv:2305.08891)",
        "learned": "from the parameters of a learned solver",
        "linear_quadratic": "ComfyUI's linear_quadratic: flow time linear to 0.975, then quadratic",
        "linspace": "diffusers' linspace spacing of DDIM; of SD3 on flows, with shift (arXiv:2305.08891)",
        "logsnr": "equal steps in log sigma (arXiv:2206.00927)",
        "normal": "ComfyUI's normal: equally spaced fractions of training steps, both ends",
        "oss": "searched on the teacher: Euler steps closest to its trajectories (arXiv:2503.21774)",
        "pipeline": "the levels of a diffusers pipeline's own scheduler, for teachers of the family pipeline",
        "polynomial": "equal steps in sigma^(1/rho), rho = 7 (arXiv:2206.00364)",
        "sgm_uniform": "ComfyUI's sgm_uniform: equally spaced fractions of training steps, without the first",
        "simple": "ComfyUI's simple: whole training steps at equal distances",
        "time_poly": "t_end + (t_start - t_end)(k/M)^rho, rho = 2: time_quadratic of LD3 (arXiv:2405.15506)",
        "time_quadratic": "equal steps in sqrt(t): time_quadratic of DPM-Solver and GAS (arXiv:2206.00927)",
        "time_uniform": "equal steps in t^(1/rho) of the VP schedule, rho = 1 (arXiv:2206.00927)",
        "trailing": "diffusers' trailing spacing; of FLUX on flows, with shift (arXiv:2305.08891)",
    },
    group="solverbench.grids",
    check=CHECK,
)

searches = ("dmn", "gits", "oss")
"""The grids that are found by a search on the teacher."""

teachers = Registry(
    "teacher",
    {
        "digits": "solverbench.teachers.embedded.digits:load",
        "mixture": "solverbench.teachers.embedded.mixture:load",
        "shapes": "solverbench.teachers.embedded.shapes:load",
    },
    about={
        "digits": "handwritten digits, 1x8x8: a small EDM-preconditioned MLP, included in the package",
        "mixture": "100 Gaussians fitted on the digits, 1x8x8: exact denoiser, exact samples, no network error",
        "shapes": "coloured shapes of 10 classes, 3x16x16: a small class-conditional U-Net, included in the package",
    },
    group="solverbench.teachers",
    check=CHECK,
)

families = Registry(
    "family",
    {
        "compvis": "solverbench.teachers.families.compvis:load",
        "diffusers": "solverbench.teachers.families.diffusers:load",
        "edm": "solverbench.teachers.families.edm:load",
        "pipeline": "solverbench.teachers.families.pipelines.family:load",
    },
    about={
        "compvis": "latent diffusion and Stable Diffusion 1.x, original checkpoints (.ckpt, .safetensors)",
        "diffusers": "folders of networks and of twelve pipelines of diffusers that predict noise, v, data or flow",
        "edm": "networks of EDM's pickles: DDPM++, NCSN++ and ADM with EDM, VP, VE or iDDPM preconditioning",
        "pipeline": "folders of any other diffusers pipeline, read by its own call",
    },
)

metrics = Registry(
    "metric",
    {
        "clip_score": "solverbench.metrics.extractors.transformers:CLIP",
        "cmmd": "solverbench.metrics.vectors:gaussian_discrepancy",
        "coverage": "solverbench.metrics.vectors:neighbourhoods",
        "coverage_data": "solverbench.metrics.vectors:neighbourhoods",
        "density": "solverbench.metrics.vectors:neighbourhoods",
        "detail_teacher": "solverbench.metrics.spectrum:beside",
        "density_data": "solverbench.metrics.vectors:neighbourhoods",
        "fdd": "solverbench.metrics.frechet:frechet",
        "fid": "solverbench.metrics.frechet:frechet",
        "fid_clip": "solverbench.metrics.frechet:frechet",
        "fid_inf": "solverbench.metrics.intervals:extrapolated",
        "frechet_data": "solverbench.metrics.frechet:frechet",
        "frechet_data_inf": "solverbench.metrics.intervals:extrapolated",
        "frechet_teacher": "solverbench.metrics.frechet:frechet",
        "inception_score": "solverbench.metrics.vectors:inception_scores",
        "kernel_data": "solverbench.metrics.vectors:kernel_blocks",
        "kid": "solverbench.metrics.vectors:kernel_blocks",
        "lpips_teacher": "solverbench.metrics.lpips:LPIPS",
        "pickscore": "solverbench.metrics.extractors.transformers:PickScore",
        "precision": "solverbench.metrics.vectors:manifold",
        "precision_data": "solverbench.metrics.vectors:manifold",
        "psnr_teacher": "solverbench.metrics.reduction:means",
        "recall": "solverbench.metrics.vectors:manifold",
        "recall_data": "solverbench.metrics.vectors:manifold",
        "residual_teacher": "solverbench.metrics.spectrum:residual",
        "rmse_exact": "solverbench.metrics.reduction:rmses",
        "rmse_teacher": "solverbench.metrics.reduction:rmses",
    },
    about={
        "clip_score": "CLIP score, the similarity of an image and its prompt (arXiv:2104.08718)",
        "cmmd": "CMMD, maximum mean discrepancy of CLIP ViT-L/14 features, unbiased (arXiv:2401.09603)",
        "coverage": "coverage: fraction of data with an image in its neighbourhood, Inception (arXiv:2002.09797)",
        "coverage_data": "the same of the teacher's own features",
        "density": "density: how many neighbourhoods of data an image is in, Inception features (arXiv:2002.09797)",
        "density_data": "the same of the teacher's own features",
        "detail_teacher": "power of fine detail over that of the teacher's sample from the same noise, dB",
        "fdd": "Fréchet distance of DINOv2 features (arXiv:2306.04675)",
        "fid": "Fréchet distance of Inception features (arXiv:1706.08500)",
        "fid_clip": "Fréchet distance of CLIP features (arXiv:2203.06026)",
        "fid_inf": "FID extrapolated to infinitely many images (arXiv:1911.07023)",
        "frechet_data": "Fréchet distance of the teacher's own features to the data",
        "frechet_data_inf": "Fréchet distance of the teacher's own features to the data, for infinitely many images",
        "frechet_teacher": "Fréchet distance of the teacher's own features to its many-step samples",
        "inception_score": "Inception score (arXiv:1606.03498)",
        "kernel_data": "kernel distance of the teacher's own features to the data",
        "kid": "kernel distance of Inception features (arXiv:1801.01401)",
        "lpips_teacher": "LPIPS to the teacher's sample from the same noise (arXiv:1801.03924)",
        "pickscore": "PickScore, how well people like an image for its prompt (arXiv:2305.01569)",
        "precision": "precision: fraction of images on the data manifold, Inception features (arXiv:1904.06991)",
        "precision_data": "the same of the teacher's own features",
        "psnr_teacher": "PSNR to the teacher's sample from the same noise",
        "recall": "recall: fraction of data on the manifold of the images, Inception features (arXiv:1904.06991)",
        "recall_data": "the same of the teacher's own features",
        "residual_teacher": "power of the error in fine detail, over the teacher's, same noise, dB",
        "rmse_exact": "RMSE to the exact solution of the teacher's ODE; see --exact",
        "rmse_teacher": "RMSE to the teacher's sample from the same noise; always measured",
    },
    group="solverbench.metrics",
    check=CHECK,
)

losses = Registry(
    "loss",
    {
        "features": "solverbench.learned.training.losses:features",
        "huber": "solverbench.learned.training.losses:huber",
        "l1": "solverbench.learned.training.losses:l1",
        "l2": "solverbench.learned.training.losses:l2",
        "log_l2": "solverbench.learned.training.losses:log_l2",
        "lpips": "solverbench.learned.training.losses:lpips",
        "lpips_native": "solverbench.learned.training.losses:lpips_native",
        "metric_features": "solverbench.learned.training.losses:metric_features",
    },
    about={
        "features": "squared difference of the features of the teacher's own loss network",
        "huber": "pseudo-Huber distance of the final states (arXiv:2310.14189)",
        "l1": "mean absolute difference of the final states",
        "l2": "mean squared difference of the final states",
        "log_l2": "logarithm of l2, which is PSNR's negative up to constants (arXiv:2403.01329)",
        "lpips": "LPIPS-VGG of images resized to 224 x 224 (arXiv:1801.03924)",
        "lpips_native": "LPIPS-VGG of images at their own size",
        "metric_features": "squared difference of the features that metrics use; requires allow_metric_loss=true",
    },
    group="solverbench.losses",
    check=CHECK,
)

extractors = Registry(
    "extractor",
    {
        "clean": "solverbench.metrics.extractors.inception:Inception",
        "clip": "solverbench.metrics.extractors.transformers:CLIP",
        "clip_l": "solverbench.metrics.extractors.transformers:CLIPLarge",
        "dinov2": "solverbench.metrics.extractors.transformers:DINOv2",
        "legacy_pytorch": "solverbench.metrics.extractors.inception:Inception",
        "legacy_tensorflow": "solverbench.metrics.extractors.inception:Inception",
    },
    about={
        "clean": "Inception, images resized before it by PIL, bicubic with antialiasing: clean-fid's own FID",
        "clip": "CLIP ViT-B/32 as in clean-fid: what papers report as FID_CLIP (arXiv:2203.06026)",
        "clip_l": "CLIP ViT-L/14 at 336 pixels, normalised: what papers report as CMMD (arXiv:2401.09603)",
        "dinov2": "DINOv2 ViT-L/14: what papers report as FD_DINOv2 (arXiv:2306.04675)",
        "legacy_pytorch": "pytorch-fid's port of Inception, images resized before it without antialiasing",
        "legacy_tensorflow": "Inception, images resized inside it without antialiasing: what papers report as FID",
    },
    group="solverbench.extractors",
    check=CHECK,
)

extensible = {each.kind: each for each in (solvers, teachers, grids, metrics, extractors, losses)}
"""The registries that plugins may extend, by kind."""
