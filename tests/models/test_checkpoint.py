"""Checkpoints: opened whole or refused with the names of what is wrong."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, Qwen2Config

from mmembed.errors import InputError
from mmembed.models.backbones.qwen_vl.backbone import QWEN_VL
from mmembed.models.checkpoint import open_checkpoint, save_checkpoint
from mmembed.models.settings import EmbedderSettings, QwenVL


def opened(path, dtype="float32"):
    return open_checkpoint(str(path), QWEN_VL, dtype=dtype)


@pytest.fixture
def copy(golden, tmp_path):
    return shutil.copytree(golden / "vlm2vec/qwen2_vl", tmp_path / "checkpoint")


def edit_weights(directory, change):
    weights = load_file(directory / "model.safetensors")
    change(weights)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def edit_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def a_weight(directory, suffix):
    return next(name for name in load_file(directory / "model.safetensors") if name.endswith(suffix))


def test_a_checkpoint_with_a_head_opens_without_it(copy):
    checkpoint = opened(copy, "bfloat16")

    assert not any("lm_head" in name for name, _ in checkpoint.model.named_parameters())
    assert next(checkpoint.model.parameters()).dtype == torch.bfloat16
    assert "<|im_start|>" in checkpoint.tokenizer.chat_template


def test_weights_begin_where_they_would_in_memory_however_long_the_header_of_their_file_is(copy):
    weights = load_file(copy / "model.safetensors")
    for longer in (0, 8):
        save_file(weights, copy / "model.safetensors", metadata={"format": "pt", "longer": "x" * longer})

        model = opened(copy).model

        assert {weight.data_ptr() % 64 for weight in (*model.parameters(), *model.buffers())} == {0}


def test_a_missing_weight_is_named(copy):
    name = a_weight(copy, "0.mlp.up_proj.weight")
    edit_weights(copy, lambda weights: weights.pop(name))

    with pytest.raises(InputError, match=r"exactly the weights of its config, got 1 missing: .*up_proj\.weight"):
        opened(copy)


def test_an_unexpected_weight_is_named(copy):
    edit_weights(copy, lambda weights: weights.update({"model.extra.weight": torch.ones(2)}))

    with pytest.raises(InputError, match=r"got 1 unexpected: .*extra\.weight"):
        opened(copy)


def test_a_weight_of_another_shape_is_named(copy):
    name = a_weight(copy, "0.mlp.up_proj.weight")
    edit_weights(copy, lambda weights: weights.update({name: torch.ones(3, 3)}))

    with pytest.raises(InputError, match=r"up_proj\.weight"):
        opened(copy)


def test_another_kind_of_model_is_refused(copy):
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = Qwen2Config(vocab_size=600, num_key_value_heads=2, **small)
    AutoModel.from_config(text).save_pretrained(copy)
    message = "model_type: expected a Qwen-VL checkpoint, got 'qwen2'; did you mean 'qwen2_vl'"

    with pytest.raises(InputError, match=message):
        QwenVL(path=str(copy)).build(prompt=EmbedderSettings(QwenVL(path="x")).prompt)


@pytest.mark.parametrize("change", ["unknown type", "no config", "no weights"])
def test_an_unusable_directory_is_refused_in_words(change, copy):
    if change == "unknown type":
        edit_config(copy, model_type="qwen9_vl")
    elif change == "no config":
        (copy / "config.json").unlink()
    else:
        (copy / "model.safetensors").unlink()

    message = r"checkpoint: expected a checkpoint with config\.json, weights and tokenizer"
    if change == "unknown type":
        message = r"model_type: expected a Qwen-VL checkpoint, got 'qwen9_vl'; did you mean 'qwen\d_vl'"
    with pytest.raises(InputError, match=message):
        opened(copy)


def as_torch_files(directory, *parts):
    """The weights as torch's own files; ``parts`` are the beginnings of names that lie in a file of their own."""
    weights = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    if not parts:
        torch.save(weights, directory / "pytorch_model.bin")
        return weights
    places = {name: next((i for i, part in enumerate(parts) if name.startswith(part)), len(parts)) for name in weights}
    files = {name: f"pytorch_model-{place:05}.bin" for name, place in places.items()}
    for file in set(files.values()):
        torch.save({name: value for name, value in weights.items() if files[name] == file}, directory / file)
    index = {"metadata": {}, "weight_map": files}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return weights


