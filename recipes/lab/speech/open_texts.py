"""Sentences of the open world: Tatoeba's Mandarin and English (CC-BY 2.0 FR), their words by CC-CEDICT (CC-BY-SA 4.0).

Both lie in the package `hsg`. A word is swapped for its English one only where the sentence's own translation has that
word, so that it is the right sense.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distribution
from random import Random
from zlib import crc32

from lectures import Draw

MANDARIN = re.compile(r"(?=.{4,40}$)[\u4e00-\u9fff，。？！、；：]+")
ENGLISH = re.compile(r"[A-Za-z ,.'?!;:-]{8,150}")
GLOSS = re.compile(r"[A-Za-z][a-z'-]{2,}( [a-z'-]+)?")
ENTRY = re.compile(r"(\S+) (\S+) \[.*?\] /(.*)/")
LITTLE = (
    "about after again all also and any are because been before being both but can could did does down each even ever "
    "for from had has have here him how into just many may more most much must never not now off one only other out "
    "over own same she should some still such than that the their them then there these they this those though too two "
    "under very was were what when where which while who why will with without would yet you your"
)
"""English words that nobody switches languages for, a space between them."""
SHARE_APART = 25
"""One Mandarin sentence in so many is set apart, with every sentence that shares a translation with it."""

KINDS = {"mandarin": 30, "english": 30, "mixed": 30, "translated": 10}
"""How often, in percent, an utterance is Mandarin, English, mixed inside, or said in Mandarin and then in English."""

Pair = tuple[str, str]


@cache
def sentence_pairs(apart: bool) -> list[Pair]:
    """Mandarin sentences, each with an English one that says the same: those set apart, or the others.

    The same sentence in both scripts counts as one: what is set apart is set apart in both.
    """
    file = distribution("hsg").locate_file("assets/tatoeba.tsv")
    lines = file.read_text(encoding="utf-8-sig").splitlines()
    return split_pairs([tuple(line.split("\t")) for line in lines], apart)


def split_pairs(rows: list[tuple[str, ...]], apart: bool) -> list[Pair]:
    """The pairs of rows of number, Mandarin, number, English that are set apart, or the others."""
    pairs = dict.fromkeys((row[1], row[3]) for row in rows if MANDARIN.fullmatch(row[1]) and ENGLISH.fullmatch(row[3]))
    keys = {pair: (simplified(pair[0]), pair[1].casefold()) for pair in pairs}
    kept_out = {mandarin for mandarin, _ in keys.values() if crc32(mandarin.encode()) % SHARE_APART == 0}
    of_them = {english for mandarin, english in keys.values() if mandarin in kept_out}
    if apart:
        return [pair for pair in pairs if keys[pair][0] in kept_out]
    return [pair for pair in pairs if keys[pair][0] not in kept_out and keys[pair][1] not in of_them]


@cache
def converters() -> tuple:
    """To Simplified characters, and to Taiwan's Traditional ones."""
    import opencc

    return opencc.OpenCC("t2s").convert, opencc.OpenCC("s2twp").convert


def simplified(text: str) -> str:
    """``text`` in Simplified characters."""
    return converters()[0](text)


def traditional(text: str) -> str:
    """``text`` as it is written in Taiwan."""
    return converters()[1](text)


def segmented(text: str) -> list[str]:
    """The words of Mandarin in Simplified characters."""
    import jieba

    return list(jieba.cut(text))


@cache
def glosses() -> dict[str, set[str]]:
    """English words of one or two parts for Mandarin ones in Simplified characters."""
    found = defaultdict(set)
    for line in distribution("hsg").locate_file("assets/cedict_ts.u8").read_text(encoding="utf-8").splitlines():
        if entry := ENTRY.match(line):
            found[entry[2]].update(plain_glosses(entry[3]))
    return dict(found)


def plain_glosses(meanings: str) -> Iterator[str]:
    """The meanings of a dictionary's line that are a word or two."""
    for meaning in re.split("[/;]", meanings):
        plain = re.sub(r"\([^)]*\)", "", meaning).strip()
        plain = re.sub(r"^(to|a|an|the|be) ", "", plain).strip()
        if GLOSS.fullmatch(plain) and plain.lower() not in LITTLE.split():
            yield plain


def english_words(words: list[str], translation: str, meanings: dict[str, set[str]]) -> dict[int, str]:
    """Which of a sentence's words can be said in English, and how its translation says them."""
    found = {}
    for index, word in enumerate(words):
        for meaning in sorted(meanings.get(word, ()), key=lambda text: (-len(text), text)) if len(word) > 1 else ():
            said = re.search(rf"\b{re.escape(meaning)}(s|es|d|ed|ing)?\b", translation, re.IGNORECASE)
            if said:
                capital = said.start() == 0 and meaning[0].islower()
                found[index] = said[0][0].lower() + said[0][1:] if capital else said[0]
                break
    return found


def swap_words(words: list[str], swaps: dict[int, str]) -> str:
    """A sentence with some of its words in English, a space on either side of each but before a mark."""
    text = "".join(f" {swaps[index]} " if index in swaps else word for index, word in enumerate(words))
    return re.sub(r" +(?=[，。？！、；：]|$)|^ +| +(?= )", "", text)


def open_sentences(apart: bool = False) -> Draw:
    """Draws utterances: Mandarin, English, mixed inside, or Mandarin with its translation after it (`KINDS`)."""

    def pair(random: Random) -> Pair:
        """The longer of two: most of the sentences are short."""
        pairs = sentence_pairs(apart)
        return max(random.choice(pairs), random.choice(pairs), key=lambda one: len(one[0]))

    def mixed(random: Random) -> str:
        for _ in range(50):
            mandarin, english = pair(random)
            words = segmented(simplified(mandarin))
            swaps = english_words(words, english, glosses())
            if swaps:
                chosen = random.sample(sorted(swaps), min(len(swaps), random.choice([1, 1, 2, 3])))
                return traditional(swap_words(words, {index: swaps[index] for index in chosen}))
        return traditional(mandarin)

    def draw(random: Random) -> str:
        kind = random.choices(list(KINDS), list(KINDS.values()))[0]
        if kind == "mixed":
            return mixed(random)
        mandarin, english = pair(random)
        said = {"mandarin": traditional(mandarin), "english": english}
        return said.get(kind) or f"{traditional(mandarin)}{english}"

    return draw
