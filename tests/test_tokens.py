import pytest
from transformers import CLIPTokenizer

from realcompo_core.errors import PhraseNotInPromptError, PhrasePastLimitError, TokenAlignmentError
from realcompo_core.text.tokens import (
    number_tokens,
    phrase_indices,
    phrase_tokens,
    strip_weights,
    token_groups,
    word_tokens,
)

MERGES = "c a, ca t</w>, d o, do g</w>, r e, re d</w>, c u, cu p</w>, i n</w>, o n</w>"


def byte_letters():
    """GPT-2's and CLIP's printable stand-ins for the 256 bytes, in byte order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [letters[byte] for byte in range(256)]


@pytest.fixture(scope="module")
def tokenizer():
    """A real CLIPTokenizer with a few merges: known short words are one token, others one token per byte."""
    merges = [tuple(merge.split(" ")) for merge in MERGES.split(", ")]
    letters = byte_letters()
    vocab = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge) for merge in merges)]
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(vocab)}, merges=merges)


def sequence(tokenizer, prompt, chunk=77):
    """Independent of the code under test: the tokens of the whole conditioning sequence, by way of the tokenizer."""
    ids = tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]
    tokens = tokenizer.convert_ids_to_tokens(ids)
    chunks = []
    while tokens or not chunks:
        part, tokens = tokens[: chunk - 2], tokens[chunk - 2 :]
        chunks += ["BOS", *part, *["EOS"] * (chunk - 1 - len(part))]
    return chunks


def spelled(tokens):
    """The text of byte-pair tokens, a space after each word."""
    byte = {letter: i for i, letter in enumerate(byte_letters())}
    text = "".join(tokens).replace("</w>", " ")
    return b" ".join(bytes(byte[c] for c in word) for word in text.split()).decode()


def texts(tokenizer, prompt, phrases, chunk=77, **options):
    """What each phrase's token indices spell in the sequence of the stripped prompt."""
    tokens = sequence(tokenizer, strip_weights(prompt), chunk)
    found = phrase_tokens(tokenizer, prompt, phrases, chunk=chunk, **options)
    return [spelled([tokens[i] for i in indices]) for indices in found]


def test_head_noun_without_and_with_adjectives(tokenizer):
    prompt = "a red cat in a cup"
    assert phrase_tokens(tokenizer, prompt, ["a red cat", "a cup"]) == [[3], [6]]
    assert phrase_tokens(tokenizer, prompt, ["a red cat", "a cup"], include_adjectives=True) == [[2, 3], [6]]


def test_a_word_of_many_tokens_gets_them_all(tokenizer):
    assert phrase_tokens(tokenizer, "a corgi on a cat", ["a corgi"]) == [[2, 3, 4, 5, 6]]


@pytest.mark.parametrize(
    "prompt, phrase, expected",
    [
        ("three cars", "a car", "cars"),
        ("One CHILD", "children", "child"),
        ("cat,dog;(cup)", "a dog", "dog"),
        ("the dog's red cup", "the dog", "dog"),
        ("a man’s hat", "a man", "man"),
        ("un café, l'été", "café", "café"),
        ("cafe\u0301 and cat", "the café", "café"),
        ("5² 1½ teddy_bear", "a bear", "bear"),
        ("a white t-shirt!", "t-shirt", "t - shirt"),
        ("a 🐶 on a cat", "🐶", "🐶"),
        ("一只猫 in a cup", "猫", "一只猫"),
    ],
)
def test_tokens_spell_the_noun(tokenizer, prompt, phrase, expected):
    assert texts(tokenizer, prompt, [phrase]) == [expected]


def test_repeated_nouns_in_order_and_by_adjective(tokenizer):
    assert phrase_tokens(tokenizer, "a cat on a cat", ["a cat", "a cat"]) == [[2], [5]]
    assert phrase_tokens(tokenizer, "a tan cup in a red cup", ["a red cup", "a tan cup"]) == [[9], [5]]


@pytest.mark.parametrize("chunk", [77, 32])
@pytest.mark.parametrize("filler", range(0, 160, 7))
def test_long_prompts_continue_in_further_chunks(tokenizer, filler, chunk):
    prompt = "red " * filler + "a corgi in a cup"
    assert texts(tokenizer, prompt, ["a corgi", "a cup"], chunk) == ["corgi", "cup"]


def test_last_token_of_a_chunk_and_first_of_the_next(tokenizer):
    assert phrase_tokens(tokenizer, "red " * 74 + "cat cup", ["cat", "cup"]) == [[75], [78]]


def test_phrase_past_the_limit_is_an_error_without_chunks(tokenizer):
    prompt = "red " * 74 + "cat cup"
    assert phrase_tokens(tokenizer, prompt, ["cat"], chunked=False) == [[75]]
    with pytest.raises(PhrasePastLimitError, match=r"'a cup' is past the 75 tokens.* cat 75, cup 78\."):
        phrase_tokens(tokenizer, prompt, ["cat", "a cup"], chunked=False)


