"""An embedder as mteb's encoder: the vectors of Embedder.encode, under the instruction that task and side have."""

import mteb
import numpy as np
import pytest
import torch
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageColumn
from mteb.models.models_protocols import EncoderProtocol
from mteb.types import PromptType
from torch.utils.data import DataLoader

from mmembed.errors import InputError
from mmembed.evaluation.crew import Crew
from mmembed.index.embedding_cache import EmbeddingCache
from mmembed.models.settings import MeanToken
from mmembed.processes import Processes
from mmembed.serve.mteb import MtebEncoder
from tests.families import family_embedder

QUERY, DOCUMENT = PromptType.query, PromptType.document
WORDS = "Find the picture."


@pytest.fixture(scope="module")
def model(scratch_embedder):
    return scratch_embedder("qwen2_vl")


@pytest.fixture(scope="module")
def encoder(model):
    return MtebEncoder(model)


def task(prompt=None, name="Toy", kind="Retrieval"):
    return mteb.TaskMetadata(
        name=name, description="toy", type=kind, dataset={"path": "local/none", "revision": "1"},
        eval_langs=["eng-Latn"], main_score="ndcg_at_10", prompt=prompt, category="t2t",
    )  # fmt: skip


def embedded(encoder, rows, metadata=None, side=QUERY, **more):
    dataset = rows if isinstance(rows, Dataset) else Dataset.from_dict(rows)
    loader = DataLoader(dataset, batch_size=2)
    asked = {"task_metadata": metadata or task({}), "hf_split": "test", "hf_subset": "default", "prompt_type": side}
    return encoder.encode(loader, **asked, **({"show_progress_bar": False} | more))


def close(vectors, others):
    return torch.allclose(torch.as_tensor(vectors), torch.as_tensor(others), atol=1e-6)


def test_it_is_what_mteb_calls_an_encoder(encoder):
    assert isinstance(encoder, EncoderProtocol)


def test_rows_of_every_kind_are_embedded_as_the_model_embeds_them(encoder, model, picture):
    pictures = [[picture(28, 28)], None, [picture(56, 28, 1), picture(28, 56, 2)]]
    texts = ["the same, but blue", "a red circle", ""]
    columns = Features({"id": Value("string"), "text": Value("string"), "image": List(ImageColumn())})
    rows = Dataset.from_dict({"id": ["a", "b", "c"], "text": texts, "image": pictures}, columns)

    vectors = embedded(encoder, rows, task({"query": WORDS}))

    items = [{"image": pictures[0], "text": texts[0]}, texts[1], {"image": pictures[2]}]
    assert close(vectors, model.encode(items, instruction=WORDS, side="query"))
    assert vectors.dtype == np.float32


def test_documents_are_targets(scratch_embedder):
    model = scratch_embedder("qwen2_vl", pooler=MeanToken(drop_on_query=("instruction",)))
    rows = {"text": ["a red circle", "the same, but blue"]}
    metadata = task({"query": WORDS, "document": WORDS})

    query, document = (embedded(MtebEncoder(model), rows, metadata, side) for side in (QUERY, DOCUMENT))

    assert close(query, model.encode(rows["text"], instruction=WORDS, side="query"))
    assert close(document, model.encode(rows["text"], instruction=WORDS, side="target"))
    assert not close(query, document)


