"""The GPU benchmark, as far as a machine without a GPU can run it."""

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

PROGRAM = Path(__file__).parents[1] / "benchmarks/gpu.py"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run it with these arguments, as if there were no GPU."""

    def run_it(*arguments: str) -> str:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(sys, "argv", [str(PROGRAM), *arguments])
        try:
            runpy.run_path(str(PROGRAM), run_name="__main__")
        except SystemExit as ended:
            assert ended.code == 0, capsys.readouterr().out
        return capsys.readouterr().out

    return run_it


def test_without_a_gpu_it_says_so_in_one_line(run: Callable[..., str]) -> None:
    told = run()
    assert told.startswith("skipped: torch sees no GPU here") and told.count("\n") == 1


@pytest.mark.slow
def test_the_same_code_on_a_cpu(run: Callable[..., str]) -> None:
    told = run("--device", "cpu", "--tiny", "--seconds", "0.2", "--rounds", "1", "--compile", "no")
    line = next(line for line in told.splitlines() if line.startswith("tiny      eager"))
    numbers = [float(number.replace(",", "")) for number in re.findall(r"\d[\d,.]*", line)]
    bare, bare_share, engine, engine_share, of_bare, noise, decode_ms, waits = numbers
    assert min(bare, engine, noise, decode_ms) > 0 and 0 <= waits <= 100
    # shares of one number, which is printed as well: a rate to a whole draw, a share to a tenth of a percent
    rounding = 0.06 + of_bare * (0.5 / engine + 0.5 / bare)
    assert of_bare == pytest.approx(100 * engine / bare, abs=rounding)
    flops = 1e9 * float(re.search(r"tiny: ([\d.]+) GFLOP", told)[1])
    reached = 1e12 * float(re.search(r"reach ([\d.,e+-]+) TFLOP/s", told)[1].replace(",", ""))
    for rate, share in ((bare, bare_share), (engine, engine_share)):
        rounding = 0.06 + share * (0.5 / rate + 1e-3)
        assert share == pytest.approx(100 * rate * flops / reached, abs=rounding)
    # the products of a vision transformer, counted by hand: 16 patches and a class token of width 64, 2 layers
    tokens, width, layers = 17, 64, 2
    linear = (4 + 2 * 4) * tokens * width * width  # query, key, value, output; two products of the MLP
    attention = 2 * tokens * tokens * width
    patches = 16 * width * (3 * 8 * 8)
    projection = width * 32
    assert flops == pytest.approx(2 * (patches + layers * (linear + attention) + projection), rel=1e-5)
