"""The losses of drafts for the model that is to be trained, measured once each: a line of a file in the log's folder.

drafts that cheaper filters keep ──examples, as training makes them──▶ workers ──losses──▶ file ──▶ filter `difficulty`
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from sft.config import SourceConfig
from sft.construction.offset_table import OffsetTable
from sft.construction.script import Failed
from sft.data.record_pipeline import RecordPipeline
from sft.difficulty.loss_table import COLUMNS, QUOTIENTS, Floats
from sft.draft import Draft
from sft.json_lines import json_line, whole_lines
from sft.schema import Example, Record, RecordLocation

NOT_MEASURED = Failed("its loss is not measured yet", is_final=False)
NOTHING_TO_MEASURE = Failed("training could not use it, so its loss is not known")
_GROUP = 64
_ID_DIGITS = 16

Groups = Iterable[tuple[list[tuple[str, int]], Sequence[Example]]]
"""Groups of examples, each with the ids of its drafts and how many of the examples are theirs, in order."""
Measure = Callable[[Groups], Iterator[tuple[list[tuple[str, int]], Floats]]]
"""To each group the losses of its examples (see `sft.difficulty.example_losses`), as they come."""


class DraftLosses:
    """What is known, and what measures the rest. One process works with it."""

    def __init__(self, path: Path, pipeline: RecordPipeline, measure: Measure) -> None:
        """Read what is known.

        Args:
            path: the file, whose name tells the model and everything else that losses depend on.
            pipeline: makes examples as training does.
            measure: loads the model when it is asked.
        """
        self._path, self._pipeline, self._measure = path, pipeline, measure
        self._known = OffsetTable()
        offset = 0
        if path.is_file():
            for line in whole_lines(path):
                self._known.add(_hashed(json.loads(line)["id"]), offset)
                offset += len(line)
            with path.open("r+b") as file:  # half a line that a killed process left
                file.truncate(offset)

    def measure(self, drafts: Iterable[Draft], tell: Callable[[int], None] = lambda num: None) -> None:
        """Measure those that are not known; `tell` is called now and then with how many of the drafts are.

        Raises:
            UserError: the model cannot be loaded.
            TrainingError: the workers are lost.
        """
        num_there, num_before = 0, len(self._known)

        def lacking_ones() -> Iterator[Draft]:
            nonlocal num_there
            for draft in drafts:
                if self._find(draft.id) is None:
                    yield draft
                else:
                    num_there += 1

        lacking = lacking_ones()
        first = next(lacking, None)
        if first is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            for of, losses in self._measure(self._groups(_then(first, lacking), file)):
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
        source = SourceConfig(name="constructed", path="constructed", format="messages")
        records = [
            Record(source.name, i, RecordLocation(source.path, i + 1), {"messages": [*d.messages], "tools": [*d.tools]})
            for i, d in enumerate(drafts)
        ]
        kept, _ = self._pipeline.prepare(records, source, 0)
        of_index = {one.record_id: one.examples for one in kept}
        return [of_index.get(i, ()) for i in range(len(drafts))]

    def _add(self, file: Any, draft_id: str, losses: Sequence[float]) -> None:
        self._known.add(_hashed(draft_id), file.tell())
        file.write(json_line({"id": draft_id, "losses": [*losses]}).encode())
        file.flush()

    def _find(self, draft_id: str) -> list[float] | None:
        for offset in self._known.find(_hashed(draft_id)):
            with self._path.open("rb") as file:
                file.seek(offset)
                line = json.loads(file.readline())
            if line["id"] == draft_id:
                losses: list[float] = line["losses"]
                return losses
        return None


def _hashed(draft_id: str) -> int:
    return int(draft_id[:_ID_DIGITS], 16)


def _then(first: Draft, others: Iterator[Draft]) -> Iterator[Draft]:
    yield first
    yield from others
