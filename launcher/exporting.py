"""The verb `export`: writes the model of a checkpoint, compares it in use, and shows what was found."""

from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from transformers.utils import logging

from launcher.console import styled
from launcher.exit_codes import DONE, FAILED
from sft.atomic_files import read_manifest
from sft.checkpoint.rank_file import CheckpointReader
from sft.data.rendering.chat_template import load_tokenizer
from sft.endpoint.client import EndpointClient
from sft.endpoint.endpoint import Endpoint
from sft.errors import UserError
from sft.hub_answers import check_hub_answers
from sft.parity.parity_result import ParityResult, write_result
from sft.printable import counted
from sft.run_folder import RunFolder, check_of
from sft.training.checkpoint_export import RunModel, Wanted, export_checkpoint, find_model, is_there
from sft.training.export_check import check_export
from sft.training.exported_folder import ExportedFolder, read_exported
from sft.world import World


class Asked(NamedTuple):
    """What the user wants."""

    stage: str | None
    step: Wanted
    to: Path | None
    dtype: str | None


def export(
    run: RunFolder, asked: Asked, console: Console, checks: bool, device: str | None, endpoint: Endpoint | None
) -> int:
    """Export a model of the run, and check it if asked to; returns the exit code.

    Raises:
        UserError: there is no such checkpoint, or the folder holds something else.
    """
    world, client = _world(device), EndpointClient(endpoint) if endpoint else None
    try:
        model = find_model(run, asked.stage, asked.step)
        _prepare(model)
        dtype = asked.dtype or model.config.model.dtype
        folder = (asked.to or model.folder(dtype)).expanduser().resolve()
        exported = ExportedFolder(folder, model, dtype)
        if was_there := is_there(model, folder, dtype):
            _say_where(exported, console, was_there)
            if not checks:
                return DONE
        with model.opened() as reader:
            if not was_there:
                export_checkpoint(model, reader, load_tokenizer(model.config.model), folder, dtype)
                _say_where(exported, console, was_there)
            return _check(exported, reader, console, world, client) if checks else DONE
    except OSError as error:
        console.print(styled("[red]The model cannot be exported:[/] {}", str(error)), soft_wrap=True)
        return FAILED


def check_folder(path: Path, console: Console, device: str | None, endpoint: Endpoint | None) -> int:
    """Check a model that a run has exported; returns the exit code.

    Raises:
        UserError: it is none.
    """
    world, client = _world(device), EndpointClient(endpoint) if endpoint else None
    exported = read_exported(path)
    _prepare(exported.model)
    with exported.model.opened_if_there() as reader:
        return _check(exported, reader, console, world, client)


def _prepare(model: RunModel) -> None:
    if not Path(model.config.model.path).is_dir():
        check_hub_answers(model.config)
    logging.disable_progress_bar()


def _world(device: str | None) -> World:
    found = "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device or found)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda") or (chosen.type == "cuda" and found == "cpu"):
        raise UserError(f"--device {device}: there is no such device here. Give cpu, or a GPU such as cuda:0.")
    return World(device=str(chosen))


def _say_where(exported: ExportedFolder, console: Console, was_there: bool) -> None:
    folder, model, _ = exported
    manifest = read_manifest(folder)
    size = decimal(sum(file["num_bytes"] for file in manifest["files"].values()))
    text = f"stage {model.stage.name} after {counted(model.step, 'step')}, {manifest['dtype']}, {size}"
    console.print(f"{text}{': it was there already' if was_there else ''}", highlight=False, markup=False)
    console.print(str(folder), highlight=False, markup=False, soft_wrap=True)


def _check(
    exported: ExportedFolder,
    reader: CheckpointReader | None,
    console: Console,
    world: World,
    client: EndpointClient | None,
) -> int:
    def say(text: str) -> None:
        console.print(f"comparing: {text}", highlight=False, markup=False)

    result = check_export(exported, reader, world, say=say, endpoint=client)
    kept = check_of(exported.path)
    try:
        write_result(kept, result)
    except OSError as error:
        console.print(f"{kept} cannot be written: {error.strerror}", highlight=False, markup=False, soft_wrap=True)
    _show(result, console)
    return DONE if result.is_equal else FAILED


def _show(result: ParityResult, console: Console) -> None:
    table = Table("compared", title="the folder beside the trained model", title_justify="left", title_style="bold")
    table.add_column("number", justify="right")
    table.add_column("different", justify="right")
    for check in result.checks:
        table.add_row(check.name, f"{check.num_compared:,}", f"{check.num_different:,}" if check.num_different else "–")
    console.print(table)
    for check in result.checks:
        if check.num_different:
            console.print(styled("[red]{}[/]: {}", check.name, check.first), highlight=False, soft_wrap=True)
    if result.causes:
        title = "likely causes" if not result.is_equal else "files that differ from what the run writes"
        console.print(f"{title}:", highlight=False)
        for cause in result.causes:
            console.print(f"  {cause}", highlight=False, markup=False, soft_wrap=True)
    for note in [*(note for check in result.checks for note in check.notes), *result.notes]:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    colour = "green" if result.is_equal else "red"
    text = f"{result.in_words[:1].upper()}{result.in_words[1:]}."
    console.print(styled(f"[{colour}]{{}}[/]", text), highlight=False, soft_wrap=True)
