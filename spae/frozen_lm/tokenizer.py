"""The text tokenizer of a language model, behind one small protocol: GGUF, Hugging Face or tiktoken."""

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from spae.errors import InputError
from spae.unicode import check_unicode

# The regular expressions that split text before byte-pair merging, by the name GGUF gives them.
# They belong to the models' published tokenizers.
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPLIT_LLAMA3 = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLIT_QWEN2 = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT2 = ("gpt-2", "default")
_DIGITS_THEN_GPT2 = ("smollm", "starcoder", "refact", "command-r")
_LLAMA3 = ("llama-bpe", "llama3", "llama-v3")
_QWEN2 = ("qwen2", "deepseek-r1-qwen")

# GGUF's token types.
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
_BLANKS = " \t\r\n▁"  # the last is SentencePiece's space


class TextTokenizer(Protocol):
    """What this project asks of a language model's tokenizer."""

    @property
    def size(self) -> int:
        """One more than the largest token id."""

    def encode(self, text: str) -> list[int]:
        """Token ids of the text, with nothing added in front or behind. A control token spelled out in it (such as
        `<|im_end|>`) is text like any other: people's texts cannot end their turn, or a file.

        Raises:
            InputError: the text holds half a surrogate pair, so it is none.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, control tokens included."""


class HuggingFaceTokenizer:
    """A `tokenizers.Tokenizer`, from a tokenizer.json or from the metadata of a GGUF file."""

    def __init__(self, tokenizer: Any) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        # Many files call only some of their control tokens special (Qwen's <tool_call> and <|file_sep|> are not). Runs
        # of spaces and line breaks, which others add, stay what they are.
        added = tokenizer.get_added_tokens_decoder().values()
        tokenizer.add_special_tokens(
            [_as_special(token) for token in added if not token.special and token.content.strip(_BLANKS)]
        )
        self._tokenizer = tokenizer
        tokenizer.encode_special_tokens = False
        marks = list(self.control_tokens)[:1]
        behind = tokenizer.encode("".join(marks) + "a", add_special_tokens=False).ids[len(marks) :]
        tokenizer.encode_special_tokens = True  # as text, that is
        # Whether a text behind a control token is written like one that begins there: SentencePiece's space in front of
        # the first word is, in some files, in front of the very first alone.
        self.begins_anew = behind == self.encode("a")

    @classmethod
    def from_file(cls, path: Path) -> "HuggingFaceTokenizer":
        """Reads a tokenizer.json.

        Raises:
            InputError: it is missing, or not one.
        """
        tokenizers = import_tokenizers()
        if not path.is_file():
            raise InputError(f"tokenizer: wanted the file {path}; there is none; save it beside the weights")
        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises bare Exception for anything it cannot parse
            raise InputError(f"tokenizer: {path} is not a tokenizer.json: {error}") from error

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> "HuggingFaceTokenizer":
        """Builds the tokenizer from GGUF metadata (keys `tokenizer.ggml.*`, values as plain Python).

        Byte-level BPE (`tokenizer.ggml.model` = gpt2, with the splits of SmolLM, GPT-2, Llama 3, Qwen 2)
        and SentencePiece BPE (llama).

        Raises:
            InputError: anything else, or a key that is missing.
        """
        kind = metadata.get("tokenizer.ggml.model")
        known = {"gpt2": (_byte_level, "merges"), "llama": (_sentence_piece, "scores")}
        if kind not in known:
            raise InputError(
                f"tokenizer: this GGUF file has a tokenizer of type {kind!r}; wanted gpt2 or llama; "
                "use the model's Hugging Face folder (tokenizer.json) instead"
            )
        build, needed = known[kind]
        for key in ("tokens", needed):
            if f"tokenizer.ggml.{key}" not in metadata:
                raise InputError(f"tokenizer: the GGUF file has no tokenizer.ggml.{key}; is it whole?")
        return cls(build(metadata))

    @property
    def size(self) -> int:
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def sha256(self) -> str:
        """Of its tokens and their ids, in hexadecimal."""
        tokens = sorted(self._tokenizer.get_vocab(with_added_tokens=True).items())
        return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()

    @cached_property
    def longest(self) -> int:
        """No token stands for more letters than this, so n letters are at least n / longest tokens."""
        return max(map(len, self._tokenizer.get_vocab(with_added_tokens=True)))

    def encode(self, text: str) -> list[int]:
        check_unicode(text, "text")
        # Of all the library's doors this one lets other threads run meanwhile.
        return self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def token_id(self, token: str) -> int | None:
        """The id of a token by its exact name, such as `<|im_end|>`; None if there is none."""
        return self._tokenizer.token_to_id(token)

    @cached_property
    def control_tokens(self) -> dict[str, int]:
        """What stands for something else than text, such as `<|im_end|>`, and its id."""
        added = self._tokenizer.get_added_tokens_decoder().items()
        return {token.content: id_ for id_, token in added if token.special}

    def lead(self) -> tuple[int, ...]:
        """What a tokenizer.json puts in front of every text: BOS, or nothing."""
        with_special = self._tokenizer.encode("a").ids
        return tuple(with_special[: with_special.index(self.encode("a")[0])])


