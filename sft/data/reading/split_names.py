"""Which split of a data set a file belongs to, by its path: the rules that `datasets` has for folders without a README.

    data/train_sft-00000-of-00002.parquet   →   train_sft      in a folder `data`, a shard's name
    a/test/x.jsonl, a/my-eval.v2/x.jsonl    →   test           a folder's name
    a/dev.jsonl, a/gsm8k-train.jsonl.gz     →   validation, train

A keyword stands between dots, dashes, underscores, spaces or digits. Unlike in `datasets`, case does not count:
otherwise a lone `Test.csv` would be trained on.
"""

import re
from collections.abc import Sequence

from datasets.data_files import NON_WORDS_CHARS, SPLIT_KEYWORDS

_SHARD = re.compile(r"data/(\w+(?:\.\w+)*)-\d{5}-of-\d{5}[^/]*\.[^/]*")
_SEPARATOR = f"[{NON_WORDS_CHARS}]"
_KEYWORD = re.compile(
    rf"(?:^|{_SEPARATOR})(?:{'|'.join(f'(?P<{s}>' + '|'.join(words) + ')' for s, words in SPLIT_KEYWORDS.items())})"
    rf"(?={_SEPARATOR}|$)",
    re.IGNORECASE,
)


def splits_in_path(path: str) -> tuple[str, ...]:
    """The splits that a path, relative to the data set's folder, names: none, one, or several where it is unclear."""
    if shard := _SHARD.fullmatch(path):
        return (shard[1],)
    *folders, name = path.split("/")
    return _named(folders) or _named([name])


def split_meant(split: str) -> str:
    """`train`, `validation` or `test` where the split's name has one of their keywords; else the name itself."""
    return (*_named([split]), split)[0]


def _named(parts: Sequence[str]) -> tuple[str, ...]:
    found = (str(match.lastgroup) for part in parts for match in _KEYWORD.finditer(part))
    return tuple(dict.fromkeys(found))
