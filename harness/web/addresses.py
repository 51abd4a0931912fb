"""Which addresses a URL that a model wrote may lead to. Pure, but for the one function that asks the resolver.

The web is open to it, this machine and its network are not: no private, loopback, link-local or otherwise special address, in whatever
spelling, and none inside an IPv6 address that carries an IPv4 one. The check is made on the address that is then connected to.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from harness.errors import WebError

LONGEST_URL = 2000
_INSIDE = ("localhost", ".localhost", ".local", ".internal", ".intranet", ".lan", ".home.arpa", ".onion")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def checked_url(url: str) -> str:
    """The URL without its fragment, if it is plain http or https to a named host; raises ``WebError``, for the model to read."""
    if len(url) > LONGEST_URL:
        raise WebError(f"the address is longer than {LONGEST_URL} characters")
    if re.search(r"[\x00-\x20\x7f\\]", url):
        raise WebError(f"{url!r} is no address: it holds white space, a control character or a backslash")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise WebError(f"{url!r} is no address: {error}") from error
    if parts.scheme not in ("http", "https"):
        raise WebError(f"{url!r}: only http:// and https:// addresses can be visited")
    if not host:
        raise WebError(f"{url!r} names no host")
    if parts.username is not None or parts.password is not None:
        raise WebError(f"{url!r}: addresses with a user name or password are not visited")
    if "%" in host:
        raise WebError(f"{url!r}: the host holds a percent sign")
    name = host.rstrip(".").lower()
    if not name or name == "localhost" or name.endswith(_INSIDE):
        raise WebError(f"{url!r} is not on the public web")
    if literal := _literal(name):
        check_address(literal)
    return parts._replace(fragment="").geturl()


def check_address(address: Address) -> None:
    """Raise ``WebError`` unless ``address``, and every address inside it, belongs to the public internet."""
    for each in (address, *_inside(address)):
        site_local = isinstance(each, ipaddress.IPv6Address) and each.is_site_local
        if not each.is_global or each.is_multicast or each.is_reserved or site_local:
            raise WebError(f"{address} is not on the public web")


async def public_addresses(host: str, port: int) -> list[str]:
    """Addresses of ``host``, every one of them public; raises ``WebError`` if one is not, or if there is none."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise WebError(f"the host {host!r} cannot be found") from error
    addresses = list(dict.fromkeys(str(place[4][0]).partition("%")[0] for place in found))
    for address in addresses:
        check_address(ipaddress.ip_address(address))
    if not addresses:
        raise WebError(f"the host {host!r} cannot be found")
    return addresses


def _literal(host: str) -> Address | None:
    """The address that a host spells out, in any form that C libraries take: ``127.1``, ``0x7f.1``, ``017700000001``, ``2130706433``."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    if not re.fullmatch(r"[0-9a-fx.]+", host) or not host[0].isdigit():
        return None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _inside(address: Address) -> Iterator[Address]:
    """IPv4 addresses that an IPv6 one carries: mapped, compatible, 6to4, Teredo, NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    if address.ipv4_mapped:
        yield address.ipv4_mapped
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo
    if address in _NAT64 or address in _COMPATIBLE:
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
