"""Tokens beyond a checkpoint's own: ids, rows, what trains, and what is the same after saving and opening."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from peft import PeftModel
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModel, AutoModelForImageTextToText, AutoTokenizer

from mmembed import Embedder, Item
from mmembed.errors import InputError
from mmembed.models.identity import identity
from mmembed.models.sequence import collate
from mmembed.models.settings import (
    BeforeToken,
    ChatPrompt,
    EmbedderSettings,
    LastToken,
    Llava,
    Lora,
    Mllama,
    Phi3V,
    QwenVL,
    RawPrompt,
    Scratch,
    SpecialTokens,
    TextModel,
)
from mmembed.models.special_tokens import pin_rows

WORDS = ("<emb>", "<start>", "<end>")
FIXED = SpecialTokens(WORDS, train=False)
LORA = Lora(r=4, alpha=8, dropout=0.0)
STYLE = ChatPrompt(
    instruction_role="text", instruction_markers=("<start>", "<end>"), answer="<emb>.", generation_prompt=False
)
ITEMS = [Item.of("a red circle", "Find it."), Item.of("the same, but blue")]


def opened(path, special, lora=None, pooler=None, **choices):
    torch.manual_seed(0)
    backbone = QwenVL(path=str(path), positions="sequential", special_tokens=special, **choices)
    return Embedder(EmbedderSettings(backbone, STYLE, pooler or BeforeToken(), lora=lora)).eval()


def table(embedder):
    return embedder.backbone.model.get_input_embeddings()


def ids_of(embedder):
    return [embedder.backbone.token_id(word) for word in WORDS]


def rows_of(embedder):
    """The rows as they are looked up."""
    with torch.no_grad():
        return table(embedder)(torch.tensor(ids_of(embedder))).clone()


def train(embedder, steps=3):
    optimizer = torch.optim.AdamW([p for p in embedder.parameters() if p.requires_grad], lr=0.05, weight_decay=0.5)
    batch = collate(embedder.prepare(ITEMS, "query"))
    for _ in range(steps):
        optimizer.zero_grad()
        embedder(batch)[:, :9].sum().backward()
        optimizer.step()
    return embedder.eval()


@pytest.fixture
def base(golden):
    return golden / "vlm2vec/qwen2_vl"


def test_the_first_token_takes_over_an_unused_row_and_the_rest_are_means_of_all_rows_before(base):
    """As U-MARVEL's released code makes them: the table is cut to the tokenizer's length, then grows."""
    plain, embedder = opened(base, SpecialTokens(("<emb>",))), opened(base, SpecialTokens(WORDS))
    known = len(AutoTokenizer.from_pretrained(base))
    before = load_file(base / "model.safetensors")["model.embed_tokens.weight"]

    weight = table(embedder).weight

    assert len(before) > known + 1
    assert ids_of(embedder) == [known, known + 1, known + 2]
    assert torch.equal(weight[: known + 1], before[: known + 1])
    assert torch.equal(weight[known + 1], weight[: known + 1].mean(0))
    assert torch.equal(weight[known + 2], weight[: known + 2].mean(0))
    assert torch.equal(table(plain).weight, weight[: known + 1])
    assert embedder.backbone.language_config.vocab_size == len(weight) == known + 3


def test_drawn_rows_have_the_spread_of_the_table_and_follow_the_seed(base):
    def drawn(seed):
        return table(opened(base, SpecialTokens(WORDS, init="normal", seed=seed))).weight.detach()

    one, again, other = drawn(1), drawn(1), drawn(2)

    assert torch.equal(one, again)
    assert not torch.allclose(one[-3:], other[-3:], atol=1e-3)
    assert one[-3:].std().item() == pytest.approx(one[:-3].std().item(), rel=0.2)


def test_tokens_that_the_tokenizer_knows_keep_ids_and_rows(base):
    embedder = opened(base, SpecialTokens(("<|vision_pad|>",)), pooler=LastToken())

    assert torch.equal(table(embedder).weight, load_file(base / "model.safetensors")["model.embed_tokens.weight"])


def test_the_tokens_are_one_token_each_wherever_they_stand(base):
    embedder = opened(base, FIXED)

    row = embedder.prepare(ITEMS[:1], "query")[0].ids.tolist()

    assert [row.count(token) for token in ids_of(embedder)] == [1, 1, 1]


@pytest.mark.parametrize("tokens", [(), ("<emb>", "<emb>"), ("",)])
def test_settings_without_or_with_repeated_tokens_are_refused(tokens):
    with pytest.raises(InputError, match=r"special_tokens\.tokens: expected different words, at least one"):
        SpecialTokens(tokens)


@pytest.mark.parametrize("trains", [True, False])
def test_a_full_fine_tune_trains_the_rows_or_keeps_their_bits_under_weight_decay(trains, base, tmp_path):
    embedder = opened(base, replace(FIXED, train=trains))
    before, word = rows_of(embedder), table(embedder).weight[70].clone()

    train(embedder).save(tmp_path / "run")

    file = load_file(tmp_path / "run/model.safetensors")
    saved = next(value for name, value in file.items() if name.endswith("embed_tokens.weight"))
    for now in (rows_of(embedder), saved[ids_of(embedder)], table(embedder).weight[ids_of(embedder)]):
        assert torch.equal(now, before) is not trains
    assert not torch.allclose(saved[70], word, atol=1e-4)


def test_pinned_rows_hand_on_no_gradient_and_the_others_all_of_theirs(base):
    embedder, free = opened(base, FIXED), opened(base, SpecialTokens(WORDS))
    for model in (embedder, free):
        model(collate(model.prepare(ITEMS, "query")))[:, :9].sum().backward()

    pinned, whole = table(embedder).weight.grad, table(free).weight.grad
    places = ids_of(embedder)
    assert torch.equal(pinned[places], torch.zeros_like(pinned[places]))
    assert whole[places].abs().max() > 1e-4
    assert torch.equal(pinned[: min(places)], whole[: min(places)])


@pytest.mark.parametrize("special", [FIXED, SpecialTokens(WORDS), SpecialTokens(WORDS, init="normal", seed=3)])
def test_a_whole_model_keeps_ids_and_rows_over_saving_and_opening_twice(special, base, tmp_path):
    embedder = train(opened(base, special))

    embedder.save(tmp_path / "one")
    one = Embedder.from_pretrained(tmp_path / "one", device="cpu")
    one.save(tmp_path / "two")
    two = Embedder.from_pretrained(tmp_path / "two", device="cpu")

    for again in (one, two):
        assert ids_of(again) == ids_of(embedder)
        assert torch.equal(rows_of(again), rows_of(embedder))
        assert torch.equal(again.encode(ITEMS), embedder.encode(ITEMS))
    assert identity(one) == identity(two)
    theirs = AutoModel.from_pretrained(tmp_path / "one", dtype=torch.float32)
    assert torch.equal(theirs.get_input_embeddings().weight[ids_of(embedder)], rows_of(embedder))


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("init", ["mean", "normal"])
def test_an_adapter_brings_its_trained_rows_along_and_others_are_made_again(init, trains, base, tmp_path):
    special = SpecialTokens(WORDS, init=init, seed=3, train=trains)
    embedder = opened(base, special, LORA)
    fresh, plain = rows_of(embedder), embedder.encode(ITEMS)
    train(embedder)

    embedder.save(tmp_path / "one")
    one = Embedder.from_pretrained(tmp_path / "one", device="cpu")
    one.save(tmp_path / "two")
    two = Embedder.from_pretrained(tmp_path / "two", device="cpu")

    assert torch.equal(rows_of(embedder), fresh) is not trains
    assert not torch.allclose(embedder.encode(ITEMS), plain, atol=1e-3)
    for again in (one, two):
        assert ids_of(again) == ids_of(embedder)
        assert torch.equal(rows_of(again), rows_of(embedder))
        assert torch.equal(again.encode(ITEMS), embedder.encode(ITEMS))
        assert again.trainable == embedder.trainable
    stored = [n for n in load_file(tmp_path / "one/adapter/adapter_model.safetensors") if "lora_" not in n]
    assert len(stored) == trains
    rest = {n for n in embedder.trainable if "lora_" not in n}
    assert len(rest) == trains
    assert {p for p, v in identity(embedder).items() if identity(one)[p] != v} == set()


def test_the_rows_of_an_adapter_are_part_of_its_identity_and_not_of_the_base(base):
    embedder = opened(base, SpecialTokens(WORDS), LORA)
    before = identity(embedder)

    delta = next(p for n, p in embedder.named_parameters() if "trainable_tokens_delta" in n)
    delta.data += 1

    assert {part for part, value in identity(embedder).items() if before[part] != value} == {"adapter"}


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_peft_itself_opens_an_adapter_with_trained_rows_to_the_same_vectors(base, tmp_path):
    embedder = train(opened(base, SpecialTokens(WORDS), LORA))
    embedder.save(tmp_path / "run")
    batch = collate(embedder.prepare(ITEMS[:1], "query"))

    full = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    full.resize_token_embeddings(embedder.backbone.language_config.vocab_size, mean_resizing=False)
    theirs = PeftModel.from_pretrained(full, str(tmp_path / "run/adapter")).eval()

    with torch.no_grad():
        found = theirs(input_ids=batch.ids[None], position_ids=batch.positions[:, None], output_hidden_states=True)
        ours = embedder.backbone.run(embedder.backbone.embed(batch, embedder.backbone.vision(batch)))
    assert torch.allclose(found.hidden_states[-1][0], ours.states, atol=1e-5)


def test_an_adapter_on_a_base_without_its_tokens_is_refused_in_words(base, tmp_path):
    opened(base, SpecialTokens(("<emb>", *(f"<{i}>" for i in range(200)))), LORA).save(tmp_path / "run")

    with pytest.raises(InputError, match=r"expected rows of an embedding table of \d+, got row \d+; set special_tok"):
        opened(base, SpecialTokens(WORDS), adapter=str(tmp_path / "run/adapter"))


def test_merging_an_adapter_folds_its_rows_in_too(base, tmp_path):
    embedder = train(opened(base, SpecialTokens(WORDS), LORA))
    rows, vectors = rows_of(embedder), embedder.encode(ITEMS)

    embedder.merge_adapter().save(tmp_path / "merged")

    again = Embedder.from_pretrained(tmp_path / "merged", device="cpu")
    assert torch.equal(rows_of(embedder), rows)
    assert torch.equal(rows_of(again), rows)
    assert torch.allclose(again.encode(ITEMS), vectors, atol=1e-6)


@pytest.mark.parametrize("trains", [True, False])
def test_gradient_checkpointing_and_a_scratch_model_take_special_tokens(trains, fresh_embedder):
    gradients = []
    for checkpointing in (False, True):
        special = SpecialTokens(WORDS, train=trains)
        choices = {"special_tokens": special, "gradient_checkpointing": checkpointing}
        embedder = fresh_embedder("qwen2_vl", prompt=STYLE, pooler=BeforeToken(), **choices).train()
        embedder(collate(embedder.prepare(ITEMS, "query")))[:, :9].sum().backward()
        gradients.append(table(embedder).weight.grad)

    assert torch.allclose(*gradients, atol=1e-6)
    assert bool(gradients[0][ids_of(embedder)].abs().max() > 1e-4) is trains


FAMILIES = [
    (QwenVL, "qwen3_vl"), (Llava, None), (Mllama, None), (Phi3V, None),
    (TextModel, "qwen2"), (TextModel, "gemma3_text"), (TextModel, "bert"),
]  # fmt: skip


@pytest.fixture(params=FAMILIES, ids=lambda family: family[1] or family[0].__name__)
def family(request, tmp_path):
    """Makes embedders of a family whose marked rows train or not; the first is saved as a base for adapters."""
    settings, architecture = request.param

    def make(trains, lora=None):
        source = {"scratch": Scratch(architecture)} if lora is None else {"path": str(tmp_path / "base")}
        backbone = settings(**source, special_tokens=SpecialTokens(WORDS, train=trains))
        return Embedder(EmbedderSettings(backbone, RawPrompt(suffix="<emb>"), lora=lora), texts=["a red circle"])

    return make


def test_every_family_trains_the_rows_or_keeps_them_and_opens_as_it_was(family, tmp_path):
    for trains in (True, False):
        embedder = family(trains)
        before = rows_of(embedder)
        train(embedder).save(tmp_path / f"run{trains}")
        again = Embedder.from_pretrained(tmp_path / f"run{trains}", device="cpu")

        # under a causal mask and the last token both the marker at the end and its row are looked up
        assert torch.equal(rows_of(embedder)[:1], before[:1]) is not trains
        assert torch.equal(rows_of(again), rows_of(embedder))
        assert torch.equal(again.encode(ITEMS), embedder.encode(ITEMS))


def test_every_family_trains_its_rows_with_an_adapter(family, tmp_path):
    family(True).save(tmp_path / "base")
    embedder = family(True, Lora(r=2, dropout=0.0, targets=("q_proj", "qkv_proj", "query")))
    before = rows_of(embedder)

    train(embedder).save(tmp_path / "run")

    again = Embedder.from_pretrained(tmp_path / "run", device="cpu")
    vectors = embedder.encode(ITEMS)
    assert not torch.equal(rows_of(embedder)[:1], before[:1])
    assert torch.equal(again.encode(ITEMS), vectors)
    assert torch.allclose(again.merge_adapter().encode(ITEMS), vectors, atol=1e-6)


@pytest.mark.parametrize("trains", [True, False])
def test_a_quantised_base_takes_special_tokens(trains, base, tmp_path):
    embedder = opened(base, SpecialTokens(WORDS, train=trains), LORA, quantize="nf4")
    before = rows_of(embedder)

    train(embedder).save(tmp_path / "run")

    again = Embedder.from_pretrained(tmp_path / "run", device="cpu")
    assert torch.equal(rows_of(embedder), before) is not trains
    assert torch.equal(rows_of(again), rows_of(embedder))
    assert torch.allclose(again.encode(ITEMS), embedder.encode(ITEMS), atol=1e-6)


@pytest.fixture
def lone_process(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_pinned_rows_of_a_sharded_table_keep_their_bits(lone_process):
    embedding = torch.nn.Embedding(10, 4)
    pin_rows(embedding, [2, 9])
    before = embedding.weight.detach().clone()
    fully_shard(embedding, mesh=lone_process)
    optimizer = torch.optim.AdamW(embedding.parameters(), lr=0.1, weight_decay=0.5)

    embedding(torch.arange(10)).sum().backward()
    optimizer.step()

    after = embedding.state_dict()["weight"].full_tensor()
    assert torch.equal(after[[2, 9]], before[[2, 9]])
    assert not torch.isclose(after[[0, 1, 3, 8]], before[[0, 1, 3, 8]]).any()
