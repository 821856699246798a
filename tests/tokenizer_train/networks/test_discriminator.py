import jax
import jax.numpy as jnp
import numpy as np
from drawn import drawn
from flax import nnx

from tokenizer_train.networks.discriminator import Discriminator


@nnx.jit
def called(model: Discriminator, images):
    """The logits, compiled as a whole."""
    return model(images)


def test_the_paper_s_size_has_23_9_million_parameters():
    model = nnx.eval_shape(lambda: Discriminator(128, rngs=nnx.Rngs(0)))
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert round(count / 1e6, 1) == 23.9
    assert nnx.state(model, nnx.Param)["hidden"]["kernel"].shape == (4 * 4 * 512, 512)


def test_time_is_halved_while_it_is_even():
    # MAGVIT's 16 frames are 1 after four of the five blocks.
    model = nnx.eval_shape(lambda: Discriminator(128, frames=16, rngs=nnx.Rngs(0)))
    assert [block.halving[0] for block in model.blocks] == [2, 2, 2, 2, 1]
    assert nnx.state(model, nnx.Param)["hidden"]["kernel"].shape == (4 * 4 * 512, 512)
    assert nnx.state(model, nnx.Param)["stem"]["kernel"].shape == (3, 3, 3, 3, 128)


def test_one_logit_a_clip_that_sees_the_order_of_its_frames():
    model = drawn(lambda rngs: Discriminator(32, filters=4, frames=6, rngs=rngs))
    clips = np.random.default_rng(0).random((2, 6, 32, 32, 3), np.float32)
    logits = called(model, clips)
    assert logits.shape == (2,)
    assert jnp.abs(called(model, clips[:, ::-1]) - logits).min() > 1e-6


def test_one_logit_an_image_that_depends_on_that_image_alone():
    model = drawn(lambda rngs: Discriminator(32, filters=4, rngs=rngs))
    images = np.random.default_rng(0).random((3, 32, 32, 3), np.float32)
    logits = called(model, images)
    assert logits.shape == (3,)
    # Not in place: JAX may still read the array.
    others = called(model, np.concatenate([np.zeros_like(images[:1]), images[1:]]))
    np.testing.assert_allclose(others[1:], logits[1:], rtol=1e-5, atol=1e-6)
    assert jnp.abs(others[0] - logits[0]) > 1e-6
