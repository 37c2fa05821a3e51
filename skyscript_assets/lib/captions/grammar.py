"""What things, numbers, sides and shares are called in sentences, by `settings/caption_grammar.yaml`."""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, Field

from skyscript_assets.lib.captions.rules import Words
from skyscript_assets.lib.settings.base import Model, read_yaml
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES

GRAMMAR_FILE = PACKAGED_PROFILES / "caption_grammar.yaml"

MOST_BEFORE = 2
"""Adjectives of a noun at most."""

_AN = re.compile(r"(?!uni|use|eu|one)[aeiou]")
_ES = re.compile(r"(s|x|ch|sh)$")

Kind = Literal["counted", "things", "lines", "grounds"]
Tag = tuple[str, str]


class Name(Model):
    """What a thing is called: `noun` may give its plural after `|`; `inside` and `cover` are said of areas of it."""

    noun: Words
    inside: Words | None = None
    cover: Words | None = None
    beside: bool = False


def _named(given: object) -> object:
    return {"noun": given} if isinstance(given, str) else given


Names = dict[str, Annotated[Name, BeforeValidator(_named)]]


class Noun(NamedTuple):
    """The name of a kind of thing.

    Attributes:
        tag: The tag that gives it.
        kind: How things of it may be told of.
        one: Singular.
        many: Plural.
        inside: What is said of a thing in such an area: "in a wood".
        cover: What such areas cover the image with: "woodland".
        beside: Whether other things are said to lie beside it.
    """

    tag: Tag
    kind: Kind
    one: str
    many: str
    inside: str | None
    cover: str | None
    beside: bool


class Grammar(Model):
    """Words of sentences: keys of names are tags, `key=value`, with blanks between."""

    counted: Names
    buildings: Names
    things: Names
    lines: Names
    grounds: Names
    before: tuple[dict[str, Words], ...]
    after: tuple[dict[str, Words], ...]
    numbers: tuple[Words, ...] = Field(min_length=1)
    many: Words
    shares: dict[float, Words]
    positions: dict[str, Words]

    @functools.cached_property
    def _nouns(self) -> Mapping[Tag, Sequence[tuple[frozenset[Tag], Noun]]]:
        """Names by their first tag, each with all its tags."""
        found: dict[Tag, list[tuple[frozenset[Tag], Noun]]] = {}
        groups: tuple[tuple[Kind, Names], ...] = (
            ("counted", self.counted),
            ("things", self.things),
            ("lines", self.lines),
            ("grounds", self.grounds),
            ("counted", self.buildings),
        )
        for kind, names in groups:
            for tags, name in names.items():
                wanted = [_tag(each) for each in tags.split()]
                one, _, many = name.noun.partition("|")
                beside = name.beside or kind == "lines"
                plural = many or (f"{one}es" if _ES.search(one) else f"{one}s")
                noun = Noun(wanted[0], kind, one, plural, name.inside, name.cover, beside)
                found.setdefault(wanted[0], []).append((frozenset(wanted), noun))
        return found

    @functools.cached_property
    def _order(self) -> Mapping[Tag, int]:
        return {tag: i for i, tag in enumerate(self._nouns)}

    def noun(self, tags: Sequence[Tag]) -> Noun | None:
        """What an object of some tags is called, None where it has no name; values may be lists (`a;b`)."""
        own = frozenset(_single(tags))
        fitting = [one for tag in own for one in self._nouns.get(tag, ()) if one[0] <= own]
        return min(fitting, key=lambda one: (-len(one[0]), self._order[one[1].tag]))[1] if fitting else None

    def adjectives(self, tags: Sequence[Tag]) -> tuple[list[tuple[Tag, str]], list[tuple[Tag, str]]]:
        """What stands before and after the noun of an object of some tags, each with its tag."""
        own = set(_single(tags))
        before, after = (
            [found for words_of in lists if (found := next((one for one in _tags(words_of) if one[0] in own), None))]
            for lists in (self.before, self.after)
        )
        return before[:MOST_BEFORE], after[:1]

    def counted_as(self, n: int, noun: Noun, *, other: bool) -> str:
        """What `n` things of a kind are called: "three other houses", where one is the focus object itself."""
        if n == 1:
            return another(noun, other=other)
        number = self.numbers[n - 1] if n <= len(self.numbers) else self.many
        return f"{number} other {noun.many}" if other else f"{number} {noun.many}"

    def share(self, share: float) -> str | None:
        """How much of an image a share of it is, None where it is too little to be told."""
        # A share that is a limit must not fall short of it by what arithmetic leaves.
        share = round(share, 6)
        return next((words for least, words in sorted(self.shares.items(), reverse=True) if share >= least), None)


@functools.cache
def packaged_grammar() -> Grammar:
    """The grammar of the sentence styles.

    Raises:
        SettingsError: its file is wrong; every mistake is named.
    """
    return read_yaml(GRAMMAR_FILE, Grammar)


def article(words: str) -> str:
    """A singular with its article: "a house", "an airport"."""
    return f"an {words}" if _AN.match(words) else f"a {words}"


def another(noun: Noun, *, other: bool) -> str:
    """One thing: "a house", or "another house" where one is the focus object itself."""
    return f"another {noun.one}" if other else article(noun.one)


def listed(items: Sequence[str]) -> str:
    """A list as it is said: "a, b and c"."""
    return " and ".join(filter(None, (", ".join(items[:-1]), items[-1])))


def size_words(longer_m: float, shorter_m: float | None = None) -> str:
    """How large a thing is, to two digits; the shorter side is None of a line, and unsaid where it is much the same."""
    longer = f"about {_rounded(longer_m)} m"
    if shorter_m is None:
        return f"{longer} long"
    return f"{longer} by {_rounded(shorter_m)} m" if longer_m >= 1.25 * shorter_m else f"{longer} across"


def _rounded(metres: float) -> str:
    return f"{float(f'{metres:.2g}'):g}"


def _tag(text: str) -> Tag:
    key, _, value = text.partition("=")
    return key, value


def _tags(words_of: Mapping[str, str]) -> Iterator[tuple[Tag, str]]:
    return ((_tag(tag), words) for tag, words in words_of.items())


def _single(tags: Sequence[Tag]) -> Iterator[Tag]:
    return ((key, each) for key, value in tags for each in value.split(";"))
