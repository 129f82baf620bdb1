"""From tables to numbers: the one path that `run` and `aggregate` share."""
