"""From described images to a file of conversations: asked, checked, without doubles, and counted."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from icl_runner.answer_file import AnswerFile
from icl_runner.dice import Dice
from icl_runner.endpoint import Question
from icl_runner.instruct import check
from icl_runner.instruct.described import Described, DescribedImages
from icl_runner.instruct.prompts import DETAIL_QUESTIONS, KINDS, told
from spae.conversations import Conversation
from spae.progress import counted


@dataclass(frozen=True)
class Draft:
    """What one image is to be asked about for one kind of data.

    Args:
        question: to the model.
        said: by the person in the conversation; None where the model writes that.
    """

    kind: str
    image: str
    question: Question
    said: str | None


@dataclass
class Made:
    """What came of it: the conversations, in the order of the drafts; of each kind how many drafts there were, and why
    how many of them are left out."""

    conversations: list[Conversation] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, Counter[str]] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """In words, a line for each kind."""
        for kind, asked in self.asked.items():
            reasons = self.left_out.get(kind, Counter())
            line = f"{kind}: {asked - reasons.total():,} of {asked:,}"
            if reasons:
                counts = ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()))
                line += f"; left out: {counts}"
            yield line


def drafts(images: DescribedImages, kinds: Sequence[str], seed: int) -> list[Draft]:
    """All that is asked about the images, image by image; `kinds`: of KINDS."""
    described = map(images.read, counted(images.ids, "images", "image"))
    return [_draft(image, kind, seed) for image in described for kind in kinds]


def _draft(image: Described, name: str, seed: int) -> Draft:
    kind = KINDS[name]
    key = f"{image.id}-{name}"
    examples = tuple((told(example, kind.places), written) for example, written in kind.examples)
    question = Question(key, kind.system, examples, told(image, kind.places))
    said = None if kind.asks else Dice(seed, image.id).choose("question", DETAIL_QUESTIONS, 1)[0]
    return Draft(name, image.image, question, said)


def make(wanted: Sequence[Draft], answers: AnswerFile, failures: Mapping[str, str]) -> Made:
    """The conversations that passed the check. Of those that say the same as an earlier one, only that one is taken.

    Args:
        wanted: as `drafts` gives them.
        answers: of the model.
        failures: key of a question -> why it has no answer.
    """
    made = Made()
    known: set[str] = set()
    for draft in wanted:
        made.asked[draft.kind] += 1
        try:
            if draft.question.key in failures:
                raise check.Rejected("call")
            turns = check.turns(answers[draft.question.digest], draft.said)
            if (words := check.same(turns)) in known:
                raise check.Rejected("duplicate")
        except check.Rejected as rejected:
            made.left_out.setdefault(draft.kind, Counter())[str(rejected)] += 1
            continue
        known.add(words)
        made.conversations.append(Conversation(draft.question.key, draft.image, turns))
    return made
