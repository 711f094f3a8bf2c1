"""Questions about a clip: every query ranks the options of its own question, which it also reads."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from string import ascii_uppercase

from data_prep.converters import Converter, Media, Ranked, Record
from data_prep.converters.clips_ranked.stored import StoredClips, answerable, text_target
from data_prep.source import SourceSet

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
    ranked, clips = Ranked(), StoredClips.of(row, media)
    number = 0
    for subset, folder in MVBENCH_CLIPS.items():
        for of_subset, record in enumerate(parts[subset]):
            where = clips.row(of_subset, subset)
            question = _mvbench_question(record, where)
            _ask(ranked, number, question, clips, f"{subset}/{record['video']}", f"{folder}/{record['video']}", where)
            number += 1
    return ranked


def _mvbench_question(record: Record, where: str) -> Question:
    answer = record["answer"]
    answerable(answer, record["candidates"], f"{where}: answer")
    options = lettered(record["candidates"])
    # of equal options the published rule takes the last one
    right = [name for name, option in zip(options, record["candidates"], strict=True) if option == answer][-1]
    return Question(with_options(record["question"], options), {option: option for option in options}, right)


def nextqa(parts: Mapping[str, Iterator[Record]], row: SourceSet, media: Media) -> Ranked:
    """NExT-QA (arXiv:2105.08276), multiple choice: the letters stand in the query, options are named by their words."""

    def question(record: Record, ranked: Ranked, where: str) -> Question:
        options = [record[f"a{i}"] for i in range(5)]
        text = with_options(record["question"], lettered(options))
        answer = _chosen(_numbered(options), record["answer"], where)
        return Question(text, {option: option for option in options}, answer)

    return _questions(parts, row, media, question, lambda record: str(record["video"]))


def videomme(parts: Mapping[str, Iterator[Record]], row: SourceSet, media: Media) -> Ranked:
    """Video-MME (arXiv:2405.21075): options are named with their letter, their words are without it."""

    def question(record: Record, ranked: Ranked, where: str) -> Question:
        options = record["options"]
        by_letter = dict(zip(ascii_uppercase, options, strict=False))
        answer = _chosen(by_letter, record["answer"], where)
        return Question("\n".join([record["question"], *options]), _words_of(options, ranked), answer)

    return _questions(parts, row, media, question, lambda record: str(record["videoID"]))


def egoschema(parts: Mapping[str, Iterator[Record]], row: SourceSet, media: Media) -> Ranked:
    """EgoSchema (arXiv:2308.09126): as Video-MME, but nothing stands between the question and its first option."""

    def question(record: Record, ranked: Ranked, where: str) -> Question:
        options = record["option"]
        answer = _chosen(_numbered(options), record["answer"], where)
        return Question(record["question"] + " ".join(options), _words_of(options, ranked), answer)

    return _questions(parts, row, media, question, lambda record: str(record["video_idx"]))


def activitynetqa(parts: Mapping[str, Iterator[Record]], row: SourceSet, media: Media) -> Ranked:
    """ActivityNet-QA (arXiv:1906.02467), the part of it that is answered by yes or no."""

    def question(record: Record, ranked: Ranked, where: str) -> Question:
        options = {"yes": "yes", "no": "no"}
        answerable(record["answer"], options, f"{where}: answer")
        return Question(f"{record['question']}? (A) yes; (B) no.", options, record["answer"])

    return _questions(parts, row, media, question, lambda record: f"v_{record['video_name']}")


def lettered(options: list[str]) -> list[str]:
    """The options behind their letters: ``(A) yes``."""
    return [f"({letter}) {option}" for letter, option in zip(ascii_uppercase, options, strict=False)]


def with_options(question: str, options: list[str]) -> str:
    """A question and its options, one a line; what is blank at the end is cut off, as published."""
    return "\n".join([question, "Options:", *options]).rstrip()


def _questions(
    parts: Mapping[str, Iterator[Record]],
    row: SourceSet,
    media: Media,
    question: Callable[[Record, Ranked, str], Question],
    clip: Callable[[Record], str],
) -> Ranked:
    ranked, clips = Ranked(), StoredClips.of(row, media)
    for number, record in enumerate(parts["rows"]):
        where = clips.row(number)
        _ask(ranked, number, question(record, ranked, where), clips, clip(record), "", where)
    return ranked


def _ask(ranked: Ranked, number: int, question: Question, clips: StoredClips, name: str, file: str, where: str) -> None:
    for option, words in question.options.items():
        ranked.target(option, text_target(words, f"{where}: {option}"))
    query = clips.item(name, file, text=question.text, where=where)
    ranked.query(f"q{number}", query, {question.answer: 1}, question.options)


def _words_of(options: list[str], ranked: Ranked) -> dict[str, str]:
    """The words of options that begin with a letter and a full stop, by the whole option."""
    ranked.note(NO_LETTER, sum(". " not in option for option in options))
    return {option: option[option.find(". ") :].strip(". ") for option in options}


def _numbered(options: list[str]) -> dict[str, str]:
    return {str(number): option for number, option in enumerate(options)}


def _chosen(options: Mapping[str, str], answer: object, where: str) -> str:
    """The option that the answer names, by its letter or number."""
    answerable(str(answer), options, f"{where}: answer")
    return options[str(answer)]


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
