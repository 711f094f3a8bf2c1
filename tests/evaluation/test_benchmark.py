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
        ("ks: [1, 5]", 'query_layout: "{txt}"', r"captions: query_layout: layout: .* got '{txt}'; did you mean 'text'"),
        ("ks: [1, 5]", "published_as: questions", r"tasks.questions.published_as: .* got 'questions', as captions"),
        ("ks: [1, 5]", "modality: a, category: a".replace(", ", "\n    "), r"tasks.captions: .* got 'a' twice"),
        ("ks: [1, 5]", "category: QA", r"captions: category: expected a modality beside it, got 'QA' alone"),
        ("ks: [1, 5]", 'wordings: {"1": {}}', r"captions: wordings: expected other versions than prompts, got '1'"),
        (
            "ks: [1, 5]",
            "wordings: {2025: {}}",
            r'captions: wordings: expected versions as text, got 2025; write "2025"',
        ),
        ("ks: [1, 5]", "region_words: here", r"captions: region_words: expected words with {x0}.* got 'here'"),
        ("ks: [1, 5]", "query_regions: box", r"captions.*query_regions"),
        ("ks: [1, 5]", "interval: pictures\n    macro: kind", r"captions: interval: expected 'queries' for a mean"),
        ("ks: [1, 5]", "wordings: {old: {query_regions: box}}", r"wordings.*query_regions"),
        ("ks: [1, 5]", "wordings: {old: {instruction: x}}", r"wordings.*instruction.*query_instruction"),
        ("ks: [1, 5]", 'wordings: {old: {query_layout: "{text} {text}"}}', r"query_layout: .* got '{text}' twice"),
        ("ks: [1, 5]", "join: serle", r"captions: join: expected a known join, got 'serle'; did you mean 'searle'"),
        ("ks: [1, 5]", "wordings: {old: {join: serle}}", r"captions.*join: .*did you mean 'searle'"),
        ("ks: [1, 5]", "query_text: red", r"captions: query_text: expected '{text}' once, got 'red'"),
        ("ks: [1, 5]", "reference: masked", r"captions.*reference"),
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


WORDED = """
tasks:
  a: &a
    data: toy/a
    metric: ndcg_linear@5
    modality: page
    category: A
    query_instruction: Find it.
    target_layout: "{media} {instruction}"
    prompts: new
    wordings: {old: {query_instruction: "", query_layout: " {text}"}}
  b: {<<: *a, data: toy/b, category: B, metric: hit@1, wordings: {}}
  c: {data: toy/c, metric: hit@1, modality: text}
  d: {data: toy/d, metric: hit@1}
"""


def test_rows_take_the_fields_of_a_row_before_them(tmp_path):
    tasks = read_benchmark(written(tmp_path, WORDED)).tasks

    assert tasks["b"] == Task(
        "b", "toy/b", "hit@1", modality="page", category="B", prompts="new", query_instruction="Find it.",
        target_layout="{media} {instruction}",
    )  # fmt: skip


def test_another_version_of_the_prompts_takes_the_place_of_the_rows_and_back(tmp_path):
    benchmark = read_benchmark(written(tmp_path, WORDED))

    old = benchmark.worded("old")

    task = old.tasks["a"]
    assert (task.prompts, task.query_instruction, task.query_layout, task.target_layout) == ("old", "", " {text}", None)
    assert list(task.wordings) == ["new"]
    assert {name: old.tasks[name] for name in "bcd"} == {name: benchmark.tasks[name] for name in "bcd"}
    assert old.worded("new") == benchmark
    with pytest.raises(
        InputError, match=r"prompts: expected a version of the prompts that one of the tasks has, got 'odl'; .*'old'"
    ):
        benchmark.worded("odl")


COMPOSED = """tasks:
  val: &cirr
    data: cirr/val
    metric: hit@1
    reference: removed
    join: change
    wordings: {e5_v: {query_text: "Modify: {text}", target_text: "Describe it.", join: change}}
  test1: {<<: *cirr, data: cirr/test1, judged: false}
"""


