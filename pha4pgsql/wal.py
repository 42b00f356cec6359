"""Write-ahead log as text and numbers: segment names, the end of the last valid record. Pure.

Source of the layout: PostgreSQL's access/xlogrecord.h and xlog_internal.h (page headers of 24 bytes, 40 at the start
of a segment, records aligned to 8 bytes), the same in all supported versions.
"""

from __future__ import annotations

import re
import struct

from pha4pgsql.words import Lsn

PAGE = 8192
PAGE_HEADER = 16
"""Bytes at the beginning of a page that `page_address` needs."""
_SHORT_HEADER = 24
_LONG_HEADER = 40
_RECORD = re.compile(r"^rmgr: (\S+)\s+len \(rec/tot\):\s*\d+/\s*(\d+), .*?lsn: ([0-9A-F]+/[0-9A-F]+), .*?desc: (\S*)", re.MULTILINE)


def segment_name(timeline: int, position: Lsn, segment_size: int) -> str:
    """The name of the segment that holds the byte at `position`.

    >>> segment_name(2, Lsn.parse("0/50001B0"), 16 << 20)
    '000000020000000000000005'
    """
    number = position // segment_size
    per_id = (1 << 32) // segment_size
    return f"{timeline:08X}{number // per_id:08X}{number % per_id:08X}"


def page_address(page: bytes) -> Lsn | None:
    """The position that a page of WAL says it has (XLogPageHeaderData: magic, info, timeline, address); None for one that was never written.

    >>> page_address(bytes.fromhex("10d10700010000000000000100000000")) == Lsn.parse("0/1000000"), page_address(bytes(16)) is None
    (True, True)
    """
    magic, _, _, address = struct.unpack_from("=HHIQ", page) if len(page) >= PAGE_HEADER else (0, 0, 0, 0)
    return Lsn(address) if magic else None


def record_end(start: Lsn, length: int, segment_size: int) -> Lsn:
    """Where a record of `length` bytes ends that begins at `start`, page headers within it counted.

    >>> str(record_end(Lsn.parse("0/1FF0"), 100, 16 << 20))
    '0/2070'
    """
    position, left = int(start), length
    while left > (room := PAGE - position % PAGE):
        left -= room
        position += room
        position += _LONG_HEADER if position % segment_size == 0 else _SHORT_HEADER
    return Lsn((position + left + 7) // 8 * 8)


_END = re.compile(r"^pg_waldump: (error|fatal): (error in WAL record at|could not find a valid record after) ", re.MULTILINE)


def is_end(complaint: str) -> bool:
    """Whether pg_waldump, in failing, said that valid records end, which is how it always ends before `-e`.

    >>> is_end("pg_waldump: error: error in WAL record at 0/1CEBEB0: invalid record length at 0/1CEC060: wanted 24, got 0")
    True
    >>> is_end('pg_waldump: fatal: could not find a valid record after 0/3000000'), is_end("no end within 20 s")
    (True, False)
    """
    return bool(_END.search(complaint))


def last_record_end(dump: str, segment_size: int) -> Lsn | None:
    """The end of the last record that `pg_waldump` printed; None when it printed none.

    A switch record fills its segment: the next one begins with the next segment.
    """
    last = None
    for found in _RECORD.finditer(dump):
        last = found
    if last is None:
        return None
    manager, length, start, what = last.groups()
    end = record_end(Lsn.parse(start), int(length), segment_size)
    if manager == "XLOG" and what == "SWITCH":
        end = Lsn(-(-end // segment_size) * segment_size)
    return end


NO_HISTORY = "case %f in *.history) exit 1;; esac; "


def without_histories(restore_command: str) -> str:
    """A restore_command that fetches WAL, and no history of a timeline: that comes from the primary, before the first byte of it is streamed.

    With recovery_target_timeline=latest PostgreSQL takes the newest history that an archive has, whoever made that timeline (a test restore,
    a primary that was given up), follows it, and its position lies beyond what the set has confirmed.

    >>> without_histories("cp /archive/%f %p")
    'case %f in *.history) exit 1;; esac; cp /archive/%f %p'
    """
    return NO_HISTORY + restore_command
