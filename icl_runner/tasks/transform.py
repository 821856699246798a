"""Image -> image: the words of a clean image for those of a corrupted one, after examples of such pairs.

SPAE paper (arXiv 2306.17842), section 4.2, and V2L-Tokenizer (arXiv 2403.07874), whose ten examples are corrupted less
and less: 0.50, 0.47, .., 0.23. There the examples are copies of the query's own clean image, so that the answer stands
in the context ten times. That is offered as "published-leaking"; by default the examples are of other images.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from icl_runner import prompts
from icl_runner.data.examples import Example, ExampleSet
from icl_runner.pictures.corruptions import CORRUPTIONS, corrupt, replace_words, strengths
from icl_runner.pictures.progressive import Pair, flat_words
from icl_runner.tasks import shuffled
from icl_runner.tasks.drawing import Drawing, DrawingCell, Progress, number, one_of
from spae.errors import InputError
from spae.images import to_array
from spae.pyramid import Pyramid
from spae.tokenizer import Tokenizer

Context = Literal["leak-free", "published-leaking"]
# Not the image but its words are corrupted.
WORDS = "words"
KINDS = (*CORRUPTIONS, WORDS)


def cell(
    examples: ExampleSet,
    tokenizer: Tokenizer,
    pyramids: Callable[[Sequence[str]], Mapping[str, Pyramid]],
    *,
    kind: str,
    context: Context = "leak-free",
    shots: int = 10,
    queries: int = 20,
    rounds: int = 1,
    first: float = 0.5,
    last: float = 0.2,
    progress: Progress | None = None,
    seed: int = 0,
    bundle: str = "default",
) -> DrawingCell:
    """`queries` images to be made clean, `rounds` times with other contexts and other queries.

    The examples in context are corrupted with strengths that fall evenly from `first`; the query's is `last`. In a
    leak-free context they are other images, the same for all queries of a round; none of them is a query of any round.

    Args:
        examples: images; their labels are not used.
        pyramids: image keys -> pyramids of the clean images.
        kind: one of `KINDS`: a corruption of the image (`icl_runner.pictures.corruptions`), at the size that the
            tokenizer looks at; or "words": that share of the words is replaced by others.
        context: "leak-free", or "published-leaking": corrupted copies of the query itself, with the answer beside them.
        shots: examples in context.

    Raises:
        InputError: an unknown kind or context, strengths outside of [0, 1], too few images, or a context that does not
            fit.
    """
    progress = progress or Progress()
    if kind not in KINDS:
        raise InputError(f"transform: wanted one of {', '.join(KINDS)}; got {kind!r}")
    if context not in ("leak-free", "published-leaking"):
        raise InputError(f"transform: wanted the context leak-free or published-leaking; got {context!r}")
    if queries < 1 or rounds < 1:
        raise InputError(f"transform: wanted at least 1 query and 1 round; got {queries} and {rounds}")
    falling = strengths(first, last, shots)
    leaks = context == "published-leaking"
    in_context = 0 if leaks else shots
    of_images = {one.image_key: one for one in examples.examples}
    if len(of_images) < rounds * (in_context + queries):
        raise InputError(
            f"transform: wanted {in_context} images as context and {queries} as queries for each of {rounds} rounds; "
            f"{examples.name} has {len(of_images)} images: take fewer"
        )
    chosen = shuffled(list(of_images.values()), seed, lambda one: one.image_key)
    chosen = chosen[: rounds * (in_context + queries)]
    worse = _Corrupted(
        examples, tokenizer, pyramids([one.image_key for one in chosen]), kind, progress.layers, seed
    )
    drawings: list[Drawing] = []
    for turn in range(rounds):
        own = chosen[turn * (in_context + queries) : (turn + 1) * (in_context + queries)]
        shared = worse.pairs(list(zip(own[:in_context], falling, strict=False)))
        own = own[in_context:]
        for query, (picture, words) in zip(own, worse.made([(one, falling[-1]) for one in own]), strict=True):
            pairs = worse.pairs([(query, strength) for strength in falling[:-1]]) if leaks else shared
            id_ = f"{turn}-{query.image_key}"
            drawings.append(
                Drawing(
                    id=id_,
                    shown=f"{kind}, strength {falling[-1]:g}" + (", published-leaking" if leaks else ""),
                    condition=words,
                    pairs=pairs,
                    target=worse.clean(query),
                    target_words=worse.clean_words(query),
                    copied_words=one_of(pairs, seed, id_).words,
                    input=picture,
                    input_words=words,
                )
            )
    setting = {"transform": kind, "context": context, "shots": shots, "first": first, "last": last}
    tokens = tokenizer.shape.tokens(progress.layers)
    return DrawingCell(
        name=f"transform-{kind}-{context}-{shots}shot-{tokens}words",
        task="transform",
        setting={**setting, **progress.setting(tokenizer.shape)},
        drawings=tuple(drawings),
        progress=progress,
        write=prompts.transform,
        tokenizer=tokenizer,
        bundle=bundle,
        seed=seed,
    )


class _Corrupted:
    """Images and what becomes of them: pictures and words."""

    def __init__(
        self,
        examples: ExampleSet,
        tokenizer: Tokenizer,
        pyramids: Mapping[str, Pyramid],
        kind: str,
        layers: int,
        seed: int,
    ) -> None:
        self.examples, self.tokenizer, self.pyramids = examples, tokenizer, pyramids
        self.kind, self.layers, self.seed = kind, layers, seed

    def clean(self, one: Example) -> UInt8[np.ndarray, "s s 3"]:
        """At the size that is decoded."""
        return to_array(self.tokenizer.square(self.examples.image(one)), self.tokenizer.image_size)

    def clean_words(self, one: Example) -> tuple[str, ...]:
        return flat_words(self.pyramids[one.image_key], self.layers)

    def made(
        self, wanted: Sequence[tuple[Example, float]]
    ) -> list[tuple[UInt8[np.ndarray, "s s 3"], tuple[str, ...]]]:
        """Of images with strengths: the corrupted picture and its words."""
        if not wanted:
            return []
        # Its own noise for every image and strength, the same in every run.
        seeds = [number(self.seed, f"{one.image_key} {strength}") for one, strength in wanted]
        if self.kind == WORDS:
            vocabulary = self.tokenizer.vocabulary
            pyramids = [
                replace_words(self.pyramids[one.image_key].prefix(self.layers), strength, vocabulary, own)
                for (one, strength), own in zip(wanted, seeds, strict=True)
            ]
            made = self.tokenizer.decode(pyramids, self.layers)
        else:
            # Of what the tokenizer looks at, as the words of the clean images are.
            squares = [
                corrupt(self.tokenizer.square(self.examples.image(one)), self.kind, strength, own)
                for (one, strength), own in zip(wanted, seeds, strict=True)
            ]
            pyramids = self.tokenizer.encode(squares)
            made = np.stack([to_array(square, self.tokenizer.image_size) for square in squares])
        return [(picture, flat_words(p, self.layers)) for picture, p in zip(made, pyramids, strict=True)]

    def pairs(self, wanted: Sequence[tuple[Example, float]]) -> tuple[Pair, ...]:
        """Examples in context: the words of the corrupted image, and those of the clean one."""
        corrupted = self.made(wanted)
        return tuple(
            Pair(words, self.clean_words(one)) for (one, _), (_, words) in zip(wanted, corrupted, strict=True)
        )
