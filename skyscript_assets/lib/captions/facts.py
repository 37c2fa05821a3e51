"""What is true of a chip and can be said in sentences: where its object lies, what is around it, what covers it.

All is told of the image, never of the compass: its left is its left. Geometry is in chip pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from skyscript_assets.lib.arrays import BoolArray, FloatArray, IntArray
from skyscript_assets.lib.captions.grammar import Grammar, Kind, Noun, Tag, another, article, size_words
from skyscript_assets.lib.captions.overlay import SLIVER, Geometries, Overlay, robust
from skyscript_assets.lib.captions.phrases import Phrase
from skyscript_assets.lib.captions.surroundings import GROUND_SHARE, Objects, TagSet, Visible
from skyscript_assets.lib.osm.meaning import MEANING

BESIDE_M, BESIDE_SHARE = 12.0, 0.2
"""Gap up to which a thing lies beside another: metres, and share of the image's shorter side."""

CROSSED_SHARE = 0.5
"""Share of an area's shorter extent that a line must be within it to cross it."""

WITHIN_SHARE = 0.95
"""Share of a thing from which it lies in an area."""

SAME_SHARE = 0.5
"""Share of the smaller of two outlines, in both of them, from which they are of one thing that is mapped twice."""

SIDE = 0.1
"""How far from the middle a thing's centre is on a side, as a share of the image."""

WIDE_SHARE = 0.6
"""Share of the image's width, or height, from which a thing is on no side of it."""

ACROSS_SHARE = 0.9
"""Share of the image's width, or height, from which a line that leaves the image runs across it."""

MOST = {"inside": 1, "crossed": 2, "over": 2, "under": 2, "beside": 2, "around": 3, "also": 3, "cover": 2}
"""Facts of a slot that are told at most."""

SLACK_PX = 0.01
"""What boxes grow by before it is asked which meet, pixels."""


class Fact(NamedTuple):
    """Something that is said of a chip.

    Attributes:
        slot: Where it stands in a sentence: "around".
        phrase: Its words: "three other houses".
        object_ids: The objects that it is true of.
        key: The key of the tag that gives the noun.
        value: Its value.
        fact: What was measured or counted: "3".
    """

    slot: str
    phrase: str
    object_ids: tuple[str, ...]
    key: str
    value: str
    fact: str = ""


@dataclass(frozen=True)
class Named:
    """What objects that can be seen at one GSD are called, by the number of their set of tags.

    `things` are whole noun phrases with article, `attributes` which tags put which words into them.
    """

    nouns: list[Noun | None]
    things: list[str]
    attributes: list[list[tuple[Tag, str]]]


def named(sets: Sequence[TagSet], said: Sequence[Sequence[Phrase]], grammar: Grammar) -> Named:
    """Names of all sets of tags; a thing without a noun is called what its main phrase says."""
    nouns = [grammar.noun(tags) for tags in sets]
    things, attributes = [], []
    for tags, phrases, noun in zip(sets, said, nouns, strict=True):
        before, after = grammar.adjectives(tags) if noun else ([], [])
        words = [*(each for _, each in before), noun.one if noun else "", *(each for _, each in after)]
        things.append(article(" ".join(words)) if noun else phrases[0].text if phrases else "")
        attributes.append([*before, *after])
    return Named(nouns, things, attributes)


def facts(
    chips: Sequence[Mapping[str, Any]], over: Overlay, objects: Objects, seen: Visible, names: Named, grammar: Grammar
) -> list[list[Fact]]:
    """What is true of each chip of a plan, what matters most first; of a chip whose object has no words nothing is.

    `seen` is what can be seen of the region's objects at the GSD of these chips, `names` what they are called.
    """
    n = len(chips)
    focus_sets = seen.set_of[over.row[:n]]
    area = over.sizes.prod(axis=1).astype(np.float64)
    fills = (objects.dimension[over.row] == 2) & (over.taken >= GROUND_SHARE * area[over.chip])
    sets = np.where(fills, seen.ground_set_of[over.row], seen.near_set_of[over.row])
    sets[:n] = focus_sets
    gsd_m = np.array([chip["gsd_m"] for chip in chips])
    told = _Told(over, objects, [names.nouns[i] for i in sets.tolist()], gsd_m)
    return [
        [
            *_of_focus(i, int(focus_sets[i]), told, gsd_m[i], names, grammar),
            *_of_others(i, overlaps, told, area[i], grammar),
        ]
        if names.things[focus_sets[i]]
        else []
        for i, overlaps in enumerate(over.by_chip())
    ]


