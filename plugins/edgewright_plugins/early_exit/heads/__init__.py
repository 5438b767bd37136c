"""What answers at early exits: linear heads, those of LGViT, and the latent branch of Dynamic Perceiver."""
