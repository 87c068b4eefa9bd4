"""Chat templates that would never end, or would fill the memory, are stopped; all others render as under Jinja."""

import resource
import time
from typing import Any

import pytest
from transformers.utils.chat_template_utils import _compile_jinja_template

from sft.data.rendering.bounded_template import MAX_CHARS, compile_template
from sft.errors import UserError

TOLD: dict[str, Any] = {
    "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}],
    "tools": [{"name": "f", "parameters": {"a": [1, 2.5, None, True]}}],
    "bos_token": "<s>",
}


def doubling(value: str, start: str = "'a'") -> str:
    """Sixty times `x` becomes `value`."""
    begin = f"{{% set ns = namespace(x={start}) %}}{{% for i in range(60) %}}{{% set ns.x = {value} %}}{{% endfor %}}"
    return begin + "{{ ns.x }}"


def nested(*iterables: str) -> str:
    loops = [f"{{% for i{i} in {iterable} %}}" for i, iterable in enumerate(iterables)]
    return "".join(loops) + "{% endfor %}" * len(loops)


def looping(expression: str, start: str = "'a' * 900000", times: int = 99999) -> str:
    return f"{{% set x = {start} %}}{{% for i in range({times}) %}}{{% if {expression} %}}{{% endif %}}{{% endfor %}}"


WITHOUT_END = {
    "loops in loops": nested("range(99999)", "range(99999)", "range(99999)"),
    "loops over what is made on the way": nested("range(99999)|map('string')", "range(99999)|map('string')"),
    "loops over views": "{% set d = dict.fromkeys(range(99999)) %}" + nested("d.items()", "d.keys()"),
    "loops with a condition": nested("range(99999) if range(99999)|list|length == 0"),
    "loops with text": nested("range(99999)", "range(99)").replace("{% endfor %}", "text " * 99 + "{% endfor %}"),
    "macros": "{% macro m(n) %}{% if n > 0 %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "+": doubling("ns.x + ns.x"),
    "+ of lists": doubling("ns.x + ns.x", "[1]"),
    "~": doubling("ns.x ~ ns.x"),
    "many ~": looping(" ~ ".join(["x"] * 5000), times=1),
    "%": doubling("'%s%s' % (ns.x, ns.x)"),
    "format": doubling("'{}{}'.format(ns.x, ns.x)"),
    "|format": doubling("'%s%s'|format(ns.x, ns.x)"),
    "|join": doubling("[ns.x, ns.x]|join"),
    ".join": doubling("''.join([ns.x, ns.x])"),
    "|replace": doubling("ns.x|replace('a', 'aa')"),
    ".replace": doubling("ns.x.replace('a', 'aa')"),
    "a block that is kept": doubling("1").replace("set ns.x = 1 %}", "set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}"),
    "a macro that doubles": "{% macro m(x) %}{{ x }}{{ x }}{% endmacro %}" + doubling("m(ns.x)"),
    "escaped": "{% autoescape true %}" + doubling("ns.x|e ~ ns.x|e", "'<'") + "{% endautoescape %}",
    "lists in lists": doubling("[ns.x, ns.x]", "[1]"),
    "lists in lists as JSON": doubling("[ns.x, ns.x]", "[1]").replace("{{ ns.x }}", "{{ ns.x|tojson }}"),
    "mappings in mappings": doubling("{'a': ns.x, 'b': ns.x}", "{}"),
    "dict in dict": doubling("dict(a=ns.x, b=ns.x)", "{}"),
    "fromkeys": doubling("{}.fromkeys('ab', ns.x)", "{}"),
    "namespaces in namespaces": doubling("namespace(a=ns.x, b=ns.x)"),
    "lists that are repeated": doubling("[ns.x] * 2", "[1]"),
    "|batch": doubling("ns.x|batch(100, ns.x)|list", "[1]"),
    "|slice": doubling("ns.x|slice(100, ns.x)|list", "[1]"),
    "|map with a default": doubling("[1, 2]|map(attribute='z', default=ns.x)|list", "[1]"),
    "varargs": "{% macro m() %}{% set ns.x = varargs %}{% endmacro %}" + doubling("m(ns.x, ns.x) or ns.x", "[1]"),
    "what holds itself": "{% set ns = namespace() %}{% set ns.a = [ns] %}{% set ns.b = [ns] %}{{ ns }}",
    "numbers": doubling("ns.x * ns.x", "3"),
    "a power": "{{ 10 ** (10 ** 10) }}",
    "a power that is known": "{{ 9 ** 999999 }}",
    "text times a number": "{{ 'a' * 10 ** 10 }}",
    "a number times text": "{{ 9999999999 * messages[0].content }}",
    "a width": "{{ 'a'|center(1000000000) }}",
    ".ljust": "{{ 'a'.ljust(1000000000) }}",
    ".zfill": "{{ 'a'.zfill(1000000000) }}",
    ".expandtabs": "{{ ('\t' * 99999).expandtabs(99999)|length }}",
    "|indent": "{{ ('\n' * 99999)|indent(99999)|length }}",
    ".to_bytes": "{{ (1).to_bytes(10000000000, 'big')|length }}",
    "a width in a format": "{{ '%1000000000d' % 1 }}",
    "a width behind a name": "{{ '%(a)1000000000d' % {'a': 1} }}",
    "a width in braces": "{{ '{:1000000000}'.format(1) }}",
    "a width that is a value": "{{ '%*d' % (1000000000, 1) }}",
    "a width inside": "{{ '{a:{b}}'.format_map({'a': 1, 'b': 1000000000}) }}",
    "nothing that is replaced": "{{ ('a' * 99999)|replace('', 'b' * 99999)|length }}",
    "a long separator": "{{ range(99999)|join('a' * 99999)|length }}",
    "one text again and again": "{{ ''.join(['a' * 99999] * 99999)|length }}",
    ".translate": "{{ ('a' * 99999).translate({97: 'b' * 99999})|length }}",
    "a batch": "{{ [1]|batch(10000000000, 1)|list|length }}",
    "a sum of lists": "{{ ([range(99999)|list] * 9999)|sum(start=[])|length }}",
    "JSON far to the right": "{{ [1, [2, [3]]]|tojson(indent='a' * 999999) }}",
    "comments in comments": "{{ ('<!-- -->' * 99999)|striptags|length }}",
    "|round": "{{ 1.5|round(1000000000) }}",
    "|trim of a long text": looping("x|trim"),
    ".strip of a long text": looping("x.strip()"),
    "slices": looping("x[1:]"),
    "comparisons": looping("x == x|upper"),
    "lists of ranges": looping("range(99999)|list", "0"),
    "constants": "{{ 'a'|center(1000000000) }}{{ 'b'|center(1000000000) }}",
}


