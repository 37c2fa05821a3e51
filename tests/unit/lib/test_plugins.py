from collections.abc import Callable

import pytest

from skyscript_assets.lib import plugins
from skyscript_assets.lib.errors import SettingsError
from skyscript_assets.lib.settings.sources import SOURCE_KINDS

Install = Callable[..., None]


def test_what_is_packaged_is_registered() -> None:
    packaged = {"earthengine", "files", "stac", "synthetic", "wms", "wmts", "xyz"}
    assert packaged <= plugins.registered(SOURCE_KINDS).keys()


def test_a_package_adds_to_a_group(install_package: Install) -> None:
    install_package("mine", {SOURCE_KINDS: {"mine": "mine_module:KIND"}}, {"mine_module": "KIND = 'my kind'"})
    assert plugins.load(SOURCE_KINDS, "mine") == "my kind"


def test_a_name_that_nobody_registers_is_told_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match=r"no installed package registers 'drone'; known are earthengine, files, "):
        plugins.load(SOURCE_KINDS, "drone")


@pytest.mark.parametrize(
    ("module", "value", "reason"),
    [
        ("import no_such_package", "broken:KIND", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("KIND = 1", "broken:KINDS", "AttributeError"),
        ("1 / 0", "broken:KIND", "ZeroDivisionError"),
        ("", "elsewhere.module:KIND", "ModuleNotFoundError"),
    ],
)
def test_what_cannot_be_imported_names_its_package_and_entry_point_when_it_is_used(
    install_package: Install, module: str, value: str, reason: str
) -> None:
    install_package("bad-package", {SOURCE_KINDS: {"bad": value}}, {"broken": module})
    assert plugins.load(SOURCE_KINDS, "files").needs_objects is False
    with pytest.raises(SettingsError, match=f"package bad-package registers 'bad' as {value}.*{reason}"):
        plugins.load(SOURCE_KINDS, "bad")


def test_a_name_of_two_packages_is_refused_when_it_is_used(install_package: Install) -> None:
    install_package("second", {SOURCE_KINDS: {"files": "second:KIND"}}, {"second": "KIND = 1"})
    assert plugins.load(SOURCE_KINDS, "stac").needs_objects is False
    with pytest.raises(SettingsError, match="packages second and skyscript-assets all register 'files': uninstall"):
        plugins.load(SOURCE_KINDS, "files")


def test_metadata_older_than_the_code_say_install_again(install_package: Install) -> None:
    install_package("skyscript-assets", {"console_scripts": {"skyscript": "skyscript_assets.cli:main"}})
    with pytest.raises(SettingsError, match="install it again .`make install`."):
        plugins.load(SOURCE_KINDS, "files")
