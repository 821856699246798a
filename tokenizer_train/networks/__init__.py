"""Networks that training looks through: discriminator, perceptual networks, a frozen masked language model."""
