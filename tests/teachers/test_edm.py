"""EDM's networks: upstream's numbers from upstream's files, and nothing in a file is run."""

import argparse
import io
import json
import os
import pathlib
import pickle
import warnings

import edm_pickles
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import solverbench as sb
from solverbench import userdata
from solverbench.bench import run
from solverbench.bench.run_options import RunOptions
from solverbench.cli.main import main
from solverbench.errors import GridError, MissingError, RecordError, UserError
from solverbench.method import grids
from solverbench.teachers.families import edm_pickles as reader
from solverbench.teachers.families.edm_networks import Block, Preconditioned, Style

pytestmark = pytest.mark.usefixtures("unrendered", "few_compared")

QUICK = ":sampler=heun:sampler_nfe=8"
SMALL = {"samples": 10, "replicates": 1, "batch": 10}


@pytest.fixture(autouse=True)
def data(monkeypatch, tmp_path):
    monkeypatch.setenv(userdata.VARIABLE, str(tmp_path / "data"))


@pytest.mark.parametrize("case", edm_pickles.CASES, ids=lambda case: case["name"])
def test_networks_agree_with_upstream_from_original_key_names(case):
    weights, x, sigma, y = edm_pickles.arrays(case)
    network = Preconditioned(case["class_name"], case["init_kwargs"])
    network.load_state_dict(weights)
    assert sum(p.numel() for p in network.parameters()) == case["n_params"]
    labels = torch.eye(network.classes)[: len(x)] if network.classes else None
    with torch.no_grad():
        assert (network(x, sigma, labels) - y).abs().max() / y.abs().max() < 1e-4
        alone = torch.cat([network(x[i : i + 1], sigma[i], None if labels is None else labels[i : i + 1])
                           for i in range(len(x))])  # fmt: skip
    torch.testing.assert_close(alone, y, rtol=0, atol=1e-4 * float(y.abs().max()))


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", ["ddpmpp_uncond", "ncsnpp_uncond", "adm_cond", "vp_ddpmpp"])
def test_a_pickle_gives_upstreams_numbers_and_runs_none_of_its_source(tmp_path, name, protocol):
    case = next(case for case in edm_pickles.CASES if case["name"] == name)
    _, x, sigma, y = edm_pickles.arrays(case)
    teacher = sb.load_teacher(str(edm_pickles.golden(tmp_path, name, protocol)))
    for i in range(len(x)):
        # The classes of the golden rows are 0, 1, 2, which are those of the seeds 0, 1, 2.
        with torch.no_grad():
            d = teacher.denoiser([i])(x[i : i + 1], sigma[i].double())
        torch.testing.assert_close(d, y[i : i + 1], rtol=0, atol=1e-4 * float(y.abs().max()))


@pytest.mark.parametrize("name", ["ddpmpp_uncond", "ddpmpp_cond"])
def test_a_file_runs_through_the_command_line(tmp_path, name):
    path = edm_pickles.golden(tmp_path, name)
    line = ["run", "--teachers", f"{path}{QUICK}", "--solvers", "dpm,unipc", "--nfe", "4-6", "--samples", "10"]
    done = CliRunner().invoke(main, [*line, "--replicates", "1", "--out", str(tmp_path / "runs")])
    assert done.exit_code == 0, done.output
    assert "6 cells: 6 done" in done.stdout
    folder = next((tmp_path / "runs" / "reports").iterdir())
    assert list(folder.glob("images-*.png"))
    text = (folder / "report.md").read_text()
    assert "RMSE to the teacher's own sample" in text
    assert ("class seed mod 10" in text) == (name == "ddpmpp_cond")


def test_a_network_without_references_is_measured_against_its_teacher(tmp_path):
    path = edm_pickles.golden(tmp_path, "ddpmpp_uncond")
    result = run.run(
        RunOptions(solvers="dpm,unipc", nfe="4,6", teachers=f"{path}{QUICK}", out=tmp_path / "runs", **SMALL)
    )
    assert set(result.frame.metric) == {"rmse_teacher"}
    assert result.frame.value.notna().all()
    assert result.exit_code == 0


