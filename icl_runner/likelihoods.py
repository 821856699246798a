"""Scores by how likely each of several names is: for models that see more than they manage to write.

All take the natural logarithm of p(name, end of its line | prompt) by name. What is compared are probabilities of whole
names, where decoding along the names decides token by token.
"""

from collections.abc import Mapping, Sequence
from math import exp, fsum, log

from spae.errors import InputError

LogProbs = Mapping[str, float]


def likeliest(log_probs: LogProbs) -> str:
    """The name of the highest value; of equals the first.

    Raises:
        InputError: no names.
    """
    if not log_probs:
        raise InputError("wanted the log-probabilities of at least one name, got none")
    return max(log_probs, key=log_probs.__getitem__)


def averaged(several: Sequence[LogProbs]) -> dict[str, float]:
    """The mean log-probability of each name: of one question behind its examples in several orders (the order alone
    moves small models: Lu et al., arXiv 2104.08786).

    Raises:
        InputError: nothing to average, or of other names.
    """
    _check(several)
    return {name: fsum(one[name] for one in several) / len(several) for name in several[0]}


def calibrated(log_probs: LogProbs, content_free: Sequence[LogProbs]) -> dict[str, float]:
    """Contextual calibration (Zhao et al., arXiv 2102.09690, section 4): log p of each name, less the log of the share
    that it has among the names when nothing is there to be named, which is the mean over content-free prompts.

    Raises:
        InputError: no content-free prompt, or of other names.
    """
    _check([log_probs, *content_free])
    if not content_free:
        raise InputError("wanted log-probabilities behind at least one content-free prompt, got none")
    priors = [_shares(one) for one in content_free]
    return {
        name: value - log(fsum(prior[name] for prior in priors) / len(priors))
        for name, value in log_probs.items()
    }


def _shares(log_probs: LogProbs) -> dict[str, float]:
    """The probabilities, scaled to a sum of 1; none is below 1e-300, so that it has a logarithm."""
    most = max(log_probs.values())
    raw = {name: max(exp(value - most), 1e-300) for name, value in log_probs.items()}
    return {name: value / fsum(raw.values()) for name, value in raw.items()}


def _check(several: Sequence[LogProbs]) -> None:
    if not several or any(set(one) != set(several[0]) for one in several) or not several[0]:
        raise InputError(
            f"wanted log-probabilities of the same names, got those of {list(map(list, several))}"
        )
