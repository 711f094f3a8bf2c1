"""From an Item to a Row: tokens, kinds, truncation, time steps, memory."""

import pickle
from dataclasses import replace

import pytest
import torch
from PIL.Image import Resampling

from mmembed import Embedder, Image, Item, Region, Video
from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.media.settings import MediaSettings
from mmembed.models.media_cache import MediaCache
from mmembed.models.prompts import Kind
from mmembed.models.sequence import collate
from mmembed.models.settings import ChatPrompt, Clips, RawPrompt, TextRegions
from tests.cases import small_embedder, small_settings

WORDS = "a red circle and a blue circle and a red circle and a blue circle"


@pytest.fixture(scope="module")
def row_of(scratch_embedder):
    def make(item, family="qwen2_vl", **choices):
        return scratch_embedder(family, **choices).backbone.preprocessor(Item.of(item), "query")

    return make


def text_of(row, embedder):
    return embedder.backbone.preprocessor.tokenizer.decode(row.ids)


def test_kinds_mark_instruction_words_template_and_media(row_of, picture):
    row = row_of(Item.of({"image": picture(56, 84), "text": "blue"}, "Represent the given image."))

    kinds = [Kind(int(k)) for k, before in zip(row.kinds, [None, *row.kinds], strict=False) if k != before]
    assert kinds == [
        Kind.TEMPLATE,
        Kind.INSTRUCTION,
        Kind.TEMPLATE,
        Kind.IMAGE,
        Kind.TEMPLATE,
        Kind.TEXT,
        Kind.TEMPLATE,
    ]
    assert (row.kinds == Kind.IMAGE).sum() == 2 * 3


def test_a_literal_pad_token_in_words_is_text(row_of, scratch_embedder, picture):
    row = row_of(Item((Image(picture(56, 56)), " <|image_pad|> <|video_pad|>")), prompt=RawPrompt())
    geometry = scratch_embedder("qwen2_vl").backbone.preprocessor.geometry

    image_tokens = row.ids == geometry.image_id
    assert int(image_tokens.sum()) == 4 + 1
    assert row.kinds[image_tokens].tolist() == [Kind.IMAGE] * 4 + [Kind.TEXT]
    assert row.kinds[row.ids == geometry.video_id].tolist() == [Kind.TEXT]


def test_raw_words_are_cut_at_the_end(row_of):
    whole = row_of(WORDS, prompt=RawPrompt())

    cut = row_of(WORDS, prompt=RawPrompt(), max_length=5)

    assert len(whole) > 5
    assert cut.ids.tolist() == whole.ids[:5].tolist()
    assert cut.positions.shape == (3, 5)


def test_chat_words_are_cut_before_the_closing_template(row_of, scratch_embedder):
    whole = row_of(WORDS)
    closing = int((whole.kinds.flip(0) != Kind.TEMPLATE).int().argmax())
    limit = len(whole) - 4

    cut = row_of(WORDS, max_length=limit)

    assert closing > 0
    assert len(cut) == limit
    assert cut.ids.tolist() == whole.ids[: limit - closing].tolist() + whole.ids[-closing:].tolist()
    assert text_of(cut, scratch_embedder("qwen2_vl")).endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert cut.positions[0].tolist() == list(range(limit))


def test_words_after_a_medium_are_cut_and_the_medium_stays(row_of, picture):
    item = Item((Image(picture(56, 84)), WORDS))
    whole = row_of(item, prompt=RawPrompt())

    cut = row_of(item, prompt=RawPrompt(), max_length=9)

    assert (cut.kinds == Kind.IMAGE).sum() == 6
    assert cut.ids.tolist() == whole.ids[:9].tolist()
    assert cut.positions.tolist() == whole.positions[:, :9].tolist()


def test_media_past_the_cut_are_refused(row_of, picture):
    item = Item((WORDS, Image(picture(56, 84))))

    with pytest.raises(InputError, match=r"expected media and regions within max_length 9, got \d+ tokens"):
        row_of(item, prompt=RawPrompt(), max_length=9)


def test_a_row_at_the_limit_is_whole(row_of):
    whole = row_of(WORDS, prompt=RawPrompt())

    assert row_of(WORDS, prompt=RawPrompt(), max_length=len(whole)).ids.tolist() == whole.ids.tolist()


