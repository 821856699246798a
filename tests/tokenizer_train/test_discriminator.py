import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tokenizer_train.discriminator import Discriminator


def test_the_paper_s_size_has_23_9_million_parameters():
    model = nnx.eval_shape(lambda: Discriminator(128, rngs=nnx.Rngs(0)))
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert round(count / 1e6, 1) == 23.9


def test_one_logit_an_image_that_depends_on_that_image_alone():
    model = Discriminator(32, filters=4, rngs=nnx.Rngs(0))
    images = jax.random.uniform(jax.random.key(0), (3, 32, 32, 3))
    logits = model(images)
    assert logits.shape == (3,)
    np.testing.assert_allclose(model(images.at[0].set(0.0))[1:], logits[1:], atol=1e-6)
    assert jnp.abs(model(images.at[0].set(0.0))[0] - logits[0]) > 1e-6
