"""The two transformers of CLIP (Radford et al., arXiv 2103.00020), one for images and one for texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from spae.guidance.regions import part_means, region_means
from spae.guidance.resize import resize_square
from spae.layers.transformer import Activation, Block
from spae.weights.state_dict import StateDict, fill, hollow, normal

_EPSILON = 1e-5


@dataclass(frozen=True, kw_only=True)
class TransformerSizes:
    width: int
    inner: int  # width between the two layers of the perceptron
    layers: int
    heads: int
    activation: Activation  # "quick_gelu" (OpenAI's weights) or "gelu" (most of open_clip's)


@dataclass(frozen=True, kw_only=True)
class ImageSizes(TransformerSizes):
    image_size: int  # pixels, a multiple of the patch
    patch: int
    out: int
    mean: tuple[float, ...]  # of each channel, for images in [0, 1]
    deviation: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class TextSizes(TransformerSizes):
    vocabulary: int
    context: int  # longest text in tokens, with start and end
    end: int  # id of the end symbol, where the meaning is read off
    out: int


def _blocks(sizes: TransformerSizes, *, causal: bool, rngs: nnx.Rngs) -> nnx.List:
    block = partial(Block, causal=causal, activation=sizes.activation, epsilon=_EPSILON, rngs=rngs)
    return nnx.List([block(sizes.width, sizes.inner, sizes.heads) for _ in range(sizes.layers)])


def _unit(vectors: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)


class ClipImageTower(nnx.Module):
    """Images (B, H, W, 3) in [0, 1], any size -> unit vectors (B, out).

    See `spae.guidance.protocol.ImageTower`.
    """

    def __init__(self, sizes: ImageSizes, *, rngs: nnx.Rngs):
        self.sizes = sizes
        width, positions = sizes.width, (sizes.image_size // sizes.patch) ** 2 + 1
        self.patches = nnx.Param(normal(rngs, (3 * sizes.patch**2, width), (3 * sizes.patch**2) ** -0.5))
        self.summary = nnx.Param(normal(rngs, (width,), width**-0.5))
        self.positions = nnx.Param(normal(rngs, (positions, width), width**-0.5))
        self.norm_in = nnx.LayerNorm(width, epsilon=_EPSILON, rngs=rngs)
        self.blocks = _blocks(sizes, causal=False, rngs=rngs)
        self.norm_out = nnx.LayerNorm(width, epsilon=_EPSILON, rngs=rngs)
        self.projection = nnx.Param(normal(rngs, (width, sizes.out), width**-0.5))

    @property
    def image_size(self) -> int:
        return self.sizes.image_size

    @property
    def width(self) -> int:
        return self.sizes.out

    @property
    def cells(self) -> int:
        return self.sizes.image_size // self.sizes.patch

    def __call__(self, images_bhwc: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
        return self._whole(self._before_last_block(images_bhwc))

    def regions(self, images_bhwc: Float[Array, "b h w 3"], sides: Sequence[int]) -> Float[Array, "b r d"]:
        """The mean of dense features over each region's patches; of side 1 the image's own vector, as a call gives it.

        Dense features are MaskCLIP's (Zhou et al., arXiv 2112.01071): in the last attention layer queries and keys are
        left out, and each patch's value goes through the output projection, the last norm and the projection into
        the common space. What the block adds to it, its input and its perceptron, is left out as well: both make
        such features worse (ClearCLIP, arXiv 2407.12442).

        Raises:
            InputError: no side, or one below 1 or above that of the grid of patches.
        """
        x = self._before_last_block(images_bhwc)
        vectors = _unit(region_means(self._dense(x), sides) @ self.projection[...])
        is_whole_r = np.repeat([side == 1 for side in sides], [side * side for side in sides])
        return jnp.where(is_whole_r[None, :, None], self._whole(x)[:, None], vectors)

    def parts(
        self, images_bhwc: Float[Array, "b h w 3"], weights_brhw: Float[Array, "b r s s"]
    ) -> Float[Array, "b r d"]:
        """As `regions`, of parts of any form; a part that is the whole image is no exception."""
        map_bhwc = self._dense(self._before_last_block(images_bhwc))
        return _unit(part_means(map_bhwc, weights_brhw) @ self.projection[...])

    def states(self, images_bhwc: Float[Array, "b h w 3"]) -> list[Float[Array, "b s s c"]]:
        """What goes into the first block and what comes out of each, of the patches alone: the hidden states of
        Hugging Face's model, without the summary."""
        return [x[:, 1:].reshape(len(x), self.cells, self.cells, -1) for x in self._states(images_bhwc, None)]

    def pooled(self, images_bhwc: Float[Array, "b h w 3"]) -> Float[Array, "b c"]:
        """The summary behind the last norm, before it is projected into the common space."""
        return self.norm_out(self._states(images_bhwc, None)[-1][:, 0])

    def _dense(self, x_btc: Float[Array, "b t c"]) -> Float[Array, "b s s c"]:
        patches = self.norm_out(self.blocks[-1].values(x_btc[:, 1:]))
        return patches.reshape(len(x_btc), self.cells, self.cells, -1)

    def _whole(self, x_btc: Float[Array, "b t c"]) -> Float[Array, "b d"]:
        return _unit(self.norm_out(self.blocks[-1](x_btc)[:, 0]) @ self.projection[...])

    def _before_last_block(self, images_bhwc: Float[Array, "b h w 3"]) -> Float[Array, "b t c"]:
        return self._states(images_bhwc, -1)[-1]

    def _states(self, images_bhwc: Float[Array, "b h w 3"], end: int | None) -> list[Float[Array, "b t c"]]:
        """What goes into the first block and comes out of each of `blocks[:end]`: the summary, then the patches in
        row-major order."""
        side, patch = self.sizes.image_size, self.sizes.patch
        x = (resize_square(images_bhwc, side) - jnp.asarray(self.sizes.mean)) / jnp.asarray(
            self.sizes.deviation
        )
        b, grid = len(x), side // patch
        # Patches do not overlap: their convolution is a matrix product over (row, column, channel).
        x = x.reshape(b, grid, patch, grid, patch, 3).transpose(0, 1, 3, 2, 4, 5).reshape(b, grid * grid, -1)
        x = x @ self.patches[...]
        summary = jnp.broadcast_to(self.summary[...], (b, 1, x.shape[-1]))
        states = [self.norm_in(jnp.concatenate([summary, x], axis=1) + self.positions[...])]
        for block in self.blocks[:end]:
            states.append(block(states[-1]))
        return states


