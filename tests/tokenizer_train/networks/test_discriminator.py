import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tokenizer_train.networks.discriminator import Discriminator


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
    model = Discriminator(32, filters=4, frames=6, rngs=nnx.Rngs(0))
    clips = jax.random.uniform(jax.random.key(0), (2, 6, 32, 32, 3))
    logits = model(clips)
    assert logits.shape == (2,)
    assert jnp.abs(model(clips[:, ::-1]) - logits).min() > 1e-6


def test_one_logit_an_image_that_depends_on_that_image_alone():
    model = Discriminator(32, filters=4, rngs=nnx.Rngs(0))
    images = jax.random.uniform(jax.random.key(0), (3, 32, 32, 3))
    logits = model(images)
    assert logits.shape == (3,)
    np.testing.assert_allclose(model(images.at[0].set(0.0))[1:], logits[1:], atol=1e-6)
    assert jnp.abs(model(images.at[0].set(0.0))[0] - logits[0]) > 1e-6
