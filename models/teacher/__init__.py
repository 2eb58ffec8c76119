"""The teacher: a frozen text-to-image diffusion model that says how well a caption explains a noised latent."""
