"""What every settings model builds on: strict models, types of keys, captions, boxes, the reading of one YAML file."""

import datetime as dt
import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from skyscript_assets.lib.errors import SettingsError
from skyscript_assets.lib.files import is_name
from skyscript_assets.lib.geometry import TURNS, Bounds, across_180, holds_ground


def _is_name(text: str) -> str:
    if not is_name(text):
        raise ValueError("it becomes a folder's name: letters, digits, _, - and single dots; a letter or digit first")
    return text


def _by_word(lists: Mapping[str, Iterable[str]]) -> dict[str, str]:
    return {word: name for name, words in lists.items() for word in words}


ByWord = Annotated[dict[str, str], BeforeValidator(_by_word)]
"""Names by the words that a file lists behind each."""
Name = Annotated[str, StringConstraints(max_length=64), AfterValidator(_is_name)]
"""What becomes the name of a folder: the one rule that all keys keep."""
RegionKey = Annotated[Name, StringConstraints(pattern=r"^[a-z0-9_-]+$")]
SourceKey = Annotated[Name, StringConstraints(pattern=r"^[A-Za-z0-9-]+$", max_length=32)]
ModelKey = Name
BenchmarkKey = RegionKey
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
WebAddress = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+")]
EnvironmentVariable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Host = Annotated[str, StringConstraints(pattern=r"^(\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:.]*:[0-9a-f:.]*)$")]
_PRIVATE_HOSTS = "Further hosts in private networks that servers may lead to; a leading dot covers subdomains."
HostNames = Annotated[tuple[Host, ...], Field(description=_PRIVATE_HOSTS)]
Level = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Level, Level, Level]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Month = Annotated[int, Field(ge=1, le=12)]
_STYLES_FILE = Path(__file__).resolve().parents[2] / "settings" / "caption_styles.yaml"
SENTENCES: Mapping[str, tuple[str, ...]] = yaml.safe_load(_STYLES_FILE.read_text(encoding="utf-8"))
"""Styles in sentences, and the templates of each; `lib.captions.sentences` fills them."""
STYLES = ("title", "title_multi_objects", *SENTENCES)
"""Names of caption styles, which are columns of tables: the paper's two (`lib.captions.compose`), and sentences."""


def _is_style(name: str) -> str:
    if name not in STYLES:
        raise ValueError(f"styles of captions are {', '.join(STYLES)}")
    return name


CaptionStyle = Annotated[str, AfterValidator(_is_style)]
Crop = Literal["focus", "anywhere"]
"""Whether views of a chip keep what its caption is about in sight, or are taken of the middle and anywhere (paper)."""
CaptionPolicy = Literal["ours", "paper"]
"""Which tags captions may say: those that we let through, or those of SkyScript's authors too."""
CAPTION_PREFIX = "a satellite image of "
"""Put before a caption, as in the data that SkyScript released."""
GSD_STEPS_M: tuple[float, ...] = (0.1, 0.2, 0.6, 1.0, 10.0, 30.0)
"""Coarsest ground sample distances in metres that stage II tells apart: the paper's five and Landsat's 30 m."""


