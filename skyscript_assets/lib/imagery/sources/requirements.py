"""What each source needs on this machine before its images can be read, and whether it is there; nothing is asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from skyscript_assets.lib.imagery.sources.earthengine.session import has_credentials, installed
from skyscript_assets.lib.imagery.sources.files.index import files_of
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.lib.settings.sources import EarthEngineSource, FilesSource, ServiceSource, Source, StacSource


class Requirement(NamedTuple):
    """Something that a source needs.

    Attributes:
        what: In a few words.
        met: Whether it is there.
        remedy: What to do where it is not.
    """

    what: str
    met: bool
    remedy: str


def requirements_of(source: Source, settings: Settings) -> list[Requirement]:
    """What a source needs; whether its service answers is found out by its scenes.

    Args:
        source: The source.
        settings: The profile; relative paths start at its folder.
    """
    match source:
        case FilesSource():
            return _of_files(source, settings)
        case ServiceSource():
            return [_the_internet(), *_of_variable(source.api_key_variable, "the service's key")]
        case EarthEngineSource():
            return [_the_internet(), *_of_earth_engine(source)]
        case StacSource():
            token = source.token
            return [_the_internet(), *_of_variable(token.env if token is not None else None, "a token")]
        case _:
            return []


def _the_internet() -> Requirement:
    return Requirement("internet", met=True, remedy="")


def _of_files(source: FilesSource, settings: Settings) -> list[Requirement]:
    files = files_of(source, settings)
    missing = [path for path in files if not path.is_file()]
    remedy = f"{missing[0]} does not exist" if missing else "no file matches its paths"
    return [Requirement("its files on this machine", met=bool(files) and not missing, remedy=remedy)]


def _of_variable(variable: str | None, what: str) -> list[Requirement]:
    if variable is None:
        return []
    return [Requirement(f"{variable} ({what})", bool(os.environ.get(variable, "").strip()), f"{variable} is not set")]


def _of_earth_engine(source: EarthEngineSource) -> list[Requirement]:
    needed = [
        Requirement("extra earthengine", installed(), "pip install 'skyscript-assets[earthengine]'"),
    ]
    variable = source.credentials_variable
    if variable is not None:
        path = os.environ.get(variable, "").strip()
        needed += _of_variable(variable, "path of a key file")
        needed += [Requirement("the key file", Path(path).is_file(), f"{path} does not exist")] if path else []
    else:
        needed += [
            Requirement("Google credentials", has_credentials(), "run `earthengine authenticate`"),
            Requirement("project", source.project is not None, "state its project in sources.yaml"),
        ]
    return needed
