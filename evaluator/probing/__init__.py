"""The `probe` verbs: a model and its inputs in, tables and pictures in a folder out."""