def test_qwen3_writes_the_seconds_of_each_pair_of_frames(row_of, scratch_embedder, picture):
    frames = tuple(picture(64, 64, seed) for seed in range(3))

    row = row_of(Item((Video(frames),)), family="qwen3_vl", prompt=RawPrompt())

    text = text_of(row, scratch_embedder("qwen3_vl"))
    pads = "<|vision_start|>" + "<|video_pad|>" * 4 + "<|vision_end|>"
    assert text == f"<0.5 seconds>{pads}<2.0 seconds>{pads}"


def test_qwen2_5_spaces_time_by_the_seconds_between_frames(row_of, picture):
    frames = tuple(picture(56, 56, seed) for seed in range(8))

    every = row_of(Item((Video(frames),)), family="qwen2_5_vl", prompt=RawPrompt())
    # 4 frames of 8 seconds: transformers counts them 2 seconds apart, wherever they stand
    some = row_of(Item((Video(frames, num_frames=4),)), family="qwen2_5_vl", prompt=RawPrompt())

    assert every.positions[0].unique().tolist() == [0, 8, 16, 24]
    assert some.positions[0].unique().tolist() == [0, 16]


def test_a_clip_of_one_frame_is_repeated_in_time(row_of, picture):
    for family in ("qwen2_vl", "qwen2_5_vl"):
        row = row_of(Item((Video((picture(56, 56),)),)), family=family, prompt=RawPrompt())
        assert row.media[0].grid == (1, 4, 4)
        assert torch.equal(row.media[0].pixels[:, :, 0], row.media[0].pixels[:, :, 1])
        assert (row.kinds == Kind.VIDEO).sum() == 4


def test_all_frames_take_the_size_of_the_first(row_of, picture):
    row = row_of(Item((Video((picture(84, 56), picture(30, 200), picture(84, 56))),)), prompt=RawPrompt())

    assert row.media[0].grid == (2, 4, 6)


def test_frames_have_bounds_of_their_own_and_one_together(row_of, picture):
    still, clip = Image(picture(112, 112)), Video(tuple(picture(112, 112, seed) for seed in range(4)))
    bounds = {"min_pixels": 3136, "max_pixels": 200704}

    def grids(**clips):
        return [m.grid for m in row_of(Item((still, clip)), prompt=RawPrompt(), **bounds, clips=Clips(**clips)).media]

    assert grids() == [(1, 8, 8), (2, 8, 8)]
    assert grids(max_pixels=6272) == [(1, 8, 8), (2, 4, 4)]
    assert grids(min_pixels=30000) == [(1, 8, 8), (2, 14, 14)]
    # two temporal patches of half the pixels each
    assert grids(total_pixels=12544) == [(1, 8, 8), (2, 4, 4)]
    # each frame may have a little more than its least
    assert grids(min_pixels=12000, total_pixels=1) == [(1, 8, 8), (2, 8, 8)]


def test_frames_that_are_given_as_pictures_may_be_resized_twice(row_of, picture, tmp_path):
    frames = tuple(picture(100, 60, seed) for seed in range(2))
    for number, frame in enumerate(frames):
        frame.save(tmp_path / f"{number}.png")

    def pixels(source, factor):
        row = row_of(Item((Video(source),)), prompt=RawPrompt(), clips=Clips(stills_factor=factor))
        return row.media[0].pixels

    fetched = tuple(frame.resize((128, 128), Resampling.BICUBIC) for frame in frames)
    assert torch.equal(pixels(frames, 64), pixels(fetched, None))
    assert torch.equal(pixels(tmp_path, 64), pixels(fetched, None))
    assert not torch.equal(pixels(frames, 64), pixels(frames, None))


