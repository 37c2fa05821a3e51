from skyscript_assets.lib.osm.meaning import SIGHT


def test_uses_of_buildings_are_told_where_things_may_be_in_the_open() -> None:
    (told,) = (rule.value for rule in SIGHT.untold if rule.value.startswith("^(?!(carport"))
    assert set(told.removeprefix("^(?!(").removesuffix(")$)").split("|")) == SIGHT.open_buildings
