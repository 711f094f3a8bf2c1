"""Two embedders have equal parts exactly when they give equal vectors."""

from pathlib import Path

import pytest
import torch

import mmembed
from mmembed import Embedder
from mmembed.errors import InputError
from mmembed.models.identity import CODE, LIBRARIES, code_fingerprint, identity
from mmembed.models.poolers import MeanTokenPooler
from mmembed.models.settings import ChatPrompt, EmbedderSettings, MeanToken, QwenVL, RawPrompt, SpecialTokens


def changed(ours, theirs):
    return {name for name in ours | theirs if ours.get(name) != theirs.get(name)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory, scratch_embedder):
    folder = tmp_path_factory.mktemp("identity") / "model"
    scratch_embedder("qwen2_vl").save(folder)
    return folder


def test_a_model_is_the_same_wherever_it_is_loaded_from(saved, tmp_path):
    first = Embedder.from_pretrained(saved, device="cpu")
    first.save(tmp_path / "copy")

    assert identity(first) == identity(Embedder.from_pretrained(tmp_path / "copy", device="cpu"))


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ({"max_pixels": 12544}, "backbone.max_pixels"),
        ({"min_pixels": 1000}, "backbone.min_pixels"),
        ({"positions": "sequential"}, "backbone.positions"),
        ({"resize": "pil"}, "backbone.resize"),
        ({"max_length": 100}, "backbone.max_length"),
    ],
)
def test_each_setting_that_vectors_depend_on_is_a_part(saved, override, part):
    model, other = (Embedder.from_pretrained(saved, device="cpu", **more) for more in ({}, override))

    assert changed(identity(model), identity(other)) == {part}


def test_another_type_changes_the_type_and_the_weights(saved):
    model, other = (Embedder.from_pretrained(saved, device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16"))

    assert changed(identity(model), identity(other)) >= {"backbone.dtype", "weights"}


def test_where_rows_are_padded_is_no_part(saved):
    model, other = (Embedder.from_pretrained(saved, device="cpu", padding_side=side) for side in ("left", "right"))

    assert identity(model) == identity(other)


def test_one_weight_one_word_and_one_template_are_parts(fresh_embedder):
    models = [fresh_embedder() for _ in range(4)]
    with torch.no_grad():
        next(models[1].backbone.model.language_model.parameters()).view(-1)[7] += 1e-4
    models[2].backbone.checkpoint.tokenizer.add_tokens(["<new>"])
    models[3].backbone.checkpoint.tokenizer.chat_template += " "

    names = [identity(model) for model in models]

    assert changed(names[0], names[1]) == {"weights"}
    assert changed(names[0], names[2]) == {"tokenizer"}
    assert changed(names[0], names[3]) == {"tokenizer"}


def test_prompt_and_pooler_are_parts(fresh_embedder):
    ours = identity(fresh_embedder(prompt=RawPrompt(suffix="<|im_end|>")))

    assert "prompt.suffix" in changed(ours, identity(fresh_embedder(prompt=RawPrompt())))
    assert "prompt.class_path" in changed(ours, identity(fresh_embedder(prompt=ChatPrompt())))
    mean = fresh_embedder(pooler=MeanToken())
    assert isinstance(mean.pooler, MeanTokenPooler)
    assert "pooler.class_path" in changed(ours, identity(mean))


def test_an_adapter_is_told_from_its_base(open_golden, golden):
    base = identity(open_golden("qwen2_vl"))
    adapted = identity(open_golden("qwen2_vl", adapter=str(golden / "vlm2vec/qwen2_vl_lora")))

    assert base["adapter"] == "none"
    assert "adapter" in changed(base, adapted)
    assert adapted["adapter"] != "none"


def test_the_libraries_that_make_vectors_are_named(saved):
    parts = identity(Embedder.from_pretrained(saved, device="cpu"))

    assert {name for name in parts if name.startswith("library.")} == {f"library.{name}" for name in LIBRARIES}
    assert torch.__version__.startswith(parts["library.torch"])
    assert parts["device"] == "cpu"


def test_what_was_added_to_a_checkpoint_is_told_by_its_weights_and_tokenizer(golden):
    path = str(golden / "vlm2vec/qwen2_vl")
    tokens = [SpecialTokens(("<emb>",)), SpecialTokens(("<emb>",), seed=1, train=False), SpecialTokens(("<other>",))]

    first, same, other = (
        identity(Embedder(EmbedderSettings(QwenVL(path=path, special_tokens=added)))) for added in tokens
    )

    assert changed(first, same) == set()
    assert changed(first, other) == {"tokenizer"}


def test_the_code_of_every_part_that_makes_vectors_counts(tmp_path):
    folders = ("items", "media")
    for folder in folders:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text("a = 1\n")
    before = code_fingerprint(tmp_path, folders)

    (tmp_path / "items/a.py").write_text("a = 2\n")

    assert code_fingerprint(tmp_path, folders) != before
    with pytest.raises(InputError, match=r"items.py: expected Python files, got none"):
        code_fingerprint(tmp_path, ("items.py", "media"))


def test_the_package_has_the_code_that_is_named():
    root = Path(mmembed.__file__).parent

    assert CODE == ("items", "media", "models")
    assert all((root / folder).is_dir() for folder in CODE)
