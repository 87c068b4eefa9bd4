"""The questions of a run: made from held-out records, and published in the run folder."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, cast

from sft.atomic_files import fingerprint, is_published, publish_folder, read_manifest, write_lines, written_aside
from sft.config import SftConfig, SourceConfig
from sft.config_effects import inputs_of
from sft.data.block_preparer import BlockPreparer
from sft.data.formats.formatting import expand_record
from sft.data.formats.grading import Grading, read_grading
from sft.data.learned_stops import learned_stop_ids
from sft.data.planning.holdout import check_tasks
from sft.data.planning.pack_plan import PackPlan
from sft.data.planning.plan_inputs import data_inputs
from sft.data.planning.trainable import unseen_tasks
from sft.data.reading.sources import read_records
from sft.data.record_pipeline import Formatted
from sft.data.rendering.chat_template import control_ids, load_tokenizer
from sft.data.rendering.inference import generation_stops
from sft.data.rendering.renderer import UNMARKED_THOUGHTS
from sft.data.token_store import TokenStore
from sft.errors import RecordError, UserError
from sft.json_lines import json_line
from sft.printable import counted
from sft.questions.choosing import Chosen, RecordKey, choose_records, giving_nothing_away, order_of_showing
from sft.questions.prompts import Prompt, PromptWriter, reference_of, up_to_last_learned
from sft.questions.question import QUESTIONS, Option, Question, Way, questions_in
from sft.schema import Conversation, JsonObject, Record, TokenizedRecord
from sft.scoring.own_function import OwnFunction
from sft.scoring.registry import read_score
from sft.thoughts import without_thought

_VERSION = 5


UNREAD_CALLS = (
    "cannot be read from what the chat template writes: only an answer that is written as the template writes the "
    "record's own calls has the right ones. A server that gives calls apart is judged by what it calls."
)


class _Read(NamedTuple):
    """A record that is asked or shown."""

    formatted: Formatted
    grading: Grading
    where: str
    fields: JsonObject


class _Tally(NamedTuple):
    """What is asked otherwise than the config wishes, by its reason."""

    left_out: Counter[str]
    fewer_shots: Counter[str]
    rooms: dict[str, list[int]]
    """By task, the room of each answer that has less than `max_new_tokens`."""


def open_questions(folder: Path) -> list[Question]:
    """The published questions, those of a task together."""
    return [*questions_in(folder)]


def make_questions(
    folder: Path, config: SftConfig, store: TokenStore, heldout: PackPlan, preparer: BlockPreparer
) -> Path | None:
    """The folder with the questions, made if it is missing or of other settings; None where nothing is asked.

    Raises:
        UserError: a setting of `evaluate` names what is not there, or no question can be asked at all.
    """
    check_tasks(config.evaluate.tasks, store.tasks, "evaluate.tasks")
    chosen = choose_records(config, store, heldout)
    if not chosen:
        return None
    inputs = question_inputs(config, store)
    if is_published(folder):
        if read_manifest(folder)["inputs"] == inputs:
            return folder
        shutil.rmtree(folder)
    read = _read_again(store, chosen, preparer)
    tally = _Tally(Counter(), Counter(), {})
    questions = [
        question
        for task, records in chosen.items()
        for question in _Asking(config, task, store, preparer, read, task in inputs["unseen"], tally).all(records)
    ]
    if not questions:
        reasons = "; ".join(f"{reason} ({count})" for reason, count in tally.left_out.most_common(3))
        raise UserError(f"evaluate: no held-out prompt can be asked: {reasons}")
    manifest = {
        "kind": "questions",
        "stop_ids": _stop_ids(store, preparer),
        "inputs": inputs,
        "num_questions": len(questions),
        "fewer_shots": dict(tally.fewer_shots),
        "left_out": dict(tally.left_out),
        "notes": _notes(preparer, questions, tally, config),
    }
    with written_aside(folder, "publish") as aside:
        write_lines(aside / QUESTIONS, (json_line(q.as_json()) for q in questions))
        publish_folder(aside, folder, manifest)
    return folder


class _Asking:
    """Asks the records of one task."""

    def __init__(
        self,
        config: SftConfig,
        task: str,
        store: TokenStore,
        preparer: BlockPreparer,
        read: Mapping[RecordKey, _Read | RecordError],
        unseen: bool,
        tally: _Tally,
    ) -> None:
        self._config, self._task, self._preparer = config, task, preparer
        self._writer = PromptWriter(preparer.pipeline, config.evaluate.shots_as, config.evaluate.tag)
        self._read, self._tally = read, tally
        self._own, self._unseen = config.evaluate.tasks.get(task), unseen
        score = self._own.score if self._own else None
        # All fields of all records would double the file of questions, and only such a function may look at them.
        self._keeps_fields = score is not None and isinstance(read_score(score).scorer, OwnFunction)
        self._most, self._num_new = config.data.max_len_tokens, config.evaluate.new_tokens(task)
        self._sources = store.manifest["sources"]

    def all(self, records: Chosen) -> Iterator[Question]:
        """The questions of the task; what cannot be asked is counted with its reason."""
        for key in records.asked:
            for shots in self._config.evaluate.shots_of(self._task):
                try:
                    yield self._question(key, shots, records)
                except RecordError as error:
                    self._tally.left_out[f"{self._task}: {error}"] += 1

    def _question(self, key: RecordKey, shots: int, records: Chosen) -> Question:
        asked = self._read[key] if key in self._read else RecordError("its record is not in the source any more")
        if isinstance(asked, RecordError):
            raise asked
        answer, thinks, calls, written = reference_of(asked.formatted, self._preparer.pipeline)
        options = asked.grading.options or (self._own.options if self._own else ())
        if options and answer not in options:
            raise RecordError(f"its answer {answer[:60]!r} is not among its options")
        way = self._way(options, thinks)
        there = self._shown(key, asked, records, shots)
        prompt, shown, choices = self._fitting(asked, there, options if way == "choice" else ())
        if len(shown) < shots:
            no_room = f"no more fit in data.max_len_tokens={self._most}"
            self._tally.fewer_shots[no_room if len(shown) < len(there) else "there are no more for their task"] += 1
        source, marks = self._sources[key.source_id], self._preparer.pipeline.tokenizer.marks
        instance = f"/{key.instance}" if key.instance else ""
        room = max(1, min(self._num_new, self._most - len(prompt.ids)))
        if way == "generate" and room < self._num_new:
            self._tally.rooms.setdefault(self._task, []).append(room)
        others = (without_thought(one, marks) for one in asked.grading.references)
        return Question(
            record=f"{source}/{key.number}{instance}",
            shots=shots,
            num_shown=len(shown),
            task=self._task,
            source=source,
            where=asked.where,
            unseen=self._unseen,
            way=way,
            messages=prompt.messages,
            tools=asked.formatted.content.tools if isinstance(asked.formatted.content, Conversation) else (),
            prompt=prompt.text,
            prompt_ids=prompt.ids,
            max_new_tokens=room,
            references=tuple(dict.fromkeys((answer, *others))),
            options=options,
            choices=choices,
            tests=asked.grading.tests,
            setup_code=asked.grading.setup_code,
            mark=asked.grading.mark,
            rejected=without_thought(asked.grading.rejected, marks),
            tool_calls=calls,
            thinks=thinks,
            fields=_as_json(asked.fields) if self._keeps_fields else {},
            written=written,
        )

    def _way(self, options: tuple[str, ...], thinks: bool) -> Way:
        score = self._own.score if self._own else None
        if score == "choice" and not options:
            raise RecordError("the score `choice` needs options: a column of the records, or evaluate.tasks.….options")
        # An option right behind the prompt is not what training taught where a thought stands before the answer.
        return "choice" if options and score in (None, "choice") and not thinks else "generate"

    def _shown(self, key: RecordKey, asked: _Read, records: Chosen, shots: int) -> list[Conversation]:
        """Up to so many conversations, none with the question that is asked; those of the task file come first."""
        content = asked.formatted.content
        if not shots:
            return []
        if isinstance(content, TokenizedRecord):
            raise RecordError("examples cannot be shown with a record that came as token ids")
        others = (self._read.get(other) for other in order_of_showing(self._config.run.seed, key, records.showable))
        contents = (other.formatted.content for other in others if isinstance(other, _Read))
        of_file = (replace(content, messages=turns) for turns in asked.grading.shown)
        candidates = chain(of_file, (one for one in contents if isinstance(one, Conversation)))
        return list(islice(giving_nothing_away(content, candidates), shots))

    def _fitting(
        self, asked: _Read, shown: list[Conversation], options: tuple[str, ...]
    ) -> tuple[Prompt, list[Conversation], tuple[Option, ...]]:
        """The prompt with as many of the examples as leave room for the answer, these, and the options behind it.

        Raises:
            RecordError: there is no room even without examples.
        """
        while True:
            prompt = self._writer.write(asked.formatted, shown)
            choices = tuple(self._writer.options(asked.formatted, shown, options)) if options else ()
            least = max((len(option.ids) for option in choices), default=len(prompt.ids) + 1)
            wished = least if choices else len(prompt.ids) + self._num_new
            if not shown or wished <= self._most:
                break
            shown = shown[:-1]
        if least > self._most:
            with_it = "with its longest option" if choices else "with one token of an answer"
            raise RecordError(f"{with_it} it has {least:,} tokens, data.max_len_tokens={self._most:,}")
        return prompt, shown, choices


def _read_again(
    store: TokenStore, chosen: Mapping[str, Chosen], preparer: BlockPreparer
) -> dict[RecordKey, _Read | RecordError]:
    """Read the chosen records again from their sources; each source is read up to the last of them."""
    wanted = {key for records in chosen.values() for key in (*records.asked, *records.showable)}
    read: dict[RecordKey, _Read | RecordError] = {}
    for source_id, source in enumerate(preparer.data.sources):
        numbers = {key.number for key in wanted if key.source_id == source_id}
        if not numbers:
            continue
        last = max(numbers)
        for record in read_records(source):
            if isinstance(record, Record) and record.index in numbers:
                for instance in expand_record(record, source):
                    key = RecordKey(source_id, record.index, instance.where.instance or 0)
                    if key in wanted:
                        read[key] = _read(instance, source, preparer)
            if record.index >= last:
                break
    return read


def _read(record: Record, source: SourceConfig, preparer: BlockPreparer) -> _Read | RecordError:
    try:
        formatted = up_to_last_learned(preparer.pipeline.format(record, source), preparer.pipeline.renderer.traits)
        return _Read(formatted, read_grading(record.fields, source), str(record.where), record.fields)
    except RecordError as error:
        return error


def _notes(preparer: BlockPreparer, questions: Sequence[Question], tally: _Tally, config: SftConfig) -> list[str]:
    """What the user should know of the answers."""
    notes = [UNMARKED_THOUGHTS] if preparer.pipeline.renderer.thought_marks is None else []
    for task, num in Counter(question.task for question in questions if question.written).items():
        notes.append(f"{task}: the calls of {counted(num, 'question')} {UNREAD_CALLS}")
    return notes + [
        f"{task}: {counted(len(rooms), 'answer')} may have {_from_to(rooms)} tokens, not "
        f"evaluate.max_new_tokens={config.evaluate.new_tokens(task):,}: more do not fit behind the prompt in "
        f"data.max_len_tokens={config.data.max_len_tokens:,}"
        for task, rooms in tally.rooms.items()
    ]


def _from_to(numbers: Sequence[int]) -> str:
    least, most = min(numbers), max(numbers)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _as_json(fields: JsonObject) -> JsonObject:
    """Those fields that JSON has a form for: of a table, one may be a time, or bytes."""
    found = {}
    for name, value in fields.items():
        with suppress(TypeError, ValueError, RecursionError):
            json.dumps(value)
            found[name] = value
    return found


def question_inputs(config: SftConfig, store: TokenStore) -> dict[str, Any]:
    """Everything that the questions depend on."""
    return {
        "version": _VERSION,
        "unseen": [*unseen_tasks(config, store)],
        **data_inputs(config, store),
        **inputs_of(config.evaluate, "measured", "asked"),
        "grading": [inputs_of(source.grading, "asked") for source in config.data.sources],
    }


def _stop_ids(store: TokenStore, preparer: BlockPreparer) -> list[int]:
    """The tokens that end an answer: those that training teaches, and those at which the model stops already.

    Raises:
        UserError: there are none.
    """
    tokenizer = load_tokenizer(preparer.model)
    stops = generation_stops(preparer.model, tokenizer)
    own = tokenizer.convert_tokens_to_ids([*stops])
    ids = list(dict.fromkeys([*learned_stop_ids(store, control_ids(tokenizer)), *cast(list[int], own)]))
    if not ids:
        raise UserError(
            "evaluate.answers_per_task: no token ends an answer: neither the examples nor the tokenizer have one that "
            "stops. Name an end of turn with model.turn_end, or set evaluate.answers_per_task=0."
        )
    return ids


def stop_ids_of(folder: Path) -> tuple[int, ...]:
    """The tokens that end the answers to the questions in the folder."""
    return tuple(read_manifest(folder)["stop_ids"])


def fingerprint_of(folder: Path) -> str:
    """Identifies the questions in the folder."""
    return fingerprint(read_manifest(folder)["inputs"])
