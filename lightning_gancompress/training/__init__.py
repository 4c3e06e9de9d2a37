"""Phases of training: their base class, the GAN update, learning rates, image pools and network inputs."""
