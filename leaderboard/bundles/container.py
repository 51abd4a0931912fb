"""The file of a bundle: a zip archive whose comment is an Ed25519 signature over every byte before it.

Any zip program opens it. The signature covers the whole file, so no byte can change unseen, archive fields included; the key that
made it stands in ``manifest.json``. Members are read with limits: a submitted bundle is hostile until proven otherwise.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from harness.errors import DataError
from leaderboard.bundles.keys import SIGNATURE_BYTES, public_name, signature_fits

VERSION = 1
MANIFEST, EVENTS, TRANSCRIPTS = "manifest.json", "events.jsonl", "transcripts.sealed"
MEMBERS = (MANIFEST, EVENTS, TRANSCRIPTS)
MOST_BYTES = 2**30  # unpacked, all members together
UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError),
    *(ValueError, LookupError, TypeError, NotImplementedError, RuntimeError),
)
"""What reading a damaged archive may raise."""
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same records give the same archive


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle's parts; ``problems`` says what does not fit together, in words (empty: signed and whole)."""

    manifest: Mapping[str, Any]
    events: bytes
    transcripts: bytes
    problems: tuple[str, ...]

    @property
    def run_id(self) -> str:
        return str(self.manifest.get("run_id"))

    @property
    def signer(self) -> str:
        return str(self.manifest.get("signer"))


def pack(manifest: Mapping[str, Any], events: bytes, transcripts: bytes, key: Ed25519PrivateKey) -> bytes:
    """The bytes of a signed bundle; hashes and the signer's name are added to the manifest."""
    parts = {EVENTS: events, TRANSCRIPTS: transcripts}
    full = {"version": VERSION, "signer": public_name(key.public_key()), **manifest, "sha256": {n: digest(b) for n, b in parts.items()}}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {MANIFEST: json.dumps(full, indent=1, ensure_ascii=True).encode(), **parts}.items():
            kind = zipfile.ZIP_STORED if name == TRANSCRIPTS else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content, compress_type=kind)
        archive.comment = bytes(SIGNATURE_BYTES)
    signed = buffer.getvalue()[:-SIGNATURE_BYTES]
    return signed + key.sign(signed)


def unpack(content: bytes, most: int = MOST_BYTES) -> Bundle:
    """Read a bundle. Raises DataError if it cannot be read at all; whatever else is wrong is told in ``problems``."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = sorted(archive.namelist())
            if names != sorted(MEMBERS):
                raise DataError(f"the bundle holds {names[:9]}, expected {sorted(MEMBERS)}")
            size = sum(info.file_size for info in archive.infolist())
            if size > most:
                raise DataError(f"the bundle unpacks to {size} bytes, at most {most} are read")
            manifest, events, transcripts = (_read(archive, name, most) for name in MEMBERS)
        told = json.loads(manifest)
        hashes = dict(told["sha256"])
        version, signer = told["version"], told["signer"]
    except UNREADABLE as error:
        raise DataError(f"not a result bundle, or one that was changed: {error}") from error
    if version != VERSION:
        raise DataError(f"the bundle has version {version!r}, this harness reads {VERSION}; use the one that made it")
    problems = []
    if not signature_fits(str(signer), content[-SIGNATURE_BYTES:], content[:-SIGNATURE_BYTES]):
        problems.append(f"the signature is not that of {str(signer)[:100]} over this file: it was changed after it was signed")
    for name, part in ((EVENTS, events), (TRANSCRIPTS, transcripts)):
        if digest(part) != hashes.get(name):
            problems.append(f"{name}: SHA-256 is {digest(part)}, the manifest says {hashes.get(name)}")
    return Bundle(manifest=told, events=events, transcripts=transcripts, problems=tuple(problems))


def digest(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def _read(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    with archive.open(name) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise DataError(f"{name} unpacks to more than {most} bytes")
    return content