def test_frames_of_qwen3_may_take_the_place_of_the_pair_around_a_clip(row_of, scratch_embedder, picture):
    clip = Item((Video(tuple(picture(32, 32, seed) for seed in range(4))), "words"))

    written = [
        text_of(row_of(clip, family="qwen3_vl", clips=Clips(outer_tokens=keep), min_pixels=1024),
                scratch_embedder("qwen3_vl"))
        for keep in (True, False)
    ]  # fmt: skip

    block = "<|vision_start|><|video_pad|><|vision_end|>"
    inner = f"<0.5 seconds>{block}<2.5 seconds>{block}"
    turn = "<|im_start|>user\n{}words<|im_end|>\n<|im_start|>assistant\n"
    assert written == [turn.format(f"<|vision_start|>{inner}<|vision_end|>"), turn.format(inner)]


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("prompt", [ChatPrompt(), RawPrompt(separator="")])
def test_a_clip_shown_as_pictures_is_those_pictures(family, prompt, picture):
    frames = tuple(picture(84, 56, seed) for seed in range(3))
    model = small_embedder(family, prompt=prompt, clips=Clips(as_pictures=True))
    clip, pictures = Item.of({"video": Video(frames), "text": "words"}), Item.of({"image": frames, "text": "words"})

    rows = model.prepare([clip, pictures], "target")

    assert rows[0].ids.tolist() == rows[1].ids.tolist()
    assert torch.equal(rows[0].positions, rows[1].positions)
    together = model.encode([clip, pictures, Item.of({"video": Video(frames[:1]), "image": frames[1]})])
    assert torch.allclose(together[0], together[1], atol=1e-6)


def test_the_preprocessor_travels_to_workers(scratch_embedder, picture):
    item = Item.of({"image": picture(56, 84), "text": "blue"}, "Represent.")
    preprocessor = scratch_embedder("qwen3_vl").backbone.preprocessor

    there = pickle.loads(pickle.dumps(preprocessor))

    assert there(item, "query").fingerprint == preprocessor(item, "query").fingerprint


def test_a_cached_medium_is_decoded_once_and_gives_the_same_row(fresh_embedder, picture):
    preprocessor = fresh_embedder().backbone.preprocessor
    item = Item.of({"image": picture(56, 84), "text": "blue"})
    without = preprocessor(item, "query")
    preprocessor.cache = MediaCache(1 << 20)

    with counting() as work:
        rows = [preprocessor(item, "query") for _ in range(3)]

    assert work["media_decoded"] == 1
    assert {row.fingerprint for row in rows} == {without.fingerprint}


def test_fingerprints_of_media_name_the_preprocessing(row_of, picture):
    item = Item((Image(picture(20, 84)),))
    choices = [
        {}, {"min_pixels": 4000}, {"max_pixels": 50000}, {"resize": "pil"}, {"min_side": 28}, {"thin": "strip"},
        {"clips": Clips(max_pixels=50000)},
    ]  # fmt: skip

    names = {row_of(item, prompt=RawPrompt(), **choice).media[0].fingerprint for choice in choices}

    assert len(names) == len(choices)


def test_a_checkpoint_without_a_template_cannot_chat(fresh_embedder):
    embedder = fresh_embedder(prompt=ChatPrompt())
    embedder.backbone.preprocessor.tokenizer.chat_template = None

    with pytest.raises(InputError, match="item 0: prompt: expected a chat template in the checkpoint, got none"):
        embedder.encode(["x"])


@pytest.fixture(scope="module")
def pointing():
    return Embedder(replace(small_settings("qwen2_vl"), regions=TextRegions(scale=8)), texts=WORDS.split()).eval()


def marked(shown, *regions):
    return Item((Image(shown, regions),), "describe", verbatim=False)


def test_regions_are_told_right_behind_their_picture(pointing, picture):
    first, second = Image(picture(56, 56), (Region(box=(0, 0, 28, 56)),)), Image(picture(84, 56))
    preprocessor = pointing.backbone.preprocessor

    row = preprocessor(Item((first, "a red circle", second)), "query")

    text = preprocessor.tokenizer.decode(row.ids)
    assert "<|vision_end|>(box 0 0 4 8)a red circle<|vision_start|>" in text
    assert preprocessor.tokenizer.decode(row.ids[row.kinds == Kind.REGION]) == "(box 0 0 4 8)"
    assert [m.grid for m in row.media] == [(1, 4, 4), (1, 4, 6)]


def test_a_picture_with_another_region_is_decoded_and_passes_the_tower_once(pointing, picture):
    shown = picture(56, 56)
    items = [marked(shown, Region(box=(0, 0, x, 56))) for x in (14, 28, 42)] + [marked(shown)]
    preprocessor = pickle.loads(pickle.dumps(pointing.backbone.preprocessor))
    preprocessor.cache = MediaCache(1 << 20)

    with counting() as work:
        rows = [preprocessor(item, "query") for item in items]
    batch = collate(rows)

    assert work["media_decoded"] == 1
    assert len({row.fingerprint for row in rows}) == 4
    assert len(batch.media) == 1
    assert batch.slots.tolist() == [0] * 4