class _Told:
    """What is measured of all overlaps of a batch at once, by overlap; GSD in metres by chip."""

    def __init__(self, over: Overlay, objects: Objects, nouns: Sequence[Noun | None], gsd_m: FloatArray) -> None:
        n, size = len(gsd_m), len(over.chip)
        self.over, self.nouns = over, nouns
        self.kinds = np.array([noun.kind if noun else "" for noun in self.nouns], dtype="U8")
        self.besides = np.array([noun is not None and noun.beside for noun in self.nouns])
        self.dimension = objects.dimension[over.row]
        self.layer = objects.layer[over.row]
        self.ids = [objects.ids[row] for row in over.row.tolist()]
        self.focus_piece: Geometries = over.piece[:n][over.chip]
        self.focus_dimension = self.dimension[:n][over.chip]
        self.is_other = np.arange(size) >= n
        lines = self.is_other & (self.kinds == "lines")
        self.within = np.zeros(size, dtype=np.bool_)
        areas = np.flatnonzero(self.is_other & (self.kinds == "grounds") & (self.dimension == 2))
        self.within[areas] = _covers(over.piece[areas], self.focus_piece[areas], self.focus_dimension[areas])
        self.gap_m = np.full(size, np.inf)
        near = np.flatnonzero(self.is_other & self.besides & (self.focus_dimension != 1) & ~self.within)
        gap_px = robust(shapely.distance, over.piece[near], self.focus_piece[near])
        close = (gap_px > 0) & (gap_px <= BESIDE_SHARE * over.sizes.min(axis=1)[over.chip[near]])
        self.gap_m[near] = np.where(close, gap_px * gsd_m[over.chip[near]], np.inf)
        self.crosses = np.zeros(size, dtype=np.bool_)
        shores = self.is_other & self.besides & (self.dimension == 2) & (self.focus_dimension == 1)
        met = np.flatnonzero((lines & (self.dimension == 1) & (self.focus_dimension > 0)) | shores)
        shared = shapely.length(robust(shapely.intersection, over.piece[met], self.focus_piece[met]))
        x0, y0, x1, y1 = shapely.bounds(self.focus_piece[met]).reshape(-1, 4).T
        through = (self.focus_dimension[met] == 1) | (shared >= CROSSED_SHARE * np.minimum(x1 - x0, y1 - y0))
        self.crosses[met] = robust(shapely.crosses, over.piece[met], self.focus_piece[met]) & through
        self.same = _same(self)
        self.parts = _connected(self)


def _covers(area: Geometries, thing: Geometries, dimension: IntArray) -> BoolArray:
    """Whether areas hold nearly all of things."""
    shared = robust(shapely.intersection, area, thing)
    lengths, areas = (np.array([f(shared), f(thing)]) for f in (shapely.length, shapely.area))
    part, all_of = np.where(dimension == 2, areas, lengths)
    at_point = (dimension == 0) & ~shapely.is_empty(shared) & ~shapely.is_missing(shared)
    return np.asarray(at_point | ((dimension > 0) & (all_of > 0) & (part >= WITHIN_SHARE * all_of)))


def _pairs(told: _Told, which: IntArray) -> tuple[IntArray, IntArray]:
    """Pairs of overlaps of the same chip whose boxes meet, the earlier one first."""
    boxes = shapely.bounds(told.over.piece[which]).reshape(-1, 4)
    # Chips are laid apart, so that one tree serves them all; what touches still does after that is added.
    boxes[:, [0, 2]] += (told.over.chip[which] * 2.0 * told.over.sizes.max(initial=1))[:, None]
    boxes += np.array([-SLACK_PX, -SLACK_PX, SLACK_PX, SLACK_PX])
    shown = np.isfinite(boxes).all(axis=1)
    which, outlines = which[shown], shapely.box(*boxes[shown].T)
    one, other = shapely.STRtree(outlines).query(outlines, predicate="intersects")
    earlier = one < other
    return which[one[earlier]], which[other[earlier]]


def _same(told: _Told) -> BoolArray:
    """Which overlaps are of a thing that an earlier one is of already: counted things whose outlines are the same."""
    counted = (told.kinds == "counted") & (told.dimension == 2)
    one, other = _pairs(told, np.flatnonzero(counted))
    shared = shapely.area(robust(shapely.intersection, told.over.piece[one], told.over.piece[other]))
    areas = np.minimum(shapely.area(told.over.piece[one]), shapely.area(told.over.piece[other]))
    again = np.zeros(len(counted), dtype=np.bool_)
    again[other[shared > SAME_SHARE * areas]] = True
    return again


def _connected(told: _Told) -> IntArray:
    """A number for each line and thing of a chip that is equal for those of one name that hang together."""
    one, other = _pairs(told, np.flatnonzero(np.isin(told.kinds, ("lines", "things"))))
    names = np.array([noun.one if noun else "" for noun in told.nouns])
    alike = names[one] == names[other]
    one, other = one[alike], other[alike]
    touching = robust(shapely.intersects, told.over.piece[one], told.over.piece[other])
    size = len(told.nouns)
    links = coo_array((np.ones(touching.sum()), (one[touching], other[touching])), shape=(size, size))
    return np.asarray(connected_components(links, directed=False)[1])


