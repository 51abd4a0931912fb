"""Question sets that their publishers keep out of plain text: base64 over XOR, decrypted in memory only, and sealed again in the run log.

The cipher hides text from crawlers and from anyone who greps a log; the key lies beside it, so it keeps no secret from a reader
who wants one.
"""

from __future__ import annotations

import base64
import hashlib
import json
from itertools import cycle
from typing import Any

from harness.errors import DataError


def decrypt(text: str, key: bytes) -> str:
    """Plain text of a base64 field; ``key`` is repeated as often as needed. Raises ``DataError`` where no UTF-8 comes out.

    What is plain already is refused as well: nothing then says that the rest of the file is as it was published.
    """
    if not text.isascii():
        raise DataError(
            "holds plain text, expected base64 of the cipher; name the file as it was published: it is decrypted in memory only"
        )
    try:
        return _xor(base64.b64decode(text, validate=True), key).decode()
    except ValueError as error:  # binascii.Error and UnicodeDecodeError
        raise DataError("does not decrypt to UTF-8 text; the file or its canary was changed") from error


def encrypt(text: str, key: bytes) -> str:
    """The inverse of ``decrypt``."""
    return base64.b64encode(_xor(text.encode(), key)).decode()


def digest_key(canary: str) -> bytes:
    """The 32 bytes of SHA-256 of a canary: the key of sets that do not use the canary itself."""
    return hashlib.sha256(canary.encode()).digest()


def seal(name: str, value: Any) -> str:
    """JSON data in cipher, keyed by ``name``.

    >>> unseal("task-1", seal("task-1", ["甲", 1]))
    ['甲', 1]
    """
    return encrypt(json.dumps(value, ensure_ascii=False), digest_key(name))


def unseal(name: str, text: str) -> Any:
    """What ``seal`` hid under the same name. Raises ``DataError`` for another name or a damaged text."""
    try:
        return json.loads(decrypt(text, digest_key(name)))
    except ValueError as error:
        raise DataError(f"the sealed text of {name!r} is damaged; the log was changed after it was written") from error


def _xor(data: bytes, key: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(data, cycle(key), strict=False))
