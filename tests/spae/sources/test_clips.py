"""Clips: which frames, of which films, with which labels."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moving import moving_square, number_of, write_frames, write_video

from spae.errors import InputError
from spae.images import to_clip
from spae.sources.clips import Sampling, open_clips, read_clip


@given(st.integers(1, 60), st.integers(1, 8), st.integers(1, 5), st.floats(0, 1))
def test_numbers_are_every_stride_th_and_inside(count, frames, stride, place):
    sampling = Sampling(frames=frames, stride=stride)
    span = (frames - 1) * stride + 1
    if count < span:
        with pytest.raises(InputError, match=f"has {count} frames, wanted {span}"):
            sampling.numbers(count, place)
        return
    numbers = sampling.numbers(count, place)
    assert len(numbers) == frames
    assert set(np.diff(numbers)) <= {stride}
    assert numbers[0] >= 0
    assert numbers[-1] < count
    assert sampling.numbers(count, 0.0)[0] == 0
    assert sampling.numbers(count, 1.0)[-1] == count - 1
    # In the middle to within a frame.
    middle = sampling.numbers(count, 0.5)
    assert abs(middle[0] - (count - 1 - middle[-1])) <= 1


@given(st.integers(2, 60), st.floats(5, 60), st.integers(2, 8), st.floats(2, 60), st.floats(0, 1))
def test_numbers_by_time_are_the_nearest_frames(count, rate, frames, fps, place):
    times = np.arange(count) / rate
    sampling = Sampling(frames=frames, fps=fps)
    slack = times[-1] - (frames - 1) / fps
    if slack < -0.5 / rate - 1e-6:
        with pytest.raises(InputError, match="a second"):
            sampling.numbers_by_time(times, place)
        return
    numbers = sampling.numbers_by_time(times, place)
    assert abs(times[numbers[0]] - place * max(slack, 0)) <= 0.5 / rate + 1e-9
    for tick, number in enumerate(numbers):
        time = times[numbers[0]] + tick / fps
        assert abs(times[number] - time) <= np.abs(times - time).min() + 1e-9


def test_sixteen_frames_at_the_film_s_own_speed_are_its_sixteen_frames():
    assert Sampling(frames=16, fps=25).numbers_by_time(np.arange(16) / 25, 0.7) == list(range(16))
    for place in (0.0, 0.5, 0.9):
        numbers = Sampling(frames=4, fps=12.5).numbers_by_time(np.arange(99) / 25, place)
        assert set(np.diff(numbers)) == {2}


@pytest.mark.parametrize("change", [{"frames": 0}, {"stride": 0}, {"fps": 0.0}, {"fps": float("inf")}])
def test_samplings_that_cannot_be(change):
    with pytest.raises(InputError, match="a clip wants"):
        Sampling(**{"frames": 4, **change})


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Kinetics' layout: a folder for each class, films and folders of frames in it."""
    root = tmp_path_factory.mktemp("films")
    write_frames(root / "jumping" / "one", moving_square(12, (20, 30)), "{}.png")
    write_frames(root / "jumping" / "two", moving_square(7, (20, 30), seed=1), "frame{}.jpg")
    write_frames(root / "loose", moving_square(9, (20, 30), seed=2), "x{}.webp")
    (root / "jumping" / "notes.txt").write_text("no film")
    (root / ".hidden").mkdir()
    return root


def test_folders_of_frames(films):
    clips = open_clips(films, 16, Sampling(frames=4, stride=2))
    assert clips.keys == ["jumping/one", "jumping/two", "loose"]
    assert clips.labels == ["jumping", "jumping", None]
    record = clips[0]
    assert (record.label, record.key, record.caption) == ("jumping", "jumping/one", None)
    assert record.image.shape == (4, 16, 16, 3)
    assert record.image.dtype == np.uint8
    # 12 frames in the order of their numbers, not of their letters: 3, 5, 7, 9 are in the middle.
    assert [number_of(frame, 12) for frame in record.image] == pytest.approx([3, 5, 7, 9], abs=0.3)
    assert [one.key for one in clips] == clips.keys
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clips))[0].image, record.image)


