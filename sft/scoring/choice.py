"""Whether the option that a written answer names is right; `sft.scoring.named_option` says which one it names."""

from collections.abc import Mapping
from typing import ClassVar

from sft.scoring.metric import Metric
from sft.scoring.named_option import Labels, named_option
from sft.scoring.scorer import JUDGED, Answer, Need, Question, Settings, Verdict, failure


class ChoiceAccuracy(Settings):
    """Whether the option that the answer names is a reference; with what guessing would give."""

    metrics: ClassVar[Mapping[str, Metric]] = {
        "accuracy": Metric("accuracy", "answers that name the right option", "higher", JUDGED, is_share=True),
        "chance": Metric("chance", "right answers by guessing", "neither", JUDGED, is_share=True),
    }
    needs: ClassVar[Need] = "options"

    labels: Labels = "letters"
    """What options are also known by: A, B, C … or 1, 2, 3 … in their order."""

    def judge(self, answer: Answer, question: Question) -> Verdict:
        """1 or 0, and the share of the options that is right."""
        options = question.options
        if not question.references:
            return failure("the record has no references")
        right = {named_option(reference, options, self.labels) for reference in question.references} - {None}
        if not right:
            return failure(f"the reference {question.references[0]!r} is none of the options")
        named = named_option(answer.text, options, self.labels)
        note = "names none of the options, or several" if named is None else f"names {options[named]!r}"
        chance = len(right) / len({option.strip() for option in options})
        return Verdict({"accuracy": float(named in right), "chance": chance}, note)
