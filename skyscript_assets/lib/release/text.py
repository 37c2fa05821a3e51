"""Text of others where it is shown, in Markdown that becomes HTML; the Parquet files hold it as it is."""

import re

from skyscript_assets.lib.tags.text import clean_value

_SYNTAX = re.compile(r"[!\"#$&*<>@\[\\\]^`{|}~]|(?<![^\W_])_|_(?![^\W_])|(?<=[a-z]):(?=//)|(?<=www)\.", re.IGNORECASE)
"""What Markdown, HTML, formulas, mentions and links that are found by themselves are made of."""


def plain(text: str, most: int = 120) -> str:
    """A text on one line, without signs that are not seen or turn the direction of others, at most so long."""
    cleaned = clean_value(text, most + 1)
    return cleaned if len(cleaned) <= most else cleaned[: most - 1].rstrip() + "…"


def markdown(text: str, most: int = 120) -> str:
    """A text inside a paragraph or a cell of Markdown: nothing in it is syntax of Markdown or HTML."""
    return _SYNTAX.sub(lambda found: f"&#{ord(found[0])};", plain(text, most))
