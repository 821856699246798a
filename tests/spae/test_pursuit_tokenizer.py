"""A tokenizer whose words of meaning are pursued, through the public doors: images of any size, bundles, bad input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import drawn
from flax import nnx
from PIL import Image

from spae import bundle
from spae.architecture import AutoencoderConfig
from spae.autoencoder import Autoencoder
from spae.errors import BundleError, InputError
from spae.guidance.clip.towers import ClipImageTower, ImageSizes
from spae.images import to_array
from spae.pursuit import Pursuit, Sizes
from spae.quantize import streaming_average
from spae.tokenizer import Tokenizer
from spae.vocabulary import View, Vocabulary
from spae.weights.parameters import restore

CONFIG = AutoencoderConfig(
    image_size=8,
    pyramid=(1, 2, 4, 4),
    filters=4,
    multipliers=(1,),
    blocks=1,
    downsamplings=0,
    patch=2,
    block="depthwise",
    skip=True,
    codebook="mapped",
    latents=3,
    meaning_layers=2,
    meaning="pursuit",
    pools=(1, 4),
    trunk="clip",
)
TRUNK = ImageSizes(
    width=8,
    inner=8,
    layers=1,
    heads=1,
    activation="gelu",
    image_size=16,
    patch=8,
    out=5,
    mean=(0.5, 0.5, 0.5),
    deviation=(0.25, 0.25, 0.25),
)
WORDS = 30


def pursuit(config: AutoencoderConfig, words: int = 24) -> Pursuit:
    rng = np.random.default_rng(1)
    arrays = {
        "ids": np.sort(rng.permutation(WORDS)[:words]).astype(np.int32),
        "families": (np.arange(words) // 2).astype(np.int32),
        "vectors": rng.normal(size=(words, 5)).astype(np.float32),
        "image_mean": rng.normal(scale=0.1, size=5).astype(np.float32),
        "colours": rng.normal(size=(words, 3)).astype(np.float32),
        "patch_kernel": rng.normal(size=(12, 3)).astype(np.float32),
        "patch_bias": rng.normal(size=3).astype(np.float32),
    }
    return restore(lambda rngs: Pursuit.of(config, Sizes(words, 5, 12, 3)), arrays, "")


def tokenizer_of(config: AutoencoderConfig) -> Tokenizer:
    embeddings = np.random.default_rng(0).normal(size=(WORDS, 8)).astype(np.float32)
    views = {"meaning": View.raw(), "appearance": View.whitened(embeddings, 4)}
    words = tuple(f"{a}{b}" for a in "abcde" for b in "klmnop")
    model = drawn(lambda rngs: Autoencoder(config, 4, 8, rngs=rngs))
    vocabulary = Vocabulary(words, np.arange(WORDS), embeddings, views, {})
    trunk = drawn(lambda rngs: ClipImageTower(TRUNK, rngs=rngs), 1)
    return Tokenizer(config, vocabulary, model, trunk, pursuit=pursuit(config))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tokenizer_of(CONFIG)


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Patches of colour, so that regions differ."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return np.array(Image.fromarray(small).resize((width, height)))


PICTURES = {
    "one pixel wide": picture(1, 30),
    "smaller": picture(5, 6, 1),
    "as large": picture(8, 8, 2),
    "between": picture(12, 11, 3),
    "as large as the trunk's": picture(16, 16, 4),
    "larger": picture(40, 21, 5),
    "grey": Image.fromarray(picture(20, 20, 6)).convert("L"),
    "alpha": Image.merge("RGBA", [*Image.fromarray(picture(9, 30, 7)).split(), Image.new("L", (9, 30), 90)]),
}


def test_batches_of_mixed_sizes_give_what_single_calls_give_in_order(tokenizer):
    """The trunk sees 16 pixels where they are there, the encoder 8."""
    assert (tokenizer.image_size, tokenizer.sight) == (8, 16)
    images = list(PICTURES.values())
    together = tokenizer.encode(images)
    assert [tokenizer.square(one).shape[0] for one in images] == [8, 8, 8, 16, 16, 16, 16, 16]
    for name, image, pyramid in zip(PICTURES, images, together, strict=True):
        assert pyramid == tokenizer.encode(image), name
    assert len({str(pyramid.ids) for pyramid in together}) > 5
    backwards = tokenizer.encode(images[::-1])
    assert all(one == other for one, other in zip(backwards, together[::-1], strict=True))


def test_words_of_a_region(tokenizer):
    """A box in the central square is one of that square; elsewhere the whole image is looked at, padded."""
    wide = picture(40, 20)
    words = tokenizer.region_words(wide, (12, 3, 8, 9), 4)
    assert len(set(words)) == 4
    assert set(words) <= set(tokenizer.vocabulary.words)
    assert words[:2] == tokenizer.region_words(wide[:, 10:30], (2, 3, 8, 9), 2)
    mask = np.zeros((20, 40), bool)
    mask[3:12, 12:20] = True
    assert words == tokenizer.region_words(Image.fromarray(wide), mask, 4)
    padded = np.full((40, 40, 3), np.rint(wide.mean((0, 1))), np.uint8)
    padded[10:30] = wide
    aside = tokenizer.region_words(wide, (1, 3, 8, 9), 4)
    assert aside == tokenizer.region_words(padded, (1, 13, 8, 9), 4)
    assert aside != words
    for count in (0, 13):
        with pytest.raises(InputError, match="wanted 1 to 12 words"):
            tokenizer.region_words(wide, (1, 3, 8, 9), count)


def test_what_each_part_sees(tokenizer):
    """The trunk the square as it is, the encoder its small copy; of a small square both see the same."""
    config, vocabulary = tokenizer.config, tokenizer.vocabulary
    model = nnx.merge(tokenizer._graph, tokenizer.parameters)
    choose = jax.jit(lambda images: tokenizer.pursuit(tokenizer.trunk, images))
    encode = jax.jit(lambda images, words: model.encode(images, None, vocabulary.codebook("meaning"), words))
    codebook = np.asarray(model.codebook(vocabulary.codebook("appearance")), np.float64)
    for image, side in ((PICTURES["larger"], 16), (PICTURES["as large"], 8), (PICTURES["smaller"], 8)):
        square = to_array(image, side)
        words = choose(jnp.asarray(square[None] / 255, jnp.float32))
        pyramid = tokenizer.encode(image)
        np.testing.assert_array_equal(np.concatenate([ids.ravel() for ids in pyramid.ids[:2]]), words[0])
        small = jnp.asarray(to_array(square, 8)[None] / 255, jnp.float32)
        z_bhwc, meaning = encode(small, words)
        assert meaning.queries == ()
        # The last two layers by hand: the last layer's place has the word of the one above already, and that of a
        # meaning layer where there is one.
        total, count = np.zeros((4, 4, 3)), np.zeros((4, 4, 1))
        z = np.asarray(z_bhwc[0], np.float64)
        for layer, ids in enumerate(pyramid.ids, start=1):
            for place, chosen in zip(tokenizer.shape.positions(layer), ids.ravel(), strict=True):
                at = tuple(place)
                if layer > config.meaning_layers:
                    query = (count[at] + 1) * z[at] - total[at]
                    gaps = ((codebook - query) ** 2).sum(1)
                    assert gaps[chosen] == pytest.approx(gaps.min(), rel=1e-4)
                total[at] += codebook[chosen]
                count[at] += 1


def test_an_image_of_an_array_of_the_tokenizers_size_is_taken_as_it_is(tokenizer):
    image = PICTURES["as large"]
    np.testing.assert_array_equal(tokenizer.square(image), image)
    assert tokenizer.encode(image) == tokenizer.encode(Image.fromarray(image))


def test_a_turned_photograph_is_turned_once(tokenizer):
    """EXIF's orientation is applied by whoever looks first, and nobody after."""
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph = Image.fromarray(PICTURES["larger"])
    photograph.info["exif"] = exif.tobytes()
    turned = Image.fromarray(np.rot90(PICTURES["larger"], -1))
    np.testing.assert_array_equal(tokenizer.square(photograph), tokenizer.square(turned))


