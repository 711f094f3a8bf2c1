"""What the tests of formats share: media, pairs and rows that each format can hold, and conversions there and back."""

import io
import json
import string

import PIL.Image
from hypothesis import Phase
from hypothesis import strategies as st

from data_prep.convert import main
from data_prep.formats.mbeir import TASKS
from data_prep.formats.mmeb import TOKEN
from data_prep.formats.registry import FORMATS
from mmembed.data.tables import open_table, write_pairs
from mmembed.items import Image, Item, Negative, Pair, Video

WHO, SHE = Item.of("who?"), Item.of("she")
PICTURES = ("a.png", "below/b.png", "c d.png")
CLIPS = ("one.mp4", "below/two.mp4")
SMALL = {"max_examples": 5, "deadline": None, "phases": (Phase.explicit, Phase.reuse, Phase.generate)}
SUFFIX = dict.fromkeys(FORMATS, (".jsonl",)) | {
    "mmeb": (".jsonl", ".parquet"),
    "sentence-transformers": (".jsonl", ".parquet", ""),
}
HAS_CORPUS = ("m-beir", "tevatron")


def draw_media(folder):
    """Pictures that decode and clips that are only there, in a folder."""
    (folder / "below").mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(PICTURES):
        PIL.Image.new("RGB", (8, 8), (number * 80, 10, 20)).save(folder / name)
    for name in CLIPS:
        (folder / name).write_bytes(name.encode())
    return folder


def png(colour=(1, 2, 3)):
    """The bytes of a small picture."""
    data = io.BytesIO()
    PIL.Image.new("RGB", (4, 4), colour).save(data, "PNG")
    return data.getvalue()


def convert(*arguments):
    """The command, which must succeed."""
    assert main([str(argument) for argument in arguments]) == 0


