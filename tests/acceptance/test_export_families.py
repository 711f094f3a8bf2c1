"""Every family leaves for every target that holds it, and embeds there as it does here."""

import pytest

from mmembed.models.settings import ChatPrompt, Clips, RawPrompt
from mmembed.serve.export import export_model
from tests.cases import small_embedder
from tests.families import FAMILIES, LANGUAGE, family_embedder

# transformers before 5.20 warns of how it calls itself; sentence-transformers says that the older schema is old
pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.filterwarnings("ignore:`hidden_state` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*word_embedding_dimension.*"),
]

CASES = [
    (name, to, prompt)
    for name in LANGUAGE
    for to in ("st", "hf", "vllm")
    for prompt in {type(style): style for style in (FAMILIES[name].prompt, RawPrompt())}.values()
    # transformers has no class for the one, and vLLM no longer runs the other
    if name != "phi3_v" and (name, to) != ("mllama", "vllm")
]


@pytest.mark.parametrize(("name", "to", "prompt"), CASES)
def test_a_family_embeds_alike_where_it_is_exported_to(name, to, prompt, tmp_path):
    small = FAMILIES[name]
    resize = {"resize": "torchvision"} if small.clips else {}
    model = family_embedder(name, prompt=prompt, **resize).eval()
    # a raw prompt writes a clip of Qwen3-VL as one token, where vLLM looks for three
    clips = small.clips and (name, to, type(prompt)) != ("qwen3_vl", "vllm", RawPrompt)

    done = export_model(model, to, tmp_path / "out", without_video=small.clips and not clips)

    assert max(done.compared.values()) <= 1e-5
    assert any("several images" in tried for tried in done.compared) == small.pictures
    assert any("video" in tried for tried in done.compared) == clips


CHOICES = {
    "one pair of tokens around each frame": {"family": "qwen3_vl", "clips": Clips(outer_tokens=False)},
    "a bound of all frames": {"family": "qwen3_vl", "clips": Clips(total_pixels=12000, min_pixels=1024)},
    "a bound of each frame": {"family": "qwen2_5_vl", "max_pixels": 40000, "clips": Clips(max_pixels=9000)},
    "pictures by Pillow": {"family": "qwen3_vl", "resize": "pil", "clips": Clips(resize="torchvision")},
    "an instruction of its own": {
        "family": "qwen3_vl",
        "prompt": ChatPrompt(default_instruction="Represent the user's input.", punctuate=True),
    },
}


@pytest.mark.parametrize("to", ["st", "hf"])
@pytest.mark.parametrize("name", CHOICES)
def test_what_a_profile_changes_leaves_with_the_model(name, to, tmp_path):
    done = export_model(small_embedder(**CHOICES[name]).eval(), to, tmp_path / "out")

    assert max(done.compared.values()) <= 1e-5
    assert any("video" in tried for tried in done.compared)
