"""Marks: only what is under them changes, they lie where they should, and the phrase says what was drawn."""

import json

import numpy as np
import pytest
from PIL import Image

from icl_runner import cli
from icl_runner.dice import Dice
from icl_runner.marks.shapes import SHAPES, Place
from icl_runner.marks.visual_prompts import COLOURS, blend, contact_sheet, mark, mark_all, point_out
from spae.errors import InputError

NOISE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)


def _ring(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    radius = np.hypot(x - width / 2, y - height / 2)
    return (radius < min(height, width) / 2.2) & (radius > min(height, width) / 2.8)


@pytest.mark.parametrize("shape", SHAPES)
def test_only_what_is_under_the_mark_changes(shape):
    marked, found = mark(NOISE, _ring(90, 120), shape, "gold", alpha=100, seed=4)
    assert found.pixels.any()
    np.testing.assert_array_equal(marked[~found.pixels], NOISE[~found.pixels])
    wanted = np.rint(100 / 255 * np.array(COLOURS["gold"]) + 155 / 255 * NOISE[found.pixels].astype(float))
    np.testing.assert_array_equal(marked[found.pixels], wanted)
    again = [
        mark(NOISE, _ring(90, 120), shape, "gold", alpha=100, seed=seed)[0].tobytes() for seed in range(4, 16)
    ]
    assert again[0] == marked.tobytes()
    # The edge of a mask is always the same, on an image so small that all its lines are one pixel wide.
    assert (len(set(again)) == 1) == (shape in ("mask", "mask contour"))
    assert found.phrase == f"{SHAPES[shape]} the gold {shape}"


def test_marks_lie_on_their_region():
    """The tip of an arrow, a point's middle, both ends of a scribble: on the region, whatever its form."""
    tiny = np.zeros((64, 64), bool)
    tiny[30, 40] = True
    comb = np.zeros((64, 64), bool)
    comb[5:60, 10:50:4] = comb[5:8, 10:50] = True
    three = (50, 20, 3, 3)
    for region in (_ring(64, 64), comb, tiny, three, (0, 0, 64, 1), (0, 0, 0.5, 0.5)):
        place = Place(region, 64, 64)
        for number in range(60):
            dice = Dice(number)
            for shape in ("arrow", "point", "scribble"):
                assert (place.draw(shape, 1, dice) & place.mask).any()
            assert place.mask[place._inside(dice.uniform("y", -9, 70), 3)[::-1]]
        assert not ("triangle" in place.shapes and min(place.box[2:]) < 2)
    frame = Place((10, 10, 20, 8), 64, 64)
    assert frame.draw("rectangle", 3, Dice(0)).sum() == 20 * 8 - 14 * 2
    rows = np.flatnonzero(frame.draw("ellipse", 1, Dice(0)).any(1))
    assert 8 <= rows[0] <= 10
    assert 17 <= rows[-1] <= 19
    np.testing.assert_array_equal(Place(comb, 64, 64).draw("mask", 0, Dice(0)), comb)
    contour = Place(comb, 64, 64).draw("mask contour", 1, Dice(0))
    edge = comb & ~(np.roll(comb, 1, 0) & np.roll(comb, -1, 0) & np.roll(comb, 1, 1) & np.roll(comb, -1, 1))
    assert contour[edge].all()


def test_fifty_regions_have_fifty_phrases():
    boxes = [(x, y, 8, 8) for x in range(0, 100, 10) for y in range(0, 50, 10)]
    marked, marks = mark_all(NOISE, boxes, seed=2)
    assert len({found.phrase for found in marks}) == 50
    assert not {"mask", "mask contour"} & {found.shape for found in marks}
    untouched = ~np.any([found.pixels for found in marks], 0)
    np.testing.assert_array_equal(marked[untouched], NOISE[untouched])
    with pytest.raises(InputError, match="region 55 finds none"):
        mark_all(NOISE, [(1, 1, 8, 8)] * 55)
    with pytest.raises(InputError, match="region 10 finds none"):
        mark_all(NOISE, [(1, 1, 8, 8)] * 10, ["arrow", "mask"])


def test_phrases_in_text():
    phrases = ["within the red rectangle", "at the blue point"]
    assert point_out("Is <bbox1> right of <region>, <region0>?", phrases) == (
        "Is at the blue point right of within the red rectangle, within the red rectangle?"
    )
    with pytest.raises(InputError, match="<bbox2> points at region 2, there are 2"):
        point_out("<bbox2>", phrases)
    _, found = mark(NOISE, (5, 5, 20, 20), "arrow", "random", seed=1)
    assert found.phrase == "pointed to by the arrow"
    assert found.rgb not in COLOURS.values()


@pytest.mark.parametrize(
    ("region", "given", "message"),
    [
        ((100, 0, 21, 5), {}, "on the image of 120 x 90"),
        ((5, 5, -2, 4), {}, "on the image"),
        (np.ones((120, 90), bool), {}, "90 x 120"),
        ((5, 5, 9, 9), {"shape": "star"}, "unknown shape 'star'"),
        ((5, 5, 9, 9), {"shape": "arrow", "colour": "pink"}, "unknown colour 'pink'"),
        ((5, 5, 9, 9), {"shape": "mask"}, "'mask' needs the region as a mask"),
        ((5, 5, 1, 1), {"shape": "triangle"}, "no triangle"),
        ((5, 5, 9, 9), {"shape": "arrow", "alpha": 256}, "alpha"),
        ((5, 5, 9, 9), {"shape": "arrow", "line": 0}, "lines of 1 to 120"),
        ((5, 5, 9, 9), {"shape": "point", "line": 2}, "a point has no lines"),
    ],
)
def test_what_cannot_be_marked(region, given, message):
    with pytest.raises(InputError, match=message):
        mark(NOISE, region, **given)


def test_blend_reaches_both_ends():
    everywhere = np.ones((90, 120), bool)
    assert (blend(NOISE, everywhere, (1, 2, 3), 255) == (1, 2, 3)).all()


def test_the_command(tmp_path, capsys):
    Image.fromarray(NOISE).save(tmp_path / "in.png")
    Image.fromarray(_ring(90, 120)).save(tmp_path / "mask.png")
    out = str(tmp_path / "out.png")
    assert (
        cli.main(["mark", str(tmp_path / "in.png"), "--shape", "arrow", "--box", "9,9,30,30", "-o", out]) == 0
    )
    assert capsys.readouterr().out.startswith("pointed to by the ")
    expected, _ = mark(NOISE, (9, 9, 30, 30), "arrow")
    np.testing.assert_array_equal(np.array(Image.open(out)), expected)
    given = ["mark", str(tmp_path / "in.png"), "--mask", str(tmp_path / "mask.png"), "-o", out]
    assert cli.main([*given, "--shape", "mask contour", "--colour", "red", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["phrase"] == "with the red mask contour"
    assert cli.main([*given, "--shape", "all"]) == 0
    sheet = contact_sheet(NOISE, _ring(90, 120))
    np.testing.assert_array_equal(np.array(Image.open(out)), np.array(sheet))
    assert cli.main([*given, "--shape", "all", "--line", "3"]) == 1
    assert "leave out --line" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["mark", str(tmp_path / "in.png"), "--box", "1,2,3", "-o", out])


def test_what_there_is_no_room_for_is_left_out():
    line = np.zeros((40, 60), bool)
    np.fill_diagonal(line, True)
    assert "triangle" not in Place(line, 40, 60).shapes
    assert np.array(contact_sheet(NOISE[:40, :60], line)).any()
    # Where there is little room one is drawn by every dice.
    thin = Place((0, 10, 60, 3), 40, 60)
    assert "triangle" in thin.shapes
    assert all(thin.draw("triangle", 1, Dice(number)).any() for number in range(300))
    # Nothing is drawn out of sight.
    whole = Place((0, 0, 60, 40), 40, 60)
    assert all(whole.draw("ellipse", 1, Dice(number)).any() for number in range(99))


def test_what_was_cut_out_is_a_mask(tmp_path, capsys):
    Image.fromarray(NOISE).save(tmp_path / "in.png")
    ring = _ring(90, 120)
    cut = np.dstack([NOISE // 3, ring.astype(np.uint8) * 255])  # dark
    Image.fromarray(cut).save(tmp_path / "cut.png")
    given = ["mark", str(tmp_path / "in.png"), "--mask", str(tmp_path / "cut.png"), "--shape", "mask"]
    assert cli.main([*given, "--seed", "1", "-o", str(tmp_path / "out.png")]) == 0
    changed = (np.array(Image.open(tmp_path / "out.png")) != NOISE).any(2)
    assert changed[ring].mean() > 0.9
    assert not changed[~ring].any()
    capsys.readouterr()
    assert cli.main([*given, "-o", str(tmp_path / "in.png")]) == 1
    assert "is the image that is read" in capsys.readouterr().err
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "in.png")), NOISE)
