"""What the factory asks, and how: three kinds of data about one image, each after examples of ours.

The kinds, and what each is told of an image, are LLaVA's (arXiv 2304.08485, section 3); the words are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from icl_runner.instruct.described import Described

_SEEN = (
    "You see an image, and write about it for people who see it too. What you see is told to you in {told}. Write only "
    "as somebody who looks at the image itself: never speak of sentences, captions, lists, boxes, coordinates or "
    "numbers of that sort; say where things are in words, such as on the left, behind, in the foreground. Leave out "
    "whatever you cannot be certain of."
)
_SENTENCES = "sentences, one a line"
_PLACES = (
    "sentences, one a line, and in places, one thing a line: its name, and in brackets its left, top, right and bottom "
    "edge as shares of the width and height of the image"
)
_CONVERSATION = (
    "Write a conversation of three to five questions and their answers: which things there are, how many, of what "
    "colour, what they do, where they are to each other. Ask only what has one sure answer. Every question begins with "
    '"Q:" and every answer with "A:", each on a line of its own.'
)
_DETAIL = "Describe the image in one full paragraph: all that is there, how it looks, and how it stands to the rest."
_REASONING = (
    "Write one question that cannot be answered by naming what is there, but by thinking about it (why something is "
    "so, what may come next, what somebody should look out for), and a thorough answer that gives its reasons. "
    'The question begins with "Q:", the answer with "A:".'
)
# What a person says who asks for a description; one is chosen for each image.
DETAIL_QUESTIONS = (
    "Describe this image in detail.",
    "What is there to see here? Please tell me everything.",
    "Give a full account of this picture.",
    "Please go through the image and describe all that is in it.",
    "Could you describe the scene thoroughly?",
    "Tell me about this picture as if I could not see it.",
    "What does the image show, down to the details?",
    "Walk me through what is in this image.",
)


@dataclass(frozen=True)
class Kind:
    """One kind of data.

    Args:
        system: what the model is to do.
        places: whether it is told where things are.
        asks: whether the model writes the questions too, with "Q:" and "A:".
        examples: an image, and what is written about it.
    """

    system: str
    places: bool
    asks: bool
    examples: tuple[tuple[Described, str], ...]


def told(image: Described, places: bool) -> str:
    """What the model reads of an image: its captions, and behind an empty line perhaps its things with their places."""
    lines = [" ".join(caption.split()) for caption in image.captions]
    if places and image.things:
        lines.append("")
        for name, corners in image.things:
            lines.append(f"{name}: [{', '.join(f'{corner:.3f}' for corner in corners)}]")
    return "\n".join(lines)


_BAKING = Described(
    "baking",
    "",
    (
        "A boy in a striped apron stirs a bowl at a wooden kitchen table.",
        "A child is baking; two eggs and an open bag of flour lie on the table.",
        "A young boy mixes dough with a wooden spoon.",
    ),
    (
        ("boy", (0.31, 0.08, 0.66, 0.71)),
        ("bowl", (0.4, 0.55, 0.63, 0.78)),
        ("egg", (0.69, 0.74, 0.74, 0.8)),
        ("egg", (0.75, 0.75, 0.8, 0.81)),
        ("bag of flour", (0.12, 0.42, 0.29, 0.79)),
    ),
)
_HARBOUR = Described(
    "harbour",
    "",
    (
        "Three fishing boats are tied up at a stone pier in the evening.",
        "Boats lie in a quiet harbour, and a man mends a green net on the pier.",
        "A man sits beside his net while gulls wait on the wall.",
    ),
    (
        ("boat", (0.02, 0.4, 0.28, 0.69)),
        ("boat", (0.3, 0.43, 0.52, 0.67)),
        ("boat", (0.5, 0.45, 0.66, 0.64)),
        ("man", (0.72, 0.5, 0.84, 0.82)),
        ("net", (0.66, 0.72, 0.93, 0.9)),
        ("gull", (0.88, 0.36, 0.92, 0.42)),
        ("gull", (0.94, 0.37, 0.98, 0.43)),
    ),
)
_RAIN = Described(
    "rain",
    "",
    (
        "A woman on a bicycle waits at a red light in heavy rain.",
        "A cyclist with a yellow coat stands beside a bus on a wet street.",
    ),
    (
        ("woman", (0.22, 0.25, 0.41, 0.8)),
        ("bicycle", (0.18, 0.5, 0.46, 0.93)),
        ("bus", (0.48, 0.05, 1.0, 0.86)),
        ("traffic light", (0.08, 0.02, 0.14, 0.24)),
    ),
)

KINDS: Mapping[str, Kind] = {
    "conversation": Kind(
        f"{_SEEN.format(told=_SENTENCES)} {_CONVERSATION}",
        places=False,
        asks=True,
        examples=(
            (
                _BAKING,
                "Q: What is the boy doing?\n"
                "A: He is stirring dough in a bowl with a wooden spoon.\n"
                "Q: What does he wear over his clothes?\n"
                "A: A striped apron.\n"
                "Q: How many eggs lie on the table?\n"
                "A: There are two eggs on the table.\n"
                "Q: Is the bag of flour still closed?\n"
                "A: No, it has been opened.",
            ),
            (
                _HARBOUR,
                "Q: How many boats are in the harbour?\n"
                "A: Three fishing boats are tied up there.\n"
                "Q: What is the man working on?\n"
                "A: He is mending a green net, sitting on the stone pier.\n"
                "Q: Which birds are there to be seen?\n"
                "A: Gulls, which wait on the wall.",
            ),
        ),
    ),
    "detail": Kind(
        f"{_SEEN.format(told=_PLACES)} {_DETAIL}",
        places=True,
        asks=False,
        examples=(
            (
                _BAKING,
                "A young boy in a striped apron stands in the middle of the picture, behind a wooden kitchen table, "
                "and stirs dough in a bowl right in front of him with a wooden spoon. To his left, close to the "
                "edge of the picture, an open bag of flour reaches up to his elbow. Two eggs lie side by side on "
                "the other end of the table, within his reach. He seems to be at the beginning of his work, for the "
                "eggs are still whole.",
            ),
            (
                _HARBOUR,
                "It is evening in a quiet harbour. Three fishing boats are tied up one behind the other along a "
                "stone pier; the nearest and largest lies at the far left, the others look smaller the further they "
                "are towards the middle. On the right a man sits on the pier with a large green net spread before "
                "him, and mends it. Two gulls wait close together on the wall at the right edge, a little above him.",
            ),
            (
                _RAIN,
                "Heavy rain falls on a street. On the left a woman in a yellow coat has stopped with her bicycle, "
                "which takes up the foreground before her. A bus fills the whole right half of the picture and "
                "stands right beside her. In the upper left corner hangs a traffic light, which is red, so that "
                "both of them wait. The street shines with water.",
            ),
        ),
    ),
    "reasoning": Kind(
        f"{_SEEN.format(told=_PLACES)} {_REASONING}",
        places=True,
        asks=True,
        examples=(
            (
                _BAKING,
                "Q: What should the boy do to keep the table clean in the next minutes?\n"
                "A: He should move the open bag of flour further from his arm. It stands close by the elbow with "
                "which he stirs, and is tall, so that one wide turn of the spoon could tip it over. The two eggs on "
                "the other side lie free on the table and may roll; a cup or a saucer would hold them until he "
                "cracks them.",
            ),
            (
                _HARBOUR,
                "Q: Why may the man mend his net at this time of day?\n"
                "A: The boats are tied up and it is evening, so the day's fishing is most likely over. A net tears "
                "on stones and on what it catches, and it has to be whole before the boats go out again, perhaps "
                "early the next morning. On the pier he has room to spread it out, and there is still light enough "
                "to see the holes.",
            ),
            (
                _RAIN,
                "Q: What does the cyclist have to look out for when the light turns green?\n"
                "A: The bus stands right beside her, and it is so long that its driver may not see her well, least "
                "of all in heavy rain. If the bus turns to her side, it could cut her off, so she should let it go "
                "first or make sure that she was seen. Brakes also take longer on the wet street; her yellow coat "
                "helps others to notice her, but does not make her stop sooner.",
            ),
        ),
    ),
}
