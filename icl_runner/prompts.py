"""Every prompt of the in-context runner, one function per task: what the language model reads, and nothing else.

A prompt is a `context` followed by a `query`. The context holds what all queries of an episode share and comes
first, byte for byte the same, so that the caches of prompt prefixes hit; the query comes last. Words of images
stand as `spae.text.render` writes them, behind a single space: there every word is one token of the language
model. A prompt ends without white space, so the answer begins with a space, as a word does.

Blocks `Input: <words>` / `Output: <class>` between marker lines, the task induction in front, and repeats of the
examples are those of SPAE (arXiv 2306.17842, section 4.1) and Frozen (arXiv 2106.13884); the wording is ours.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MARKER = "###"
# An answer is one line; the next marker ends it too, in case that a model leaves out the line break.
STOP = ("\n", MARKER)

# Chat models answer a message where others carry on a text: they are told to carry on.
CHAT = (
    "The user's message is a text that breaks off. Reply with exactly what comes next in it, up to the end of "
    "that line, and with nothing else: no explanation, no quotation marks, no repetition of the text."
)

# The same of an answer of several lines, which an instruction describes.
CHAT_LINES = (
    "The user's message ends with an instruction. Reply with exactly what it asks for, in the format that it names, "
    "and with nothing else: no explanation, no quotation marks, no repetition of the text."
)

# A chat model ends its answer by itself; this is room for one that thinks before it answers, which counts as well.
CHAT_MAX_TOKENS = 1024


def chat_choice(names: Sequence[str]) -> str:
    """The system message for a chat model that has to choose: decoding cannot be restricted there."""
    return f"{CHAT} The answer must be exactly one of: {', '.join(names)}."


def chat_words(count: int) -> str:
    """The system message for a chat model that writes the words of an image: they cannot be counted off there."""
    return f"{CHAT} It is exactly {count} English word{'s' if count > 1 else ''}, separated by single spaces."


@dataclass(frozen=True)
class Prompt:
    """What the model reads is `context` + `query`; what it writes ends before the first of `stop`."""

    context: str
    query: str
    stop: tuple[str, ...] = STOP

    @property
    def text(self) -> str:
        return self.context + self.query


def classify(
    names: Sequence[str],
    examples: Sequence[tuple[str, str]],
    words: str,
    *,
    induction: bool = True,
    repeats: int = 0,
) -> Prompt:
    """Few-shot classification.

    Args:
        names: the class names, in the order in which the task induction lists them.
        examples: (words, name) of every support image, in order.
        words: of the query.
        induction: name the classes first.
        repeats: further copies of all examples.
    """
    preamble = f"Each input is the words of an image. Each output is one of: {', '.join(names)}."
    blocks = [preamble] if induction else []
    blocks += [f"Input: {seen}\nOutput: {name}" for seen, name in examples] * (1 + repeats)
    return Prompt(_context(blocks), f"{_given('Input:', words)}\nOutput:")


def caption(examples: Sequence[tuple[str, str]], words: str) -> Prompt:
    """A caption of the image `words`, after `examples` of (words, caption)."""
    blocks = ["Each image is given by its words. Each caption says in one sentence what the image shows."]
    blocks += [f"Image: {seen}\nCaption: {said}" for seen, said in examples]
    return Prompt(_context(blocks), f"{_given('Image:', words)}\nCaption:")


def vqa(examples: Sequence[tuple[str, str, str]], words: str, question: str) -> Prompt:
    """The answer to a question about the image `words`, after `examples` of (words, question, answer)."""
    blocks = ["Each image is given by its words. Each answer to the question about it is short."]
    blocks += [f"Image: {seen}\nQuestion: {asked}\nAnswer: {said}" for seen, asked, said in examples]
    return Prompt(_context(blocks), f"{_given('Image:', words)}\nQuestion: {question}\nAnswer:")


def interpret(words: str) -> Prompt:
    """What the words alone say to the model: no example, nothing to copy. It ends in the middle of a sentence, which
    nobody can leave without an answer."""
    blocks = [
        "Each image is given by its words. After them stands, in one short phrase, what the image shows."
    ]
    return Prompt(_context(blocks), f"{_given('Image:', words)}\nThe image shows a")


def follow(examples: Sequence[tuple[str, str]], instruction: str, *, lines: bool = False) -> Prompt:
    """The answer to an instruction, after `examples` of (instruction, answer).

    Args:
        lines: answers have several lines, of which the first begins on a line of its own.
    """
    gap, stop = ("\n", (MARKER,)) if lines else (" ", STOP)
    blocks = [f"{asked}\nAnswer:{gap}{said}" for asked, said in examples]
    return Prompt(_context(blocks), f"{instruction}\nAnswer:{gap if lines else ''}", stop)


def generate(examples: Sequence[tuple[str, str]], condition: str, written: str = "") -> Prompt:
    """The words of an image for `condition`, after `examples` of (condition, words).

    Args:
        written: the words of this answer that are there already; the model carries on behind them.
    """
    blocks = [f"Input: {given}\nOutput: {words}" for given, words in examples]
    return Prompt(_context(blocks), _carried_on(f"Input: {condition}\nOutput:", written))


def transform(examples: Sequence[tuple[str, str]], words: str, written: str = "") -> Prompt:
    """The words of an image made from the image `words`, after `examples` of (words, words of what became of it).

    Args:
        written: the words of this answer that are there already; the model carries on behind them.
    """
    blocks = [f"Input: {before}\nOutput: {after}" for before, after in examples]
    return Prompt(_context(blocks), _carried_on(f"Input: {words}\nOutput:", written))


def _context(blocks: Iterable[str]) -> str:
    return "".join(f"{block}\n{MARKER}\n" for block in blocks)


def _given(name: str, words: str) -> str:
    """The line of an image; of none its name alone."""
    return f"{name} {words}" if words else name


def _carried_on(query: str, written: str) -> str:
    return f"{query} {written}" if written else query