def test_coordinates_are_those_of_the_picture_before_it_is_resized(pointing, picture):
    preprocessor = pickle.loads(pickle.dumps(pointing.backbone.preprocessor))
    preprocessor.settings = replace(preprocessor.settings, max_pixels=56 * 56)

    row = preprocessor(marked(picture(560, 280), Region(points=((280, 35, 1),))), "query")

    assert "(point 4 1)" in preprocessor.tokenizer.decode(row.ids)
    assert row.media[0].grid[1:] != (20, 40)


def test_items_with_equal_regions_give_equal_rows_and_vectors(pointing, picture):
    one, equal, other = (marked(picture(56, 56), Region(box=(0, 0, x, 56))) for x in (28, 28, 56))

    rows = pointing.prepare([one, equal, other], "query")
    vectors = pointing.encode([one, equal, other])

    assert rows[0].fingerprint == rows[1].fingerprint != rows[2].fingerprint
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.allclose(vectors[0], vectors[2], atol=1e-3)


def test_regions_past_the_cut_are_refused(pointing, picture):
    preprocessor = pickle.loads(pickle.dumps(pointing.backbone.preprocessor))
    item = Item((Image(picture(56, 56), (Region(box=(0, 0, 9, 9)),)), WORDS))
    preprocessor.prompt = RawPrompt()
    preprocessor.settings = replace(preprocessor.settings, max_length=4 + 3)

    with pytest.raises(InputError, match="expected media and regions within max_length 7"):
        preprocessor(item, "query")


def test_a_region_outside_of_its_picture_is_refused_with_the_items_number(pointing, picture):
    with pytest.raises(InputError, match=r"item 0: .*regions\[0\]\.box: expected a box inside the picture of 56 x 56"):
        pointing.encode([marked(picture(56, 56), Region(box=(0, 0, 60, 56)))])


def test_regions_are_refused_where_no_encoder_would_read_them(row_of, picture):
    marked = Image(picture(56, 56), (Region(box=(1, 1, 5, 5)),))

    with pytest.raises(
        InputError, match=r"image\.regions: expected no regions: .* no region encoder, got 1; set regions"
    ):
        row_of(Item((marked,)))


def test_a_token_that_begins_with_the_separator_belongs_to_the_word_after_it(row_of, scratch_embedder, picture):
    item = Item.of({"image": picture(56, 56), "text": "a red circle"}, "describe the clip")

    row = row_of(item, prompt=RawPrompt())

    tokenizer = scratch_embedder("qwen2_vl", prompt=RawPrompt()).backbone.preprocessor.tokenizer
    for kind, words in ((Kind.INSTRUCTION, "describe the clip"), (Kind.TEXT, "a red circle")):
        assert tokenizer.decode(row.ids[row.kinds == kind]).strip() == words


def test_regions_of_pictures_that_are_made_squares_are_told_in_shares_of_the_original(scratch_embedder, picture):
    model = scratch_embedder("qwen2_vl", regions=TextRegions(scale=10), media=MediaSettings(square=56))
    preprocessor = model.backbone.preprocessor

    row = preprocessor(Item((Image(picture(100, 50), (Region(box=(10, 20, 30, 40)),)),)), "query")

    assert preprocessor.tokenizer.decode(row.ids[row.kinds == Kind.REGION]) == "(box 1 4 3 8)"


def test_the_first_released_checkpoints_see_squares_of_1225_tokens(open_golden, golden, picture):
    model = Embedder.from_pretrained(golden / "vlm2vec/qwen2_vl", profile="vlm2vec_v1", device="cpu")

    row = model.backbone.preprocessor(Item.of({"image": picture(200, 100)}), "query")
    same = model.backbone.preprocessor(Item.of({"image": picture(200, 100).resize((1344, 1344))}), "query")

    assert int((row.kinds == Kind.IMAGE).sum()) == 1225
    assert torch.equal(row.media[0].pixels, same.media[0].pixels)


def test_five_stored_frames_become_three_steps_in_time(row_of, picture):
    frames = tuple(picture(56, 56, seed) for seed in range(5))

    row = row_of(Item((Video(frames, num_frames=8),)), prompt=RawPrompt())

    assert row.media[0].grid[0] == 3
    # the last frame fills up the odd count
    assert torch.equal(row.media[0].pixels[-1, :, 0], row.media[0].pixels[-1, :, 1])
