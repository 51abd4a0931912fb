"""Reading rows: each accessor says which row, what was found and what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import DataError
from harness.rows import Row, read_json, read_rows

ROW = Row(path=Path("f.jsonl"), number=4, data={"s": "x", "n": 3, "b": True, "l": ["a", 1], "o": [{"k": 1}], "blank": " "})


def test_accessors_give_the_value_of_the_right_kind() -> None:
    assert (ROW.text("s"), ROW.integer("n"), ROW.flag("b"), ROW.items("l"), ROW.text("blank", blank=True)) == ("x", 3, True, ["a", 1], " ")
    assert ROW.rows("o")[0].integer("k") == 1


@pytest.mark.parametrize(
    ("read", "complaint"),
    [
        (lambda: ROW.text("n"), "'n' is a number (3), expected a string"),
        (lambda: ROW.text("blank"), "'blank' is empty"),
        (lambda: ROW.integer("b"), "'b' is a boolean (true), expected an integer"),
        (lambda: ROW.flag("n"), "'n' is a number (3), expected true or false"),
        (lambda: ROW.texts("l"), "expected a list of strings"),
        (lambda: ROW.items("s"), "expected a list"),
        (lambda: ROW.rows("l"), 'l[0] is a string ("a"), expected an object'),
        (lambda: ROW.text("gone"), "the key 'gone' is missing, expected a string there; the row has 's', 'n'"),
    ],
)
def test_a_misfit_names_path_row_key_and_kind(read: object, complaint: str) -> None:
    assert callable(read)
    with pytest.raises(DataError) as caught:
        read()
    assert str(caught.value).startswith("f.jsonl, row 4: ")
    assert complaint in str(caught.value)


def test_a_json_file_must_hold_a_list_of_objects(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    path.write_text('{"a": 1}')
    with pytest.raises(DataError, match="expected a list of objects"):
        read_rows(path)
    path.write_text("[{}, 3]")
    with pytest.raises(DataError, match="row 2: a number"):
        read_rows(path)
    path.write_text("[{},\n{]")
    with pytest.raises(DataError, match="not valid JSON at line 2, column 2"):
        read_json(path)