class Model(BaseModel):
    """Base of every settings model: frozen, and strict about keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


M = TypeVar("M", bound=Model)


class CaptionText(Model):
    """A caption as it is given to a model."""

    column: CaptionStyle = Field("title", description="Style of the caption.")
    prefix: str = Field(CAPTION_PREFIX, description="Put before the caption, as in the released data.")


class BBox(Model):
    """A box in degrees, EPSG:4326; with west > east it lies across the antimeridian."""

    west: float = Field(ge=-180, le=180, description="Western edge, degrees east.")
    south: float = Field(ge=-90, le=90, description="Southern edge, degrees north.")
    east: float = Field(ge=-180, le=180, description="Eastern edge, degrees east.")
    north: float = Field(ge=-90, le=90, description="Northern edge, degrees north.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not holds_ground(self.bounds):
            raise ValueError(
                "a box needs west < east (across 180 degrees west > east, less than 180 wide), south < north"
            )
        return self

    @property
    def bounds(self) -> Bounds:
        """(west, south, east, north) in degrees; across the antimeridian east is beyond 180."""
        return across_180(self.west, self.south, self.east, self.north)

    def intersects(self, other: Self) -> bool:
        """Whether the two boxes share any ground."""
        one, two = self.bounds, other.bounds
        across = any(one[0] < two[2] + turn and two[0] + turn < one[2] for turn in TURNS)
        return across and one[1] < two[3] and two[1] < one[3]


class Shared(Model):
    """What all parts of a profile share, and all that a stage knows of it beside what is its own.

    Attributes:
        folder: Where the profile's files were read; relative paths in them start there.
        zoom: Zoom of the Web Mercator tiles that the split never divides.
        geofabrik_mirror: Address that names at Geofabrik start at.
        boxes: Box that each region states, None where one states none.
    """

    folder: Path
    zoom: int
    geofabrik_mirror: str
    boxes: tuple[BBox | None, ...]

    def resolve(self, path: str) -> Path:
        """A path of the settings as an absolute one: `~` is expanded, relative paths start at the profile's folder."""
        return (self.folder / Path(path).expanduser()).resolve()


def read_yaml(path: Path, model: type[M]) -> M:
    """Read one YAML file beside the profile's own, such as the caption rules.

    Raises:
        SettingsError: the file is missing or wrong; every mistake is named with its key.
    """
    problems: list[str] = []
    found = _read(path, model, problems)
    if found is None:
        raise SettingsError(_report(path.parent, problems))
    return found


def _report(folder: Path, problems: list[str]) -> str:
    noun = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return "\n".join([f"the settings in {folder} have {noun}:", *(f"  - {problem}" for problem in problems)])


def _read(path: Path, model: type[M], problems: list[str]) -> M | None:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(f"{path.name}: the file is missing")
        return None
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path.name}: cannot be read ({error})")
        return None
    except yaml.YAMLError as error:
        problems.append(f"{path.name}: is not YAML: {' '.join(str(error).split())}")
        return None
    try:
        return model.model_validate({} if raw is None else raw)
    except ValidationError as error:
        problems.extend(f"{path.name}: {_explain(e, model)}" for e in error.errors())
        return None


def _explain(error: Any, file: type[Model]) -> str:
    """One line on one mistake in a file: key, what was found, what is allowed."""
    key = ".".join(str(part) for part in error["loc"]) or "(top)"
    found = repr(error["input"])
    found = found if len(found) <= 80 else found[:77] + "..."
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key (found {found}){_hint(str(error['loc'][-1]), file)}"
    if error["type"] == "missing":
        return f"{key}: this key is required and was not given"
    return f"{key}: {error['msg']} (found {found})"


def _hint(name: str, file: type[Model]) -> str:
    """Where an unknown key of a file belongs, or which known one it may be meant for."""
    models = {section: field.annotation for section, field in file.model_fields.items()}
    known = [section for section, model in models.items() if name in getattr(model, "model_fields", ())]
    if known:
        return f"; it belongs under {' or '.join(known)}"
    close = difflib.get_close_matches(name, sorted(_field_names(Model)), n=1)
    return f"; did you mean {close[0]!r}?" if close and close[0] != name else ""


def _field_names(model: type[Model]) -> set[str]:
    """Names of all fields of a model and of those that derive from it."""
    return set(model.model_fields).union(*map(_field_names, model.__subclasses__()))


UNSEEN = object()
"""Marks a field, `Annotated[float, UNSEEN]`, by which work is done or shown, and that changes nothing in the output."""


def seen(value: Any) -> Any:
    """What of a stage's config shapes its output, as JSON values: models without their `UNSEEN` fields."""
    match value:
        case BaseModel():
            fields = type(value).model_fields
            return {name: seen(getattr(value, name)) for name, field in fields.items() if UNSEEN not in field.metadata}
        case Mapping():
            return {str(key): seen(inner) for key, inner in value.items()}
        case list() | tuple():
            return [seen(inner) for inner in value]
        case Path() | dt.date():
            return str(value)
        case _:
            return value
