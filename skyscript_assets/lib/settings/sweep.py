"""`sweep` of an entry under `models`: a model for each combination of the values that it lists."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, get_args

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from skyscript_assets.lib.settings.base import Model

MAX_MODELS = 256
"""Most models that one sweep makes."""

SWEPT = ("base", "seed", "share", "sources", "regions", "pairs")
"""What of a model may be swept beside the fields of its recipe, `recipe.NAME`."""

Entry = Mapping[str, Any]


def expanded(models: Any, model: type[Model]) -> Any:
    """The section `models` with each entry that has a `sweep` replaced by its models.

    `sweep: {recipe.lr: [1.0e-9, 1.0e-8], seed: [0, 1]}` makes four. Key and title of each tell its values; those that
    differ in their seed alone are a group. What is not of the section's form passes, to be refused as any other.

    Raises:
        ValidationError: a sweep names an unknown field, lists nothing or too much, or two models get one key.
    """
    if not isinstance(models, Mapping):
        return models
    found: dict[Any, Any] = {}
    for key, entry in models.items():
        for name, one in (
            _models(key, entry, model) if isinstance(entry, Mapping) and "sweep" in entry else [(key, entry)]
        ):
            if name in found:
                _refuse(key, f"two models are called {name}: list each value once, or rename an entry", entry)
            found[name] = one
            try:
                model.model_validate(one)
            except ValidationError:
                break  # One of a sweep tells what is wrong with all.
    return found


def _models(key: Any, entry: Entry, model: type[Model]) -> Iterator[tuple[str, Entry]]:
    sweep, recipe = entry["sweep"], entry.get("recipe")
    plain = {name: value for name, value in entry.items() if name != "sweep"}
    kinds = {cls.model_fields["kind"].default: cls for cls in get_args(model.model_fields["recipe"].annotation)}
    if not isinstance(recipe, Mapping) or recipe.get("kind") not in kinds:
        yield key, plain
        return
    lists = sweep.values() if isinstance(sweep, Mapping) else ()
    if not lists or not all(isinstance(values, list) and values for values in lists):
        _refuse(key, "it needs a list of one value or more for each field, such as {seed: [0, 1, 2]}", entry)
    fields = (*SWEPT, *(f"recipe.{name}" for name in kinds[recipe["kind"]].model_fields if name != "kind"))
    for path in sweep:
        if path not in fields:
            _refuse(key, f"{path} is no field that can be swept; those are {', '.join(fields)}", entry)
    number = math.prod(map(len, lists))
    if number > MAX_MODELS:
        _refuse(key, f"it makes {number:,} models, at most {MAX_MODELS} are allowed; list fewer values", entry)
    for values in itertools.product(*lists):
        chosen = dict(zip(sweep, values, strict=True))
        told = [(path.rpartition(".")[2], _word(value)) for path, value in chosen.items() if path != "seed"]
        parts = list(itertools.chain.from_iterable(told))
        changes = {path: value for path, value in chosen.items() if path in SWEPT}
        taught = {path.removeprefix("recipe."): value for path, value in chosen.items() if path not in SWEPT}
        changes["recipe"] = {**recipe, **taught}
        changes["title"] = ", ".join([str(entry.get("title", key)), *map(" ".join, told)])
        changes["group"] = "-".join([str(entry.get("group") or key), *parts])
        seed = [_word(chosen["seed"])] if "seed" in chosen else []
        yield "-".join([str(key), *parts, *seed]), plain | changes


def _word(value: Any) -> str:
    """A value as part of a key: numbers as Python writes them, with no + and no 0 before an exponent."""
    if isinstance(value, list):
        return "_".join(map(_word, value))
    try:
        number = value if isinstance(value, bool | int) else float(value)
    except (TypeError, ValueError):
        number = value
    return str(number).lower().replace("e-0", "e-").replace("e+", "e")


def _refuse(key: Any, reason: str, entry: Entry) -> NoReturn:
    problem = PydanticCustomError("sweep", "{reason}", {"reason": reason})
    at, found = ((str(key), "sweep"), entry["sweep"]) if "sweep" in entry else ((str(key),), entry)
    details = InitErrorDetails(type=problem, loc=at, input=found)
    raise ValidationError.from_exception_data("models", [details])