class TiktokenTokenizer:
    """An encoding of tiktoken: by name (`cl100k_base`, `o200k_base`, ...), or by the path of its .tiktoken file.

    A file does not say how text is split before merging: it is split as for cl100k. Of lower-case words with a space in
    front o200k makes the same pieces.
    """

    def __init__(self, source: str) -> None:
        try:
            import tiktoken
        except ImportError as error:
            raise InputError("tiktoken is not installed: pip install 'spae[train]'") from error
        if source.endswith(".tiktoken"):
            path = Path(source)
            self._encoding = tiktoken.Encoding(
                path.stem, pat_str=_SPLIT_LLAMA3, mergeable_ranks=_read_ranks(path), special_tokens={}
            )
            return
        known = tiktoken.list_encoding_names()
        if source not in known:
            raise InputError(
                f"tokenizer: there is no tiktoken encoding {source!r}; wanted one of {', '.join(known)}"
            )
        try:
            self._encoding = tiktoken.get_encoding(source)
        except (OSError, ValueError) as error:  # no network, or a damaged file
            raise InputError(
                f"tokenizer: tiktoken cannot download {source}.tiktoken ({type(error).__name__}); bring that file from "
                "a machine with a network and name its path instead, or set TIKTOKEN_CACHE_DIR to a copy of the "
                "folder where that machine's tiktoken keeps it"
            ) from error

    @property
    def name(self) -> str:
        """The encoding's name, or that of its file."""
        return self._encoding.name

    def ranks(self) -> bytes:
        """What its .tiktoken file holds: a token in base64 and its rank a line."""
        tokens = self._encoding.token_byte_values()
        ranks = sorted((self._encoding.encode_single_token(token), token) for token in tokens)
        return b"".join(b"%s %d\n" % (b64encode(token), rank) for rank, token in ranks)

    @property
    def size(self) -> int:
        return self._encoding.max_token_value + 1

    def encode(self, text: str) -> list[int]:
        check_unicode(text, "text")
        return self._encoding.encode(text, disallowed_special=())

    def decode(self, ids: Sequence[int]) -> str:
        # Ids that the encoding leaves unused have no text.
        return self._encoding.decode([i for i in ids if self._known(i)])

    def _known(self, token_id: int) -> bool:
        try:
            self._encoding.decode_single_token_bytes(token_id)
        except KeyError:
            return False
        return True


def _read_ranks(path: Path) -> dict[bytes, int]:
    try:
        lines = [line.split() for line in path.read_bytes().splitlines()]
        ranks = {b64decode(token, validate=True): int(rank) for token, rank in filter(None, lines)}
    except OSError as error:
        raise InputError(f"tokenizer: cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(
            f"tokenizer: {path} is not a .tiktoken file: wanted a token in base64 and its rank a line"
        ) from error
    if len(set(ranks.values())) != len(lines) or not all(bytes([byte]) in ranks for byte in range(256)):
        raise InputError(
            f"tokenizer: {path} is not a whole .tiktoken file: wanted all 256 bytes and every token and rank once"
        )
    return ranks


def _as_special(token: Any) -> Any:
    return import_tokenizers().AddedToken(
        token.content,
        special=True,
        normalized=token.normalized,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        single_word=token.single_word,
    )


