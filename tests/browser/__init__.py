"""Pages as a reader meets them: opened from files in a real browser, without a network."""
