"""scripts/bench.py compares like with like, and counts the work; no seconds are asserted."""

import json
import weakref
from dataclasses import asdict, replace

import pytest
import torch

from mmembed.errors import InputError
from scripts.bench import main
from scripts.benchmark.bench import Bench
from scripts.benchmark.catalogue import WORKLOADS, Required, chosen
from scripts.benchmark.inputs import WORDS, fingerprints, texts_of_one_length
from scripts.benchmark.measuring import Conditions, measure
from scripts.benchmark.models import ALL_ON, OFF, make_embedder, options_in_words
from scripts.benchmark.page import results_page
from scripts.benchmark.sizes import SIZES
from scripts.benchmark.workloads import helping, ranking
from scripts.benchmark.workloads.helping import commands, imported_by

CPU = torch.device("cpu")
FIELDS = {
    "workload", "ours", "plain", "ratio", "spread", "rounds", "rows", "peak_mb", "rise_mb", "plain_peak_mb",
    "plain_rise_mb", "difference", "counters", "mfu", "plain_mfu", "useful_gflops", "breakdown", "facts", "options",
    "note", "error", "load_before",
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
    about = {"machine", "size", "ceiling", "rounds", "tolerance", "gradient_tolerance", "date"}
    assert about | {"results"} == results.keys()
    assert {"cores", "threads", "memory_gib", "device", "torch", "transformers"} <= results["machine"].keys()
    assert [result["workload"] for result in results["results"]] == list(WORKLOADS)
    for result in results["results"]:
        assert result.keys() == FIELDS
        assert result["peak_mb"] > 50
        assert 0 <= result["rise_mb"] < result["peak_mb"]
        assert result["load_before"] >= 0
        assert result["error"] == ""


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


def test_each_option_is_turned_off_by_itself(results):
    found = of(results, "options")["facts"]["times_as_long_without"]

    assert set(found) == {"packing", "last_layer", "patch_products", "sort", "deduplicate"}
    assert min(found.values()) > 0


def test_all_on_and_all_off_are_all_that_is_exact():
    off, on = asdict(OFF), asdict(ALL_ON)

    assert set(off.values()) == {"off", "all", False, None}
    # the one compiles for minutes, the other moves vectors
    assert {name for name in off if off[name] == on[name]} == {"compile", "autocast"}
    assert {"last_layer auto", "sort", "deduplicate"} <= set(options_in_words().split(", "))


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


def test_equal_lengths_are_equal_in_tokens(results):
    for name in ("train_lora", "train_full"):
        counters = of(results, name)["counters"]
        assert counters["padded_tokens"] == counters["language_tokens"] > 0


@pytest.mark.parametrize("name", ["tiny", "mid"])
def test_each_word_is_one_token_and_a_text_as_long_as_a_picture(name):
    size = replace(SIZES["tiny"], pixels=SIZES[name].pixels, rows=4)
    embedder = make_embedder(size, CPU)
    texts = texts_of_one_length(4, size.picture_tokens, seed=0)

    rows = embedder.prepare([*texts, *Bench(size, CPU).pictures], "query")

    assert len({len(row) for row in rows}) == 1
    tokenizer = embedder.backbone.checkpoint.tokenizer
    for word in (*WORDS, "system", "user", "assistant"):
        assert len(tokenizer(word).input_ids) == 1
    for word in WORDS:
        assert tokenizer.tokenize(f" {word}") == [f"Ġ{word}"]


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
        assert rates.keys() == {"no worker", "1 worker", "2 workers"}
        assert min(rates.values()) > 0
        each = of(results, name)["facts"]["pairs_per_second_and_worker"]
        assert each == {**rates, "2 workers": rates["2 workers"] / 2}
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
    assert f"| `loss` | every | bytes of scores / full matrix | at most 0.125 | {1 / 16} | yes |" in required
    # of the other sizes nothing is known here
    assert "| `encode_mixed` | mid | plain / ours | at least 2.5 | - | not measured |" in required
    assert "| `encode_mixed` | 2b | share of the ceiling | at least 0.55 | - | not measured |" in required
    assert "No data-centre GPU was at hand" in page


def test_the_page_says_whether_the_machine_was_busy(results):
    quiet, busy = json.loads(json.dumps(results)), json.loads(json.dumps(results))
    for result in quiet["results"]:
        result["load_before"] = 0.5
    of(busy, "loss")["load_before"] = 100.0

    assert "Nothing else kept the machine busy" in results_page(quiet)
    page = results_page(busy)
    assert "**The machine was busy**" in page
    assert "`loss` (100.0)" in page


def test_the_page_of_the_size_for_a_gpu_has_its_throughput(results):
    large = json.loads(json.dumps(results)) | {"size": "2b"}
    of(large, "train_lora").update(mfu=0.46, ours=2.0)
    of(large, "encode_mixed").update(mfu=0.54, ours=2.0)
    tokens = of(large, "train_lora")["counters"]["language_tokens"] / 2
    mixed = of(large, "encode_mixed")["counters"]["language_tokens"] / 2

    page = results_page(large)

    gpu = page.split("## A GPU")[1].split("##")[0]
    assert f"| `train_lora` | 4.0 | {tokens:.1f} | 46 | 45 | yes |" in gpu
    assert f"| `encode_mixed` | 4.0 | {mixed:.1f} | 54 | 55 | no |" in gpu
    assert "| `encode_mixed` | 2b | share of the ceiling | at least 0.55 | 0.54 | no |" in page


@pytest.mark.parametrize(
    ("required", "result", "met"),
    [
        (Required("ratio", 1.2), {"ratio": 1.2}, True),
        (Required("ratio", 1.2), {"ratio": 1.1}, False),
        (Required("ratio", 1.2), {"ratio": None}, None),
        (Required("ratio", 1.2, size="2b"), {"ratio": 1.2}, None),
        (Required("ratio", 1.2, size=None), {"ratio": 1.2}, True),
        (Required("facts.share", 0.1, at_least=False), {"facts": {"share": 0.05}}, True),
        (Required("facts.share", 0.1, at_least=False), {"facts": {"share": 0.2}}, False),
        (Required("facts.share", 0.1, at_least=False), {}, None),
    ],
)
def test_a_bound_is_kept_or_not_or_was_not_measured(required, result, met):
    assert required.met(result, "mid") is met


@pytest.mark.parametrize("workload", ["encode_texts", "train_whole"])
def test_what_is_not_equal_is_not_timed_and_the_others_are(workload, tmp_path, monkeypatch, capsys):
    twin = Bench.twin

    def other(self, embedder, **more):
        made = twin(self, embedder, **more)
        with torch.no_grad():
            made.model.language_model.norm.weight[:3] += 0.5
        return made

    monkeypatch.setattr(Bench, "twin", other)
    output, page = tmp_path / "b.json", tmp_path / "b.md"
    options = ["--size", "tiny", "--rounds", "1", "--workloads", f"{workload}, rank_gallery"]

    assert main([*options, "--output", str(output), "--page", str(page)]) == 2

    said = f"{workload}: expected outcomes equal to 1e-05, got 0."
    printed = capsys.readouterr()
    assert f"{workload} failed: {said}" in printed.err
    assert "failed" in printed.out
    failed, done = json.loads(output.read_text())["results"]
    assert failed.keys() == done.keys() == FIELDS
    assert (failed["ours"], failed["plain"], failed["ratio"], failed["rounds"]) == (None, None, None, 0)
    assert failed["difference"] > 1e-5
    assert failed["error"].startswith(said)
    assert (done["error"], done["rounds"]) == ("", 1)
    assert f"**`{workload}` failed**: {said}" in page.read_text()
    assert "| failed |" in page.read_text()


def test_a_workload_leaves_no_model_to_the_next(tmp_path, monkeypatch):
    twin, models, alive = Bench.twin, [], []

    def watched(self, embedder, **more):
        alive.append(sum(one() is not None for one in models))
        made = twin(self, embedder, **more)
        models.extend([weakref.ref(embedder), weakref.ref(made.model)])
        return made

    monkeypatch.setattr(Bench, "twin", watched)
    names = "encode_texts,encode_mixed,train_full,train_lora"

    assert main(["--output", str(tmp_path / "b.json"), "--size", "tiny", "--rounds", "1", "--workloads", names]) == 0

    assert alive == [0, 0, 0, 0]


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
    assert main(["--output", str(tmp_path / "b.json"), "--workloads", " ,"]) == 2
    assert "--workloads: expected names of workloads, got none; --list names them" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--output", str(tmp_path / "b.json"), "--rounds", "0"])
    assert "argument --rounds: expected 1 or more, got 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--size", "tiny"])
    assert "argument --output: say where the results go" in capsys.readouterr().err


