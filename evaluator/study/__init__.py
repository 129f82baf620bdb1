"""Human studies: forms from runs, and answers read back as numbers.

```
runs, --reference → sources (images in common) → design (who sees what) → pictures (made alike)
                  → forms (a page for each rater) and study.json (the key)
answers/*.json    → answers (checked, decoded) → analysis → results
```

Raters get one page each; which image is whose stands in `study.json` alone.
"""

from evaluator.study.make import MadeStudy, StudyRequest, make_study
from evaluator.study.read import ReadStudy, answers_table, read_back
from evaluator.study.records import Study, read_study
from evaluator.study.results import PairResult, RaterResult, RunResult, StudyResults

__all__ = [
    "MadeStudy",
    "PairResult",
    "RaterResult",
    "ReadStudy",
    "RunResult",
    "Study",
    "StudyRequest",
    "StudyResults",
    "answers_table",
    "make_study",
    "read_back",
    "read_study",
]
