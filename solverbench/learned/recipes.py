"""Training recipes of learned solvers, as data. Every number comes from a TOML file, a solver's class or the user."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from solverbench import options, plugins, registries, seeds
from solverbench.errors import MissingError, RecordError, SpecError
from solverbench.learned import discriminator_sizes, stages
from solverbench.registries import recipe_names
from solverbench.wording import suggest

if TYPE_CHECKING:
    from solverbench.method.solver import LearnedSolver
    from solverbench.teachers.teacher import Teacher

TRAINING = range(40_000)
VALIDATION = range(TRAINING.stop, seeds.EVALUATION_START)
"""Noise seeds that recipes may use for training and validation; disjoint, also from those of the evaluation."""

CHOICES = ("last", "best")
CRITERIA = ("rmse", "loss")
OPTIMISERS = ("adam", "rmsprop", "sgd")
SCHEDULES = ("constant", "cosine", "linear")
AS_ALL = "as_all"
ADVERSARIAL = ("relativistic", "classic")
MEMORY = ("store", "recompute")
METRIC_LOSS = "metric_features"
ANY = "any"
OPTIONAL = ("start", "discriminator_weights")
"""Settings that may be empty."""
USUAL = "gs"
"""Recipe of a learned solver that declares none."""


def _setting(
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: Sequence[str] = (),
    before: Any = None,
) -> Any:
    """Return a field with its range: low <= value <= high and value > above; a list's range holds for every entry.

    Args:
        before: for a setting that recipes had not from the start, the value that trains as before it existed (a
            training that blew up apart). Records without the setting have this value, and it isn't part of a
            training's address.
    """
    return field(metadata={"low": low, "high": high, "above": above, "choices": tuple(choices), "before": before})


@dataclass(frozen=True)
class Recipe:
    """The training settings of a learned solver; each of them may change the result.

    Stages: `iterations` are divided into `cycles` equal cycles, and each cycle into `stages`, written
    `groups:share,groups:share` with groups joined by +, as in `times:2,times+offsets:5`; `all` is every group.

    Optimisation: `optimiser` and `lr`, or a group's own. Groups that share an optimiser are clipped together. SGD's
    rate on offsets is divided by the number of calls. After `patience` (0: off) validations without improvement, the
    best parameters and noises are restored and the rates are multiplied by `lr_decay`, down to `lr_min`. Each round
    also starts from the best parameters. Training ends once patience has run out `stop_after` times with the last
    group's rate at its minimum.

    The discriminator's penalties have the weights `gamma` times `r1_weight` and `r2_weight`. It is trained alone for
    `discriminator_pretrain` iterations first; with `conditional` it is told the image's class; its first `bf16_stages`
    stages are in bfloat16.

    `radius` (0: off) lets every noise move within radius C H W / NFE^2 of its origin, in steps of `noise_lr` / NFE.

    Sources: GAS, arXiv:2510.17699; LD3, arXiv:2405.15506, with their public code.

    Raises:
        SpecError: a value of the wrong type or out of range.
        PluginError: a plugin's loss that cannot be loaded.
    """

    loss: str = _setting()
    allow_metric_loss: bool = _setting()
    iterations: int = _setting(low=1)
    stages: str = _setting()
    cycles: int = _setting(low=1)
    batch: int = _setting(low=1)
    optimiser: str = _setting(choices=OPTIMISERS)
    lr: float = _setting(above=0.0, high=1.0)
    offsets_optimiser: str = _setting(choices=(AS_ALL, *OPTIMISERS))
    offsets_lr: float = _setting(low=0.0, high=1.0)  # 0: as lr
    coefficients_optimiser: str = _setting(choices=(AS_ALL, *OPTIMISERS))
    coefficients_lr: float = _setting(low=0.0, high=1.0)  # 0: as lr
    ema_decay: float = _setting(low=0.0, high=1.0)
    clip: float = _setting(above=0.0)
    radius: float = _setting(low=0.0)
    noise_lr: float = _setting(above=0.0)
    patience: int = _setting(low=0)
    lr_decay: float = _setting(above=0.0, high=1.0)
    lr_min: float = _setting(low=0.0, high=1.0)
    offsets_lr_min: float = _setting(low=0.0, high=1.0)
    stop_after: int = _setting(low=1)
    compat: bool = _setting()
    memory: str = _setting(choices=MEMORY)
    train_first: int = _setting(low=TRAINING.start)
    train_size: int = _setting(low=1)
    validation_first: int = _setting(low=VALIDATION.start)
    validation_size: int = _setting(low=1)
    validate_every: int = _setting(low=1)
    validation_first_use: int = _setting(low=0)  # pairs used until patience first runs out; 0: all
    validate_by: str = _setting(choices=CRITERIA)
    choose: str = _setting(choices=CHOICES)
    training_seeds: int = _setting(low=1)
    adversarial_weight: float = _setting(low=0.0)
    adversarial_loss: str = _setting(choices=ADVERSARIAL)
    gamma: float = _setting(low=0.0)
    discriminator_lr: float = _setting(above=0.0, high=1.0)
    widths: tuple[int, ...] = _setting(low=1)
    cardinalities: tuple[int, ...] = _setting(low=1)
    blocks: int = _setting(low=1)
    discriminator_weights: str = _setting()
    start: str = _setting(before="")
    schedule: str = _setting(choices=SCHEDULES, before="constant")
    warmup: float = _setting(low=0.0, high=1.0, before=0.0)
    stop_above: float = _setting(low=0.0, before=4.0)  # 0: off
    warm_start: bool = _setting(before=False)
    r1_weight: float = _setting(low=0.0, before=1.0)  # multiples of gamma
    r2_weight: float = _setting(low=0.0, before=1.0)
    discriminator_pretrain: int = _setting(low=0, before=0)  # iterations before the first one of the student
    conditional: bool = _setting(before=False)
    bf16_stages: int = _setting(low=0, before=0)  # that many stages from the full size down

    def __post_init__(self) -> None:
        for name, kind in _kinds().items():
            _check(name, kind, getattr(self, name))
        if self.loss not in registries.losses:
            raise SpecError(
                asked=f"loss={self.loss}", wrong="isn't one of its values", remedy=f"use {', '.join(registries.losses)}"
            )
        if self.loss not in registries.losses.builtin:
            plugins.get(registries.losses, self.loss)
        stages.parse(self.stages)
        if self.loss == METRIC_LOSS and not self.allow_metric_loss:
            raise SpecError(
                asked=f"loss={METRIC_LOSS}",
                wrong="trains on the features that metrics use, so a lower distance would prove nothing",
                remedy="use another loss, or set allow_metric_loss=true, which marks the results in every report",
            )
        for purpose, used, allowed in (("train", self.train, TRAINING), ("validation", self.validation, VALIDATION)):
            if used.stop > allowed.stop:
                asked = f"{purpose}_first={used.start}, {purpose}_size={len(used)}"
                raise SpecError(
                    asked=asked, wrong=f"seeds up to {used.stop - 1}", remedy=f"stay within {seeds.label(allowed)}"
                )
        if self.batch > self.train_size:
            raise SpecError(
                asked=f"batch={self.batch}, train_size={self.train_size}",
                wrong="the batch is larger than train_size",
                remedy="lower batch or raise train_size",
            )

    @property
    def train(self) -> range:
        """The noise seeds of the training pairs."""
        return range(self.train_first, self.train_first + self.train_size)

    @property
    def validation(self) -> range:
        """The noise seeds of the validation pairs."""
        return range(self.validation_first, self.validation_first + self.validation_size)

    @property
    def adversarial(self) -> bool:
        """Whether training uses a discriminator."""
        return self.adversarial_weight > 0

    @property
    def pretraining(self) -> int:
        """The iterations that train the discriminator alone; 0 without a discriminator."""
        return self.discriminator_pretrain if self.adversarial else 0

    @property
    def length(self) -> int:
        """All iterations of a training, those of the discriminator alone included."""
        return self.pretraining + self.iterations

    def override(self, settings: Sequence[str]) -> Recipe:
        """Return this recipe with `key=value` settings applied; a list is written widths=64+64 or widths=[64, 64].

        `start=` without a value is the method's own start.

        Raises:
            SpecError: not key=value, a repeated or unknown key, or a value of the wrong type or range.
        """
        given: dict[str, Any] = {}
        for setting in settings:
            key, equals, text = setting.partition("=")
            if not equals or not key or not (text or key in OPTIONAL):
                raise SpecError(
                    asked=f"recipe setting {setting!r}",
                    wrong="isn't key=value",
                    remedy="write it as in iterations=1000",
                )
            if key not in _kinds():
                raise _unknown(f"recipe setting {setting!r}", key)
            if key in given:
                raise SpecError(
                    asked=f"recipe setting {setting!r}", wrong=f"{key!r} is given twice", remedy="give it once"
                )
            listed = text.startswith("[") and text.endswith("]")
            plain = "+".join(part.strip() for part in text[1:-1].split(",")) if listed else text
            given[key] = options.parse(f"recipe setting {setting!r}", _kinds()[key], plain)
        return replace(self, **given)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON values, in field order."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def as_key(self) -> dict[str, Any]:
        """Return what a training's address names: `as_dict` without settings that train as before they existed."""
        later = _later()
        return {name: value for name, value in self.as_dict().items() if name not in later or value != later[name]}

    def as_toml(self) -> str:
        """Return the settings as a recipe's file, which `load` reads."""
        lines = (f"{name} = {_toml(value)}" for name, value in self.as_dict().items())
        return "\n".join([f"[{ANY}]", *lines, ""])

    def as_json(self) -> str:
        """Return the settings as one line of JSON; equal recipes give equal lines."""
        return json.dumps(self.as_dict(), sort_keys=True)


