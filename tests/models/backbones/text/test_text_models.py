"""Models of text alone: our states against transformers' own tokenizer and forward, and what each is and refuses."""

import json
import pickle

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mmembed import Embedder, Image, Item, Page, Video
from mmembed.errors import InputError
from mmembed.models.backbones.text.scratch import DECODERS, ENCODERS
from mmembed.models.prompts import Kind
from mmembed.models.sequence import collate
from mmembed.models.settings import (
    ChatPrompt,
    EmbedderSettings,
    LastToken,
    Lora,
    MeanToken,
    RawPrompt,
    Scratch,
    TextModel,
)
from tests.cases import LOUD, WORDS, draw

ITEMS = [
    Item.of("a red circle"),
    Item.of("describe"),
    # longer than the window of ModernBERT's near-sighted layers
    Item.of("the same, but blue and longer: " + "a red circle " * 60),
    Item.of("the same, but blue", "Find the picture."),
]
LAYERS = {"distilbert": ("q_lin", "lin1"), "modernbert": ("Wqkv", "Wo"), "bert": ("query", "key", "value", "dense")}
WITH_HEAD = {
    "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM", "phi3": "Phi3ForCausalLM", "gemma3_text": "Gemma3ForCausalLM",
    "bert": "BertForPreTraining", "roberta": "RobertaForMaskedLM", "xlm-roberta": "XLMRobertaForMaskedLM",
    "distilbert": "DistilBertForMaskedLM", "modernbert": "ModernBertForMaskedLM",
}  # fmt: skip


def small(architecture="qwen2", prompt=None, pooler=None, *, text=None, **settings):
    backbone = TextModel(scratch=Scratch(architecture, text=LOUD | (text or {})), **settings)
    return Embedder(EmbedderSettings(backbone, prompt or RawPrompt(), pooler), texts=WORDS).eval()


def opened(directory, *, lora=None, **settings):
    return Embedder(EmbedderSettings(TextModel(path=str(directory), **settings), RawPrompt(), lora=lora)).eval()


@pytest.fixture
def saved(tmp_path):
    def save(architecture):
        embedder = small(architecture)
        embedder.save(tmp_path / architecture)
        return embedder, tmp_path / architecture

    return save


@torch.no_grad()
def states_of(embedder, items=ITEMS):
    batch = collate(embedder.prepare(items, "query"))
    return batch, embedder.backbone.run(embedder.backbone.embed(batch, embedder.backbone.vision(batch))).states


@torch.no_grad()
def library_states(embedder, items=ITEMS):
    """Ids and last hidden states of all real tokens, the items padded on the right and passed through together."""
    texts = [" ".join(filter(None, [item.instruction, *item.content])) for item in items]
    tokenizer = embedder.backbone.checkpoint.tokenizer
    inputs = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt", return_token_type_ids=False)
    real = inputs["attention_mask"].bool()
    return inputs["input_ids"][real], embedder.backbone.model(**inputs).last_hidden_state[real]


def assert_equals_the_library(embedder):
    ids, theirs = library_states(embedder)
    batch, ours = states_of(embedder)
    assert batch.ids.tolist() == ids.tolist()
    assert torch.allclose(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"attention": "eager", "padding_side": "left"}], ids=["", "eager, left"])
@pytest.mark.parametrize("architecture", DECODERS + ENCODERS)
def test_tokens_and_states_equal_the_librarys(architecture, settings):
    assert_equals_the_library(small(architecture, **settings))


SLIDING = {
    "qwen2": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "qwen3": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "mistral": {"sliding_window": 8},
    "gemma3_text": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
}


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("architecture", SLIDING)
def test_a_sliding_window_is_the_librarys_under_its_own_policy_and_refused_under_another(architecture, side):
    window = SLIDING[architecture]

    assert_equals_the_library(small(architecture, text=window, padding_side=side))

    with pytest.raises(InputError, match="expected rows within the model's attention window of 8 tokens"):
        states_of(small(architecture, text=window, attention_policy="bidirectional"))


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama", "phi3"])
def test_a_model_without_a_window_takes_rows_of_any_length_under_every_policy(architecture):
    # 4096 is the window of configs that name one and do not use it
    long = [Item.of("a red circle, " * 900)]
    embedder = small(
        architecture, attention_policy="prefix", text={"max_position_embeddings": 32768, "hidden_size": 16}
    )

    batch, states = states_of(embedder, long)

    assert len(batch.ids) > 4000
    assert states.isfinite().all()


def test_embedding_gemma_is_an_encoder_by_its_config():
    sees_all = {"use_bidirectional_attention": True}
    embedder = small("gemma3_text", text=sees_all | SLIDING["gemma3_text"])

    assert embedder.settings.pooler == MeanToken(drop_on_query=())
    assert_equals_the_library(embedder)


