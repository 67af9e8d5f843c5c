"""Published numbers: every one is readable, and each can be reproduced or says what is missing."""

import math
from dataclasses import replace

import edm_pickles
import pytest
import torch
from click.testing import CliRunner

import solverbench as sb
from solverbench import registries
from solverbench.bench import protocol, published, reproduce, resolve
from solverbench.bench.run_options import RunOptions
from solverbench.cli.main import main
from solverbench.errors import UserError
from solverbench.learned import zoo
from solverbench.method.spec import make
from solverbench.metrics.extractors import inception as fid
from solverbench.metrics.table import INCEPTION, TABLE, Takes

ALL = [each for name in registries.papers() for each in registries.results(name)]


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("SOLVERBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(fid, "cleanfid_folder", lambda: tmp_path / "clean-fid")


def call(*words):
    result = CliRunner().invoke(main, list(map(str, words)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_every_row_has_its_own_name_a_number_and_a_protocol():
    assert len({each.row for each in ALL}) == len(ALL)
    needed = {"n", "replicates", "seeds", "reference", "extractor", "quantiser", "noise", "condition"}
    for each in ALL:
        assert needed <= set(each.protocol), each.row
        assert math.isfinite(each.value), each.row
        metric = TABLE[each.metric]
        known = metric.features == INCEPTION or metric.takes is Takes.PAIR or metric.name == "frechet_teacher"
        assert known, each.row
        assert each.spec or each.unknown, f"{each.row}: without a spec, what is unknown must be said"


@pytest.mark.parametrize("spec", sorted({each.spec for each in ALL if each.spec}))
def test_every_spec_is_one_of_ours(spec):
    make(spec)


@pytest.mark.parametrize(
    ("row", "value"),
    [
        ("gas/cifar10/gas/4", 4.05), ("gas/afhqv2/dpmpp-3m/10", 3.19), ("gas/ffhq/gs/6", 4.49),
        ("gas/imagenet256/gs/7", 4.17), ("gas/coco/ipndm-gits/5", 14.11), ("gas/lsun-bedroom/gas/4", 6.68),
        ("diff-sampler/cifar10/ipndm-4/10", 2.77), ("diff-sampler/imagenet64/heun/6", 89.63),
        ("diff-sampler/ffhq/unipc-3/3", 86.43), ("gas/ffhq-low/gas/1", 193.22), ("ld3/afhqv2/ld3/10", 2.27),
        ("s4s/coco/s4s/5", 13.26), ("gas/cifar10-49k-lpips/s4s/8", 0.072), ("gas/coco-teacher/teacher/4", 14.10),
    ],
)  # fmt: skip
def test_numbers_stand_where_the_papers_have_them(row, value):
    [found] = reproduce.select(row, None)
    assert found.value == value


READ = {"diff-sampler", "embedded", "gas", "ld3", "s4s"}
"""The papers and READMEs whose numbers were read where they stand."""


def test_a_number_that_was_not_read_in_its_paper_says_so():
    for each in ALL:
        second_hand = each.row.partition("/")[0] not in READ
        assert second_hand == ("(second-hand)" in each.paper) == each.note.startswith("second-hand: not read"), each.row
        assert not (second_hand and each.protocol["seeds"] != "unknown")


def test_what_is_not_given_is_no_row():
    assert not [each for each in ALL if each.row.startswith("diff-sampler/cifar10/heun/3")]


def test_an_embedded_row_is_measured_beside_the_record(tmp_path):
    words = ["embedded/rmse-teacher/dpm/3", "--samples", "100", "--replicates", "2", "--out", tmp_path]
    result = call("reproduce", *words)
    assert result.exit_code == 0, result.output
    for part in ("published   0.2315", "measured    0.2", "95 % interval", "difference", "within the interval",
                 "protocol    n: published 2000, here 100", "protocol    replicates: published 3, here 2"):  # fmt: skip
        assert part in result.output
    assert "seeds: published 50000-79999, here 50000-50199" in result.output
    assert "1 row: 1 agree" in result.output


@pytest.mark.parametrize(("flag", "message"), [("--samples", "samples 0: not a"), ("--replicates", "replicates 0: at")])
def test_a_number_of_0_is_refused_and_not_taken_for_the_published_one(tmp_path, flag, message):
    result = call("reproduce", "embedded/rmse-teacher/dpm/3", flag, "0", "--out", tmp_path)
    assert result.exit_code == 2
    assert message in result.output


def test_a_wrong_record_is_told_and_ends_with_4(tmp_path):
    [found] = reproduce.select("embedded/rmse-teacher/dpm/3", None)
    wrong = replace(found, value=0.9)
    compared = reproduce.reproduce(wrong, RunOptions(out=tmp_path, samples=100, replicates=1))
    assert not compared.agrees
    assert "the published number lies outside the interval" in "\n".join(compared.lines())
    right = reproduce.reproduce(found, RunOptions(out=tmp_path, samples=100, replicates=1))
    assert right.difference == pytest.approx(compared.difference + 0.9 - found.value)


def test_a_real_row_says_exactly_what_is_missing(tmp_path):
    pytest.importorskip("cleanfid")
    result = call("reproduce", "gas/cifar10/ipndm-3m/4", "--out", tmp_path / "runs")
    assert result.exit_code == 3
    lines = result.output.strip().splitlines()
    assert all("missing: " in line for line in lines[:-1])
    assert "teacher" in lines[0]
    assert str(tmp_path / "data" / fid.FILE) in lines[1]
    assert "cifar10-32x32.npz" in lines[2]
    assert "can't be measured here" in lines[-1]
    assert not (tmp_path / "runs").exists()


def test_differences_of_protocol_are_told_by_name(tmp_path):
    [found] = reproduce.select("gas/cifar10/dpmpp-3m/4", None)
    assert found.protocol["seeds"] == "unknown", "copied there from another paper"
    [cell] = cells_of("dpm:order=3", tmp_path)
    told = list(published._differences(found, cell, 100, "other.npz"))
    assert "n: published 50000, here 100" in told
    assert "seeds: not stated, here 50000-50099" in told
    assert "reference: published cifar10-32x32.npz, here other.npz" in told
    assert "noise: published on the GPU from the seed, here on the CPU from the seed" in told
    assert any(line.startswith("solver's grid: not stated") for line in told)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give one ROW"),
        (["gas/cifar10", "--paper", "gas"], "give one ROW"),
        (["--paper", "gsa"], "paper 'gsa': not known"),
        (["gas/cifar10/gaz/4"], "did you mean 'gas/cifar10/gas/4'"),
    ],
)
def test_bad_rows_are_one_line(words, message):
    result = call("reproduce", *words)
    assert result.exit_code == 2
    assert message in result.output


def test_the_list_shows_numbers_without_running_anything():
    result = call("reproduce", "--paper", "gas", "--list")
    assert "gas/cifar10/gas/4  fid 4.05  GAS (gas)" in result.output
    assert len(call("reproduce", "--list").output.splitlines()) == len(ALL)


def test_metric_names_and_options_are_checked():
    from solverbench.evaluation.selection import MetricSelection

    for given, message in [
        ({"metrics": "fdi"}, "did you mean 'fid'"),
        ({"metrics": "fid,frechet_data"}, "different features"),
        ({"metrics": "fid", "quantiser": "round"}, "edm-round or adm-floor"),
        ({"metrics": None, "reference": "x"}, "no metric asked for uses it"),
    ]:
        with pytest.raises(UserError, match=message):
            MetricSelection.of(**given)


@pytest.mark.parametrize(
    ("name", "there", "here", "alike"),
    [
        ("n", "5000", "50000", False),
        ("n", "50000", "50000", True),
        ("replicates", "1", "10", False),
        ("seeds", "50000-5999", "50000-59999", False),
        ("reference", "cifar10-32x32.npz", "cifar10 (from cifar10-32x32.npz, 50000 images, split train)", True),
        ("reference", "afhqv2-64x64.npz", "x (from my_afhqv2-64x64.npz)", False),
        ("extractor", "clean-fid/clean", "clean-fid/clean@123", True),
        ("extractor", "clean-fid/legacy_tensorflow", "clean-fid/legacy_pytorch@123", False),
        ("condition", "class = seed mod 1000", "class seed mod 1000, guidance 1", True),
        ("condition", "class = seed mod 100", "class seed mod 1000, guidance 1", False),
    ],
)
def test_what_is_alike_is_no_difference_and_numbers_are_compared_whole(name, there, here, alike):
    assert published._alike(name, there, here) == alike


def test_a_number_of_few_images_is_called_biased(tmp_path):
    [found] = [each for each in ALL if each.paper and each.metric == "frechet_teacher"][:1]
    asked = RunOptions(out=tmp_path, samples=100, replicates=1)
    compared = reproduce.reproduce(found, asked)
    assert "(biased, n=100), 95 % interval" in "\n".join(compared.lines())
    assert compared.as_dict()["biased"]
    [plain] = reproduce.select("embedded/rmse-teacher/dpm/3", None)
    assert "biased" not in "\n".join(reproduce.reproduce(plain, asked).lines())


def test_a_row_is_measured_by_the_extractor_that_its_paper_names():
    [found] = reproduce.select("gas/cifar10/gas/4", None)
    assert reproduce._extractor(found) == "legacy_tensorflow"
    other = replace(found, protocol={**found.protocol, "extractor": "clean-fid/legacy_pytorch"})
    assert reproduce._extractor(other) == "legacy_pytorch"
    assert reproduce._extractor(replace(other, metric="fdd", protocol={"extractor": "unknown"})) == "dinov2"


AUTHORS = [each for each in ALL if each.authors]


def test_rows_of_the_authors_solvers_say_how_these_sample_and_were_trained():
    assert {each.spec for each in AUTHORS} == {"gs", "gas", "s4s_gas_compat"}
    assert not [
        each.row for each in ALL if each.row.startswith("gas/") and each.spec in ("gs", "gas") and not each.authors
    ]
    for each in AUTHORS:
        assert {"options", "loss", "discriminator", "files"} <= set(each.authors), each.row
        assert (each.authors["discriminator"] == "none") == (each.spec != "gas"), each.row
        solver = make(published.as_authors(each))
        if "start" in each.authors:  # the levels stand beside the options that they follow from
            grid = solver.with_parameters(solver.initial(sb.EDM(), 4)).grid(sb.EDM(), 4)
            ends = [each.authors["start"], each.authors["end"]]
            assert grid.sigmas[[0, -1]].tolist() == pytest.approx(ends, rel=1e-5)
        else:
            assert solver.authors == "model"


def checkpoint(path, nfe=4):
    """Write what the authors' trainer saves: the average's parameters in their order, as float32."""
    shapes = [nfe - 1, *[nfe] * (2 * nfe + 1)]
    generator = torch.Generator().manual_seed(0)
    shadow = [0.02 * torch.randn(size, generator=generator) for size in shapes]
    ema = {"decay": 0.999, "num_updates": 10000, "shadow_params": shadow, "collected_params": None}
    torch.save({"ema": ema, "model": shadow, "optim": {}, "step": 10000}, path)
    return path


@pytest.fixture
def small_rows(tmp_path, monkeypatch):
    """Rows of CIFAR-10 by RMSE on a small EDM network of that name."""
    pickled = edm_pickles.golden(tmp_path, "ddpmpp_uncond")
    place = tmp_path / "data" / "teachers" / "cifar10.toml"
    place.parent.mkdir(parents=True)
    place.write_text(f"""family = "edm"
name = "cifar10"
checkpoint = "{pickled}"
sampler = "euler"
sampler_nfe = 4
""")

    def small(row, paper):
        few = {"n": 10, "seeds": "50000-50009"}
        return [replace(e, metric="rmse_teacher", protocol={**e.protocol, **few}) for e in select(row, paper)]

    select = reproduce.select
    monkeypatch.setattr(reproduce, "select", small)


@pytest.mark.usefixtures("small_rows", "unrendered", "few_compared")
def test_a_row_is_measured_with_its_authors_file_or_says_what_to_fetch(tmp_path):
    words = ["reproduce", "gas/cifar10/gs/4", "--out", tmp_path / "runs"]
    lacking = call(*words)
    assert lacking.exit_code == 3
    [line, *_] = lacking.output.splitlines()
    assert line.startswith(
        "gas/cifar10/gs/4: missing: solver gs: no trained parameters; fetch the authors' file of GS for 4 calls from "
        "https://huggingface.co/bayes-group-diffusion/GAS-students/tree/main/edm/cifar10 and give it as "
        "'solverbench reproduce gas/cifar10/gs/4 --checkpoint FILE', or train them: solverbench train gs:t_eps=0.001:"
    )
    done = call(*words, "--checkpoint", checkpoint(tmp_path / "10000.pt"))
    assert done.exit_code in (0, 4), done.output
    assert "gs-authors=free-t_eps=0.001-nfe4.safetensors" in done.output
    assert "  trained     the authors' file 10000.pt, sha256 " in done.output
    assert "; published loss LPIPS-VGG at 224 x 224, discriminator none" in done.output
    assert "sampling: " not in done.output
    assert "loss: " not in done.output
    again = call(*words)  # the file is found without being named
    compared = [[line for line in each.output.splitlines() if line.startswith("  ")] for each in (done, again)]
    assert compared[0] == compared[1]
    found = zoo.find("gs:t_eps=0.001:authors=free", sb.load_teacher("cifar10"), 4, [tmp_path / "runs" / "trained"])
    assert float(found.tableau.start) == pytest.approx(152.167, rel=1e-5)


@pytest.mark.usefixtures("small_rows")
@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("gas/cifar10/gs", "4 rows are asked for, and a file holds the parameters of one; name a row, as in gas/cif"),
        ("gas/cifar10/gs/6", "its shapes are for nfe=4, not for nfe=6"),
        ("gas/cifar10/ld3/4", "its authors' files aren't known here; import the file with 'solverbench zoo import'"),
        ("gas/cifar10/unipc-dmn/4", "the row has no spec"),
    ],
)
def test_a_file_that_is_not_the_rows_is_refused_in_one_line(tmp_path, row, said):
    result = call("reproduce", row, "--checkpoint", checkpoint(tmp_path / "a.pt"), "--out", tmp_path / "runs")
    assert result.exit_code == 2
    assert said in result.output


def test_parameters_trained_here_are_told_from_the_authors(tmp_path):
    [row] = reproduce.select("gas/cifar10/gas/4", None)
    [cell] = cells_of("gas", tmp_path)
    told = list(published._differences(row, cell, 4, "other.npz"))
    assert "loss: published LPIPS-VGG at 224 x 224, here log_l2" in told
    assert "discriminator: published R3GAN's for CIFAR-10, pre-trained, here widths 16+32, random weights" in told
    assert any(
        line.startswith("sampling: published t_eps=0.001:authors=free (levels 152.167 to 0.010486)") for line in told
    )


def cells_of(solver, out):
    asked = RunOptions(solvers=solver, nfe=4, samples=100, replicates=1, out=out)
    return resolve.resolve(asked, protocol.Protocol.of(asked))
