"""The 36 image sets of MMEB: from miniatures of the published schema to strings, candidates and scores."""

from pathlib import Path

import pytest
import yaml

from data_prep.converters import Media
from data_prep.converters.image_ranked import OTHER_QUERY, OTHER_TARGET, OTHER_TEXT, REPEATED, RULES
from data_prep.converters.registry import CONVERTERS
from data_prep.engine.upstream_rows import read_rows
from data_prep.engine.write_sets import write_ranked
from data_prep.miniatures import image_ranked
from data_prep.miniatures.draw import prepare_miniature
from data_prep.source import read_source
from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Task, read_benchmark
from mmembed.evaluation.crew import Crew
from mmembed.evaluation.evaluate import evaluate_task
from mmembed.evaluation.retrieval_set import read_retrieval_set
from mmembed.evaluation.vectors import asked
from mmembed.models.prompts import render
from mmembed.models.settings import RawPrompt
from tests.evaluation import toy

ROOT = Path(__file__).parents[2]
SETS = read_source("mmeb_eval").sets
GOLDEN = yaml.safe_load((ROOT / "tests/golden/mmeb/strings.yaml").read_text(encoding="utf-8"))["tasks"]
TASKS = read_benchmark(ROOT / "eval/benchmarks/mmeb.yaml").tasks
IMAGE = "<|image_pad|>"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("mmeb")
    return root, prepare_miniature("mmeb_eval", root)["mmeb_eval"]["sets"]


def written(item):
    words = [IMAGE] * len(item.media)
    return "".join(segment.text for segment in render(item, RawPrompt(), words, image_word=IMAGE))


def published_rows(root, name):
    row = SETS[name]
    return list(read_rows([root / ".miniature" / row.repo / name / "test-00000-of-00001.parquet"]))


def published_candidates(rows, converter):
    """The slow, obvious twin: names of every candidate as published, and of each name its first text and picture."""
    named, corpus = [], {}
    for row in rows:
        texts, paths, words = row["tgt_text"], row["tgt_img_path"], row["tgt_inst"].replace("<|image_1|>", "")
        if converter in ("image_cls", "image_qa", "image_i2t"):
            names, strings, paths = texts, texts, [None] * len(texts)
        else:
            vg = converter == "image_i2i_vg"
            names = [path + ":" + text.strip('"') if vg else path for path, text in zip(paths, texts, strict=True)]
            if texts[0].strip():
                strings = [(IMAGE + " " + words + " " + text).replace(" \n", "\n") + "\n" for text in texts]
            else:
                strings = [(IMAGE + " " + words).replace(" \n", "\n") + ("" if vg else "\n")] * len(texts)
        named.append(names)
        for name, string, path in zip(names, strings, paths, strict=True):
            if name not in corpus:
                corpus[name] = (string, path)
    return named, corpus


def published_query(row, name, converter):
    words = row["qry_inst"]
    if converter == "image_t2i":
        return words.replace("<|image_1|>", IMAGE) + " " + row["qry_text"] + ("\n\n" if name == "VisDial" else "\n")
    words = words.replace("<|image_1|>", "")
    if converter in ("image_qa", "image_i2i_vg"):
        words = "\n" + words.strip()
    text = IMAGE + " " + words + (" " + row["qry_text"] if row["qry_text"] else "")
    return text.replace(" \n", "\n") + "\n"


def converted(tmp_path, name, rows):
    """The retrieval set of rows of a set, whose pictures are there."""
    for path in image_ranked.pictures(rows):
        file = tmp_path / "media" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"a picture")
    converter = CONVERTERS[SETS[name].converter]
    return converter.ranked({"rows": iter(rows)}, SETS[name], Media(tmp_path / "media", tmp_path / "media/made"))


def first_row(name, **changes):
    return image_ranked.records(SETS[name])[0] | changes


def test_there_are_36_sets_of_a_thousand_queries_and_each_is_a_task():
    assert len(SETS) == 36
    assert {row.rows for row in SETS.values()} == {1000}
    assert {row.converter for row in SETS.values()} == set(RULES)
    assert {task.data for task in TASKS.values()} == {f"mmeb_eval/{name}" for name in SETS}
    assert all(row.config == name for name, row in SETS.items())


@pytest.mark.parametrize("name", SETS)
def test_the_first_strings_are_the_published_ones(prepared, name):
    made = read_retrieval_set(prepared[0] / "mmeb_eval" / name)
    query, target = next(iter(made.queries)), next(iter(made.corpus))

    strings = [written(asked(TASKS[name], side, {"first": item})["first"])
               for side, item in (("query", made.queries[query]), ("target", made.corpus[target]))]  # fmt: skip

    golden = GOLDEN[name]["samples"][0]
    assert strings == [golden["query"], golden["target"]]
    assert made.relevance[query] == {target: 1.0}
    assert made.candidates[query][0] == target


