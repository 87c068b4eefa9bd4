"""What a plan is made from: whether a published plan has the same inputs, and if not, how they differ.

A plan's manifest holds all of its inputs, including those of the token store. So a message can name each leaf that
differs (`data.sources.dolly.content`) instead of two fingerprints.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from sft.atomic_files import is_published, read_manifest
from sft.config import SftConfig
from sft.config_effects import Effect, completed, inputs_of, sections_of
from sft.data.token_store import TokenStore
from sft.errors import UserError
from sft.printable import shortened
from sft.run_folder import RunFolder

_OF_STAGES: tuple[Effect, ...] = ("plan", "budget")
"""Effects of fields that stage plans depend on, in addition to those of all plans."""

_MAX_DIFFERENCES = 12
_MAX_VALUE_CHARS = 60


def stage_inputs(config: SftConfig, index: int, store: TokenStore) -> dict[str, Any]:
    """Everything that a stage's plan depends on."""
    earlier, stage = config.replayable(index), config.stages[index]
    return {
        **data_inputs(config, store),
        **_inputs(config, *_OF_STAGES),
        **inputs_of(stage, *_OF_STAGES),
        "replayed": {k: inputs_of(earlier[k], *_OF_STAGES) for k in earlier if k in stage.mixture.replay},
        "pack_len_tokens": config.pack_len_tokens(index),  # the stage's own, or the one for all stages
    }


def heldout_inputs(config: SftConfig, store: TokenStore) -> dict[str, Any]:
    """Everything that the plan of the held-out examples depends on; their packs fit every stage."""
    return {
        **data_inputs(config, store),
        **_inputs(config, "measured"),
        "pack_len_tokens": min(config.pack_len_tokens(i) for i in range(len(config.stages))),
    }


def data_inputs(config: SftConfig, store: TokenStore) -> dict[str, Any]:
    """What every plan of a run depends on, including that of the held-out examples."""
    return {"store": store.path.name, "data": store.manifest["inputs"], **_inputs(config, "split")}


def planned_inputs(config: SftConfig, plan: Mapping[str, Any], index: int | None = None) -> dict[str, Any]:
    """The inputs in a plan's manifest; those that an earlier version lacked are filled in (see `config_effects`).

    Args:
        config: the current config.
        plan: the manifest.
        index: the stage's index; None for the plan of the held-out examples.
    """
    inputs = {**plan["inputs"]}
    effects: tuple[Effect, ...] = ("split", *(("measured",) if index is None else _OF_STAGES))
    for section in (*sections_of(config), *(() if index is None else (config.stages[index],))):
        whole = completed(section, inputs)
        inputs |= {key: whole[key] for key in inputs_of(section, *effects)}
    if index is not None:
        earlier = config.replayable(index)
        replayed = inputs["replayed"].items()
        inputs["replayed"] = {k: completed(earlier[k], value) if k in earlier else value for k, value in replayed}
    return inputs


def _inputs(config: SftConfig, *effects: Effect) -> dict[str, Any]:
    """The fields with these effects, from all sections except the stages."""
    return {key: value for section in sections_of(config) for key, value in inputs_of(section, *effects).items()}


def check_data(run: RunFolder, stage: Path, data: Mapping[str, Any]) -> None:
    """Refuse other data before preparing it, which may take long.

    Args:
        run: the run.
        stage: the plan of its first stage.
        data: the inputs of the token store that is to be made.

    Raises:
        UserError: steps were trained on other data.
    """
    if run.has_trained() and is_published(stage):
        planned = read_manifest(stage)["inputs"]
        if planned["data"] != data:
            refuse(stage, planned, planned | {"data": data})


def refuse(path: Path, planned: Mapping[str, Any], now: Mapping[str, Any]) -> NoReturn:
    """Raises: UserError: always; the message shows how the inputs of the plan at `path` differ."""
    raise UserError(
        f"{path} was planned with other data or settings, and its checkpoints count the steps of that plan:\n"
        + "\n".join(f"  {line}" for line in differences(planned, now))
        + "".join(f"\n{line}" for line in _of_reviewed(planned, now))
        + "\nSet them back to resume this run, or give run.dir a new folder to start another."
    )


def _of_reviewed(planned: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What has changed of constructed sources, whose content is what people have approved."""
    before, after = _contents(planned), _contents(now)
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            yield (
                f"{name}: other records are approved than when this run began: people have decided since, or the "
                f"records were made anew. To go on, take the new decisions back (`u` in `sft review`), or put back the "
                f"earlier files. A run trains undisturbed on a copy: `sft review DATA --approved FILE`."
            )


def _contents(inputs: Mapping[str, Any]) -> dict[str, Any]:
    sources = inputs.get("data", {}).get("sources", ())
    return {source["name"]: source.get("content") for source in sources if source.get("constructed")}


def differences(planned: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line for each leaf in which two nested mappings differ."""
    before, after = dict(_leaves(planned)), dict(_leaves(now))
    changed = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    if any(key.startswith("data.") for key in changed):
        changed = [key for key in changed if key != "store"]  # only the fingerprint of the differences listed
    lines = [f"{key}: planned {_shown(before, key)}, now {_shown(after, key)}" for key in changed[:_MAX_DIFFERENCES]]
    return [*lines, f"… and {len(changed) - len(lines)} more"] if len(changed) > len(lines) else lines


def shown_value(value: Any) -> str:
    """The value as messages about differences show it."""
    return shortened(repr(value), _MAX_VALUE_CHARS)


def _leaves(content: Any, path: Sequence[str] = ()) -> Iterator[tuple[str, Any]]:
    """Dotted path and value; mappings in a list are found by their `name`."""
    if isinstance(content, list) and content and all(isinstance(item, dict) and "name" in item for item in content):
        content = {item["name"]: item for item in content}
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _leaves(value, (*path, str(key)))
    else:
        yield ".".join(path), content


def _shown(leaves: Mapping[str, Any], key: str) -> str:
    return shown_value(leaves[key]) if key in leaves else "nothing"
