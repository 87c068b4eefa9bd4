"""Small templates that write calls of tools as the large families of models do: form, not wording."""

from typing import NamedTuple

ARGUMENTS = "c.function.arguments"
TEXT_OR_JSON = "(v if v is string else v | tojson)"
TEXT_OR_PYTHON = "(v if v is string else v | tojson if v is mapping or v is iterable else v | string)"


def turns(calls: str, *, before: str = "") -> str:
    """Plain turns, with calls written so behind the content of an answer, and this before any answer."""
    return (
        "{% for m in messages %}{{ '<|start|>' + m.role + '\n' }}{% if m.role != 'assistant' %}{{ m.content }}"
        f"{{% else %}}{before}{{{{ m.content or '' }}}}{{% if m.tool_calls %}}{calls}{{% endif %}}"
        "{% endif %}{{ '<|return|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
    )


def each(call: str, *, between: str = "", head: str = "", tail: str = "") -> str:
    """Each call so."""
    separator = f"{{% if not loop.last %}}{{{{ '{between}' }}}}{{% endif %}}" if between else ""
    return f"{{{{ '{head}' }}}}{{% for c in m.tool_calls %}}{{{{ {call} }}}}{separator}{{% endfor %}}{{{{ '{tail}' }}}}"


def marked(opening: str, item: str, closing: str, *, head: str = "", tail: str = "") -> str:
    """Each argument between marks of its own."""
    return (
        f"{{{{ '{head}' }}}}{{% for c in m.tool_calls %}}{{{{ {opening} }}}}{{% for k, v in {ARGUMENTS} | items %}}"
        f"{{{{ {item} }}}}{{% endfor %}}{{{{ {closing} }}}}{{% endfor %}}{{{{ '{tail}' }}}}"
    )


def python(value: str) -> str:
    """Keyword arguments of Python."""
    return (
        "{{ '[' }}{% for c in m.tool_calls %}{{ c.function.name + '(' }}{% for k, v in c.function.arguments | items %}"
        f"{{{{ k + '=' + {value} }}}}{{% if not loop.last %}}{{{{ ', ' }}}}{{% endif %}}{{% endfor %}}"
        "{{ ')' }}{% if not loop.last %}{{ ', ' }}{% endif %}{% endfor %}{{ ']' }}"
    )


