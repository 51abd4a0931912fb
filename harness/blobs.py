"""Frames of a blob file: nested data with its number arrays packed, compressed, length-prefixed and CRC-checked.

Pure functions on bytes; which file a frame lies in is the run log's business (harness.events). A frame is

    uint32 length of the body | uint32 CRC-32 of the body | body = zlib(uint32 skeleton length | skeleton JSON | arrays)

all little-endian. In the skeleton every non-empty list of whole numbers below 2**32 stands as ``{"u32": [offset, count]}``,
every non-empty list of floats as ``{"f32": [offset, count]}``; everything else is plain JSON. Floats come back at single precision.
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import RunLogError

HEADER = struct.Struct("<II")
_SIZE = struct.Struct("<I")
_CODES = {"u32": "I", "f32": "f"}


def encode_frame(data: Mapping[str, Any]) -> bytes:
    """One frame holding ``data``. Raises ``RunLogError`` for values that JSON cannot hold."""
    arrays = bytearray()
    try:
        skeleton = json.dumps(_pack(data, arrays), separators=(",", ":")).encode()
    except (TypeError, OverflowError) as error:
        raise RunLogError(f"a blob may hold numbers, text, lists and mappings only: {error}") from error
    body = zlib.compress(_SIZE.pack(len(skeleton)) + skeleton + bytes(arrays))
    return HEADER.pack(len(body), zlib.crc32(body)) + body


def decode_frame(frame: bytes, where: str) -> dict[str, Any]:
    """The data of one frame. Raises ``RunLogError`` naming ``where`` if it is torn or damaged."""
    if len(frame) < HEADER.size:
        raise RunLogError(f"{where}: the blob is torn ({len(frame)} bytes, a frame has at least {HEADER.size})")
    length, crc = HEADER.unpack_from(frame)
    body = frame[HEADER.size :]
    if len(body) != length:
        raise RunLogError(f"{where}: the blob is torn (its body has {len(body)} of {length} bytes)")
    if zlib.crc32(body) != crc:
        raise RunLogError(f"{where}: the blob fails its CRC-32 check; the file was changed after it was written")
    raw = zlib.decompress(body)
    (size,) = _SIZE.unpack_from(raw)
    start = _SIZE.size + size
    unpacked: dict[str, Any] = _unpack(json.loads(raw[_SIZE.size : start]), memoryview(raw)[start:])
    return unpacked


def _pack(value: Any, arrays: bytearray) -> Any:
    if isinstance(value, Mapping):
        return {key: _pack(item, arrays) for key, item in value.items()}
    if not isinstance(value, list | tuple):
        return value
    kind = _array_kind(value)
    if kind is None:
        return [_pack(item, arrays) for item in value]
    offset = len(arrays)
    arrays += _little_endian(array(_CODES[kind], value)).tobytes()
    return {kind: [offset, len(value)]}


def _array_kind(values: Sequence[Any]) -> str | None:
    if values and all(type(v) is int and 0 <= v < 2**32 for v in values):
        return "u32"
    if values and all(type(v) is float for v in values):
        return "f32"
    return None


def _unpack(value: Any, arrays: memoryview) -> Any:
    if isinstance(value, list):
        return [_unpack(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((kind, place),) = value.items()
        if kind in _CODES:
            offset, count = place
            numbers: array[Any] = array(_CODES[kind])
            numbers.frombytes(arrays[offset : offset + 4 * count])
            return _little_endian(numbers).tolist()
    return {key: _unpack(item, arrays) for key, item in value.items()}


def _little_endian(numbers: array[Any]) -> array[Any]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
