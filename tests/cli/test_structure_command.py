"""``jaxinit structure``: roles of a model's parameters on the command line."""

import json

import pytest
from commands import refusal, write_models

from jaxinit.cli import main

MODELS = """
import flax.linen as nn
import jax.numpy as jnp


class Net(nn.Module):
    width: int = 16

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.relu(nn.Dense(self.width)(x))
        x = x + nn.Dense(self.width)(nn.Dropout(0.5, deterministic=not train)(x))
        return nn.Dense(3)(x)


words = (lambda key: {"w": jnp.ones((50, 4))}, lambda params, ids: params["w"][ids])
"""


@pytest.fixture
def models(tmp_path, monkeypatch):
    return write_models(MODELS, tmp_path, monkeypatch)


def test_a_table_of_roles(models, capsys):
    assert main(["structure", f"{models}:Net", "--input", "2x8", "--no-train"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split()[2] for line in lines[2:]}
    assert rows == {
        "Dense_0/bias": "bias",
        "Dense_0/kernel": "input",
        "Dense_1/bias": "bias",
        "Dense_1/kernel": "residual",
        "Dense_2/bias": "bias",
        "Dense_2/kernel": "readout",
    }


def test_integers_need_no_vocabulary(models, capsys):
    words = ["structure", f"{models}:words", "--input", "2x8:int32", "--json", "-"]
    assert main(words) == 0
    (row,) = json.loads(capsys.readouterr().out)["parameters"]
    assert row["roles"] == ["embedding"] and row["fans"] == [1, 4]


def test_an_outline_and_a_file(models, capsys, tmp_path):
    words = ["structure", f"{models}:Net", "--input", "2x8", "--outline"]
    assert main([*words, "--json", "rows.json", "--set", "width=4"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [
        "│ Dense_0/kernel  input → relu",
        "├─ Dense_1/kernel  residual",
        "│ Dense_2/kernel  readout",
        "Written to rows.json",
    ]
    assert json.loads((tmp_path / "rows.json").read_text())["branches"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["Net", "--input", "2x8", "--train=yes"], "--train"),
        (["Net", "--input", "2x"], "a shape is sizes of 1 or above"),
        (["words", "--input", "2x8:int32", "--train"], "no argument of these: train"),
        (["nothing", "--input", "2x8"], "nothing"),
        (["Net", "--input", "2x8", "--json", "gone/rows.json"], "gone"),
        (["Net", "--input", "2x8", "--json", "-", "--outline"], "leave --outline out"),
    ],
)
def test_wrong_words(models, capsys, words, said):
    refused = refusal(["structure", f"{models}:{words[0]}", *words[1:]], capsys)
    assert said in refused
