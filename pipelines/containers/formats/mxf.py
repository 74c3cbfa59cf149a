"""Says whether the essence (pictures and sound) of an MXF file is whole.

Sources: SMPTE ST 377-1 6.3 (KLV coding), 6.5 (run-in), 7.1 (partition pack), 11 (index tables).
"""

from __future__ import annotations

from pipelines.containers.formats.header_bytes import HeaderBytes
from pipelines.containers.formats.verdict import WHOLE, Completeness, ends_before, ends_within

_PARTITION = bytes.fromhex("060e2b34020501010d01020101")
_INDEX = bytes.fromhex("060e2b3402530101")  # index tables, and other sets of metadata
_KEY, _FOOTER_FIELD = 16, 24  # bytes of a key; offset in a partition pack of where the footer starts
_MOST_RUN_IN = 1 << 16  # bytes before the first partition


def mxf_completeness(file: HeaderBytes) -> Completeness:
    """Whether the file reaches up to its footer, or if that is not known, whether its last item is whole."""
    run_in = file.at(0, _MOST_RUN_IN + _KEY).find(_PARTITION)
    if run_in < 0:
        return WHOLE
    value, _ = _value(file, run_in)
    footer = file.big(value + _FOOTER_FIELD, 8)
    if footer:
        expected = run_in + footer
        return ends_before(file.size, expected) if expected > file.size else WHOLE
    at = run_in
    while at < file.size:
        key = file.at(at, _KEY)
        value, size = _value(file, at)
        if key[:4] != _PARTITION[:4]:
            return WHOLE
        if value + size > file.size:
            return WHOLE if key.startswith((_PARTITION, _INDEX)) else ends_within("a frame")
        at = value + size
    return WHOLE


def _value(file: HeaderBytes, at: int) -> tuple[int, int]:
    """Where the value of the item at `at` starts, and its size in bytes (ST 377-1 6.3.4, BER long and short form)."""
    length = file.big(at + _KEY, 1)
    if length < 0x80:
        return at + _KEY + 1, length
    return at + _KEY + 1 + (length & 0x7F), file.big(at + _KEY + 1, length & 0x7F)
