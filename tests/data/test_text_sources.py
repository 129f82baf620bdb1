import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluator.data import PackOptions, open_source, pack
from evaluator.errors import InputError
from evaluator.records import Prompt


def packed(tmp_path: Path, name: str, content: str | bytes, **options) -> list[Prompt]:
    source = tmp_path / name
    source.write_bytes(content.encode() if isinstance(content, str) else content)
    return pack(source, tmp_path / f"{name}.pack", options=PackOptions(**options)).prompts()


def test_text_lines_become_prompts_under_their_line_numbers(tmp_path: Path) -> None:
    prompts = packed(tmp_path, "p.txt", "\ufeffa cat\r\n\n  a dog \n")
    assert [(p.key, p.text) for p in prompts] == [("0000001", "a cat"), ("0000003", "a dog")]


def test_json_lines_fill_every_field(tmp_path: Path) -> None:
    line = {
        "id": 7, "prompt": "two birds", "negative_prompt": "blurry", "class_label": 3,
        "tags": {"region": "Asia"}, "tag": "counting", "seed": 5, "note": "free",
        "include": [{"class": "bird", "count": 2}], "metadata": {"source": "x"},
    }  # fmt: skip
    (prompt,) = packed(tmp_path, "p.jsonl", json.dumps(line) + "\n\n")
    assert prompt == Prompt(
        key="7",
        text="two birds",
        negative_prompt="blurry",
        class_label=3,
        tags={"region": "Asia", "tag": "counting"},
        objects=({"class": "bird", "count": 2},),
        metadata={"source": "x", "seed": 5, "note": "free"},
    )


def test_unconditional_prompts_are_keys_only(tmp_path: Path) -> None:
    prompts = packed(tmp_path, "p.jsonl", '{"key": "a"}\n{"key": "b"}\n')
    assert [(p.key, p.text) for p in prompts] == [("a", None), ("b", None)]


def test_an_explicit_empty_prompt_is_a_text(tmp_path: Path) -> None:
    (prompt,) = packed(tmp_path, "p.jsonl", '{"text": ""}\n')
    assert prompt.text == ""


def test_a_list_of_captions_gives_the_first_and_keeps_all(tmp_path: Path) -> None:
    (prompt,) = packed(tmp_path, "p.jsonl", '{"captions": ["one", "two"]}\n')
    assert prompt.text == "one"
    assert prompt.metadata["captions"] == ["one", "two"]


@pytest.mark.parametrize(("name", "separator"), [("p.csv", ","), ("p.tsv", "\t")])
def test_table_columns_that_mean_nothing_become_tags(
    tmp_path: Path, name: str, separator: str
) -> None:
    rows = [["Prompt", "Category", "label"], ['"a ""red"" cat"', "Animals", "4"], ["b", "", ""]]
    prompts = packed(tmp_path, name, "\n".join(separator.join(row) for row in rows))
    assert [(p.key, p.text) for p in prompts] == [("0000001", 'a "red" cat'), ("0000002", "b")]
    assert prompts[0].tags == {"Category": "Animals"}
    assert prompts[0].class_label == 4
    assert prompts[1].tags == {}


def test_named_columns_are_taken_and_an_empty_key_column_numbers_rows(tmp_path: Path) -> None:
    content = "id,words\nbad.key,hello\n"
    (prompt,) = packed(tmp_path, "p.csv", content, text_column="words", key_column="")
    assert (prompt.key, prompt.text, prompt.tags) == ("0000001", "hello", {"id": "bad.key"})


def test_attachments_are_packed_beside_the_prompt(tmp_path: Path, make_picture) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "1.v2.PNG").write_bytes(make_picture())
    source = tmp_path / "p.jsonl"
    source.write_text('{"key": "a", "text": "x", "attachments": {"control": "maps/1.v2.PNG"}}\n')
    found = pack(source, tmp_path / "out")
    assert found.prompt("a").attachments == {"control": "control.png"}
    assert found.read("a", "control.png") == make_picture()
    assert found.image_part("a") is None
    assert found.image("a", part="control.png").shape == (3, 5, 7)


def test_a_changed_attachment_is_packed_again(tmp_path: Path, cache: Path, make_picture) -> None:
    source = tmp_path / "p.jsonl"
    source.write_text('{"key": "a", "text": "x", "attachments": {"init": "i.png"}}\n')
    (tmp_path / "i.png").write_bytes(make_picture(1))
    first = open_source(source, cache=cache)
    (tmp_path / "i.png").write_bytes(make_picture(2))
    assert open_source(source, cache=cache).fingerprint != first.fingerprint


