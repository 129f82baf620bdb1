"""The `probe` verbs: a model and its inputs in, tables and pictures in a folder out.

```
inputs    ModelRequest → ProbedModel; load_images; load_extractor    as `run` reads them
outputs   ProbeFolder: tables and pictures, then result.json with what they were made from
pictures  strips and grids of labelled images, maps of numbers
progress  a line now and then while a verb works
```

A verb is one module: it loads its inputs, calls `evaluator.probes`, fills a folder, and returns a
frozen record whose `lines()` the command line prints.
"""