def _of_focus(i: int, number: int, told: _Told, gsd_m: float, names: Named, grammar: Grammar) -> Iterator[Fact]:
    """What is told of the focus object itself: its name, where it is in the image, how large."""
    noun, object_id = names.nouns[number], (told.ids[i],)
    tag = noun.tag if noun else ("", "")
    yield Fact("thing", names.things[number], object_id, *tag)
    piece = told.over.piece[i]
    if piece is None or piece.is_empty:
        return
    width, height = told.over.sizes[i].tolist()
    whole, line = bool(told.over.whole[i]), told.dimension[i] == 1
    where = position(piece.bounds, width, height, piece.area, whole=whole, line=line)
    if where:
        yield Fact("position", grammar.positions[where], object_id, *tag, where)
    # What leads on is mapped in pieces, of which the picture knows nothing.
    if whole and told.dimension[i] > 0 and (noun is None or noun.kind != "lines"):
        sides = (piece.length,) if line else _sides(piece)
        words = size_words(*(side * gsd_m for side in sides))
        yield Fact("size", words, object_id, *tag, words)


def position(
    box: tuple[float, float, float, float], width: int, height: int, area: float, *, whole: bool, line: bool
) -> str:
    """Where a thing is in an image: a key of the grammar's `positions`, empty where none is true.

    The box (x0, y0, x1, y1) is of what of it is in the image, in pixels as are all sides and areas.
    """
    if area >= GROUND_SHARE * width * height:
        return "fills"
    shares = ((box[2] - box[0]) / width, (box[3] - box[1]) / height)
    if line and not whole and max(shares) >= ACROSS_SHARE:
        return "across"
    middle = ((box[0] + box[2]) / 2 / width, (box[1] + box[3]) / 2 / height)
    if max(shares) >= WIDE_SHARE:
        return ""
    across, down = (
        ends[0] if at < 0.5 - SIDE else ends[1] if at > 0.5 + SIDE else ""
        for at, ends in zip(middle, (("left", "right"), ("upper", "lower")), strict=True)
    )
    return f"{down} {across}".strip() or "center"


def _sides(piece: shapely.Geometry) -> tuple[float, float]:
    """Longer and shorter side of the smallest rectangle around an area."""
    corners = shapely.get_coordinates(shapely.minimum_rotated_rectangle(piece))[:3]
    sides = np.linalg.norm(np.diff(corners, axis=0), axis=1) if len(corners) == 3 else np.zeros(2)
    return float(sides.max()), float(sides.min())


Ranked = tuple[float, Fact]
"""A fact and its rank in its slot, the lowest first."""


def _of_others(i: int, overlaps: Sequence[int], told: _Told, area: float, grammar: Grammar) -> Iterator[Fact]:
    """What is told of a chip besides its object; `overlaps` are the chip's, its object's first."""
    own = told.nouns[i]
    by_name: dict[tuple[Kind, str], tuple[Noun, list[int]]] = {}
    for each in overlaps[1:]:
        if (noun := told.nouns[each]) is not None:
            by_name.setdefault((noun.kind, noun.one), (noun, []))[1].append(each)
    found: list[Ranked] = []
    for noun, which in by_name.values():
        other = own is not None and own.one == noun.one
        lying = list(_lying(noun, which, told, own, other=other))
        found += lying
        if noun.kind == "counted":
            found += _counted(noun, which, told, grammar, other=other)
        elif noun.kind != "grounds" and not lying:
            found += _in_view(i, noun, which, told, area, other=other)
    found += _covering(overlaps, told, area, grammar)
    for slot, most in MOST.items():
        yield from (fact for _, fact in sorted(one for one in found if one[1].slot == slot)[:most])


def _ranked(slot: str, rank: float, phrase: str, which: Sequence[int], told: _Told, fact: str = "") -> Ranked:
    noun = told.nouns[which[0]]
    assert noun is not None
    return rank, Fact(slot, phrase, tuple(sorted({told.ids[each] for each in which})), *noun.tag, fact)


def _lying(noun: Noun, which: Sequence[int], told: _Told, own: Noun | None, *, other: bool) -> Iterator[Ranked]:
    """How things of one name lie to the focus object."""
    words = another(noun, other=other)
    for slot, some in _relations(noun, which, told, own).items():
        if slot == "inside":
            yield _ranked(slot, min(told.over.taken[some]), noun.inside or "", some, told)
        elif slot == "beside":
            nearest = min(some, key=lambda j: (told.gap_m[j], told.ids[j]))
            gap_m = float(told.gap_m[nearest])
            yield _ranked(slot, gap_m, words, [nearest], told, f"{gap_m:.0f} m")
        else:
            yield _ranked(slot, -max(told.over.taken[some]), words, some, told)


