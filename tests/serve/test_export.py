"""A model leaves for other tools: what they open embeds alike, and what they cannot hold is refused in words."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoProcessor

from mmembed import Embedder
from mmembed.errors import InputError
from mmembed.models.settings import (
    BeforeToken,
    ChatPrompt,
    Clips,
    EmbedderSettings,
    LaidOutPrompt,
    LatentAttention,
    MeanToken,
    MultiLayer,
    PixelBudget,
    QwenVL,
    RawPrompt,
    SpecialTokens,
    TextRegions,
)
from mmembed.serve.export import RECORD, export_model
from mmembed.serve.export.vllm import Pooled, read_as_vllm
from tests.cases import draw
from tests.families import family_embedder, lora_of, opened, perturb

FAMILIES = ("qwen2_vl", "qwen3_vl")
STYLES = {"chat": ChatPrompt(), "raw": RawPrompt()}
INPUTS = ("text", "image", "image and text", "several images", "video", "video, image and text")
# sentence-transformers says of the older schema, which vLLM reads, that it is old
pytestmark = pytest.mark.filterwarnings("ignore:.*word_embedding_dimension.*")


@pytest.fixture(scope="session")
def exported(tmp_path_factory, scratch_embedder):
    """Exports by family, style and target, each made once."""
    made = {}

    def export(family, style, to):
        if (family, style, to) not in made:
            model = scratch_embedder(family, prompt=STYLES[style], max_length=400)
            made[family, style, to] = export_model(model, to, tmp_path_factory.mktemp("exports") / "out")
        return made[family, style, to]

    return export


@pytest.mark.parametrize(
    ("family", "style", "to"),
    [("qwen2_vl", "chat", "st"), ("qwen2_vl", "raw", "vllm"), ("qwen3_vl", "raw", "st"), ("qwen3_vl", "chat", "hf")],
)
def test_every_kind_of_input_embeds_alike_with_an_instruction_and_without(family, style, to, exported):
    done = exported(family, style, to)

    assert {f"{name}, {how}" for name in INPUTS for how in ("with an instruction", "without")} < done.compared.keys()
    assert "all kinds in one batch" in done.compared
    assert max(done.compared.values()) <= 1e-5
    assert to == "hf" or "a text over the limit" in done.compared


@pytest.mark.parametrize(("family", "style"), [("qwen2_vl", "chat"), ("qwen3_vl", "raw")])
def test_sentence_transformers_opens_the_folder_by_itself(family, style, exported, scratch_embedder):
    model = scratch_embedder(family, prompt=STYLES[style], max_length=400)
    items = ["a red circle", {"image": draw(84, 70), "text": "the same, but blue"}, {"image": draw(60, 99)}]

    foreign = SentenceTransformer(str(exported(family, style, "st").directory), device="cpu")
    theirs = foreign.encode(items, prompt="Find it.", convert_to_tensor=True)

    assert foreign.modalities == ["text", "image", "video", "message"]
    assert torch.allclose(model.encode(items, instruction="Find it."), theirs, atol=1e-5, rtol=0)


def test_a_parser_that_follows_vllm_reads_pooling_and_normalisation(exported):
    folder = exported("qwen2_vl", "raw", "vllm").directory

    assert read_as_vllm(folder) == Pooled("LAST", True)
    truths = [key for key, value in json.loads((folder / "1_Pooling/config.json").read_text()).items() if value is True]
    assert [key for key in truths if key.startswith("pooling_mode")] == ["pooling_mode_lasttoken"]
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["Qwen2VLForConditionalGeneration"]
    # the layout in which Qwen publishes, head left out
    assert {key.split(".")[0] for key in load_file(folder / "model.safetensors")} == {"model", "visual"}
    assert "vllm serve" in (folder / "README.md").read_text()


def test_the_parser_misses_what_sentence_transformers_itself_would_write(exported, tmp_path):
    SentenceTransformer(str(exported("qwen2_vl", "raw", "vllm").directory), device="cpu").save(str(tmp_path))

    assert read_as_vllm(tmp_path).pooling is None


def test_a_template_refuses_what_the_model_does_not_read(exported):
    foreign = SentenceTransformer(str(exported("qwen2_vl", "chat", "st").directory), device="cpu")

    with pytest.raises(Exception, match="embeds one item"):
        foreign.encode([[{"role": "assistant", "content": [{"type": "text", "text": "words"}]}]])


def test_an_adapter_is_merged_in_the_export_and_not_in_the_model(tmp_path):
    family_embedder("qwen2_vl", loud=False, resize="torchvision").save(tmp_path / "base")
    model = opened("qwen2_vl", tmp_path / "base", lora=lora_of("qwen2_vl"), resize="torchvision").eval()
    perturb(model)
    before = model.encode(["a red circle"])
    bare = AutoModel.from_pretrained(tmp_path / "base").state_dict()

    done = export_model(model, "hf", tmp_path / "out")

    assert model.has_adapter
    assert torch.equal(model.encode(["a red circle"]), before)
    merged = AutoModel.from_pretrained(done.directory).state_dict()
    ours = model.merge_adapter().backbone.model.state_dict()
    assert all(torch.equal(merged[name], value) for name, value in ours.items())
    assert any(not torch.equal(merged[name], value) for name, value in bare.items())
    assert float((model.encode(["a red circle"]) - before).abs().max()) <= 5e-7


def test_a_model_that_trains_is_compared_at_rest_and_trains_on(tmp_path):
    family_embedder("qwen2", loud=False).save(tmp_path / "base")
    model = opened("qwen2", tmp_path / "base", lora=replace(lora_of("qwen2"), dropout=0.5)).train()
    perturb(model)

    done = export_model(model, "hf", tmp_path / "out")

    assert max(done.compared.values()) <= 1e-5
    assert model.training


def test_added_tokens_are_in_the_tokenizer_and_the_table(tmp_path):
    model = family_embedder("qwen2_vl", resize="torchvision", special_tokens=SpecialTokens(("<emb>",))).eval()
    model = Embedder(replace(model.settings, prompt=ChatPrompt(answer="<emb>.")), texts=["a red circle"]).eval()

    done = export_model(model, "hf", tmp_path / "out")

    tokenizer = AutoProcessor.from_pretrained(done.directory).tokenizer
    (token,) = tokenizer.encode("<emb>", add_special_tokens=False)
    assert AutoModel.from_pretrained(done.directory).get_input_embeddings().num_embeddings > token


def test_pillows_resize_is_asked_for_in_the_export(tmp_path):
    model = family_embedder("qwen2_vl", resize="pil").eval()

    done = export_model(model, "st", tmp_path / "out", without_video=True)

    assert max(done.compared.values()) <= 1e-5
    assert not any("video" in name for name in done.compared)
    assert "the reading of clips stayed behind" in done.notes
    foreign = SentenceTransformer(str(done.directory), device="cpu")
    assert "video" not in foreign.modalities
    assert type(foreign[0].processor.image_processor).__name__.endswith("Pil")


def test_vllm_is_said_to_resize_otherwise_and_by_how_much(tmp_path):
    model = family_embedder("llava").eval()

    done = export_model(model, "vllm", tmp_path / "out")

    (note,) = (note for note in done.notes if "torchvision" in note)
    assert float(note.split("differ by ")[1].split(" ")[0]) > 1e-5


@pytest.mark.parametrize("to", ["st", "hf"])
def test_a_model_in_half_precision_is_compared_in_float32_and_itself_measured(to, tmp_path):
    family_embedder("qwen2_vl", loud=False, resize="torchvision", dtype="bfloat16").save(tmp_path / "base")
    model = opened("qwen2_vl", tmp_path / "base", lora=lora_of("qwen2_vl"), resize="torchvision", dtype="bfloat16")
    perturb(model.eval())

    done = export_model(model, to, tmp_path / "out")

    assert max(done.compared.values()) <= 1e-5
    assert any("video" in name for name in done.compared)
    assert json.loads((done.directory / "config.json").read_text())["dtype"] == "bfloat16"
    (note,) = (note for note in done.notes if "the model itself, in bfloat16, gives vectors" in note)
    # the adapter is in what was written, to the precision of its type
    assert 1e-5 < float(note.split("differ by ")[1].split(" ")[0]) < 0.03


REFUSED = {
    "one counter": ({"positions": "sequential"}, {}, r"positions: expected mrope.*got sequential"),
    "bidirectional": ({"attention_policy": "bidirectional"}, {}, r"attention_policy: .*causal, got bidirectional"),
    "prefix": ({"attention_policy": "prefix"}, {}, r"attention_policy: .*got prefix"),
    "two resizes": ({"first_resize": PixelBudget(3136, 10**6)}, {}, r"first_resize: expected one resize"),
    "frames by Pillow": ({"resize": "pil"}, {}, r"resize: .*frames of clips.*--without-video"),
    "frames as pictures": ({"clips": Clips(as_pictures=True)}, {}, r"clips: .*got as_pictures"),
    "two resizes of frames": ({"clips": Clips(stills_factor=64)}, {}, r"clips: .*got stills_factor: 64"),
    "a bound of all frames": ({"clips": Clips(total_pixels=10**6)}, {}, r"clips: .*got total_pixels"),
    "layouts": ({}, {"prompt": LaidOutPrompt()}, r"prompt: .*queries and targets, got LaidOutPrompt"),
    "before a token": ({}, {"pooler": BeforeToken("<|im_end|>")}, r"pooler: .*got BeforeToken"),
    "mean without": ({}, {"pooler": MeanToken()}, r"pooler: .*got a mean without instruction"),
    "latents": ({}, {"pooler": LatentAttention(latents=4, heads=2, head_width=8)}, r"pooler: .*LatentAttention"),
    "layers": ({}, {"pooler": MultiLayer()}, r"pooler: .*MultiLayer"),
    "regions": ({}, {"regions": TextRegions()}, r"regions: .*TextRegions; --without-regions"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_sentence_transformers_cannot_hold_is_refused_in_words(name, fresh_embedder, tmp_path):
    backbone, parts, words = REFUSED[name]
    model = fresh_embedder("qwen2_vl", **parts, **backbone)

    with pytest.raises(InputError, match=words):
        export_model(model, "st", tmp_path / "out")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("prompt", "outer"), [(RawPrompt(), True), (ChatPrompt(), False)], ids=["raw", "no outer tokens"]
)
def test_a_clip_that_vllm_would_not_find_in_the_prompt_is_refused(prompt, outer, fresh_embedder, tmp_path):
    model = fresh_embedder("qwen3_vl", prompt=prompt, clips=Clips(outer_tokens=outer)).eval()

    with pytest.raises(InputError, match=r"clips: expected <\|vision_start\|>.*which it looks for.*--without-video"):
        export_model(model, "vllm", tmp_path / "out")

    done = export_model(model, "vllm", tmp_path / "out", without_video=True)
    assert max(done.compared.values()) <= 1e-5


def test_vllm_is_said_to_write_the_tokens_around_a_clip_by_its_own_rule(exported):
    notes = exported("qwen3_vl", "chat", "vllm").notes

    assert any("leave out the pair of tokens around all frames" in note for note in notes)


@pytest.mark.parametrize(
    ("family", "words"), [("phi3_v", "without remote code, got 'phi3_v'"), ("clip", "DualEncoderBackbone")]
)
def test_a_family_that_transformers_has_no_class_for_is_refused(family, words, tmp_path):
    with pytest.raises(InputError, match=words):
        export_model(family_embedder(family), "hf", tmp_path / "out")


def test_llama_vision_is_refused_for_vllm(tmp_path):
    with pytest.raises(InputError, match=r"Llama-3\.2-Vision, which vLLM ran up to 0\.10\.2"):
        export_model(family_embedder("mllama"), "vllm", tmp_path / "out")


def test_a_quantised_base_is_refused(tmp_path):
    pytest.importorskip("bitsandbytes")
    family_embedder("qwen2_vl", resize="torchvision").save(tmp_path / "base")
    model = opened("qwen2_vl", tmp_path / "base", quantize="nf4", resize="torchvision")

    with pytest.raises(InputError, match="a base in whole weights, got a quantised one"):
        export_model(model, "st", tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_a_region_encoder_stays_behind_where_that_is_asked_for(fresh_embedder, tmp_path):
    model = fresh_embedder("qwen2_vl", regions=TextRegions()).eval()

    done = export_model(model, "st", tmp_path / "out", without_regions=True)

    assert done.notes[0].startswith("the region encoder stayed behind")
    assert max(done.compared.values()) <= 1e-5
    (note,) = (note for note in done.notes if "the model itself, with its region encoder, gives vectors" in note)
    assert float(note.split("differ by ")[1].split(" ")[0]) <= 1e-5


def test_positions_of_one_counter_leave_to_transformers_with_a_word(fresh_embedder, tmp_path):
    model = fresh_embedder("qwen2_vl", prompt=RawPrompt(), positions="sequential").eval()

    done = export_model(model, "hf", tmp_path / "out")

    assert max(done.compared.values()) <= 1e-5
    assert any("position_ids" in note for note in done.notes)


def test_transformers_is_to_be_asked_for_pillows_resize(fresh_embedder, tmp_path):
    done = export_model(fresh_embedder("qwen2_vl", resize="pil").eval(), "hf", tmp_path / "out", without_video=True)

    (note,) = (note for note in done.notes if "Pillow" in note)
    assert note.startswith("open its processor by AutoProcessor.from_pretrained(DIR, use_fast=False)")
    plain = AutoProcessor.from_pretrained(done.directory, use_fast=False)
    assert type(plain.image_processor).__name__ == "Qwen2VLImageProcessorPil"
    assert not any("clip" in note for note in done.notes[1:])


def test_an_input_that_differs_is_named_and_nothing_is_left(fresh_embedder, tmp_path):
    """Frames have a least size each here, all of a clip together there."""
    model = fresh_embedder("qwen3_vl", min_pixels=40000).eval()

    with pytest.raises(InputError, match=r"inputs differ: video, with an instruction by .*nothing was written"):
        export_model(model, "st", tmp_path / "out")

    assert list(tmp_path.iterdir()) == []


def test_only_an_export_is_overwritten(tmp_path):
    settings = family_embedder("qwen2", prompt=RawPrompt()).eval()
    folder = tmp_path / "out"
    folder.mkdir()
    first = export_model(settings, "hf", folder)

    with pytest.raises(InputError, match="--overwrite replaces this export"):
        export_model(settings, "hf", folder)
    second = export_model(settings, "st", folder, overwrite=True)

    assert first.directory == second.directory
    assert json.loads((folder / RECORD).read_text())["to"] == "st"
    (folder / RECORD).unlink()
    with pytest.raises(InputError, match="no export wrote this one"):
        export_model(settings, "hf", folder, overwrite=True)
    with pytest.raises(InputError, match="a file"):
        export_model(settings, "hf", folder / "config.json", overwrite=True)


def test_a_missing_library_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)

    with pytest.raises(InputError, match=r"pip install mmembed\[sentence-transformers\]"):
        export_model(family_embedder("qwen2").eval(), "st", tmp_path / "out")


def test_a_square_of_pictures_is_refused(fresh_embedder, tmp_path):
    settings = fresh_embedder("qwen2_vl").settings
    backbone: QwenVL = settings.backbone
    squared = replace(backbone, media=replace(backbone.media, square=128))
    model = Embedder(EmbedderSettings(squared, settings.prompt), texts=["a red circle"])

    with pytest.raises(InputError, match=r"media\.square: .*squares of 128"):
        export_model(model, "hf", tmp_path / "out")
