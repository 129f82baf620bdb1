"""Data: prompts and real images, as webdataset tars that are read by offset.

```
source → RawSample…          lines, tables, images: one reader for each kind of source
       → pack                packing: tars and index, the same bytes every time
       → Pack                pack, stream, decode: prompts, bytes and tensors by key
```

Tars that exist already are indexed where they are (tarsets). `open_source` takes whatever it is
given (cache); what is remote is looked at (surveys) and, unless it can be read in place, copied
(fetched). Generated images that are to be kept go the other way (encode, kept).
"""

from evaluator.data.cache import open_source
from evaluator.data.decode import MAX_PIXELS, decode_image
from evaluator.data.encode import EncodedImage, encode_image, parse_image_format
from evaluator.data.fetched import fetched_file
from evaluator.data.kept import (
    KeptImage,
    MemberImage,
    parse_member,
    read_image_tar,
    sample_name,
    write_image_tar,
)
from evaluator.data.locate import expand_source
from evaluator.data.packing import PackOptions, pack
from evaluator.data.packs import Pack, open_pack
from evaluator.data.stream import StreamedSample

__all__ = [
    "MAX_PIXELS",
    "EncodedImage",
    "KeptImage",
    "MemberImage",
    "Pack",
    "PackOptions",
    "StreamedSample",
    "decode_image",
    "encode_image",
    "expand_source",
    "fetched_file",
    "open_pack",
    "open_source",
    "pack",
    "parse_image_format",
    "parse_member",
    "read_image_tar",
    "sample_name",
    "write_image_tar",
]