def _counted(noun: Noun, which: Sequence[int], told: _Told, grammar: Grammar, *, other: bool) -> Iterator[Ranked]:
    """How many things of one name are wholly in view, each mapped thing once."""
    if whole := [j for j in which if told.over.whole[j] and not told.same[j]]:
        words, n = grammar.counted_as(len(whole), noun, other=other), str(len(whole))
        yield _ranked("around", -float(told.over.taken[which].sum()), words, whole, told, n)


def _in_view(i: int, noun: Noun, which: Sequence[int], told: _Told, area: float, *, other: bool) -> Iterator[Ranked]:
    """That things of one name are in view; those that hang together are one, and what goes on from the object is none.

    What fills the chip has no outline, and a small piece of an area does not tell what it is.
    """
    shown = [
        j
        for j in which
        if told.parts[j] != told.parts[i]
        and is_told(told.dimension[j], told.over.taken[j] / area, whole=bool(told.over.whole[j]))
    ]
    if parts := len({int(told.parts[j]) for j in shown}):
        words = another(noun, other=other) if parts == 1 else f"other {noun.many}" if other else noun.many
        yield _ranked("also", -float(told.over.taken[which].sum()), words, shown, told, str(parts))


def is_told(dimension: int, share: float, *, whole: bool) -> bool:
    """Whether a thing that takes a share of the image can be told there: of an area its outline must be in view."""
    return dimension < 2 or whole or SLIVER <= share < GROUND_SHARE


def _relations(noun: Noun, which: Sequence[int], told: _Told, own: Noun | None) -> dict[str, list[int]]:
    """Things of one name by the slot that tells how they lie to the focus object; those of which nothing does are not.

    What lies beside it is not told of a kind of thing that also meets it otherwise.
    """
    found: dict[str, list[int]] = {}
    for j in which:
        slot = ""
        if told.within[j] and noun.inside and (own is None or own.kind != "grounds"):
            slot = "inside"
        elif told.crosses[j]:
            slot = crossing(noun, own, int(told.layer[j]), int(told.layer[told.over.chip[j]]), told.dimension[j] == 2)
        elif told.gap_m[j] <= BESIDE_M:
            slot = "beside"
        if slot:
            found.setdefault(slot, []).append(j)
    if len(found) > 1:
        found.pop("beside", None)
    return found


def crossing(noun: Noun, own: Noun | None, layer: int, own_layer: int, is_area: bool) -> str:
    """How a thing that meets the focus object meets it: the slot, empty where the map cannot tell.

    By the names of the two, `own` being the focus object's, by OSM's layers, and by whether the thing is an area.
    """
    if own is None or own.kind not in ("lines", "grounds"):
        return ""
    key, own_key = noun.tag[0], own.tag[0]
    if key in MEANING.overhead and own_key not in MEANING.overhead:
        return "crossed"
    if own.kind == "grounds":
        return "" if is_area or key == "natural" else "crossed"
    if layer != own_layer and own_key in MEANING.at_grade:
        return "over" if own_layer > layer else "under"
    return "crossed" if not is_area and layer == own_layer and {key, own_key} <= MEANING.at_grade else ""


def _covering(which: Sequence[int], told: _Told, area: float, grammar: Grammar) -> Iterator[Ranked]:
    """What share of the chip the areas of each kind of ground cover together; the focus object counts.

    Where other things are drawn over them and it matters which is on top, nothing is told.
    """
    by_cover: dict[str, list[int]] = {}
    for j in which:
        noun = told.nouns[j]
        if noun is not None and told.dimension[j] == 2 and (cover := covering(noun)) is not None:
            by_cover.setdefault(cover, []).append(j)
    unions = {cover: robust(shapely.union_all, told.over.piece[some]) for cover, some in by_cover.items()}
    for cover, some in by_cover.items():
        if not cover or not (words := grammar.share(unions[cover].area / area)):
            continue
        others = np.array([union for name, union in unions.items() if name != cover], dtype=object)
        left = robust(shapely.difference, unions[cover], robust(shapely.union_all, others))
        if grammar.share(left.area / area) == words:
            share = min(1.0, unions[cover].area / area)
            yield _ranked("cover", -share, f"{cover} covers {words}", some, told, f"{share:.2f}")


def covering(noun: Noun) -> str | None:
    """What areas of a name cover the ground with; empty of what lies upon it, None of what does not hide it."""
    return noun.cover or ("" if noun.kind == "counted" or "=".join(noun.tag) in MEANING.on_ground else None)
