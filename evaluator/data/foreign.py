"""Prompts of samples that somebody else packed: json, txt and cls parts, as far as they go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evaluator.data.fields import find_columns, prompt_from_record
from evaluator.data.lines import parse_object
from evaluator.data.raw import Place
from evaluator.errors import InputError
from evaluator.records import Prompt


def foreign_prompt(
    key: str, data: Mapping[str, bytes], *, parts: Sequence[str], where: str
) -> Prompt:
    """The prompt of one sample, under the pack's `key`. Pickled parts are never looked at.

    `data` holds the parts `json`, `txt` and `cls` where they exist, `parts` the names of all.
    The text is the json's (`text`, `prompt`, `caption`), else the txt.
    """
    record = {}
    if "json" in data:
        record = parse_object(_decoded(data["json"], where=f"{where}.json"), where=f"{where}.json")
    attachments = record.pop("attachments", None)
    columns = find_columns(record)
    prompt = prompt_from_record(
        record,
        key=key,
        columns=columns,
        place=Place(where, "", 0),
        strings_are_tags=False,
    )
    if prompt.text is None and "txt" in data:
        prompt = replace(prompt, text=_decoded(data["txt"], where=f"{where}.txt").strip())
    if prompt.class_label is None and "cls" in data:
        label = _decoded(data["cls"], where=f"{where}.cls").strip()
        if not (label.isascii() and label.isdecimal()):
            raise InputError(f"{where}.cls: expected a class index, got {label[:20]!r}; mend it")
        prompt = replace(prompt, class_label=int(label))
    if isinstance(attachments, Mapping):
        present = {name: part for name, part in attachments.items() if part in parts}
        prompt = replace(prompt, attachments=present)
    return prompt


def _decoded(data: bytes, *, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: expected UTF-8, got the byte 0x{data[error.start]:02x}; write the tar again"
        ) from error
