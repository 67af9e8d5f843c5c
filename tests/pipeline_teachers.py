"""Descriptions of the teachers of tiny pipelines: `tiny_pipelines` has their folders."""

import json

import tiny
import tiny_pipelines

LINES = ["a red bird", "two cats on a mat by the sea", "the sea"]


def described(place, name, folder, fields=None, more=None):
    """Write the description of a tiny pipeline with its small call, and return the spec of a teacher.

    Args:
        fields: further fields of the description; a table is the last of them.
        more: further arguments of the call.
    """
    call = {**tiny_pipelines.call(name), **(more or {})}
    table = {"checkpoint": folder, "family": "pipeline"}
    if tiny_pipelines.prompted(name):
        table["prompts"] = tiny.prompts(place / "p.txt", LINES)
    if (negative := call.pop("negative_prompt", None)) is not None:
        table["negative"] = negative
    for key, value in call.items():
        if hasattr(value, "save"):  # an image
            value.save(place / f"{name}-{key}.png")
            call[key] = str(place / f"{name}-{key}.png")
    table |= fields or {}
    tables = {key: table.pop(key) for key in list(table) if isinstance(table[key], dict)}
    path = tiny.describe(place / f"{name}.toml", options=tables.pop("options", {}), **table)
    tables["call"] = {key: value for key, value in call.items() if value is not None}
    rows = (
        f"[{title}]\n" + "".join(f"{key} = {toml(v)}\n" for key, v in each.items()) for title, each in tables.items()
    )
    path.write_text(path.read_text() + "".join(rows))
    return str(path) + "".join(f":{key}=null" for key, value in call.items() if value is None)


def toml(value):
    """A value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)
