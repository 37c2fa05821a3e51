"""The Protocol Buffers wire format as far as OSM PBF uses it, read many messages at a time with numpy.

Within a PrimitiveGroup everything is a varint or a run of varints behind its length (osmformat.proto), so that a whole
group can be taken apart as one stream of varints: only the chain from message to message is walked.

Format: protobuf.dev, "Encoding".
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.arrays import IntArray
from skyscript_assets.lib.osm.ragged import offsets_of, ranges


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Fields of a short protobuf message, one after the other.

    Raises:
        ValueError: the message does not follow the protobuf encoding.
        IndexError: it is cut off.
    """
    at, end = 0, len(message)
    while at < end:
        tag, at = varint(message, at)
        value, at = varint(message, at)
        if tag & 7 == 0:
            yield tag >> 3, value
        elif tag & 7 == 2:
            if at + value > end:
                raise ValueError("a field is longer than its message")
            yield tag >> 3, message[at : at + value]
            at += value
        else:
            raise ValueError(f"field {tag >> 3} has a type that the format does not use")


def varint(message: memoryview | bytes, at: int) -> tuple[int, int]:
    """The number that begins at a byte, and where the next one begins.

    Raises:
        ValueError: it is longer than ten bytes.
        IndexError: it is cut off.
    """
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is longer than ten bytes")


@dataclass(frozen=True)
class Varints:
    """A run of bytes read as varints (Protocol Buffers, "Encoding": base 128, least significant group first).

    Attributes:
        values: [n] unsigned values modulo 2^64, seen as signed.
        stops: [n] byte behind each.
    """

    values: IntArray
    stops: IntArray

    @classmethod
    def of(cls, data: bytes | memoryview) -> Self:
        """Read all varints of a run.

        Raises:
            ValueError: the run ends inside a varint, or one is longer than ten bytes.
        """
        octets = np.frombuffer(data, np.uint8)
        if len(octets) == 0:
            return cls(np.zeros(0, np.int64), np.zeros(0, np.int64))
        if octets[-1] >= 128:
            raise ValueError("its numbers are cut off")
        lasts = np.flatnonzero(octets < 128)
        values = octets[lasts].astype(np.int64)
        lengths = np.empty_like(lasts)
        lengths[0] = lasts[0] + 1
        np.subtract(lasts[1:], lasts[:-1], out=lengths[1:])
        longer = np.flatnonzero(lengths > 1)
        back = 1
        while len(longer):
            if back > 9:
                raise ValueError("a number is longer than ten bytes")
            values[longer] = (values[longer] << 7) | (octets[lasts[longer] - back] & 127)
            back += 1
            longer = longer[lengths[longer] > back]
        return cls(values, lasts + 1)


def signed(values: IntArray) -> IntArray:
    """Zigzag encoded numbers (Protocol Buffers, "Signed Integers")."""
    return (values >> 1 & 0x7FFF_FFFF_FFFF_FFFF) ^ -(values & 1)


def running(steps: IntArray, offsets: IntArray) -> IntArray:
    """A ragged array of sums: each number is the sum of the steps of its list so far."""
    sums = np.cumsum(steps)
    before = np.concatenate((np.zeros(1, np.int64), sums))[offsets[:-1]]
    return sums - np.repeat(before, np.diff(offsets))


def column(contents: Sequence[memoryview]) -> tuple[IntArray, IntArray]:
    """Packed numbers of several fields as a ragged array: the numbers, and the offset of each field's."""
    numbers = Varints.of(b"".join(contents))
    ends = np.cumsum([len(content) for content in contents])
    offsets = np.concatenate((np.zeros(1, np.int64), np.searchsorted(numbers.stops, ends, side="right")))
    if len(ends) and np.any(np.concatenate((np.zeros(1, np.int64), numbers.stops))[offsets[1:]] != ends):
        raise ValueError("its numbers are cut off")
    return numbers.values, offsets


def deltas(contents: Sequence[memoryview]) -> tuple[IntArray, IntArray]:
    """Delta encoded numbers of several fields as a ragged array."""
    values, offsets = column(contents)
    return running(signed(values), offsets), offsets


def chained(begins: IntArray, ends: IntArray, borders: IntArray) -> tuple[IntArray, IntArray]:
    """Items that follow each other without a gap, among candidates: by pointer doubling, in log2(n) steps for n items.

    Args:
        begins: [m] byte at which each candidate begins, rising.
        ends: [m] byte behind it.
        borders: [stretches + 1] bytes at which stretches begin, and the end of the last; no item reaches over a border.

    Returns:
        The candidates that make up the chain, in order, and how many of them lie in each stretch: [stretches].

    Raises:
        ValueError: the chain breaks off, or passes over a border.
    """
    count = len(begins)
    finished, broken = count, count + 1
    follows = np.searchsorted(begins, ends)
    found = np.append(begins, -1)[follows] == ends
    follows = np.where(found, follows, np.where(ends == borders[-1], finished, broken))
    jump = np.append(follows, [finished, broken])
    rows = np.searchsorted(begins, borders[:1]) if borders[-1] > borders[0] else np.zeros(0, np.int64)
    if len(rows) and (count == 0 or begins[rows[0] % count] != borders[0]):
        raise ValueError("a group does not begin with an item")
    while len(rows):
        # The rows so far are the first 2^k items, and a jump goes 2^k items ahead.
        ahead = jump[rows]
        if np.any(ahead == broken):
            raise ValueError("an item ends where none begins")
        rows = np.concatenate((rows, ahead[ahead < finished]))
        if np.any(ahead == finished):
            break
        jump = jump[jump]
    counts = np.diff(np.searchsorted(begins[rows], borders))
    if np.any(np.append(begins[rows], borders[-1])[np.searchsorted(begins[rows], borders)] != borders):
        raise ValueError("an item is longer than its group")
    return rows, counts