@pytest.mark.isa
def test_the_vp_view_gives_the_same_images(tmp_path):
    path = edm_pickles.golden(tmp_path, "ddpmpp_uncond")
    edm, vp = (sb.load_teacher(f"{path}:frame={frame}") for frame in ("edm", "vp"))
    assert edm.identity == vp.identity
    assert (vp.schedule.sigma_max, vp.schedule.sigma_min) == pytest.approx((80.0, 0.002))
    noise = 80 * torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():  # in float64: in float32 the network's own rounding, which a processor decides, is larger
        for spec in ("dpm", "unipc", "heun", "dpm:grid=time_uniform"):
            images = [sb.execute(sb.tableau(spec, nfe=4, teacher=t), t.double, noise) for t in (edm, vp)]
            torch.testing.assert_close(*images, rtol=0, atol=1e-8)


def test_a_pickle_is_converted_once(tmp_path, monkeypatch):
    path = edm_pickles.golden(tmp_path, "ddpmpp_cond")
    first = sb.load_teacher(str(path))
    kept = list((tmp_path / "data" / "converted").glob("*.safetensors"))
    assert len(kept) == 1
    assert json.loads(kept[0].with_suffix(".json").read_text())["source"]["file"] == "ddpmpp_cond.pkl"
    with monkeypatch.context() as patched:
        patched.setattr(reader, "_unpickled", lambda *_: pytest.fail("unpickled again"))
        assert sb.load_teacher(str(path)).identity == first.identity
    assert sb.load_teacher(str(kept[0])).identity == first.identity
    kept[0].write_bytes(kept[0].read_bytes()[:1000])
    assert sb.load_teacher(str(path)).identity == first.identity
    kept[0].write_bytes(kept[0].read_bytes()[:1000])
    with pytest.raises(RecordError, match="damaged"):
        sb.load_teacher(str(kept[0]) + ":family=edm")


def test_a_data_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(userdata.VARIABLE, str(tmp_path / "file"))
    assert sb.load_teacher(str(edm_pickles.golden(tmp_path, "ddpmpp_uncond"))).shape == (3, 16, 16)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_paths_devices_sizes_and_types_beside_a_network_change_nothing(tmp_path, protocol):
    before = sb.load_teacher(str(edm_pickles.golden(tmp_path, "ddpmpp_uncond"))).identity
    path = edm_pickles.golden(
        tmp_path, "ddpmpp_uncond", protocol, device=torch.device("cpu"), size=torch.Size([3, 16]), dtype=torch.float16,
        args=argparse.Namespace(lr=1), place=pathlib.PosixPath("/a/b"), best=np.float64(1.5), rows=np.arange(3),
    )  # fmt: skip
    assert sb.load_teacher(str(path)).identity == before


class Wants:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Instance:
    """Pickles as an object of a class that isn't EDM's."""


def marked(tmp_path):
    return tmp_path / "it-ran"