@pytest.mark.parametrize("parts", [(), ("visual.",)])
def test_torchs_own_files_open_to_the_same_bits(parts, copy):
    expected = opened(copy).model.state_dict()
    as_torch_files(copy, *parts)

    found = opened(copy).model.state_dict()

    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_missing_weight_of_torchs_own_files_is_named(copy):
    weights = as_torch_files(copy)
    name = next(name for name in weights if name.endswith("0.mlp.up_proj.weight"))
    torch.save({key: value for key, value in weights.items() if key != name}, copy / "pytorch_model.bin")

    with pytest.raises(InputError, match=r"exactly the weights of its config, got 1 missing: .*up_proj\.weight"):
        opened(copy)


class Opened:
    """What would run code when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (
            {"lm_head.weight": Opened()},
            r"got no whole file of torch's, or objects besides tensors and plain values; download",
        ),
        (
            {"lm_head.weight": torch.ones(1), "step": 3},
            "got others: step; download it again, or save it as safetensors",
        ),
        ([torch.ones(1)], "got list; download it again"),
    ],
)
def test_torchs_own_file_with_anything_but_tensors_is_refused_and_not_run(held, message, copy):
    (copy / "model.safetensors").unlink()
    torch.save(held, copy / "pytorch_model.bin")

    with pytest.raises(
        InputError, match=rf"pytorch_model\.bin: expected weights by their names and nothing else, {message}"
    ):
        opened(copy)


def test_a_missing_one_of_torchs_own_files_is_named(copy):
    as_torch_files(copy, "visual.")
    (copy / "pytorch_model-00000.bin").unlink()

    with pytest.raises(InputError, match=r"pytorch_model-00000\.bin: expected weights .* got no such file"):
        opened(copy)


def test_safetensors_are_opened_where_torchs_own_files_lie_beside_them(copy):
    torch.save({"nothing": torch.ones(1)}, copy / "pytorch_model.bin")

    assert opened(copy).model is not None


def test_an_adapter_beside_the_weights_is_not_put_in_without_a_word(copy, golden):
    shutil.copy(golden / "vlm2vec/qwen2_vl_lora/adapter_config.json", copy)

    with pytest.raises(InputError, match=r"got adapter_config\.json; give the adapter as adapter=, on its base"):
        opened(copy)


def test_a_file_of_facts_that_is_no_mapping_is_refused_in_words(copy):
    (copy / "preprocessor_config.json").write_text("[]")

    with pytest.raises(InputError, match=r"preprocessor_config\.json: expected a mapping, got list"):
        opened(copy)


def test_a_missing_directory_is_refused_in_words(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: expected a checkpoint .* check the path or Hub id"):
        opened(tmp_path / "nowhere")


def test_a_saved_checkpoint_keeps_weights_tokenizer_and_picture_statistics(copy, tmp_path):
    checkpoint = opened(copy)
    checkpoint.preprocessing |= {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}

    save_checkpoint(checkpoint, tmp_path / "saved")
    again = opened(tmp_path / "saved")

    assert again.image_mean == (0.1, 0.2, 0.3)
    assert again.image_std == (0.4, 0.5, 0.6)
    assert again.tokenizer.chat_template == checkpoint.tokenizer.chat_template
    text = "A cat <|im_start|> café 東京"
    assert again.tokenizer(text).input_ids == checkpoint.tokenizer(text).input_ids
    weights = dict(checkpoint.model.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in again.model.named_parameters())