def refused(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 2
    return capsys.readouterr().err


def export_refused(capsys, folder, name, pair, *more):
    """What is said of a table of a good pair and then this one; nothing is written."""
    table, rows = write_table(folder / "table.jsonl", [pair]), folder / f"rows{SUFFIX[name][0]}"
    corpus = ["--corpus", corpus_of(rows)] if name in HAS_CORPUS else []
    before = set(folder.rglob("*"))
    said = refused(capsys, "export", name, "--input", table, "--output", rows, *corpus, *more)
    assert set(folder.rglob("*")) == before
    return said


def corpus_of(path):
    return path.with_name(f"{path.stem}_corpus.jsonl")


def exported(name, table, output, *more):
    """A table written in a format."""
    corpus = ["--corpus", corpus_of(output)] if name in HAS_CORPUS else []
    convert("export", name, "--input", table, "--output", output, "--overwrite", *corpus, *more)
    return output


def imported(name, rows, output, *more):
    """A table made of a format's rows."""
    corpus = ["--corpus", corpus_of(rows)] if name in HAS_CORPUS else []
    convert("import", name, "--input", rows, "--output", output, "--overwrite", *corpus, *more)
    return output


def read_table(path):
    return list(open_table(path))


def write_table(path, pairs):
    write_pairs(path, pairs)
    return path


def read_lines(path):
    # a text may hold marks that Unicode calls ends of lines
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def words(*, without=("<",)):
    """Texts that are not empty, with quotes, spaces, line ends and other scripts, but no tags."""
    letters = st.characters(codec="utf-8", exclude_categories=("Cs",), exclude_characters="".join(without))
    return st.text(letters, min_size=1, max_size=12)


NAMES = st.text(string.ascii_letters + string.digits + " .-é", min_size=1, max_size=8)


def pictures(folder):
    return st.sampled_from([Image(str(folder / name)) for name in PICTURES])


def clips(folder):
    return st.sampled_from([Video(str(folder / name)) for name in CLIPS])


def field_items(folder, *, images=1, video=True, instruction=False):
    """Items of named fields: a clip, pictures and a text, each perhaps, and one of them at least."""
    return (
        st.tuples(
            st.lists(clips(folder), max_size=1 if video else 0),
            st.lists(pictures(folder), max_size=images),
            st.lists(words(), max_size=1),
            st.one_of(st.none(), words()) if instruction else st.none(),
        )
        .filter(lambda parts: any(parts[:3]))
        .map(lambda parts: Item((*parts[0], *parts[1], *parts[2]), instruction=parts[3], verbatim=False))
    )


@st.composite
def tagged_items(draw, folder, *, verbatim, most=3, video=True, instruction=False):
    """Items of media with texts between them, never two texts side by side."""
    media = st.one_of(pictures(folder), clips(folder)) if video else pictures(folder)
    shown = draw(st.lists(media, max_size=most))
    texts = draw(st.lists(st.one_of(st.just(""), words()), min_size=len(shown) + 1, max_size=len(shown) + 1))
    parts = [part for pair in zip(texts, (*shown, ""), strict=True) for part in pair if part != ""]
    told = draw(st.one_of(st.none(), words())) if instruction else None
    return Item(tuple(parts) or ("words",), instruction=told, verbatim=verbatim)


@st.composite
def stray_items(draw):
    """Texts of MMEB with the word for a picture that is not there."""
    text, kind = draw(words()), draw(st.integers(0, 2))
    if kind == 2:
        return Item((text,), instruction=draw(words()), layout="{instruction}{image_token}{text}")
    return Item((text,), layout=("{image_token}{text}", "{text}{image_token}")[kind])


def mmeb_pairs(folder):
    items = st.one_of(tagged_items(folder, verbatim=True, most=1, video=False), stray_items())
    wrong = items.map(Negative)
    return st.lists(
        st.builds(lambda q, t, n: Pair(q, (t,), tuple(n)), items, items, st.lists(wrong, max_size=1)), **ROWS
    )


def megapairs_pairs(folder):
    shown = pictures(folder).map(lambda image: Item((image,), verbatim=False))
    query = st.builds(lambda image, text: Item((image, text), verbatim=False), pictures(folder), words())
    return st.lists(
        st.builds(lambda q, t, n: Pair(q, (t,), tuple(map(Negative, n))), query, shown, st.lists(shown, max_size=3)),
        **ROWS,
    )


def ms_swift_pairs(folder):
    items = tagged_items(folder, verbatim=False, instruction=True)
    return st.lists(
        st.builds(lambda q, t, n: Pair(q, (t,), tuple(map(Negative, n))), items, items, st.lists(items, max_size=2)),
        **ROWS,
    )


@st.composite
def named_pairs(draw, folder, *, video, ids):
    """Pairs whose documents have ids, each for one document."""
    items = field_items(folder, video=video)
    documents = draw(st.lists(items, min_size=1, max_size=4))
    names = draw(st.lists(ids, min_size=len(documents), max_size=len(documents), unique=True))
    known = list(zip(names, documents, strict=True))
    pairs = []
    for _ in range(draw(st.integers(1, 4))):
        right = draw(st.lists(st.sampled_from(known), min_size=1, max_size=3))
        wrong = draw(st.lists(st.sampled_from(known), max_size=3))
        negatives = tuple(Negative(item, target_id=name) for name, item in wrong)
        positives, target_ids = tuple(item for _, item in right), tuple(name for name, _ in right)
        pairs.append(Pair(draw(items), positives, negatives, query_id=draw(ids), target_ids=target_ids))
    return pairs


@st.composite
def column_pairs(draw, folder):
    """Pairs whose columns are each of one kind, all with scores or none."""
    count = draw(st.integers(0, 2))
    kinds = [draw(st.sampled_from(("t", "i", "v", "ti", "tv", "tiv", "ii", "tii"))) for _ in range(2 + count)]
    scored = draw(st.booleans())

    def item(kind):
        parts = [draw(clips(folder))] * ("v" in kind) + [draw(pictures(folder)) for _ in range(kind.count("i"))]
        return Item((*parts, *([draw(words())] if "t" in kind else [])), verbatim=False)

    def pair():
        query, positive, *wrong = map(item, kinds)
        number = st.floats(-100, 100)
        scores = tuple(draw(number) for _ in range(1 + count)) if scored else ()
        return Pair(query, (positive,), tuple(map(Negative, wrong)), scores)

    return [pair() for _ in range(draw(st.integers(1, 4)))]


ROWS = {"min_size": 1, "max_size": 12}
MBEIR_IDS = st.builds(lambda a, b: f"{a}:{b}", st.integers(0, 9), st.integers(0, 10**7))
PAIRS = {
    "mmeb": mmeb_pairs,
    "m-beir": lambda folder: named_pairs(folder, video=False, ids=MBEIR_IDS),
    "megapairs": megapairs_pairs,
    "tevatron": lambda folder: named_pairs(folder, video=True, ids=NAMES),
    "ms-swift": ms_swift_pairs,
    "sentence-transformers": column_pairs,
}
"""Pairs that each format can hold, of media in a folder."""


def mmeb_rows():
    names = st.sampled_from(PICTURES)
    told = st.tuples(words(), st.just(""))
    shown = st.builds(
        lambda before, after, name: (f"{before}{TOKEN}{after}", name), maybe(words()), maybe(words()), names
    )
    stray = st.builds(lambda before, after: (f"{before}{TOKEN}{after}", ""), words(), maybe(words()))
    side = st.one_of(told, shown, stray)
    wrong = st.one_of(side, st.just(("", "")), names.map(lambda name: ("", name))).filter(lambda one: one[0] != TOKEN)
    columns = ("qry", "qry_image_path", "pos_text", "pos_image_path", "neg_text", "neg_image_path")
    return st.builds(lambda *sides: dict(zip(columns, sum(sides, ()), strict=True)), side, side, wrong)


def maybe(strategy):
    return st.one_of(st.just(""), strategy)


def mbeir_item(draw, text, image, kind):
    shown, told = draw(st.sampled_from([(True, False), (False, True), (True, True)]))
    return {
        text: draw(words()) if told else None,
        image: draw(st.sampled_from(PICTURES)) if shown else None,
        kind: ",".join(["image"] * shown + ["text"] * told),
    }


@st.composite
def mbeir_files(draw):
    """Queries and the pool that holds what they name, in the order in which they name it."""
    names = draw(st.lists(MBEIR_IDS, min_size=1, max_size=4, unique=True))
    pool = {
        name: {"did": name, **mbeir_item(draw, "txt", "img_path", "modality"), "src_content": None} for name in names
    }
    rows, used = [], {}
    for _ in range(draw(st.integers(1, 3))):
        right = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3))
        wrong = draw(st.lists(st.sampled_from(names), max_size=2))
        used |= dict.fromkeys([*right, *wrong])
        asked = mbeir_item(draw, "query_txt", "query_img_path", "query_modality")
        task = TASKS[asked["query_modality"], pool[right[0]]["modality"]]
        ids = {"qid": draw(MBEIR_IDS), "pos_cand_list": right, "neg_cand_list": wrong}
        rows.append({**ids, **asked, "query_src_content": None, "task_id": task})
    return rows, [pool[name] for name in used]


