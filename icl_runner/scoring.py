"""How answers are scored: pure functions, no model and no log.

The two rules of few-shot classification are never mixed in one column:
(a) open-ended exact match (`open_match`), (b) decoding restricted to the class names, prefix match (`chosen`).
Chat models, who are told the names in place of (b), have a column of their own: `icl_runner.chat_answers`.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from math import comb, sqrt

from spae.errors import InputError

Z = 1.959964  # of the normal distribution, for intervals of 95 %


def finished(answer: str, stop: Sequence[str]) -> str:
    """The answer up to the first of the stop texts, without white space at its ends."""
    for text in stop:
        answer = answer.partition(text)[0]
    return answer.strip()


def open_match(answer: str, name: str, stop: Sequence[str]) -> bool:
    """Rule (a), open-ended exact match, of Frozen, LQAE, SPAE and De-Diffusion.

    What the model wrote up to the first stop text (the end of the line, or the marker), without white space at
    its ends, is the class name: every character, in the same case, and its end. "beagle dog", "beagle." and
    "Beagle" are not "beagle". Letters composed and decomposed (NFC, NFD) are the same character.
    """
    return equal(finished(answer, stop), name.strip())


def equal(one: str, other: str) -> bool:
    """Whether two texts are the same characters, as Unicode's canonical equivalence has it."""
    return unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)


