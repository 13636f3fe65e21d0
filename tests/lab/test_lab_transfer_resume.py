"""A transfer that was killed goes on; tables of the lab's networks grow by a law."""

import json

import numpy as np
import pytest
from commands import refusal

from jaxinit import _paths, lab
from jaxinit.cli import main
from jaxinit.lab._train._draws import draw_all
from jaxinit.lab._train._finished import NAME, Finished
from jaxinit.lab._train.grid import Grid
from jaxinit.lab._tried._sweep import design_sweep

pytestmark = pytest.mark.usefixtures("quick_compiler")

WORDS = ["transfer", "--widths", "4,8", "--seeds", "1", "--steps", "4", "--lr"]
WORDS += ["2^-6:2^-4", "--batch-size", "8", "--depth", "2", "--parameterizations", "sp"]


@pytest.fixture
def killed(data_file, tmp_path, monkeypatch):
    """The words of a run that was killed after its first network."""
    monkeypatch.chdir(tmp_path)
    keep = Finished.add

    def add(finished, key, curve):
        if finished.curves:
            raise SystemExit("killed")
        keep(finished, key, curve)

    words = [*WORDS, "--data", str(data_file), "--out", "here", "--format", "json"]
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="killed"):
        patch.setattr(Finished, "add", add)
        main(words)
    return words


@pytest.mark.slow
def test_a_killed_run_goes_on(killed, tmp_path, capsys, monkeypatch):
    saved = tmp_path / "here" / NAME
    assert "here has a run that has not ended; --resume goes on" in refusal(
        killed, capsys
    )
    for words, said in [
        (["--resume", "--overwrite"], "--resume and --overwrite exclude each other"),
        (["--resume", "--lr", "2^-7:2^-5"], "the saved run has 0.015625; overwrite"),
        (["--resume", "--widths", "4,16"], "(widths[1]=16): the saved run has 8"),
    ]:
        assert said in refusal([*killed, *words], capsys)
    content = saved.read_text()
    saved.write_text(content.replace('"curves"', '"curved"'))
    said = refusal([*killed, "--resume"], capsys)
    assert "cannot read trained.json: ValueError: it is damaged; overwrite=True" in said
    saved.write_text(content)

    monkeypatch.setattr("jaxinit._panels.png", lambda figure: b"picture")
    monkeypatch.setattr(lab.TransferResult, "plot", lambda result: None)
    monkeypatch.setattr("jaxinit.lab._show._transfer_page.page", lambda *given: "page")
    trained, train = [], Grid.run
    monkeypatch.setattr(Grid, "run", lambda grid: trained.append(grid) or train(grid))
    assert main([*killed, "--resume"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(trained) == 1 and not saved.exists()
    assert "here has complete results" in refusal([*killed, "--resume"], capsys)
    assert main([*killed, "--overwrite"]) == 0
    anew = json.loads((tmp_path / "here" / "results.json").read_text())
    assert anew["cells"] == told["cells"] and len(trained) == 3


@pytest.mark.slow
def test_a_run_that_starts_anew_forgets_the_one_before(killed, tmp_path, monkeypatch):
    """Though it is killed before it has trained a network."""
    saved = tmp_path / "here" / NAME
    assert saved.exists()

    def die(grid):
        raise SystemExit("killed")

    monkeypatch.setattr(Grid, "run", die)
    with pytest.raises(SystemExit, match="killed"):
        main([*killed, "--overwrite"])
    assert not saved.exists()


def test_tables_of_the_labs_networks_have_a_law():
    """As `nn.Embed` draws them: smaller as they grow wider, unless a scale says no."""
    sweep = design_sweep(
        model="transformer",
        data=None,
        task="text",
        widths=(8, 32),
        depths=None,
        base=None,
        parameterizations=["sp", "mup"],
        initializer="role:readout: zeros(); he_normal()",
        lr=(0.01, 0.04),
        lr_step=2.0,
        settings={"depth": 1, "steps": 1, "seeds": 1},
    )
    drawn, readouts = {}, {}
    for key, run in sweep.experiments.items():
        (rules,), x = run.settings.initializers, run.task.x_train[:1]
        named = _paths.named(draw_all(run.network, [rules], 1, x)["params"])
        readouts[key] = dict(named)["Dense_2/kernel"]
        drawn[key] = {path: leaf for path, leaf in named if "embedding" in path}
    assert len(drawn["sp", 8]) == 2 and not any(map(np.any, readouts.values()))
    for path, table in drawn["sp", 8].items():
        np.testing.assert_array_equal(table, drawn["mup", 8][path])
        for key, width in [(("sp", 8), 8), (("sp", 32), 32), (("mup", 32), 8)]:
            spread = drawn[key][path].std() * width**0.5
            assert abs(spread - 1) < 0.16, key  # 5 / sqrt(2 · 64 · 8)
