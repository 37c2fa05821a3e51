"""What is said of a chip, and the two styles of captions that say it in the wording of SkyScript (arXiv 2312.12856).

`title` lists the focus object's phrases: "landuse of quarry, resource of bauxite". `title_multi_objects` makes a clause
of them, "landuse of quarry with resource of bauxite", and adds what lies around: ", surrounded by natural tree; road of
footway".

The words of a tag belong to `phrases`, which objects lie around a chip to `surroundings`, other styles to `sentences`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skyscript_assets.lib.captions.phrases import Phrase, clause

SURROUNDED, BETWEEN = ", surrounded by ", "; "
"""What stands before the clauses of what lies around, and between them."""


@dataclass(frozen=True)
class Composition:
    """What is said of a chip, however it is written: phrases of the focus object, the main one first, and of others.

    `around` has the phrases of each object around it that is named; `named` are these, by index among those given.
    """

    focus: tuple[Phrase, ...]
    around: tuple[Sequence[Phrase], ...] = ()
    named: tuple[int, ...] = ()


def single_object(said: Composition) -> str:
    """The focus object alone, phrase by phrase."""
    return ", ".join(phrase.text for phrase in said.focus)


def multi_object(said: Composition) -> str:
    """The focus object and its surroundings, clause by clause."""
    around = BETWEEN.join(map(clause, said.around))
    return f"{clause(said.focus)}{SURROUNDED}{around}" if around else clause(said.focus)


WORDINGS: Mapping[str, Callable[[Composition], str]] = {"title": single_object, "title_multi_objects": multi_object}
"""How each of the two writes what is said."""


def compose(
    said: Sequence[Phrase], around: Sequence[Sequence[Phrase]], max_surrounding: int, max_length: int
) -> Composition | None:
    """Choose what is said of a chip, so that every style fits; None where the focus object says nothing.

    What does not fit into `max_length` characters is left out, attributes and surroundings alike.

    Args:
        said: What the focus object says, by the tags that can be seen at the chip's GSD.
        around: What each object around it says, the most prominent first; those that read like an earlier one or like
            the focus object are passed over.
        max_surrounding: Surrounding objects named at most.
        max_length: Longest caption, characters.
    """
    if not said:
        return None

    focus: tuple[Phrase, ...] = tuple(said[:1])
    for phrase in said[1:]:
        longer = Composition((*focus, phrase))
        if all(len(style(longer)) <= max_length for style in WORDINGS.values()):
            focus = longer.focus
    length = len(clause(focus)) + len(SURROUNDED)
    named: list[int] = []
    clauses = {clause(focus), clause(said)}
    for i, other in enumerate(around):
        if len(named) == max_surrounding:
            break
        words = clause(other) if other else ""
        longer_by = len(words) + (len(BETWEEN) if named else 0)
        if words and words not in clauses and length + longer_by <= max_length:
            named.append(i)
            clauses.add(words)
            length += longer_by
    return Composition(focus, tuple(around[i] for i in named), tuple(named))


def texts(said: Composition, max_length: int) -> dict[str, str]:
    """The caption of both; only a main phrase that is too long by itself is cut."""
    return {name: style(said)[:max_length].rstrip() for name, style in WORDINGS.items()}


def statements(said: Composition, object_ids: Sequence[str], max_length: int) -> list[dict[str, str | bool]]:
    """What is stated of each object, the focus object first: true of the chip whatever else is in it.

    Of each object of `object_ids`, in the order of `said`: its id; whether it is the focus object; its whole clause;
    the words of its main tag, and what they say whatever its value is, of `max_length` characters at most; the main tag
    itself.
    """
    found: list[dict[str, str | bool]] = []
    for object_id, phrases in zip(object_ids, (said.focus, *said.around), strict=True):
        main = phrases[0]
        words = {"clause": clause(phrases), "main": main.text, "kind": main.kind}
        cut = {name: text[:max_length].rstrip() for name, text in words.items()}
        found.append({"object_id": object_id, "focus": not found, **cut, "key": main.key, "value": main.value})
    return found


def trace(said: Composition, object_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Which tag of which object put which words into a caption, and in which role: main, attribute or surrounding.

    The phrases of `title` are in both captions, those of the surroundings in `title_multi_objects` alone. `object_ids`
    are the focus object and those around it, in the order of `said`.
    """
    focus, *others = object_ids
    rows = [("title", focus, phrase, "attribute" if i else "main") for i, phrase in enumerate(said.focus)]
    for other, phrases in zip(others, said.around, strict=True):
        rows += [("title_multi_objects", other, phrase, "surrounding") for phrase in phrases]
    return [
        {
            "style": style,
            "role": role,
            "phrase": p.text,
            "key": p.key,
            "value": p.value,
            "fact": "",
            "object_ids": [own],
        }
        for style, own, p, role in rows
    ]
