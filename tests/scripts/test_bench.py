"""scripts/bench.py compares like with like, and counts the work; no seconds are asserted."""

import json
import mmap
from dataclasses import replace

import pytest
import torch

from mmembed.errors import InputError
from scripts.bench import main
from scripts.benchmark.bench import Bench
from scripts.benchmark.catalogue import WORKLOADS, Required, chosen
from scripts.benchmark.flops import ceiling, counted, useful_flops
from scripts.benchmark.inputs import fingerprints
from scripts.benchmark.measuring import Comparison, Conditions, difference, measure
from scripts.benchmark.memory import peak_memory
from scripts.benchmark.sizes import SIZES
from scripts.benchmark.workloads import ranking
from scripts.benchmark.workloads.helping import commands

CPU = torch.device("cpu")
FIELDS = {
    "workload", "ours", "plain", "ratio", "spread", "rounds", "rows", "peak_mb", "plain_peak_mb", "difference",
    "counters", "mfu", "plain_mfu", "useful_gflops", "breakdown", "facts", "options", "note",
}  # fmt: skip
ALONE = {"pipeline_jpeg", "pipeline_mp4", "data_wait", "help_modules"}
"""Workloads that have no plain way."""
ENCODING = {name for name in WORKLOADS if name.startswith("encode_")}
TRAINING = {name for name in WORKLOADS if name.startswith("train_")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with what a run over every workload wrote."""
    made = tmp_path_factory.mktemp("bench")
    files = ["--output", str(made / "bench.json"), "--page", str(made / "page.md")]
    assert main([*files, "--size", "tiny", "--rounds", "1"]) == 0
    return made


@pytest.fixture(scope="module")
def results(folder):
    return json.loads((folder / "bench.json").read_text())


def of(results, workload):
    return next(result for result in results["results"] if result["workload"] == workload)


def test_the_file_says_machine_and_results(results):
    assert {"machine", "size", "ceiling", "results", "rounds", "tolerance", "date"} == results.keys()
    assert {"cores", "threads", "memory_gib", "device", "torch", "transformers"} <= results["machine"].keys()
    assert [result["workload"] for result in results["results"]] == list(WORKLOADS)
    for result in results["results"]:
        assert result.keys() == FIELDS
        assert result["peak_mb"] > 50


def test_every_workload_but_those_alone_has_a_ratio_to_the_plain_way(results):
    assert {one["workload"] for one in results["results"] if one["plain"] is None} == ALONE
    for result in results["results"]:
        if result["workload"] not in ALONE:
            assert result["ratio"] == pytest.approx(result["plain"] / result["ours"])
            assert result["spread"]["ratio"] == [result["ratio"]] * 2
            assert result["plain_peak_mb"] > 50


def test_ours_and_plain_are_equal_before_they_are_timed(results):
    differences = {one["workload"]: one["difference"] for one in results["results"] if one["plain"] is not None}

    assert {name for name, found in differences.items() if found > 1e-5} == set()
    assert differences["parse_candidates"] == 0


def test_the_options_together_hardly_move_an_embedding(results):
    assert of(results, "encode_mixed")["facts"]["difference_to_off"] <= 2e-6


def test_the_work_is_counted(results):
    images, texts = of(results, "encode_images")["counters"], of(results, "encode_texts")["counters"]
    assert (images["language_rows"], images["tower_forwards"]) == (8, 8)
    assert (texts["language_rows"], texts.get("tower_forwards", 0)) == (8, 0)
    # two pictures with four questions each
    questions = of(results, "encode_questions")["counters"]
    assert (questions["language_rows"], questions["tower_forwards"]) == (8, 2)
    # six distinct rows of eight: four texts and two pictures
    mixed = of(results, "encode_mixed")["counters"]
    assert (mixed["language_rows"], mixed["tower_forwards"]) == (6, 2)
    # eight queries and eight targets; without kept graphs each passes twice
    assert of(results, "train_whole")["counters"]["language_rows"] == 16
    assert of(results, "train_chunks")["counters"]["language_rows"] == 16
    assert of(results, "train_chunks_recomputed")["counters"]["language_rows"] == 32
    # six distinct queries, six distinct targets
    assert of(results, "train_lora_mixed")["counters"]["language_rows"] == 12
    assert of(results, "train_lora")["counters"]["tower_forwards"] == 8


def test_the_loss_holds_a_sixteenth_of_the_full_matrix(results):
    found = of(results, "loss")

    assert found["counters"]["score_bytes_at_once"] == 4 * 256 * 256 / 16
    assert found["facts"]["share_of_full_matrix"] == 1 / 16


def test_the_ceiling_and_the_use_of_it_are_shares(results):
    assert results["ceiling"] > 0
    for name in ENCODING | TRAINING:
        found = of(results, name)
        assert found["useful_gflops"] > 0
        assert 0 < found["mfu"] < 1.2


def test_a_breakdown_sums_to_the_whole(results):
    broken = {one["workload"]: dict(one["breakdown"]) for one in results["results"] if one["breakdown"]}

    assert broken.keys() == ENCODING | TRAINING | ALONE - {"help_modules"} | {"evaluate"}
    for parts in broken.values():
        whole = parts.pop("whole")
        assert sum(parts.values()) == pytest.approx(whole, rel=0.01)
    assert {"preprocess", "vision", "language"} <= broken["encode_images"].keys()
    assert {"vision", "language", "loss", "backward", "optimiser"} <= broken["train_full"].keys()
    assert "wait" in broken["data_wait"]
    assert "decode" in broken["pipeline_mp4"]


def test_the_pipeline_alone_is_measured_for_each_number_of_workers(results):
    for name in ("pipeline_jpeg", "pipeline_mp4"):
        rates = of(results, name)["facts"]["pairs_per_second"]
        assert rates.keys() == {"0", "1", "2"}
        assert min(rates.values()) > 0
    assert 0 <= of(results, "data_wait")["facts"]["share_waited"] <= 1


def test_the_help_of_this_command_imports_nothing_that_computes(results):
    facts = of(results, "help_modules")["facts"]

    assert facts["modules"].keys() == {"scripts/bench.py"}
    assert facts["heavy"] == {}
    assert {"scripts/bench.py", "scripts/train.py", "eval/run.py", "data_prep/demo.py"} <= set(commands())


def test_the_page_has_every_workload_and_what_is_required(folder, results):
    page = (folder / "page.md").read_text()

    assert page.startswith("# Performance\n")
    for name in WORKLOADS:
        assert f"| `{name}` |" in page
    required = page.split("## What is required")[1].split("##")[0]
    assert required.count("| `") == sum(len(entry.required) for entry in WORKLOADS.values())
    assert "not measured" not in required
    assert f"| `loss` | bytes of scores / full matrix | at most 0.125 | {1 / 16} | yes |" in required
    assert "No data-centre GPU was at hand" in page


@pytest.mark.parametrize(
    ("required", "result", "met"),
    [
        (Required("ratio", 1.2), {"ratio": 1.2}, True),
        (Required("ratio", 1.2), {"ratio": 1.1}, False),
        (Required("ratio", 1.2), {"ratio": None}, None),
        (Required("facts.share", 0.1, at_least=False), {"facts": {"share": 0.05}}, True),
        (Required("facts.share", 0.1, at_least=False), {"facts": {"share": 0.2}}, False),
        (Required("facts.share", 0.1, at_least=False), {}, None),
    ],
)
def test_a_bound_is_kept_or_not_or_was_not_measured(required, result, met):
    assert required.met(result) is met


@pytest.mark.parametrize("workload", ["encode_texts", "train_whole"])
def test_what_is_not_equal_is_not_timed(workload, tmp_path, monkeypatch, capsys):
    twin = Bench.twin

    def other(self, embedder, **more):
        made = twin(self, embedder, **more)
        with torch.no_grad():
            made.model.language_model.norm.weight[:3] += 0.5
        return made

    monkeypatch.setattr(Bench, "twin", other)

    assert main(["--output", str(tmp_path / "b.json"), "--size", "tiny", "--workloads", workload]) == 2

    assert f"{workload}: expected outcomes equal to 1e-05, got 0." in capsys.readouterr().err
    assert not (tmp_path / "b.json").exists()


def test_what_is_no_number_is_not_equal():
    work = Comparison(lambda: torch.tensor([float("nan")]), lambda: torch.ones(1))

    with pytest.raises(InputError, match="expected outcomes equal to 1e-05, got nan"):
        measure("made", work, Conditions(1, 1e-5))


def test_the_difference_of_a_gradient_is_one_of_lengths():
    wanted = torch.tensor([3.0, 4.0])

    assert difference(wanted + torch.tensor([0.0, 0.4]), wanted) == pytest.approx(0.1)
    assert difference(wanted + torch.tensor([0.3, 0.4]), wanted, gradient=True) == pytest.approx(0.1)


def test_useful_operations_are_those_of_distinct_rows_without_padding():
    made = Bench(SIZES["tiny"], CPU)
    rows = made.ours.prepare([*made.texts[:2], *made.pictures[:2]], "query")
    texts = [useful_flops(made.ours, [row]) for row in rows[:2]]

    assert len(rows[0]) != len(rows[1])
    assert useful_flops(made.ours, rows[:2]) == sum(texts)
    assert useful_flops(made.ours, [*rows[:2], *rows[:2]]) == sum(texts)
    # two pictures of one size cost the same
    assert useful_flops(made.ours, rows) == sum(texts) + 2 * useful_flops(made.ours, rows[2:3])
    forward = useful_flops(made.ours.train(), rows)
    assert 2 * forward < useful_flops(made.ours, rows, backward=True) < 4 * forward


def test_attention_on_a_cpu_is_counted():
    query = torch.randn(1, 2, 8, 16)

    found = counted(lambda: torch.nn.functional.scaled_dot_product_attention(query, query, query))

    assert found == 2 * 2 * (2 * 8 * 8 * 16)


def test_the_ceiling_is_the_best_of_the_sides():
    assert ceiling(torch.float32, CPU, (32,)) > 0


def test_the_inputs_are_distinct_and_of_different_length():
    made = Bench(SIZES["tiny"], CPU)

    for items in (made.texts, made.pictures, made.questions):
        assert len(fingerprints(items)) == 8
    assert len({len(item.text) for item in made.texts}) > 4


def test_a_third_of_the_mixed_inputs_are_duplicates_and_every_kind_is_there():
    mid = SIZES["mid"]
    items = Bench(mid, CPU).mixed

    assert (len(items), len(fingerprints(items))) == (64, 45)
    kinds = {tuple(type(part).__name__ for part in item.content) for item in items}
    assert kinds == {("str",), ("Image",), ("Image", "str"), ("Video",)}


def test_a_plain_loss_that_does_not_fit_is_left_out_and_said(monkeypatch):
    monkeypatch.setattr(ranking, "free_memory", lambda device: 1 << 20)

    work = ranking.loss(Bench(SIZES["tiny"], CPU))

    assert work.plain is None
    assert work.note == "plain needs 1 MiB, 1 are free: it did not run"


def test_an_unknown_workload_is_refused(tmp_path, capsys):
    assert main(["--output", str(tmp_path / "b.json"), "--workloads", "encode_image"]) == 2
    assert "--workloads: expected a known workload, got 'encode_image'; did you mean 'encode_images'?" in (
        capsys.readouterr().err
    )
    with pytest.raises(SystemExit):
        main(["--output", str(tmp_path / "b.json"), "--rounds", "0"])
    assert "argument --rounds: expected 1 or more, got 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--size", "tiny"])
    assert "argument --output: say where the results go" in capsys.readouterr().err


@pytest.mark.parametrize("workload", ["encode_mixed", "train_lora", "train_full"])
def test_the_size_for_a_gpu_runs_but_for_its_scale(workload):
    large = SIZES["2b"]
    shrunk = replace(SIZES["tiny"], vocabulary=3000, dtype=large.dtype, tolerance=large.tolerance)
    bench = Bench(shrunk, CPU)

    found = measure(workload, WORKLOADS[workload].make(bench), Conditions(1, large.tolerance))

    model = (bench.lora if workload == "train_lora" else bench.ours).backbone.model
    assert model.get_input_embeddings().weight.shape == (3000, 64)
    assert {p.dtype for name, p in model.named_parameters() if "lora" not in name} == {torch.bfloat16}
    assert found["ratio"] > 0


def test_a_size_leaves_out_what_does_not_fit_unless_it_is_named():
    left_out = SIZES["2b"].left_out

    assert set(WORKLOADS) - set(chosen(None, left_out)) == {"train_whole"}
    assert chosen("train_whole", left_out) == ["train_whole"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_size_for_a_gpu_is_refused_without_one(tmp_path, capsys):
    assert main(["--output", str(tmp_path / "b.json"), "--size", "2b"]) == 2

    assert "--size 2b: expected a GPU, got none that torch can use; take --size mid here" in capsys.readouterr().err


def test_the_list_says_what_is_required(capsys):
    assert main(["--list"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(WORKLOADS)
    assert next(line for line in lines if line.startswith("train_lora ")).endswith("required >= 1.4 (plain / ours)")


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
