"""The YAML of the published code imports: mixtures as sources of ours, evaluations as tasks of ours."""

from pathlib import Path

import pytest
import yaml

from data_prep.source import read_source, resolve
from mmembed.data.settings import Source
from mmembed.recipe import read_recipe
from scripts.import_upstream import PARSERS, benchmarks, import_file, main

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "mmeb"
MIXTURES = ("train_alltasks", "train_image", "train_video", "train_visdoc")
ENTRY = {
    "dataset_parser": "mmeb",
    "dataset_name": "TIGER-Lab/MMEB-train",
    "subset_name": "OK-VQA",
    "dataset_split": "original",
    "image_dir": "vlm2vec_train/MMEB-train/image",
    "num_sample_per_subset": 10000,
    "weight": 0.5,
}
VIDEO = {
    "dataset_parser": "llavahound_caption",
    "dataset_path": "here/video_caption_300k.jsonl",
    "video_frame_basedir": "here",
    "num_frames": 8,
    "weight": 5,
}


@pytest.fixture
def imported(tmp_path, capsys):
    """Import one entry: the mapping printed, or the error."""

    def of(entry, name="entry"):
        path = tmp_path / "upstream.yaml"
        path.write_text(yaml.safe_dump({name: entry}))
        status = main([str(path)])
        out, err = capsys.readouterr()
        assert status == (2 if err else 0)
        return err if err else yaml.safe_load(out)["mixture"][name]

    return of


def mixture(name):
    return yaml.safe_load(import_file(GOLDEN / f"{name}.yaml"))["mixture"]


@pytest.mark.parametrize("name", MIXTURES)
def test_every_published_mixture_imports_with_its_names_weights_and_limits(name):
    published = yaml.safe_load((GOLDEN / f"{name}.yaml").read_text())

    made = mixture(name)

    assert list(made) == list(published)
    for key, entry in published.items():
        assert made[key]["weight"] == entry["weight"]
        assert made[key].get("limit") == entry.get("num_sample_per_subset")


@pytest.mark.parametrize("name", MIXTURES)
def test_every_table_of_a_mixture_is_a_set_that_is_prepared(name):
    for row in mixture(name).values():
        source, _, table = row["table"].partition("/")
        assert table.removesuffix(".parquet") in read_source(source).sets


def test_the_published_mixture_of_vlm2vec_v2_is_that_of_its_recipe():
    recipe = read_recipe(ROOT / "configs" / "vlm2vec_v2.yaml").stages["main"].mixture

    made = mixture("train_alltasks")

    assert list(made) == list(recipe)
    assert {name: Source(**row) for name, row in made.items()} == recipe


def test_hard_negatives_are_dropped_as_the_published_training_does():
    made = mixture("train_alltasks")

    assert [name for name, row in made.items() if row.get("max_negatives") == 0] == list(read_source("mmeb_train").sets)


def test_the_commands_that_prepare_the_data_stand_before_the_mixture():
    lines = import_file(GOLDEN / "train_visdoc.yaml").splitlines()

    assert lines[:4] == [
        "# python data_prep/prepare.py mmeb_train/ImageNet_1K mmeb_train/N24News mmeb_train/HatefulMemes",
        "# python data_prep/prepare.py colpali_train",
        "# python data_prep/prepare.py visrag_train",
        "mixture:",
    ]


@pytest.mark.parametrize(
    ("entry", "table"),
    [
        (ENTRY | {"dataset_split": "diverse_instruction"}, "mmeb_train_diverse/OK-VQA"),
        ({key: value for key, value in ENTRY.items() if key != "dataset_split"}, "mmeb_train/OK-VQA"),
        (VIDEO, "llava_hound/video_caption_300k"),
        (VIDEO | {"data_mode": "video_retrieval"}, "llava_hound/video_caption_300k_video"),
        (
            VIDEO | {"dataset_parser": "llavahound_qa", "dataset_path": "a/video_qa_240k.jsonl"},
            "llava_hound/video_qa_240k",
        ),
        (
            {
                "dataset_parser": "docmatix",
                "dataset_name": "HuggingFaceM4/Docmatix",
                "config_name": "images",
                "weight": 1,
            },
            "docmatix/docmatix_images",
        ),
        (
            {"dataset_parser": "pixmo", "dataset_name": "Tevatron/pixmo-docs", "image_dir": "here", "weight": 1},
            "pixmo_docs/pixmo_docs",
        ),
        *(
            ({"dataset_parser": name, "num_frames": 8, "max_frames_saved": 64, "weight": 1}, table)
            for name, table in (
                ("msrvtt", "msrvtt_train/msrvtt_9k"),
                ("msvd", "msvd_train/msvd"),
                ("didemo", "didemo_train/didemo"),
                ("ssv2", "ssv2_train/ssv2"),
            )
        ),
    ],
)
def test_an_entry_of_every_parser_finds_its_table(imported, entry, table):
    assert imported(entry)["table"] == f"{table}.parquet"