def test_blanks_around_names_of_workloads_are_nothing():
    assert chosen("encode_texts, loss ") == ["encode_texts", "loss"]


@pytest.mark.parametrize("option", ["--output", "--page"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(option, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    good = {"--output": tmp_path / "b.json", "--page": tmp_path / "b.md"}
    for bad in (tmp_path / "file/b", tmp_path):
        files = [str(word) for pair in (good | {option: bad}).items() for word in pair]

        assert main([*files, "--size", "tiny", "--workloads", "rank_gallery"]) == 2

        printed = capsys.readouterr().err
        assert f"{option} {bad}: expected a file that can be written, got " in printed
        assert "rank_gallery" not in printed


def test_a_command_without_help_is_named_with_what_it_says(tmp_path, monkeypatch):
    monkeypatch.setattr(helping, "ROOT", tmp_path)
    (tmp_path / "broken.py").write_text("raise SystemExit('no such option')\n")
    (tmp_path / "whole.py").write_text("import argparse\nraise SystemExit(0)\n")

    with pytest.raises(InputError, match=r"broken.py: expected its help, got exit code 1: .*no such option; run"):
        imported_by("broken.py")
    assert "argparse" in imported_by("whole.py")


def test_a_million_vectors_are_ranked_as_the_plain_ways_rank_them(results):
    facts = of(results, "rank_million")["facts"]
    targets, queries = ranking.unit_vectors(500, 16, 1), ranking.unit_vectors(20, 16, 0)
    whole = (queries @ targets.T).topk(ranking.MILLION_TOP)

    assert (facts["same_targets"], facts["same_best"]) == (1.0, 1.0)
    for block in (7, 128, 1000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ranking, "BLOCK", block)
            scores, places = ranking.block_search(targets, queries)
        assert (scores - whole.values).abs().max() < 1e-6
        assert ranking.shared(places, whole.indices) == 1.0
    assert ranking.shared(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[2, 1], [3, 5]])) == 0.75


@pytest.mark.parametrize("workload", ["encode_mixed", "train_lora", "train_full"])
def test_the_size_for_a_gpu_runs_but_for_its_scale(workload):
    large = SIZES["2b"]
    shrunk = replace(SIZES["tiny"], vocabulary=3000, dtype=large.dtype)
    bench = Bench(shrunk, CPU)
    under = Conditions(1, large.tolerance, large.gradient_tolerance)

    found = measure(workload, WORKLOADS[workload].make(bench), under)

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
    assert main(["--output", str(tmp_path / "b.json"), "--size", "tiny", "--device", "cuda"]) == 2
    assert "--device cuda: expected a GPU, got none that torch can use; leave it out" in capsys.readouterr().err


def test_the_list_says_what_is_required(capsys):
    assert main(["--list"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(WORKLOADS)
    assert next(line for line in lines if line.startswith("train_lora ")).endswith(
        "; required at mid >= 1.4 (plain / ours), at 2b >= 0.45 (share of the ceiling)"
    )