NAME, JSON = "c.function.name", f"{ARGUMENTS} | tojson"
CHANNELS = (
    "{% for m in messages %}{{ '<|start|>' + m.role }}{% if m.role != 'assistant' %}"
    "{{ '<|message|>' + m.content + '<|end|>' }}{% else %}"
    "{% if m.reasoning_content %}"
    "{{ '<|channel|>analysis<|message|>' + m.reasoning_content + '<|end|><|start|>assistant' }}{% endif %}"
    "{% if m.tool_calls %}{% if m.tool_calls | length > 1 %}{{ raise_exception('one call a turn') }}{% endif %}"
    "{% set f = m.tool_calls[0].function %}{{ BEFORE + f.name + BEHIND }}"
    "{{ f.arguments | tojson + '<|call|>' }}{% else %}{{ '<|channel|>final<|message|>' + m.content + '<|return|>' }}"
    "{% endif %}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)


def channels(before: str, behind: str) -> str:
    """One call a turn, which has a token of its own at its end; thoughts in a channel."""
    return CHANNELS.replace("BEFORE", f"'{before}'").replace("BEHIND", f"'{behind}'")


USUAL = {
    "the usual form": turns(
        each("'\n<tool_call>\n' + c.function | tojson + '\n</tool_call>'"),
    ),
    "a list of JSON": turns(
        "{{ '[TOOL_CALLS] [' }}{% for c in m.tool_calls %}{{ c.function | tojson }}"
        "{% if not loop.last %}{{ ', ' }}{% endif %}{% endfor %}{{ ']' }}"
    ),
    "JSON with other keys": turns(
        "{{ '<|action|>[\n' }}{% for c in m.tool_calls %}"
        "{{ {'tool_call_id': loop.index0 | string, 'tool_name': c.function.name, 'parameters': c.function.arguments}"
        " | tojson }}{% if not loop.last %}{{ ',\n' }}{% endif %}{% endfor %}{{ '\n]<|/action|>' }}"
    ),
    "JSON behind a thought": (
        "{% for m in messages %}{{ '<|start|>' + m.role }}{% if m.role != 'assistant' %}{{ m.content }}{% else %}"
        "{% if m.reasoning_content %}{{ '<|think|>' + m.reasoning_content + '<|/think|>' }}{% endif %}"
        "{% if m.tool_calls %}{{ '<|action|>' }}{% for c in m.tool_calls %}"
        "{{ {'tool_name': c.function.name, 'parameters': c.function.arguments} | tojson }}{% endfor %}"
        "{% else %}{{ '<|answer|>' + m.content }}{% endif %}{% endif %}{{ '<|return|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
    ),
    "no calls": turns(""),
}
DERIVED = {
    "name and JSON": turns(each(f"'[TOOL_CALLS]' + {NAME} + '[ARGS]' + {JSON}")),
    "an id between": turns(each(f"'[TOOL_CALLS]' + {NAME} + '[CALL_ID]' + c.id + '[ARGS]' + {JSON}")),
    "sections": turns(
        each(
            f"'<|call|>function<|sep|>' + {NAME} + '\n```json\n' + {JSON} + '\n```<|/call|>'",
            between="\n",
            head="<|calls|>",
            tail="<|/calls|>",
        )
    ),
    "numbered": turns(
        each(
            f"'<|call|>functions.' ~ {NAME} ~ ':' ~ loop.index0 ~ '<|sep|>' ~ ({JSON}) ~ '<|/call|>'",
            head="<|calls|>",
            tail="<|/calls|>",
        )
    ),
    "a line with the name": turns(each(f"{NAME} + '\n' + {JSON}", between="<|call|>")),
    "channels": channels(" to=functions.", "<|channel|>commentary json<|message|>"),
    "channels, and to whom in one": channels("<|channel|>commentary to=functions.", " <|constrain|>json<|message|>"),
    "a mark for each": turns(
        marked(
            f"'\n<tool_call>\n<function=' + {NAME} + '>\n'",
            f"'<parameter=' + k + '>\n' + {TEXT_OR_JSON} + '\n</parameter>\n'",
            "'</function>\n</tool_call>'",
        )
    ),
    "a mark for each, constants of Python": turns(
        marked(
            f"'\n<tool_call>\n<function=' + {NAME} + '>\n'",
            f"'<parameter=' + k + '>\n' + {TEXT_OR_PYTHON} + '\n</parameter>\n'",
            "'</function>\n</tool_call>'",
        ),
        before="<think>\n\n</think>\n\n",
    ),
    "keys and values": turns(
        marked(
            f"'\n<tool_call>' + {NAME} + '\n'",
            f"'<arg_key>' + k + '</arg_key>\n<arg_value>' + {TEXT_OR_JSON} + '</arg_value>\n'",
            "'</tool_call>'",
        )
    ),
    "invocations": turns(
        marked(
            f"'<invoke name=\"' + {NAME} + '\">\n'",
            f"'<parameter name=\"' + k + '\">' + {TEXT_OR_JSON} + '</parameter>\n'",
            "'</invoke>\n'",
            head="<|calls|>\n",
            tail="<|/calls|>",
        )
    ),
    "texts are told apart": turns(
        marked(
            f"'<|call|>' + {NAME} + '>\n'",
            f"'<p name=\"' + k + '\" text=\"' ~ (v is string) ~ '\">' + {TEXT_OR_JSON} + '</p>\n'",
            "'<|/call|>\n'",
            head="<|calls|>\n",
            tail="<|/calls|>",
        )
    ),
    "all values are JSON": turns(
        marked(f"'<|call|>' + {NAME} + '>'", "'<p ' + k + '>' + v | tojson + '</p>'", "'<|/call|>'")
    ),
    "Python": turns(python("v | tojson")),
    "Python in lines": turns(
        "{{ '<|calls|>' }}{% for c in m.tool_calls %}{{ c.function.name + '(' }}"
        "{% for k, v in c.function.arguments | items %}{{ k + '=' + v | tojson }}"
        "{% if not loop.last %}{{ ', ' }}{% endif %}{% endfor %}{{ ')' }}"
        "{% if not loop.last %}{{ '\n' }}{% endif %}{% endfor %}{{ '<|/calls|>' }}"
    ),
}
UNKNOWN = {
    "Python without quoting": turns(python("('\"' + v + '\"' if v is string else v | tojson)")),
    "lines": turns(marked(f"'call ' + {NAME} + '\n'", f"k + ': ' + {TEXT_OR_JSON} + '\n'", "''")),
    "values in front of their keys": turns(
        marked(f"'<|call|>' + {NAME}", f"'<v>' + {TEXT_OR_JSON} + '</v><k>' + k + '</k>'", "'<|/call|>'")
    ),
}
TOKENS = (
    *("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|action|>"),
    *("<|/action|>", "<|calls|>", "<|/calls|>", "<|call|>", "<|/call|>", "<|sep|>", "<|return|>"),
    *("<|constrain|>", "<|think|>", "<|/think|>", "<|answer|>"),
)


class Family(NamedTuple):
    """A template and what becomes of its form."""

    template: str
    is_derived: bool


FAMILIES = {
    **{name: Family(template, False) for name, template in (*USUAL.items(), *UNKNOWN.items())},
    **{name: Family(template, True) for name, template in DERIVED.items()},
}