@pytest.mark.parametrize("name", SETS)
def test_every_candidate_and_string_is_that_of_a_plain_twin_of_the_published_code(prepared, name):
    rows, converter = published_rows(prepared[0], name), SETS[name].converter
    named, corpus = published_candidates(rows, converter)

    made = read_retrieval_set(prepared[0] / "mmeb_eval" / name)

    assert list(made.corpus) == list(corpus)
    assert list(made.candidates.values()) == [list(dict.fromkeys(names)) for names in named]
    assert list(made.relevance.values()) == [{names[0]: 1.0} for names in named]
    targets = asked(TASKS[name], "target", made.corpus)
    media = prepared[0] / "mmeb_eval/media/image-tasks"
    for target, (string, path) in corpus.items():
        assert written(targets[target]) == string
        files = [Path(medium.source).resolve() for medium in targets[target].media]
        assert files == ([] if path is None else [(media / path).resolve()])
    queries = asked(TASKS[name], "query", made.queries)
    assert [written(item) for item in queries.values()] == [published_query(row, name, converter) for row in rows]


def test_the_miniatures_hold_the_cases_that_are_odd(prepared):
    notes = {name: entry["notes"] for name, entry in prepared[1].items()}

    assert all(notes[name][OTHER_TEXT] == 15 for name in ("EDIS", "WebQA"))
    assert notes["OK-VQA"][REPEATED] == 2
    assert not any({OTHER_QUERY, OTHER_TARGET} & own.keys() for own in notes.values())
    corpus = read_retrieval_set(prepared[0] / "mmeb_eval/RefCOCO-Matching").corpus
    assert (len(corpus), len({item.media[0].source for item in corpus.values()})) == (6, 3)
    assert published_rows(prepared[0], "EDIS")[0]["qry_inst"].startswith("<|image_1|>")


@pytest.mark.parametrize(
    ("name", "changes", "note", "count"),
    [
        ("ImageNet-1K", {"qry_inst": "<|image_1|>\nName the object"}, OTHER_QUERY, 1),
        ("ImageNet-1K", {"qry_inst": "<|image_1|>\nRepresent the given image for classification "}, OTHER_QUERY, 1),
        ("OK-VQA", {"qry_inst": "<|image_1|>\nAnswer:"}, OTHER_QUERY, 1),
        ("WebQA", {"qry_inst": "Find a Wikipedia image that answers this question:"}, OTHER_QUERY, 1),
        ("CIRR", {"tgt_inst": "<|image_1|>\nRepresent the given image."}, OTHER_TARGET, 6),
        ("OVEN", {"tgt_text": [" "] * 6}, OTHER_TARGET, 3),
        ("WebQA", {"tgt_text": ["a lake", "", *"abcd"]}, OTHER_TARGET, 1),
        ("VOC2007", {"qry_inst": "<|image_1|> Identify {the} object\n"}, OTHER_QUERY, 1),
        ("OK-VQA", {"qry_text": "\nWhich one?"}, OTHER_QUERY, 1),
        ("VisDial", {"qry_inst": "Find it:"}, OTHER_QUERY, 1),
        ("EDIS", {"qry_inst": "Find <|image_1|> like:"}, OTHER_QUERY, 1),
        ("RefCOCO", {"tgt_inst": "<|image_1|>\nRepresent the given cropped image of the object\n"}, OTHER_TARGET, 6),
        ("RefCOCO-Matching", {"tgt_text": ['"a"', "\nb", *"cdef"]}, OTHER_TARGET, 1),
    ],
)  # fmt: skip
def test_words_and_blanks_other_than_the_published_are_counted_and_kept(tmp_path, name, changes, note, count):
    assert note not in converted(tmp_path, name, [first_row(name)]).notes
    row, converter = first_row(name, **changes), SETS[name].converter

    made = converted(tmp_path, name, [row])

    assert made.notes[note] == count
    (query,) = asked(TASKS[name], "query", made.queries).values()
    assert written(query) == published_query(row, name, converter)
    targets = asked(TASKS[name], "target", made.corpus)
    corpus = published_candidates([row], converter)[1]
    assert {target: written(item) for target, item in targets.items()} == {
        t: string for t, (string, _) in corpus.items()
    }


def test_instructions_of_questions_may_have_blanks_around(tmp_path):
    words = "  <|image_1|> Represent the given image with the following question: \n"

    made = converted(tmp_path, "OK-VQA", [first_row("OK-VQA", qry_inst=words)])

    assert made.notes == {}
    assert made.queries["0"].instruction == "Represent the given image with the following question:"


