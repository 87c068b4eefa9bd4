"""The right answer of each task of the zoo, computed slowly from what a person reads: the instruction and the input."""

import json
import re
from collections.abc import Callable

KINDS = {
    "animal": "ant bee cat dog fox hen",
    "food": "egg fig jam nut pear rice",
    "color": "blue gold grey pink red tan",
    "tool": "axe box cup key lamp pen",
    "clothes": "belt cap coat hat shoe sock",
}
PLURALS = {"animals": "animal", "foods": "food", "colors": "color", "tools": "tool", "clothes": "clothes"}
ALL = " ".join(KINDS.values()).split()
DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
MONTHS = re.findall(r"\w+", "january february march april may june july august september october november december")
NAMES = ["anna", "ben", "carl", "dora", "emil", "fay", "gus", "hugo", "ida", "jan"]
ZORBISH = dict(
    re.findall(
        r"(\w+)=(\w+)",
        "ant=bima bee=dolu cat=fenk dog=gola fox=hurt hen=jopa "
        "blue=oska gold=polt grey=quen pink=ruma red=sarn tan=tivo",
    )
)
ENGLISH = {word: english for english, word in ZORBISH.items()}
Answer = Callable[[str, str], str]


def said(text: str, known: list[str] | dict[str, str]) -> list[str]:
    """The words of a text that are among the known ones, in order."""
    return [word for word in re.findall(r"\w+", text) if word in known]


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def kind_of(word: str) -> str:
    return next(kind for kind, words in KINDS.items() if word in words.split())


def kind_in(instruction: str) -> str:
    return PLURALS[said(instruction, PLURALS)[-1]]


def joined(items: list[object]) -> str:
    return " ".join(str(item) for item in items)


def insertion_sorted(items: list[str], order: list[str] | None = None) -> list[str]:
    done: list[str] = []
    for item in items:
        key = item if order is None else order.index(item)
        place = 0
        while place < len(done) and (done[place] if order is None else order.index(done[place])) < key:
            place += 1
        done.insert(place, item)
    return done


def bubble_sorted(items: list[int]) -> list[int]:
    items = list(items)
    for end in range(len(items), 1, -1):
        for place in range(end - 1):
            if items[place] > items[place + 1]:
                items[place], items[place + 1] = items[place + 1], items[place]
    return items


def as_json(value: object) -> str:
    """JSON by the library, with blanks between the tokens."""
    text = json.dumps(value, separators=(" , ", " : "))
    return f"{text[0]} {text[1:-1]} {text[-1]}"


def told(input_: str, holder: str) -> dict[str, str]:
    """From "ben has the cup. ida has the hat." what each has."""
    return dict(re.findall(rf"(\w+) {holder} (\w+)", input_))


def scores(input_: str) -> dict[str, int]:
    return {name: int(number) for name, number in re.findall(r"(\w+) (\d+)", input_)}


def holds(claim: str) -> bool:
    a, order, b = re.fullmatch(r"(\d+) is (larger|smaller) than (\d+)", claim).groups()
    return int(a) > int(b) if order == "larger" else int(a) < int(b)


def claims(text: str) -> list[bool]:
    return [holds(claim) for claim in re.findall(r"\d+ is (?:larger|smaller) than \d+", text)]


def one_claim(instruction: str) -> bool:
    """The claim of a sentence whose verb may stand behind: "Is it true that …", "… is larger than …"."""
    a, b = numbers(instruction)
    return a > b


def names_kind(instruction: str) -> bool:
    return (
        KINDS[instruction.split("of the kind ")[1].split(",")[0].split(".")[0].split("?")[0]]
        .split()
        .count(said(instruction, ALL)[0])
        == 1
    )


def yes(value: bool) -> str:
    return "yes" if value else "no"


def truth(value: bool) -> str:
    return "true" if value else "false"


def lists(input_: str) -> tuple[list[str], list[str]]:
    one, two = input_.split(" ; ")
    return one.split(), two.split()