def storage_bytes(payload):
    """What torch writes for a storage, with `payload` where it names itself."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(payload, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


ATTACKS = {
    "os.system": lambda mark: Wants(os.system, f"touch {mark}"),
    "builtins.exec": lambda mark: Wants(exec, f"open({str(mark)!r}, 'w')"),
    "builtins.eval": lambda mark: Wants(eval, f"open({str(mark)!r}, 'w')"),
    "builtins.getattr": lambda mark: Wants(getattr, str(mark), "upper"),
    "builtins.open": lambda mark: Wants(open, str(mark), "w"),
    "torch.serialization.load": lambda mark: Wants(torch.load, str(mark)),
    "torch.hub.load": lambda mark: Wants(torch.hub.load, "a/b", "c"),
    "numpy.load": lambda mark: Wants(__import__("numpy").load, str(mark)),
    "shutil.rmtree": lambda mark: Wants(__import__("shutil").rmtree, str(mark)),
    "Instance": lambda mark: Instance(),
}


@pytest.mark.parametrize("wanted", ATTACKS)
@pytest.mark.parametrize("inside", ["ema", "state", "storage"])
def test_a_pickle_that_wants_to_run_something_is_refused_by_name(tmp_path, wanted, inside):
    mark = marked(tmp_path)
    attack = ATTACKS[wanted](mark)
    if inside == "ema":
        content = {"ema": attack}
    elif inside == "state":
        content = {"ema": edm_pickles.Persistent("EDMPrecond", _init_kwargs={}, hidden=attack)}
    else:
        content = {"ema": Wants(torch.storage._load_from_bytes, storage_bytes(attack))}
    path = tmp_path / "bad.pkl"
    with edm_pickles.upstream():
        path.write_bytes(pickle.dumps(content))
    name = {"os.system": f"{os.name}.system"}.get(wanted, wanted)
    with pytest.raises(RecordError) as refused:
        sb.load_teacher(str(path))
    assert name.removeprefix("builtins.") in str(refused.value)
    assert "nothing in it was run" in str(refused.value)
    assert not mark.exists()
    told = CliRunner().invoke(main, ["run", "--teachers", str(path)])
    assert told.exit_code == 2
    assert told.stderr.count("\n") == 1
    assert not mark.exists()


def test_a_persistent_id_is_refused(tmp_path):
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ("module", "os") if isinstance(obj, Instance) else None

    path = tmp_path / "bad.pkl"
    with path.open("wb") as file:
        Pickler(file).dump({"ema": Instance()})
    with pytest.raises(RecordError, match=r"asks for a persistent id \(\('module', 'os'\)\)"):
        sb.load_teacher(str(path))


def test_setting_attributes_of_what_stands_for_a_function_is_refused(tmp_path):
    # c..: the function; (K..: a state; b: BUILD on the function itself.
    text = b"ctorch._utils\n_rebuild_tensor_v2\n(dVx\nVy\nsb."
    path = tmp_path / "bad.pkl"
    path.write_bytes(text)
    with pytest.raises(RecordError, match="the state of a function"):
        sb.load_teacher(str(path))
    path.write_bytes(b"ctorch.nn.modules.container\nModuleDict\n(N(dV__new__\nVy\nstb.")
    with pytest.raises(RecordError):
        sb.load_teacher(str(path))
    assert sb.load_teacher(str(edm_pickles.golden(tmp_path, "ddpmpp_uncond"))).shape == (3, 16, 16)


def test_a_tensor_larger_than_its_numbers_is_refused(tmp_path):
    big = torch.zeros(1).expand(10**6)
    path = tmp_path / "bad.pkl"
    path.write_bytes(pickle.dumps({"ema": big}))
    with pytest.raises(RecordError, match="a tensor of"):
        sb.load_teacher(str(path))


def damaged(name, **changes):
    """A golden case with other arguments or weights."""
    case = next(case for case in edm_pickles.CASES if case["name"] == name)
    weights, *_ = edm_pickles.arrays(case)
    kwargs = case["init_kwargs"] | changes.pop("kwargs", {})
    class_name = changes.pop("class_name", case["class_name"])
    return lambda path: edm_pickles.write(path, class_name, kwargs, changes.pop("weights", lambda w: w)(weights))


def without(weights):
    return {name: tensor for name, tensor in weights.items() if name != "model.map_layer0.bias"}


def reshaped(weights):
    return weights | {"model.map_layer0.bias": torch.zeros(3)}


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (damaged("ddpmpp_uncond", weights=without), "lacks 1 tensors of its EDMPrecond, such as model.map_layer0.bias"),
        (
            damaged("ddpmpp_uncond", weights=reshaped),
            r"model.map_layer0.bias has shape \[3\], but its arguments say \[64\]",
        ),
        (damaged("ddpmpp_uncond", class_name="MyPrecond"), "class 'MyPrecond' isn't one of EDMPrecond"),
        (damaged("ddpmpp_uncond", kwargs={"novelty": 1}), "unexpected keyword argument 'novelty'"),
        (damaged("ddpmpp_uncond", kwargs={"model_channels": 10**6}), "has shape"),
        (lambda path: path.write_bytes(b"not a pickle"), "not a complete pickle of an EDM network"),
        (
            lambda path: path.write_bytes(pickle.dumps({"G_ema": 1, "D": 2})),
            "holds a dict of G_ema, D, not an EDM network",
        ),
        (lambda path: path.write_bytes(pickle.dumps([1, 2])), "holds a list, not an EDM network"),
    ],
)
def test_a_wrong_file_is_one_clear_line(tmp_path, make, line):
    path = tmp_path / "wrong.pkl"
    make(path)
    with pytest.raises(RecordError, match=line):
        sb.load_teacher(str(path))


def test_a_checkpoint_cut_short_is_said_to_be(tmp_path):
    path = edm_pickles.golden(tmp_path, "ddpmpp_uncond")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RecordError, match="not a complete pickle"):
        sb.load_teacher(str(path))


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("ddpmpp_uncond", ":classes=seed", "the network has no classes"),
        ("ddpmpp_uncond", ":guidance=2", "no unconditional input"),
        ("ddpmpp_cond", ":guidance=2", "no unconditional input"),
        ("ddpmpp_cond", ":classes=fixed:10", "the network has 10; use 0 to 9"),
        ("ddpmpp_uncond", ":sigma_min=90", "give levels within that"),
        ("vp_ddpmpp", ":sigma_max=200", "the network covers"),
        ("ddpmpp_uncond", ":frame=ve", "not a known frame; use edm or vp"),
        ("ddpmpp_uncond", ":frame=vp:t_eps=2", "time goes from 1 down to t_eps"),
    ],
)
def test_options_that_the_network_cannot_have(tmp_path, name, options, line):
    with pytest.raises(UserError, match=line):
        sb.load_teacher(f"{edm_pickles.golden(tmp_path, name)}{options}")


def test_a_missing_cuda_device_is_refused_before_the_file_is_read(tmp_path):
    with pytest.raises(MissingError, match="torch sees 0 CUDA devices; use cpu"):
        run.run(RunOptions(solvers="dpm", nfe="4", teachers=str(tmp_path / "none.pkl"), out=tmp_path, device="cuda"))


def test_a_droppable_class_gives_guidance_its_unconditional_input(tmp_path):
    case = next(case for case in edm_pickles.CASES if case["name"] == "ddpmpp_cond")
    weights, x, sigma, y = edm_pickles.arrays(case)
    path = edm_pickles.write(
        tmp_path / "d.pkl", case["class_name"], case["init_kwargs"] | {"label_dropout": 0.1}, weights
    )
    led, plain = (sb.load_teacher(f"{path}:guidance={weight}") for weight in (3, 1))
    assert (led.passes, plain.passes) == (2, 1)
    with torch.no_grad():
        free = plain.denoise(x[:1], sigma[0].double())
        wanted = free + 3 * (y[:1] - free)
        torch.testing.assert_close(led.denoiser([0])(x[:1], sigma[0].double()), wanted, rtol=0, atol=1e-4)


def test_each_preconditioning_knows_its_range():
    small = {"img_resolution": 8, "img_channels": 1, "model_type": "SongUNet", "model_channels": 8, "channel_mult": [1],
             "num_blocks": 1, "attn_resolutions": []}  # fmt: skip
    assert Preconditioned("VEPrecond", small).range == (0.02, 100.0)
    assert Preconditioned("VPPrecond", small).range == pytest.approx((0.0010005, 152.167), rel=1e-3)
    assert Preconditioned("EDMPrecond", small).range == (0.0, float("inf"))
    iddpm = Preconditioned("iDDPMPrecond", small)
    low, high = iddpm.range
    assert 0 < low < 0.02
    assert 10_000 < high < 30_000
    assert len(iddpm.levels) == 1000
    assert torch.allclose(iddpm.u[:-1].double(), torch.tensor(iddpm.levels, dtype=torch.float64), rtol=1e-6)


def test_a_network_of_known_levels_gets_grids_of_them():
    schedule = sb.EDM(0.01, 50.0, (50.0, 20.0, 8.0, 3.0, 1.0, 0.1, 0.01))
    for steps in (1, 2, 3):
        assert set(grids.polynomial(schedule, steps).sigmas.tolist()) <= set(schedule.levels)
    with pytest.raises(GridError, match="must strictly decrease"):
        grids.polynomial(schedule, 20)


@pytest.mark.parametrize(("dtype", "near"), [("bf16", 0.05), ("fp16", 0.006)])
def test_half_precision_is_near_and_recorded(tmp_path, monkeypatch, dtype, near):
    monkeypatch.setattr("solverbench.teachers.arithmetic.supports", lambda dtype, device: True)
    path = edm_pickles.golden(tmp_path, "ddpmpp_uncond")
    full = sb.load_teacher(str(path))
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    half = sb.load_teacher(f"{path}:dtype={dtype}:channels_last=true")
    assert half.arithmetic == {"bf16": "bfloat16 channels_last", "fp16": "float16 channels_last"}[dtype]
    assert half.identity == full.identity
    sigma = torch.tensor(2.0, dtype=torch.float64)
    with torch.no_grad():
        a, b = full.denoise(x, sigma), half.denoise(x, sigma)
    assert b.dtype == torch.float32
    assert 0 < (a - b).abs().max() / a.abs().max() < near


def test_a_format_without_instructions_is_refused_with_a_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("solverbench.teachers.arithmetic.supports", lambda dtype, device: False)
    with pytest.raises(MissingError, match="dtype=bf16 on cpu: this CPU has no instructions for it"):
        sb.load_teacher(f"{edm_pickles.golden(tmp_path, 'ddpmpp_uncond')}:dtype=bf16")


def test_training_reaches_the_state_through_the_network(tmp_path):
    teacher = sb.load_teacher(str(edm_pickles.golden(tmp_path, "adm_cond")))
    x = torch.randn(1, 3, 16, 16, requires_grad=True)
    sigma = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    teacher.denoiser([4])(x, sigma).square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert sigma.grad.abs() > 0


def test_a_head_of_attention_has_its_query_key_and_value_side_by_side():
    """Against loops over heads and channels: no golden network has several heads, ADM at full size has."""
    style = Style(8, lambda channels: channels // 64, 1.0, 1e-5, (1, 1), projected=False, modulated=True)
    block = Block(128, 128, style, attentive=True).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    x = torch.randn(2, 128, 3, 3, generator=generator, dtype=torch.float64)
    mixed = block.qkv(block.norm2(x)).flatten(2)
    wanted = torch.empty(2, 128, 9, dtype=torch.float64)
    for head in range(2):
        query, key, value = (torch.stack([mixed[:, 3 * (64 * head + c) + j] for c in range(64)], 1) for j in range(3))
        weights = torch.softmax(torch.einsum("bcq,bck->bqk", query, key) / 8, 2)
        wanted[:, 64 * head : 64 * (head + 1)] = torch.einsum("bqk,bck->bcq", weights, value)
    torch.testing.assert_close(block._attended(x), block.proj(wanted.reshape(x.shape)))


def test_the_skip_encoder_and_decoder_have_upstreams_names_and_run():
    case = edm_pickles.CASES[0]
    kwargs = case["init_kwargs"] | {"encoder_type": "skip", "decoder_type": "skip"}
    network = Preconditioned(case["class_name"], kwargs)
    names = set(network.state_dict())
    for name in ("enc.8x8_aux_down.resample_filter", "enc.8x8_aux_skip.weight", "dec.16x16_aux_up.resample_filter",
                 "dec.8x8_aux_norm.weight", "dec.8x8_aux_conv.bias"):  # fmt: skip
        assert f"model.{name}" in names
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    with torch.no_grad():
        assert network(torch.randn(2, 3, 16, 16), torch.tensor(1.0)).isfinite().all()
