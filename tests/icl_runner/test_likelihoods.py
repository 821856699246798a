"""Scores by the likelihoods of names, against what is written out by hand and NumPy."""

import numpy as np
import pytest

from icl_runner.cells import Call, Item, TextCell
from icl_runner.estimate import estimate
from icl_runner.likelihoods import averaged, calibrated, likeliest
from icl_runner.prompts import Prompt
from spae.errors import InputError


def test_calibration_is_that_of_zhao():
    """W = diag(p of the content-free input)^-1, q = W p: the published form, on probabilities."""
    rng = np.random.default_rng(0)
    names = ["a", "b", "c"]
    p, free = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), 4)
    # As they come from a model: together they have little of all the probability there is.
    log_probs = dict(zip(names, np.log(p * 1e-5), strict=True))
    prompts = [dict(zip(names, np.log(one * 1e-7), strict=True)) for one in free]
    found = calibrated(log_probs, prompts)
    wanted = np.linalg.inv(np.diag(free.mean(0))) @ p
    shares = np.exp(list(found.values()))
    np.testing.assert_allclose(shares / shares.sum(), wanted / wanted.sum(), rtol=1e-9)


def test_a_name_that_is_never_likely_has_a_prior_too():
    assert likeliest(calibrated({"a": -2000.0, "b": -1.0}, [{"a": -2000.0, "b": -1.0}])) == "b"


def test_average_and_choice():
    several = [{"a": -1.0, "b": -2.0}, {"b": -1.0, "a": -4.0}]
    assert averaged(several) == {"a": -2.5, "b": -1.5}
    assert likeliest(averaged(several)) == "b"
    assert likeliest({"a": -1.0, "b": -1.0}) == "a"


def test_what_is_refused():
    for wrong in ([], [{"a": -1.0}, {"b": -1.0}], [{}]):
        with pytest.raises(InputError, match="same names"):
            averaged(wrong)
    with pytest.raises(InputError, match="content-free"):
        calibrated({"a": -1.0}, [])
    with pytest.raises(InputError, match="at least one name"):
        likeliest({})


@pytest.mark.parametrize(("model", "requests"), [("completions/m", 3), ("spae-connector/folder", 1)])
def test_likelihoods_are_one_request_for_each_text_of_endpoints_alone(model, requests):
    call = Call("likelihood", Prompt("", "Input: a\nOutput:"), 4, ("dog", "cat", "bird"), likelihoods=True)
    item = Item("one", (call,), "dog", {})
    [found] = estimate([TextCell(name="a", task="a", setting={}, items=(item,), score=None)], model)
    assert (found.calls, found.likelihoods) == (requests, requests)
    assert found.written == (12 if requests > 1 else 0)
