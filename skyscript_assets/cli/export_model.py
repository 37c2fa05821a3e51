"""`skyscript export-model`: a trained model as a folder that others' tools read."""

import re
from pathlib import Path

import click
from rich.markup import escape

from skyscript_assets.assets import STAGES
from skyscript_assets.cli.models import load
from skyscript_assets.cli.shared import console, every_output, pair_folders
from skyscript_assets.lib.benchmarks.items import SCORES_FILE, Scores, read_model
from skyscript_assets.lib.errors import SettingsError, SkyScriptError
from skyscript_assets.lib.files import file_sha256
from skyscript_assets.lib.release.data import SUMS_FILE
from skyscript_assets.lib.settings.models import LOCAL_DIR, AlignRecipe, ClipRecipe, JointBase
from skyscript_assets.lib.storage import OutputRecord
from skyscript_assets.partitions import Partition, Scheme, partitions_of
from skyscript_assets.provenance import Outputs, State


def _name_on_hub(_: click.Context, __: click.Parameter, given: str | None) -> str | None:
    if given is not None and not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", given):
        raise click.BadParameter(f"{given!r} is no ORG/NAME")
    return given


@click.command("export-model")
@click.argument("name")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--hub", callback=_name_on_hub, metavar="ORG/NAME", help="Name that the folder will have on the hub.")
def export_model(name: str, out: Path, hub: str | None) -> None:
    """Write the trained model NAME into the new folder OUT.

    It holds the whole weights for open_clip (local-dir:OUT), the same for transformers where its CLIPModel can hold
    them, a model card, scores, licences, a STAC item and digests.
    """
    from skyscript_assets.lib.towers.weights import weights_file
    from skyscript_assets.lib.training.export import Leaving, trained_on
    from skyscript_assets.lib.training.export import export_model as write

    outputs = every_output()
    settings, store = outputs.settings, outputs.store
    if name not in settings.models:
        raise SettingsError(f"models.yaml has no model {name}: it has {', '.join(settings.models)}")
    model, own = load(name, None, outputs), settings.models[name]
    record = _current(outputs, "trained_checkpoint", (name,))
    if record is None:
        raise SkyScriptError(
            f"{name} was trained on other pairs or by other settings than are here now, so nothing tells what it is "
            f"made from: skyscript run trained_checkpoint/{name}"
        )
    base, images = settings.bases[own.base], None
    if not isinstance(base, JointBase) and base.name.startswith(LOCAL_DIR):
        folder = weights_file(base, settings.shared, store.cache("weights"))
        base = base.model_copy(update={"name": f"{LOCAL_DIR}{folder}"})
    made_from = {"trained_checkpoint, model.safetensors": record.files["model.safetensors"][1]}
    release = None
    if isinstance(own.recipe, AlignRecipe | ClipRecipe):
        manifest = store.folder(STAGES["training_manifest"].key(settings, ())) / "manifest.parquet"
        images = trained_on(manifest, own, *(pair_folders(outputs, stage) for stage in ("chip_plan", "image_chips")))
        made_from["training_manifest, manifest.parquet"] = file_sha256(manifest)
        released = _current(outputs, "dataset_release", ())
        if settings.plant.release is not None and released is not None and released.counts["pairs"]:
            release = {"name": settings.plant.release.name, "version": settings.plant.release.version}
            made_from[f"dataset_release, {SUMS_FILE}"] = released.files[SUMS_FILE][1]
    scores = {}
    for key in partitions_of(Scheme.BENCHMARK_MODEL, settings):
        scored = _current(outputs, "benchmark_scores", key) if key[1] == name else None
        if scored is not None:
            path = store.folder(STAGES["benchmark_scores"].key(settings, key)) / SCORES_FILE
            scores[key[0]] = read_model(path, Scores).model_dump(mode="json")
            made_from[f"benchmark_scores/{key[0]}, {SCORES_FILE}"] = scored.files[SCORES_FILE][1]
    told = Leaving(name, own, base, settings.weights, record.counts, scores, made_from, images, release, hub)
    differs = write(model, told, out)
    console.print(
        f"{escape(own.title)} in {escape(str(out))}, with scores on {', '.join(scores) or 'no benchmark yet'}"
    )
    if differs is None:
        console.print("not for transformers: its CLIPModel has no place for all parts of this architecture")


def _current(outputs: Outputs, stage: str, partition: Partition) -> OutputRecord | None:
    """The record of an output that is made from what is here now."""
    if outputs.state(STAGES[stage], partition) is not State.CURRENT:
        return None
    return outputs.record(STAGES[stage].key(outputs.settings, partition))