def test_a_decoder_is_causal_and_read_at_its_end_and_an_encoder_is_neither():
    decoder, encoder = small("qwen2"), small("bert")

    assert (decoder.backbone.settings.attention_policy, decoder.settings.pooler) == ("causal", LastToken())
    assert (encoder.backbone.settings.attention_policy, encoder.settings.pooler) == (
        "bidirectional",
        MeanToken(drop_on_query=()),
    )
    _, states = states_of(encoder, ITEMS[3:])
    assert torch.allclose(encoder.encode(ITEMS[3:])[0], torch.nn.functional.normalize(states.mean(0), dim=0), atol=1e-6)


@pytest.mark.parametrize("policy", ["causal", "prefix"])
@pytest.mark.parametrize("architecture", ENCODERS)
def test_a_policy_that_an_encoder_does_not_have_is_refused(architecture, policy):
    with pytest.raises(InputError, match=rf"attention_policy: expected bidirectional.*got {policy}; leave it out"):
        small(architecture, attention_policy=policy)


def test_a_fault_of_decoders_is_refused_for_an_encoder():
    with pytest.raises(InputError, match=r"expected bidirectional.*got unpadded_causal"):
        small("bert", attention_policy="bidirectional", unpadded_causal=True)


@pytest.mark.parametrize("architecture", ENCODERS)
def test_a_cut_leaves_the_closing_token_as_the_librarys_tokenizer_does(architecture):
    embedder = small(architecture, max_length=12)
    tokenizer = embedder.backbone.checkpoint.tokenizer

    row = embedder.prepare(ITEMS[2:3], "query")[0]

    assert row.ids.tolist() == tokenizer(ITEMS[2].content[0], truncation=True, max_length=12).input_ids
    assert row.ids[-1] == tokenizer.eos_token_id
    assert row.kinds[[0, -1]].tolist() == [Kind.TEMPLATE] * 2
    assert Kind.TEMPLATE not in row.kinds[1:-1]


def test_words_that_look_like_special_tokens_are_text_to_a_cut():
    embedder = small("bert", max_length=5)

    row = embedder.prepare([Item.of("a [SEP] [SEP] [SEP] [SEP] [SEP]")], "query")[0]

    assert len(row.ids) == 5
    assert row.kinds.tolist() == [Kind.TEMPLATE, *[Kind.TEXT] * 3, Kind.TEMPLATE]


@pytest.mark.parametrize(("architecture", "positions"), [("bert", 32), ("roberta", 30), ("distilbert", 32)])
def test_text_is_cut_to_the_positions_of_the_model(architecture, positions):
    table = {"max_position_embeddings": 32}
    embedder = small(architecture, text=table)

    assert len(embedder.prepare(ITEMS[2:3], "query")[0].ids) == positions
    assert embedder.encode(ITEMS[2]).isfinite().all()
    with pytest.raises(InputError, match=rf"max_length: expected at most the {positions} positions of the model"):
        small(architecture, text=table, max_length=positions + 1)