def test_decoding_goes_through_the_map(tokenizer):
    """decode(ids) = the decoder over averages of the mapped rows: whoever forgets the map decodes other vectors."""
    model = nnx.merge(tokenizer._graph, tokenizer.parameters)
    view = tokenizer.vocabulary.codebook("appearance").astype(np.float64)
    kernel, bias = (
        np.asarray(getattr(model.projection, name)[...], np.float64) for name in ("kernel", "bias")
    )
    codebook = (2 * view @ kernel + bias).astype(
        np.float32
    )  # the view is 4 wide, and scaled by the root of it
    pyramid, decoder = tokenizer.encode(PICTURES["larger"]), jax.jit(lambda average: model.decoder(average))
    for layers in (2, 4):
        ids = tuple(jnp.asarray(one[None]) for one in pyramid.ids[:layers])
        average = streaming_average.prefix_averages(ids, jnp.asarray(codebook), tokenizer.shape)[-1]
        direct = np.clip(np.asarray(decoder(average))[0], 0, 1) * 255
        assert np.abs(tokenizer.decode(pyramid, layers) - direct).max() < 0.51


def test_the_bundle_holds_the_pursuit(tokenizer, tmp_path, capsys):
    tokenizer.save(tmp_path / "bundle")
    loaded = Tokenizer.load(tmp_path / "bundle")
    images = [picture(30, 20, seed) for seed in range(8)]
    words = tokenizer.encode(images)
    assert loaded.encode(images) == words
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.rivals(images[0], 3)[1][0].tolist() == tokenizer.rivals(images[0], 3)[1][0].tolist()
    # Rounded, ids of words stay what they are, and nearly all choices too.
    tokenizer.save(tmp_path / "rounded", dtype="float16")
    rounded = Tokenizer.load(tmp_path / "rounded")
    assert rounded.fingerprint != tokenizer.fingerprint
    np.testing.assert_array_equal(rounded.pursuit.ids[...], tokenizer.pursuit.ids[...])
    pairs = zip(rounded.encode(images), words, strict=True)
    same = np.concatenate(
        [a.ravel() == b.ravel() for one, other in pairs for a, b in zip(one.ids, other.ids, strict=True)]
    )
    assert same.mean() > 0.9
    # Another choice of words is another tokenizer.
    other = pursuit(CONFIG)
    other.vectors[...] = -other.vectors[...]
    model = nnx.merge(tokenizer._graph, tokenizer.parameters)
    changed = Tokenizer(CONFIG, tokenizer.vocabulary, model, tokenizer.trunk, pursuit=other)
    assert changed.fingerprint != tokenizer.fingerprint


