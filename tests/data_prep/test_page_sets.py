"""The visual document sets of MMEB-V2: from miniatures of the published schema to pages, judgements and strings."""

import hashlib
import io
from pathlib import Path

import PIL.Image
import pytest
import yaml

from data_prep.converters import Media
from data_prep.converters.pages_ranked import NOT_RELEVANT, SAME_ID, SAME_PAGE, TWICE, visrag_name
from data_prep.converters.registry import CONVERTERS
from data_prep.engine.upstream_rows import read_rows
from data_prep.miniatures.draw import prepare_miniature
from data_prep.miniatures.studio import draw, encoded
from data_prep.source import SourceSet, read_source
from mmembed.errors import InputError
from mmembed.evaluation.benchmark import read_benchmark
from mmembed.evaluation.retrieval_set import read_retrieval_set
from mmembed.evaluation.vectors import asked
from mmembed.models.prompts import render
from mmembed.models.settings import RawPrompt

ROOT = Path(__file__).parents[2]
SETS = read_source("visdoc").sets
GOLDEN = yaml.safe_load((ROOT / "tests/golden/mmeb/strings.yaml").read_text(encoding="utf-8"))["tasks"]
WHOLE, EXTRA = (read_benchmark(ROOT / f"eval/benchmarks/{name}.yaml") for name in ("mmeb_v2", "mmeb_v2_extra"))
TASKS = WHOLE.of_modality("visdoc").tasks | {n: t for n, t in EXTRA.tasks.items() if t.data.startswith("visdoc/")}
IMAGE = "<|image_pad|>"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("visdoc")
    return root, prepare_miniature("visdoc", root)["visdoc"]["sets"]


def made_set(prepared, name):
    return read_retrieval_set(prepared[0] / "visdoc" / name)


def written(item):
    return "".join(segment.text for segment in render(item, RawPrompt(), [IMAGE] * len(item.media)))


def published_rows(root, name):
    row, parts = SETS[name], ("queries", "qrels", "corpus")
    repo = root / ".miniature" / row.repo
    return [list(read_rows([repo / part / f"{row.split}-00000-of-00001.parquet"])) for part in parts]


def published_set(queries, qrels, corpus, language):
    """The slow, obvious twin: pages in the order of the published candidates, and the grades of every query."""
    grades = {}
    for row in qrels:
        if row["score"] > 0:
            own = grades.setdefault(row["query-id"], {})
            own[row["corpus-id"]] = max(own.get(row["corpus-id"], 0), row["score"])
    asked_for = [row for row in queries if language is None or row["language"] == language]
    names = [page for row in asked_for for page in grades[row["query-id"]]] + [row["corpus-id"] for row in corpus]
    return (
        list(dict.fromkeys(map(str, names))),
        {str(row["query-id"]): {str(page): float(score) for page, score in grades[row["query-id"]].items()}
         for row in asked_for},
        {str(row["query-id"]): row["query"] for row in asked_for},
    )  # fmt: skip


def rows_of(**changes):
    image = {"bytes": encoded("a page", ".png"), "path": None}
    parts = {
        "queries": [{"query-id": 0, "query": "How much?"}, {"query-id": 1, "query": "When?"}],
        "qrels": [{"query-id": 0, "corpus-id": 5, "score": 1}, {"query-id": 1, "corpus-id": 4, "score": 1}],
        "corpus": [{"corpus-id": 4, "image": image}, {"corpus-id": 5, "image": image}],
    }
    return parts | changes


def converted(tmp_path, parts, converter="vidore", **options):
    row = SourceSet("set", converter, "owner/name", options=options)
    media = Media(tmp_path / "media", tmp_path / "media/made/set")
    return CONVERTERS[converter].ranked({part: iter(rows) for part, rows in parts.items()}, row, media)


def test_there_are_24_sets_three_in_english_alone_and_two_as_they_were():
    visdoc = WHOLE.of_modality("visdoc").tasks
    assert (len(SETS), len(visdoc)) == (29, 24)
    assert {task.data for task in TASKS.values()} == {f"visdoc/{name}" for name in SETS}
    assert [row.rows for name, row in SETS.items() if name in visdoc] == [
        *(500, 451, 494, 280, 1646, 100, 100, 100, 100, 100),
        *(52, 640, 232, 228), *(816, 63, 591, 556, 718, 863), *(1142, 1142, 838, 838),
    ]  # fmt: skip
    assert sum(row.split == "train" for row in SETS.values()) == 6
    assert sum(row.options.get("language") == "english" for row in SETS.values()) == 3