@dataclass
class Messages:
    """Messages that hold nothing but varints and runs of varints, such as Way and Info, many side by side.

    Attributes:
        numbers: The varints of all.
        index: Which of them begins at each byte.
        first: [n] varint at which each message begins.
        last: [n] varint behind it.
        group: [n] which group each is from.
    """

    numbers: Varints
    index: NDArray[np.int32]
    first: IntArray
    last: IntArray
    group: IntArray
    _found: dict[int, tuple[IntArray, IntArray, IntArray]] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, groups: Sequence[memoryview]) -> Self:
        """The messages of some groups."""
        data = b"".join(groups)
        numbers = Varints.of(data)
        index = np.zeros(len(data) + 1, np.int32)
        index[numbers.stops] = 1
        np.cumsum(index, out=index)
        # Where a message begins stands its group's field number, and behind it a length. Not every place that looks so
        # is a beginning; which are is a matter of following the lengths from the first one.
        tag = groups[0][0] if groups else 0
        tags = np.flatnonzero(numbers.values[:-1] == tag)
        stops, lengths = numbers.stops[tags + 1], numbers.values[tags + 1]
        inside = (lengths >= 0) & (lengths <= len(data) - stops)
        tags, ends = tags[inside], stops[inside] + lengths[inside]
        begins = np.where(tags > 0, numbers.stops[tags - 1], 0)
        borders = offsets_of(np.array([len(group) for group in groups], np.int64))
        rows, counts = chained(begins, ends, borders)
        group = np.repeat(np.arange(len(groups), dtype=np.int64), counts)
        return cls(numbers, index, tags[rows] + 2, index[ends[rows]].astype(np.int64), group)

    def __len__(self) -> int:
        return len(self.first)

    def __post_init__(self) -> None:
        """Note the fields of all messages: first the first field of each, then the second, and so on."""
        values = self.numbers.values
        seen: dict[int, list[tuple[IntArray, IntArray, IntArray]]] = {}
        rows = np.flatnonzero(self.first < self.last)
        at = self.first[rows]
        while len(rows):
            if np.any(at + 2 > self.last[rows]):
                raise ValueError("an object is cut off")
            first, last = self._extent(at)
            if np.any(last > self.last[rows]):
                raise ValueError("a field is longer than its object")
            field = values[at] >> 3
            if field.min() == field.max():
                seen.setdefault(int(field[0]), []).append((rows, first, last))
            else:
                for number in np.unique(field).tolist():
                    of = field == number
                    seen.setdefault(number, []).append((rows[of], first[of], last[of]))
            going = last < self.last[rows]
            rows, at = (rows, last) if going.all() else (rows[going], last[going])
        for number, found in seen.items():
            row, first, last = (np.concatenate(columns) for columns in zip(*found, strict=True))
            self._found[number] = (row, first, last)

    def _extent(self, at: IntArray) -> tuple[IntArray, IntArray]:
        """First varint of the content of each field, and the one behind it; `at` are the fields' tags."""
        wire = self.numbers.values[at] & 7
        runs = wire == 2
        if np.any(~runs & (wire != 0)):
            raise ValueError("an object has a field of a type that the format does not use")
        last = at + 2
        if not runs.any():
            return at + 1, last
        length, begin = self.numbers.values[at[runs] + 1], self.numbers.stops[at[runs] + 1]
        if np.any((length < 0) | (length > len(self.index) - 1 - begin)):
            raise ValueError("a field is longer than its object")
        last[runs] = self.index[begin + length]
        if np.any(self.numbers.stops[last[runs] - 1] != begin + length):
            raise ValueError("a field ends inside a number")
        return at + 1 + runs, last

    def number(self, field: int, default: int = 0) -> IntArray:
        """[n] a plain number of each message; where it stands twice the later one counts."""
        answer = np.full(len(self), default, np.int64)
        if field in self._found:
            rows, first, _ = self._found[field]
            answer[rows] = self.numbers.values[first]
        return answer

    def packed(self, field: int) -> tuple[IntArray, IntArray]:
        """Packed numbers of each message as a ragged array: the numbers, and the offset of each message's: [n + 1]."""
        first, count = np.zeros(len(self), np.int64), np.zeros(len(self), np.int64)
        if field in self._found:
            rows, firsts, lasts = self._found[field]
            first[rows], count[rows] = firsts, lasts - firsts
        return self.numbers.values[ranges(first, count)], offsets_of(count)

    def inner(self, field: int) -> Self:
        """[n] the message in a field of each; an empty one where there is none."""
        first, last = np.zeros(len(self), np.int64), np.zeros(len(self), np.int64)
        if field in self._found:
            rows, first[rows], last[rows] = self._found[field]
        return type(self)(self.numbers, self.index, first, last, self.group)