def test_a_bundle_without_its_pursuit(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "whole")
    info, files = bundle.read(tmp_path / "whole")
    params = files["params.safetensors"]
    files["params.safetensors"] = {k: v for k, v in params.items() if k != "pursuit.colours"}
    bundle.write(tmp_path / "part", info, files)
    with pytest.raises(
        BundleError, match=r"wanted parameter pursuit\.colours of shape \(24, 3\), it is missing"
    ):
        Tokenizer.load(tmp_path / "part")
    bundle.write(tmp_path / "sizes", {**info, "pursuit": {}}, {**files, "params.safetensors": params})
    with pytest.raises(BundleError, match="lacks or has one field too many"):
        Tokenizer.load(tmp_path / "sizes")


def test_rivals_are_the_pursuits_above_and_the_nearest_below(tokenizer):
    image = PICTURES["larger"]
    pyramid, rivals = tokenizer.rivals(image, 11)
    assert pyramid == tokenizer.encode(image)
    family = dict(
        zip(tokenizer.pursuit.ids[...].tolist(), tokenizer.pursuit.families[...].tolist(), strict=True)
    )
    for ids, others in zip(pyramid.ids[:2], rivals[:2], strict=True):
        assert others.shape == (*ids.shape, 11)
        for word, few in zip(ids.ravel().tolist(), others.reshape(-1, 11).tolist(), strict=True):
            assert sorted(family[one] for one in [word, *few]) == list(range(12))
    for ids, others in zip(pyramid.ids[2:], rivals[2:], strict=True):
        assert (others != ids[..., None]).all()
    for count in (0, 12):
        with pytest.raises(InputError, match=f"wanted 1 to 11 rivals of each word, got {count}"):
            tokenizer.rivals(image, count)


