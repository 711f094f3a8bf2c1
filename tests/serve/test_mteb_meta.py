"""What mteb is told of a model, and that mteb finds a registered one by its name and files its results."""

import json
from dataclasses import replace

import mteb
import pytest
import torch
from mteb.mocks import ALL_MOCK_TASK_TEST_GRID

from mmembed import Embedder
from mmembed.errors import InputError
from mmembed.models.profiles import load_released, released_names
from mmembed.serve.mteb import MtebEncoder, meta_of, modalities_of, register
from tests.families import family_embedder

ALL = ("text", "image", "video")


@pytest.fixture(scope="module")
def saved(tmp_path_factory, scratch_embedder):
    folder = tmp_path_factory.mktemp("runs") / "toy/final"
    scratch_embedder("qwen2_vl").save(folder)
    return folder


@pytest.mark.parametrize(
    ("family", "read"),
    [("qwen2", ALL[:1]), ("bert", ALL[:1]), ("phi3_v", ALL[:2]), ("llava_onevision", ALL), ("clip", ALL)],
)
def test_a_model_declares_what_it_reads(family, read):
    assert modalities_of(family_embedder(family)) == read


def test_facts_of_the_model_are_read_off_it(saved):
    model = Embedder.from_pretrained(saved, device="cpu")

    meta = meta_of(model, licence="mit", languages=["eng-Latn"], training_datasets=["NFCorpus"])

    assert meta.name == "local/toy-final"
    assert meta.embed_dim == model.width
    assert meta.n_parameters == sum(p.numel() for p in model.parameters())
    assert meta.max_tokens == 4096
    assert meta.modalities == list(ALL)
    assert meta.license == "mit"
    assert meta.training_datasets == {"NFCorpus"}
    assert meta.similarity_fn_name.value == "cosine"
    assert meta.use_instructions


def test_other_weights_have_another_revision_and_nobody_declares_for_them(scratch_embedder, fresh_embedder):
    one, other = scratch_embedder("qwen2_vl"), fresh_embedder("qwen2_vl")
    with torch.no_grad():
        next(other.parameters()).add_(1.0)

    metas = [meta_of(model) for model in (one, one, other)]

    assert metas[0].revision == metas[1].revision != metas[2].revision
    assert metas[0].training_datasets is None
    assert metas[0].license is None
    assert meta_of(one, revision="abc").revision == "abc"


@pytest.mark.parametrize(
    ("family", "path", "name"),
    [
        ("qwen2_vl", "VLM2Vec/VLM2Vec-V2.0", "VLM2Vec/VLM2Vec-V2.0"),
        ("clip", "ViT-B-16-SigLIP:webli", "open_clip/ViT-B-16-SigLIP-webli"),
        ("qwen2_vl", "organisation/model", "organisation/model"),
    ],
)
def test_a_published_checkpoint_has_its_own_name_and_the_licence_of_its_row(family, path, name):
    model = family_embedder(family)
    model.settings = replace(model.settings, backbone=replace(model.settings.backbone, path=path, scratch=None))

    meta = meta_of(model)

    assert meta.name == name
    expected = load_released(path)[0].licence if path in released_names() else None
    assert (meta.license, meta.open_weights) == (expected, True if path in released_names() else None)


def test_what_mteb_does_not_take_is_refused_in_its_words(scratch_embedder):
    model = scratch_embedder("qwen2_vl")

    with pytest.raises(InputError, match="expected organisation/model, got 'toy'; write local/toy"):
        meta_of(model, "toy")
    with pytest.raises(InputError, match="fields that mteb takes"):
        meta_of(model, languages=["klingon"])


@pytest.fixture
def registered(saved):
    from mteb.models.model_implementations import MODEL_REGISTRY

    known = dict(MODEL_REGISTRY)
    yield register(meta_of(Embedder.from_pretrained(saved, device="cpu")), saved)
    MODEL_REGISTRY.clear()
    MODEL_REGISTRY.update(known)


@pytest.mark.usefixtures("registered")
def test_a_registered_model_keeps_its_instructions(saved):
    own = {"prompts": {"query": "My words."}, "instruct": "all"}
    meta = MtebEncoder(Embedder.from_pretrained(saved, device="cpu"), **own).mteb_model_meta

    with pytest.raises(InputError, match=r"register local/toy-final: expected the instructions of .* got none"):
        register(meta, saved)
    register(meta, saved, **own)
    model = mteb.get_model("local/toy-final", device="cpu")

    task = mteb.get_task("NFCorpus").metadata
    assert model.get_task_instruction(task, mteb.types.PromptType.query) == "My words."
    assert model.instruct == "all"
    assert model.mteb_model_meta.experiment_name == meta.experiment_name


def test_a_registered_model_is_found_by_its_name_and_its_results_lie_by_its_revision(registered, tmp_path):
    model = mteb.get_model("local/toy-final", device="cpu")
    tasks = [task for task in ALL_MOCK_TASK_TEST_GRID if task.metadata.name == "MockAny2AnyRetrievalT2I"]

    assert isinstance(model, MtebEncoder)
    found = mteb.evaluate(model, tasks, cache=mteb.ResultCache(tmp_path), co2_tracker=False, show_progress_bar=False)

    folder = tmp_path / "results/local__toy-final" / registered.revision
    assert 0 <= found.task_results[0].get_score() <= 1
    assert json.loads((folder / "MockAny2AnyRetrievalT2I.json").read_text())["task_name"] == "MockAny2AnyRetrievalT2I"
    assert json.loads((folder / "model_meta.json").read_text())["embed_dim"] == 64
