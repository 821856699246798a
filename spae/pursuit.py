"""Words of meaning by regional pursuit: what a frozen trunk sees in each region of an image, as words that add up.

Every place of the upper layers stands for a square of the image. The words above a place and the place's own are meant
to *add up* to what the trunk sees there: of all words, that one is chosen which brings the sum of their vectors nearest
to the region's (matching pursuit, Mallat and Zhang 1993, with the cosine as its measure). So the word at the top names
the image, and words below say what it left out, and where. Nothing is trained.

Of the `pools[l]` best words by that rule the one is taken whose appearance is nearest to the region's own, so that the
words also paint (ours). With 1 meaning decides alone.

Words and images are seen from their means, which is the correction for words that are near every image. No word is
chosen twice, and one of each family ("pup", "pups"). Candidates are words that fit real photographs, see
`tokenizer_train.start`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from spae.architecture import AutoencoderConfig
from spae.cnn import space_to_depth
from spae.errors import InputError
from spae.guidance.protocol import ImageTower
from spae.guidance.resize import resize_square


class Sizes(NamedTuple):
    """Of the arrays: M candidate words, d of the guidance's vectors, p values of a patch, c of its components."""

    words: int
    width: int
    patch: int
    components: int


class Pursuit(nnx.Module):
    """The words of the meaning layers, from the trunk's view of an image.

    Frozen: its arrays come from a bundle, or from `tokenizer_train.start`.

    Args:
        sizes: of the arrays.
        sides: of the meaning layers' grids, top to bottom.
        pools: of each layer, among how many of the best words appearance decides.
        image_size: side in pixels of the squares that patches are cut from.
    """

    def __init__(self, sizes: Sizes, sides: Sequence[int], pools: Sequence[int], image_size: int):
        places = sum(side**2 for side in sides)
        if sizes.words < max(pools) + places:
            raise InputError(
                f"wanted candidates for {places} different words, each chosen among {max(pools)}, got {sizes.words}: "
                "take a larger vocabulary, fewer meaning layers or smaller pools"
            )
        self.sizes, self.sides, self.pools, self.image_size = sizes, tuple(sides), tuple(pools), image_size
        self.patch = math.isqrt(sizes.patch // 3)
        zeros = jnp.zeros
        self.ids = nnx.Param(zeros(sizes.words, jnp.int32))  # of the candidates in the vocabulary
        self.families = nnx.Param(zeros(sizes.words, jnp.int32))  # words of one family have one number
        self.vectors = nnx.Param(zeros((sizes.words, sizes.width)))  # seen from the mean word
        self.image_mean = nnx.Param(zeros(sizes.width))  # of the trunk's vectors over photographs
        self.colours = nnx.Param(zeros((sizes.words, sizes.components)))  # appearance of the candidates
        self.patch_kernel = nnx.Param(zeros((sizes.patch, sizes.components)))  # and of the image's patches
        self.patch_bias = nnx.Param(zeros(sizes.components))

    @classmethod
    def of(cls, config: AutoencoderConfig, sizes: Sizes) -> "Pursuit":
        """An empty one for an architecture."""
        sides = [grid[0] for grid in config.shape.layers[: config.meaning_layers]]
        return cls(sizes, sides, config.pools, config.image_size)

    def __call__(self, trunk: ImageTower, images_bhwc: Float[Array, "b h w 3"]) -> Int[Array, "b k"]:
        """Images in [0, 1], squares of any size, to int32 ids (B, k) of the meaning layers' words, layer by layer and
        row by row."""
        return self.ids[...][self._chosen(*self._regions(trunk, images_bhwc))]

    def rivals(
        self, trunk: ImageTower, images_bhwc: Float[Array, "b h w 3"], count: int
    ) -> Int[Array, "b k count"]:
        """For every place the words that would have been chosen there, had the families of the chosen one and of the
        rivals before not been in the vocabulary, and all words above been the same. Words that other places hold are
        among them. At most `kinds - 1` different ones there are."""
        targets_brd, colours_brc = self._regions(trunk, images_bhwc)
        chosen_bk = self._chosen(targets_brd, colours_brc)
        families_m = self.families[...]

        def place(score_m, colour_c, own, pool):
            def next_best(free_m, _):
                at = self._pick(jnp.where(free_m, score_m, -jnp.inf), colour_c, pool)
                return free_m & (families_m != families_m[at]), at

            free_m = families_m != families_m[own]
            return jax.lax.scan(next_best, free_m, length=count)[1]

        parts = []
        for layer, (start, end) in enumerate(self._spans):
            score_bnm = self._scores(targets_brd[:, start:end], self._above(chosen_bk, layer))
            each = jax.vmap(jax.vmap(lambda s, c, o, pool=self.pools[layer]: place(s, c, o, pool)))
            parts.append(each(score_bnm, colours_brc[:, start:end], chosen_bk[:, start:end]))
        return self.ids[...][jnp.concatenate(parts, axis=1)]

    def parts(
        self,
        trunk: ImageTower,
        images_bhwc: Float[Array, "b h w 3"],
        weights_brhw: Float[Array, "b r s s"],
        count: int,
    ) -> Int[Array, "b r count"]:
        """Words of parts of any form: for each by itself `count` words, each chosen so that it and those before add up
        to what the trunk sees there. As in the layers no two are of one family; what they look like plays no part.

        Args:
            trunk, images_bhwc: as for a call.
            weights_brhw: how much of each cell of the trunk's map is in a part, see `ImageTower.parts`.
            count: 1 .. `kinds`.

        Returns:
            int32 ids.
        """
        target_brd = trunk.parts(images_bhwc, weights_brhw) - self.image_mean[...]
        families_m, vectors_md = self.families[...], self.vectors[...]

        def add(state, _):
            free_brm, sum_brd = state
            score_brm = jnp.where(free_brm, self._scores(target_brd, sum_brd), -jnp.inf)
            at_br = jnp.argmax(score_brm, axis=-1)
            free_brm &= families_m != families_m[at_br][..., None]
            return (free_brm, sum_brd + vectors_md[at_br]), at_br

        free_brm = jnp.ones((*target_brd.shape[:2], families_m.size), bool)
        at_cbr = jax.lax.scan(add, (free_brm, jnp.zeros_like(target_brd)), length=count)[1]
        return jnp.moveaxis(self.ids[...][at_cbr], 0, -1)

    @property
    def kinds(self) -> int:
        """How many families the candidates are of: of each, one word can be chosen."""
        return np.unique(np.asarray(self.families[...])).size

    @property
    def _spans(self) -> list[tuple[int, int]]:
        """First and end place of every layer."""
        ends = np.cumsum([side**2 for side in self.sides]).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def _chosen(
        self, targets_brd: Float[Array, "b r d"], colours_brc: Float[Array, "b r c"]
    ) -> Int[Array, "b k"]:
        """As candidates, 0 .. M - 1."""
        families_m = self.families[...]
        free_bm = jnp.ones((targets_brd.shape[0], families_m.size), bool)
        chosen_bk = jnp.zeros((targets_brd.shape[0], 0), jnp.int32)
        for layer, (start, end) in enumerate(self._spans):
            score_bnm = self._scores(targets_brd[:, start:end], self._above(chosen_bk, layer))

            def choose(free_m, place, pool=self.pools[layer]):
                score_m, colour_c = place
                at = self._pick(jnp.where(free_m, score_m, -jnp.inf), colour_c, pool)
                return free_m & (families_m != families_m[at]), at

            places = (score_bnm, colours_brc[:, start:end])
            free_bm, at_bn = jax.vmap(lambda free, place, go=choose: jax.lax.scan(go, free, place))(
                free_bm, places
            )
            chosen_bk = jnp.concatenate([chosen_bk, at_bn], axis=1)
        return chosen_bk

    def _regions(self, trunk, images_bhwc) -> tuple[Float[Array, "b r d"], Float[Array, "b r c"]]:
        """What is meant and what is seen in each region."""
        seen_brd = trunk.regions(images_bhwc, self.sides) - self.image_mean[...]
        small_bhwc = resize_square(images_bhwc, self.image_size) - 0.5
        patches_bhwp = space_to_depth(small_bhwc, (self.patch, self.patch))
        parts_bhwc = jnp.matmul(patches_bhwp, self.patch_kernel[...], precision=jax.lax.Precision.HIGHEST)
        parts_bhwc += self.patch_bias[...]
        b, grid, _, c = parts_bhwc.shape
        means = [
            parts_bhwc.reshape(b, side, grid // side, side, grid // side, c).mean((2, 4)).reshape(b, -1, c)
            for side in self.sides
        ]
        return seen_brd, jnp.concatenate(means, axis=1)

    def _above(self, chosen_bk: Int[Array, "b k"], layer: int) -> Float[Array, "b n d"]:
        """The sum of the words above every place of a layer: of those whose squares hold the place's."""
        side = self.sides[layer]
        total_bnd = jnp.zeros((chosen_bk.shape[0], side**2, self.image_mean.shape[0]))
        for (start, _), above in zip(self._spans[:layer], self.sides, strict=False):
            row, column = np.divmod(np.arange(side**2), side)
            place_n = start + row * above // side * above + column * above // side
            total_bnd += self.vectors[...][chosen_bk[:, place_n]]
        return total_bnd

    def _scores(
        self, target_bnd: Float[Array, "b n d"], above_bnd: Float[Array, "b n d"]
    ) -> Float[Array, "b n m"]:
        """cos(above + word, target) for every candidate, up to the target's length."""
        vectors_md = self.vectors[...]
        dot = lambda x_bnd: jnp.matmul(x_bnd, vectors_md.T, precision=jax.lax.Precision.HIGHEST)  # noqa: E731
        own_bn1 = jnp.sum(above_bnd * target_bnd, axis=2, keepdims=True)
        square_bnm = jnp.sum(vectors_md**2, axis=1) + 2 * dot(above_bnd)
        square_bnm += jnp.sum(above_bnd**2, axis=2, keepdims=True)
        return (dot(target_bnd) + own_bn1) * jax.lax.rsqrt(jnp.maximum(square_bnm, 1e-12))

    def _pick(self, score_m: Float[Array, " m"], colour_c: Float[Array, " c"], pool: int) -> Int[Array, ""]:
        """Of the `pool` best the one nearest in appearance; the better one of equals. Words that are taken have a score
        of minus infinity, and stay out of a pool that is larger than what is left."""
        score_p, best_p = jax.lax.top_k(score_m, pool)
        distance_p = jnp.sum((self.colours[...][best_p] - colour_c) ** 2, axis=1)
        return best_p[jnp.argmin(jnp.where(score_p > -jnp.inf, distance_p, jnp.inf))]
