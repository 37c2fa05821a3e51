"""A release as a folder: the pairs first, a partition at a time, then all that is said of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skyscript_assets.lib.captions.audit import AUDIT_FILE, AUDIT_SCHEMA
from skyscript_assets.lib.errors import StorageError
from skyscript_assets.lib.files import file_sha256, write_text
from skyscript_assets.lib.pairs.table import PartitionFolders
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.release.card import Told, write_card
from skyscript_assets.lib.release.catalog import write_collection, write_croissant, write_items
from skyscript_assets.lib.release.data import read_removed, write_data
from skyscript_assets.lib.release.figures import figures_of, plot, write_changes, write_tags
from skyscript_assets.lib.settings.base import CaptionPolicy
from skyscript_assets.lib.settings.plant import PlanSettings, ReleaseSettings
from skyscript_assets.lib.tables import read_table

SUMS_FILE = "SHA256SUMS"


def write_release(
    settings: ReleaseSettings,
    sampling: str,
    policy: CaptionPolicy,
    manifest: Path,
    partitions: Mapping[tuple[str, str], PartitionFolders],
    audit: Path,
    out: Path,
    previous: Path | None = None,
    removed: Path | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write the data set as it is given away.

    Args:
        settings: Name, version, people, style.
        sampling: How pairs were drawn and split (`sampling_of`).
        policy: That of the captions.
        manifest: Folder of the training manifest; figures of its leak report are shown where it has one.
        partitions: Folders by (region, source), those of objects among them.
        audit: Folder with `audit.parquet`.
        out: Existing folder; what a killed run with the same inputs has finished there is kept.
        previous: The release before.
        removed: File of the ids that stay out.
        progress: Told of partitions.

    Returns:
        Counts.

    Raises:
        SkyScriptError: the licence of an image is unknown, or forbids to give it away.
        TooLittleDataError: there is no pair.
        CorruptInputError: the list of ids or the release before is broken; and what `write_data` raises.
    """
    stay_out = read_removed(removed) if removed is not None else frozenset[str]()
    gone = write_data(manifest / "manifest.parquet", partitions, settings.style, stay_out, out, progress)
    figures = figures_of(out)
    changes = None if previous is None else write_changes(out, previous, out / "changes.csv")
    judged = read_table(audit / AUDIT_FILE, AUDIT_SCHEMA).to_pylist()
    told = Told(settings, figures, sampling, policy, judged, _leaks(manifest), gone, changes)
    write_tags(figures, out / "tags.csv")
    plot(out, figures, out)
    write_items(told, out)
    write_collection(told, out)
    write_card(told, out)
    write_croissant(told, out)
    write_sums(out)
    whole = figures.whole
    return {
        "pairs": whole["pairs"],
        "splits": {name: whole[name] for name in ("train", "validation", "test")},
        "sources": {row["source"]: row["pairs"] for row in figures.sources},
        "removed": gone,
        "changes": changes,
    }


def sampling_of(plan: PlanSettings, zoom: int) -> str:
    """How objects are drawn and pairs are split, in sentences."""
    drawn = (
        f"at most about {plan.quota:,} objects of each tag, region and resolution are drawn by a hash "
        f"(seed {plan.seed}), rare tags whole"
    )
    if plan.sampling == "squares":
        drawn = f"all objects of {plan.square_share:.0%} of squares of 0.01 degrees are drawn, and all of rare tags"
    return (
        f"Of the objects of OpenStreetMap whose tags can be seen, {drawn}; each becomes a chip of "
        f"{plan.min_tile_px} to {plan.max_tile_px} pixels with the object in it. Splits are by ground: a Web Mercator "
        f"tile of zoom {zoom} is never divided, and no two splits share ground."
    )


def _leaks(manifest: Path) -> dict[str, Any]:
    """The plain figures of the manifest's leak report, where it has one."""
    path = manifest / "leaks.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {name: value for name, value in found.items() if isinstance(value, int | float | str)}


def write_sums(release: Path) -> None:
    """Write `SHA256SUMS`, as `sha256sum -c` reads it."""
    files = sorted(path for path in release.rglob("*") if path.is_file() and not path.name.startswith("."))
    lines = [f"{file_sha256(path)}  {path.relative_to(release).as_posix()}" for path in files if path.name != SUMS_FILE]
    write_text(release / SUMS_FILE, "\n".join(lines) + "\n")


def read_sums(release: Path) -> dict[str, str]:
    """Digests of a release's files by name.

    Raises:
        StorageError: the folder has no list of digests.
    """
    try:
        lines = (release / SUMS_FILE).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise StorageError(f"{release} is no release: it has no {SUMS_FILE} ({error})") from error
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
