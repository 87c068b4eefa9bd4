"""The losses of drafts for the model that is to be trained, measured once each: a line of a file in the log's folder.

drafts that cheaper filters keep ──examples, as training makes them──▶ workers ──losses──▶ file ──▶ filter `difficulty`
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from sft.atomic_files import fingerprint
from sft.config import DataConfig, ModelConfig, SourceConfig, TaskColumn
from sft.config_effects import inputs_of, store_inputs
from sft.construction.folder import written_to
from sft.construction.offset_table import OffsetTable
from sft.construction.script import Failed
from sft.data.record_pipeline import RecordPipeline
from sft.data.token_store import STORE_VERSION
from sft.difficulty.loss_table import COLUMNS, QUOTIENTS, Floats
from sft.draft import Draft
from sft.errors import UserError
from sft.json_lines import json_line, whole_lines
from sft.schema import Example, Record, RecordLocation

NOT_MEASURED = Failed("its loss is not measured yet", is_final=False)
NOTHING_TO_MEASURE = Failed("training could not use it, so its loss is not known")
_GROUP = 64
_ID_DIGITS = 16
_NAME_DIGITS = 12

Groups = Iterable[tuple[list[tuple[str, int]], Sequence[Example]]]
"""Groups of examples, each with the ids of its drafts and how many of the examples are theirs, in order."""
Measure = Callable[[Groups], Iterator[tuple[list[tuple[str, int]], Floats]]]
"""To each group the losses of its examples (see `sft.difficulty.example_losses`), as they come."""


def losses_name(data: DataConfig, model: ModelConfig, rendering: str, weights: object) -> str:
    """The name of the file of losses, by all that they depend on: what changes an example, or what is computed of it.

    Args:
        data: how examples are made; its sources do not matter, since drafts are a source of their own.
        model: the model; what it names counts by its content.
        rendering: the fingerprint of all that tokenizer and template do (`RecordPipeline.fingerprint`).
        weights: tells the model from others.
    """
    of_data = {name: value for name, value in store_inputs(data).items() if name != "sources"}
    of_model = {**store_inputs(model), **inputs_of(model, "numbers")}
    return f"losses-{fingerprint([STORE_VERSION, of_data, of_model, rendering, weights])[:_NAME_DIGITS]}.jsonl"


class DraftLosses:
    """What is known, and what measures the rest. One process works with it."""

    def __init__(self, path: Path, pipeline: RecordPipeline, measure: Measure) -> None:
        """Read what is known.

        Args:
            path: the file, see `losses_name`.
            pipeline: makes examples as training does.
            measure: loads the model when it is asked.

        Raises:
            UserError: a line is damaged, or the file cannot be read.
        """
        self._path, self._pipeline, self._measure = path, pipeline, measure
        self._known = OffsetTable()
        self._under_way = set[str]()
        """Drafts that are being measured: an equal one need not be."""
        if path.is_file():
            self._read()

    def measure(self, drafts: Iterable[Draft], tell: Callable[[int], None] = lambda num: None) -> None:
        """Measure those that are not known; `tell` is called now and then with how many of the drafts are.

        Raises:
            UserError: the model cannot be loaded, or the disk is full.
            TrainingError: the workers are lost.
        """
        num_there, num_before = 0, len(self._known)

        def lacking_ones() -> Iterator[Draft]:
            nonlocal num_there
            for draft in drafts:
                if draft.id not in self._under_way and self._find(draft.id) is None:
                    self._under_way.add(draft.id)
                    yield draft
                else:
                    num_there += 1

        lacking = lacking_ones()
        first = next(lacking, None)
        if first is None:
            return
        with written_to(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            opened = self._path.open("ab", buffering=0)
        with opened as file:
            for of, losses in self._measure(self._groups(chain([first], lacking), file)):
                start = 0
                for draft_id, num in of:
                    self._add(file, draft_id, losses[start : start + num].sum(axis=0).tolist())
                    start += num
                tell(num_there + len(self._known) - num_before)

    def scores(self, draft: Draft) -> Mapping[str, float] | Failed:
        """`loss` and `ifd`, NaN where one is not defined; or why they are not known."""
        found = self._find(draft.id)
        if not found:
            return NOT_MEASURED if found is None else NOTHING_TO_MEASURE
        sums = dict(zip(COLUMNS, found, strict=True))
        return {name: sums[a] / sums[b] if sums[b] else math.nan for name, (a, b) in QUOTIENTS.items()}

    def _read(self) -> None:
        offset = 0
        try:
            for number, line in enumerate(whole_lines(self._path), 1):
                try:
                    self._known.add(_hashed(json.loads(line)["id"]), offset)
                except (ValueError, KeyError, TypeError) as error:
                    raise UserError(
                        f"{self._path}:{number} is damaged ({error!r}). Remove this line: its draft is then measured "
                        f"again."
                    ) from None
                offset += len(line)
            with self._path.open("r+b") as file:  # half a line that a killed process left
                file.truncate(offset)
        except OSError as error:
            raise UserError(f"{self._path} cannot be read: {error.strerror or error}.") from error

    def _groups(self, drafts: Iterator[Draft], file: Any) -> Groups:
        while group := [*islice(drafts, _GROUP)]:
            of: list[tuple[str, int]] = []
            examples: list[Example] = []
            for draft, own in zip(group, self._examples(group), strict=True):
                if own:
                    of.append((draft.id, len(own)))
                    examples += own
                else:
                    self._add(file, draft.id, [])
            if of:
                yield of, examples

    def _examples(self, drafts: Sequence[Draft]) -> list[Sequence[Example]]:
        """Those that training would make of each; none of what it would leave out."""
        task = TaskColumn(column="task")
        source = SourceConfig(name="constructed", path="constructed", format="messages", task=task)
        fields = ({"messages": [*d.messages], "tools": [*d.tools], task.column: d.task} for d in drafts)
        records = [Record(source.name, i, RecordLocation(source.path, i + 1), of) for i, of in enumerate(fields)]
        kept, _ = self._pipeline.prepare(records, source, 0)
        of_index = {one.record_id: one.examples for one in kept}
        return [of_index.get(i, ()) for i in range(len(drafts))]

    def _add(self, file: Any, draft_id: str, losses: Sequence[float]) -> None:
        offset = file.tell()
        with written_to(self._path):
            rest = memoryview(json_line({"id": draft_id, "losses": [*losses]}).encode())
            while rest:
                rest = rest[file.write(rest) :]
        self._known.add(_hashed(draft_id), offset)
        self._under_way.discard(draft_id)

    def _find(self, draft_id: str) -> list[float] | None:
        for offset in self._known.find(_hashed(draft_id)):
            with self._path.open("rb") as file:
                file.seek(offset)
                line = json.loads(file.readline())
            if line["id"] == draft_id:
                # JSON has neither NaN nor infinity: such a loss is null there.
                return [math.nan if loss is None else loss for loss in line["losses"]]
        return None


def _hashed(draft_id: str) -> int:
    return int(draft_id[:_ID_DIGITS], 16)
