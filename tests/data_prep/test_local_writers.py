"""Models of transformers that write and describe pictures: small random ones, saved and opened as released ones are."""

import json

import PIL.Image
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from data_prep.make_cir_triplets import main as make_triplets
from data_prep.writers.local import LocalCaptioner, LocalWriter
from mmembed.errors import InputError
from mmembed.items import Image

TEMPLATE = (
    "{% for m in messages %}<user>{% if m.content is string %} {{ m.content }}{% else %}{% for p in m.content %}"
    "{% if p.type == 'image' %} <image>{% else %} {{ p.text }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} <assistant>{% endif %}"
)
WORDS = ["<pad>", "</s>", "<user>", "<assistant>", "<image>", "<unk>", *(f"word{number}" for number in range(40))]
QUESTION = "word1 word2"


def tokenizer(template=TEMPLATE):
    split = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    split.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if template is None:
        ends = [("<user>", WORDS.index("<user>")), ("</s>", WORDS.index("</s>"))]
        split.post_processor = processors.TemplateProcessing("<user> $A </s>", special_tokens=ends)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=split, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", chat_template=template,
        extra_special_tokens={"image_token": "<image>", "user": "<user>", "assistant": "<assistant>"},
    )  # fmt: skip


def llama():
    return transformers.LlamaConfig(
        vocab_size=len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.5, bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("language")
    transformers.LlamaForCausalLM(llama()).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def picture_model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("pictures")
    vision = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=14,
        initializer_factor=10.0,
    )  # fmt: skip
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=llama(), image_token_id=4, image_seq_length=4, vision_feature_layer=-1
    )
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    square = {"height": 28, "width": 28}
    transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=square), tokenizer(), patch_size=14,
        vision_feature_select_strategy="default", chat_template=TEMPLATE, num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_a_local_model_answers_with_its_likeliest_words_behind_the_chat(language_model):
    writer = LocalWriter(str(language_model), max_tokens=5)

    answer = writer.write([{"role": "user", "content": QUESTION}])

    ids = [WORDS.index(word) for word in ("<user>", "word1", "word2", "<assistant>")]
    model = transformers.LlamaForCausalLM.from_pretrained(language_model)
    said = []
    for _ in range(5):
        said.append(int(model(torch.tensor([ids + said])).logits[0, -1].argmax()))
        if said[-1] == 1:
            break
    assert answer.split() == [WORDS[i] for i in said if not WORDS[i].startswith("<")]
    assert answer
    assert answer != writer.write([{"role": "user", "content": "word7"}])
    assert writer.facts == {"writer": "transformers", "model": str(language_model), "max_tokens": 5}


def test_a_model_without_a_chat_template_or_that_is_not_there_is_refused(language_model, tmp_path):
    transformers.LlamaForCausalLM(llama()).save_pretrained(tmp_path / "base")
    tokenizer(None).save_pretrained(tmp_path / "base")

    with pytest.raises(InputError, match="expected a tokenizer with a chat template, got none"):
        LocalWriter(str(tmp_path / "base"))
    with pytest.raises(InputError, match=r"nowhere: expected a model of transformers"):
        LocalWriter(str(tmp_path / "nowhere"))


def test_a_local_model_writes_for_the_commands(language_model, tmp_path):
    """A random one writes no JSON, which the report counts."""
    captions, output = tmp_path / "captions.jsonl", tmp_path / "triplets.jsonl"
    captions.write_text('{"id": "0", "image": "a.jpg", "caption": "a dog"}\n')
    writer = ["--writer", "transformers", "--model", str(language_model), "--max-tokens", "4"]

    assert make_triplets([str(captions), "--output", str(output), *writer]) == 1

    report = json.loads(output.with_suffix(".report.json").read_text())
    assert report["rejected"]["not JSON"] == 1
    assert report["writer"] == {"writer": "transformers", "model": str(language_model), "max_tokens": 4}


def test_a_model_of_pictures_describes_what_it_sees_without_repeating_the_question(picture_model, tmp_path):
    pixels = torch.randint(0, 256, (28, 28, 3), dtype=torch.uint8).numpy()
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    captioner = LocalCaptioner(str(picture_model), QUESTION, max_tokens=4)

    caption = captioner.caption(Image(tmp_path / "a.png"))

    ids = [WORDS.index(word) for word in ("<user>", *["<image>"] * 4, "word1", "word2", "<assistant>")]
    processor = transformers.AutoProcessor.from_pretrained(picture_model)
    seen = processor.image_processor(PIL.Image.open(tmp_path / "a.png"), return_tensors="pt")["pixel_values"]
    model = transformers.LlavaForConditionalGeneration.from_pretrained(picture_model)
    said = []
    for _ in range(4):
        logits = model(input_ids=torch.tensor([ids + said]), pixel_values=seen).logits
        said.append(int(logits[0, -1].argmax()))
        if said[-1] == 1:
            break
    assert caption.split() == [WORDS[i] for i in said if not WORDS[i].startswith("<")]
    assert caption


def test_a_captioner_without_a_chat_template_is_asked_plainly(tmp_path):
    """BLIP, as BLIP-2, has no chat; it reads the question as the beginning of the caption, or none."""
    config = transformers.BlipConfig(
        text_config={
            "vocab_size": len(WORDS), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "encoder_hidden_size": 32, "bos_token_id": 3, "sep_token_id": 1,
            "eos_token_id": 1, "pad_token_id": 0, "initializer_range": 0.5,
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "image_size": 28, "patch_size": 14,
        },
        projection_dim=16,
    )  # fmt: skip
    transformers.BlipForConditionalGeneration(config).save_pretrained(tmp_path / "blip")
    resize = transformers.BlipImageProcessor(size={"height": 28, "width": 28})
    transformers.BlipProcessor(resize, tokenizer(None)).save_pretrained(tmp_path / "blip")
    PIL.Image.new("RGB", (30, 20), (9, 200, 30)).save(tmp_path / "a.png")
    image = Image(tmp_path / "a.png")

    plain = LocalCaptioner(str(tmp_path / "blip"), "", max_tokens=4).caption(image)
    asked = LocalCaptioner(str(tmp_path / "blip"), "word20 word21 word22", max_tokens=8).caption(image)

    model = transformers.BlipForConditionalGeneration.from_pretrained(tmp_path / "blip")
    pixels = resize(PIL.Image.open(tmp_path / "a.png"), return_tensors="pt")["pixel_values"]
    question = torch.tensor([[2, *(WORDS.index(f"word{number}") for number in (20, 21, 22)), 1]])
    whole = model.generate(pixel_values=pixels, input_ids=question, max_new_tokens=8, do_sample=False)[0].tolist()
    assert whole[:4] == [3, *question[0, 1:4].tolist()]
    assert asked.split() == [WORDS[i] for i in whole[4:] if not WORDS[i].startswith("<")]
    assert plain
    assert asked
