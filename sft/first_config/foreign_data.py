"""The data of another system's config, as sources of ours.

    Axolotl         datasets, test_datasets: lists of {path, type, …}
    LLaMA-Factory   dataset, eval_dataset: names in the dataset_info.json of dataset_dir
    TRL             dataset_name, or datasets: a list of {path, fraction, …}

A task is a source: shares that they give to data sets become shares of tasks.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sft.errors import UserError
from sft.first_config.commented import Said, without_comments
from sft.first_config.source_names import unique_names
from sft.foreign.keys import System
from sft.foreign.values import number
from sft.small_files import read_small_json

Theirs = Mapping[str, Any]
Source = dict[str, Any]


class ForeignData(NamedTuple):
    """Sources, which of them are held out, and what could not be converted."""

    sources: list[Source]
    held_out: list[str]
    shares: dict[str, float]
    """Source → its share of the examples; empty where each source counts by its size."""
    notes: list[str]


class _Reading(NamedTuple):
    """One data set: its source without a name, and notes."""

    source: Source
    notes: list[str]


_AXOLOTL_TYPES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "alpaca": ("instruction", {}),
    "gpteacher": ("instruction", {"output": "response"}),
    "alpaca_chat": ("instruction", {"output": "response"}),
    "alpaca_chat.load_qa": ("prompt_completion", {"prompt": "question", "completion": "answer"}),
    "alpaca_w_system.load_open_orca": (
        "prompt_completion",
        {"prompt": "question", "completion": "response", "system": "system_prompt"},
    ),
    "oasst": ("instruction", {"instruction": "INSTRUCTION", "output": "RESPONSE"}),
    "jeopardy": ("prompt_completion", {"prompt": "question", "completion": "answer"}),
    "summarizetldr": ("prompt_completion", {"prompt": "article", "completion": "summary"}),
    "metharme": ("prompt_completion", {"prompt": "prompt", "completion": "generation"}),
    "sharegpt": ("sharegpt", {}),
}
"""A dataset type of Axolotl → our format and columns."""


def read_foreign_data(system: System, theirs: Theirs) -> ForeignData:
    """The data of a config.

    Raises:
        UserError: it names none, or none that can be trained on here.
    """
    read: Callable[[Theirs], tuple[list[_Reading], list[_Reading], list[float]]] = _READERS[system]
    trained, held_out, shares = read(theirs)
    if not trained:
        raise UserError(f"the config names no data. Needed: {_NEEDED[system]}")
    names = unique_names([without_comments(reading.source["path"]) for reading in (*trained, *held_out)])
    sources = [{"name": name, **one.source} for name, one in zip(names, (*trained, *held_out), strict=True)]
    notes = [
        f"data set {name}: {note}" for name, one in zip(names, (*trained, *held_out), strict=True) for note in one.notes
    ]
    by_source = dict(zip(names, shares, strict=False)) if len(shares) == len(trained) else {}
    return ForeignData(sources, names[len(trained) :], by_source, notes)


def _read_axolotl(theirs: Theirs) -> tuple[list[_Reading], list[_Reading], list[float]]:
    trained = [_axolotl_source(entry) for entry in _mappings(theirs.get("datasets"))]
    return trained, [_axolotl_source(entry) for entry in _mappings(theirs.get("test_datasets"))], []


def _axolotl_source(entry: Theirs) -> _Reading:
    source, notes = _placed(entry), []
    kind = entry.get("type")
    if isinstance(kind, Mapping):
        source["format"] = "instruction" if kind.get("field_input") else "prompt_completion"
        prompt, answer = ("instruction", "output") if kind.get("field_input") else ("prompt", "completion")
        given = {prompt: "field_instruction", answer: "field_output", "input": "field_input", "system": "field_system"}
        source["columns"] = {ours: str(kind[name]) for ours, name in given.items() if kind.get(name)}
        notes += ["its text around prompts (format) is not used: here the chat template writes that text"]
    elif kind is None:
        source["format"] = "tokens"
    elif (name := str(kind).split(":")[0]) in _AXOLOTL_TYPES:
        form, columns = _AXOLOTL_TYPES[name]
        source |= {"format": form, **({"columns": dict(columns)} if columns else {})}
        if form != "sharegpt":
            notes.append(f"type {name} writes its own text around prompts; here the chat template does")
    elif name.startswith("chat_template"):
        keys = entry.get("message_property_mappings")
        role = keys.get("role") if isinstance(keys, Mapping) else entry.get("message_field_role")
        form, column = ("sharegpt", "conversations") if role == "from" else ("messages", "messages")
        source["format"] = form
        if (given := entry.get("field_messages", "messages")) != column:
            source["columns"] = {column: str(given)}
        if role not in (None, "from", "role"):
            notes.append(f"the key {role!r} names the role of a message; here the key is role or from")
    else:
        notes.append(f"type {kind} is unknown here: the format is found from the columns, or an error asks for it")
    if entry.get("roles_to_train") not in (None, ["assistant"], ["gpt"]):
        notes.append("roles_to_train: all answers are learned, except those with `train: false`")
    if entry.get("train_on_eos") not in (None, "turn", "all"):
        notes.append("train_on_eos: the end of each learned answer is learned too")
    notes += [f"{name} is not used" for name in ("shards", "shards_idx", "drop_system_message") if entry.get(name)]
    return _Reading(source, notes)


def _read_llama_factory(theirs: Theirs) -> tuple[list[_Reading], list[_Reading], list[float]]:
    folder = str(theirs.get("dataset_dir", "data"))
    known = _dataset_info(folder)
    most = number(theirs.get("max_samples"))
    limit = {"max_records": Said(int(most), "max_samples")} if most and most > 0 else {}

    def read(field: str) -> list[_Reading]:
        readings = [_llama_factory_source(name, folder, known) for name in _words(theirs.get(field))]
        return [_Reading(one.source | limit, one.notes) for one in readings]

    mixes = str(theirs.get("mix_strategy", "concat")).startswith("interleave")
    shares = [number(share) or 0.0 for share in _words(theirs.get("interleave_probs"))] if mixes else []
    return read("dataset"), read("eval_dataset"), [float(share) for share in shares]


def _dataset_info(folder: str) -> Mapping[str, Any] | None:
    path = Path(folder).expanduser() / "dataset_info.json"
    if folder == "ONLINE" or not path.is_file():
        return None
    content = read_small_json(path, "the list of data sets")
    return content if isinstance(content, dict) else None


def _llama_factory_source(name: str, folder: str, known: Mapping[str, Any] | None) -> _Reading:
    if folder == "ONLINE":
        return _Reading({"path": name}, [])
    entry = known.get(name) if known else None
    if not isinstance(entry, Mapping):
        path = f"{folder}/dataset_info.json"
        why = f"{path} does not list it" if known else f"{path} is not here"
        return _Reading({"path": Said(name, f"{why}: write the file's path")}, [f"{why}, so its path is not known"])
    notes = []
    if file := entry.get("file_name"):
        source: Source = {"path": str(Path(folder) / str(file))}
    else:
        source = {"path": str(entry.get("hf_hub_url", name)), **_copied(entry, {"split": "split", "subset": "subset"})}
    if entry.get("script_url") or entry.get("cloud_file_name"):
        notes.append("its location (script_url, cloud_file_name) is not used: name a file, a folder or a URL")
    if entry.get("ranking"):
        notes.append("it holds pairs of a better and a worse answer; such data cannot be trained on here")
    columns = entry.get("columns") if isinstance(entry.get("columns"), Mapping) else None
    source |= _llama_factory_format(entry, columns)
    if columns and columns.get("history"):
        notes.append("history: earlier turns go into the format messages")
    if count := number(entry.get("num_samples")):
        source["max_records"] = Said(int(count), "num_samples: the first records here, a random choice there")
    return _Reading(source, notes)


def _llama_factory_format(entry: Theirs, columns: Any) -> Source:
    if entry.get("formatting", "alpaca") == "alpaca":
        named = columns or {"prompt": "instruction", "query": "input", "response": "output"}
        has_input = bool(named.get("query"))
        prompt, answer = ("instruction", "output") if has_input else ("prompt", "completion")
        given = {prompt: named.get("prompt"), "input": named.get("query"), answer: named.get("response")}
        given["system"] = named.get("system")
        renamed = {ours: str(column) for ours, column in given.items() if column and column != ours}
        return {"format": "instruction" if has_input else "prompt_completion", **_columns(renamed)}
    tags = entry.get("tags") if isinstance(entry.get("tags"), Mapping) else {}
    is_messages = entry.get("formatting") == "openai" or (tags or {}).get("role_tag") == "role"
    column = str((columns or {}).get("messages") or "conversations")
    form, ours = ("messages", "messages") if is_messages else ("sharegpt", "conversations")
    return {"format": form, **_columns({ours: column} if column != ours else {})}


def _read_trl(theirs: Theirs) -> tuple[list[_Reading], list[_Reading], list[float]]:
    entries = _mappings(theirs.get("datasets"))
    shares = [number(entry.get("fraction")) or 0.0 for entry in entries]
    trained = [_Reading(_placed(entry), []) for entry in entries]
    if not trained and (path := theirs.get("dataset_name")):
        about = _copied(theirs, {"dataset_config": "subset"})
        trained = [_Reading({"path": str(path), **about, **_copied(theirs, {"dataset_train_split": "split"})}, [])]
        if theirs.get("eval_strategy", "no") not in ("no", False):
            split = str(theirs.get("dataset_test_split", "test"))
            return trained, [_Reading({"path": str(path), **about, "split": split}, [])], []
    return trained, [], [float(share) for share in shares] if all(shares) else []


_READERS: Mapping[System, Callable[[Theirs], tuple[list[_Reading], list[_Reading], list[float]]]] = {
    "axolotl": _read_axolotl,
    "llama_factory": _read_llama_factory,
    "trl": _read_trl,
}
_NEEDED: Mapping[System, str] = {"axolotl": "datasets", "llama_factory": "dataset", "trl": "dataset_name or datasets"}


def _placed(entry: Theirs) -> Source:
    """Path, subset, split and revision of an entry; a file named beside `path: json` is the path."""
    files = entry.get("data_files")
    path = files if isinstance(files, str) else files[0] if isinstance(files, list) and len(files) == 1 else None
    source: Source = {"path": str(path or entry.get("path") or "")}
    if isinstance(files, list) and len(files) > 1:
        source["path"] = Said(str(files[0]), f"and {len(files) - 1} more: name a folder or a pattern, or more sources")
    return source | _copied(entry, {"name": "subset", "split": "split", "revision": "revision"})


def _copied(entry: Theirs, names: Mapping[str, str]) -> Source:
    return {ours: str(entry[theirs]) for theirs, ours in names.items() if entry.get(theirs)}


def _columns(renamed: Mapping[str, str]) -> Source:
    return {"columns": dict(renamed)} if renamed else {}


def _mappings(value: Any) -> list[Theirs]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _words(value: Any) -> list[str]:
    """From a list, or from a text with commas."""
    items: Iterator[Any] = iter(value if isinstance(value, list) else str(value or "").split(","))
    return [word for item in items if (word := str(item).strip())]
