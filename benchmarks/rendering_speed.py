"""Speed of rendering long conversations, with the places of their answers.

usage: python -m benchmarks.rendering_speed TOKENIZER_DIR [TOKENIZER_DIR …] [--runs 5] [--conversations 20]

Two conversations that cost the most: an agent's, with one question, 30 calls and their results, and an answer; and 20
questions and answers with thoughts. `short` places answers by landmarks that a probe of the same shape has shown,
`long` renders prompt, text and probe for each answer. Seconds are CPU time of this process, which renders in one
thread. The first conversation of a shape, which pays for the probe, is not counted.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.in_turn import spread
from sft.config import ModelConfig
from sft.data.rendering.chat_template import TemplateRenderer, load_tokenizer
from sft.data.rendering.inference import choose_turn_end, generation_stops
from sft.data.rendering.renderer import ConversationRenderer
from sft.data.tokenization import ExampleTokenizer
from sft.errors import RecordError
from sft.schema import Conversation, Message, Place, ToolCall

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string", "description": "a city"}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Says it.", "parameters": PARAMETERS}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizers", type=Path, nargs="+")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--conversations", type=int, default=20)
    options = parser.parse_args()
    for folder in options.tokenizers:
        short, long = build_renderer(folder), build_renderer(folder)
        long._place_by_landmarks = lambda *placed: None  # type: ignore[method-assign]
        for make in (agent, thinker):
            try:
                num_examples = len(short.render(make(0)))
                speeds: dict[str, list[float]] = {"short": [], "long": []}
                for _ in range(options.runs):
                    for name, renderer in (("short", short), ("long", long)):
                        speeds[name].append(measure(renderer, make, options.conversations))
            except RecordError as error:
                print(f"{folder.name}, {make.__name__}: {str(error).splitlines()[0]}")
                continue
            ratios = [fast / slow for fast, slow in zip(speeds["short"], speeds["long"], strict=True)]
            print(f"{folder.name}, {make.__name__}: {num_examples} examples a conversation")
            print(f"    short: {spread(speeds['short'], '.0f')} conversations/s")
            print(f"    long:  {spread(speeds['long'], '.0f')} conversations/s")
            print(f"    short / long: {spread(ratios, '.1f')}")


def build_renderer(folder: Path) -> ConversationRenderer:
    model = ModelConfig(path=str(folder), turn_end="auto")
    tokenizer = load_tokenizer(model)
    tokens, stops = ExampleTokenizer(tokenizer), generation_stops(model, tokenizer)
    return ConversationRenderer(
        TemplateRenderer(tokenizer),
        tokens.special_tokens,
        tokens.added_tokens,
        stop_tokens=frozenset(stops),
        turn_end=choose_turn_end(model, tokenizer, stops),
    )


def measure(renderer: ConversationRenderer, make: Callable[[int], Conversation], num_conversations: int) -> float:
    """Conversations a second."""
    made = [make(number) for number in range(1, num_conversations + 1)]
    started = time.process_time()
    for conversation in made:
        renderer.render(conversation)
    return num_conversations / (time.process_time() - started)


def agent(number: int) -> Conversation:
    messages = [Message("user", f"Look {number} up. " * 20)]
    for i in range(30):
        call = ToolCall("weather", {"city": f"city {number} {i}"}, f"{i:09d}")
        messages += [
            Message("assistant", "", tool_calls=(call,)),
            Message("tool", f"rain {i} " * 20, call_id=f"{i:09d}"),
        ]
    messages.append(Message("assistant", "It rains. " * 10))
    return Conversation(tuple(messages), "t", "s", number, Place("s", 1), (TOOL,) * 3)


def thinker(number: int) -> Conversation:
    messages = []
    for i in range(20):
        messages.append(Message("user", f"What is {i} and {number}? " * 5))
        messages.append(Message("assistant", f"It is {i + number}. " * 5, thought=f"I add {i} and {number}. " * 20))
    return Conversation(tuple(messages), "t", "s", number, Place("s", 1))


if __name__ == "__main__":
    main()
