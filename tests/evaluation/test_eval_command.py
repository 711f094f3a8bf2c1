import importlib.util
from pathlib import Path

import pytest

from mmembed.errors import InputError

COMMAND = Path(__file__).parents[2] / "eval" / "run.py"


@pytest.fixture(scope="module")
def command():
    spec = importlib.util.spec_from_file_location("eval_run", COMMAND)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ROW = "tasks:\n  captions: {data: captions, metric: hit@1}\n"


def test_a_benchmark_is_found_by_path_else_by_name(command, tmp_path, monkeypatch):
    (tmp_path / "toy.yaml").write_text(ROW)
    monkeypatch.setattr(command, "BENCHMARKS", tmp_path)

    assert command.find_benchmark("toy") == command.find_benchmark(str(tmp_path / "toy.yaml"))
    with pytest.raises(InputError, match=r"--benchmark: .* got 'tyo'; did you mean 'toy'\?"):
        command.find_benchmark("tyo")


def test_a_wrong_task_ends_the_command_before_the_model_is_loaded(command, tmp_path, capsys):
    path = tmp_path / "toy.yaml"
    path.write_text(ROW)
    arguments = [
        "--model",
        "nowhere",
        "--benchmark",
        str(path),
        "--output",
        str(tmp_path / "out"),
        "--tasks",
        "caption",
    ]

    assert command.main(arguments) == 2

    assert "a task of toy, got 'caption'; did you mean 'captions'?" in capsys.readouterr().err


def test_the_help_teaches(command, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])

    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert "python eval/run.py --model runs/demo/final --benchmark demo" in text
    assert "torchrun --nproc-per-node" in text
    assert "$MMEMBED_DATA" in text