@st.composite
def tevatron_files(draw):
    """Queries and the corpus that holds what they name, in the order in which they name it."""

    def fields(before):
        text, image, video = (
            draw(maybe(words())),
            draw(st.one_of(st.none(), st.sampled_from(PICTURES))),
            draw(st.one_of(st.none(), st.sampled_from(CLIPS))),
        )
        text = text or ("words" if image is None and video is None else "")
        found = {"text": text, "image": image, "video": video}
        return {f"{before}{kind}": value for kind, value in found.items() if value is not None}

    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    corpus = {name: {"docid": name, **fields("")} for name in names}
    rows, used = [], {}
    for _ in range(draw(st.integers(1, 3))):
        right = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3))
        wrong = draw(st.lists(st.sampled_from(names), max_size=2))
        used |= dict.fromkeys([*right, *wrong])
        ids = {"query_id": draw(NAMES), "positive_document_ids": right, "negative_document_ids": wrong}
        rows.append({**ids, **fields("query_")})
    return rows, [corpus[name] for name in used]


def megapairs_rows():
    names = st.sampled_from(PICTURES)
    return st.fixed_dictionaries(
        {"q_img": names, "q_text": st.lists(words(), **ROWS), "t_img": names, "hns": st.lists(names, max_size=3)}
    )


@st.composite
def ms_swift_rows(draw):
    def chat():
        media = draw(st.lists(st.sampled_from([*PICTURES, *CLIPS]), max_size=3))
        content = draw(maybe(words()))
        for name in media:
            content += ("<image>" if name in PICTURES else "<video>") + draw(maybe(words()))
        told = draw(st.one_of(st.none(), words()))
        turns = [] if told is None else [{"role": "system", "content": told}]
        turns.append({"role": "user", "content": content or "words"})
        shown = [name for name in media if name in PICTURES]
        return {"messages": turns, "images": shown, "videos": [name for name in media if name in CLIPS]}

    row = {name: value for name, value in chat().items() if value}
    for side, count in (("positive_", 1), ("negative_", draw(st.integers(0, 2)))):
        chats = [chat() for _ in range(count)]
        for name in ("messages", "images", "videos"):
            if any(one[name] for one in chats):
                row[f"{side}{name}"] = [one[name] for one in chats]
    return row


@st.composite
def column_rows(draw):
    """Rows of sentence-transformers, each column of one kind."""
    count, scored = draw(st.integers(0, 2)), draw(st.booleans())
    names = ["anchor", "positive", *(f"negative_{i + 1}" for i in range(count))]
    kinds = {name: draw(st.sampled_from(("text", "i", "v", "it", "ivt", "ii"))) for name in names}

    def value(kind):
        if kind == "text":
            return draw(words())
        image = [draw(st.sampled_from(PICTURES)) for _ in range(kind.count("i"))]
        made = {"video": draw(st.sampled_from(CLIPS))} if "v" in kind else {}
        made |= {"image": image if len(image) > 1 else image[0]} if image else {}
        return made | ({"text": draw(words())} if "t" in kind else {})

    def row():
        scores = [draw(st.floats(-10, 10)) for _ in range(1 + count)]
        label = {"label": scores if count else scores[0]} if scored else {}
        return {name: value(kind) for name, kind in kinds.items()} | label

    return [row() for _ in range(draw(st.integers(1, 4)))]


def alone(rows):
    """Files of rows without a corpus."""
    return rows.map(lambda found: (found, None))


FILES = {
    "mmeb": alone(st.lists(mmeb_rows(), **ROWS)),
    "m-beir": mbeir_files(),
    "megapairs": alone(
        st.lists(
            megapairs_rows(), min_size=1, max_size=3, unique_by=lambda row: (row["q_img"], row["t_img"], *row["hns"])
        )
    ),
    "tevatron": tevatron_files(),
    "ms-swift": alone(st.lists(ms_swift_rows(), **ROWS)),
    "sentence-transformers": alone(column_rows()),
}
"""Rows of each format as it writes them, and their corpus where it has one."""
