"""In what the small files of an exported folder differ from those that the run would write: the likely causes."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CONFIG, _GENERATION, _TEMPLATE = "config.json", "generation_config.json", "chat_template.jinja"
_JSON = (_CONFIG, _GENERATION, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_NOT_COMPARED = ("transformers_version", "local_files_only", "_name_or_path", "_from_model_config")
_OF_ANSWERS = (
    *("eos_token_id", "pad_token_id", "bos_token_id", "min_length", "min_new_tokens", "num_beams", "suppress_tokens"),
    *("repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "sequence_bias"),
    *("begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id", "guidance_scale"),
)
"""Of a generation config: settings that change answers that are not sampled."""
_MOST = 8
_SHOWN_CHARS = 80
_MISSING = object()


@dataclass(frozen=True, slots=True)
class FileDifference:
    """A difference of one file."""

    file: str
    text: str
    """What is there, and what the run writes."""
    matters: bool = True
    """Whether prompts, probabilities or greedy answers may depend on it."""

    def __str__(self) -> str:
        """As a sentence."""
        return f"{self.file}: {self.text}"


def differing_files(folder: Path, expected: Path) -> list[FileDifference]:
    """The differences of config, generation config, tokenizer, template and code.

    Args:
        folder: the exported model.
        expected: a folder in which the run has written the same files.
    """
    found: list[FileDifference] = []
    for path in sorted(expected.iterdir()):
        name, other = path.name, folder / path.name
        if not path.is_file():
            continue
        if not other.is_file():
            found.append(FileDifference(name, "it is missing"))
        elif name in _JSON:
            found += _of_json(name, other, json.loads(path.read_text(encoding="utf-8")))
        elif other.read_bytes() != path.read_bytes():
            found.append(FileDifference(name, _first_line(other, path)))
    if (folder / _TEMPLATE).is_file() and not (expected / _TEMPLATE).is_file():
        found.append(FileDifference(_TEMPLATE, "the run writes none"))
    return found


def _of_json(name: str, path: Path, expected: Any) -> list[FileDifference]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        return [FileDifference(name, f"it is not JSON: {error}")]
    differences = list(_differences(content, expected, ""))
    more = [FileDifference(name, f"{len(differences) - _MOST} more differences")] if len(differences) > _MOST else []
    return [
        FileDifference(
            name,
            f"{where} is {_shown(there)}; the run writes {_shown(right)}",
            name != _GENERATION or where.partition(".")[0] in _OF_ANSWERS,
        )
        for where, there, right in differences[:_MOST]
    ] + more


def _differences(found: Any, expected: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """(the keys, what is there, what is expected) of each value that differs."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        for key in {**expected, **found}:
            if key not in _NOT_COMPARED:
                place = f"{where}.{key}" if where else str(key)
                yield from _differences(found.get(key, _MISSING), expected.get(key, _MISSING), place)
    elif found != expected:
        yield where, found, expected


def _first_line(found: Path, expected: Path) -> str:
    there, right = (path.read_text(encoding="utf-8", errors="replace").splitlines() for path in (found, expected))
    for number, pair in enumerate(zip(there, right, strict=False), 1):
        if pair[0] != pair[1]:
            return f"line {number} is {_shown(pair[0])}; the run writes {_shown(pair[1])}"
    return f"it has {len(there)} lines; the run writes {len(right)}"


def _shown(value: Any) -> str:
    if value is _MISSING:
        return "not there"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…"
