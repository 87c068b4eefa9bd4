"""The command line of `sft`: a parser for all verbs, which helps with a wrong word.

Nothing slow is imported here, so that `sft`, `--help` and the shell's completion answer at once.
"""

import argparse
import difflib
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import sft
from launcher import exit_codes
from launcher.verbs import GROUPS, VERBS, Verb, find_verb

_INVALID_CHOICE = re.compile(r"argument (\S+): invalid choice: '?([^' ,]*)'?.*\(choose from (.*)\)")
_AS_OPTIONS = {"help": "-h", "version": "--version"}
"""Words that are verbs elsewhere: `sft help train` is `sft train -h`."""
_OPTION = re.compile(r"(?<!\w)--?[a-z][\w-]*")


class Parser(argparse.ArgumentParser):
    """Says which word was meant, and keeps the lines of its examples."""

    def __init__(self, prog: str, **options: Any) -> None:
        """`options` are those of argparse."""
        super().__init__(prog, **options, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.set_defaults(parser=self)

    def error(self, message: str) -> NoReturn:
        """Print the message with the usage, and exit."""
        if found := _INVALID_CHOICE.fullmatch(message):
            what, given, choices = found[1].lower(), found[2], re.findall(r"[\w-]+", found[3])
            message = f"there is no {what} {given!r}{meant(given, choices) or '.'} There are {', '.join(choices)}."
        super().error(message)

    def refuse(self, words: Sequence[str]) -> NoReturn:
        """Exit because of arguments that the verb does not take."""
        known, problems = set(_OPTION.findall(self.format_help())), []
        for before, word in zip(["", *words], words, strict=False):
            option, equals, value = word.partition("=")
            if word.startswith("-") and "." in option:
                field = f"{option.lstrip('-')}={value if equals else 'VALUE'}"
                problems.append(f"{option}: a field is given without dashes, such as {field}")
            elif word.startswith("-"):
                problems.append(f"there is no option {option}{meant(option, known)}")
            elif not (before.startswith("-") and "=" not in before):
                problems.append(f"{word!r} is one argument too many")
        super().error("; ".join(problems))


def build_parser() -> Parser:
    """The parser of the command."""
    verbs = {name: find_verb(name) for name in VERBS}
    parser = _parser_of(Parser, "sft", "Instruction tuning, from data to model.", _table(verbs))
    parser.add_argument(
        "-V", "--version", action="version", version=f"sft {sft.__version__}", help="show the version and exit"
    )
    groups = {"": _verbs_of(parser, "sft", "VERB")}
    for name, verb in verbs.items():
        group, _, last = name.rpartition(" ")
        if group not in groups:
            of_group = _table({n: v for n, v in verbs.items() if n.startswith(f"{group} ")})
            added = _parser_of(groups[""].add_parser, group, GROUPS[group], of_group)
            groups[group] = _verbs_of(added, f"sft {group}", "PLACE")
        examples = f"examples:\n{textwrap.indent(verb.EXAMPLES, '  ')}"
        sub = _parser_of(groups[group].add_parser, last, verb.SUMMARY, examples)
        sub.set_defaults(run=verb.run)
        verb.add_arguments(sub)
    return parser


def _parser_of(make: Callable[..., Parser], name: str, summary: str, more: str) -> Parser:
    """A parser whose help is a sentence, the options, and something more."""
    description = f"{summary[0].upper()}{summary[1:].rstrip('.')}."
    return make(name, description=textwrap.fill(description, _width()), epilog=f"{more}\n\n{exit_codes.IN_WORDS}")


def _verbs_of(parser: Parser, prog: str, what: str) -> "argparse._SubParsersAction[Parser]":
    """What adds verbs to a parser. The help lists them in a table of ours, since that of argparse is narrow."""
    parser.usage = f"{prog} [-h] {what} ..."
    return parser.add_subparsers(prog=prog, metavar=what, help=argparse.SUPPRESS, parser_class=Parser)


def _table(verbs: Mapping[str, Verb]) -> str:
    width = max(map(len, verbs)) + 4
    lines = [
        textwrap.fill(
            verb.SUMMARY,
            _width(),
            initial_indent=f"  {name}".ljust(width),
            subsequent_indent=" " * width,
        )
        for name, verb in verbs.items()
    ]
    return "\n".join(["verbs:", *lines, "", "`sft VERB -h` shows a verb's options, with examples."])


def _width() -> int:
    return min(shutil.get_terminal_size().columns, 110) - 2


def parse(parser: Parser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the verb that is called: `run`, `parser`, and those that its module adds.

    Exits if a word is wrong. If there is no verb, lists all verbs and exits.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in _AS_OPTIONS:
        words = [*words[1:], _AS_OPTIONS[words[0]]]
    options, rest = parser.parse_known_args(words)
    # argparse takes no overrides after an option.
    overrides = [word for word in rest if "=" in word and not word.startswith("-")] if "overrides" in options else []
    if len(overrides) < len(rest):
        options.parser.refuse([word for word in rest if word not in overrides])
    if "run" not in options:
        options.parser.exit(exit_codes.WRONG_INPUT, options.parser.format_help())
    if overrides:
        options.overrides = [*options.overrides, *overrides]
    return options


def meant(given: str, known: Iterable[str]) -> str:
    """`; did you mean …?` where something known is like what was given."""
    close = difflib.get_close_matches(given, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