@pytest.mark.parametrize(
    "prompt, plain",
    [
        ("a (red:1.2) car", "a red car"),
        ("((a cat)) on [a cup]", "a cat on a cup"),
        ("(a (red:1.3) cat:0.9)", "a red cat"),
        (r"a cat \(animal\)", "a cat (animal)"),
        ("(red:.5)cat", "red cat"),
        ("a cat", "a cat"),
        ("ratio 3:4 (so)", "ratio 3:4 so"),
        ("", ""),
    ],
)
def test_strip_weights(prompt, plain):
    assert strip_weights(prompt) == plain


def test_weights_take_no_tokens_unless_they_are_text(tokenizer):
    prompt = "a (red:1.2) cat"
    assert phrase_tokens(tokenizer, prompt, ["a red cat"], include_adjectives=True) == [[2, 3]]
    literal = phrase_tokens(tokenizer, prompt, ["a red cat"], include_adjectives=True, weights=False)
    tokens = sequence(tokenizer, prompt)
    assert literal == [[tokens.index("red</w>"), tokens.index("cat</w>")]]
    assert literal != [[2, 3]]


def test_missing_phrase_is_named_with_the_prompts_tokens(tokenizer):
    with pytest.raises(PhraseNotInPromptError) as error:
        phrase_tokens(tokenizer, "a corgi, red cup", ["a zebra"])
    assert "'a zebra'" in str(error.value)
    assert "a 1, corgi 2-6, , 7, red 8, cup 9" in str(error.value)


def test_no_phrase_is_found_in_an_empty_prompt(tokenizer):
    with pytest.raises(PhraseNotInPromptError, match="'a cat'"):
        phrase_tokens(tokenizer, " ", ["a cat"])


def test_tokenizer_that_joins_pieces_is_aligned_by_spaces(tokenizer):
    def repairing(
        text, **options
    ):  # as ftfy does: the curly apostrophe becomes a straight one, and CLIP's "'s" a piece
        straight = text.replace("’", "'") if isinstance(text, str) else [part.replace("’", "'") for part in text]
        return tokenizer(straight, **options)

    tokens = sequence(tokenizer, "red cup, a man's cat")
    man, cat = phrase_tokens(repairing, "red cup, a man’s cat", ["a man", "a cat"])
    assert spelled([tokens[i] for i in man]) == "man 's"
    assert spelled([tokens[i] for i in cat]) == "cat"


def test_tokenizer_that_reads_words_in_context_is_refused(tokenizer):
    def contextual(text, **options):
        if isinstance(text, str):
            return {"input_ids": [0]}
        return tokenizer(text, **options)

    with pytest.raises(TokenAlignmentError, match="'a cat'"):
        phrase_tokens(contextual, "a cat", ["a cat"])


def test_word_tokens(tokenizer):
    assert word_tokens(tokenizer, "a (corgi:1.2), red cup!") == [
        ("a", [1]),
        ("corgi", [2, 3, 4, 5, 6]),
        ("red", [8]),
        ("cup", [9]),
    ]
    assert word_tokens(tokenizer, "") == []


def test_phrase_indices_without_a_tokenizer():
    pieces = [("a ", [1]), ("red ", [2]), ("cor", [3]), ("gi ", [4]), ("on ", [78]), ("a ", [79]), ("cup", [80])]
    assert phrase_indices(pieces, ["a cup", "a red corgi"], include_adjectives=True) == [[80], [2, 3, 4]]


@pytest.mark.parametrize("chunk", [3, 4, 32, 77])
def test_number_tokens_against_a_laid_out_sequence(chunk):
    counts = [1, 3, 0, 2, 5, 1, 70, 9]
    content = [piece for piece, count in enumerate(counts) for _ in range(count)]
    laid_out = []
    for start in range(0, len(content), chunk - 2):
        laid_out += ["BOS", *content[start : start + chunk - 2], "EOS"]
    expected = [[i for i, piece in enumerate(laid_out) if piece == wanted] for wanted in range(len(counts))]
    assert number_tokens(counts, chunk) == expected


def test_objects_of_one_phrase_are_joined(tokenizer):
    indices = phrase_tokens(tokenizer, "two cats and a cup", ["a cat", "a cup", "a cat"])
    (cats, cup) = token_groups(indices)
    assert cats == (indices[0], [0, 2])
    assert cup == (indices[1], [1])


def test_objects_that_share_one_token_are_joined_through_a_third():
    assert token_groups([[1, 2], [5], [3, 4], [2, 3]]) == [([1, 2, 3, 4], [0, 2, 3]), ([5], [1])]
    assert token_groups([]) == []
