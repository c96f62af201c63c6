"""Original ids from mapping files, however they are separated; numbers where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import problems_of

from utils.data.id_mapping import original_ids


def ids(data: Path, field: str = "userID", n: int = 2) -> list[str]:
    return original_ids({"data_path": str(data), "dataset": "toy"}, field, n)


def write(data: Path, text: str, name: str = "u_id_mapping.csv") -> None:
    (data / "toy").mkdir(exist_ok=True)
    (data / "toy" / name).write_text(text)


def test_without_a_folder_or_file_ids_are_the_numbers(tmp_path):
    assert ids(tmp_path, n=3) == ["0", "1", "2"]
    write(tmp_path, "user_id\tuserID\nA\t0\nB\t1\n", "u_id_mapping.txt")
    assert ids(tmp_path) == ["0", "1"]


@pytest.mark.parametrize(
    "text",
    [
        "user_id\tuserID\nA1\t0\nB 2,x\t1\n",
        'user_id,userID\nA1,0\n"B 2,x",1\n',
        "userID\tuser\n1\tB 2,x\n0\tA1\n",
        "userID\tx\n0\tA1\n1\tB 2,x\n7\tbeyond\n",
    ],
)
def test_separator_and_order_of_the_columns_are_found(tmp_path, text):
    write(tmp_path, text)
    assert ids(tmp_path) == ["A1", "B 2,x"]


def test_names_stay_words(tmp_path):
    write(tmp_path, "user_id\tuserID\nNA\t0\n007\t1\nnull\t2\n1.0\t3\n")
    assert ids(tmp_path, n=4) == ["NA", "007", "null", "1.0"]


def test_users_and_items_each_have_their_file(tmp_path):
    write(tmp_path, "user_id\tuserID\nA\t0\nB\t1\n")
    write(tmp_path, "asin\titemID\nX\t1\nY\t0\n", "i_id_mapping.tsv")
    assert ids(tmp_path, "userID") == ["A", "B"]
    assert ids(tmp_path, "itemID") == ["Y", "X"]


def test_table_of_more_than_two_columns_is_no_mapping(tmp_path):
    write(tmp_path, "user_id\tuserID\tage\nA\t0\t3\nB\t1\t4\n")
    assert ids(tmp_path) == ["0", "1"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("user_id\tuserID\nA\t0\n", "u_id_mapping.csv: no row for userID 1 (1 missing)"),
        ("user_id\tuserID\nA\t7\n", "u_id_mapping.csv: no row for userID 0 (2 missing)"),
        ("user_id\tuserID\nA\t0\nB\tx\n", "u_id_mapping.csv: column userID holds 'x', no integer from 0 up"),
        ("user_id\tuserID\nA\t0\nB\t1.5\n", "u_id_mapping.csv: column userID holds '1.5', no integer from 0 up"),
        ("user_id\tuserID\nA\t0\nB\t-1\n", "u_id_mapping.csv: column userID holds '-1', no integer from 0 up"),
        ("user_id\tuserID\nA\t0\nB\t1e400\n", "u_id_mapping.csv: column userID holds '1e400', no integer from 0 up"),
        ("user_id\tuserID\nA\t0\nB\t\n", "u_id_mapping.csv: column userID holds '', no integer from 0 up"),
        ("", "u_id_mapping.csv: cannot be read as a mapping file: Could not determine delimiter"),
        ('user_id\tuserID\n"A\t0\n', "u_id_mapping.csv: cannot be read as a mapping file: unexpected end of data"),
    ],
)
def test_bad_mapping_file_is_refused_with_its_reason(tmp_path, text, line):
    write(tmp_path, text)
    assert problems_of(lambda: ids(tmp_path)) == [line]