class ClipTextTower(nnx.Module):
    """Ids (B, T), each row with an end symbol and anything after it -> unit vectors (B, out)."""

    def __init__(self, sizes: TextSizes, *, rngs: nnx.Rngs):
        self.sizes = sizes
        self.words = nnx.Param(normal(rngs, (sizes.vocabulary, sizes.width), 0.02))
        self.positions = nnx.Param(normal(rngs, (sizes.context, sizes.width), 0.01))
        self.blocks = _blocks(sizes, causal=True, rngs=rngs)
        self.norm_out = nnx.LayerNorm(sizes.width, epsilon=_EPSILON, rngs=rngs)
        self.projection = nnx.Param(normal(rngs, (sizes.width, sizes.out), sizes.width**-0.5))

    def __call__(self, ids_bt: Int[Array, "b t"]) -> Float[Array, "b d"]:
        """T may be shorter than the context: attention looks back only, nothing after the end is needed."""
        x = self.words[...][ids_bt] + self.positions[...][: ids_bt.shape[1]]
        for block in self.blocks:
            x = block(x)
        end_b = jnp.argmax(ids_bt == self.sizes.end, axis=1)
        return _unit(self.norm_out(x[jnp.arange(len(x)), end_b]) @ self.projection[...])


def _fill_blocks(state: StateDict, blocks: nnx.List, prefix: str) -> None:
    for number, block in enumerate(blocks):
        name = f"{prefix}.encoder.layers.{number}."
        state.norm(block.norm1, f"{name}layer_norm1")
        state.linear(block.query, f"{name}self_attn.q_proj")
        state.linear(block.key, f"{name}self_attn.k_proj")
        state.linear(block.value, f"{name}self_attn.v_proj")
        state.linear(block.out, f"{name}self_attn.out_proj")
        state.norm(block.norm2, f"{name}layer_norm2")
        state.linear(block.up, f"{name}mlp.fc1")
        state.linear(block.down, f"{name}mlp.fc2")


def fill_image_tower(state: StateDict, sizes: ImageSizes) -> ClipImageTower:
    """Takes the image side's tensors, in Hugging Face's names."""
    tower = hollow(lambda rngs: ClipImageTower(sizes, rngs=rngs))
    embeddings = "vision_model.embeddings."
    kernel = state.take(f"{embeddings}patch_embedding.weight")  # (width, 3, patch, patch)
    fill(tower.patches, kernel.transpose(2, 3, 1, 0).reshape(-1, sizes.width), "patch_embedding")
    fill(tower.summary, state.take(f"{embeddings}class_embedding").reshape(-1), "class_embedding")
    fill(tower.positions, state.take(f"{embeddings}position_embedding.weight"), "position_embedding")
    state.norm(tower.norm_in, "vision_model.pre_layrnorm")  # spelt so in the files
    _fill_blocks(state, tower.blocks, "vision_model")
    state.norm(tower.norm_out, "vision_model.post_layernorm")
    fill(tower.projection, state.take("visual_projection.weight").T, "visual_projection")
    return tower


def fill_text_tower(state: StateDict, sizes: TextSizes) -> ClipTextTower:
    """Takes the text side's tensors, in Hugging Face's names."""
    tower = hollow(lambda rngs: ClipTextTower(sizes, rngs=rngs))
    fill(tower.words, state.take("text_model.embeddings.token_embedding.weight"), "token_embedding")
    fill(tower.positions, state.take("text_model.embeddings.position_embedding.weight"), "position_embedding")
    _fill_blocks(state, tower.blocks, "text_model")
    state.norm(tower.norm_out, "text_model.final_layer_norm")
    fill(tower.projection, state.take("text_projection.weight").T, "text_projection")
    return tower
