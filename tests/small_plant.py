"""A plant of four small stages whose inputs and failures are files: `FOLDER/inputs/NAME`, `FOLDER/broken/PAIR`."""

import os
from pathlib import Path
from typing import Any

from skyscript_assets.asset import Counts, asset
from skyscript_assets.assets import Level
from skyscript_assets.lib.errors import SceneError
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.partitions import Partition, Scheme
from skyscript_assets.provenance import Run
from tests.workshop import demo_files, write_profile

FOLDER = "SMALL_PLANT"
"""Variable of the environment that names the folder."""


def _folder() -> Path:
    return Path(os.environ[FOLDER])


def _input(settings: Settings, partition: Partition) -> str:
    path = _folder() / "inputs" / (partition[0] if partition else "rules")
    return path.read_text() if path.exists() else "as ever"


def _write(run: Run[Any], text: str) -> Counts:
    (run.out / "x").write_text(text)
    return {}


@asset(Scheme.SINGLE, group="g", kinds=[], config=_input)
def rules(run: Run[str]) -> Counts:
    """Given by people."""
    return _write(run, run.config)


@asset(Scheme.REGION, group="g", kinds=[], config=_input)
def extract(run: Run[str]) -> Counts:
    """Given for each region."""
    return _write(run, run.config)


@asset(Scheme.REGION_SOURCE, group="g", kinds=[], upstream=("extract", "rules"))
def cut(run: Run[None]) -> Counts:
    """The first half of a pair, which never fails."""
    return _write(run, (run.input("extract") / "x").read_text() + (run.input("rules") / "x").read_text())


@asset(Scheme.REGION_SOURCE, group="g", kinds=[], upstream=("cut",))
def told(run: Run[None]) -> Counts:
    """The second half, which fails where it is told to."""
    if (_folder() / "broken" / "|".join(run.partition)).exists():
        raise SceneError(f"{'/'.join(run.partition)} is broken")
    return _write(run, (run.input("cut") / "x").read_text())


GIVEN = Level("given", "Rules.", (rules,))
REGIONS = Level("regions", "Extracts.", (extract,))
PAIRS = Level("pairs", "Both halves of a pair.", (cut, told))
LEVELS = (GIVEN, REGIONS, PAIRS)
STAGES = {stage.name: stage for level in LEVELS for stage in level.stages}


def small_profile(folder: Path, regions: int, sources: int) -> Path:
    """A profile of regions `r0`, ... and sources `S0`, ..., each coarser than the one before."""
    files = demo_files()
    painted = files["sources"]["sources"]["SYN1"]
    files["sources"]["sources"] = {f"S{n}": {**painted, "gsd_m": 1.0 + n} for n in range(sources)}
    files["regions"]["regions"] = {f"r{n}": {"title": f"Region {n}", "path": f"{n}.osm.pbf"} for n in range(regions)}
    for model in files["models"]["models"].values():
        model.pop("sources", None)
    for benchmark in files["benchmarks"]["benchmarks"].values():
        benchmark["sources"] = ["S0"]
    return write_profile(folder, files)


def break_pair(*pairs: str) -> None:
    """Have pairs fail."""
    for pair in pairs:
        (_folder() / "broken").mkdir(exist_ok=True, parents=True)
        (_folder() / "broken" / pair).touch()


def change(name: str, text: str) -> None:
    """Give an input, a region or `rules`, another content."""
    (_folder() / "inputs").mkdir(exist_ok=True, parents=True)
    (_folder() / "inputs" / name).write_text(text)


def mend_pair(*pairs: str) -> None:
    """Have pairs fail no more."""
    for pair in pairs:
        (_folder() / "broken" / pair).unlink()


def put_clock_forward(seconds: float) -> None:
    """Let time go by for the sensors of the small plant's code location."""
    (_folder() / "ahead").write_text(str(seconds_ahead() + seconds))


def seconds_ahead() -> float:
    """How far that clock is ahead."""
    path = _folder() / "ahead"
    return float(path.read_text()) if path.exists() else 0.0
