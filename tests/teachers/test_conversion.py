"""What of CompVis and diffusers models is read without diffusers: files, key maps, schedulers, refusals."""

import importlib.util
import json
import os
import pickle

import pytest
import tiny
import torch

import solverbench as sb
from solverbench.errors import MissingError, RecordError
from solverbench.teachers.families import conversion, schedulers
from solverbench.teachers.families import tensor_files as checkpoints
from solverbench.teachers.families.description import recognise


class Attack:
    def __reduce__(self):
        return (os.mkdir, (str(self.path),))

    def __init__(self, path):
        self.path = path


@pytest.mark.parametrize("where", ["beside", "inside", "pickle"])
def test_a_checkpoint_that_would_run_code_is_refused_by_name(tmp_path, where):
    path = tmp_path / "evil.ckpt"
    attack, found = Attack(tmp_path / "ran"), {"model.diffusion_model.out.2.bias": torch.ones(1)}
    if where == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": attack}, protocol=2))
    else:
        torch.save({"state_dict": found | ({"x": attack} if where == "inside" else {}), "callback": attack}, path)
    with pytest.raises(RecordError, match=r"mkdir.*nothing in it was run") as caught:
        checkpoints.read(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"bad", b"hello", b"PK\x03\x04 cut", pickle.dumps({"a": 1}, protocol=4)])
