"""Calls of given tools: what a user asks, the calls that it takes, their results, and the answer.

    1  shown: tools, and whether none, one or several calls are to be needed    asked: what a user says
    2  shown: tools, what he says                                               asked: the calls, as JSON
    3  shown: the calls                                                         asked: results that the tools might give
    4  shown: all of it                                                         asked: the answer

Each call fits the JSON schema of its tool, and there are as many as step 1 was to need; so the two steps agree without
knowing of each other. Results are invented, which the evidence says. Single and several calls at once, and requests
that need none: the kinds of the Berkeley function-calling leaderboard (Patil et al. 2025).
"""

import json
from functools import partial
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator
from pydantic_core import PydanticCustomError

from sft.config_section import Share
from sft.construction.answer_form import FormError, read_json, read_object, read_text, schema_of
from sft.construction.filters.refusals import refuses
from sft.construction.recipes.material import Material
from sft.construction.recipes.new_task import NewTask
from sft.construction.recipes.recipe import About, Chain, Independent
from sft.construction.recipes.tool_schemas import call_problem, name_of, read_tool_file
from sft.construction.script import Failed, Script
from sft.endpoint.chat import ChatReply, NoReply
from sft.schema import JsonObject

Need = Literal["none", "one", "several"]
_REQUEST: dict[str, type] = {"request": str}
_MOST_CALLS = 8
OTHER_NUMBER = "it needs another number of calls than it was to"
TWICE = "a call is made twice"
REFUSED = "its answer is a refusal"


class ToolCalls(NewTask):
    """Requests that tools help with."""

    kind: ClassVar[str] = "tool_calls"
    prompts: ClassVar[tuple[str, ...]] = (
        *("tool_calls_request", "tool_calls_calls", "tool_calls_results", "tool_calls_answer"),
    )
    num_requests: ClassVar[int] = 4

    tools: str = Field(min_length=1)
    """A JSON file with a list of tools in OpenAI's form."""
    shown: PositiveInt = 8
    """The most tools that a record has; of more, so many are drawn."""
    without: Share = 0.15
    """The share of requests that need no tool."""
    several: Share = 0.25
    """The share of requests that need several calls at once."""
    results: bool = True
    """Whether a record goes on with results, which the teacher invents, and the answer. If not, it ends with calls."""

    @model_validator(mode="after")
    def _are_shares(self) -> Self:
        if self.without + self.several > 1:
            raise PydanticCustomError(
                "shares", "`without` and `several` are together more than 1", {"way_out": "lower one"}
            )
        return self

    def material(self) -> Material:
        """The tools of the file."""
        return Material(tools=read_tool_file(self.tools))

    def chain(self, about: About) -> Chain:
        """Each script draws its tools, and how many calls it needs."""
        return Independent(partial(self._script, about))

    def _script(self, about: About, number: int) -> Script:
        random, known = about.random(number), about.material.tools
        drawn = random.random()
        need: Need = "none" if drawn < self.without else "several" if drawn < self.without + self.several else "one"
        tools = random.sample(known, min(self.shown, len(known)))
        aim = random.choice(tools)
        prompt = about.prompt("tool_calls_request", tools=tools, need=need, tool=name_of(aim))
        said = read_object((yield about.request(prompt, schema_of(_REQUEST))), _REQUEST)["request"]
        prompt = about.prompt("tool_calls_calls", tools=tools, request=said)
        calls = _read_calls((yield about.request(prompt)), tools)
        if need != ("none" if not calls else "one" if len(calls) == 1 else "several"):
            return Failed(OTHER_NUMBER)
        messages: list[JsonObject] = [{"role": "user", "content": said}]
        if calls:
            messages.append(_calling(calls))
        results = list[str]()
        if calls and self.results:
            prompt = about.prompt("tool_calls_results", tools=tools, request=said, calls=calls)
            results = _read_results((yield about.request(prompt)), len(calls))
            messages += [
                {"role": "tool", "tool_call_id": _call_id(i), "content": result} for i, result in enumerate(results)
            ]
        if results or not calls:
            prompt = about.prompt("tool_calls_answer", request=said, calls=calls, results=results)
            answer = read_text((yield about.request(prompt)))
            if refuses(answer, said):
                return Failed(REFUSED)
            messages.append({"role": "assistant", "content": answer})
        evidence = {"need": need, "results_are_invented": bool(results)}
        return about.conversation(messages, (), tools=tools, evidence=evidence)


def _read_calls(reply: ChatReply | NoReply, tools: list[JsonObject]) -> list[dict[str, Any]]:
    calls = _read_list(reply, "calls", dict)
    if len(calls) > _MOST_CALLS:
        raise FormError(f"it makes more than {_MOST_CALLS} calls")
    for i, call in enumerate(calls):
        if problem := call_problem(call, tools):
            raise FormError(problem)
        if call in calls[:i]:
            raise FormError(TWICE)
    return calls


def _read_results(reply: ChatReply | NoReply, num: int) -> list[str]:
    results = _read_list(reply, "results", str)
    if len(results) != num:
        raise FormError("there are not as many results as calls")
    if not all(result.strip() for result in results):
        raise FormError("a result is empty")
    return results


def _read_list(reply: ChatReply | NoReply, key: str, kind: type) -> list[Any]:
    content = read_json(reply)
    found = content.get(key) if isinstance(content, dict) and content.keys() == {key} else None
    if not isinstance(found, list) or not all(type(item) is kind for item in found):
        raise FormError(f"the answer is no JSON object with a list of {key}")
    return found


def _calling(calls: list[dict[str, Any]]) -> JsonObject:
    made = [
        {
            "id": _call_id(i),
            "type": "function",
            "function": {"name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)},
        }
        for i, call in enumerate(calls)
    ]
    return {"role": "assistant", "content": "", "tool_calls": made}


def _call_id(number: int) -> str:
    # Nine letters and digits: the form that the templates with the narrowest rule take.
    return f"call{number:05d}"
