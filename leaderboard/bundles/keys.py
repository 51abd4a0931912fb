"""Keys of result bundles: an Ed25519 pair that signs, and a secret that seals transcripts. Files are readable by their owner only.

Who signs: the person who ran the run, with the key that this machine made on first use. A public key is written as
``ed25519:`` and 64 hex digits; it is trusted by being told (by its owner, outside of the bundle), never because a bundle names it.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from harness.errors import DataError, HarnessError

PREFIX = "ed25519:"
SIGNATURE_BYTES = 64
NONCE_BYTES = 12


def signing_key(home: Path) -> Ed25519PrivateKey:
    """The key in ``home/signing.key``, made on first use."""
    path = home / "signing.key"
    if not path.exists():
        write_secret(path, Ed25519PrivateKey.generate().private_bytes_raw())
    return Ed25519PrivateKey.from_private_bytes(read_secret(path))


def public_name(key: Ed25519PublicKey) -> str:
    """``ed25519:`` and the raw key in hex."""
    return PREFIX + key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def parse_public(text: str) -> Ed25519PublicKey:
    """Inverse of ``public_name``. Raises DataError for anything else."""
    try:
        raw = bytes.fromhex(text.strip().removeprefix(PREFIX))
        return Ed25519PublicKey.from_public_bytes(raw)
    except ValueError as error:
        raise DataError(
            f"{text[:100]!r} is no public key: expected {PREFIX} and 64 hex digits, as `harness leaderboard key` prints"
        ) from error


def signature_fits(public: str, signature: bytes, signed: bytes) -> bool:
    """Whether the owner of ``public`` signed exactly these bytes."""
    try:
        parse_public(public).verify(signature, signed)
    except (InvalidSignature, DataError):
        return False
    return True


def seal(secret: bytes, plain: bytes, bound_to: bytes) -> bytes:
    """Nonce and ChaCha20-Poly1305 ciphertext; ``bound_to`` is authenticated with it (the run's id), so it fits no other bundle."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + ChaCha20Poly1305(secret).encrypt(nonce, plain, bound_to)


def unseal(secret: bytes, sealed: bytes, bound_to: bytes) -> bytes:
    """Inverse of ``seal``. Raises DataError for another key or changed bytes."""
    try:
        return ChaCha20Poly1305(secret).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to)
    except (InvalidTag, ValueError) as error:
        raise DataError("the key does not open the transcripts: it belongs to another bundle, or they were changed") from error


def new_secret() -> bytes:
    """A key for the transcripts of one bundle (32 bytes)."""
    return ChaCha20Poly1305.generate_key()


def write_secret(path: Path, secret: bytes) -> None:
    """Write a key in hex, for its owner's eyes only; an existing file is never replaced."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secret.hex() + "\n")
    except FileExistsError as error:
        raise HarnessError(f"{path} exists; keys are not overwritten: move it away or choose another name") from error


def read_secret(path: Path) -> bytes:
    """A key of 32 bytes from its file. Raises DataError if it is none."""
    try:
        secret = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except FileNotFoundError as error:
        raise DataError(f"no such key file: {path}") from error
    except ValueError as error:
        raise DataError(f"{path} holds no key: expected 64 hex digits") from error
    if len(secret) != 32:
        raise DataError(f"{path} holds {len(secret)} bytes, expected a key of 32 (64 hex digits)")
    return secret
