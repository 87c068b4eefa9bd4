"""What the first bytes of a file show, whatever its name is: how it is compressed, or why it holds no records."""

import re

HEAD_BYTES = 4096
"""The number of bytes that are read."""
TEXT_ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")

_COMPRESSED = (
    (re.compile(rb"\x1f\x8b"), ".gz"),
    (re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"), ".bz2"),
    (re.compile(rb"\xfd7zXZ\x00"), ".xz"),
    (re.compile(rb"\x28\xb5\x2f\xfd"), ".zst"),
)
_NO_RECORDS = (
    (
        re.compile(rb"version https://git-lfs\.github\.com/spec/"),
        "it is a Git LFS pointer, not the file itself. Fetch the file with `git lfs pull`",
    ),
    (
        re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head|body|\?xml)\b", re.IGNORECASE),
        "it is a web page (HTML or XML), which a server may send in place of a file. Download the file itself",
    ),
    (re.compile(rb"PK(?:\x03\x04|\x05\x06)"), "it is a zip archive (or an Excel file). Unpack or export it"),
    (re.compile(rb"%PDF-"), "it is a PDF"),
)
_NO_TEXT = (
    (re.compile(rb"PAR1[\x00-\x1f]"), "it is Parquet. Rename it to end in .parquet"),
    (re.compile(rb"ARROW1\x00"), "it is Arrow. Rename it to end in .arrow"),
    # The mark of UTF-32 begins with that of UTF-16.
    (re.compile(rb"\xff\xfe\x00\x00|\x00\x00\xfe\xff"), "it is UTF-32. Save it as UTF-8"),
    (re.compile(rb"\xff\xfe|\xfe\xff|(?:[\t-~]\x00){4}|(?:\x00[\t-~]){4}"), "it is UTF-16. Save it as UTF-8"),
    (re.compile(rb"\x00{16}"), "it begins with zero bytes, as after an interrupted copy. Copy it again"),
)


def find_compression(head: bytes) -> str:
    """The ending of the compression that the bytes show, or the empty string."""
    return next((ending for begins, ending in _COMPRESSED if begins.match(head)), "")


def why_no_records(head: bytes, ending: str) -> str | None:
    """Why a file with this head, uncompressed, and this `ending` cannot hold records; None where it may."""
    if find_compression(head):
        return "it is compressed twice. Unpack it once"
    known = _NO_RECORDS + _NO_TEXT if ending in TEXT_ENDINGS else _NO_RECORDS
    return next((reason for begins, reason in known if begins.match(head)), None)
