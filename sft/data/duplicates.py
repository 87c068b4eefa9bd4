"""Finds records that say the same: the same prompt (prompt hash), all of it equal (content hash), or nearly equal.

Each record becomes a few numbers, wherever it is prepared, and duplicates are found from these numbers alone. Of
several duplicates the first in the order of the records stays. So the result does not depend on how the records were
cut into blocks, nor on who prepared them.

Near duplicates are found by MinHash (Broder, 1997) over the runs of five words of each record: the share of equal
places in two signatures estimates the share of runs that the two records have in common.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sft.schema import BoolArray, Conversation, IntArray, JsonObject, Message, TokenizedRecord

Hashes = npt.NDArray[np.uint64]

NUM_PERMUTATIONS = 128
SHINGLE_WORDS = 5
_SHINGLES_AT_ONCE = 4096
_FACTOR = np.uint64(0x9E3779B97F4A7C15)

# Python counts these as white space, so no normalised text holds them.
_PART, _TURN = "\x1f", "\x1e"


class RecordHashes(NamedTuple):
    """64-bit hashes of a record; white space and case do not count in texts."""

    prompt: int
    """Equal for equal prompts: all turns before the first answer to a user. An answer that opens the conversation (a
    greeting) is part of the prompt. System text and tools are not: the same question with others is the same prompt,
    with mostly the same answer. For token ids: those before the first learned one."""
    content: int
    """Equal where everything that is trained on is equal, the system text too. Roles, tool calls, tools and which
    answers are learned count; names of calls, the task and the source do not."""


def hash_record(content: Conversation | TokenizedRecord) -> RecordHashes:
    """The hashes that tell whether two records ask or say the same."""
    if isinstance(content, TokenizedRecord):
        ids, mask = content.example.input_ids, content.example.loss_mask
        learned = np.flatnonzero(mask)
        return RecordHashes(_hash_ids(ids[: learned[0] if len(learned) else None]), _hash_ids(ids, mask))
    messages = content.messages
    turns = [_turn_text(message) for message in messages]
    asked = next((i for i, message in enumerate(messages) if message.role == "user"), len(messages))
    answered = next((i for i in range(asked, len(messages)) if messages[i].role == "assistant"), len(messages))
    marked = [turn if m.train else f"{turn}{_PART}not learned" for turn, m in zip(turns, messages, strict=True)]
    tools = [_json_text(tool) for tool in content.tools]
    asking = [turn for turn, m in zip(turns[:answered], messages, strict=False) if m.role != "system"]
    return RecordHashes(_hash_text(_TURN.join(asking)), _hash_text(_TURN.join([*marked, *tools])))


def minhash(content: Conversation | TokenizedRecord) -> npt.NDArray[np.uint32]:
    """The MinHash signature, (NUM_PERMUTATIONS,), of the runs of five words (or of five token ids).

    A record shorter than five words is one run. Words are separated by white space. A script without white space has
    few words, so there only texts that are nearly equal throughout count as similar.
    """
    if isinstance(content, TokenizedRecord):
        words = content.example.input_ids.astype(np.uint64) * _FACTOR
    else:
        text = " ".join(_turn_text(message) for message in content.messages).replace(_PART, " ")
        words = np.array([*map(zlib.crc32, text.encode("utf-8", "surrogatepass").split())], dtype=np.uint64)
    width = min(SHINGLE_WORDS, len(words))
    num_shingles = len(words) - width + 1
    shingles = np.zeros(num_shingles, dtype=np.uint64)
    for i in range(width):
        shingles = (shingles + words[i : i + num_shingles]) * _FACTOR
    values = _mixed((shingles >> np.uint64(32)).astype(np.uint32))
    least = np.full(NUM_PERMUTATIONS, np.iinfo(np.uint32).max, dtype=np.uint32)
    factors, terms = _permutations()
    for start in range(0, num_shingles, _SHINGLES_AT_ONCE):
        permuted = values[start : start + _SHINGLES_AT_ONCE, None] * factors
        permuted += terms
        np.minimum(least, permuted.min(axis=0), out=least)
    return least


@cache
def _permutations() -> npt.NDArray[np.uint32]:
    """Factors and terms of the package's `affine32`, whose own loop turns arrays into lists and back: that takes longer
    than all else."""
    from datasketch import MinHash  # noqa: PLC0415  (0.6 s, for scipy; every `sft train` imports this module)

    permutations: npt.NDArray[np.uint32] = MinHash(NUM_PERMUTATIONS, scheme="affine32").permutations
    return permutations


def _mixed(values: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """The finalizer of MurmurHash3."""
    values = (values ^ (values >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    values = (values ^ (values >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))


def find_duplicates(content_hashes: Hashes) -> IntArray:
    """For each record, (num_records,), the first record that equals it: itself where it is the first."""
    firsts = np.arange(len(content_hashes))
    for members, starts in equal_groups(content_hashes):
        firsts[members] = np.repeat(members[starts[:-1]], np.diff(starts))
    return firsts


def equal_groups(hashes: Hashes) -> Iterator[tuple[IntArray, IntArray]]:
    """The records with equal hashes, a sixteenth of the hashes at a time, so that sorting takes little memory.

    Yields:
        Records, group behind group, rising in each; and where each group starts, with the end: (num_groups + 1,).
    """
    parts = (hashes >> np.uint64(60)).astype(np.uint8)
    for part in range(16):
        members = np.flatnonzero(parts == part)
        order = np.argsort(hashes[members], kind="stable")
        members = members[order]
        ordered = hashes[members]
        is_start = np.ones(len(members) + 1, dtype=bool)
        is_start[1:-1] = ordered[1:] != ordered[:-1]
        if len(members):
            yield members, np.flatnonzero(is_start)


def _turn_text(message: Message) -> str:
    parts = [message.role, _normalise(message.full_text)]
    parts += [f"{_normalise(call.name)} {_json_text(call.arguments)}" for call in message.tool_calls]
    return _PART.join(parts)


def _normalise(text: str) -> str:
    return " ".join(text.lower().split())


def _json_text(value: JsonObject) -> str:
    return _normalise(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str))


def _hash_text(text: str) -> int:
    return _digest(text.encode("utf-8", "surrogatepass"))


def _hash_ids(ids: IntArray, loss_mask: BoolArray | None = None) -> int:
    mask = b"" if loss_mask is None else np.packbits(loss_mask).tobytes()
    return _digest(b"ids" + ids.astype("<i8").tobytes() + mask)


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