@pytest.mark.parametrize("case", WITHOUT_END)
def test_a_template_without_end_is_stopped_with_its_name(case: str) -> None:
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(UserError, match=r"template X was stopped"):
        compile_template(WITHOUT_END[case], "template X")(TOLD)
    assert time.process_time() - began < 10, "seconds; most take a tenth of one"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "kB"


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
        "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
        "{{ " + "[" * 3_000 + "]" * 3_000 + " }}",
        "{{ a" + ".a" * 50_000 + " }}",
        "{{ " + " + ".join(["a"] * 5_000) + " }}",
        "{{ a }}" * 25_000,
        "a" * (MAX_CHARS + 1),
        "{% if %}",
        "{% nothing %}",
    ],
)
def test_what_cannot_be_compiled_is_refused_with_its_name(source: str) -> None:
    with pytest.raises(UserError, match="template X"):
        compile_template(source, "template X")


def test_a_template_that_calls_itself_is_an_error_of_the_template() -> None:
    for source in ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{% block b %}{{ self.b() }}{% endblock %}"):
        with pytest.raises(Exception, match="calls itself"):
            compile_template(source, "template X")(TOLD)


EVERYTHING = """{% set ns = namespace(n=0, text='') %}{% macro show(x, end='!') %}<{{ x }}{{ end }}{{ varargs }}{{ kwargs }}>{% endmacro %}
{% for m in messages[::-1] if m.content recursive %}{{ loop.index }}{{ loop.length }}{{ loop.revindex }}{% set ns.n = ns.n + 1 %}
{% set ns.text = ns.text + m.content ~ loop.last ~ 1.5 %}{{ loop.cycle('a', 'b') }}{% else %}none{% endfor %}
{% for a in [[1, [2]], [3]] recursive %}{% if a is iterable %}{{ loop(a) }}{% else %}{{ a }}{% endif %}{% endfor %}
{{ show(ns.text) }}{{ show('x', 'y', 'z', w=1) }}{% call show('c') %}inner{% endcall %}{{ ns.n * 2 ** 3 % 5 }}{{ -7 % 3 }}{{ 7 // 2 }}
{{ '%s is %05.1f%%' % ('it', 2.25) }}{{ '{:>4}{x!r}'.format(1, x='y') }}{{ '%d'|format(3) }}{{ [1] * 3 + [2] }}{{ 2 * 'ab' }}
{{ (1, 2) + (3,) }}{{ {'a': [1]}.items()|list }}{{ tools|tojson }}{{ tools|tojson(indent=2) }}{{ messages|map(attribute='role')|join(', ') }}
{{ messages|selectattr('role', 'equalto', 'user')|list }}{{ messages|groupby('role')|length }}{{ 'abc'[1:] }}{{ 'abc'.replace('b', 'xx') }}
{{ ' a '|trim }}{{ 'a\nb'|indent(2) }}{{ 'a b'.split(' ')|last }}{{ 'a-b'.partition('-') }}{{ ','.join(['x', 'y']) }}{{ 'a'.center(5) }}
{{ [3, 1, 2]|sort }}{{ [1, 1]|unique|list }}{{ [1, 2]|sum }}{{ range(5)|batch(2, 0)|list }}{{ range(5)|slice(2)|list }}{{ 3.7|round }}
{% set block %}kept {{ bos_token }}{% endset %}{{ block }}{% filter upper %}up{% endfilter %}{% with y = 5 %}{{ y }}{% endwith %}
{{ missing }}{{ missing is defined }}{{ none }}{{ true and 'x' or 'y' }}{{ 'a' in ['a', 'b'] }}{{ 'k' in {'k': 1} }}{{ 5 in range(9) }}
{% generation %}learned{% endgeneration %}{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}
{{ dict(a=1) }}{{ joiner('x')() }}{{ cycler('p', 'q').next() }}{{ "<a>"|e }}{{ ('<b>'|safe) + '<i>' }}{{ messages[0]['content'] ~ 1 ~ none }}
"""  # noqa: E501