@pytest.mark.parametrize("name", SETS)
def test_pages_judgements_and_strings_are_those_of_a_plain_twin_of_the_published_code(prepared, name):
    corpus, relevance, queries = published_set(*published_rows(prepared[0], name), SETS[name].options.get("language"))

    made = made_set(prepared, name)

    assert list(made.corpus) == corpus
    assert made.relevance == relevance
    assert made.candidates is None
    assert {query: item.text for query, item in made.queries.items()} == queries


@pytest.mark.parametrize("name", SETS)
def test_the_first_strings_are_the_published_ones_under_both_prompts(prepared, name):
    made, golden = made_set(prepared, name), GOLDEN[name]["samples"][0]
    items = {"query": next(iter(made.queries.values())), "target": next(iter(made.corpus.values()))}

    for task, strings in [(TASKS[name], golden)] + [
        (TASKS[name].worded(version), strings) for version, strings in golden.get("worded", {}).items()
    ]:
        for side, item in items.items():
            assert written(asked(task, side, {"first": item})["first"]) == strings[side]


def test_the_miniatures_hold_the_cases_that_are_odd(prepared):
    graded = made_set(prepared, "ViDoRe_esg_reports_human_labeled_v2").relevance
    assert {grade for own in graded.values() for grade in own.values()} == {1.0, 2.0}
    languages = {row["language"] for row in published_rows(prepared[0], "ViDoRe_esg_reports_v2_multilingual")[0]}
    assert languages == {"english", "french", "german", "spanish"}
    assert len(made_set(prepared, "ViDoRe_esg_reports_v2").queries) == 2
    for name in ("ViDoSeek-page", "MMLongBench-page"):
        mended, first = (made_set(prepared, f"{name}{end}") for end in ("", "-2025-06"))
        assert mended.relevance != first.relevance
        assert mended.queries == first.queries
    assert prepared[1]["ViDoRe_docvqa"]["notes"] | {"targets": 0} == {NOT_RELEVANT: 1, TWICE: 1, "targets": 0}


def test_pages_of_vidore_are_written_as_png_and_those_of_visrag_by_their_names(prepared):
    media = prepared[0] / "visdoc/media/made"
    pages = {path.name: path.read_bytes() for path in (media / "VisRAG_ChartQA").iterdir()}
    name = "VisRAG_ChartQA 0.jpg"

    stored = PIL.Image.open(io.BytesIO(encoded(name, ".jpg", (84, 112))))
    again = io.BytesIO()
    stored.save(again, "JPEG")

    assert visrag_name(name) == f"VisRAG_ChartQA 0_{hashlib.md5(name.encode()).hexdigest()[:8]}.jpg"
    assert pages[visrag_name(name)] == again.getvalue() != encoded(name, ".jpg", (84, 112))
    assert sorted(len(page) for page in pages if page.startswith("a page whose")) == [50 + 1 + 8 + 4] * 2
    assert {path.name for path in (media / "ViDoRe_docvqa").iterdir()} == {f"{i}.png" for i in range(7)}


def test_original_pages_keep_the_bytes_of_their_publisher(tmp_path):
    data = encoded("p", ".jpg")
    parts = rows_of(corpus=[{"corpus-id": i, "image": {"bytes": data, "path": None}} for i in (4, 5)])

    made = converted(tmp_path, parts, pages="original")

    path = Path(made.corpus["5"].media[0].source)
    assert path.name == "5.jpeg"
    assert path.read_bytes() == data


def test_a_page_that_was_turned_is_written_upright(tmp_path):
    picture, exif, buffer = draw("turned", (80, 40)), PIL.Image.Exif(), io.BytesIO()
    exif[PIL.Image.ExifTags.Base.Orientation] = 6
    picture.save(buffer, "PNG", exif=exif)

    image = {"bytes": buffer.getvalue(), "path": None}
    made = converted(tmp_path, rows_of(corpus=[{"corpus-id": i, "image": image} for i in (4, 5)]))

    with PIL.Image.open(made.corpus["4"].media[0].source) as page:
        assert page.size == (40, 80)