def _toml(value: Any) -> str:
    """Return a setting as TOML: what JSON writes, but for floats, which JSON and TOML write differently."""
    return repr(value) if isinstance(value, float) else json.dumps(value)


FAMILIES = ("pixel", "latent", "stable_diffusion")
"""Teacher families for which a recipe may have a table."""


def changes(made: Mapping[str, Any], now: Recipe) -> str:
    """Return how the settings `made` differ from the recipe `now`, as `iterations 100, now 400`; empty if they agree.

    A setting that was added later has in `made` the value that trains as before; others missing there are ignored, as
    is the number of training seeds, which changes no training.
    """
    known = {**_later(), **made}
    known.pop("training_seeds", None)
    told = {name: (known[name], value) for name, value in now.as_dict().items() if name in known}
    return "; ".join(f"{name} {was}, now {value}" for name, (was, value) in told.items() if was != value)


def chosen(
    solver: LearnedSolver, teacher: Teacher, settings: Sequence[str] = (), file: Path | str | None = None
) -> Recipe:
    """Return the recipe of `solver` for `teacher`; the solver's option or name selects it.

    A teacher with prompts belongs to the family `stable_diffusion`, another with a decoder to `latent`. The
    discriminator is `fitted`.

    Args:
        settings: key=value settings to change, see `Recipe.override`.
        file: TOML file of a recipe, in place of the solver's own, which is its base if it names none; see `load`.

    Raises:
        MissingError, RecordError: see `load`.
        SpecError: see `Recipe.override`.
    """
    place = None if file is None else Path(file)
    recipe = suited(load(solver.recipe_name, teacher.base, family=_family(teacher), file=place), solver)
    return fitted(recipe.override(settings), teacher)


