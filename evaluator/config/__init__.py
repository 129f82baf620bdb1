"""Configuration: YAML in, one frozen and validated `RunConfig` out, or all faults at once."""

from evaluator.config.load import load_config, parse_config, parse_record
from evaluator.config.schema import RunConfig

__all__ = ["RunConfig", "load_config", "parse_config", "parse_record"]