def test_pages_that_are_there_are_not_written_again(tmp_path):
    page = Path(converted(tmp_path, rows_of()).corpus["5"].media[0].source)
    before = page.stat().st_mtime_ns

    converted(tmp_path, rows_of())

    assert page.stat().st_mtime_ns == before
    assert not list(page.parent.glob(".*"))


def test_the_higher_of_two_grades_counts_and_no_relevance_is_none(tmp_path):
    qrels = [(0, 5, 1), (0, 5, 2), (0, 5, 1), (0, 4, 0), (1, 4, -1), (1, 5, 1)]
    rows = [dict(zip(("query-id", "corpus-id", "score"), row, strict=True)) for row in qrels]

    made = converted(tmp_path, rows_of(qrels=rows))

    assert made.relevance == {"0": {"5": 2.0}, "1": {"5": 1.0}}
    assert made.notes == {TWICE: 2, NOT_RELEVANT: 2}


def test_ids_that_come_again_are_kept_apart_or_left_out_and_counted(tmp_path):
    parts = rows_of()
    parts["queries"].append({"query-id": 0, "query": "How much again?"})
    parts["corpus"].append({"corpus-id": 5, "image": {"bytes": encoded("another"), "path": None}})

    made = converted(tmp_path, parts)

    assert {query: item.text for query, item in made.queries.items()} == {
        "0": "How much?", "1": "When?", "0 (2)": "How much again?",
    }  # fmt: skip
    assert made.relevance["0 (2)"] == {"5": 1.0}
    assert made.notes == {SAME_ID: 1, SAME_PAGE: 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qrels": [{"query-id": 0, "corpus-id": 5, "score": 1}]},
         r"queries: row 1: query-id: expected a query with a relevant page, got '1', which has none"),
        ({"qrels": [{"query-id": 0, "corpus-id": 9, "score": 1}]},
         r"queries: row 0: qrels.corpus-id: expected a page of the corpus, got '9'"),
        ({"qrels": [{"query-id": 0, "corpus-id": 5, "score": "1"}]},
         r"qrels: row 0: score: expected a number, got '1'"),
        ({"qrels": [{"query-id": 0, "corpus-id": 5, "score": float("nan")}]},
         r"qrels: row 0: score: expected a number, got nan"),
        ({"qrels": [{"query-id": None, "corpus-id": 5, "score": 1}]},
         r"qrels: row 0: query-id: expected a number or a name, got None"),
        ({"queries": [{"query-id": 0, "query": None}]}, r"queries: row 0: query: expected a text, got None"),
        ({"corpus": [{"corpus-id": 5, "image": {"bytes": b"no picture", "path": None}}]},
         r"corpus: row 0: image: expected a picture to be '5.png', got cannot identify"),
        ({"corpus": [{"corpus-id": 5, "image": {"bytes": encoded("p", size=(84, 112))[:120], "path": None}}]},
         r"corpus: row 0: image: expected a picture to be '5.png', got .*truncated"),
        ({"corpus": [{"corpus-id": 5, "image": {"bytes": None, "path": "5.png"}}]},
         r"corpus: row 0: image: expected a picture with its bytes, got {'bytes': None"),
        ({"corpus": [{"corpus-id": "../5", "image": {"bytes": encoded("p"), "path": None}}]},
         r"corpus: row 0: corpus-id: expected a path below the media, got '../5.png'"),
        ({"corpus": [{"corpus-id": "a/5", "image": {"bytes": encoded("p"), "path": None}}]},
         r"corpus: row 0: corpus-id: expected an id that can name a file, got 'a/5'"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_with_its_part_and_field(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        converted(tmp_path, rows_of(**changes))
    assert not list((tmp_path / "media").rglob(".*"))


def test_a_page_of_visrag_whose_name_says_no_format_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"corpus: row 0: corpus-id: expected an id that ends in a format, got '4'"):
        converted(tmp_path, rows_of(), converter="visrag")


def test_a_language_asks_for_its_column_and_pages_are_made_in_one_of_two_ways(tmp_path):
    with pytest.raises(InputError, match=r"queries: row 0: language: expected a text, got None"):
        converted(tmp_path, rows_of(), language="english")
    with pytest.raises(
        InputError, match=r"set.options.pages: expected how pages are made, got 'orginal'; did you mean"
    ):
        converted(tmp_path, rows_of(), pages="orginal")
