"""A text while it is being generated: which token comes next, and when it is over."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from spae.frozen_lm.constraint import Constraint
from spae.frozen_lm.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Generation:
    """One generated text.

    Attributes:
        ids: the tokens; without the end token, and without those that begin inside or behind a stop string.
        text: their text, cut in front of the stop string.
        log_probs: float32, one per id: natural logarithm of the model's own probability of the id, before
            temperature, top_p and constraint.
        stop: "stop" (a stop string), "eos" (an end token), "length" (max_tokens, or the context is full),
            "constraint" (what was asked for is complete).
    """

    ids: list[int]
    text: str
    log_probs: Float[np.ndarray, " n"]
    stop: str


@dataclass(frozen=True)
class Rules:
    """How tokens are chosen, and what ends a text.

    Attributes:
        temperature, top_p: see `FrozenLM.generate`.
        stop: strings.
        eos: ids that end a text.
        ends: ids whose probability is that of ending, where a constraint leaves the choice.
        contrast: its weight, for texts with several prompts; see `contrasted`.
    """

    temperature: float
    top_p: float
    stop: tuple[str, ...]
    eos: frozenset[int]
    ends: Int[np.ndarray, " n"]
    contrast: float


class Writing:
    """One text. `stopped` says why it is over, None while it is not.

    Attributes:
        prompts: the prompt that it goes on, then those that it is to tell itself apart from (`contrasted`).
    """

    def __init__(
        self,
        prompts: Sequence[list[int]],
        rules: Rules,
        seed: int,
        constraint: Constraint | None,
        tokenizer: TextTokenizer,
    ):
        self.prompts = list(prompts)
        self.ids: list[int] = []
        self.stopped: str | None = None
        self._rules = rules
        self._constraint = constraint
        self._state = constraint.start() if constraint is not None else None
        self._tokenizer = tokenizer
        self._log_probs: list[float] = []
        self._text: str | None = None
        self._rng = np.random.default_rng(seed)
        # Decoders may drop the space in front of a first token: so decode behind an ordinary one.
        self._anchor = tokenizer.encode("a")[-1:]

    def take(self, logits_pv: Float[np.ndarray, "p v"]) -> None:
        """Chooses the next token from the logits behind each prompt and what is there."""
        log_p_pv = logits_pv - log_sum_exp(logits_pv)[:, None]
        if self._constraint is None:
            self._take_free(log_p_pv)
        else:
            self._take_constrained(log_p_pv, self._constraint)

    def finish(self) -> Generation:
        text = self._decode(self.ids) if self._text is None else self._text
        return Generation(self.ids, text, np.array(self._log_probs, np.float32), self.stopped or "length")

    def _take_free(self, log_p_pv: Float[np.ndarray, "p v"]) -> None:
        chosen = self._choose(log_p_pv)
        if chosen in self._rules.eos:
            self.stopped = "eos"
            return
        self._append(chosen, log_p_pv[0])
        if self._rules.stop:
            self._find_stop()

    def _take_constrained(self, log_p_pv: Float[np.ndarray, "p v"], constraint: Constraint) -> None:
        allowed = constraint.allowed(self._state)
        ways_pn = log_p_pv[:, allowed]
        if constraint.finished(self._state):
            ends = self._rules.ends[~np.isin(self._rules.ends, allowed)]
            ending_p = log_sum_exp(log_p_pv[:, ends]) if ends.size else np.full(len(log_p_pv), -np.inf)
            # First, so that the likeliest wins by being at least as likely.
            ways_pn = np.concatenate([ending_p[:, None], ways_pn], axis=1)
            allowed = np.append(-1, allowed)
        chosen = int(allowed[self._choose(ways_pn)])
        if chosen >= 0:
            self._append(chosen, log_p_pv[0])
            self._state = constraint.step(self._state, chosen)
        if chosen < 0 or not constraint.allowed(self._state).size:
            self.stopped = "constraint"

    def _append(self, chosen: int, log_p: Float[np.ndarray, " v"]) -> None:
        self.ids.append(chosen)
        self._log_probs.append(float(log_p[chosen]))

    def _choose(self, log_p_pn: Float[np.ndarray, "p n"]) -> int:
        """A place, by the logarithms of unnormalised probabilities behind each prompt."""
        scores = log_p_pn[0] if len(log_p_pn) == 1 else contrasted(log_p_pn, self._rules.contrast)
        if self._rules.temperature == 0:
            return int(scores.argmax())
        scaled = scores.astype(np.float64) / self._rules.temperature
        probabilities = np.exp(scaled - scaled.max())
        order = np.argsort(-probabilities, kind="stable")
        cumulative = np.cumsum(probabilities[order]) / probabilities.sum()
        # Up to and with the one that reaches top_p.
        last = min(int(np.searchsorted(cumulative, self._rules.top_p)), len(order) - 1)
        drawn = self._rng.random() * cumulative[last]
        return int(order[min(int(np.searchsorted(cumulative, drawn, side="right")), last)])

    def _find_stop(self) -> None:
        text = self._decode(self.ids)
        places = [place for place in (text.find(one) for one in self._rules.stop) if place >= 0]
        if not places:
            return
        self._text = text[: min(places)]
        while self.ids and len(self._decode(self.ids[:-1])) >= len(self._text):
            self.ids.pop()
            self._log_probs.pop()
        self.stopped = "stop"

    def _decode(self, ids: Sequence[int]) -> str:
        before = self._tokenizer.decode(self._anchor)
        return self._tokenizer.decode([*self._anchor, *ids])[len(before) :]


def contrasted(log_p_pn: Float[np.ndarray, "p n"], weight: float) -> Float[np.ndarray, " n"]:
    """log p of each way to go on behind the first prompt, plus `weight` times how much likelier it is there than behind
    all prompts on average: the logarithm of the quotient. What is impossible behind the first stays so.

    (Classifier-free guidance of scale 1 + `weight`, Sanchez et al., arXiv 2306.17806, equation 7, with the average over
    several conditions in place of none.)
    """
    possible_n = np.isfinite(log_p_pn[0])
    own_n, all_pn = log_p_pn[0, possible_n], log_p_pn[:, possible_n]
    mean_n = np.logaddexp.reduce(all_pn, axis=0) - np.log(len(all_pn))
    scores_n = np.full(possible_n.shape, -np.inf)
    scores_n[possible_n] = own_n + weight * (own_n - mean_n)
    return scores_n


def log_sum_exp(values: Float[np.ndarray, "*rows n"]) -> Float[np.ndarray, "*rows"]:
    """Over the last axis."""
    most = values.max(-1, keepdims=True)
    return most[..., 0] + np.log(np.exp(values - most).sum(-1))
