"""mteb's drawn tasks, all that a model can read: its own check of an encoder, in one process and in several."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mteb
import pytest
import torch
from datasets import Dataset
from mteb.mocks import ALL_MOCK_TASK_TEST_GRID
from mteb.results.task_result import TaskError
from torch.utils.data import DataLoader

from mmembed import Embedder
from mmembed.errors import InputError
from mmembed.processes import ALONE
from mmembed.serve.mteb import MtebEncoder
from tests.cases import small_embedder
from tests.families import family_embedder

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from pathlib import Path
import torch
from eval.run import main
from mmembed.processes import joined
from tests.acceptance.test_mteb_mock import encode_all

model, output = sys.argv[1:]
with joined("cpu") as processes:
    code = main(["--model", model, "--benchmark", "mteb:mock", "--tasks", "DRAWN", "--output", output])
    torch.save([code, *encode_all(model, processes)], Path(output) / f"{processes.rank}.pt")
"""
DRAWN = "MockAny2AnyRetrievalT2I,MockClassificationTask"
SIZES = (65, 1, 2)

pytestmark = [
    pytest.mark.acceptance,
    # mteb's own, of how it finds sentences of two languages
    pytest.mark.filterwarnings("ignore:To copy construct from a tensor"),
    # of a few drawn rows, some scores are not defined
    pytest.mark.filterwarnings("ignore:.*ill-defined"),
    pytest.mark.filterwarnings("ignore:An input array is constant"),
]


@pytest.mark.parametrize(
    ("made", "count"),
    [
        (lambda: small_embedder("qwen2_vl"), {"text": 38, "image": 15, "video": 7}),
        (lambda: family_embedder("clip"), {"text": 38, "image": 15, "video": 7}),
        (lambda: family_embedder("qwen2"), {"text": 28}),
    ],
    ids=["qwen2_vl", "clip", "qwen2"],
)
def test_every_drawn_task_that_the_model_reads_passes(made, count):
    encoder = MtebEncoder(made().eval())

    found = mteb.mock_run(encoder)

    failed = {name: status.exception for name, status in found.items() if isinstance(status, TaskError)}
    assert failed == {}
    kinds = {task.metadata.name: task.metadata.modalities for task in ALL_MOCK_TASK_TEST_GRID}
    passed = [name for name, status in found.items() if status is not None]
    assert {kind: sum(kind in kinds[name] for name in passed) for kind in encoder.mteb_model_meta.modalities} == count


@pytest.fixture(scope="module")
def model(tmp_path_factory, scratch_embedder):
    folder = tmp_path_factory.mktemp("models") / "toy"
    scratch_embedder("qwen2_vl").save(folder)
    return folder


def encode_all(model, processes=ALONE):
    """Vectors of loaders of several sizes, what is said of one that cannot be read, and vectors after that."""

    def loader(rows):
        return DataLoader(Dataset.from_dict({"text": rows}), batch_size=8)

    encoder = MtebEncoder(Embedder.from_pretrained(model, device="cpu"), processes=processes)
    asked = {"task_metadata": mteb.get_task("STS12").metadata, "hf_split": "test", "hf_subset": "default"}
    rows = [f"row {'word ' * (i % 9)}{i}" for i in range(max(SIZES))]
    vectors = [encoder.encode(loader(rows[:size]), **asked) for size in SIZES]
    with pytest.raises(InputError) as error:
        encoder.encode(loader([["a"], ["b"]]), **asked)
    vectors.append(encoder.encode(loader(rows[:7]), **asked))
    return [torch.from_numpy(found) for found in vectors], str(error.value)


def test_two_processes_give_what_one_gives_and_the_first_alone_writes(model, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM.replace("DRAWN", DRAWN))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    done = subprocess.run(
        [*launcher, "program.py", str(model), str(tmp_path)],
        cwd=tmp_path, env=environment | {"MMEMBED_CACHE": str(tmp_path / "cache")}, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("scores.json") == 1
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["about"]["processes"] == 2
    assert scores["failed"] == {}
    assert set(scores["tasks"]) == set(DRAWN.split(","))
    assert {path.stem for path in tmp_path.glob("mteb/results/*/*/Mock*.json")} == set(DRAWN.split(","))
    vectors, said = encode_all(model)
    assert [len(found) for found in vectors] == [*SIZES, 7]
    assert "STS12: row 0: text: expected a string, got list" in said
    for rank in (0, 1):
        code, theirs, heard = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert (code, heard) == (0, said)
        assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(theirs, vectors, strict=True))
