"""What the experiments look at: images with what is known of them, and their words."""
