"""What embeds: networks that turn images (and texts) into features."""

BUILT_IN = {"clip": "evaluator.features.clip:ClipExtractor"}
"""Name → `module:attr` of the extractors that come along."""
