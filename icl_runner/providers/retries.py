"""What becomes of a failed call: asked again, when, and at which point it is given up with its reason."""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from spae.errors import InputError

# Once may be a proxy's hiccup, twice bad luck; the third time the same refusal is the endpoint's word.
_SAME_FAILURES = 3


class EndpointError(Exception):
    """An endpoint gave no answer.

    Args:
        kind: "transient" (asking again may help), "rate_limit" (asking again later will), or "deterministic" (the
            request itself is refused).
        failure: what went wrong, by which failures are told to be the same.
        detail: what the endpoint said, where request numbers and times may stand.
        retry_after: seconds that the endpoint asked for.
        final: given up.
    """

    def __init__(
        self,
        kind: Literal["transient", "rate_limit", "deterministic"],
        failure: str,
        detail: str = "",
        *,
        retry_after: float | None = None,
        final: bool = False,
    ):
        super().__init__(f"{failure}: {detail}" if detail else failure)
        self.kind = kind
        self.failure = failure
        self.retry_after = retry_after
        self.final = final


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and how fast a call is tried again.

    Args:
        max_retries: retries of one call, unless inspect's `max_retries` says otherwise.
        base: seconds before the first retry, doubled for each further one.
        longest: no wait is longer, whatever the endpoint asks for (seconds).
    """

    max_retries: int = 8
    base: float = 1.0
    longest: float = 60.0

    def __post_init__(self) -> None:
        for name in ("max_retries", "base", "longest"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise InputError(f"retries: wanted {name} as a number from 0; got {value!r}")

    def wait(self, attempt: int, retry_after: float | None) -> float:
        """Seconds to wait after the failed attempt (1, 2, ..).

        With jitter, so that calls that failed together do not come back together; never before the time that
        the endpoint asked for, except where that is beyond `longest`.
        """
        if retry_after is not None:
            return min(retry_after, self.longest) + random.uniform(0, min(self.base, self.longest))
        # 2 ** 30 bases are beyond any `longest`; the power of a larger number would only overflow.
        doubled = self.base * 2 ** min(attempt - 1, 30)
        return min(doubled, self.longest) * random.uniform(0.5, 1)


class Attempts:
    """The failed attempts of one model call. inspect runs the loop, or the provider for each of the calls that it was
    given together; this says when it ends, and the waits."""

    def __init__(self, policy: RetryPolicy):
        self._policy = policy
        self._failures: list[EndpointError] = []

    def failed(self, error: EndpointError, max_retries: int | None) -> EndpointError:
        """The error to raise: as it is, to be tried again, or final with how often it was tried."""
        self._failures.append(error)
        tried = len(self._failures)
        same = sum(earlier.failure == error.failure for earlier in self._failures)
        if error.kind == "deterministic" and same >= _SAME_FAILURES:
            return EndpointError(error.kind, f"{error} (the same {same} times)", final=True)
        if tried > (self._policy.max_retries if max_retries is None else max_retries):
            return EndpointError(error.kind, f"{error} (attempt {tried}, the last)", final=True)
        return error

    def wait(self, state: Any) -> float:
        """Seconds before the next attempt, given tenacity's state of the loop."""
        error = state.outcome.exception()
        retry_after = error.retry_after if isinstance(error, EndpointError) else None
        return self._policy.wait(state.attempt_number, retry_after)

    def pause(self, error: EndpointError) -> float:
        """Seconds before the next attempt after this error, the last of those that failed."""
        return self._policy.wait(len(self._failures), error.retry_after)


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date; None where there is none to be read."""
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    if date.tzinfo is None:  # "-0000": a time in UTC by someone who does not say where
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())
