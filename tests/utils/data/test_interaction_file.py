"""Files as people have them give what the project's own format gives, and one line says how they were read."""

import numpy as np
import pytest
import torch
from cli_tools import places, run_here, trained
from helpers import ROWS, ones, problems_of, toy_config, write_set

from utils.data.dataset import SPLITS
from utils.data.loading import load_dataset

WORDS = (
    {0: "train", 1: "valid", 2: "test"},
    {0: "Train", 1: "dev", 2: "TEST"},
    {0: "training", 1: "val", 2: "testing"},
)
HEADERS = (
    ("userID", "itemID", "x_label"),
    ("user_id:token", "item_id:token", "split:token"),
    ("user", "asin", "split"),
)


@pytest.mark.parametrize("separator", ["\t", ",", " ", ";", "|", ", "])
@pytest.mark.parametrize("style", range(3))
@pytest.mark.parametrize("quoted", [False, True])
def test_separators_quotes_marks_types_and_words(separator, style, quoted, tmp_path):
    expected = load_dataset(toy_config("toy", data_path=str(write_set(tmp_path / "plain").parent)))
    folder = write_set(tmp_path / "own")
    field = '"{}"' if quoted else "{}"
    rows = [HEADERS[style], *((user, item, WORDS[style][label]) for user, item, label in ROWS)]
    text = "\r\n".join(separator.join(field.format(value) for value in row) for row in rows)
    (folder / "toy.inter").write_bytes(b"\xef\xbb\xbf" * quoted + text.encode())
    found = load_dataset(toy_config("toy", data_path=str(folder.parent)))
    for split in SPLITS:
        np.testing.assert_array_equal(found.splits[split].users, expected.splits[split].users)
        np.testing.assert_array_equal(found.splits[split].items, expected.splits[split].items)
    parts = [f"separator {separator[:1]!r}"] if separator != "\t" else []
    if style:
        names = zip(HEADERS[style], HEADERS[0], strict=True)
        parts.append("columns " + ", ".join(f"{name} as {ours}" for name, ours in names))
    assert found.remarks == ([f"toy.inter: read with {', '.join(parts)}"] if parts else [])
    assert set(found.remarks) <= {line.strip() for line in found.statistics()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_tensors_of_any_width_are_features(dtype, tmp_path):
    folder = write_set(tmp_path, features={})
    values = torch.arange(8).reshape(4, 2) / 4
    torch.save(values.to(dtype), folder / "image_feat.pt")
    for modalities in (None, {"visual": "image_feat.npy"}):
        dataset = load_dataset(toy_config("toy", data_path=str(tmp_path), modalities=modalities))
        np.testing.assert_array_equal(dataset.features["visual"], values.numpy(), strict=True)
        told = str(dtype).removeprefix("torch.")
        assert dataset.remarks == (
            [f"image_feat.pt: {told}, read as float32"] if told in ("float64", "float16") else []
        )


def test_code_in_a_tensor_file_is_refused(tmp_path):
    folder = write_set(tmp_path, features={})
    torch.save({"anything": print}, folder / "image_feat.pt")
    (problem,) = problems_of(lambda: load_dataset(toy_config("toy", data_path=str(tmp_path))))
    assert problem.startswith("image_feat.pt (visual): not a numeric .pt array: ")


def test_ids_in_words_name_the_command_that_numbers_them_and_it_works(tmp_path):
    folder = write_set(tmp_path / "data", [(f"u{user}", f"i{item}", label) for user, item, label in ROWS], {})
    words = ("-m", "MostPop", *places(tmp_path), "--topk", 2, "--valid_metric", "recall@2", "--quiet")
    refused = run_here(*words, "-d", "toy")
    assert refused.code == 2
    command = f"main.py convert mmrec {folder} {folder}-numbered --renumber"
    for line, column, example in zip(refused.err.splitlines(), ("userID", "itemID"), ("u0", "i0"), strict=True):
        assert f"toy.inter: {column} holds ids that are no numbers, such as '{example}'; `{command}` numbers" in line
    trained(*command.split()[1:])
    trained(*words, "-d", "toy-numbered")


def test_the_default_cut_offs_are_those_that_a_small_set_allows(tmp_path):
    rows = [(user, item, (item + user) % 30 % 3) for user in range(20) for item in range(30) if (user * item) % 4 == 0]
    write_set(tmp_path / "data", rows, {"image_feat.npy": ones(30, 2)})
    words = ("-m", "MostPop", "-d", "toy", *places(tmp_path), "--quiet", "--beyond_accuracy")
    outcome = trained(*words)
    assert "topk: 50 left out of the default: 'toy' has 30 items" in outcome.out
    assert "@20" in outcome.out
    assert "@50" not in outcome.out
    explicit = run_here(*words, "--topk", 5, 20, 50)
    assert (explicit.code, explicit.err) == (2, "error: topk: 50 is more than the 30 items of 'toy'\n")
