"""Capabilities documents as elements by their local names, read so that they can do no harm.

A document is untrusted: entities are refused, so nothing is expanded or fetched, and depth and number of elements are
bounded. Namespaces are dropped: services mix them, the local names are unambiguous.
"""

from xml.etree.ElementTree import Element, TreeBuilder

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser, ParseError

from skyscript_assets.lib.errors import CorruptInputError

MAX_ELEMENTS = 2_000_000
MAX_DEPTH = 100


class _Builder(TreeBuilder):
    def __init__(self, where: str) -> None:
        super().__init__()
        self._where, self._count, self._depth = where, 0, 0

    def start(self, name: str, attributes: dict[str, str], /) -> Element:
        self._count, self._depth = self._count + 1, self._depth + 1
        if self._count > MAX_ELEMENTS or self._depth > MAX_DEPTH:
            raise CorruptInputError(
                f"{self._where} has too many or too deeply nested elements to be a list of capabilities"
            )
        return super().start(_local(name), {_local(key): value for key, value in attributes.items()})

    def end(self, name: str, /) -> Element:
        self._depth -= 1
        return super().end(_local(name))


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def parse_xml(data: bytes, where: str) -> Element:
    """Parse a document; `where` is its address, for messages.

    Raises:
        CorruptInputError: it is no XML, declares entities, or is too large or too deep.
    """
    parser = DefusedXMLParser(target=_Builder(where))
    try:
        parser.feed(data)
        root: Element = parser.close()
    except DefusedXmlException as error:
        raise CorruptInputError(
            f"{where} declares entities, which are not read: they could stand for other files or for endless text; ask "
            "the service's operator for capabilities without them"
        ) from error
    except ParseError as error:
        raise CorruptInputError(f"{where} is no XML ({error}); correct url in sources.yaml") from error
    return root


def text_at(element: Element, path: str = ".") -> str:
    """The text of the first element at a path of local names, stripped; empty where there is none."""
    return (element.findtext(path) or "").strip()
