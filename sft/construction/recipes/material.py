"""What recipes read of the user's own files, beside the records of the config."""

from dataclasses import dataclass

from sft.schema import JsonObject


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document."""

    id: str
    """The document's path and the hash of the passage: `docs/a.md#3f…`."""
    text: str

    @property
    def path(self) -> str:
        """Of the document."""
        return self.id.rpartition("#")[0]


@dataclass(frozen=True, slots=True)
class Material:
    """Of one recipe; what it does not use is empty."""

    passages: tuple[Passage, ...] = ()
    personas: tuple[str, ...] = ()
    tools: tuple[JsonObject, ...] = ()
    """In OpenAI's form, as `sft.data.formats` reads them."""
