"""The command line, in this process and as a user runs it."""

import re
import subprocess
import sys

import numpy as np
import pytest

import fastrna
from fastrna.cli import main


def fields(text):
    """Return the report's lines of a name and a value."""
    return dict(re.findall(r"^(\S+(?: \S+)*?) {2,}(\S.*)$", text, flags=re.MULTILINE))


@pytest.fixture
def fewer_timings(monkeypatch):
    """Leave out the comparison with the reference, which is most of the time."""
    monkeypatch.setattr("fastrna.cli._epoch_seconds", lambda *_: (0.001, 0.004))


def test_demo_reports_what_it_promises():
    done = subprocess.run(
        [sys.executable, "-m", "fastrna", "demo"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    report = fields(done.stdout)
    accuracy = float(report["held-out accuracy"].split("%")[0])
    assert accuracy >= 97.0
    assert 0.0 < float(report["final cost"]) < 0.1
    assert float(report["seconds"].split()[0]) > 0.0
    assert int(report["examples/s"].replace(",", "")) > 1000
    assert report["kernel variant"] == fastrna.isa()
    assert int(report["threads"].split()[0]) >= 1
    assert re.match(
        r"\d+\.\dx: an epoch takes [\d.]+ ms, in NumPy .* [\d.]+ ms", report["speed-up"]
    )
    assert "The worst digits" in done.stdout
    assert re.search(r"^ +\d( +[\d.]+){10} +\d+\.\d%$", done.stdout, flags=re.MULTILINE)


def test_demo_saves_a_network_that_takes_raw_pixels(tmp_path, capsys, fewer_timings):
    path = tmp_path / "digits.npz"
    assert main(["demo", "--epochs", "10", "--save", str(path)]) == 0
    assert "saved to" in capsys.readouterr().out
    net = fastrna.Network.load(path)
    X, y = fastrna.datasets.load_digits()
    assert (net.predict(X).argmax(axis=1) == y).mean() > 0.95


def test_demo_draws(tmp_path, capsys, fewer_timings):
    pytest.importorskip("matplotlib")
    for name, drawn in (("demo.png", "demo.png"), ("demo.PNG", "demo.PNG"), ("other", "other.png")):
        assert main(["demo", "--epochs", "2", "--plot", str(tmp_path / name)]) == 0
        assert (tmp_path / drawn).read_bytes()[1:4] == b"PNG"


def test_demo_asks_for_matplotlib_before_it_trains(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["demo", "--plot", "demo.png"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "fastrna: Pictures need matplotlib: pip install 'fastrna[plot]'.\n"


def test_demo_is_repeatable_and_obeys_its_options(capsys, fewer_timings):
    def run(*options):
        assert main(["demo", "--epochs", "3", *options]) == 0
        report = fields(capsys.readouterr().out)
        return report["held-out accuracy"], report["final cost"]

    first = run()
    assert run("--threads", "1") == first
    assert run("--threads", "2") == first
    assert run("--seed", "1") != first


def test_the_comparison_times_both():
    from fastrna.cli import _epoch_seconds

    X, y = fastrna.datasets.load_digits()
    net = fastrna.Network([64, 8, 10], output="softmax", seed=0)
    before = net.parameters.copy()
    ours, reference = _epoch_seconds(net, X[:64] / 16, y[:64], {"batch_size": 32}, 1)
    assert 0.0 < ours < 1.0
    assert 0.0 < reference < 1.0
    np.testing.assert_array_equal(net.parameters, before)


def test_info(capsys):
    assert main(["info"]) == 0
    report = fields(capsys.readouterr().out)
    assert report["fastrna"] == fastrna.__version__
    assert report["NumPy"] == np.__version__
    assert report["kernel variant"].startswith(fastrna.isa())
    for variant in fastrna.kernels.available():
        assert variant in report["kernel variant"]


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fastrna {fastrna.__version__}\n"
    assert main([]) == 0
    assert "demo" in capsys.readouterr().out
    assert main(["demo", "--help"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bake"], "invalid choice: 'bake'"),
        (["demo", "--epochs", "0"], "expected an integer from 1 to 1000000, not '0'"),
        (["demo", "--threads", "two"], "expected an integer from 1 to 1024, not 'two'"),
        (["demo", "--seed", "-1"], "expected an integer from 0 to 18446744073709551615, not '-1'"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_failure_is_a_sentence_and_not_a_traceback(tmp_path, capsys, fewer_timings):
    path = tmp_path / "none" / "net.npz"
    assert main(["demo", "--epochs", "1", "--save", str(path)]) == 1
    error = capsys.readouterr().err
    assert "fastrna: " in error
    assert "Traceback" not in error


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_a_closed_pipe_is_quiet():
    command = f"{sys.executable} -m fastrna info | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""


@pytest.mark.parametrize("option", ["--save", "--plot"])
def test_demo_looks_at_where_to_write_before_it_trains(option, capsys):
    assert main(["demo", option, "/no/such/folder/file"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"fastrna: {option} is '/no/such/folder/file', in a folder that does not exist.\n"
    )


def test_demo_looks_at_what_to_write_before_it_trains(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    for arguments, message in (
        (["--plot", str(tmp_path / "p.xyz")], "of kind 'xyz'; expected one of"),
        (["--plot", str(tmp_path)], "a folder; expected the name of a file."),
        (["--save", str(tmp_path)], "a folder; expected the name of a file."),
    ):
        assert main(["demo", *arguments]) == 1
        captured = capsys.readouterr()
        assert captured.out == "" and message in captured.err
