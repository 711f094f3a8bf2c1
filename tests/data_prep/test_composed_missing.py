"""Composed retrieval whose pictures are not all there, whose counts are other ones, or that nobody has a copy of."""

import shutil
from dataclasses import replace

import pytest

from data_prep.check import main as check
from data_prep.engine.manifest import MISSING_QUERIES, MISSING_TARGETS, why_not_whole
from data_prep.engine.preparation import Wishes, prepare
from data_prep.prepare import main as run
from data_prep.source import MediaFiles, SourceSet, read_source, resolve
from eval.choices import why_partial
from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.retrieval_set import read_retrieval_set
from tests.data_prep.composed_copies import READERS, of_json, small

ALLOWED = Wishes(allow_missing=True)
# a source of the goldens with their own counts, which commands read
GOLDENS = """
about: the goldens
sets:
  dress:
    converter: fashioniq
    folders: [FashionIQ]
    obtain: get them from the sellers, non-commercial
    rows: 8
    targets: 60
    parts:
      rows: [captions/cap.dress.val.json]
      gallery: [image_splits/split.dress.val.json]
    media: [{files: ["images/*.jpg"], into: images, root: images}]
  val:
    converter: cirr
    folders: [CIRR]
    rows: 8
    targets: 60
    parts:
      rows: [cirr/captions/cap.rc2.val.json]
      gallery: [cirr/image_splits/split.rc2.val.json]
    media: [{files: ["dev/*.png"], into: dev, root: dev}]
  focus_object:
    converter: genecis_objects
    folders: [GeneCIS]
    rows: 8
    files: [genecis/focus_object.json]
    media: [{files: ["coco2017/val2017/*.jpg"], into: val2017, root: coco2017/val2017}]
"""


@pytest.fixture
def copies(tmp_path):
    for name in ("FashionIQ", "CIRR", "GeneCIS"):
        shutil.copytree(READERS / name, tmp_path / "copies" / name)
    return tmp_path / "copies"


@pytest.fixture
def data(tmp_path, monkeypatch):
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "goldens.yaml").write_text(GOLDENS)
    monkeypatch.setattr("data_prep.source.SOURCES", folder)
    return tmp_path / "data"


def take_away(copies, kind):
    """Take pictures away; the queries and targets that lack one then."""
    if kind == "dress":
        # the reference of query 0, and one that no query names
        for name in ("B025DR1948", "B000DR3173"):
            (copies / f"FashionIQ/images/{name}.jpg").unlink()
        return ["0"], ["B000DR3173", "B025DR1948"]
    if kind == "val":
        # the target of the second row, which is in the group of others, too
        name = of_json("CIRR/cirr/captions/cap.rc2.val.json")[1]["target_hard"]
        (copies / f"CIRR/dev/{name}.png").unlink()
        rows = of_json("CIRR/cirr/captions/cap.rc2.val.json")
        return [str(row["pairid"]) for row in rows if name in (row["reference"], *row["img_set"]["members"])], [name]
    number = of_json("GeneCIS/genecis/focus_object.json")[0]["target"]["val_image_id"]
    (copies / f"GeneCIS/coco2017/val2017/{number:012d}.jpg").unlink()
    rows = of_json("GeneCIS/genecis/focus_object.json")
    named = [[part["val_image_id"] for part in (row["reference"], row["target"], *row["gallery"])] for row in rows]
    return [str(i) for i, numbers in enumerate(named) if number in numbers], [str(number)]


@pytest.mark.parametrize("kind", ["dress", "val", "focus_object"])
def test_missing_pictures_are_refused_or_left_out_and_counted(copies, data, capsys, kind):
    queries, targets = take_away(copies, kind)
    name, asked = f"goldens/{kind}", [f"goldens/{kind}", "--source", str(copies), "--data-root", str(data)]

    assert run(asked) == 2
    refused = capsys.readouterr().err
    assert f"got none for {len(targets)} targets and {len(queries)} queries; the first: {data}/goldens/media" in refused
    assert "leave these out with --allow-missing" in refused
    assert not (data / name).exists()

    assert run([*asked, "--allow-missing"]) == 0
    assert f"{len(queries)} missing queries; {len(targets)} missing targets" in capsys.readouterr().out
    made = read_retrieval_set(data / name)
    assert not set(queries) & set(made.queries)
    assert not set(targets) & set(made.corpus)
    assert len(made.queries) == 8 - len(queries)

    words = f"without {len(queries)} queries and {len(targets)} targets whose media are missing"
    assert why_not_whole(data, name) == words
    assert why_partial(Task(kind, name, "hit@1"), data) == words
    assert check([name, "--data-root", str(data)]) == 0
    assert words in capsys.readouterr().out


def test_pictures_that_came_since_make_the_set_whole(copies, data, capsys):
    take_away(copies, "dress")
    asked = ["goldens/dress", "--source", str(copies), "--data-root", str(data)]
    assert run([*asked, "--allow-missing"]) == 0
    assert run(asked) == 2
    assert why_not_whole(data, "goldens/dress") is not None

    for name in ("B025DR1948", "B000DR3173"):
        shutil.copy(READERS / f"FashionIQ/images/{name}.jpg", copies / "FashionIQ/images")

    assert run(asked) == 0
    assert why_not_whole(data, "goldens/dress") is None
    assert check(["goldens/dress", "--data-root", str(data)]) == 0
    assert "missing" not in capsys.readouterr().out.splitlines()[-1]


