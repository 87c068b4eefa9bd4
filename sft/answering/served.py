"""Asks a served model, by the turns of each question: the server writes the prompt in the model's own form.

    Question.messages ──ChatRequest──▶ server ──ChatReply──▶ Answer

A server gives no likelihoods of options, so such questions are answered in writing, too.
"""

import json
from collections.abc import Sequence

from sft.answering.answer import Answer, with_usual_calls
from sft.answering.asking import KeepAnswers
from sft.answering.server_respondent import ServerRespondent
from sft.endpoint.chat import ChatReply, ChatRequest, NoReply
from sft.questions.question import Question
from sft.thoughts import in_usual_form, served_text

_MOST_TOKENS = 4
"""An answer that comes to more times as many of our tokens as were asked for was not bounded by the server. Other
vocabularies need fewer tokens for the same text, but not so many fewer."""
_NO_TURNS = "it came as token ids, and a server is asked by turns"


class ServedModel(ServerRespondent):
    """Is asked by turns."""

    def ask(self, questions: Sequence[Question], keep: KeepAnswers) -> None:
        """`Ask`, of one process.

        Raises:
            EndpointError: no more can be asked; what was answered was given to `keep`.
        """
        by_key = {question.key: question for question in questions}

        def done(request: ChatRequest, outcome: ChatReply | NoReply) -> None:
            self.tell()
            reason = outcome.reason if isinstance(outcome, NoReply) else self._excess(outcome, request)
            if reason:
                self.in_vain[reason] += 1
            elif isinstance(outcome, ChatReply):
                keep([self._answer(by_key[request.key], outcome)])

        asked = [question for question in questions if question.messages]
        if len(asked) < len(questions):
            self.in_vain[_NO_TURNS] += len(questions) - len(asked)
        self.client.chat_all(map(self._request, asked), done)

    def _request(self, question: Question) -> ChatRequest:
        style = self.style
        return ChatRequest(
            key=question.key,
            messages=question.messages,
            max_tokens=question.max_new_tokens,
            tools=question.tools,
            temperature=style.temperature,
            top_p=style.top_p,
            seed=style.seed,
            stop=[*filter(None, (self.tokenizer.text_of([stop]) for stop in style.stop_ids))],
        )

    def _excess(self, reply: ChatReply, request: ChatRequest) -> str:
        num = len(self.tokenizer.ids_of(reply.text))
        if num <= _MOST_TOKENS * request.max_tokens:
            return ""
        return f"{num:,} tokens came, and at most {request.max_tokens:,} were asked for"

    def _answer(self, question: Question, reply: ChatReply) -> Answer:
        calls = [{"name": name, "arguments": given} for name, given in reply.tool_calls]
        num_tokens = len(self.tokenizer.ids_of(reply.text)) if reply.num_tokens is None else reply.num_tokens
        text = served_text(in_usual_form(reply.text.strip(), self.tokenizer.marks))
        if not calls:  # else the server has read them
            text = with_usual_calls(question, text, self.tokenizer)
        raw = "\n".join([text, *(f"<tool_call>{json.dumps(call)}</tool_call>" for call in calls)])
        return Answer(question.key, text, raw, num_tokens, reply.stopped)
