"""Questions about a clip: every query ranks the options of its own question, which it also reads."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from string import ascii_uppercase

from data_prep.converters import Converter, Media, Ranked, Record
from data_prep.converters.clips_ranked.stored import answerable, clip_item, clips_of, text_item
from data_prep.converters.fields import identifier, in_row, text, texts
from data_prep.converters.frames import Clips
from data_prep.source import SourceSet
from mmembed.errors import InputError

NO_LETTER = "options that do not begin with a letter, of which the published rule keeps the last character"


@dataclass(frozen=True)
class Question:
    """A row as it is asked.

    Args:
        text: the question and what is read of its options.
        options: words of each option as a target, by its name.
        answer: name of the right one.
    """

    text: str
    options: dict[str, str]
    answer: str


# folder below the clips, as the benchmark publishes them (arXiv:2311.17005); episodic_reasoning has frames alone
MVBENCH_CLIPS = {
    "episodic_reasoning": "tvqa/frames_fps3_hq",
    "action_sequence": "star/Charades_v1_480",
    "action_prediction": "star/Charades_v1_480",
    "action_antonym": "ssv2_video",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "unexpected_action": "FunQA_test/test",
    "object_existence": "clevrer/video_validation",
    "object_interaction": "star/Charades_v1_480",
    "object_shuffle": "perception/videos",
    "moving_direction": "clevrer/video_validation",
    "action_localization": "sta/sta_video",
    "scene_transition": "scene_qa/video",
    "action_count": "perception/videos",
    "moving_count": "clevrer/video_validation",
    "moving_attribute": "clevrer/video_validation",
    "state_change": "perception/videos",
    "fine_grained_pose": "nturgbd",
    "character_order": "perception/videos",
    "egocentric_navigation": "vlnqa",
    "counterfactual_inference": "clevrer/video_validation",
}


def mvbench(parts: Mapping[str, Iterator[Record]], row: SourceSet, media: Media) -> Ranked:
    """MVBench: the questions of its configurations one after another; names and words of options are ``(A) ...``."""
    ranked, clips = Ranked(), clips_of(row, media)
    for subset, folder in MVBENCH_CLIPS.items():
        for number, record in enumerate(parts[subset]):
            with in_row(number, subset):
                video = identifier(record, "video")
                _ask(ranked, _mvbench_question(record), clips, f"{subset}/{video}", f"{folder}/{video}", where="video")
    return ranked


def _mvbench_question(record: Record) -> Question:
    candidates, answer = texts(record, "candidates"), text(record, "answer")
    answerable(answer, candidates, "answer")
    options = lettered(candidates)
    # of equal options the published rule takes the last one
    right = [name for name, option in zip(options, candidates, strict=True) if option == answer][-1]
    asked = with_options(text(record, "question", empty=True), options)
    return Question(asked, {option: option for option in options}, right)


def nextqa(parts: Mapping[str, Iterator[Record]], row: SourceSet, media: Media) -> Ranked:
    """NExT-QA (arXiv:2105.08276), multiple choice: the letters stand in the query, options are named by their words."""

    def question(record: Record, ranked: Ranked) -> Question:
        options = [text(record, f"a{i}") for i in range(5)]
        asked = with_options(text(record, "question", empty=True), lettered(options))
        return Question(asked, {option: option for option in options}, _chosen(_numbered(options), record))

    return _questions(parts, row, media, question, "video")


def videomme(parts: Mapping[str, Iterator[Record]], row: SourceSet, media: Media) -> Ranked:
    """Video-MME (arXiv:2405.21075): options are named with their letter, their words are without it."""

    def question(record: Record, ranked: Ranked) -> Question:
        words = _words_of("options", record, ranked)
        answer = _chosen(dict(zip(ascii_uppercase, record["options"], strict=False)), record)
        return Question("\n".join([text(record, "question", empty=True), *record["options"]]), words, answer)

    return _questions(parts, row, media, question, "videoID")


def egoschema(parts: Mapping[str, Iterator[Record]], row: SourceSet, media: Media) -> Ranked:
    """EgoSchema (arXiv:2308.09126): as Video-MME, but nothing stands between the question and its first option."""

    def question(record: Record, ranked: Ranked) -> Question:
        words = _words_of("option", record, ranked)
        asked = text(record, "question", empty=True) + " ".join(record["option"])
        return Question(asked, words, _chosen(_numbered(record["option"]), record))

    return _questions(parts, row, media, question, "video_idx")


def activitynetqa(parts: Mapping[str, Iterator[Record]], row: SourceSet, media: Media) -> Ranked:
    """ActivityNet-QA (arXiv:1906.02467), the part of it that is answered by yes or no."""

    def question(record: Record, ranked: Ranked) -> Question:
        options = {"yes": "yes", "no": "no"}
        return Question(f"{text(record, 'question', empty=True)}? (A) yes; (B) no.", options, _chosen(options, record))

    return _questions(parts, row, media, question, "video_name", "v_")


def lettered(options: list[str]) -> list[str]:
    """The options behind their letters: ``(A) yes``."""
    return [f"({chr(ord('A') + place)}) {option}" for place, option in enumerate(options)]


def with_options(question: str, options: list[str]) -> str:
    """A question and its options, one a line; what is blank at the end is cut off, as published."""
    return "\n".join([question, "Options:", *options]).rstrip()


def _questions(
    parts: Mapping[str, Iterator[Record]],
    row: SourceSet,
    media: Media,
    question: Callable[[Record, Ranked], Question],
    clip: str,
    prefix: str = "",
) -> Ranked:
    """The set of what ``question`` makes of each row; column ``clip`` names the clip, with ``prefix`` before it."""
    ranked, clips = Ranked(), clips_of(row, media)
    for number, record in enumerate(parts["rows"]):
        with in_row(number):
            name = prefix + identifier(record, clip)
            _ask(ranked, question(record, ranked), clips, name, where=clip)
    return ranked


def _ask(ranked: Ranked, question: Question, clips: Clips, name: str, *files: str, where: str) -> None:
    for option, words in question.options.items():
        ranked.target(option, text_item(words))
    query = clip_item(clips, name, *files, text=question.text, where=where)
    ranked.query(f"q{len(ranked.queries)}", query, {question.answer: 1}, question.options)


def _words_of(column: str, record: Record, ranked: Ranked) -> dict[str, str]:
    """The words of options that begin with a letter and a full stop, by the whole option."""
    options = texts(record, column)
    ranked.note(NO_LETTER, sum(". " not in option for option in options))
    words = {option: option[option.find(". ") :].strip(". ") for option in options}
    if "" in words.values():
        remedy = "mend the row, or download the file again"
        raise InputError(column, expected="words behind each letter", got=options, remedy=remedy)
    return words


def _numbered(options: list[str]) -> dict[str, str]:
    return {str(number): option for number, option in enumerate(options)}


def _chosen(options: Mapping[str, str], record: Record) -> str:
    """The option that the answer names, by its letter, number or word."""
    answer = identifier(record, "answer")
    answerable(answer, options, "answer")
    return options[answer]


CONVERTERS = {
    "mvbench": Converter(
        ranked=mvbench,
        parts=tuple(MVBENCH_CLIPS),
        columns=dict.fromkeys(MVBENCH_CLIPS, ("question", "video", "candidates", "answer")),
    ),
    "nextqa": Converter(ranked=nextqa, columns={"rows": ("video", "question", "answer", "a0", "a1", "a2", "a3", "a4")}),
    "videomme": Converter(ranked=videomme, columns={"rows": ("question", "videoID", "options", "answer")}),
    "egoschema": Converter(ranked=egoschema, columns={"rows": ("video_idx", "question", "answer", "option")}),
    "activitynetqa": Converter(ranked=activitynetqa, columns={"rows": ("video_name", "question", "answer")}),
}
