"""What is a secret in an address or a text, and how both are shown in messages, logs and tables.

Everything that a server sent, and every address, passes through here before it is shown or stored.
"""

import re
from urllib.parse import parse_qsl, quote, urlsplit

KEY_PLACE = "{api_key}"
"""Where an address has a service's key: it is filled in at the last moment, so that no other text ever holds it."""

_NAME = r"[\w-]*(?:token|secret|password|passwd|signature|api[_-]?key|access[_-]?key)|authorization|sig"
"""Names of parameters and headers that hold secrets."""

_PARAMETER = re.compile(rf"(?i)(?:{_NAME}|(?:[\w-]*[_-])?key)")
_ADDRESS = re.compile(r"([\w.+-]+://)(?:[^/?#]*@)?([^?#]*)")
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
_QUERY = re.compile(r"(\w://[^\s?#'\")]*)[?#][^\s'\")]*")
_NAMED = re.compile(rf"(?i)\b((?:{_NAME})['\"]?\s*[=:]\s*)(?:(?:bearer|basic)\s+)?[^\s&,;]+")


def shown(address: str) -> str:
    """An address or path as it is shown: without query, fragment and credentials."""
    found = _ADDRESS.match(address)
    return found[1] + found[2] if found else address.partition("?")[0]


def holds_secret(address: str) -> bool:
    """Whether an address has credentials, or a parameter whose name says that its value is a secret."""
    parts = urlsplit(address)
    named = (value for name, value in parse_qsl(parts.query) if _PARAMETER.fullmatch(name))
    return "@" in parts.netloc or any(value != KEY_PLACE for value in named)


def without_secrets(address: str) -> str:
    """An address fit for a table: one that holds a secret loses its query, as such addresses are signed and expire."""
    return shown(address) if holds_secret(address) else address


def with_place(text: str, secret: str) -> str:
    """A text with `KEY_PLACE` where it has a secret that is known, plain or as a part of an address."""
    for form in filter(None, (secret, quote(secret, safe=""))):
        text = text.replace(form, KEY_PLACE)
    return text


def told(text: str, length: int) -> str:
    """What somebody else said, fit to be shown: one printable line, bounded, without the secrets of addresses."""
    text = "".join(letter if letter.isprintable() else " " if letter.isspace() else "" for letter in text)
    text = " ".join(text.split())
    for pattern, kept in ((_CREDENTIALS, ""), (_QUERY, r"\1"), (_NAMED, r"\1***")):
        text = pattern.sub(kept, text)
    return text if len(text) <= length else text[: length - 1] + "…"