def test_a_clip_or_nothing_is_no_image(tokenizer):
    with pytest.raises(InputError, match="one of images"):
        tokenizer.encode([np.zeros((2, 8, 8, 3), np.uint8)])
    with pytest.raises(InputError, match="got an empty batch"):
        tokenizer.encode([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"meaning": "head"}, 'pools are of meaning "pursuit"'),
        ({"trunk": "none"}, "wanted a trunk, frames 1, skip True and codebook"),
        ({"skip": False}, "wanted a trunk, frames 1, skip True and codebook"),
        ({"codebook": "frozen", "latents": None}, "wanted a trunk, frames 1, skip True and codebook"),
        ({"pools": (1,)}, "wanted pools of at least 1, one for each of 2 meaning layers"),
        ({"pools": (1, 0)}, "wanted pools of at least 1, one for each of 2 meaning layers"),
        (
            {"codebook": "frozen", "latents": None, "map_width": 4},
            "map_width is of the perceptron beside the map",
        ),
        ({"codebook": "projected"}, 'codebook "mapped" needs latents'),
        ({"latents": None}, 'codebook "mapped" needs latents'),
        ({"latents": 0}, 'codebook "mapped" needs latents'),
        ({"network": "linear", "cross_attention": True}, 'network "linear" is the paths beside'),
        ({"block": "wide"}, "block is one of residual, depthwise"),
        ({"meaning": "guess"}, "meaning is one of head, ranked, pursuit"),
    ],
)
def test_a_config_that_does_not_fit(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_parts_that_do_not_fit(tokenizer):
    with pytest.raises(InputError, match="5 different words, each chosen among 20, got 24: take a larger"):
        Pursuit.of(dataclasses.replace(CONFIG, pools=(1, 20)), Sizes(24, 5, 12, 3))
    model = nnx.merge(tokenizer._graph, tokenizer.parameters)
    with pytest.raises(InputError, match=r"wanted a pursuit as config\.meaning 'pursuit' says, got NoneType"):
        Tokenizer(CONFIG, tokenizer.vocabulary, model, tokenizer.trunk)
    # Finer than the trunk's map of 2 x 2 cells.
    finer = tokenizer_of(dataclasses.replace(CONFIG, image_size=16, pyramid=(1, 4, 8, 8), pools=(1, 1)))
    with pytest.raises(InputError, match="a side of 1 to 2, got 4"):
        finer.encode(PICTURES["as large"])


def test_a_bundle_of_the_first_generation_is_what_it_was(tmp_path):
    """Its header knows nothing of pursuit, latents, blocks or networks."""
    old = {"block": "residual", "codebook": "frozen", "latents": None, "meaning": "head", "pools": ()}
    config = dataclasses.replace(CONFIG, **old)
    made = tokenizer_of(CONFIG)
    model = drawn(lambda rngs: Autoencoder(config, 4, 8, TRUNK.out, rngs=rngs))
    tokenizer = Tokenizer(config, made.vocabulary, model, made.trunk)
    tokenizer.save(tmp_path / "new")
    info, files = bundle.read(tmp_path / "new")
    del info["pursuit"]
    for name in (*old, "network"):
        del info["config"][name]
    bundle.write(tmp_path / "old", info, files)
    loaded = Tokenizer.load(tmp_path / "old")
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.encode(PICTURES["larger"]) == tokenizer.encode(PICTURES["larger"])


def test_prefixes_of_words_apart_show_colours_alone():
    apart = tokenizer_of(dataclasses.replace(CONFIG, meaning_words="apart"))
    pyramid = apart.encode(PICTURES["larger"])
    model = nnx.merge(apart._compiled._graph, apart.parameters)
    ids = [grid[None] for grid in pyramid.ids]
    averages = streaming_average.prefix_averages(ids, apart._codebooks["appearance"], apart.shape, apart=2)
    for layers, zhat in enumerate(averages, start=1):
        whole = np.asarray(model.decoder(zhat))[0]
        colours = whole.reshape(4, 2, 4, 2, 3).mean(axis=(1, 3))
        smooth = jax.image.resize(colours, whole.shape, "linear")
        wanted = np.clip(np.asarray(smooth if layers <= 2 else whole), 0, 1) * 255
        shown = apart.decode(pyramid, layers=layers).astype(np.float64)
        assert np.abs(shown - wanted).max() <= 1, layers
    assert np.abs(smooth - whole).max() > 0.01  # what is left out is to be seen
