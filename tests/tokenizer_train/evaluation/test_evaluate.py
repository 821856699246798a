"""`spae-train eval` on a tokenizer whose words are levels of brightness: every figure by another way."""

import dataclasses
import importlib.util
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import scipy.special
from flax import nnx
from PIL import Image

import spae
from spae.errors import InputError
from spae.guidance import efficientnet
from spae.guidance.clip import Clip
from spae.guidance.efficientnet import IMAGE_SIZE
from spae.guidance.resize import resize_square
from spae.images import to_array, to_clip, to_float
from spae.metrics import psnr
from spae.metrics.lpips import Lpips
from spae.pyramid import Pyramid, PyramidShape
from spae.sources import open_source
from spae.sources.clips import Sampling, open_clips
from spae.vocabulary import View, Vocabulary
from tokenizer_train.cli import main
from tokenizer_train.evaluation import set_measures
from tokenizer_train.evaluation.evaluate import Options, _opened, evaluate, run
from tokenizer_train.evaluation.tables import comparison

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
SIDE = 32


def load_maker(name: str):
    spec = importlib.util.spec_from_file_location(name, GOLDEN / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Brightness:
    """Each layer holds the brightness of its places; the last one is what is decoded."""

    shape = PyramidShape((1, 2, 8))
    image_size = sight = SIDE
    frames = 1

    def __init__(self, codebook: str = "frozen") -> None:
        self.config = SimpleNamespace(codebook=codebook)
        views = {"meaning": View.raw(), "appearance": View.raw()}
        words = ("black", "coal", "dusk", "grey", "mist", "pale", "snow", "white")
        self.vocabulary = Vocabulary(
            words, np.arange(8), np.eye(8, dtype=np.float32), views, {"model": "none"}
        )

    def square(self, image):
        return to_array(image, SIDE)

    def encode(self, images):
        pyramids = []
        for image in images:
            grey = Image.fromarray(image).convert("L")
            grids = [np.asarray(grey.resize(grid, Image.Resampling.BOX)) // 32 for grid in self.shape.layers]
            pyramids.append(Pyramid(tuple(grids), self.shape, self.vocabulary))
        return pyramids

    def decode(self, pyramids, layers=None):
        images = []
        for pyramid in pyramids:
            grid = Image.fromarray((pyramid.ids[(layers or 0) - 1] * 32 + 16).astype(np.uint8))
            images.append(np.asarray(grid.resize((SIDE, SIDE), Image.Resampling.NEAREST).convert("RGB")))
        return np.stack(images)


class Films(Brightness):
    """The same of each frame of clips; the first layer is of the first frame."""

    shape = PyramidShape(((1, 1, 1), (3, 4, 4)))
    frames = 3
    square = staticmethod(partial(to_clip, size=SIDE, frames=3))
    info: ClassVar = {"training": {"config": {"data": {"stride": 2, "fps": None}}}}

    def encode(self, images):
        pyramids = []
        for clip in images:
            frames = [Image.fromarray(frame).convert("L") for frame in clip]
            grids = [
                np.stack(
                    [np.asarray(frame.resize((w, h), Image.Resampling.BOX)) // 32 for frame in frames[:t]]
                )
                for t, h, w in self.shape.layers
            ]
            pyramids.append(Pyramid(tuple(grids), self.shape, self.vocabulary))
        return pyramids

    def decode(self, pyramids, layers=None):
        clips = []
        for pyramid in pyramids:
            thw = (pyramid.ids[(layers or 0) - 1] * 32 + 16).astype(np.uint8)
            frames = [Image.fromarray(hw).resize((SIDE, SIDE), Image.Resampling.NEAREST) for hw in thw]
            frames = (frames * 3)[:3]
            clips.append(np.stack([np.asarray(frame.convert("RGB")) for frame in frames]))
        return np.stack(clips)


class Colours(nnx.Module):
    """In the place of EfficientNet-Lite0, and of the Inception network: features and logits of coarse colours.

    Those networks have tests of their own, and their covariances take seconds.
    """

    def features(self, images_bhwc):
        side = images_bhwc.shape[1] // 2
        assert images_bhwc.shape[1:] in ((SIDE, SIDE, 3), (IMAGE_SIZE, IMAGE_SIZE, 3))
        return images_bhwc.reshape(-1, 2, side, 2, side, 3).mean(axis=(2, 4)).reshape(-1, 12) * 10

    def feature_map(self, images_bhwc):
        return self.features(images_bhwc)[:, None, None]

    def __call__(self, images_bhwc):
        assert images_bhwc.dtype == jnp.uint8
        features = self.features(images_bhwc.astype(jnp.float32) / 255)
        return features, features[:, :5]


@pytest.fixture
def brightness(monkeypatch, hash_guidance, tmp_path):
    tokenizers = {"words": Brightness(), "codes": Brightness("learned"), "films": Films()}
    monkeypatch.setattr(spae, "load", lambda name: tokenizers[name])
    monkeypatch.setattr("tokenizer_train.evaluation.evaluate.Conse", lambda: hash_guidance)
    monkeypatch.setattr(
        "tokenizer_train.evaluation.set_measures.efficientnet.packaged", lambda: (Colours(), "sha")
    )
    monkeypatch.setattr("tokenizer_train.evaluation.set_measures._WIDTHS", {"fid": 12, "frechet_lite0": 12})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tokenizers["words"]


def frechet(first_nd: np.ndarray, second_nd: np.ndarray) -> float:
    """By singular values, from the vectors themselves."""
    first_nd, second_nd = np.asarray(first_nd, float), np.asarray(second_nd, float)
    a, b = ((x - x.mean(0)).T / (len(x) - 1) ** 0.5 for x in (first_nd, second_nd))
    distance = ((first_nd.mean(0) - second_nd.mean(0)) ** 2).sum() + (a**2).sum() + (b**2).sum()
    return distance - 2 * np.linalg.svd(a.T @ b, compute_uv=False).sum()


def test_every_figure(brightness, image_folder, tmp_path, capsys, hash_guidance, monkeypatch) -> None:
    monkeypatch.setattr("tokenizer_train.evaluation.set_measures.inception.load", lambda file: Colours())
    (tmp_path / "inception.pth").write_bytes(b"weights")
    network, heads = load_maker("make_lpips").weights("alex")
    safetensors.numpy.save_file(network, tmp_path / "alexnet-owt-7be5be79.safetensors")
    safetensors.numpy.save_file(heads, tmp_path / "alex.safetensors")
    arguments = [
        "eval",
        "words",
        str(image_folder),
        "--limit",
        "11",
        "--batch-size",
        "8",
        "--lpips",
        str(tmp_path),
    ]
    arguments += [
        "--inception",
        str(tmp_path / "inception.pth"),
        "--clip",
        f"clip:{GOLDEN / 'clip_openai'}",
    ]
    assert main([*arguments, "--skip", "stlpips", "few-shot", "naming", "mosaics", "codecs", "--json"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""  # no progress bars where there is no terminal
    result = json.loads(shown.out)
    assert set(result["not_measured"]) == {"stlpips", "few_shot", "naming", "mosaics", "codecs"}
    files = {"inception.pth", "alexnet-owt-7be5be79.safetensors", "alex.safetensors"}
    assert set(result["weights"]) == files

    source = open_source(image_folder)
    order = np.random.default_rng(0).permutation(len(source))[:11]
    images = np.stack([to_array(source[int(i)].image, SIDE) for i in order])
    pyramids = brightness.encode(images)
    decoded = [brightness.decode(pyramids, n) for n in (1, 2, 3)]
    features, logits = Colours()(jnp.asarray(images))
    distance = partial(nnx.jit(lambda lpips, *images: lpips(*images)), Lpips("alex", network, heads))
    guidances = {"hash": hash_guidance, "clip": Clip(GOLDEN / "clip_openai")}
    words = {
        name: np.stack(
            [
                np.mean(guidance.texts([t.format(word) for t in guidance.templates]), axis=0)
                for word in brightness.vocabulary.words
            ]
        )
        for name, guidance in guidances.items()
    }
    for n, (prefix, reconstructed) in enumerate(zip(result["prefixes"], decoded, strict=True), start=1):
        expected = frechet(features, Colours()(jnp.asarray(reconstructed))[0])
        assert prefix["fid"] == pytest.approx(expected, rel=1e-4)
        # The second network sees them enlarged, which changes means of quarters by little.
        assert prefix["frechet_lite0"] == pytest.approx(expected, rel=0.05)
        by_hand = [
            float(distance(to_float(a)[None], to_float(b)[None])[0])
            for a, b in zip(images, reconstructed, strict=True)
        ]
        assert prefix["lpips_alex"] == pytest.approx(np.mean(by_hand), rel=1e-4)
        assert prefix["inception_score"] >= 1
        for name, guidance in guidances.items():
            raw_nv = np.asarray(guidance.images(to_float(images))) @ words[name].T
            low, high = raw_nv.min(axis=1, keepdims=True), raw_nv.max(axis=1, keepdims=True)
            relative_nv = (raw_nv - low) / (high - low)
            for key, score_nv in ((f"{name}_score", raw_nv), (f"{name}_relative", relative_nv)):
                ids = [np.concatenate([p.ids[l].ravel() for l in range(n)]) for p in pyramids]
                expected = np.mean([score_v[k].mean() for score_v, k in zip(score_nv, ids, strict=True)])
                assert prefix[key] == pytest.approx(expected, abs=1e-5)
    every = np.concatenate([ids.ravel() for p in pyramids for ids in p.ids])
    assert result["all_layers"]["distinct"] == len(set(every.tolist()))
    # Ten splits of eleven images: nine of one image each, whose score is 1, and one of two.
    last = np.random.RandomState(2020).permutation(11)[-2:]
    p_2c = scipy.special.softmax(np.asarray(logits, float)[last], axis=1)
    score = np.exp(scipy.special.rel_entr(p_2c, p_2c.mean(axis=0)).sum(axis=1).mean())
    assert result["originals"]["inception_score"] == pytest.approx((9 + score) / 10, rel=1e-6)


def test_what_is_not_measured_is_said(brightness, image_folder, capsys) -> None:
    arguments = [
        "eval",
        "words",
        str(image_folder),
        "--codec-images",
        "3",
        "--episodes",
        "20",
        "--skip",
        "stlpips",
    ]
    assert main([*arguments, "frechet"]) == 0
    shown = capsys.readouterr().out
    assert "represented by" in shown
    (line,) = [line for line in shown.splitlines() if line.startswith("Not measured")]
    for reason in (
        "STLPIPS (left out by --skip stlpips)",
        "LPIPS (needs --lpips FOLDER",
        "FID (needs --inception FILE",
        "Inception Score (needs --inception",
        "Frechet Lite0 (left out by --skip frechet)",
        "CLIP score (needs --clip PATH",
    ):
        assert reason in line
    assert "few-shot" not in line
    assert main([*arguments, "few-shot", "--inception", "nowhere.pth"]) == 1
    assert "pt_inception-2015-12-05" in capsys.readouterr().err
    assert main([*arguments, "few-shot", "--lpips", str(image_folder)]) == 1
    assert "vgg16-397923af.pth" in capsys.readouterr().err


def test_few_images_and_labels_are_kept(brightness, image_folder, monkeypatch) -> None:
    """The few-shot check looks at the first so many of the images and their labels; else a label is seen only where its
    image is read."""
    monkeypatch.setattr("tokenizer_train.evaluation.evaluate.LABELLED_IMAGES", 20)
    monkeypatch.setattr("tokenizer_train.evaluation.classes.SETTINGS", ((2, 1), (3, 2)))
    source = open_source(image_folder)
    asked: list[int] = []
    label = type(source).label
    monkeypatch.setattr(type(source), "label", lambda self, index: asked.append(index) or label(self, index))
    options = Options(
        bundle="words", data="here", episodes=20, codec_images=2, batch_size=4, skip=("stlpips", "frechet")
    )
    result = evaluate(brightness, source, options)
    order = np.random.default_rng(0).permutation(30)
    in_mosaics = 4 * result["mosaics"]["mosaics"]
    assert asked[:20] == order[:20].tolist()
    assert sorted(asked[20:50]) == list(range(30))
    assert set(asked[50:]) <= set(order[:20].tolist())
    assert len(set(asked[50:])) == len(asked[50:]) == in_mosaics
    assert [setting["images"] for setting in result["few_shot"]] == [20] * 2
    assert result["images"] == 30
    assert result["prefixes"][2]["jpeg"]["images"] == 2

    # Its figures are those of the first images alone, but for what is corrected by the mean over all.
    first = evaluate(brightness, source, dataclasses.replace(options, limit=20))
    for setting, alone in zip(result["few_shot"], first["few_shot"], strict=True):
        for name, accuracy in setting["accuracy"].items():
            assert accuracy == alone["accuracy"][name] or "corrected" in name

    asked.clear()
    skip = ("stlpips", "frechet", "few-shot", "naming", "mosaics", "codecs")
    evaluate(brightness, source, dataclasses.replace(options, skip=skip))
    assert sorted(asked) == list(range(30))


def test_the_images_of_a_limit(brightness, image_folder) -> None:
    source = open_source(image_folder)
    skip = ("stlpips", "frechet", "few-shot", "naming", "mosaics", "codecs", "guidance")

    def psnr_of(limit: int | None) -> float:
        options = Options(bundle="words", data="here", limit=limit, batch_size=8, skip=skip)
        return evaluate(brightness, source, options)["prefixes"][2]["psnr"]

    order = np.random.default_rng(0).permutation(30)
    images = np.stack([to_array(source[int(i)].image, SIDE) for i in order])
    each = psnr(images, brightness.decode(brightness.encode(images), 3))
    for limit in (1, 7, 30):
        assert psnr_of(limit) == pytest.approx(each[:limit].mean(), rel=1e-12)
    assert psnr_of(None) == psnr_of(31) == psnr_of(30)


def test_several_bundles_in_one_table(brightness, image_folder, tmp_path, capsys) -> None:
    output = tmp_path / "all.json"
    arguments = ["eval", "words", str(image_folder), "--compare", "codes", "--output", str(output)]
    assert (
        main([*arguments, "--limit", "4", "--skip", "stlpips", "few-shot", "naming", "mosaics", "codecs"])
        == 0
    )
    *_, titles, _, first, second = capsys.readouterr().out.strip().splitlines()
    assert titles.startswith("| bundle | side | words | bits | PSNR dB | SSIM | Frechet Lite0 | percentile |")
    assert first.startswith("| words | 32 | 69 | 207 |")
    assert second.startswith("| codes | 32 | 69 | 207 |")
    assert second.split("|")[8] == " – "
    with_words, codes = json.loads(output.read_text())
    assert with_words["prefixes"][2]["psnr"] == codes["prefixes"][2]["psnr"]
    assert "percentile" in with_words["prefixes"][0]
    assert "percentile" not in codes["prefixes"][0]
    assert "no words" in codes["not_measured"]["conse_score"]
    assert comparison([codes]).count("–") == 0


def test_what_cannot_be_printed_is_in_the_file_all_the_same(
    brightness, image_folder, tmp_path, monkeypatch
) -> None:
    def gone(*_: object) -> None:
        raise BrokenPipeError

    output = tmp_path / "one.json"
    monkeypatch.setattr("builtins.print", gone)
    skip = ("stlpips", "frechet", "guidance", "few-shot", "naming", "mosaics", "codecs")
    options = Options(bundle="words", data=str(image_folder), output=str(output), limit=1, skip=skip)
    with pytest.raises(BrokenPipeError):
        run(options)
    assert json.loads(output.read_text())["prefixes"]


def test_a_file_that_cannot_be_written_is_said_first(image_folder, tmp_path, capsys) -> None:
    output = tmp_path / "none" / "one.json"
    assert main(["eval", "words", str(image_folder), "--output", str(output)]) == 1
    assert f"there is no folder {output.parent}\n" in capsys.readouterr().err
    assert main(["eval", "words", str(image_folder), "--output", str(tmp_path)]) == 1
    assert f"cannot write {tmp_path}: it is a folder\n" in capsys.readouterr().err


def test_one_image_has_no_distribution(brightness, image_folder, capsys) -> None:
    arguments = [
        "eval",
        "words",
        str(image_folder),
        "--limit",
        "1",
        "--skip",
        "stlpips",
        "few-shot",
        "naming",
        "mosaics",
        "codecs",
    ]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["not_measured"]["frechet_lite0"] == "needs at least two images"
    assert "frechet_lite0" not in result["prefixes"][0]
    with pytest.raises(SystemExit):
        main([*arguments, "--skip", "colours"])


def test_json_has_no_infinity(brightness, tmp_path, capsys) -> None:
    (tmp_path / "grey").mkdir()
    for number in range(2):
        Image.new("RGB", (40, 40), (16, 16, 16)).save(
            tmp_path / "grey" / f"{number}.png"
        )  # comes back exactly
    arguments = [
        "eval",
        "words",
        str(tmp_path / "grey"),
        "--skip",
        "stlpips",
        "few-shot",
        "naming",
        "mosaics",
        "codecs",
        "frechet",
    ]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [prefix["psnr"] for prefix in result["prefixes"]] == [None] * 3
    assert [prefix["ssim"] for prefix in result["prefixes"]] == pytest.approx([1] * 3)
    assert main(arguments) == 0
    assert "| inf |" in capsys.readouterr().out


def test_how_clips_are_read(brightness, image_folder) -> None:
    films, data = Films(), str(image_folder)
    for given, expected in [
        ({}, Sampling(frames=3, stride=2)),  # as it was trained
        ({"stride": 1}, Sampling(frames=3)),
        ({"fps": 5.0}, Sampling(frames=3, fps=5.0)),
    ]:
        assert _opened(films, Options(bundle="films", data=data, **given)).sampling == expected
    with pytest.raises(InputError, match="--split is of images"):
        _opened(films, Options(bundle="films", data=data, split="test"))
    with pytest.raises(InputError, match="--fps are of clips"):
        _opened(brightness, Options(bundle="words", data=data, stride=1))


def test_clips(brightness, tmp_path, capsys, hash_guidance) -> None:
    generator = np.random.default_rng(0)
    for number in range(5):
        folder = tmp_path / "films" / f"class{number % 2}" / f"film{number}"
        folder.mkdir(parents=True)
        for frame in range(6):
            pixels = np.clip(generator.normal(40 * number + 10 * frame, 30, (36, 40, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{frame}.png")
    arguments = ["eval", "films", str(tmp_path / "films"), "--batch-size", "4", "--json"]
    assert main([*arguments, "--skip", "stlpips", "few-shot"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["images"], result["frames"]) == (5, 3)
    assert "clips" in result["not_measured"]["codecs"]

    films = Films()
    source = open_clips(tmp_path / "films", SIDE, Sampling(frames=3, stride=2))
    clips = np.stack([source[i].image for i in range(5)])
    pyramids = films.encode(clips)
    for n, prefix in enumerate(result["prefixes"], start=1):
        decoded = films.decode(pyramids, n)
        assert prefix["words"] == (1, 49)[n - 1]
        per_frame = psnr(clips, decoded)
        assert per_frame.shape == (5, 3)
        assert prefix["psnr"] == pytest.approx(per_frame.mean())
        frames = [
            Colours().features(resize_square(x.reshape(15, SIDE, SIDE, 3) / 255, IMAGE_SIZE))
            for x in (clips, decoded)
        ]
        assert prefix["frechet_lite0"] == pytest.approx(frechet(*frames), rel=1e-4)
    vectors = np.asarray(hash_guidance.images(to_float(clips.reshape(15, SIDE, SIDE, 3)))).reshape(5, 3, 12)
    raw_nv = vectors.mean(axis=1) @ hash_guidance.texts(list(films.vocabulary.words)).T
    expected = np.mean(
        [row[pyramid.ids[0].ravel()].mean() for row, pyramid in zip(raw_nv, pyramids, strict=True)]
    )
    assert result["prefixes"][0]["hash_score"] == pytest.approx(expected, abs=1e-6)


def test_the_frechet_distance_sees_what_the_packaged_classifier_pools():
    try:
        network, _ = efficientnet.packaged()
    except InputError as error:
        pytest.skip(str(error))
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    seen, logits = set_measures._lite0()(images)
    assert logits is None
    square = resize_square(jnp.asarray(images, jnp.float32) / 255, IMAGE_SIZE)
    np.testing.assert_allclose(
        seen, nnx.jit(lambda network, x: network.feature_map(x))(network, square).mean((1, 2)), atol=1e-4
    )


def test_clips_and_images_are_in_no_table_together(image_folder, monkeypatch, capsys) -> None:
    frames = {"words": 1, "clips": 4}
    monkeypatch.setattr("spae.load", lambda name: SimpleNamespace(frames=frames[name]))
    assert main(["eval", "words", str(image_folder), "--compare", "clips"]) == 1
    assert "clips of as many frames; got words: 1, clips: 4" in capsys.readouterr().err
    with pytest.raises(InputError, match="--seed must be at least 0"):
        Options(bundle="words", data="here", seed=-1)