def test_clips_drawn_by_a_seed(films):
    clips = open_clips(films, 16, Sampling(frames=4))
    starts = set()
    for seed in range(20):
        drawn, again = (clips.draw(0, np.random.default_rng(seed)).image for _ in range(2))
        np.testing.assert_array_equal(drawn, again)
        starts.add(round(number_of(drawn[0], 12)))
    assert len(starts) > 4
    assert starts <= set(range(9))


def test_too_few_frames_name_the_film(films):
    clips = open_clips(films, 16, Sampling(frames=4, stride=3))
    with pytest.raises(InputError, match="two has 7 frames, wanted 10"):
        clips[1]


def test_the_fingerprint_is_of_films_and_sampling(films, tmp_path):
    def fingerprint(**sampling):
        return open_clips(films, 16, Sampling(**{"frames": 4, **sampling})).fingerprint

    assert fingerprint() == fingerprint()
    assert len({fingerprint(), fingerprint(stride=2), fingerprint(fps=5.0), fingerprint(frames=3)}) == 4
    write_frames(tmp_path / "a", moving_square(4))
    before = open_clips(tmp_path, 16, Sampling(frames=2)).fingerprint
    (tmp_path / "a" / "3.png").unlink()
    assert open_clips(tmp_path, 16, Sampling(frames=2)).fingerprint != before


def test_video_files_beside_folders(films, tmp_path):
    pytest.importorskip("av", reason="PyAV, the extra video, is not installed")
    write_video(tmp_path / "running" / "a.mp4", moving_square(30), "libx264", rate=10)
    (tmp_path / "running" / "a.jpg").write_bytes(b"a thumbnail, no frame")
    write_frames(tmp_path / "walking" / "b", moving_square(6))
    clips = open_clips(tmp_path, 16, Sampling(frames=4, fps=5.0))
    assert clips.keys == ["running/a.mp4", "walking/b"]
    assert clips.labels == ["running", "walking"]
    numbers = [number_of(frame, 30) for frame in clips[0].image]
    assert np.diff(numbers) == pytest.approx([2, 2, 2], abs=0.6)
    assert numbers[0] == pytest.approx(11.5, abs=1.1)
    # A folder has no clock: its frames are taken one by one.
    assert [number_of(frame, 6) for frame in clips[1].image] == pytest.approx([1, 2, 3, 4], abs=0.3)
    alone = open_clips(tmp_path / "running" / "a.mp4", 16, Sampling(frames=4, fps=5.0))
    assert (alone.keys, alone.labels) == (["running/a.mp4"], ["running"])
    np.testing.assert_array_equal(alone[0].image, clips[0].image)
    assert len(open_clips(str(tmp_path / "*" / "*.mp4"), 16, Sampling(frames=4))) == 1
    np.testing.assert_array_equal(
        read_clip(tmp_path / "running" / "a.mp4", 16, Sampling(frames=4, fps=5.0)), clips[0].image
    )


def test_nothing_to_read(tmp_path):
    for path in (tmp_path, tmp_path / "none", tmp_path / "*.mp4"):
        with pytest.raises(InputError, match="no clips at"):
            open_clips(path, 16, Sampling(frames=2))
    (tmp_path / "a.txt").write_text("words")
    with pytest.raises(InputError, match="no film"):
        read_clip(tmp_path / "a.txt", 16, Sampling(frames=2))
    with pytest.raises(InputError, match="no frames in the folder"):
        read_clip(tmp_path, 16, Sampling(frames=2))


def test_a_damaged_frame_names_its_file(tmp_path):
    write_frames(tmp_path / "a", moving_square(4))
    (tmp_path / "a" / "1.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(InputError, match=r"1\.png"):
        read_clip(tmp_path / "a", 16, Sampling(frames=4))


def test_arrays_as_clips():
    clip = moving_square(4, (20, 30))
    assert to_clip(clip, 16, 4).shape == (4, 16, 16, 3)
    for wrong in (clip[:3], clip[0], clip[..., 0], [clip], "film.mp4"):
        with pytest.raises(InputError, match=r"wanted a uint8 array \(4, H, W, 3\)"):
            to_clip(wrong, 16, 4)
    with pytest.raises(InputError, match="uint8"):
        to_clip(clip.astype(np.float32), 16, 4)
