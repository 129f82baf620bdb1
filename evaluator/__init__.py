"""A distributed batch evaluator for diffusion models."""

__version__ = "0.1.0"
