"""Kinds that settings name as `kind`: the model of each comes from the package that registers the kind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BeforeValidator, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from skyscript_assets.lib import plugins
from skyscript_assets.lib.errors import SettingsError
from skyscript_assets.lib.settings.base import Model, Shared, seen

S = TypeVar("S", bound=Model)


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[S]):
    """What every kind tells of itself, whatever it is a kind of.

    Attributes:
        settings: Model of its settings, with a field `kind: Literal[...]` that is the name of its entry point.
        version: Raised when equal settings would give other content; only what is of this kind becomes stale by it.
        reads: What else shapes the content, as JSON values by name: stamps of files, other parts of the profile.
    """

    settings: type[S]
    version: str = "1"
    reads: Callable[[S, Shared], dict[str, Any]] = lambda _described, _shared: {}

    def depends_on(self, described: S, shared: Shared) -> dict[str, Any]:
        """What the content depends on beside inputs and code of the stage: a change makes it stale.

        Fields of the settings that are marked `UNSEEN` change nothing in it, such as how it is reached.
        """
        return {"settings": seen(described), "version": self.version, **self.reads(described, shared)}


def of_kind(group: str, base: type[Model]) -> BeforeValidator:
    """Validates a mapping by the model of the kind that it names, which derives from `base`; an instance passes."""

    def validate(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        plugins.registered(group)
        problem: str | PydanticCustomError = "missing"
        if "kind" in value:
            try:
                kind = plugins.load(group, str(value["kind"]))
                if isinstance(kind, Kind):
                    return kind.settings.model_validate(value)
                problem = PydanticCustomError("kind", "what is registered as it is no kind")
            except SettingsError as error:
                problem = PydanticCustomError("kind", "{reason}", {"reason": str(error)})
        details = InitErrorDetails(type=problem, loc=("kind",), input=value.get("kind", value))
        raise ValidationError.from_exception_data(base.__name__, [details])

    return BeforeValidator(validate)
