"""Asks a server by token ids, as vLLM takes them: the prompt is the very one of training, and options are chosen by
likelihood, as by a whole model.

    Question.prompt_ids     ──CompletionRequest──▶ server ──tokens──▶ Answer
    each Question.choices   ──CompletionRequest──▶ server ──log-probabilities of its tokens──▶ Answer
"""

from collections.abc import Iterator, Sequence

from sft.answering.answer import chosen_answer, written_answer
from sft.answering.asking import KeepAnswers
from sft.answering.server_respondent import ServerRespondent
from sft.endpoint.chat import NoReply
from sft.endpoint.completion import Completion, CompletionRequest
from sft.questions.question import Question
from sft.seeds import derive_seed


class CompletingModel(ServerRespondent):
    """Is asked by token ids."""

    def ask(self, questions: Sequence[Question], keep: KeepAnswers) -> None:
        """`Ask`, of one process.

        Raises:
            EndpointError: no more can be asked; what was answered was given to `keep`.
        """
        places = {key: place for question in questions for key, place in _places(question)}
        likelihoods: dict[str, dict[int, float]] = {}
        failed: set[str] = set()

        def done(request: CompletionRequest, outcome: Completion | NoReply) -> None:
            self.tell()
            question, number = places[request.key]
            if isinstance(outcome, NoReply):
                if question.key not in failed:
                    failed.add(question.key)
                    self.in_vain[outcome.reason] += 1
            elif question.way == "generate":
                keep([written_answer(question, outcome.ids, outcome.stopped, self.tokenizer)])
            else:
                own = likelihoods.setdefault(question.key, {})
                own[number] = sum(outcome.prompt_log_probs[question.choices[number].start :])
                if len(own) == len(question.choices):
                    keep([chosen_answer(question, [own[i] for i in range(len(own))])])

        self.client.complete_all((request for question in questions for request in self._requests(question)), done)

    def _requests(self, question: Question) -> Iterator[CompletionRequest]:
        style = self.style
        for key, (_, number) in _places(question):
            if question.way == "choice":
                # vLLM writes one token at least; it is not looked at.
                yield CompletionRequest(key, question.choices[number].ids, 1, with_prompt=True)
            else:
                yield CompletionRequest(
                    key=key,
                    prompt_ids=question.prompt_ids,
                    max_tokens=question.max_new_tokens,
                    stop_ids=style.stop_ids,
                    temperature=style.temperature,
                    top_p=style.top_p,
                    seed=derive_seed(style.seed, "answer", question.key) if style.temperature > 0 else None,
                )


def _places(question: Question) -> Iterator[tuple[str, tuple[Question, int]]]:
    """The key of each request for a question, and the number of its option."""
    for number in range(len(question.choices) if question.way == "choice" else 1):
        yield f"{question.key}#{number}", (question, number)


def longest_request(questions: Sequence[Question]) -> int:
    """The most tokens that a request for one of the questions comes to, with its answer."""
    lengths = [len(question.prompt_ids) + question.max_new_tokens for question in questions if question.way != "choice"]
    lengths += [len(option.ids) + 1 for question in questions for option in question.choices]
    return max(lengths, default=1)
