"""What a dual encoder's tokenizer is, and which id a word has in it."""

import json
from typing import Any

from mmembed.errors import InputError
from mmembed.models.backbones.dual_encoder.preprocess import DualEncoderPreprocessor


def single_token(preprocessor: DualEncoderPreprocessor, word: str) -> int:
    """The id of a word that is one token of the tokenizer where it stands between others.

    Raises:
        InputError: it is several, none (SigLIP's tokenizer drops punctuation), or the one of all unknown words.
    """
    # some tokenizers have another token for a word that a space stands before
    around, inside = preprocessor.read("a a"), preprocessor.read(f"a {word} a")
    unknown = getattr(getattr(preprocessor.tokenizer, "tokenizer", None), "unk_token_id", None)
    for token in around:
        if token in inside:
            inside.remove(token)
    if len(inside) != 1 or inside[0] == unknown:
        got = f"'{word}', {len(inside) or 'no'} tokens" if len(inside) != 1 else f"'{word}', which is unknown to it"
        raise InputError(
            "token", expected="a word that is one token of the tokenizer", got=got,
            remedy="take another word for it: '$' is one to CLIP's, 'word' to most",
        )  # fmt: skip
    return int(inside[0])


def vocabulary(tokenizer: Any) -> tuple[str, ...]:
    """Everything that a tokenizer's tokens depend on."""
    read = getattr(tokenizer, "tokenizer", None)
    words = json.dumps(tokenizer.encoder) if read is None else read.backend_tokenizer.to_str()
    kept = {name: value for name, value in vars(tokenizer).items() if isinstance(value, str | int | bool)}
    return type(tokenizer).__name__, words, tokenizer.clean_fn.__name__, json.dumps(kept, sort_keys=True)
