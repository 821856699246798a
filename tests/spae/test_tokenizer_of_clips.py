"""A tokenizer of clips: through Python, its bundle, and the command line."""

import json

import numpy as np
import pytest
from drawn import drawn
from flax import nnx
from moving import moving_square, write_frames, write_video
from PIL import Image

import spae
from spae.architecture import AutoencoderConfig
from spae.autoencoder import Autoencoder
from spae.cli import main
from spae.errors import InputError
from spae.guidance.clip.towers import ClipImageTower, ImageSizes
from spae.sources.clips import Sampling, read_clip
from spae.tokenizer import Tokenizer
from spae.vocabulary import View, Vocabulary

CONFIG = AutoencoderConfig(
    image_size=16,
    pyramid=((1, 1, 1), (1, 2, 2), (2, 4, 4), (2, 4, 4)),
    filters=8,
    multipliers=(1, 2),
    blocks=1,
    downsamplings=2,
    frames=4,
    temporal_downsamplings=1,
    meaning_layers=1,
    head_width=8,
)


def make(config: AutoencoderConfig, trunk=None, info=None) -> Tokenizer:
    embeddings = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    views = {"meaning": View.raw(), "appearance": View.raw()}
    words = tuple(a + b for a in "abc" for b in "klmnopqrst")
    width = trunk.width if trunk else 0
    model = drawn(lambda rngs: Autoencoder(config, 4, 4, width, rngs=rngs))
    return Tokenizer(config, Vocabulary(words, np.arange(30), embeddings, views, {}), model, trunk, info)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return make(CONFIG, info={"training": {"config": {"data": {"stride": 2, "fps": 5.0}}}})


