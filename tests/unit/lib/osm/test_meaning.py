from skyscript_assets.lib.osm.meaning import MEANING


def test_uses_of_buildings_are_told_where_things_may_be_in_the_open() -> None:
    (told,) = (rule.value for rule in MEANING.untold if rule.value.startswith("^(?!(carport"))
    assert set(told.removeprefix("^(?!(").removesuffix(")$)").split("|")) == MEANING.open_buildings
