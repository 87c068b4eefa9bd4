"""Metadata beside the files of a data set that says which files belong to it: a README, `save_to_disk`'s files.

README.md           configs: [{config_name, data_files, data_dir, default}] in the YAML at its start
dataset_dict.json   {splits: [train, test]}: a folder for each
state.json          {_data_files: [{filename}], _split}: other Arrow files beside them are caches
"""

import json
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import yaml
from datasets import config
from datasets.data_files import FILES_TO_IGNORE, SANITIZED_DEFAULT_SPLIT

from sft.errors import UserError

_STATE, _DICT = config.DATASET_STATE_JSON_FILENAME, config.DATASETDICT_JSON_FILENAME


class Tree(NamedTuple):
    """What lies below a folder, or below the part of a pattern before its wildcards, by relative paths."""

    names: frozenset[str]
    """All files."""
    data: Sequence[str]
    """Files whose endings show that they hold records, without metadata; sorted."""
    read: Callable[[str], bytes]
    """The content of a small file."""

    def below(self, folder: str) -> "Tree":
        """The tree of a folder in it."""
        start = f"{folder}/"
        names = frozenset(name.removeprefix(start) for name in self.names if name.startswith(start))
        data = [name.removeprefix(start) for name in self.data if name.startswith(start)]
        return Tree(names, data, lambda name: self.read(start + name))


class CardConfig(NamedTuple):
    """One of the subsets that a README names."""

    splits: dict[str, list[str]]
    """Split → patterns of its files; empty where the paths say it."""
    folder: str
    """The folder that the patterns are relative to; empty for the README's own folder."""
    is_default: bool


class Saved(NamedTuple):
    """A folder that `save_to_disk` wrote."""

    files: tuple[str, ...]
    split: str
    """Empty where it does not say."""


def is_metadata(name: str, names: frozenset[str]) -> bool:
    """Whether the file holds no records, but describes the files beside it."""
    folder, file = posixpath.split(name)
    if file == _STATE:
        beside = [other for other in names if posixpath.dirname(other) == folder]
        return any(other.endswith((".arrow", config.DATASET_INFO_FILENAME)) for other in beside)
    return file in FILES_TO_IGNORE


def read_configs(place: str, tree: Tree) -> dict[str, CardConfig]:
    """The subsets that the README names, in its order; none where it names none.

    Raises:
        UserError: its `configs` cannot be understood.
    """
    if config.REPOCARD_FILENAME not in tree.names:
        return {}
    text = tree.read(config.REPOCARD_FILENAME).decode(errors="replace")
    head = re.match(r"\ufeff?---[ \t]*\r?\n(.*?)\r?\n---", text, re.DOTALL)
    if head is None or not re.search(r"^configs\s*:", head[1], re.MULTILINE):
        return {}
    try:
        # All scalars stay text, and nothing is merged: no content can make the parsed value much larger than the file.
        listed = yaml.load(head[1], yaml.BaseLoader)["configs"]
        return {str(each["config_name"]): _as_config(each) for each in listed}
    except (yaml.YAMLError, LookupError, TypeError, ValueError, RecursionError):
        raise UserError(
            f"{place}: the `configs` in its {config.REPOCARD_FILENAME} cannot be understood. Correct them, or name the "
            "files by a pattern."
        ) from None


def _as_config(given: Mapping[str, Any]) -> CardConfig:
    files = given.get("data_files") or []
    files = [files] if isinstance(files, str) else files
    splits: dict[str, list[str]] = {}
    for each in files:
        split, paths = (each["split"], each["path"]) if isinstance(each, dict) else (SANITIZED_DEFAULT_SPLIT, each)
        patterns = [paths] if isinstance(paths, str) else paths
        if not all(isinstance(text, str) and "://" not in text for text in (split, *patterns)):
            raise ValueError("patterns must be texts, and match files that are here")
        splits.setdefault(split, []).extend(patterns)
    folder = given.get("data_dir") or ""
    return CardConfig(splits, folder.removeprefix("./").strip("/"), given.get("default") == "true")


def read_saved(place: str, tree: Tree) -> dict[str, Saved]:
    """Folder → what `save_to_disk` wrote there.

    Raises:
        UserError: a listed file is missing, or only some of its rows are meant.
    """
    declared = {
        posixpath.dirname(name): _read_json(place, tree, name).get("splits")
        for name in tree.names
        if posixpath.basename(name) == _DICT
    }
    saved = {}
    for name in sorted(tree.names):
        folder, file = posixpath.split(name)
        state = _read_json(place, tree, name) if file == _STATE and is_metadata(name, tree.names) else {}
        if not state.get("_data_files"):
            continue
        if state.get("_indices_files") or state.get("_indices_data_files"):
            raise UserError(f"{place}: {name} picks some rows of its files. Load and save the data set again.")
        files = tuple(str(each["filename"]) for each in state["_data_files"])
        if missing := [each for each in files if posixpath.join(folder, each) not in tree.names]:
            raise UserError(f"{place}: {name} lists {missing[0]}, which is not there. Copy the whole data set.")
        parent, last = posixpath.split(folder)
        split = str(state.get("_split") or "")
        if last in (declared.get(parent) or ()):
            split = last
        saved[folder] = Saved(files, split if re.fullmatch(r"\w+(\.\w+)*", split) else "")
    return saved


def _read_json(place: str, tree: Tree, name: str) -> dict[str, Any]:
    try:
        content = json.loads(tree.read(name))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{place}: {name} is damaged. Copy the whole data set again.")
    return content
