"""What tokens cost: a file of prices, and the money that a cell took."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from math import fsum
from pathlib import Path
from typing import Any

from icl_runner.results import CellResult
from spae.errors import InputError

_WANTED = (
    'wanted {"currency": "USD", "provider/model": {"input": 0.5, "output": 1.5}, ..}, money per million tokens; the '
    "currency may be left out"
)


@dataclass(frozen=True)
class Prices:
    """`by_model`: model -> {"input", "output"}, money per million tokens; `currency`: of all of them, "" if unsaid."""

    by_model: Mapping[str, Mapping[str, float]]
    currency: str = ""

    def of(self, model: str, read: int, written: int) -> float:
        """The money for tokens read and written; `KeyError` for a model without a price."""
        price = self.by_model[model]
        return (read * price["input"] + written * price["output"]) / 1e6


def read_prices(path: str | Path) -> Prices:
    """Prices from a JSON file: model -> {"input": money per million tokens, "output": ..}, and perhaps "currency".

    Raises:
        InputError: no such file, or another content.
    """
    try:
        prices = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(prices, dict):
        raise InputError(f"{path}: {_WANTED}")
    # The names of models hold a slash: none is called so.
    currency = prices.pop("currency", "")
    if not isinstance(currency, str):
        raise InputError(f"{path}: {_WANTED}; got {json.dumps(currency)} for currency")
    for model, price in prices.items():
        if (
            not isinstance(price, dict)
            or set(price) != {"input", "output"}
            or not all(map(_is_price, price.values()))
        ):
            raise InputError(f"{path}: {_WANTED}; got {json.dumps(price)} for {model}")
    return Prices(prices, " ".join(currency.split()))


def cost(cell: CellResult, prices: Prices | None) -> float | None:
    """In the currency of `prices`; None without prices, or if a model that was used has none."""
    if prices is None or any(model not in prices.by_model for model in cell.usage):
        return None
    return fsum(prices.of(model, *used) for model, used in cell.usage.items())


def _is_price(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0
