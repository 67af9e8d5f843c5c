"""Files and sets of prompts: their forms, what a seed gets, what a key says, and downloads without a network."""

import hashlib
import json
import zipfile

import pytest
from click.testing import CliRunner

from solverbench import downloads, registries
from solverbench.cli.main import main
from solverbench.errors import MissingError, RecordError, SpecError, UnknownNameError, UserError
from solverbench.teachers import prompt_sets
from solverbench.teachers.conditions import Condition
from solverbench.teachers.families.description import Description
from solverbench.teachers.families.description import read as described
from solverbench.teachers.prompt_sets import Prompts

PAIRS = [("a red ring", "blur"), ("two, or three", ""), ("the sea", "rain")]
FILES = {
    "plain.txt": "a red ring\n\n  two, or three \r\nthe sea\n",
    "texts.json": json.dumps(["a red ring", "two, or three", "the sea"]),
    "objects.json": json.dumps([{"prompt": p, "negative_prompt": n} for p, n in PAIRS]),
    "mixed.jsonl": '{"Prompt": "a red ring", "negative": "blur"}\n"two, or three"\n\n'
    '{"prompt": "the sea", "negative": "rain"}\n',
    "table.csv": 'id,Prompt,negative_prompt\n1,a red ring,blur\n2,"two, or three",\n3,"the\nsea",rain\n',
    "table.tsv": "Prompt\tCategory\tnegative\na red ring\tx\tblur\ntwo, or three\ty\t\nthe sea\tz\train\n",
    "marked.csv": "\ufeffprompt\na red ring\n\"two, or three\"\nthe sea\n",
}  # fmt: skip


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """A data folder of the test's own."""
    monkeypatch.setenv("SOLVERBENCH_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.mark.parametrize("name", FILES)
def test_each_form_gives_the_same_prompts(tmp_path, name):
    path = tmp_path / name
    path.write_text(FILES[name], encoding="utf-8", newline="")
    negatives = ("blur", "", "rain") if "negative" in FILES[name] else ()
    assert prompt_sets.read(path) == Prompts(("a red ring", "two, or three", "the sea"), negatives)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", "{"), ("a.json", '{"prompt": "x"}'), ("a.json", "[1]"), ("a.json", '[{"text": "x"}]'),
        ("a.json", '[{"prompt": 3}]'), ("a.json", "[" * 100_000), ("a.jsonl", "x"), ("a.csv", "caption\nx\n"),
        ("a.csv", ""), ("a.csv", 'prompt\n"x'),
    ],
)  # fmt: skip
def test_a_file_that_is_not_of_its_form_is_one_line(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(RecordError, match="has no prompts as its ending says") as caught:
        prompt_sets.read(tmp_path / name)
    assert "\n" not in str(caught.value)


def of(tmp_path, prompts, **more):
    """The condition of a description with these prompts."""
    (tmp_path / "network.pkl").touch()
    found = described(tmp_path / "network.pkl", {"prompts": str(prompts), **more})
    return found.condition(text=True, absent=True)


def test_a_seed_gets_the_prompt_of_its_number_and_that_prompts_negative(tmp_path):
    (tmp_path / "table.csv").write_text(FILES["table.csv"])
    condition = of(tmp_path, tmp_path / "table.csv", negative="grey")
    assert condition.lines([3, 4, 50_000]) == ["a red ring", "two, or three", "the sea"]
    assert condition.negative_lines([3, 4, 50_000]) == ["blur", "grey", "rain"]
    assert Condition(prompts=("x",), negative="grey").negative_lines([1, 2]) == ["grey", "grey"]


def test_the_key_has_the_content_not_the_form_or_the_place(tmp_path):
    keys = {}
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
        keys[name] = of(tmp_path, tmp_path / name).key
    lines = hashlib.sha256(b"a red ring\ntwo, or three\nthe sea").hexdigest()
    plain = {"guidance": 1.0, "prompts": lines, "lines": 3, "negative": ""}
    assert keys["plain.txt"] == keys["texts.json"] == keys["marked.csv"] == plain
    told = {**plain, "negatives": hashlib.sha256(b"blur\n\nrain").hexdigest()}
    assert keys["objects.json"] == keys["mixed.jsonl"] == keys["table.csv"] == keys["table.tsv"] == told


def test_the_own_set_is_found_by_name_and_its_content_is_fixed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    condition = of(tmp_path, "small")
    assert len(condition.prompts) == len(set(condition.prompts)) == 64
    assert condition.lines([0, 64]) == ["a red apple on a white plate"] * 2
    assert condition.key["prompts"][:12] == SMALL, "changed prompts change every address: make another set"
    (tmp_path / "small").write_text("a file of the same name\n")
    assert of(tmp_path, "small").prompts == ("a file of the same name",)


SMALL = "2cdc5de3cc62"


def test_a_set_that_is_not_downloaded_or_not_known_is_one_line(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingError, match=r"prompts=coco: .*coco.txt is missing.*'solverbench prompts fetch coco'"):
        of(tmp_path, "coco")
    with pytest.raises(MissingError, match="can't be read"):
        of(tmp_path, "nowhere")
    result = CliRunner().invoke(main, ["prompts", "fetch", "cocoa"])
    assert (result.exit_code, "did you mean 'coco'" in result.stderr) == (2, True)
    with pytest.raises(UserError, match="they come with this package; use prompts=small"):
        prompt_sets.fetch("small", lambda name: downloads.silent)
    with pytest.raises(UnknownNameError):
        prompt_sets.fetch("parti", lambda name: downloads.silent)


def coco(path):
    """COCO's annotations in their published layout: an archive with a folder of JSON files."""
    told = [(9, 2, "A dog\nruns."), (3, 1, " Two cats. "), (7, 2, "A hound."), (4, 1, "Cats.")]
    captions = {
        "info": {}, "licenses": [], "images": [{"id": 1}, {"id": 2}],
        "annotations": [{"id": n, "image_id": image, "caption": text} for n, image, text in told],
    }  # fmt: skip
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("annotations/captions_train2014.json", "{}")
        archive.writestr("annotations/captions_val2014.json", json.dumps(captions))


def test_sets_are_downloaded_and_used_by_name(tmp_path, monkeypatch, data):
    asked = []

    def download(url, path, tell):
        asked.append(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        if url.endswith(".tsv"):
            path.write_text(
                'Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\t\n"quoted" bond\tArts\tBasic\t\n'
            )
        else:
            coco(path)
        return downloads.pinned(path, url)

    monkeypatch.setattr(downloads, "fetch", download)
    monkeypatch.chdir(tmp_path)
    for name, expected in {"partiprompts": ("bond", '"quoted" bond'), "coco": ("Two cats.", "A hound.")}.items():
        result = CliRunner().invoke(main, ["prompts", "fetch", name])
        assert result.exit_code == 0, result.output
        assert f"use them as prompts={name}" in result.stdout
        assert f"{registries.prompts()[name]['prompts']} prompts were expected" in result.stdout
        assert of(tmp_path, name).prompts == expected
    assert asked == [registries.prompts()[name]["url"] for name in ("partiprompts", "coco")]
    assert json.loads((data / "prompts" / "pins.json").read_text())["PartiPrompts.tsv"]["url"] == asked[0]
    listed = json.loads(CliRunner().invoke(main, ["prompts", "list", "--json"]).stdout)
    assert [(row["name"], row["state"]) for row in listed] == [
        ("small", "built in"), ("partiprompts", "here"), ("coco", "here")
    ]  # fmt: skip


def test_each_set_names_its_licence_and_an_https_address():
    for name, entry in registries.prompts().items():
        assert entry["licence"]
        assert "file" in entry or not downloads.refused(entry["url"]), name


def test_annotations_without_captions_are_one_line(tmp_path):
    path = tmp_path / "captions.json"
    for text in ("{}", '{"annotations": [{"id": 1}]}', "["):
        path.write_text(text)
        with pytest.raises(RecordError, match="holds no captions of COCO"):
            list(prompt_sets._captions(path))


def test_negative_prompts_of_their_own_give_another_training(tmp_path):
    import dataclasses

    import toys

    told = Condition(prompts=("x", "y"), guidance=3.0)
    one = dataclasses.replace(toys.teacher(), condition=told, passes=2)
    other = dataclasses.replace(one, condition=dataclasses.replace(told, negatives=("a", "b")))
    assert one.ode != other.ode


@pytest.mark.parametrize("family", ["diffusers", "pipeline"])
def test_each_image_is_led_away_from_its_own_negative_prompt(tmp_path, family):
    """The same predictions as by teachers that have one negative prompt for all."""
    pytest.importorskip("diffusers")
    import tiny
    import tiny_folders as folders
    import torch

    folder = folders.stable_diffusion(tmp_path / "sd")
    (tmp_path / "both.csv").write_text("prompt,negative\na cat,rain\na cat on a mat,fog\n")
    (tmp_path / "plain.txt").write_text("a cat\na cat on a mat\n")
    more = {"guidance_scale": 4.0} if family == "pipeline" else {}
    guided = {} if family == "pipeline" else {"guidance": 4.0}

    def teacher(prompts, **changes):
        return folders.load(folder, family=family, prompts=prompts, options=more, **guided, **changes)

    x, sigma = tiny.random(2, 4, 8, 8), torch.tensor(3.0)
    with torch.no_grad():
        both = teacher(tmp_path / "both.csv").denoiser([0, 1])(x, sigma)
        for number, negative in enumerate(["rain", "fog"]):
            one = teacher(tmp_path / "plain.txt", negative=negative).denoiser([0, 1])(x, sigma)
            assert torch.allclose(both[number], one[number], atol=1e-5)
            assert not torch.allclose(both[1 - number], one[1 - number], atol=1e-4)


def test_a_prompt_with_two_negative_ones_is_refused_by_pipelines(tmp_path):
    from solverbench.teachers.families.pipelines import family

    (tmp_path / "two.csv").write_text("prompt,negative\na cat,rain\na cat,fog\n")
    description = Description(tmp_path, "x", prompts=tmp_path / "two.csv")
    condition = description.condition(text=True)
    with pytest.raises(UserError, match="prompt 'a cat' has two negative prompts; give each prompt one"):
        family._negatives(description, condition)
    with pytest.raises(SpecError, match="takes no negative prompt; give prompts without them"):
        family._told(description, {}, {"prompt": None}, "SomePipeline")
