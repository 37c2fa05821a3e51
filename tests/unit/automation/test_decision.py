"""What is asked for, tick by tick."""

import itertools

import pytest

from skyscript_assets.automation import decision as module
from skyscript_assets.automation.decision import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    RETRIES,
    Asked,
    Memory,
    Need,
)

HOUR = 3600.0


def needs(*names: str, fingerprint: str = "f") -> list[Need]:
    return [Need(name, fingerprint) for name in names]


def decide(wanted: list[Need], asked: dict[str, Asked], in_flight: set[str], room: int, now: float) -> module.Decision:
    """Decide with needs of some names in flight; what is asked for by name."""
    wanted = [need._replace(in_flight=need.name in in_flight) for need in wanted]
    found = module.decide(wanted, asked, room, now)
    return found._replace(requests=[need.name for need in found.requests])


def test_first_things_first_and_no_more_than_there_is_room() -> None:
    decision = decide(needs("a", "b", "c"), {}, set(), 2, 0.0)
    assert decision.requests == ["a", "b"]
    assert decision.told == "2 asked for, 1 next"
    assert decide(needs("a", "b", "c"), decision.asked, {"a", "b"}, 0, 1.0).requests == []


def test_what_is_in_flight_is_not_asked_for_whoever_asked() -> None:
    decision = decide(needs("a", "b"), {}, {"a"}, 4, 0.0)
    assert decision.requests == ["b"]
    assert set(decision.asked) == {"b"}


def test_failing_ones_do_not_starve_the_others() -> None:
    asked, now, seen = {}, 0.0, []
    every = ["bad1", "bad2", "bad3", "bad4", "good1", "good2"]
    for _ in range(3):
        decision = decide(needs(*every), asked, set(), 4, now)
        asked, now = decision.asked, now + 120.0
        seen += decision.requests
        every = [name for name in every if name not in seen or name.startswith("bad")]
    assert seen == ["bad1", "bad2", "bad3", "bad4", "good1", "good2"]


def test_what_was_not_tried_yet_goes_before_what_has_failed() -> None:
    decision = decide(needs("bad", "new"), {"bad": Asked("f", 1, 0.0)}, set(), 1, FIRST_PAUSE_S)
    assert decision.requests == ["new"]


def test_a_failure_is_tried_again_later_and_later_until_it_is_given_up() -> None:
    asked, now, when, attempts = {}, 0.0, [], []
    while now < 5 * LONGEST_PAUSE_S:
        decision = decide(needs("a"), asked, set(), 4, now)
        asked = decision.asked
        if decision.requests:
            when.append(now)
            attempts.append(asked["a"].attempt)
        now += 60.0
    pauses = [later - earlier for earlier, later in itertools.pairwise(when)]
    assert pauses == [min(FIRST_PAUSE_S * 2**n, LONGEST_PAUSE_S) for n in range(RETRIES)]
    assert attempts == list(range(1, RETRIES + 2))
    assert "1 given up" in decision.told


def test_the_pause_begins_when_the_attempt_has_ended() -> None:
    asked = decide(needs("a"), {}, set(), 4, 0.0).asked
    asked = decide(needs("a"), asked, {"a"}, 4, 10 * HOUR).asked
    assert decide(needs("a"), asked, set(), 4, 10 * HOUR + FIRST_PAUSE_S - 1).requests == []
    assert decide(needs("a"), asked, set(), 4, 10 * HOUR + FIRST_PAUSE_S).requests == ["a"]


def test_another_input_is_asked_for_at_once_and_counts_from_one() -> None:
    asked = {"a": Asked("f", RETRIES + 1, 0.0)}
    assert decide(needs("a"), asked, set(), 4, 1.0).requests == []
    decision = decide(needs("a", fingerprint="g"), asked, set(), 4, 1.0)
    assert decision.requests == ["a"]
    assert decision.asked == {"a": Asked("g", 1, 1.0)}


def test_room_is_not_spent_on_what_cannot_run() -> None:
    waiting = [need._replace(waits_for="osm_objects/x") for need in needs("a", "b")]
    decision = decide([*waiting, *needs("c")], {}, set(), 1, 0.0)
    assert decision.requests == ["c"]
    assert "2 waiting for what they are made from, such as osm_objects/x" in decision.told


def test_what_is_current_is_forgotten() -> None:
    decision = decide([], {"a": Asked("f", 3, 0.0)}, set(), 4, 1.0)
    assert decision == ([], {}, "everything is current")


@pytest.mark.parametrize("now", [-HOUR, 99 * LONGEST_PAUSE_S])
def test_a_clock_that_was_set_holds_nothing_back(now: float) -> None:
    assert decide(needs("a"), {"a": Asked("f", 1, 0.0)}, set(), 4, now).requests == ["a"]


def test_the_memory_survives_as_text_and_nothing_else_passes_for_it() -> None:
    asked = {"pairs/x/y": Asked("0123456789abcdef", 2, 1.5)}
    assert Memory.validate_json(Memory.dump_json(asked)) == asked
    for garbage in ("", "nonsense", "[]", '{"a": 1}', '{"a": ["f", "many", 0]}', '{"a": ["f", 1]}'):
        with pytest.raises(ValueError, match="validation error"):
            Memory.validate_json(garbage)
