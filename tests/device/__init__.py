"""A device that is none: what it computes lies on the CPU, and what CUDA refuses it refuses."""
