"""A profile, whole: the one function that reads its files, and the names that they use of each other."""

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from skyscript_assets.lib.errors import SettingsError
from skyscript_assets.lib.files import file_sha256
from skyscript_assets.lib.settings.base import UNSEEN, Model, Shared, _read, _report
from skyscript_assets.lib.settings.benchmarks import BenchmarksFile
from skyscript_assets.lib.settings.models import Base, JointBase, ModelsFile, PackagedWeights, Scorer, TrainedModel
from skyscript_assets.lib.settings.plant import PlantSettings
from skyscript_assets.lib.settings.regions import GEOFABRIK, Region, RegionsFile
from skyscript_assets.lib.settings.sources import Source, SourcesFile


class Settings(Model):
    """One profile, whole. `folder` is where its files were read; relative paths in them start there."""

    folder: Path
    plant: PlantSettings
    regions: dict[str, Region]
    geofabrik_mirror: str = GEOFABRIK
    sources: dict[str, Source]
    weights: dict[str, PackagedWeights]
    bases: dict[str, Base]
    scorers: dict[str, Scorer] = Field(default_factory=dict)
    models: dict[str, TrainedModel]
    benchmarks: BenchmarksFile

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        problems = [
            f"{where}: {name!r} is not defined; defined are {', '.join(sorted(known)) or 'none'}"
            for where, name, known in _references(self)
            if name not in known
        ]
        # Some file systems would give them one folder.
        problems += [
            f"{section}: several keys differ from {key!r} in capitals alone; rename all but one"
            for section in ("sources", "weights", "bases", "models")
            for key, count in Counter(map(str.lower, getattr(self, section))).items()
            if count > 1
        ]
        both = sorted(self.bases.keys() & self.scorers.keys())
        problems += [f"models.yaml: {key!r} stands under bases and under scorers; rename one" for key in both]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def shared(self) -> Shared:
        """What all parts of the profile share."""
        return Shared(
            folder=self.folder,
            zoom=self.plant.split.zoom,
            geofabrik_mirror=self.geofabrik_mirror,
            boxes=tuple(region.bbox for region in self.regions.values()),
        )


def _references(settings: Settings) -> Iterator[tuple[str, str, Collection[str]]]:
    """Every name that one part of a profile uses of another: where it stands, the name, the names there are."""
    bases, sources, benchmarks = settings.bases, settings.sources, settings.benchmarks.benchmarks
    yield from _references_of_plant(settings)
    for key, base in bases.items():
        if isinstance(base, JointBase):
            yield f"models.yaml: bases.{key}.image", base.image, settings.weights
            yield f"models.yaml: bases.{key}.text", base.text, settings.weights
    for key, model in settings.models.items():
        yield f"models.yaml: models.{key}.base", model.base, bases
        for what, known in (("sources", sources), ("regions", settings.regions), ("benchmarks", benchmarks)):
            for name in getattr(model, what) or ():
                yield f"models.yaml: models.{key}.{what}", name, known
    for key, benchmark in benchmarks.items():
        for source in benchmark.cut_from:
            yield f"benchmarks.yaml: benchmarks.{key}.sources", source, sources
    for key, name in ((key, name) for key, mean in settings.benchmarks.means.items() for name in mean.benchmarks):
        yield f"benchmarks.yaml: means.{key}.benchmarks", name, benchmarks
    groups = {model.group or key for key, model in settings.models.items()}
    for i, comparison in enumerate(settings.benchmarks.comparisons):
        yield f"benchmarks.yaml: comparisons.{i}.benchmark", comparison.benchmark, benchmarks
        yield f"benchmarks.yaml: comparisons.{i}.group", comparison.group, groups
        yield f"benchmarks.yaml: comparisons.{i}.against", comparison.against, groups


def _references_of_plant(settings: Settings) -> Iterator[tuple[str, str, Collection[str]]]:
    plant, bases = settings.plant, settings.bases
    yield "plant.yaml: scores.scorer", plant.scores.scorer, bases
    for name in plant.scores.further_scorers:
        yield "plant.yaml: scores.further_scorers", name, {**bases, **settings.scorers}
    yield "plant.yaml: tags.encoder", plant.tags.encoder, {**settings.weights, **bases}


PACKAGED_PROFILES = Path(__file__).resolve().parents[2] / "settings"
"""Folder of the packaged profiles and of the label and rule files they share."""


class GivenFile(Model):
    """A file that people wrote: what is in it counts, not where it lies."""

    path: Annotated[Path, UNSEEN]
    sha256: str

    @classmethod
    def of(cls, settings: Settings, key: str, name: str) -> Self:
        """The file that a key of plant.yaml names: the profile's own of that name or path, else the packaged one.

        Raises:
            SettingsError: neither exists.
        """
        for path in (settings.shared.resolve(name), PACKAGED_PROFILES / name):
            if path.is_file():
                return cls(path=path, sha256=file_sha256(path))
        where = f"found neither in {settings.folder} nor among the packaged files"
        raise SettingsError(f"plant.yaml: {key}: {name}: {where}; name a file that is there")


def load_settings(folder: Path) -> Settings:
    """Read a profile from its folder.

    Raises:
        SettingsError: the folder or a file is missing, is not YAML, or breaks a model; the message lists every problem
            with its file, key, what was found and what is allowed.
    """
    if not folder.is_dir():
        raise SettingsError(f"settings folder {folder} does not exist; set SKYSCRIPT_SETTINGS to a profile's folder")
    problems: list[str] = []
    plant = _read(folder / "plant.yaml", PlantSettings, problems)
    regions = _read(folder / "regions.yaml", RegionsFile, problems)
    sources = _read(folder / "sources.yaml", SourcesFile, problems)
    models = _read(folder / "models.yaml", ModelsFile, problems)
    benchmarks = _read(folder / "benchmarks.yaml", BenchmarksFile, problems)
    if plant is None or regions is None or sources is None or models is None or benchmarks is None:
        raise SettingsError(_report(folder, problems))
    try:
        # Regions, sources and models are told by the same names in their files and in the whole.
        parts = {**dict(regions), **dict(sources), **dict(models)}
        return Settings(folder=folder.resolve(), plant=plant, benchmarks=benchmarks, **parts)
    except ValidationError as error:
        problems = [line for e in error.errors() for line in str(e["ctx"]["error"]).splitlines()]
        raise SettingsError(_report(folder, problems)) from None
