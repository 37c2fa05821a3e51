"""The command that clears away: `gc`."""

from __future__ import annotations

from collections import defaultdict

import click
from rich.table import Table

from skyscript_assets.cli.shared import console, plain_errors, settings_and_store
from skyscript_assets.lib.storage.garbage import Left, left_over, remove


@click.command()
@click.option("--delete", is_flag=True, help="Remove what is listed; without it nothing is changed.")
@click.option("--older-than", default=24.0, show_default=True, help="Hours for which it has not been in use.")
def gc(*, delete: bool, older_than: float) -> None:
    """List what no output needs: earlier versions, aborted work, uploads that were never named."""
    with plain_errors():
        _, store = settings_and_store()
        groups: dict[tuple[str, str], list[Left]] = defaultdict(list)
        table = Table("output", "what", "number", "MB")
        with console.status(f"looking through {store.root}") as shown:
            found = list(left_over(store, older_than * 3600))
            for left in found:
                groups[str(left.key), left.what].append(left)
            for (output, what), group in sorted(groups.items()):
                table.add_row(output, what, str(len(group)), f"{sum(left.size_bytes for left in group) / 1e6:,.1f}")
            for number, left in enumerate(found if delete else ()):
                shown.update(f"removing {number + 1} of {len(found)}: {left.key}")
                remove(store, left)
        if found:
            console.print(table)
        verb = "removed" if delete else "could be removed (--delete)"
        size = sum(left.size_bytes for left in found) / 1e6
        console.print(f"{len(found)} things, {size:,.1f} MB, {verb}: not in use for {older_than:g} hours")