def suited(recipe: Recipe, solver: LearnedSolver) -> Recipe:
    """Return the recipe, without a `start` that the solver's form can't give: it then has its method's own start."""
    return recipe if solver.imitates else replace(recipe, start="")


def fitted(recipe: Recipe, teacher: Teacher) -> Recipe:
    """Return the recipe, with sizes of a discriminator that fits the teacher's images if it has none of its own.

    Sizes are its own if they aren't those of defaults.toml. The defaults are kept where they fit.
    """
    size = teacher.shape[-2], teacher.shape[-1]
    if not recipe.adversarial or recipe.discriminator_weights or discriminator_sizes.fits(size, len(recipe.widths)):
        return recipe
    usual = _read("defaults", None)[ANY]
    given = (list(recipe.widths), list(recipe.cardinalities)) != (usual["widths"], usual["cardinalities"])
    found = None if given else discriminator_sizes.chosen(size)
    return recipe if found is None else replace(recipe, widths=found[0], cardinalities=found[1])


def _family(teacher: Teacher) -> str:
    if teacher.condition is not None and teacher.condition.prompts:
        return "stable_diffusion"
    return "pixel" if teacher.decode is None else "latent"


def load(
    solver: str, teacher: str, folder: Path | None = None, *, family: str = "", file: Path | None = None
) -> Recipe:
    """Return the recipe of `solver` for `teacher`: its base's settings, overridden by its own and the teacher's.

    Args:
        family: family of the teacher, such as latent; its table ranks between `any` and the teacher's own.
        folder: folder of <solver>.toml; the packaged recipes and those in the solvers' classes if None.
        file: a user's file of a recipe. All its tables override those of its base, by default the recipe of `solver`.

    Raises:
        MissingError: there is no recipe of that name, or no such file.
        RecordError: the file is not TOML, has an unknown or missing key, or a value of the wrong type or range.
    """
    tables = ANY, family, teacher
    if file is None:
        settings = _settings(solver, tables, folder)
    else:
        own = _of_file(file)
        settings = _settings(str(own.get("base", solver)), tables, folder)
        for table in tables:
            settings |= own.get(table, {})
    try:
        return of(settings)
    except SpecError as error:
        asked = f"recipe of {solver} for {teacher}" if file is None else f"recipe {file} for {teacher}"
        raise RecordError.of(error, asked=asked) from None