def import_tokenizers() -> ModuleType:
    """The package with the parts that are used of it.

    Raises:
        InputError: it is not installed.
    """
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.normalizers
        import tokenizers.pre_tokenizers
    except ImportError as error:
        raise InputError("tokenizers is not installed: pip install 'spae[train]'") from error
    return tokenizers


def _byte_level(metadata: Mapping[str, Any]) -> Any:
    tokenizers = import_tokenizers()
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    pre = metadata.get("tokenizer.ggml.pre", "default")
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    if pre in _GPT2:
        splits = [byte_level(add_prefix_space=False, use_regex=True)]
    elif pre in _DIGITS_THEN_GPT2:
        splits = [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            byte_level(add_prefix_space=False, use_regex=True),
        ]
    elif pre in _LLAMA3 or pre in _QWEN2:
        pattern = tokenizers.Regex(_SPLIT_LLAMA3 if pre in _LLAMA3 else _SPLIT_QWEN2)
        splits = [
            tokenizers.pre_tokenizers.Split(pattern, behavior="isolated"),
            byte_level(add_prefix_space=False, use_regex=False),
        ]
    else:
        known = ", ".join((*_GPT2, *_DIGITS_THEN_GPT2, *_LLAMA3, *_QWEN2))
        raise InputError(
            f"tokenizer: this GGUF file splits text by {pre!r}, which is not known here (known: {known}); "
            "use the model's Hugging Face folder (tokenizer.json) instead"
        )
    model = tokenizers.models.BPE(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=merges,
        ignore_merges=pre in _LLAMA3,
    )
    tokenizer = tokenizers.Tokenizer(model)
    if pre in _QWEN2:
        tokenizer.normalizer = tokenizers.normalizers.NFC()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(splits)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    _add_special_tokens(tokenizer, metadata)
    return tokenizer


def _sentence_piece(metadata: Mapping[str, Any]) -> Any:
    """SentencePiece BPE: always merge the adjacent pair whose joined piece scores highest.

    `tokenizers` wants a ranked list of merges instead: every way of making a piece from two others,
    ordered by the score of the piece.
    """
    tokenizers = import_tokenizers()
    tokens = metadata["tokenizer.ggml.tokens"]
    scores = metadata["tokenizer.ggml.scores"]
    types = metadata.get("tokenizer.ggml.token_type") or [_NORMAL] * len(tokens)
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = []
    # No text is merged into a control token ("<" and "s>" into "<s>"), or into one that stands for a byte.
    for i in sorted((i for i in range(len(tokens)) if types[i] == _NORMAL), key=lambda i: -scores[i]):
        piece = tokens[i]
        merges += [
            (piece[:cut], piece[cut:])
            for cut in range(1, len(piece))
            if piece[:cut] in vocabulary and piece[cut:] in vocabulary
        ]
    unknown = tokens[metadata.get("tokenizer.ggml.unknown_token_id", 0)]
    model = tokenizers.models.BPE(
        vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True
    )
    tokenizer = tokenizers.Tokenizer(model)
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    normalizers = [tokenizers.normalizers.Prepend("▁")] if prefix else []
    normalizers.append(tokenizers.normalizers.Replace(" ", "▁"))
    tokenizer.normalizer = tokenizers.normalizers.Sequence(normalizers)
    decoders = [
        tokenizers.decoders.Replace("▁", " "),
        tokenizers.decoders.ByteFallback(),
        tokenizers.decoders.Fuse(),
    ]
    if prefix:
        decoders.append(tokenizers.decoders.Strip(content=" ", left=1, right=0))
    tokenizer.decoder = tokenizers.decoders.Sequence(decoders)
    _add_special_tokens(tokenizer, metadata)
    return tokenizer


def _add_special_tokens(tokenizer: Any, metadata: Mapping[str, Any]) -> None:
    tokenizers = import_tokenizers()
    tokens = metadata["tokenizer.ggml.tokens"]
    types = metadata.get("tokenizer.ggml.token_type", [])
    pairs = list(zip(tokens, types, strict=False))
    tokenizer.add_special_tokens(
        [tokenizers.AddedToken(t, special=True, normalized=False) for t, kind in pairs if kind == _CONTROL]
    )
    tokenizer.add_tokens(
        [
            tokenizers.AddedToken(t, special=False, normalized=False)
            for t, kind in pairs
            if kind == _USER_DEFINED
        ]
    )