@pytest.mark.parametrize(
    ("prompt", "side", "options", "words"),
    [
        ({"query": WORDS}, QUERY, {}, WORDS),
        ({"query": WORDS}, DOCUMENT, {}, ""),
        ({"query": WORDS}, None, {}, WORDS),
        ({"document": WORDS}, DOCUMENT, {}, WORDS),
        ({"document": WORDS}, QUERY, {}, ""),
        (WORDS, QUERY, {}, WORDS),
        (WORDS, None, {}, WORDS),
        (WORDS, DOCUMENT, {}, ""),
        (WORDS, DOCUMENT, {"instruct": "all"}, WORDS),
        (WORDS, QUERY, {"instruct": "none"}, ""),
        (WORDS, QUERY, {"instruct": "none", "prompts": {"query": "My words."}}, "My words."),
        (WORDS, DOCUMENT, {"prompts": {"query": "My words.", "document": "Theirs."}}, "Theirs."),
        (WORDS, QUERY, {"prompts": {"query": "My words.", "Toy": "Of this task."}}, "Of this task."),
        (WORDS, DOCUMENT, {"prompts": {"Toy": {"query": "Of this task."}}}, ""),
        (WORDS, QUERY, {"prompts": {"Retrieval": "Of this type."}}, "Of this type."),
        (WORDS, QUERY, {"prompts": {"STS": "Of another type."}}, WORDS),
    ],
)
def test_the_instruction_is_the_models_own_for_the_side_else_the_tasks(model, encoder, prompt, side, options, words):
    asked = MtebEncoder(model, encoder.mteb_model_meta, **options)

    assert asked.get_task_instruction(task(prompt), side) == words


def test_a_task_of_mteb_without_a_prompt_has_that_of_its_type(encoder):
    assert encoder.get_task_instruction(mteb.get_task("NFCorpus").metadata, QUERY).startswith("Given a question")
    assert encoder.get_task_instruction(mteb.get_task("STS12").metadata, None) == "Retrieve semantically similar text."


def test_a_dual_encoder_gets_no_instruction():
    model = family_embedder("clip").eval()

    encoder = MtebEncoder(model)

    assert encoder.get_task_instruction(task({"query": WORDS}), QUERY) == ""
    assert close(embedded(encoder, {"text": ["a red circle"]}, task({"query": WORDS})), model.encode("a red circle"))


def test_an_instruction_of_ones_own_makes_results_an_experiment(model):
    names = [MtebEncoder(model, **options).mteb_model_meta.experiment_name for options in ({}, {"instruct": "all"})]

    assert names[0] is None
    assert names[1].startswith("instructions_")


def test_a_row_embedded_before_is_found_again_in_the_cache(model, encoder, tmp_path):
    rows = {"text": ["a red circle", "describe the clip", "a red circle"]}
    asked = MtebEncoder(model, encoder.mteb_model_meta, cache=EmbeddingCache(tmp_path, max_bytes=1 << 20))

    first = embedded(asked, rows)
    shards = sorted(tmp_path.glob("*/*.safetensors"))
    again = embedded(asked, rows)

    assert np.array_equal(first, again)
    assert np.array_equal(first[0], first[2])
    assert len(shards) == 1
    assert sorted(tmp_path.glob("*/*.safetensors")) == shards


@pytest.mark.parametrize(("bars", "theirs", "shown"), [(None, True, 1), (None, False, 0), (True, False, 1)])
def test_a_bar_is_shown_where_it_is_wanted(model, encoder, monkeypatch, capsys, bars, theirs, shown):
    monkeypatch.setattr("mmembed.progress.SECONDS_BETWEEN_LINES", 0.0)
    asked = MtebEncoder(model, encoder.mteb_model_meta, bars=bars)

    embedded(asked, {"text": ["a red circle"]}, show_progress_bar=theirs)

    assert ("Toy: query: 1/1" in capsys.readouterr().err) == shown


def test_a_row_that_cannot_be_embedded_is_named(picture):
    encoder = MtebEncoder(family_embedder("qwen2").eval())
    rows = Dataset.from_dict({"image": [picture(28, 28)]}, Features({"image": ImageColumn()}))

    with pytest.raises(InputError, match=r"row 0: item\.image: expected text"):
        embedded(encoder, rows)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"instruct": "query"}, "did you mean 'queries'"),
        ({"processes": Processes(0, 2), "crew": Crew(lambda items, side: None)}, "leave one of the two out"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(model, encoder, options, said):
    with pytest.raises(InputError, match=said):
        MtebEncoder(model, encoder.mteb_model_meta, **options)


def test_vectors_of_less_than_float32_are_refused(encoder):
    with pytest.raises(InputError, match="precision: expected float32, got 'int8'"):
        embedded(encoder, {"text": ["a"]}, precision="int8")
