"""What these tests share: small runs."""

from tests.small_runs import hostile_run as hostile_run
from tests.small_runs import small_run as small_run
