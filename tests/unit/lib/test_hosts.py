"""What is a private address, in each of the ways in which one can be written."""

import socket

import pytest

from skyscript_assets.lib.errors import RefusedError
from skyscript_assets.lib.hosts import kind_of, private_hosts, refuse_by_name, refuse_private

PRIVATE = {
    "0.0.0.0": "unspecified",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "169.254.10.1": "link-local",
    "169.254.169.254": "cloud metadata",
    "100.100.100.200": "cloud metadata",
    "168.63.129.16": "cloud metadata",
    "192.0.0.192": "cloud metadata",
    "10.1.2.3": "private",
    "172.16.0.1": "private",
    "192.168.1.1": "private",
    "198.18.0.1": "private",
    "100.64.0.1": "reserved",
    "224.0.0.1": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    "::": "unspecified",
    "::1": "loopback",
    "fe80::1": "link-local",
    "fe80::1%eth0": "link-local",
    "fd00::1": "private",
    "fd00:ec2::254": "cloud metadata",
    "fec0::1": "reserved",
    "ff02::1": "multicast",
    "::127.0.0.1": "reserved",
    "::ffff:127.0.0.1": "loopback",
    "::ffff:169.254.169.254": "cloud metadata",
    "64:ff9b::10.0.0.1": "private",
    "64:ff9b::a9fe:a9fe": "cloud metadata",
    "64:ff9b:1::7f00:1": "reserved",
    "2002:7f00:1::1": "loopback",
    "2001:0:7f00:1::": "private",
}


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_of_the_open_internet_is_called_by_its_kind(address: str) -> None:
    assert kind_of(address) == PRIVATE[address]
    with pytest.raises(RefusedError, match=r"x\.org leads to .* `allow_private_hosts`"):
        refuse_private("x.org", address, frozenset())


@pytest.mark.parametrize("address", ["1.1.1.1", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"])
def test_public_addresses_pass_in_whatever_form(address: str) -> None:
    assert kind_of(address) is None
    refuse_private("x.org", address, frozenset())


def test_hosts_that_the_settings_state_may_be_private_and_no_others() -> None:
    known = private_hosts(["maps.lan", ".intra.org"], "http://Catalog.lan.:8080/stac", None, "https://[fd00::1]/x")
    for host in ("maps.lan", "a.intra.org", "catalog.lan", "fd00::1"):
        refuse_private(host, "10.0.0.1", known)
    for host in ("lan", "x.maps.lan", "intra.org", "xintra.org", "10.0.0.1"):
        with pytest.raises(RefusedError, match="a private address"):
            refuse_private(host, "10.0.0.1", known)


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "168.63.129.16"])
def test_a_name_that_is_known_cannot_be_turned_into_a_metadata_address(address: str) -> None:
    with pytest.raises(RefusedError, match=f"name '{address}' in"):
        refuse_private("catalog.lan", address, frozenset({"catalog.lan"}))
    refuse_private(address, address, frozenset({address}))


def test_one_private_address_among_those_of_a_name_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, 1, 6, "", (address, 0)) for address in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
    with pytest.raises(RefusedError, match=r"leads to 10\.0\.0\.1"):
        refuse_by_name("two.org", frozenset())
    refuse_by_name("two.org", frozenset({"two.org"}))


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 70, "a..b", ""])
def test_what_has_no_address_is_left_to_the_connection(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str, *args: object, **kwargs: object) -> None:
        name.encode("idna")
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    refuse_by_name(host, frozenset())
