"""Every example and the lecture run, as a reader would run them."""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LECTURE = ROOT / "docs" / "lecture.md"

# What the run must have shown, beyond not failing: the point of each.
EXPECTED = {
    "perceptron": r"or with sign: .* after \d epochs \(target_cost\)",
    "xor": r"2-4-1 net: +100% right",
    "batch_sizes": r"stochastic +1 +1348 +0\.0\d+ +9\d\.\d%",
    "learning_rate": r"0\.5 +0\.0000 .*arrives in one step",
    "momentum": r"SGD, momentum 0\.8 +\d\d\n(.*\n)*SGD, Nesterov 0\.8 +\d\d\n",
    "scaling": r"as is .* 5\d\.\d%\n(.*\n)*zscore .* 9\d\.\d%",
    "digits": r"held-out accuracy 9\d\.\d+%",
}

pytestmark = pytest.mark.skipif(not EXAMPLES, reason="examples are in the source tree only")


def test_every_example_is_known():
    assert {path.stem for path in EXAMPLES} == set(EXPECTED)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, tmp_path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60
    arguments = []
    if path.stem == "learning_rate":
        pytest.importorskip("matplotlib")
        arguments = [str(tmp_path / "descent.png")]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={
            **os.environ,
            "MPLBACKEND": "Agg",
            "PYTHONPATH": os.pathsep.join(sys.path),
            # Threads that wait for each other are slow where the tests share the processors.
            "FASTRNA_NUM_THREADS": "1",
        },
    )
    assert done.returncode == 0, done.stderr
    assert re.search(EXPECTED[path.stem], done.stdout), done.stdout
    if arguments:
        assert Path(arguments[0]).read_bytes()[1:4] == b"PNG"


@pytest.mark.skipif(not LECTURE.exists(), reason="docs are in the source tree only")
def test_lecture():
    result = doctest.testfile(
        str(LECTURE), module_relative=False, encoding="utf-8", optionflags=doctest.ELLIPSIS
    )
    assert result.attempted > 30
    assert result.failed == 0