def test_a_chat_prompt_is_rendered_in_either_form():
    parts, words = (small(prompt=ChatPrompt(content=form)) for form in ("parts", "text"))

    row = parts.prepare(ITEMS[3:], "query")[0]

    text = parts.backbone.checkpoint.tokenizer.decode(row.ids)
    assert text == (
        "<|im_start|>system\nFind the picture.<|im_end|>\n<|im_start|>user\nthe same, but blue<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert row.fingerprint == words.prepare(ITEMS[3:], "query")[0].fingerprint


@pytest.mark.parametrize("name", ["image", "page", "video"])
def test_media_are_refused_in_words(name, tmp_path):
    medium = {"image": Image(draw(9, 9)), "page": Page(tmp_path / "a.pdf", 1), "video": Video((draw(9, 9),))}[name]

    with pytest.raises(InputError, match=rf"item 0: item\.{name}: expected text: this model reads text only"):
        small().encode([Item((medium, "and words"))])


def test_settings_of_a_tower_are_refused():
    settings = TextModel(scratch=Scratch("bert", vision=LOUD))

    with pytest.raises(InputError, match=r"scratch\.vision: expected nothing: this model reads text only"):
        Embedder(EmbedderSettings(settings, RawPrompt()), texts=WORDS)


def test_an_unknown_architecture_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(InputError, match=r"expected a text model checkpoint, got 'bart'; did you mean 'bert'"):
        small("bart")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(InputError, match=r"model_type: expected a text model checkpoint, got 't5'"):
        opened(tmp_path)


@pytest.mark.parametrize("architecture", WITH_HEAD)
def test_a_checkpoint_with_a_head_opens_without_it(architecture, saved):
    embedder, directory = saved(architecture)
    full = getattr(transformers, WITH_HEAD[architecture])(embedder.backbone.model.config)
    full.base_model.load_state_dict(embedder.backbone.model.state_dict(), strict=False)
    full.save_pretrained(directory)

    again = opened(directory)

    weights = dict(embedder.named_parameters())
    assert {name for name, _ in again.named_parameters()} == weights.keys()
    assert all(torch.equal(p, weights[name]) for name, p in again.named_parameters())
    assert not any("pooler" in name for name in weights)
    assert torch.allclose(again.encode(ITEMS), embedder.encode(ITEMS), atol=1e-6, rtol=0)


@pytest.mark.parametrize("architecture", ["bert", "qwen2"])
def test_the_librarys_own_class_opens_what_was_saved(architecture, saved):
    embedder, directory = saved(architecture)
    kwargs = {"add_pooling_layer": False} if architecture == "bert" else {}

    model = transformers.AutoModel.from_pretrained(directory, **kwargs)

    ours = embedder.backbone.model.state_dict()
    assert model.state_dict().keys() == ours.keys()
    assert all(torch.equal(weight, ours[name]) for name, weight in model.state_dict().items())


def test_a_checkpoint_without_one_of_its_shards_is_refused(saved):
    embedder, directory = saved("bert")
    (directory / "model.safetensors").unlink()
    embedder.backbone.model.save_pretrained(directory, max_shard_size="500KB")
    shards = sorted(directory.glob("model-*.safetensors"))
    assert len(shards) > 1
    shards[1].unlink()

    with pytest.raises(InputError, match=r"expected a checkpoint with .*safetensors"):
        opened(directory)


def test_a_missing_weight_of_the_body_is_named_and_one_of_the_head_is_not_missed(saved):
    _, directory = saved("bert")
    file = directory / "model.safetensors"
    weights = load_file(file)
    assert not any(name.startswith("pooler.") for name in weights)
    save_file({k: w for k, w in weights.items() if "layer.1.output.dense.weight" not in k}, file, {"format": "pt"})

    with pytest.raises(InputError, match=r"got 1 missing: encoder\.layer\.1\.output\.dense\.weight"):
        opened(directory)


@pytest.mark.parametrize("architecture", LAYERS)
def test_an_adapter_on_an_encoder_needs_the_names_of_its_layers(architecture, saved):
    _, directory = saved(architecture)

    with pytest.raises(InputError, match=r"lora\.targets: expected suffixes of linear layers"):
        opened(directory, lora=Lora())
    adapted = opened(directory, lora=Lora(targets=LAYERS[architecture]))
    assert adapted.trainable
    assert all("lora_" in name for name in adapted.trainable)


def test_an_adapter_saved_beside_its_base_opens_again(saved, tmp_path):
    _, directory = saved("bert")
    adapted = opened(directory, lora=Lora(targets=LAYERS["bert"]))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    adapted.save(tmp_path / "adapted")

    again = Embedder.from_pretrained(tmp_path / "adapted", device="cpu")

    assert torch.equal(again.encode(ITEMS), adapted.encode(ITEMS))
    assert not torch.allclose(again.encode(ITEMS), opened(directory).encode(ITEMS), atol=1e-3)


def test_a_tokenizer_is_taken_as_it_is_written(saved):
    embedder, directory = saved("qwen2")
    # characters that the class of Qwen2's own tokenizer composes, and figures that it cuts apart
    words = Item.of("cafe\u0301 2026, 1999")

    again = opened(directory)

    ids = (model.prepare([words], "query")[0].ids.tolist() for model in (again, embedder))
    assert next(ids) == next(ids)
    assert again.backbone.facts() == embedder.backbone.facts()


def test_first_and_last_tokens_said_beside_the_tokenizer_are_put_around_the_text(saved, tmp_path):
    embedder, directory = saved("mistral")
    file = directory / "tokenizer_config.json"
    around = {"tokenizer_class": "LlamaTokenizerFast", "add_eos_token": True, "bos_token": "<|im_start|>"}
    file.write_text(json.dumps(json.loads(file.read_text()) | around))
    first, last = embedder.backbone.checkpoint.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    words = embedder.prepare(ITEMS[2:3], "query")[0].ids.tolist()

    model = opened(directory, max_length=9)
    model.save(tmp_path / "again")

    for same in (model, opened(tmp_path / "again", max_length=9)):
        assert same.prepare(ITEMS[2:3], "query")[0].ids.tolist() == [first, *words[:7], last]


def test_a_last_token_written_into_the_tokenizer_is_not_undone_by_what_is_said_beside_it(saved):
    embedder, directory = saved("bert")
    file = directory / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"add_bos_token": False}))

    ids = opened(directory).prepare(ITEMS[:1], "query")[0].ids

    assert ids.tolist() == embedder.prepare(ITEMS[:1], "query")[0].ids.tolist()
    assert ids[-1] == embedder.backbone.checkpoint.tokenizer.eos_token_id


def test_what_was_left_to_the_model_stays_left_to_it_when_saved(saved):
    _, directory = saved("roberta")

    again = Embedder.from_pretrained(directory, device="cpu")

    assert again.settings.backbone.attention_policy is None
    assert again.settings.backbone.max_length is None


def test_the_preprocessor_goes_to_workers():
    preprocessor = small("bert").backbone.preprocessor

    copy = pickle.loads(pickle.dumps(preprocessor))

    assert copy(ITEMS[0], "query").fingerprint == preprocessor(ITEMS[0], "query").fingerprint
