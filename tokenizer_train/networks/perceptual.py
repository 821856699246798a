"""Perceptual distances to train with: shift-tolerant LPIPS, and the distance of a classifier's logits."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from spae.errors import InputError
from spae.metrics.stlpips import Stlpips
from spae.weights.files import read_weights
from tokenizer_train.networks.resnet import ResNet, from_torch

IMAGE_SIZE = 224  # pixels a side, of what the classifier reads


class LogitDistance(nnx.Module):
    """Mean squared difference of a classifier's logits at 224 px: MAGVIT's perceptual loss, which SPAE keeps.

    Yu et al., "MAGVIT", arXiv 2212.05199, appendix; there with a ResNet-50.
    """

    def __init__(self, network: ResNet) -> None:
        self.network = network

    def __call__(
        self, first_bhwc: Float[Array, "b h w 3"], second_bhwc: Float[Array, "b h w 3"]
    ) -> Float[Array, " b"]:
        """float32 distances, one for each pair of images in [0, 1]; differentiable with respect to both.

        Raises:
            InputError: not two batches of RGB images of one shape.
        """
        shape = first_bhwc.shape
        if len(shape) != 4 or shape[-1] != 3 or shape != second_bhwc.shape:
            raise InputError(
                f"wanted two batches (B, H, W, 3) of one shape, got {shape} and {second_bhwc.shape}"
            )
        batch = shape[0]
        # One pass over both, so that the convolutions run once on twice the batch.
        images_bhwc = jnp.concatenate([first_bhwc, second_bhwc]).astype(jnp.float32)
        images_bhwc = jax.image.resize(images_bhwc, (2 * batch, IMAGE_SIZE, IMAGE_SIZE, 3), "bilinear")
        logits_bk = self.network(images_bhwc)
        return ((logits_bk[:batch] - logits_bk[batch:]) ** 2).mean(axis=1)


def load(network: str, weights: str | None = None) -> nnx.Module:
    """A perceptual distance: called with two batches (B, H, W, 3) in [0, 1], it returns (B,) float32.

    Args:
        network: "stlpips-vgg" or "stlpips-alex", whose weights are in an installed package; or
            "resnet50-logits".
        weights: safetensors or PyTorch file of a ResNet-50 in torchvision's or timm's names, for
            "resnet50-logits" only.

    Raises:
        InputError: the network is not known, the package is not installed, or the file is missing, damaged or
            another model's.
    """
    if network in ("stlpips-vgg", "stlpips-alex"):
        return Stlpips(network.removeprefix("stlpips-"))
    if network != "resnet50-logits":
        raise InputError(f"wanted stlpips-vgg, stlpips-alex or resnet50-logits, got {network!r}")
    if weights is None:
        raise InputError("resnet50-logits needs the weights of a ResNet-50: set loss.perceptual_weights")
    return LogitDistance(from_torch(read_weights(weights)))
