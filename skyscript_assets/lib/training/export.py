"""A trained model as it is given away: weights that others' tools read, and all that people and programs ask of them.

Sources: huggingface.co/docs/hub (model cards); STAC 1.1 with the extensions MLM 1.5 and File Info 2.1.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import shapely

from skyscript_assets.lib.chips.cut import CHIP_SCHEMA
from skyscript_assets.lib.chips.plan import PLAN_FILE, PLAN_SCHEMA
from skyscript_assets.lib.errors import CorruptInputError, SettingsError
from skyscript_assets.lib.files import claimed, file_sha256, write_json, write_text
from skyscript_assets.lib.pairs.export import UNKNOWN, check_licence, write_credits
from skyscript_assets.lib.pairs.table import joined
from skyscript_assets.lib.release.documents import rendered
from skyscript_assets.lib.release.items import ground
from skyscript_assets.lib.release.write import write_sums
from skyscript_assets.lib.settings.models import HUB, LOCAL_DIR, JointBase, OpenClipBase, PackagedWeights, TrainedModel
from skyscript_assets.lib.settings.regions import OSM_ATTRIBUTION, OSM_LICENCE
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.towers.model import ClipModel
from skyscript_assets.lib.towers.portable import write_open_clip, write_transformers
from skyscript_assets.lib.training.selection import select_pairs

HUB_LICENCES = ("apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "bsd-3-clause", "odbl")
"""Licences by their names on the hub; all others are `other` there, and LICENSE.md tells them."""

_PLAN, _CHIPS = ["chip_id", "source", "bbox"], ["datetime", "licence", "attribution", "synthetic"]


@dataclass(frozen=True)
class Leaving:
    """A model and what is told of it.

    Attributes:
        counts: What training counted.
        scores: `scores.json` of each benchmark.
        made_from: Digests by what they are of: checkpoint, manifest, release, scores.
        images: What it was trained on, as `trained_on` tells; None of a baseline.
        release: Name and version of the data set that it was trained on, None where there is no release of it.
        hub: ORG/NAME that the folder will have on the hub.
    """

    name: str
    settings: TrainedModel
    base: JointBase | OpenClipBase
    weights: Mapping[str, PackagedWeights]
    counts: Mapping[str, Any]
    scores: Mapping[str, Mapping[str, Any]]
    made_from: Mapping[str, str]
    images: Mapping[str, Any] | None
    release: Mapping[str, str] | None
    hub: str | None


def trained_on(
    manifest: Path, model: TrainedModel, plans: Mapping[tuple[str, str], Path], chips: Mapping[tuple[str, str], Path]
) -> dict[str, Any]:
    """Owners of the images that a model was trained on, how many are painted, their times and ground.

    `plans` and `chips` are `chip_plan` and `image_chips` folders by (region, source).

    Raises:
        CorruptInputError: an image of the manifest is not there.
        TooLittleDataError, OutputSchemaError: as `select_pairs` and `read_table` do.
    """
    pairs, _ = select_pairs(manifest, model, (), 2)
    found = []
    for region, source in sorted(plans.keys() & chips.keys()):
        mine = pc.and_(pc.equal(pairs["region"], region), pc.equal(pairs["source"], source))
        ids = pairs["chip_id"].filter(mine)
        plan = read_table(plans[region, source] / PLAN_FILE, PLAN_SCHEMA, _PLAN)
        cut = read_table(chips[region, source] / "chips.parquet", CHIP_SCHEMA, ["chip_id", *_CHIPS])
        found.append(joined(plan.filter(pc.is_in(plan["chip_id"], ids)), cut, "chip_id", _CHIPS))
    images = pa.concat_tables(found) if found else None
    if images is None or images.num_rows != len(pairs):
        raise CorruptInputError(
            f"{manifest}: {len(pairs):,} pairs were trained on, images of {images.num_rows if images else 0:,} are "
            "there; skyscript run image_chips training_manifest trained_checkpoint"
        )
    owners = images.group_by(["source", "attribution", "licence"]).aggregate([("chip_id", "count")])
    times, boxes = pc.min_max(images["datetime"]).as_py(), images["bbox"].combine_chunks()
    least, most = (
        {side: ask(boxes.field(side)).as_py() for side in ("xmin", "ymin", "xmax", "ymax")} for ask in (pc.min, pc.max)
    )
    shape = ground(least["xmin"], least["ymin"], most["xmax"], most["ymax"])
    return {
        "owners": [
            dict(zip(("source", "attribution", "licence", "images"), row.values(), strict=True))
            for row in owners.sort_by([("source", "ascending"), ("attribution", "ascending")]).to_pylist()
        ],
        "painted": pc.sum(images["synthetic"]).as_py(),
        "first": times["min"],
        "last": times["max"],
        "bbox": list(shape["bbox"].values()),
        "geometry": json.loads(shapely.to_geojson(shapely.from_wkb(shape["geometry"]))),
    }


def export_model(model: ClipModel, told: Leaving, out: Path) -> float | None:
    """Write a model as the new folder `out`, whole or not at all; returns what `write_transformers` does.

    Raises:
        SettingsError: nobody has stated the licence of the base.
        SkyScriptError: the licence of an image is unknown, or forbids it.
        StorageError, OutputBusyError: as `claimed` does.
    """
    licences, owners = _licences_of_base(told), told.images["owners"] if told.images else []
    for row in owners:
        check_licence(row)
    of_images = [*(row["licence"] for row in owners), OSM_LICENCE] if told.images else []
    with claimed(out) as folder:
        architecture = write_open_clip(model, told.base, told.hub, folder)
        differs = write_transformers(model, folder)
        write_json(folder / "scores.json", told.scores)
        if told.images:
            write_credits(folder, (tuple(row.values()) for row in owners))
        facts = {
            **vars(told),
            "architecture": architecture,
            "by_name": "hf_model_name" in (folder / "open_clip_config.json").read_text(encoding="utf-8"),
            "licences": licences,
            "licence": _on_the_hub([*licences.values(), *of_images]),
            "differs": differs,
            "recipe": told.settings.recipe.model_dump(mode="json"),
            "parameters": sum(parameter.numel() for parameter in model.network.parameters()),
            "side": model.image_size,
            "channels": [
                {"mean": 255 * mean, "std": 255 * std} for mean, std in zip(model.mean, model.std, strict=True)
            ],
            "pretrained": bool(licences),
            "dimension": model.encode_texts(["one"]).shape[1],
            "osm": OSM_ATTRIBUTION,
            "odbl": OSM_LICENCE,
        }
        write_text(folder / "LICENSE.md", rendered("model_licences.md", facts))
        write_text(folder / "README.md", rendered("model.md", facts))
        names = ("open_clip_model.safetensors", "scores.json", "LICENSE.md", "README.md")
        facts["files"] = {
            # A multihash: 12 is SHA-256, 20 its length, 32 bytes.
            name: {"checksum": "1220" + file_sha256(folder / name), "size": (folder / name).stat().st_size}
            for name in (*names, *(("model.safetensors",) if (folder / "model.safetensors").exists() else ()))
        }
        write_text(folder / "item.json", rendered("model.json", facts))
        write_sums(folder)
        for path in folder.glob("*.safetensors"):
            path.chmod(0o644)  # safetensors makes files that nobody else may read
    return differs


def _licences_of_base(told: Leaving) -> dict[str, str]:
    """Licence of each file of weights that the base is made from, by what models.yaml calls it; none of drawn ones."""
    stated: dict[str, str | None] = {}
    if isinstance(told.base, JointBase):
        stated = {f"weights.{name}": told.weights[name].licence for name in (told.base.image, told.base.text)}
    elif told.base.pretrained or told.base.url or told.base.name.startswith((HUB, LOCAL_DIR)):
        stated = {f"bases.{told.settings.base}": told.base.licence}
    for name, licence in stated.items():
        if licence is None or UNKNOWN.match(licence.strip()):
            raise SettingsError(
                f"models.yaml: nobody has stated the licence of {name}, so that what was trained from it cannot be "
                f"given away; write {name}.licence, as its publisher states it"
            )
    return {name: str(licence) for name, licence in stated.items()}


def _on_the_hub(licences: list[str]) -> str:
    """The one licence by its name on the hub; `other` where there are several or it has none there."""
    names = {licence.lower() for licence in licences}
    return names.pop() if len(names) == 1 and names <= {*HUB_LICENCES} else "other"
