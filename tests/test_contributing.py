"""The model of docs/contributing.md runs as it is pasted."""

import re
import textwrap

from cli_tools import ROOT, places, trained


def test_the_skeleton_trains_as_it_is_pasted(tmp_path):
    text = (ROOT / "docs/contributing.md").read_text()
    for kind, name in (("python", "mymodel.py"), ("yaml", "MyModel.yaml")):
        (block,) = re.findall(rf"^ *```{kind}\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
        (tmp_path / name).write_text(textwrap.dedent(block))
    words = ("--plugin", tmp_path / "mymodel.py", "-d", "demo", "--epochs", 1, "--quiet")
    assert "best epoch 1 of 1" in trained(*words, *places(tmp_path)).out
