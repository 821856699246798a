"""Films: the right frames by number out of every container, upright; damage and tricks are one clear line."""

import subprocess
import sys

import numpy as np
import pytest
from moving import moving_square, number_of, write_video
from PIL import Image

from spae.errors import InputError
from spae.sources import films
from spae.sources.films import Film, check_output, write_film

av = pytest.importorskip("av", reason="PyAV, the extra video, is not installed")

COUNT = 40
KINDS = [
    ("a.mp4", "libx264", {}),  # B-frames: packets are not in the order of showing
    ("a.webm", "libvpx-vp9", {"g": "12"}),
    ("a.mov", "mpeg4", {"bf": "2"}),  # seeks to the keyframe after the one asked for
    ("a.avi", "mpeg4", {"bf": "2"}),
    ("b.avi", "libx264", {}),  # times in the wrong order
    ("a.mpg", "mpeg2video", {}),  # times that do not start at 0
    ("a.mkv", "ffv1", {}),
    ("a.gif", "gif", {}),  # cannot seek
]


@pytest.mark.parametrize(("name", "codec", "options"), KINDS, ids=[f"{n} {c}" for n, c, _ in KINDS])
def test_frames_by_number(tmp_path, name, codec, options):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg writes no {codec}")
    film = Film(write_video(tmp_path / name, moving_square(COUNT), codec, **options))
    assert len(film) == COUNT
    np.testing.assert_allclose(film.times_n, np.arange(COUNT) / 10, atol=1e-3)
    wanted = [25, 7, 39, 0, 26, 25]
    frames = film.frames(wanted)
    assert {frame.shape for frame in frames} == {(48, 64, 3)}
    tolerance = 4.0 if codec == "gif" else 0.6  # 8 levels of red
    assert [number_of(frame, COUNT) for frame in frames] == pytest.approx(wanted, abs=tolerance)


def test_a_film_of_a_camera_held_upright(tmp_path):
    clip = moving_square(4)
    path = write_video(tmp_path / "a.mp4", clip, "libx264")
    data = bytearray(path.read_bytes())
    # The matrix of the track header: 90 degrees clockwise, as phones write it (ISO 14496-12, 8.3.2).
    matrix = data.index(b"tkhd") + 4 + 4 + 20 + 16
    rows = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    data[matrix : matrix + 36] = b"".join(row.to_bytes(4, "big", signed=True) for row in rows)
    path.write_bytes(data)
    frame = Film(path).frames([1])[0]
    assert frame.shape == (64, 48, 3)
    upright = np.rot90(clip[1], -1)
    assert np.abs(frame.astype(int) - upright).mean() < 4
    assert np.abs(frame.astype(int) - np.rot90(clip[1])).mean() > 8


def refused(path) -> str:
    def read():
        film = Film(path)
        film.frames(range(len(film)))

    with pytest.raises(InputError) as caught:
        read()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_whole_film_is_one_line(tmp_path):
    good = write_video(tmp_path / "good.mp4", moving_square(8), "libx264").read_bytes()
    for content in (b"", b"hello " * 100, good[: len(good) // 2]):
        (tmp_path / "bad.mp4").write_bytes(content)
        assert "damaged" in refused(tmp_path / "bad.mp4")
    assert "No such file" in refused(tmp_path / "none.mp4")


def test_a_title_in_another_encoding_is_no_damage(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_square(4), "libx264")
    data = path.read_bytes()
    name = data.index(b"VideoHandler")  # a text of the track
    path.write_bytes(data[:name] + b"Vid\xe9oHandler" + data[name + 12 :])
    assert len(Film(path).frames([0, 3])) == 2


def test_a_codec_that_nobody_knows_is_one_line(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving_square(4), "libx264")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz9"))
    assert "of a codec that is not known" in refused(path)


def test_a_playlist_is_not_followed(tmp_path):
    good = write_video(tmp_path / "good.mp4", moving_square(8), "libx264")
    (tmp_path / "list.mp4").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{good}\n#EXT-X-ENDLIST\n"
    )
    assert "no video file" in refused(tmp_path / "list.mp4")


def test_sound_alone_is_refused(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert "has no video in it" in refused(tmp_path / "sound.mp4")


@pytest.mark.parametrize(
    ("limit", "message"), [("MAX_BYTES", "bytes"), ("MAX_PIXELS", "pixels"), ("MAX_FRAMES", "7")]
)
def test_limits(tmp_path, monkeypatch, limit, message):
    path = write_video(tmp_path / "a.mp4", moving_square(8), "libx264")
    monkeypatch.setattr(films, limit, 7)
    assert message in refused(path)


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(films, "find_spec", lambda name: None)
    assert "pip install 'spae[video]'" in refused(tmp_path / "a.mp4")
    with pytest.raises(InputError, match=r"spae\[video\]"):
        check_output(tmp_path / "a.mp4")


def test_importing_spae_does_not_import_pyav():
    code = "import sys, spae, spae.sources.clips, spae.sources.films; assert 'av' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["out.gif", "out.mp4"])
def test_a_written_film_reads_back(tmp_path, name):
    clip = moving_square(6, (32, 32))
    write_film(tmp_path / name, clip, 5.0)
    film = Film(tmp_path / name)
    np.testing.assert_allclose(film.times_n, np.arange(6) / 5, atol=1e-3)
    back = np.stack(film.frames(range(6)))
    assert np.abs(back.astype(int) - clip).mean() < 8
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_written_folder_is_exact(tmp_path):
    clip = moving_square(6, (32, 32))
    write_film(tmp_path / "out", clip, 5.0)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"000{i}.png" for i in range(1, 7)]
    np.testing.assert_array_equal(np.stack([np.array(Image.open(tmp_path / "out" / n)) for n in names]), clip)
    with pytest.raises(InputError, match="a new or an empty folder"):
        write_film(tmp_path / "out", clip, 5.0)


@pytest.mark.parametrize(
    ("name", "message"),
    [("out.wav", r"\.gif or \.mp4"), ("nowhere/out.gif", "no folder"), ("odd.mp4", "even sides")],
)
def test_outputs_that_cannot_be(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        write_film(tmp_path / name, moving_square(2, (33, 33)), 5.0)
    assert not list(tmp_path.iterdir())
