"""A frozen language model: probabilities of texts, and new text, plain or constrained."""

import hashlib
import math
import threading
from collections.abc import Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from spae.errors import InputError
from spae.frozen_lm.blocks import BlockMatrix
from spae.frozen_lm.chunks import BATCHES, CHUNKS, capacity_for, chunks, groups
from spae.frozen_lm.constraint import Constraint, encode_behind
from spae.frozen_lm.model import Cache, Decoder, empty_cache, parameter
from spae.frozen_lm.programs import Programs, place
from spae.frozen_lm.reader import Reader
from spae.frozen_lm.soft import SoftPrompt, vectors_by_name
from spae.frozen_lm.weights import ModelFiles
from spae.frozen_lm.writable import WritableWords
from spae.frozen_lm.writing import Generation, Rules, Writing, log_sum_exp
from spae.progress import counted
from spae.weights.hub import Located

T = TypeVar("T")

_BATCH_BYTES = 1 << 29  # of caches of texts that are generated side by side


class FrozenLM:
    """A language model that never changes; `spae.frozen_lm.load` gets one from files.

    Any thread may call it; calls wait for each other. The caches of recent prompts are kept, so that a context
    that several prompts begin with is read once.

    Attributes:
        name: of the file or folder; of a model of the hub that of its file or repository.
        source, revision: its name on the hub and the commit that this stood for; None for a model of a path.
        config: its sizes.
        weights: how its matrices are kept in memory, "float32" or "quantised, in blocks"; all is computed in float32.
        tokenizer: text to ids and back, without BOS.
        context_length: the most tokens that a prompt and what follows it may have.
        eos_ids: tokens that end a text.
        chat_template: how the model writes conversations, in Jinja's language; None for one that has none.
        special_tokens: the texts of tokens that it may write by name ("bos_token", "eos_token", ..).
    """

    def __init__(self, files: ModelFiles, located: Located | None = None):
        """`located`: of a model of the hub, from where its files are."""
        self.name = files.name if located is None else located.name
        self.source = None if located is None else located.source
        self.revision = None if located is None else located.revision
        self.config = files.config
        self.tokenizer = files.tokenizer
        self.context_length = files.config.context_length
        self.eos_ids = files.ends
        self.chat_template = files.chat_template
        self.special_tokens = files.special_tokens
        self._lead = list(files.lead)
        self._lock = threading.RLock()
        read_one_by_one = counted(files.tensors, f"{files.name}: tensors read", "tensor")
        parameters = {name: parameter(files.tensors[name]) for name in read_one_by_one}
        in_blocks = any(isinstance(one, BlockMatrix) for one in parameters.values())
        self.weights = "quantised, in blocks" if in_blocks else "float32"
        self._graph, state = nnx.split(Decoder(files.config, parameters))
        # A flat list, because a jitted function is much quicker to call with it.
        self._params, self._treedef = jax.tree.flatten(state)
        self._run = Programs(self._graph, self._treedef)
        self._reader = Reader(self.config, self._params, self._run)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text from its beginning: with the model's BOS in front, if it has one."""
        return self._lead + self.tokenizer.encode(text)

    def split(self) -> tuple[nnx.GraphDef[Decoder], nnx.State]:
        """The network as `nnx.split` gives it, for programs of one's own; the arrays are the model's, not copies."""
        return self._graph, jax.tree.unflatten(self._treedef, self._params)

    def sha256(self) -> str:
        """Of its sizes and of every bit of its parameters, in hexadecimal, computed anew with every call."""
        digest = hashlib.sha256(repr(self.config).encode())
        for path, array in jax.tree_util.tree_leaves_with_path(self.split()[1]):
            digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def writable(self, words: Sequence[str]) -> WritableWords:
        """Those of a vocabulary's words that are one token of this model behind a space, and those that are not.

        Raises:
            InputError: none is.
        """
        return WritableWords.of(words, self.tokenizer, self.name)

    def log_probs(self, ids: Sequence[int]) -> Float[np.ndarray, " n-1"]:
        """float32 (n - 1,): the natural logarithm of the probability of every id after those before it.

        Raises:
            InputError: fewer than two ids, more than the context length, or an id that does not exist.
        """
        ids = self._checked(ids, "ids")
        if len(ids) < 2:
            raise InputError("ids: wanted at least two, since the first has no probability; got one")
        with self._lock:
            cache = empty_cache(self.config, 1, capacity_for(len(ids)))
            return self._score_in_order(ids, 0, cache)

    def score(
        self, context: Sequence[int] | SoftPrompt, continuations: Sequence[Sequence[int]]
    ) -> list[Float[np.ndarray, " n"]]:
        """For each continuation of the context, the log-probability of every one of its tokens, float32 (n,).

        The context is read once, and short continuations many at a time; none sees another.

        Raises:
            InputError: an empty context or continuation, one that is longer than the context length together with the
                context, or an id that does not exist.
        """
        ids = self._checked_prompt(context, "context", self.context_length)
        checked = [self._checked(one, "continuation") for one in continuations]
        longest = max((len(one) for one in checked), default=0)
        if len(ids) + longest > self.context_length:
            raise InputError(
                f"wanted at most {self.context_length} tokens of context and continuation ({self.name}); "
                f"got {len(ids)} and {longest}"
            )
        with self._lock:
            self._reader.soft = vectors_by_name([context])
            prefix = self._reader.prompt(ids)
            # A copy with room for the largest chunk behind all tokens; each group writes over the one before.
            cache = self._reader.copy(prefix.cache, capacity_for(len(ids) + longest + CHUNKS[-1]))
            rest: list[Float[np.ndarray, " m"]] = []
            for group in groups(checked, CHUNKS[-1], lambda one: len(one) - 1):
                if len(group[0]) - 1 > CHUNKS[-1]:
                    rest.append(self._score_in_order(group[0], len(ids), self._reader.copy(cache)))
                else:
                    scores, cache = self._score_side_by_side(group, len(ids), cache)
                    rest += scores
        first_v = prefix.logits - log_sum_exp(prefix.logits)
        return [np.append(first_v[one[0]], more) for one, more in zip(checked, rest, strict=True)]

    def generate(
        self,
        prompts: Sequence[Sequence[int] | SoftPrompt],
        max_tokens: int,
        *,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | Sequence[int] = 0,
        constraints: Sequence[Constraint | None] | None = None,
        against: Sequence[Sequence[Sequence[int] | SoftPrompt]] | None = None,
        contrast: float = 1.0,
    ) -> list[Generation]:
        """Goes on writing behind each prompt.

        Args:
            prompts: token ids, from the beginning of a text (`encode`), perhaps with vectors in place of some.
            max_tokens: at most so many for each; fewer when the context is full.
            stop: a text ends in front of the first of these strings. Not for prompts with a constraint, whose
                text ends when it is complete.
            temperature: 0 takes the likeliest token; else logits are divided by it, and a token is drawn.
            top_p: draw from the likeliest tokens that together have this probability.
            seed: from 0, or one for each prompt; the same seed gives the same text, whatever is generated beside it.
                Every prompt draws from its seed anew, so a prompt given twice with one seed gives the same text twice.
            constraints: for each prompt what its text may be, or None; see `spae.frozen_lm.constraint`.
            against: for each prompt others, at most 15, perhaps none: a text is drawn to what is likelier behind its
                own prompt than behind these (classifier-free guidance; see `spae.frozen_lm.writing.contrasted`).
            contrast: how much, from 0: guidance of scale 1 + this.

        Raises:
            InputError: a prompt that is empty or fills the context, an id that does not exist, vectors of another
                width, or numbers out of range.
        """
        count = len(prompts)
        constraints = _for_each(count, "constraints", [None] * count if constraints is None else constraints)
        against = _for_each(count, "against", [[]] * count if against is None else against)
        seeds = _for_each(count, "seed", seed if isinstance(seed, Sequence) else [seed] * count)
        read = [[prompt, *others] for prompt, others in zip(prompts, against, strict=True)]
        if (most := max(map(len, read), default=1)) > BATCHES[-1]:
            raise InputError(
                f"against: wanted at most {BATCHES[-1] - 1} other prompts for each; got {most - 1}"
            )
        checked = [
            [self._checked_prompt(one, "prompt", self.context_length - 1) for one in of_text]
            for of_text in read
        ]
        if isinstance(stop, str) or not all(stop):
            raise InputError(f"stop: wanted a sequence of strings, none of them empty; got {stop!r}")
        if not 0 <= contrast < math.inf:
            raise InputError(f"contrast: wanted a number from 0; got {contrast}")
        if (
            max_tokens < 1
            or not 0 <= temperature < math.inf
            or not 0 < top_p <= 1
            or min(seeds, default=0) < 0
        ):
            raise InputError(
                "wanted max_tokens from 1, temperature from 0, 0 < top_p <= 1 and seed from 0; got "
                f"{max_tokens}, {temperature}, {top_p} and {seed}"
            )
        ends = self.eos_ids.union(*(encode_behind(one, self.tokenizer)[:1] for one in stop or ("\n",)))
        rules = Rules(temperature, top_p, tuple(stop), self.eos_ids, np.array(sorted(ends)), contrast)
        texts = [
            Writing(of_text, rules, own_seed, constraint, self.tokenizer)
            for of_text, own_seed, constraint in zip(checked, seeds, constraints, strict=True)
        ]
        longest = max((len(one) for of_text in checked for one in of_text), default=0)
        fitting = _BATCH_BYTES // self._bytes(capacity_for(longest + 1))
        most = max((size for size in BATCHES if size <= fitting), default=1)
        with self._lock:
            self._reader.soft = vectors_by_name([one for of_text in read for one in of_text])
            for batch in groups(texts, most, lambda text: len(text.prompts)):
                self._write(batch, max_tokens)
        return [text.finish() for text in texts]

    def embed(self, ids: Sequence[int]) -> Float[np.ndarray, "n d"]:
        """float32 (n, d): what the first layer takes for these ids, the rows of the model's table (Gemma: scaled)."""
        return np.asarray(self._run.embed(self._params, np.array(self._checked(ids, "ids"), np.int32)))

    def soft_logits(self, vectors: Float[Array, "n d"]) -> Float[Array, "n v"]:
        """Logits behind each of n input vectors that stand in the place of tokens; differentiable.

        Raises:
            InputError: vectors of another width, none, or more than the context length.
        """
        return self._run.logits(self._params, self._run.read_vectors(self._params, self._vectors(vectors)))

    def soft_log_probs(self, vectors: Float[Array, "n d"], targets: Int[Array, " n"]) -> Float[Array, " n"]:
        """log p of the id `targets[i]` behind the input vectors 0 .. i, float32 (n,); 0 where it is -1.

        `vectors` stand in the place of tokens (`embed`); `jax.grad` with respect to them goes through, and the
        model stays as it is.

        Raises:
            InputError: vectors of another width, none, or more than the context length; another number of targets.
        """
        x_nd = self._vectors(vectors)
        targets_n = jnp.asarray(targets, jnp.int32)
        if targets_n.shape != x_nd.shape[:1]:
            raise InputError(f"targets: wanted one id for each of {len(x_nd)} vectors; got {targets_n.shape}")
        hidden_nd = self._run.read_vectors(self._params, x_nd)
        found_n = self._run.log_probs(self._params, hidden_nd, jnp.maximum(targets_n, 0))
        return jnp.where(targets_n >= 0, found_n, 0.0)

    def _checked(self, ids: Sequence[int], name: str, most: int | None = None) -> list[int]:
        if isinstance(ids, str):
            raise InputError(f"{name}: wanted token ids, got a text: encode it first")
        most = self.context_length if most is None else most
        checked = [int(id_) for id_ in ids]
        if not 1 <= len(checked) <= most:
            raise InputError(f"{name}: wanted 1 to {most} tokens for {self.name}; got {len(checked)}")
        if min(checked) < 0 or max(checked) >= self.config.vocabulary:
            raise InputError(
                f"{name}: wanted ids from 0 to {self.config.vocabulary - 1}; got {min(checked)} to {max(checked)}"
            )
        return checked

    def _checked_prompt(self, prompt: Sequence[int] | SoftPrompt, name: str, most: int) -> list[int]:
        """The ids, with the names of its vectors."""
        if not isinstance(prompt, SoftPrompt):
            return self._checked(prompt, name, most)
        self._checked([max(id_, 0) for id_ in prompt.ids], name, most)
        if prompt.vectors.shape[1] != self.config.width:
            raise InputError(
                f"{name}: wanted vectors of width {self.config.width} for {self.name}, got {prompt.vectors.shape[1]}: "
                "were they made for another model?"
            )
        return prompt.named

    def _vectors(self, vectors: Float[Array, "n d"]) -> Float[Array, "n d"]:
        x_nd = jnp.asarray(vectors, jnp.float32)
        if x_nd.ndim != 2 or x_nd.shape[1] != self.config.width or not 1 <= len(x_nd) <= self.context_length:
            raise InputError(
                f"vectors: wanted 1 to {self.context_length} of width {self.config.width}; got {x_nd.shape}"
            )
        return x_nd

    def _bytes(self, capacity: int) -> int:
        """Of the cache of one text."""
        config = self.config
        return 2 * 4 * config.layers * config.kv_heads * config.head_size * capacity

    def _score_in_order(self, ids: list[int], start: int, cache: Cache) -> Float[np.ndarray, " n-1"]:
        """log p of all ids but the first, which stand behind the first `start` tokens of a cache (used up)."""
        scores = np.empty(len(ids) - 1, np.float32)
        for begin, end, size in chunks(0, len(scores), cache[0][0].shape[2] - start):
            hidden_bnd, cache = self._reader.tokens(ids[begin:end], start + begin, size, cache)
            targets = np.zeros(size, np.int32)
            targets[: end - begin] = ids[begin + 1 : end + 1]
            found = self._run.log_probs(self._params, hidden_bnd[0], targets)
            scores[begin:end] = np.asarray(found)[: end - begin]
        return scores

    def _score_side_by_side(
        self, group: list[list[int]], start: int, cache: Cache
    ) -> tuple[list[Float[np.ndarray, " m"]], Cache]:
        """log p as of `_score_in_order`, for several continuations in one chunk; and the cache, of which `start`
        tokens are left."""
        count = sum(len(one) - 1 for one in group)
        if count == 0:
            return [np.empty(0, np.float32) for _ in group], cache
        size = next(size for size in CHUNKS if size >= count)
        ids, positions, targets = (np.zeros(size, np.int32) for _ in range(3))
        segments = np.full(size, -1, np.int32)
        ends = np.cumsum([len(one) - 1 for one in group])
        for i, (one, end) in enumerate(zip(group, ends, strict=True)):
            at = slice(end - len(one) + 1, end)
            ids[at], targets[at], segments[at] = one[:-1], one[1:], i
            positions[at] = start + np.arange(len(one) - 1)
        hidden_bnd, cache = self._run.read(
            self._params, ids[None], cache, np.array([start], np.int32), positions[None], segments[None]
        )
        found = np.asarray(self._run.log_probs(self._params, hidden_bnd[0], targets))
        return np.split(found[:count], ends[:-1]), cache

    def _write(self, texts: Sequence[Writing], max_tokens: int) -> None:
        """Generates texts of up to 16 prompts together side by side."""
        read = iter(self._reader.prompts([prompt for text in texts for prompt in text.prompts]))
        prefixes = [[next(read) for _ in text.prompts] for text in texts]
        for text, of_text in zip(texts, prefixes, strict=True):
            text.take(np.stack([prefix.logits for prefix in of_text]))
        left = [i for i, text in enumerate(texts) if text.stopped is None]
        if not left or max_tokens == 1:
            return
        prompts = [prompt for i in left for prompt in texts[i].prompts]
        batch = next(size for size in BATCHES if size >= len(prompts))
        capacity = capacity_for(max(map(len, prompts)) + 1)
        cache = empty_cache(self.config, batch, capacity)
        rows: dict[Writing, slice] = {}  # of the batch
        begin = 0
        for i in left:
            for row, prefix in enumerate(prefixes[i], start=begin):
                cache = place(cache, prefix.cache, row)
            rows[texts[i]] = slice(begin, begin + len(prefixes[i]))
            begin += len(prefixes[i])
        del prefixes
        ids, lengths, one = (
            np.zeros((batch, 1), np.int32),
            np.zeros(batch, np.int32),
            np.zeros(batch, np.int32),
        )
        lengths[: len(prompts)] = list(map(len, prompts))
        for _ in range(max_tokens - 1):
            unfinished = {
                text: at
                for text, at in rows.items()
                if text.stopped is None and lengths[at].max() < self.context_length
            }
            if not unfinished:
                return
            if lengths.max() == capacity:
                capacity *= 2
                cache = self._reader.copy(cache, capacity)
            for text, at in unfinished.items():
                ids[at] = text.ids[-1]
            hidden_bnd, cache = self._run.read(
                self._params, ids, cache, lengths, lengths[:, None], np.zeros_like(ids)
            )
            logits_bv = np.asarray(self._run.logits_at(self._params, hidden_bnd, one))
            for text, at in unfinished.items():
                lengths[at] += 1
                text.take(logits_bv[at])


def _for_each(count: int, name: str, given: Sequence[T]) -> list[T]:
    """As a list; `InputError` unless it has one for each of so many prompts."""
    if len(given) != count:
        raise InputError(f"{name}: wanted one for each of {count} prompts; got {len(given)}")
    return list(given)
