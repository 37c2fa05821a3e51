import pytest

from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.imagery.sources.services import xml
from skyscript_assets.lib.imagery.sources.services.xml import parse_xml, text_at


def test_elements_are_found_by_their_local_names() -> None:
    root = parse_xml(
        b'<a xmlns:o="urn:o"><o:b c="1" o:d="2">x<e/>y</o:b><o:b><e>  z </e></o:b><f><b><e>q</e></b></f></a>', "here"
    )
    first, second = root.iterfind("b")
    assert (first.text, first.attrib) == ("x", {"c": "1", "d": "2"})
    assert text_at(second, "e") == "z"
    assert text_at(root, "nothing") == ""
    assert root.find("g") is None
    assert [text_at(element) for element in root.iter("e")] == ["", "z", "q"]


@pytest.mark.parametrize(
    "document",
    [
        b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
        b'<!DOCTYPE a [<!ENTITY % b SYSTEM "http://127.0.0.1/x.dtd"> %b;]><a/>',
        b'<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;&b;&b;">]><a>&c;</a>',
    ],
)
def test_entities_are_refused_before_they_are_used(document: bytes) -> None:
    with pytest.raises(CorruptInputError, match="here declares entities"):
        parse_xml(document, "here")


def test_an_older_document_may_name_its_type() -> None:
    """WMS 1.1.1 documents do, and nothing of it is fetched."""
    document = b'<!DOCTYPE a SYSTEM "http://schemas.example.org/a.dtd"><a><b>c</b></a>'
    assert text_at(parse_xml(document, "here"), "b") == "c"


@pytest.mark.parametrize("document", [b"", b"{}", b"<a>", b"<a></b>", b"\x00\x01", b"<a>&undefined;</a>"])
def test_what_is_no_xml_is_refused(document: bytes) -> None:
    with pytest.raises(CorruptInputError, match="here is no XML"):
        parse_xml(document, "here")


def test_depth_and_number_of_elements_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CorruptInputError, match="too deeply nested"):
        parse_xml(b"<a>" * 101 + b"</a>" * 101, "here")
    monkeypatch.setattr(xml, "MAX_ELEMENTS", 10)
    with pytest.raises(CorruptInputError, match="too many"):
        parse_xml(b"<a>" + b"<b/>" * 11 + b"</a>", "here")
