"""Which of several names the answer of a chat model gives, that was told to give one and nothing else, and wraps it.

For "instructed" columns only; models whose decoding is restricted, and open-ended answers, wrap nothing. The rules, the
first that finds a name decides:

1. The answer is a name, to the letter.
2. Its first line that says something, or its last line, gives a name: after any number of LEADS (a list's number,
   "Sure!", "The answer is", "It looks like", "probably", an article, ..), and before the end of the line or what may
   follow a name (ENDS: punctuation, "with ..", "because ..", "sitting ..").
3. It says anywhere that "the answer" (class, output, ..) is a name, or that a name is the answer; the last counts.
4. It begins with a name, as in `scoring.chosen`, and does not go on to deny it or to offer another one.

A name may stand in the singular or plural. Marks of Markdown, quotation marks, code fences and what a model thought
aloud before it answered do not count. "not a dog", "dog or cat", "a dog house" and "a cat-like one" give no name.
"""

import re
from collections.abc import Iterator, Sequence

from icl_runner import scoring

_KIND = r"(?:answer|output|class(?: name)?|category|label|choice|option|prediction|classification|name)"
_SUBJECT = r"(?:it|this|that|(?:the|this) (?:image|picture|photo(?:graph)?|input|query|object|animal|thing)|they|these)"
_SURE = r"(?:most |very )?(?:likely|probably|clearly|definitely|certainly|simply|just|indeed|perhaps|maybe|actually)"
_IS = r"(?:'s|'re| is| are| was| would be| should be| must be| could be| might be| may be)"
# What makes known that a name follows.
_STATED = (
    rf"(?:(?:the|my|its|a) )?(?:\w+ |most likely ){{0,2}}{_KIND}(?: (?:for|of|to|here) ?[^.,:;!?\n]{{0,60}}?)?"
    rf"(?:{_IS}(?: {_SURE})?:? ?| ?[:=] ?| ?(?:->|→) ?)"
)
LEADS = (
    r"(?:[-–—•+#>] ?|\(?\d{1,3}[.):] ?|\(?[a-h][.):] )",
    r"(?:sure|certainly|of course|ok|okay|yes|well|alright|great|so|thus|therefore|hence|then)\b[ ,.!:;]*",
    rf"here(?:'s| is)(?: (?:the|my|your) (?:\w+ )?{_KIND})?[ :]*",
    r"(?:based on|given|according to|from|looking at|judging by) [^,:\n]{1,100}[,:] ?",
    r"i(?:'d| would)? (?:think|believe|guess|say|choose|pick|answer|go with)(?: that)?[ :,]*",
    rf"{_SUBJECT}(?:{_IS}| (?:shows?|depicts?|represents?|looks? like|seems? to be|appears? to be)) ",
    _STATED,
    rf"{_SURE},? ",
    r"(?:an?|the|some) ",
)
ENDS = (
    r"(?= ?$| ?[.:;!?)]| ?,(?! ?(?:or|and)\b)| [-–—(]"
    r"| (?:in|on|at|with|because|as|since|that|which|from|near|by|based|\w{2,}ing)\b)"
)
_LEAD = re.compile("|".join(f"(?:{lead})" for lead in LEADS))
_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)


def given(answer: str, names: Sequence[str]) -> str | None:
    """The name that the answer gives by the rules above; None for none."""
    answer = _THOUGHT.sub("", answer).rpartition("</think>")[2]
    if exact := next((name for name in names if scoring.equal(answer.strip(), name.strip())), None):
        return exact
    forms = _forms(names)
    text = _unwrapped(answer)
    lines = [line for line in text.split("\n") if _places(line)[-1] < len(line)]
    for line in dict.fromkeys((*lines[:1], *lines[-1:])):
        if form := _led_to(line, forms):
            return _named(form, forms, answer)
    if form := _stated(text, forms):
        return _named(form, forms, answer)
    return None if _withdrawn(text, forms) else scoring.chosen(answer, names)


def _forms(names: Sequence[str]) -> dict[str, list[str]]:
    """Every form of every name, unwrapped as the answer is -> the names that it may mean."""
    plain = {name: _unwrapped(name).strip(" .,:;!?") for name in names}
    forms: dict[str, list[str]] = {}
    for name, text in plain.items():
        if text:
            forms.setdefault(text, []).append(name)
    for name, text in plain.items():
        for form in scoring.numbers(text) if text else ():
            # What is a name itself is no other name's plural.
            if form not in plain.values():
                forms.setdefault(form, []).append(name)
    return forms


def _named(form: str, forms: dict[str, list[str]], answer: str) -> str | None:
    """The one name that a form means; of several that differ in case only, the one that stands in the answer."""
    meant = forms[form]
    if len(meant) > 1:
        meant = [name for name in meant if name in answer]
    return meant[0] if len(meant) == 1 else None


def _any_of(forms: dict[str, list[str]]) -> str:
    return "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)) or r"(?!)"


def _places(line: str) -> list[int]:
    """Where a name may begin: at the start, and behind each of the leads there."""
    places = [0]
    while (lead := _LEAD.match(line, places[-1])) and lead.end() > places[-1]:
        places.append(lead.end())
    return places


def _led_to(line: str, forms: dict[str, list[str]]) -> str | None:
    """Rule 2: the form that the line gives."""
    name = re.compile(rf"({_any_of(forms)})(?![\w-]){ENDS}")
    found = (name.match(line, place) for place in _places(line))
    return next((match[1] for match in found if match), None)


def _stated(text: str, forms: dict[str, list[str]]) -> str | None:
    """Rule 3: the form of which the text says last that it is the answer."""
    any_of = _any_of(forms)
    before = rf"\b{_STATED}(?:(?:an?|the|some) )?({any_of})(?![\w-]){ENDS}"
    behind = rf"(?<![\w-])({any_of})(?:'s| is| would be) (?:the|my) (?:\w+ )?{_KIND}\b"
    found: Iterator[tuple[int, str]] = (
        (match.start(1), match[1])
        for pattern in (before, behind)
        for match in re.finditer(pattern, text, re.MULTILINE)
    )
    return max(found, default=(0, None))[1]


def _withdrawn(text: str, forms: dict[str, list[str]]) -> bool:
    """Whether the name at the beginning is denied, or only one of several."""
    any_of = _any_of(forms)
    denied = r" (?:is|are|was|does|do|can|could|would)(?:n't| ?not)\b"
    several = rf"(?:,? (?:or|and) | ?/ ?)(?:(?:an?|the|some) )?(?:{any_of})(?!\w)"
    return re.match(rf"\W*(?:{any_of})(?:{denied}|{several})", text) is not None


def _unwrapped(text: str) -> str:
    """Lower case, one space between words, without marks that only dress a text; lines stay lines."""
    text = re.sub(r"^\s*```\w*\s*$", "", scoring.folded(text), flags=re.MULTILINE)
    text = re.sub(r"\\(?:boxed|text|textbf)\b", "", text)
    text = text.replace("’", "'").replace("‘", "'")
    text = re.sub(r"[*`\"“”„«»{}\[\]$]", "", text)
    # Underscores and single quotation marks around words, not inside of them.
    text = re.sub(r"(?<![^\W_])[_']+|[_']+(?![^\W_])", "", text)
    return "\n".join(" ".join(line.split()) for line in text.splitlines())
