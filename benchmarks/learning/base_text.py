"""Texts from which the base model learns the skills of the zoo: statements about lists, words, numbers and people.

    subject ("words : cat dog pen .") + some of its facts ("at the end : pen . in reverse : pen dog cat .")
    a fact that is announced before its subject ("in reverse" / "cat dog pen" / "pen dog cat .")
    one fact of many subjects, not named ("cat dog pen -> pen ; ..."): what a few examples have in common

Nothing here is a question, a request or a turn, and no wording of a task occurs. So the base model knows of every skill
what a language model knows, and has never been asked for one.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from benchmarks.learning.base_labels import LABELS, OPEN_ENDS
from benchmarks.learning.zoo.json_forms import json_list, json_object
from benchmarks.learning.zoo.words import (
    DAYS,
    KIND_OF,
    KINDS,
    LETTERS,
    MONTHS,
    NAMES,
    NOUNS,
    NUMBERS,
    PLURALS,
    VOWELS,
    ZORBISH,
    line,
    pick,
    some,
    some_numbers,
    some_words,
)


class Subject(NamedTuple):
    """Something that is talked about, and what is true of it: name of the label → (what it is about, value)."""

    text: str
    facts: dict[str, tuple[str, str]]


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _words(rng: np.random.Generator) -> Subject:
    if rng.random() < 0.3:
        words = some(rng, KINDS[pick(rng, tuple(KINDS))], 2, 4)
    elif rng.random() < 0.6:
        one, two = some(rng, tuple(KINDS), 2, 2)
        words = some(rng, KINDS[one] + KINDS[two], 2, 4)
    else:
        words = some_words(rng, 1, 5)
    kinds = [KIND_OF[word] for word in words]
    item, kind = pick(rng, words), pick(rng, (kinds[0], pick(rng, tuple(KINDS))))
    of_kind = [word for word in words if KIND_OF[word] == kind]
    facts = {
        "again": ("", line(words)),
        "first": ("", words[0]),
        "last": ("", words[-1]),
        "count": ("", str(len(words))),
        "reverse": ("", line(words[::-1])),
        "sorted": ("", line(sorted(words))),
        "sorted_back": ("", line(sorted(words, reverse=True))),
        "alphabet_first": ("", min(words)),
        "initials": ("", line([word[0] for word in words])),
        "count_of_kind": (PLURALS[kind], str(len(of_kind))),
        "json": ("", json_list(words)),
        "kinds": ("", line(kinds)),
        "last_kind": ("", kinds[-1]),
    }
    if of_kind:
        facts["of_kind"] = (PLURALS[kind], line(of_kind))
    if len(words) > 1:
        facts["without"] = (item, line([word for word in words if word != item]))
        place = int(rng.integers(len(words) - 1))
        facts["after"] = (words[place], words[place + 1])
        if len(set(kinds)) == 1:
            facts["all_kind"] = ("", kinds[0])
    return Subject(line(words), facts)


def _repeated(rng: np.random.Generator) -> Subject:
    words = some_words(rng, 2, 3)
    drawn = [pick(rng, words) for _ in range(int(rng.integers(2, 6)))]
    item = pick(rng, drawn)
    return Subject(line(drawn), {"times": (item, str(drawn.count(item))), "count": ("", str(len(drawn)))})


def _json_words(rng: np.random.Generator) -> Subject:
    words = some_words(rng, 1, 4)
    return Subject(
        json_list(words),
        {
            "plain": ("", line(words)),
            "count": ("", str(len(words))),
            "first": ("", words[0]),
            "last": ("", words[-1]),
            "sorted": ("", json_list(sorted(words))),
        },
    )


def _word(rng: np.random.Generator) -> Subject:
    word = pick(rng, NOUNS)
    facts = {
        "letters": ("", line(word)),
        "letters_back": ("", line(word[::-1])),
        "first_letter": ("", word[0]),
        "last_letter": ("", word[-1]),
        "num_letters": ("", str(len(word))),
        "kind": ("", KIND_OF[word]),
    }
    if word in ZORBISH:
        facts["zorbish"] = ("", ZORBISH[word])
    return Subject(word, facts)


def _letters(rng: np.random.Generator) -> Subject:
    if rng.random() < 0.4:
        word = pick(rng, NOUNS)
        return Subject(line(word), {"joined": ("", word), "count": ("", str(len(word)))})
    letters = some(rng, LETTERS, 1, 4)
    if rng.random() < 0.3:
        start = int(rng.integers(23))
        letters = list(LETTERS[start : start + int(rng.integers(2, 5))])
    return Subject(
        line(letters),
        {
            "sorted": ("", line(sorted(letters))),
            "reverse": ("", line(letters[::-1])),
            "again": ("", line(letters)),
            "first": ("", letters[0]),
            "last": ("", letters[-1]),
            "count": ("", str(len(letters))),
            "vowel": ("", "vowel" if letters[-1] in VOWELS else "consonant"),
        },
    )


def _numbers(rng: np.random.Generator) -> Subject:
    numbers = some_numbers(rng)
    item = 5 * int(rng.integers(1, 6))
    above = [number for number in numbers if number > item]
    facts = {
        "again": ("", line(numbers)),
        "first": ("", str(numbers[0])),
        "last": ("", str(numbers[-1])),
        "count": ("", str(len(numbers))),
        "reverse": ("", line(numbers[::-1])),
        "sorted": ("", line(sorted(numbers))),
        "sorted_back": ("", line(sorted(numbers, reverse=True))),
        "largest": ("", str(max(numbers))),
        "smallest": ("", str(min(numbers))),
        "count_above": (str(item), str(len(above))),
    }
    if above:
        facts["above"] = (str(item), line(above))
    return Subject(line(numbers), facts)


def _sums(rng: np.random.Generator) -> Subject:
    numbers = rng.integers(10, size=int(rng.integers(2, 4))).tolist()
    facts = {"sum": ("", str(sum(numbers))), "ends_sum": ("", str(numbers[0] + numbers[-1]))}
    if numbers[0] >= numbers[-1]:
        facts["difference"] = ("", str(numbers[0] - numbers[-1]))
    return Subject(line(numbers), facts)


def _number(rng: np.random.Generator) -> Subject:
    number = int(rng.integers(29))
    facts = {
        "parity": ("", "odd" if number % 2 else "even"),
        "size": ("", "large" if number >= 15 else "small"),
        "one_more": ("", str(number + 1)),
    }
    if number < 15:
        facts["twice"] = ("", str(2 * number))
    return Subject(str(number), facts)


def _steps(rng: np.random.Generator) -> Subject:
    step, start = pick(rng, (1, 2, 5)), int(rng.integers(10))
    numbers = [start + step * place for place in range(int(rng.integers(3, 5)))]
    return Subject(line(numbers), {"goes_on": ("", str(numbers[-1] + step))})


def _sum(rng: np.random.Generator) -> Subject:
    b, a = sorted(rng.integers(10, size=2).tolist())
    if rng.random() < 0.5:
        return Subject(f"{a} minus {b}", {"result": ("", str(a - b))})
    a, b = (a, b) if rng.random() < 0.5 else (b, a)
    return Subject(f"{a} plus {b}", {"result": ("", str(a + b))})


def _claim(rng: np.random.Generator) -> Subject:
    if rng.random() < 0.5:
        a, b = some_numbers(rng, 2, 2)
        if rng.random() < 0.5:
            return Subject(f"{a} is larger than {b}", {"truth": ("", _truth(a > b))})
        return Subject(f"{a} is smaller than {b}", {"truth": ("", _truth(a < b))})
    if rng.random() < 0.5:
        word = pick(rng, NOUNS)
        kind = KIND_OF[word] if rng.random() < 0.5 else pick(rng, tuple(KINDS))
        return Subject(f"{word} is of the kind {kind}", {"truth": ("", _truth(KIND_OF[word] == kind))})
    word, *words = some_words(rng, 3, 5)
    word = pick(rng, words) if rng.random() < 0.5 else word
    return Subject(f"{line(words)} ; {word} is there", {"truth": ("", _truth(word in words))})


def _two_lists(rng: np.random.Generator) -> Subject:
    words = some_words(rng, 4, 5)
    if rng.random() < 0.3:
        half = words[:3]
        return Subject(f"{line(half)} ; {line(half)}", {"same": ("", "same"), "shared": ("", line(half))})
    shared, one, two = words[:1], words[1:2], words[2:]
    first, second = ([part[place] for place in rng.permutation(len(part))] for part in (shared + one, shared + two))
    if rng.random() < 0.5:
        first, second = second, first
    facts = {"same": ("", "different"), "shared": ("", line([word for word in first if word in second]))}
    if len(first) != len(second):
        facts["more"] = ("", "first" if len(first) > len(second) else "second")
    return Subject(f"{line(first)} ; {line(second)}", facts)


def _owners(rng: np.random.Generator) -> Subject:
    names = some(rng, NAMES, 2, 3)
    things = some(rng, KINDS["tool"] + KINDS["clothes"], len(names), len(names))
    told = " ".join(f"{name} has the {thing} ." for name, thing in zip(names, things, strict=True))
    place = int(rng.integers(len(names)))
    facts = {"who": (f"the {things[place]}", names[place]), "all_names": ("", line(names))}
    other = int(rng.integers(len(names)))
    facts["what"] = (names[other], things[other])
    return Subject(told[:-2], facts)


def _colors(rng: np.random.Generator) -> Subject:
    things = some(rng, KINDS["tool"] + KINDS["clothes"], 2, 3)
    colors = some(rng, KINDS["color"], len(things), len(things))
    told = " . ".join(f"the {thing} is {color}" for thing, color in zip(things, colors, strict=True))
    place = int(rng.integers(len(things)))
    return Subject(told, {"what": (f"the {things[place]}", colors[place])})


def _visits(rng: np.random.Generator) -> Subject:
    names = some(rng, NAMES, 2, 3)
    days = some(rng, DAYS, len(names), len(names))
    told = " . ".join(f"{name} comes on {day}" for name, day in zip(names, days, strict=True))
    place = int(rng.integers(len(names)))
    return Subject(told, {"what": (names[place], days[place]), "who": (days[place], names[place])})


def _scores(rng: np.random.Generator) -> Subject:
    names = some(rng, NAMES, 2, 3)
    numbers = some_numbers(rng, len(names), len(names))
    place = int(rng.integers(len(names)))
    facts = {
        "what": (names[place], str(numbers[place])),
        "most": ("", names[numbers.index(max(numbers))]),
        "all_names": ("", line(names)),
    }
    return Subject(" , ".join(f"{name} {number}" for name, number in zip(names, numbers, strict=True)), facts)


def _pairs(rng: np.random.Generator) -> Subject:
    words = some_words(rng, 1, 3)
    numbers = some_numbers(rng, len(words), len(words))
    pairs = dict(zip(words, numbers, strict=True))
    place = int(rng.integers(len(words)))
    if rng.random() < 0.4:
        return Subject(
            " , ".join(f"{word} {number}" for word, number in pairs.items()), {"json": ("", json_object(pairs))}
        )
    facts = {"keys": ("", line(words)), "value": (words[place], str(numbers[place])), "count": ("", str(len(words)))}
    return Subject(json_object(pairs), facts)


def _days(rng: np.random.Generator) -> Subject:
    names = DAYS if rng.random() < 0.6 else MONTHS
    if rng.random() < 0.5:
        place = int(rng.integers(len(names)))
        facts = {"next_day": ("", names[(place + 1) % len(names)]), "day_before": ("", names[place - 1])}
        return Subject(names[place], facts)
    days = some(rng, DAYS, 2, 4)
    in_order = sorted(days, key=DAYS.index)
    facts = {"sorted": ("", line(in_order)), "earliest": ("", in_order[0]), "last": ("", days[-1])}
    return Subject(line(days), {**facts, "count": ("", str(len(days)))})


def _zorbish(rng: np.random.Generator) -> Subject:
    words = tuple(ZORBISH)
    which = rng.random()
    if which < 0.4:
        word = pick(rng, words)
        return Subject(ZORBISH[word], {"english": ("", word)})
    color, animal = pick(rng, KINDS["color"]), pick(rng, KINDS["animal"])
    english, zorbish = f"the {color} {animal}", f"{ZORBISH[animal]} {ZORBISH[color]}"
    if which < 0.6:
        return Subject(english, {"zorbish": ("", zorbish)})
    if which < 0.8:
        return Subject(zorbish, {"english": ("", english)})
    chosen = some(rng, words, 2, 4)
    return Subject(line(chosen), {"zorbish_each": ("", line([ZORBISH[word] for word in chosen]))})


def _item(rng: np.random.Generator) -> Subject:
    sort = pick(rng, ("number", "letter", "word", "name"))
    items = {"number": tuple(NUMBERS), "letter": LETTERS, "word": NOUNS, "name": NAMES}[sort]
    return Subject(line(some(rng, items, 1, 2)), {"kind_of_item": ("", sort)})


_SUBJECTS: tuple[tuple[Callable[[np.random.Generator], Subject], float], ...] = (
    *((_words, 7.0), (_repeated, 0.7), (_json_words, 1.0), (_word, 3.0), (_letters, 1.5), (_numbers, 4.0)),
    *((_sums, 1.5), (_number, 1.5), (_steps, 0.7), (_sum, 1.5), (_claim, 2.0), (_two_lists, 1.5), (_owners, 2.5)),
    *((_colors, 1.5), (_visits, 1.5), (_scores, 1.8), (_pairs, 1.8), (_days, 1.2), (_zorbish, 1.5), (_item, 0.7)),
)
_SHARES = np.array([share for _, share in _SUBJECTS]) / sum(share for _, share in _SUBJECTS)
_IS_SHARE = 0.35
_MAPPING_SHARE = 0.15
_ANNOUNCED_SHARE = 0.35
_MAPPED = 4
_ALONE_SHARE = 0.7
_MOST_FACTS = 5


Piece = tuple[str, bool]
"""A part of a document, and whether it follows from what stands before it: only that is learned."""


def documents(rng: np.random.Generator) -> Iterator[list[Piece]]:
    """Documents without end, each of 15 to 150 tokens or so."""
    while True:
        make = _SUBJECTS[int(rng.choice(len(_SUBJECTS), p=_SHARES))][0]
        form = rng.random()
        if form < _MAPPING_SHARE:
            yield _mapping(rng, make)
        else:
            yield _announced(rng, make) if form < _MAPPING_SHARE + _ANNOUNCED_SHARE else _sheet(rng, make)


def _sheet(rng: np.random.Generator, make: Callable[[np.random.Generator], Subject]) -> list[Piece]:
    """A subject or two of one sort, and most facts of each. Each begins a line, as the input of a task does."""
    pieces: list[Piece] = []
    for _ in range(1 if rng.random() < _ALONE_SHARE else 2):
        subject = make(rng)
        names = list(subject.facts)
        chosen = [names[place] for place in rng.permutation(len(names))[:_MOST_FACTS]]
        pieces.append((f"\n {subject.text} .", False))
        for name in chosen:
            item, value = subject.facts[name]
            pieces += [(_label(rng, name, item), False), (f"{value} .", True)]
    return pieces


def _announced(rng: np.random.Generator, make: Callable[[np.random.Generator], Subject]) -> list[Piece]:
    """A few subjects, each with one fact whose label stands in front: what is to be found is known before the list."""
    pieces: list[Piece] = []
    for _ in range(3):
        subject = make(rng)
        name = pick(rng, list(subject.facts))
        item, value = subject.facts[name]
        label = pick(rng, LABELS[name]).replace("{item}", item)
        pieces += [(f"\n {label} \n {subject.text} \n", False), (f"{value} .", True)]
    return pieces


def _label(rng: np.random.Generator, name: str, item: str) -> str:
    label = pick(rng, LABELS[name]).replace("{item}", item)
    if label.split()[-1] in OPEN_ENDS:
        return label
    return f"{label} {'is' if rng.random() < _IS_SHARE else ':'}"


def _mapping(rng: np.random.Generator, make: Callable[[np.random.Generator], Subject]) -> list[Piece]:
    """One fact of several subjects, whose name is never said. The first value is not to be known."""
    first = make(rng)
    name = pick(rng, list(first.facts))
    subjects = [first]
    for _ in range(20):
        if len(subjects) == _MAPPED:
            break
        other = make(rng)
        if name in other.facts:
            subjects.append(other)
    pieces: list[Piece] = []
    for place, subject in enumerate(subjects):
        item, value = subject.facts[name]
        about = f"{subject.text} ; {item}" if item else subject.text
        pieces += [(f"\n {about} ->", False), (f"{value} .", place > 0)]
    return pieces


def text_of(pieces: list[Piece]) -> str:
    """The document as a text."""
    return " ".join(text for text, _ in pieces)