def test_a_clip_of_a_reference_that_is_missing_leaves_its_query_out(tmp_path):
    from data_prep.miniatures.draw import draw_source

    source = small("covr", "test")
    draw_source(source, tmp_path / "copies")
    (tmp_path / "copies/CoVR/datasets/WebVid/8M/train/001/97.mp4").unlink()
    with pytest.raises(InputError, match=r"got none for 0 targets and 1 queries; the first: .*/001/97.mp4"):
        prepare(source, tmp_path / "data", copies=tmp_path / "copies")

    manifest = prepare(source, tmp_path / "data", copies=tmp_path / "copies", wishes=ALLOWED)

    notes = manifest["sets"]["test"]["notes"]
    assert (notes[MISSING_QUERIES], MISSING_TARGETS in notes) == (1, False)
    made = read_retrieval_set(tmp_path / "data/covr/test")
    assert list(made.queries) == list(made.references) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("field", "published", "words"), [("rows", 9, "8 rows where 9 are"), ("targets", 61, "60 targets where 61 are")]
)
def test_other_counts_than_were_published_are_said_by_both_commands(
    copies, data, tmp_path, capsys, field, published, words
):
    file = tmp_path / "sources/goldens.yaml"
    counted = {"rows": "rows: 8", "targets": "targets: 60"}[field]
    file.write_text(GOLDENS.replace(counted, f"{field}: {published}", 1))

    assert run(["goldens/dress", "--source", str(copies), "--data-root", str(data)]) == 1
    assert "the data are not those that were published" in capsys.readouterr().out
    assert why_not_whole(data, "goldens/dress") == f"{words} expected"
    assert check(["goldens/dress", "--data-root", str(data)]) == 1
    said = capsys.readouterr().out
    assert f"{published} {field}" in said
    assert "compare the download with what is published" in said

    # of a part nothing is compared
    assert run(["goldens/dress", "--source", str(copies), "--data-root", str(data), "--overwrite", "--limit", "2"]) == 0


def test_a_folder_that_nobody_has_is_asked_for_with_where_to_get_it(copies, data, capsys):
    (copies / "FashionIQ").rename(copies / "elsewhere")
    for source, got in (([], "no --source"), (["--source", str(copies)], str(copies))):
        assert run(["goldens/dress", *source, "--data-root", str(data)]) == 2
        said = capsys.readouterr().err
        assert (
            f"FashionIQ: expected a folder FashionIQ in one of --source, got {got}; get them from the sellers" in said
        )
    assert run(["goldens/dress", "--source", str(copies), "--dry-run", "--data-root", str(data)]) == 2

    # the folder itself will do, and its parts are asked for as well
    (copies / "elsewhere").rename(copies / "FashionIQ")
    shutil.rmtree(copies / "FashionIQ/captions")
    assert run(["goldens/dress", "--source", str(copies / "FashionIQ"), "--data-root", str(data)]) == 2
    assert "expected files like captions/cap.dress.val.json, got none; get them from" in capsys.readouterr().err
    shutil.copytree(READERS / "FashionIQ/captions", copies / "FashionIQ/captions")
    shutil.rmtree(copies / "FashionIQ/images")
    assert run(["goldens/dress", "--source", str(copies / "FashionIQ"), "--data-root", str(data)]) == 2
    assert "expected media of dress: images/*.jpg, got none" in capsys.readouterr().err


def test_a_set_is_of_a_repository_or_of_a_folder(data, tmp_path):
    file = tmp_path / "sources/goldens.yaml"
    file.write_text(GOLDENS.replace("folders: [FashionIQ]", "folders: [FashionIQ]\n    repo: o/n"))
    with pytest.raises(InputError, match=r"sets\.dress: expected one of repo and folders, got both"):
        resolve("goldens")
    file.write_text(GOLDENS.replace("    folders: [FashionIQ]\n", ""))
    with pytest.raises(InputError, match=r"sets\.dress: expected one of repo and folders, got neither"):
        resolve("goldens")


def test_fields_that_sets_were_once_without_leave_what_was_prepared_as_it_is():
    from data_prep.engine.manifest import stamp

    row = SourceSet("set", "image_qa", "o/n", media=(MediaFiles(files=("x.zip",)),))

    assert stamp(row, None) == stamp(replace(row, targets=3, obtain="ask", rows=2), None)
    assert stamp(row, None) != stamp(replace(row, parts={"rows": ("a.json",)}), None)
    assert stamp(read_source("mmeb_eval").sets["OK-VQA"], None) != stamp(row, None)


def test_a_limit_takes_the_first_queries_and_the_whole_gallery(tmp_path):
    prepare(small("cirr", "val"), tmp_path, copies=READERS, limit=3)

    made = read_retrieval_set(tmp_path / "cirr/val")

    assert (len(made.queries), len(made.corpus), len(made.candidates), len(made.references)) == (3, 60, 3, 3)
