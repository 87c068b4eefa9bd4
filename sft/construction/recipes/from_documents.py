"""A question and its answer from a passage of a document; the filter `passage` checks the answer against it."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, ClassVar

from pydantic import Field

from sft.construction.answer_form import read_object, schema_of
from sft.construction.recipes.documents import MAX_CHARS, MIN_CHARS, MaxChars, MinChars, Patterns, read_passages
from sft.construction.recipes.material import Material, Passage
from sft.construction.recipes.new_task import NewTask
from sft.construction.recipes.recipe import About, Chain, Independent
from sft.construction.script import Script

_PAIR: dict[str, type] = {"question": str, "answer": str}


class FromDocuments(NewTask):
    """Questions about documents."""

    kind: ClassVar[str] = "from_documents"
    prompts: ClassVar[tuple[str, ...]] = ("from_documents",)
    num_requests: ClassVar[int] = 1

    documents: Annotated[Patterns, Field(min_length=1)]
    """Texts or Markdown: paths or patterns, such as `docs/**/*.md`."""
    with_passage: bool = True
    """Whether the passage is part of the record's prompt. If not, the question names what it is about."""
    min_chars: MinChars = MIN_CHARS
    """Shorter passages are left out."""
    max_chars: MaxChars = MAX_CHARS
    """Of a passage."""

    def material(self) -> Material:
        """The passages of the documents."""
        return Material(read_passages(self.documents, self.min_chars, self.max_chars))

    def chain(self, about: About) -> Chain:
        """Passages in turn."""
        return Independent(partial(self._script, about, about.shuffled(about.material.passages)))

    def _script(self, about: About, passages: Sequence[Passage], number: int) -> Script:
        passage = passages[number % len(passages)]
        prompt = about.prompt("from_documents", passage=passage.text, with_passage=self.with_passage)
        found = read_object((yield about.request(prompt, schema_of(_PAIR))), _PAIR)
        asked = f"{passage.text}\n\n{found['question']}" if self.with_passage else found["question"]
        return about.draft(asked, found["answer"], [passage.id], passage=passage.text)
