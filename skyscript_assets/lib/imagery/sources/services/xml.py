"""Capabilities documents as plain elements, read so that they can do no harm.

A document is untrusted: entities and document types are refused, so nothing is expanded or fetched, and depth and
number of elements are bounded. Namespaces are dropped: services mix them, the local names are unambiguous.
"""

from __future__ import annotations

import xml.parsers.expat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from skyscript_assets.lib.errors import CorruptInputError

MAX_ELEMENTS = 2_000_000
MAX_DEPTH = 100


@dataclass
class Element:
    """An element: its local name, attributes by local name, text, and the elements in it."""

    name: str
    attributes: dict[str, str]
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self, *path: str) -> Iterator[Element]:
        """The elements at a path of local names below this one."""
        for child in self.children:
            if child.name == path[0]:
                if len(path) == 1:
                    yield child
                else:
                    yield from child.all(*path[1:])

    def first(self, *path: str) -> Element | None:
        """The first element at a path."""
        return next(self.all(*path), None)

    def value(self, *path: str) -> str:
        """The text of the first element at a path, stripped; empty where there is none."""
        found = self.first(*path)
        return found.text.strip() if found is not None else ""

    def below(self, name: str) -> Iterator[Element]:
        """Every element of a name below this one, at any depth."""
        for child in self.children:
            if child.name == name:
                yield child
            yield from child.below(name)


def parse_xml(data: bytes, where: str) -> Element:
    """Parse a document.

    Args:
        data: The document.
        where: Its address, for messages.

    Raises:
        CorruptInputError: it is no XML, declares a document type or entities, or is too large or too deep.
    """
    parser = xml.parsers.expat.ParserCreate(namespace_separator=" ")
    parser.SetParamEntityParsing(xml.parsers.expat.XML_PARAM_ENTITY_PARSING_NEVER)
    root = Element("", {})
    stack, count = [root], 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if count > MAX_ELEMENTS or len(stack) > MAX_DEPTH:
            raise CorruptInputError(f"{where} has too many or too deeply nested elements to be a list of capabilities")
        element = Element(_local(name), {_local(key): value for key, value in attributes.items()})
        stack[-1].children.append(element)
        stack.append(element)

    def end(name: str) -> None:  # noqa: ARG001
        stack.pop()

    def text(characters: str) -> None:
        stack[-1].text += characters

    def refuse(*_: object) -> Any:
        raise CorruptInputError(
            f"{where} declares entities, which are not read: they could stand for other files or for endless text; ask "
            "the service's operator for capabilities without them"
        )

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    parser.EntityDeclHandler = parser.UnparsedEntityDeclHandler = parser.ExternalEntityRefHandler = refuse
    try:
        parser.Parse(data, True)  # noqa: FBT003 - expat takes no names
    except xml.parsers.expat.ExpatError as error:
        raise CorruptInputError(f"{where} is no XML ({error}); correct url in sources.yaml") from error
    return root


def _local(name: str) -> str:
    return name.rpartition(" ")[2]
