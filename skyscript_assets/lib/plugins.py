"""What packages add to the plant by entry points: found in the metadata of what is installed, loaded when it is used.

What is packaged here is registered in the same way (pyproject.toml), so that nothing imports it by name.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from skyscript_assets.lib.errors import SettingsError, SkyScriptError

SCORER_KINDS = "skyscript_assets.scorer_kinds"
"""Group of the entry points of kinds of scorers (`lib.towers.scorers`): the one in which nothing is packaged."""


@functools.cache
def registered(group: str) -> dict[str, list[EntryPoint]]:
    """The entry points of a group by name; a name stands for one thing where just one package registers it.

    Raises:
        SettingsError: the metadata of this package is older than its code.
    """
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=group):
        found.setdefault(point.name, []).append(point)
    if group != SCORER_KINDS and not any(
        point.value.startswith("skyscript_assets.") for points in found.values() for point in points
    ):
        raise SettingsError("skyscript-assets is installed as it was before: install it again (`make install`)")
    return found


@functools.cache
def load(group: str, name: str) -> Any:
    """What a name of a group stands for.

    Raises:
        SettingsError: no package registers the name, or several do, or what it names cannot be imported.
    """
    points = registered(group).get(name, [])
    if not points:
        raise SettingsError(
            f"no installed package registers {name!r}; known are {', '.join(sorted(registered(group))) or 'none'}"
        )
    if len(points) > 1:
        packages = " and ".join(sorted(map(_package, points)))
        raise SettingsError(f"the packages {packages} all register {name!r}: uninstall all but one")
    try:
        return points[0].load()
    except Exception as error:
        raise SettingsError(
            f"package {_package(points[0])} registers {name!r} as {points[0].value}, which cannot be imported "
            f"({type(error).__name__}: {error}): mend it, or install it again (this one by `make install`)"
        ) from error


@contextmanager
def of_package(what: str, code: Callable[..., Any]) -> Iterator[None]:
    """Tells an error of a package's code as what it is; the plant's own passes as it is.

    Raises:
        SettingsError: the code failed; its package is named.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, SkyScriptError) or code.__module__.startswith("skyscript_assets."):
            raise
        place = f"{code.__module__}.{getattr(code, '__qualname__', type(code).__name__)}"
        raise SettingsError(
            f"{what} of the package {place.partition('.')[0]} failed in {place} ({type(error).__name__}: "
            f"{str(error)[:300]}): mend it there, or take it out of the settings"
        ) from error


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "(unknown)"
