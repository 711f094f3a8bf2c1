import subprocess
import sys

import pytest

from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Passing, Task, read_benchmark

ROWS = """\
tasks:
  captions:
    data: toy/captions
    metric: hit@1
    query_instruction: Find the caption.
    ks: [1, 5]
    ties: pessimistic
    blind: [grey_image]
    passing: {blind_margin: 0.2}
  questions: {data: toy/questions, metric: ndcg_linear@5, candidates: local}
"""


def written(tmp_path, text):
    path = tmp_path / "toy.yaml"
    path.write_text(text)
    return path


def test_rows_become_tasks_in_the_order_of_the_file(tmp_path):
    benchmark = read_benchmark(written(tmp_path, ROWS))

    assert benchmark.name == "toy"
    assert list(benchmark.tasks) == ["captions", "questions"]
    assert benchmark.tasks["captions"] == Task(
        name="captions",
        data="toy/captions",
        metric="hit@1",
        query_instruction="Find the caption.",
        ks=(1, 5),
        ties="pessimistic",
        blind=("grey_image",),
        passing=Passing(chance_factor=3.0, blind_margin=0.2, aim=0.8),
    )
    assert benchmark.tasks["questions"].candidates == "local"


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        (
            "metric: hit@1",
            "metric: hut@1",
            r"tasks.captions: metric: expected metric@k, got 'hut@1'; did you mean 'hit'\?",
        ),
        ("blind: [grey", "blind: [gray", r"tasks.captions: blind: .* got 'gray_image'; did you mean 'grey_image'\?"),
        ("blind:", "blnd:", r"tasks.captions.blnd: expected a setting of Task, got 'blnd'; did you mean 'blind'\?"),
        ("ks: [1, 5]", "ks: [0]", r"tasks.captions: ks: expected cut-offs of at least 1, got \[0\]"),
        ("data: toy", "data: ../toy", r"tasks.captions: data: .* got '../toy/captions'"),
        ("    data: toy/captions\n", "", r"tasks.captions.data: expected a value, got nothing"),
        ("ties: pessimistic", "name: other", r"tasks.captions.name: expected no such field, got 'other'"),
        ("captions:\n", "a/b:\n", r"tasks.a/b: name: .* got 'a/b'"),
        ("ks: [1, 5]", "metric: hit@5", r"line 6: metric: expected each key once"),
        ("blind_margin: 0.2", "blind_margin: much", r"passing.blind_margin: expected float, got 'much'"),
        ("blind_margin", "margin", r"passing.margin: .* did you mean 'blind_margin'\?"),
        ("tasks:", "rows:", r"expected one key, tasks: .* got rows"),
        ("questions: {", "questions: [{", r"YAML|expected"),
    ],
)
def test_a_wrong_row_is_refused_by_file_task_and_field(tmp_path, right, wrong, message):
    path = written(tmp_path, ROWS.replace(right, wrong, 1))

    with pytest.raises(InputError, match=message) as caught:
        read_benchmark(path)

    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(("text", "got"), [("- a\n", "list"), ("tasks: {}\n", "tasks"), ("tasks: {a: 1}\n", "int")])
def test_a_file_of_another_shape_says_what_it_is(tmp_path, text, got):
    with pytest.raises(InputError, match=f"got {got}"):
        read_benchmark(written(tmp_path, text))


def test_only_keeps_the_order_of_the_benchmark_and_names_the_nearest(tmp_path):
    benchmark = read_benchmark(written(tmp_path, ROWS))

    assert list(benchmark.only(["questions", "captions"]).tasks) == ["captions", "questions"]
    with pytest.raises(InputError, match=r"a task of toy, got 'caption'; did you mean 'captions'\?"):
        benchmark.only(["caption"])


def test_reading_rows_does_not_import_torch():
    code = "import sys, mmembed.evaluation.benchmark; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