def test_rows_whose_answers_are_not_public_are_set_aside(tmp_path):
    benchmark = read_benchmark(written(tmp_path, COMPOSED))

    assert (list(benchmark.tasks), list(benchmark.unjudged)) == (["val"], ["test1"])
    assert benchmark.parts == {"overall": ("val",)}
    for part in (benchmark.worded("e5_v"), benchmark.worded("e5_v").only(["val"])):
        assert [row.query_text for row in (*part.tasks.values(), *part.unjudged.values())] == ["Modify: {text}"] * 2
    with pytest.raises(InputError, match=r"tasks: expected a task whose answers are public, got 'test1'; rank it"):
        benchmark.only(["test1"])


def test_a_modality_has_its_tasks_and_the_nearest_is_named(tmp_path):
    benchmark = read_benchmark(written(tmp_path, WORDED))

    assert list(benchmark.of_modality("page").tasks) == ["a", "b"]
    assert benchmark.parts == {
        "page": ("a", "b"), "A": ("a",), "B": ("b",), "text": ("c",), "overall": ("a", "b", "c", "d"),
    }  # fmt: skip
    with pytest.raises(InputError, match=r"modality: expected a modality of toy, got 'pag'; did you mean 'page'\?"):
        benchmark.of_modality("pag")
    with pytest.raises(InputError, match="known: none of its rows has one"):
        benchmark.only(["d"]).of_modality("page")


def test_the_published_fault_is_of_graded_metrics_alone(tmp_path):
    benchmark = read_benchmark(written(tmp_path, WORDED))

    faulty = benchmark.with_ndcg_fault(7)

    assert {name: task.ndcg_fault_seed for name, task in faulty.tasks.items()} == {
        "a": 7,
        "b": None,
        "c": None,
        "d": None,
    }
    assert list(faulty.tasks) == list(benchmark.tasks)
    with pytest.raises(InputError, match=r"expected a task with a graded metric, got none in toy"):
        benchmark.only(["b", "c"]).with_ndcg_fault(0)


def test_a_file_takes_in_the_tasks_of_others_beside_it_first(tmp_path):
    written(tmp_path, WORDED)
    (tmp_path / "more.yaml").write_text("include: [toy]\ntasks: {e: {data: e, metric: hit@1}}\n")

    more = read_benchmark(tmp_path / "more.yaml")

    assert (more.name, list(more.tasks)) == ("more", ["a", "b", "c", "d", "e"])
    assert more.tasks["a"] == read_benchmark(tmp_path / "toy.yaml").tasks["a"]


@pytest.mark.parametrize(
    ("include", "row", "message"),
    [
        ("[toy]", "a", r"more.yaml: tasks.a: expected each task once, got the task of an included file again"),
        ("toy", "e", r"more.yaml: include: expected a list of names .* got 'toy'; write \[mmeb\]"),
        ("[]", "e", r"more.yaml: include: expected a list of names"),
        ("[3]", "e", r"more.yaml: include: expected a list of names"),
        ("[more]", "e", r"more.yaml: include: .* got more.yaml again; leave one out of more.yaml > more.yaml"),
        ("[tyo]", "e", r"tyo.yaml: expected a readable YAML file"),
    ],
)
def test_what_cannot_be_taken_in_is_named(tmp_path, include, row, message):
    written(tmp_path, WORDED)
    (tmp_path / "more.yaml").write_text(f"include: {include}\ntasks: {{{row}: {{data: e, metric: hit@1}}}}\n")

    with pytest.raises(InputError, match=message):
        read_benchmark(tmp_path / "more.yaml")


def test_files_that_take_in_each_other_are_named(tmp_path):
    for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / f"{name}.yaml").write_text(f"include: [{other}]\ntasks: {{{name}: {{data: e, metric: hit@1}}}}\n")

    with pytest.raises(InputError, match=r"c.yaml: include: .* got a.yaml again; .* a.yaml > b.yaml > c.yaml > a.yaml"):
        read_benchmark(tmp_path / "a.yaml")


def test_a_file_may_hold_includes_alone(tmp_path):
    written(tmp_path, WORDED)
    (tmp_path / "e.yaml").write_text("tasks: {e: {data: e, metric: hit@1}}\n")
    (tmp_path / "both.yaml").write_text("include: [toy, e]\n")

    assert list(read_benchmark(tmp_path / "both.yaml").tasks) == ["a", "b", "c", "d", "e"]
