"""Remote stores: `s3://`, `gs://`, `hf://` and `memory://`, through fsspec.

```
RemotePath     an address: listed, read by ranges, fetched, put
Stored         what a store says of one file: size, version, checksum
```

Credentials come from the environment only, where each store's own client looks for them: an
address that holds one is refused, and nothing here repeats what it may have held.
"""

from evaluator.remote.addresses import RemotePath, Stored

__all__ = ["RemotePath", "Stored"]
