"""One transformer block, for every network here that reads all of its sequence: ViT, CLIP's towers, BERT, MiniLM."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from spae.layers.rematerialize import Rematerializable

Activation = Literal["gelu", "quick_gelu"]


class Block(Rematerializable):
    """Self-attention and a two-layer perceptron, each added to its input (Vaswani et al., arXiv 1706.03762).

    Args:
        width: c, of the sequence's vectors.
        inner: width between the two layers of the perceptron.
        heads: of the attention; they divide the width.
        norm_first: layer norms before attention and perceptron (ViT, CLIP); else after the sums (BERT).
        causal: whether a position sees only itself and those before it.
        activation: "gelu" (exact) or "quick_gelu", x sigmoid(1.702 x), of OpenAI's CLIP.
        epsilon: of the layer norms.
        dtype: of the computation; parameters are float32.
    """

    def __init__(
        self,
        width: int,
        inner: int,
        heads: int,
        *,
        norm_first: bool = True,
        causal: bool = False,
        activation: Activation = "gelu",
        epsilon: float = 1e-5,
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.heads, self.norm_first, self.causal, self.activation = heads, norm_first, causal, activation
        linear = partial(nnx.Linear, dtype=dtype, rngs=rngs)
        self.norm1 = nnx.LayerNorm(width, epsilon=epsilon, dtype=dtype, rngs=rngs)
        self.query = linear(width, width)
        self.key = linear(width, width)
        self.value = linear(width, width)
        self.out = linear(width, width)
        self.norm2 = nnx.LayerNorm(width, epsilon=epsilon, dtype=dtype, rngs=rngs)
        self.up = linear(width, inner)
        self.down = linear(inner, width)

    def forward(
        self, x_btc: Float[Array, "b t c"], mask_bt: Bool[Array, "b t"] | None = None
    ) -> Float[Array, "b t c"]:
        """`mask_bt`: False where nobody may look; None: everybody looks everywhere (or back, if causal)."""
        if self.norm_first:
            x_btc = x_btc + self._attention(self.norm1(x_btc), mask_bt)
            return x_btc + self._perceptron(self.norm2(x_btc))
        x_btc = self.norm1(x_btc + self._attention(x_btc, mask_bt))
        return self.norm2(x_btc + self._perceptron(x_btc))

    def values(self, x_btc: Float[Array, "b t c"]) -> Float[Array, "b t c"]:
        """What each position would be given if it attended to itself alone (norm_first): its value, projected out."""
        return self.out(self.value(self.norm1(x_btc)))

    def _attention(self, x_btc, mask_bt):
        b, t, c = x_btc.shape
        heads = (b, t, self.heads, c // self.heads)
        query, key, value = (layer(x_btc).reshape(heads) for layer in (self.query, self.key, self.value))
        attended = jax.nn.dot_product_attention(
            query,
            key,
            value,
            mask=None if mask_bt is None else mask_bt[:, None, None, :],
            is_causal=self.causal,
        )
        return self.out(attended.reshape(b, t, c))

    def _perceptron(self, x_btc):
        y = self.up(x_btc)
        quick = self.activation == "quick_gelu"
        return self.down(y * jax.nn.sigmoid(1.702 * y) if quick else jax.nn.gelu(y, approximate=False))
