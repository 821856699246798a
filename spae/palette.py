"""Words that paint: of the words that are chosen by what they look like, for each colour those that stand for it.

Nobody can tell what a word paints, least of all a language model, so `spae.prompt` says it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from spae.architecture import AutoencoderConfig

# The basic colour terms of English (Berlin and Kay, 1969), each with what most of 222,500 people called so: the XKCD
# colour survey of 2010 (CC0).
COLOURS: Mapping[str, tuple[int, int, int]] = {
    "black": (0x00, 0x00, 0x00),
    "grey": (0x92, 0x95, 0x91),
    "white": (0xFF, 0xFF, 0xFF),
    "red": (0xE5, 0x00, 0x00),
    "orange": (0xF9, 0x73, 0x06),
    "yellow": (0xFF, 0xFF, 0x14),
    "green": (0x15, 0xB0, 0x1A),
    "blue": (0x03, 0x43, 0xDF),
    "purple": (0x7E, 0x1E, 0x9C),
    "pink": (0xFF, 0x81, 0xC0),
    "brown": (0x65, 0x37, 0x00),
}


WORDS = 3  # of every colour, if there are as many


def palette(
    config: AutoencoderConfig, words: Sequence[str], params: nnx.State, codebook_vc: Float[Array, "v c"]
) -> dict[str, list[str]]:
    """For each of `COLOURS` the words that paint it, see `painters`, where all words at a place are of that colour.
    Empty for a tokenizer whose decoder has no linear path, or that sums words instead of averaging them.

    Args:
        params: of an `Autoencoder`.
        codebook_vc: of `Autoencoder.codebook`.
    """
    if not config.skip or config.quantizer != "saq":
        return {}
    skip = params["decoder"]["skip"]
    found = painters(*(np.asarray(one[...]) for one in (codebook_vc, skip["kernel"], skip["bias"])))
    return {colour: [words[i] for i in ids] for colour, ids in found.items()}


def painters(
    codebook_vc: Float[np.ndarray, "v c"],
    kernel_cp: Float[np.ndarray, "c p"],
    bias_p: Float[np.ndarray, " p"],
) -> dict[str, list[int]]:
    """For each of `COLOURS` the ids of the `WORDS` words that paint it best, the best first: whose patches by the
    decoder's linear path are nearest to a flat one of that colour, of the words whose patches are nearer to it than to
    any other of the colours. A colour that no word comes nearest to is left out.

    What the network beside that path adds depends on the words around, and mostly makes colours stronger.

    Args:
        codebook_vc: what is averaged and decoded, float32.
        kernel_cp, bias_p: of `Decoder.skip`: p values of a patch, its pixels' channels last, 0 black and 1 white.
    """
    patch_vqk = (codebook_vc @ kernel_cp + bias_p).reshape(len(codebook_vc), -1, 3)
    colours_nk = np.array(list(COLOURS.values()), np.float32) / 255
    # Mean squares of patches less flat ones, without an array of every word, colour and pixel.
    square_v, mean_vk = (patch_vqk**2).sum(axis=2).mean(axis=1), patch_vqk.mean(axis=1)
    distance_vn = square_v[:, None] - 2 * mean_vk @ colours_nk.T + (colours_nk**2).sum(axis=1)
    nearest_v = distance_vn.argmin(axis=1)
    found = {}
    for number, colour in enumerate(COLOURS):
        own = np.flatnonzero(nearest_v == number)
        if len(own):
            order = distance_vn[own, number].argsort(kind="stable")
            found[colour] = own[order[:WORDS]].tolist()
    return found
