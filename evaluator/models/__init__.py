"""What generates: any diffusers pipeline, or images that exist already."""
