"""Which files of a folder belong to the split and the subset of a source: the layouts of data sets on the Hub.

    what shows it                                      splits                     subsets
    README.md with `configs:` in its YAML              `data_files`               `config_name`
    dataset_dict.json, state.json (`save_to_disk`)     their folders              folders
    paths (see `split_names`)                          train, test, …             folders

Without `split`: all files where the layout shows no splits; else `train`; else an error asks the user. So no test set
is trained on because a setting is missing, and no setting is without effect.
"""

import posixpath
import re
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Literal, NamedTuple

from fsspec.utils import glob_translate

from sft.config import SourceConfig
from sft.data.reading.data_set_metadata import CardConfig, Tree, read_configs, read_saved
from sft.data.reading.split_names import split_meant, splits_in_path
from sft.errors import UserError

ALL = "all"
"""The split that contains every file, as `datasets` calls it."""

Kind = Literal["file", "folder", "pattern"]
"""What a source's path is."""


class Layout(NamedTuple):
    """The files of each split, and those of no split."""

    splits: dict[str, list[str]]
    others: list[str]


def choose_files(source: SourceConfig, place: str, kind: Kind, tree: Tree) -> list[str]:
    """The names of the files to read; `place` begins every message.

    Raises:
        UserError: the layout does not show what the source asks for, or the source has to say more.
    """
    if kind == "folder":
        folder, layout = _layout_of_folder(source.subset, place, tree)
    elif source.subset is not None:
        raise UserError(
            f"{place}: subset: {source.subset} is given, but only folders and data sets on the Hub have subsets. "
            "Remove it."
        )
    else:
        folder, layout = "", _layout_by_paths(place, tree)
    return [posixpath.join(folder, name) for name in sorted(_choose(source.split, place, kind, layout))]


def _choose(split: str | None, place: str, kind: Kind, layout: Layout) -> Iterable[str]:
    splits, others = layout
    of_splits = [name for names in splits.values() for name in names]
    everything = {*of_splits, *others}
    there = ", ".join(splits)
    if split == ALL or (split is None and (not splits or kind == "file")):
        return everything
    if split is not None and split in splits:
        return splits[split]
    those = f"there {'is' if len(splits) == 1 else 'are'} {there}"
    way_out = f"Write {f'one of {there}' if len(splits) > 1 else f'`split: {there}`'}, or `split: {ALL}` for all files."
    if split is not None and splits:
        raise UserError(f"{place}: there is no split {split}; {those}. {way_out}")
    if split is not None:
        raise UserError(f"{place}: split: {split} is given, but no name there shows a split. Remove it.")
    if kind == "pattern":
        if len(splits) == 1 or "train" not in splits:
            return everything  # the pattern says which
        raise UserError(f"{place}: files of the splits {there} match: it is unclear what to train on. {way_out}")
    if others:
        raise UserError(
            f"{place}: the names of some files show a split ({there}: {_some(of_splits)}), those of others do not "
            f"({_some(others)}): it is unclear what to train on. {way_out}"
        )
    if "train" in splits:
        return splits["train"]
    if len(splits) == 1 and split_meant(there) not in ("validation", "test"):
        return everything
    raise UserError(f"{place}: there is no split train; {those}. {way_out}")


def _layout_of_folder(subset: str | None, place: str, tree: Tree) -> tuple[str, Layout]:
    """The folder that the names of the layout are relative to, and the layout."""
    configs = read_configs(place, tree)
    if configs:
        chosen = _choose_config(subset, place, configs)
        inside = tree.below(chosen.folder) if chosen.folder else tree
        find = partial(_layout_of_config, chosen) if chosen.splits else _layout_by_paths
        return chosen.folder, find(place, inside)
    if subset is None:
        return "", _layout_by_paths(place, tree)
    folder = subset.strip("/")
    inside = tree.below(folder)
    if not inside.data:
        folders = sorted({name.partition("/")[0] for name in tree.data if "/" in name})
        there = f"there are {', '.join(folders)}" if folders else "no folder in it holds records"
        raise UserError(f"{place}: there is no subset {subset}: {there}. Correct `subset`, or remove it.")
    return folder, _layout_by_paths(place, inside)


def _layout_by_paths(place: str, tree: Tree) -> Layout:
    """By what `save_to_disk` wrote beside the files, else by their paths."""
    saved = read_saved(place, tree)
    splits: dict[str, list[str]] = {}
    others = []
    for name in tree.data:
        folder, file = posixpath.split(name)
        if folder in saved and file.endswith(".arrow"):
            if file not in saved[folder].files:
                continue  # a cache of `datasets`
            named = (saved[folder].split,) if saved[folder].split else splits_in_path(f"{folder}/-")
        else:
            named = splits_in_path(name)
        if len(named) == 1:
            splits.setdefault(named[0], []).append(name)
        else:
            others.append(name)
    return Layout(splits, others)


def _choose_config(subset: str | None, place: str, configs: dict[str, CardConfig]) -> CardConfig:
    there = ", ".join(configs)
    if subset is not None:
        if subset not in configs:
            raise UserError(f"{place}: there is no subset {subset}: its README names {there}. Correct `subset`.")
        return configs[subset]
    defaults = [name for name, found in configs.items() if found.is_default] or [n for n in configs if n == "default"]
    if len(configs) > 1 and len(defaults) != 1:
        raise UserError(f"{place}: its README names the subsets {there}. Write one of them as `subset`.")
    return configs[defaults[0] if defaults else there]


def _layout_of_config(chosen: CardConfig, place: str, tree: Tree) -> Layout:
    splits: dict[str, list[str]] = {}
    for split, patterns in chosen.splits.items():
        known = [re.compile(glob_translate(pattern.removeprefix("./"))) for pattern in patterns]
        splits[split] = [name for name in tree.data if any(pattern.match(name) for pattern in known)]
        if not splits[split]:
            raise UserError(
                f"{place}: no file of records is there for the split {split} of its README ({', '.join(patterns)}). "
                "Copy the whole data set, or name the files by a pattern."
            )
    return Layout(splits, [])


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(sorted(names)[:2]) + more
