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
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from datasketch import MinHash, MinHashLSH

from sft.schema import BoolArray, Conversation, IntArray, JsonObject, Message, TokenizedRecord

Hashes = npt.NDArray[np.uint64]

NUM_PERMUTATIONS = 128
SHINGLE_WORDS = 5
_CANDIDATE_PROBABILITY = 0.95
"""The probability that two records exactly as similar as the config asks for are compared at all."""
_SHINGLES_AT_ONCE = 4096
_FACTOR = np.uint64(0x9E3779B97F4A7C15)

# Python counts these as white space, so no normalised text holds them.
_PART, _TURN = "\x1f", "\x1e"


class RecordHashes(NamedTuple):
    """64-bit hashes of a record; white space and case do not count in texts."""

    prompt: int
    """Equal for equal prompts: all turns before the first answer to a user. An answer that opens the conversation (a
    greeting) is part of the prompt. Tools are not: the same question with other tools is the same prompt. For token
    ids: those before the first learned one."""
    content: int
    """Equal where everything that is trained on is equal. Roles, tool calls, tools and which answers are learned count;
    names of calls, the task and the source do not."""


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
    return RecordHashes(_hash_text(_TURN.join(turns[:answered])), _hash_text(_TURN.join([*marked, *tools])))


def minhash(content: Conversation | TokenizedRecord) -> npt.NDArray[np.uint32]:
    """The MinHash signature, (NUM_PERMUTATIONS,), of the runs of five words (or of five token ids).

    A record shorter than five words is one run. Words are separated by white space. A script without white space has
    few words, so there only texts that are nearly equal throughout count as similar.
    """
    if isinstance(content, TokenizedRecord):
        words = content.example.input_ids.astype(np.uint64) * _FACTOR
    else:
        texts = " ".join(_turn_text(message) for message in content.messages).split()
        words = np.array([zlib.crc32(w.encode("utf-8", "surrogatepass")) for w in texts], dtype=np.uint64)
    width = min(SHINGLE_WORDS, len(words))
    num_shingles = len(words) - width + 1
    shingles = np.zeros(num_shingles, dtype=np.uint64)
    for i in range(width):
        shingles = (shingles + words[i : i + num_shingles]) * _FACTOR
    values = (shingles >> np.uint64(32)).tolist()
    sketch = _EMPTY.copy()
    for start in range(0, num_shingles, _SHINGLES_AT_ONCE):
        sketch.update_batch(values[start : start + _SHINGLES_AT_ONCE])
    return np.asarray(sketch.hashvalues, dtype=np.uint32)


# The values are hashes already. Drawing the permutations takes longer than hashing a record: all sketches share these.
_EMPTY = MinHash(NUM_PERMUTATIONS, hashfunc=int, scheme="affine32")


def find_duplicates(content_hashes: Hashes) -> IntArray:
    """For each record, (num_records,), the first record that equals it: itself where it is the first."""
    _, firsts, groups = np.unique(content_hashes, return_index=True, return_inverse=True)
    return np.asarray(firsts[groups])


def find_near_duplicates(signatures: npt.NDArray[np.uint32], alive: BoolArray, similarity: float) -> IntArray:
    """For each record, (num_records,), the first kept record that is similar enough to it: itself where it is kept.

    Each record, in order, is compared with those kept so far that agree with it in at least one band of the signature.
    Bands are as long as they can be while 95 % of the pairs with just this similarity are compared. More similar pairs
    are compared nearly always, equal ones always.

    Args:
        signatures: (num_records, NUM_PERMUTATIONS), in the order of the records.
        alive: (num_records,), False for records that are left out already. They are compared with nothing.
        similarity: above 0 and at most 1, as the share of equal places in two signatures.
    """
    firsts = np.arange(len(signatures))
    index = MinHashLSH(num_perm=NUM_PERMUTATIONS, params=_bands(similarity))
    needed = similarity * NUM_PERMUTATIONS
    # Most records agree with no other in any band. They are kept without an entry in the index, which is large.
    for i in np.flatnonzero(alive)[_agree_in_a_band(signatures, alive, index.hashranges)].tolist():
        signature = np.asarray(signatures[i])
        sketch = MinHash(hashvalues=signature, permutations=_EMPTY.permutations, hashfunc=int, scheme="affine32")
        candidates = np.sort(np.array(index.query(sketch), dtype=np.int64))
        equal_places = np.count_nonzero(signatures[candidates] == signature, axis=1)
        similar = candidates[equal_places >= needed]
        if len(similar):
            firsts[i] = similar[0]
        else:
            index.insert(i, sketch, check_duplication=False)
    return firsts


def _bands(similarity: float) -> tuple[int, int]:
    """The number and the length of the bands; at least two bands."""
    for length in range(NUM_PERMUTATIONS // 2, 1, -1):
        number = NUM_PERMUTATIONS // length
        if 1 - (1 - similarity**length) ** number >= _CANDIDATE_PROBABILITY:
            return number, length
    return NUM_PERMUTATIONS, 1


def _agree_in_a_band(signatures: npt.NDArray[np.uint32], alive: BoolArray, bands: list[tuple[int, int]]) -> BoolArray:
    """For each record that is alive, whether another one agrees with it in all places of one of the bands."""
    agree = np.zeros(np.count_nonzero(alive), dtype=bool)
    for start, end in bands:
        hashes = np.zeros(len(agree), dtype=np.uint64)
        for place in range(start, end):
            hashes = (hashes ^ signatures[alive, place]) * _FACTOR
            hashes ^= hashes >> np.uint64(32)
        _, groups, sizes = np.unique(hashes, return_inverse=True, return_counts=True)
        agree |= sizes[groups] > 1
    return agree


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
