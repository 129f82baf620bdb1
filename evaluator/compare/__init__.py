"""Two or more runs on the same prompts: what differs, by how much, and whether it is noise."""

from evaluator.compare.records import Comparison as Comparison