def test_spaces_before_line_breaks_go_beside_a_picture_and_stay_in_a_text(tmp_path):
    question = converted(tmp_path, "ScienceQA", [first_row("ScienceQA", qry_text="Which? \n(A) 1 \n(B) 2")])
    dialogue = converted(tmp_path, "VisDial", [first_row("VisDial", qry_text="Q:red? \nA:no")])

    assert question.queries["0"].text == "Which?\n(A) 1\n(B) 2"
    assert dialogue.queries["0"].text == "Q:red? \nA:no"


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("OK-VQA", {"qry_img_path": ""}, r"row 1: qry_img_path: expected a text, got an empty one"),
        ("OK-VQA", {"tgt_text": []}, r"row 1: tgt_text: expected a list, got an empty one"),
        ("OK-VQA", {"tgt_text": "yes"}, r"row 1: tgt_text: expected a list, got 'yes'"),
        ("OK-VQA", {"tgt_text": ["yes", ""]}, r"row 1: tgt_text\[1\]: expected a text, got an empty one"),
        ("OK-VQA", {"qry_text": 7}, r"row 1: qry_text: expected a text, got 7"),
        ("CIRR", {"tgt_img_path": ["CIRR/target_0.jpg"]},
         r"row 1: tgt_img_path: expected 6 paths, one for each text of tgt_text, got 1"),
        ("CIRR", {"tgt_img_path": ["../CIRR.jpg"] * 6},
         r"row 1: tgt_img_path: expected a path below the media, got '../CIRR.jpg'"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_with_its_field(tmp_path, name, changes, message):
    with pytest.raises(InputError, match=message):
        converted(tmp_path, name, [first_row(name), first_row(name, **changes)])


def test_a_picture_that_is_not_there_is_named(tmp_path):
    media = Media(tmp_path / "media", tmp_path / "media/made")
    rows = iter([first_row("OK-VQA")])

    with pytest.raises(InputError, match=r"row 0: qry_img_path: expected a file or .* got no 'OK-VQA/query_0.jpg' in"):
        CONVERTERS["image_qa"].ranked({"rows": rows}, SETS["OK-VQA"], media)


def test_a_wrong_candidate_with_the_text_of_the_right_one_is_a_hit(tmp_path):
    """Names are texts: whichever of the two an encoder prefers, it is the right one."""
    row = first_row("OK-VQA", qry_text="w1", tgt_text=["w1", "w2", "w1"])
    write_ranked(tmp_path / "OK-VQA", converted(tmp_path, "OK-VQA", [row]))
    made = read_retrieval_set(tmp_path / "OK-VQA")

    result = evaluate_task(Task("OK-VQA", "OK-VQA", "hit@1", candidates="local"), made, Crew(toy.encode))

    assert made.candidates == {"0": ["w1", "w2"]}
    assert result.score == 1.0


def thousand_rows(queries, each, distinct, name):
    """Queries in the words of their right candidate; each has candidates out of the distinct ones."""
    rows = []
    for i in range(queries):
        places = [(i + j) % distinct for j in range(each)]
        own = {"qry_text": f"w{i}", "qry_img_path": f"{name}/query.jpg"}
        pictures = name == "RefCOCO-Matching"
        rows.append(
            first_row(name, **own, tgt_text=[f"w{place}" for place in places],
                      tgt_img_path=[f"{name}/target_{place % 7}.jpg" if pictures else "" for place in places])
        )  # fmt: skip
    return rows


@pytest.mark.parametrize(
    ("name", "queries", "each", "distinct"), [("OK-VQA", 1000, 1000, 1500), ("RefCOCO-Matching", 60, 50, 90)]
)
def test_a_thousand_queries_with_a_thousand_candidates_cost_one_encode_of_each(tmp_path, name, queries, each, distinct):
    write_ranked(tmp_path / name, converted(tmp_path, name, thousand_rows(queries, each, distinct, name)))
    made = read_retrieval_set(tmp_path / name)
    seen = {"query": 0, "target": 0}

    def encode(items, *, side):
        seen[side] += len(items)
        return toy.encode(items, side=side)

    with counting() as work:
        result = evaluate_task(Task(name, name, "hit@1", candidates="local", ks=(1,)), made, Crew(encode))

    count = min(distinct, queries + each - 1)
    assert (len(made.queries), len(made.corpus)) == (queries, count)
    assert all(len(own) == each for own in made.candidates.values())
    assert seen == {"query": queries, "target": count}
    assert work["language_rows"] == queries + count
    assert result.score == 1.0


def test_a_name_is_one_string_however_many_queries_rank_it(tmp_path):
    write_ranked(tmp_path / "OK-VQA", converted(tmp_path, "OK-VQA", thousand_rows(20, 10, 15, "OK-VQA")))

    made = read_retrieval_set(tmp_path / "OK-VQA")

    assert len({id(name) for own in made.candidates.values() for name in own} | set(map(id, made.corpus))) == 15
