"""Which partitions to ask for now, given what is needed, what is under way and what was asked before."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pydantic import TypeAdapter

MAX_IN_FLIGHT = 4
"""Runs of one sensor that are queued or running at once: they keep a machine busy and leave its queue to others."""

RETRIES = 8
"""How often a partition that failed is asked for again while nothing that it is made from changes."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 900.0, 86_400.0
"""Seconds before the first retry, doubled with each further one, and the most that they become."""


class Need(NamedTuple):
    """A partition of a level that has to be made.

    Attributes:
        name: Level and partition as one text.
        fingerprint: Digest of everything outside the level that a run would make it from.
        waits_for: The output that has to settle first; None where a run can begin.
        in_flight: Whether it is being made, whoever asked for it.
    """

    name: str
    fingerprint: str
    waits_for: str | None = None
    in_flight: bool = False


class Asked(NamedTuple):
    """What is remembered of a partition that was asked for: its fingerprint, which attempt with that it was, when.

    `seen` is when it was last asked for or in flight, in seconds since 1970.
    """

    fingerprint: str
    attempt: int
    seen: float


Memory = TypeAdapter(dict[str, Asked])
"""Reads and writes what a sensor remembers, by name of the need."""


class Decision(NamedTuple):
    """What to ask for, what to remember from then on, and what became of all needs, as a line for people."""

    requests: list[Need]
    asked: dict[str, Asked]
    told: str


def decide(needs: Iterable[Need], asked: Mapping[str, Asked], room: int, now: float) -> Decision:
    """Choose what to ask for. An attempt has failed if it is no longer in flight and its partition is needed still.

    `needs` has first things first, `asked` is what was remembered the last time, `room` the most requests, `now` in
    seconds since 1970.
    """
    told, memory, ready = Counter[str](), dict[str, Asked](), list[tuple[int, Need]]()
    for need in needs:
        before = asked.get(need.name)
        if need.in_flight:
            told["in flight"] += 1
            if before is not None:
                memory[need.name] = before._replace(seen=now)
            continue
        if before is None or before.fingerprint != need.fingerprint:
            before = Asked(need.fingerprint, 0, now)
        else:
            memory[need.name] = before
        # A clock that was put back makes no pause longer.
        pause_s = min(FIRST_PAUSE_S * 2.0 ** (before.attempt - 1), LONGEST_PAUSE_S) if before.attempt else 0.0
        if need.waits_for is not None:
            told[f"waiting for what they are made from, such as {need.waits_for}"] += 1
        elif before.attempt > RETRIES:
            told[f"given up after {RETRIES} retries, until an input or a setting changes"] += 1
        elif before.seen <= now < before.seen + pause_s:
            told["failed, to be tried again later"] += 1
        else:
            ready.append((before.attempt, need))
    # What was not tried yet goes first: long runs that fail again and again would leave no room for it.
    chosen = sorted(ready, key=lambda entry: entry[0] > 0)[: max(room, 0)]
    told.update({"asked for": len(chosen), "next": len(ready) - len(chosen)})
    memory |= {need.name: Asked(need.fingerprint, attempt + 1, now) for attempt, need in chosen}
    line = ", ".join(f"{count} {what}" for what, count in told.items() if count)
    return Decision([need for _, need in chosen], memory, line or "everything is current")