def test_a_limit_that_is_none_in_words_is_no_limit(imported):
    assert "limit" not in imported(ENTRY | {"num_sample_per_subset": "None"})
    assert imported(ENTRY | {"num_sample_per_subset": "500"})["limit"] == 500


@pytest.mark.parametrize(
    ("change", "where", "words"),
    [
        ({"dataset_parser": "mmebb"}, "dataset_parser", "did you mean 'mmeb'?"),
        ({"dataset_parser": "gui"}, "dataset_parser", "write a source"),
        ({"num_samples_per_subset": 10}, "num_samples_per_subset", "did you mean 'num_sample_per_subset'?"),
        ({"subset_name": "OKVQA"}, "subset_name", "did you mean 'OK-VQA'?"),
        ({"dataset_name": "TIGER-Lab/MMEB"}, "dataset_name", "did you mean 'TIGER-Lab/MMEB-train'?"),
        ({"dataset_split": "orginal"}, "dataset_split", "did you mean 'original'?"),
        ({"weight": "much"}, "weight", "expected a number from 0"),
        ({"weight": None}, "weight", "expected a number, got nothing"),
        ({"num_sample_per_subset": 1.5}, "num_sample_per_subset", "expected a whole number"),
    ],
)
def test_what_is_not_known_is_refused_with_entry_and_key(imported, change, where, words):
    error = imported(ENTRY | change)

    assert f"upstream.yaml: entry.{where}: " in error
    assert words in error


def test_a_number_of_frames_that_no_source_has_is_refused(imported):
    error = imported(VIDEO | {"num_frames": 16})

    assert "entry.num_frames: expected data that a source prepares, got '16'" in error


@pytest.mark.parametrize("parser", PARSERS)
def test_the_sets_of_a_parser_are_told_apart_by_what_an_entry_says(parser):
    rows = [row for name in PARSERS[parser].sources for source in resolve(name) for row in source.sets.values()]
    told = {tuple(of_set(row) for of_set in PARSERS[parser].facts.values()) for row in rows}

    assert len(told) == len(rows)
    assert all(value is not None for values in told for value in values)


@pytest.mark.parametrize("content", ["[1, 2]", "{}", "a: 1"])
def test_a_file_of_something_else_is_refused(tmp_path, capsys, content):
    path = tmp_path / "other.yaml"
    path.write_text(content)

    assert main([str(path)]) == 2
    assert "expected entries by name" in capsys.readouterr().err


EVALUATED = {"dataset_parser": "image_qa", "dataset_name": "OK-VQA", "image_root": "here/", "eval_type": "local"}


def evaluation(tmp_path, capsys, entries):
    path = tmp_path / "image.yaml"
    path.write_text(yaml.safe_dump(entries))
    status = main([str(path)])
    return status, *capsys.readouterr()


def test_an_evaluation_gives_the_tasks_of_the_benchmarks_and_what_to_run(tmp_path, capsys):
    older = EVALUATED | {"dataset_parser": "vidore", "dataset_name": "ViDoRe_esg_reports_v2", "eval_type": "global"}

    status, out, _ = evaluation(tmp_path, capsys, {"OK-VQA": EVALUATED, "ViDoRe_esg_reports_v2": older})

    assert status == 0
    assert yaml.safe_load(out) == {"mmeb_v2": ["OK-VQA"], "mmeb_v2_extra": ["ViDoRe_esg_reports_v2"]}
    assert "# python data_prep/prepare.py mmeb_eval/OK-VQA\n" in out
    assert "# python eval/run.py --model MODEL --benchmark mmeb_v2 --tasks OK-VQA --output DIR\n" in out


@pytest.mark.parametrize(
    ("name", "modality", "tasks"), [("image", "image", 36), ("video", "video", 18), ("visdoc", "visdoc", 24)]
)
def test_the_published_evaluations_are_the_tasks_of_mmeb_v2(name, modality, tasks):
    ours = [task.name for task in benchmarks()["mmeb_v2"].values() if task.modality == modality]

    made = yaml.safe_load(import_file(GOLDEN / f"eval_{name}.yaml"))

    assert len(ours) == tasks
    assert sorted(made["mmeb_v2"]) == sorted(ours)
    assert len(made.get("mmeb_v2_extra", [])) == (3 if name == "visdoc" else 0)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("OKVQA", {}, "did you mean 'OK-VQA'?"),
        ("OK-VQA", {"eval_type": "global"}, "OK-VQA.eval_type: expected 'local', as mmeb_v2 ranks it, got 'global'"),
        ("OK-VQA", {"frames_root": "x"}, "did you mean 'frame_root'?"),
    ],
)
def test_an_evaluation_that_is_not_ours_is_refused(tmp_path, capsys, name, change, words):
    status, _, err = evaluation(tmp_path, capsys, {name: EVALUATED | change})

    assert status == 2
    assert words in err


def test_training_and_evaluation_in_one_file_are_refused(tmp_path, capsys):
    status, _, err = evaluation(tmp_path, capsys, {"OK-VQA": EVALUATED, "other": ENTRY})

    assert status == 2
    assert "image.yaml: other: expected either training or evaluation, got both" in err
