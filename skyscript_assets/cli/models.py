"""`skyscript evaluate`, `skyscript classify`: any model on a benchmark or on a folder of images, without training."""

import json
import tempfile
from pathlib import Path

import click
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from skyscript_assets.assets import STAGES
from skyscript_assets.cli.shared import console, every_output, progress_bar
from skyscript_assets.lib.errors import SettingsError, SkyScriptError
from skyscript_assets.lib.settings.benchmarks import PROMPTS, TRACKS, Track
from skyscript_assets.lib.settings.models import HUB, LOCAL_DIR, Base, OpenClipBase
from skyscript_assets.lib.towers.model import ClipModel
from skyscript_assets.provenance import Outputs

MODEL = click.option(
    "--model",
    "model",
    required=True,
    metavar="NAME",
    help="A model or base of models.yaml; or ARCHITECTURE:TAG, ARCHITECTURE:FILE, hf-hub:ORG/NAME, local-dir:FOLDER.",
)
ACTIVATION = click.option(
    "--activation", type=click.Choice(["gelu", "quick_gelu"]), help="What weights of a FILE were trained with."
)


def load(name: str, activation: str | None, outputs: Outputs) -> ClipModel:
    """A model by its name on the command line.

    Raises:
        SettingsError: it is none, or a control that looks at no image.
        SkyScriptError: it was not trained yet; and what loading raises.
    """
    from skyscript_assets.lib.towers.bases import load_base
    from skyscript_assets.lib.towers.weights import weights_file
    from skyscript_assets.lib.training.checkpoint import load_checkpoint

    settings = outputs.settings
    model = settings.models.get(name)
    base: Base = settings.bases[model.base] if model else settings.bases.get(name) or _open_clip(name, activation)
    file = weights_file(base, settings.shared, outputs.store.cache("weights"))
    if model is None:
        return load_base(base, settings.weights, 0, file)
    if model.recipe.kind in ("metadata-only", "linear-probe"):
        raise SettingsError(f"models.yaml: {name} is the control {model.recipe.kind}, which is no model of its own")
    key = STAGES["trained_checkpoint"].key(settings, (name,))
    if outputs.head(key) is None:
        raise SkyScriptError(f"{name} is not trained yet: skyscript run trained_checkpoint/{name}")
    return load_checkpoint(outputs.store.folder(key), base, settings.weights, file)


def _open_clip(name: str, activation: str | None) -> OpenClipBase:
    architecture, _, pretrained = (name, "", "") if name.startswith((HUB, LOCAL_DIR)) else name.partition(":")
    stated = {"name": architecture, "pretrained": pretrained or None, "activation": activation}
    try:
        return OpenClipBase.model_validate(stated)
    except ValidationError as error:
        raise SettingsError(f"--model {name}: {error.errors()[0]['msg']}") from None


@click.command()
@MODEL
@ACTIVATION
@click.option("--benchmark", "benchmarks", multiple=True, required=True, help="Of benchmarks.yaml; may be repeated.")
@click.option("--track", type=click.Choice(TRACKS), default="plain", show_default=True, help="Two do not compare.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")
def evaluate(model: str, activation: str | None, benchmarks: tuple[str, ...], track: Track, *, as_json: bool) -> None:
    """Score a model on benchmarks whose data is there (skyscript run benchmark_data/NAME), as the scoreboard does."""
    from skyscript_assets.lib.benchmarks.evaluate import evaluate as score

    outputs = every_output()
    keys = {name: STAGES["benchmark_data"].key(outputs.settings, (name,)) for name in benchmarks}
    for name, key in keys.items():
        if name not in outputs.settings.benchmarks.benchmarks:
            raise SettingsError(
                f"benchmarks.yaml has no {name}: it has {', '.join(outputs.settings.benchmarks.benchmarks)}"
            )
        if outputs.head(key) is None:
            raise SkyScriptError(f"the data of {name} is not there: skyscript run benchmark_data/{name}")
    encoder = load(model, activation, outputs)
    cache, samples = outputs.store.cache("benchmark_features"), outputs.settings.benchmarks.bootstrap
    with tempfile.TemporaryDirectory() as out, progress_bar() as progress:
        found = {}
        for name, key in keys.items():
            how = (cache, samples, Path(out), progress, track, outputs.settings.benchmarks.benchmarks[name].ensemble)
            found[name] = score(name, outputs.store.folder(key), encoder, "none", *how)
    if as_json:
        click.echo(json.dumps({name: scores.model_dump(mode="json") for name, scores in found.items()}, indent=1))
        return
    table = Table("benchmark", "figure", "value", "95 %")
    for name, scores in found.items():
        for figure, one in scores.figures.items():
            between = f"{one.low:.3f} to {one.high:.3f}" if one.low is not None and one.high is not None else ""
            table.add_row(name, figure, "-" if one.value is None else f"{one.value:.3f}", between)
    console.print(table)
    console.print(f"{escape(model)}, track {track}; {escape('; '.join(scores.title for scores in found.values()))}")
    for name, scores in found.items():
        if scores.without_images:
            console.print(f"{name}: no test image shows {escape(', '.join(scores.without_images))}")


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@MODEL
@ACTIVATION
@click.option("--class", "classes", multiple=True, required=True, help="Words of a class; at least two of them.")
@click.option("--prompt", "prompts", multiple=True, default=PROMPTS, show_default=True, help="Text with {c} in it.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default="classes.csv", show_default=True)
def classify(
    folder: Path, model: str, activation: str | None, classes: tuple[str, ...], prompts: tuple[str, ...], out: Path
) -> None:
    """Say which class each image below FOLDER looks most like, and write the similarities to a CSV."""
    from skyscript_assets.lib.benchmarks.classify import classify_folder

    if len(set(classes)) < max(2, len(classes)) or not all("{c}" in prompt for prompt in prompts):
        raise click.UsageError("name two --class or more, none twice; each --prompt has {c} where the class goes")
    encoder = load(model, activation, every_output())
    with progress_bar() as progress:
        found = classify_folder(folder, encoder, classes, prompts, out, progress)
    for name, n in found.counts.most_common():
        console.print(f"{n:>8,}  {escape(name)}")
    for path, why in list(found.unread.items())[:5]:
        console.print(f"not read: {escape(why if path in why else f'{path}: {why}')}")
    told = f", {len(found.unread):,} not read" if found.unread else ""
    console.print(f"{found.counts.total():,} images in {escape(str(out))}{told}")
