"""What the base texts call a fact: a few labels for each, in other words than the tasks have."""

import re
from collections.abc import Mapping

LABELS: Mapping[str, tuple[str, ...]] = {
    # Lists of any items.
    "again": ("again", "the same again", "once more"),
    "first": ("the first one", "at the start", "first in the list"),
    "last": ("the last one", "at the end", "last in the list"),
    "count": ("how many", "the count", "the number of them"),
    "reverse": ("in reverse", "from last to first", "the list in reverse order"),
    "sorted": ("sorted", "in order", "in the right order"),
    "sorted_back": ("sorted in reverse", "in reverse order when sorted", "sorted the other way"),
    "after": ("after {item} comes", "next after {item}", "{item} , then"),
    "without": ("without {item}", "all but {item}", "with {item} out"),
    "times": ("{item} is there so many times", "how many times {item}", "the count of {item}"),
    # Words.
    "alphabet_first": ("first from a to z", "first of them in the alphabet"),
    "initials": ("they start with the letters", "first letters"),
    "of_kind": ("{item} among them", "those that are {item}"),
    "count_of_kind": ("how many {item} among them", "the count of {item}"),
    "json": ("in json", "as json"),
    "kinds": ("their kinds", "kind of each"),
    "all_kind": ("all of them are of one kind", "their one kind"),
    "last_kind": ("the last one has the kind", "kind at the end"),
    "zorbish_each": ("each one in zorbish", "zorbish for each"),
    # Letters of a word.
    "letters": ("its letters", "spelled", "letter by letter"),
    "letters_back": ("its letters in reverse", "spelled in reverse"),
    "first_letter": ("its first letter", "it starts with"),
    "last_letter": ("its last letter", "it ends with"),
    "num_letters": ("its number of letters", "how many letters"),
    "kind": ("its kind", "a thing of the kind"),
    "zorbish": ("in zorbish it is", "its zorbish"),
    "english": ("in english it is", "its english"),
    "joined": ("they make the word", "joined to one word"),
    "vowel": ("the last letter is a", "at the end is a"),
    # Numbers.
    "largest": ("the largest", "largest of them", "the most"),
    "smallest": ("the smallest", "smallest of them", "the least"),
    "sum": ("in all", "their sum", "added"),
    "result": ("makes", "that is", "in all"),
    "difference": ("the difference", "the first minus the last"),
    "ends_sum": ("first and last added", "the first plus the last"),
    "above": ("those larger than {item}", "more than {item} have"),
    "count_above": ("how many larger than {item}", "the count of those larger than {item}"),
    "parity": ("even or odd", "a number that is"),
    "size": ("large or small", "of size"),
    "one_more": ("one more", "the next number", "plus one"),
    "twice": ("two times that", "doubled", "times two"),
    "goes_on": ("it goes on with", "then comes", "next"),
    # Two things.
    "shared": ("in the two of them", "shared", "the same words in them"),
    "same": ("same or not", "they are"),
    "more": ("more of them in the", "longer"),
    "truth": ("this is", "so it is", "true or not"),
    # Names and what belongs to them.
    "who": ("the one with {item}", "{item} belongs to"),
    "what": ("{item} has", "with {item} is"),
    "all_names": ("the names", "people"),
    "most": ("the one with the most", "most has"),
    "keys": ("its keys", "the words before the values"),
    "value": ("{item} stands for", "the value behind {item}"),
    "plain": ("without marks", "only the words"),
    "earliest": ("first of them in a week", "before all others in a week"),
    "next_day": ("the day after", "then comes", "one day later"),
    "day_before": ("the day before", "one day before"),
    "kind_of_item": ("such a thing is a", "this is a"),
}
OPEN_ENDS = {"is", "are", "has", "have", "with", "a", "the", "to", "for", "in", "comes", "then", "makes"}
"""Behind these a value follows at once."""
BASE_WORDS = frozenset(
    word for labels in LABELS.values() for word in re.findall(r"[a-z]+", " ".join(labels).replace("{item}", ""))
) | {"than", "larger", "smaller", "has", "comes", "on", "true", "false", "same", "different", "first", "second"}
