"""Which servers may be asked: what others state leads into no private network, unless the settings name the host."""

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from skyscript_assets.lib.errors import RefusedError

METADATA = {"169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"}
"""Where clouds give their machines credentials (AWS, Google, Azure, Oracle, Alibaba)."""

_NAT64, _ALLOCATED = ip_network("64:ff9b::/96"), ip_network("2000::/3")
_KINDS = ("unspecified", "loopback", "link_local", "multicast", "reserved", "private")


def kind_of(address: str) -> str | None:
    """What keeps an address from being one of the open Internet, such as `loopback`; None where nothing does."""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        inner = ip.sixtofour or (IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else ip.ipv4_mapped)
        if inner is not None:
            return kind_of(str(inner))
    if str(ip) in METADATA:
        return "cloud metadata"
    kind = next((kind.replace("_", "-") for kind in _KINDS if getattr(ip, f"is_{kind}")), None)
    return kind or (None if ip.is_global and (ip.version == 4 or ip in _ALLOCATED) else "reserved")


def private_hosts(allowed: Iterable[str], *stated: str | None) -> frozenset[str]:
    """The hosts that may be private: those that the settings allow, and those of the addresses that they state."""
    return frozenset(filter(None, [*allowed, *((urlsplit(url).hostname or "").rstrip(".") for url in stated if url)]))


def refuse_private(host: str, address: str, known: frozenset[str]) -> None:
    """Refuse to ask a host at an address, unless that is public or the host is among the `known` ones.

    A leading dot covers subdomains. Of link-local and metadata addresses it is the address that must be known: whoever
    owns a name can let it stand for one.

    Raises:
        RefusedError: it is refused.
    """
    kind = kind_of(address)
    name = address if kind in ("link-local", "cloud metadata") else host
    if kind and name not in known and not any(part.startswith(".") and name.endswith(part) for part in known):
        raise RefusedError(
            f"{host} leads to {address}, a {kind} address, and no server may lead there: if it is yours, name {name!r} "
            "in `allow_private_hosts` of the source or region"
        )


def refuse_by_name(host: str, known: frozenset[str]) -> None:
    """Refuse a host whose name stands for a private address now; one without an address passes.

    Raises:
        RefusedError: it is refused.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return
    for *_, address in found:
        refuse_private(host, str(address[0]), known)