@pytest.mark.parametrize("name", ["a.ckpt", "a.safetensors"])
def test_a_file_that_is_no_checkpoint_is_one_clear_line(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordError) as caught:
        checkpoints.read(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_a_checkpoint_without_tensors_is_refused(tmp_path):
    with pytest.raises(RecordError, match="holds no tensors by name"):
        checkpoints.read(tiny.save(tmp_path / "a.ckpt", {"a": 1}))
    with pytest.raises(MissingError, match="no such file"):
        checkpoints.read(tmp_path / "b.ckpt")


def test_tensors_are_read_as_saved_new_or_old(tmp_path):
    found = {"a": torch.arange(3.0)}
    tiny.save(tmp_path / "new.ckpt", found)
    torch.save({"state_dict": found}, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    for name in ("new", "old"):
        assert torch.equal(checkpoints.read(tmp_path / f"{name}.ckpt")["a"], found["a"])


def test_every_tensor_of_a_checkpoint_keeps_its_numbers():
    for case in (tiny.UNCONDITIONAL, tiny.CLASSES, tiny.TEXT):
        state = conversion.part(tiny.state(case), conversion.UNET)
        found = conversion.unet(state, **tiny.HEADS[case])
        for before, after in ((state, found.state),):
            assert sum(v.numel() for v in before.values()) == sum(v.numel() for v in after.values())
            total = [sum(float(v.double().square().sum()) for v in each.values()) for each in (before, after)]
            assert total[0] == pytest.approx(total[1], rel=1e-12)


def test_plain_attention_is_taken_apart_head_by_head():
    """Upstream keeps q, k and v of a head together."""
    state = conversion.part(tiny.state(tiny.UNCONDITIONAL), conversion.UNET)
    found = conversion.unet(state, head_channels=32).state
    rows = state["middle_block.1.qkv.weight"][:, :, 0]
    for n, letter in enumerate("qkv"):
        taken = found[f"mid_block.attentions.0.to_{letter}.weight"]
        assert torch.equal(taken[:32], rows[32 * n : 32 * (n + 1)])
        assert torch.equal(taken[32:], rows[96 + 32 * n : 96 + 32 * (n + 1)])


def test_configurations_follow_from_shapes():
    state = conversion.part(tiny.state(tiny.TEXT), conversion.UNET)
    config = conversion.unet(state, heads=2).config
    assert config["block_out_channels"] == (32, 64)
    assert config["cross_attention_dim"] == 24
    assert config["attention_head_dim"] == (2, 2)
    assert conversion.unet(state, head_channels=16).config["attention_head_dim"] == (2, 4)


def test_the_moving_average_takes_the_weights_place():
    found = tiny.ldm()
    assert all(
        torch.equal(v, found[k]) for k, v in conversion.averaged(found | tiny.averages(found)).items() if k in found
    )
    changed = conversion.averaged(found | tiny.averages(found, value=0.5))
    assert all(bool((v == 0.5).all()) for k, v in changed.items() if k.startswith(conversion.UNET))
    assert torch.equal(
        changed["first_stage_model.post_quant_conv.bias"], found["first_stage_model.post_quant_conv.bias"]
    )
    broken = tiny.averages(found)
    broken.pop("model_ema.diffusion_modelout2bias")
    with pytest.raises(RecordError, match=r"has no model_ema\.diffusion_modelout2bias"):
        conversion.averaged(found | broken)


FLOW = "FlowMatchEulerDiscreteScheduler"


def settled(_class_name="DDPMScheduler", **config):
    return schedulers.settled({"_class_name": _class_name, **config})


@pytest.mark.parametrize(
    ("config", "predicts"),
    [
        ({}, "eps"),
        ({"prediction_type": "v_prediction"}, "v"),
        ({"prediction_type": "sample"}, "x0"),
        (
            {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "_class_name": "UniPCMultistepScheduler"},
            "flow",
        ),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "flow"),
    ],
)
def test_what_a_network_predicts_is_the_schedulers_word(config, predicts):
    assert schedulers.prediction(settled(**config)) == predicts


def test_betas_follow_their_rule():
    assert schedulers.betas(settled())[[0, -1]].tolist() == [pytest.approx(1e-4), pytest.approx(0.02)]
    found = schedulers.betas(settled(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012))
    exact = sb.VPDiscrete.stable_diffusion() if hasattr(sb, "VPDiscrete") else None
    if exact is not None:
        assert torch.allclose(torch.log1p(-found).cumsum(0) / 2, torch.tensor(exact.log_alphas, dtype=torch.float64))
    assert schedulers.betas(settled(trained_betas=[0.1, 0.2], beta_schedule="linear")).tolist() == [0.1, 0.2]
    cosine = schedulers.alphas_cumprod(settled(beta_schedule="squaredcos_cap_v2"))
    assert float(cosine[499]) == pytest.approx(0.49384, abs=1e-4)
    with pytest.raises(RecordError, match="beta_schedule 'laplace' isn't known"):
        schedulers.betas(settled(beta_schedule="laplace"))
    with pytest.raises(RecordError, match="not all between 0 and 1"):
        schedulers.betas(settled(beta_end=2.0))


def test_rescaled_to_no_signal_the_first_step_stays_and_the_last_is_zero():
    plain = schedulers.alphas_cumprod(settled())
    found = schedulers.alphas_cumprod(settled(rescale_betas_zero_snr=True, prediction_type="v_prediction"))
    assert float(found[-1]) == 0
    assert float(found[0]) == pytest.approx(float(plain[0]), rel=1e-12)
    assert bool((found[1:] < found[:-1]).all())


def test_times_of_a_flow_are_shifted_unless_they_depend_on_the_image():
    assert schedulers.flow_times(settled(FLOW)) == (pytest.approx(0.999), pytest.approx(0.001))
    assert schedulers.flow_times(settled(FLOW, shift=3.0)) == (
        pytest.approx(2.997 / 2.998),
        pytest.approx(0.003 / 1.002),
    )
    assert schedulers.flow_times(settled(FLOW, shift=3.0, use_dynamic_shifting=True))[1] == pytest.approx(0.001)
    with pytest.raises(RecordError, match="invert_sigmas"):
        schedulers.flow_times(settled(FLOW, invert_sigmas=True))


def test_files_and_folders_are_recognised_without_diffusers(tmp_path):
    assert recognise(tiny.save(tmp_path / "a.ckpt", tiny.ldm())) == "compvis"
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline"}))
    assert recognise(tmp_path / "pipeline") == "diffusers"
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    assert recognise(tmp_path / "model") == "diffusers"
    with pytest.raises(RecordError, match="no family recognises this checkpoint"):
        recognise(tiny.save(tmp_path / "b.ckpt", {"model.0.weight": torch.ones(1)}))


@pytest.mark.parametrize("kind", ["compvis", "diffusers"])
def test_without_diffusers_one_line_names_the_extra(tmp_path, monkeypatch, kind):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "diffusers" else find(name, *more)
    )
    path = tmp_path / "pipeline"
    if kind == "compvis":
        path = tiny.save(tmp_path / "a.ckpt", tiny.ldm())
    else:
        path.mkdir()
        (path / "model_index.json").write_text(
            json.dumps({"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]})
        )
    with pytest.raises(MissingError, match=r"pip install '(solverbench|\.)\[diffusers\]'") as caught:
        sb.load_teacher(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", ["compvis", "diffusers"])
def test_a_checkpoint_of_another_family_says_so(tmp_path, monkeypatch, family):
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: object())  # as if diffusers were there
    path = tiny.save(tmp_path / "other.ckpt", {"model.map_noise.freqs": torch.ones(2)})
    with pytest.raises(RecordError, match=r"isn't a CompVis checkpoint|takes a folder") as caught:
        sb.load_teacher(f"{path}:family={family}")
    assert "\n" not in str(caught.value)
