"""From records to examples: format, strip markers, tag, render, tokenize, limit the length.

Total or counted: every record that goes in comes out as kept, or as rejected with its reason. The only state is a cache
of what the template does, so blocks of records can go through it anywhere and in any order.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from sft.atomic_files import fingerprint
from sft.config import DataConfig, ModelConfig, SourceConfig
from sft.data.duplicates import RecordHashes, hash_record, minhash
from sft.data.formats.formatting import expand_record, format_record
from sft.data.made_records import Fact, approval_to_train, facts_of, needs_approval, why_refused
from sft.data.markers import refuse_special_tokens, strip_markers
from sft.data.rendering.chat_template import TemplateRenderer, load_tokenizer, template_name
from sft.data.rendering.inference import Inference, choose_turn_end, generation_stops
from sft.data.rendering.renderer import ConversationRenderer, Rendering
from sft.data.store_parts import PartCounts, PreparedRecord
from sft.data.task_tag import add_task_tag, tag_text
from sft.data.token_keys import token_keys
from sft.data.tokenization import ExampleTokenizer
from sft.data.truncation import truncate
from sft.errors import RecordError
from sft.schema import Conversation, Example, LeftOutKind, Record, Rejected, TokenizedRecord
from sft.thoughts import USUAL

Tagging = Literal["as_trained", "always", "never"]
"""Which prompts get the task tag: by the rule of `data.task_tag`, all, or none."""


class Formatted(NamedTuple):
    """A record as a conversation or token ids, before tag and template."""

    content: Conversation | TokenizedRecord
    num_markers: int
    hashes: RecordHashes
    """Of the record as given: shortening it does not move it to the other side of the held-out split."""


class Rendered(NamedTuple):
    """A conversation with its renderings; it was cut if `is_shortened`."""

    formatted: Formatted
    renderings: tuple[Rendering, ...]
    is_shortened: bool = False


class RecordPipeline:
    """Turns records into examples with one tokenizer, one template and one set of rules."""

    def __init__(self, data: DataConfig, model: ModelConfig) -> None:
        """Load the tokenizer and the template; `data` has sources whose formats are explicit.

        Raises:
            UserError: the tokenizer or the template is unusable.
        """
        self._data = data
        tokenizer = self._hub_tokenizer = load_tokenizer(model)
        example_tokenizer = ExampleTokenizer(tokenizer)
        stops = generation_stops(model, tokenizer)
        turn_end = choose_turn_end(model, tokenizer, stops)
        template = TemplateRenderer(tokenizer, template_name(model))
        self.inference = Inference(frozenset(stops), turn_end, data.train_on_thoughts, template.form)
        self.renderer = ConversationRenderer(
            template,
            example_tokenizer.special_tokens,
            example_tokenizer.added_tokens,
            data.train_on,
            data.train_on_thoughts,
            frozenset(stops),
            turn_end,
        )
        self.tokenizer = example_tokenizer.with_marks(self.renderer.thought_marks or USUAL, self.renderer.call_form)
        self.fingerprint = fingerprint([self.tokenizer.fingerprint, turn_end, sorted(stops)])
        """Of everything that tokenizer and template do to a record."""

    def token_keys(self) -> npt.NDArray[np.uint64]:
        """See `sft.data.token_keys`: (num_ids,)."""
        return token_keys(self._hub_tokenizer)

    def prepare(
        self, records: Iterable[Record | Rejected], source: SourceConfig, source_id: int
    ) -> tuple[list[PreparedRecord], PartCounts]:
        """The kept records, in order, and the counts of all of them."""
        made: Counter[Fact] = Counter()
        rendered, rejected = self._render_all(records, source, made)
        num_read = len(rendered) + len(rejected)
        kept: list[PreparedRecord] = []
        num_markers = sum(r.formatted.num_markers for r in rendered)
        for item, examples in zip(rendered, self._tokenize(rendered), strict=True):
            outcome = self._hold_to_length(item, examples, source_id)
            if isinstance(outcome, Rejected):
                rejected.append(outcome)
            else:
                kept.append(outcome)
        num_shortened = sum(r.is_shortened for r in kept)
        num_repaired = sum(r.is_repaired for r in kept)
        in_order = tuple(sorted(rejected, key=lambda r: (r.index, r.where.instance or 0)))
        notes = tuple(dict.fromkeys(note for item in rendered for r in item.renderings for note in r.notes))
        found = tuple((*fact, num) for fact, num in sorted(made.items()))
        counts = PartCounts(source.name, num_read, num_shortened, num_repaired, num_markers, notes, in_order, found)
        return kept, counts

    def _render_all(
        self, records: Iterable[Record | Rejected], source: SourceConfig, made: Counter[Fact]
    ) -> tuple[list[Rendered], list[Rejected]]:
        rendered: list[Rendered] = []
        rejected: list[Rejected] = []
        for record in (self._admitted(record, source, made) for record in records):
            for instance in [record] if isinstance(record, Rejected) else expand_record(record, source):
                try:
                    if isinstance(instance, Rejected):
                        rejected.append(instance)
                    else:
                        rendered.append(self.render(self.format(instance, source)))
                except RecordError as error:
                    rejected.append(Rejected(source.name, record.index, instance.where, str(error)))
        return rendered, rejected

    def _admitted(self, record: Record | Rejected, source: SourceConfig, made: Counter[Fact]) -> Record | Rejected:
        """The record, or in its place that people have to approve it and have not."""
        if isinstance(record, Rejected) or not needs_approval(record.fields, source):
            return record
        approval = approval_to_train(record.fields, source)
        if approval is None and not self._data.unreviewed:
            return Rejected(source.name, record.index, record.where, why_refused(record.fields, source))
        made.update(facts_of(record.fields, approval))
        return record

    def format(self, record: Record, source: SourceConfig) -> Formatted:
        """The record as a conversation without markers of other templates, or as the token ids that it came as.

        Raises:
            RecordError: it cannot be used.
        """
        content = format_record(record, source, self._data.turns)
        if isinstance(content, TokenizedRecord):
            stored = self._as_stored(content)
            return Formatted(stored, 0, hash_record(stored))
        stripped, num_markers = strip_markers(content, self.tokenizer.special_tokens)
        return Formatted(stripped, num_markers, hash_record(stripped))

    def render(self, formatted: Formatted) -> Rendered:
        """The conversation's renderings, with its task tag; none for a record of token ids.

        Raises:
            RecordError: the template refuses it, or does not show where an answer is.
        """
        content = formatted.content
        if isinstance(content, TokenizedRecord):
            return Rendered(formatted, ())
        return Rendered(formatted, self.renderer.render(self.tag(content, formatted.hashes.prompt)))

    def shorten(self, rendered: Rendered) -> Rendered | None:
        """A form of it that is short enough, by the rule of `sft.data.truncation`; None where there is none."""
        content = rendered.formatted.content
        if self._data.overlong != "truncate" or isinstance(content, TokenizedRecord) or rendered.is_shortened:
            return None
        key = rendered.formatted.hashes.prompt  # cutting does not change whether it has a tag

        def count_tokens(conversation: Conversation) -> int:
            examples = self.tokenizer.tokenize(self.renderer.render(self.tag(conversation, key)))
            return max((len(e.input_ids) for e in examples if isinstance(e, Example)), default=0)

        try:
            shorter = truncate(content, self._data.train_on, count_tokens, self._data.max_len_tokens)
            if shorter is None:
                return None
            renderings = self.renderer.render(self.tag(shorter, key))
        except RecordError:
            return None  # the template cannot write what is left
        formatted = rendered.formatted._replace(content=shorter)
        return Rendered(formatted, renderings, is_shortened=True)

    def tag(self, conversation: Conversation, key: int, rule: Tagging = "as_trained") -> Conversation:
        """The conversation with its task tag; `key` is the hash of its prompt (see `sft.data.task_tag`).

        Raises:
            RecordError: the tag holds a control token.
        """
        tag = self._data.task_tag
        if tag is None or rule == "never":
            return conversation
        refuse_special_tokens(tag_text(tag, conversation.task), self.tokenizer.special_tokens, "the task tag")
        return add_task_tag(conversation, tag if rule == "as_trained" else tag.model_copy(update={"dropout": 0.0}), key)

    def _tokenize(self, rendered: Sequence[Rendered]) -> list[list[Example | RecordError]]:
        """The examples of each, tokenized in one batch."""
        flat = iter(self.tokenizer.tokenize([r for item in rendered for r in item.renderings]))
        return [
            [item.formatted.content.example]
            if isinstance(item.formatted.content, TokenizedRecord)
            else [next(flat) for _ in item.renderings]
            for item in rendered
        ]

    def _hold_to_length(
        self, rendered: Rendered, examples: Sequence[Example | RecordError], source_id: int
    ) -> PreparedRecord | Rejected:
        content, most = rendered.formatted.content, self._data.max_len_tokens

        def reject(reason: str, kind: LeftOutKind = "bad") -> Rejected:
            return Rejected(content.source, content.index, content.where, reason, kind, content.task)

        whole = [e for e in examples if isinstance(e, Example)]
        for error in examples:
            if isinstance(error, RecordError):
                return reject(str(error))
        longest = max(len(e.input_ids) for e in whole)
        if longest > most:
            reason = f"{longest} tokens; data.max_len_tokens allows {most}"
            if self._data.overlong == "error":
                return reject(reason)
            shorter = self.shorten(rendered)
            if shorter is not None:
                return self._hold_to_length(shorter, self.tokenizer.tokenize(shorter.renderings), source_id)
            # For a record whose answers are separate examples, those that fit are kept.
            whole = [e for e in whole if len(e.input_ids) <= most]
            if not whole:
                return reject(reason, "too long")
        near = self._data.duplicates == "remove_near"
        return PreparedRecord(
            whole,
            content.task,
            source_id,
            content.index,
            content.where,
            rendered.formatted.hashes.prompt,
            rendered.formatted.hashes.content,
            minhash(content) if near else None,
            rendered.is_shortened or len(whole) < len(examples),
            isinstance(content, Conversation) and content.is_repaired,
        )

    def _as_stored(self, record: TokenizedRecord) -> TokenizedRecord:
        largest = int(record.example.input_ids.max())
        if largest >= self.tokenizer.num_ids:
            raise RecordError(f"the id {largest} is not in the tokenizer's vocabulary of {self.tokenizer.num_ids}")
        example = Example(record.example.input_ids.astype(self.tokenizer.token_dtype), record.example.loss_mask)
        return TokenizedRecord(example, record.task, record.source, record.index, record.where)