@pytest.fixture(scope="module")
def bundle(tokenizer, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("bundles") / "clips"
    tokenizer.save(folder)
    return str(folder)


def test_clips_to_words_and_back(tokenizer):
    clips = np.stack([moving_square(4, (20, 30), seed) for seed in range(3)])
    pyramids = tokenizer.encode(clips)
    assert [ids.shape for ids in pyramids[0].ids] == list(CONFIG.shape.layers)
    assert tokenizer.encode(clips[1]) == pyramids[1]
    assert tokenizer.encode(list(clips)) == pyramids
    decoded = tokenizer.decode(pyramids, layers=3)
    assert decoded.shape == (3, 4, 16, 16, 3)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(tokenizer.decode(pyramids[1].text(3)), decoded[1])
    assert pyramids[0].json()[2]["grid"] == [2, 4, 4]
    pyramid, rivals = tokenizer.rivals(clips[0], 2)
    assert pyramid == pyramids[0]
    assert [one.shape for one in rivals] == [(*grid, 2) for grid in CONFIG.shape.layers]


@pytest.mark.parametrize(
    "wrong",
    [
        moving_square(5, (16, 16)),
        moving_square(1)[0],
        [moving_square(1)[0]],
        Image.new("RGB", (16, 16)),
        moving_square(4, (16, 16)).astype(np.float32),
    ],
    ids=["five frames", "image", "images", "PIL", "float"],
)
def test_what_is_no_clip_is_refused(tokenizer, wrong):
    with pytest.raises(InputError, match=r"uint8 array \((4, H, W, 3|0\.\.255)\)"):
        tokenizer.encode(wrong)


def test_a_tokenizer_of_images_refuses_clips():
    images = make(AutoencoderConfig(image_size=16, pyramid=(1, 4), filters=8, multipliers=(1, 2), blocks=1))
    assert len(images.encode(moving_square(4))) == 4  # a batch of images
    with pytest.raises(InputError, match="one of images"):
        images.encode(moving_square(4)[None])


def test_a_bundle_keeps_it(tokenizer, bundle):
    again = spae.load(bundle)
    assert again.config == tokenizer.config
    assert again.fingerprint == tokenizer.fingerprint
    clip = moving_square(4, (16, 16))
    assert again.encode(clip) == tokenizer.encode(clip)


def test_the_trunk_s_features_are_the_mean_over_frames():
    sizes = ImageSizes(
        width=8, inner=12, layers=1, heads=2, activation="gelu", image_size=16, patch=8, out=6,
        mean=(0.5, 0.4, 0.3), deviation=(0.2, 0.3, 0.4),
    )  # fmt: skip
    trunk = drawn(lambda rngs: ClipImageTower(sizes, rngs=rngs), 1)
    fields = {**vars(CONFIG), "trunk": "clip"}
    tokenizer = make(AutoencoderConfig(**fields), trunk)
    clips = np.stack([moving_square(4, (16, 16), seed) for seed in range(2)])
    look = nnx.jit(lambda trunk, images: trunk(images))
    by_frame = [np.asarray(look(trunk, clip / np.float32(255))) for clip in clips]
    seen = tokenizer._compiled.look(clips)
    np.testing.assert_allclose(seen, [f.mean(0) for f in by_frame], atol=1e-5)
    assert len(tokenizer.encode(clips)) == 2


def run(capsys, *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def fails(capsys, *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("spae: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_a_folder_of_frames_through_the_command_line(tokenizer, bundle, tmp_path, capsys):
    frames = write_frames(tmp_path / "frames", moving_square(9, (20, 30)))
    # Read as the tokenizer was trained to read: every second frame, from the middle.
    wanted = tokenizer.encode(read_clip(frames, 16, Sampling(frames=4, stride=2)))
    text = run(capsys, "encode", frames, "--bundle", bundle)
    assert text.split() == wanted.text().split()
    record = json.loads(run(capsys, "encode", frames, "--bundle", bundle, "--json"))
    assert [layer["grid"] for layer in record["layers"]] == [[1, 1, 1], [1, 2, 2], [2, 4, 4], [2, 4, 4]]

    (tmp_path / "words.json").write_text(json.dumps(record))
    run(capsys, "decode", tmp_path / "words.json", "-o", tmp_path / "out", "--bundle", bundle)
    out = [np.array(Image.open(path)) for path in sorted((tmp_path / "out").iterdir())]
    np.testing.assert_array_equal(np.stack(out), tokenizer.decode(wanted))
    run(capsys, "decode", text, "-o", tmp_path / "out.gif", "--bundle", bundle)
    with Image.open(tmp_path / "out.gif") as gif:
        assert (gif.n_frames, gif.size, gif.info["duration"]) == (
            4,
            (16, 16),
            200,
        )  # five a second, as trained


def test_a_film_through_the_command_line(tokenizer, bundle, tmp_path, capsys):
    pytest.importorskip("av", reason="PyAV, the extra video, is not installed")
    film = write_video(tmp_path / "a.mp4", moving_square(20), "libx264", rate=10)
    wanted = tokenizer.encode(read_clip(film, 16, Sampling(frames=4, fps=5.0)))
    text = run(capsys, "encode", film, "--bundle", bundle)
    assert text.split() == wanted.text().split()
    run(capsys, "decode", text, "-o", tmp_path / "out.mp4", "--bundle", bundle)
    assert read_clip(tmp_path / "out.mp4", 16, Sampling(frames=4)).shape == (4, 16, 16, 3)


def test_what_does_not_fit_the_bundle_is_one_line(bundle, tmp_path, capsys):
    image = tmp_path / "a.png"
    Image.new("RGB", (16, 16)).save(image)
    frames = write_frames(tmp_path / "frames", moving_square(9, (20, 30)))
    assert "is no film" in fails(capsys, "encode", image, "--bundle", bundle)
    assert "of clips" in fails(capsys, "decode", "ak", "-o", tmp_path / "a.jpg", "--bundle", bundle)
    assert "one of clips" in fails(capsys, "draw", image, "-o", tmp_path / "b.png", "--bundle", bundle)
    assert "one of clips" in fails(capsys, "demo", "--output", tmp_path / "demo", "--bundle", bundle)
    images = tmp_path / "images"
    make(AutoencoderConfig(image_size=16, pyramid=(1, 4), filters=8, multipliers=(1, 2), blocks=1)).save(
        images
    )
    assert "give a bundle of clips" in fails(capsys, "encode", frames, "--bundle", images)
    assert "of images" in fails(capsys, "decode", "ak", "-o", tmp_path / "out.gif", "--bundle", images)
    assert not (tmp_path / "out.gif").exists()


def test_the_service_refuses_a_bundle_of_clips(bundle):
    fastapi = pytest.importorskip("fastapi.testclient", reason="the extra serve is not installed")
    from spae.service.app import create_app
    from spae.service.settings import Settings

    with (
        pytest.raises(InputError, match="the service works on images"),
        fastapi.TestClient(create_app(Settings(bundle=bundle, no_auth=True))),
    ):
        pass
