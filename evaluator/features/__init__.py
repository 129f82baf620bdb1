"""What embeds: networks that turn images (and texts) into features."""

BUILT_IN = {
    "clip": "evaluator.features.clip:ClipExtractor",
    "dinov2": "evaluator.features.vision:Dinov2Extractor",
    "dinov3": "evaluator.features.vision:Dinov3Extractor",
    "inception": "evaluator.features.inception:InceptionExtractor",
    "siglip": "evaluator.features.siglip:SiglipExtractor",
    "sscd": "evaluator.features.sscd:SscdExtractor",
    "vision": "evaluator.features.vision:VisionExtractor",
}
"""Name → `module:attr` of the extractors that come along."""
