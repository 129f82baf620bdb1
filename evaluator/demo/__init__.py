"""The digits world: real data and real models, small enough to ship with the package."""