def test_what_ends_is_rendered_as_transformers_renders_it() -> None:
    ours, theirs = compile_template(EVERYTHING, "template X"), _compile_jinja_template(EVERYTHING)
    assert ours(TOLD) == theirs.render(TOLD)
    for told in ({**TOLD, "messages": TOLD["messages"][:1]}, {**TOLD, "messages": TOLD["messages"] * 30}):
        assert ours(told) == theirs.render(told)


@pytest.mark.parametrize("source", ["{{ raise_exception('no') }}", "{{ missing.x }}", "{{ 1 + 'a' }}", "{{ 1 % 0 }}"])
def test_what_a_template_raises_is_what_it_raises_under_transformers(source: str) -> None:
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        _compile_jinja_template(source).render(TOLD)
    with pytest.raises(type(theirs.value)) as ours:
        compile_template(source, "template X")(TOLD)
    assert str(ours.value) == str(theirs.value)


def test_a_long_conversation_may_be_looked_through_at_each_turn() -> None:
    inner = "{% for n in messages %}{% if n == m %}{% endif %}{% endfor %}"
    source = "{% for m in messages %}" + inner + "{{ m.content }}{% endfor %}"
    long = [{"role": "user", "content": "some words of a turn"}] * 1_000
    assert len(compile_template(source, "template X")({"messages": long})) == 20_000
    one = {"messages": [{"role": "user", "content": "a" * 5_000_000}]}
    assert len(compile_template("{{ messages[0].content|trim + '\\n' }}" * 20, "template X")(one)) == 100_000_020


def test_where_it_is_stopped_does_not_depend_on_the_machine_or_on_what_was_rendered_before() -> None:
    source = "{% for i in range(messages|length) %}{% for j in range(1000) %}{{ j }}{% endfor %}{% endfor %}"

    def first_stopped() -> int:
        render = compile_template(source, "template X")
        for num in range(0, 2_000, 20):
            try:
                render({"messages": [1] * num})
            except UserError:
                return num
        return -1

    assert first_stopped() == first_stopped() > 0
