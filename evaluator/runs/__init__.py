"""A run as Python sees it: tables as pyarrow, numbers as dataclasses, images as Pillow's.

```python
from evaluator import open_run

run = open_run("runs/digits")
run                                  # what it is, and its numbers
run.metrics[0].value                 # the first number of metrics.json
run.samples.to_pandas()              # one row a sample, in the order of the plan
run.features("clip")                 # vectors and scores of an extractor
run.scores("clip_score")             # what a metric says of each sample
run.image("digit-0001")              # a kept image
```
"""

from evaluator.runs.places import find_runs as find_runs
from evaluator.runs.places import left_out as left_out
from evaluator.runs.run import Run as Run
from evaluator.runs.run import open_run as open_run