def of(settings: Mapping[str, Any]) -> Recipe:
    """Return the recipe with exactly these settings, as returned by `as_dict`, of this version or an earlier one.

    Raises:
        SpecError: an unknown or missing key, or a value of the wrong type or range.
    """
    settings = {**_later(), **settings}
    for key in settings:
        if key not in _kinds():
            raise _unknown("recipe", key)
    missing = [name for name in _kinds() if name not in settings]
    if missing:
        raise SpecError(asked="recipe", wrong=f"{', '.join(missing)} missing", remedy="give every setting")
    return Recipe(**{name: _plain(kind, settings[name]) for name, kind in _kinds().items()})


def _settings(solver: str, tables: Sequence[str], folder: Path | None) -> dict[str, Any]:
    """Return a recipe's settings merged with its base's: base [any], own [any], .., base [teacher], own [teacher].

    A class's settings outside a table apply to every teacher and override all tables of its base.
    """
    chain = [_read(solver, folder)]
    while "base" in chain[0]:
        if len(chain) > 8:
            raise RecordError(
                asked=f"recipe of {solver}",
                wrong="its base recipes form a circle",
                remedy="remove one of the references",
            )
        chain.insert(0, _read(str(chain[0]["base"]), folder))
    merged: dict[str, Any] = {}
    for table in tables:
        for document in chain:
            merged |= document.get(table, {})
    for document in chain:
        if everywhere := {key: value for key, value in document.items() if key in _kinds()}:
            merged |= everywhere
            for table in tables[1:]:
                merged |= document.get(table, {})
    return merged


