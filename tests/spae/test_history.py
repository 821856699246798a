"""What a bundle says of how it was trained, added up."""

from spae.history import History


def run(on=None, **said):
    """What a bundle says of a run on the data `on`."""
    return {"config": {"data": {"train": on}, "optimizer": {"steps": said.pop("steps", 0)}}, **said}


def test_runs_are_added_up_and_images_of_the_same_data_count_once():
    first = run("flowers", steps=600, images=900, seconds=7000, devices=["gpu", "gpu"])
    then = run("cats", steps=300, images=100, seconds=140, initial=first)
    last = run("cats", steps=100, images=80, seconds=60, initial=then)
    assert History.of({"training": last}) == History(1000, 1000, 7200, ("gpu", "gpu"))


def test_a_bundle_that_says_nothing():
    nothing = History(0, 0, 0, ())
    assert History.of({}) == History.of({"training": None}) == History.of({"training": {}}) == nothing
