"""What a teacher is called where a reader sees it; its name, which keys and files have, stays as it is."""

import dataclasses

import toys

from solverbench.teachers.teacher import SHOWN, Teacher, _labelled, _parts, shortened
from solverbench.wording import ends

LONG = "my-own-fine-tuned-model-of-flowers"


def of(spec: str) -> Teacher:
    """The teacher that a spec would load, named as `load_teacher` does."""
    head, given = _parts(spec)
    return dataclasses.replace(toys.teacher(), name=_labelled(given.get("name", head), given), spec=spec)


def shown(*specs: str) -> list[str]:
    return [each.shown for each in shortened([of(spec) for spec in specs])]


def test_a_given_name_is_the_whole_name_that_is_shown():
    assert shown(f"{LONG}:name=flowers:prompts=small:sampler_nfe=6") == ["flowers"]
    assert of(f"{LONG}:name=flowers:sampler_nfe=6").name == "flowers-sampler_nfe=6"  # of keys and files, as before


def test_what_differs_between_teachers_of_a_run_stays():
    assert shown("a.pkl:name=x:guidance=1:dtype=fp16", "a.pkl:name=x:guidance=2:dtype=fp16") == [
        "x-guidance=1", "x-guidance=2",
    ]  # fmt: skip


def test_a_long_name_loses_shared_options_and_then_its_middle():
    assert shown(f"{LONG}:prompts=small:sampler_nfe=6") == [LONG]
    assert shown(f"{LONG}-and-birds:prompts=small") == ["my-own-fine-tuned-mo…f-flowers-and-birds"]
    two = shown(f"{LONG}:guidance=1:dtype=fp16", f"{LONG}:guidance=2:dtype=fp16")
    assert two == ["my-own-fine-tuned-mo…-flowers-guidance=1", "my-own-fine-tuned-mo…-flowers-guidance=2"]
    assert {len(each) for each in two} == {SHOWN}


def test_two_that_would_be_alike_keep_their_whole_names():
    a, b = f"{'a' * 24}-one-{'b' * 24}", f"{'a' * 24}-two-{'b' * 24}"
    assert shown(a, b) == [a, b]
    assert shown("a.pkl:name=x", "b.pkl:name=x:guidance=2") == ["x", "x-guidance=2"]


def test_a_short_name_is_shown_as_it_is():
    teacher = of("shapes:guidance=2")
    assert shortened([teacher]) == [teacher]
    assert teacher.shown == teacher.name == "shapes-guidance=2"
    assert ends("1234567890", 10) == "1234567890"
    assert ends("12345678901", 10) == "12345…8901"
