"""Proof of captions in sentences: each fact is found again from the objects and the chip's window alone.

What is measured here shares nothing with `overlay` and `facts` but what words mean: objects are projected one chip at a
time and cut by the window as a polygon, and each fact of the trace is looked for among those.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import shapely
from pyproj import Transformer

from skyscript_assets.lib.captions import facts as told
from skyscript_assets.lib.captions.facts import Fact, Named, crossing, position
from skyscript_assets.lib.captions.grammar import Grammar, Noun, another, size_words
from skyscript_assets.lib.captions.overlay import LINE_WIDTH_PX, MIN_OVERLAP_PX, POINT_AREA_PX, RIM_PX, SLIVER
from skyscript_assets.lib.captions.sentences import sentences
from skyscript_assets.lib.captions.surroundings import GROUND_SHARE, Objects, Visible
from skyscript_assets.lib.registration.shift import NO_SHIFT, move
from skyscript_assets.lib.settings.base import SENTENCES

ANY_LENGTH = 1 << 30


class _Thing:
    """An object in a window: its name, geometry in chip pixels, and what of that the window shows."""

    def __init__(self, row: int, objects: Objects, noun: Noun | None, shape: shapely.Geometry, window: shapely.Polygon):
        self.object_id, self.layer, self.noun = objects.ids[row], int(objects.layer[row]), noun
        self.dimension = int(objects.dimension[row])
        self.piece = shapely.intersection(shapely.make_valid(shape), window)
        self.shape, self.window = shape, window
        self.whole = bool(shapely.covers(window, shape))
        lines, areas = self.piece.length * LINE_WIDTH_PX, self.piece.area
        self.taken = (POINT_AREA_PX, lines, areas)[self.dimension]

    def is_shown(self, *, texture: bool) -> bool:
        """Whether enough of it is in the window to be seen, and to tell what it is."""
        if self.piece.is_empty:
            return False
        x0, y0, x1, y1 = self.piece.bounds
        if self.dimension == 0 or max(round(x1 - x0, 3), round(y1 - y0, 3)) < MIN_OVERLAP_PX:
            return self.dimension == 0
        width, height = self.window.bounds[2:]
        if not self.whole and (min(x1, y1) <= RIM_PX or x0 >= width - RIM_PX or y0 >= height - RIM_PX):
            return False
        if self.dimension == 1:
            part, own, most = self.piece.length, self.shape.length, max(self.window.bounds)
        else:
            part, own, most = self.piece.area, self.shape.area, self.window.area
        return texture or part >= SLIVER * min(own, most)


def unproven(
    row: Mapping[str, Any], chip: Mapping[str, Any], objects: Objects, seen: Visible, names: Named, grammar: Grammar
) -> list[str]:
    """What a chip's sentences state that does not follow from its objects and its window; none where all is proved.

    Of a row of `captions.parquet` it is a sentence on each phrase that is not true, and on each caption that is not
    what its trace says. `seen` is what can be seen of the objects at the chip's GSD, `names` what they are called.
    """
    true = set(_true(chip, objects, seen, names, grammar))
    attributes = names.attributes[seen.set_of[objects.rows[chip["object_id"]]]]
    wrong = []
    for style in SENTENCES:
        traced = [one for one in row["trace"] if one["style"] == style]
        stated = [
            Fact(one["role"], one["phrase"], tuple(one["object_ids"]), one["key"], one["value"], one["fact"])
            for one in traced
            if one["role"] != "attribute"
        ]
        wrong += [f"{style}: {fact.phrase!r} ({fact.slot}) is not so" for fact in stated if fact not in true]
        told_of = [((one["key"], one["value"]), one["phrase"]) for one in traced if one["role"] == "attribute"]
        if told_of != attributes:
            wrong.append(f"{style}: the attributes of its thing are others")
        if not stated or sentences(style, stated, ANY_LENGTH)[0] != row[style]:
            wrong.append(f"{style}: {row[style]!r} says something else than its trace")
    return wrong


def _true(chip: Mapping[str, Any], objects: Objects, seen: Visible, names: Named, grammar: Grammar) -> Iterator[Fact]:
    """All that can be said of a chip."""
    own, *others = _things(chip, objects, seen, names)
    area = chip["width"] * chip["height"]
    yield from _of_own(own, chip, names.things[seen.set_of[objects.rows[own.object_id]]], grammar)
    by_name: dict[tuple[str, str], tuple[Noun, list[_Thing]]] = {}
    for thing in others:
        if thing.noun is not None:
            by_name.setdefault((thing.noun.kind, thing.noun.one), (thing.noun, []))[1].append(thing)
    single = _single((own, *others))
    for noun, things in by_name.values():
        other = own.noun is not None and own.noun.one == noun.one
        lying = list(_lying(noun, things, own, chip["gsd_m"], other=other))
        yield from lying
        whole = [each for each in things if each.whole and each in single]
        if noun.kind == "counted" and whole:
            yield _fact("around", grammar.counted_as(len(whole), noun, other=other), whole, str(len(whole)))
        elif noun.kind in ("things", "lines") and not lying:
            yield from _in_view(noun, things, own, area, other=other)
    yield from _covering((own, *others), area, grammar)


def _lying(noun: Noun, things: Sequence[_Thing], own: _Thing, gsd_m: float, *, other: bool) -> Iterator[Fact]:
    by_slot: dict[str, list[_Thing]] = {}
    for thing in things:
        if slot := _slot(thing, noun, own, gsd_m):
            by_slot.setdefault(slot, []).append(thing)
    words = another(noun, other=other)
    for slot, some in by_slot.items():
        if slot != "beside":
            yield _fact(slot, noun.inside or "" if slot == "inside" else words, some)
        elif len(by_slot) == 1:
            nearest = min(_gap_m(each, own, gsd_m) for each in some)
            for each in some:
                if _gap_m(each, own, gsd_m) == nearest:
                    yield _fact(slot, words, [each], f"{nearest:.0f} m")


def _in_view(noun: Noun, things: Sequence[_Thing], own: _Thing, area: float, *, other: bool) -> Iterator[Fact]:
    groups = _groups([own, *things] if other and own.noun and own.noun.kind in ("lines", "things") else things)
    apart = [each for group in groups if own not in group for each in group]
    shown = [
        each for each in things if each in apart and told.is_told(each.dimension, each.taken / area, whole=each.whole)
    ]
    parts = sum(any(each in shown for each in group) for group in groups)
    if parts == 1:
        yield _fact("also", another(noun, other=other), shown, "1")
    elif parts:
        yield _fact("also", f"other {noun.many}" if other else noun.many, shown, str(parts))


def _covering(things: Sequence[_Thing], area: float, grammar: Grammar) -> Iterator[Fact]:
    by_cover: dict[str, list[_Thing]] = {}
    for thing in things:
        cover = None if thing.noun is None or thing.dimension < 2 else told.covering(thing.noun)
        if cover is not None:
            by_cover.setdefault(cover, []).append(thing)
    for cover, some in by_cover.items():
        union = shapely.union_all([each.piece for each in some])
        others = [each.piece for name, rest in by_cover.items() if name != cover for each in rest]
        words = grammar.share(union.area / area) if cover else None
        if words and words == grammar.share(union.difference(shapely.union_all(others)).area / area):
            yield _fact("cover", f"{cover} covers {words}", some, f"{min(1.0, union.area / area):.2f}")


def _single(things: Sequence[_Thing]) -> list[_Thing]:
    """Things that are counted but those of which an earlier one has much the same outline."""
    found, known = [], list[_Thing]()
    for thing in things:
        if thing.noun is not None and thing.noun.kind == "counted":
            if not any(_is_same(thing, earlier) for earlier in known):
                found.append(thing)
            known.append(thing)
    return found


def _things(chip: Mapping[str, Any], objects: Objects, seen: Visible, names: Named) -> Iterator[_Thing]:
    """The focus object, and all others that the window shows, by their place in the table."""
    a, _, c, _, e, f = chip["transform"]
    width, height = chip["width"], chip["height"]
    window = shapely.box(0, 0, width, height)
    to_crs = Transformer.from_crs(4326, chip["crs"], always_xy=True)
    shift = tuple(chip["osm_shift_m"] or NO_SHIFT)

    def in_pixels(points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        x, y = to_crs.transform(*move(points, shift).T)
        return np.column_stack([(x - c) / a, (y - f) / e])

    focus = objects.rows[chip["object_id"]]
    corners = np.array([(c, f), (c + a * width, f), (c, f + e * height), (c + a * width, f + e * height)])
    ground = np.column_stack(to_crs.transform(corners[:, 0], corners[:, 1], direction="INVERSE"))
    middle = np.mean(shapely.bounds(objects.geometry[focus])[[0, 2]])
    ground[:, 0] += 360.0 * np.round((middle - ground[:, 0]) / 360.0)
    ground = move(ground, (-shift[0], -shift[1]))
    margin = np.ptp(ground, axis=0) / 10
    box = shapely.box(*(ground.min(axis=0) - margin), *(ground.max(axis=0) + margin))
    rows = set(seen.candidates[seen.tree.query(box)].tolist()) - {focus}
    yield _Thing(
        focus, objects, names.nouns[seen.set_of[focus]], shapely.transform(objects.geometry[focus], in_pixels), window
    )
    for row in sorted(rows):
        shape = shapely.transform(objects.geometry[row], in_pixels)
        if not np.isfinite(shape.bounds).all():
            continue
        thing = _Thing(row, objects, names.nouns[seen.near_set_of[row]], shape, window)
        if not thing.is_shown(texture=seen.ground_set_of[row] > 0):
            continue
        if thing.dimension == 2 and thing.taken >= GROUND_SHARE * width * height:
            thing.noun = names.nouns[seen.ground_set_of[row]]
        yield thing


def _of_own(own: _Thing, chip: Mapping[str, Any], thing: str, grammar: Grammar) -> Iterator[Fact]:
    yield _fact("thing", thing, [own])
    if own.piece.is_empty:
        return
    width, height, piece = chip["width"], chip["height"], own.piece
    where = position(piece.bounds, width, height, piece.area, whole=own.whole, line=own.dimension == 1)
    if where:
        yield _fact("position", grammar.positions[where], [own], where)
    if not own.whole or own.dimension == 0 or (own.noun is not None and own.noun.kind == "lines"):
        return
    sizes: Sequence[tuple[float, ...]] = [(piece.length,)] if own.dimension == 1 else _rectangles(piece)
    for sides in sizes:
        words = size_words(*(side * chip["gsd_m"] for side in sides))
        yield _fact("size", words, [own], words)


def _rectangles(piece: shapely.Geometry) -> list[tuple[float, float]]:
    """Longer and shorter sides of the rectangles around a shape that are the smallest, or as good as that.

    The smallest lies along an edge of the hull.
    """
    hull = shapely.get_coordinates(piece.convex_hull)
    found = []
    for along in np.diff(hull, axis=0):
        unit = along / np.hypot(*along)
        sides = np.ptp(hull @ np.array([unit, [-unit[1], unit[0]]]).T, axis=0)
        found.append((float(sides.prod()), float(sides.max()), float(sides.min())))
    return [(longer, shorter) for area, longer, shorter in found if area <= 1.02 * min(found)[0]]


def _slot(thing: _Thing, noun: Noun, own: _Thing, gsd_m: float) -> str:
    """How a thing lies to the focus object: the slot that tells it, if any."""
    grounded = own.noun is not None and own.noun.kind == "grounds"
    inside = noun.kind == "grounds" and thing.dimension == 2 and _lies_in(own, thing)
    if inside and noun.inside and not grounded:
        return "inside"
    meets = shapely.crosses(thing.piece, own.piece)
    if own.dimension == 2 and not own.piece.is_empty:
        x0, y0, x1, y1 = own.piece.bounds
        within = thing.piece.intersection(own.piece).length
        meets = meets and within >= told.CROSSED_SHARE * min(x1 - x0, y1 - y0)
    if meets and (
        (noun.kind == "lines" and thing.dimension == 1 and own.dimension > 0)
        or (noun.beside and thing.dimension == 2 and own.dimension == 1)
    ):
        return crossing(noun, own.noun, thing.layer, own.layer, thing.dimension == 2)
    gap_px = thing.piece.distance(own.piece)
    near = 0 < gap_px <= told.BESIDE_SHARE * min(own.window.bounds[2:]) and gap_px * gsd_m <= told.BESIDE_M
    return "beside" if near and noun.beside and own.dimension != 1 and not inside else ""


def _lies_in(own: _Thing, area: _Thing) -> bool:
    shared = shapely.intersection(own.piece, area.piece)
    if own.dimension == 0:
        return not bool(shared.is_empty)
    part, whole = (shared.length, own.piece.length) if own.dimension == 1 else (shared.area, own.piece.area)
    return bool(whole > 0 and part >= told.WITHIN_SHARE * whole)


def _gap_m(thing: _Thing, own: _Thing, gsd_m: float) -> float:
    return float(shapely.distance(thing.piece, own.piece)) * gsd_m


def _is_same(one: _Thing, other: _Thing) -> bool:
    """Whether two outlines are of one thing, mapped twice."""
    if one.dimension != 2 or other.dimension != 2:
        return False
    shared = shapely.intersection(one.piece, other.piece).area
    return bool(shared > told.SAME_SHARE * min(one.piece.area, other.piece.area))


def _groups(things: Sequence[_Thing]) -> list[list[_Thing]]:
    """Things that hang together."""
    groups: list[list[_Thing]] = []
    for thing in things:
        touched = [group for group in groups if any(thing.piece.intersects(each.piece) for each in group)]
        groups = [group for group in groups if group not in touched]
        groups.append([thing, *(each for group in touched for each in group)])
    return groups


def _fact(slot: str, phrase: str, things: Sequence[_Thing], fact: str = "") -> Fact:
    tag = things[0].noun.tag if things[0].noun else ("", "")
    return Fact(slot, phrase, tuple(sorted({thing.object_id for thing in things})), *tag, fact)
