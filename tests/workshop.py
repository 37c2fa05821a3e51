"""Profiles for tests, and the pieces to run one with: settings, store, code location, instance."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget

from skyscript_assets.assets import STAGES
from skyscript_assets.definitions import build_defs
from skyscript_assets.lib.settings.base import BBox, Shared
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, Settings, load_settings
from skyscript_assets.lib.settings.regions import GEOFABRIK
from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.partitions import Partition, inputs_of
from skyscript_assets.provenance import Outcome, Outputs
from skyscript_assets.resources import Plant


class Workshop:
    """A profile, its store, its code location and an instance of its own."""

    def __init__(self, profile: Path, data: Path, instance: dg.DagsterInstance) -> None:
        self.profile, self.data, self.instance = profile, data, instance
        self.settings: Settings = load_settings(profile)
        self.plant = Plant(settings_folder=str(profile), data=str(data))
        self.store = Store(data)
        self.defs = build_defs(self.settings, self.plant)

    def make(self, asset: str, partition: Partition = ()) -> Outcome:
        """Materialize a partition of an asset after everything that it is made from."""
        stage = STAGES[asset]
        for key in inputs_of(stage, STAGES, self.settings, partition):
            self.make(key.asset, () if STAGES[key.asset].frozen_as else key.partition)
        return Outputs(STAGES, self.settings, self.store).materialize(stage, partition)

    def put(self, asset: str, partition: Partition, write: Callable[[Path], Any]) -> None:
        """Make a function's files a partition's current output."""
        stage, key = STAGES[asset], OutputKey(asset, partition)
        made_from = Outputs(STAGES, self.settings, self.store).provenance(stage, partition)
        with self.store.writing(key, made_from.fingerprint) as out:
            write(out)
            self.store.complete(key, fingerprint=made_from.fingerprint, made_from=made_from.made_from, counts={})


@contextlib.contextmanager
def served(settings: Settings, folder: Path) -> Iterator[WorkspaceProcessContext]:
    """What a daemon has: an instance of its own, and a profile's code location in another process."""
    (folder / "home").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.local_temp(str(folder / "home")) as instance:
        patch.setenv("SKYSCRIPT_SETTINGS", str(settings.folder))
        patch.setenv("SKYSCRIPT_DATA", str(folder / "data"))
        target = ModuleTarget("skyscript_assets.definitions", None, None, "plant")
        with WorkspaceProcessContext(instance, target) as process:
            yield process


def shared_in(folder: Path, *boxes: BBox | None, mirror: str = GEOFABRIK) -> Shared:
    """What a profile in a folder, with regions of these boxes, shares."""
    return Shared(folder=folder, zoom=16, geofabrik_mirror=mirror, boxes=boxes)


def write_profile(folder: Path, files: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return folder


def demo_files() -> dict[str, Any]:
    """The packaged demo as plain values, to be changed before it is written."""
    folder = PACKAGED_PROFILES / "demo"
    names = ("plant", "regions", "sources", "models", "benchmarks")
    return {name: yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8")) for name in names}


def few_labels(path: Path) -> str:
    """Write a sixth of the packaged labels into a file, since embedding all takes long; returns its path."""
    header, *labels = (PACKAGED_PROFILES / "tag_labels.csv").read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([header, *labels[::6]]) + "\n", encoding="utf-8")
    return str(path)


def tiny_files() -> dict[str, Any]:
    """The demo cut down: a square kilometre near Kotka at 1 m, one seed, few chips."""
    files = demo_files()
    files["plant"]["title"] = "tiny"
    files["plant"]["plan"].update(snapshot="tiny-1", quota=6)
    files["plant"]["chips"] = {"part_size": 25}
    files["plant"]["scores"]["views"] = 1
    kotka = files["regions"]["regions"]["kotka"]
    kotka["bbox"] = {"west": 26.938, "south": 60.5235, "east": 26.9585, "north": 60.535}
    files["regions"]["regions"] = {"kotka": kotka}
    files["sources"]["sources"] = {"SYN1": files["sources"]["sources"]["SYN1"]}
    models = files["models"]["models"]
    seeds = {f"{name}-0": {k: v for k, v in models[name].items() if k != "sweep"} for name in ("aligned", "untrained")}
    kept = seeds | {name: models[name] for name in ("metadata-only", "linear-probe")}
    kept["aligned-0"].update(sources=["SYN1"], recipe={"kind": "align", "epochs": 4, "batch_size": 16})
    files["models"]["models"] = kept
    ground_cover = files["benchmarks"]["benchmarks"]["ground-cover"]
    ground_cover.update(sources=["SYN1"], window_px=96)
    files["benchmarks"]["benchmarks"] = {"ground-cover": ground_cover}
    files["benchmarks"]["comparisons"] = files["benchmarks"]["comparisons"][:1]
    files["benchmarks"]["bootstrap"] = 100
    return files


def ortho_files(path: Path) -> dict[str, Any]:
    """The same with one source of one file, `ORTHO`, in place of the synthetic one, and without models that learn."""
    files = tiny_files()
    ortho = {"kind": "files", "title": "Orthophotos", "gsd_m": 0.5, "paths": [str(path)], "datetime": "2020-06-01"}
    files["sources"]["sources"] = {"ORTHO": ortho | {"licence": "CC0-1.0", "attribution": "A surveyor"}}
    files["models"]["models"] = {"metadata-only": files["models"]["models"]["metadata-only"] | {"sources": ["ORTHO"]}}
    files["benchmarks"]["benchmarks"]["ground-cover"].update(sources=["ORTHO"])
    files["benchmarks"]["comparisons"] = []
    return files
