"""Addresses that a model may not be led to, in every spelling that some parser or resolver understands."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any

import pytest

from harness.errors import WebError
from harness.web.addresses import check_address, checked_url, public_addresses

HOSTILE = [
    "http://127.0.0.1/",
    "http://127.0.0.1:8080/admin",
    "http://127.1/",
    "http://127.0.1/",
    "http://0/",
    "http://0.0.0.0/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0x7F.1/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://0177.0.0.01/",
    "http://localhost/",
    "http://LOCALHOST/",
    "http://localhost./",
    "http://a.localhost/",
    "http://printer.local/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://0xa9fea9fe/",
    "http://2852039166/",
    "http://10.0.0.1/",
    "http://10.1/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.0.1/",
    "http://192.168.1/",
    "http://100.64.0.1/",
    "http://198.18.0.1/",
    "http://192.0.2.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://[::1]/",
    "http://[::]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::127.0.0.1]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fc00::1]/",
    "http://[fd12:3456:789a::1]/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b::10.0.0.1]/",
    "http://[2002:7f00:1::]/",
    "http://[2002:c0a8:0101::1]/",
    "http://[2001:0:4136:e378:8000:63bf:80ff:fffe]/",
    "http://[2001:db8::1]/",
    "http://user@example.com/",
    "http://user:secret@example.com/",
    "http://example.com@127.0.0.1/",
    "http://example.com\\@127.0.0.1/",
    "http://127.0.0.1\\.example.com/",
    "http://exam ple.com/",
    "http://example.com/\r\nHost: localhost",
    "http://example.com\t/",
    "http://%6c%6f%63%61%6c%68%6f%73%74/",
    "http://example.com:99999/",
    "http://[::1/",
    "http:///etc/passwd",
    "http://",
    "//example.com/",
    "example.com",
    "file:///etc/passwd",
    "ftp://example.com/",
    "gopher://127.0.0.1:70/_x",
    "javascript:alert(1)",
    "data:text/html,hello",
    "unix:///var/run/docker.sock",
    "http://example.com/" + "a" * 2000,
]


@pytest.mark.parametrize("url", HOSTILE, ids=lambda url: url[:50])
def test_a_hostile_address_is_refused(url: str) -> None:
    with pytest.raises(WebError):
        checked_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/",
        "http://example.com:8080/a?b=c%20d",
        "https://zh.wikipedia.org/wiki/青岚山",
        "http://8.8.8.8/",
        "https://[2606:4700:4700::1111]/",
        "https://10.example.com/",
        "https://127.0.0.1.example.com/",
        "https://abc.de/",
    ],
)
def test_an_address_of_the_public_web_is_taken(url: str) -> None:
    assert checked_url(url) == url
    assert checked_url(f"{url}#part") == url


@pytest.mark.parametrize("form", ["۱۲۷.۰.۰.۱", "１２７.０.０.１", "127。0。0。1", "ⓛocalhost"])
def test_other_scripts_spell_no_private_address(form: str) -> None:
    """Either the spelling is refused, or what the resolver makes of it is."""
    with pytest.raises(WebError):
        asyncio.run(public_addresses(checked_url(f"http://{form}/").split("/")[2], 80))


def test_a_name_is_refused_if_any_of_its_addresses_is_not_public(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolver(*addresses: str) -> Any:
        async def getaddrinfo(self: object, host: str, port: int, **_: object) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

        return getaddrinfo

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolver("8.8.8.8", "1.1.1.1"))
    assert asyncio.run(public_addresses("two.example", 80)) == ["8.8.8.8", "1.1.1.1"]
    for bad in ("127.0.0.1", "10.0.0.7", "::1", "fe80::1%eth0", "::ffff:192.168.0.1"):
        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolver("8.8.8.8", bad))
        with pytest.raises(WebError, match="not on the public web"):
            asyncio.run(public_addresses("rebound.example", 80))


def test_public_addresses_pass_and_special_ones_do_not() -> None:
    check_address(ipaddress.ip_address("2606:4700:4700::1111"))
    check_address(ipaddress.ip_address("2002:0808:0808::1"))
    with pytest.raises(WebError):
        check_address(ipaddress.ip_address("2002:0a00:0001::1"))