texts = st.lists(
    st.builds(
        dict,
        text=st.text(st.characters(codec="utf-8"), max_size=30),
        note=st.none() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=5),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts)
def test_any_text_comes_back_as_it_went_in(tmp_path_factory, records: list[dict]) -> None:
    folder = tmp_path_factory.mktemp("round")
    content = "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    prompts = packed(folder, "p.jsonl", content)
    assert [p.text for p in prompts] == [record["text"] for record in records]


REFUSED = [
    ("p.jsonl", '{"text": "a"}\n{"text" "b"}', r"p\.jsonl, line 2: expected one JSON object"),
    ("p.jsonl", '["a"]', r"line 1: expected a JSON object, got list"),
    ("p.jsonl", '{"text": NaN}', r"line 1.*NaN is not JSON"),
    ("p.jsonl", '{"text": "\\ud800"}', r"line 1: expected one JSON object"),
    ("p.jsonl", '{"promt": "a"}', r"did you mean 'prompt' by 'promt'"),
    ("p.jsonl", '{"text": 5}', r"line 1: expected 'text' to be a string, got 5"),
    ("p.jsonl", '{"text": "a", "class_label": "x"}', r"expected 'class_label' to be a class"),
    ("p.jsonl", '{"text": "a", "tags": {"n": 1}}', r"expected 'tags' to hold strings, got 1"),
    ("p.jsonl", '{"text": "a", "objects": "cat"}', r"expected 'objects' to be a list of objects"),
    ("p.jsonl", '{"key": "a"}\n{"key": "a"}', r"line 2: expected each key once, got 'a' again"),
    ("p.jsonl", '{"key": "img.v1"}', r"line 1: expected 'key' to be a key.*got 'img\.v1'"),
    ("p.jsonl", '{"key": "../../etc/a"}', r"replace dots, slashes"),
    ("p.jsonl", '{"key": "a", "text": "x"}\n{"key": "b"}', r"line 2.*expected a text for every"),
    ("p.jsonl", '{"text": "a", "attachments": {"i": "../b.png"}}', r"attachment's plain name"),
    ("p.jsonl", '{"text": "a", "attachments": {"i": "no.png"}}', r"no\.png: expected a readable"),
    ("p.jsonl", "[" * 100_000, r"line 1: expected one JSON object"),
    ("p.txt", "\n \n", r"p\.txt: expected at least one prompt or image, got none"),
    ("p.txt", b"a\nb\xff\n", r"p\.txt, line 2: expected UTF-8, got the byte 0xff at column 2"),
    ("p.txt", "a".encode("utf-16"), r"got UTF-16; save it again as UTF-8"),
    ("p.csv", "a,b\n1,2\n", r"expected a column with the prompts.*got \['a', 'b'\]"),
    ("p.csv", "prompt;n\na;1\n", r"another separator seems to be used"),
    ("p.csv", "captoin,n\na,1\n", r"did you mean 'caption' by 'captoin'"),
    ("p.csv", "text,n\na,1,2\n", r"line 2: expected 2 columns as in the header, got 3"),
    ("p.csv", 'text\n"a\nb\n', r"expected a well-formed row.*close every quote"),
    ("p.csv", "text,text\na,b\n", r"line 1: expected each column once, got \['text'\]"),
    ("p.csv", "text,n\na,1\n,2\n", r"line 3.*expected a text for every sample"),
    ("p.csv", "", r"expected at least one prompt"),
    ("p.json", "[]", r"write one object on each line and call it \.jsonl"),
    ("p.jsnl", "", r"did you mean \.jsonl\?"),
    ("p", "", r"got 'no extension'"),
]


@pytest.mark.parametrize(("name", "content", "message"), REFUSED)
def test_a_faulty_source_is_refused_with_place_and_remedy(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(InputError, match=f"(?s){message}"):
        packed(tmp_path, name, content)
    assert not list(tmp_path.glob(".*")), "a half-written pack was left behind"
    assert not (tmp_path / f"{name}.pack").exists()


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("a")
    with pytest.raises(InputError, match=r"did you mean .*captions\.txt\?"):
        pack(tmp_path / "caption.txt", tmp_path / "out")


def test_a_named_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a column 'words', got \['text'\]"):
        packed(tmp_path, "p.csv", "text\na\n", text_column="words")