def _read(name: str, folder: Path | None) -> Mapping[str, Any]:
    """Return the tables of a recipe: those of the solver's class, of a file, or GS's for a class that declares none."""
    declared = recipe_names.declared(registries.solvers, name) if folder is None else None
    if declared:
        return _checked(f"recipe of {name}, in its class", declared, everywhere=True)
    source = (resources.files("solverbench.registries") / "recipes" if folder is None else folder) / f"{name}.toml"
    if source.is_file():
        return _of_file(source)
    if declared is not None:
        return {"base": USUAL}
    raise MissingError(asked=f"recipe of {name}", wrong=f"there is no {source}", remedy="write one, or train gs or gas")


def _of_file(source: Traversable) -> Mapping[str, Any]:
    """Return the tables of a recipe's file."""
    try:
        return _checked(f"recipe {source}", tomllib.loads(source.read_text(encoding="utf-8")))
    except OSError as error:
        wrong = "there is no such file" if isinstance(error, FileNotFoundError) else f"can't be read ({error.strerror})"
        raise MissingError(asked=f"recipe {source}", wrong=wrong, remedy="give a TOML file of a recipe") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecordError(asked=f"recipe {source}", wrong=f"not TOML ({error})", remedy="correct it") from None


def _checked(recipe: str, tables: Mapping[str, Any], *, everywhere: bool = False) -> Mapping[str, Any]:
    for table, settings in tables.items():
        if table == "base" or (everywhere and table in _kinds()):
            continue
        if not isinstance(settings, Mapping):
            if everywhere:
                raise RecordError.of(_unknown(recipe, table))
            raise RecordError(
                asked=recipe, wrong=f"{table!r} outside a table", remedy="put it under [any] or a teacher's name"
            )
        for key in settings:
            if key not in _kinds():
                raise RecordError.of(_unknown(f"{recipe} [{table}]", key))
    return tables


@cache
def _kinds() -> Mapping[str, Any]:
    """Return the settings of a recipe and their types; cached, as resolving them takes Python a millisecond."""
    hints = get_type_hints(Recipe)
    return {each.name: hints[each.name] for each in fields(Recipe)}


@cache
def _later() -> Mapping[str, Any]:
    """Return the settings that were added later, with the value that trains as before."""
    added = {each.name: each.metadata["before"] for each in fields(Recipe)}
    return {name: value for name, value in added.items() if value is not None}


def _plain(kind: Any, value: Any) -> Any:
    """Return a TOML or JSON value as its field's type: a list as a tuple, an integer as a float where needed."""
    if isinstance(value, list):
        return tuple(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _check(name: str, kind: Any, value: Any) -> None:
    limits = next(each for each in fields(Recipe) if each.name == name).metadata
    entries = value if isinstance(value, tuple) else (value,)
    wanted = kind if kind in (str, bool, int, float) else int
    if (
        isinstance(value, tuple) is not (wanted is not kind)
        or not entries
        or any(type(e) is not wanted for e in entries)
    ):
        raise SpecError(
            asked=f"{name}={value!r}",
            wrong=f"needs {'a list of ' if wanted is not kind else ''}{wanted.__name__}",
            remedy="change the value",
        )
    if limits["choices"] and value not in limits["choices"]:
        raise SpecError(
            asked=f"{name}={value}", wrong="isn't one of its values", remedy=f"use {', '.join(limits['choices'])}"
        )
    for entry in entries if wanted in (int, float) else ():
        if wanted_range := options.outside(entry, low=limits["low"], high=limits["high"], above=limits["above"]):
            raise SpecError(asked=f"{name}={entry}", wrong="out of range", remedy=f"give {wanted_range}")


def _unknown(asked: str, key: str) -> SpecError:
    remedy = suggest(key, _kinds(), f"there are {', '.join(_kinds())}.")
    return SpecError(asked=asked, wrong=f"there is no setting {key!r}", remedy=remedy)
