"""scripts/bench.py compares like with like, and counts the work; no seconds are asserted."""

import json
import mmap

import pytest
import torch

from scripts import workloads
from scripts.bench import main, peak_memory
from scripts.workloads import SIZES, WORKLOADS, Bench

FIELDS = {
    "workload", "ours", "plain", "ratio", "spread", "peak_mb", "plain_peak_mb", "difference", "counters",
}  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    assert main(["--output", str(path), "--size", "tiny", "--rounds", "1"]) == 0
    return json.loads(path.read_text())


def of(results, workload):
    return next(result for result in results["results"] if result["workload"] == workload)


def test_the_file_says_machine_and_results(results):
    assert results.keys() == {"machine", "size", "results"}
    assert {"cores", "threads", "torch", "transformers"} <= results["machine"].keys()
    assert [result["workload"] for result in results["results"]] == list(WORKLOADS)
    for result in results["results"]:
        assert result.keys() == FIELDS
        assert result["ratio"] == pytest.approx(result["plain"] / result["ours"])
        assert result["spread"]["ratio"] == [result["ratio"]] * 2
        assert min(result["peak_mb"], result["plain_peak_mb"]) > 50


def test_ours_and_plain_are_equal_before_they_are_timed(results):
    assert all(result["difference"] <= 1e-5 for result in results["results"])


def test_candidates_are_parsed_in_processes_whose_memory_is_their_own(results):
    parsed = of(results, "parse_candidates")

    assert (parsed["difference"], parsed["counters"]) == (0.0, {})
    assert parsed["peak_mb"] < 2000


def test_the_work_is_counted(results):
    images, texts = of(results, "encode_images")["counters"], of(results, "encode_texts")["counters"]
    assert (images["language_rows"], images["tower_forwards"]) == (8, 8)
    assert (texts["language_rows"], texts.get("tower_forwards", 0)) == (8, 0)
    # two pictures with four questions each
    questions = of(results, "encode_questions")["counters"]
    assert (questions["language_rows"], questions["tower_forwards"]) == (8, 2)
    # eight queries and eight targets; without kept graphs each passes twice
    assert of(results, "train_whole")["counters"]["language_rows"] == 16
    assert of(results, "train_chunks")["counters"]["language_rows"] == 16
    assert of(results, "train_chunks_recomputed")["counters"]["language_rows"] == 32


@pytest.mark.parametrize("workload", ["encode_mixed", "train_whole"])
def test_what_is_not_equal_is_not_timed(workload, tmp_path, monkeypatch, capsys):
    class Other(Bench):
        def __init__(self, size):
            super().__init__(size)
            with torch.no_grad():
                self.plain.model.language_model.norm.weight[:3] += 0.5

    monkeypatch.setattr(workloads, "Bench", Other)

    assert main(["--output", str(tmp_path / "b.json"), "--size", "tiny", "--workloads", workload]) == 2

    assert f"{workload}: expected outcomes equal to 1e-05, got 0." in capsys.readouterr().err
    assert not (tmp_path / "b.json").exists()


def test_the_inputs_are_distinct_and_of_different_length():
    made = Bench(SIZES["tiny"])

    for items in (made.texts, made.images, made.mixed, made.questions):
        assert len({item.fingerprint() for item in items}) == 8
    assert len({len(item.text) for item in made.texts}) > 4


def test_an_unknown_workload_is_refused(tmp_path, capsys):
    assert main(["--output", str(tmp_path / "b.json"), "--workloads", "encode_image"]) == 2
    assert "--workloads: expected a known workload, got 'encode_image'; did you mean 'encode_images'?" in (
        capsys.readouterr().err
    )
    with pytest.raises(SystemExit):
        main(["--output", str(tmp_path / "b.json"), "--rounds", "0"])
    assert "argument --rounds: expected 1 or more, got 0" in capsys.readouterr().err


def test_peak_memory_sees_what_was_freed_again():
    with peak_memory() as before:
        pass

    # pages of its own: what torch or Python hold for later would be used again unseen
    with peak_memory() as peak, mmap.mmap(-1, 64 << 20) as block:
        block.write(b"1" * (64 << 20))
    with peak_memory() as after:
        pass

    assert peak[0] - before[0] > 60
    assert peak[0] - after[0] > 60