def folded(text: str) -> str:
    """The text without differences of case and of composed letters."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def chosen(answer: str, names: Sequence[str]) -> str | None:
    """Rule (b), the name that the answer begins with; None if it begins with none of them.

    Meant for answers whose decoding was restricted to the names. Case and what stands before the first letter or
    digit do not count; a name must end where a word ends. Of several names that fit the longest is taken, so that
    "hot dog" is no "hot". An answer that is a name to the letter is that name, also where another differs from it in
    case or signs only ("Turkey", "turkey"; "+", "-"); a name of signs alone is no other answer.
    """
    if exact := next((name for name in names if equal(name, answer.strip())), None):
        return exact
    answer = _plain(answer)
    plain = {name: _plain(name) for name in names}
    # Of a name of signs alone nothing is left, and every answer would begin with it.
    fitting = [name for name in names if plain[name] and re.match(re.escape(plain[name]) + r"(?!\w)", answer)]
    return max(fitting, key=len, default=None)


def _plain(text: str) -> str:
    return re.sub(r"^[\W_]+", "", folded(text)).rstrip()


def floor(ways: int) -> float:
    """What choosing blindly among `ways` names gets under rule (b); under rule (a) it is at most this."""
    return 1 / ways


def named(answer: str, names: Sequence[str]) -> bool:
    """Whether one of `names` stands in the answer, as whole words, in any case; singular or plural."""
    answer = folded(answer)
    forms = {form for name in map(_plain, names) if name for form in numbers(name)}
    return any(re.search(rf"(?<!\w){re.escape(form)}(?!\w)", answer) for form in forms)


# From singular to plural and back. Behind u and i an s is not taken for a plural's: "bus", "iris", and no "emus".
_ENDINGS = (
    (r"$", "s"),
    (r"(?<=[sxzo])$|(?<=[cs]h)$", "es"),
    (r"(?<=[^\Waeiou])y$", "ies"),
    (r"(?<=\w[^\Wsui])s$", ""),
    (r"(?<=\w\w[sxzo])es$|(?<=\w[cs]h)es$", ""),
    (r"(?<=\w[^\Waeiou])ies$", "y"),
)


# Nouns that end like plurals; what their s is taken from is another word: "some new here" is no news.
_NO_PLURALS = frozenset(
    {"blues", "customs", "goods", "jeans", "lens", "means", "news", "overalls", "pants", "shorts", "slacks"}
)
# Plurals of words, also as the last part of others (werewolf, policeman). Not life, safe or cafe: lives, saves, caves.
_STEMS = ("cal", "dwar", "el", "hal", "hoo", "lea", "loa", "scar", "shea", "thie", "whar", "wol")
_IRREGULAR = {f"{stem}f": f"{stem}ves" for stem in _STEMS} | {
    "child": "children",
    "foot": "feet",
    "goose": "geese",
    "knife": "knives",
    "man": "men",
    "mouse": "mice",
    "tooth": "teeth",
    "wife": "wives",
}


def numbers(name: str) -> set[str]:
    """The name (lower case), and what may be its plural or singular; what is neither is no word of any answer."""
    last = name.rpartition(" ")[2]
    irregular = {
        name.removesuffix(one) + other
        for pair in _IRREGULAR.items()
        for one, other in (pair, pair[::-1])
        if last.endswith(one)
    }
    if last.endswith(tuple(_IRREGULAR.values())):
        return {name, *irregular}
    endings = _ENDINGS if last not in _NO_PLURALS else _ENDINGS[:3]
    return {name, *irregular, *(re.sub(end, other, name) for end, other in endings)}


# What the VQA evaluation (Antol et al. 2015, and the authors' published script) makes equal before it compares.
_ARTICLES = ("a", "an", "the")
_NUMBERS = {
    word: str(value)
    for value, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
_CONTRACTED = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's
i'd've i'm i've isn't it'd it'll let's ma'am might've mightn't must've mustn't needn't not've o'clock oughtn't
shan't she'd've should've shouldn't somebody'd somebody'll somebody's someone'd someone'll someone's
something'd something'll that's there'd there're there's they'd they'll they're they've 'twas wasn't we'd've
we've weren't what'll what're what's what've when's where'd where's where've who'd who'll who's who've why'll
why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
_CONTRACTIONS = {word.replace("'", ""): word for word in _CONTRACTED.split()}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'


def vqa_normal(answer: str) -> str:
    """The answer as the VQA evaluation compares it: lower case, punctuation, number words, articles, contractions; in
    Unicode's form NFC."""
    given = text = " ".join(unicodedata.normalize("NFC", answer).split())
    between_digits = re.search(r"\d,\d", given) is not None
    for mark in _PUNCTUATION:
        joined = f"{mark} " in given or f" {mark}" in given or between_digits
        text = text.replace(mark, "" if joined else " ")
    # Also behind a digit ("2."): the published pattern's look behind is mistyped, and never holds.
    text = re.sub(r"\.(?!\d)", "", text)
    words = [_NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(answer: str, humans: Sequence[str]) -> float:
    """The VQA accuracy in [0, 1]: min(people who said so / 3, 1), averaged over leaving out each person in turn.

    Compares `vqa_normal` forms always (the published script leaves unanimous answers as they are). With fewer
    than four people, such as the one answer of a synthetic data set, the formula cannot reach 1: then 1 if
    anyone said so.
    """
    _some(humans, "answers")
    said = [vqa_normal(human) == vqa_normal(answer) for human in humans]
    if len(said) < 4:
        return float(any(said))
    total = sum(said)
    return sum(min((total - one) / 3, 1.0) for one in said) / len(said)


def vqa_exact(answer: str, humans: Sequence[str]) -> bool:
    """Whether the answer is, to the letter but for case, what most people said (the first of equals)."""
    _some(humans, "answers")
    most = Counter(human.strip().casefold() for human in humans).most_common(1)[0][0]
    return answer.strip().casefold() == most


def caption_tokens(text: str) -> str:
    """A caption as its metrics read it: lower-case words and numbers, separated by spaces, without punctuation.

    In place of the Penn Treebank tokenizer of the COCO evaluation, which needs Java. As there, punctuation goes
    and "dog's", "don't" become "dog 's", "do n't". Unlike there, words are split at a hyphen ("t shirt" for
    "t-shirt") and abbreviations at their points ("u s" for "u.s."), and rare contractions ("gonna", "'tis") stay
    whole. A letter keeps its marks, such as the vowels of Devanagari, in Unicode's form NFC.
    """
    text = re.sub(r"[’`]", "'", unicodedata.normalize("NFC", text.casefold()))
    text = re.sub(r"(?<=\w)n't\b", " n't", text)
    text = re.sub(r"(?<=\w)'(s|m|d|ll|re|ve)\b", r" '\1", text)
    marks = "".join({sign for sign in text if unicodedata.category(sign)[0] == "M"})
    word = rf"[^\W_](?:[^\W_]|[{marks}])*" if marks else r"[^\W_]+"
    return " ".join(re.findall(rf"n't\b|'(?:s|m|d|ll|re|ve)\b|{word}(?:\.\d+)?", text))


def caption_scores(
    answers: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """BLEU-4, ROUGE-L and CIDEr (pycocoevalcap's) of captions; CIDEr weighs words by their rarity in `references`.

    Returns:
        The corpus's scores by "bleu4", "rouge_l", "cider", and of each the scores of every caption. BLEU-4 of the
        corpus is no mean of theirs, the others are. CIDEr is 0 .. 10.

    Raises:
        InputError: no captions, a caption without a reference, or lists of different lengths.
    """
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    _some(answers, "captions")
    if len(answers) != len(references):
        raise InputError(
            f"wanted references for {len(answers)} captions, got {len(references)} lists of them"
        )
    for several in references:
        _some(several, "references of a caption")
    found = {i: [caption_tokens(answer)] for i, answer in enumerate(answers)}
    wanted = {i: [caption_tokens(one) for one in several] for i, several in enumerate(references)}
    bleu, bleus = Bleu(4).compute_score(wanted, found, verbose=0)
    rouge, rouges = Rouge().compute_score(wanted, found)
    cider, ciders = Cider().compute_score(wanted, found)
    totals = {"bleu4": float(bleu[3]), "rouge_l": float(rouge), "cider": float(cider)}
    each = {"bleu4": bleus[3], "rouge_l": rouges, "cider": ciders}
    return totals, {name: [float(one) for one in values] for name, values in each.items()}


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval for a rate of `successes` in `n`: it stays in [0, 1], and is right near its ends."""
    if n < 1 or not 0 <= successes <= n:
        raise InputError(f"wanted 0 to n successes of at least one try; got {successes} of {n}")
    rate = successes / n
    middle = (rate + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * sqrt(rate * (1 - rate) / n + Z**2 / (4 * n**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p of McNemar's test: how often coins would split what only one of two got right as unevenly.

    Raises:
        InputError: a number below 0.
    """
    if min(only_first, only_second) < 0:
        raise InputError(f"wanted numbers from 0; got {only_first} and {only_second}")
    n, fewer = only_first + only_second, min(only_first, only_second)
    return min(1.0, 2 * sum(comb(n, i) for i in range(fewer + 1)) / 2**n)


def normal_interval(values: Sequence[float]) -> tuple[float, float]:
    """The normal 95 % interval for the mean: mean +- 1.96 s / sqrt(n), s with n - 1; (-inf, inf) for one value."""
    _some(values, "values")
    n = len(values)
    if n == 1:
        return float("-inf"), float("inf")
    mean = sum(values) / n
    half = Z * sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    return mean - half, mean + half


def _some(values: Sequence | Mapping, what: str) -> None:
    if not values:
        raise InputError(f"wanted at least one of the {what} to score, got none")
