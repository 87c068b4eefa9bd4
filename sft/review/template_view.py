"""A record as the chat template of a config renders it, and which part of that is learned."""

from sft.config import DataConfig, ModelConfig
from sft.data.record_pipeline import RecordPipeline
from sft.errors import RecordError
from sft.review.trained_form import TrainedForm
from sft.schema import JsonObject

Parts = list[tuple[bool, str]]
"""Pieces of the text in order: whether each is learned."""


class TemplateView:
    """Renders records with the tokenizer, the template and the rules of a config."""

    def __init__(self, data: DataConfig, model: ModelConfig) -> None:
        """Load them.

        Raises:
            UserError: the tokenizer or the template is unusable.
        """
        self._pipeline = RecordPipeline(data, model)

    def parts(self, fields: JsonObject, form: TrainedForm) -> Parts:
        """The text that training sees; a sentence where it cannot be rendered."""
        try:
            found = form.as_records(fields)
            if found is None:
                return [(False, "The format of these records is not known.")]
            formatted = [self._pipeline.format(record, found[1]) for record in found[0]]
            renderings = [one for each in formatted for one in self._pipeline.render(each).renderings]
        except RecordError as error:
            return [(False, f"It cannot be rendered: {error}")]
        parts: Parts = []
        for rendering in renderings:
            at = 0
            for span in rendering.answers:
                parts += [(False, rendering.text[at : span[0]]), (True, rendering.text[span[0] : span[1]])]
                at = span[1]
            parts.append((False, rendering.text[at:] + "\n"))
        return [part for part in parts if part[1]]
