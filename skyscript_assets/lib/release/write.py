"""A release as a folder: the pairs first, a partition at a time, then all that is said of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skyscript_assets.lib.captions.audit import AUDIT_FILE, AUDIT_SCHEMA
from skyscript_assets.lib.files import file_sha256, write_text
from skyscript_assets.lib.pairs.export import write_credits
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.release import data
from skyscript_assets.lib.release.documents import write_documents
from skyscript_assets.lib.release.figures import figures_of, plot, write_changes
from skyscript_assets.lib.release.items import write_items
from skyscript_assets.lib.release.origins import Origins, write_origins
from skyscript_assets.lib.settings.plant import ReleaseSettings
from skyscript_assets.lib.tables import read_table


def write_release(inputs: data.ReleaseInputs, out: Path, progress: Progress = silent) -> dict[str, Any]:
    """Write the data set as it is given away; counts.

    What a killed run with the same inputs has finished there is kept.

    Raises:
        SkyScriptError: the licence of an image is unknown, or forbids to give it away.
        TooLittleDataError: there is no pair.
        CorruptInputError: the list of ids or the release before is broken; and what `write_data` raises.
    """
    config = inputs.config
    removed = data.read_removed(config.removed.path) if config.removed else frozenset[str]()
    gone = data.write_data(inputs, removed, out, progress)
    write_origins(inputs, removed, out)
    audit = read_table(inputs.audit / AUDIT_FILE, AUDIT_SCHEMA).to_pylist()
    return finish(inputs.settings, config, {"audit": audit, "gone": gone}, out)


def finish(settings: ReleaseSettings, config: data.ReleaseConfig, more: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Write all that is said of the pairs and their origins that are in a folder; what is counted of them.

    `more` has `audit` and `gone` of `write_documents`.
    """
    figures = figures_of(out)
    changes = write_changes(out, config.previous.path.parent, out / "changes.csv") if config.previous else None
    plot(out, figures)
    write_items(settings.name, out)
    write_credits(out, (tuple(row.values()) for row in figures.owners))
    write_documents(config, figures, {**more, "leaks": Origins.of(out).recipe.leaks, "changes": changes}, out)
    for mark in out.glob(data.DONE):
        mark.unlink()
    write_sums(out)
    return {
        "pairs": figures.whole["pairs"],
        "splits": {name: figures.whole[name] for name in data.SPLIT_NAMES.values()},
        "sources": {row["source"]: row["pairs"] for row in figures.sources},
        "removed": more["gone"],
        "changes": changes,
    }


def write_sums(release: Path) -> None:
    """Write `SHA256SUMS`, as `sha256sum -c` reads it."""
    names = {path.relative_to(release).as_posix(): path for path in release.rglob("[!.]*") if path.is_file()}
    names.pop(data.SUMS_FILE, None)
    write_text(release / data.SUMS_FILE, "".join(f"{file_sha256(names[name])}  {name}\n" for name in sorted(names)))
