"""Between text and tokens: the model's tokenizer, and text from tokens that come one by one."""

import codecs
from pathlib import Path
from typing import Any, Protocol

from penstock.core.errors import Damaged
from penstock.engine.signal_stack import own_signal_stack

_CHUNK = 4096


class Detokenizer(Protocol):
    """Text of one sequence of tokens, as they come."""

    def feed(self, tokens: list[int]) -> str:
        """The text that `tokens` complete: bytes of a character that is not whole yet wait."""

    def finish(self) -> str:
        """What was waiting; broken UTF-8 becomes U+FFFD."""


class Tokenizer:
    """The tokenizer of the model in a folder, as converted to OpenVINO.

    Attributes:
        size: number of token ids; every id below it can be asked for.
        pieces: what bytes each token stands for (special tokens: none), or None if tokens do not stand for bytes each.

    Raises:
        Damaged: if it cannot be loaded.
    """

    def __init__(self, directory: Path) -> None:
        import openvino_genai

        try:
            with own_signal_stack():
                self._tokenizer: Any = openvino_genai.Tokenizer(str(directory), INFERENCE_NUM_THREADS=1)
            vocabulary: dict[bytes, int] = self._tokenizer.get_vocab()
        except RuntimeError as error:
            raise Damaged(f"{directory} has a tokenizer that cannot be loaded: {str(error).splitlines()[0]}") from error
        self.size = max(vocabulary.values()) + 1
        self.eos_id: int = self._tokenizer.get_eos_token_id()
        self.bos_id: int = self._tokenizer.get_bos_token_id()
        self._strip = False
        self.pieces = self._find_pieces(vocabulary)

    @property
    def template(self) -> str | None:
        """The chat template that the conversion put into the tokenizer."""
        return self._tokenizer.get_original_chat_template() or None

    def encode(self, text: str, *, special: bool) -> list[int]:
        """The tokens of `text`; `special`: with those that begin a text, never twice."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=special).input_ids.data[0].tolist()
        while len(ids) > 1 and ids[0] == ids[1] == self.bos_id:
            del ids[0]
        return ids

    def detokenizer(self) -> Detokenizer:
        """For one new sequence."""
        if self.pieces is None:
            return WindowDetokenizer(self._tokenizer)
        return PieceDetokenizer(self.pieces, strip=self._strip)

    def piece(self, token: int) -> bytes:
        """The bytes of one token, as log-probabilities name it; special tokens by their text."""
        if self.pieces is not None and 0 <= token < len(self.pieces):
            return self.pieces[token]
        return str(self._tokenizer.decode([token], skip_special_tokens=False)).encode()

    def _find_pieces(self, vocabulary: dict[bytes, int]) -> list[bytes] | None:
        """The bytes of each token, if joining them gives what the detokenizer gives; checked on every token."""
        decoded: list[str] = []
        for start in range(0, self.size, _CHUNK):
            decoded += self._tokenizer.decode([[i] for i in range(start, min(start + _CHUNK, self.size))])
        raw: list[bytes | None] = [None] * self.size
        for piece, token in vocabulary.items():
            raw[token] = piece
        for read, strip in ((_as_is, False), (_sentencepiece, True)):
            pieces = []
            for text, known in zip(decoded, raw, strict=True):
                meant = b"" if not text else text.encode() if known is None else read(known)
                shown = meant.decode(errors="replace")
                if shown != text and not (strip and shown.removeprefix(" ") == text):
                    break
                pieces.append(meant)
            else:
                self._strip = strip
                return pieces
        return None


def _as_is(piece: bytes) -> bytes:
    return piece


def _sentencepiece(piece: bytes) -> bytes:
    if len(piece) == 6 and piece.startswith(b"<0x") and piece.endswith(b">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("▁".encode(), b" ")


class PieceDetokenizer:
    """Joins the bytes of tokens: a list look-up a token."""

    __slots__ = ("_decode", "_pieces", "_strip")

    def __init__(self, pieces: list[bytes], *, strip: bool) -> None:
        self._pieces = pieces
        self._strip = strip  # a text's first space is part of its first token only in the vocabulary
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def feed(self, tokens: list[int]) -> str:
        """The text that `tokens` complete."""
        pieces = self._pieces
        size = len(pieces)
        if len(tokens) == 1 and tokens[0] < size:
            data = pieces[tokens[0]]
        else:
            data = b"".join([pieces[token] for token in tokens if token < size])
        if self._strip and data:
            self._strip = False
            data = data.removeprefix(b" ")
        return self._decode(data)

    def finish(self) -> str:
        """What was waiting."""
        return self._decode(b"", True)


class WindowDetokenizer:
    """Decodes a sliding window of tokens and gives what is new: for tokenizers whose tokens mean nothing alone."""

    __slots__ = ("_from", "_seen", "_tokenizer", "_tokens")

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._from = 0  # the window starts here
        self._seen = 0  # the text of the tokens before this one has been given

    def feed(self, tokens: list[int]) -> str:
        """The text that `tokens` complete."""
        self._tokens += tokens
        text = self._new()
        if not text or text.endswith("�"):
            return ""
        self._from, self._seen = self._seen, len(self._tokens)
        return text

    def finish(self) -> str:
        """What was waiting."""
        text = self._new()
        self._from = self._seen = len(self._tokens)
        return text

    def _new(self) -> str:
        before = self._tokenizer.decode(self._tokens[self._from : self._seen])
        return str(self._tokenizer.decode(self._tokens[self._from :]))[len(before) :]
