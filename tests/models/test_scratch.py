"""Small random checkpoints: the same bits for the same settings, and the real architectures."""

import pytest
import torch

from mmembed.errors import InputError
from mmembed.models.backbones.llava.scratch import SCRATCH as LLAVA
from mmembed.models.backbones.phi3_v.scratch import SCRATCH as PHI3_V
from mmembed.models.backbones.qwen_vl.scratch import SCRATCH, SPECIAL_TOKENS
from mmembed.models.backbones.text.scratch import DECODER, ENCODER
from mmembed.models.scratch import make_scratch, train_tokenizer
from mmembed.models.settings import Scratch

TEXTS = ["a red circle and a blue square", "the same, but green"]


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_the_same_settings_give_the_same_bits_and_another_seed_others(family):
    first = make_scratch(Scratch(family), SCRATCH, TEXTS)
    torch.manual_seed(2)

    again, other = make_scratch(Scratch(family), SCRATCH, TEXTS), make_scratch(Scratch(family, seed=1), SCRATCH, TEXTS)

    weights = dict(first.model.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in again.model.named_parameters())
    assert not all(torch.equal(p, weights[name]) for name, p in other.model.named_parameters())
    assert again.tokenizer.get_vocab() == first.tokenizer.get_vocab()
    assert first.model.config.model_type == family


def test_making_a_model_leaves_the_callers_random_state_alone():
    before = torch.get_rng_state()

    make_scratch(Scratch(), SCRATCH, TEXTS)

    assert torch.equal(torch.get_rng_state(), before)


def test_sizes_are_settings():
    scratch = Scratch("qwen3_vl", text={"hidden_size": 32, "num_hidden_layers": 1}, vision={"depth": 3}, vocab_size=270)

    checkpoint = make_scratch(scratch, SCRATCH, TEXTS, dtype="bfloat16")

    config = checkpoint.model.config
    assert (config.text_config.hidden_size, config.text_config.num_hidden_layers, config.vision_config.depth) == (
        32,
        1,
        3,
    )
    assert config.vision_config.out_hidden_size == 32
    assert len(checkpoint.tokenizer) == config.text_config.vocab_size == 270 + len(SPECIAL_TOKENS)
    assert next(checkpoint.model.parameters()).dtype == torch.bfloat16
    assert checkpoint.image_mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("family", "scratch", "message"),
    [
        (
            SCRATCH,
            Scratch(text={"hidden_sice": 32}),
            "text: .* Qwen2VLTextConfig, got 'hidden_sice'; did you mean 'hidden_size'",
        ),
        (SCRATCH, Scratch(vision={"dephts": 3}), "vision: .* Qwen2VLVisionConfig, got 'dephts'; did you mean 'depth'"),
        (SCRATCH, Scratch(text={"head_dim": 8}), "text: .* Qwen2VLTextConfig, got 'head_dim'"),
        (SCRATCH, Scratch(text={"model_type": "llama"}), "text: .* Qwen2VLTextConfig, got 'model_type'"),
        (LLAVA, Scratch(text={"model_type": "llama", "sliding_window": 9}), "text: .* LlamaConfig, got 'sliding_w"),
        (PHI3_V, Scratch(vision={"image_sise": 28}), "vision: .* CLIPVisionConfig, .* did you mean 'image_size'"),
        (DECODER, Scratch(text={"num_layers": 1}), "text: .* Qwen2Config, .* did you mean 'num_hidden_layers'"),
        (ENCODER, Scratch("distilbert", text={"n_layer": 1}), "text: .* DistilBertConfig, .* did you mean 'n_layers'"),
    ],
)
def test_a_misspelt_field_is_answered_with_the_nearest(family, scratch, message):
    with pytest.raises(InputError, match=rf"backbone\.scratch\.{message}"):
        make_scratch(scratch, family, TEXTS)


ROPE = {"rope_type": "default", "rope_theta": 9.0, "mrope_section": [2, 3, 3]}
LLAMA = {"model_type": "llama", "rms_norm_eps": 0.1}


@pytest.mark.parametrize(
    ("family", "scratch"),
    [
        (SCRATCH, Scratch("qwen3_vl", text={"head_dim": 32}, vision={"deepstack_visual_indexes": [1]})),
        (SCRATCH, Scratch(text={"rope_parameters": ROPE}, vision={"depth": 1})),
        (LLAVA, Scratch("llava_onevision", text={"head_dim": 32}, vision={"initializer_range": 0.3})),
        (LLAVA, Scratch(text=LLAMA, vision={"model_type": "siglip_vision_model"})),
        (DECODER, Scratch("qwen2", text={"head_dim": 32, "initializer_range": 0.3})),
        (ENCODER, Scratch("distilbert", text={"hidden_size": 32, "n_heads": 2})),
        (ENCODER, Scratch("modernbert", text={"global_attn_every_n_layers": 1})),
    ],
)
def test_fields_of_the_architectures_config_reach_it(family, scratch):
    config = make_scratch(scratch, family, TEXTS).model.config

    assert {name: getattr(config.get_text_config(), name) for name in scratch.text} == scratch.text
    assert {name: getattr(config.vision_config, name) for name in scratch.vision} == scratch.vision


@pytest.mark.parametrize(
    ("family", "scratch"),
    [
        (SCRATCH, Scratch(text={"hidden_size": -8})),
        (SCRATCH, Scratch(text={"num_attention_heads": 0})),
        (SCRATCH, Scratch(text={"hidden_size": "wide"})),
        (SCRATCH, Scratch("qwen2_5_vl", vision={"num_heads": None})),
        (LLAVA, Scratch(vision={"num_attention_heads": 5})),
        (LLAVA, Scratch(text={"model_type": "nope"})),
        (ENCODER, Scratch("bert", text={"num_attention_heads": 5})),
    ],
)
def test_sizes_that_the_architecture_does_not_take_are_refused_in_words(family, scratch):
    message = r"backbone\.scratch: expected sizes that the architecture takes, got .*; leave text and vision out"
    with pytest.raises(InputError, match=message):
        make_scratch(scratch, family, TEXTS)


def test_the_tokenizer_is_lossless_and_learns_its_texts():
    tokenizer = train_tokenizer(TEXTS, 400, SCRATCH)
    text = "a red circle, café 東京 🙂\n"

    ids = tokenizer(text).input_ids

    assert tokenizer.decode(ids) == text
    assert len(tokenizer("a red circle").input_ids) < len("a red circle") / 2
    for token in SPECIAL_TOKENS:
        assert tokenizer(f"x{token}y").input_ids.count(tokenizer.convert_tokens_to_ids(token)) == 1


def test_the_template_knows_roles_and_media():
    tokenizer = train_tokenizer(TEXTS, 300, SCRATCH)
    user = {"role": "user", "content": [{"type": "image"}, {"type": "video"}, {"type": "text", "text": "words"}]}
    media = "<|vision_start|><|image_pad|><|vision_end|><|vision_start|><|video_pad|><|vision_end|>"

    text = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)

    head = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    assert text == f"{head}<|im_start|>user\n{media}words<|im_end|>\n<|im_start|>assistant\n"
