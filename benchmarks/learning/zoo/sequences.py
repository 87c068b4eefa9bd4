"""Lists: their places, and what is in them."""

import numpy as np

from benchmarks.learning.zoo.task import Case, task
from benchmarks.learning.zoo.words import KIND_OF, KINDS, PLURALS, line, pick, some, some_words


@task(
    phrases=("the words in reverse", "the list of words from last to first"),
    unseen_phrases=("the list in reverse",),
    sentences=("Reverse the list.", "Reverse the words.", "Write the list from last to first."),
    unseen_sentences=("Reverse the order of the words.",),
)
def reverse(rng: np.random.Generator) -> Case:
    words = some_words(rng)
    return Case(line(words), line(words[::-1]))


@task(
    phrases=("the first word", "the word at the start of the list"),
    unseen_phrases=("the word that is first in the list",),
    sentences=("Which word is first?", "Which word does the list start with?"),
    unseen_sentences=("Which is the first word?",),
)
def first_word(rng: np.random.Generator) -> Case:
    words = some_words(rng)
    return Case(line(words), words[0])


@task(
    phrases=("the last word", "the word at the end of the list"),
    unseen_phrases=("the word that is last in the list",),
    sentences=("Which word is last?", "Which word does the list end with?"),
    unseen_sentences=("Which is the last word?",),
)
def last_word(rng: np.random.Generator) -> Case:
    words = some_words(rng)
    return Case(line(words), words[-1])


@task(
    phrases=("the word after {word}", "the word that comes after {word}"),
    unseen_phrases=("the word that is next after {word}",),
    sentences=("Which word comes after {word}?", "Which word is after {word} in the list?"),
    unseen_sentences=("Which word is one after {word}?",),
)
def word_after(rng: np.random.Generator) -> Case:
    words = some_words(rng, 3, 4)
    place = int(rng.integers(len(words) - 1))
    return Case(line(words), words[place + 1], {"word": words[place]})


@task(
    phrases=("the list without {word}", "all words but {word}"),
    unseen_phrases=("the words without {word}",),
    sentences=("Take {word} out of the list.", "Which words are there without {word}?"),
    unseen_sentences=("Take out {word}.",),
)
def without_word(rng: np.random.Generator) -> Case:
    words = some_words(rng)
    word = pick(rng, words)
    return Case(line(words), line([other for other in words if other != word]), {"word": word})


@task(
    phrases=("the {kind} of the list", "all {kind} in the list"),
    unseen_phrases=("the words of the list that are {kind}",),
    sentences=("Which words are {kind}?", "Which {kind} are in the list?"),
    unseen_sentences=("Which of the words are {kind}?",),
)
def only_kind(rng: np.random.Generator) -> Case:
    kind, other = some(rng, tuple(KINDS), 2, 2)
    words = [*some(rng, KINDS[kind], 1, 3), *some(rng, KINDS[other], 1, 2)]
    words = [words[place] for place in rng.permutation(len(words))]
    return Case(line(words), line([word for word in words if KIND_OF[word] == kind]), {"kind": PLURALS[kind]})


@task(
    phrases=("the words that are in the two lists", "the same words of the two lists"),
    unseen_phrases=("all words that are in the first and the second list",),
    sentences=("Which words are in the two lists?", "Which words do the two lists share?"),
    unseen_sentences=("Which words are in the first and the second list?",),
)
def shared_words(rng: np.random.Generator) -> Case:
    words = some_words(rng, 4, 5)
    shared, first, second = words[: int(rng.integers(1, 3))], words[2:3], words[3:]
    one, two = ([part[place] for place in rng.permutation(len(part))] for part in (shared + first, shared + second))
    return Case(f"{line(one)} ; {line(two)}", line([word for word in one if word in two]))


@task(
    phrases=("the next number of the list", "the number that comes next in the list"),
    unseen_phrases=("the number that comes next after the last",),
    sentences=("Which number comes next?", "How does the list of numbers go on?"),
    unseen_sentences=("Which number is next?",),
)
def next_number(rng: np.random.Generator) -> Case:
    step, start = pick(rng, (1, 2, 5)), int(rng.integers(10))
    numbers = [start + step * place for place in range(int(rng.integers(3, 5)))]
    return Case(line(numbers), str(numbers[-1] + step))


@task(
    phrases=("one of the {kind} in the list", "any of the {kind} in the list"),
    unseen_phrases=("any word of the list that is one of the {kind}",),
    sentences=("Name one of the {kind} in the list.", "Which is one of the {kind} in the list?"),
    unseen_sentences=("Name any of the {kind} in the list.",),
)
def one_of_kind(rng: np.random.Generator) -> Case:
    case = only_kind.make(rng)
    right = case.output.split()
    return Case(case.input, right[0], case.slots, references=right)


TASKS = (reverse, first_word, last_word, word_after, without_word, only_kind, shared_words, next_number, one_of_kind)
