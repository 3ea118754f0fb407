"""Codec models: networks, entropy model and diffusion put together, each described by a frozen Config."""
