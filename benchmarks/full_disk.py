"""A disk that is full, and one that cannot be written, at every stage; needs root, for small file systems in memory.

    python benchmarks/full_disk.py --settings FOLDER

Makes every output of a profile once on an ordinary disk. Then makes them again on one that is, at each stage,
read-only, then filled until a half, and then a tenth, of what the stage writes is left; and after that has room,
whereupon the stage must end well. An output that is there is then forced to be made again while the disk is full: it
must stay as it was. Prints a Markdown table, a row a stage: the errors, and whether all outputs equal those of the
first disk.
"""

import contextlib
import ctypes
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from measuring import options_of, parser_of, print_head, print_row

from skyscript_assets.asset import Stage
from skyscript_assets.assets import STAGES
from skyscript_assets.lib.errors import SkyScriptError
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, Settings, load_settings
from skyscript_assets.lib.storage import Store
from skyscript_assets.lib.storage import store as store_module
from skyscript_assets.partitions import Partition, partitions_of
from skyscript_assets.provenance import Outputs

SIZE_BYTES = 2 << 30
MS_RDONLY, MS_REMOUNT = 1, 32


class Disk:
    """A file system in memory at a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._libc = folder, ctypes.CDLL(None, use_errno=True)
        self._mount(0)

    def _mount(self, flags: int) -> None:
        options = f"size={SIZE_BYTES}".encode()
        if self._libc.mount(b"tmpfs", str(self.folder).encode(), b"tmpfs", flags, options) != 0:
            raise OSError(ctypes.get_errno(), f"{self.folder} cannot be mounted: run this as root")

    @contextlib.contextmanager
    def full(self, left: int) -> Iterator[None]:
        """Within the block so many bytes are free."""
        filler = self.folder / ".filler"
        stat = os.statvfs(self.folder)
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, stat.f_bavail * stat.f_bsize - left))
        try:
            yield
        finally:
            filler.unlink()

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """Within the block nothing can be written."""
        self._mount(MS_REMOUNT | MS_RDONLY)
        try:
            yield
        finally:
            self._mount(MS_REMOUNT)

    def remove(self) -> None:
        """Give the memory back."""
        self._libc.umount2(str(self.folder).encode(), 2)


def made(settings: Settings, store: Store, stage: Stage, partition: Partition, *, force: bool = False) -> str:
    """What making an output ends with: the name of an error that was raised on purpose, a traceback's name, or `-`."""
    try:
        Outputs(STAGES, settings, store).materialize(stage, partition, force=force)
    except SkyScriptError as error:
        return type(error).__name__
    except Exception as error:  # noqa: BLE001 - what may not happen is to be seen in the table
        return f"unforeseen: {type(error).__name__}: {str(error)[:60]}"
    return "-"


def try_stage(settings: Settings, disk: Disk, store: Store, whole: Store, stage: Stage) -> list[str]:
    """Cells of a stage's row."""
    found: list[list[str]] = [[], [], []]
    equal = True
    for partition in partitions_of(stage.scheme, settings):
        key = stage.key(settings, partition)
        expected = whole.record(key)
        assert expected is not None
        with disk.read_only():
            found[0].append(made(settings, store, stage, partition))
        for share in (2, 10):
            with disk.full(expected.size_bytes // share):
                found[1].append(made(settings, store, stage, partition))
        last = made(settings, store, stage, partition)
        assert last == "-", f"{key}: {last}"
        with disk.full(0):
            found[2].append(made(settings, store, stage, partition, force=True))
        record = store.record(key)
        equal = equal and record is not None and record.data_version == expected.data_version
        store.folder(key)
    return [*(", ".join(sorted(set(names))) for names in found), "yes" if equal else "NO"]


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--settings", type=Path, default=PACKAGED_PROFILES / "demo", help="folder of a profile")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), help="names of the stages, the first ones")
    options = options_of(parser)
    settings = load_settings(options.settings)
    store_module.MIN_FREE_BYTES = 0  # else nothing is begun on a disk as full as these
    with tempfile.TemporaryDirectory() as folder:
        whole = Store(Path(folder) / "whole")
        mounted = Path(folder) / "disk"
        mounted.mkdir()
        disk = Disk(mounted)
        try:
            store = Store(mounted / "data")
            print_head("stage", "read-only", "disk full", "forced on a full disk", "as on a whole disk")
            for stage in map(STAGES.__getitem__, options.stages):
                for partition in partitions_of(stage.scheme, settings):
                    assert made(settings, whole, stage, partition) == "-"
                print_row(f"`{stage.name}`", *try_stage(settings, disk, store, whole, stage))
        finally:
            disk.remove()


if __name__ == "__main__":
    main()