ANSWERS: dict[str, Answer] = {
    # strings
    "spell": lambda q, x: re.sub(r"(?<=.)(?=.)", " ", x),
    "spell_reverse": lambda q, x: joined([x[-place] for place in range(1, len(x) + 1)]),
    "first_letter": lambda q, x: re.match(r"\w", x)[0],
    "last_letter": lambda q, x: re.search(r"\w$", x)[0],
    "join_letters": lambda q, x: x.replace(" ", ""),
    "first_letters": lambda q, x: joined(re.findall(r"\b\w", x)),
    # counting
    "count_words": lambda q, x: str(x.count(" ") + 1),
    "count_letters": lambda q, x: str(sum(1 for _ in x)),
    "count_repeats": lambda q, x: str(len(re.findall(rf"\b{said(q, ALL)[0]}\b", x))),
    "count_kind": lambda q, x: str(len([word for word in x.split() if kind_of(word) == kind_in(q)])),
    "count_larger": lambda q, x: str(len([n for n in numbers(x) if n > numbers(q)[0]])),
    # sorting
    "sort_numbers": lambda q, x: joined(bubble_sorted(numbers(x))),
    "sort_numbers_reverse": lambda q, x: joined(bubble_sorted(numbers(x))[::-1]),
    "sort_words": lambda q, x: joined(insertion_sorted(x.split())),
    "sort_words_reverse": lambda q, x: joined(insertion_sorted(x.split())[::-1]),
    "sort_letters": lambda q, x: joined(insertion_sorted(x.split())),
    # arithmetic
    "add": lambda q, x: str(len(range(numbers(q)[0])) + numbers(q)[1]),
    "subtract": lambda q, x: str(max(numbers(q)) - min(numbers(q))),
    "sum_numbers": lambda q, x: str(eval("+".join(x.split()))),
    "double": lambda q, x: str(numbers(q)[0] * 2),
    "add_first_and_last": lambda q, x: str(int(x.split()[0]) + int(x.split()[-1])),
    "add_one": lambda q, x: str(range(numbers(q)[0], 100)[1]),
    # json
    "to_json_list": lambda q, x: as_json(x.split()),
    "from_json_list": lambda q, x: joined(json.loads(x)),
    "to_json_object": lambda q, x: as_json(scores(x)),
    "json_value": lambda q, x: str(json.loads(x)[said(q, ALL)[0]]),
    "json_keys": lambda q, x: joined(list(json.loads(x))),
    "json_count": lambda q, x: str(len(json.loads(x))),
    "to_sorted_json_list": lambda q, x: as_json(insertion_sorted(x.split())),
    # dates
    "day_after": lambda q, x: (DAYS * 2)[DAYS.index(said(q, DAYS)[0]) + 1],
    "day_before": lambda q, x: DAYS[DAYS.index(said(q, DAYS)[0]) - 1],
    "month_after": lambda q, x: (MONTHS * 2)[MONTHS.index(said(q, MONTHS)[0]) + 1],
    "sort_days": lambda q, x: joined(insertion_sorted(x.split(), DAYS)),
    "first_day": lambda q, x: insertion_sorted(x.split(), DAYS)[0],
    "day_of_name": lambda q, x: told(x, "comes on")[said(q, NAMES)[0]],
    # look-up
    "who_has": lambda q, x: {thing: name for name, thing in told(x, "has the").items()}[said(q, ALL)[0]],
    "what_has": lambda q, x: told(x, "has the")[said(q, NAMES)[0]],
    "color_of": lambda q, x: told(x, "is")[said(q, ALL)[0]],
    "number_of": lambda q, x: str(scores(x)[said(q, NAMES)[0]]),
    "who_has_largest": lambda q, x: said(x, NAMES)[numbers(x).index(bubble_sorted(numbers(x))[-1])],
    "names_in_text": lambda q, x: joined(said(x, NAMES)),
    # translation
    "to_zorbish": lambda q, x: ZORBISH[said(q, ZORBISH)[0]],
    "to_english": lambda q, x: ENGLISH[said(q, ENGLISH)[0]],
    "text_to_zorbish": lambda q, x: joined([ZORBISH[word] for word in said(x, ZORBISH)[::-1]]),
    "text_to_english": lambda q, x: joined(["the", *(ENGLISH[word] for word in said(x, ENGLISH)[::-1])]),
    "words_to_zorbish": lambda q, x: joined([ZORBISH[word] for word in x.split()]),
    "words_to_english": lambda q, x: joined([ENGLISH[word] for word in x.split()]),
    # logic
    "true_larger": lambda q, x: truth(one_claim(q)),
    "true_kind": lambda q, x: truth(names_kind(q)),
    "is_in_list": lambda q, x: yes(said(q, ALL)[0] in x.split()),
    "are_all_of_kind": lambda q, x: yes(all(kind_of(word) == kind_in(q) for word in x.split())),
    "has_the_thing": lambda q, x: yes(told(x, "has the")[said(q, NAMES)[0]] == said(q, ALL)[0]),
    "both_true": lambda q, x: truth(claims(q) == [True, True]),
    # classification
    "kind_of_word": lambda q, x: kind_of(x),
    "kind_of_list": lambda q, x: {kind_of(word) for word in x.split()}.pop(),
    "kind_of_last": lambda q, x: kind_of(x.rsplit(" ", 1)[-1]),
    "odd_or_even": lambda q, x: "odd" if x[-1] in "13579" else "even",
    "small_or_large": lambda q, x: "large" if numbers(x)[0] // 15 else "small",
    "vowel_or_consonant": lambda q, x: "vowel" if re.search("[aeiou]$", x) else "consonant",
    "sort_of_item": lambda q, x: (
        "number" if x[0].isdigit() else "letter" if len(x.split()[0]) == 1 else "name" if said(x, NAMES) else "word"
    ),
    # comparison
    "larger_of_two": lambda q, x: str(bubble_sorted(numbers(q))[1]),
    "smaller_of_two": lambda q, x: str(bubble_sorted(numbers(q))[0]),
    "largest_number": lambda q, x: str(bubble_sorted(numbers(x))[-1]),
    "smallest_number": lambda q, x: str(bubble_sorted(numbers(x))[0]),
    "first_in_alphabet": lambda q, x: insertion_sorted(x.split())[0],
    "same_or_different": lambda q, x: "same" if lists(x)[0] == lists(x)[1] else "different",
    "more_words": lambda q, x: "first" if len(lists(x)[0]) > len(lists(x)[1]) else "second",
    # sequences
    "reverse": lambda q, x: joined(list(reversed(x.split()))),
    "first_word": lambda q, x: x.partition(" ")[0],
    "last_word": lambda q, x: x.rpartition(" ")[2],
    "word_after": lambda q, x: re.search(rf"\b{said(q, ALL)[0]} (\w+)", x)[1],
    "without_word": lambda q, x: re.sub(r"\s+", " ", re.sub(rf"\b{said(q, ALL)[0]}\b", "", x)).strip(),
    "only_kind": lambda q, x: joined([word for word in x.split() if kind_of(word) == kind_in(q)]),
    "shared_words": lambda q, x: joined([word for word in lists(x)[0] if lists(x)[1].count(word)]),
    "next_number": lambda q, x: str(2 * numbers(x)[-1] - numbers(x)[-2]),
    "one_of_kind": lambda q, x: next(word for word in x.split() if kind_of(word) == kind_in(q)),
}
